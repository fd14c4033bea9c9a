#include "depthwise_conv2d.h"
#include "arch.h"
#include "depthwise_sums.h"

// The taps of a position that lie inside the input, which are the same for all channels. Steps in
// elements, ends from behind a row to the next; x, w: of the first tap.
typedef struct {
    int32_t rows, columns;
    int32_t x, x_step, x_row_end, x_zero;
    int32_t w, w_step, w_row_end, w_zero;
} st_inside_t;

static st_inside_t taps_inside(const st_conv_geometry_t *g, int32_t oy, int32_t ox) {
    const st_taps_t ty = st_taps_h(g, oy), tx = st_taps_w(g, ox);
    const int32_t columns = tx.end - tx.begin, x_step = g->dilation_w * g->in_c;
    return (st_inside_t){
        .rows = ty.end - ty.begin,
        .columns = columns,
        .x = (ty.first * g->in_w + tx.first) * g->in_c,
        .x_step = x_step,
        .x_row_end = g->dilation_h * g->in_w * g->in_c - columns * x_step,
        .x_zero = g->x_zero,
        .w = (ty.begin * g->kernel_w + tx.begin) * g->out_c,
        .w_step = g->out_c,
        .w_row_end = (g->kernel_w - columns) * g->out_c,
        .w_zero = g->w_zero,
    };
}

// The sum of a row of taps; x and w end behind it.
#if ST_SMALL && ST_CORTEX_M0
// The compiler keeps half of it on the stack. Upper registers: as in dot.h, and two saved here.
static inline int32_t sum_of_row(const st_inside_t *in, const int8_t **x, const int8_t **w) {
    int32_t n = in->columns, a = -in->x_zero, b = -in->w_zero, sum = in->x_step, at = in->w_step;
    if (n <= 0)
        return 0;
    __asm__("mov r12, %4\n\tmov lr, %5\n\tmov %4, r8\n\tmov %5, r9\n\tpush {%4, %5}\n\t"
            "mov r8, %2\n\tmov r9, %6\n\tmov %2, #0\n\tmov %6, #0\n"
            "1:\tldrsb %4, [%0, %6]\n\tldrsb %5, [%1, %6]\n\tadd %4, r12\n\tadd %5, lr\n\t"
            "mul %4, %5\n\tadd %2, %4\n\tadd %0, r8\n\tadd %1, r9\n\tsub %3, #1\n\t"
            "bne 1b\n\tpop {%4, %5}\n\tmov r8, %4\n\tmov r9, %5"
            : "+l"(*x), "+l"(*w), "+l"(sum), "+l"(n), "+l"(a), "+l"(b), "+l"(at)
            :
            : "r12", "lr", "cc", "memory");
    return sum;
}
#else
static inline int32_t sum_of_row(const st_inside_t *in, const int8_t **x, const int8_t **w) {
    int32_t sum = 0;
    for (int32_t n = in->columns; n > 0; n--, *x += in->x_step, *w += in->w_step)
        sum += (**x - in->x_zero) * (**w - in->w_zero);
    return sum;
}
#endif

ST_HOT_IF_SMALL static int32_t channel_sum(const st_inside_t *in, const int8_t *x,
                                           const int8_t *w) {
    int32_t sum = 0;
    x += in->x;
    w += in->w;
    for (int32_t rows = in->rows; rows > 0; rows--, x += in->x_row_end, w += in->w_row_end)
        sum += sum_of_row(in, &x, &w);
    return sum;
}

void depthwise_conv2d_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                         int8_t *y) {
    const int32_t multiplier = g->out_c / g->in_c;
    for (int32_t oy = 0; oy < g->out_h; oy++) {
        for (int32_t ox = 0; ox < g->out_w; ox++) {
            const st_inside_t in = taps_inside(g, oy, ox);
            int32_t oc = 0;
            for (int32_t ic = 0; ic < g->in_c; ic++) {
                for (int32_t m = 0; m < multiplier; m++, oc++) {
                    int32_t sum = p->bias[oc] + channel_sum(&in, x + ic, p->weights + oc);
                    int32_t v = st_requantize(sum, p->requant[oc]) + g->y_zero;
                    *y++ = (int8_t)st_clamp(v, g->act_min, g->act_max);
                }
            }
        }
    }
}

