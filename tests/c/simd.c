// The fast kernels beside the portable ones: random shapes, values, factors and alignments, in
// buffers of exactly their size, so that the sanitizers see every byte out of place.
//
//   simd KIND LEVEL SEED COUNT    runs COUNT cases of a kind with vectors of a level
//   (simd_level.h);
//                                 prints the first one whose bytes differ
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "depthwise_conv2d.h"
#include "fully_connected.h"
#include "random.h"
#include "simd.h"

/// Random cases ///

static uint32_t seed, drawn;

static uint32_t draw(void) {
    return st_random(seed, drawn++);
}

static int32_t within(int32_t lo, int32_t hi) {
    return lo + (int32_t)(draw() % (uint32_t)(hi - lo + 1));
}

static int one_in(int32_t n) {
    return within(1, n) == 1;
}

static void *blocks[64];
static int block_count;

// A buffer that begins anywhere its elements may and ends where its memory does.
static void *buffer(size_t bytes, size_t element) {
    const size_t offset = (size_t)within(0, 15) / element * element;
    uint8_t *block = malloc(offset + bytes + !bytes);
    if (!block || block_count == 64)
        exit(3);
    blocks[block_count++] = block;
    return block + offset;
}

static void free_all(void) {
    while (block_count)
        free(blocks[--block_count]);
}

// Random elements; or extremes only, or mostly zeros.
static void *random_elements(int32_t n, size_t element) {
    uint8_t *to = buffer((size_t)n * element, element);
    const int32_t kind = within(0, 3);
    for (int32_t i = 0; i < n; i++) {
        int32_t v = (int32_t)draw();
        if (kind == 1 || (kind == 2 && v & 7))
            v = kind == 2 ? 0 : (v & 1 ? -1 : 1) * (element == 1 ? 127 : 32767) - (v >> 1 & 1);
        memcpy(to + (size_t)i * element, &v, element);
    }
    return to;
}

static int8_t *random_bytes(int32_t n) {
    return random_elements(n, 1);
}

static int16_t *random_errors(int32_t n) {
    int16_t *dy = random_elements(n, 2);
    const int32_t limit = one_in(2) ? 32767 : within(1, 32767);
    for (int32_t i = 0; i < n; i++)
        dy[i] = (int16_t)st_clamp(dy[i], -limit, limit);
    return dy;
}

static void *copy_of(const void *from, int32_t n, size_t element) {
    void *to = buffer((size_t)n * element, element);
    memcpy(to, from, (size_t)n * element);
    return to;
}

static void same(const void *a, const void *b, int32_t n, size_t element, const char *what) {
    if (memcmp(a, b, (size_t)n * element) == 0)
        return;
    printf("seed %u: %s differ\n", (unsigned)seed, what);
    exit(1);
}

static int32_t axis_length(void) {
    return one_in(6) ? within(8, 20) : within(1, 9);
}

// One axis of a window that meets the input.
static void random_axis(int32_t in, int32_t *kernel, int32_t *stride, int32_t *dilation,
                        int32_t *pad, int32_t *out) {
    *kernel = one_in(3) ? 1 : one_in(2) ? 3 : within(1, 5);
    *stride = within(1, 3);
    *dilation = one_in(4) ? within(1, 3) : 1;
    *pad = one_in(3) ? 0 : within(0, (*kernel - 1) * *dilation);
    const int32_t most = (in - 1 + *pad) / *stride + 1;
    *out = one_in(3) ? within(1, most) : most;
}

static st_conv_geometry_t random_geometry(void) {
    st_conv_geometry_t g = {.in_h = axis_length(), .in_w = axis_length(), .groups = 1};
    if (one_in(10))
        g.in_h = g.in_w = 1;
    random_axis(g.in_h, &g.kernel_h, &g.stride_h, &g.dilation_h, &g.pad_h, &g.out_h);
    random_axis(g.in_w, &g.kernel_w, &g.stride_w, &g.dilation_w, &g.pad_w, &g.out_w);
    g.in_c = within(1, 40);
    g.out_c = within(1, 40);
    g.x_zero = one_in(3) ? -128 : within(-128, 127);
    g.y_zero = within(-128, 127);
    g.act_min = one_in(2) ? -128 : within(-128, 127);
    g.act_max = one_in(2) ? 127 : within(g.act_min, 127);
    g.w_zero = one_in(4) ? within(-128, 128) : 0;
    return g;
}

