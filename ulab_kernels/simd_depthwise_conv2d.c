// Depthwise convolutions: sixteen channels at once, two taps at a time. A tap that lies outside of
// the map reads a row of zero points instead, so that every window has all of its taps.
#include "simd_vector.h"

#if ST_HAS_SIMD

#include "depthwise_conv2d.h"
#include "simd_depthwise.h"

#define LANES 16
#define MAX_TAPS ST_SIMD_TAPS

// What a window reads: a row of channels for each tap, and how far it moves to the next window.
typedef struct {
    const int8_t *x[MAX_TAPS];
    int32_t step[MAX_TAPS];
    int32_t taps; // even
} st_rows_read_t;

static int32_t even(int32_t n) {
    return (n + 1) & ~1;
}

/// Weights ///

// Sixteen weights of two taps, in the order in which pairs of int16 unpack.
ST_AVX2_INLINE void pack_two(st_vec_t a, st_vec_t b, int16_t *to) {
    vec_store(to, _mm256_unpacklo_epi16(a, b));
    vec_store(to + LANES, _mm256_unpackhi_epi16(a, b));
}

ST_AVX2_INLINE st_vec_t weights_of(const int8_t *w, int32_t n, int32_t zero) {
    int8_t some[LANES] = {0};
    if (n < LANES) {
        __builtin_memcpy(some, w, (size_t)n);
        w = some;
    }
    return _mm256_sub_epi16(vec_widen(w), _mm256_set1_epi16((int16_t)zero));
}

// packed: for each block of sixteen channels, for each two taps, int16 [2][16].
ST_AVX2 static void pack_weights(const st_conv_geometry_t *g, const int8_t *w, int16_t *packed) {
    const int32_t taps = g->kernel_h * g->kernel_w;
    for (int32_t c = 0; c < g->out_c; c += LANES) {
        const int32_t n = st_min(LANES, g->out_c - c);
        for (int32_t tap = 0; tap < taps; tap += 2, packed += 2 * LANES) {
            const st_vec_t a = weights_of(w + tap * g->out_c + c, n, g->w_zero);
            const st_vec_t b = tap + 1 < taps
                                   ? weights_of(w + (tap + 1) * g->out_c + c, n, g->w_zero)
                                   : _mm256_setzero_si256();
            pack_two(a, b, packed);
        }
    }
}

// Some bytes of a row; eight are frequent, and a copy of a known size is two instructions.
static inline void copy_some(void *to, const void *from, int32_t bytes) {
    if (bytes == 8)
        __builtin_memcpy(to, from, 8);
    else
        __builtin_memcpy(to, from, (size_t)bytes);
}

/// Forward ///

// Rows of the taps at one output; `nothing` holds zero points.
static void find_rows(const st_conv_geometry_t *g, const int8_t *x, const st_taps_t t[2],
                      const int8_t *nothing, st_rows_read_t *r) {
    int32_t tap = 0;
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        const int32_t iy = t[0].first + (ky - t[0].begin) * g->dilation_h;
        for (int32_t kx = 0; kx < g->kernel_w; kx++, tap++) {
            const int32_t ix = t[1].first + (kx - t[1].begin) * g->dilation_w;
            const int inside =
                ky >= t[0].begin && ky < t[0].end && kx >= t[1].begin && kx < t[1].end;
            r->x[tap] = inside ? x + (iy * g->in_w + ix) * g->in_c : nothing;
            r->step[tap] = inside ? g->stride_w * g->in_c : 0;
        }
    }
    if (tap & 1) { // beside an odd last one, whose weights there are 0
        r->x[tap] = nothing;
        r->step[tap] = 0;
    }
}

static int is_whole(st_taps_t t, int32_t kernel) {
    return t.end - t.begin == kernel;
}

// The same at the output right of the one that was found before, at `before`.
ST_AVX2 static void next_rows(const st_conv_geometry_t *g, const int8_t *x, const st_taps_t t[2],
                              const int8_t *nothing, st_rows_read_t *r, st_taps_t before) {
    if (!is_whole(t[1], g->kernel_w) || !is_whole(before, g->kernel_w)) {
        find_rows(g, x, t, nothing, r);
        return;
    }
    for (int32_t tap = 0; tap < r->taps; tap++)
        r->x[tap] += r->step[tap];
}

