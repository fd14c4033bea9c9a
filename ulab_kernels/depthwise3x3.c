// One channel after the other, along the rows of its outputs. Each column of three inputs is loaded
// once and meets all columns of the filter that it meets for some output. Two of them share a
// multiplication as in lanes.h. Rows outside of the input are read from a row of zero points.
#include "depthwise3x3.h"

#include "arch.h"
#include "copy_bytes.h"
#include "depthwise_pairs.h"
#include "requantize.h"

#define MOST_ROWS 16 // of outputs of one channel that are made at a time

// The three input rows of a row of outputs: the address of the first, and how far the others are.
typedef struct {
    const int8_t *x;
    intptr_t second, third;
} st_three_rows_t;

// armv6m_depthwise.S reads this.
typedef struct {
    const st_three_rows_t *rows;
    int32_t n_rows;
    intptr_t channel, step; // bytes to this channel, from one column to the next, and so of weights
    int32_t *sums;
    const int8_t *weights; // of the channel
    int32_t x_zero;
    int32_t in_loop; // sums of a row that need no column of zero points on the right
    int32_t first_is_real, last_is_real; // stride 2: whether there is none on that side
    intptr_t span;                       // stride 1: bytes from a row's first column to its end
} st_depthwise_job_t;

int depthwise3x3_suits(const st_conv_geometry_t *g) {
    const int kind = g->kernel_h == 3 && g->kernel_w == 3 && g->dilation_h == 1 &&
                     g->dilation_w == 1 && g->out_c == g->in_c && g->w_zero == 0;
    const int one = g->stride_w == 1 && g->pad_w == 1 && g->out_w == g->in_w && g->in_w >= 2;
    const int32_t reach = 2 * g->out_w - g->pad_w; // the last output's right column
    const int two = g->stride_w == 2 && (g->pad_w == 0 || g->pad_w == 1) &&
                    (g->in_w == reach || g->in_w == reach + 1);
    return kind && (one || two);
}

// Of the row of zero points.
static int64_t zeros_words(const st_conv_geometry_t *g) {
    return ((int64_t)g->in_w * g->in_c + 3) / 4;
}

int64_t depthwise3x3_scratch(const st_conv_geometry_t *g) {
    return zeros_words(g) + g->out_w;
}

#if ST_ARMV6M

// armv6m_depthwise.S. The sum of the weights.
int32_t st_depthwise_stride_1(const st_depthwise_job_t *job);
int32_t st_depthwise_stride_2(const st_depthwise_job_t *job);

#else

// The same in C, one product after the other.
static int32_t column_of_zeros(const st_depthwise_job_t *job, int32_t kx) {
    const int8_t *w = job->weights + kx * job->step;
    return job->x_zero * (w[0] + w[3 * job->step] + w[6 * job->step]);
}

static int32_t column_sum(const st_depthwise_job_t *job, int32_t row, int32_t at, int32_t kx) {
    const st_three_rows_t *rows = job->rows + row;
    const int8_t *x = rows->x + job->channel + at * job->step;
    const int8_t *w = job->weights + kx * job->step;
    return x[0] * w[0] + x[rows->second] * w[3 * job->step] + x[rows->third] * w[6 * job->step];
}

static int32_t sum_of_weights(const st_depthwise_job_t *job) {
    int32_t sum = 0;
    for (int i = 0; i < 9; i++)
        sum += job->weights[i * job->step];
    return sum;
}

static int32_t st_depthwise_stride_1(const st_depthwise_job_t *job) {
    int32_t *sums = job->sums;
    for (int32_t row = 0; row < job->n_rows; row++) {
        int32_t left = column_of_zeros(job, 0);
        for (int32_t at = 0; at <= job->in_loop; at++) {
            const int is_last = at == job->in_loop;
            const int32_t middle = column_sum(job, row, at, 1);
            *sums++ = left + middle +
                      (is_last ? column_of_zeros(job, 2) : column_sum(job, row, at + 1, 2));
            left = column_sum(job, row, at, 0);
        }
    }
    return sum_of_weights(job);
}

static int32_t st_depthwise_stride_2(const st_depthwise_job_t *job) {
    int32_t *sums = job->sums;
    for (int32_t row = 0; row < job->n_rows; row++) {
        int32_t at = 0;
        int32_t own = job->first_is_real ? column_sum(job, row, at++, 0) : column_of_zeros(job, 0);
        for (int32_t i = 0; i < job->in_loop; i++, at += 2) {
            *sums++ = own + column_sum(job, row, at, 1) + column_sum(job, row, at + 1, 2);
            own = column_sum(job, row, at + 1, 0);
        }
        if (!job->last_is_real)
            *sums++ = own + column_sum(job, row, at, 1) + column_of_zeros(job, 2);
    }
    return sum_of_weights(job);
}

#endif

// A row of the input; `zeros`, a row of zero points, where there is none.
static const int8_t *row_at(const st_conv_geometry_t *g, const int8_t *x, const int8_t *zeros,
                            int32_t iy) {
    return iy < 0 || iy >= g->in_h ? zeros : x + iy * g->in_w * g->in_c;
}

// The rows that outputs [oy, oy + n) read.
static void find_rows(const st_conv_geometry_t *g, const int8_t *x, const int8_t *zeros, int32_t oy,
                      int32_t n, st_three_rows_t *rows) {
    for (; n > 0; n--, oy++, rows++) {
        const int32_t iy = oy * g->stride_h - g->pad_h;
        const int8_t *first = row_at(g, x, zeros, iy);
        *rows = (st_three_rows_t){first, row_at(g, x, zeros, iy + 1) - first,
                                  row_at(g, x, zeros, iy + 2) - first};
    }
}

typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    const int8_t *x, *zeros;
    int32_t *scratch; // behind the zeros; of each part `words`
    int32_t words;
    int8_t *y;
} st_depthwise_work_t;

static int32_t *scratch_of(const st_depthwise_work_t *w, st_part_t part) {
    return w->scratch + part.number * w->words;
}

// Rows of outputs that are made at a time, one by one.
typedef struct {
    int8_t *y;
    st_depthwise_job_t job;
    st_requantize_t put;
    st_three_rows_t rows[MOST_ROWS];
} st_rows_strip_t;

// Of outputs [oy, oy + n).
static void begin_rows(const st_depthwise_work_t *w, int32_t oy, int32_t n, int32_t *sums,
                       st_rows_strip_t *s) {
    const st_conv_geometry_t *g = w->g;
    const int32_t last_is_real = g->stride_w == 2 && g->in_w == 2 * g->out_w - g->pad_w + 1;
    find_rows(g, w->x, w->zeros, oy, n, s->rows);
    s->job = (st_depthwise_job_t){.rows = s->rows,
                                  .n_rows = n,
                                  .step = g->in_c,
                                  .sums = sums,
                                  .x_zero = g->x_zero,
                                  .in_loop = g->out_w - !last_is_real,
                                  .first_is_real = g->pad_w == 0,
                                  .last_is_real = last_is_real,
                                  .span = (intptr_t)g->in_w * g->in_c};
    s->put = (st_requantize_t){.sums = sums,
                               .count = n * g->out_w,
                               .y_step = g->out_c,
                               .zero = g->y_zero,
                               .lo = g->act_min,
                               .hi = g->act_max};
    s->y = w->y + oy * g->out_w * g->out_c;
}

static void run_rows(const st_depthwise_work_t *w, int32_t channel, st_rows_strip_t *s) {
    const st_conv_geometry_t *g = w->g;
    s->job.channel = channel;
    s->job.weights = w->p->weights + channel;
    const int32_t sum =
        g->stride_w == 2 ? st_depthwise_stride_2(&s->job) : st_depthwise_stride_1(&s->job);
    s->put.y = s->y + channel;
    s->put.bias = w->p->bias[channel] - g->x_zero * sum;
    s->put.f = w->p->requant[channel];
    st_requantize_prepare(&s->put);
    st_requantize_row(&s->put);
}

// Channels [part.begin, part.end), row by row.
static void rows_part(const void *work, st_part_t part) {
    const st_depthwise_work_t *w = (const st_depthwise_work_t *)work;
    const int32_t most = st_min(MOST_ROWS, w->words / w->g->out_w);
    st_rows_strip_t s;
    for (int32_t oy = 0; oy < w->g->out_h; oy += most) {
        begin_rows(w, oy, st_min(most, w->g->out_h - oy), scratch_of(w, part), &s);
        for (int32_t c = part.begin; c < part.end; c++)
            run_rows(w, c, &s);
    }
}

// Of lower outputs [oy, oy + s->n).
static void begin_pair_rows(const st_depthwise_work_t *w, int32_t oy, st_pair_strip_t *s) {
    const st_conv_geometry_t *g = w->g;
    for (int32_t i = 0; i < s->n + 2; i++) {
        const int32_t iy = oy - g->pad_h + i;
        s->rows[i].low = row_at(g, w->x, w->zeros, iy);
        s->rows[i].high = row_at(g, w->x, w->zeros, iy + g->out_h / 2) - s->rows[i].low;
    }
    s->y = w->y + oy * g->out_w * g->out_c;
    st_pair_strip_begin(g, s);
}

// Channels [part.begin, part.end), two outputs in a word where that can be.
static void pairs_part(const void *work, st_part_t part) {
    const st_depthwise_work_t *w = (const st_depthwise_work_t *)work;
    const int32_t all = (w->g->out_h + 1) / 2;
    st_pair_strip_t s;
    s.packed = (uint32_t *)scratch_of(w, part);
    const int32_t most = st_min(ST_MOST_PAIR_ROWS, (w->words / w->g->out_w - 2) / 3);
    for (int32_t oy = 0; oy < all; oy += most) {
        s.n = st_min(most, all - oy);
        begin_pair_rows(w, oy, &s);
        for (int32_t c = part.begin; c < part.end; c++)
            st_depthwise_channel_pairs(w->g, w->p, &s, c);
    }
}

void depthwise3x3_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                     st_scratch_t scratch, int8_t *y) {
    int8_t *zeros = (int8_t *)scratch.data;
    const int32_t words = scratch.words - (int32_t)zeros_words(g);
    const int in_pairs = st_can_pair(g) && words >= st_pairs_words(1, g->out_w);
    const int32_t least = in_pairs ? st_pairs_words(1, g->out_w) : g->out_w;
    st_depthwise_work_t w = {g, p, x, zeros, scratch.data + zeros_words(g), words, y};
    const st_cores_t cores = words >= 2 * least ? p->cores : ST_ONE_CORE;
    if (cores != ST_ONE_CORE)
        w.words /= 2;
    st_fill_bytes(zeros, g->x_zero, g->in_w * g->in_c);
    st_split(cores, in_pairs ? pairs_part : rows_part, &w, (st_units_t){g->out_c, 2});
}
