#include "operators.h"

#include "losses.h"

// The tensors of a loss on `count` targets.
typedef struct {
    const int8_t *y, *target;
    int32_t *row;
    st_emit_t e;
} st_targets_t;

static st_targets_t open_targets(st_context_t *c, const st_op_target_loss_t *op, int32_t count) {
    st_targets_t t = {
        .y = PLACE(int8_t, op->y, count),
        .target = PLACE(int8_t, op->target, count),
        .row = PLACE_OUT(int32_t, op->out.row, count),
        .e = st_open_error(c, &op->out, &op->head, count),
    };
    if (!st_in_range(count, 1, ST_MAX_LENGTH))
        c->status = ST_BAD_OPERATOR;
    // As in every loss: one sample's gradient may be a thousand times the next one's.
    t.e.shift = 0;
    return t;
}

static void tell(st_context_t *c, st_target_loss_t loss, const st_targets_t *t, int exponent) {
    st_control_t *control = st_control_of(c);
    control->loss_q16 = loss.loss_q16;
    control->predicted = loss.is_right;
    st_tell_norm(c, t->row, t->e.count, exponent);
    st_emit_end(&t->e);
}

void st_run_mse(st_context_t *c, const st_op_target_loss_t *op) {
    const st_mse_t *p = PLACE_STRUCT(st_mse_t, op->params);
    if (!p)
        return;
    st_targets_t t = open_targets(c, op, p->count);
    if (!st_in_range(p->factor, 0, 1 << 15) || !st_in_range(p->loss_mantissa, 0, 1 << 16) ||
        !st_in_range(p->loss_shift, 0, 62))
        c->status = ST_BAD_OPERATOR;
    if (c->status == ST_OK)
        tell(c, mean_squared_error(p, t.y, t.target, t.row, &t.e), &t, op->out.exponent);
}

void st_run_bce(st_context_t *c, const st_op_target_loss_t *op) {
    const st_bce_t *p = PLACE_STRUCT(st_bce_t, op->params);
    if (!p)
        return;
    st_targets_t t = open_targets(c, op, p->count);
    if (c->status == ST_OK)
        tell(c, binary_cross_entropy(p, t.y, t.target, t.row, &t.e), &t, op->out.exponent);
}