// Sums of sixteen channels from `c` on: [0]: the lower eight.
ST_AVX2_INLINE void sum_some_taps(const st_rows_read_t *r, const int32_t taps, int32_t c,
                                  const int16_t *w, st_vec_t sum[2]) {
    st_vec_t low = _mm256_setzero_si256(), high = low;
    for (int32_t tap = 0; tap < taps; tap += 2, w += 2 * LANES) {
        const st_vec_t a = vec_widen(r->x[tap] + c), b = vec_widen(r->x[tap + 1] + c);
        low = vec_dot(low, _mm256_unpacklo_epi16(a, b), vec_load(w));
        high = vec_dot(high, _mm256_unpackhi_epi16(a, b), vec_load(w + LANES));
    }
    sum[0] = _mm256_permute2x128_si256(low, high, 0x20);
    sum[1] = _mm256_permute2x128_si256(low, high, 0x31);
}

ST_AVX2_INLINE void sum_taps(const st_rows_read_t *r, int32_t c, const int16_t *w,
                             st_vec_t sum[2]) {
    if (r->taps == 10) // 3x3: unrolled
        sum_some_taps(r, 10, c, w, sum);
    else
        sum_some_taps(r, r->taps, c, w, sum);
}

ST_AVX2_INLINE __m128i outputs_of(const st_vec_t sum[2], const st_factors_t *f,
                                  const vec_output_t *o, const int all_right) {
    const st_vec_t low = vec_finish(sum[0], f, o, all_right);
    const st_vec_t high = vec_finish(sum[1], f + 1, o, all_right);
    const st_vec_t twice[4] = {low, high, low, high};
    return _mm256_castsi256_si128(vec_outputs(twice, o, all_right));
}

// The last channels, fewer than sixteen: rows of their own.
ST_AVX2 static void last_channels(const st_rows_read_t *r, int32_t c, int32_t n, const int16_t *w,
                                  const st_factors_t *f, const vec_output_t *o, int8_t *y) {
    int8_t rows[MAX_TAPS][LANES], out[LANES];
    st_rows_read_t some = {.taps = r->taps};
    st_vec_t sum[2];
    for (int32_t tap = 0; tap < r->taps; tap++) {
        __builtin_memset(rows[tap], 0, LANES);
        copy_some(rows[tap], r->x[tap] + c, n);
        some.x[tap] = rows[tap];
    }
    sum_taps(&some, 0, w, sum);
    _mm_storeu_si128((__m128i *)out, outputs_of(sum, f, o, 0));
    copy_some(y, out, n);
}

// All channels at one position.
ST_AVX2_INLINE void channels(const st_conv_geometry_t *g, const st_rows_read_t *r,
                             const int all_right, int8_t *y) {
    const st_simd_scratch_t *scratch = st_simd_scratch();
    const vec_output_t o = vec_output(g->y_zero, g->act_min, g->act_max);
    const int16_t *w = scratch->b;
    const st_factors_t *f = scratch->factors;
    int32_t c = 0;
    for (; c + LANES <= g->out_c; c += LANES, w += LANES * r->taps, f += 2) {
        st_vec_t sum[2];
        sum_taps(r, c, w, sum);
        _mm_storeu_si128((__m128i *)(y + c), outputs_of(sum, f, &o, all_right));
    }
    if (c < g->out_c)
        last_channels(r, c, g->out_c - c, w, f, &o, y + c);
}

ST_AVX2 static void position(const st_conv_geometry_t *g, const st_rows_read_t *r, int all_right,
                             int8_t *y) {
    if (all_right)
        channels(g, r, 1, y);
    else
        channels(g, r, 0, y);
}

// What the zero point adds to the sums of a window is the same everywhere: it goes into the biases.
ST_AVX2 static void take_zero_off(const st_conv_geometry_t *g, const int16_t *w, st_factors_t *f) {
    const st_vec_t ones = _mm256_set1_epi16(1), zero = _mm256_set1_epi32(g->x_zero);
    const int32_t taps = even(g->kernel_h * g->kernel_w);
    for (int32_t c = 0; c < g->out_c; c += LANES, f += 2) {
        st_vec_t low = _mm256_setzero_si256(), high = low;
        for (int32_t tap = 0; tap < taps; tap += 2, w += 2 * LANES) {
            low = vec_dot(low, vec_load(w), ones);
            high = vec_dot(high, vec_load(w + LANES), ones);
        }
        const st_vec_t first = _mm256_permute2x128_si256(low, high, 0x20);
        const st_vec_t second = _mm256_permute2x128_si256(low, high, 0x31);
        vec_store(f[0].bias,
                  _mm256_sub_epi32(vec_load(f[0].bias), _mm256_mullo_epi32(first, zero)));
        vec_store(f[1].bias,
                  _mm256_sub_epi32(vec_load(f[1].bias), _mm256_mullo_epi32(second, zero)));
    }
}

