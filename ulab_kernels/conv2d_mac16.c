// Filters are widened to int16, as many as there is room for; then windows, for all of them.
#include "conv2d_mac16.h"

#include "mac16.h"

#define FEW_WINDOWS 8
#define MOST_WINDOWS 64

typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    const int8_t *x;
    int32_t k_used, k;          // inputs of a window; padded to 4
    int32_t channels, windows;  // widened at a time
    int16_t *filters, *columns; // [channels, k], [windows, k]
} st_mac16_work_t;

// Half of the room at most is for windows, where filters do not leave more.
static void cut(st_mac16_work_t *w, int32_t words) {
    const int32_t room = words / (w->k / 2);
    int32_t windows = room - w->g->out_c;
    if (windows < FEW_WINDOWS)
        windows = room / 2;
    w->windows = st_min(windows, MOST_WINDOWS);
    w->channels = st_min(w->g->out_c, room - w->windows);
}

static int16_t *clear(int16_t *to, int32_t n) {
    for (; n > 0; n--)
        *to++ = 0;
    return to;
}

static void widen_filters(const st_mac16_work_t *w, int32_t first, int32_t n) {
    const int8_t *from = w->p->weights + first * w->k_used;
    int16_t *to = w->filters;
    for (; n > 0; n--, from += w->k_used, to += w->k) {
        st_mac16_widen(from, w->k_used, 0, to);
        clear(to + w->k_used, w->k - w->k_used);
    }
}

// A row of the kernel. x: of the input, NULL beside it. ix: of its first tap.
static int16_t *widen_row(const st_conv_geometry_t *g, const int8_t *x, int32_t ix, int16_t *to) {
    const int32_t row = g->kernel_w * g->in_c;
    if (!x)
        return clear(to, row);
    if (g->dilation_w == 1 && ix >= 0 && ix + g->kernel_w <= g->in_w) {
        st_mac16_widen(x + ix * g->in_c, row, g->x_zero, to);
        return to + row;
    }
    for (int32_t kx = 0; kx < g->kernel_w; kx++, ix += g->dilation_w, to += g->in_c) {
        if (ix >= 0 && ix < g->in_w)
            st_mac16_widen(x + ix * g->in_c, g->in_c, g->x_zero, to);
        else
            clear(to, g->in_c);
    }
    return to;
}

static void widen_window(const st_mac16_work_t *w, int32_t oy, int32_t ox, int16_t *to) {
    const st_conv_geometry_t *g = w->g;
    int32_t iy = oy * g->stride_h - g->pad_h;
    const int32_t ix = ox * g->stride_w - g->pad_w;
    for (int32_t ky = 0; ky < g->kernel_h; ky++, iy += g->dilation_h) {
        const int inside = iy >= 0 && iy < g->in_h;
        to = widen_row(g, inside ? w->x + iy * g->in_w * g->in_c : 0, ix, to);
    }
    clear(to, w->k - w->k_used);
}

// Of outputs [at, at + n).
static void widen_windows(const st_mac16_work_t *w, int32_t at, int32_t n) {
    int32_t oy = at ? at / w->g->out_w : 0, ox = at - oy * w->g->out_w;
    int16_t *to = w->columns;
    for (; n > 0; n--, to += w->k) {
        widen_window(w, oy, ox, to);
        if (++ox == w->g->out_w) {
            ox = 0;
            oy++;
        }
    }
}

// Outputs [at, at + n) of channels [first, end).
static void run(const st_mac16_work_t *w, st_range_t channels, int32_t n, int8_t *y) {
    st_mac16_job_t job = {.x = w->columns, .w = w->filters, .fours = w->k / 4 - 1};
    for (int32_t c = channels.begin; c < channels.end; c++, job.w += w->k) {
        st_mac16_prepare(&job, w->g, w->p->bias[c], w->p->requant[c]);
        job.y = y + c;
        job.end = job.y + n * job.y_step;
        st_mac16_windows(&job);
    }
}

void conv2d_mac16_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                     st_scratch_t scratch, int8_t *y) {
    const int32_t outputs = g->out_h * g->out_w;
    st_mac16_work_t w = {.g = g, .p = p, .x = x, .k_used = g->kernel_h * g->kernel_w * g->in_c};
    w.k = (w.k_used + 3) / 4 * 4;
    cut(&w, scratch.words);
    w.filters = (int16_t *)scratch.data;
    w.columns = w.filters + w.channels * w.k;
    for (int32_t c = 0; c < g->out_c; c += w.channels) {
        const int32_t n = st_min(w.channels, g->out_c - c);
        if (!scratch.kept || w.channels < g->out_c)
            widen_filters(&w, c, n);
        for (int32_t at = 0; at < outputs; at += w.windows) {
            const int32_t some = st_min(w.windows, outputs - at);
            widen_windows(&w, at, some);
            run(&w, (st_range_t){c, c + n}, some, y + at * g->out_c);
        }
    }
}
