// Fast versions of kernels for CPython on x86-64 with AVX2: the host twin keeps up with LiteRT and
// PyTorch. Each has the contract of the kernel whose name it carries, and gives the same bytes;
// what has no room in its scratch it hands to that kernel. Built where ST_SIMD is defined
// (setup.py); called through fast.h alone.
#ifndef ST_SIMD_H
#define ST_SIMD_H

#include "activation.h"
#include "conv2d.h"
#include "elementwise.h"
#include "fully_connected.h"
#include "simd_level.h"

// Whether the fast kernels run: the processor has AVX2, and nobody has turned them off.
int st_simd_is_on(void);

// The same of the widest vectors, which a few of them use where the processor has AVX-512 and VNNI.
int st_simd_is_wide(void);

// For tests, which compare them; not while another thread runs a program. most: one of ST_SIMD_*.
// Returns what runs from now on.
int st_simd_set(int most);

void conv2d_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                    int8_t *y);
void conv2d_columns_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                            int8_t *filter, int8_t *y);
void fully_connected_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                             const int8_t *x, int8_t *y);
void fully_connected_packed_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                    const int8_t *x, int32_t *x_pairs, int8_t *y);
void depthwise_conv2d_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                              const int8_t *x, int8_t *y);

void conv2d_grad_input_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                            const int16_t *dy, int32_t *row, st_emit_t *dx);
void depthwise_conv2d_grad_input_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                      const int16_t *dy, int32_t *row, st_emit_t *dx);
void conv2d_update_simd(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                        int32_t *row);
void depthwise_conv2d_update_simd(const st_conv_geometry_t *g, const int16_t *dy,
                                  const st_update_t *u, int32_t *row);

void st_emit_row_simd(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n);
void error_add_simd(const int16_t *dy, int32_t n, st_emit_t *dx);
void clamp_mask_s8_simd(const int8_t *y, int32_t n, int32_t lo, int32_t hi, uint8_t *bits);
void apply_mask_simd(int16_t *dy, int32_t n, const uint8_t *bits);

void add_s8_simd(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void sub_s8_simd(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void mul_s8_simd(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y);

// Part of conv2d_grad_input_simd, for p->columns.
void st_simd_columns_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                const int16_t *dy, int32_t *row, st_emit_t *dx);

// Parts of the updates. Sums of one filter's tap, one for each chosen channel and any up to a
// multiple of eight, to the weights; base: index of the tap's weight of channel 0.
void st_update_tap_simd(const st_update_t *u, st_step_t step, int32_t base, const int32_t *sums);
void st_update_biases_simd(int32_t positions, int32_t out_c, const int16_t *dy,
                           const st_update_t *u);

#endif
