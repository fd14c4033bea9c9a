// Four channels at a time, or one: their inputs are widened to int16, two rows a word, zero points
// around them. So of a window's three rows two are one row of words, and the third is half of
// another, whether the window begins at a word's first row or at its second.
#include "depthwise_mac16.h"

#include "depthwise3x3.h"
#include "mac16.h"

#define TOGETHER 4
#define MORE 2 // words behind its last row that st_mac16_taps_t may read

typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    const int8_t *x;
    st_mac16_word_t *plane; // [channels, pairs, columns]
    int8_t *y;
    int32_t channels; // at a time
    int32_t rows;     // of outputs at a time
    int32_t pairs;    // of rows that these read
    int32_t columns;
    st_mac16_word_t beside; // a column of two rows beside the input
    st_mac16_word_t zeros;  // the same of a row, for four channels
} st_mac16_work_t;

// A channel; its weights for windows that begin at a word's first row, and at its second.
typedef struct {
    st_mac16_word_t first[5], second[5];
    st_mac16_taps_t taps;
} st_mac16_channel_t;

static int32_t columns_of(const st_conv_geometry_t *g) {
    return (g->out_w - 1) * g->stride_w + 3;
}

// That n rows of outputs read.
static int32_t pairs_of(const st_conv_geometry_t *g, int32_t n) {
    return ((n - 1) * g->stride_h + 4) / 2;
}

static int64_t scratch_of(const st_conv_geometry_t *g, int32_t channels) {
    return (int64_t)columns_of(g) * pairs_of(g, 1) * channels + MORE;
}

int64_t depthwise_mac16_scratch(const st_conv_geometry_t *g) {
    return depthwise3x3_suits(g) ? scratch_of(g, 1) : INT64_MAX;
}

// Rows of outputs at a time: as many as fit, in parts of one size.
static void cut(st_mac16_work_t *w, int32_t words) {
    const int32_t pairs = (words - MORE) / (w->columns * w->channels), out_h = w->g->out_h;
    const int32_t most = st_min(out_h, (2 * pairs - 3) / w->g->stride_h + 1);
    const int32_t parts = (out_h + most - 1) / most;
    w->rows = (out_h + parts - 1) / parts;
    w->pairs = pairs_of(w->g, w->rows);
}

/// Inputs ///

static st_mac16_word_t pair(int32_t low, int32_t high) {
    return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16;
}

// Of one channel.
ST_HOT static void widen_line(const st_mac16_lines_t *l) {
    const int8_t *first = l->first, *second = l->second;
    st_mac16_word_t *to = l->to;
    for (int32_t n = l->n; n > 0; n--, first += l->first_step, second += l->second_step)
        *to++ = pair(*first + 128, *second + 128);
}

static void fill(st_mac16_word_t *to, int32_t n, st_mac16_word_t value) {
    for (; n > 0; n--)
        *to++ = value;
}

static void widen_lines(const st_mac16_work_t *w, const st_mac16_lines_t *l) {
    if (w->channels == TOGETHER)
        st_mac16_widen_lines(l);
    else
        widen_line(l);
}

// Where one of the two rows is beside the input, or both. x: the channel's first input.
static void widen_at_edge(const st_mac16_work_t *w, const int8_t *x, int32_t iy,
                          const st_mac16_lines_t *inside) {
    const int32_t row = w->g->in_w * w->g->in_c;
    const int8_t *const zeros = (const int8_t *)&w->zeros;
    st_mac16_lines_t l = *inside;
    const int is_first = iy >= 0 && iy < w->g->in_h, is_second = iy >= -1 && iy + 1 < w->g->in_h;
    if (!is_first && !is_second) {
        for (int32_t c = 0; c < w->channels; c++, l.to += l.plane / 4)
            fill(l.to, l.n, w->beside);
        return;
    }
    l.first = is_first ? x + iy * row : zeros;
    l.first_step = is_first ? l.first_step : 0;
    l.second = is_second ? x + (iy + 1) * row : zeros;
    l.second_step = is_second ? l.second_step : 0;
    widen_lines(w, &l);
}

// What outputs from row oy on read.
static void widen(const st_mac16_work_t *w, int32_t oy, int32_t channel) {
    const st_conv_geometry_t *g = w->g;
    const int32_t row = g->in_w * g->in_c, in_h = g->in_h, columns = w->columns;
    const int8_t *x = w->x + channel;
    int32_t iy = oy * g->stride_h - g->pad_h;
    st_mac16_lines_t l = {.first_step = g->in_c, .second_step = g->in_c};
    l.flip = ST_MAC16_FLIP;
    l.mask = ST_MAC16_MASK;
    l.plane = 4 * w->pairs * columns;
    l.n = st_min(g->in_w, columns - g->pad_w);
    l.to = w->plane + g->pad_w;
    for (int32_t i = w->pairs; i > 0; i--, iy += 2, l.to += columns) {
        if (iy >= 0 && iy + 1 < in_h) {
            l.first = x + iy * row;
            l.second = l.first + row;
            widen_lines(w, &l);
        } else {
            widen_at_edge(w, x, iy, &l);
        }
    }
}

/// Outputs ///

// A row of the filter.
typedef struct {
    int32_t left, middle, right;
} st_taps_row_t;

static st_taps_row_t taps_row(const int8_t *weights, int32_t step) {
    return (st_taps_row_t){weights[0], weights[step], weights[2 * step]};
}

