#include "operators.h"

#include "select_errors.h"

#define MOST_POSITIONS (1 << 17) // of which a channel's sum fits 32 bits

static int shares_ok(const st_op_select_t *op) {
    return st_in_range(op->least, 0, 1 << 15) && st_in_range(op->span, 0, (1 << 15) - op->least);
}

// The cost of an error is that of a layer's weights at the most.
static int costs_ok(const st_op_select_t *op, const st_conv_geometry_t *g) {
    return st_in_range(op->inputs, -1, g->in_c) && st_in_range(op->chosen, 0, g->in_c) &&
           st_product(st_max(op->inputs + op->chosen, 0), g->out_c) >= 0;
}

// A list says where the row is written: what the operator writes must not change it.
static void place_channels(st_context_t *c, const st_op_select_t *op, st_selection_t *s,
                           const st_magnitude_t *maximum) {
    if (st_is_nowhere(op->channels))
        return;
    s->channels = st_channel_list(c, op->channels, op->chosen, s->g->in_c);
    if (s->g->out_c % s->g->in_c)
        c->status = ST_BAD_OPERATOR;
    if (c->status == ST_OK &&
        !st_are_apart(s->channels, (size_t)op->chosen * 2, maximum, sizeof *maximum))
        c->status = ST_BAD_REF;
}

void st_run_select_errors(st_context_t *c, const st_op_select_t *op) {
    const st_conv_geometry_t *g = st_geometry(c, op->geometry);
    if (g && (!shares_ok(op) || !costs_ok(op, g) ||
              !st_in_range(st_product(g->out_h, g->out_w), 0, MOST_POSITIONS - 1)))
        c->status = ST_BAD_OPERATOR;
    if (c->status)
        return;
    st_selection_t s = {
        .g = g,
        .dy = PLACE_ARENA(int16_t, op->dy, st_out_count(g)),
        .row = PLACE_ARENA(uint32_t, op->row, g->out_c),
        .least = op->least,
        .span = op->span,
        .inputs = op->inputs < 0 ? 0 : op->inputs,
        .chosen = op->chosen,
        .is_dense = op->inputs < 0,
    };
    const int32_t exponent = st_error_exponent(c, op->dy_exponent_at);
    // In the state, where neither dy nor row can lie.
    st_magnitude_t *maximum = (st_magnitude_t *)PLACE_OUT(uint32_t, op->maximum, 2);
    if (st_space_of(op->maximum) != ST_IN_STATE)
        c->status = ST_BAD_REF;
    place_channels(c, op, &s, maximum);
    if (c->status == ST_OK &&
        !st_are_apart(s.dy, 2 * (size_t)st_out_count(g), s.row, 4 * (size_t)g->out_c))
        c->status = ST_BAD_REF;
    if (c->status)
        return;
    st_control_t *control = st_control_of(c);
    const uint64_t effort = control->effort + select_errors(&s, exponent, maximum);
    control->effort = effort > UINT32_MAX ? UINT32_MAX : (uint32_t)effort;
}
