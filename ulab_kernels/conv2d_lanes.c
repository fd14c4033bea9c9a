#include "conv2d_lanes.h"

#include "arch.h"
#include "copy_bytes.h"
#include "lanes.h"
#include "requantize.h"

#define MOST_AT_ONCE 32
#define FEW_WINDOWS 4
#define WINDOWS 256 // words of gathered windows that channels leave room for

// How the work is cut. k: inputs of a window, padded to 4. channels: packed at a time. positions:
// windows gathered at a time.
typedef struct {
    int32_t k_used, k, channels, positions;
} st_tiling_t;

int64_t conv2d_lanes_scratch(const st_conv_geometry_t *g) {
    const int64_t k = ((int64_t)g->kernel_h * g->kernel_w * g->in_c + 3) / 4 * 4;
    return k + 2 + k / 4; // a pair of channels, a window
}

// sets: of windows, one for each part that gathers some.
static st_tiling_t tiling(const st_conv_geometry_t *g, int32_t words, int32_t sets) {
    st_tiling_t t = {.k_used = g->kernel_h * g->kernel_w * g->in_c};
    t.k = (t.k_used + 3) / 4 * 4;
    const int32_t window = t.k / 4, pair = t.k + 2;
    int32_t kept = sets * window; // words for them, at least if all channels fit beside
    const int all_fit = words - st_lanes_words(g->out_c, t.k) >= FEW_WINDOWS * kept;
    if (!all_fit && words - WINDOWS * sets >= ST_LANES_MOST / 2 * pair)
        kept *= st_clamp(WINDOWS / window, 1, MOST_AT_ONCE);
    const int32_t fitting = (words - kept) / pair * 2;
    t.channels = st_min(g->out_c, fitting);
    if (fitting < g->out_c && fitting > ST_LANES_MOST)
        t.channels = fitting / ST_LANES_MOST * ST_LANES_MOST;
    words -= st_lanes_words(t.channels, t.k);
    t.positions = st_min(MOST_AT_ONCE, words / (sets * window));
    return t;
}

// A convolution on its way: channels [first, end) are packed.
typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    st_tiling_t t;
    const int8_t *x;
    int8_t *y;
    int32_t *packed;
    int8_t *columns;
    int32_t first, end;
    int in_place; // windows lie in x as they are
    int kept;     // all channels are packed already
} st_work_t;

static void pack_weights(const st_work_t *w) {
    int32_t *group = w->packed;
    for (int32_t c = w->first; c < w->end; c += ST_LANES_MOST) {
        const int32_t n = st_min(ST_LANES_MOST, w->end - c);
        const st_lanes_weights_t weights = {
            w->p->weights + c * w->t.k_used, w->p->bias + c, n, w->t.k_used, w->t.k, w->g->x_zero};
        st_lanes_pack(&weights, group);
        group += st_lanes_words(n, w->t.k);
    }
}

// How the sums of channels [channel, channel + n) become outputs.
static void prepare_group(const st_work_t *w, int32_t channel, int32_t n, int32_t *sums,
                          st_requantize_t *channels) {
    const int32_t step = (n + 1) / 2 * 8;
    for (const st_requant_t *f = w->p->requant + channel; n > 0; n--, channels++) {
        channels->sums = sums++;
        channels->y_step = w->g->out_c;
        channels->sum_step = step;
        channels->f = *f++;
        channels->zero = w->g->y_zero;
        channels->lo = w->g->act_min;
        channels->hi = w->g->act_max;
        st_requantize_prepare(channels);
    }
}

// One group at `positions` windows that lie one behind the other at x.
static void run_group(const st_work_t *w, st_lanes_job_t job, int32_t channel, int8_t *y) {
    int32_t sums[MOST_AT_ONCE * ST_LANES_MOST];
    st_requantize_t channels[ST_LANES_MOST];
    const int32_t n = st_min(ST_LANES_MOST, w->end - channel), all = job.positions;
    prepare_group(w, channel, n, sums, channels);
    job.pairs = (n + 1) / 2;
    y += channel;
    for (int32_t at = 0; at < all; at += MOST_AT_ONCE) {
        job.positions = st_min(MOST_AT_ONCE, all - at);
        st_lanes_run(&job, sums);
        for (int32_t i = 0; i < n; i++) {
            channels[i].count = job.positions;
            channels[i].y = y + i;
            st_requantize_run(channels + i);
        }
        job.x += job.positions * job.k;
        y += job.positions * w->g->out_c;
    }
}

// All packed channels.
static void run_groups(const st_work_t *w, const int8_t *x, int32_t positions, int8_t *y) {
    st_lanes_job_t job = {.x = x, .group = w->packed, .k = w->t.k, .positions = positions};
    for (int32_t c = w->first; c < w->end; c += ST_LANES_MOST) {
        run_group(w, job, c, y);
        job.group += st_lanes_words(ST_LANES_MOST, job.k);
    }
}

// A row of windows: where its taps lie in x, the bytes between two of their rows, and of a row.
typedef struct {
    st_taps_t ty;
    const int8_t *x;
    int32_t row_step, row;
} st_window_row_t;

static st_window_row_t window_row(const st_work_t *w, int32_t oy) {
    const st_conv_geometry_t *g = w->g;
    const st_taps_t ty = st_taps_h(g, oy);
    const int32_t row = g->in_w * g->in_c;
    return (st_window_row_t){ty, w->x + ty.first * row, g->dilation_h * row, g->kernel_w * g->in_c};
}

