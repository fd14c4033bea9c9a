// Gradients of convolutions as products of matrices: of the input, errors times weights, four
// positions at a time; of the weights, errors times kept activations, tap by tap.
#include "simd_wide.h"

#if ST_HAS_SIMD

#define TILE 4

static int32_t even(int32_t n) {
    return (n + 1) & ~1;
}

/// Input ///

// Errors of one output position times the scales of their channels:
// (dy * scale + 2^14) >> 15, which is what mulhrs does; a scale of 2^15 is 1.
ST_AVX2 static void scale_errors(const int16_t *dy, const uint16_t *scale, int32_t n, int16_t *to) {
    const st_vec_t one = _mm256_set1_epi16(INT16_MIN);
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const st_vec_t d = vec_load(dy + i), s = vec_load(scale + i);
        vec_store(to + i,
                  _mm256_blendv_epi8(_mm256_mulhrs_epi16(d, s), d, _mm256_cmpeq_epi16(s, one)));
    }
    for (; i < n; i++)
        to[i] = (int16_t)((dy[i] * (int32_t)scale[i] + (1 << 14)) >> 15);
}

// What one input position gets: for each tap the scaled errors of the output that read it there,
// or zeros. to: int16 [even(taps * out_c)].
ST_AVX2 static void fill_errors(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                const int16_t *dy, const int32_t at[2], int16_t *to) {
    const int32_t n = g->out_c;
    to[even(g->kernel_h * g->kernel_w * n) - 1] = 0;
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        const int32_t oy = st_output_of(at[0], ky, g->stride_h, g->pad_h, g->dilation_h, g->out_h);
        for (int32_t kx = 0; kx < g->kernel_w; kx++, to += n) {
            const int32_t ox =
                st_output_of(at[1], kx, g->stride_w, g->pad_w, g->dilation_w, g->out_w);
            if (oy < 0 || ox < 0)
                __builtin_memset(to, 0, sizeof(*to) * (size_t)n);
            else
                scale_errors(dy + (oy * g->out_w + ox) * n, p->scale_q15, n, to);
        }
    }
}

// Row k of the product's right side: the weights of one tap and output channel.
static const int8_t *weights_of(const st_conv_geometry_t *g, const st_conv_params_t *p, int32_t k) {
    const int32_t taps = g->kernel_h * g->kernel_w;
    if (k >= taps * g->out_c)
        return NULL;
    const int32_t tap = k / g->out_c, oc = k - tap * g->out_c;
    return p->weights + (oc * taps + tap) * g->in_c;
}

ST_AVX2 static void pack_weights(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                 int32_t pairs, int16_t *b) {
    for (int32_t k = 0; k < pairs; k++) {
        const int8_t *const rows[2] = {weights_of(g, p, 2 * k), weights_of(g, p, 2 * k + 1)};
        st_simd_pack_pair(rows, g->in_c, g->w_zero, pairs, b + k * 2 * ST_PANEL);
    }
}

// The rows of `count` positions from number `at` on, behind one another in the tensor.
ST_AVX2 static void emit(const st_product_t *product, int32_t in_c, int32_t at, int32_t count,
                         st_emit_t *dx) {
    const int32_t step = product->panels * ST_PANEL;
    if (step == in_c) {
        st_emit_row_simd(dx, at * in_c, product->c, count * in_c);
        return;
    }
    for (int32_t i = 0; i < count; i++)
        st_emit_row_simd(dx, (at + i) * in_c, product->c + i * step, in_c);
}

// Whether the left side of a tile, the right side and the sums have room.
static int input_has_room(const st_conv_geometry_t *g) {
    const int64_t length = (int64_t)g->kernel_h * g->kernel_w * g->out_c + 1;
    const int64_t columns = ST_PANEL * (int64_t)st_panels(g->in_c);
    return g->groups == 1 && length * TILE <= ST_SIMD_ROOM && length * columns <= ST_SIMD_ROOM &&
           columns * TILE <= ST_SIMD_SUMS;
}

// A fully connected layer of one sample: the weights as they lie.
static int is_single(const st_conv_geometry_t *g) {
    return g->in_h * g->in_w * g->kernel_h * g->kernel_w * g->groups == 1 &&
           g->out_c < ST_SIMD_ROOM && g->in_c <= ST_SIMD_SUMS - 16;
}

