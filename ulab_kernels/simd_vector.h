// Vectors of eight int32 or sixteen int16, and the arithmetic of fixedpoint.h on them.
// Internal to simd_*.c.
#ifndef ST_SIMD_VECTOR_H
#define ST_SIMD_VECTOR_H

#if defined(ST_SIMD) && defined(__x86_64__) && defined(__GNUC__)
#define ST_HAS_SIMD 1
#else
#define ST_HAS_SIMD 0
#endif

#if ST_HAS_SIMD

#include <immintrin.h>

#include "fixedpoint.h"
#include "simd.h"

// What is compiled for AVX2 whatever the rest of the build is compiled for; it runs only where
// st_simd_is_on().
#define ST_AVX2 __attribute__((target("avx2")))
// Small helpers become part of their caller, so that vectors stay in registers.
#define ST_AVX2_INLINE ST_AVX2 __attribute__((always_inline)) static inline

typedef __m256i st_vec_t;

// Any alignment.
ST_AVX2_INLINE st_vec_t vec_load(const void *from) {
    return _mm256_loadu_si256((const __m256i *)from);
}

ST_AVX2_INLINE void vec_store(void *to, st_vec_t v) {
    _mm256_storeu_si256((__m256i *)to, v);
}

// Sixteen int8 as int16.
ST_AVX2_INLINE st_vec_t vec_widen(const int8_t *from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from));
}

// Eight int8 as int16, z taken off.
ST_AVX2_INLINE void vec_widen_eight(const int8_t *from, st_vec_t z, int16_t *to) {
    const __m128i v = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)from));
    _mm_storeu_si128((__m128i *)to, _mm_sub_epi16(v, _mm256_castsi256_si128(z)));
}

// Two int16 that lie side by side, as the one int32 that they are, in all places.
ST_AVX2_INLINE st_vec_t vec_pair(const int16_t *from) {
    int32_t pair;
    __builtin_memcpy(&pair, from, sizeof(pair));
    return _mm256_set1_epi32(pair);
}

// sum + products of pairs of int16.
ST_AVX2_INLINE st_vec_t vec_dot(st_vec_t sum, st_vec_t a, st_vec_t b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}

