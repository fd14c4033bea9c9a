// What the two versions of a depthwise convolution's input gradient share. Internal to simd_*.c.
#ifndef ST_SIMD_DEPTHWISE_H
#define ST_SIMD_DEPTHWISE_H

#include "simd_wide.h"

#if ST_HAS_SIMD

#define ST_SIMD_TAPS 128 // of a window

// Errors that reach an input position: a row of channels for each tap, zeros where none does.
typedef struct {
    const int16_t *dy[ST_SIMD_TAPS + 1];
    int32_t taps;                     // even
    const int32_t *at;                // [in_w][kernel_w]: the output's column, or -1
    const int16_t *row[ST_SIMD_TAPS]; // [kernel_h]: the output's row,
    int is_inside[ST_SIMD_TAPS];      // if there is one
} st_errors_read_t;

// Once; takes the scratch's a. Returns 0 where there is no room in it. Then for each row of the
// input, and for each of its positions.
int st_simd_errors_begin(const st_conv_geometry_t *g, st_errors_read_t *r);
void st_simd_errors_row(const st_conv_geometry_t *g, const int16_t *dy, int32_t iy,
                        st_errors_read_t *r);
void st_simd_errors_at(const st_conv_geometry_t *g, int32_t ix, st_errors_read_t *r);

// Whether a row of the input has room, then the gradient. r: has begun.
int st_wide_can_depthwise(const st_conv_geometry_t *g);
void st_wide_depthwise_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                  const int16_t *dy, st_errors_read_t *r, st_emit_t *dx);

#endif
#endif
