#include "fixedpoint.h"

#define Q31_ONE INT32_MAX

int32_t st_requantize_exactly(int32_t x, st_requant_t f) {
    return st_requantize(x, f);
}

// exp(x) for x in [-1/4, 0), both Q0.31: Taylor series around -1/8 (gemmlowp).
static int32_t exp_quarter(int32_t a) {
    const int32_t exp_minus_eighth = 1895147668; // exp(-1/8) in Q0.31
    const int32_t third = 715827883;             // 1/3 in Q0.31
    int32_t x = a + (1 << 28);
    int32_t x2 = st_mul_high(x, x);
    int32_t x3 = st_mul_high(x2, x);
    int32_t x4 = st_mul_high(x2, x2);
    int32_t x4_over_4 = st_round_shift(x4, 2);
    int32_t sum = st_mul_high(x4_over_4 + x3, third) + x2;
    return exp_minus_eighth + st_mul_high(exp_minus_eighth, x + st_round_shift(sum, 1));
}

int32_t st_exp_negative(int32_t x) {
    // exp(-2^k) in Q0.31 for k = -2 .. 4: the factors of the bits above 1/4.
    static const int32_t factor[7] = {1672461947, 1302514674, 790015084, 290630308,
                                      39332535,   720401,     242};
    const int32_t quarter = 1 << 24;
    int32_t mod = (x & (quarter - 1)) - quarter;
    int32_t remainder = mod - x;
    if (x == 0)
        return Q31_ONE;
    int32_t result = exp_quarter(mod * 32);
    for (int k = 0; k < 7; k++)
        if (remainder & (quarter << k))
            result = st_mul_high(result, factor[k]);
    return result;
}

// x * 2^n for a Q fixed-point value, saturating as gemmlowp's SaturatingRoundingMultiplyByPOT.
static int32_t pow2_sat(int32_t x, int n) {
    return st_shift_left_sat(x, n);
}

// 1 / (1 + a) for a in [0, 1], Q0.31: three Newton-Raphson steps in Q2.29 (gemmlowp).
static int32_t one_over_one_plus(int32_t a) {
    const int32_t c48_17 = 1515870810;  // 48/17 in Q2.29
    const int32_t c32_17 = -1010580540; // -32/17 in Q2.29
    int32_t half_denominator = (int32_t)(((int64_t)a + Q31_ONE + 1) >> 1);
    int32_t x = c48_17 + st_mul_high(half_denominator, c32_17);
    for (int i = 0; i < 3; i++) {
        int32_t one_minus = (1 << 29) - st_mul_high(half_denominator, x);
        x += pow2_sat(st_mul_high(x, one_minus), 2);
    }
    return pow2_sat(x, 1);
}

int32_t st_reciprocal(int32_t x, int *bits_over_unit) {
    int headroom = st_clz((uint32_t)x);
    *bits_over_unit = 12 - headroom;
    return one_over_one_plus((int32_t)(((uint32_t)x << headroom) - (1u << 31)));
}

int32_t st_ln_q16(uint32_t x, int frac_bits) {
    const int64_t ln2_q16 = 45426;
    int exponent = 31 - st_clz(x);
    uint32_t m = exponent > 15 ? x >> (exponent - 15) : x << (15 - exponent); // [1, 2) in Q15
    int32_t log2_q16 = (exponent - frac_bits) * 65536;
    for (int32_t bit = 1 << 15; bit; bit >>= 1) { // square: each step yields one bit of log2
        m = (m * m + (1u << 14)) >> 15;
        if (m >> 16) {
            m >>= 1;
            log2_q16 += bit;
        }
    }
    return (int32_t)((log2_q16 * ln2_q16) >> 16);
}