// The window whose first column is x's column ix, all of its columns within x.
static void gather_inside(const st_window_row_t *r, int32_t ix, int32_t in_c, int8_t *column) {
    const int8_t *from = r->x + ix * in_c;
    column += r->ty.begin * r->row;
    for (int32_t n = r->ty.end - r->ty.begin; n > 0; n--) {
        st_copy_bytes(column, from, r->row);
        from += r->row_step;
        column += r->row;
    }
}

// Any other: tap by tap.
static void gather_column_taps(const st_conv_geometry_t *g, const st_window_row_t *r, int32_t ox,
                               int8_t *column) {
    const st_taps_t tx = st_taps_w(g, ox);
    const int8_t *row = r->x + tx.first * g->in_c;
    for (int32_t ky = r->ty.begin; ky < r->ty.end; ky++, row += r->row_step) {
        const int8_t *from = row;
        for (int32_t kx = tx.begin; kx < tx.end; kx++, from += g->dilation_w * g->in_c)
            st_copy_bytes(column + ky * r->row + kx * g->in_c, from, g->in_c);
    }
}

// The window of one output, the zero point where it leaves the input.
static void gather_columns(const st_conv_geometry_t *g, const st_window_row_t *r, int32_t ox,
                           int8_t *column) {
    const int32_t ix = ox * g->stride_w - g->pad_w;
    const int inside = ix >= 0 && g->dilation_w == 1 && ix + g->kernel_w <= g->in_w;
    if (!inside || r->ty.end - r->ty.begin < g->kernel_h)
        st_fill_bytes(column, g->x_zero, g->kernel_h * r->row);
    if (inside)
        gather_inside(r, ix, g->in_c, column);
    else
        gather_column_taps(g, r, ox, column);
}

// The windows of outputs [at, at + n).
static void gather_all(const st_work_t *w, int32_t at, int32_t n, int8_t *columns) {
    int32_t oy = at ? at / w->g->out_w : 0, ox = at - oy * w->g->out_w;
    st_window_row_t row = window_row(w, oy);
    for (; n > 0; n--, columns += w->t.k) {
        gather_columns(w->g, &row, ox, columns);
        if (++ox == w->g->out_w) {
            ox = 0;
            row = window_row(w, ++oy);
        }
    }
}

// Whether the windows of all outputs lie in x as they are, one behind the other.
static int is_in_place(const st_conv_geometry_t *g, const int8_t *x) {
    const int pointwise = g->kernel_h == 1 && g->kernel_w == 1 && g->stride_h == 1 &&
                          g->stride_w == 1 && g->pad_w == 0 && g->out_w == g->in_w;
    const int inside = g->pad_h <= 0 && g->out_h - g->pad_h <= g->in_h;
    return pointwise && inside && g->in_c % 4 == 0 && !((uintptr_t)x & 3);
}

static void run_in_place(const st_work_t *w) {
    const st_conv_geometry_t *g = w->g;
    run_groups(w, w->x - g->pad_h * g->in_w * g->in_c, g->out_h * g->out_w, w->y);
}

/// In two parts (cores.h): weights are packed once, and windows gathered once ///

// Channels are packed, if they are not yet, and run where no windows are to be gathered.
static void run_channels(const st_work_t *w) {
    if (!w->kept)
        pack_weights(w);
    if (w->in_place)
        run_in_place(w);
}

static void channels_part(const void *job, st_part_t part) {
    const st_work_t *w = (const st_work_t *)job;
    if (part.end - part.begin == w->end - w->first) {
        run_channels(w);
        return;
    }
    st_work_t some = *w;
    some.packed += st_lanes_words(part.begin, w->t.k);
    some.first += part.begin;
    some.end = w->first + part.end;
    run_channels(&some);
}

// Some of the positions, with all packed channels.
static void windows_part(const void *job, st_part_t part) {
    const st_work_t *w = (const st_work_t *)job;
    int8_t *columns = w->columns + part.number * w->t.positions * w->t.k;
    for (int32_t at = part.begin; at < part.end; at += w->t.positions) {
        const int32_t n = st_min(w->t.positions, part.end - at);
        gather_all(w, at, n, columns);
        run_groups(w, columns, n, w->y + at * w->g->out_c);
    }
}

void conv2d_lanes_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                     st_scratch_t scratch, int8_t *y) {
    st_work_t w = {.g = g, .p = p, .t = tiling(g, scratch.words, 1), .x = x, .y = y};
    st_cores_t cores = p->cores;
    w.packed = scratch.data;
    w.in_place = is_in_place(g, x);
    if (st_is_split(cores) && !w.in_place) {
        if (scratch.words < w.t.k + 2 + 2 * w.t.k / 4) // one pair of channels, two windows
            cores = ST_ONE_CORE;
        else
            w.t = tiling(g, scratch.words, 2);
    }
    w.kept = scratch.kept && w.t.channels == g->out_c;
    w.columns = (int8_t *)(scratch.data + st_lanes_words(w.t.channels, w.t.k));
    for (; w.first < g->out_c; w.first = w.end) {
        w.end = st_min(g->out_c, w.first + w.t.channels);
        if (w.in_place || !w.kept)
            st_split(cores, channels_part, &w,
                     (st_units_t){w.end - w.first, w.in_place ? 2 : ST_LANES_MOST});
        if (!w.in_place)
            st_split(cores, windows_part, &w, (st_units_t){g->out_h * g->out_w, 1});
    }
}
