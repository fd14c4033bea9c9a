#include "mac16.h"

void st_mac16_begin(st_mac16_job_t *job, const st_conv_geometry_t *g) {
    job->lo = g->act_min;
    job->hi = g->act_max;
    job->zero = g->y_zero;
    job->exactly = st_requantize_exactly;
    job->y_step = g->out_c;
}

// TFLite rounds twice: h = round(P), P = sum * multiplier / 2^31; then h / 2^right, ties away from
// zero. q = floor(P / 2) leaves three h: 2q to 2q + 2. An output has R = 2^(right - 1) of q, and of
// the R rests of q + R / 2 two may give another output: R - 1 with h = 2q + 2; 0 where h is a tie
// below zero. Less 1 these are the two uppermost.
#if ST_MULSH

#define LEAST 4 // shifts to the right below it, or above, go the exact way
#define MOST 22

void st_mac16_prepare(st_mac16_job_t *job, int32_t bias, st_requant_t f) {
    const int32_t right = -f.shift, bits = right - 1;
    job->bias = bias;
    job->f = f;
    job->multiplier = f.multiplier;
    job->drop = 1;
    job->round = 0;
    job->doubt = 0;
    if (right < LEAST || right > MOST)
        return;
    job->drop = bits;
    job->round = job->zero * (1 << bits) + (1 << (bits - 1)) - 1;
    job->doubt = 0u - (2u << (32 - bits));
}

#else

void st_mac16_prepare(st_mac16_job_t *job, int32_t bias, st_requant_t f) {
    const st_reduced_t r = st_reduce_if_possible(f, job->zero);
    job->bias = bias;
    job->f = f;
    job->multiplier = r.multiplier;
    job->drop = r.drop;
    job->limit = r.limit >> 31 ? UINT32_MAX : r.limit;
    job->round = r.round;
    job->doubt = r.doubt;
}

#endif

ST_HOT void st_mac16_widen(const int8_t *x, int32_t n, int16_t *to) {
    for (; n > 0; n--)
        *to++ = (int16_t)(*x++ + 128);
}

ST_HOT void st_mac16_widen_fours(const int8_t *x, int32_t n, int16_t *to) {
    const st_mac16_word_t *from = (const st_mac16_word_t *)(const void *)x;
    st_mac16_word_t *pairs = (st_mac16_word_t *)(void *)to;
    for (n /= 4; n > 0; n--, pairs += 2) {
        const uint32_t four = *from++ ^ 0x80808080u;
        pairs[0] = four & 0xff00ffu;
        pairs[1] = four >> 8 & 0xff00ffu;
    }
}

#if !ST_XTENSA_MAC16

// The same in C: what the assembly is, and what Cortex-M4 and M33 use.
static int8_t output(const st_mac16_job_t *job, int32_t sum) {
    const int32_t upper = (int32_t)((int64_t)sum * job->multiplier >> 32) + job->round;
    int32_t v = upper >> job->drop;
    if ((uint32_t)upper << (32 - job->drop) >= job->doubt)
        v = job->exactly(sum, job->f) + job->zero;
    return (int8_t)st_clamp(v, job->lo, job->hi);
}

static const st_mac16_word_t *words(const int16_t *x) {
    return (const st_mac16_word_t *)(const void *)x;
}

ST_HOT void st_mac16_windows(const st_mac16_job_t *job) {
    const st_mac16_word_t *x = words(job->x);
    for (int8_t *y = job->y; y != job->end; y += job->y_step) {
        const st_mac16_word_t *w = words(job->w);
        int32_t sum = job->bias;
        for (int32_t n = job->fours; n >= 0; n--, x += 2, w += 2)
            sum = st_mac16_add_two(st_mac16_add_two(sum, x[0], w[0]), x[1], w[1]);
        *y = output(job, sum);
    }
}

ST_HOT void st_mac16_taps(const st_mac16_job_t *job) {
    const st_mac16_word_t *w = words(job->w);
    const int32_t span = (int32_t)(job->end - job->y), column = 2 + job->column / 4;
    const int32_t next = 2 * column + 2 + job->next_window / 4;
    int8_t *y = job->y;
    for (int32_t row = 0; row < job->rows; row++, y += job->next_y) {
        const st_mac16_word_t *x = words(job->x) + row * (job->next_x / 4);
        for (const int8_t *end = y + span; y != end; y += job->y_step, x += next) {
            const st_mac16_word_t *second = x + column, *third = second + column;
            int32_t sum = st_mac16_add_two(st_mac16_add_two(job->bias, x[0], w[0]), x[1], w[1]);
            sum = st_mac16_add_two(st_mac16_add_two(sum, second[0], w[2]), second[1], w[3]);
            sum = st_mac16_add_two(st_mac16_add_two(sum, third[0], w[4]), third[1], w[5]);
            *y = output(job, sum);
        }
    }
}

#endif
