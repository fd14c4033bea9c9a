// Sums of products for Cortex-M0+, which has one 32 x 32 multiplier and no dot product: the weights
// of two output channels share a word, so that one multiplication serves both.
//
// A word holds low + high * 2^16 of two int8 weights. Two such words times their int8 inputs add up
// to low * 1 + high * 2^16 with |low| <= 2 * 127 * 128 < 2^15: the halves part exactly once 2^15 is
// added. 7 instructions for 4 multiply-accumulates, 2.5 cycles each with the loads of the weights.
#ifndef ST_LANES_H
#define ST_LANES_H

#include <stdint.h>

#define ST_LANES_MOST 6 // channels of one group: what the registers hold

// 4-byte words of a group of n channels over k inputs (k a multiple of 4), its two start values a
// pair included.
static inline int32_t st_lanes_words(int32_t n, int32_t k) {
    return (n + 1) / 2 * (k + 2);
}

// Weights [n, k_used] int8 of n channels side by side, packed for k inputs: what the zero point of
// x takes off goes into the start values with the bias. k_used <= k, k a multiple of 4, n <= 6.
typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    int32_t n, k_used, k, x_zero;
} st_lanes_weights_t;

void st_lanes_pack(const st_lanes_weights_t *w, int32_t *group);

// sums[positions, pairs * 2] = start + sum of x[positions, k] * weights. x: 4-byte aligned, its
// rows one behind the other.
typedef struct {
    const int8_t *x;
    const int32_t *group;
    int32_t pairs, k, positions;
} st_lanes_job_t;

void st_lanes_run(const st_lanes_job_t *job, int32_t *sums);

#endif
