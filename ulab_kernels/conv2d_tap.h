// What the weight gradient of one tap of a kernel reads.
#ifndef ST_CONV2D_TAP_H
#define ST_CONV2D_TAP_H

#include "add_rows.h"
#include "conv_geometry.h"
#include "update.h"

// How many channels, and output channels, go which way (docs/DESIGN.md has the table). By words of
// values: ST_BY_WORDS to ST_FEW channels of layers with ST_WORDS_OUTPUTS, as words take as long to
// make as some five outputs to be summed. By rows of errors: up to ST_FEW; with more, to skip
// errors that are zero is worth a look at each. By lists of errors: from ST_BY_LISTS on.
#define ST_BY_WORDS 3
#define ST_BY_LISTS 4
#define ST_FEW 7
#define ST_WORDS_OUTPUTS 16

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

// From the sums of an output channel to those of the next one: of its channels, of its errors.
static inline int32_t st_sums_step(const st_update_t *u) {
    return st_sums_room(u) + 1;
}

#endif
