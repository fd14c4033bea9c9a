#include "conv2d.h"
#include "add_rows.h"
#include "dot.h"

#define FEW 4 // channels: fewer are not worth gathering their terms

// What one window meets: the taps inside the input, channels from `channel` on.
typedef struct {
    st_taps_t y, x;
    int32_t channel, channels;
} st_window_t;

// One window against one filter. Without dilation the taps of a
// kernel row lie side by side in x and in w, so that a row is a single dot product.
static int32_t window_sum(const st_conv_geometry_t *g, const int8_t *x, const int8_t *filter,
                          const st_window_t *w) {
    const int32_t one_run = g->dilation_w == 1 && g->groups == 1;
    const int32_t runs = one_run ? 1 : w->x.end - w->x.begin;
    const int32_t length = one_run ? (w->x.end - w->x.begin) * w->channels : w->channels;
    int32_t sum = 0, iy = w->y.first;
    for (int32_t ky = w->y.begin; ky < w->y.end; ky++, iy += g->dilation_h) {
        const int8_t *xr = x + (iy * g->in_w + w->x.first) * g->in_c + w->channel;
        const int8_t *wr = filter + (ky * g->kernel_w + w->x.begin) * w->channels;
        for (int32_t run = 0; run < runs; run++) {
            sum += dot_s8(xr, wr, length, -g->x_zero);
            xr += g->dilation_w * g->in_c;
            wr += w->channels;
        }
    }
    return sum;
}

// The same against ones: what a zero point of the weights takes off, once for a window and group.
static int32_t window_total(const st_conv_geometry_t *g, const int8_t *x, const st_window_t *w) {
    int32_t sum = 0, iy = w->y.first;
    for (int32_t ky = w->y.begin; ky < w->y.end; ky++, iy += g->dilation_h) {
        const int8_t *xp = x + (iy * g->in_w + w->x.first) * g->in_c + w->channel;
        for (int32_t kx = w->x.begin; kx < w->x.end; kx++, xp += g->dilation_w * g->in_c)
            for (int32_t c = 0; c < w->channels; c++)
                sum += xp[c] - g->x_zero;
    }
    return sum;
}

// All output channels of one group at one position.
static void group_outputs(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                          const st_window_t *w, int8_t *y) {
    const int32_t filter_size = g->kernel_h * g->kernel_w * w->channels;
    const int32_t outputs = st_group_outputs(g);
    const int32_t first = g->groups == 1 ? 0 : w->channel / w->channels * outputs;
    const int32_t less = g->w_zero ? g->w_zero * window_total(g, x, w) : 0;
    const int8_t *filter = p->weights + first * filter_size;
    for (int32_t oc = first; oc < first + outputs; oc++, filter += filter_size) {
        int32_t sum = p->bias[oc] + window_sum(g, x, filter, w) - less;
        int32_t v = st_requantize(sum, p->requant[oc]) + g->y_zero;
        y[oc] = (int8_t)st_clamp(v, g->act_min, g->act_max);
    }
}

void conv2d_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x, int8_t *y) {
    const int32_t channels = st_group_inputs(g);
    for (int32_t oy = 0; oy < g->out_h; oy++) {
        for (int32_t ox = 0; ox < g->out_w; ox++, y += g->out_c) {
            st_window_t w = {st_taps_h(g, oy), st_taps_w(g, ox), 0, channels};
            for (; w.channel < g->in_c; w.channel += channels)
                group_outputs(g, p, x, &w, y);
        }
    }
}

// The filter of one output channel, as it came but for the trained columns.
static void gather_filter(const st_conv_geometry_t *g, const st_conv_params_t *p, int32_t oc,
                          int8_t *filter) {
    const int32_t taps = g->kernel_h * g->kernel_w, size = taps * g->in_c;
    __builtin_memcpy(filter, p->weights + oc * size, (uint32_t)size);
    for (int32_t ic = 0; ic < g->in_c; ic++) {
        const int8_t *column = st_column(p->columns, ic);
        for (int32_t tap = 0; column && tap < taps; tap++)
            filter[tap * g->in_c + ic] = column[tap * g->out_c + oc];
    }
}

// One output channel at all positions.
static void filter_outputs(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                           const int8_t *filter, int8_t *y) {
    const int32_t bias = *p->bias;
    for (int32_t oy = 0; oy < g->out_h; oy++) {
        for (int32_t ox = 0; ox < g->out_w; ox++, y += g->out_c) {
            const st_window_t w = {st_taps_h(g, oy), st_taps_w(g, ox), 0, g->in_c};
            const int32_t less = g->w_zero ? g->w_zero * window_total(g, x, &w) : 0;
            const int32_t sum = bias + window_sum(g, x, filter, &w) - less;
            const int32_t v = p->columns->rounds_once ? st_requantize_once(sum, *p->requant)
                                                      : st_requantize(sum, *p->requant);
            *y = (int8_t)st_clamp(v + g->y_zero, g->act_min, g->act_max);
        }
    }
}

