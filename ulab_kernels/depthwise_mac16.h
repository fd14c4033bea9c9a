// DEPTHWISE_CONV_2D 3x3 by mac16.h: for ESP32 and ESP32-S3.
#ifndef ST_DEPTHWISE_MAC16_H
#define ST_DEPTHWISE_MAC16_H

#include "conv2d.h"

// int32 words of scratch that it takes at least: more make it faster, up to all rows at once.
// INT64_MAX where it is no way for the layer.
int64_t depthwise_mac16_scratch(const st_conv_geometry_t *g);

// Equal to depthwise_conv2d_s8 bit for bit. scratch: int32 [words].
void depthwise_mac16_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                        st_scratch_t scratch, int8_t *y);

#endif
