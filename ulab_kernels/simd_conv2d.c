// Convolutions as products of matrices: a row of a is the window of one position, widened to int16
// with the zero point taken off, so that what lies outside of the map is 0. Four positions at a
// time.
#include "simd_wide.h"

#if ST_HAS_SIMD

#include "fully_connected.h"

#define TILE 4

// One group of a convolution: which channels it reads, which outputs it makes.
typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    int32_t channel, channels; // of the input
    int32_t first, outputs;    // of the output
    int32_t length;            // of a filter
} st_group_t;

static st_group_t group_of(const st_conv_geometry_t *g, const st_conv_params_t *p, int32_t group) {
    const int32_t channels = st_group_inputs(g), outputs = st_group_outputs(g);
    return (st_group_t){g,
                        p,
                        group * channels,
                        channels,
                        group * outputs,
                        outputs,
                        g->kernel_h * g->kernel_w * channels};
}

static int32_t even(int32_t n) {
    return (n + 1) & ~1;
}

/// Windows ///

// Taps [begin, end) of one kernel row. Without dilation and groups they lie side by side.
ST_AVX2 static void fill_row(const st_group_t *s, const int8_t *x, st_taps_t t, int16_t *to) {
    const st_conv_geometry_t *g = s->g;
    if (g->dilation_w == 1 && g->groups == 1) {
        vec_widen_all(x, (t.end - t.begin) * s->channels, g->x_zero, to);
        return;
    }
    for (int32_t i = t.begin; i < t.end; i++, to += s->channels, x += g->dilation_w * g->in_c)
        vec_widen_all(x, s->channels, g->x_zero, to);
}

static int is_whole(const st_conv_geometry_t *g, st_taps_t y, st_taps_t x) {
    return y.end - y.begin == g->kernel_h && x.end - x.begin == g->kernel_w;
}

// The window of one position. to: int16 [even(length)].
ST_AVX2 static void fill_window(const st_group_t *s, const int8_t *x, st_taps_t ty, int32_t ox,
                                int16_t *to) {
    const st_conv_geometry_t *g = s->g;
    const st_taps_t tx = st_taps_w(g, ox);
    if (!is_whole(g, ty, tx) || s->length & 1)
        __builtin_memset(to, 0, sizeof(*to) * (size_t)even(s->length));
    int32_t iy = ty.first;
    for (int32_t ky = ty.begin; ky < ty.end; ky++, iy += g->dilation_h) {
        const int8_t *from = x + (iy * g->in_w + tx.first) * g->in_c + s->channel;
        fill_row(s, from, tx, to + (ky * g->kernel_w + tx.begin) * s->channels);
    }
}

// Whether the positions of x are the windows, one behind the other.
static int is_pointwise(const st_group_t *s) {
    const st_conv_geometry_t *g = s->g;
    return g->kernel_h * g->kernel_w * g->stride_h * g->stride_w * g->groups == 1 && !g->pad_w &&
           g->out_w == g->in_w && g->pad_h <= 0 && g->out_h - g->pad_h <= g->in_h &&
           !(s->length & 1);
}

// Windows of the `count` positions from number `at` on.
ST_AVX2 static void fill_windows(const st_group_t *s, const int8_t *x, int32_t at, int32_t count,
                                 int16_t *to) {
    const st_conv_geometry_t *g = s->g;
    if (is_pointwise(s)) {
        const int32_t first = (at - g->pad_h * g->in_w) * g->in_c;
        vec_widen_all(x + first, count * g->in_c, g->x_zero, to);
        return;
    }
    int32_t oy = at / g->out_w, ox = at - oy * g->out_w;
    st_taps_t ty = st_taps_h(g, oy);
    for (; count > 0; count--, to += even(s->length)) {
        fill_window(s, x, ty, ox, to);
        if (++ox == g->out_w) {
            ox = 0;
            ty = st_taps_h(g, ++oy);
        }
    }
}

/// From sums to outputs ///

// Sums [positions][panels * 8] of up to four positions, and where their outputs go.
typedef struct {
    const int32_t *sums;
    int32_t sums_step;
    int8_t *y;
    int32_t y_step;
    int32_t positions, channels;
} st_block_t;

