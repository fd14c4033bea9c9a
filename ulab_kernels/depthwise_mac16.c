// Four channels at a time, or one: their inputs are widened to int16, a channel's columns each one
// behind the other, zero points around them. So a column's three taps are two words, and weights
// are made ready for both ways how three taps lie in these.
#include "depthwise_mac16.h"

#include "depthwise3x3.h"
#include "mac16.h"

#define TOGETHER 4

// Rows of outputs [oy, oy + n), and what they read.
typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    const int8_t *x;
    int16_t *plane; // [columns, channels, rows]; row 0: input row `top`
    int8_t *y;
    int32_t channels; // at a time
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

static int32_t rows_that_fit(const st_mac16_strip_t *s, int32_t words) {
    const st_conv_geometry_t *g = s->g;
    const int32_t most = words / (s->columns * s->channels) * 2; // of inputs
    return st_min(g->out_h, g->stride_h == 1 ? most - 2 : (most - 3) / g->stride_h + 1);
}

static void begin_strip(st_mac16_strip_t *s, int32_t oy, int32_t n) {
    s->oy = oy;
    s->n = n;
    s->rows = rows_of(s->g, n);
    s->top = oy * s->g->stride_h - s->g->pad_h;
    for (int32_t i = 0; i < s->columns * s->channels * s->rows; i++)
        s->plane[i] = (int16_t)(s->g->x_zero + 128);
}

// A row of the input to the plane: columns that lie in_c apart.
typedef struct {
    const int8_t *x;
    int16_t *to;
    int32_t n, in_c;
    int32_t rows; // of the plane
} st_mac16_line_t;

ST_HOT static void widen_line(const st_mac16_line_t *line) {
    const int8_t *x = line->x;
    const int32_t in_c = line->in_c, rows = line->rows;
    int16_t *to = line->to;
    for (int32_t n = line->n; n > 0; n--, x += in_c, to += rows)
        *to = (int16_t)(*x + 128);
}

// Of four channels, which are a word.
ST_HOT static void widen_four_lines(const st_mac16_line_t *line) {
    const int8_t *x = line->x;
    const int32_t in_c = line->in_c, rows = line->rows;
    int16_t *to = line->to, *second = to + rows, *third = second + rows, *fourth = third + rows;
    const int32_t column = 4 * rows;
    for (int32_t n = line->n; n > 0; n--, x += in_c) {
        const uint32_t four = *(const st_mac16_word_t *)(const void *)x ^ 0x80808080u;
        *to = (int16_t)(four & 255);
        *second = (int16_t)(four >> 8 & 255);
        *third = (int16_t)(four >> 16 & 255);
        *fourth = (int16_t)(four >> 24);
        to += column;
        second += column;
        third += column;
        fourth += column;
    }
}

static void widen(const st_mac16_strip_t *s, int32_t channel) {
    const st_conv_geometry_t *g = s->g;
    const int32_t begin = st_max(0, s->top), end = st_min(g->in_h, s->top + s->rows);
    const int32_t row = g->in_w * g->in_c;
    st_mac16_line_t line = {.in_c = g->in_c, .rows = s->rows};
    line.n = st_min(g->in_w, s->columns - g->pad_w);
    line.x = s->x + begin * row + channel;
    line.to = s->plane + g->pad_w * s->channels * s->rows + begin - s->top;
    for (int32_t iy = begin; iy < end; iy++, line.x += row, line.to++) {
        if (s->channels == TOGETHER)
            widen_four_lines(&line);
        else
            widen_line(&line);
    }
}

// Of a channel: 3 columns of two words, for taps that begin with a word's lower half (even), and
// its upper.
typedef struct {
    st_mac16_word_t even[6], odd[6];
} st_mac16_weights_t;

static st_mac16_word_t pair(int32_t low, int32_t high) {
    return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16;
}

// Returns the sum of the weights.
static int32_t order_weights(const int8_t *weights, int32_t step, st_mac16_weights_t *to) {
    int32_t sum = 0;
    for (int32_t at = 0; at < 6; at += 2, weights += step) {
        const int32_t a = weights[0], b = weights[3 * step], c = weights[6 * step];
        to->even[at] = pair(a, b);
        to->even[at + 1] = pair(c, 0);
        to->odd[at] = pair(0, a);
        to->odd[at + 1] = pair(b, c);
        sum += a + b + c;
    }
    return sum;
}

// Rows first, first + step ... of the strip, whose taps lie alike.
static void run_rows(const st_mac16_strip_t *s, st_mac16_job_t *job, int32_t first, int32_t step) {
    const int32_t row = s->g->out_w * s->g->out_c;
    const int16_t *x = job->x;
    int8_t *y = job->y;
    job->rows = step == 1 ? s->n : (s->n + 1 - first) >> 1;
    if (!job->rows)
        return;
    job->next_x = 2 * step * s->g->stride_h;
    job->next_y = step == 1 ? 0 : row;
    if (first) {
        job->x += s->g->stride_h & ~1;
        job->y += row;
    }
    job->end = job->y + row;
    st_mac16_taps(job);
    job->x = x;
    job->y = y;
}

static void run_channel(const st_mac16_strip_t *s, int32_t c, st_mac16_weights_t *ordered,
                        st_mac16_job_t *job) {
    const st_conv_geometry_t *g = s->g;
    const int both = g->stride_h & 1;
    const int32_t sum = order_weights(s->p->weights + c, g->out_c, ordered);
    st_mac16_prepare(job, s->p->bias[c] - (g->x_zero + 128) * sum, s->p->requant[c]);
    job->w = (const int16_t *)ordered->even;
    run_rows(s, job, 0, 1 + both);
    job->w = (const int16_t *)ordered->odd;
    if (both)
        run_rows(s, job, 1, 2);
}

static void run_strip(const st_mac16_strip_t *s) {
    const int32_t column = 2 * s->channels * s->rows;
    st_mac16_weights_t ordered;
    st_mac16_job_t job;
    st_mac16_begin(&job, s->g);
    job.y = s->y + s->oy * s->g->out_w * s->g->out_c;
    job.column = column - 8;
    job.next_window = (s->g->stride_w - 2) * column - 8;
    for (int32_t c = 0; c < s->g->out_c; c += s->channels) {
        widen(s, c);
        job.x = s->plane;
        for (int32_t i = 0; i < s->channels; i++, job.x += s->rows, job.y++)
            run_channel(s, c + i, &ordered, &job);
    }
}

void depthwise_mac16_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                        st_scratch_t scratch, int8_t *y) {
    st_mac16_strip_t s = {.g = g, .p = p, .x = x, .plane = (int16_t *)scratch.data, .y = y};
    s.columns = columns_of(g);
    const int are_words = g->in_c % TOGETHER == 0 && !((uintptr_t)x & 3);
    const int have_room = scratch.words >= TOGETHER * depthwise_mac16_scratch(g);
    s.channels = are_words && have_room ? TOGETHER : 1;
    const int32_t most = rows_that_fit(&s, scratch.words);
    for (int32_t oy = 0; oy < g->out_h; oy += most) {
        begin_strip(&s, oy, st_min(most, g->out_h - oy));
        run_strip(&s);
    }
}