// In the order of st_mac16_taps_t: of both's two rows, and one's.
static void order(st_taps_row_t upper, st_taps_row_t lower, st_taps_row_t one,
                  st_mac16_word_t *to) {
    to[0] = pair(upper.left, lower.left);
    to[1] = pair(upper.middle, lower.middle);
    to[2] = pair(upper.right, lower.right);
    to[3] = pair(one.left, one.middle);
    to[4] = pair(one.right, 0);
}

static int32_t sum_of(st_taps_row_t row) {
    return row.left + row.middle + row.right;
}

// Returns the sum of the weights. is_odd: some windows begin at a word's second row.
static int32_t order_weights(const int8_t *weights, int32_t step, int is_odd,
                             st_mac16_channel_t *to) {
    const st_taps_row_t a = taps_row(weights, step), b = taps_row(weights + 3 * step, step);
    const st_taps_row_t c = taps_row(weights + 6 * step, step);
    order(a, b, c, to->first);
    if (is_odd)
        order(b, c, a, to->second);
    return sum_of(a) + sum_of(b) + sum_of(c);
}

// What all channels have in common.
static void begin(const st_mac16_work_t *w, st_mac16_taps_t *to) {
    const st_conv_geometry_t *g = w->g;
    const int is_odd = g->stride_h & 1;
    to->y_step = g->out_c;
    to->columns = g->out_w;
    to->next_x = 4 * w->columns * (is_odd ? g->stride_h : g->stride_h / 2);
    to->next_y = is_odd * g->out_w * g->out_c;
    st_mac16_begin(&to->out, g);
    to->out.lo = -128;
    to->out.hi = 127;
}

static void prepare(const st_mac16_work_t *w, int32_t c, st_mac16_channel_t *to) {
    const st_conv_geometry_t *g = w->g;
    const int32_t sum = order_weights(w->p->weights + c, g->out_c, g->stride_h & 1, to);
    const int32_t bias = w->p->bias[c] - (g->x_zero + 128) * sum;
    st_mac16_prepare(&to->taps.out, bias, w->p->requant[c]);
}

// Every second row of outputs begins at a word's second row.
static void run_odd(const st_mac16_work_t *w, st_mac16_channel_t *channel, int32_t n) {
    const st_conv_geometry_t *g = w->g;
    st_mac16_taps_t *t = &channel->taps;
    t->w = channel->second;
    t->one = t->both + g->stride_h / 2 * w->columns;
    t->both = t->one + w->columns;
    t->y += g->out_w * g->out_c;
    t->rows = n / 2;
    if (!t->rows)
        return;
    if (g->stride_w == 1)
        st_mac16_taps_1_upper(t);
    else
        st_mac16_taps_2_upper(t);
}

// n rows of outputs of a channel; x: its plane.
static void run(const st_mac16_work_t *w, st_mac16_channel_t *channel, const st_mac16_word_t *x,
                int32_t n, int8_t *y) {
    const int is_odd = w->g->stride_h & 1;
    st_mac16_taps_t *t = &channel->taps;
    t->w = channel->first;
    t->both = x;
    t->one = x + w->columns;
    t->y = y;
    t->rows = is_odd ? (n + 1) / 2 : n;
    if (w->g->stride_w == 1)
        st_mac16_taps_1_lower(t);
    else
        st_mac16_taps_2_lower(t);
    if (is_odd)
        run_odd(w, channel, n);
}

static void run_channels(const st_mac16_work_t *w, int32_t c, st_mac16_channel_t *channels) {
    const st_conv_geometry_t *g = w->g;
    const int32_t plane = w->pairs * w->columns, row = g->out_w * g->out_c;
    int8_t *y = w->y + c;
    for (int32_t i = 0; i < w->channels; i++)
        prepare(w, c + i, &channels[i]);
    for (int32_t oy = 0; oy < g->out_h; oy += w->rows, y += w->rows * row) {
        const int32_t n = st_min(w->rows, g->out_h - oy);
        widen(w, oy, c);
        const st_mac16_word_t *x = w->plane;
        for (int32_t i = 0; i < w->channels; i++, x += plane)
            run(w, &channels[i], x, n, y + i);
    }
}

static void clamp(const st_conv_geometry_t *g, int8_t *y) {
    if (g->act_min == -128 && g->act_max == 127)
        return;
    for (int32_t n = g->out_h * g->out_w * g->out_c; n > 0; n--, y++)
        *y = (int8_t)st_clamp(*y, g->act_min, g->act_max);
}

void depthwise_mac16_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                        st_scratch_t scratch, int8_t *y) {
    const int32_t beside = g->x_zero + 128;
    st_mac16_work_t w = {.g = g, .p = p, .x = x, .plane = (st_mac16_word_t *)scratch.data, .y = y};
    const int are_words = g->in_c % TOGETHER == 0 && !((uintptr_t)x & 3);
    w.channels = are_words && scratch.words >= scratch_of(g, TOGETHER) ? TOGETHER : 1;
    w.columns = columns_of(g);
    w.beside = pair(beside, beside);
    w.zeros = 0x01010101u * (uint8_t)g->x_zero;
    cut(&w, scratch.words);
    fill(w.plane, w.channels * w.pairs * w.columns, w.beside);
    st_mac16_channel_t channels[TOGETHER];
    for (int32_t i = 0; i < w.channels; i++)
        begin(&w, &channels[i].taps);
    for (int32_t c = 0; c < g->out_c; c += w.channels)
        run_channels(&w, c, channels);
    clamp(g, y);
}
