// What the compiler calls and only MicroPython needs: division, and doubles as far as floats of 32
// bits become ones and back. Rounds to nearest, ties to even.
#include <stdint.h>

typedef union {
    float value;
    uint32_t bits;
} single_t;

// A sign, the exponent of the leading bit, and a mantissa with that bit at 23.
typedef struct {
    uint32_t sign, mantissa;
    int exponent;
} parts_t;

#define SIGN 0x80000000u
#define INFINITE 0x7f800000u
#define NOT_A_NUMBER 0x7fc00000u
#define LEADING 0x800000u
#define DOUBLE_BIAS 1023
#define SINGLE_BIAS 127

float __divsf3(float a, float b);
double __extendsfdf2(float value);
float __truncdfsf2(double value);
double __floatsidf(int32_t value);
uint64_t __udivdi3(uint64_t a, uint64_t b);
uint64_t __bswapdi2(uint64_t value);

uint64_t __udivdi3(uint64_t a, uint64_t b) {
    uint64_t quotient = 0, rest = 0;
    for (int i = 63; i >= 0; i--) {
        rest = rest << 1 | (a >> i & 1);
        quotient <<= 1;
        if (rest >= b)
            rest -= b, quotient |= 1;
    }
    return quotient;
}

static uint32_t reversed(uint32_t value) {
    value = (value & 0xff00ff) << 8 | (value >> 8 & 0xff00ff);
    return value << 16 | value >> 16;
}

uint64_t __bswapdi2(uint64_t value) {
    return (uint64_t)reversed((uint32_t)value) << 32 | reversed((uint32_t)(value >> 32));
}

// Of a finite value that is not 0.
static parts_t parts_of(uint32_t bits) {
    parts_t p = {bits & SIGN, bits & (LEADING - 1), (int)(bits >> 23 & 255) - SINGLE_BIAS};
    if (p.exponent == -SINGLE_BIAS) {
        const int lost = __builtin_clz(p.mantissa) - 8;
        p.mantissa <<= lost;
        p.exponent += 1 - lost;
    } else
        p.mantissa |= LEADING;
    return p;
}

// p.mantissa has its leading bit at 30, and its last bit set where more bits follow.
static float rounded(parts_t p) {
    int shift = 7;
    if (p.exponent > SINGLE_BIAS)
        return (single_t){.bits = p.sign | INFINITE}.value;
    if (p.exponent < 1 - SINGLE_BIAS) { // a number with fewer bits
        shift += 1 - SINGLE_BIAS - p.exponent;
        p.exponent = -SINGLE_BIAS;
    }
    if (shift > 31)
        return (single_t){.bits = p.sign}.value;
    const uint32_t kept = p.mantissa >> shift, rest = p.mantissa & ((1u << shift) - 1);
    const uint32_t half = 1u << (shift - 1);
    const uint32_t up = rest > half || (rest == half && (kept & 1));
    const uint32_t whole = p.exponent == -SINGLE_BIAS ? 0 : (uint32_t)(p.exponent + 126) << 23;
    return (single_t){.bits = p.sign | (whole + kept + up)}.value;
}

// Bits of 31 of a quotient of two mantissas, the last one for all that follow.
static uint32_t quotient_of(uint32_t a, uint32_t b) {
    uint32_t quotient = 0;
    for (int i = 0; i < 30; i++) {
        const uint32_t bit = a >= b;
        a -= bit ? b : 0;
        quotient = quotient << 1 | bit;
        a <<= 1;
    }
    return quotient << 1 | (a != 0);
}

static float divided(parts_t a, parts_t b) {
    parts_t p = {a.sign ^ b.sign, a.mantissa, a.exponent - b.exponent};
    if (p.mantissa < b.mantissa)
        p.mantissa <<= 1, p.exponent--;
    p.mantissa = quotient_of(p.mantissa, b.mantissa);
    return rounded(p);
}

float __divsf3(float a, float b) {
    const uint32_t x = (single_t){a}.bits, y = (single_t){b}.bits, sign = (x ^ y) & SIGN;
    const uint32_t from = x & ~SIGN, by = y & ~SIGN;
    if (from > INFINITE || by > INFINITE || (from == by && (!from || from == INFINITE)))
        return (single_t){.bits = NOT_A_NUMBER}.value;
    if (from == INFINITE || !by)
        return (single_t){.bits = sign | INFINITE}.value;
    if (!from || by == INFINITE)
        return (single_t){.bits = sign}.value;
    return divided(parts_of(x), parts_of(y));
}

typedef union {
    double value;
    uint64_t bits;
} double_t_;

static double double_of(uint32_t sign, int exponent, uint64_t mantissa) {
    const uint64_t biased = (uint64_t)(uint32_t)(exponent + DOUBLE_BIAS) << 52;
    return (double_t_){.bits = (uint64_t)sign << 32 | biased | (mantissa & ((1ull << 52) - 1))}
        .value;
}

double __extendsfdf2(float value) {
    const uint32_t bits = (single_t){value}.bits, size = bits & ~SIGN;
    if (!size)
        return (double_t_){.bits = (uint64_t)bits << 32}.value;
    if (size >= INFINITE)
        return double_of(bits & SIGN, DOUBLE_BIAS + 1, (uint64_t)(size & (LEADING - 1)) << 29);
    const parts_t p = parts_of(bits);
    return double_of(p.sign, p.exponent, (uint64_t)p.mantissa << 29);
}

float __truncdfsf2(double value) {
    const uint64_t bits = (double_t_){value}.bits, mantissa = bits & ((1ull << 52) - 1);
    const uint32_t sign = (uint32_t)(bits >> 32) & SIGN;
    const int exponent = (int)(bits >> 52 & 2047) - DOUBLE_BIAS;
    if (exponent > DOUBLE_BIAS)
        return (single_t){.bits = sign | (mantissa ? NOT_A_NUMBER : INFINITE)}.value;
    if (exponent < -DOUBLE_BIAS + 1)
        return (single_t){.bits = sign}.value;
    const uint32_t upper = (uint32_t)(mantissa >> 22), rest = mantissa << 42 != 0;
    return rounded((parts_t){sign, 1u << 30 | upper | rest, exponent});
}

double __floatsidf(int32_t value) {
    if (!value)
        return (double_t_){.bits = 0}.value;
    const uint32_t size = value < 0 ? -(uint32_t)value : (uint32_t)value;
    const int exponent = 31 - __builtin_clz(size);
    return double_of(value < 0 ? SIGN : 0, exponent, (uint64_t)size << (52 - exponent));
}
