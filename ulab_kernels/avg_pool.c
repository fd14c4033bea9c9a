#include "avg_pool.h"
#include "copy_bytes.h"
#include "fixedpoint.h"

// sum / count rounded to nearest, ties away from zero; reciprocal = floor(2^31 / count) + 1.
// Exact for |sum| * count < 2^31: 128 * count and ST_AVG_POOL_MAX_WINDOW, or 255 * count and
// ST_AVG_POOL_MAX_SHIFTED.
static int32_t mean_of_window(int32_t sum, int32_t count, uint32_t reciprocal) {
    uint32_t magnitude = (uint32_t)(sum < 0 ? -sum : sum) + (uint32_t)(count >> 1);
    int32_t mean = (int32_t)(((uint64_t)magnitude * reciprocal) >> 31);
    return sum < 0 ? -mean : mean;
}

static int32_t sum_of_window(const st_conv_geometry_t *g, const int8_t *x, st_taps_t ty,
                             st_taps_t tx) {
    const int32_t rows = ty.end - ty.begin, columns = tx.end - tx.begin;
    int32_t sum = 0;
    for (int32_t r = 0; r < rows; r++) {
        const int8_t *xp = x + ((ty.first + r) * g->in_w + tx.first) * g->in_c;
        for (int32_t c = 0; c < columns; c++, xp += g->in_c)
            sum += *xp;
    }
    return sum;
}

void avg_pool_s8(const st_conv_geometry_t *g, const int8_t *x, int8_t *y) {
    for (int32_t oy = 0; oy < g->out_h; oy++) {
        for (int32_t ox = 0; ox < g->out_w; ox++) {
            const st_taps_t ty = st_taps_h(g, oy), tx = st_taps_w(g, ox);
            const int32_t count = (ty.end - ty.begin) * (tx.end - tx.begin);
            const uint32_t reciprocal = (1u << 31) / (uint32_t)count + 1;
            for (int32_t c = 0; c < g->in_c; c++) {
                const int32_t sum = sum_of_window(g, x + c, ty, tx) + g->w_zero * count;
                const int32_t mean = mean_of_window(sum, count, reciprocal) - g->w_zero;
                *y++ = (int8_t)st_clamp(mean, g->act_min, g->act_max);
            }
        }
    }
}

// 2^(count_log2 + 15) / count: at most 2^15.
static int32_t share_of(int32_t count, int count_log2) {
    return st_min(((1 << (count_log2 + 15)) + (count >> 1)) / count, 1 << 15);
}

static void add_windows(const st_conv_geometry_t *g, int count_log2, const int16_t *dy,
                        const int32_t at[2], int32_t *row) {
    const st_range_t ry = st_outputs_of(at[0], g->stride_h, g->pad_h, g->kernel_h, g->out_h);
    const st_range_t rx = st_outputs_of(at[1], g->stride_w, g->pad_w, g->kernel_w, g->out_w);
    for (int32_t oy = ry.begin; oy < ry.end; oy++) {
        const st_taps_t ty = st_taps_h(g, oy);
        for (int32_t ox = rx.begin; ox < rx.end; ox++) {
            const st_taps_t tx = st_taps_w(g, ox);
            const int32_t share = share_of((ty.end - ty.begin) * (tx.end - tx.begin), count_log2);
            const int16_t *d = dy + (oy * g->out_w + ox) * g->in_c;
            for (int32_t c = 0; c < g->in_c; c++)
                row[c] += d[c] * share;
        }
    }
}

static void make_position(const st_conv_geometry_t *g, int count_log2, const int16_t *dy,
                          const int32_t at[2], int32_t *row) {
    st_fill_bytes((int8_t *)row, 0, 4 * g->in_c);
    add_windows(g, count_log2, dy, at, row);
}

// One output, of the whole input.
static int is_global(const st_conv_geometry_t *g) {
    return g->out_h == 1 && g->out_w == 1 && !g->pad_h && !g->pad_w && g->kernel_h >= g->in_h &&
           g->kernel_w >= g->in_w;
}

void avg_pool_grad_input(const st_conv_geometry_t *g, int count_log2, const int16_t *dy,
                         int32_t *row, st_emit_t *dx) {
    const int all_are_equal = is_global(g);
    for (int32_t iy = 0; iy < g->in_h; iy++) {
        for (int32_t ix = 0; ix < g->in_w; ix++) {
            if (!all_are_equal || (iy | ix) == 0)
                make_position(g, count_log2, dy, (const int32_t[2]){iy, ix}, row);
            st_emit_row(dx, (iy * g->in_w + ix) * g->in_c, row, g->in_c);
        }
    }
}
