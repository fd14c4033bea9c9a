#include "conv2d.h"
#include "add_rows.h"
#include "conv2d_few.h"
#include "conv2d_words.h"
#include "dot.h"

// What one window meets: the taps inside the input, channels from `channel` on.
typedef struct {
    st_taps_t y, x;
    int32_t channel, channels;
} st_window_t;

// One window against ST_DOTS filters, `next` apart. Without dilation the taps of a
// kernel row lie side by side in x and in w, so that a row is a single dot product.
static void window_sums(const st_conv_geometry_t *g, const int8_t *x, const int8_t *filter,
                        int32_t next, const st_window_t *w, int32_t sums[ST_DOTS]) {
    const int32_t one_run = g->dilation_w == 1 && g->groups == 1;
    const int32_t runs = one_run ? 1 : w->x.end - w->x.begin;
    const int32_t length = one_run ? (w->x.end - w->x.begin) * w->channels : w->channels;
    int32_t iy = w->y.first;
    for (int32_t ky = w->y.begin; ky < w->y.end; ky++, iy += g->dilation_h) {
        const int8_t *xr = x + (iy * g->in_w + w->x.first) * g->in_c + w->channel;
        const int8_t *wr = filter + (ky * g->kernel_w + w->x.begin) * w->channels;
        for (int32_t run = 0; run < runs; run++) {
            dots_s8(xr, wr, next, length, -g->x_zero, sums);
            xr += g->dilation_w * g->in_c;
            wr += w->channels;
        }
    }
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
    for (int32_t oc = first, end = first + outputs; oc < end; filter += ST_DOTS * filter_size) {
        int32_t sums[ST_DOTS];
        for (int32_t i = 0; i < ST_DOTS; i++)
            sums[i] = 0;
        window_sums(g, x, filter, end - oc > 1 ? filter_size : 0, w, sums);
        for (int32_t i = 0; i < ST_DOTS && oc < end; i++, oc++) {
            const int32_t sum = p->bias[oc] + sums[i] - less;
            const int32_t v = st_requantize(sum, p->requant[oc]) + g->y_zero;
            y[oc] = (int8_t)st_clamp(v, g->act_min, g->act_max);
        }
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
            int32_t sums[ST_DOTS] = {0};
            window_sums(g, x, filter, 0, &w, sums);
            const int32_t sum = bias + sums[0] - less;
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

// Whether every position of one map is read by that of the other, and by no other.
static int is_pointwise(const st_conv_geometry_t *g) {
    return g->kernel_h * g->kernel_w == 1 && g->stride_h * g->stride_w == 1 && g->groups == 1 &&
           g->pad_h == 0 && g->pad_w == 0 && g->in_h == g->out_h && g->in_w == g->out_w;
}

// Gathers what an input position gets: dy times the scale of the weights, for all taps that read
// it. at: of the position; first: output channel that the group begins with.
static void gather_taps(const st_conv_geometry_t *g, const st_conv_params_t *p, const int16_t *dy,
                        const int32_t at[2], int32_t first, st_terms_t *terms) {
    const int32_t channels = terms->n, filter = g->kernel_h * g->kernel_w * channels;
    const int8_t *row = p->weights + first * filter;
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        const int32_t oy = st_output_of(at[0], ky, g->stride_h, g->pad_h, g->dilation_h, g->out_h);
        for (int32_t kx = 0; kx < g->kernel_w; kx++, row += channels) {
            const int32_t ox =
                st_output_of(at[1], kx, g->stride_w, g->pad_w, g->dilation_w, g->out_w);
            if (oy < 0 || ox < 0)
                continue;
            st_factors_t f = {dy + (oy * g->out_w + ox) * g->out_c + first,
                              p->scale_q15 + first,
                              row,
                              1,
                              filter,
                              st_group_outputs(g)};
            st_terms_gather(terms, &f);
        }
    }
}

// What the trained columns change of it.
static void add_columns(const st_conv_geometry_t *g, const st_conv_params_t *p, const int16_t *dy,
                        const int32_t at[2], int32_t *row) {
    int32_t tap = 0;
    for (int32_t ky = 0; ky < g->kernel_h; ky++) {
        const int32_t oy = st_output_of(at[0], ky, g->stride_h, g->pad_h, g->dilation_h, g->out_h);
        for (int32_t kx = 0; kx < g->kernel_w; kx++, tap++) {
            const int32_t ox =
                st_output_of(at[1], kx, g->stride_w, g->pad_w, g->dilation_w, g->out_w);
            const int16_t *d = dy + (oy * g->out_w + ox) * g->out_c;
            for (int32_t ic = 0; oy >= 0 && ox >= 0 && ic < g->in_c; ic++) {
                const int8_t *column = st_column(p->columns, ic);
                if (column)
                    row[ic] += column_change(g, p, d, p->weights + tap * g->in_c + ic,
                                             column + tap * g->out_c);
            }
        }
    }
}

static void input_position(const st_conv_geometry_t *g, const st_conv_params_t *p,
                           const int16_t *dy, const int32_t at[2], int32_t *row) {
    const int32_t channels = st_group_inputs(g);
    st_terms_t terms;
    for (int32_t group = 0; group < g->groups; group++) {
        st_terms_begin(&terms, row + group * channels, channels, g->w_zero);
        gather_taps(g, p, dy, at, group * st_group_outputs(g), &terms);
        st_terms_add(&terms);
    }
    if (p->columns)
        add_columns(g, p, dy, at, row);
}

static void pointwise_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                 const int16_t *dy, int32_t *row, st_emit_t *dx) {
    const int32_t all = g->in_h * g->in_w * g->in_c;
    st_terms_t terms;
    for (int32_t at = 0; at < all; at += g->in_c, dy += g->out_c) {
        st_factors_t f = {dy, p->scale_q15, p->weights, 1, g->in_c, g->out_c};
        st_terms_begin(&terms, row, g->in_c, g->w_zero);
        st_terms_gather(&terms, &f);
        st_terms_add(&terms);
        st_emit_row(dx, at, row, g->in_c);
    }
}

