// The weight gradient of one channel of a depthwise convolution by 3x3 without dilation: its nine
// sums at once. A tile of the input is copied with its border; of the error, only what is not zero
// (ReLU leaves about half) meets it.
#ifndef ST_DEPTHWISE_SUMS_H
#define ST_DEPTHWISE_SUMS_H

#include "conv_geometry.h"

typedef struct {
    const st_conv_geometry_t *g;
    int32_t rows, columns; // outputs of a tile at most
    int32_t pitch;         // inputs of a row of a tile
} st_tiles_t;

// One channel: every step-th element.
typedef struct {
    const int16_t *dy;
    const int8_t *x;
    int32_t dy_step, x_step;
} st_channel_t;

// Whether the geometry is one of these; if so, how it is tiled.
int st_tile_depthwise(const st_conv_geometry_t *g, st_tiles_t *t);

// sums[ky * 3 + kx] = dy * (x - x_zero) over all outputs; outside the input is x_zero.
void st_depthwise_sums(const st_tiles_t *t, const st_channel_t *c, uint32_t sums[9]);

#endif
