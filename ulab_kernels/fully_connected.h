// FULLY_CONNECTED: forward. Its gradients are those of a 1x1 convolution (conv2d.h).
#ifndef ST_FULLY_CONNECTED_H
#define ST_FULLY_CONNECTED_H

#include "conv2d.h"

#define ST_SIXES 6 // rows of packed weights that are taken at a time

// y[out_w, out_c] int8 = x[in_w, in_c] int8 times weights[out_c, in_c]; g describes a 1x1
// convolution on a map of one row. Equal to TFLite's reference kernel bit for bit: unlike its
// convolutions, that one rounds once.
void fully_connected_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                        int8_t *y);

// The same, for in_c a multiple of 4 and no zero point of weights, four rows of weights at a time.
// factors: scratch int32 [in_c].
void fully_connected_fours_s8(const st_conv_geometry_t *g, const st_conv_params_t *p,
                              const int8_t *x, int32_t *factors, int8_t *y);

// The same from packed weights, of which none is -128, in groups of six rows. A group is
//   int32 [6]: -x_zero * the sum of a row's weights;
//   uint8 [in_c / 2, 3, 4]: 128 + the weights of inputs k, k + 1 of row a, and of row a + 1 behind.
// Rows that lack in the last group are zeros, which 128 stands for. A word of four weights is two
// words of lanes.h after one shift and two masks. x_pairs: scratch int32 [in_c / 2, 3].
void fully_connected_packed_s8(const st_conv_geometry_t *g, const st_conv_params_t *p,
                               const int8_t *x, int32_t *x_pairs, int8_t *y);

// Bytes of packed weights.
static inline int32_t fully_connected_packed_rows(const st_conv_geometry_t *g) {
    return (g->out_c + ST_SIXES - 1) / ST_SIXES * ST_SIXES;
}

static inline int32_t fully_connected_packed_row(const st_conv_geometry_t *g) {
    return 4 + g->in_c;
}

#endif
