#include "conv2d_words.h"
#include "add_words.h"
#include "arch.h"
#include "fixedpoint.h"

#define FEWEST 3 // channels

int st_goes_by_words(const st_conv_geometry_t *g, const st_update_t *u) {
    const int some = u->n_channels >= FEWEST && u->n_channels <= ST_WORDS_VALUES;
    return some && g->groups == 1 && g->out_h * g->out_w > 1 && u->row_words >= st_words_step(u);
}

static int32_t words_of(const st_words_t *w) {
    return w->tap->u->n_channels <= ST_WORD_VALUES ? 1 : 2;
}

void st_words_begin(st_words_t *w, const st_kernel_tap_t *tap, const int16_t *dy) {
    const st_conv_geometry_t *g = tap->g;
    const int32_t ky = tap->number / g->kernel_w, kx = tap->number - ky * g->kernel_w;
    w->tap = tap; // no initialiser: it would clear the words, too
    w->dy = dy;
    w->top = ky * g->dilation_h - g->pad_h;
    w->left = kx * g->dilation_w - g->pad_w;
    w->from = w->to = 0;
}

// The least byte is that of the first value; those behind the last one are the lower ones of
// `none`.
static inline uint32_t word_of(const int8_t *values, int32_t n, uint32_t none) {
    uint32_t word = none;
    while (n > 0)
        word = word << 8 | (uint8_t)values[--n];
    return word ^ 0x80808080u;
}

// Of `count` positions of a row of dy, from ox on; beside the input stands x_zero.
static __attribute__((noinline)) void fill_row(st_words_t *w, int32_t oy, int32_t ox,
                                               int32_t count) {
    const st_conv_geometry_t *g = w->tap->g;
    const st_update_t *u = w->tap->u;
    const uint32_t none = (uint8_t)g->x_zero * 0x01010101u;
    const int32_t stride = g->stride_w, step = stride * u->kept_step;
    const int32_t y = w->top + oy * g->stride_h, n = u->n_channels;
    const int32_t width = y >= 0 && y < g->in_h ? g->in_w : 0, second = n - ST_WORD_VALUES;
    uint32_t *to = w->x + (w->to - w->from) * words_of(w);
    int32_t x = w->left + ox * stride;
    const int8_t *values = u->kept + (y * g->in_w + x) * u->kept_step;
    for (w->to += count; count > 0; count--, x += stride, values += step) {
        const int32_t inside = x >= 0 && x < width;
        *to++ = word_of(values, inside ? st_min(n, ST_WORD_VALUES) : 0, none);
        if (second > 0)
            *to++ = word_of(values + ST_WORD_VALUES, inside ? second : 0, none) & 0xffffffu;
    }
}

static void fill_words(st_words_t *w) {
    const st_conv_geometry_t *g = w->tap->g;
    const int32_t end = st_min(w->to + ST_WORDS / words_of(w), g->out_h * g->out_w);
    int32_t oy = w->to / g->out_w, ox = w->to - oy * g->out_w;
    for (w->from = w->to; w->to < end; oy++, ox = 0)
        fill_row(w, oy, ox, st_min(g->out_w - ox, end - w->to));
}

ST_ONCE void st_words_sums(st_words_t *w, st_range_t channels, int32_t *sums) {
    const st_conv_geometry_t *g = w->tap->g;
    const int32_t all = g->out_h * g->out_w;
    if (w->to - w->from < all)
        w->to = 0;
    do {
        if (w->to < all)
            fill_words(w);
        const st_add_words_t job = {
            .dy = w->dy + w->from * g->out_c + channels.begin,
            .x = w->x,
            .sums = sums,
            .dy_step = g->out_c,
            .positions = w->to - w->from,
            .words = words_of(w),
            .out_channels = channels.end - channels.begin,
            .zero = g->x_zero,
            .room = st_sums_room(w->tap->u),
            .add = w->from > 0,
        };
        st_add_words(&job);
    } while (w->to < all);
}
