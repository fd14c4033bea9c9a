// Weight gradients of few channels. By output channel, most of the time would be spent on gathering
// its errors, which lie far apart; here rows of errors, of many output channels, are added, times
// the value of one chosen channel.
#ifndef ST_CONV2D_FEW_H
#define ST_CONV2D_FEW_H

#include "conv2d_tap.h"

// Output channels [oc, oc + count); count is a multiple of ST_ERROR_BLOCK.
typedef struct {
    int32_t oc, count;
    int32_t *sums;
} st_tile_t;

// As many of the output channels [oc, u->made.end) as there is room for in u->row_words; 0: none,
// or this is not the way for them.
int32_t st_few_at_once(const st_kernel_tap_t *t, const int16_t *dy, int32_t oc);

// sums[k * st_sums_room(u) + i] = sum over all positions of dy of the tile's output channel k times
// (kept - x_zero) of chosen channel i.
void st_few_sums(const st_kernel_tap_t *t, const st_tile_t *tile);

#endif
