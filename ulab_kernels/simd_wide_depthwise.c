// The input gradient of depthwise convolutions, with AVX-512 and VNNI: thirty-two channels at once,
// two taps at a time.
#include "simd_depthwise.h"

#if ST_HAS_SIMD

#define LANES 32

int st_wide_can_depthwise(const st_conv_geometry_t *g) {
    const int64_t channels = (g->in_c + LANES - 1) & -LANES;
    return channels * (g->kernel_h * g->kernel_w + 1) <= ST_SIMD_ROOM &&
           (int64_t)g->in_w * g->in_c <= ST_SIMD_SUMS;
}

// Weights of thirty-two channels.
ST_AVX512_INLINE st_wide_t weights_of(const int8_t *w, uint32_t some, int32_t zero) {
    const st_wide_t v = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(some, w));
    return _mm512_sub_epi16(v, _mm512_set1_epi16((int16_t)zero));
}

// packed: for each thirty-two channels, for each two taps, int16 [2][32] as pairs unpack.
ST_AVX512 static void pack_weights(const st_conv_geometry_t *g, const int8_t *w, int16_t *packed) {
    const int32_t taps = g->kernel_h * g->kernel_w, n = g->out_c;
    for (int32_t c = 0; c < n; c += LANES)
        for (int32_t tap = 0; tap < taps; tap += 2, packed += 2 * LANES) {
            const uint32_t some = st_first_words(n - c);
            const int8_t *from = w + tap * n + c;
            const st_wide_t a = weights_of(from, some, g->w_zero);
            const st_wide_t b =
                tap + 1 < taps ? weights_of(from + n, some, g->w_zero) : _mm512_setzero_si512();
            wide_store(packed, _mm512_unpacklo_epi16(a, b));
            wide_store(packed + LANES, _mm512_unpackhi_epi16(a, b));
        }
}

// st_mul_q15 with sixteen factors: products of int16, but for a factor of 1.
ST_AVX512_INLINE st_wide_t mul_q15(st_wide_t x, __m256i q15) {
    const st_wide_t q = _mm512_cvtepu16_epi32(q15), one = _mm512_set1_epi32(1 << 15);
    const st_wide_t high = _mm512_madd_epi16(_mm512_srli_epi32(x, 16), q);
    const st_wide_t low = _mm512_srli_epi32(_mm512_mullo_epi16(x, q), 15);
    const st_wide_t twice = _mm512_slli_epi32(_mm512_add_epi32(high, _mm512_mulhi_epu16(x, q)), 1);
    return _mm512_mask_add_epi32(x, _mm512_cmpneq_epi32_mask(q, one), twice, low);
}

// Sums of the first of thirty-two channels from `c` on, times their scales.
ST_AVX512_INLINE void sum_errors(const st_errors_read_t *r, const int32_t taps, int32_t c,
                                 uint32_t some, const int16_t *w, const uint16_t *scale,
                                 int32_t *to) {
    st_wide_t low = _mm512_setzero_si512(), high = low;
    for (int32_t tap = 0; tap < taps; tap += 2, w += 2 * LANES) {
        const st_wide_t a = _mm512_maskz_loadu_epi16(some, r->dy[tap] + c);
        const st_wide_t b = _mm512_maskz_loadu_epi16(some, r->dy[tap + 1] + c);
        low = _mm512_dpwssd_epi32(low, _mm512_unpacklo_epi16(a, b), wide_load(w));
        high = _mm512_dpwssd_epi32(high, _mm512_unpackhi_epi16(a, b), wide_load(w + LANES));
    }
    const st_wide_t q = _mm512_maskz_loadu_epi16(some, scale + c);
    const st_wide_t first = _mm512_permutex2var_epi32(low, ST_WIDE_PACKED, high);
    const st_wide_t second = _mm512_permutex2var_epi32(low, ST_WIDE_PACKED_BEHIND, high);
    _mm512_mask_storeu_epi32(to + c, (uint16_t)some, mul_q15(first, _mm512_castsi512_si256(q)));
    _mm512_mask_storeu_epi32(to + c + ST_WIDE, (uint16_t)(some >> 16),
                             mul_q15(second, _mm512_extracti64x4_epi64(q, 1)));
}

// All channels of one position.
ST_AVX512_INLINE void position(const st_errors_read_t *r, const int32_t taps,
                               const st_conv_params_t *p, int32_t channels, int32_t *to) {
    const int16_t *w = st_simd_scratch()->b;
    for (int32_t c = 0; c < channels; c += LANES, w += LANES * taps)
        sum_errors(r, taps, c, st_first_words(channels - c), w, p->scale_q15, to);
}

ST_AVX512 void st_wide_depthwise_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                            const int16_t *dy, st_errors_read_t *r, st_emit_t *dx) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    pack_weights(g, p->weights, scratch->b);
    for (int32_t iy = 0; iy < g->in_h; iy++) {
        st_simd_errors_row(g, dy, iy, r);
        for (int32_t ix = 0; ix < g->in_w; ix++) {
            int32_t *to = scratch->c + ix * g->in_c;
            st_simd_errors_at(g, ix, r);
            if (r->taps == 10) // 3x3: unrolled
                position(r, 10, p, g->in_c, to);
            else
                position(r, r->taps, p, g->in_c, to);
        }
        st_emit_row_simd(dx, iy * g->in_w * g->in_c, scratch->c, g->in_w * g->in_c);
    }
}

#endif
