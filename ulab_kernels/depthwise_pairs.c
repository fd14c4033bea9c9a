#include "depthwise_pairs.h"

#include "arch.h"

#define BOTH 0x10001u // times it, a number stands in both halves

// Of a channel's weights: the sums of two columns, of all, of all magnitudes. largest: such that
// sums of inputs that are at most that above -128 differ by less than 2^16.
typedef struct {
    int32_t left, right, largest, sum, size;
} st_weight_sums_t;

static int32_t magnitude_of(int32_t v) {
    return v < 0 ? -v : v;
}

#if ST_ARMV6M

// armv6m_depthwise_pairs.S.
void st_load_filter(const int8_t *w, int32_t out_c, int32_t *weights, st_weight_sums_t *f);
uint32_t st_depthwise_pack(const st_pack_job_t *job);
void st_depthwise_pairs(const st_pairs_job_t *job);
// The same, parted: of each word the upper half's sum, then the lower half's. `first` and `last`
// are of one half. parted_twice: for any weights; else no column has more than 255.
void st_depthwise_parted(const st_pairs_job_t *job);
void st_depthwise_parted_twice(const st_pairs_job_t *job);

#else

// w: the filter's first weight; the others are out_c bytes apart. weights: as in st_pairs_job_t.
static void st_load_filter(const int8_t *w, int32_t out_c, int32_t *weights, st_weight_sums_t *f) {
    *f = (st_weight_sums_t){0};
    for (int32_t *row = weights; row < weights + 3; row++) {
        for (int32_t kx = 6; kx >= 0; kx -= 3, w += out_c) {
            row[kx] = *w;
            f->sum += *w;
            f->size += magnitude_of(*w);
        }
        f->left += row[6];
        f->right += row[0];
    }
    for (int32_t bit = 128; bit; bit >>= 1)
        if (f->size * (f->largest + bit) <= 0xffff)
            f->largest += bit;
}

static uint32_t st_depthwise_pack(const st_pack_job_t *job) {
    uint32_t seen = 0;
    for (int32_t row = 0; row < job->n_rows; row++) {
        const int8_t *x = job->rows[row].low + job->channel, *end = x + job->length;
        uint32_t *packed = job->packed + row;
        for (; x != end; x += job->step, packed += job->record / 4) {
            *packed = (uint32_t)*x + ((uint32_t)x[job->rows[row].high] << 16);
            seen |= *packed + job->test;
        }
    }
    return seen;
}

static uint32_t column(const uint32_t *packed, const int32_t *weights) {
    return packed[0] * (uint32_t)weights[0] + packed[1] * (uint32_t)weights[1] +
           packed[2] * (uint32_t)weights[2];
}

static void st_depthwise_pairs(const st_pairs_job_t *job) {
    const int32_t record = job->record / 4;
    uint32_t *sums = job->sums;
    for (int32_t row = 0; row < job->n_rows; row++) {
        const uint32_t *packed = job->packed + row;
        for (int32_t at = 0; at <= job->more; at++, packed += record) {
            const uint32_t left = at ? column(packed - record, job->weights + 6) : job->first;
            const int is_last = at == job->more;
            const uint32_t right = is_last ? job->last : column(packed + record, job->weights);
            *sums++ = left + column(packed, job->weights + 3) + right;
        }
    }
}

// The sum of one column, of the upper halves or the lower ones.
static uint32_t column_of_half(const uint32_t *packed, const int32_t *weights, int upper) {
    uint32_t halves[3];
    for (int i = 0; i < 3; i++) {
        const uint32_t low = (uint32_t)(int16_t)packed[i];
        halves[i] = upper ? (uint32_t)((int32_t)(packed[i] - low) >> 16) : low;
    }
    return column(halves, weights);
}

static void st_depthwise_parted(const st_pairs_job_t *job) {
    const int32_t record = job->record / 4;
    uint32_t *sums = job->sums;
    for (int32_t i = 0; i < job->n_rows * (job->more + 1); i++) {
        const int32_t at = i % (job->more + 1);
        const uint32_t *packed = job->packed + i / (job->more + 1) + at * record;
        for (int upper = 1; upper >= 0; upper--) {
            uint32_t sum = column_of_half(packed, job->weights + 3, upper);
            sum +=
                at ? column_of_half(packed - record, job->weights + 6, upper) + (uint32_t)job->bias
                   : job->first;
            sum +=
                at == job->more ? job->last : column_of_half(packed + record, job->weights, upper);
            *sums++ = sum;
        }
    }
}

#endif

static int pack(st_pair_strip_t *s, int32_t channel, int32_t largest) {
    s->pack.channel = channel;
    s->pack.test = (uint32_t)(128 + 255 - largest) * BOTH;
    return !(st_depthwise_pack(&s->pack) & 0x100 * BOTH);
}

void st_pair_strip_begin(const st_conv_geometry_t *g, st_pair_strip_t *s) {
    const int32_t n_rows = s->n + 2, record = 4 * n_rows, columns = g->out_w;
    uint32_t *sums = s->packed + columns * n_rows;
    s->pack = (st_pack_job_t){.rows = s->rows,
                              .n_rows = n_rows,
                              .step = g->in_c,
                              .length = columns * g->in_c,
                              .record = record,
                              .packed = s->packed,
                              .odd = columns & 1};
    s->pairs = (st_pairs_job_t){.packed = s->packed,
                                .sums = sums,
                                .n_rows = s->n,
                                .record = record,
                                .length = columns * record,
                                .more = columns - 1};
    s->put = (st_requantize_pairs_t){.words = sums,
                                     .count = s->n * columns,
                                     .other = g->out_h / 2 * columns * g->out_c,
                                     .y_step = g->out_c};
}

// Both sums of a word are in it.
static void run_together(st_pair_strip_t *s, const st_weight_sums_t *f) {
    s->pairs.first *= BOTH;
    s->pairs.last *= BOTH;
    st_depthwise_pairs(&s->pairs);
    s->put.low = -f->largest * ((f->size - f->sum) / 2) - 128 * f->sum;
    s->put.width = f->largest * f->size;
    st_requantize_pairs(&s->put);
}

// The sums are parted, and take two words.
static void run_parted(st_pair_strip_t *s) {
    st_requantize_t put = {.sums = (const int32_t *)s->pairs.sums + 1,
                           .y = s->put.y,
                           .count = s->put.count,
                           .y_step = s->put.y_step,
                           .sum_step = 8,
                           .f = s->put.f,
                           .zero = -128,
                           .lo = -128,
                           .hi = 127};
    s->pairs.bias = s->put.bias;
    s->pairs.first += (uint32_t)s->put.bias;
    st_depthwise_parted(&s->pairs);
    st_requantize_prepare(&put);
    st_requantize_run(&put);
    put.sums--;
    put.y += s->put.other;
    st_requantize_run(&put);
}

void st_depthwise_channel_pairs(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                st_pair_strip_t *s, int32_t channel) {
    st_weight_sums_t f;
    st_load_filter(p->weights + channel, g->out_c, s->pairs.weights, &f);
    const int32_t bias = p->bias[channel];
    s->pairs.first = (uint32_t)(g->x_zero * f.left);
    s->pairs.last = (uint32_t)(g->x_zero * f.right);
    s->put.y = s->y + channel;
    s->put.bias = bias - g->x_zero * f.sum;
    s->put.f = p->requant[channel];
    if (pack(s, channel, f.largest) && g->x_zero + 128 <= f.largest &&
        st_can_requantize_pairs(s->put.f) && !(magnitude_of(bias) >> 28))
        run_together(s, &f);
    else
        run_parted(s);
}