static int has_room(const st_conv_geometry_t *g) {
    const int32_t taps = g->kernel_h * g->kernel_w;
    return g->out_c == g->in_c && taps <= MAX_TAPS && g->out_c <= ST_SIMD_CHANNELS - LANES &&
           (g->out_c + LANES - 1) * even(taps) <= ST_SIMD_ROOM;
}

ST_AVX2 void depthwise_conv2d_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                      const int8_t *x, int8_t *y) {
    if (!has_room(g)) {
        depthwise_conv2d_s8(g, p, x, y);
        return;
    }
    st_simd_scratch_t *scratch = st_simd_scratch();
    int8_t *nothing = (int8_t *)scratch->c;
    st_rows_read_t r; // not cleared: strips come here for every row
    r.taps = even(g->kernel_h * g->kernel_w);
    pack_weights(g, p->weights, scratch->b);
    const int all_right = st_simd_factors(p, 0, g->out_c, scratch->factors);
    take_zero_off(g, scratch->b, scratch->factors);
    __builtin_memset(nothing, g->x_zero, (size_t)g->in_c);
    for (int32_t oy = 0; oy < g->out_h; oy++) {
        st_taps_t t[2] = {st_taps_h(g, oy)}, before = {0, 0, 0};
        for (int32_t ox = 0; ox < g->out_w; ox++, y += g->out_c, before = t[1]) {
            t[1] = st_taps_w(g, ox);
            next_rows(g, x, t, nothing, &r, before);
            position(g, &r, all_right, y);
        }
    }
}

/// Gradient of the input ///

int st_simd_errors_begin(const st_conv_geometry_t *g, st_errors_read_t *r) {
    const int64_t columns = (int64_t)g->in_w * g->kernel_w;
    int32_t *at = (int32_t *)(void *)(st_simd_scratch()->a + even(g->in_c + LANES));
    if (g->in_c + 2 * LANES + 2 * columns > ST_SIMD_ROOM)
        return 0;
    __builtin_memset(st_simd_scratch()->a, 0, sizeof(int16_t) * (size_t)(g->in_c + LANES));
    r->taps = even(g->kernel_h * g->kernel_w);
    r->at = at;
    for (int32_t ix = 0; ix < g->in_w; ix++)
        for (int32_t kx = 0; kx < g->kernel_w; kx++)
            *at++ = st_output_of(ix, kx, g->stride_w, g->pad_w, g->dilation_w, g->out_w);
    return 1;
}

void st_simd_errors_row(const st_conv_geometry_t *g, const int16_t *dy, int32_t iy,
                        st_errors_read_t *r) {
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        const int32_t oy = st_output_of(iy, ky, g->stride_h, g->pad_h, g->dilation_h, g->out_h);
        r->is_inside[ky] = oy >= 0;
        r->row[ky] = dy + st_max(oy, 0) * g->out_w * g->out_c;
    }
}

void st_simd_errors_at(const st_conv_geometry_t *g, int32_t ix, st_errors_read_t *r) {
    const int32_t *at = r->at + ix * g->kernel_w;
    const int16_t *nothing = st_simd_scratch()->a, **to = r->dy;
    for (int32_t ky = 0; ky < g->kernel_h; ky++)
        for (int32_t kx = 0; kx < g->kernel_w; kx++) {
            const int16_t *errors = r->row[ky] + st_max(at[kx], 0) * g->out_c;
            *to++ = r->is_inside[ky] & (at[kx] >= 0) ? errors : nothing;
        }
    *to = nothing; // beside an odd last one
}

// st_mul_q15 with eight factors.
ST_AVX2_INLINE st_vec_t mul_q15(st_vec_t x, const uint16_t *q15) {
    const st_vec_t q = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)q15));
    const st_vec_t high = _mm256_mullo_epi32(_mm256_srai_epi32(x, 16), q);
    const st_vec_t low = _mm256_mullo_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0xffff)), q);
    return _mm256_add_epi32(_mm256_slli_epi32(high, 1), _mm256_srli_epi32(low, 15));
}

