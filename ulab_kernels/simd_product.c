#include "simd_product.h"

#if ST_HAS_SIMD

// `rows` rows (1 or 4) times `panels` panels (1 or 2), all sums in registers.
ST_AVX2_INLINE void tile(const st_product_t *p, int32_t row, int32_t panel, const int rows,
                         const int panels) {
    const int32_t a_step = 2 * p->pairs, c_step = ST_PANEL * p->panels;
    const int16_t *a = p->a + row * a_step;
    const int16_t *b = p->b + panel * ST_PANEL * a_step;
    st_vec_t sum[4][2];
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < panels; n++)
            sum[r][n] = _mm256_setzero_si256();
    for (int32_t k = 0; k < p->pairs; k++, a += 2, b += 2 * ST_PANEL)
        for (int r = 0; r < rows; r++) {
            const st_vec_t pair = vec_pair(a + r * a_step);
            for (int n = 0; n < panels; n++)
                sum[r][n] = vec_dot(sum[r][n], pair, vec_load(b + n * ST_PANEL * a_step));
        }
    int32_t *c = p->c + row * c_step + panel * ST_PANEL;
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < panels; n++)
            vec_store(c + r * c_step + n * ST_PANEL, sum[r][n]);
}

ST_AVX2 static void four_rows(const st_product_t *p, int32_t row) {
    int32_t panel = 0;
    for (; panel + 2 <= p->panels; panel += 2)
        tile(p, row, panel, 4, 2);
    if (panel < p->panels)
        tile(p, row, panel, 4, 1);
}

ST_AVX2 static void one_row(const st_product_t *p, int32_t row) {
    int32_t panel = 0;
    for (; panel + 2 <= p->panels; panel += 2)
        tile(p, row, panel, 1, 2);
    if (panel < p->panels)
        tile(p, row, panel, 1, 1);
}

ST_AVX2 void st_simd_product(const st_product_t *p, int32_t rows) {
    int32_t row = 0;
    for (; row + 4 <= rows; row += 4)
        four_rows(p, row);
    for (; row < rows; row++)
        one_row(p, row);
}

/// Packing ///

// Eight rows of eight int32 become eight columns.
ST_AVX2_INLINE void transpose(st_vec_t v[8]) {
    st_vec_t t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = _mm256_unpacklo_epi64(t[i + j], t[i + j + 2]);
            u[i + 2 * j + 1] = _mm256_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
    }
}

// Sixteen int8 from an array that may end before.
ST_AVX2_INLINE st_vec_t widen_some(const int8_t *from, int32_t n) {
    int8_t some[16] = {0};
    if (n == 8)
        return _mm256_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)from));
    __builtin_memcpy(some, from, (size_t)n);
    return vec_widen(some);
}

// Up to sixteen k of up to eight columns.
ST_AVX2_INLINE void pack_block(const int8_t *w, int32_t length, int32_t columns, int32_t n,
                               st_vec_t zero, int16_t *b) {
    st_vec_t v[8];
    for (int i = 0; i < 8; i++) {
        v[i] = _mm256_setzero_si256();
        if (i < columns && n == 16)
            v[i] = _mm256_sub_epi16(vec_widen(w + i * length), zero);
        else if (i < columns)
            v[i] = _mm256_sub_epi16(widen_some(w + i * length, n), zero);
    }
    transpose(v);
    for (int i = 0; i < 8 && 2 * i < n; i++)
        vec_store(b + i * 2 * ST_PANEL, v[i]);
}

ST_AVX2 void st_simd_pack_columns(const int8_t *w, int32_t length, int32_t columns, int32_t zero,
                                  int16_t *b) {
    const st_vec_t z = _mm256_set1_epi16((int16_t)zero);
    const int32_t pairs = (length + 1) / 2;
    for (int32_t n = 0; n < columns; n += ST_PANEL, w += ST_PANEL * length) {
        int16_t *to = b + n * 2 * pairs;
        int32_t k = 0;
        for (; columns - n >= ST_PANEL && k + 16 <= length; k += 16)
            pack_block(w + k, length, ST_PANEL, 16, z, to + k * ST_PANEL);
        for (; k < length; k += 16)
            pack_block(w + k, length, columns - n, st_min(16, length - k), z, to + k * ST_PANEL);
    }
}

