// Momentum and gradient accumulation, which are one thing here: steps do not go to the weights but
// into a velocity, which moves them where a group of steps ends, and of which a part stays then.
// With a gradient g for each step:  v <- v - rate g;  at a group's end  w <- w + v, v <- momentum
// v. Or, standardised (Deutel, 2407.10734): w <- w + rate * gain * (v - mean) / deviation, with the
// mean and the standard deviation of the filter's velocities.
#ifndef ST_VELOCITY_H
#define ST_VELOCITY_H

#include <stdint.h>
#include "conv_geometry.h"

// A positive real factor mantissa * 2^exponent; mantissa in [2^15, 2^16), or 0.
typedef struct {
    uint16_t mantissa;
    int16_t exponent;
} st_rate_t;

// weights: int16 [out_c, taps, chosen channels] in 1/256 of a quantisation step; of a depthwise
// layer, as its weights lie. biases: int32 [out_c] in the biases' unit. Each NULL where those do
// not learn. inputs: weights of a tap, of those that a row of chosen channels is from.
typedef struct {
    int16_t *weights;
    int32_t *biases;
    int32_t inputs;
    uint32_t momentum; // in 1/32768, below 1
    int waits;         // the group goes on
    int standardises; // a filter's weights move by rate * gain quantisation steps, root mean square
    st_rate_t gain;
} st_velocity_t;

struct st_update;

// Where a group ends: moves the weights and biases of the output channels made by their velocity,
// and keeps momentum times it. A weight without residual moves by whole steps, those and what is
// kept rounded up with the probability of their fraction; all saturate as in update.h. The random
// bits hang on the seed and on the place in the velocity alone. Standardised are the weights of the
// chosen channels of an output channel, all taps together; where they are all alike, none moves.
void st_velocity_move(const st_conv_geometry_t *g, const struct st_update *u, int is_depthwise);

#endif
