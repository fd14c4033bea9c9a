// Layers that stay in flash: their weights are put together once a call, with the trained columns
// in their places, and the kernels for weights in RAM do the rest.
#include "simd_vector.h"

#if ST_HAS_SIMD

// The weights as they are now; NULL where there is no room for them.
static const int8_t *whole_weights(const st_conv_geometry_t *g, const st_conv_params_t *p) {
    const int64_t taps = (int64_t)g->kernel_h * g->kernel_w, size = taps * g->in_c;
    int8_t *w = st_simd_scratch()->weights;
    if (size * g->out_c > ST_SIMD_WEIGHTS)
        return NULL;
    __builtin_memcpy(w, p->weights, (size_t)(size * g->out_c));
    for (int32_t ic = 0; ic < g->in_c; ic++) {
        const int8_t *column = st_column(p->columns, ic);
        for (int32_t tap = 0; column && tap < taps; tap++)
            for (int32_t oc = 0; oc < g->out_c; oc++)
                w[oc * size + tap * g->in_c + ic] = column[tap * g->out_c + oc];
    }
    return w;
}

// FULLY_CONNECTED as its kernel takes it.
static int is_row_of_samples(const st_conv_geometry_t *g) {
    return g->in_h * g->out_h * g->kernel_h * g->kernel_w == 1 && g->in_w == g->out_w;
}

ST_AVX2 void conv2d_columns_s8_simd(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                    const int8_t *x, int8_t *filter, int8_t *y) {
    const int once = p->columns->rounds_once;
    st_conv_params_t whole = *p;
    whole.weights = once && !is_row_of_samples(g) ? NULL : whole_weights(g, p);
    if (!whole.weights)
        conv2d_columns_s8(g, p, x, filter, y);
    else if (once)
        fully_connected_s8_simd(g, &whole, x, y);
    else
        conv2d_s8_simd(g, &whole, x, y);
}

ST_AVX2 void st_simd_columns_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                        const int16_t *dy, int32_t *row, st_emit_t *dx) {
    st_conv_params_t whole = *p;
    whole.weights = whole_weights(g, p);
    whole.columns = NULL;
    if (whole.weights)
        conv2d_grad_input_simd(g, &whole, dy, row, dx);
    else
        conv2d_grad_input(g, p, dy, row, dx);
}

#endif
