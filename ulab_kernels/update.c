#include "update.h"
#include "arch.h"
#include "fixedpoint.h"
#include "random.h"

#define FASTEST 32767 // of a weight's velocity

// Shifts beyond ST_MOST_SHIFT, whose steps are all below one half, have what they exceed it by
// taken off the mantissa: the fewer bits, the rarer is it that such a step moves a weight at all.
st_step_t st_step(uint32_t mantissa, int32_t shift) {
    if (shift <= ST_MOST_SHIFT)
        return (st_step_t){mantissa, shift};
    const int32_t beyond = st_min(shift - ST_MOST_SHIFT, 31);
    return (st_step_t){(mantissa + (1u << (beyond - 1))) >> beyond, ST_MOST_SHIFT};
}

static st_step_t step_of(const st_update_t *u, st_rate_t rate) {
    return st_step(((uint32_t)rate.mantissa * u->learning_rate.mantissa) >> 17,
                   -(rate.exponent + u->learning_rate.exponent + u->error_exponent + 17));
}

st_step_t st_weight_step(const st_update_t *u, int32_t out_channel) {
    return step_of(u, u->weight_rate[out_channel]);
}

// sum * step as an integer, for shifts from ST_LEAST_SHIFT on: rounded up with the probability of
// its fraction. The product counts to 2^-16 of its unit or less; there it is rounded to nearest.
static inline int32_t stochastic_step(int32_t sum, st_step_t step, uint32_t random) {
    const int32_t rest = step.shift - 16;
    const uint32_t low = ((uint32_t)sum & 0xffffu) * step.mantissa;
    const int32_t upper =
        (sum >> 16) * (int32_t)step.mantissa + (int32_t)((low + (1u << 15)) >> 16);
    return (upper + (int32_t)(random >> (32 - rest))) >> rest;
}

// How far a sum is shifted left to be what it is for ST_LEAST_SHIFT.
static inline int32_t to_least_shift(int32_t shift) {
    return st_clamp(ST_LEAST_SHIFT - shift, 0, 31);
}

static inline int can_shift(int32_t sum, int32_t left) {
    const uint32_t limit = (uint32_t)INT32_MAX >> left;
    return (uint32_t)sum + limit <= 2 * limit;
}

// Of a weight, which saturates where the sum would.
static inline int32_t shift_sat(int32_t sum, int32_t left) {
    return can_shift(sum, left) ? (int32_t)((uint32_t)sum << left) : (sum >> 31) ^ INT32_MAX;
}

static int32_t weight_step(int32_t sum, st_step_t step, uint32_t random) {
    const st_step_t usual = {step.mantissa, st_max(step.shift, ST_LEAST_SHIFT)};
    return stochastic_step(shift_sat(sum, to_least_shift(step.shift)), usual, random);
}

// Of a sum that is too large to be shifted to what it is for ST_LEAST_SHIFT.
static int32_t large_step(int32_t sum, st_step_t step, uint32_t random) {
    int64_t product = (int64_t)sum * step.mantissa; // |product| < 2^46
    if (step.shift <= 0) {
        const int left = st_min(-step.shift, 31);
        const int32_t limit = INT32_MAX >> left;
        if (product > limit || product < -limit)
            return product > 0 ? INT32_MAX : -INT32_MAX;
        return (int32_t)(product * (1ll << left));
    }
    const int rest = step.shift - 16;
    product = rest <= 0 ? product * (1ll << -rest) : (product + (1ll << rest >> 1)) >> rest;
    product = (product + (random >> 16)) >> 16;
    return product > INT32_MAX ? INT32_MAX : (product < -INT32_MAX ? -INT32_MAX : (int32_t)product);
}

