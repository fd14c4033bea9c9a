#include "requantize_pairs.h"
#include "arch.h"

// armv6m_requantize_pairs.S reads this. A word plus `offset` has halves that are not negative; what
// they are larger by is taken off in `round`.
typedef struct {
    const uint32_t *words;
    int8_t *y;
    int32_t other, multiplier;
    uint32_t most; // halves from it on are outputs of 127
    int32_t round;
    uint32_t doubt;
    const int8_t *end; // of y
    uint32_t offset;
    uint32_t least; // halves below it are sums below 0
    int32_t y_step;
    st_requant_t f;
    int32_t base; // sum = half + base
} st_put_pairs_t;

#if ST_ARMV6M

// armv6m_requantize_pairs.S.
void st_requantize_pairs_fast(const st_put_pairs_t *job);
// The same where no half reaches `most`.
void st_requantize_pairs_small(const st_put_pairs_t *job);

#else

static int8_t put(const st_put_pairs_t *job, uint32_t half) {
    if (half < job->least)
        return -128;
    if (half >= job->most)
        return 127;
    const int32_t q = (int32_t)(half * (uint32_t)job->multiplier) + job->round;
    int32_t v = q >> 21;
    if ((uint32_t)q << 11 >= job->doubt)
        v = st_requantize_exactly((int32_t)half + job->base, job->f) - 128;
    return (int8_t)st_min(v, 127);
}

static void st_requantize_pairs_fast(const st_put_pairs_t *job) {
    const uint32_t *word = job->words;
    for (int8_t *y = job->y; y != job->end; y += job->y_step, word++) {
        const uint32_t halves = *word + job->offset;
        y[0] = put(job, halves & 0xffff);
        y[job->other] = put(job, halves >> 16);
    }
}
#define st_requantize_pairs_small st_requantize_pairs_fast

#endif

// As st_reduce, but no bits of the sum are dropped, which is `largest` at most: what the product
// may miss hangs on what the multiplier really lacks.
static void reduce(st_requant_t f, int32_t largest, st_put_pairs_t *job) {
    const int32_t right = -f.shift, lacks = 10 + right;
    const int32_t m = (int32_t)(((uint32_t)f.multiplier + (1u << (lacks - 1))) >> lacks);
    const int32_t rest = f.multiplier - (int32_t)((uint32_t)m << lacks);
    const int32_t lost = ((rest < 0 ? -rest : rest) >> (lacks - 8)) + 1;
    const int32_t may_miss = (1 << (20 - right)) + (largest >> 8) * lost + lost;
    const int32_t miss = st_min(may_miss, 1 << 20); // then all are in doubt
    job->multiplier = m;
    job->round = (1 << 20) - miss - 128 * (1 << 21);
    job->doubt = 0u - ((uint32_t)miss << 12);
    job->f = f;
}

void st_requantize_pairs(const st_requantize_pairs_t *p) {
    const int32_t base = p->bias + p->low, bound = 1 << (9 - p->f.shift), beyond = bound - base;
    st_put_pairs_t job;
    reduce(p->f, st_max(0, st_min(bound, base + p->width)), &job);
    job.words = p->words;
    job.y = p->y;
    job.other = p->other;
    job.most = (uint32_t)st_max(0, beyond);
    job.round += (int32_t)((uint32_t)base * (uint32_t)job.multiplier);
    job.end = p->y + p->count * p->y_step;
    job.offset = (uint32_t)-p->low * 0x10001u;
    job.least = (uint32_t)st_max(0, -base);
    job.y_step = p->y_step;
    job.base = base;
    if (beyond > p->width)
        st_requantize_pairs_small(&job);
    else
        st_requantize_pairs_fast(&job);
}
