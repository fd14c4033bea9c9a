// MAX_POOL_2D: forward and gradient of the input.
#ifndef ST_MAX_POOL_H
#define ST_MAX_POOL_H

#include "conv_geometry.h"
#include "error_tensor.h"

// Taps of a window that one byte can number.
#define ST_MAX_POOL_MAX_TAPS 256

// y[out_h, out_w, c] int8 = largest of each window of x[in_h, in_w, c], clamped. winner: NULL, or
// uint8 [out_h, out_w, c], the tap that it came from (the first of equals).
void max_pool_s8(const st_conv_geometry_t *g, const int8_t *x, uint8_t *winner, int8_t *y);

// dx = dy at the winners, added up where windows overlap, 0 elsewhere. row: int32 [c].
void max_pool_grad_input(const st_conv_geometry_t *g, const uint8_t *winner, const int16_t *dy,
                         int32_t *row, st_emit_t *dx);

#endif
