#include "operators.h"

#include "conv2d.h"
#include "fast.h"
#include "random.h"

static st_count_t column_bytes(const st_conv_geometry_t *g) {
    return st_volume(g->kernel_h, g->kernel_w, g->out_c);
}

// A geometry that columns can be used with: one group.
static const st_conv_geometry_t *of_one_group(st_context_t *c, const st_conv_geometry_t *g) {
    if (g && g->groups != 1) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return g;
}

// The table of columns, each of them checked: in the state or the store, whole. The table itself is
// in the state, where nothing that a kernel writes before it has read the table may lie.
static st_columns_t columns(st_context_t *c, st_ref_t table, const st_conv_geometry_t *g) {
    if (st_space_of(table) != ST_IN_STATE)
        c->status = ST_BAD_REF;
    st_columns_t columns = {
        .table = (const uint32_t *)PLACE_OUT(uint32_t, table, g->in_c),
        .state = (int8_t *)c->machine->buffer[ST_IN_STATE].data,
        .store = (const int8_t *)c->machine->buffer[ST_IN_STORE].data,
        .channels = g->in_c,
    };
    for (int32_t ic = 0; columns.table && ic < g->in_c; ic++) {
        const uint32_t space = st_space_of(columns.table[ic]);
        if (space == ST_NOWHERE)
            continue;
        (void)PLACE(int8_t, columns.table[ic], column_bytes(g));
        if (space != ST_IN_STATE && space != ST_IN_STORE)
            c->status = ST_BAD_REF;
    }
    return columns;
}

void st_run_conv_columns(st_context_t *c, const st_op_conv_columns_t *op) {
    const st_conv_geometry_t *g = of_one_group(c, st_geometry(c, op->geometry));
    if (!g)
        return;
    st_columns_t cols = columns(c, op->table, g);
    cols.rounds_once = op->head.opcode == OP_FULLY_CONNECTED_COLUMNS;
    const st_count_t filter_size = st_volume(g->kernel_h, g->kernel_w, g->in_c);
    const st_conv_params_t p = {
        .weights = PLACE_FIXED(int8_t, op->weights, st_product(filter_size, g->out_c)),
        .bias = PLACE(int32_t, op->bias, g->out_c),
        .requant = st_requant_table(c, op->requant, g->out_c),
        .columns = &cols,
    };
    const int8_t *x = PLACE(int8_t, op->x, st_in_count(g));
    int8_t *filter = PLACE_ARENA(int8_t, op->filter, filter_size);
    int8_t *y = PLACE_ARENA(int8_t, op->y, st_out_count(g));
    if (c->status == ST_OK)
        ST_FAST(conv2d_columns_s8)(g, &p, x, filter, y);
}

void st_run_conv_columns_grad_input(st_context_t *c, const st_op_conv_columns_grad_t *op) {
    const st_conv_geometry_t *g = of_one_group(c, st_gradient_geometry(c, op->geometry));
    if (!g)
        return;
    const st_columns_t cols = columns(c, op->table, g);
    const st_conv_params_t p = {
        .weights = PLACE(int8_t, op->weights, st_product(column_bytes(g), g->in_c)),
        .scale_q15 = PLACE(uint16_t, op->scale_q15, g->out_c),
        .columns = &cols,
    };
    st_gradient_t job = {.g = g, .p = &p, .row_size = g->in_c};
    job.dy = PLACE(int16_t, op->dy, st_out_count(g));
    st_place_rows(c, &op->head, op->out.row, &job);
    (void)PLACE_ARENA(int32_t, op->out.row, 1);
    (void)PLACE_ARENA(int16_t, op->out.data, st_in_count(g));
    st_emit_t e = st_open_error(c, &op->out, &op->head, st_in_count(g));
    if (c->status)
        return;
    st_make_input_gradient(&job, &e);
    st_emit_end(&e);
}

// The chosen channels are written: their columns must be in the state, behind the control block,
// and not lie over the table or the list that say where to write.
static void check_chosen(st_context_t *c, const st_op_columns_update_t *op, const st_update_t *u,
                         const st_conv_geometry_t *g) {
    const size_t size = (size_t)column_bytes(g);
    for (int32_t i = 0; c->status == ST_OK && i < op->chosen; i++) {
        const uint32_t ref = u->columns->table[u->channels[i]];
        const uint8_t *column = (const uint8_t *)PLACE(int8_t, ref, column_bytes(g));
        if (st_space_of(ref) != ST_IN_STATE ||
            !st_are_apart(column, size, st_control_of(c), sizeof(st_control_t)) ||
            !st_are_apart(column, size, u->columns->table, (size_t)g->in_c * 4) ||
            !st_are_apart(column, size, u->channels, (size_t)op->chosen * 2))
            c->status = ST_BAD_REF;
    }
}

void st_run_columns_update(st_context_t *c, const st_op_columns_update_t *op) {
    const st_conv_geometry_t *g = of_one_group(c, st_gradient_geometry(c, op->geometry));
    if (!g)
        return;
    const st_control_t *control = st_control_of(c);
    const st_columns_t cols = columns(c, op->table, g);
    st_update_t u = {
        .learning_rate = {(uint16_t)control->rate_mantissa, (int16_t)control->rate_exponent},
        .error_exponent = st_error_exponent(c, op->dy_exponent_at),
        .seed = st_random(control->seed, (uint32_t)op->layer),
        .n_channels = op->chosen,
        .channels = st_channel_list(c, op->channels, op->chosen, g->in_c),
        .kept = PLACE(int8_t, op->kept, st_volume(g->in_h, g->in_w, op->kept_step)),
        .kept_step = op->kept_step,
        .row_words = op->row_words,
        .columns = &cols,
        .weight_rate = (const st_rate_t *)PLACE(uint16_t, op->weight_rate, st_product(2, g->out_c)),
        .made = {0, g->out_c},
    };
    if (!st_is_nowhere(op->bias))
        st_place_bias(c, op->bias, op->bias_rate, &u);
    if (u.bias && !st_are_apart(cols.table, (size_t)g->in_c * 4, u.bias, (size_t)g->out_c * 4))
        c->status = ST_BAD_REF;
    st_gradient_t job = {.g = g};
    job.dy = PLACE(int16_t, op->dy, st_out_count(g));
    st_place_sums(c, op->row, &u, &job);
    u.norms = st_place_norms(c, op->norms, op->chosen);
    if (op->chosen < 1)
        c->status = ST_BAD_OPERATOR;
    check_chosen(c, op, &u, g);
    st_velocity_t velocity = {.inputs = g->in_c};
    st_place_velocity(c, &op->velocity, st_product(column_bytes(g), op->chosen), &u, &velocity);
    if (c->status == ST_OK)
        st_make_update(&job, &u);
}