void conv2d_grad_input(const st_conv_geometry_t *g, const st_conv_params_t *p, const int16_t *dy,
                       int32_t *row, st_emit_t *dx) {
    if (!ST_SMALL && is_pointwise(g) && !p->columns) {
        pointwise_grad_input(g, p, dy, row, dx);
        return;
    }
    for (int32_t iy = 0; iy < g->in_h; iy++) {
        for (int32_t ix = 0; ix < g->in_w; ix++) {
            const int32_t at[2] = {iy, ix};
            input_position(g, p, dy, at, row);
            st_emit_row(dx, (iy * g->in_w + ix) * g->in_c, row, g->in_c);
        }
    }
}

static st_factors_t first_run(const st_conv_geometry_t *g, const st_update_t *u, const int16_t *dy,
                              const int32_t at[2], const st_range_t ranges[2]) {
    const int32_t oy = ranges[0].begin, ox = ranges[1].begin;
    const int32_t pixel = (at[0] + oy * g->stride_h) * g->in_w + at[1] + ox * g->stride_w;
    const int32_t step = g->groups * u->kept_step;
    return (st_factors_t){
        .dy = dy + (oy * g->out_w + ox) * g->out_c,
        .row = u->kept + pixel * step,
        .dy_step = g->out_c,
        .step = g->stride_w * step,
        .n = ranges[1].end - ox,
    };
}

static st_kernel_tap_t tap_of(const st_conv_geometry_t *g, const st_update_t *u, const int16_t *dy,
                              int32_t ky, int32_t kx) {
    const int32_t at[2] = {ky * g->dilation_h - g->pad_h, kx * g->dilation_w - g->pad_w};
    const st_range_t rows = st_outputs_inside(at[0], g->stride_h, g->in_h, g->out_h);
    const st_range_t columns = st_outputs_inside(at[1], g->stride_w, g->in_w, g->out_w);
    st_kernel_tap_t t = {
        .g = g, .u = u, .number = ky * g->kernel_w + kx, .runs = rows.end - rows.begin};
    t.first = first_run(g, u, dy, at, (st_range_t[2]){rows, columns});
    t.dy_step = g->out_w * g->out_c;
    t.row_step = g->stride_h * g->in_w * g->groups * u->kept_step;
    t.base = t.number * st_group_inputs(g);
    t.filter = g->kernel_h * g->kernel_w * st_group_inputs(g);
    t.one_position = is_pointwise(g) && g->in_h * g->in_w == 1;
    t.sums_biases = is_pointwise(g) && u->bias;
    if (t.first.n == g->out_w && t.row_step == g->out_w * t.first.step) {
        t.first.n *= t.runs;
        t.runs = 1;
    }
    return t;
}

// sum += of a run, dy times one channel; returns the sum of dy.
ST_HOT static int32_t add_channel(const st_factors_t *f, int32_t channel, int32_t *sum) {
    const int16_t *dy = f->dy;
    const int8_t *x = f->row + channel;
    const int32_t dy_step = f->dy_step, step = f->step;
    int32_t total = 0, products = 0;
    for (int32_t n = f->n; n > 0; n--, dy += dy_step, x += step) {
        total += *dy;
        products += *dy * *x;
    }
    *sum += products;
    return total;
}