// Sums of sixteen channels from `c` on, times their scales.
ST_AVX2_INLINE void sum_errors(const st_errors_read_t *r, int32_t c, const int16_t *w,
                               const uint16_t *scale, int32_t *to) {
    st_vec_t low = _mm256_setzero_si256(), high = low;
    for (int32_t tap = 0; tap < r->taps; tap += 2, w += 2 * LANES) {
        const st_vec_t a = vec_load(r->dy[tap] + c), b = vec_load(r->dy[tap + 1] + c);
        low = vec_dot(low, _mm256_unpacklo_epi16(a, b), vec_load(w));
        high = vec_dot(high, _mm256_unpackhi_epi16(a, b), vec_load(w + LANES));
    }
    vec_store(to, mul_q15(_mm256_permute2x128_si256(low, high, 0x20), scale));
    vec_store(to + 8, mul_q15(_mm256_permute2x128_si256(low, high, 0x31), scale + 8));
}

// The last channels, fewer than sixteen: rows and scales of their own.
ST_AVX2 static void last_errors(const st_errors_read_t *r, int32_t c, int32_t n, const int16_t *w,
                                const uint16_t *scale, int32_t *to) {
    int16_t rows[MAX_TAPS][LANES];
    uint16_t some_scale[LANES] = {0};
    st_errors_read_t some = {.taps = r->taps};
    for (int32_t tap = 0; tap < r->taps; tap++) {
        __builtin_memset(rows[tap], 0, sizeof(rows[tap]));
        __builtin_memcpy(rows[tap], r->dy[tap] + c, sizeof(int16_t) * (size_t)n);
        some.dy[tap] = rows[tap];
    }
    __builtin_memcpy(some_scale, scale + c, sizeof(*scale) * (size_t)n);
    sum_errors(&some, 0, w, some_scale, to);
}

// All channels of one input position.
ST_AVX2 static void input_position(const st_errors_read_t *r, const st_conv_geometry_t *g,
                                   const st_conv_params_t *p, const int16_t *w, int32_t *sums) {
    int32_t c = 0;
    for (; c + LANES <= g->in_c; c += LANES, w += LANES * r->taps)
        sum_errors(r, c, w, p->scale_q15 + c, sums + c);
    if (c < g->in_c)
        last_errors(r, c, g->in_c - c, w, p->scale_q15, sums + c);
}

ST_AVX2 void depthwise_conv2d_grad_input_simd(const st_conv_geometry_t *g,
                                              const st_conv_params_t *p, const int16_t *dy,
                                              int32_t *row, st_emit_t *dx) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    st_errors_read_t r;
    if (!has_room(g) || g->in_c + LANES > ST_SIMD_SUMS || !st_simd_errors_begin(g, &r)) {
        depthwise_conv2d_grad_input(g, p, dy, row, dx);
        return;
    }
    if (st_simd_is_wide() && st_wide_can_depthwise(g)) {
        st_wide_depthwise_grad_input(g, p, dy, &r, dx);
        return;
    }
    pack_weights(g, p->weights, scratch->b);
    for (int32_t iy = 0; iy < g->in_h; iy++) {
        st_simd_errors_row(g, dy, iy, &r);
        for (int32_t ix = 0; ix < g->in_w; ix++) {
            st_simd_errors_at(g, ix, &r);
            input_position(&r, g, p, scratch->b, scratch->c);
            st_emit_row_simd(dx, (iy * g->in_w + ix) * g->in_c, scratch->c, g->in_c);
        }
    }
}

/// Update ///

static int32_t padded(int32_t n) {
    return (n + LANES - 1) & ~(LANES - 1);
}

// Errors of the chosen channels, side by side: int16 [positions][padded(n)].
ST_AVX2 static void gather_errors(const st_conv_geometry_t *g, const int16_t *dy,
                                  const st_update_t *u, int16_t *to) {
    const int32_t step = padded(u->n_channels);
    for (int32_t at = 0; at < g->out_h * g->out_w; at++, dy += g->out_c, to += step) {
        for (int32_t i = 0; i < u->n_channels; i++)
            to[i] = dy[u->channels[i]];
        for (int32_t i = u->n_channels; i < step; i++)
            to[i] = 0;
    }
}

// Kept activations without their zero point, in the same order.
ST_AVX2 static void widen_kept(const st_conv_geometry_t *g, const st_update_t *u, int16_t *to) {
    const int32_t step = padded(u->n_channels);
    const int8_t *x = u->kept;
    for (int32_t at = 0; at < g->in_h * g->in_w; at++, x += u->n_channels, to += step) {
        vec_widen_all(x, u->n_channels, g->x_zero, to);
        for (int32_t i = u->n_channels; i < step; i++)
            to[i] = 0;
    }
}

// A run of output positions whose tap lies inside, and what they meet there.
typedef struct {
    const int16_t *dy, *x;
    int32_t count, dy_step, x_step;
} st_meeting_t;

