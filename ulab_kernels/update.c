#include "update.h"
#include "arch.h"
#include "fixedpoint.h"
#include "random.h"

// Leaves room for the sum of a window, so that forward cannot overflow.
#define BIAS_LIMIT (1 << 30)

#define MOST_SHIFT 46 // |upper half| < 2^30: room for 30 random bits

// Shifts beyond MOST_SHIFT, whose steps are all below one half, have what they exceed it by taken
// off the mantissa: the fewer bits, the rarer is it that such a step moves a weight at all.
static st_step_t step_of(const st_update_t *u, st_rate_t rate) {
    st_step_t s;
    s.mantissa = ((uint32_t)rate.mantissa * u->learning_rate.mantissa) >> 17;
    s.shift = -(rate.exponent + u->learning_rate.exponent + u->error_exponent + 17);
    if (s.shift > MOST_SHIFT) {
        const int32_t beyond = st_min(s.shift - MOST_SHIFT, 31);
        s.mantissa = (s.mantissa + (1u << (beyond - 1))) >> beyond;
        s.shift = MOST_SHIFT;
    }
    return s;
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

static int32_t subtract_sat(int32_t a, int32_t b, int32_t limit) {
    int32_t v; // limit and -limit are both far from the ends of int32
    if (__builtin_sub_overflow(a, b, &v))
        return b < 0 ? limit : -limit;
    return st_clamp(v, -limit, limit);
}

static void step_with_residual(const st_update_t *u, int32_t index, int32_t delta) {
    int32_t fine = u->weights[index] * 256 + u->residual[index];
    fine = subtract_sat(fine, delta, 127 * 256);
    const int32_t coarse = (fine + 128) >> 8;
    u->weights[index] = (int8_t)coarse;
    u->residual[index] = (int8_t)(fine - coarse * 256);
}

static void update_weight(const st_update_t *u, st_step_t step, int32_t index, int32_t sum,
                          uint32_t random) {
    const int32_t delta =
        u->residual ? wide_step(sum, step, random) : weight_step(sum, step, random);
    if (delta && u->residual)
        step_with_residual(u, index, delta);
    else if (delta)
        u->weights[index] = (int8_t)subtract_sat(u->weights[index], delta, 127);
}

void st_update_weight(const st_update_t *u, st_step_t step, int32_t index, int32_t sum) {
    update_weight(u, step, index, sum, st_random(u->seed, (uint32_t)index));
}

void st_update_slot(const st_update_t *u, st_step_t step, int32_t base, int32_t slot, int32_t sum) {
    const uint32_t random = st_random_in_row(u->seed, (uint32_t)base, (uint32_t)slot);
    if (sum)
        update_weight(u, step, base + u->channels[slot], sum, random);
}

void st_update_slot_in_column(const st_update_t *u, st_step_t step, st_slot_t at, int32_t sum,
                              int8_t *weight) {
    const uint32_t random = st_random_in_row(u->seed, (uint32_t)at.base, (uint32_t)at.slot);
    if (sum)
        *weight = (int8_t)subtract_sat(*weight, weight_step(sum, step, random), 127);
}

#if ST_ARMV6M

// armv6m_update.S: rows of an even number of sums; is_odd: but for the last one, which becomes 0.
// row, counter, channels, weights and end are those of a row in front of the first one, from where
// it has ended; gap, counter_step and the other steps lead to the next row, all but that of the
// counter in bytes.
typedef struct {
    uint32_t row, counter, channels, weights, end;
    uint32_t mantissa; // of the row
    const st_rate_t *rate, *rate_end;
    uint32_t learning_rate;
    int32_t shift;
    uint32_t row_step, channels_step, counter_step, filter, gap, is_odd;
} st_step_rows_t;

// The rate of the first row whose shift is not in [ST_LEAST_SHIFT, MOST_SHIFT], where it stops, or
// rate_end.
const st_rate_t *st_step_rows(const st_step_rows_t *rows);

// Steps are mantissa * learning_rate / 2^17 and shift - exponent, of the rates given.
typedef struct {
    const st_rate_t *rate, *end;
    uint32_t learning_rate;
    int32_t shift;
} st_rates_t;

// How many rows it did.
static int32_t step_rows(const st_update_t *u, const st_weight_rows_t *rows, const st_rates_t *rates) {
    const uint32_t pairs = (uint32_t)(u->n_channels + 1) >> 1, step = (uint32_t)rows->step * 4;
    const uint32_t row = (uint32_t)rows->sums, filter = (uint32_t)rows->filter;
    const uint32_t counter_step = (filter - pairs) * ST_SPREAD, base = (uint32_t)rows->base;
    const st_step_rows_t job = {
        .row = row + pairs * 8 - step,
        .counter = u->seed + (base - 1) * ST_SPREAD - counter_step,
        .channels = (uint32_t)u->channels - (row + 8) / 2 + step / 2,
        .weights = (uint32_t)u->weights + base - filter,
        .end = row + pairs * 8 - step,
        .rate = rates->rate,
        .rate_end = rates->end,
        .learning_rate = rates->learning_rate,
        .shift = rates->shift,
        .row_step = step,
        .channels_step = -(step / 2),
        .counter_step = counter_step,
        .filter = filter,
        .gap = step - pairs * 8,
        .is_odd = (uint32_t)u->n_channels & 1,
    };
    return (int32_t)(st_step_rows(&job) - rates->rate);
}

static int32_t step_usual_rows(const st_update_t *u, const st_weight_rows_t *rows) {
    const int32_t shift = -(u->learning_rate.exponent + u->error_exponent + 17);
    const st_rate_t *rate = u->weight_rate + rows->begin;
    const st_rates_t rates = {rate, u->weight_rate + rows->end, u->learning_rate.mantissa, shift};
    const int32_t first = shift - rate->exponent;
    return first < ST_LEAST_SHIFT || first > MOST_SHIFT ? 0 : step_rows(u, rows, &rates);
}

// The first row.
static void step_row(const st_update_t *u, const st_weight_rows_t *rows, st_step_t step) {
    const st_rate_t rate = {(uint16_t)step.mantissa, 0};
    step_rows(u, rows, &(st_rates_t){&rate, &rate + 1, 1u << 17, step.shift});
}

#else

static int32_t step_usual_rows(const st_update_t *u, const st_weight_rows_t *rows) {
    (void)u, (void)rows;
    return 0;
}

static void step_row(const st_update_t *u, const st_weight_rows_t *rows, st_step_t step) {
    for (int32_t i = 0; i < u->n_channels; i++)
        st_update_slot(u, step, rows->base, i, rows->sums[i]);
}

#endif

ST_HOT static void shift_row(int32_t *row, int32_t n, int32_t left) {
    for (const int32_t *end = row + n; row < end; row++)
        *row = shift_sat(*row, left);
}

static void update_first(const st_update_t *u, const st_weight_rows_t *rows) {
    st_step_t step = st_weight_step(u, rows->begin);
    for (int32_t i = 0; u->residual && i < u->n_channels; i++)
        st_update_slot(u, step, rows->base, i, rows->sums[i]);
    if (u->residual)
        return;
    if (step.shift < ST_LEAST_SHIFT) {
        shift_row(rows->sums, u->n_channels, to_least_shift(step.shift));
        step.shift = ST_LEAST_SHIFT;
    }
    step_row(u, rows, step);
}

void st_update_rows(const st_update_t *u, st_weight_rows_t rows) {
    while (rows.begin < rows.end) {
        int32_t done = u->residual ? 0 : step_usual_rows(u, &rows);
        if (!done) {
            update_first(u, &rows);
            done = 1;
        }
        rows.begin += done;
        rows.base += done * rows.filter;
        rows.sums += done * rows.step;
    }
}

void st_update_bias(const st_update_t *u, int32_t out_channel, int32_t sum) {
    st_step_t step = step_of(u, u->bias_rate[out_channel]);
    const int32_t delta = wide_step(sum, step, st_random(~u->seed, (uint32_t)out_channel));
    if (delta)
        u->bias[out_channel] = subtract_sat(u->bias[out_channel], delta, BIAS_LIMIT);
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
#pragma GCC unroll 4
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
