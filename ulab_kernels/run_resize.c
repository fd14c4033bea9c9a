#include "operators.h"

#include "conv_geometry.h"
#include "resize.h"

// Whether every output is made of what there is, with weights that cannot overflow.
static int are_sound(const st_tap_pair_t *taps, int32_t n, int32_t size) {
    for (int32_t i = 0; i < n; i++) {
        const st_tap_pair_t *t = &taps[i];
        if (t->low < 0 || t->low > t->high || t->high >= size || t->low_weight < 0 ||
            t->high_weight < 0 || t->low_weight + t->high_weight != ST_RESIZE_ONE)
            return 0;
    }
    return 1;
}

static const st_tap_pair_t *place_taps(st_context_t *c, st_ref_t ref, int32_t n) {
    return (const st_tap_pair_t *)PLACE_FIXED(int16_t, ref, st_product(4, n));
}

// All sizes and tables; the context's status says whether they may be used.
static st_resize_t bind_resize(st_context_t *c, const st_resize_refs_t *refs) {
    st_resize_t p = {0};
    const int32_t *n = PLACE_FIXED(int32_t, refs->params, 5);
    for (int i = 0; n && i < 5; i++)
        if (!st_in_range(n[i], 1, ST_MAX_LENGTH))
            c->status = ST_BAD_OPERATOR;
    if (c->status)
        return p;
    p = (st_resize_t){n[0], n[1], n[2], n[3], n[4], NULL, NULL};
    if (st_volume(n[0], n[1], n[2]) < 0 || st_volume(n[3], n[4], n[2]) < 0)
        c->status = ST_BAD_OPERATOR;
    p.rows = place_taps(c, refs->rows, p.out_h);
    p.columns = place_taps(c, refs->columns, p.out_w);
    if (c->status == ST_OK &&
        !(are_sound(p.rows, p.out_h, p.in_h) && are_sound(p.columns, p.out_w, p.in_w)))
        c->status = ST_BAD_OPERATOR;
    return p;
}

void st_run_resize(st_context_t *c, const st_op_resize_t *op) {
    const st_resize_t p = bind_resize(c, &op->refs);
    const int8_t *x = PLACE(int8_t, op->x, st_volume(p.in_h, p.in_w, p.channels));
    int8_t *y = PLACE_OUT(int8_t, op->y, st_volume(p.out_h, p.out_w, p.channels));
    if (c->status == ST_OK)
        resize_s8(&p, x, y);
}

void st_run_resize_grad_input(st_context_t *c, const st_op_resize_grad_t *op) {
    const st_resize_t p = bind_resize(c, &op->refs);
    const int16_t *dy = PLACE(int16_t, op->dy, st_volume(p.out_h, p.out_w, p.channels));
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p.channels);
    st_emit_t e = st_open_error(c, &op->out, &op->head, st_volume(p.in_h, p.in_w, p.channels));
    if (c->status)
        return;
    resize_grad_input(&p, dy, row, &e);
    st_emit_end(&e);
}
