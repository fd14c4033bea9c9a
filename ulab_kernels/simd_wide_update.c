// The learning rule for sixteen weights at once, and error tensors by sixteens: what simd_update.c
// and simd_error.c do by eights.
#include "simd_wide.h"

#if ST_HAS_SIMD

#include "random.h"

/// Steps ///

// st_mix32.
ST_AVX512_INLINE st_wide_t mix(st_wide_t x) {
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32((int32_t)ST_MIX_1));
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32((int32_t)ST_MIX_2));
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

// The hashes of thirty-two slots from an even one on, whose counter is given.
ST_AVX512_INLINE st_wide_t hashes(uint32_t seed, uint32_t counter) {
    const st_wide_t spread =
        _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                           _mm512_set1_epi32((int32_t)ST_SPREAD));
    return mix(_mm512_add_epi32(_mm512_set1_epi32((int32_t)(seed + counter * ST_SPREAD)), spread));
}

// st_random_in_row of the first or the second half of these slots.
ST_AVX512_INLINE st_wide_t randoms(st_wide_t hash, int second) {
    const st_wide_t twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const st_wide_t from = _mm512_add_epi32(twice, _mm512_set1_epi32(second ? 8 : 0));
    const st_wide_t end =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11, 15, 14, 13, 12));
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(from, hash), end);
}

// Steps of update.c's stochastic_step.
typedef struct {
    st_wide_t mantissa, rest, drop;
} wide_step_t;

ST_AVX512_INLINE wide_step_t step_in_all(uint32_t mantissa, int32_t shift) {
    return (wide_step_t){_mm512_set1_epi32((int32_t)mantissa), _mm512_set1_epi32(shift - 16),
                         _mm512_set1_epi32(48 - shift)};
}

// As stochastic_step. The mantissa has 15 bits and both halves of a sum 16: products of int16 do,
// of which those with the mantissa's upper half are 0.
ST_AVX512_INLINE st_wide_t steps_of(st_wide_t sums, st_wide_t random, const wide_step_t *s) {
    const st_wide_t high = _mm512_madd_epi16(_mm512_srli_epi32(sums, 16), s->mantissa);
    const st_wide_t low = _mm512_mullo_epi16(sums, s->mantissa);
    const st_wide_t carried =
        _mm512_add_epi32(_mm512_mulhi_epu16(sums, s->mantissa), _mm512_srli_epi32(low, 15));
    const st_wide_t chance = _mm512_srlv_epi32(random, s->drop);
    const st_wide_t v = _mm512_add_epi32(_mm512_add_epi32(high, carried), chance);
    return _mm512_srav_epi32(v, s->rest);
}

/// Weights alone ///

// Steps of weights alone are far from the ends of int32; those of 0 leave what is beyond the limit.
ST_AVX512_INLINE void move_row(int8_t *first, uint16_t some, st_wide_t steps) {
    const st_wide_t limit = _mm512_set1_epi32(127), least = _mm512_set1_epi32(-127);
    const st_wide_t before = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(some, first));
    const st_wide_t after = _mm512_min_epi32(_mm512_sub_epi32(before, steps), limit);
    const uint16_t moves = _mm512_mask_test_epi32_mask(some, steps, steps);
    _mm_mask_storeu_epi8(first, moves, _mm512_cvtepi32_epi8(_mm512_max_epi32(after, least)));
}

ST_AVX512_INLINE void move_each_whole(const st_update_t *u, int32_t base, int32_t slot,
                                      uint16_t some, st_wide_t steps) {
    int32_t step[ST_WIDE];
    wide_store(step, steps);
    for (uint32_t moves = _mm512_mask_test_epi32_mask(some, steps, steps); moves;
         moves &= moves - 1) {
        const int i = __builtin_ctz(moves);
        int8_t *weight = u->weights + base + u->channels[slot + i];
        *weight = (int8_t)st_clamp(*weight - step[i], -127, 127);
    }
}

// Which of sixteen sums can be shifted left by so much, as can_shift of update.c.
ST_AVX512_INLINE uint16_t can_shift(st_wide_t sums, int32_t left) {
    const st_wide_t limit = _mm512_set1_epi32(INT32_MAX >> left);
    return _mm512_cmple_epu32_mask(_mm512_abs_epi32(sums), limit);
}

