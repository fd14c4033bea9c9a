#include "operators.h"

#include "lookup.h"

void st_run_lookup(st_context_t *c, const st_op_lookup_t *op) {
    const int8_t *table = PLACE_FIXED(int8_t, op->table, 256);
    const int8_t *x = PLACE(int8_t, op->x, op->count);
    int8_t *y = PLACE_OUT(int8_t, op->y, op->count);
    if (c->status == ST_OK)
        lookup_s8(table, x, op->count, y);
}

void st_run_lookup_grad_input(st_context_t *c, const st_op_lookup_grad_t *op) {
    const int16_t *slope = PLACE_FIXED(int16_t, op->slope, 256);
    const int8_t *x = PLACE(int8_t, op->x, op->count);
    const int16_t *dy = PLACE(int16_t, op->dy, op->count);
    st_emit_t e = st_open_error(c, &op->out, &op->head, op->count);
    if (c->status)
        return;
    lookup_grad_input(slope, x, dy, op->count, &e);
    st_emit_end(&e);
}