static void in_groups(st_conv_geometry_t *g) {
    g->groups = within(1, 4);
    g->in_c = g->groups * within(1, 20);
    g->out_c = g->groups * within(1, 20);
}

static void depthwise(st_conv_geometry_t *g) {
    g->out_c = g->in_c * (one_in(5) ? within(1, 3) : 1);
}

static int32_t in_count(const st_conv_geometry_t *g) {
    return g->in_h * g->in_w * g->in_c;
}

static int32_t out_count(const st_conv_geometry_t *g) {
    return g->out_h * g->out_w * g->out_c;
}

static int32_t random_multiplier(void) {
    return one_in(8) ? INT32_MAX : one_in(8) ? 1 << 30 : within(1 << 30, INT32_MAX);
}

// most: the largest shift. Layers whose factors all shift to the right have a way of their own.
static st_requant_t random_requant(int32_t most) {
    const int32_t least = one_in(2) ? -31 : st_min(most, -14);
    return (st_requant_t){random_multiplier(), within(least, most)};
}

static st_conv_params_t random_params(const st_conv_geometry_t *g, int32_t filter_size) {
    int32_t *bias = buffer((size_t)g->out_c * 4, 4);
    st_requant_t *requant = buffer((size_t)g->out_c * 8, 4);
    uint16_t *scale = buffer((size_t)g->out_c * 2, 2);
    const int32_t range = one_in(4) ? 1 << 30 : 1 << 14;
    const int32_t most = one_in(4) ? 30 : one_in(4) ? 0 : within(-14, -1);
    for (int32_t oc = 0; oc < g->out_c; oc++) {
        bias[oc] = within(-range, range);
        requant[oc] = random_requant(most);
        scale[oc] = (uint16_t)(one_in(4) ? 1 << 15 : within(1, 1 << 15));
    }
    return (st_conv_params_t){random_bytes(filter_size), bias, requant, scale, NULL, ST_ONE_CORE};
}

/// Forward ///

typedef void (*forward_t)(const st_conv_geometry_t *, const st_conv_params_t *, const int8_t *,
                          int8_t *);

static void check_forward(const st_conv_geometry_t *g, int32_t weights, forward_t portable,
                          forward_t fast) {
    const st_conv_params_t p = random_params(g, weights);
    const int8_t *x = random_bytes(in_count(g));
    int8_t *y = buffer((size_t)out_count(g), 1), *z = buffer((size_t)out_count(g), 1);
    portable(g, &p, x, y);
    fast(g, &p, x, z);
    same(y, z, out_count(g), 1, "outputs");
}

static int32_t conv_weights(const st_conv_geometry_t *g) {
    return g->kernel_h * g->kernel_w * st_group_inputs(g) * g->out_c;
}

static int32_t depthwise_weights(const st_conv_geometry_t *g) {
    return g->kernel_h * g->kernel_w * g->out_c;
}

static void conv(void) {
    st_conv_geometry_t g = random_geometry();
    if (one_in(4))
        in_groups(&g);
    check_forward(&g, conv_weights(&g), conv2d_s8, conv2d_s8_simd);
}

// Of 1x1, on maps of one position and of several tiles.
static st_conv_geometry_t pointwise(void) {
    st_conv_geometry_t g = random_geometry();
    g.kernel_h = g.kernel_w = g.stride_h = g.stride_w = g.dilation_h = g.dilation_w = 1;
    g.pad_h = g.pad_w = 0;
    g.in_h = g.out_h = within(1, 9);
    g.in_w = g.out_w = within(1, 9);
    g.in_c = within(1, 80);
    g.out_c = within(1, 80);
    return g;
}