ST_AVX2 static void single_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                      const int16_t *dy, st_emit_t *dx) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    const int32_t at[2] = {0, 0};
    fill_errors(g, p, dy, at, scratch->a);
    st_simd_combine(scratch->a, p->weights, g->out_c, g->in_c, g->w_zero, scratch->c);
    st_emit_row_simd(dx, 0, scratch->c, g->in_c);
}

ST_AVX2 void conv2d_grad_input_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                    const int16_t *dy, int32_t *row, st_emit_t *dx) {
    if (p->columns) {
        st_simd_columns_grad_input(g, p, dy, row, dx);
        return;
    }
    if (is_single(g)) {
        single_grad_input(g, p, dy, dx);
        return;
    }
    if (!input_has_room(g)) {
        conv2d_grad_input(g, p, dy, row, dx);
        return;
    }
    if (st_simd_is_wide() && st_wide_can_grad_input(g)) {
        st_wide_grad_input(g, p, dy, dx);
        return;
    }
    st_simd_scratch_t *scratch = st_simd_scratch();
    const int32_t length = even(g->kernel_h * g->kernel_w * g->out_c);
    const st_product_t product = {scratch->a, scratch->b, length / 2, st_panels(g->in_c),
                                  scratch->c};
    const int32_t positions = g->in_h * g->in_w;
    pack_weights(g, p, product.pairs, scratch->b);
    for (int32_t first = 0; first < positions; first += TILE) {
        const int32_t n = st_min(TILE, positions - first);
        for (int32_t i = 0; i < n; i++) {
            const int32_t at[2] = {(first + i) / g->in_w, (first + i) % g->in_w};
            fill_errors(g, p, dy, at, scratch->a + i * length);
        }
        st_simd_product(&product, n);
        emit(&product, g->in_c, first, n, dx);
    }
}

/// Weights ///

// Eight positions of eight channels: thrice the shuffle that puts each row's upper half behind the
// lower one, element by element.
ST_AVX2_INLINE void transpose_eight(const int16_t *dy, int32_t out_c, int32_t step, int16_t *to) {
    __m128i v[8], t[8];
    for (int i = 0; i < 8; i++)
        v[i] = _mm_loadu_si128((const __m128i *)(dy + i * out_c));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            t[2 * i] = _mm_unpacklo_epi16(v[i], v[i + 4]);
            t[2 * i + 1] = _mm_unpackhi_epi16(v[i], v[i + 4]);
        }
        __builtin_memcpy(v, t, sizeof(v));
    }
    for (int i = 0; i < 8; i++)
        _mm_storeu_si128((__m128i *)(to + i * step), v[i]);
}

// Errors [positions][out_c] of n channels, at most eight, as rows of even(positions).
ST_AVX2 static void transpose_some(const int16_t *dy, int32_t positions, int32_t out_c, int32_t n,
                                   int16_t *to) {
    const int32_t step = even(positions), whole = n == 8 ? positions & ~7 : 0;
    for (int32_t at = 0; at < whole; at += 8)
        transpose_eight(dy + at * out_c, out_c, step, to + at);
    for (int32_t c = 0; c < n; c++, to += step) {
        for (int32_t at = whole; at < positions; at++)
            to[at] = dy[at * out_c + c];
        if (positions & 1)
            to[positions] = 0;
    }
}

// The same of `count` channels.
ST_AVX2 static void transpose_errors(const int16_t *dy, int32_t positions, int32_t out_c,
                                     int32_t count, int16_t *to) {
    for (int32_t i = 0; i < count; i += 8)
        transpose_some(dy + i, positions, out_c, st_min(8, count - i), to + i * even(positions));
}

// The chosen channels that a tap meets at output position `at`; NULL outside of the map.
static const int8_t *kept_row(const st_conv_geometry_t *g, const st_update_t *u,
                              const int32_t tap[3], int32_t at) {
    const int32_t oy = at / g->out_w, ox = at - oy * g->out_w;
    const int32_t iy = oy * g->stride_h - g->pad_h + tap[0] * g->dilation_h;
    const int32_t ix = ox * g->stride_w - g->pad_w + tap[1] * g->dilation_w;
    if (oy >= g->out_h || iy < 0 || iy >= g->in_h || ix < 0 || ix >= g->in_w)
        return NULL;
    return u->kept + ((iy * g->in_w + ix) * g->groups + tap[2]) * u->kept_step;
}