// Of so few channels that gathering would cost more than it saves.
static int32_t correlate_few(const st_kernel_tap_t *t, st_factors_t *run, int32_t *row) {
    const int32_t channels = t->u->n_channels;
    int32_t total = 0;
    for (int32_t i = 0; i < channels; i++)
        row[i] = 0;
    for (int32_t i = 0; i < t->runs; i++, run->dy += t->dy_step, run->row += t->row_step) {
        for (int32_t c = 1; c < channels; c++)
            add_channel(run, c, &row[c]);
        total += add_channel(run, 0, &row[0]);
    }
    for (int32_t i = 0; i < channels; i++)
        row[i] -= total * t->g->x_zero;
    return total;
}

// Of a layer with one position, as fully connected ones are.
static int32_t correlate_one(const st_kernel_tap_t *t, const st_factors_t *run, int32_t *row) {
    const int32_t d = *run->dy, zero = t->g->x_zero;
    for (int32_t i = 0; i < t->u->n_channels; i++)
        row[i] = d * (run->row[i] - zero);
    return d;
}

// row[n] = sum over all positions of one output channel, whose first run is given, of dy * (kept -
// x_zero). Returns the sum of dy. The run is of no use then.
static int32_t correlate(const st_kernel_tap_t *t, st_factors_t *run, int32_t *row) {
    if (t->one_position)
        return correlate_one(t, run, row);
    if (t->u->n_channels < ST_BY_LISTS)
        return correlate_few(t, run, row);
    st_terms_t terms;
    st_terms_begin(&terms, row, t->u->kept_step, t->g->x_zero);
    const int32_t n = run->n;
    const int16_t *dy = run->dy;
    const int8_t *x = run->row;
    for (int32_t left = t->runs; left > 0; left--) {
        st_terms_gather(&terms, run);
        run->dy = dy += t->dy_step;
        run->row = x += t->row_step;
        run->n = n;
    }
    st_terms_add(&terms);
    return terms.total;
}

// Of the columns that were brought into the state before the step.
void st_update_columns(const st_update_t *u, st_step_t step, int32_t base, const int32_t *row,
                       int32_t in_column) {
    if (u->velocity) {
        st_update_velocities(u, step, base, row);
        return;
    }
    for (int32_t i = 0; i < u->n_channels; i++) {
        int8_t *column = u->columns->state + (u->columns->table[u->channels[i]] & 0x1fffffffu);
        st_update_slot_in_column(u, step, (st_slot_t){base, i}, row[i], column + in_column);
    }
}

// Sums of a tap's output channels, `step` apart.
static st_weight_rows_t rows_of(const st_kernel_tap_t *t, int32_t step) {
    return (st_weight_rows_t){
        .u = t->u, .base = t->base, .filter = t->filter, .next = -1, .step = step};
}

static void update_columns(const st_kernel_tap_t *t, int32_t oc, const int32_t *sums) {
    const int32_t base = t->base + oc * t->filter;
    st_update_columns(t->u, st_weight_step(t->u, oc), base, sums, t->number * t->g->out_c + oc);
}

// The weights of output channels.
static void update_weights(const st_kernel_tap_t *t, st_weight_rows_t *rows, st_range_t channels,
                           int32_t *sums) {
    for (int32_t i = 0; !ST_HEAD && t->u->norms && i < channels.end - channels.begin; i++)
        st_add_norms(t->u->norms, sums + i * rows->step, t->u->n_channels);
    if (!ST_HEAD && t->u->columns) {
        for (int32_t oc = channels.begin; oc < channels.end; oc++, sums += rows->step)
            update_columns(t, oc, sums);
        return;
    }
    if (rows->next != channels.begin || rows->sums != sums) {
        rows->next = channels.begin;
        rows->sums = sums;
        st_begin_rows(rows);
    }
    st_update_rows(rows, channels.end - channels.begin);
}

// The sums of one output channel; its bias learns. Returns 0, and makes none, where the error of a
// layer with one position is 0.
static int sum_channel(const st_kernel_tap_t *t, int32_t oc, int32_t *row) {
    const int32_t group = t->g->groups == 1 ? 0 : oc / st_group_outputs(t->g);
    const st_factors_t *first = &t->first;
    st_factors_t run = {first->dy + oc, first->scale, first->row + group * t->u->kept_step,
                        first->dy_step, first->step,  first->n};
    if (t->one_position && !*run.dy)
        return 0;
    const int32_t total = correlate(t, &run, row);
    if (t->sums_biases)
        st_update_bias(t->u, oc, total);
    return 1;
}

// The biases of output channels whose sums of dy nobody knows.
static void update_biases(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                          int32_t end) {
    st_update_t some = *u;
    some.made.end = end;
    st_update_biases(g->out_h * g->out_w, g->out_c, dy, &some);
}

