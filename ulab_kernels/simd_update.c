// The learning rule for eight weights at once. Of weights alone nearly all steps are rounded to 0:
// where none of the eight moves one, nothing is written. Of those with a residual nearly all move.
#include "simd_wide.h"

#if ST_HAS_SIMD

#include "random.h"
#include "update.h"

// Steps of update.c's stochastic_step.
typedef struct {
    st_vec_t mantissa, rest;
} vec_step_t;

ST_AVX2_INLINE vec_step_t step_in_all(uint32_t mantissa, int32_t shift) {
    return (vec_step_t){_mm256_set1_epi32((int32_t)mantissa), _mm256_set1_epi32(shift - 16)};
}

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

// The steps of eight sums, as stochastic_step of update.c.
ST_AVX2_INLINE st_vec_t steps_of(st_vec_t sums, st_vec_t random, const vec_step_t *s) {
    const st_vec_t low = _mm256_and_si256(sums, _mm256_set1_epi32(0xffff));
    const st_vec_t half = _mm256_set1_epi32(1 << 15);
    const st_vec_t high = _mm256_mullo_epi32(_mm256_srai_epi32(sums, 16), s->mantissa);
    const st_vec_t carried =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_mullo_epi32(low, s->mantissa), half), 16);
    const st_vec_t drop = _mm256_sub_epi32(_mm256_set1_epi32(32), s->rest);
    const st_vec_t chance = _mm256_srlv_epi32(random, drop);
    const st_vec_t v = _mm256_add_epi32(_mm256_add_epi32(high, carried), chance);
    return _mm256_srav_epi32(v, s->rest);
}

// Which of eight are not 0, a bit each.
ST_AVX2_INLINE uint32_t which(st_vec_t v) {
    const st_vec_t none = _mm256_cmpeq_epi32(v, _mm256_setzero_si256());
    return 0xff & ~(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(none));
}

// Whether all of eight sums can be shifted left by so much, as can_shift of update.c.
ST_AVX2_INLINE int can_shift(st_vec_t sums, st_vec_t left) {
    const st_vec_t limit = _mm256_srlv_epi32(_mm256_set1_epi32(INT32_MAX), left);
    const st_vec_t least = _mm256_sub_epi32(_mm256_setzero_si256(), limit);
    const st_vec_t above = _mm256_cmpgt_epi32(sums, limit);
    return !which(_mm256_or_si256(above, _mm256_cmpgt_epi32(least, sums)));
}

// Those from slot i on that are of n: the last ones' eight may be fewer.
static inline uint32_t slots_at(int32_t i, int32_t n) {
    return n - i < 8 ? (1u << (n - i)) - 1 : 0xff;
}

/// Weights alone ///

ST_AVX2 static void update_coarse(const st_update_t *u, st_step_t step, int32_t base,
                                  const int32_t *sums) {
    const vec_step_t s = step_in_all(step.mantissa, step.shift);
    for (int32_t i = 0; i < u->n_channels; i += 8) {
        const st_vec_t random = randoms(u->seed, (uint32_t)(base + i / 2));
        uint32_t moves = which(steps_of(vec_load(sums + i), random, &s));
        for (moves &= slots_at(i, u->n_channels); moves; moves &= moves - 1) {
            const int32_t slot = i + __builtin_ctz(moves);
            st_update_slot(u, step, base, slot, sums[slot]);
        }
    }
}

/// Weights with a residual: nearly all move ///

// Whether eight channels are neighbours, in their order.
ST_AVX2_INLINE int are_neighbours(const uint16_t *channels) {
    const __m128i v = _mm_loadu_si128((const __m128i *)channels);
    const __m128i from_first = _mm_sub_epi16(v, _mm_broadcastw_epi16(v));
    const __m128i wanted = _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm_movemask_epi8(_mm_cmpeq_epi16(from_first, wanted)) == 0xffff;
}

ST_AVX2_INLINE st_vec_t widen_eight(const int8_t *from) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from));
}

// The lowest bytes of eight.
ST_AVX2_INLINE void store_bytes(int8_t *to, st_vec_t v) {
    const st_vec_t lowest = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, //
                                             -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, //
                                             -1, -1, -1, -1, -1, -1, -1, -1);
    const st_vec_t b = _mm256_shuffle_epi8(v, lowest);
    _mm_storel_epi64((__m128i *)to,
                     _mm_unpacklo_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
}

