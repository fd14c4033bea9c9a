// Vectors of sixteen int32 or thirty-two int16, for processors with AVX-512 and VNNI. What they do
// is a part of the kernels for AVX2, which ask st_simd_is_wide(). Internal to simd_*.c.
#ifndef ST_SIMD_WIDE_H
#define ST_SIMD_WIDE_H

#include "simd_product.h"

#if ST_HAS_SIMD

#include "update.h"

#define ST_AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))
#define ST_AVX512_INLINE ST_AVX512 __attribute__((always_inline)) static inline

#define ST_WIDE 16 // int32 of a vector, and rows of a product

// Of scratch b: the first half holds what a product has widened, the other one steps that wait.
#define ST_WIDE_PAIRS (ST_SIMD_ROOM / 2)
#define ST_WIDE_STEPS (ST_SIMD_ROOM / 4) // int32

typedef __m512i st_wide_t;

ST_AVX512_INLINE st_wide_t wide_load(const void *from) {
    return _mm512_loadu_si512(from);
}

ST_AVX512_INLINE void wide_store(void *to, st_wide_t v) {
    _mm512_storeu_si512(to, v);
}

// What puts sums of thirty-two unpacked pairs in order, the first sixteen and those behind.
#define ST_WIDE_PACKED _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23)
#define ST_WIDE_PACKED_BEHIND                                                                      \
    _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31)

// The first n of sixteen; all of them where n is more.
static inline uint16_t st_first_of(int32_t n) {
    return (uint16_t)(n < ST_WIDE ? (1u << n) - 1 : 0xffffu);
}

// The same of thirty-two.
static inline uint32_t st_first_words(int32_t n) {
    return n < 32 ? (1u << n) - 1 : UINT32_MAX;
}

// c[row][n] = sum over k of a[row][k] * (b[k][n] - zero), of sixteen rows. Two k of a lie side by
// side, at 2 * (k * pair_step + row * row_step); where `length` is odd a's last one is 0. b: as it
// lies, rows of b_step bytes. c: rows of c_step elements, of which so many columns are written.
// pairs: NULL, or b - zero as it is multiplied: for each sixteen columns [length / 2][16][2].
typedef struct {
    const int16_t *a;
    int32_t pair_step, row_step;
    const int8_t *b;
    int32_t b_step, length, zero, columns;
    int32_t *c;
    int32_t c_step;
    const int16_t *pairs;
} st_wide_product_t;
void st_wide_product(const st_wide_product_t *p);

// st_simd_product of sixteen rows.
void st_wide_packed_product(const st_product_t *p);

// The same of bytes: c[row][n] = sum over k of (a[row][k] + 128) * b[n][k], of filters whose length
// is a multiple of four. a and b stand in the scratch. c: rows of c_step elements, a multiple of
// eight.
typedef struct {
    int32_t length, columns;
    int32_t *c;
    int32_t c_step;
} st_wide_bytes_t;

// Where the filters are packed.
static inline int8_t *st_wide_bytes_b(void) {
    return (int8_t *)st_simd_scratch()->b;
}

// Packs so many filters of int8; what 128 and the zero point of the input add to the sums is taken
// off the biases.
void st_wide_pack_bytes(const st_wide_bytes_t *p, const int8_t *w, int32_t zero,
                        st_factors_t *factors);

// a from n bytes of input.
void st_wide_lift_bytes(const int8_t *x, int32_t n);

// Of sixteen positions from this one of a on.
void st_wide_bytes_product(const st_wide_bytes_t *p, int32_t position);

// Whether the gradients of a 1x1 convolution can be made so, from its shape and the scratch.
int st_wide_can_grad_input(const st_conv_geometry_t *g);
int st_wide_can_update(const st_conv_geometry_t *g, const st_update_t *u);
void st_wide_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p, const int16_t *dy,
                        st_emit_t *dx);
void st_wide_update(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u);

// Steps of `count` rows of sums, any up to a multiple of sixteen, as st_update_rows; of weights
// that move at once.
void st_wide_update_rows(const st_weight_rows_t *r, int32_t count);

// Sums over all positions of the first n of thirty-two channels; `to` takes thirty-two.
void st_wide_sum_errors(const int16_t *dy, int32_t positions, int32_t out_c, int32_t n,
                        int32_t *to);

// As many of n elements as fit, sixteen at a time; returns how many were written.
int32_t st_wide_emit(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n);

#endif
#endif
