#include "operators.h"

#include "activation.h"
#include "add.h"

static int add_params_ok(const st_add_params_t *p) {
    return st_in_range(p->a_zero, -128, 127) && st_in_range(p->b_zero, -128, 127) &&
           st_in_range(p->y_zero, -128, 127) && st_in_range(p->a_scale.shift, -31, 0) &&
           st_in_range(p->b_scale.shift, -31, 0) && st_in_range(p->y_scale.shift, -31, 0);
}

void st_run_add(st_context_t *c, const st_op_add_t *op) {
    const st_add_params_t *p = PLACE_STRUCT(st_add_params_t, op->params);
    const int8_t *a = PLACE(int8_t, op->a, op->count);
    const int8_t *b = PLACE(int8_t, op->b, op->count);
    int8_t *y = PLACE_OUT(int8_t, op->y, op->count);
    if (p && !add_params_ok(p))
        c->status = ST_BAD_OPERATOR;
    if (c->status == ST_OK)
        add_s8(p, a, b, y, op->count);
}

void st_run_error_add(st_context_t *c, const st_op_error_add_t *op) {
    const int16_t *dy = PLACE(int16_t, op->dy, op->count);
    st_emit_t e = st_open_error(c, &op->out, &op->head, op->count);
    if (c->status)
        return;
    error_add(dy, op->count, &e);
    st_emit_end(&e);
}
