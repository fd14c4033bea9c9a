// How much the weights of each input channel would still learn: a mean of the L1 norms of their
// gradients, over the steps that trained them. What the policy `importance` draws by
// (device/sparsetune_device/channels.py).
#ifndef ST_SCORES_H
#define ST_SCORES_H

#include <stdint.h>

// Of one channel in one step: the sum of |sum| over all sums of its weights, exactly.
typedef struct {
    uint32_t low, high;
} st_norm_t;

// mantissa * 2^exponent in units that are the same in all steps, those of the error tensor's
// values; mantissa in [2^15, 2^16), or 0 for a channel that never was trained.
typedef struct {
    uint16_t mantissa;
    int16_t exponent;
} st_score_t;

#define ST_SCORE_DECAY 3 // a step's norm counts 2^-3 in the mean

// norms[n] += |sums[n]|.
void st_add_norms(st_norm_t *norms, const int32_t *sums, int32_t n);

st_norm_t st_norm_sum(st_norm_t a, st_norm_t b);

// A norm of sums whose unit is 2^exponent.
st_score_t st_score_of(st_norm_t norm, int32_t exponent);

// The mean when a step has come to `now`; `now` itself where the mean is of none yet.
st_score_t st_mean_score(st_score_t mean, st_score_t now);

#endif
