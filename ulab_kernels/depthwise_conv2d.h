// DEPTHWISE_CONV_2D: forward, gradient of the input, update of weights and bias.
// out_c = in_c * multiplier; output channel oc reads input channel oc / multiplier.
#ifndef ST_DEPTHWISE_CONV2D_H
#define ST_DEPTHWISE_CONV2D_H

#include "conv2d.h"

// p->weights: int8 [kernel_h, kernel_w, out_c]; all else as in conv2d_s8.
void depthwise_conv2d_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                         int8_t *y);

// As conv2d_grad_input. row: scratch int32 [2 * in_c].
void depthwise_conv2d_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                 const int16_t *dy, int32_t *row, st_emit_t *dx);

// As conv2d_update. row: scratch int32 [n_channels].
void depthwise_conv2d_update(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                             int32_t *row);

#endif
