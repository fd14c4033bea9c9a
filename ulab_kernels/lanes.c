#include "lanes.h"
#include "arch.h"
#include "fixedpoint.h"

#define HALF (1 << 15)

// Weights of two channels on their way into words: the words of inputs k and k + 1 go to `to`,
// those of the next two lie `step` words behind.
typedef struct {
    const int8_t *low, *high; // high: NULL if there is none
    int32_t *to;
    int32_t step;
    int32_t sums[2]; // of the weights
} st_packing_t;

// The word of the next input; k: its place among all, for there may be more inputs than weights.
static void pack_one(st_packing_t *p, int32_t k, int32_t has_weight) {
    const int32_t a = has_weight ? *p->low++ : 0;
    const int32_t b = has_weight && p->high ? *p->high++ : 0;
    p->sums[0] += a;
    p->sums[1] += b;
    p->to[k & 1] = a + (int32_t)((uint32_t)b << 16);
    p->to += k & 1 ? p->step : 0;
}

#if ST_ARMV6M

#define BLOCK 256 // inputs whose weights of one channel add up to less than 2^15

// armv6m_lanes.S. job: bytes from behind two words to the next two, where `low` ends, and what is
// added to: the sum of low's weights, the sum of the words.
void st_lanes_pack_fours(const int8_t *low, const int8_t *high, int32_t *to, uint32_t job[4]);

// As many of the k inputs as go by whole words of weights.
static int32_t pack_fours(st_packing_t *p, int32_t k) {
    if (!p->high || ((uintptr_t)p->low | (uintptr_t)p->high) & 3)
        return 0;
    for (int32_t at = 0; at < k / 4 * 4; at += BLOCK) {
        const int32_t n = st_min(BLOCK, k / 4 * 4 - at);
        uint32_t job[4] = {4 * (uint32_t)(p->step - 2), (uint32_t)(uintptr_t)(p->low + n), 0, 0};
        st_lanes_pack_fours(p->low, p->high, p->to, job);
        p->sums[0] += (int32_t)job[2];
        p->sums[1] += (int32_t)(job[3] - job[2]) >> 16;
        p->low += n;
        p->high += n;
        p->to += n / 2 * p->step;
    }
    return k / 4 * 4;
}

#else

static int32_t pack_fours(st_packing_t *p, int32_t k) {
    (void)p;
    (void)k;
    return 0;
}

#endif

void st_lanes_pack(const st_lanes_weights_t *w, int32_t *group) {
    const int32_t pairs = (w->n + 1) / 2;
    int32_t *lanes = group + 2 * pairs;
    for (int32_t pair = 0; pair < pairs; pair++) {
        const int32_t c = 2 * pair, has_high = c + 1 < w->n;
        const int8_t *low = w->weights + c * w->k_used;
        st_packing_t p = {low, has_high ? low + w->k_used : 0, lanes + c, 2 * pairs, {0, 0}};
        for (int32_t k = pack_fours(&p, w->k_used); k < w->k; k++)
            pack_one(&p, k, k < w->k_used);
        int32_t *start = group + c;
        // The lower half's sum is found as (all - high * 2^16): what it starts with goes into both.
        // Each addition of two products carries HALF with it, except the first pair's, which has
        // a way to do without (armv6m_lanes.S).
        const int32_t high = (has_high ? w->bias[c + 1] : 0) - w->x_zero * p.sums[1];
        const int32_t low_start = w->bias[c] - w->x_zero * p.sums[0] - (pair ? w->k / 2 * HALF : 0);
        start[0] = low_start + (int32_t)((uint32_t)high << 16);
        start[1] = high;
    }
}

#if ST_ARMV6M

// armv6m_lanes.S, for one, two and three pairs. end: where the group ends and the sums, inputs.
typedef void run_t(const int8_t *x, const int32_t *group, int32_t *sums, const uintptr_t end[3]);
run_t st_lanes_run_1, st_lanes_run_2, st_lanes_run_3;

void st_lanes_run(const st_lanes_job_t *job, int32_t *sums) {
    const int32_t *last = job->group + st_lanes_words(2 * job->pairs, job->k);
    const int32_t *sums_end = sums + 2 * job->pairs * job->positions;
    const uintptr_t end[3] = {(uintptr_t)last, (uintptr_t)sums_end, (uintptr_t)job->k};
    if (job->pairs == 3)
        st_lanes_run_3(job->x, job->group, sums, end);
    else if (job->pairs == 2)
        st_lanes_run_2(job->x, job->group, sums, end);
    else
        st_lanes_run_1(job->x, job->group, sums, end);
}

#else

// The same in C: what the assembly above is, and what other processors may use.
static void run_pair(const st_lanes_job_t *job, int32_t pair, int32_t *sums) {
    const int32_t step = 2 * job->pairs;
    const int8_t *x = job->x;
    for (int32_t i = 0; i < job->positions; i++, sums += step) {
        const int32_t *w = job->group + step + 2 * pair;
        uint32_t all = (uint32_t)job->group[2 * pair], high = (uint32_t)job->group[2 * pair + 1];
        for (int32_t k = 0; k < job->k; k += 2, x += 2, w += step) {
            const uint32_t two = (uint32_t)w[0] * (uint32_t)x[0] + (uint32_t)w[1] * (uint32_t)x[1];
            all += two + (pair ? HALF : 0);
            high += (uint32_t)((int32_t)(two + HALF) >> 16);
        }
        sums[2 * pair] = (int32_t)(all - (high << 16));
        sums[2 * pair + 1] = (int32_t)high;
    }
}

void st_lanes_run(const st_lanes_job_t *job, int32_t *sums) {
    for (int32_t pair = 0; pair < job->pairs; pair++)
        run_pair(job, pair, sums);
}

#endif
