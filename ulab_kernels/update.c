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
static int32_t stochastic_step(int32_t sum, st_step_t step, uint32_t random) {
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

static int32_t subtract_sat(int32_t a, int32_t b, int32_t limit) {
    int64_t v = (int64_t)a - b;
    return v > limit ? limit : (v < -limit ? -limit : (int32_t)v);
}

void st_update_weight(const st_update_t *u, st_step_t step, int32_t index, int32_t sum) {
    int32_t delta = stochastic_step(sum, step, st_random(u->seed, (uint32_t)index));
    if (!delta)
        return;
    if (!u->residual) {
        u->weights[index] = (int8_t)subtract_sat(u->weights[index], delta, 127);
        return;
    }
    int32_t fine = u->weights[index] * 256 + u->residual[index];
    fine = subtract_sat(fine, delta, 127 * 256);
    int32_t coarse = (fine + 128) >> 8;
    u->weights[index] = (int8_t)coarse;
    u->residual[index] = (int8_t)(fine - coarse * 256);
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
    for (int32_t oc = 0; oc < out_c; oc++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < positions; i++)
            sum += dy[i * out_c + oc];
        st_update_bias(u, oc, sum);
    }
}
