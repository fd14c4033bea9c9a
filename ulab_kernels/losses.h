// Losses on vectors of targets; the softmax cross-entropy is in softmax.h. An output at the end of
// the int8 range gets no gradient that would push it further out.
#ifndef ST_LOSSES_H
#define ST_LOSSES_H

#include <stdint.h>
#include "error_tensor.h"

typedef struct {
    int32_t loss_q16;
    int32_t is_right; // every output on the right side, where that means something
} st_target_loss_t;

// 4 little-endian int32. Gradient = (y - target) * factor, in an exponent that the host knows; loss
// in Q16 = sum of squares * loss_mantissa * 2^-loss_shift.
typedef struct {
    int32_t count;
    int32_t factor;                    // below 2^15
    int32_t loss_mantissa, loss_shift; // below 2^16; 0 to 62
} st_mse_t;

// Mean of the squared differences in real units. row: int32 [count].
st_target_loss_t mean_squared_error(const st_mse_t *p, const int8_t *y, const int8_t *target,
                                    int32_t *row, st_emit_t *dy);

// 1026 little-endian int32. For each logit from -128 on, for target 0 and for target 1: gradient
// in Q30 and loss in Q16, both divided by the number of outputs already. zero: of the logits.
typedef struct {
    int32_t count, zero;
    int32_t gradient[2][256], loss[2][256];
} st_bce_t;

// Mean binary cross-entropy of independent logits; target: 0, or anything else for 1. row: int32
// [count].
st_target_loss_t binary_cross_entropy(const st_bce_t *p, const int8_t *logits, const int8_t *target,
                                      int32_t *row, st_emit_t *dlogits);

#endif