// Eight channels of four positions.
ST_AVX2_INLINE st_vec_t outputs_of(const st_block_t *b, int32_t channel, const st_factors_t *f,
                                   const vec_output_t *o, const int all_right) {
    st_vec_t v[TILE];
    for (int i = 0; i < TILE; i++) {
        const int32_t at = i < b->positions ? i * b->sums_step : 0;
        v[i] = vec_finish(vec_load(b->sums + at + channel), f, o, all_right);
    }
    return vec_outputs(v, o, all_right);
}

ST_AVX2_INLINE void store_eight(int8_t *y, __m128i v) {
    _mm_storel_epi64((__m128i *)y, v);
}

// Fewer channels, or fewer positions.
ST_AVX2 static void store_some(const st_block_t *b, int32_t channel, st_vec_t bytes) {
    int8_t out[TILE * ST_PANEL];
    const int32_t n = st_min(ST_PANEL, b->channels - channel);
    vec_store(out, bytes);
    for (int32_t i = 0; i < b->positions; i++)
        __builtin_memcpy(b->y + i * b->y_step + channel, out + i * ST_PANEL, (size_t)n);
}

ST_AVX2_INLINE void store_outputs(const st_block_t *b, int32_t channel, st_vec_t bytes) {
    int8_t *y = b->y + channel;
    const int32_t step = b->y_step;
    if (b->positions < TILE || b->channels - channel < ST_PANEL) {
        store_some(b, channel, bytes);
        return;
    }
    const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    store_eight(y, low);
    store_eight(y + step, _mm_unpackhi_epi64(low, low));
    store_eight(y + 2 * step, high);
    store_eight(y + 3 * step, _mm_unpackhi_epi64(high, high));
}

// Up to four positions.
ST_AVX2 static void finish(const st_conv_geometry_t *g, const st_factors_t *f, int all_right,
                           const st_block_t *b) {
    const vec_output_t o = vec_output(g->y_zero, g->act_min, g->act_max);
    if (all_right)
        for (int32_t n = 0; n < b->channels; n += ST_PANEL)
            store_outputs(b, n, outputs_of(b, n, f++, &o, 1));
    else
        for (int32_t n = 0; n < b->channels; n += ST_PANEL)
            store_outputs(b, n, outputs_of(b, n, f++, &o, 0));
}

// Sums of so many positions that stand one behind the other, to their outputs.
ST_AVX2 static void finish_all(const st_group_t *s, st_block_t block, int32_t rows, int all_right) {
    for (int32_t i = 0; i < rows; i += TILE) {
        st_block_t b = block;
        b.sums += i * b.sums_step;
        b.y += i * b.y_step;
        b.positions = st_min(TILE, rows - i);
        finish(s->g, st_simd_scratch()->factors, all_right, &b);
    }
}

/// Bytes ///

static int is_of_bytes(const st_group_t *s) {
    const st_conv_geometry_t *g = s->g;
    const int32_t positions = g->out_h * g->out_w;
    return st_simd_is_wide() && is_pointwise(s) && !g->w_zero && s->length % 4 == 0 &&
           positions >= ST_WIDE && positions * (int64_t)s->length <= ST_SIMD_ROOM;
}

// make_outputs from the weights as they lie.
ST_AVX2 static void make_outputs_of_bytes(const st_group_t *s, int32_t first, int32_t count,
                                          int8_t *y) {
    const st_conv_geometry_t *g = s->g;
    st_simd_scratch_t *scratch = st_simd_scratch();
    const int32_t positions = g->out_h * g->out_w;
    const st_wide_bytes_t p = {s->length, count, scratch->c, ST_PANEL * st_panels(count)};
    const int all_right = st_simd_factors(s->p, first, count, scratch->factors);
    st_wide_pack_bytes(&p, s->p->weights + first * s->length, g->x_zero, scratch->factors);
    for (int32_t done = 0; done < positions; done += ST_WIDE) {
        const int32_t at = st_min(done, positions - ST_WIDE);
        int8_t *to = y + at * g->out_c + first;
        st_wide_bytes_product(&p, at);
        finish_all(s, (st_block_t){p.c, p.c_step, to, g->out_c, 0, count}, ST_WIDE, all_right);
    }
}