// Of whole fours of channels mostly, on a whole map or on some rows of it, as strips do; now and
// then more filters than have room at once.
static void pointwise_conv(void) {
    st_conv_geometry_t g = pointwise();
    if (!one_in(4))
        g.in_c = 4 * within(1, 40);
    if (one_in(50))
        g.out_c = within(4000, 6000);
    g.pad_h = one_in(2) ? 0 : -within(0, 3);
    g.in_h = g.out_h - g.pad_h + (one_in(2) ? 0 : within(0, 3));
    check_forward(&g, conv_weights(&g), conv2d_s8, conv2d_s8_simd);
}

// Filters of which few have room at once, and some that have none.
static void long_conv(void) {
    st_conv_geometry_t g = random_geometry();
    g.kernel_h = g.kernel_w = g.stride_h = g.stride_w = 1;
    g.in_h = g.out_h = within(1, 2);
    g.in_w = g.out_w = within(1, 3);
    g.pad_h = g.pad_w = 0;
    g.in_c = one_in(5) ? 65535 : within(5000, 34000);
    check_forward(&g, conv_weights(&g), conv2d_s8, conv2d_s8_simd);
}

static void depthwise_conv(void) {
    st_conv_geometry_t g = random_geometry();
    depthwise(&g);
    if (one_in(50)) { // more than there is room for
        g.kernel_h = g.kernel_w = 13;
        g.pad_h = g.pad_w = 12;
    }
    check_forward(&g, depthwise_weights(&g), depthwise_conv2d_s8, depthwise_conv2d_s8_simd);
}

static void fully_connected(void) {
    st_conv_geometry_t g = random_geometry();
    const st_conv_geometry_t row = {
        1, within(1, 6), within(1, 90), 1,         0,         within(1, 40), 1, 1, 1, 1, 1, 1, 0,
        0, g.x_zero,     g.y_zero,      g.act_min, g.act_max, g.w_zero,      1};
    g = row;
    g.out_w = g.in_w;
    check_forward(&g, conv_weights(&g), fully_connected_s8, fully_connected_s8_simd);
}

static const int8_t *packed_weights(const st_conv_geometry_t *g) {
    const int32_t size = fully_connected_packed_rows(g) * fully_connected_packed_row(g);
    int32_t *words = buffer((size_t)size, 4);
    for (int32_t i = 0; i < size / 4; i++) {
        const int in_start = i % (ST_SIXES + g->in_c / 2 * 3) < ST_SIXES;
        words[i] = in_start ? within(-(1 << 20), 1 << 20) : 0;
        for (int32_t byte = 0; byte < 4 && !in_start; byte++) // none stands for -128
            words[i] |= (int32_t)((uint32_t)within(1, 255) << 8 * byte);
    }
    return (const int8_t *)words;
}

static void packed(void) {
    st_conv_geometry_t g = random_geometry();
    g.in_h = g.out_h = g.kernel_h = g.kernel_w = 1;
    g.in_w = g.out_w = within(1, 3);
    g.in_c = 4 * within(1, 40);
    g.w_zero = 0;
    st_conv_params_t p = random_params(&g, 0);
    p.weights = packed_weights(&g);
    int32_t *x_pairs = buffer((size_t)g.in_c * 6, 4);
    const int8_t *x = random_bytes(in_count(&g));
    int8_t *y = buffer((size_t)out_count(&g), 1), *z = buffer((size_t)out_count(&g), 1);
    fully_connected_packed_s8(&g, &p, x, x_pairs, y);
    fully_connected_packed_s8_simd(&g, &p, x, x_pairs, z);
    same(y, z, out_count(&g), 1, "outputs");
}

/// Columns ///