// subtract_fine of update.c; a step of 0 leaves what is beyond the limit.
ST_AVX2_INLINE void move_eight(int8_t *weight, int8_t *fraction, st_vec_t steps) {
    const st_vec_t limit = _mm256_set1_epi32(127 * 256);
    const st_vec_t stay = _mm256_cmpeq_epi32(steps, _mm256_setzero_si256());
    const st_vec_t whole = _mm256_slli_epi32(widen_eight(weight), 8);
    const st_vec_t before = _mm256_add_epi32(whole, widen_eight(fraction));
    st_vec_t fine = _mm256_min_epi32(_mm256_sub_epi32(before, steps), limit);
    fine = _mm256_max_epi32(fine, _mm256_sub_epi32(_mm256_setzero_si256(), limit));
    fine = _mm256_blendv_epi8(fine, before, stay);
    const st_vec_t rounded = _mm256_add_epi32(fine, _mm256_set1_epi32(128));
    store_bytes(weight, _mm256_srai_epi32(rounded, 8));
    store_bytes(fraction, fine); // its lowest byte, whatever the weight
}

ST_AVX2_INLINE void move_each(const st_update_t *u, int32_t base, int32_t slot, st_vec_t steps,
                              uint32_t moves) {
    int32_t step[8];
    vec_store(step, steps);
    for (; moves; moves &= moves - 1) {
        const int i = __builtin_ctz(moves);
        const int32_t at = base + u->channels[slot + i];
        st_add_fine(u->weights + at, u->residual + at, -step[i]);
    }
}

// step: its shift is above 0. Sums of small shifts are shifted left, as wide_step of update.c does.
ST_AVX2 static void update_fine(const st_update_t *u, st_step_t step, int32_t base,
                                const int32_t *sums) {
    const int32_t left = st_max(ST_LEAST_SHIFT - step.shift, 0), n = u->n_channels;
    const vec_step_t s = step_in_all(step.mantissa, step.shift + left);
    const st_vec_t by = _mm256_set1_epi32(left);
    for (int32_t i = 0; i < n; i += 8) {
        const st_vec_t v = vec_load(sums + i);
        if (left && !can_shift(v, by)) {
            for (int32_t slot = i; slot < st_min(i + 8, n); slot++)
                st_update_slot(u, step, base, slot, sums[slot]);
            continue;
        }
        const st_vec_t random = randoms(u->seed, (uint32_t)(base + i / 2));
        const st_vec_t steps = steps_of(_mm256_sllv_epi32(v, by), random, &s);
        const int32_t at = base + u->channels[i];
        if (i + 8 <= n && are_neighbours(u->channels + i))
            move_eight(u->weights + at, u->residual + at, steps);
        else
            move_each(u, base, i, steps, which(steps) & slots_at(i, n));
    }
}