// shift_sat of update.c.
ST_AVX512_INLINE st_wide_t shift_sat(st_wide_t sums, int32_t left) {
    const st_wide_t end =
        _mm512_xor_si512(_mm512_srai_epi32(sums, 31), _mm512_set1_epi32(INT32_MAX));
    return _mm512_mask_sll_epi32(end, can_shift(sums, left), sums, _mm_cvtsi32_si128(left));
}

// are_neighbours: the chosen channels; where they are, nothing hangs on how many move.
ST_AVX512_INLINE void update_coarse(const st_update_t *u, st_step_t step, int32_t base,
                                    const int32_t *sums, int are_neighbours) {
    const int32_t left = st_clamp(ST_LEAST_SHIFT - step.shift, 0, 31);
    const wide_step_t s = step_in_all(step.mantissa, st_max(step.shift, ST_LEAST_SHIFT));
    st_wide_t hash = _mm512_setzero_si512();
    for (int32_t i = 0; i < u->n_channels; i += ST_WIDE) {
        if (!(i & ST_WIDE))
            hash = hashes(u->seed, (uint32_t)(base + i / 2));
        const uint16_t some = st_first_of(u->n_channels - i);
        st_wide_t v = _mm512_maskz_loadu_epi32(some, sums + i);
        if (left)
            v = shift_sat(v, left);
        const st_wide_t steps = steps_of(v, randoms(hash, i & ST_WIDE), &s);
        if (are_neighbours)
            move_row(u->weights + base + u->channels[i], some, steps);
        else
            move_each_whole(u, base, i, some, steps);
    }
}

/// Weights with a residual ///

// The first of sixteen bytes.
ST_AVX512_INLINE __m128i some_bytes(const int8_t *from, uint16_t some) {
    if (some == 0xffff)
        return _mm_loadu_si128((const __m128i *)(const void *)from);
    return _mm_maskz_loadu_epi8(some, from);
}

ST_AVX512_INLINE void store_bytes(int8_t *to, uint16_t some, __m128i v) {
    if (some == 0xffff)
        _mm_storeu_si128((__m128i *)(void *)to, v);
    else
        _mm_mask_storeu_epi8(to, some, v);
}

// subtract_fine of update.c: a step of 0 leaves what is beyond the limit.
ST_AVX512_INLINE void move_neighbours(int8_t *weight, int8_t *fraction, uint16_t some,
                                      st_wide_t steps) {
    const st_wide_t limit = _mm512_set1_epi32(127 * 256), least = _mm512_set1_epi32(-127 * 256);
    const uint16_t moves = _mm512_test_epi32_mask(steps, steps);
    const st_wide_t w = _mm512_cvtepi8_epi32(some_bytes(weight, some));
    const st_wide_t f = _mm512_cvtepi8_epi32(some_bytes(fraction, some));
    const st_wide_t before = _mm512_add_epi32(_mm512_slli_epi32(w, 8), f);
    const st_wide_t after = _mm512_min_epi32(_mm512_sub_epi32(before, steps), limit);
    const st_wide_t fine = _mm512_mask_max_epi32(before, moves, after, least);
    const st_wide_t rounded = _mm512_add_epi32(fine, _mm512_set1_epi32(128));
    store_bytes(weight, some, _mm512_cvtepi32_epi8(_mm512_srai_epi32(rounded, 8)));
    store_bytes(fraction, some, _mm512_cvtepi32_epi8(fine)); // its lowest byte
}

// Steps of channels that lie apart: [span] from the first one on, zeros between them. Where they
// are neighbours, or in no ascending order, or too far apart for it, steps is NULL.
typedef struct {
    int32_t *steps, span;
    int are_neighbours;
} wide_spread_t;

ST_AVX512_INLINE int are_ascending(const uint16_t *channels, int32_t n) {
    uint16_t others = 0;
    for (int32_t i = 0; i < n - 1; i += ST_WIDE) {
        const uint16_t some = st_first_of(n - 1 - i);
        const __m256i v = _mm256_maskz_loadu_epi16(some, channels + i);
        const __m256i next = _mm256_maskz_loadu_epi16(some, channels + i + 1);
        others |= _mm256_mask_cmple_epu16_mask(some, next, v);
    }
    return !others;
}

