#include "mac16.h"

#include <stddef.h>

void st_mac16_begin(st_mac16_output_t *out, const st_conv_geometry_t *g) {
    out->lo = g->act_min;
    out->hi = g->act_max;
    out->zero = g->y_zero;
    out->exactly = st_requantize_exactly;
}

// TFLite rounds twice: h = round(P), P = sum * multiplier / 2^31; then h / 2^right, ties away from
// zero. q = floor(P / 2) leaves three h: 2q to 2q + 2. An output has R = 2^(right - 1) of q, and of
// the R rests of q + R / 2 two may give another output: R - 1 with h = 2q + 2; 0 where h is a tie
// below zero. Less 1 these are the two uppermost:
// all bits but the lowest are set.
#if ST_MULSH

#define LEAST 4 // shifts to the right below it, or above, go the exact way
#define MOST 22

void st_mac16_prepare(st_mac16_output_t *out, int32_t bias, st_requant_t f) {
    const int32_t right = -f.shift, bits = right - 1;
    out->bias = bias;
    out->f = f;
    out->multiplier = f.multiplier;
    out->drop = 1;
    out->round = 0;
    out->doubt = 0;
    if (right < LEAST || right > MOST)
        return;
    out->drop = bits;
    out->round = out->zero * (1 << bits) + (1 << (bits - 1)) - 1;
    out->doubt = (1u << bits) - 2;
}

#else

void st_mac16_prepare(st_mac16_output_t *out, int32_t bias, st_requant_t f) {
    const st_reduced_t r = st_reduce_if_possible(f, out->zero);
    out->bias = bias;
    out->f = f;
    out->multiplier = r.multiplier;
    out->drop = r.drop;
    out->limit = r.limit >> 31 ? UINT32_MAX : r.limit;
    out->round = r.round;
    out->doubt = r.doubt;
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
        const uint32_t four = *from++ ^ ST_MAC16_FLIP;
        pairs[0] = four & ST_MAC16_MASK;
        pairs[1] = four >> 8 & ST_MAC16_MASK;
    }
}

#if ST_XTENSA_MAC16

// xtensa_mac16.S has these numbers, too.
typedef char st_mac16_lines_is_as_there[offsetof(st_mac16_lines_t, plane) == 24 ? 1 : -1];
typedef char st_mac16_job_is_as_there[offsetof(st_mac16_job_t, out) == 24 ? 1 : -1];
typedef char st_mac16_taps_is_as_there[offsetof(st_mac16_taps_t, out) == 36 ? 1 : -1];
typedef char st_mac16_output_is_as_there[offsetof(st_mac16_output_t, exactly) == 44 ? 1 : -1];

#else

// The same in C: what the assembly is, and what Cortex-M4 and M33 use.
static int8_t output(const st_mac16_output_t *out, int32_t sum) {
    const int32_t upper = (int32_t)((int64_t)sum * out->multiplier >> 32) + out->round;
    int32_t v = upper >> out->drop;
    if (((uint32_t)upper & out->doubt) == out->doubt)
        v = out->exactly(sum, out->f) + out->zero;
    return (int8_t)st_clamp(v, out->lo, out->hi);
}

static const st_mac16_word_t *words(const void *x) {
    return (const st_mac16_word_t *)x;
}

ST_HOT void st_mac16_windows(const st_mac16_job_t *job) {
    const st_mac16_word_t *x = words(job->x);
    for (int8_t *y = job->y; y != job->end; y += job->y_step) {
        const st_mac16_word_t *w = words(job->w);
        int32_t sum = job->out.bias;
        for (int32_t n = job->fours; n >= 0; n--, x += 2, w += 2)
            sum = st_mac16_add_two(st_mac16_add_two(sum, x[0], w[0]), x[1], w[1]);
        *y = output(&job->out, sum);
    }
}

ST_HOT int32_t st_mac16_dot(const int16_t *x, const int8_t *w, int32_t n) {
    const st_mac16_word_t *pairs = words(x), *from = words(w);
    int32_t sum = 0;
    for (n /= 4; n > 0; n--, pairs += 2) {
        const uint32_t four = *from++ ^ ST_MAC16_FLIP;
        sum = st_mac16_add_two(sum, pairs[0], four & ST_MAC16_MASK);
        sum = st_mac16_add_two(sum, pairs[1], four >> 8 & ST_MAC16_MASK);
    }
    return sum;
}

ST_HOT void st_mac16_widen_lines(const st_mac16_lines_t *l) {
    const int32_t plane = l->plane / 4, first_step = l->first_step, second_step = l->second_step;
    const int8_t *first = l->first, *second = l->second;
    st_mac16_word_t *to = l->to;
    for (int32_t n = l->n; n > 0; n--, to++, first += first_step, second += second_step) {
        const uint32_t a = *words(first), b = *words(second);
        const uint32_t low = ((a & 0xffffu) | b << 16) ^ ST_MAC16_FLIP;
        const uint32_t high = (a >> 16 | (b & 0xffff0000u)) ^ ST_MAC16_FLIP;
        to[0] = low & ST_MAC16_MASK;
        to[plane] = low >> 8 & ST_MAC16_MASK;
        to[2 * plane] = high & ST_MAC16_MASK;
        to[3 * plane] = high >> 8 & ST_MAC16_MASK;
    }
}

// Of one's word the half that is meant, as a lower half.
static st_mac16_word_t half_of(st_mac16_word_t word, int is_upper) {
    return is_upper ? word >> 16 : word & 0xffffu;
}

static int32_t window(const st_mac16_taps_t *job, const st_mac16_word_t *both,
                      const st_mac16_word_t *one, int is_upper) {
    const st_mac16_word_t *w = job->w;
    int32_t sum = st_mac16_add_two(job->out.bias, both[0], w[0]);
    sum = st_mac16_add_two(st_mac16_add_two(sum, both[1], w[1]), both[2], w[2]);
    const st_mac16_word_t left = half_of(one[0], is_upper), right = half_of(one[2], is_upper);
    const st_mac16_word_t middle = half_of(one[1], is_upper);
    return st_mac16_add_two(st_mac16_add_two(sum, left | middle << 16, w[3]), right, w[4]);
}

static void taps(const st_mac16_taps_t *job, int32_t stride, int is_upper) {
    int8_t *y = job->y;
    for (int32_t row = 0; row < job->rows; row++, y += job->next_y) {
        const st_mac16_word_t *both = job->both + row * (job->next_x / 4);
        const st_mac16_word_t *one = job->one + row * (job->next_x / 4);
        for (int32_t n = job->columns; n > 0; n--, y += job->y_step, both += stride, one += stride)
            *y = output(&job->out, window(job, both, one, is_upper));
    }
}

void st_mac16_taps_1_lower(const st_mac16_taps_t *job) {
    taps(job, 1, 0);
}

void st_mac16_taps_1_upper(const st_mac16_taps_t *job) {
    taps(job, 1, 1);
}

void st_mac16_taps_2_lower(const st_mac16_taps_t *job) {
    taps(job, 2, 0);
}

void st_mac16_taps_2_upper(const st_mac16_taps_t *job) {
    taps(job, 2, 1);
}

#endif
