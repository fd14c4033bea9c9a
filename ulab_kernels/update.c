#include "update.h"
#include "fixedpoint.h"
#include "random.h"

// Leaves room for the sum of a window, so that forward cannot overflow.
#define BIAS_LIMIT (1 << 30)

static st_step_t step_of(const st_update_t *u, st_rate_t rate) {
    st_step_t s;
    s.mantissa = ((uint32_t)rate.mantissa * u->learning_rate.mantissa) >> 16;
    s.shift = -(rate.exponent + u->learning_rate.exponent + u->error_exponent + 16);
    return s;
}

st_step_t st_weight_step(const st_update_t *u, int32_t out_channel) {
    return step_of(u, u->weight_rate[out_channel]);
}

// sum * step as an integer: rounded up with the probability of its fraction, saturating.
static int32_t any_step(int32_t sum, st_step_t step, uint32_t random) {
    int64_t product = (int64_t)sum * step.mantissa; // |product| < 2^47
    int shift = step.shift;
    if (shift <= 0) {
        const int left = st_min(-shift, 31);
        const int32_t limit = INT32_MAX >> left;
        if (product > limit || product < -limit)
            return product > 0 ? INT32_MAX : -INT32_MAX;
        return (int32_t)(product * (1ll << left));
    }
    if (shift > 31) { // only 31 random bits: the rest is below what they resolve
        product >>= st_min(shift - 31, 63);
        shift = 31;
    }
    product = (product + (random >> (32 - shift))) >> shift;
    return product > INT32_MAX ? INT32_MAX : (product < -INT32_MAX ? -INT32_MAX : (int32_t)product);
}

// The same without 64-bit products for the usual shifts, and sums that leave room: the product is
// upper * 2^16 + lower.
static inline int32_t stochastic_step(int32_t sum, st_step_t step, uint32_t random) {
    const int32_t shift = step.shift;
    if (shift < 16 || shift > 46 || ((uint32_t)sum + (1u << 29)) >> 30)
        return any_step(sum, step, random);
    const uint32_t low = ((uint32_t)sum & 0xffffu) * step.mantissa;
    int32_t upper = (sum >> 16) * (int32_t)step.mantissa + (int32_t)(low >> 16);
    uint32_t lower = low & 0xffffu;
    int32_t rest = shift - 16;
    if (shift > 31) { // only 31 random bits: the rest is below what they resolve
        const int32_t below = shift - 31;
        lower = ((uint32_t)upper << 16 | lower) >> below & 0xffffu;
        upper >>= below;
        rest = 15;
    }
    random >>= 16 - rest;
    return (upper + (int32_t)((random >> 16) + ((lower + (random & 0xffffu)) >> 16))) >> rest;
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

void st_update_weight(const st_update_t *u, st_step_t step, int32_t index, int32_t sum) {
    const int32_t delta = stochastic_step(sum, step, st_random(u->seed, (uint32_t)index));
    if (!delta)
        return;
    if (u->residual)
        step_with_residual(u, index, delta);
    else
        u->weights[index] = (int8_t)subtract_sat(u->weights[index], delta, 127);
}

static void update_row_and_residual(const st_update_t *u, st_step_t step, int32_t base,
                                    const int32_t *row) {
    for (int32_t i = 0; i < u->n_channels; i++)
        if (row[i])
            st_update_weight(u, step, base + u->channels[i], row[i]);
}

void st_update_row(const st_update_t *u, st_step_t step, int32_t base, const int32_t *row) {
    if (u->residual) {
        update_row_and_residual(u, step, base, row);
        return;
    }
    // Copies: a write to a weight might be one to *u, as far as the compiler knows.
    const uint16_t *channel = u->channels;
    int8_t *weights = u->weights + base;
    const uint32_t seed = u->seed;
    for (const int32_t *end = row + u->n_channels; row < end; row++, channel++) {
        if (!*row)
            continue;
        const uint32_t random = st_random(seed, (uint32_t)base + *channel);
        const int32_t delta = stochastic_step(*row, step, random);
        if (delta)
            weights[*channel] = (int8_t)subtract_sat(weights[*channel], delta, 127);
    }
}

void st_update_in_column(const st_update_t *u, st_step_t step, int32_t index, int32_t sum,
                         int8_t *weight) {
    const int32_t delta = stochastic_step(sum, step, st_random(u->seed, (uint32_t)index));
    *weight = (int8_t)subtract_sat(*weight, delta, 127);
}

void st_update_bias(const st_update_t *u, int32_t out_channel, int32_t sum) {
    st_step_t step = step_of(u, u->bias_rate[out_channel]);
    int32_t delta = stochastic_step(sum, step, st_random(~u->seed, (uint32_t)out_channel));
    if (delta)
        u->bias[out_channel] = subtract_sat(u->bias[out_channel], delta, BIAS_LIMIT);
}

void st_update_biases(int32_t positions, int32_t out_c, const int16_t *dy, const st_update_t *u) {
    if (!u->bias)
        return;
    for (int32_t oc = u->made.begin; oc < u->made.end; oc++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < positions; i++)
            sum += dy[i * out_c + oc];
        st_update_bias(u, oc, sum);
    }
}
