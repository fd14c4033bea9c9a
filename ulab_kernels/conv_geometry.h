// The shape of a convolution or pooling window, shared by forward and gradient kernels.
#ifndef ST_CONV_GEOMETRY_H
#define ST_CONV_GEOMETRY_H

#include <stdint.h>

#define ST_MAX_LENGTH 65535 // of a tensor's axis: channel numbers are uint16
#define ST_MAX_KERNEL 256   // of a kernel's axis, a stride, a dilation

// As it stands in the image: 20 little-endian int32. Tensors are NHWC with N = 1.
typedef struct {
    int32_t in_h, in_w, in_c;
    int32_t out_h, out_w, out_c;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_h, pad_w; // rows above, columns left
    int32_t x_zero, y_zero;
    int32_t act_min, act_max; // of the output, within [-128, 127]
    // 0 but for models that were uint8. Of the weights; of AVG_POOL: 128, to round as uint8 does.
    int32_t w_zero;
    int32_t groups; // of CONV_2D: group g reads and makes the g-th part of the channels
} st_conv_geometry_t;

// Channels of one group; without groups there is nothing to divide.
static inline int32_t st_group_inputs(const st_conv_geometry_t *g) {
    return g->groups == 1 ? g->in_c : g->in_c / g->groups;
}

static inline int32_t st_group_outputs(const st_conv_geometry_t *g) {
    return g->groups == 1 ? g->out_c : g->out_c / g->groups;
}

// The taps [begin, end) of a window axis that fall inside the input, and where the first lands.
typedef struct {
    int32_t begin, end;
    int32_t first; // input index of tap `begin`
} st_taps_t;

// Taps of output index `out` on an axis of `in` elements.
static inline st_taps_t st_taps(int32_t out, int32_t stride, int32_t pad, int32_t dilation,
                                int32_t kernel, int32_t in) {
    int32_t origin = out * stride - pad;
    st_taps_t t = {0, kernel, origin};
    while (t.begin < kernel && t.first < 0) {
        t.begin++;
        t.first += dilation;
    }
    while (t.end > t.begin && origin + (t.end - 1) * dilation >= in)
        t.end--;
    return t;
}

static inline st_taps_t st_taps_h(const st_conv_geometry_t *g, int32_t out_y) {
    return st_taps(out_y, g->stride_h, g->pad_h, g->dilation_h, g->kernel_h, g->in_h);
}

static inline st_taps_t st_taps_w(const st_conv_geometry_t *g, int32_t out_x) {
    return st_taps(out_x, g->stride_w, g->pad_w, g->dilation_w, g->kernel_w, g->in_w);
}

// Outputs [begin, end) of an axis whose windows, without dilation, hold input index `in`.
typedef struct {
    int32_t begin, end;
} st_range_t;

static inline st_range_t st_outputs_of(int32_t in, int32_t stride, int32_t pad, int32_t kernel,
                                       int32_t out_len) {
    const int32_t last = in + pad, first = last - kernel + stride; // rounded up by the division
    st_range_t r = {first < stride ? 0 : first, last < 0 ? 0 : last};
    if (stride == 2) {
        r.begin >>= 1;
        r.end >>= 1;
    } else if (stride > 1) {
        r.begin /= stride;
        r.end /= stride;
    }
    r.end = last < 0 ? 0 : r.end + 1;
    r.end = r.end > out_len ? out_len : r.end;
    return r;
}

// Outputs [begin, end) of an axis whose tap, at tap_at for output 0, lies inside the input.
static inline st_range_t st_outputs_inside(int32_t tap_at, int32_t stride, int32_t in,
                                           int32_t out) {
    st_range_t r = {0, out};
    while (r.begin < out && tap_at + r.begin * stride < 0)
        r.begin++;
    while (r.end > r.begin && tap_at + (r.end - 1) * stride >= in)
        r.end--;
    return r;
}

// The output index whose tap `k` reads input index `in`, or -1. Called once per position and
// tap, never per channel.
static inline int32_t st_output_of(int32_t in, int32_t k, int32_t stride, int32_t pad,
                                   int32_t dilation, int32_t out_len) {
    int32_t shifted = in + pad - k * dilation;
    if (shifted < 0)
        return -1;
    if (stride == 1)
        return shifted < out_len ? shifted : -1;
    const int32_t out = stride == 2 ? shifted >> 1 : shifted / stride;
    return (out * stride == shifted && out < out_len) ? out : -1;
}

#endif
