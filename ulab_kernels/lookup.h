// Any function of one int8 value: RELU, HARD_SWISH, LOGISTIC, TANH, a change of scale and so on.
#ifndef ST_LOOKUP_H
#define ST_LOOKUP_H

#include <stdint.h>
#include "error_tensor.h"

// y[n] = table[x + 128], table: int8 [256]. y may be x.
void lookup_s8(const int8_t *table, const int8_t *x, int32_t n, int8_t *y);

// dx[n] = dy * slope[x + 128], slope: int16 [256]. Exponent of the sums: that of dy plus the
// slopes'.
void lookup_grad_input(const int16_t *slope, const int8_t *x, const int16_t *dy, int32_t n,
                       st_emit_t *dx);

#endif
