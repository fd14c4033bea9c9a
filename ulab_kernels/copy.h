// Moving data: TRANSPOSE, CONCATENATION, SPLIT, SLICE and PAD are all strided copies. Their
// gradient is one gather.
#ifndef ST_COPY_H
#define ST_COPY_H

#include <stddef.h>
#include <stdint.h>
#include "error_tensor.h"

#define ST_COPY_AXES 4

// As it stands in the image: 14 little-endian int32, in elements; the last axis is the innermost.
typedef struct {
    int32_t count[ST_COPY_AXES];
    int32_t x_stride[ST_COPY_AXES], y_stride[ST_COPY_AXES];
    int32_t x_offset, y_offset;
} st_copy_t;

// y[y_offset + sum i * y_stride] = x[x_offset + sum i * x_stride] for all i below count.
void copy_s8(const st_copy_t *p, const int8_t *x, int8_t *y);

// y[n] = value.
void fill_s8(int8_t *y, int32_t n, int8_t value);

// The way back, seen from x. Along an axis of `size` elements those at begin, begin + step, ...,
// `count` of them, were copied; dy has them dy_stride apart. 21 little-endian int32.
typedef struct {
    int32_t size[ST_COPY_AXES];
    int32_t begin[ST_COPY_AXES], step[ST_COPY_AXES], count[ST_COPY_AXES];
    int32_t dy_stride[ST_COPY_AXES];
    int32_t dy_offset;
} st_gather_t;

// dx[size...] = dy of the copy, 0 where there is none. row: scratch int32 [size of the last axis].
void copy_grad_input(const st_gather_t *p, const int16_t *dy, int32_t *row, st_emit_t *dx);

#endif