// For what has more than 8 bits: a bias, or a weight and its residual.
static int32_t wide_step(int32_t sum, st_step_t step, uint32_t random) {
    if (step.shift >= ST_LEAST_SHIFT)
        return stochastic_step(sum, step, random);
    const st_step_t least = {step.mantissa, ST_LEAST_SHIFT};
    const int32_t left = to_least_shift(step.shift);
    if (step.shift > 0 && can_shift(sum, left))
        return stochastic_step((int32_t)((uint32_t)sum << left), least, random);
    return large_step(sum, step, random);
}

int32_t st_steps_of(int32_t sum, st_step_t step, uint32_t random) {
    return wide_step(sum, step, random);
}

static int32_t subtract_sat(int32_t a, int32_t b, int32_t limit) {
    int32_t v; // limit and -limit are both far from the ends of int32
    if (__builtin_sub_overflow(a, b, &v))
        return b < 0 ? limit : -limit;
    return st_clamp(v, -limit, limit);
}

static void subtract_fine(int8_t *weight, int8_t *fraction, int32_t steps) {
    const int32_t fine = subtract_sat(*weight * 256 + *fraction, steps, 127 * 256);
    const int32_t coarse = (fine + 128) >> 8;
    *weight = (int8_t)coarse;
    *fraction = (int8_t)(fine - coarse * 256);
}

void st_add_fine(int8_t *weight, int8_t *fraction, int32_t steps) {
    subtract_fine(weight, fraction, -steps);
}

void st_add_to_bias(int32_t *bias, int32_t v) {
    int32_t sum;
    if (__builtin_add_overflow(*bias, v, &sum))
        sum = v < 0 ? -ST_BIAS_LIMIT : ST_BIAS_LIMIT;
    *bias = st_clamp(sum, -ST_BIAS_LIMIT, ST_BIAS_LIMIT);
}

static void update_coarse(const st_update_t *u, st_step_t step, int32_t index, int32_t sum,
                          uint32_t random) {
    const int32_t delta = weight_step(sum, step, random);
    if (delta)
        u->weights[index] = (int8_t)subtract_sat(u->weights[index], delta, 127);
}

static void update_fine(const st_update_t *u, st_step_t step, int32_t index, int32_t sum,
                        uint32_t random) {
    const int32_t delta = wide_step(sum, step, random);
    if (delta)
        subtract_fine(u->weights + index, u->residual + index, delta);
}

static void update_velocity(int16_t *v, st_step_t step, int32_t sum, uint32_t random) {
    const int32_t delta = wide_step(sum, step, random);
    if (delta)
        *v = (int16_t)subtract_sat(*v, delta, FASTEST);
}

void st_update_velocities(const st_update_t *u, st_step_t step, int32_t base, const int32_t *sums) {
    int16_t *v = u->velocity->weights + base / u->velocity->inputs * u->n_channels;
    for (int32_t i = 0; i < u->n_channels; i++)
        if (sums[i])
            update_velocity(v + i, step, sums[i],
                            st_random_in_row(u->seed, (uint32_t)base, (uint32_t)i));
}

static void update_velocity_at(const st_update_t *u, st_step_t step, int32_t index, int32_t sum,
                               uint32_t random) {
    update_velocity(u->velocity->weights + index, step, sum, random);
}

typedef void move_t(const st_update_t *u, st_step_t step, int32_t index, int32_t sum,
                    uint32_t random);

// Inlined, so that nothing is asked of each weight.
static inline __attribute__((always_inline)) void
move_all(const st_update_t *u, st_step_t step, st_spread_t at, const int32_t *sums, move_t *move) {
    int32_t index = at.first;
    for (int32_t k = 0; k < at.count; k++, index += at.apart)
        if (sums[k])
            move(u, step, index, sums[k], st_random(u->seed, (uint32_t)index));
}

void st_update_spread(const st_update_t *u, st_step_t step, st_spread_t at, const int32_t *sums) {
    if (!ST_HEAD && u->velocity)
        move_all(u, step, at, sums, update_velocity_at);
    else if (u->residual)
        move_all(u, step, at, sums, update_fine);
    else
        move_all(u, step, at, sums, update_coarse);
}