ST_AVX2 static void run_group_of_bytes(const st_group_t *s, const int8_t *x, int8_t *y) {
    const st_conv_geometry_t *g = s->g;
    const int32_t in_b = 2 * ST_SIMD_ROOM / s->length & -ST_WIDE; // room is for 32 and more
    const int32_t chunk = st_min(in_b, ST_SIMD_SUMS / ST_WIDE);
    st_wide_lift_bytes(x - g->pad_h * g->in_w * g->in_c, g->out_h * g->out_w * g->in_c);
    for (int32_t n = 0; n < s->outputs; n += chunk)
        make_outputs_of_bytes(s, n, st_min(chunk, s->outputs - n), y);
}

/// Forward ///

// Positions that are made at once, from their number, the length of a window and the outputs.
static int32_t tile_of(int32_t positions, int32_t length, int32_t outputs) {
    const int has_room = ST_WIDE * even(length) <= ST_SIMD_ROOM &&
                         ST_WIDE * ST_PANEL * st_panels(outputs) <= ST_SIMD_SUMS;
    return st_simd_is_wide() && positions >= ST_WIDE && has_room ? ST_WIDE : TILE;
}

static void multiply(const st_product_t *product, int32_t rows) {
    if (rows == ST_WIDE)
        st_wide_packed_product(product);
    else
        st_simd_product(product, rows);
}

// Outputs [first, first + count) of one group, all positions; their weights stand packed in b. The
// last sixteen positions may be some that were made before.
ST_AVX2 static void make_outputs(const st_group_t *s, int32_t first, int32_t count, const int8_t *x,
                                 int8_t *y) {
    const st_conv_geometry_t *g = s->g;
    st_simd_scratch_t *scratch = st_simd_scratch();
    const st_product_t product = {scratch->a, scratch->b, even(s->length) / 2, st_panels(count),
                                  scratch->c};
    const int32_t positions = g->out_h * g->out_w, step = product.panels * ST_PANEL;
    const int32_t tile = tile_of(positions, s->length, count);
    const int all_right = st_simd_factors(s->p, first, count, scratch->factors);
    for (int32_t done = 0; done < positions; done += tile) {
        const int32_t at = tile == ST_WIDE ? st_min(done, positions - tile) : done;
        const int32_t n = st_min(tile, positions - at);
        fill_windows(s, x, at, n, scratch->a);
        multiply(&product, n);
        int8_t *to = y + at * g->out_c + first;
        finish_all(s, (st_block_t){scratch->c, step, to, g->out_c, 0, count}, n, all_right);
    }
}

// Columns that b has room for, and the factors; 0 where the windows are too long.
static int32_t chunk_of(int32_t length) {
    const int32_t in_b = ST_SIMD_ROOM / even(length);
    if (TILE * (int64_t)even(length) > ST_SIMD_ROOM)
        return 0;
    return st_min(in_b, ST_SIMD_CHANNELS) & ~(ST_PANEL - 1);
}

ST_AVX2 static void run_group(const st_group_t *s, const int8_t *x, int8_t *y) {
    const int32_t chunk = chunk_of(s->length);
    for (int32_t n = 0; n < s->outputs; n += chunk) {
        const int32_t first = s->first + n, count = st_min(chunk, s->outputs - n);
        st_simd_pack_columns(s->p->weights + first * s->length, s->length, count, s->g->w_zero,
                             st_simd_scratch()->b);
        make_outputs(s, first, count, x, y);
    }
}

// The same at a single position, with the weights as they lie.
ST_AVX2 static void run_position(const st_group_t *s, const int8_t *x, int32_t at, int8_t *y) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    fill_windows(s, x, at, 1, scratch->a);
    for (int32_t n = 0; n < s->outputs; n += ST_SIMD_CHANNELS) {
        const int32_t first = s->first + n, count = st_min(ST_SIMD_CHANNELS, s->outputs - n);
        st_simd_dots(scratch->a, s->p->weights + first * s->length, s->length, count, s->g->w_zero,
                     scratch->c);
        const int all_right = st_simd_factors(s->p, first, count, scratch->factors);
        const st_block_t b = {scratch->c, 0, y + first, 0, 1, count};
        finish(s->g, scratch->factors, all_right, &b);
    }
}

