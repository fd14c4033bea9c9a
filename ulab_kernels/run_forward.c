#include "operators.h"

#include "activation.h"
#include "add.h"
#include "avg_pool.h"
#include "depthwise_conv2d.h"
#include "fully_connected.h"

int st_is_depthwise(const st_op_head_t *h) {
    return h->opcode == OP_DEPTHWISE_CONV2D || h->opcode == OP_DEPTHWISE_CONV2D_GRAD_INPUT ||
           h->opcode == OP_DEPTHWISE_CONV2D_UPDATE;
}

int64_t st_weight_count(const st_conv_geometry_t *g, const st_op_head_t *h) {
    const int64_t taps = (int64_t)g->kernel_h * g->kernel_w * g->out_c;
    return st_is_depthwise(h) ? taps : taps * g->in_c;
}

static int is_row_of_samples(const st_conv_geometry_t *g) {
    return g->in_h == 1 && g->out_h == 1 && g->in_w == g->out_w;
}

// What the kind of convolution asks of its shape, beyond geometry().
int st_shape_ok(st_context_t *c, const st_conv_geometry_t *g, const st_op_head_t *h) {
    if (g && st_is_depthwise(h) && g->out_c % g->in_c)
        c->status = ST_BAD_OPERATOR;
    if (g && h->opcode == OP_FULLY_CONNECTED && !is_row_of_samples(g))
        c->status = ST_BAD_OPERATOR;
    return c->status == ST_OK;
}

static const st_requant_t *requant_table(st_context_t *c, st_ref_t ref, int32_t n) {
    const st_requant_t *table = (const st_requant_t *)PLACE_FIXED(int32_t, ref, 2 * (int64_t)n);
    for (int32_t i = 0; table && i < n; i++)
        if (!st_in_range(table[i].shift, -31, 30))
            c->status = ST_BAD_OPERATOR;
    return table;
}

void st_run_conv(st_context_t *c, const st_op_conv_t *op) {
    const st_conv_geometry_t *g = st_geometry(c, op->geometry);
    if (!st_shape_ok(c, g, &op->head))
        return;
    const st_conv_params_t p = {
        .weights = PLACE(int8_t, op->weights, st_weight_count(g, &op->head)),
        .bias = PLACE(int32_t, op->bias, g->out_c),
        .requant = requant_table(c, op->requant, g->out_c),
    };
    const int8_t *x = PLACE(int8_t, op->x, st_in_count(g));
    int8_t *y = PLACE_OUT(int8_t, op->y, st_out_count(g));
    if (c->status)
        return;
    if (st_is_depthwise(&op->head))
        depthwise_conv2d_s8(g, &p, x, y);
    else if (op->head.opcode == OP_FULLY_CONNECTED)
        fully_connected_s8(g, &p, x, y);
    else
        conv2d_s8(g, &p, x, y);
}

void st_run_avg_pool(st_context_t *c, const st_op_pool_t *op) {
    const st_conv_geometry_t *g = st_pool_geometry(c, op->geometry);
    if (!g)
        return;
    const int8_t *x = PLACE(int8_t, op->x, st_in_count(g));
    int8_t *y = PLACE_OUT(int8_t, op->y, st_out_count(g));
    if (c->status == ST_OK)
        avg_pool_s8(g, x, y);
}

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

void st_run_softmax(st_context_t *c, const st_op_softmax_t *op) {
    const st_softmax_params_t *p = st_softmax_params(c, op->params);
    if (!p)
        return;
    const int8_t *x = PLACE(int8_t, op->x, (int64_t)p->rows * p->depth);
    int8_t *y = PLACE_OUT(int8_t, op->y, (int64_t)p->rows * p->depth);
    if (c->status == ST_OK)
        softmax_s8(p, x, y);
}

void st_run_clamp_mask(st_context_t *c, const st_op_clamp_mask_t *op) {
    const int8_t *y = PLACE(int8_t, op->y, op->count);
    uint8_t *bits = PLACE_OUT(uint8_t, op->bits, ((int64_t)op->count + 7) / 8);
    if (c->status == ST_OK)
        clamp_mask_s8(y, op->count, op->lo, op->hi, bits);
}

void st_run_keep_channels(st_context_t *c, const st_op_keep_t *op) {
    const st_channels_t channels = {st_channel_list(c, op->channels, op->chosen, op->of),
                                    op->chosen, op->of};
    const int8_t *x = PLACE(int8_t, op->x, (int64_t)op->positions * op->of);
    int8_t *kept = PLACE_ARENA(int8_t, op->kept, (int64_t)op->positions * op->chosen);
    if (c->status == ST_OK)
        keep_channels_s8(x, op->positions, &channels, kept);
}
