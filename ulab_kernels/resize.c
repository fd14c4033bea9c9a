#include "resize.h"

// Where both axes' weights are ones, as in the nearest neighbour, it is a copy.
static int8_t mean_of_four(const int8_t *low, const int8_t *high, int32_t step,
                           const st_tap_pair_t *ty, const st_tap_pair_t *tx) {
    const int32_t above = low[0] * tx->low_weight + low[step] * tx->high_weight;
    const int32_t below = high[0] * tx->low_weight + high[step] * tx->high_weight;
    const int32_t sum = above * ty->low_weight + below * ty->high_weight;
    const int32_t one = ST_RESIZE_ONE * ST_RESIZE_ONE;
    return (int8_t)(sum < 0 ? -((one / 2 - sum) >> 20) : (sum + one / 2) >> 20);
}

void resize_s8(const st_resize_t *p, const int8_t *x, int8_t *y) {
    const int32_t stride = p->in_w * p->channels;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        const st_tap_pair_t *ty = &p->rows[oy];
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const st_tap_pair_t *tx = &p->columns[ox];
            const int8_t *low = x + ty->low * stride + tx->low * p->channels;
            const int8_t *high = x + ty->high * stride + tx->low * p->channels;
            const int32_t step = (tx->high - tx->low) * p->channels;
            for (int32_t c = 0; c < p->channels; c++)
                *y++ = mean_of_four(low + c, high + c, step, ty, tx);
        }
    }
}

// The weight that an output gives to input `at`.
static int32_t weight_of(const st_tap_pair_t *tap, int32_t at) {
    return (tap->low == at ? tap->low_weight : 0) + (tap->high == at ? tap->high_weight : 0);
}

// The first output from `from` on that may be made of input `at`.
static int32_t first_of(const st_tap_pair_t *taps, int32_t from, int32_t n, int32_t at) {
    while (from < n && taps[from].high < at)
        from++;
    return from;
}

static void add_row_weighted(const st_resize_t *p, const int16_t *dy, int32_t row_weight,
                             const int32_t at[2], int32_t *row) {
    for (int32_t ox = at[1]; ox < p->out_w && p->columns[ox].low <= at[0]; ox++) {
        const int32_t product = row_weight * weight_of(&p->columns[ox], at[0]);
        const int32_t weight = (product + (1 << 11)) >> (20 - ST_RESIZE_GRAD_LOG2);
        for (int32_t c = 0; weight && c < p->channels; c++)
            row[c] += dy[ox * p->channels + c] * weight;
    }
}

void resize_grad_input(const st_resize_t *p, const int16_t *dy, int32_t *row, st_emit_t *dx) {
    for (int32_t iy = 0, top = 0; iy < p->in_h; iy++) {
        top = first_of(p->rows, top, p->out_h, iy);
        for (int32_t ix = 0, left = 0; ix < p->in_w; ix++) {
            left = first_of(p->columns, left, p->out_w, ix);
            const int32_t at[2] = {ix, left};
            for (int32_t c = 0; c < p->channels; c++)
                row[c] = 0;
            for (int32_t oy = top; oy < p->out_h && p->rows[oy].low <= iy; oy++)
                add_row_weighted(p, dy + oy * p->out_w * p->channels, weight_of(&p->rows[oy], iy),
                                 at, row);
            st_emit_row(dx, (iy * p->in_w + ix) * p->channels, row, p->channels);
        }
    }
}
