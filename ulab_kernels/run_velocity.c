// What the steps of an update go into, checked (velocity.h).
#include "operators.h"

// Nothing that is written may be the list that says where to write, nor the table of columns.
static int is_apart(const st_update_t *u, const void *data, size_t size) {
    const st_columns_t *columns = u->columns;
    return st_are_apart(u->channels, (size_t)u->n_channels * 2, data, size) &&
           (!columns || st_are_apart(columns->table, (size_t)columns->channels * 4, data, size));
}

static int is_like(const uint16_t *list, const st_update_t *u) {
    for (int32_t i = 0; i < u->n_channels; i++)
        if (list[i] != u->channels[i])
            return 0;
    return 1;
}

static void start_anew(const st_update_t *u, const st_velocity_t *v, uint16_t *list, st_count_t n) {
    for (int32_t i = 0; i < n; i++)
        v->weights[i] = 0;
    for (int32_t i = 0; i < u->n_channels; i++)
        list[i] = u->channels[i];
}

void st_place_velocity(st_context_t *c, const st_velocity_refs_t *refs, st_count_t weights,
                       st_update_t *u, st_velocity_t *v) {
    const st_control_t *control = st_control_of(c);
    if (st_is_nowhere(refs->weights) && st_is_nowhere(refs->biases))
        return;
    if (ST_HEAD) {
        c->status = ST_NOT_HERE;
        return;
    }
    *v = (st_velocity_t){.momentum = control->momentum & 0x7fff,
                         .inputs = v->inputs,
                         .waits = (control->update & ST_UPDATE_WAITS) != 0,
                         .standardises = (control->update & ST_UPDATE_STANDARD) != 0,
                         .gain = {(uint16_t)control->standard, (int16_t)(control->standard >> 16)}};
    if (u->n_channels)
        v->weights = PLACE_OUT(int16_t, refs->weights, weights);
    if (u->bias)
        v->biases = PLACE_OUT(int32_t, refs->biases, u->made.end);
    uint16_t *list = NULL;
    if (!st_is_nowhere(refs->channels))
        list = PLACE_OUT(uint16_t, refs->channels, u->n_channels);
    if (c->status)
        return;
    if (!is_apart(u, v->weights, v->weights ? (size_t)weights * 2 : 0) ||
        !is_apart(u, v->biases, v->biases ? (size_t)u->made.end * 4 : 0) ||
        !is_apart(u, list, list ? (size_t)u->n_channels * 2 : 0)) {
        c->status = ST_BAD_REF;
        return;
    }
    if (list && v->weights && !is_like(list, u))
        start_anew(u, v, list, weights);
    u->velocity = v;
}
