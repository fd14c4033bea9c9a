#include "add_words.h"
#include "arch.h"

static int32_t values_of(const st_add_words_t *job) {
    return job->words == 1 ? ST_WORD_VALUES : ST_WORDS_VALUES;
}

#if ST_ARMV6M

// armv6m_add_words.S. dy, x: of the first error in the loop of four, `skipped` of which are left
// out; step, to_total, in bytes: from error to error, from behind the sums to that of the errors.
typedef struct {
    const int16_t *dy;
    const uint32_t *x;
    int32_t skipped, zero;
    int32_t *sums;
    int32_t to_total, out_channels;
    const uint32_t *end;
    int32_t step;
} st_words_loop_t;

void st_add_one_word(const st_words_loop_t *loop);
void st_add_two_words(const st_words_loop_t *loop);

ST_ONCE void st_add_words(const st_add_words_t *job) {
    const int32_t skipped = -job->positions & 3;
    const st_words_loop_t loop = {
        .dy = job->dy - job->dy_step * (job->words == 1 ? 1 + (skipped & 1) : 1),
        .x = job->x - skipped * job->words,
        .skipped = skipped,
        .zero = job->zero + 128,
        .sums = job->sums,
        .to_total = (job->room - values_of(job)) * (int32_t)sizeof(int32_t),
        .out_channels = job->out_channels,
        .end = job->x + job->positions * job->words,
        .step = job->dy_step * (int32_t)sizeof(int16_t),
    };
    if (job->words == 1)
        st_add_one_word(&loop);
    else
        st_add_two_words(&loop);
}

#else

static int32_t value_of(const uint32_t *x, int32_t i) {
    return (int32_t)(x[i >> 2] >> (i & 3) * 8 & 0xff) - 128;
}

static int32_t sum_of_words(const st_add_words_t *job, const int16_t *dy, int32_t value) {
    int32_t sum = 0;
    for (int32_t i = 0; i < job->positions; i++, dy += job->dy_step)
        sum += *dy * (value_of(job->x + i * job->words, value) - job->zero);
    return sum;
}

static int32_t total_of(const st_add_words_t *job, const int16_t *dy) {
    int32_t sum = 0;
    for (int32_t i = 0; i < job->positions; i++, dy += job->dy_step)
        sum += *dy;
    return sum;
}

void st_add_words(const st_add_words_t *job) {
    int32_t *sums = job->sums;
    for (int32_t k = 0; k < job->out_channels; k++, sums += job->room + 1) {
        for (int32_t i = 0; i < values_of(job); i++)
            sums[i] = sum_of_words(job, job->dy + k, i);
        sums[job->room] = total_of(job, job->dy + k);
    }
}

#endif
