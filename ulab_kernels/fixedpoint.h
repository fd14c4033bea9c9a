// Fixed-point arithmetic, bit-exact with TFLite's reference kernels (gemmlowp's fixedpoint.h and
// tensorflow/lite/kernels/internal/common.h), written without division.
#ifndef ST_FIXEDPOINT_H
#define ST_FIXEDPOINT_H

#include "arch.h"

#include <stdint.h>

// A positive real factor: multiplier * 2^(shift - 31), multiplier in [2^30, 2^31).
typedef struct {
    int32_t multiplier;
    int32_t shift;
} st_requant_t;

static inline int32_t st_min(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static inline int32_t st_max(int32_t a, int32_t b) {
    return a > b ? a : b;
}

static inline int32_t st_clamp(int32_t v, int32_t lo, int32_t hi) {
    return v < lo ? lo : (v > hi ? hi : v);
}

// Number of leading zero bits, 32 for 0.
static inline int st_clz(uint32_t x) {
    return x ? __builtin_clz(x) : 32;
}

// round(a * b / 2^31), ties upwards; saturates the single case where both are INT32_MIN.
#if ST_CORTEX_M0
// By halves: this core has no 64-bit product, and the library's takes twice as long.
static inline int32_t st_mul_high(int32_t a, int32_t b) {
    if (a == INT32_MIN && b == INT32_MIN)
        return INT32_MAX;
    const int32_t ah = a >> 16, bh = b >> 16;
    const uint32_t al = (uint16_t)a, bl = (uint16_t)b, low = al * bl;
    const int32_t m = (int32_t)((uint32_t)ah * bl), n = (int32_t)(al * (uint32_t)bh);
    const uint32_t middle = (low >> 16) + (uint16_t)m + (uint16_t)n + (1u << 14);
    return (int32_t)((uint32_t)(ah * bh + (m >> 16) + (n >> 16) + (int32_t)(middle >> 16)) << 1) +
           (int32_t)(middle >> 15 & 1);
}
#else
static inline int32_t st_mul_high(int32_t a, int32_t b) {
    if (a == INT32_MIN && b == INT32_MIN)
        return INT32_MAX;
    return (int32_t)(((int64_t)a * b + (1ll << 30)) >> 31);
}
#endif

// round(x / 2^n), ties away from zero, 0 <= n <= 31.
static inline int32_t st_round_shift(int32_t x, int n) {
    int32_t mask = (int32_t)((1ll << n) - 1);
    int32_t threshold = (mask >> 1) + (x < 0);
    return (x >> n) + ((x & mask) > threshold);
}

// x * 2^n, 0 <= n <= 31, saturating.
static inline int32_t st_shift_left_sat(int32_t x, int n) {
    int64_t wide = (int64_t)x * (1ll << n);
    return wide > INT32_MAX ? INT32_MAX : (wide < INT32_MIN ? INT32_MIN : (int32_t)wide);
}

// x * factor, rounded twice as TFLite's MultiplyByQuantizedMultiplier does.
static inline int32_t st_requantize(int32_t x, st_requant_t f) {
    int left = f.shift > 0 ? f.shift : 0;
    int right = f.shift > 0 ? 0 : -f.shift;
    return st_round_shift(st_mul_high((int32_t)((uint32_t)x << left), f.multiplier), right);
}

// The same out of line: for what is rarely needed.
int32_t st_requantize_exactly(int32_t x, st_requant_t f);

// x * factor, rounded once, ties away from zero: what TFLite's FULLY_CONNECTED does. shift <= 30.
static inline int32_t st_requantize_once(int32_t x, st_requant_t f) {
    int n = 31 - f.shift;
    return (int32_t)(((int64_t)x * f.multiplier + (1ll << (n - 1)) - (x < 0)) >> n);
}

// floor(x * q / 2^15) for 0 <= q <= 2^15, in two 32-bit multiplications.
static inline int32_t st_mul_q15(int32_t x, uint32_t q) {
    int32_t high = (x >> 16) * (int32_t)q;
    uint32_t low = ((uint32_t)x & 0xffffu) * q;
    return (int32_t)((uint32_t)high << 1) + (int32_t)(low >> 15);
}

// exp(x) for x <= 0. In: Q5.26. Out: Q0.31. gemmlowp exp_on_negative_values.
int32_t st_exp_negative(int32_t x);

// 1 / x for x > 0 in Q12.19, as a Q0.31 mantissa in (1/2, 1] and the bits it was moved by.
int32_t st_reciprocal(int32_t x, int *bits_over_unit);

// ln(x / 2^frac_bits) in Q16, x > 0; error below 2^-13.
int32_t st_ln_q16(uint32_t x, int frac_bits);

#endif