void conv2d_columns_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                       int8_t *filter, int8_t *y) {
    for (int32_t oc = 0; oc < g->out_c; oc++) {
        st_conv_params_t one = *p;
        one.bias += oc;
        one.requant += oc;
        gather_filter(g, p, oc, filter);
        filter_outputs(g, &one, x, filter, y + oc);
    }
}

// What the trained columns change of add_tap's sums, for one channel.
static int32_t column_change(const st_conv_geometry_t *g, const st_conv_params_t *p,
                             const int16_t *dy, const int8_t *base, const int8_t *column) {
    const int32_t filter_size = g->kernel_h * g->kernel_w * g->in_c;
    int32_t sum = 0;
    for (int32_t oc = 0; oc < g->out_c; oc++, base += filter_size) {
        const int32_t d = (dy[oc] * (int32_t)p->scale_q15[oc] + (1 << 14)) >> 15;
        sum += d * (column[oc] - *base);
    }
    return sum;
}

// Gathers dy * w_scale of n output channels, whose weights are `step` apart; their sum.
ST_HOT static int32_t put_channels(st_terms_t *terms, const int16_t *dy, const uint16_t *scale_q15,
                                   int32_t at, const int32_t span[2]) {
    const int32_t step = span[0];
    st_term_t *to = terms->terms, *const end = to + ST_TERMS;
    int32_t sum = 0;
    for (int32_t n = span[1]; n > 0; n--, at += step) {
        const int32_t scale = *scale_q15++;
        int32_t d = *dy++;
        if (!d) // about half of them behind a ReLU
            continue;
        d = (d * scale + (1 << 14)) >> 15;
        sum += d;
        to->factor = d;
        to->at = at;
        if (++to == end) {
            terms->count = ST_TERMS;
            st_terms_add(terms);
            to = terms->terms;
        }
    }
    terms->count = (int32_t)(to - terms->terms);
    return sum;
}

// row[in_c] += sum over out channels of dy * w_scale * w, for one output position and tap. The
// tap's weights of output channel oc start at tap_weights + oc * filter_size.
static void add_tap(const st_conv_geometry_t *g, const st_conv_params_t *p, const int16_t *dy,
                    const int8_t *tap_weights, int32_t *row) {
    const int32_t channels = st_group_inputs(g), outputs = st_group_outputs(g);
    const int32_t filter_size = g->kernel_h * g->kernel_w * channels;
    const int32_t span[2] = {filter_size, outputs};
    st_terms_t terms; // no initialiser: it would clear the terms, too
    terms.values = tap_weights;
    terms.n = channels;
    int32_t oc = 0;
    for (int32_t *end = row + g->in_c; row < end; row += channels, oc += outputs) {
        terms.row = row;
        const int32_t sum =
            put_channels(&terms, dy + oc, p->scale_q15 + oc, oc * filter_size, span);
        st_terms_add(&terms);
        for (int32_t ic = 0; g->w_zero && ic < channels; ic++)
            row[ic] -= sum * g->w_zero;
    }
}

