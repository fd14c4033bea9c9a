#include "operators.h"

#include "activation.h"
#include "avg_pool.h"
#include "depthwise_conv2d.h"
#include "random.h"

static int error_exponent(st_context_t *c, st_ref_t at) {
    if (st_is_nowhere(at))
        return 0;
    const int16_t *exponent = PLACE(int16_t, at, 1);
    return exponent ? *exponent : 0;
}

// Opens the error tensor of `count` elements that an operator writes.
static st_emit_t open_error(st_context_t *c, const st_error_out_t *out, const st_op_head_t *h,
                            int64_t count) {
    st_emit_t e = {
        .state = {PLACE_OUT(int16_t, out->exponent_at, 1), PLACE_OUT(int16_t, out->shift_at, 1)},
        .data = PLACE_OUT(int16_t, out->data, count),
        .count = (int32_t)count,
        .limit = out->limit,
    };
    const int base = error_exponent(c, out->dy_exponent_at) + st_clamp(out->exponent, -256, 256);
    if (!st_in_range(out->limit, 1, 32767) || !st_in_range(out->exponent, -256, 256))
        c->status = ST_BAD_OPERATOR;
    if (c->status == ST_OK)
        st_emit_begin(&e, base, h->flags & FLAG_ACCUMULATE);
    return e;
}

void st_run_loss(st_context_t *c, const st_op_loss_t *op) {
    const st_softmax_params_t *p = st_softmax_params(c, op->params);
    if (!p)
        return;
    st_control_t *control = st_control_of(c);
    const int8_t *logits = PLACE(int8_t, op->logits, p->depth);
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->depth);
    st_emit_t e = open_error(c, &op->out, &op->head, p->depth);
    if (!st_in_range(control->label, 0, p->depth - 1))
        c->status = ST_BAD_LABEL;
    if (c->status)
        return;
    // One sample's gradient may be a thousand times the next one's: find its scale anew. All that
    // is made from it is in proportion, so there the last step's shifts fit.
    e.shift = 0;
    const st_loss_t loss = softmax_cross_entropy(p, logits, control->label, row, &e);
    control->loss_q16 = loss.loss_q16;
    control->predicted = loss.predicted;
    st_emit_end(&e);
}

void st_run_apply_mask(st_context_t *c, const st_op_apply_mask_t *op) {
    int16_t *dy = PLACE_OUT(int16_t, op->dy, op->count);
    const uint8_t *bits = PLACE(uint8_t, op->bits, ((int64_t)op->count + 7) / 8);
    if (c->status == ST_OK)
        apply_mask(dy, op->count, bits);
}

void st_run_error_add(st_context_t *c, const st_op_error_add_t *op) {
    const int16_t *dy = PLACE(int16_t, op->dy, op->count);
    st_emit_t e = open_error(c, &op->out, &op->head, op->count);
    if (c->status)
        return;
    error_add(dy, op->count, &e);
    st_emit_end(&e);
}

void st_run_conv_grad_input(st_context_t *c, const st_op_conv_grad_t *op) {
    const st_conv_geometry_t *g = st_geometry(c, op->geometry);
    if (!st_shape_ok(c, g, &op->head))
        return;
    const st_conv_params_t p = {
        .weights = PLACE(int8_t, op->weights, st_weight_count(g, &op->head)),
        .scale_q15 = PLACE(uint16_t, op->scale_q15, g->out_c),
    };
    const int depthwise = st_is_depthwise(&op->head);
    const int16_t *dy = PLACE(int16_t, op->dy, st_out_count(g));
    int32_t *row = PLACE_OUT(int32_t, op->out.row, (int64_t)g->in_c * (1 + depthwise));
    st_emit_t e = open_error(c, &op->out, &op->head, st_in_count(g));
    if (c->status)
        return;
    if (depthwise)
        depthwise_conv2d_grad_input(g, &p, dy, row, &e);
    else
        conv2d_grad_input(g, &p, dy, row, &e);
    st_emit_end(&e);
}