ST_AVX512 static wide_spread_t spread_of(const st_update_t *u) {
    const int32_t n = u->n_channels, span = u->channels[n - 1] - u->channels[0] + 1;
    wide_spread_t s = {NULL, span, 0};
    if (!are_ascending(u->channels, n))
        return s;
    s.are_neighbours = span == n;
    if (!u->residual || s.are_neighbours || span > ST_WIDE * n || span > ST_WIDE_STEPS)
        return s;
    s.steps = (int32_t *)(void *)(st_simd_scratch()->b + ST_WIDE_PAIRS);
    __builtin_memset(s.steps, 0, sizeof(*s.steps) * (size_t)span);
    return s;
}

ST_AVX512_INLINE void spread_steps(const st_update_t *u, const wide_spread_t *to, int32_t slot,
                                   uint16_t some, st_wide_t steps) {
    const __m256i channels = _mm256_maskz_loadu_epi16(some, u->channels + slot);
    const st_wide_t at =
        _mm512_sub_epi32(_mm512_cvtepu16_epi32(channels), _mm512_set1_epi32(u->channels[0]));
    _mm512_mask_i32scatter_epi32(to->steps, some, at, steps, 4);
}

ST_AVX512_INLINE void move_spread(const st_update_t *u, int32_t base, const wide_spread_t *s) {
    const int32_t first = base + u->channels[0];
    for (int32_t i = 0; i < s->span; i += ST_WIDE) {
        const uint16_t some = st_first_of(s->span - i);
        move_neighbours(u->weights + first + i, u->residual + first + i, some,
                        _mm512_maskz_loadu_epi32(some, s->steps + i));
    }
}

ST_AVX512_INLINE void move_each(const st_update_t *u, int32_t base, int32_t slot, uint16_t some,
                                st_wide_t steps) {
    int32_t step[ST_WIDE];
    wide_store(step, steps);
    for (uint32_t moves = _mm512_mask_test_epi32_mask(some, steps, steps); moves;
         moves &= moves - 1) {
        const int i = __builtin_ctz(moves);
        const int32_t at = base + u->channels[slot + i];
        st_add_fine(u->weights + at, u->residual + at, -step[i]);
    }
}

// Steps of sixteen slots whose sums are not too large; they move, or wait to be spread.
ST_AVX512_INLINE void take_steps(const st_update_t *u, int32_t base, int32_t slot, uint16_t some,
                                 st_wide_t steps, const wide_spread_t *spread) {
    const int32_t at = base + u->channels[slot];
    if (spread->are_neighbours)
        move_neighbours(u->weights + at, u->residual + at, some, steps);
    else if (spread->steps)
        spread_steps(u, spread, slot, some, steps);
    else
        move_each(u, base, slot, some, steps);
}

// step: its shift is above 0. Sums of small shifts are shifted left, as wide_step of update.c does.
ST_AVX512_INLINE void update_fine(const st_update_t *u, st_step_t step, int32_t base,
                                  const int32_t *sums, const wide_spread_t *spread) {
    const int32_t left = st_max(ST_LEAST_SHIFT - step.shift, 0), n = u->n_channels;
    const wide_step_t s = step_in_all(step.mantissa, step.shift + left);
    st_wide_t hash = _mm512_setzero_si512();
    for (int32_t i = 0; i < n; i += ST_WIDE) {
        const uint16_t some = st_first_of(n - i);
        const st_wide_t v = _mm512_maskz_loadu_epi32(some, sums + i);
        if (!(i & ST_WIDE))
            hash = hashes(u->seed, (uint32_t)(base + i / 2));
        st_wide_t steps = _mm512_setzero_si512();
        if (!left || can_shift(v, left) == 0xffff)
            steps = steps_of(_mm512_sllv_epi32(v, _mm512_set1_epi32(left)),
                             randoms(hash, i & ST_WIDE), &s);
        else
            for (int32_t slot = i; slot < st_min(i + ST_WIDE, n); slot++)
                st_update_slot(u, step, base, slot, sums[slot]);
        take_steps(u, base, i, some, steps, spread);
    }
    if (spread->steps)
        move_spread(u, base, spread);
}

/// Rows ///

ST_AVX512 void st_wide_update_rows(const st_weight_rows_t *r, int32_t count) {
    const st_update_t u = *r->u; // so that no weight that is written changes it
    const wide_spread_t spread = spread_of(&u);
    const int32_t *sums = r->sums;
    for (int32_t oc = r->next; oc < r->next + count; oc++, sums += r->step) {
        const st_step_t step = st_weight_step(&u, oc);
        const int32_t base = r->base + oc * r->filter;
        if (!u.residual)
            update_coarse(&u, step, base, sums, spread.are_neighbours);
        else if (step.shift > 0)
            update_fine(&u, step, base, sums, &spread);
        else
            for (int32_t i = 0; i < u.n_channels; i++)
                st_update_slot(&u, step, base, i, sums[i]);
    }
}