ST_AVX2 void st_update_tap_simd(const st_update_t *u, st_step_t step, int32_t base,
                                const int32_t *sums) {
    if (u->velocity)
        st_update_velocities(u, step, base, sums);
    else if (u->residual && step.shift > 0)
        update_fine(u, step, base, sums);
    else if (!u->residual && step.shift >= ST_LEAST_SHIFT)
        update_coarse(u, step, base, sums);
    else
        for (int32_t i = 0; i < u->n_channels; i++)
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

// step_of of update.c for eight channels.
typedef struct {
    st_vec_t mantissa, shift;
} vec_rate_t;

ST_AVX2_INLINE vec_rate_t bias_rates(const st_update_t *u, int32_t oc) {
    const st_vec_t rates = vec_load(u->bias_rate + oc);
    const st_vec_t product =
        _mm256_mullo_epi32(_mm256_and_si256(rates, _mm256_set1_epi32(0xffff)),
                           _mm256_set1_epi32((int32_t)u->learning_rate.mantissa));
    const int32_t others = u->learning_rate.exponent + u->error_exponent + 17;
    const st_vec_t exponent =
        _mm256_add_epi32(_mm256_srai_epi32(rates, 16), _mm256_set1_epi32(others));
    return (vec_rate_t){_mm256_srli_epi32(product, 17),
                        _mm256_sub_epi32(_mm256_setzero_si256(), exponent)};
}

// What a shift exceeds the most by is taken off the mantissa.
ST_AVX2_INLINE vec_rate_t of_most_shift(vec_rate_t r) {
    const st_vec_t most = _mm256_set1_epi32(ST_MOST_SHIFT);
    st_vec_t beyond = _mm256_max_epi32(_mm256_sub_epi32(r.shift, most), _mm256_setzero_si256());
    beyond = _mm256_min_epi32(beyond, _mm256_set1_epi32(31));
    const st_vec_t unit = _mm256_sllv_epi32(_mm256_set1_epi32(1), beyond);
    const st_vec_t half = _mm256_srli_epi32(unit, 1);
    return (vec_rate_t){_mm256_srlv_epi32(_mm256_add_epi32(r.mantissa, half), beyond),
                        _mm256_min_epi32(r.shift, most)};
}

// st_random for eight counters from oc on.
ST_AVX2_INLINE st_vec_t bias_randoms(uint32_t seed, int32_t oc) {
    const st_vec_t counters =
        _mm256_add_epi32(_mm256_set1_epi32(oc), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const st_vec_t spread = _mm256_mullo_epi32(counters, _mm256_set1_epi32((int32_t)ST_SPREAD));
    const st_vec_t x = _mm256_add_epi32(spread, _mm256_set1_epi32((int32_t)ST_RANDOM_START));
    return mix(_mm256_xor_si256(_mm256_set1_epi32((int32_t)seed), x));
}

// subtract_sat of update.c. Steps are far smaller than what biases are first limited to.
ST_AVX2_INLINE void move_biases(int32_t *bias, st_vec_t steps) {
    const st_vec_t before = vec_load(bias), limit = _mm256_set1_epi32(ST_BIAS_LIMIT);
    const st_vec_t far = _mm256_set1_epi32(ST_BIAS_LIMIT + (1 << 20));
    const st_vec_t none = _mm256_setzero_si256(), stay = _mm256_cmpeq_epi32(steps, none);
    const st_vec_t near =
        _mm256_max_epi32(_mm256_min_epi32(before, far), _mm256_sub_epi32(none, far));
    st_vec_t v = _mm256_min_epi32(_mm256_sub_epi32(near, steps), limit);
    v = _mm256_max_epi32(v, _mm256_sub_epi32(none, limit));
    vec_store(bias, _mm256_blendv_epi8(v, before, stay));
}

// Eight biases from oc on.
ST_AVX2_INLINE void update_eight_biases(const st_update_t *u, int32_t oc, const int32_t *sums) {
    const vec_rate_t r = of_most_shift(bias_rates(u, oc));
    const st_vec_t none = _mm256_setzero_si256(), least = _mm256_set1_epi32(ST_LEAST_SHIFT);
    const st_vec_t left = _mm256_max_epi32(_mm256_sub_epi32(least, r.shift), none);
    const st_vec_t v = vec_load(sums), too_small = _mm256_cmpgt_epi32(left, _mm256_set1_epi32(31));
    if (u->velocity || which(too_small) || !can_shift(v, left)) {
        for (int32_t i = 0; i < 8; i++)
            st_update_bias(u, oc + i, sums[i]);
        return;
    }
    const st_vec_t rest = _mm256_sub_epi32(_mm256_max_epi32(r.shift, least), _mm256_set1_epi32(16));
    const vec_step_t s = {r.mantissa, rest};
    const st_vec_t random = bias_randoms(~u->seed, oc);
    move_biases(u->bias + oc, steps_of(_mm256_sllv_epi32(v, left), random, &s));
}

// Of `count` channels from oc on.
ST_AVX2 static void update_some_biases(const st_update_t *u, int32_t oc, int32_t count,
                                       const int32_t *sums) {
    int32_t i = 0;
    for (; i + 8 <= count; i += 8)
        update_eight_biases(u, oc + i, sums + i);
    for (; i < count; i++)
        st_update_bias(u, oc + i, sums[i]);
}

ST_AVX2 void st_update_biases_simd(int32_t positions, int32_t out_c, const int16_t *dy,
                                   const st_update_t *u) {
    int32_t oc = 0, sums[32];
    for (; u->bias && st_simd_is_wide() && oc < out_c; oc += 32) {
        st_wide_sum_errors(dy + oc, positions, out_c, out_c - oc, sums);
        update_some_biases(u, oc, st_min(32, out_c - oc), sums);
    }
    for (; u->bias && oc + 16 <= out_c; oc += 16) {
        sum_sixteen(dy + oc, positions, out_c, sums);
        update_eight_biases(u, oc, sums);
        update_eight_biases(u, oc + 8, sums + 8);
    }
    for (; u->bias && oc < out_c; oc++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < positions; i++)
            sum += dy[i * out_c + oc];
        st_update_bias(u, oc, sum);
    }
}

#endif