ST_AVX2_INLINE void pack_two_panels(st_vec_t x, st_vec_t y, int32_t panel_step, int16_t *b) {
    const st_vec_t low = _mm256_unpacklo_epi16(x, y), high = _mm256_unpackhi_epi16(x, y);
    vec_store(b, _mm256_permute2x128_si256(low, high, 0x20));
    if (panel_step)
        vec_store(b + panel_step, _mm256_permute2x128_si256(low, high, 0x31));
}

// n columns of a row, widened; zeros behind them.
ST_AVX2_INLINE st_vec_t row_part(const int8_t *row, int32_t at, int32_t n, st_vec_t zero) {
    if (!row)
        return _mm256_setzero_si256();
    return _mm256_sub_epi16(n < 16 ? widen_some(row + at, n) : vec_widen(row + at), zero);
}

ST_AVX2 void st_simd_pack_pair(const int8_t *const row[2], int32_t columns, int32_t zero,
                               int32_t pairs, int16_t *b) {
    const st_vec_t z = _mm256_set1_epi16((int16_t)zero);
    const int32_t step = 2 * ST_PANEL * pairs;
    for (int32_t n = 0; n < columns; n += 16, b += 2 * step) {
        const int32_t count = st_min(16, columns - n);
        pack_two_panels(row_part(row[0], n, count, z), row_part(row[1], n, count, z),
                        count > ST_PANEL ? step : 0, b);
    }
}

/// Single rows ///

// `rows` dot products (1 or 4) that share the loads of x.
ST_AVX2_INLINE void dots(const int16_t *x, const int8_t *w, int32_t length, const int rows,
                         int32_t zero, int32_t *sums) {
    const st_vec_t z = _mm256_set1_epi16((int16_t)zero);
    st_vec_t sum[4];
    int32_t k = 0;
    for (int r = 0; r < rows; r++)
        sum[r] = _mm256_setzero_si256();
    for (; k + 16 <= length; k += 16) {
        const st_vec_t v = vec_load(x + k);
        for (int r = 0; r < rows; r++)
            sum[r] = vec_dot(sum[r], v, _mm256_sub_epi16(vec_widen(w + r * length + k), z));
    }
    for (int r = 0; r < rows; r++) {
        sums[r] = vec_total(sum[r]);
        for (int32_t i = k; i < length; i++)
            sums[r] += x[i] * (w[r * length + i] - zero);
    }
}

ST_AVX2 void st_simd_dots(const int16_t *x, const int8_t *w, int32_t length, int32_t rows,
                          int32_t zero, int32_t *sums) {
    int32_t row = 0;
    for (; row + 4 <= rows; row += 4, w += 4 * length)
        dots(x, w, length, 4, zero, sums + row);
    for (; row < rows; row++, w += length)
        dots(x, w, length, 1, zero, sums + row);
}

// Up to sixteen columns, two rows of w at a time.
ST_AVX2_INLINE void combine(const int16_t *x, const int8_t *w, int32_t length, int32_t columns,
                            int32_t at, st_vec_t zero, int32_t *sums) {
    const int32_t n = st_min(16, columns - at);
    st_vec_t low = _mm256_setzero_si256(), high = low;
    for (int32_t k = 0; k < length; k += 2, w += 2 * columns) {
        const st_vec_t pair = vec_pair(x + k), a = row_part(w, at, n, zero);
        const st_vec_t b = row_part(k + 1 < length ? w + columns : NULL, at, n, zero);
        low = vec_dot(low, _mm256_unpacklo_epi16(a, b), pair);
        high = vec_dot(high, _mm256_unpackhi_epi16(a, b), pair);
    }
    vec_store(sums + at, _mm256_permute2x128_si256(low, high, 0x20));
    vec_store(sums + at + 8, _mm256_permute2x128_si256(low, high, 0x31));
}

ST_AVX2 void st_simd_combine(const int16_t *x, const int8_t *w, int32_t length, int32_t columns,
                             int32_t zero, int32_t *sums) {
    const st_vec_t z = _mm256_set1_epi16((int16_t)zero);
    for (int32_t at = 0; at < columns; at += 16)
        combine(x, w, length, columns, at, z, sums);
}

#endif