/// Biases ///

// sums[32] += errors of two positions; in the order in which they unpack.
ST_AVX512_INLINE void add_two(st_wide_t first, st_wide_t second, st_wide_t sums[2]) {
    const st_wide_t ones = _mm512_set1_epi16(1);
    sums[0] = _mm512_dpwssd_epi32(sums[0], _mm512_unpacklo_epi16(first, second), ones);
    sums[1] = _mm512_dpwssd_epi32(sums[1], _mm512_unpackhi_epi16(first, second), ones);
}

ST_AVX512 void st_wide_sum_errors(const int16_t *dy, int32_t positions, int32_t out_c, int32_t n,
                                  int32_t *to) {
    const uint32_t some = st_first_words(n);
    st_wide_t sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    int32_t at = 0;
    for (; at + 2 <= positions; at += 2, dy += 2 * out_c)
        add_two(_mm512_maskz_loadu_epi16(some, dy), _mm512_maskz_loadu_epi16(some, dy + out_c),
                sums);
    if (at < positions)
        add_two(_mm512_maskz_loadu_epi16(some, dy), _mm512_setzero_si512(), sums);
    wide_store(to, _mm512_permutex2var_epi32(sums[0], ST_WIDE_PACKED, sums[1]));
    wide_store(to + ST_WIDE, _mm512_permutex2var_epi32(sums[0], ST_WIDE_PACKED_BEHIND, sums[1]));
}

/// Error tensors ///

// v >> n, rounded half up; 0 <= n <= 31.
ST_AVX512_INLINE st_wide_t shift_round(st_wide_t v, int32_t n) {
    if (!n)
        return v;
    v = _mm512_sra_epi32(v, _mm_cvtsi32_si128(n - 1));
    return _mm512_srai_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(1)), 1);
}

// Sixteen elements as they would be written.
ST_AVX512_INLINE st_wide_t element(const st_emit_t *e, const int16_t *to, const int32_t *sums) {
    const st_wide_t v = shift_round(wide_load(sums), e->shift);
    return e->mode == ST_ADD ? _mm512_add_epi32(v, _mm512_cvtepi16_epi32(vec_load(to))) : v;
}

// Thirty-two elements, or none of them where one does not fit: then 0 is returned.
ST_AVX512_INLINE int put_two(const st_emit_t *e, int16_t *to, const int32_t *sums,
                             st_wide_t *peak) {
    const st_wide_t a = element(e, to, sums), b = element(e, to + ST_WIDE, sums + ST_WIDE);
    const st_wide_t size = _mm512_max_epu32(_mm512_abs_epi32(a), _mm512_abs_epi32(b));
    const st_wide_t order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    if (_mm512_cmpgt_epu32_mask(size, _mm512_set1_epi32(e->limit)))
        return 0;
    wide_store(to, _mm512_permutexvar_epi64(order, _mm512_packs_epi32(a, b)));
    *peak = _mm512_max_epi32(*peak, size);
    return 1;
}

ST_AVX512_INLINE int put_one(const st_emit_t *e, int16_t *to, const int32_t *sums,
                             st_wide_t *peak) {
    const st_wide_t v = element(e, to, sums), size = _mm512_abs_epi32(v);
    if (_mm512_cmpgt_epu32_mask(size, _mm512_set1_epi32(e->limit)))
        return 0;
    vec_store(to, _mm512_cvtepi32_epi16(v));
    *peak = _mm512_max_epi32(*peak, size);
    return 1;
}

ST_AVX512 int32_t st_wide_emit(st_emit_t *tensor, int32_t at, const int32_t *sums, int32_t n) {
    const st_emit_t e = *tensor; // so that no element that is written changes it
    int16_t *to = e.data + at;
    st_wide_t peak = _mm512_setzero_si512();
    int32_t i = 0;
    while (i + 2 * ST_WIDE <= n && put_two(&e, to + i, sums + i, &peak))
        i += 2 * ST_WIDE;
    while (i + ST_WIDE <= n && put_one(&e, to + i, sums + i, &peak))
        i += ST_WIDE;
    tensor->peak = st_max(e.peak, _mm512_reduce_max_epi32(peak));
    return i;
}

#endif
