#include "velocity.h"

#include <stddef.h>

#include "fixedpoint.h"
#include "random.h"
#include "update.h"

#define MOMENTUM_BITS 15

// What stays of a velocity of less than 2^31, with 15 random bits.
static int32_t kept(int32_t v, uint32_t momentum, uint32_t random) {
    return (int32_t)(((int64_t)v * momentum + (random >> 17)) >> MOMENTUM_BITS);
}

// The same of one of 16 bits, whose product has 31.
static int16_t kept_short(int32_t v, uint32_t momentum, uint32_t random) {
    return (int16_t)((v * (int32_t)momentum + (int32_t)(random >> 17)) >> MOMENTUM_BITS);
}

// A weight's place, and its fraction's or NULL.
typedef struct {
    int8_t *coarse, *fine;
} st_weight_t;

static void move(st_weight_t w, int32_t v, uint32_t random) {
    if (w.fine) {
        st_add_fine(w.coarse, w.fine, v);
        return;
    }
    const int32_t steps = (v + (int32_t)(random & 255)) >> 8;
    if (steps)
        *w.coarse = (int8_t)st_clamp(*w.coarse + steps, -127, 127);
}

static void move_weight(const st_update_t *u, st_weight_t w, int32_t at, uint32_t seed) {
    int16_t *v = u->velocity->weights + at;
    if (!*v)
        return;
    const uint32_t random = st_random(seed, (uint32_t)at);
    move(w, *v, random);
    *v = kept_short(*v, u->velocity->momentum, random);
}

static st_weight_t weight_at(const st_update_t *u, int32_t index) {
    return (st_weight_t){u->weights + index, u->residual ? u->residual + index : NULL};
}

static st_weight_t in_column(const st_update_t *u, int32_t slot, int32_t at) {
    const uint32_t ref = u->columns->table[u->channels[slot]] & 0x1fffffffu;
    return (st_weight_t){u->columns->state + ref + at, NULL};
}

// A row of chosen channels: of one tap of an output channel's filter.
static void move_row(const st_update_t *u, int32_t row, int32_t in_columns, uint32_t seed) {
    const int32_t first = row * u->n_channels, base = row * u->velocity->inputs;
    for (int32_t i = 0; i < u->n_channels; i++) {
        const st_weight_t w =
            u->columns ? in_column(u, i, in_columns) : weight_at(u, base + u->channels[i]);
        move_weight(u, w, first + i, seed);
    }
}

static void move_filters(const st_conv_geometry_t *g, const st_update_t *u, uint32_t seed) {
    const int32_t taps = g->kernel_h * g->kernel_w;
    for (int32_t oc = u->made.begin; oc < u->made.end; oc++)
        for (int32_t k = 0; k < taps; k++)
            move_row(u, oc * taps + k, k * g->out_c + oc, seed);
}

static void move_depthwise(const st_conv_geometry_t *g, const st_update_t *u, uint32_t seed) {
    const int32_t taps = g->kernel_h * g->kernel_w, multiplier = g->out_c / g->in_c;
    for (int32_t i = 0; i < u->n_channels; i++) {
        const int32_t first = u->channels[i] * multiplier;
        const int32_t end = st_min(first + multiplier, u->made.end);
        for (int32_t oc = st_max(first, u->made.begin); oc < end; oc++)
            for (int32_t k = 0; k < taps; k++)
                move_weight(u, weight_at(u, k * g->out_c + oc), k * g->out_c + oc, seed);
    }
}

static void move_biases(const st_update_t *u, uint32_t seed) {
    int32_t *v = u->velocity->biases;
    for (int32_t oc = u->made.begin; oc < u->made.end; oc++) {
        st_add_to_bias(u->bias + oc, v[oc]);
        v[oc] = kept(v[oc], u->velocity->momentum, st_random(~seed, (uint32_t)oc));
    }
}

void st_velocity_move(const st_conv_geometry_t *g, const st_update_t *u, int is_depthwise) {
    const uint32_t seed = st_mix32(u->seed);
    if (u->n_channels && is_depthwise)
        move_depthwise(g, u, seed);
    else if (u->n_channels)
        move_filters(g, u, seed);
    if (u->bias)
        move_biases(u, seed);
}
