#include "conv2d_words.h"
#include <stddef.h>
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
    w->tap = tap; // no initialiser: it would clear the words, too
    w->dy = dy;
    w->from = w->to = 0;
}

// The least byte is that of the first value; behind the last one, x_zero.
ST_HOT static uint32_t word_of(const int8_t *values, int32_t n, uint32_t none) {
    uint32_t word = none;
    for (const int8_t *value = values + n; value > values;)
        word = word << 8 | (uint8_t)(*--value ^ -128);
    return word;
}

// The words of one position; values: those of the chosen channels, or NULL beside the input.
static uint32_t *put_words(const st_words_t *w, const int8_t *values, uint32_t *to) {
    const uint32_t none = (uint32_t)(w->tap->g->x_zero + 128) * 0x01010101u;
    const int32_t n = values ? w->tap->u->n_channels : 0;
    *to++ = word_of(values, st_min(n, ST_WORD_VALUES), none);
    if (words_of(w) == 2)
        *to++ = word_of(values + ST_WORD_VALUES, n - ST_WORD_VALUES, none) & 0xffffffu;
    return to;
}

// The values at position (oy, ox) of dy; NULL where the tap lies beside the input.
static const int8_t *values_at(const st_kernel_tap_t *t, int32_t oy, int32_t ox) {
    const st_conv_geometry_t *g = t->g;
    const int32_t ky = t->number / g->kernel_w, kx = t->number - ky * g->kernel_w;
    const int32_t y = oy * g->stride_h + ky * g->dilation_h - g->pad_h;
    const int32_t x = ox * g->stride_w + kx * g->dilation_w - g->pad_w;
    const int inside = y >= 0 && y < g->in_h && x >= 0 && x < g->in_w;
    return inside ? t->u->kept + (y * g->in_w + x) * t->u->kept_step : NULL;
}

static void fill(st_words_t *w, int32_t from) {
    const st_conv_geometry_t *g = w->tap->g;
    int32_t oy = from / g->out_w, ox = from - oy * g->out_w;
    uint32_t *to = w->x;
    w->from = from;
    w->to = st_min(from + ST_WORDS / words_of(w), g->out_h * g->out_w);
    for (int32_t i = from; i < w->to; i++) {
        to = put_words(w, values_at(w->tap, oy, ox), to);
        if (++ox == g->out_w) {
            ox = 0;
            oy++;
        }
    }
}

void st_words_sums(st_words_t *w, st_range_t channels, int32_t *sums) {
    const st_conv_geometry_t *g = w->tap->g;
    for (int32_t from = 0; from < g->out_h * g->out_w; from = w->to) {
        if (from != w->from || !w->to)
            fill(w, from);
        const st_add_words_t job = {
            .dy = w->dy + from * g->out_c + channels.begin,
            .x = w->x,
            .sums = sums,
            .dy_step = g->out_c,
            .positions = w->to - from,
            .words = words_of(w),
            .out_channels = channels.end - channels.begin,
            .zero = g->x_zero,
            .room = st_sums_room(w->tap->u),
            .add = from > 0,
        };
        st_add_words(&job);
    }
}
