// FULLY_CONNECTED: forward. Its gradients are those of a 1x1 convolution (conv2d.h).
#ifndef ST_FULLY_CONNECTED_H
#define ST_FULLY_CONNECTED_H

#include "conv2d.h"

// y[out_w, out_c] int8 = x[in_w, in_c] int8 times weights[out_c, in_c]; g describes a 1x1
// convolution on a map of one row. Equal to TFLite's reference kernel bit for bit: unlike its
// convolutions, that one rounds once.
void fully_connected_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                        int8_t *y);

#endif
