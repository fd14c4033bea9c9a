// Error selection of TinyProp (2308.09201, 2409.07109), by channels: of an error tensor the output
// channels with the largest errors stay, the others become zero, so that the gradients behind it,
// which pass over zeros, cost less. How many stay hangs on how large this sample's errors are
// beside the largest of late. Of the original's maximum nothing is ever forgotten; this one decays.
#ifndef ST_SELECT_ERRORS_H
#define ST_SELECT_ERRORS_H

#include "conv_geometry.h"

// 2^-10 of the maximum is forgotten in each step.
#define ST_FORGET 10

// A sum of errors in real units: mantissa * 2^exponent, mantissa in [2^30, 2^31), or 0. As it
// stands in the state; whatever stands there is taken as a number.
typedef struct {
    uint32_t mantissa;
    int32_t exponent;
} st_magnitude_t;

// dy: int16 [out_h, out_w, out_c] of geometry g, with out_h * out_w < 2^17. row: scratch [out_c].
// least, span: in 1/32768, from 0 to 32768; the share of the channels that stays is
// least + span * (sum of |dy|) / maximum. inputs: input channels whose gradient an error makes,
// by tap; 0 where it is not made. is_dense: that gradient is a depthwise layer's, which multiplies
// zeros like all else, once by tap; inputs is 0. chosen: channels whose weights it trains.
// channels: NULL, or of a depthwise layer the chosen ones, each for out_c / in_c outputs.
typedef struct {
    const st_conv_geometry_t *g;
    int16_t *dy;
    uint32_t *row;
    int32_t least, span;
    int32_t inputs, chosen;
    int is_dense;
    const uint16_t *channels;
} st_selection_t;

// Lets the maximum decay, then take in this tensor's sum. exponent: of dy. Zeros in dy all but the
// K channels of the largest sums, of equals the first, K = 1 to out_c, rounded to nearest. Returns
// the multiply-accumulates of the input's and the weights' gradient that the errors left cause:
// none for those that are zero (but see is_dense), nor for taps outside of the input. Where all
// stay (least is 32768) and channels is NULL it counts, and leaves row and maximum as they are.
uint64_t select_errors(const st_selection_t *s, int32_t exponent, st_magnitude_t *maximum);

#endif
