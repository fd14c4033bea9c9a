// Products of matrices of int16 with sums in int32: what convolutions and their gradients are made
// of. Internal to simd_*.c.
#ifndef ST_SIMD_PRODUCT_H
#define ST_SIMD_PRODUCT_H

#include "simd_vector.h"

#if ST_HAS_SIMD

#define ST_PANEL 8 // columns of b that lie together

static inline int32_t st_panels(int32_t columns) {
    return (columns + ST_PANEL - 1) / ST_PANEL;
}

// c[row][column] = sum over k of a[row][k] * b[k][column].
// a: rows of 2 * pairs elements; where k is odd the last one is 0, or b's is.
// b: for each panel of eight columns [pairs][8][2], so that two k lie side by side.
typedef struct {
    const int16_t *a, *b;
    int32_t pairs, panels;
    int32_t *c; // rows of 8 * panels elements
} st_product_t;
void st_simd_product(const st_product_t *p, int32_t rows);

// b from rows that are its columns: b[k][n] = w[n * length + k] - zero, k < length.
void st_simd_pack_columns(const int8_t *w, int32_t length, int32_t columns, int32_t zero,
                          int16_t *b);

// The same for one pair of k, from two rows of b: b[k][n] = row[k][n] - zero. A row that is NULL
// stands for zeros. b: where the first panel has that pair; panels are 16 * pairs elements apart.
void st_simd_pack_pair(const int8_t *const row[2], int32_t columns, int32_t zero, int32_t pairs,
                       int16_t *b);

// Products of one row, which would not repay a packing, with w as it lies: sums of
// x[k] * (w[row * length + k] - zero), and of x[k] * (w[k * columns + column] - zero), where x has
// an even number of elements and sums room for a multiple of sixteen.
void st_simd_dots(const int16_t *x, const int8_t *w, int32_t length, int32_t rows, int32_t zero,
                  int32_t *sums);
void st_simd_combine(const int16_t *x, const int8_t *w, int32_t length, int32_t columns,
                     int32_t zero, int32_t *sums);

// Sums of one tap of one filter of a convolution, to its weights and to all that is told of them.
void st_simd_apply_sums(const st_conv_geometry_t *g, const st_update_t *u, int32_t tap, int32_t oc,
                        const int32_t *sums);

#endif
#endif
