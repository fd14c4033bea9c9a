// RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR: forward and gradient of the input. Which input rows
// and columns an output is made of stands in two tables that the host writes.
#ifndef ST_RESIZE_H
#define ST_RESIZE_H

#include "error_tensor.h"

#define ST_RESIZE_ONE 1024    // a weight of 1
#define ST_RESIZE_GRAD_LOG2 8 // the gradient's: products of two weights, rounded to this

// One output row (column) as it stands in the image: 4 little-endian int16. It is made of the input
// rows low <= high with weights whose sum is ST_RESIZE_ONE. low never falls from one to the next.
typedef struct {
    int16_t low, high, low_weight, high_weight;
} st_tap_pair_t;

typedef struct {
    int32_t in_h, in_w, channels, out_h, out_w; // as they stand in the image
    const st_tap_pair_t *rows, *columns;        // [out_h], [out_w]
} st_resize_t;

// y[out_h, out_w, c] int8 = weighted mean of four of x[in_h, in_w, c] int8, ties away from zero,
// equal to TFLite's reference.
void resize_s8(const st_resize_t *p, const int8_t *x, int8_t *y);

// dx[in_h, in_w, c] = sum of dy * weights. The sums' exponent is dy's minus ST_RESIZE_GRAD_LOG2.
// row: scratch int32 [c].
void resize_grad_input(const st_resize_t *p, const int16_t *dy, int32_t *row, st_emit_t *dx);

#endif