ST_AVX2 void conv2d_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                            int8_t *y) {
    const int32_t positions = g->out_h * g->out_w;
    if (!chunk_of(group_of(g, p, 0).length)) {
        conv2d_s8(g, p, x, y);
        return;
    }
    for (int32_t i = 0; i < g->groups; i++) {
        const st_group_t s = group_of(g, p, i);
        if (is_of_bytes(&s))
            run_group_of_bytes(&s, x, y);
        else if (positions >= TILE)
            run_group(&s, x, y);
        else
            for (int32_t at = 0; at < positions; at++)
                run_position(&s, x, at, y + at * g->out_c);
    }
}

/// Fully connected ///

static void finish_once(const st_conv_geometry_t *g, const st_conv_params_t *p, const int32_t *sums,
                        int8_t *y) {
    for (int32_t oc = 0; oc < g->out_c; oc++) {
        const int32_t v = st_requantize_once(p->bias[oc] + sums[oc], p->requant[oc]) + g->y_zero;
        y[oc] = (int8_t)st_clamp(v, g->act_min, g->act_max);
    }
}

ST_AVX2 void fully_connected_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                     const int8_t *x, int8_t *y) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    for (int32_t row = 0; row < g->out_w; row++, x += g->in_c, y += g->out_c) {
        vec_widen_all(x, g->in_c, g->x_zero, scratch->a);
        st_simd_dots(scratch->a, p->weights, g->in_c, g->out_c, g->w_zero, scratch->c);
        finish_once(g, p, scratch->c, y);
    }
}

ST_AVX2_INLINE __m128i weights_of_two_rows(const uint8_t *w) {
    const __m128i all = _mm_loadl_epi64((const __m128i *)(const void *)w);
    return _mm_cvtepi8_epi16(_mm_xor_si128(all, _mm_set1_epi8(-128)));
}

// Sums of one group of packed weights. Three vectors hold four sums each: of rows 0 to 3; 4, 5, 0,
// 1; and 2 to 5.
ST_AVX2_INLINE void packed_dots(const int16_t *x, const uint8_t *w, int32_t n, int32_t *sums) {
    __m128i of[3] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
    int32_t parts[12];
    for (int32_t k = 0; k < n; k += 4, w += 4 * ST_SIXES) {
        const __m128i four = _mm_loadl_epi64((const __m128i *)(const void *)(x + k));
        const __m128i by[3] = {_mm_shuffle_epi32(four, 0x00), _mm_shuffle_epi32(four, 0x50),
                               _mm_shuffle_epi32(four, 0x55)};
        for (int i = 0; i < 3; i++)
            of[i] = _mm_add_epi32(of[i], _mm_madd_epi16(by[i], weights_of_two_rows(w + 8 * i)));
    }
    for (int i = 0; i < 3; i++)
        _mm_storeu_si128((__m128i *)(void *)(parts + 4 * i), of[i]);
    for (int i = 0; i < ST_SIXES; i++)
        sums[i] = parts[i] + parts[i + ST_SIXES];
}

ST_AVX2 void fully_connected_packed_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                            const int8_t *x, int32_t *x_pairs, int8_t *y) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    if (g->out_c > ST_SIMD_SUMS - ST_SIXES) {
        fully_connected_packed_s8(g, p, x, x_pairs, y);
        return;
    }
    const int32_t bytes = ST_SIXES * (4 + g->in_c);
    for (int32_t row = 0; row < g->out_w; row++, x += g->in_c, y += g->out_c) {
        const uint8_t *group = (const uint8_t *)p->weights;
        vec_widen_all(x, g->in_c, 0, scratch->a);
        for (int32_t oc = 0; oc < g->out_c; oc += ST_SIXES, group += bytes) {
            const int32_t *starts = (const int32_t *)(const void *)group;
            packed_dots(scratch->a, group + 4 * ST_SIXES, g->in_c, scratch->c + oc);
            for (int i = 0; i < ST_SIXES; i++)
                scratch->c[oc + i] += starts[i];
        }
        finish_once(g, p, scratch->c, y);
    }
}

#endif
