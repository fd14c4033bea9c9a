// One channel after the other: its inputs are widened to int16, columns one behind the other, zeros
// around them. So a column's three taps are two words, and weights are made ready for both ways
// how three taps lie in these.
#include "depthwise_mac16.h"

#include "depthwise3x3.h"
#include "mac16.h"

// Rows of outputs [oy, oy + n), and what they read.
typedef struct {
    const st_conv_geometry_t *g;
    const int8_t *x;
    int16_t *plane; // [columns, rows]; row 0: input row `top`
    int32_t oy, n;
    int32_t columns, rows, top;
} st_mac16_strip_t;

static int32_t columns_of(const st_conv_geometry_t *g) {
    return (g->out_w - 1) * g->stride_w + 3;
}

// Inputs of n rows of outputs: an even number.
static int32_t rows_of(const st_conv_geometry_t *g, int32_t n) {
    return ((n - 1) * g->stride_h + 4) / 2 * 2;
}

int64_t depthwise_mac16_scratch(const st_conv_geometry_t *g) {
    return depthwise3x3_suits(g) ? (int64_t)columns_of(g) * (rows_of(g, 1) / 2) : INT64_MAX;
}

static int32_t rows_that_fit(const st_conv_geometry_t *g, int32_t words) {
    const int32_t most = words / columns_of(g) * 2; // of inputs
    return st_min(g->out_h, g->stride_h == 1 ? most - 2 : (most - 3) / g->stride_h + 1);
}

// Inputs [begin, end) of the strip that there are.
static st_range_t rows_inside(const st_mac16_strip_t *s) {
    return (st_range_t){st_max(0, s->top), st_min(s->g->in_h, s->top + s->rows)};
}

static void begin_strip(st_mac16_strip_t *s, int32_t oy, int32_t n) {
    s->oy = oy;
    s->n = n;
    s->rows = rows_of(s->g, n);
    s->top = oy * s->g->stride_h - s->g->pad_h;
    for (int32_t i = 0; i < s->columns * s->rows; i++)
        s->plane[i] = 0;
}

// n inputs, in_c apart, to places `step` apart.
ST_HOT static void widen_line(const int8_t *x, int32_t in_c, int32_t n, int32_t zero, int16_t *to,
                              int32_t step) {
    for (; n > 0; n--, x += in_c, to += step)
        *to = (int16_t)(*x - zero);
}

static void widen_channel(const st_mac16_strip_t *s, int32_t channel) {
    const st_conv_geometry_t *g = s->g;
    const st_range_t rows = rows_inside(s);
    const int32_t n = st_min(g->in_w, s->columns - g->pad_w);
    const int8_t *x = s->x + rows.begin * g->in_w * g->in_c + channel;
    int16_t *to = s->plane + g->pad_w * s->rows + rows.begin - s->top;
    for (int32_t iy = rows.begin; iy < rows.end; iy++, x += g->in_w * g->in_c)
        widen_line(x, g->in_c, n, g->x_zero, to++, s->rows);
}

// Of a channel: 3 columns of four, for taps that begin with a word's lower half, and its upper.
static void order_weights(const int8_t *weights, int32_t step, int16_t ordered[2][12]) {
    for (int32_t kx = 0; kx < 3; kx++, weights += step) {
        int16_t *even = ordered[0] + 4 * kx, *odd = ordered[1] + 4 * kx;
        even[3] = odd[0] = 0;
        for (int32_t ky = 0; ky < 3; ky++)
            even[ky] = odd[ky + 1] = weights[3 * ky * step];
    }
}

static void run_channel(const st_mac16_strip_t *s, const st_conv_params_t *p, int32_t c,
                        int8_t *y) {
    const st_conv_geometry_t *g = s->g;
    int16_t ordered[2][12] __attribute__((aligned(4)));
    st_mac16_job_t job = {.column = 2 * s->rows - 8};
    st_mac16_begin(&job, g);
    st_mac16_prepare(&job, p->bias[c], p->requant[c]);
    job.next_window = 2 * (g->stride_w - 2) * s->rows - 8;
    order_weights(p->weights + c, g->out_c, ordered);
    y += s->oy * g->out_w * g->out_c + c;
    for (int32_t i = 0, at = 0; i < s->n; i++, at += g->stride_h) {
        job.x = s->plane + (at & ~1);
        job.w = ordered[at & 1];
        job.y = y;
        job.end = y += g->out_w * g->out_c;
        st_mac16_taps(&job);
    }
}

void depthwise_mac16_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                        st_scratch_t scratch, int8_t *y) {
    st_mac16_strip_t s = {.g = g, .x = x, .plane = (int16_t *)scratch.data};
    s.columns = columns_of(g);
    const int32_t most = rows_that_fit(g, scratch.words);
    for (int32_t oy = 0; oy < g->out_h; oy += most) {
        begin_strip(&s, oy, st_min(most, g->out_h - oy));
        for (int32_t c = 0; c < g->out_c; c++) {
            widen_channel(&s, c);
            run_channel(&s, p, c, y);
        }
    }
}
