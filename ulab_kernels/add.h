// ADD of two tensors of one shape. Its gradient is the identity for both (see st_error_add).
#ifndef ST_ADD_H
#define ST_ADD_H

#include <stdint.h>
#include "fixedpoint.h"

// As it stands in the image: 11 little-endian int32.
typedef struct {
    int32_t a_zero, b_zero, y_zero;
    st_requant_t a_scale, b_scale; // a_scale / (2 * max scale), shift <= 0
    st_requant_t y_scale;          // 2 * max scale / (2^20 * y_scale), shift <= 0
    int32_t act_min, act_max;
} st_add_params_t;

// y[n] int8 = a[n] + b[n], equal to TFLite's reference. y may be a or b.
void add_s8(const st_add_params_t *p, const int8_t *a, const int8_t *b, int8_t *y, int32_t n);

#endif