// sums[16] += products of a run, two positions at a time.
ST_AVX2_INLINE void add_run(const st_meeting_t *m, int32_t c, st_vec_t sum[2]) {
    const int16_t *d = m->dy + c, *x = m->x + c;
    for (int32_t i = 0; i < m->count; i += 2, d += 2 * m->dy_step, x += 2 * m->x_step) {
        const int second = i + 1 < m->count;
        const st_vec_t none = _mm256_setzero_si256();
        const st_vec_t d0 = vec_load(d), d1 = second ? vec_load(d + m->dy_step) : none;
        const st_vec_t x0 = vec_load(x), x1 = second ? vec_load(x + m->x_step) : none;
        sum[0] = vec_dot(sum[0], _mm256_unpacklo_epi16(d0, d1), _mm256_unpacklo_epi16(x0, x1));
        sum[1] = vec_dot(sum[1], _mm256_unpackhi_epi16(d0, d1), _mm256_unpackhi_epi16(x0, x1));
    }
}

// Output indices [begin, end) along an axis whose tap `k` lies inside of `in` elements.
typedef struct {
    int32_t begin, end;
} st_span_t;

static st_span_t span_of(int32_t offset, int32_t stride, int32_t in, int32_t out) {
    st_span_t s = {0, out};
    while (s.begin < out && s.begin * stride + offset < 0)
        s.begin++;
    while (s.end > s.begin && (s.end - 1) * stride + offset >= in)
        s.end--;
    return s;
}

// Sums of sixteen channels from `c` on for the tap at (y, x) of the kernel.
ST_AVX2 static void correlate(const st_conv_geometry_t *g, const int32_t tap[2], int32_t step,
                              int32_t c, int32_t *sums) {
    const st_simd_scratch_t *scratch = st_simd_scratch();
    const int32_t dy_off = tap[0] * g->dilation_h - g->pad_h;
    const int32_t dx_off = tap[1] * g->dilation_w - g->pad_w;
    const st_span_t y = span_of(dy_off, g->stride_h, g->in_h, g->out_h);
    const st_span_t x = span_of(dx_off, g->stride_w, g->in_w, g->out_w);
    st_vec_t sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int32_t oy = y.begin; oy < y.end && x.begin < x.end; oy++) {
        const int32_t at = (oy * g->stride_h + dy_off) * g->in_w + x.begin * g->stride_w + dx_off;
        const st_meeting_t m = {scratch->a + (oy * g->out_w + x.begin) * step,
                                scratch->b + at * step, x.end - x.begin, step, g->stride_w * step};
        add_run(&m, c, sum);
    }
    vec_store(sums, _mm256_permute2x128_si256(sum[0], sum[1], 0x20));
    vec_store(sums + 8, _mm256_permute2x128_si256(sum[0], sum[1], 0x31));
}

ST_AVX2 static void update_tap(const st_conv_geometry_t *g, const st_update_t *u,
                               const int32_t tap[2]) {
    const int32_t base = (tap[0] * g->kernel_w + tap[1]) * g->out_c;
    for (int32_t c = 0; c < u->n_channels; c += LANES) {
        int32_t sums[LANES];
        correlate(g, tap, padded(u->n_channels), c, sums);
        for (int32_t i = 0; i < LANES && c + i < u->n_channels; i++) {
            const int32_t oc = u->channels[c + i];
            if (u->norms)
                st_add_norms(u->norms + c + i, &sums[i], 1);
            if (sums[i])
                st_update_weight(u, st_weight_step(u, oc), base + oc, sums[i]);
        }
    }
}

static int update_has_room(const st_conv_geometry_t *g, const st_update_t *u) {
    const int64_t step = padded(u->n_channels);
    return g->in_c == g->out_c && g->in_h * g->in_w * step <= ST_SIMD_ROOM &&
           g->out_h * g->out_w * step <= ST_SIMD_ROOM;
}

ST_AVX2 void depthwise_conv2d_update_simd(const st_conv_geometry_t *g, const int16_t *dy,
                                          const st_update_t *u, int32_t *row) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    if (u->n_channels && !update_has_room(g, u)) {
        depthwise_conv2d_update(g, dy, u, row);
        return;
    }
    if (u->n_channels) {
        gather_errors(g, dy, u, scratch->a);
        widen_kept(g, u, scratch->b);
        for (int32_t k = 0; k < g->kernel_h * g->kernel_w; k++) {
            const int32_t tap[2] = {k / g->kernel_w, k % g->kernel_w};
            update_tap(g, u, tap);
        }
    }
    st_update_biases_simd(g->out_h * g->out_w, g->out_c, dy, u);
}

#endif
