#include "max_pool.h"

#include "arch.h"
#include "copy_bytes.h"
#include "fixedpoint.h"

static void take_larger(const int8_t *x, int32_t n, int32_t tap, uint8_t *winner, int8_t *y) {
    for (int32_t c = 0; c < n; c++) {
        if (x[c] <= y[c])
            continue;
        y[c] = x[c];
        if (winner)
            winner[c] = (uint8_t)tap;
    }
}

static void take_first(const int8_t *x, int32_t n, int32_t tap, uint8_t *winner, int8_t *y) {
    __builtin_memcpy(y, x, (uint32_t)n);
    for (int32_t c = 0; winner && c < n; c++)
        winner[c] = (uint8_t)tap;
}

static void pool_position(const st_conv_geometry_t *g, const int8_t *x, const st_taps_t taps[2],
                          uint8_t *winner, int8_t *y) {
    const st_taps_t ty = taps[0], tx = taps[1];
    int first = 1;
    for (int32_t ky = ty.begin; ky < ty.end; ky++) {
        const int8_t *xp = x + ((ty.first + ky - ty.begin) * g->in_w + tx.first) * g->in_c;
        for (int32_t kx = tx.begin; kx < tx.end; kx++, xp += g->in_c, first = 0) {
            const int32_t tap = ky * g->kernel_w + kx;
            if (first)
                take_first(xp, g->in_c, tap, winner, y);
            else
                take_larger(xp, g->in_c, tap, winner, y);
        }
    }
    for (int32_t c = 0; c < g->in_c; c++)
        y[c] = (int8_t)st_clamp(y[c], g->act_min, g->act_max);
}

void max_pool_s8(const st_conv_geometry_t *g, const int8_t *x, uint8_t *winner, int8_t *y) {
    for (int32_t oy = 0; oy < g->out_h; oy++) {
        for (int32_t ox = 0; ox < g->out_w; ox++) {
            const st_taps_t taps[2] = {st_taps_h(g, oy), st_taps_w(g, ox)};
            pool_position(g, x, taps, winner, y);
            y += g->in_c;
            winner = winner ? winner + g->in_c : winner;
        }
    }
}

// row[n] += dy where the tap won.
ST_HOT static void add_won(const uint8_t *winner, const int16_t *dy, int32_t tap, int32_t n,
                           int32_t *row) {
    for (const int32_t *end = row + n; row < end; row++, dy++)
        if (*winner++ == tap)
            *row += *dy;
}

// row[n] = dy where the tap won, and 0.
ST_HOT static void put_won(const uint8_t *winner, const int16_t *dy, int32_t tap, int32_t n,
                           int32_t *row) {
    for (const int32_t *end = row + n; row < end; row++, dy++)
        *row = *winner++ == tap ? *dy : 0;
}

static void sum_windows(const st_conv_geometry_t *g, const uint8_t *winner, const int16_t *dy,
                        const int32_t at[2], int32_t *row) {
    int first = 1;
    const st_range_t ry = st_outputs_of(at[0], g->stride_h, g->pad_h, g->kernel_h, g->out_h);
    const st_range_t rx = st_outputs_of(at[1], g->stride_w, g->pad_w, g->kernel_w, g->out_w);
    for (int32_t oy = ry.begin; oy < ry.end; oy++) {
        const int32_t ky = at[0] + g->pad_h - oy * g->stride_h;
        for (int32_t ox = rx.begin; ox < rx.end; ox++) {
            const int32_t tap = ky * g->kernel_w + at[1] + g->pad_w - ox * g->stride_w;
            const int32_t base = (oy * g->out_w + ox) * g->in_c;
            (first ? put_won : add_won)(winner + base, dy + base, tap, g->in_c, row);
            first = 0;
        }
    }
    if (first)
        st_fill_bytes((int8_t *)row, 0, 4 * g->in_c);
}

void max_pool_grad_input(const st_conv_geometry_t *g, const uint8_t *winner, const int16_t *dy,
                         int32_t *row, st_emit_t *dx) {
    const int32_t n = g->in_c;
    for (int32_t iy = 0; iy < g->in_h; iy++) {
        for (int32_t ix = 0; ix < g->in_w; ix++) {
            const int32_t at[2] = {iy, ix};
            sum_windows(g, winner, dy, at, row);
            st_emit_row(dx, (iy * g->in_w + ix) * n, row, n);
        }
    }
}
