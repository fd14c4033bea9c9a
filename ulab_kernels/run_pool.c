#include "operators.h"

#include "avg_pool.h"

void st_run_avg_pool(st_context_t *c, const st_op_pool_t *op) {
    const st_conv_geometry_t *g = st_pool_geometry(c, op->geometry);
    if (!g)
        return;
    const int8_t *x = PLACE(int8_t, op->x, st_in_count(g));
    int8_t *y = PLACE_OUT(int8_t, op->y, st_out_count(g));
    if (c->status == ST_OK)
        avg_pool_s8(g, x, y);
}

void st_run_avg_pool_grad_input(st_context_t *c, const st_op_pool_grad_t *op) {
    const st_conv_geometry_t *g = st_pool_geometry(c, op->geometry);
    if (!g)
        return;
    const int16_t *dy = PLACE(int16_t, op->dy, st_out_count(g));
    int32_t *row = PLACE_OUT(int32_t, op->out.row, g->in_c);
    st_emit_t e = st_open_error(c, &op->out, &op->head, st_in_count(g));
    if (!st_in_range(op->count_log2, 0, 12))
        c->status = ST_BAD_OPERATOR;
    if (c->status)
        return;
    avg_pool_grad_input(g, op->count_log2, dy, row, &e);
    st_emit_end(&e);
}
