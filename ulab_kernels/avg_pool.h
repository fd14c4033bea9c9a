// AVERAGE_POOL_2D: forward and gradient of the input. Padding does not count towards the mean.
#ifndef ST_AVG_POOL_H
#define ST_AVG_POOL_H

#include "conv_geometry.h"
#include "error_tensor.h"

// Largest window for which the mean is exact without a division per element.
#define ST_AVG_POOL_MAX_WINDOW 4080
#define ST_AVG_POOL_MAX_SHIFTED 2880 // with w_zero

// y[out_h, out_w, c] int8 = mean over windows of x[in_h, in_w, c] int8, ties away from -w_zero,
// equal to TFLite's reference. kernel_h * kernel_w <= ST_AVG_POOL_MAX_WINDOW.
void avg_pool_s8(const st_conv_geometry_t *g, const int8_t *x, int8_t *y);

// dx = dy / (elements of its window), spread over the window. The sums' exponent is that of dy
// minus (count_log2 + 15), where 2^count_log2 <= the smallest window count. row: int32 [c].
void avg_pool_grad_input(const st_conv_geometry_t *g, int count_log2, const int16_t *dy,
                         int32_t *row, st_emit_t *dx);

#endif
