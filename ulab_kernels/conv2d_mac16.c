// Filters are widened to int16, as many as there is room for; then windows, for all of them.
#include "conv2d_mac16.h"

#include "mac16.h"

#define MOST_WINDOWS 64
// Instructions: to widen an input, and what a filter takes for itself in a call of the loop.
#define WIDEN 2
#define CALL 100

typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    const int8_t *x;
    int32_t k_used, k;         // inputs of a window; padded to 4
    int32_t in_fours;          // how inputs are widened
    int32_t in_place;          // windows lie in x one behind the other
    int32_t channels, windows; // widened at a time
    int32_t *filters;          // [channels]: the bias, [k] int16
    int16_t *columns;          // [windows, k]
} st_mac16_work_t;

static int32_t filter_words(const st_mac16_work_t *w) {
    return w->k / 2 + 1;
}

// More channels at a time: windows are widened less often. More windows: fewer calls.
static void cut(st_mac16_work_t *w, int32_t words) {
    const st_conv_geometry_t *g = w->g;
    const int32_t outputs = st_min(g->out_h * g->out_w, 1 << 10), out_c = g->out_c;
    const int32_t window = w->k / 2, filter = filter_words(w);
    int64_t least = INT64_MAX;
    for (int32_t windows = 1; windows <= MOST_WINDOWS; windows += 1 + windows / 4) {
        const int32_t channels = st_min(out_c, (words - windows * window) / filter);
        if (words - windows * window < filter)
            break;
        const int64_t passes = (out_c + channels - 1) / channels;
        const int64_t calls = (int64_t)((outputs + windows - 1) / windows) * out_c;
        const int64_t cost = passes * outputs * w->k * WIDEN + calls * CALL;
        if (cost < least) {
            least = cost;
            w->windows = windows;
            w->channels = channels;
        }
    }
}

static int16_t *fill(int16_t *to, int32_t n, int32_t value) {
    for (; n > 0; n--)
        *to++ = (int16_t)value;
    return to;
}

// In the order of the inputs; returns the sum.
static int32_t widen_filter(const st_mac16_work_t *w, const int8_t *from, int16_t *to) {
    const int32_t second = w->in_fours ? 2 : 1; // where the second one of four lies
    int32_t sum = 0, left = w->k_used;
    for (; left >= 4; left -= 4, from += 4, to += 4) {
        const int32_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = (int16_t)a;
        to[second] = (int16_t)b;
        to[3 - second] = (int16_t)c;
        to[3] = (int16_t)d;
        sum += a + b + c + d;
    }
    for (int32_t i = 0; left && i < 4; i++) { // not in fours: then none are left
        *to = (int16_t)(i < left ? from[i] : 0);
        sum += *to++;
    }
    return sum;
}

static void widen_filters(const st_mac16_work_t *w, int32_t first, int32_t n) {
    const int8_t *from = w->p->weights + first * w->k_used;
    int32_t *to = w->filters;
    for (int32_t c = first; c < first + n; c++, from += w->k_used, to += filter_words(w)) {
        const int32_t sum = widen_filter(w, from, (int16_t *)(to + 1));
        *to = w->p->bias[c] - (w->g->x_zero + 128) * sum;
    }
}

static int16_t *widen(const st_mac16_work_t *w, const int8_t *x, int32_t n, int16_t *to) {
    if (w->in_fours)
        st_mac16_widen_fours(x, n, to);
    else
        st_mac16_widen(x, n, to);
    return to + n;
}

// A row of the kernel. x: of the input, NULL beside it. ix: of its first tap.
static int16_t *widen_row(const st_mac16_work_t *w, const int8_t *x, int32_t ix, int16_t *to) {
    const st_conv_geometry_t *g = w->g;
    const int32_t row = g->kernel_w * g->in_c, beside = g->x_zero + 128;
    if (!x)
        return fill(to, row, beside);
    if (g->dilation_w == 1 && ix >= 0 && ix + g->kernel_w <= g->in_w)
        return widen(w, x + ix * g->in_c, row, to);
    for (int32_t kx = 0; kx < g->kernel_w; kx++, ix += g->dilation_w) {
        const int inside = ix >= 0 && ix < g->in_w;
        to = inside ? widen(w, x + ix * g->in_c, g->in_c, to) : fill(to, g->in_c, beside);
    }
    return to;
}

static void widen_window(const st_mac16_work_t *w, int32_t oy, int32_t ox, int16_t *to) {
    const st_conv_geometry_t *g = w->g;
    int32_t iy = oy * g->stride_h - g->pad_h;
    const int32_t ix = ox * g->stride_w - g->pad_w;
    for (int32_t ky = 0; ky < g->kernel_h; ky++, iy += g->dilation_h) {
        const int inside = iy >= 0 && iy < g->in_h;
        to = widen_row(w, inside ? w->x + iy * g->in_w * g->in_c : 0, ix, to);
    }
    fill(to, w->k - w->k_used, 0);
}

// Of outputs [at, at + n).
static void widen_windows(const st_mac16_work_t *w, int32_t at, int32_t n) {
    int16_t *to = w->columns;
    if (w->in_place) {
        widen(w, w->x + (at - w->g->pad_h * w->g->in_w) * w->k, n * w->k, to);
        return;
    }
    int32_t oy = at ? at / w->g->out_w : 0, ox = at - oy * w->g->out_w;
    for (; n > 0; n--, to += w->k) {
        widen_window(w, oy, ox, to);
        if (++ox == w->g->out_w) {
            ox = 0;
            oy++;
        }
    }
}

// Whether each position is a window.
static int is_pointwise(const st_conv_geometry_t *g) {
    return g->kernel_h * g->kernel_w * g->stride_h * g->stride_w == 1 && g->pad_w == 0 &&
           g->out_w == g->in_w && g->pad_h <= 0 && g->out_h - g->pad_h <= g->in_h;
}

// n outputs of channels.
static void run(const st_mac16_work_t *w, st_range_t channels, int32_t n, int8_t *y) {
    st_mac16_job_t job;
    st_mac16_begin(&job.out, w->g);
    job.x = w->columns;
    job.y_step = w->g->out_c;
    job.fours = w->k / 4 - 1;
    const int32_t *filter = w->filters, bytes = n * job.y_step;
    for (int32_t c = channels.begin; c < channels.end; c++, filter += filter_words(w)) {
        st_mac16_prepare(&job.out, *filter, w->p->requant[c]);
        job.w = (const int16_t *)(filter + 1);
        job.y = y + c;
        job.end = job.y + bytes;
        st_mac16_windows(&job);
    }
}

void conv2d_mac16_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                     st_scratch_t scratch, int8_t *y) {
    const int32_t outputs = g->out_h * g->out_w;
    st_mac16_work_t w = {.g = g, .p = p, .x = x, .k_used = g->kernel_h * g->kernel_w * g->in_c};
    w.k = (w.k_used + 3) / 4 * 4;
    w.in_fours = g->in_c % 4 == 0 && !((uintptr_t)x & 3);
    w.in_place = w.in_fours && is_pointwise(g);
    cut(&w, scratch.words);
    w.filters = scratch.data;
    w.columns = (int16_t *)(scratch.data + w.channels * filter_words(&w));
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