// tap_row[in_c] += dy * w over the taps that read the position, for channels m, m + multiplier...
static void add_taps(const st_conv_geometry_t *g, const int8_t *weights, const int16_t *dy,
                     const int32_t at[2], int32_t *tap_row) {
    const int32_t multiplier = g->out_c / g->in_c;
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        int32_t oy = st_output_of(at[0], ky, g->stride_h, g->pad_h, g->dilation_h, g->out_h);
        if (oy < 0)
            continue;
        for (int32_t kx = 0; kx < g->kernel_w; kx++) {
            int32_t ox = st_output_of(at[1], kx, g->stride_w, g->pad_w, g->dilation_w, g->out_w);
            if (ox < 0)
                continue;
            const int16_t *d = dy + (oy * g->out_w + ox) * g->out_c;
            const int8_t *w = weights + (ky * g->kernel_w + kx) * g->out_c;
            for (int32_t ic = 0; ic < g->in_c; ic++, d += multiplier, w += multiplier)
                tap_row[ic] += *d * (*w - g->w_zero);
        }
    }
}

// row[in_c] += tap_row, by the scales of the weights of channels m, m + multiplier...
ST_HOT static void add_scaled(const uint16_t *scale_q15, int32_t multiplier, int32_t n,
                              const int32_t *tap_row, int32_t *row) {
    for (int32_t ic = 0; ic < n; ic++, scale_q15 += multiplier)
        row[ic] += st_mul_q15(tap_row[ic], *scale_q15);
}

static void clear(int32_t *row, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        row[i] = 0;
}

// The gradient of one input position, all channels. row: int32 [2 * in_c].
static void depthwise_position(const st_conv_geometry_t *g, const st_conv_params_t *p,
                               const int16_t *dy, const int32_t at[2], int32_t *row) {
    const int32_t multiplier = g->out_c / g->in_c;
    int32_t *tap_row = row + g->in_c;
    clear(row, g->in_c);
    if (multiplier == 1) {
        add_taps(g, p->weights, dy, at, row);
        for (int32_t ic = 0; ic < g->in_c; ic++)
            row[ic] = st_mul_q15(row[ic], p->scale_q15[ic]);
        return;
    }
    for (int32_t m = 0; m < multiplier; m++) {
        clear(tap_row, g->in_c);
        add_taps(g, p->weights + m, dy + m, at, tap_row);
        add_scaled(p->scale_q15 + m, multiplier, g->in_c, tap_row, row);
    }
}

#if ST_ARMV6M || ST_XTENSA_MAC16

#define MOST_TAPS 5 // along an axis

typedef struct {
    const int16_t *dy;
    const int8_t *weights;
} st_tap_t;

// armv6m_depthwise_grad.S, xtensa_depthwise_grad.S: row[bytes of weights] = sum over the taps of dy
// * weights, times scale, for channels four by four. At least one tap.
typedef struct {
    const st_tap_t *end, *taps;
    int32_t *row;
    int32_t channels;
    const uint16_t *scale_q15;
} st_taps_job_t;

void st_sum_taps(const st_taps_job_t *job);

// One output a channel, all of it in aligned words.
static int are_words(const st_conv_geometry_t *g, const int8_t *weights, const int16_t *dy) {
    return g->out_c == g->in_c && g->out_c % 4 == 0 && g->w_zero == 0 && g->kernel_h <= MOST_TAPS &&
           g->kernel_w <= MOST_TAPS && !(((uintptr_t)weights | (uintptr_t)dy) & 3);
}

// The rows of dy and of the filter that meet in a row of the input; how many.
static int32_t row_taps(const st_conv_geometry_t *g, const st_tap_t *all, int32_t iy,
                        st_tap_t *rows) {
    int32_t n = 0;
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        const int32_t oy = st_output_of(iy, ky, g->stride_h, g->pad_h, g->dilation_h, g->out_h);
        if (oy >= 0)
            rows[n++] = (st_tap_t){all->dy + oy * g->out_w * g->out_c,
                                   all->weights + ky * g->kernel_w * g->out_c};
    }
    return n;
}