// Some channels as they came, some in the state, some in the store.
static st_columns_t *random_columns(const st_conv_geometry_t *g) {
    const int32_t size = g->kernel_h * g->kernel_w * g->out_c;
    st_columns_t *c = buffer(sizeof(*c), sizeof(void *));
    uint32_t *table = buffer((size_t)g->in_c * 4, 4);
    *c = (st_columns_t){table, random_bytes(size * g->in_c), random_bytes(size * g->in_c),
                        one_in(2), g->in_c};
    for (int32_t ic = 0; ic < g->in_c; ic++) {
        const uint32_t space = one_in(3) ? 7 : one_in(2) ? 4 : 1;
        table[ic] = space << 29 | (uint32_t)(ic * size);
    }
    return c;
}

static void columns(void) {
    st_conv_geometry_t g = random_geometry();
    if (one_in(3)) { // a fully connected layer
        g.in_h = g.out_h = g.kernel_h = g.kernel_w = 1;
        g.out_w = g.in_w;
        g.stride_w = 1;
        g.pad_h = g.pad_w = 0;
    }
    st_conv_params_t p = random_params(&g, conv_weights(&g));
    p.columns = random_columns(&g);
    const int8_t *x = random_bytes(in_count(&g));
    int8_t *filter = buffer((size_t)(g.kernel_h * g.kernel_w * g.in_c), 1);
    int8_t *y = buffer((size_t)out_count(&g), 1), *z = buffer((size_t)out_count(&g), 1);
    conv2d_columns_s8(&g, &p, x, filter, y);
    conv2d_columns_s8_simd(&g, &p, x, filter, z);
    same(y, z, out_count(&g), 1, "outputs");
}

/// Error tensors ///

typedef struct {
    int16_t exponent, shift;
    st_emit_t emit;
} tensor_t;

// A tensor of n elements that accumulates or not, in any state. Twice the same.
static void open_twice(int32_t n, tensor_t *a, tensor_t *b) {
    a->exponent = (int16_t)within(-20, 20);
    a->shift = (int16_t)(one_in(4) ? within(0, 31) : within(0, 12));
    *b = *a;
    const int accumulate = one_in(2);
    const int32_t limit = one_in(3) ? 32767 : one_in(3) ? within(1, 40) : within(100, 32767);
    const int32_t base = a->exponent + within(-35, 8);
    int16_t *data = random_errors(n);
    for (int32_t i = 0; i < n; i++)
        data[i] = (int16_t)st_clamp(data[i], -limit, limit);
    a->emit =
        (st_emit_t){.state = {&a->exponent, &a->shift}, .data = data, .count = n, .limit = limit};
    b->emit = a->emit;
    b->emit.data = copy_of(data, n, 2);
    b->emit.state = (st_error_state_t){&b->exponent, &b->shift};
    st_emit_begin(&a->emit, base, accumulate);
    st_emit_begin(&b->emit, base, accumulate);
}

static void same_tensors(tensor_t *a, tensor_t *b, int32_t n) {
    st_emit_end(&a->emit);
    st_emit_end(&b->emit);
    same(a->emit.data, b->emit.data, n, 2, "errors");
    same(&a->exponent, &b->exponent, 1, 2, "exponents");
    same(&a->shift, &b->shift, 1, 2, "shifts");
    same(&a->emit.peak, &b->emit.peak, 1, 4, "peaks");
}

static void emit(void) {
    const int32_t rows = within(1, 6), n = within(1, 70), bits = within(1, 31);
    tensor_t a, b;
    open_twice(rows * n, &a, &b);
    int32_t *sums = buffer((size_t)n * 4, 4);
    for (int32_t row = 0; row < rows; row++) {
        for (int32_t i = 0; i < n; i++)
            sums[i] = (int32_t)draw() >> (32 - bits) >> (one_in(9) ? 0 : 3 < bits ? 3 : 0);
        st_emit_row(&a.emit, row * n, sums, n);
        st_emit_row_simd(&b.emit, row * n, sums, n);
    }
    same_tensors(&a, &b, rows * n);
}

static void add_errors(void) {
    const int32_t n = within(1, 400);
    tensor_t a, b;
    open_twice(n, &a, &b);
    const int16_t *dy = random_errors(n);
    error_add(dy, n, &a.emit);
    error_add_simd(dy, n, &b.emit);
    same_tensors(&a, &b, n);
}

