// Convolutions as products of matrices: a row of a is the window of one position, widened to int16
// with the zero point taken off, so that what lies outside of the map is 0. Four positions at a
// time.
#include "simd_product.h"

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
        st_simd_widen(x, (t.end - t.begin) * s->channels, g->x_zero, to);
        return;
    }
    for (int32_t i = t.begin; i < t.end; i++, to += s->channels, x += g->dilation_w * g->in_c)
        st_simd_widen(x, s->channels, g->x_zero, to);
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

// Windows of the `count` positions from number `at` on.
ST_AVX2 static void fill_windows(const st_group_t *s, const int8_t *x, int32_t at, int32_t count,
                                 int16_t *to) {
    const st_conv_geometry_t *g = s->g;
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

// Eight channels of up to four positions; fewer than eight: `channels`.
typedef struct {
    const int32_t *sums;
    int32_t sums_step;
    int8_t *y;
    int32_t y_step;
    int32_t positions, channels;
} st_block_t;

ST_AVX2_INLINE void store_block(const st_block_t *b, st_vec_t bytes) {
    int8_t out[4 * ST_PANEL];
    vec_store(out, bytes);
    for (int32_t i = 0; i < b->positions; i++) {
        if (b->channels == ST_PANEL)
            __builtin_memcpy(b->y + i * b->y_step, out + i * ST_PANEL, ST_PANEL);
        else
            __builtin_memcpy(b->y + i * b->y_step, out + i * ST_PANEL, (size_t)b->channels);
    }
}

ST_AVX2_INLINE void finish_block(const st_block_t *b, const int32_t *bias,
                                 const st_requant_t *requant, const vec_output_t *o) {
    const vec_requant_t f = vec_requant_load(requant);
    const st_vec_t start = vec_load(bias);
    st_vec_t v[TILE];
    for (int i = 0; i < TILE; i++) {
        const int32_t *sums = b->sums + (i < b->positions ? i : 0) * b->sums_step;
        v[i] = vec_requantize(_mm256_add_epi32(vec_load(sums), start), &f);
        v[i] = vec_clamp(v[i], o);
    }
    store_block(b, vec_narrow(v[0], v[1], v[2], v[3]));
}

// The last channels, fewer than eight: tables of their own, so that nothing is read behind the end.
ST_AVX2 static void finish_last(const st_block_t *b, const int32_t *bias,
                                const st_requant_t *requant, const vec_output_t *o) {
    int32_t some_bias[ST_PANEL] = {0};
    st_requant_t some_requant[ST_PANEL] = {{0, 0}};
    __builtin_memcpy(some_bias, bias, sizeof(*bias) * (size_t)b->channels);
    __builtin_memcpy(some_requant, requant, sizeof(*requant) * (size_t)b->channels);
    finish_block(b, some_bias, some_requant, o);
}

// Outputs [first, first + count) of up to four positions from sums [positions][panels * 8].
ST_AVX2 static void finish(const st_group_t *s, int32_t first, int32_t count, st_block_t b) {
    const vec_output_t o = vec_output(s->g->y_zero, s->g->act_min, s->g->act_max);
    const int32_t *bias = s->p->bias + first;
    const st_requant_t *requant = s->p->requant + first;
    for (int32_t n = 0; n < count; n += ST_PANEL, b.sums += ST_PANEL, b.y += ST_PANEL) {
        b.channels = st_min(ST_PANEL, count - n);
        if (b.channels == ST_PANEL)
            finish_block(&b, bias + n, requant + n, &o);
        else
            finish_last(&b, bias + n, requant + n, &o);
    }
}

/// Forward ///

// Outputs [first, first + count) of one group, all positions; their weights stand packed in b.
ST_AVX2 static void make_outputs(const st_group_t *s, int32_t first, int32_t count, const int8_t *x,
                                 int8_t *y) {
    const st_conv_geometry_t *g = s->g;
    st_simd_scratch_t *scratch = st_simd_scratch();
    const st_product_t product = {scratch->a, scratch->b, even(s->length) / 2, st_panels(count),
                                  scratch->c};
    const int32_t positions = g->out_h * g->out_w;
    for (int32_t at = 0; at < positions; at += TILE) {
        const int32_t n = st_min(TILE, positions - at);
        fill_windows(s, x, at, n, scratch->a);
        st_simd_product(&product, n);
        finish(s, first, count,
               (st_block_t){scratch->c, product.panels * ST_PANEL, y + at * g->out_c + first,
                            g->out_c, n, 0});
    }
}

// Columns that b has room for, and c; 0 where the windows are too long.
static int32_t chunk_of(int32_t length) {
    const int32_t in_b = ST_SIMD_ROOM / even(length), in_c = ST_SIMD_SUMS / TILE;
    return TILE * (int64_t)even(length) > ST_SIMD_ROOM ? 0 : st_min(in_b, in_c) & ~(ST_PANEL - 1);
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
    for (int32_t n = 0; n < s->outputs; n += ST_SIMD_SUMS) {
        const int32_t first = s->first + n, count = st_min(ST_SIMD_SUMS, s->outputs - n);
        st_simd_dots(scratch->a, s->p->weights + first * s->length, s->length, count, s->g->w_zero,
                     scratch->c);
        finish(s, first, count, (st_block_t){scratch->c, 0, y + first, 0, 1, 0});
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
        if (positions >= TILE)
            run_group(&s, x, y);
        else
            for (int32_t at = 0; at < positions; at++)
                run_position(&s, x, at, y + at * g->out_c);
    }
}

ST_AVX2 void fully_connected_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                     const int8_t *x, int8_t *y) {
    st_simd_scratch_t *scratch = st_simd_scratch();
    for (int32_t row = 0; row < g->out_w; row++, x += g->in_c, y += g->out_c) {
        st_simd_widen(x, g->in_c, g->x_zero, scratch->a);
        st_simd_dots(scratch->a, p->weights, g->in_c, g->out_c, g->w_zero, scratch->c);
        for (int32_t oc = 0; oc < g->out_c; oc++) {
            const int32_t sum = p->bias[oc] + scratch->c[oc];
            const int32_t v = st_requantize_once(sum, p->requant[oc]) + g->y_zero;
            y[oc] = (int8_t)st_clamp(v, g->act_min, g->act_max);
        }
    }
}

#endif