// Those of a position; the end of them.
static st_tap_t *position_taps(const st_conv_geometry_t *g, const st_tap_t *rows, int32_t n,
                               int32_t ix, st_tap_t *taps) {
    for (int32_t kx = 0; kx < g->kernel_w; kx++) {
        const int32_t ox = st_output_of(ix, kx, g->stride_w, g->pad_w, g->dilation_w, g->out_w);
        for (int32_t i = 0; ox >= 0 && i < n; i++)
            *taps++ = (st_tap_t){rows[i].dy + ox * g->out_c, rows[i].weights + kx * g->out_c};
    }
    return taps;
}

static void grad_input_words(const st_conv_geometry_t *g, const st_conv_params_t *p,
                             const int16_t *dy, int32_t *row, st_emit_t *dx) {
    st_tap_t rows[MOST_TAPS], taps[MOST_TAPS * MOST_TAPS];
    const st_tap_t all = {dy, p->weights};
    for (int32_t iy = 0; iy < g->in_h; iy++) {
        const int32_t n = row_taps(g, &all, iy, rows);
        for (int32_t ix = 0; ix < g->in_w; ix++) {
            const st_tap_t *end = position_taps(g, rows, n, ix, taps);
            const st_taps_job_t job = {end, taps, row, g->in_c, p->scale_q15};
            if (end > taps)
                st_sum_taps(&job);
            else
                clear(row, g->in_c);
            st_emit_row(dx, (iy * g->in_w + ix) * g->in_c, row, g->in_c);
        }
    }
}

#else

static int are_words(const st_conv_geometry_t *g, const int8_t *weights, const int16_t *dy) {
    (void)g, (void)weights, (void)dy;
    return 0;
}

static void grad_input_words(const st_conv_geometry_t *g, const st_conv_params_t *p,
                             const int16_t *dy, int32_t *row, st_emit_t *dx) {
    (void)g, (void)p, (void)dy, (void)row, (void)dx;
}

#endif

void depthwise_conv2d_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                 const int16_t *dy, int32_t *row, st_emit_t *dx) {
    if (are_words(g, p->weights, dy)) {
        grad_input_words(g, p, dy, row, dx);
        return;
    }
    for (int32_t iy = 0; iy < g->in_h; iy++) {
        for (int32_t ix = 0; ix < g->in_w; ix++) {
            const int32_t at[2] = {iy, ix};
            depthwise_position(g, p, dy, at, row);
            st_emit_row(dx, (iy * g->in_w + ix) * g->in_c, row, g->in_c);
        }
    }
}

// A row of positions: sum of dy * (x - zero). Steps in elements.
typedef struct {
    const int16_t *dy;
    const int8_t *x;
    int32_t dy_step, x_step, n;
} st_columns_of_t;

ST_HOT static int32_t correlate_row(const st_columns_of_t *c, int32_t zero) {
    const int16_t *dy = c->dy;
    const int8_t *x = c->x;
    const int32_t dy_step = c->dy_step, x_step = c->x_step;
    int32_t sum = 0;
    for (int32_t n = c->n; n > 0; n--, dy += dy_step, x += x_step)
        sum += *dy * (*x - zero);
    return sum;
}

// A tap of the kernel: where it lies for output 0, and the outputs for which it lies inside.
typedef struct {
    int32_t y, x, base; // base: its first weight
    st_range_t rows, columns;
} st_depthwise_tap_t;

static st_depthwise_tap_t kernel_tap(const st_conv_geometry_t *g, int32_t ky, int32_t kx) {
    st_depthwise_tap_t t = {.y = ky * g->dilation_h - g->pad_h, .x = kx * g->dilation_w - g->pad_w};
    t.base = (ky * g->kernel_w + kx) * g->out_c;
    t.rows = st_outputs_inside(t.y, g->stride_h, g->in_h, g->out_h);
    t.columns = st_outputs_inside(t.x, g->stride_w, g->in_w, g->out_w);
    return t;
}

