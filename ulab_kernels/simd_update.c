// The learning rule for eight weights at once. Nearly all steps are rounded to 0: where none of the
// eight moves a weight, nothing is written.
#include "simd_product.h"

#if ST_HAS_SIMD

#include "random.h"
#include "update.h"

// A step of update.c's stochastic_step.
typedef struct {
    st_vec_t mantissa;
    int32_t rest;
} vec_step_t;

// st_mix32.
ST_AVX2_INLINE st_vec_t mix(st_vec_t x) {
    x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
    x = _mm256_mullo_epi32(x, _mm256_set1_epi32((int32_t)ST_MIX_1));
    x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
    x = _mm256_mullo_epi32(x, _mm256_set1_epi32((int32_t)ST_MIX_2));
    return _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
}

// st_random_in_row for eight slots from an even one on, whose counter is given.
ST_AVX2_INLINE st_vec_t randoms(uint32_t seed, uint32_t counter) {
    const st_vec_t pairs = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    const st_vec_t counters = _mm256_add_epi32(_mm256_set1_epi32((int32_t)counter), pairs);
    const st_vec_t spread = _mm256_mullo_epi32(counters, _mm256_set1_epi32((int32_t)ST_SPREAD));
    const st_vec_t end = _mm256_setr_epi8(0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11, 15, 14, 13, 12, //
                                          0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11, 15, 14, 13, 12);
    const st_vec_t x = mix(_mm256_add_epi32(_mm256_set1_epi32((int32_t)seed), spread));
    return _mm256_shuffle_epi8(x, end);
}

// Which of eight sums make a step that is not 0, a bit each: as stochastic_step of update.c, which
// makes them.
ST_AVX2_INLINE uint32_t which_move(st_vec_t sums, st_vec_t random, const vec_step_t *s) {
    const st_vec_t low = _mm256_and_si256(sums, _mm256_set1_epi32(0xffff));
    const st_vec_t half = _mm256_set1_epi32(1 << 15);
    const st_vec_t high = _mm256_mullo_epi32(_mm256_srai_epi32(sums, 16), s->mantissa);
    const st_vec_t carried =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_mullo_epi32(low, s->mantissa), half), 16);
    const st_vec_t chance = _mm256_srl_epi32(random, _mm_cvtsi32_si128(32 - s->rest));
    const st_vec_t v = _mm256_add_epi32(_mm256_add_epi32(high, carried), chance);
    const st_vec_t delta = _mm256_sra_epi32(v, _mm_cvtsi32_si128(s->rest));
    const st_vec_t stay = _mm256_cmpeq_epi32(delta, _mm256_setzero_si256());
    return 0xff & ~(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(stay));
}

ST_AVX2 void st_update_tap_simd(const st_update_t *u, st_step_t step, int32_t base,
                                const int32_t *sums) {
    if (u->velocity) {
        st_update_velocities(u, step, base, sums);
        return;
    }
    const int32_t whole = step.shift >= ST_LEAST_SHIFT ? u->n_channels & ~7 : 0;
    const vec_step_t s = {_mm256_set1_epi32((int32_t)step.mantissa), step.shift - 16};
    for (int32_t i = 0; i < whole; i += 8) {
        const st_vec_t random = randoms(u->seed, (uint32_t)(base + i / 2));
        uint32_t moves = which_move(vec_load(sums + i), random, &s);
        for (; moves; moves &= moves - 1) {
            const int32_t slot = i + __builtin_ctz(moves);
            st_update_slot(u, step, base, slot, sums[slot]);
        }
    }
    for (int32_t i = whole; i < u->n_channels; i++)
        st_update_slot(u, step, base, i, sums[i]);
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
