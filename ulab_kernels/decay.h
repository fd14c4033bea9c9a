// Decoupled weight decay (Loshchilov and Hutter, 1711.05101): w <- w - share w, between steps.
#ifndef ST_DECAY_H
#define ST_DECAY_H

#include <stdint.h>

// share = mantissa * 2^-shift, below 1: mantissa < 2^16, shift from 16 to 62.
typedef struct {
    uint32_t mantissa;
    int32_t shift;
} st_share_t;

// Of `count` weights, int8, and their fractions in 1/256 of a step, or NULL. Whole steps, or with
// fractions whole 1/256, rounded up with the probability of what is left over. The random bits hang
// on the seed and on first + the number of the weight.
void st_decay(int8_t *weights, int8_t *fractions, uint32_t count, st_share_t share, uint32_t seed,
              uint32_t first);

#endif
