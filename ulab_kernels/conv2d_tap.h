// What the weight gradient of one tap of a kernel reads.
#ifndef ST_CONV2D_TAP_H
#define ST_CONV2D_TAP_H

#include "add_rows.h"
#include "conv_geometry.h"
#include "update.h"

// A tap of the kernel: runs of outputs for which it lies inside the input, a row each, or one of
// all rows if these lie one behind the other, as what they read does. first: the first run, of
// output channel 0 and group 0; dy_step, row_step: from run to run.
typedef struct {
    const st_conv_geometry_t *g;
    const st_update_t *u;
    st_factors_t first;
    int32_t runs, dy_step, row_step;
    int32_t base, filter; // number of its first weight in the layer; weights of an output channel
    int32_t number, one_position;
    int32_t sums_biases; // the sums of dy are those that the biases need
} st_kernel_tap_t;

#endif
