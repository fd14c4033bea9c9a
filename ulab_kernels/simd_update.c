// The learning rule for eight weights at once. Nearly all steps are rounded to 0: where none of the
// eight moves a weight, nothing is written.
#include "simd_product.h"

#if ST_HAS_SIMD

#include "random.h"
#include "update.h"

// A shift that stochastic rounding can do with its 31 random bits, and what goes before it.
typedef struct {
    st_vec_t mantissa;
    int32_t before, shift;
} vec_step_t;

// st_mix32.
ST_AVX2_INLINE st_vec_t mix(st_vec_t x) {
    x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
    x = _mm256_mullo_epi32(x, _mm256_set1_epi32(0x7feb352d));
    x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
    x = _mm256_mullo_epi32(x, _mm256_set1_epi32((int32_t)0x846ca68bu));
    return _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
}

// st_random.
ST_AVX2_INLINE st_vec_t randoms(uint32_t seed, st_vec_t counter) {
    const st_vec_t spread = _mm256_mullo_epi32(counter, _mm256_set1_epi32((int32_t)0x9e3779b9u));
    const st_vec_t x = _mm256_add_epi32(spread, _mm256_set1_epi32((int32_t)0x85ebca6bu));
    return mix(_mm256_xor_si256(_mm256_set1_epi32((int32_t)seed), x));
}

// v >> n of int64 with |v| < 2^62, n <= 62: AVX2 has it for unsigned ones only.
ST_AVX2_INLINE st_vec_t shift_wide(st_vec_t v, int32_t n) {
    const st_vec_t offset = _mm256_set1_epi64x(1ll << 62);
    const __m128i count = _mm_cvtsi32_si128(n);
    return _mm256_sub_epi64(_mm256_srl_epi64(_mm256_add_epi64(v, offset), count),
                            _mm256_srl_epi64(offset, count));
}

// Which of four sums (in the even places) make a step of 0: int64 of ones. As stochastic_step of
// update.c, which makes the others.
ST_AVX2_INLINE st_vec_t four_stay(st_vec_t sums, st_vec_t random, const vec_step_t *s) {
    st_vec_t v = _mm256_mul_epi32(sums, s->mantissa);
    if (s->before)
        v = shift_wide(v, s->before);
    const st_vec_t low = _mm256_and_si256(random, _mm256_set1_epi64x(0xffffffffll));
    v = _mm256_add_epi64(v, _mm256_srl_epi64(low, _mm_cvtsi32_si128(32 - s->shift)));
    return _mm256_cmpeq_epi64(shift_wide(v, s->shift), _mm256_setzero_si256());
}

// The others of eight sums, a bit each.
ST_AVX2_INLINE uint32_t which_move(st_vec_t sums, st_vec_t random, const vec_step_t *s) {
    const st_vec_t even = four_stay(sums, random, s);
    const st_vec_t odd = four_stay(_mm256_srli_epi64(sums, 32), _mm256_srli_epi64(random, 32), s);
    const st_vec_t stay = _mm256_blend_epi32(even, odd, 0xaa);
    return 0xff & ~(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(stay));
}

ST_AVX2_INLINE vec_step_t vec_step(st_step_t step) {
    const int32_t before = st_clamp(step.shift - 31, 0, 62);
    return (vec_step_t){_mm256_set1_epi32((int32_t)step.mantissa), before, st_min(step.shift, 31)};
}

ST_AVX2 void st_update_tap_simd(const st_update_t *u, st_step_t step, int32_t base,
                                const int32_t *sums) {
    const int32_t whole = step.shift > 0 ? u->n_channels & ~7 : 0;
    const vec_step_t s = vec_step(step);
    for (int32_t i = 0; i < whole; i += 8) {
        const __m128i channels = _mm_loadu_si128((const __m128i *)(u->channels + i));
        const st_vec_t index =
            _mm256_add_epi32(_mm256_set1_epi32(base), _mm256_cvtepu16_epi32(channels));
        uint32_t moves = which_move(vec_load(sums + i), randoms(u->seed, index), &s);
        for (; moves; moves &= moves - 1) {
            const int32_t at = i + __builtin_ctz(moves);
            st_update_weight(u, step, base + u->channels[at], sums[at]);
        }
    }
    for (int32_t i = whole; i < u->n_channels; i++)
        st_update_weight(u, step, base + u->channels[i], sums[i]);
}

/// Biases ///

// Sums of sixteen channels over all positions.
ST_AVX2_INLINE void sum_sixteen(const int16_t *dy, int32_t positions, int32_t out_c,
                                int32_t *sums) {
    st_vec_t low = _mm256_setzero_si256(), high = low;
    for (int32_t i = 0; i < positions; i++, dy += out_c) {
        const st_vec_t v = vec_load(dy);
        low = _mm256_add_epi32(low, _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v)));
        high = _mm256_add_epi32(high, _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1)));
    }
    vec_store(sums, low);
    vec_store(sums + 8, high);
}

ST_AVX2 void st_update_biases_simd(int32_t positions, int32_t out_c, const int16_t *dy,
                                   const st_update_t *u) {
    int32_t oc = 0, sums[16];
    for (; u->bias && oc + 16 <= out_c; oc += 16) {
        sum_sixteen(dy + oc, positions, out_c, sums);
        for (int32_t i = 0; i < 16; i++)
            st_update_bias(u, oc + i, sums[i]);
    }
    for (; u->bias && oc < out_c; oc++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < positions; i++)
            sum += dy[i * out_c + oc];
        st_update_bias(u, oc, sum);
    }
}

#endif