static void masks(void) {
    const int32_t n = within(1, 300), lo = within(-129, 127), hi = within(-128, 128);
    const int8_t *y = random_bytes(n);
    uint8_t *bits = buffer((size_t)(n + 7) / 8, 1), *fast = buffer((size_t)(n + 7) / 8, 1);
    clamp_mask_s8(y, n, lo, hi, bits);
    clamp_mask_s8_simd(y, n, lo, hi, fast);
    same(bits, fast, (n + 7) / 8, 1, "masks");
    int16_t *dy = random_errors(n), *dz = copy_of(dy, n, 2);
    const uint8_t *passes = random_elements((n + 7) / 8, 1);
    apply_mask(dy, n, passes);
    apply_mask_simd(dz, n, passes);
    same(dy, dz, n, 2, "masked errors");
}

/// Gradients ///

typedef void (*grad_t)(const st_conv_geometry_t *, const st_conv_params_t *, const int16_t *,
                       int32_t *, st_emit_t *);

static void check_grad(const st_conv_geometry_t *g, int32_t weights, int may_have_columns,
                       grad_t portable, grad_t fast) {
    st_conv_params_t p = random_params(g, weights);
    const int16_t *dy = random_errors(out_count(g));
    int32_t *row = buffer((size_t)g->in_c * 8, 4);
    if (may_have_columns && g->groups == 1 && one_in(4))
        p.columns = random_columns(g);
    tensor_t a, b;
    open_twice(in_count(g), &a, &b);
    portable(g, &p, dy, row, &a.emit);
    fast(g, &p, dy, row, &b.emit);
    same_tensors(&a, &b, in_count(g));
}

static void conv_grad(void) {
    st_conv_geometry_t g = random_geometry();
    if (one_in(8))
        in_groups(&g);
    check_grad(&g, conv_weights(&g), 1, conv2d_grad_input, conv2d_grad_input_simd);
}

static void pointwise_grad(void) {
    const st_conv_geometry_t g = pointwise();
    check_grad(&g, conv_weights(&g), 1, conv2d_grad_input, conv2d_grad_input_simd);
}

static void depthwise_grad(void) {
    st_conv_geometry_t g = random_geometry();
    depthwise(&g);
    check_grad(&g, depthwise_weights(&g), 0, depthwise_conv2d_grad_input,
               depthwise_conv2d_grad_input_simd);
}

/// Updates ///

static st_rate_t *random_rates(int32_t n, int32_t exponent) {
    st_rate_t *rate = buffer((size_t)n * 4, 2);
    for (int32_t i = 0; i < n; i++)
        rate[i] = (st_rate_t){(uint16_t)(one_in(20) ? 0 : within(1 << 15, 65535)),
                              (int16_t)(exponent + within(-2, 2))};
    return rate;
}

// Channels below `of`, n of them: ascending, neighbours all or for a while, or now and then in any
// order.
static uint16_t *random_channels(int32_t n, int32_t of) {
    uint16_t *channels = buffer((size_t)n * 2, 2);
    const int any = one_in(10);
    const int32_t apart = one_in(2) ? 1 : n; // places where there may be a gap
    for (int32_t i = 0, next = 0; i < n; i++, next++) {
        next = i % apart && !one_in(20) ? next : within(next, of - (n - i));
        channels[i] = (uint16_t)(any ? within(0, of - 1) : next);
    }
    return channels;
}

