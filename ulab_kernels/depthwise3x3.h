// DEPTHWISE_CONV_2D of the common kind for Cortex-M0+: 3x3, one output a channel, no dilation.
#ifndef ST_DEPTHWISE3X3_H
#define ST_DEPTHWISE3X3_H

#include "conv2d.h"

// Whether it can be run so. The rest goes by depthwise_conv2d_s8.
int depthwise3x3_suits(const st_conv_geometry_t *g);

// int32 words of scratch that it takes at least; with more, up to 16 rows of outputs of a channel
// are made at a time, and those behind a ReLU in pairs (depthwise_pairs.h).
int64_t depthwise3x3_scratch(const st_conv_geometry_t *g);

// Equal to depthwise_conv2d_s8 bit for bit. scratch: int32 [words].
void depthwise3x3_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                     st_scratch_t scratch, int8_t *y);

#endif
