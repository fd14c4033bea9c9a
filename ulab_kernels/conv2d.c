#include "conv2d.h"
#include "dot.h"

// One window against one filter. Without dilation the taps of a kernel row lie side by side in x
// and in w, so that a row is a single dot product.
static int32_t window_sum(const st_conv_geometry_t *g, const int8_t *x, const int8_t *filter,
                          const st_taps_t taps[2]) {
    const st_taps_t ty = taps[0], tx = taps[1];
    int32_t sum = 0, iy = ty.first;
    for (int32_t ky = ty.begin; ky < ty.end; ky++, iy += g->dilation_h) {
        const int8_t *xr = x + (iy * g->in_w + tx.first) * g->in_c;
        const int8_t *wr = filter + (ky * g->kernel_w + tx.begin) * g->in_c;
        if (g->dilation_w == 1) {
            sum += dot_s8(xr, wr, (tx.end - tx.begin) * g->in_c, -g->x_zero);
            continue;
        }
        for (int32_t kx = tx.begin; kx < tx.end; kx++) {
            sum += dot_s8(xr, wr, g->in_c, -g->x_zero);
            xr += g->dilation_w * g->in_c;
            wr += g->in_c;
        }
    }
    return sum;
}

void conv2d_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x, int8_t *y) {
    const int32_t filter_size = g->kernel_h * g->kernel_w * g->in_c;
    for (int32_t oy = 0; oy < g->out_h; oy++) {
        for (int32_t ox = 0; ox < g->out_w; ox++) {
            const st_taps_t taps[2] = {st_taps_h(g, oy), st_taps_w(g, ox)};
            const int8_t *filter = p->weights;
            for (int32_t oc = 0; oc < g->out_c; oc++, filter += filter_size) {
                int32_t sum = p->bias[oc] + window_sum(g, x, filter, taps);
                int32_t v = st_requantize(sum, p->requant[oc]) + g->y_zero;
                *y++ = (int8_t)st_clamp(v, g->act_min, g->act_max);
            }
        }
    }
}

// row[in_c] += sum over out channels of dy * w_scale * w, for one output position and tap.
static void add_tap(const st_conv_geometry_t *g, const st_conv_params_t *p, const int16_t *dy,
                    const int8_t *tap_weights, int32_t *row) {
    const int32_t filter_size = g->kernel_h * g->kernel_w * g->in_c;
    for (int32_t oc = 0; oc < g->out_c; oc++, tap_weights += filter_size) {
        if (!dy[oc]) // about half of them behind a ReLU
            continue;
        const int32_t d = (dy[oc] * (int32_t)p->scale_q15[oc] + (1 << 14)) >> 15;
        for (int32_t ic = 0; ic < g->in_c; ic++)
            row[ic] += d * tap_weights[ic];
    }
}

// The gradient of one input position, all channels.
static void input_position(const st_conv_geometry_t *g, const st_conv_params_t *p,
                           const int16_t *dy, const int32_t at[2], int32_t *row) {
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        int32_t oy = st_output_of(at[0], ky, g->stride_h, g->pad_h, g->dilation_h, g->out_h);
        if (oy < 0)
            continue;
        for (int32_t kx = 0; kx < g->kernel_w; kx++) {
            int32_t ox = st_output_of(at[1], kx, g->stride_w, g->pad_w, g->dilation_w, g->out_w);
            if (ox < 0)
                continue;
            const int8_t *w = p->weights + (ky * g->kernel_w + kx) * g->in_c;
            add_tap(g, p, dy + (oy * g->out_w + ox) * g->out_c, w, row);
        }
    }
}

void conv2d_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p, const int16_t *dy,
                       int32_t *row, st_emit_t *dx) {
    for (int32_t iy = 0; iy < g->in_h; iy++) {
        for (int32_t ix = 0; ix < g->in_w; ix++) {
            const int32_t at[2] = {iy, ix};
            for (int32_t ic = 0; ic < g->in_c; ic++)
                row[ic] = 0;
            input_position(g, p, dy, at, row);
            st_emit_row(dx, (iy * g->in_w + ix) * g->in_c, row, g->in_c);
        }
    }
}

// row[n] += over all positions of one output channel and one tap: dy * (kept - x_zero).
static void correlate(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                      const int32_t tap[2], int32_t *row) {
    int32_t dy_sum = 0;
    for (int32_t oy = 0; oy < g->out_h; oy++) {
        int32_t iy = oy * g->stride_h - g->pad_h + tap[0] * g->dilation_h;
        if (iy < 0 || iy >= g->in_h)
            continue;
        int32_t ix = tap[1] * g->dilation_w - g->pad_w;
        for (int32_t ox = 0; ox < g->out_w; ox++, ix += g->stride_w) {
            const int32_t d = dy[(oy * g->out_w + ox) * g->out_c];
            if (!d || ix < 0 || ix >= g->in_w)
                continue;
            const int8_t *x = u->kept + (iy * g->in_w + ix) * u->n_channels;
            dy_sum += d;
            for (int32_t i = 0; i < u->n_channels; i++)
                row[i] += d * x[i];
        }
    }
    for (int32_t i = 0; i < u->n_channels; i++)
        row[i] -= dy_sum * g->x_zero;
}

static void update_filter(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                          int32_t oc, int32_t *row) {
    const st_step_t step = st_weight_step(u, oc);
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        for (int32_t kx = 0; kx < g->kernel_w; kx++) {
            const int32_t tap[2] = {ky, kx};
            const int32_t base = ((oc * g->kernel_h + ky) * g->kernel_w + kx) * g->in_c;
            for (int32_t i = 0; i < u->n_channels; i++)
                row[i] = 0;
            correlate(g, dy + oc, u, tap, row);
            for (int32_t i = 0; i < u->n_channels; i++)
                if (row[i])
                    st_update_weight(u, step, base + u->channels[i], row[i]);
        }
    }
}

void conv2d_update(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                   int32_t *row) {
    if (u->n_channels)
        for (int32_t oc = 0; oc < g->out_c; oc++)
            update_filter(g, dy, u, oc, row);
    st_update_biases(g->out_h * g->out_w, g->out_c, dy, u);
}
