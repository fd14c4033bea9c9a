#include "conv2d_words.h"
#include "add_words.h"
#include "arch.h"
#include "fixedpoint.h"

static int32_t words_of(const st_update_t *u) {
    return u->n_channels <= ST_WORD_VALUES ? 1 : 2;
}

int st_goes_by_words(const st_conv_geometry_t *g, const st_update_t *u) {
    const int some = !ST_SMALL && u->n_channels >= ST_BY_WORDS && u->n_channels <= ST_WORDS_VALUES;
    const int32_t positions = g->out_h * g->out_w;
    return some && g->groups == 1 && positions > 1 && positions <= ST_WORDS >> (words_of(u) - 1) &&
           g->out_c >= ST_WORDS_OUTPUTS && u->row_words >= st_sums_step(u);
}

// The least byte is that of the first value; those behind the last one are the lower ones of
// `none`.
static inline uint32_t word_of(const int8_t *values, int32_t n, uint32_t none) {
    uint32_t word = none;
    while (n > 0)
        word = word << 8 | (uint8_t)values[--n];
    return word ^ 0x80808080u;
}

// Of a row of dy; beside the input stands x_zero. Returns what is behind them.
static __attribute__((noinline)) uint32_t *fill_row(const st_words_t *w, int32_t oy, uint32_t *to) {
    const st_conv_geometry_t *g = w->tap->g;
    const st_update_t *u = w->tap->u;
    const uint32_t none = (uint8_t)g->x_zero * 0x01010101u;
    const int32_t stride = g->stride_w, step = stride * u->kept_step;
    const int32_t y = w->top + oy * g->stride_h, n = u->n_channels;
    const int32_t width = y >= 0 && y < g->in_h ? g->in_w : 0, second = n - ST_WORD_VALUES;
    const int8_t *values = u->kept + (y * g->in_w + w->left) * u->kept_step;
    for (int32_t ox = 0, x = w->left; ox < g->out_w; ox++, x += stride, values += step) {
        const int32_t inside = x >= 0 && x < width;
        *to++ = word_of(values, inside ? st_min(n, ST_WORD_VALUES) : 0, none);
        if (second > 0)
            *to++ = word_of(values + ST_WORD_VALUES, inside ? second : 0, none) & 0xffffffu;
    }
    return to;
}

void st_words_make(st_words_t *w, const st_kernel_tap_t *tap, const int16_t *dy) {
    const st_conv_geometry_t *g = tap->g;
    const int32_t ky = tap->number / g->kernel_w, kx = tap->number - ky * g->kernel_w;
    uint32_t *to = w->x;
    w->tap = tap; // no initialiser: it would clear the words, too
    w->dy = dy;
    w->top = ky * g->dilation_h - g->pad_h;
    w->left = kx * g->dilation_w - g->pad_w;
    for (int32_t oy = 0; oy < g->out_h; oy++)
        to = fill_row(w, oy, to);
}

void st_words_sums(const st_words_t *w, st_range_t channels, int32_t *sums) {
    const st_conv_geometry_t *g = w->tap->g;
    const st_add_words_t job = {
        .dy = w->dy + channels.begin,
        .x = w->x,
        .sums = sums,
        .dy_step = g->out_c,
        .positions = g->out_h * g->out_w,
        .words = words_of(w->tap->u),
        .out_channels = channels.end - channels.begin,
        .zero = g->x_zero,
        .room = st_sums_room(w->tap->u),
    };
    st_add_words(&job);
}
