// The gradients of 1x1 convolutions, with AVX-512 and VNNI: sixteen positions, or filters, times
// sixteen channels at a time. Weights and kept activations are widened as they are multiplied, so
// that nothing is packed.
#include "simd_wide.h"

#if ST_HAS_SIMD

static int32_t even(int32_t n) {
    return (n + 1) & ~1;
}

/// Products ///

// Sixteen columns of two rows, so that those of one column lie side by side.
ST_AVX512_INLINE st_wide_t column_pairs(const int8_t *first, const int8_t *second, uint16_t some,
                                        st_wide_t zero) {
    const __m128i a = _mm_maskz_loadu_epi8(some, first), b = _mm_maskz_loadu_epi8(some, second);
    const __m256i bytes = _mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b));
    return _mm512_sub_epi16(_mm512_cvtepi8_epi16(bytes), zero);
}

typedef int32_t __attribute__((may_alias, aligned(2))) st_pair_t; // of elements

// sum + products of b with a pair of a in all places. As an instruction: compilers read the pair by
// another one, and copy the sums.
ST_AVX512_INLINE st_wide_t add_products(st_wide_t sum, const int16_t *a, st_wide_t b) {
    __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(b), "m"(*(const st_pair_t *)a));
    return sum;
}

// sum[row] += products with one pair of b. step: from row to row of a.
ST_AVX512_INLINE void add_pair(st_wide_t sum[ST_WIDE], const int16_t *a, int32_t step,
                               st_wide_t b) {
#pragma GCC unroll 4
    for (int i = 0; i < ST_WIDE; i += 4, a += 4 * step) {
        sum[i] = add_products(sum[i], a, b);
        sum[i + 1] = add_products(sum[i + 1], a + step, b);
        sum[i + 2] = add_products(sum[i + 2], a + 2 * step, b);
        sum[i + 3] = add_products(sum[i + 3], a + 3 * step, b);
    }
}

// Elements of the pairs of sixteen columns.
static int32_t pairs_size(const st_wide_product_t *p) {
    return ST_WIDE * even(p->length);
}

// b, widened once for all that it is multiplied with; NULL where it has no room.
ST_AVX512 static const int16_t *widened(const st_wide_product_t *p) {
    const st_wide_t zero = _mm512_set1_epi16((int16_t)p->zero);
    int16_t *to = st_simd_scratch()->b;
    if (((p->columns + ST_WIDE - 1) & -ST_WIDE) * even(p->length) > ST_WIDE_PAIRS)
        return NULL;
    for (int32_t n = 0; n < p->columns; n += ST_WIDE) {
        const uint16_t some = st_first_of(p->columns - n);
        const int8_t *b = p->b + n;
        for (int32_t k = 0; k < p->length; k += 2, b += 2 * p->b_step, to += 2 * ST_WIDE)
            wide_store(to, column_pairs(b, k + 1 < p->length ? b + p->b_step : b, some, zero));
    }
    return st_simd_scratch()->b;
}

