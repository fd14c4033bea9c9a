// 1x1 convolutions as products of bytes, with AVX-512 and VNNI: four channels of sixteen filters at
// a time. Inputs become unsigned by 128 more than they are; what that adds to the sums of a filter
// is the same everywhere, and is taken off its bias, as is the zero point.
#include "simd_wide.h"

#if ST_HAS_SIMD

#define FOUR 4 // channels of a product
#define MORE 128

// The first of sixty-four bytes.
ST_AVX512_INLINE st_wide_t some_bytes(const int8_t *from, int32_t n) {
    const uint64_t some = n < 64 ? (1ull << n) - 1 : UINT64_MAX;
    return _mm512_maskz_loadu_epi8(some, from);
}

// Of sixteen rows of sixteen int32, four and four rows: each quarter of row 4 * i + j is then four
// rows of one column.
ST_AVX512_INLINE void transpose_quarters(st_wide_t v[ST_WIDE]) {
    for (int i = 0; i < ST_WIDE; i += 4) {
        const st_wide_t a = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        const st_wide_t b = _mm512_unpackhi_epi32(v[i], v[i + 1]);
        const st_wide_t c = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]);
        const st_wide_t d = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
        v[i] = _mm512_unpacklo_epi64(a, c);
        v[i + 1] = _mm512_unpackhi_epi64(a, c);
        v[i + 2] = _mm512_unpacklo_epi64(b, d);
        v[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
}

// Sixteen rows of sixteen int32 become columns.
ST_AVX512_INLINE void transpose(st_wide_t v[ST_WIDE]) {
    transpose_quarters(v);
    for (int j = 0; j < 4; j++) {
        const st_wide_t a = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x44);
        const st_wide_t b = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xee);
        const st_wide_t c = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x44);
        const st_wide_t d = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xee);
        v[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        v[4 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
        v[8 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
        v[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

// Up to sixteen filters of `length` bytes, and what is taken off their biases. to: [length /
// 4][16][4].
ST_AVX512_INLINE st_wide_t pack_sixteen(const int8_t *w, int32_t length, int32_t filters,
                                        int32_t zero, int8_t *to) {
    st_wide_t sums = _mm512_setzero_si512(), v[ST_WIDE];
    for (int32_t k = 0; k < length; k += FOUR * ST_WIDE) {
        const int32_t fours = st_min((length - k) / FOUR, ST_WIDE);
        for (int i = 0; i < ST_WIDE; i++)
            v[i] =
                i < filters ? some_bytes(w + i * length + k, length - k) : _mm512_setzero_si512();
        transpose(v);
        for (int32_t i = 0; i < fours; i++, to += FOUR * ST_WIDE) {
            sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), v[i]);
            wide_store(to, v[i]);
        }
    }
    return _mm512_mullo_epi32(sums, _mm512_set1_epi32(zero + MORE));
}

ST_AVX512 void st_wide_pack_bytes(const st_wide_bytes_t *p, const int8_t *w, int32_t zero,
                                  st_factors_t *factors) {
    int8_t *to = st_wide_bytes_b();
    for (int32_t n = 0; n < p->columns; n += ST_WIDE, factors += 2) {
        const st_wide_t less = pack_sixteen(w + n * p->length, p->length, p->columns - n, zero, to);
        const st_vec_t low = _mm512_castsi512_si256(less);
        const st_vec_t high = _mm512_extracti64x4_epi64(less, 1);
        vec_store(factors[0].bias, _mm256_sub_epi32(vec_load(factors[0].bias), low));
        if (n + ST_PANEL < p->columns)
            vec_store(factors[1].bias, _mm256_sub_epi32(vec_load(factors[1].bias), high));
        to += ST_WIDE * p->length;
    }
}

ST_AVX512 void st_wide_lift_bytes(const int8_t *x, int32_t n) {
    const st_wide_t more = _mm512_set1_epi8(-MORE);
    int8_t *to = (int8_t *)st_simd_scratch()->a;
    for (int32_t i = 0; i < n; i += 64)
        wide_store(to + i, _mm512_xor_si512(some_bytes(x + i, n - i), more));
}

// Sixteen columns from n on.
ST_AVX512_INLINE void tile(const st_wide_bytes_t *p, const int8_t *a, int32_t n) {
    const int8_t *b = st_wide_bytes_b() + n * p->length;
    st_wide_t sum[ST_WIDE];
#pragma GCC unroll 16
    for (int r = 0; r < ST_WIDE; r++)
        sum[r] = _mm512_setzero_si512();
    for (int32_t k = 0; k < p->length; k += FOUR, b += FOUR * ST_WIDE) {
        const st_wide_t four = wide_load(b);
#pragma GCC unroll 16
        for (int r = 0; r < ST_WIDE; r++) {
            int32_t x;
            __builtin_memcpy(&x, a + r * p->length + k, sizeof(x));
            sum[r] = _mm512_dpbusd_epi32(sum[r], _mm512_set1_epi32(x), four);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ST_WIDE; r++)
        _mm512_mask_storeu_epi32(p->c + r * p->c_step + n, st_first_of(p->c_step - n), sum[r]);
}

ST_AVX512 void st_wide_bytes_product(const st_wide_bytes_t *p, int32_t position) {
    const int8_t *a = (const int8_t *)st_simd_scratch()->a + position * p->length;
    for (int32_t n = 0; n < p->columns; n += ST_WIDE)
        tile(p, a, n);
}

#endif