void st_run_avg_pool_grad_input(st_context_t *c, const st_op_pool_grad_t *op) {
    const st_conv_geometry_t *g = st_pool_geometry(c, op->geometry);
    if (!g)
        return;
    const int16_t *dy = PLACE(int16_t, op->dy, st_out_count(g));
    int32_t *row = PLACE_OUT(int32_t, op->out.row, g->in_c);
    st_emit_t e = open_error(c, &op->out, &op->head, st_in_count(g));
    if (!st_in_range(op->count_log2, 0, 12))
        c->status = ST_BAD_OPERATOR;
    if (c->status)
        return;
    avg_pool_grad_input(g, op->count_log2, dy, row, &e);
    st_emit_end(&e);
}

void st_run_softmax_grad_input(st_context_t *c, const st_op_softmax_grad_t *op) {
    const st_softmax_params_t *p = st_softmax_params(c, op->params);
    if (!p)
        return;
    const int64_t count = (int64_t)p->rows * p->depth;
    const int8_t *y = PLACE(int8_t, op->y, count);
    const int16_t *dy = PLACE(int16_t, op->dy, count);
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->depth);
    st_emit_t e = open_error(c, &op->out, &op->head, count);
    if (c->status)
        return;
    softmax_grad_input(p, y, dy, row, &e);
    st_emit_end(&e);
}

// Writing the weights must not change the list of channels that says where to write.
static int are_apart(const void *a, int64_t a_size, const void *b, int64_t b_size) {
    const uintptr_t a_at = (uintptr_t)a, b_at = (uintptr_t)b;
    return a_at + (size_t)a_size <= b_at || b_at + (size_t)b_size <= a_at;
}

static void place_weights(st_context_t *c, const st_op_update_t *op, const st_conv_geometry_t *g,
                          st_update_t *u) {
    const int64_t n = st_weight_count(g, &op->head);
    u->n_channels = op->chosen;
    u->channels = st_channel_list(c, op->channels, op->chosen, g->in_c);
    u->kept = PLACE(int8_t, op->kept, (int64_t)g->in_h * g->in_w * op->chosen);
    u->weights = PLACE_OUT(int8_t, op->weights, n);
    u->residual = st_is_nowhere(op->residual) ? NULL : PLACE_OUT(int8_t, op->residual, n);
    u->weight_rate = (const st_rate_t *)PLACE(uint16_t, op->weight_rate, 2 * (int64_t)g->out_c);
    const int64_t list = (int64_t)op->chosen * 2;
    if (c->status == ST_OK && !(are_apart(u->channels, list, u->weights, n) &&
                                are_apart(u->channels, list, u->residual, u->residual ? n : 0)))
        c->status = ST_BAD_REF;
}

static void place_bias(st_context_t *c, const st_op_update_t *op, const st_conv_geometry_t *g,
                       st_update_t *u) {
    u->bias = PLACE_OUT(int32_t, op->bias, g->out_c);
    u->bias_rate = (const st_rate_t *)PLACE(uint16_t, op->bias_rate, 2 * (int64_t)g->out_c);
}

void st_run_update(st_context_t *c, const st_op_update_t *op) {
    const st_conv_geometry_t *g = st_geometry(c, op->geometry);
    if (!st_shape_ok(c, g, &op->head))
        return;
    const st_control_t *control = st_control_of(c);
    st_update_t u = {
        .learning_rate = {(uint16_t)control->rate_mantissa, (int16_t)control->rate_exponent},
        .error_exponent = error_exponent(c, op->dy_exponent_at),
        .seed = st_random(control->seed, (uint32_t)op->layer),
    };
    if (op->chosen)
        place_weights(c, op, g, &u);
    if (!st_is_nowhere(op->bias))
        place_bias(c, op, g, &u);
    const int16_t *dy = PLACE(int16_t, op->dy, st_out_count(g));
    int32_t *row = op->chosen ? PLACE_ARENA(int32_t, op->row, op->chosen) : NULL;
    if (c->status)
        return;
    if (st_is_depthwise(&op->head))
        depthwise_conv2d_update(g, dy, &u, row);
    else
        conv2d_update(g, dy, &u, row);
}
