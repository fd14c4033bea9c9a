// Error tensors and masks: sixteen int16 at a time.
#include "simd_wide.h"

#if ST_HAS_SIMD

#define LANES 16

// v >> n, rounded half up; 0 <= n <= 31.
ST_AVX2_INLINE st_vec_t shift_round(st_vec_t v, int32_t n) {
    if (!n)
        return v;
    v = _mm256_sra_epi32(v, _mm_cvtsi32_si128(n - 1));
    return _mm256_srai_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(1)), 1);
}

// What a tensor's writer knows, in vectors.
typedef struct {
    st_vec_t limit, least, peak;
} bounds_t;

ST_AVX2_INLINE int fit(st_vec_t a, st_vec_t b, const bounds_t *o) {
    const st_vec_t over =
        _mm256_or_si256(_mm256_cmpgt_epi32(a, o->limit), _mm256_cmpgt_epi32(b, o->limit));
    const st_vec_t under =
        _mm256_or_si256(_mm256_cmpgt_epi32(o->least, a), _mm256_cmpgt_epi32(o->least, b));
    return _mm256_testz_si256(_mm256_or_si256(over, under), _mm256_set1_epi32(-1));
}

// Sixteen int32 as int16, in their order.
ST_AVX2_INLINE st_vec_t narrow(st_vec_t a, st_vec_t b) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}

// Eight of what the tensor holds already.
ST_AVX2_INLINE st_vec_t present(const int16_t *data) {
    return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)data));
}

// Writes sixteen elements if all of them fit as they are; else nothing, and 0 is returned.
ST_AVX2_INLINE int write_sixteen(const st_emit_t *e, int32_t at, const int32_t *sums, bounds_t *o) {
    st_vec_t a = shift_round(vec_load(sums), e->shift);
    st_vec_t b = shift_round(vec_load(sums + 8), e->shift);
    if (e->mode == ST_ADD) {
        a = _mm256_add_epi32(a, present(e->data + at));
        b = _mm256_add_epi32(b, present(e->data + at + 8));
    }
    if (!fit(a, b, o))
        return 0;
    vec_store(e->data + at, narrow(a, b));
    o->peak = _mm256_max_epi32(o->peak, _mm256_max_epi32(_mm256_abs_epi32(a), _mm256_abs_epi32(b)));
    return 1;
}

ST_AVX2 static int32_t largest(st_vec_t v) {
    int32_t each[8], most = 0;
    vec_store(each, v);
    for (int i = 0; i < 8; i++)
        most = st_max(most, each[i]);
    return most;
}

// As many of n elements as fit, sixteen at a time; returns how many were written.
ST_AVX2 static int32_t put_what_fits(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    int32_t i = 0;
    bounds_t o = {_mm256_set1_epi32(e->limit), _mm256_set1_epi32(-e->limit),
                  _mm256_setzero_si256()};
    while (i + LANES <= n && write_sixteen(e, at + i, sums + i, &o))
        i += LANES;
    e->peak = st_max(e->peak, largest(o.peak));
    return i;
}

ST_AVX2 static int32_t write_what_fits(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    const int32_t i = (st_simd_is_wide() ? st_wide_emit : put_what_fits)(e, at, sums, n);
    if (i && e->mode == ST_OVERWRITE)
        e->written = at + i;
    return i;
}

ST_AVX2 void st_emit_row_simd(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    for (int32_t i = 0; i < n;) {
        if (e->shift <= 31)
            i += write_what_fits(e, at + i, sums + i, n - i);
        // What did not fit, and what is left: the portable kernel halves, and goes on.
        const int32_t some = st_min(LANES, n - i);
        if (some)
            st_emit_row(e, at + i, sums + i, some);
        i += some;
    }
}

ST_AVX2 void error_add_simd(const int16_t *dy, int32_t n, st_emit_t *dx) {
    int32_t sums[8 * LANES];
    for (int32_t i = 0; i < n; i += 8 * LANES) {
        const int32_t count = st_min(8 * LANES, n - i);
        for (int32_t j = 0; j < count; j++)
            sums[j] = dy[i + j];
        st_emit_row_simd(dx, i, sums, count);
    }
}

/// Masks ///

ST_AVX2 void clamp_mask_s8_simd(const int8_t *y, int32_t n, int32_t lo, int32_t hi, uint8_t *bits) {
    const int32_t whole = n & ~31;
    if (lo < -128 || lo > 127 || hi < -128 || hi > 127) { // no int8: all or none are beyond it
        clamp_mask_s8(y, n, lo, hi, bits);
        return;
    }
    const st_vec_t low = _mm256_set1_epi8((char)lo), high = _mm256_set1_epi8((char)hi);
    for (int32_t i = 0; i < whole; i += 32) {
        const st_vec_t v = vec_load(y + i);
        const int32_t passes = _mm256_movemask_epi8(
            _mm256_and_si256(_mm256_cmpgt_epi8(v, low), _mm256_cmpgt_epi8(high, v)));
        __builtin_memcpy(bits + i / 8, &passes, sizeof(passes));
    }
    clamp_mask_s8(y + whole, n - whole, lo, hi, bits + whole / 8);
}

ST_AVX512 static int32_t apply_wide_mask(int16_t *dy, int32_t n, const uint8_t *bits) {
    int32_t i = 0;
    for (; i + 32 <= n; i += 32) {
        uint32_t passes;
        __builtin_memcpy(&passes, bits + i / 8, sizeof(passes));
        wide_store(dy + i, _mm512_maskz_loadu_epi16(passes, dy + i));
    }
    return i;
}

ST_AVX2 void apply_mask_simd(int16_t *dy, int32_t n, const uint8_t *bits) {
    const st_vec_t bit = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096,
                                           8192, 16384, -32768);
    const int32_t whole = n & ~(LANES - 1);
    for (int32_t i = st_simd_is_wide() ? apply_wide_mask(dy, n, bits) : 0; i < whole; i += LANES) {
        int16_t word;
        __builtin_memcpy(&word, bits + i / 8, sizeof(word));
        const st_vec_t set = _mm256_and_si256(_mm256_set1_epi16(word), bit);
        const st_vec_t passes = _mm256_cmpeq_epi16(set, bit);
        vec_store(dy + i, _mm256_and_si256(vec_load(dy + i), passes));
    }
    apply_mask(dy + whole, n - whole, bits + whole / 8);
}

#endif