// The sum of the eight int32.
ST_AVX2_INLINE int32_t vec_total(st_vec_t v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// Eight factors of st_requantize, ready for use.
typedef struct {
    st_vec_t multiplier, left, right, mask, half;
} vec_requant_t;

ST_AVX2_INLINE vec_requant_t vec_requant(st_vec_t multiplier, st_vec_t shift) {
    const st_vec_t zero = _mm256_setzero_si256();
    vec_requant_t f = {.multiplier = multiplier};
    f.left = _mm256_max_epi32(shift, zero);
    f.right = _mm256_max_epi32(_mm256_sub_epi32(zero, shift), zero);
    f.mask =
        _mm256_sub_epi32(_mm256_sllv_epi32(_mm256_set1_epi32(1), f.right), _mm256_set1_epi32(1));
    f.half = _mm256_srli_epi32(f.mask, 1);
    return f;
}

// Eight factors that lie in memory one behind the other.
ST_AVX2_INLINE vec_requant_t vec_requant_load(const st_requant_t *from) {
    const __m256 a = _mm256_castsi256_ps(vec_load(from));
    const __m256 b = _mm256_castsi256_ps(vec_load(from + 4));
    const st_vec_t multiplier = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
    const st_vec_t shift = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
    return vec_requant(_mm256_permute4x64_epi64(multiplier, 0xd8),
                       _mm256_permute4x64_epi64(shift, 0xd8));
}

// st_mul_high for b > INT32_MIN.
ST_AVX2_INLINE st_vec_t vec_mul_high(st_vec_t a, st_vec_t b) {
    const st_vec_t round = _mm256_set1_epi64x(1ll << 30);
    const st_vec_t even = _mm256_mul_epi32(a, b);
    const st_vec_t odd = _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    // Of (product + round) >> 31 the lower 32 bits are wanted, which need no sign.
    const st_vec_t low = _mm256_srli_epi64(_mm256_add_epi64(even, round), 31);
    const st_vec_t high = _mm256_slli_epi64(_mm256_add_epi64(odd, round), 1);
    return _mm256_blend_epi32(low, high, 0xaa);
}

// st_requantize.
ST_AVX2_INLINE st_vec_t vec_requantize(st_vec_t x, const vec_requant_t *f) {
    x = vec_mul_high(_mm256_sllv_epi32(x, f->left), f->multiplier);
    const st_vec_t threshold = _mm256_add_epi32(f->half, _mm256_srli_epi32(x, 31));
    const st_vec_t up = _mm256_cmpgt_epi32(_mm256_and_si256(x, f->mask), threshold);
    return _mm256_sub_epi32(_mm256_srav_epi32(x, f->right), up);
}

// Four times eight int32 to int8, saturating, in their order.
ST_AVX2_INLINE st_vec_t vec_narrow(st_vec_t a, st_vec_t b, st_vec_t c, st_vec_t d) {
    const st_vec_t bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// How a requantised sum becomes an output: each number as int32, and as narrow as it may be added
// and compared behind packing.
typedef struct {
    st_vec_t zero, min, max;
    st_vec_t zero_16, min_8, max_8;
} vec_output_t;

ST_AVX2_INLINE vec_output_t vec_output(int32_t zero, int32_t min, int32_t max) {
    const vec_output_t o = {_mm256_set1_epi32(zero),       _mm256_set1_epi32(min),
                            _mm256_set1_epi32(max),        _mm256_set1_epi16((int16_t)zero),
                            _mm256_set1_epi8((int8_t)min), _mm256_set1_epi8((int8_t)max)};
    return o;
}

ST_AVX2_INLINE st_vec_t vec_clamp(st_vec_t v, const vec_output_t *o) {
    v = _mm256_add_epi32(v, o->zero);
    return _mm256_min_epi32(_mm256_max_epi32(v, o->min), o->max);
}

// n int8 as int16, their zero point taken off. Ends are done twice rather than one by one.
ST_AVX2_INLINE void vec_widen_all(const int8_t *x, int32_t n, int32_t zero, int16_t *to) {
    const st_vec_t z = _mm256_set1_epi16((int16_t)zero);
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        vec_store(to + i, _mm256_sub_epi16(vec_widen(x + i), z));
    if (i == n)
        return;
    if (n >= 16) {
        vec_store(to + n - 16, _mm256_sub_epi16(vec_widen(x + n - 16), z));
    } else if (n >= 8) {
        vec_widen_eight(x, z, to);
        vec_widen_eight(x + n - 8, z, to + n - 8);
    } else {
        for (; i < n; i++)
            to[i] = (int16_t)(x[i] - zero);
    }
}

// What turns the sums of eight channels into outputs: vec_requant_t in memory, behind the biases.
typedef struct {
    int32_t bias[8], multiplier[8], left[8], right[8], mask[8], half[8];
    int32_t right_less_1[8];
} st_factors_t;

// Of channels [first, first + count); 0 behind the last one. Returns whether all of them shift to
// the right, by one and more: the outputs of nearly every layer are coarser than its sums. Then
// what is left fits 30 bits, and fewer instructions do.
int st_simd_factors(const st_conv_params_t *p, int32_t first, int32_t count, st_factors_t *to);

// Sums of eight channels to outputs, for vec_outputs. all_right: what st_simd_factors returned; a
// constant.
ST_AVX2_INLINE st_vec_t vec_finish(st_vec_t sums, const st_factors_t *from, const vec_output_t *o,
                                   const int all_right) {
    const vec_requant_t f = {vec_load(from->multiplier), vec_load(from->left),
                             vec_load(from->right), vec_load(from->mask), vec_load(from->half)};
    const st_vec_t x = _mm256_add_epi32(sums, vec_load(from->bias));
    if (!all_right)
        return vec_clamp(vec_requantize(x, &f), o);
    st_vec_t v = vec_mul_high(x, f.multiplier);
    v = _mm256_add_epi32(v, _mm256_srai_epi32(v, 31)); // ties go away from zero
    v = _mm256_srav_epi32(v, vec_load(from->right_less_1));
    return _mm256_srai_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(1)), 1);
}

// Four results of vec_finish as bytes.
ST_AVX2_INLINE st_vec_t vec_outputs(const st_vec_t v[4], const vec_output_t *o,
                                    const int all_right) {
    if (!all_right)
        return vec_narrow(v[0], v[1], v[2], v[3]);
    const st_vec_t a = _mm256_adds_epi16(_mm256_packs_epi32(v[0], v[1]), o->zero_16);
    const st_vec_t b = _mm256_adds_epi16(_mm256_packs_epi32(v[2], v[3]), o->zero_16);
    const st_vec_t bytes = _mm256_max_epi8(_mm256_packs_epi16(a, b), o->min_8);
    return _mm256_permutevar8x32_epi32(_mm256_min_epi8(bytes, o->max_8),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// Scratch of the calling thread; a kernel uses it within its call alone.
#define ST_SIMD_ROOM (1 << 18)     // elements of a and of b
#define ST_SIMD_SUMS (1 << 16)     // elements of c
#define ST_SIMD_CHANNELS (1 << 13) // that factors have room for
#define ST_SIMD_WEIGHTS (1 << 19)  // of a layer in flash
typedef struct {
    int16_t a[ST_SIMD_ROOM], b[ST_SIMD_ROOM];
    int32_t c[ST_SIMD_SUMS];
    st_factors_t factors[ST_SIMD_CHANNELS / 8];
    int8_t weights[ST_SIMD_WEIGHTS];
} st_simd_scratch_t;
st_simd_scratch_t *st_simd_scratch(void);

#else
typedef int st_no_simd_t; // ISO C wants a declaration in every file
#endif
#endif