static st_update_t random_update(const st_conv_geometry_t *g, int32_t weights, int32_t inputs,
                                 int is_depthwise) {
    st_update_t u = {.n_channels = one_in(3) ? inputs : within(0, inputs), .seed = draw()};
    u.made = (st_range_t){0, g->out_c};
    u.learning_rate = (st_rate_t){(uint16_t)within(1 << 15, 65535), (int16_t)within(-30, 0)};
    u.error_exponent = within(-30, 0);
    u.weight_rate = random_rates(g->out_c, within(-40, 30));
    if (!one_in(4)) {
        u.bias = random_elements(g->out_c, 4);
        u.bias_rate = random_rates(g->out_c, within(-40, 30));
    }
    if (!u.n_channels)
        return u;
    u.channels = random_channels(u.n_channels, inputs);
    u.kept_step = u.n_channels + (is_depthwise || u.n_channels == inputs ? 0 : within(0, 8));
    u.row_words = st_sums_room(&u) * within(1, 20);
    u.kept = random_bytes(g->in_h * g->in_w * g->groups * u.kept_step);
    u.weights = random_bytes(weights);
    u.residual = one_in(2) ? random_bytes(weights) : NULL;
    return u;
}

typedef void (*update_t)(const st_conv_geometry_t *, const int16_t *, const st_update_t *,
                         int32_t *);

// The weights of all chosen channels are in columns of the state instead.
static void into_columns(const st_conv_geometry_t *g, st_update_t *u, st_update_t *v) {
    const int32_t size = g->kernel_h * g->kernel_w * g->out_c;
    st_columns_t *a = random_columns(g), *b = copy_of(a, 1, sizeof(*a));
    uint32_t *table = buffer((size_t)g->in_c * 4, 4);
    for (int32_t ic = 0; ic < g->in_c; ic++)
        table[ic] = 1u << 29 | (uint32_t)(ic * size);
    a->table = b->table = table;
    b->state = copy_of(a->state, size * g->in_c, 1);
    u->columns = a;
    v->columns = b;
    u->weights = v->weights = NULL;
    u->residual = v->residual = NULL;
}

static void check_update(const st_conv_geometry_t *g, int32_t weights, int32_t inputs,
                         update_t portable, update_t fast) {
    st_update_t u = random_update(g, weights, inputs, portable == depthwise_conv2d_update);
    const int16_t *dy = random_errors(out_count(g));
    int32_t *row = buffer((size_t)u.row_words * 4, 4);
    st_update_t v = u;
    v.weights = u.weights ? copy_of(u.weights, weights, 1) : NULL;
    v.residual = u.residual ? copy_of(u.residual, weights, 1) : NULL;
    v.bias = u.bias ? copy_of(u.bias, g->out_c, 4) : NULL;
    if (portable == conv2d_update && g->groups == 1 && u.n_channels && one_in(4))
        into_columns(g, &u, &v);
    portable(g, dy, &u, row);
    fast(g, dy, &v, row);
    if (u.columns)
        same(u.columns->state, v.columns->state, g->kernel_h * g->kernel_w * g->out_c * g->in_c, 1,
             "columns");
    if (u.weights)
        same(u.weights, v.weights, weights, 1, "weights");
    if (u.residual)
        same(u.residual, v.residual, weights, 1, "residuals");
    if (u.bias)
        same(u.bias, v.bias, g->out_c, 4, "biases");
}

static void conv_update(void) {
    st_conv_geometry_t g = random_geometry();
    if (one_in(4))
        in_groups(&g);
    check_update(&g, conv_weights(&g), st_group_inputs(&g), conv2d_update, conv2d_update_simd);
}

static void pointwise_update(void) {
    const st_conv_geometry_t g = pointwise();
    check_update(&g, conv_weights(&g), g.in_c, conv2d_update, conv2d_update_simd);
}

// Of 3x3, on a map that may take several tiles (depthwise_sums.c).
static void wide_axis(int32_t *in, int32_t *kernel, int32_t *stride, int32_t *pad, int32_t *out) {
    *in = within(4, 70);
    *kernel = 3;
    *stride = within(1, 5);
    *pad = within(0, 2);
    const int32_t most = (*in - 1 + *pad) / *stride + 1;
    *out = one_in(3) ? within(1, most) : most;
}

static void depthwise_update(void) {
    st_conv_geometry_t g = random_geometry();
    if (one_in(4)) {
        wide_axis(&g.in_h, &g.kernel_h, &g.stride_h, &g.pad_h, &g.out_h);
        wide_axis(&g.in_w, &g.kernel_w, &g.stride_w, &g.pad_w, &g.out_w);
        g.dilation_h = g.dilation_w = 1;
        g.in_c = within(1, 6);
    }
    depthwise(&g);
    check_update(&g, depthwise_weights(&g), g.in_c, depthwise_conv2d_update,
                 depthwise_conv2d_update_simd);
}