// Sixteen columns from n on. row_step: p's own, a constant where it is 1. is_wide: whether b has
// been widened.
ST_AVX512_INLINE void tile(const st_wide_product_t *p, int32_t n, int32_t row_step,
                           const int is_wide) {
    const uint16_t some = st_first_of(p->columns - n);
    const st_wide_t zero = _mm512_set1_epi16((int16_t)p->zero);
    const int16_t *a = p->a, *pairs = is_wide ? p->pairs + n / ST_WIDE * pairs_size(p) : NULL;
    const int8_t *b = p->b + n;
    st_wide_t sum[ST_WIDE];
#pragma GCC unroll 16
    for (int r = 0; r < ST_WIDE; r++)
        sum[r] = _mm512_setzero_si512();
    for (int32_t k = 0; k < p->length; k += 2, a += 2 * p->pair_step) {
        if (is_wide) {
            add_pair(sum, a, 2 * row_step, wide_load(pairs));
            pairs += 2 * ST_WIDE;
        } else {
            const int8_t *second = k + 1 < p->length ? b + p->b_step : b;
            add_pair(sum, a, 2 * row_step, column_pairs(b, second, some, zero));
            b += 2 * p->b_step;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ST_WIDE; r++)
        _mm512_mask_storeu_epi32(p->c + r * p->c_step + n, some, sum[r]);
}

ST_AVX512 void st_wide_product(const st_wide_product_t *p) {
    for (int32_t n = 0; n < p->columns; n += ST_WIDE)
        if (p->pairs && p->row_step == 1)
            tile(p, n, 1, 1);
        else if (p->pairs)
            tile(p, n, p->row_step, 1);
        else
            tile(p, n, p->row_step, 0);
}

// Sixteen columns of a packed b, or eight.
ST_AVX512_INLINE void packed_tile(const st_product_t *p, int32_t panel) {
    const int32_t step = 2 * p->pairs, columns = ST_PANEL * p->panels, n = ST_PANEL * panel;
    const int16_t *a = p->a, *b = p->b + n * step;
    const int16_t *second = panel + 1 < p->panels ? b + ST_PANEL * step : b;
    st_wide_t sum[ST_WIDE];
#pragma GCC unroll 16
    for (int r = 0; r < ST_WIDE; r++)
        sum[r] = _mm512_setzero_si512();
    for (int32_t k = 0; k < p->pairs; k++, a += 2, b += 2 * ST_PANEL, second += 2 * ST_PANEL) {
        const st_wide_t low = _mm512_castsi256_si512(vec_load(b));
        add_pair(sum, a, step, _mm512_inserti64x4(low, vec_load(second), 1));
    }
#pragma GCC unroll 16
    for (int r = 0; r < ST_WIDE; r++)
        _mm512_mask_storeu_epi32(p->c + r * columns + n, st_first_of(columns - n), sum[r]);
}

ST_AVX512 void st_wide_packed_product(const st_product_t *p) {
    for (int32_t panel = 0; panel < p->panels; panel += 2)
        packed_tile(p, panel);
}

/// Input ///

static int is_pointwise(const st_conv_geometry_t *g) {
    return g->kernel_h * g->kernel_w * g->stride_h * g->stride_w * g->groups == 1 && !g->pad_h &&
           !g->pad_w && g->in_h == g->out_h && g->in_w == g->out_w;
}

int st_wide_can_grad_input(const st_conv_geometry_t *g) {
    return is_pointwise(g) && g->in_h * g->in_w >= ST_WIDE &&
           ST_WIDE * even(g->out_c) <= ST_SIMD_ROOM && ST_WIDE * g->in_c <= ST_SIMD_SUMS;
}

// (dy * scale + 2^14) >> 15 of one position; a scale of 2^15 is 1. to: even(n) elements.
ST_AVX512_INLINE void scale_errors(const int16_t *dy, const uint16_t *scale, int32_t n,
                                   int16_t *to) {
    const st_wide_t one = _mm512_set1_epi16(INT16_MIN);
    for (int32_t i = 0; i < n; i += 32) {
        const uint32_t some = st_first_words(n - i), written = st_first_words(even(n - i));
        const st_wide_t d = _mm512_maskz_loadu_epi16(some, dy + i);
        const st_wide_t s = _mm512_maskz_loadu_epi16(some, scale + i);
        const st_wide_t v =
            _mm512_mask_mov_epi16(_mm512_mulhrs_epi16(d, s), _mm512_cmpeq_epi16_mask(s, one), d);
        _mm512_mask_storeu_epi16(to + i, written, v);
    }
}

// The last sixteen positions may be some that were done before: those are made twice, and handed on
// once.
ST_AVX512 void st_wide_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                  const int16_t *dy, st_emit_t *dx) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    const int32_t n = g->in_c, positions = g->in_h * g->in_w, step = even(g->out_c);
    st_wide_product_t product = {.a = scratch->a,
                                 .pair_step = 1,
                                 .row_step = step / 2,
                                 .b = p->weights,
                                 .b_step = n,
                                 .length = g->out_c,
                                 .zero = g->w_zero,
                                 .columns = n,
                                 .c = scratch->c,
                                 .c_step = n};
    product.pairs = positions > ST_WIDE ? widened(&product) : NULL;
    for (int32_t done = 0; done < positions; done += ST_WIDE) {
        const int32_t first = st_min(done, positions - ST_WIDE), twice = done - first;
        for (int32_t i = 0; i < ST_WIDE; i++)
            scale_errors(dy + (first + i) * g->out_c, p->scale_q15, g->out_c,
                         scratch->a + i * step);
        st_wide_product(&product);
        st_emit_row_simd(dx, done * n, scratch->c + twice * n, (ST_WIDE - twice) * n);
    }
}

