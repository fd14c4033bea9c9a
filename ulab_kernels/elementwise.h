// ADD, SUB, MUL of two tensors with broadcasting, MEAN over axes, and the one gradient that all of
// them need beside handing an error on.
#ifndef ST_ELEMENTWISE_H
#define ST_ELEMENTWISE_H

#include <stdint.h>
#include "error_tensor.h"
#include "fixedpoint.h"

#define ST_AXES 4

// As it stands in the image: 23 little-endian int32. Strides in elements, 0 along an axis that is
// broadcast; y lies in one piece, the last axis innermost.
typedef struct {
    int32_t count[ST_AXES], a_stride[ST_AXES], b_stride[ST_AXES];
    int32_t a_zero, b_zero, y_zero;
    st_requant_t a_scale, b_scale; // ADD, SUB: scale / (2 * max scale), shift <= 0
    st_requant_t y_scale; // ADD, SUB: 2 * max scale / (2^20 * y_scale); MUL: a * b / y scales
    int32_t act_min, act_max;
} st_elementwise_t;

// y int8 = a + b, a - b, a * b in real numbers, equal to TFLite's reference. y may be an operand
// that is not broadcast.
void add_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void sub_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void mul_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y);

// 7 little-endian int32. x is [outer, n, inner].
typedef struct {
    int32_t outer, n, inner;
    int32_t x_zero, y_zero;
    st_requant_t scale; // x_scale / (y_scale * n)
} st_mean_t;

// y[outer, inner] int8 = mean over n, equal to TFLite's reference. 128 * 2 * n < 2^31.
void mean_s8(const st_mean_t *p, const int8_t *x, int8_t *y);

// 26 little-endian int32. The gradient of one operand: its elements, and for each of them those
// of dy that it went into.
typedef struct {
    int32_t count[ST_AXES], dy_stride[ST_AXES], other_stride[ST_AXES];             // of dx
    int32_t sum_count[ST_AXES], sum_dy_stride[ST_AXES], sum_other_stride[ST_AXES]; // of the sum
    int32_t other_zero;
    int32_t factor_q15; // within [-2^15, 2^15]
} st_reduce_t;

// dx = factor * sum of dy * (other - other_zero); other == NULL stands for 1. row: int32 [count of
// the last axis].
void reduce_grad_input(const st_reduce_t *p, const int16_t *dy, const int8_t *other, int32_t *row,
                       st_emit_t *dx);

#endif
