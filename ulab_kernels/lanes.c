#include "lanes.h"
#include "arch.h"

#define HALF (1 << 15)

// One pair of channels: the word of input k goes to to[k / 2 * 2 * pairs + k % 2]. Its sums of
// weights are left in start.
static void pack_pair(const int8_t *low, const int8_t *high, const st_lanes_weights_t *w,
                      int32_t *to, int32_t start[2]) {
    const int32_t step = (w->n + 1) / 2 * 2 - 1;
    int32_t sum_low = 0, sum_high = 0;
    for (int32_t k = 0; k < w->k; k++) {
        const int32_t a = k < w->k_used ? low[k] : 0;
        const int32_t b = k < w->k_used && high ? high[k] : 0;
        sum_low += a;
        sum_high += b;
        *to = a + (int32_t)((uint32_t)b << 16);
        to += k & 1 ? step : 1;
    }
    start[0] = sum_low;
    start[1] = sum_high;
}

void st_lanes_pack(const st_lanes_weights_t *w, int32_t *group) {
    const int32_t pairs = (w->n + 1) / 2;
    int32_t *lanes = group + 2 * pairs;
    for (int32_t pair = 0; pair < pairs; pair++) {
        const int32_t c = 2 * pair, has_high = c + 1 < w->n;
        const int8_t *low = w->weights + c * w->k_used;
        int32_t *start = group + c, sums[2];
        pack_pair(low, has_high ? low + w->k_used : 0, w, lanes + c, sums);
        // The lower half's sum is found as (all - high * 2^16): what it starts with goes into both.
        // Each addition of two products carries HALF with it.
        const int32_t high = (has_high ? w->bias[c + 1] : 0) - w->x_zero * sums[1];
        const int32_t low_start = w->bias[c] - w->x_zero * sums[0] - w->k / 2 * HALF;
        start[0] = low_start + (int32_t)((uint32_t)high << 16);
        start[1] = high;
    }
}

#if ST_ARMV6M

// armv6m_lanes.S, for one, two and three pairs. end: where the group ends, positions, inputs.
typedef void run_t(const int8_t *x, const int32_t *group, int32_t *sums, const uintptr_t end[3]);
run_t st_lanes_run_1, st_lanes_run_2, st_lanes_run_3;

void st_lanes_run(const st_lanes_job_t *job, int32_t *sums) {
    const int32_t *last = job->group + st_lanes_words(2 * job->pairs, job->k);
    const uintptr_t end[3] = {(uintptr_t)last, (uintptr_t)job->positions, (uintptr_t)job->k};
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
            all += two + HALF;
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
