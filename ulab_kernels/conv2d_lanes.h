// CONV_2D without groups and zero points of weights, by the packed sums of lanes.h: for Cortex-M0+.
#ifndef ST_CONV2D_LANES_H
#define ST_CONV2D_LANES_H

#include "conv2d.h"

// int32 words of scratch that it takes at least: more make it faster, up to all channels packed at
// once and 32 windows gathered.
int64_t conv2d_lanes_scratch(const st_conv_geometry_t *g);

// Equal to conv2d_s8 bit for bit, if no weight is -128. scratch: int32 [words].
void conv2d_lanes_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                     st_scratch_t scratch, int8_t *y);

#endif
