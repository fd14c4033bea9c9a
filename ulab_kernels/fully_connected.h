// FULLY_CONNECTED: forward. Its gradients are those of a 1x1 convolution (conv2d.h).
#ifndef ST_FULLY_CONNECTED_H
#define ST_FULLY_CONNECTED_H

#include "conv2d.h"

#define ST_SIXES 6 // rows of weights that the faster way takes at a time

// y[out_w, out_c] int8 = x[in_w, in_c] int8 times weights[out_c, in_c]; g describes a 1x1
// convolution on a map of one row. Equal to TFLite's reference kernel bit for bit: unlike its
// convolutions, that one rounds once.
void fully_connected_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                        int8_t *y);

// The same, for in_c a multiple of 4 and no zero point of weights. in_order: the weights lie in the
// order in which they are read, [out_c / 6, in_c / 4, 6, 4], with rows of zeros behind the last.
// x_wide: scratch int32 [in_c].
typedef struct {
    int in_order;
    int32_t *x_wide;
} st_sixes_t;

void fully_connected_sixes_s8(const st_conv_geometry_t *g, const st_conv_params_t *p,
                              const int8_t *x, st_sixes_t sixes, int8_t *y);

#endif