// The gradient of one input position, all channels.
static void input_position(const st_conv_geometry_t *g, const st_conv_params_t *p,
                           const int16_t *dy, const int32_t at[2], int32_t *row) {
    const int32_t channels = st_group_inputs(g);
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        int32_t oy = st_output_of(at[0], ky, g->stride_h, g->pad_h, g->dilation_h, g->out_h);
        if (oy < 0)
            continue;
        for (int32_t kx = 0; kx < g->kernel_w; kx++) {
            int32_t ox = st_output_of(at[1], kx, g->stride_w, g->pad_w, g->dilation_w, g->out_w);
            if (ox < 0)
                continue;
            const int32_t tap = ky * g->kernel_w + kx;
            const int8_t *w = p->weights + tap * channels;
            const int16_t *d = dy + (oy * g->out_w + ox) * g->out_c;
            add_tap(g, p, d, w, row);
            for (int32_t ic = 0; p->columns && ic < g->in_c; ic++) {
                const int8_t *column = st_column(p->columns, ic);
                if (column)
                    row[ic] += column_change(g, p, d, w + ic, column + tap * g->out_c);
            }
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

// Of so few channels that gathering would cost more than it saves.
ST_HOT static int32_t add_products(const int16_t *dy, int32_t dy_step, const int8_t *x,
                                   const int32_t span[2], int32_t *row, int32_t channels) {
    int32_t sum = 0, step = span[0];
    for (int32_t n = span[1]; n > 0; n--, dy += dy_step, x += step) {
        const int32_t d = *dy;
        if (!d)
            continue;
        sum += d;
        for (int32_t i = 0; i < channels; i++)
            row[i] += d * x[i];
    }
    return sum;
}

// Gathers the terms of a row of positions; returns the sum of their factors.
ST_HOT static int32_t put_row(st_terms_t *terms, const int16_t *dy, int32_t dy_step, int32_t at,
                              const int32_t span[2]) {
    const int32_t step = span[0];
    st_term_t *to = terms->terms + terms->count, *const end = terms->terms + ST_TERMS;
    int32_t sum = 0;
    for (int32_t n = span[1]; n > 0; n--, dy += dy_step, at += step) {
        const int32_t d = *dy;
        if (!d)
            continue;
        sum += d;
        to->factor = d;
        to->at = at;
        if (++to == end) {
            terms->count = ST_TERMS;
            st_terms_add(terms);
            to = terms->terms;
        }
    }
    terms->count = (int32_t)(to - terms->terms);
    return sum;
}

// row[n] = sum over all positions of one output channel and one tap (y, x, group): dy * (kept -
// x_zero).
static void correlate(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                      const int32_t tap[3], int32_t *row) {
    st_terms_t terms; // no initialiser: it would clear the terms, too
    terms.values = u->kept;
    terms.row = row;
    terms.n = u->n_channels;
    terms.count = 0;
    for (int32_t i = 0; i < u->n_channels; i++)
        row[i] = 0;
    const int32_t step = g->groups * u->n_channels;
    const int32_t y = tap[0] * g->dilation_h - g->pad_h, x = tap[1] * g->dilation_w - g->pad_w;
    const st_range_t ry = st_outputs_inside(y, g->stride_h, g->in_h, g->out_h);
    const st_range_t rx = st_outputs_inside(x, g->stride_w, g->in_w, g->out_w);
    const int32_t span[2] = {g->stride_w * step, rx.end - rx.begin};
    int32_t dy_sum = 0;
    for (int32_t oy = ry.begin; oy < ry.end; oy++) {
        const int32_t pixel = (y + oy * g->stride_h) * g->in_w + x + rx.begin * g->stride_w;
        const int32_t at = pixel * step + tap[2] * u->n_channels;
        const int16_t *d = dy + (oy * g->out_w + rx.begin) * g->out_c;
        dy_sum += u->n_channels < FEW
                      ? add_products(d, g->out_c, u->kept + at, span, row, u->n_channels)
                      : put_row(&terms, d, g->out_c, at, span);
    }
    st_terms_add(&terms);
    for (int32_t i = 0; i < u->n_channels; i++)
        row[i] -= dy_sum * g->x_zero;
}

// Of a layer with one position, as fully connected ones are.
static void correlate_one(const st_conv_geometry_t *g, int32_t d, const st_update_t *u,
                          int32_t group, int32_t *row) {
    const int8_t *x = u->kept + group * u->n_channels;
    for (int32_t i = 0; i < u->n_channels; i++)
        row[i] = d * (x[i] - g->x_zero);
}

// Of the columns that were brought into the state before the step.
void st_update_columns(const st_update_t *u, st_step_t step, int32_t base, const int32_t *row,
                       int32_t in_column) {
    for (int32_t i = 0; i < u->n_channels; i++) {
        int8_t *column = u->columns->state + (u->columns->table[u->channels[i]] & 0x1fffffffu);
        if (row[i])
            st_update_in_column(u, step, base + u->channels[i], row[i], column + in_column);
    }
}

// dy: of this output channel.
static void update_filter(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                          int32_t oc, int32_t *row) {
    const st_step_t step = st_weight_step(u, oc);
    const int32_t channels = st_group_inputs(g), taps = g->kernel_h * g->kernel_w;
    const int32_t group = g->groups == 1 ? 0 : oc / st_group_outputs(g);
    const int one = taps == 1 && g->in_h * g->in_w == 1 && g->out_h * g->out_w == 1 &&
                    g->pad_h == 0 && g->pad_w == 0;
    if (one && !*dy)
        return;
    int32_t tap[3] = {0, 0, group};
    for (int32_t k = 0; k < taps; k++) {
        const int32_t base = (oc * taps + k) * channels;
        if (one)
            correlate_one(g, *dy, u, group, row);
        else
            correlate(g, dy, u, tap, row);
        if (u->columns)
            st_update_columns(u, step, base, row, k * g->out_c + oc);
        else
            st_update_row(u, step, base, row);
        if (++tap[1] == g->kernel_w) {
            tap[1] = 0;
            tap[0]++;
        }
    }
}

void conv2d_update(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                   int32_t *row) {
    if (u->n_channels)
        for (int32_t oc = u->made.begin; oc < u->made.end; oc++)
            update_filter(g, dy + oc, u, oc, row);
    st_update_biases(g->out_h * g->out_w, g->out_c, dy, u);
}
