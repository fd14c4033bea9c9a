#include "depthwise_sums.h"
#include "arch.h"
#include "fixedpoint.h"

#define KERNEL 3
#define MOST_COLUMNS 16
#define MOST_ERRORS 112
#define MOST_INPUTS 192 // three rows of MOST_COLUMNS, for strides up to 4

// Both lie on the stack. An error: dy in the lower half, the place of its first input in the upper.
typedef struct {
    uint32_t errors[MOST_ERRORS];
    uint32_t inputs[MOST_INPUTS / 4]; // bytes, plus 128
} st_errors_and_inputs_t;

// So that as few tiles as go have about the same size.
static int32_t even_parts(int32_t n, int32_t most) {
    const int32_t parts = (n + most - 1) / most;
    return (n + parts - 1) / parts;
}

int st_tile_depthwise(const st_conv_geometry_t *g, st_tiles_t *t) {
    if (ST_SMALL || g->kernel_h != KERNEL || g->kernel_w != KERNEL || g->dilation_h != 1 ||
        g->dilation_w != 1 || g->stride_h > 4 || g->stride_w > 4)
        return 0;
    t->g = g;
    t->columns = even_parts(g->out_w, MOST_COLUMNS);
    t->pitch = (t->columns - 1) * g->stride_w + KERNEL;
    const int32_t rows = (MOST_INPUTS / t->pitch - KERNEL) / g->stride_h + 1;
    t->rows = even_parts(g->out_h, st_min(rows, MOST_ERRORS / t->columns));
    return 1;
}

// What lies outside the input.
static void fill(uint32_t *inputs, int32_t n, int32_t zero) {
    const uint32_t four = (uint32_t)(zero + 128) * 0x01010101u;
    ST_UNROLL(4)
    for (int32_t i = 0; i < n; i += 4)
        *inputs++ = four;
}

// A part of a map, and where it goes. Steps in elements.
typedef struct {
    int32_t rows, columns;
    int32_t step, row_end; // row_end: from behind a row to the next
    uint32_t place, place_step, place_row_end;
} st_block_t;

ST_HOT static void copy_inputs(const st_block_t *b, const int8_t *x, uint8_t *to) {
    const int32_t columns = b->columns, step = b->step;
    to += b->place;
    for (int32_t rows = b->rows; rows > 0; rows--) {
        for (const uint8_t *end = to + columns; to < end; x += step)
            *to++ = (uint8_t)(*x + 128);
        to += b->place_row_end;
        x += b->row_end;
    }
}

ST_HOT static uint32_t *take_errors(const st_block_t *b, const int16_t *dy, uint32_t *errors) {
    const int32_t step = b->step;
    const uint32_t place_step = b->place_step << 16;
    uint32_t place = b->place << 16;
    for (int32_t rows = b->rows; rows > 0; rows--) {
        for (int32_t n = b->columns; n > 0; n--, dy += step, place += place_step) {
            const uint32_t error = (uint16_t)*dy;
            if (error)
                *errors++ = place | error;
        }
        place += b->place_row_end << 16;
        dy += b->row_end;
    }
    return errors;
}

// A row of the kernel.
ST_HOT static void add_products(const uint32_t *errors, const uint32_t *end, const uint8_t *inputs,
                                uint32_t sums[KERNEL]) {
    uint32_t left = 0, middle = 0, right = 0;
    while (errors < end) {
        const uint32_t error = *errors++;
        const uint32_t dy = (uint32_t)(int16_t)error;
        const uint8_t *x = inputs + (error >> 16);
        left += dy * x[0];
        middle += dy * x[1];
        right += dy * x[2];
    }
    sums[0] += left;
    sums[1] += middle;
    sums[2] += right;
}

// What the inputs are more than x - x_zero. Nothing behind a ReLU, whose zero point is -128.
static void take_zero_off(const uint32_t *errors, const uint32_t *end, int32_t zero,
                          uint32_t sums[9]) {
    uint32_t sum = 0;
    for (; zero && errors < end; errors++)
        sum += (uint32_t)(int16_t)*errors;
    for (int32_t k = 0; zero && k < KERNEL * KERNEL; k++)
        sums[k] -= sum * (uint32_t)zero;
}

static uint32_t *load_errors(const st_tiles_t *t, const st_channel_t *c, const int32_t at[2],
                             uint32_t *errors) {
    const st_conv_geometry_t *g = t->g;
    const int32_t columns = st_min(t->columns, g->out_w - at[1]);
    const int32_t rows = st_min(t->rows, g->out_h - at[0]);
    const st_block_t b = {.rows = rows,
                          .columns = columns,
                          .step = c->dy_step,
                          .row_end = (g->out_w - columns) * c->dy_step,
                          .place_step = (uint32_t)g->stride_w,
                          .place_row_end =
                              (uint32_t)(g->stride_h * t->pitch - columns * g->stride_w)};
    return take_errors(&b, c->dy + (at[0] * g->out_w + at[1]) * c->dy_step, errors);
}

// Of n inputs from `first` on, which of them there are among `in`.
static st_range_t there_are(int32_t first, int32_t n, int32_t in) {
    const int32_t begin = st_clamp(-first, 0, n);
    return (st_range_t){begin, st_clamp(in - first, begin, n)};
}

static void load_inputs(const st_tiles_t *t, const st_channel_t *c, const int32_t at[2],
                        st_errors_and_inputs_t *tile) {
    const st_conv_geometry_t *g = t->g;
    const int32_t y = at[0] * g->stride_h - g->pad_h, x = at[1] * g->stride_w - g->pad_w;
    const int32_t n = (st_min(t->rows, g->out_h - at[0]) - 1) * g->stride_h + KERNEL;
    const st_range_t rows = there_are(y, n, g->in_h), columns = there_are(x, t->pitch, g->in_w);
    const int32_t width = columns.end - columns.begin;
    const st_block_t b = {.rows = rows.end - rows.begin,
                          .columns = width,
                          .step = c->x_step,
                          .row_end = (g->in_w - width) * c->x_step,
                          .place = (uint32_t)(rows.begin * t->pitch + columns.begin),
                          .place_row_end = (uint32_t)(t->pitch - width)};
    if (b.rows * width < n * t->pitch)
        fill(tile->inputs, n * t->pitch, g->x_zero);
    if (b.rows * width > 0)
        copy_inputs(&b, c->x + ((y + rows.begin) * g->in_w + x + columns.begin) * c->x_step,
                    (uint8_t *)tile->inputs);
}

// The outputs from `at` on.
static void add_tile(const st_tiles_t *t, const st_channel_t *c, const int32_t at[2],
                     uint32_t sums[9]) {
    st_errors_and_inputs_t tile;
    const uint32_t *end = load_errors(t, c, at, tile.errors);
    if (end == tile.errors)
        return;
    load_inputs(t, c, at, &tile);
    for (int32_t ky = 0; ky < KERNEL; ky++)
        add_products(tile.errors, end, (const uint8_t *)tile.inputs + ky * t->pitch,
                     sums + ky * KERNEL);
    take_zero_off(tile.errors, end, t->g->x_zero + 128, sums);
}

void st_depthwise_sums(const st_tiles_t *t, const st_channel_t *c, uint32_t sums[9]) {
    for (int32_t k = 0; k < KERNEL * KERNEL; k++)
        sums[k] = 0;
    int32_t at[2];
    for (at[0] = 0; at[0] < t->g->out_h; at[0] += t->rows) {
        for (at[1] = 0; at[1] < t->g->out_w; at[1] += t->columns)
            add_tile(t, c, at, sums);
    }
}
