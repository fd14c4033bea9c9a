// Requantisation of sums that share a word by two, behind a ReLU: see depthwise_pairs.h.
#ifndef ST_REQUANTIZE_PAIRS_H
#define ST_REQUANTIZE_PAIRS_H

#include "requantize.h"

// Words of one channel: lower half + 2^16 * upper half, each half in [low, low + width], where
// width < 2^16. Steps in bytes. |bias| < 2^29. The zero point, and the least output, is -128, the
// largest 127.
typedef struct {
    const uint32_t *words;
    int8_t *y;            // the outputs of the lower halves
    int32_t count, other; // other: bytes from the output of a lower half to that of the upper one
    int32_t y_step;
    int32_t low, width;
    int32_t bias; // added to each half
    st_requant_t f;
} st_requantize_pairs_t;

// Whether the factor is one for this.
static inline int st_can_requantize_pairs(st_requant_t f) {
    return st_is_reducible(f) && f.shift >= -20;
}

// y = clamp(st_requantize(half + bias, f) - 128, -128, 127).
void st_requantize_pairs(const st_requantize_pairs_t *pairs);

#endif