/// Weights ///

int st_wide_can_update(const st_conv_geometry_t *g, const st_update_t *u) {
    return is_pointwise(g) && g->out_c >= ST_WIDE && u->n_channels &&
           (int64_t)even(g->in_h * g->in_w) * g->out_c <= ST_SIMD_ROOM &&
           ST_WIDE * (u->n_channels + ST_WIDE) <= ST_SIMD_SUMS;
}

// Errors of two positions, those of a channel side by side. second: NULL where there is none.
ST_AVX512_INLINE void pair_errors(const int16_t *first, const int16_t *second, int32_t n,
                                  int16_t *to) {
    for (int32_t i = 0; i < n; i += ST_WIDE) {
        const uint16_t some = st_first_of(n - i);
        const __m256i a = _mm256_maskz_loadu_epi16(some, first + i);
        const __m256i b =
            second ? _mm256_maskz_loadu_epi16(some, second + i) : _mm256_setzero_si256();
        const st_wide_t high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16);
        _mm512_mask_storeu_epi32(to + 2 * i, some, _mm512_or_si512(_mm512_cvtepu16_epi32(a), high));
    }
}

ST_AVX512 static void pair_all_errors(const st_conv_geometry_t *g, const int16_t *dy, int16_t *to) {
    const int32_t positions = g->in_h * g->in_w, n = g->out_c;
    for (int32_t at = 0; at < positions; at += 2, dy += 2 * n, to += 2 * n)
        pair_errors(dy, at + 1 < positions ? dy + n : NULL, n, to);
}

// Of filters [done, first + ST_WIDE), the sums of `first` and those behind it.
ST_AVX512 static void learn(const st_conv_geometry_t *g, const st_update_t *u, int32_t first,
                            int32_t done, int32_t step) {
    int32_t *sums = st_simd_scratch()->c + (done - first) * step;
    const int32_t count = first + ST_WIDE - done;
    const st_weight_rows_t rows = {
        .u = u, .filter = g->in_c, .next = done, .sums = sums, .step = step};
    if (u->norms || u->columns || u->velocity)
        for (int32_t i = 0; i < count; i++)
            st_simd_apply_sums(g, u, 0, done + i, sums + i * step);
    else
        st_wide_update_rows(&rows, count);
}

// The last sixteen filters may be some that have learnt already: their sums are made twice.
ST_AVX512 void st_wide_update(const st_conv_geometry_t *g, const int16_t *dy,
                              const st_update_t *u) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    const int32_t step = (u->n_channels + ST_WIDE - 1) & -ST_WIDE, positions = g->in_h * g->in_w;
    pair_all_errors(g, dy, scratch->a);
    st_wide_product_t product = {.pair_step = g->out_c,
                                 .row_step = 1,
                                 .b = u->kept,
                                 .b_step = u->kept_step,
                                 .length = positions,
                                 .zero = g->x_zero,
                                 .columns = u->n_channels,
                                 .c = scratch->c,
                                 .c_step = step};
    product.pairs = widened(&product);
    for (int32_t done = 0; done < g->out_c; done += ST_WIDE) {
        const int32_t first = st_min(done, g->out_c - ST_WIDE);
        product.a = scratch->a + 2 * first;
        st_wide_product(&product);
        learn(g, u, first, done, step);
    }
}

#endif
