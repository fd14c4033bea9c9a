#include "operators.h"

#include "avg_pool.h"
#include "max_pool.h"

void st_bind_pool(st_context_t *c, const st_op_pool_t *op, st_rows_t rows, st_window_op_t *w) {
    *w = (st_window_op_t){.opcode = op->head.opcode, .cores = c->cores};
    const st_conv_geometry_t *g = st_pool_geometry(c, op->geometry);
    if (!g)
        return;
    if (g->w_zero && g->kernel_h * g->kernel_w > ST_AVG_POOL_MAX_SHIFTED)
        c->status = ST_BAD_OPERATOR;
    w->g = g;
    w->x = PLACE(int8_t, op->x, st_in_bytes(g, rows.in));
    w->y = PLACE_OUT(int8_t, op->y, st_out_bytes(g, rows.out));
}

void st_run_avg_pool(st_context_t *c, const st_op_pool_t *op) {
    st_window_op_t w;
    st_bind_pool(c, op, (st_rows_t){0, 0}, &w);
    if (c->status == ST_OK)
        st_run_window(&w);
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

static const st_conv_geometry_t *max_pool_geometry(st_context_t *c, st_ref_t ref) {
    const st_conv_geometry_t *g = st_pool_geometry(c, ref);
    if (g && g->kernel_h * g->kernel_w > ST_MAX_POOL_MAX_TAPS) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return g;
}

void st_bind_max_pool(st_context_t *c, const st_op_max_pool_t *op, st_rows_t rows,
                      st_window_op_t *w) {
    *w = (st_window_op_t){.opcode = op->head.opcode, .cores = c->cores};
    const st_conv_geometry_t *g = max_pool_geometry(c, op->geometry);
    if (!g)
        return;
    w->g = g;
    w->x = PLACE(int8_t, op->x, st_in_bytes(g, rows.in));
    w->y = PLACE_OUT(int8_t, op->y, st_out_bytes(g, rows.out));
    if (!st_is_nowhere(op->winner))
        w->winner = PLACE_OUT(uint8_t, op->winner, st_out_bytes(g, rows.out));
    if (c->status == ST_OK && !st_are_apart(w->x, (size_t)st_in_bytes(g, rows.in), w->y,
                                            (size_t)st_out_bytes(g, rows.out)))
        c->status = ST_BAD_REF;
}

void st_run_max_pool(st_context_t *c, const st_op_max_pool_t *op) {
    st_window_op_t w;
    st_bind_max_pool(c, op, (st_rows_t){0, 0}, &w);
    if (c->status == ST_OK)
        st_run_window(&w);
}

void st_run_max_pool_grad_input(st_context_t *c, const st_op_max_pool_grad_t *op) {
    const st_conv_geometry_t *g = max_pool_geometry(c, op->geometry);
    if (!g)
        return;
    st_gradient_t job = {.g = g, .row_size = g->in_c};
    job.winner = PLACE(uint8_t, op->winner, st_out_count(g));
    job.dy = PLACE(int16_t, op->dy, st_out_count(g));
    st_place_rows(c, &op->head, op->out.row, &job);
    st_emit_t e = st_open_error(c, &op->out, &op->head, st_in_count(g));
    if (c->status)
        return;
    st_make_input_gradient(&job, &e);
    st_emit_end(&e);
}
