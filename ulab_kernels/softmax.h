// SOFTMAX forward and gradient, and the softmax cross-entropy loss that training starts from.
#ifndef ST_SOFTMAX_H
#define ST_SOFTMAX_H

#include <stdint.h>
#include "error_tensor.h"

// More classes could overflow the sum of exponentials.
#define ST_SOFTMAX_MAX_DEPTH 4095

// As it stands in the image: 5 little-endian int32.
typedef struct {
    int32_t rows, depth;
    int32_t multiplier, left_shift; // beta * x_scale in Q5.26
    int32_t diff_min;               // differences to the maximum below this count as exp = 0
} st_softmax_params_t;

typedef struct {
    int32_t loss_q16;  // -ln p[label], natural logarithm, Q16
    int32_t predicted; // index of the largest logit, the first of equals
} st_loss_t;

// y[rows, depth] int8 (scale 1/256, zero point -128), equal to TFLite's reference.
void softmax_s8(const st_softmax_params_t *p, const int8_t *x, int8_t *y);

// dx = y * (dy - sum(y * dy)) from the int8 output y; exponent of the sums: exponent(dy) - 16.
// row: scratch int32 [depth].
void softmax_grad_input(const st_softmax_params_t *p, const int8_t *y, const int16_t *dy,
                        int32_t *row, st_emit_t *dx);

// What one row of logits should have been. smoothing: what each class but the label shall have of
// the probability, Q30; at most 1 in all.
typedef struct {
    int32_t label, smoothing;
} st_answer_t;

// Loss of one row of logits (without smoothing) and its gradient, softmax - answer; exponent of the
// sums: -30. A logit at the end of the int8 range gets no gradient that would push it further out,
// but one that brings it back: with a plain clamp mask it would stay there for good. row: scratch
// int32 [depth].
st_loss_t softmax_cross_entropy(const st_softmax_params_t *p, const int8_t *logits,
                                st_answer_t answer, int32_t *row, st_emit_t *dlogits);

#endif