// As many output channels as can go by rows of errors; returns the next one.
static ST_ONCE int32_t update_few(const st_kernel_tap_t *t, const int16_t *dy, int32_t *row) {
    st_tile_t tile = {t->u->made.begin, 0, row};
    st_weight_rows_t rows = rows_of(t, st_sums_room(t->u));
    while ((tile.count = st_few_at_once(t, dy, tile.oc)) > 0) {
        const st_range_t channels = {tile.oc, tile.oc + tile.count};
        st_few_sums(t, &tile);
        update_weights(t, &rows, channels, row);
        tile.oc = channels.end;
    }
    if (t->sums_biases)
        update_biases(t->g, dy, t->u, tile.oc);
    return tile.oc;
}

// Whether an output channel has terms, and all have room in the list.
static int are_listed_at_once(const st_kernel_tap_t *t) {
    const int32_t n = t->first.n;
    return !ST_SMALL && t->runs == 1 && n > 0 && n <= ST_TERMS && t->g->groups == 1 &&
           t->u->n_channels >= ST_BY_LISTS;
}

// The sums of output channels whose errors all have room in the list; their biases learn. Not
// inlined: the list is not to lie on the stack beside that of correlate.
static ST_ONCE void sum_listed(const st_kernel_tap_t *t, st_range_t some, int32_t *sums,
                               int32_t step) {
    const st_neighbours_t neighbours = {some.end - some.begin, step};
    st_factors_t run = t->first;
    st_terms_t terms;
    run.dy += some.begin;
    st_terms_begin(&terms, sums, t->u->kept_step, t->g->x_zero);
    st_terms_sum(&terms, &run, neighbours);
    for (int32_t i = some.begin; t->sums_biases && i < some.end; i++, sums += step)
        st_update_bias(t->u, i, sums[step - 1]);
}

// The sums of output channels, `step` elements apart; their biases learn.
static void sum_channels(const st_kernel_tap_t *t, st_range_t some, int32_t *sums, int32_t step) {
    if (are_listed_at_once(t))
        sum_listed(t, some, sums, step);
    else
        for (int32_t i = some.begin; i < some.end; i++, sums += step)
            sum_channel(t, i, sums);
}

// One output channel after the other.
static void update_each(const st_kernel_tap_t *t, int32_t oc, int32_t *row) {
    st_weight_rows_t rows = rows_of(t, 0);
    for (; oc < t->u->made.end; oc++)
        if (sum_channel(t, oc, row))
            update_weights(t, &rows, (st_range_t){oc, oc + 1}, row);
}

// As many output channels at once as row has room for.
static ST_ONCE void update_rest(const st_kernel_tap_t *t, int32_t oc, int32_t *row) {
    const int32_t step = st_sums_step(t->u), room = t->u->row_words / step;
    st_weight_rows_t rows = rows_of(t, step);
    if (t->one_position || room < 2) {
        update_each(t, oc, row);
        return;
    }
    for (st_range_t some = {oc, 0}; some.begin < t->u->made.end; some.begin = some.end) {
        some.end = st_min(some.begin + room, t->u->made.end);
        sum_channels(t, some, row, step);
        update_weights(t, &rows, some, row);
    }
}

// By words of values. The sums of dy come with the first tap.
static ST_ONCE void update_words(const st_kernel_tap_t *t, const int16_t *dy, int32_t *row) {
    const st_update_t *u = t->u;
    const int32_t step = st_sums_step(u), room = u->row_words / step;
    st_weight_rows_t rows = rows_of(t, step);
    st_words_t words;
    st_words_make(&words, t, dy);
    for (st_range_t some = u->made; some.begin < u->made.end; some.begin = some.end) {
        some.end = st_min(some.begin + room, u->made.end);
        st_words_sums(&words, some, row);
        for (int32_t i = some.begin; !t->number && u->bias && i < some.end; i++)
            st_update_bias(u, i, row[(i - some.begin + 1) * step - 1]);
        update_weights(t, &rows, some, row);
    }
}

static void update_tap(const st_kernel_tap_t *t, const int16_t *dy, int32_t *row) {
    if (st_goes_by_words(t->g, t->u))
        update_words(t, dy, row);
    else
        update_rest(t, ST_SMALL ? t->u->made.begin : update_few(t, dy, row), row);
}

ST_ONCE void conv2d_update(const st_conv_geometry_t *g, const int16_t *dy, const st_update_t *u,
                           int32_t *row) {
    for (int32_t ky = 0; u->n_channels && ky < g->kernel_h; ky++) {
        for (int32_t kx = 0; kx < g->kernel_w; kx++) {
            const st_kernel_tap_t tap = tap_of(g, u, dy, ky, kx);
            update_tap(&tap, dy, row);
        }
    }
    if (!u->n_channels || !(is_pointwise(g) || st_goes_by_words(g, u)))
        update_biases(g, dy, u, u->made.end);
}