void st_update_weight(const st_update_t *u, st_step_t step, int32_t index, int32_t sum) {
    st_update_spread(u, step, (st_spread_t){index, 0, 1}, &sum);
}

void st_update_slot(const st_update_t *u, st_step_t step, int32_t base, int32_t slot, int32_t sum) {
    const uint32_t random = st_random_in_row(u->seed, (uint32_t)base, (uint32_t)slot);
    const int32_t index = base + u->channels[slot];
    if (sum && u->residual)
        update_fine(u, step, index, sum, random);
    else if (sum)
        update_coarse(u, step, index, sum, random);
}

void st_update_slot_in_column(const st_update_t *u, st_step_t step, st_slot_t at, int32_t sum,
                              int8_t *weight) {
    const uint32_t random = st_random_in_row(u->seed, (uint32_t)at.base, (uint32_t)at.slot);
    if (sum)
        *weight = (int8_t)subtract_sat(*weight, weight_step(sum, step, random), 127);
}

static void step_slots(const st_weight_rows_t *r, int32_t count) {
    const int32_t *sums = r->sums;
    for (int32_t oc = r->next; oc < r->next + count; oc++, sums += r->step) {
        const st_step_t step = st_weight_step(r->u, oc);
        const int32_t base = r->base + oc * r->filter;
        if (!ST_HEAD && r->u->velocity)
            st_update_velocities(r->u, step, base, sums);
        else
            for (int32_t i = 0; i < r->u->n_channels; i++)
                st_update_slot(r->u, step, base, i, sums[i]);
    }
}

#if ST_ARMV6M

// armv6m_update.S: up to rate_end. Sums of shifts below ST_LEAST_SHIFT are shifted left already,
// but for those of weights with a residual.
void st_step_rows(st_step_rows_t *loop);

void st_begin_rows(st_weight_rows_t *r) {
    const st_update_t *u = r->u;
    const uint32_t pairs = (uint32_t)(u->n_channels + 1) >> 1, step = (uint32_t)r->step * 4;
    const uint32_t row = (uint32_t)r->sums, filter = (uint32_t)r->filter;
    const uint32_t base = (uint32_t)(r->base + r->next * r->filter);
    st_step_rows_t *loop = &r->loop;
    loop->row_step = step;
    loop->gap = step - pairs * 8;
    loop->row = loop->row_end = row - loop->gap;
    loop->counter_step = (filter - pairs) * ST_SPREAD;
    loop->counter = u->seed + (base - 1) * ST_SPREAD - loop->counter_step;
    loop->channels_step = -(step / 2);
    loop->channels = (uint32_t)u->channels - (row + 8) / 2 + step / 2;
    loop->filter = filter;
    loop->weights = (uint32_t)u->weights + base - filter;
    loop->rate = u->weight_rate + r->next;
    loop->learning_rate = u->learning_rate.mantissa;
    loop->shift = -(u->learning_rate.exponent + u->error_exponent + 17);
    loop->kind = u->n_channels & 1 ? ST_ROWS_ODD : 0;
    if (u->residual)
        loop->kind |= ST_ROWS_FINE;
    loop->fractions = (uint32_t)u->residual - (uint32_t)u->weights;
}

ST_HOT static void shift_row(int32_t *row, int32_t n, int32_t left) {
    for (const int32_t *end = row + n; row < end; row++)
        *row = shift_sat(*row, left);
}

// can_shift of all: the limit is all ones, so that no bits above it say it of each.
static int can_shift_row(const int32_t *row, int32_t n, int32_t left) {
    uint32_t bits = 0;
    ST_UNROLL(4)
    for (int32_t i = 0; i < n; i++)
        bits |= row[i] < 0 ? 0u - (uint32_t)row[i] : (uint32_t)row[i];
    return bits <= (uint32_t)INT32_MAX >> left;
}