// Over all positions, for one tap: dy * (kept - x_zero) of one output channel and its input, which
// is the i-th that is kept.
static int32_t correlate_tap(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                             const st_depthwise_tap_t *t, int32_t i) {
    const int32_t first = t->columns.begin;
    st_columns_of_t c = {.dy_step = g->out_c, .x_step = g->stride_w * u->n_channels};
    c.n = t->columns.end - first;
    int32_t sum = 0;
    for (int32_t oy = t->rows.begin; oy < t->rows.end; oy++) {
        const int32_t pixel = (t->y + oy * g->stride_h) * g->in_w + t->x + first * g->stride_w;
        c.dy = dy + (oy * g->out_w + first) * g->out_c;
        c.x = u->kept + pixel * u->n_channels + i;
        sum += correlate_row(&c, g->x_zero);
    }
    return sum;
}

// The weights of `taps` taps from t on, which have the same sums.
static void update_same_taps(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                             const st_depthwise_tap_t *t, int32_t taps) {
    const int32_t multiplier = g->out_c / g->in_c;
    for (int32_t i = 0; i < u->n_channels; i++) {
        int32_t oc = u->channels[i] * multiplier;
        for (int32_t last = oc + multiplier; oc < last; oc++) {
            if (oc < u->made.begin || oc >= u->made.end)
                continue;
            const int32_t sum = correlate_tap(g, dy + oc, u, t, i);
            for (int32_t k = 0; u->norms && k < taps; k++)
                st_add_norms(u->norms + i, &sum, 1);
            for (int32_t k = 0; sum && k < taps; k++)
                st_update_weight(u, st_weight_step(u, oc), t->base + k * g->out_c + oc, sum);
        }
    }
}

static void update_taps(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u) {
    if (!(g->dilation_h | g->dilation_w)) { // of patches (patch.h): all taps lie at one place
        const st_depthwise_tap_t all = kernel_tap(g, 0, 0);
        update_same_taps(g, dy, u, &all, g->kernel_h * g->kernel_w);
        return;
    }
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        for (int32_t kx = 0; kx < g->kernel_w; kx++) {
            const st_depthwise_tap_t tap = kernel_tap(g, ky, kx);
            update_same_taps(g, dy, u, &tap, 1);
        }
    }
}

// All taps of one output channel, whose input is the i-th that is kept.
static void update_channel(const st_tiles_t *t, const st_channel_t *c, const st_update_t *u,
                           const int32_t at[2]) {
    const int32_t i = at[0], oc = at[1];
    const st_step_t step = st_weight_step(u, oc);
    int32_t sums[9];
    st_depthwise_sums(t, c, (uint32_t *)sums);
    for (int32_t k = 0; u->norms && k < 9; k++)
        st_add_norms(u->norms + i, &sums[k], 1);
    st_update_spread(u, step, (st_spread_t){oc, t->g->out_c, 9}, sums);
}

static void update_tiled(const st_tiles_t *t, const int16_t *dy, const st_update_t *u) {
    const int32_t multiplier = t->g->out_c / t->g->in_c;
    for (int32_t i = 0; i < u->n_channels; i++) {
        const int32_t first = u->channels[i] * multiplier;
        const int32_t end = st_min(first + multiplier, u->made.end);
        for (int32_t oc = st_max(first, u->made.begin); oc < end; oc++) {
            const st_channel_t c = {dy + oc, u->kept + i, t->g->out_c, u->n_channels};
            update_channel(t, &c, u, (int32_t[2]){i, oc});
        }
    }
}

void depthwise_conv2d_update(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                             int32_t *row) {
    (void)row; // of the twin's version
    st_tiles_t tiles;
    if (u->n_channels && st_tile_depthwise(g, &tiles))
        update_tiled(&tiles, dy, u);
    else if (u->n_channels)
        update_taps(g, dy, u);
    st_update_biases(g->out_h * g->out_w, g->out_c, dy, u);
}
