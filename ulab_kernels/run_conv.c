#include "operators.h"

#include "conv2d_lanes.h"
#include "depthwise3x3.h"
#include "depthwise_conv2d.h"
#include "fast.h"
#include "fully_connected.h"
#include "random.h"

static int is_depthwise(const st_op_head_t *h) {
    return h->opcode == OP_DEPTHWISE_CONV2D || h->opcode == OP_DEPTHWISE_CONV2D_GRAD_INPUT ||
           h->opcode == OP_DEPTHWISE_CONV2D_UPDATE;
}

static st_count_t weight_count(const st_conv_geometry_t *g, const st_op_head_t *h) {
    if (h->flags & FLAG_PACKED)
        return st_product(fully_connected_packed_rows(g), fully_connected_packed_row(g));
    const st_count_t taps = st_volume(g->kernel_h, g->kernel_w, g->out_c);
    return is_depthwise(h) ? taps : st_product(taps, st_group_inputs(g));
}

static int is_row_of_samples(const st_conv_geometry_t *g) {
    return g->in_h == 1 && g->out_h == 1 && g->in_w == g->out_w;
}

// What the kind of convolution asks of its shape, beyond geometry().
static int shape_ok(st_context_t *c, const st_conv_geometry_t *g, const st_op_head_t *h) {
    if (g && is_depthwise(h) && (g->out_c % g->in_c || g->groups != 1))
        c->status = ST_BAD_OPERATOR;
    if (g && !is_depthwise(h) && (g->in_c % g->groups || g->out_c % g->groups))
        c->status = ST_BAD_OPERATOR;
    if (g && h->opcode == OP_FULLY_CONNECTED && !is_row_of_samples(g))
        c->status = ST_BAD_OPERATOR;
    return c->status == ST_OK;
}

const st_requant_t *st_requant_table(st_context_t *c, st_ref_t ref, int32_t n) {
    const st_requant_t *table = (const st_requant_t *)PLACE_FIXED(int32_t, ref, st_product(2, n));
    for (int32_t i = 0; table && i < n; i++)
        if (!st_in_range(table[i].shift, -31, 30))
            c->status = ST_BAD_OPERATOR;
    return table;
}

// Words of scratch that the faster way of an operator takes; none if there is none for it.
static int64_t least_scratch(const st_op_conv_t *op, const st_conv_geometry_t *g) {
    if (ST_SMALL && op->head.opcode != OP_FULLY_CONNECTED)
        return 0; // nobody looks at it
    if (op->head.opcode == OP_CONV2D && g->groups == 1 && !g->w_zero)
        return conv2d_lanes_scratch(g);
    if (op->head.opcode == OP_DEPTHWISE_CONV2D && depthwise3x3_suits(g))
        return depthwise3x3_scratch(g);
    if (op->head.opcode == OP_FULLY_CONNECTED && g->in_c % 4 == 0 && !g->w_zero)
        return op->head.flags & FLAG_PACKED ? g->in_c / 2 * 3 : g->in_c;
    return INT64_MAX;
}

static st_scratch_t place_scratch(st_context_t *c, const st_op_conv_t *op,
                                  const st_conv_geometry_t *g) {
    const st_scratch_t none = {NULL, 0, 0};
    if (st_is_nowhere(op->scratch) && !(op->head.flags & FLAG_PACKED))
        return none;
    if (op->scratch_words < least_scratch(op, g)) {
        c->status = ST_BAD_OPERATOR;
        return none;
    }
    int32_t *data = PLACE_ARENA(int32_t, op->scratch, op->scratch_words);
    return (st_scratch_t){data, op->scratch_words, 0};
}

void st_bind_conv(st_context_t *c, const st_op_conv_t *op, st_rows_t rows, st_window_op_t *w) {
    *w = (st_window_op_t){.opcode = op->head.opcode, .cores = c->cores};
    const st_conv_geometry_t *g = st_geometry(c, op->geometry);
    if (!shape_ok(c, g, &op->head))
        return;
    w->g = g;
    w->p.weights = PLACE(int8_t, op->weights, weight_count(g, &op->head));
    w->p.bias = PLACE(int32_t, op->bias, g->out_c);
    w->p.requant = st_requant_table(c, op->requant, g->out_c);
    w->x = PLACE(int8_t, op->x, st_in_bytes(g, rows.in));
    w->p.cores = c->cores;
    w->scratch = place_scratch(c, op, g);
    w->is_packed = op->head.flags & FLAG_PACKED;
    if (w->is_packed && (op->head.opcode != OP_FULLY_CONNECTED || (uintptr_t)w->p.weights & 3))
        c->status = ST_BAD_OPERATOR;
    w->y = PLACE_OUT(int8_t, op->y, st_out_bytes(g, rows.out));
}

