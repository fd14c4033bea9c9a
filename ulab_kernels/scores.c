#include "scores.h"
#include "fixedpoint.h"

#define MANTISSA_BITS 16
#define FINER 8 // bits that means are made with beyond those of a mantissa

void st_add_norms(st_norm_t *norms, const int32_t *sums, int32_t n) {
    for (const int32_t *end = sums + n; sums < end; sums++, norms++) {
        const uint32_t size = *sums < 0 ? 0u - (uint32_t)*sums : (uint32_t)*sums;
        norms->low += size;
        norms->high += norms->low < size;
    }
}

st_norm_t st_norm_sum(st_norm_t a, st_norm_t b) {
    const uint32_t low = a.low + b.low;
    return (st_norm_t){low, a.high + b.high + (low < a.low)};
}

st_score_t st_score_of(st_norm_t norm, int32_t exponent) {
    const st_score_t none = {1 << (MANTISSA_BITS - 1), INT16_MIN};
    if (!(norm.low | norm.high))
        return none; // trained, so that it is no channel of which nothing is known
    for (; norm.high; norm.high >>= 1, exponent++)
        norm.low = norm.low >> 1 | norm.high << 31;
    for (; norm.low >> MANTISSA_BITS; norm.low >>= 1)
        exponent++;
    for (; !(norm.low >> (MANTISSA_BITS - 1)); norm.low <<= 1)
        exponent--;
    return (st_score_t){(uint16_t)norm.low, (int16_t)st_clamp(exponent, INT16_MIN, INT16_MAX)};
}

static uint32_t in_units_of(st_score_t s, int32_t exponent) {
    const int32_t right = exponent - s.exponent;
    return right < MANTISSA_BITS + FINER ? ((uint32_t)s.mantissa << FINER) >> right : 0;
}

st_score_t st_mean_score(st_score_t mean, st_score_t now) {
    if (!mean.mantissa)
        return now;
    const int32_t exponent = st_max(mean.exponent, now.exponent);
    const uint32_t old = in_units_of(mean, exponent);
    const uint32_t sum =
        old - (old >> ST_SCORE_DECAY) + (in_units_of(now, exponent) >> ST_SCORE_DECAY);
    return st_score_of((st_norm_t){sum, 0}, exponent - FINER);
}