ST_AVX2 static void pack_kept(const st_conv_geometry_t *g, const st_update_t *u,
                              const int32_t tap[3], int32_t pairs, int16_t *b) {
    for (int32_t k = 0; k < pairs; k++) {
        const int8_t *const rows[2] = {kept_row(g, u, tap, 2 * k), kept_row(g, u, tap, 2 * k + 1)};
        st_simd_pack_pair(rows, u->n_channels, g->x_zero, pairs, b + k * 2 * ST_PANEL);
    }
}

void st_simd_apply_sums(const st_conv_geometry_t *g, const st_update_t *u, int32_t tap, int32_t oc,
                        const int32_t *sums) {
    const int32_t taps = g->kernel_h * g->kernel_w;
    const int32_t base = (oc * taps + tap) * st_group_inputs(g);
    const st_step_t step = st_weight_step(u, oc);
    if (u->norms)
        st_add_norms(u->norms, sums, u->n_channels);
    if (u->columns)
        st_update_columns(u, step, base, sums, tap * g->out_c + oc);
    else
        st_update_tap_simd(u, step, base, sums);
}

// Output channels [first, first + count), whose errors stand transposed in a: one tap of all their
// filters.
ST_AVX2 static void update_tap(const st_conv_geometry_t *g, const st_update_t *u,
                               const st_product_t *product, const int32_t tap[3], int32_t first,
                               int32_t count) {
    const int32_t step = product->panels * ST_PANEL;
    for (int32_t i = 0; i < count; i += TILE) {
        st_product_t tile = *product;
        const int32_t rows = st_min(TILE, count - i);
        tile.a += i * 2 * tile.pairs;
        st_simd_product(&tile, rows);
        for (int32_t r = 0; r < rows; r++)
            st_simd_apply_sums(g, u, tap[0] * g->kernel_w + tap[1], first + i + r,
                               tile.c + r * step);
    }
}

// Output channels [first, first + count) of one group, all taps.
ST_AVX2 static void update_filters(const st_conv_geometry_t *g, const int16_t *dy,
                                   const st_update_t *u, int32_t first, int32_t count) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    const int32_t positions = g->out_h * g->out_w;
    const st_product_t product = {scratch->a, scratch->b, even(positions) / 2,
                                  st_panels(u->n_channels), scratch->c};
    const int32_t group = first / st_group_outputs(g);
    transpose_errors(dy + first, positions, g->out_c, count, scratch->a);
    for (int32_t ky = 0; ky < g->kernel_h; ky++)
        for (int32_t kx = 0; kx < g->kernel_w; kx++) {
            const int32_t tap[3] = {ky, kx, group};
            pack_kept(g, u, tap, product.pairs, scratch->b);
            update_tap(g, u, &product, tap, first, count);
        }
}

// Filters whose errors have room at once; 0 where this is left to the portable kernel.
static int32_t filters_at_once(const st_conv_geometry_t *g, const st_update_t *u) {
    const int64_t length = even(g->out_h * g->out_w);
    const int64_t columns = ST_PANEL * (int64_t)st_panels(u->n_channels);
    if (length * columns > ST_SIMD_ROOM || columns * TILE > ST_SIMD_SUMS)
        return 0;
    return (int32_t)(ST_SIMD_ROOM / length);
}

ST_AVX2 void conv2d_update_simd(const st_conv_geometry_t *g, const int16_t *dy,
                                const st_update_t *u, int32_t *row) {
    const int32_t chunk = u->n_channels ? filters_at_once(g, u) : 1;
    if (!chunk) {
        conv2d_update(g, dy, u, row);
        return;
    }
    const int32_t outputs = st_group_outputs(g);
    const int is_wide = st_simd_is_wide() && st_wide_can_update(g, u);
    if (is_wide)
        st_wide_update(g, dy, u);
    for (int32_t group = 0; !is_wide && u->n_channels && group < g->groups; group++)
        for (int32_t n = 0; n < outputs; n += chunk)
            update_filters(g, dy, u, group * outputs + n, st_min(chunk, outputs - n));
    st_update_biases_simd(g->out_h * g->out_w, g->out_c, dy, u);
}

#endif
