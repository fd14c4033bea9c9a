// The inner loop of the weight gradients of few channels: sums of rows of int16 errors with
// factors.
#ifndef ST_ADD_ERRORS_H
#define ST_ADD_ERRORS_H

#include <stdint.h>

#define ST_ERROR_BLOCK 8 // elements of rows at a time

// A factor, and its row, which begins at a multiple of 4. The list ends with ST_NO_ERRORS, which is
// no address.
typedef struct {
    int32_t factor;
    const int16_t *row;
} st_error_term_t;

#define ST_NO_ERRORS ((const int16_t *)(1u << 31))

// sums[i * step] of 8 * blocks elements i of all rows are the sums of the terms, or that is added
// to them.
typedef struct {
    const st_error_term_t *terms;
    int32_t *sums;
    int32_t blocks, step, add;
} st_add_errors_t;

void st_add_errors(const st_add_errors_t *job);

#endif
