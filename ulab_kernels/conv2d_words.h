// Weight gradients of some channels. By rows (add_rows.h), most of the time would be spent on
// gathering errors that are not zero; by rows of errors (conv2d_few.h), on those that are. Here
// each error that is not zero meets the values at its position, which are one word or two.
#ifndef ST_CONV2D_WORDS_H
#define ST_CONV2D_WORDS_H

#include "conv2d_tap.h"

#define ST_WORDS 128 // of values

// Values of a tap at all positions of dy, as words.
typedef struct {
    const st_kernel_tap_t *tap;
    const int16_t *dy;
    int32_t top, left; // of where the tap lies for the first position
    uint32_t x[ST_WORDS];
} st_words_t;

// Whether this is the way for the layer: where its words have room, and u->row_words for its sums.
int st_goes_by_words(const st_conv_geometry_t *g, const st_update_t *u);

void st_words_make(st_words_t *w, const st_kernel_tap_t *tap, const int16_t *dy);

// sums[k * step + i] = sum over all positions of dy of output channel channels.begin + k times
// (kept - x_zero) of chosen channel i; sums[k * step + step - 1] = that of dy.
void st_words_sums(const st_words_t *w, st_range_t channels, int32_t *sums);

#endif
