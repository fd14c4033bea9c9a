#include "operators.h"

#include "softmax.h"

void st_run_softmax(st_context_t *c, const st_op_softmax_t *op) {
    const st_softmax_params_t *p = st_softmax_params(c, op->params);
    if (!p)
        return;
    const int8_t *x = PLACE(int8_t, op->x, st_product(p->rows, p->depth));
    int8_t *y = PLACE_OUT(int8_t, op->y, st_product(p->rows, p->depth));
    if (c->status == ST_OK)
        softmax_s8(p, x, y);
}

void st_run_softmax_grad_input(st_context_t *c, const st_op_softmax_grad_t *op) {
    const st_softmax_params_t *p = st_softmax_params(c, op->params);
    if (!p)
        return;
    const st_count_t count = st_product(p->rows, p->depth);
    const int8_t *y = PLACE(int8_t, op->y, count);
    const int16_t *dy = PLACE(int16_t, op->dy, count);
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->depth);
    st_emit_t e = st_open_error(c, &op->out, &op->head, count);
    if (c->status)
        return;
    softmax_grad_input(p, y, dy, row, &e);
    st_emit_end(&e);
}

void st_run_loss(st_context_t *c, const st_op_loss_t *op) {
    const st_softmax_params_t *p = st_softmax_params(c, op->params);
    if (!p)
        return;
    st_control_t *control = st_control_of(c);
    const int8_t *logits = PLACE(int8_t, op->logits, p->depth);
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->depth);
    st_emit_t e = st_open_error(c, &op->out, &op->head, p->depth);
    if (op->smoothing < 0 || op->smoothing > (1 << 30) / p->depth)
        c->status = ST_BAD_OPERATOR;
    if (!st_in_range(control->label, 0, p->depth - 1))
        c->status = ST_BAD_LABEL;
    if (c->status)
        return;
    // One sample's gradient may be a thousand times the next one's: find its scale anew. All that
    // is made from it is in proportion, so there the last step's shifts fit.
    e.shift = 0;
    const st_answer_t answer = {control->label, op->smoothing};
    const st_loss_t loss = softmax_cross_entropy(p, logits, answer, row, &e);
    control->loss_q16 = loss.loss_q16;
    control->predicted = loss.predicted;
    st_tell_norm(c, row, p->depth, op->out.exponent);
    st_emit_end(&e);
}
