// Gradient filtering (Yang, Li, Marculescu: Efficient On-device Training via Gradient Filtering,
// CVPR 2023): a map is cut into patches, and the gradients of a convolution are made of one value
// a patch. What must hold is the sum over a patch: of an input the mean is kept, of the outputs'
// errors the sum, and the input's error is shared out among its elements. For stride 1 these are
// the paper's formulas; its strided layers get stride_h * stride_w times what the exact gradients
// sum up to, ours do not.
#ifndef ST_PATCH_H
#define ST_PATCH_H

#include <stdint.h>
#include "activation.h"
#include "conv_geometry.h"
#include "error_tensor.h"

#define ST_MAX_PATCH 256 // elements: so many make an exact mean in 32 bits

// As it stands in the image: 9 little-endian int32. Patches lie side by side; the first begins at
// (top, left), which may be outside of the map. Each has an element of the map at least; what is
// left of the map belongs to none.
typedef struct {
    int32_t h, w, c;          // of the map
    int32_t rows, columns;    // of patches
    int32_t patch_h, patch_w; // patch_h * patch_w <= ST_MAX_PATCH
    int32_t top, left;
} st_patches_t;

// kept[rows, columns, groups, step] int8 = mean of the chosen channels of x[h, w, groups, of] over
// the patch's elements in the map, to nearest, ties up; zeros behind them. c = groups * of.
void patch_values_s8(const st_patches_t *p, const st_channels_t *channels, const int8_t *x,
                     int8_t *kept);

// d[rows, columns, c] = sum of dy[h, w, c] over each patch. The sums' exponent is dy's. row:
// scratch int32 [c].
void patch_errors(const st_patches_t *p, const int16_t *dy, int32_t *row, st_emit_t *d);

// dx[h, w, c] = d[rows, columns, c] of the patch, divided by its elements in the map; 0 where there
// is none. The sums' exponent is that of d minus (count_log2 + 15), where 2^count_log2 <= the
// smallest of these counts. row: scratch int32 [c].
void spread_errors(const st_patches_t *p, int count_log2, const int16_t *d, int32_t *row,
                   st_emit_t *dx);

#endif
