// CONV_2D: forward, gradient of the input, update of weights and bias. The gradients also serve
// FULLY_CONNECTED, a 1x1 convolution on a map of one row.
#ifndef ST_CONV2D_H
#define ST_CONV2D_H

#include "columns.h"
#include "conv_geometry.h"
#include "cores.h"
#include "error_tensor.h"
#include "fixedpoint.h"
#include "update.h"

// weights: int8 [out_c, kernel_h, kernel_w, in_c / groups], minus w_zero.
// bias: int32 [out_c], in units of x_scale * w_scale[c].
// requant: [out_c], x_scale * w_scale[c] / y_scale.
// scale_q15: uint16 [out_c], w_scale[c] / 2^k in (0, 2^15]; k is the layer's weight exponent.
typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const st_requant_t *requant;
    const uint16_t *scale_q15;
    const st_columns_t *columns; // NULL, or where trained channels lie (one group only)
    st_cores_t cores;            // of the kernels that take scratch
} st_conv_params_t;

// Memory within a step, for a kernel of one operator.
typedef struct {
    int32_t *data; // NULL: none
    int32_t words;
    int kept; // it is as the last call left it, with the same weights
} st_scratch_t;

// y[out_h, out_w, out_c] int8 = conv(x[in_h, in_w, in_c] int8). Equal to TFLite's reference
// kernel bit for bit. No scratch.
void conv2d_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x, int8_t *y);

// The same with p->columns; also FULLY_CONNECTED. filter: scratch int8 [kernel_h, kernel_w, in_c].
void conv2d_columns_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                       int8_t *filter, int8_t *y);

// dx = transposed convolution of dy[out_h, out_w, out_c] with the weights, both in real units.
// Incoming exponent of dx's sums: exponent(dy) + k. row: scratch int32 [in_c].
void conv2d_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p, const int16_t *dy,
                       int32_t *row, st_emit_t *dx);

// Applies the gradient of the weights of the chosen input channels, and of the bias, as it is
// made. Channels are numbered within a group, and the same ones are chosen in each.
// u->kept: int8 [in_h, in_w, groups, u->kept_step]. row: scratch int32 [u->row_words].
void conv2d_update(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                   int32_t *row);

// Part of it, for u->columns: the sums of one filter's tap. base: number that the tap's weight of
// channel 0 has in its layer; in_column: where a column has its weight of that tap and filter.
void st_update_columns(const st_update_t *u, st_step_t step, int32_t base, const int32_t *row,
                       int32_t in_column);

#endif
