// CONV_2D without groups and zero points of weights, by mac16.h: for ESP32 and ESP32-S3.
#ifndef ST_CONV2D_MAC16_H
#define ST_CONV2D_MAC16_H

#include "conv2d.h"

// Equal to conv2d_s8 bit for bit. scratch: int32 [words], conv2d_lanes_scratch at least; more make
// it faster, up to all weights as int16 and 64 windows.
void conv2d_mac16_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                     st_scratch_t scratch, int8_t *y);

#endif