void st_run_conv(st_context_t *c, const st_op_conv_t *op) {
    st_window_op_t w;
    st_bind_conv(c, op, (st_rows_t){0, 0}, &w);
    if (c->status == ST_OK)
        st_run_window(&w);
}

void st_run_conv_grad_input(st_context_t *c, const st_op_conv_grad_t *op) {
    const st_conv_geometry_t *g = st_gradient_geometry(c, op->geometry);
    if (!shape_ok(c, g, &op->head))
        return;
    const st_conv_params_t p = {
        .weights = PLACE(int8_t, op->weights, weight_count(g, &op->head)),
        .scale_q15 = PLACE(uint16_t, op->scale_q15, g->out_c),
    };
    st_gradient_t job = {.g = g, .p = &p, .is_depthwise = is_depthwise(&op->head)};
    job.dy = PLACE(int16_t, op->dy, st_out_count(g));
    job.row_size = g->in_c * (1 + job.is_depthwise);
    st_place_rows(c, &op->head, op->out.row, &job);
    st_emit_t e = st_open_error(c, &op->out, &op->head, st_in_count(g));
    if (c->status)
        return;
    st_make_input_gradient(&job, &e);
    st_emit_end(&e);
}

int st_are_apart(const void *a, size_t a_size, const void *b, size_t b_size) {
    const uintptr_t a_at = (uintptr_t)a, b_at = (uintptr_t)b;
    return a_at + a_size <= b_at || b_at + b_size <= a_at;
}

static void place_weights(st_context_t *c, const st_op_update_t *op, const st_conv_geometry_t *g,
                          st_update_t *u) {
    const st_count_t n = weight_count(g, &op->head);
    u->n_channels = op->chosen;
    u->channels = st_channel_list(c, op->channels, op->chosen, st_group_inputs(g));
    u->kept_step = op->kept_step;
    u->row_words = op->row_words;
    u->kept =
        PLACE(int8_t, op->kept, st_volume(g->in_h, g->in_w, st_product(g->groups, op->kept_step)));
    u->weights = PLACE_OUT(int8_t, op->weights, n);
    u->residual = st_is_nowhere(op->residual) ? NULL : PLACE_OUT(int8_t, op->residual, n);
    u->weight_rate = (const st_rate_t *)PLACE(uint16_t, op->weight_rate, st_product(2, g->out_c));
    const size_t list = (size_t)op->chosen * 2, size = (size_t)n;
    if (c->status == ST_OK &&
        !(st_are_apart(u->channels, list, u->weights, size) &&
          st_are_apart(u->channels, list, u->residual, u->residual ? size : 0)))
        c->status = ST_BAD_REF;
}

void st_place_bias(st_context_t *c, st_ref_t bias, st_ref_t rate, st_update_t *u) {
    const st_count_t n = u->made.end;
    u->bias = PLACE_OUT(int32_t, bias, n);
    u->bias_rate = (const st_rate_t *)PLACE(uint16_t, rate, st_product(2, n));
    if (c->status == ST_OK &&
        !st_are_apart(u->channels, (size_t)u->n_channels * 2, u->bias, (size_t)n * 4))
        c->status = ST_BAD_REF;
}

// Of which there is a velocity.
static st_count_t moving_weights(const st_op_update_t *op, const st_conv_geometry_t *g) {
    const st_count_t filters = st_volume(g->kernel_h, g->kernel_w, g->out_c);
    return is_depthwise(&op->head) ? filters : st_product(filters, op->chosen);
}

void st_run_update(st_context_t *c, const st_op_update_t *op) {
    const st_conv_geometry_t *g = st_gradient_geometry(c, op->geometry);
    if (!shape_ok(c, g, &op->head))
        return;
    const st_control_t *control = st_control_of(c);
    st_update_t u = {
        .learning_rate = {(uint16_t)control->rate_mantissa, (int16_t)control->rate_exponent},
        .error_exponent = st_error_exponent(c, op->dy_exponent_at),
        .seed = st_random(control->seed, (uint32_t)op->layer),
        .made = {0, g->out_c},
    };
    if (op->chosen)
        place_weights(c, op, g, &u);
    if (!st_is_nowhere(op->bias))
        st_place_bias(c, op->bias, op->bias_rate, &u);
    st_gradient_t job = {.g = g, .is_depthwise = is_depthwise(&op->head), .cores = c->cores};
    job.dy = PLACE(int16_t, op->dy, st_out_count(g));
    if (op->chosen)
        st_place_sums(c, op->row, &u, &job);
    if (op->chosen)
        u.norms = st_place_norms(c, op->norms, op->chosen);
    if (job.is_depthwise && u.kept_step != u.n_channels)
        c->status = ST_BAD_OPERATOR;
    st_velocity_t velocity = {.inputs = st_group_inputs(g)};
    st_place_velocity(c, &op->velocity, moving_weights(op, g), &u, &velocity);
    if (c->status == ST_OK)
        st_make_update(&job, &u);
}
