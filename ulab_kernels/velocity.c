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

// What becomes of the velocities of a filter: their mean is taken off, and what is left is
// multiplied by step; where that has no mantissa, nothing moves. Not standardised: plain.
typedef struct {
    const st_update_t *u;
    uint32_t seed;
    int plain;
    int32_t mean;
    st_step_t step;
} st_move_t;

#define MEAN_BITS 8 // of a mean: most velocities are small

static int32_t off_mean(int32_t v, int32_t mean) {
    return v * (1 << MEAN_BITS) - mean;
}

#define WHOLE_RANGE (1 << 16) // from one limit of a weight beyond the other one, in 1/256

static int32_t standard_move(const st_move_t *m, int32_t v, int32_t at) {
    const uint32_t random = st_random(~m->seed, (uint32_t)at);
    const int32_t steps = st_steps_of(off_mean(v, m->mean), m->step, random);
    return st_clamp(steps, -WHOLE_RANGE, WHOLE_RANGE);
}

static void move_weight(const st_move_t *m, st_weight_t w, int32_t at) {
    int16_t *v = m->u->velocity->weights + at;
    if (!*v && m->plain)
        return;
    const uint32_t random = st_random(m->seed, (uint32_t)at);
    move(w, m->plain ? *v : standard_move(m, *v, at), random);
    *v = kept_short(*v, m->u->velocity->momentum, random);
}

static st_weight_t weight_at(const st_update_t *u, int32_t index) {
    return (st_weight_t){u->weights + index, u->residual ? u->residual + index : NULL};
}

static st_weight_t in_column(const st_update_t *u, int32_t slot, int32_t at) {
    const uint32_t ref = u->columns->table[u->channels[slot]] & 0x1fffffffu;
    return (st_weight_t){u->columns->state + ref + at, NULL};
}

/// Standardised ///

static uint32_t square_root(uint32_t v) {
    uint32_t root = 0;
    for (uint32_t bit = 1u << 30; bit; bit >>= 2) {
        const uint32_t least = root + bit;
        root >>= 1;
        if (v >= least) {
            v -= least;
            root += bit;
        }
    }
    return root;
}

// Velocities of a filter: groups of `count` neighbours, `step` apart.
typedef struct {
    const int16_t *first;
    int32_t groups, count, step;
} st_filter_t;

static int32_t mean_of(st_filter_t f) {
    const int32_t n = f.groups * f.count;
    uint32_t total = 0; // of less than 2^16 weights; of more it wraps
    for (int32_t g = 0; g < f.groups; g++)
        for (int32_t i = 0; i < f.count; i++)
            total += (uint32_t)f.first[g * f.step + i];
    const int32_t sum = (int32_t)total, whole = sum / n;
    return whole * (1 << MEAN_BITS) + (sum - whole * n) * (1 << MEAN_BITS) / n;
}

static uint64_t squares_of(st_filter_t f, int32_t mean) {
    uint64_t sum = 0;
    for (int32_t g = 0; g < f.groups; g++)
        for (int32_t i = 0; i < f.count; i++) {
            const int64_t off = off_mean(f.first[g * f.step + i], mean);
            sum += (uint64_t)(off * off);
        }
    return sum;
}

// v * 2^shift in [2^30, 2^32), with an even shift; v > 0.
static uint32_t normalised(uint64_t v, int32_t *shift) {
    *shift = 0;
    for (; v >> 32; v >>= 2)
        *shift -= 2;
    uint32_t low = (uint32_t)v;
    for (; !(low >> 30); low <<= 2)
        *shift += 2;
    return low;
}

// rate * gain * 256 / the standard deviation.
static st_step_t standard_step(const st_update_t *u, uint64_t squares, int32_t count) {
    int32_t shift, more;
    const uint32_t mean_square = normalised(squares, &shift) / (uint32_t)count;
    const uint32_t root = square_root(normalised(mean_square, &more)); // in [2^15, 2^16)
    const st_rate_t a = u->learning_rate, b = u->velocity->gain;
    const uint32_t product = ((uint32_t)a.mantissa * b.mantissa) >> 1; // below 2^31
    const int32_t exponent = a.exponent + b.exponent + 1 + 8 + (shift + more) / 2;
    return st_step((product / root) >> 2, -exponent - 2); // below 2^15
}

static void standardise(st_move_t *m, st_filter_t f) {
    m->plain = !m->u->velocity->standardises;
    if (m->plain)
        return;
    m->mean = mean_of(f);
    const uint64_t squares = squares_of(f, m->mean);
    m->step = (st_step_t){0, 0};
    if (squares)
        m->step = standard_step(m->u, squares, f.groups * f.count);
}

/// Of a layer ///

// A row of chosen channels: of one tap of an output channel's filter.
static void move_row(const st_move_t *m, int32_t row, int32_t in_columns) {
    const st_update_t *u = m->u;
    const int32_t first = row * u->n_channels, base = row * u->velocity->inputs;
    for (int32_t i = 0; i < u->n_channels; i++) {
        const st_weight_t w =
            u->columns ? in_column(u, i, in_columns) : weight_at(u, base + u->channels[i]);
        move_weight(m, w, first + i);
    }
}

static void move_filters(const st_conv_geometry_t *g, st_move_t *m) {
    const int32_t taps = g->kernel_h * g->kernel_w, size = taps * m->u->n_channels;
    for (int32_t oc = m->u->made.begin; oc < m->u->made.end; oc++) {
        standardise(m, (st_filter_t){m->u->velocity->weights + oc * size, 1, size, 0});
        for (int32_t k = 0; k < taps; k++)
            move_row(m, oc * taps + k, k * g->out_c + oc);
    }
}

static void move_depthwise(const st_conv_geometry_t *g, st_move_t *m) {
    const st_update_t *u = m->u;
    const int32_t taps = g->kernel_h * g->kernel_w, multiplier = g->out_c / g->in_c;
    for (int32_t i = 0; i < u->n_channels; i++) {
        const int32_t first = u->channels[i] * multiplier;
        const int32_t end = st_min(first + multiplier, u->made.end);
        for (int32_t oc = st_max(first, u->made.begin); oc < end; oc++) {
            standardise(m, (st_filter_t){u->velocity->weights + oc, taps, 1, g->out_c});
            for (int32_t k = 0; k < taps; k++)
                move_weight(m, weight_at(u, k * g->out_c + oc), k * g->out_c + oc);
        }
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
    st_move_t move = {.u = u, .seed = st_mix32(u->seed)};
    if (u->n_channels && is_depthwise)
        move_depthwise(g, &move);
    else if (u->n_channels)
        move_filters(g, &move);
    if (u->bias)
        move_biases(u, move.seed);
}