/// Elementwise ///

typedef void (*binary_t)(const st_elementwise_t *, const int8_t *, const int8_t *, int8_t *);

// An operand that is broadcast along some axes; returns its size.
static int32_t random_strides(const int32_t count[ST_AXES], int32_t stride[ST_AXES]) {
    const int dense = one_in(2);
    int32_t size = 1;
    for (int i = ST_AXES - 1; i >= 0; i--) {
        const int broadcast = !dense && one_in(3);
        stride[i] = broadcast ? 0 : size;
        size *= broadcast ? 1 : count[i];
    }
    return size;
}

// Now and then every other value of the innermost axis, as no broadcast has it.
static int32_t spread(const int32_t count[ST_AXES], int32_t stride[ST_AXES], int32_t size) {
    if (!one_in(10))
        return size;
    for (int i = 0; i < ST_AXES; i++)
        stride[i] *= 2;
    (void)count;
    return 2 * size;
}

static void elementwise(void) {
    static const binary_t kernels[3][2] = {
        {add_s8, add_s8_simd}, {sub_s8, sub_s8_simd}, {mul_s8, mul_s8_simd}};
    const int32_t kind = within(0, 2);
    st_elementwise_t p = {.count = {within(1, 3), within(1, 4), within(1, 5), within(1, 40)}};
    const int32_t a_size = spread(p.count, p.a_stride, random_strides(p.count, p.a_stride));
    const int32_t b_size = spread(p.count, p.b_stride, random_strides(p.count, p.b_stride));
    const int32_t n = p.count[0] * p.count[1] * p.count[2] * p.count[3];
    p.a_zero = within(-128, 127), p.b_zero = within(-128, 127), p.y_zero = within(-128, 127);
    p.a_scale = random_requant(0), p.b_scale = random_requant(0);
    p.y_scale = random_requant(kind == 2 ? 30 : 0);
    p.act_min = within(-128, 127), p.act_max = within(p.act_min, 127);
    int8_t *a = random_bytes(a_size);
    const int8_t *b = random_bytes(b_size);
    int8_t *y = buffer((size_t)n, 1), *z = buffer((size_t)n, 1);
    kernels[kind][0](&p, a, b, y);
    if (a_size == n && p.a_stride[3] == 1) // in place
        kernels[kind][1](&p, memcpy(z, a, (size_t)n), b, z);
    else
        kernels[kind][1](&p, a, b, z);
    same(y, z, n, 1, "outputs");
}

static const struct {
    const char *name;
    void (*run)(void);
} kinds[] = {
    {"conv", conv},
    {"pointwise_conv", pointwise_conv},
    {"long_conv", long_conv},
    {"depthwise_conv", depthwise_conv},
    {"fully_connected", fully_connected},
    {"packed", packed},
    {"columns", columns},
    {"emit", emit},
    {"add_errors", add_errors},
    {"masks", masks},
    {"conv_grad", conv_grad},
    {"pointwise_grad", pointwise_grad},
    {"depthwise_grad", depthwise_grad},
    {"conv_update", conv_update},
    {"pointwise_update", pointwise_update},
    {"depthwise_update", depthwise_update},
    {"elementwise", elementwise},
};

int main(int argc, char **argv) {
    if (argc != 5 || st_simd_set(atoi(argv[2])) != atoi(argv[2]))
        return 2;
    const uint32_t first = (uint32_t)strtoul(argv[3], NULL, 10);
    const uint32_t count = (uint32_t)strtoul(argv[4], NULL, 10);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        for (seed = first; strcmp(argv[1], kinds[i].name) == 0 && seed - first < count; seed++) {
            drawn = 0;
            kinds[i].run();
            free_all();
        }
    return 0;
}