// Whether the loop can do rows of weights with a residual, which shifts their sums itself: others
// do not saturate where the sum would.
static int can_step_fine(const st_weight_rows_t *r, int32_t count) {
    const st_rate_t *rate = r->loop.rate, *end = rate + count;
    for (const int32_t *row = r->sums; rate < end; rate++, row += r->step) {
        const int32_t shift = r->loop.shift - rate->exponent, left = to_least_shift(shift);
        if (shift <= 0 || (left && !can_shift_row(row, r->u->n_channels, left)))
            return 0;
    }
    return 1;
}

static void shift_rows(const st_weight_rows_t *r, int32_t count) {
    const st_rate_t *rate = r->loop.rate, *end = rate + count;
    for (int32_t *row = r->sums; rate < end; rate++, row += r->step) {
        const int32_t left = to_least_shift(r->loop.shift - rate->exponent);
        if (left)
            shift_row(row, r->u->n_channels, left);
    }
}

// Returns whether it could.
static int step_rows(st_weight_rows_t *r, int32_t count) {
    if (r->u->residual && !can_step_fine(r, count))
        return 0;
    if (!r->u->residual)
        shift_rows(r, count);
    r->loop.rate_end = r->loop.rate + count;
    st_step_rows(&r->loop);
    return 1;
}

#endif

#if !ST_ARMV6M

void st_begin_rows(st_weight_rows_t *r) {
    (void)r;
}

static int step_rows(const st_weight_rows_t *r, int32_t count) {
    (void)r, (void)count;
    return 0;
}

#endif

void st_update_rows(st_weight_rows_t *r, int32_t count) {
    const int by_loop = !r->u->velocity && step_rows(r, count);
    if (!by_loop)
        step_slots(r, count);
    r->next += count;
    r->sums += count * r->step;
    if (!by_loop)
        st_begin_rows(r); // the loop goes on from there
}

void st_update_bias(const st_update_t *u, int32_t out_channel, int32_t sum) {
    st_step_t step = step_of(u, u->bias_rate[out_channel]);
    const int32_t delta = wide_step(sum, step, st_random(~u->seed, (uint32_t)out_channel));
    int32_t *bias = (!ST_HEAD && u->velocity ? u->velocity->biases : u->bias) + out_channel;
    if (delta)
        *bias = subtract_sat(*bias, delta, ST_BIAS_LIMIT);
}

#define SUMS 8 // channels that are summed at once

#if ST_ARMV6M

// armv6m_update.S: sums[SUMS] of rows of dy, out_c elements apart, which begin at multiples of 4.
void st_sum_rows(const int16_t *dy, int32_t positions, int32_t out_c, int32_t *sums);

static int32_t sum_some(const int16_t *dy, int32_t positions, int32_t out_c, int32_t *sums) {
    if (((uintptr_t)dy & 3) | (out_c & 1))
        return 0;
    st_sum_rows(dy, positions, out_c, sums);
    return SUMS;
}

#else

static int32_t sum_some(const int16_t *dy, int32_t positions, int32_t out_c, int32_t *sums) {
    (void)dy, (void)positions, (void)out_c, (void)sums;
    return 0;
}

#endif

static int32_t sum_one(const int16_t *dy, int32_t positions, int32_t out_c) {
    int32_t sum = 0;
    ST_UNROLL(4)
    for (int32_t i = 0; i < positions; i++, dy += out_c)
        sum += *dy;
    return sum;
}

void st_update_biases(int32_t positions, int32_t out_c, const int16_t *dy, const st_update_t *u) {
    int32_t sums[SUMS];
    for (int32_t oc = u->made.begin, n; u->bias && oc < u->made.end; oc += n) {
        n = oc + SUMS <= u->made.end ? sum_some(dy + oc, positions, out_c, sums) : 0;
        for (int32_t i = 0; i < n; i++)
            st_update_bias(u, oc + i, sums[i]);
        if (!n)
            st_update_bias(u, oc, sum_one(dy + oc, positions, out_c));
        n = st_max(n, 1);
    }
}
