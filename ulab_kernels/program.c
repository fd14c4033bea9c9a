#include "program.h"

#include "activation.h"
#include "add.h"
#include "avg_pool.h"
#include "depthwise_conv2d.h"
#include "fully_connected.h"
#include "random.h"
#include "softmax.h"

// The image header's words that the machine needs; the rest is for Python.
enum { WORD_MAGIC, WORD_VERSION, WORD_SIZE, WORD_CRC, WORD_OPS, WORD_OP_COUNT };

enum {
    OP_CONV2D = 1,
    OP_DEPTHWISE_CONV2D = 2,
    OP_AVG_POOL = 3,
    OP_ADD = 4,
    OP_SOFTMAX = 5,
    OP_FULLY_CONNECTED = 6,
    OP_CLAMP_MASK = 16,
    OP_KEEP_CHANNELS = 17,
    OP_LOSS = 32,
    OP_APPLY_MASK = 33,
    OP_ERROR_ADD = 34,
    OP_CONV2D_GRAD_INPUT = 35,
    OP_DEPTHWISE_CONV2D_GRAD_INPUT = 36,
    OP_AVG_POOL_GRAD_INPUT = 37,
    OP_SOFTMAX_GRAD_INPUT = 38,
    OP_CONV2D_UPDATE = 48,
    OP_DEPTHWISE_CONV2D_UPDATE = 49,
};

// First word of an operator: opcode, flags, words in all.
enum { FLAG_TRAINING_ONLY = 1, FLAG_INFERENCE_ONLY = 2, FLAG_ACCUMULATE = 4 };
typedef struct {
    uint8_t opcode, flags;
    uint16_t words;
} st_op_head_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, x, weights, bias, requant, y;
} st_op_conv_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, x, y;
} st_op_pool_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, a, b, y;
    int32_t count;
} st_op_add_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, x, y;
} st_op_softmax_t;

typedef struct {
    st_op_head_t head;
    st_ref_t y, bits;
    int32_t count, lo, hi;
} st_op_clamp_mask_t;

typedef struct {
    st_op_head_t head;
    st_ref_t x, channels, kept;
    int32_t positions, chosen, of;
} st_op_keep_t;

typedef struct {
    st_op_head_t head;
    st_ref_t dy, bits;
    int32_t count;
} st_op_apply_mask_t;

// What every operator that writes an error tensor ends with.
typedef struct {
    st_ref_t data, exponent_at, shift_at, dy_exponent_at, row;
    int32_t limit, exponent; // of the sums, relative to dy's
} st_error_out_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, logits;
    st_error_out_t out;
} st_op_loss_t;

typedef struct {
    st_op_head_t head;
    st_ref_t dy;
    int32_t count;
    st_error_out_t out;
} st_op_error_add_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy, weights, scale_q15;
    st_error_out_t out;
} st_op_conv_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy;
    int32_t count_log2;
    st_error_out_t out;
} st_op_pool_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, y, dy;
    st_error_out_t out;
} st_op_softmax_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy, dy_exponent_at;
    st_ref_t kept, channels;
    int32_t chosen;
    st_ref_t weights, residual, bias, weight_rate, bias_rate, row;
    int32_t layer;
} st_op_update_t;

/// References ///

typedef struct {
    const st_machine_t *machine;
    st_status_t status;
} st_context_t;

// Bytes of an array of n elements; impossible counts become a size that no buffer has.
static size_t bytes_of(int64_t n, size_t element) {
    return n < 0 || n > INT32_MAX / 8 ? SIZE_MAX : (size_t)n * element;
}

// The address behind a reference to `size` bytes, or NULL with the context's status set.
static void *place(st_context_t *c, st_ref_t ref, size_t size, size_t align) {
    const uint32_t space = ref >> 30, offset = ref & 0x3fffffffu;
    if (space != ST_NOWHERE) {
        const st_buffer_t *b = &c->machine->buffer[space];
        if (offset <= b->size && size <= b->size - offset && (offset & (align - 1)) == 0)
            return b->data + offset;
    }
    c->status = ST_BAD_REF;
    return NULL;
}

// Shapes, tables and operators must not change while they are being used: only the image is safe.
static const void *place_fixed(st_context_t *c, st_ref_t ref, size_t size, size_t align) {
    if (ref >> 30 != ST_IN_IMAGE) {
        c->status = ST_BAD_REF;
        return NULL;
    }
    return place(c, ref, size, align);
}

static void *place_writable(st_context_t *c, st_ref_t ref, size_t size, size_t align) {
    if (ref >> 30 == ST_IN_IMAGE) {
        c->status = ST_BAD_REF;
        return NULL;
    }
    return place(c, ref, size, align);
}

static int is_nowhere(st_ref_t ref) {
    return ref >> 30 == ST_NOWHERE;
}

static void *place_in_arena(st_context_t *c, st_ref_t ref, size_t size, size_t align) {
    if (ref >> 30 != ST_IN_ARENA) {
        c->status = ST_BAD_REF;
        return NULL;
    }
    return place(c, ref, size, align);
}

#define PLACE(type, ref, n) ((const type *)place(c, ref, bytes_of(n, sizeof(type)), sizeof(type)))
#define PLACE_STRUCT(type, ref) ((const type *)place_fixed(c, ref, sizeof(type), 4))
#define PLACE_FIXED(type, ref, n)                                                                  \
    ((const type *)place_fixed(c, ref, bytes_of(n, sizeof(type)), sizeof(type)))
#define PLACE_OUT(type, ref, n)                                                                    \
    ((type *)place_writable(c, ref, bytes_of(n, sizeof(type)), sizeof(type)))
#define PLACE_ARENA(type, ref, n)                                                                  \
    ((type *)place_in_arena(c, ref, bytes_of(n, sizeof(type)), sizeof(type)))

static st_control_t *control_of(st_context_t *c) {
    return (st_control_t *)c->machine->buffer[ST_IN_STATE].data;
}

/// Geometry ///

static int in_range(int32_t v, int32_t lo, int32_t hi) {
    return v >= lo && v <= hi;
}

static int dims_ok(const int32_t *v, int n, int32_t hi) {
    for (int i = 0; i < n; i++)
        if (!in_range(v[i], 1, hi))
            return 0;
    return 1;
}

static int64_t in_count(const st_conv_geometry_t *g) {
    return (int64_t)g->in_h * g->in_w * g->in_c;
}

static int64_t out_count(const st_conv_geometry_t *g) {
    return (int64_t)g->out_h * g->out_w * g->out_c;
}

// Every window must meet the input: first tap at or before its end, last tap at or behind its
// start. The kernels rely on it.
static int windows_ok(const st_conv_geometry_t *g) {
    return in_range(g->pad_h, 0, (g->kernel_h - 1) * g->dilation_h) &&
           in_range(g->pad_w, 0, (g->kernel_w - 1) * g->dilation_w) &&
           (g->out_h - 1) * g->stride_h - g->pad_h < g->in_h &&
           (g->out_w - 1) * g->stride_w - g->pad_w < g->in_w;
}

static int values_ok(const st_conv_geometry_t *g) {
    return in_range(g->x_zero, -128, 127) && in_range(g->y_zero, -128, 127) &&
           in_range(g->act_min, -128, 127) && in_range(g->act_max, g->act_min, 127);
}

static const st_conv_geometry_t *geometry(st_context_t *c, st_ref_t ref) {
    const st_conv_geometry_t *g = PLACE_STRUCT(st_conv_geometry_t, ref);
    if (!g)
        return NULL;
    if (!dims_ok(&g->in_h, 6, ST_MAX_LENGTH) || !dims_ok(&g->kernel_h, 6, ST_MAX_KERNEL) ||
        !windows_ok(g) || !values_ok(g) || in_count(g) > INT32_MAX / 8 ||
        out_count(g) > INT32_MAX / 8) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return g;
}

// Pooling keeps the channels, and its windows have no holes that could miss the input.
static const st_conv_geometry_t *pool_geometry(st_context_t *c, st_ref_t ref) {
    const st_conv_geometry_t *g = geometry(c, ref);
    if (g && (g->out_c != g->in_c || g->dilation_h != 1 || g->dilation_w != 1 ||
              g->kernel_h * g->kernel_w > ST_AVG_POOL_MAX_WINDOW)) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return g;
}

static int is_depthwise(const st_op_head_t *h) {
    return h->opcode == OP_DEPTHWISE_CONV2D || h->opcode == OP_DEPTHWISE_CONV2D_GRAD_INPUT ||
           h->opcode == OP_DEPTHWISE_CONV2D_UPDATE;
}

static int64_t weight_count(const st_conv_geometry_t *g, const st_op_head_t *h) {
    const int64_t taps = (int64_t)g->kernel_h * g->kernel_w * g->out_c;
    return is_depthwise(h) ? taps : taps * g->in_c;
}

static int is_row_of_samples(const st_conv_geometry_t *g) {
    return g->in_h == 1 && g->out_h == 1 && g->in_w == g->out_w;
}

// What the kind of convolution asks of its shape, beyond geometry().
static int shape_ok(st_context_t *c, const st_conv_geometry_t *g, const st_op_head_t *h) {
    if (g && is_depthwise(h) && g->out_c % g->in_c)
        c->status = ST_BAD_OPERATOR;
    if (g && h->opcode == OP_FULLY_CONNECTED && !is_row_of_samples(g))
        c->status = ST_BAD_OPERATOR;
    return c->status == ST_OK;
}

/// Forward ///

static const st_requant_t *requant_table(st_context_t *c, st_ref_t ref, int32_t n) {
    const st_requant_t *table = (const st_requant_t *)PLACE_FIXED(int32_t, ref, 2 * (int64_t)n);
    for (int32_t i = 0; table && i < n; i++)
        if (!in_range(table[i].shift, -31, 30))
            c->status = ST_BAD_OPERATOR;
    return table;
}

static void run_conv(st_context_t *c, const st_op_conv_t *op) {
    const st_conv_geometry_t *g = geometry(c, op->geometry);
    if (!shape_ok(c, g, &op->head))
        return;
    const st_conv_params_t p = {
        .weights = PLACE(int8_t, op->weights, weight_count(g, &op->head)),
        .bias = PLACE(int32_t, op->bias, g->out_c),
        .requant = requant_table(c, op->requant, g->out_c),
    };
    const int8_t *x = PLACE(int8_t, op->x, in_count(g));
    int8_t *y = PLACE_OUT(int8_t, op->y, out_count(g));
    if (c->status)
        return;
    if (is_depthwise(&op->head))
        depthwise_conv2d_s8(g, &p, x, y);
    else if (op->head.opcode == OP_FULLY_CONNECTED)
        fully_connected_s8(g, &p, x, y);
    else
        conv2d_s8(g, &p, x, y);
}

static void run_avg_pool(st_context_t *c, const st_op_pool_t *op) {
    const st_conv_geometry_t *g = pool_geometry(c, op->geometry);
    if (!g)
        return;
    const int8_t *x = PLACE(int8_t, op->x, in_count(g));
    int8_t *y = PLACE_OUT(int8_t, op->y, out_count(g));
    if (c->status == ST_OK)
        avg_pool_s8(g, x, y);
}

static int add_params_ok(const st_add_params_t *p) {
    return in_range(p->a_zero, -128, 127) && in_range(p->b_zero, -128, 127) &&
           in_range(p->y_zero, -128, 127) && in_range(p->a_scale.shift, -31, 0) &&
           in_range(p->b_scale.shift, -31, 0) && in_range(p->y_scale.shift, -31, 0);
}

static void run_add(st_context_t *c, const st_op_add_t *op) {
    const st_add_params_t *p = PLACE_STRUCT(st_add_params_t, op->params);
    const int8_t *a = PLACE(int8_t, op->a, op->count);
    const int8_t *b = PLACE(int8_t, op->b, op->count);
    int8_t *y = PLACE_OUT(int8_t, op->y, op->count);
    if (p && !add_params_ok(p))
        c->status = ST_BAD_OPERATOR;
    if (c->status == ST_OK)
        add_s8(p, a, b, y, op->count);
}

static const st_softmax_params_t *softmax_params(st_context_t *c, st_ref_t ref) {
    const st_softmax_params_t *p = PLACE_STRUCT(st_softmax_params_t, ref);
    if (p &&
        (!in_range(p->rows, 1, 65536) || !in_range(p->depth, 1, ST_SOFTMAX_MAX_DEPTH) ||
         p->multiplier < 0 || !in_range(p->left_shift, 0, 31) || !in_range(p->diff_min, -255, 0))) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return p;
}

static void run_softmax(st_context_t *c, const st_op_softmax_t *op) {
    const st_softmax_params_t *p = softmax_params(c, op->params);
    if (!p)
        return;
    const int8_t *x = PLACE(int8_t, op->x, (int64_t)p->rows * p->depth);
    int8_t *y = PLACE_OUT(int8_t, op->y, (int64_t)p->rows * p->depth);
    if (c->status == ST_OK)
        softmax_s8(p, x, y);
}

static void run_clamp_mask(st_context_t *c, const st_op_clamp_mask_t *op) {
    const int8_t *y = PLACE(int8_t, op->y, op->count);
    uint8_t *bits = PLACE_OUT(uint8_t, op->bits, ((int64_t)op->count + 7) / 8);
    if (c->status == ST_OK)
        clamp_mask_s8(y, op->count, op->lo, op->hi, bits);
}

// The chosen channels, all of them below `of`. Not in the arena, where kernels write.
static const uint16_t *channel_list(st_context_t *c, st_ref_t ref, int32_t n, int32_t of) {
    if (ref >> 30 == ST_IN_ARENA)
        c->status = ST_BAD_REF;
    const uint16_t *index = PLACE(uint16_t, ref, n);
    for (int32_t i = 0; index && i < n; i++)
        if (index[i] >= of)
            c->status = ST_BAD_OPERATOR;
    return index;
}

static void run_keep_channels(st_context_t *c, const st_op_keep_t *op) {
    const st_channels_t channels = {channel_list(c, op->channels, op->chosen, op->of), op->chosen,
                                    op->of};
    const int8_t *x = PLACE(int8_t, op->x, (int64_t)op->positions * op->of);
    int8_t *kept = PLACE_ARENA(int8_t, op->kept, (int64_t)op->positions * op->chosen);
    if (c->status == ST_OK)
        keep_channels_s8(x, op->positions, &channels, kept);
}

/// Backward ///

static int error_exponent(st_context_t *c, st_ref_t at) {
    if (is_nowhere(at))
        return 0;
    const int16_t *exponent = PLACE(int16_t, at, 1);
    return exponent ? *exponent : 0;
}

// Opens the error tensor of `count` elements that an operator writes.
static st_emit_t open_error(st_context_t *c, const st_error_out_t *out, const st_op_head_t *h,
                            int64_t count) {
    st_emit_t e = {
        .state = {PLACE_OUT(int16_t, out->exponent_at, 1), PLACE_OUT(int16_t, out->shift_at, 1)},
        .data = PLACE_OUT(int16_t, out->data, count),
        .count = (int32_t)count,
        .limit = out->limit,
    };
    const int base = error_exponent(c, out->dy_exponent_at) + st_clamp(out->exponent, -256, 256);
    if (!in_range(out->limit, 1, 32767) || !in_range(out->exponent, -256, 256))
        c->status = ST_BAD_OPERATOR;
    if (c->status == ST_OK)
        st_emit_begin(&e, base, h->flags & FLAG_ACCUMULATE);
    return e;
}

static void run_loss(st_context_t *c, const st_op_loss_t *op) {
    const st_softmax_params_t *p = softmax_params(c, op->params);
    if (!p)
        return;
    st_control_t *control = control_of(c);
    const int8_t *logits = PLACE(int8_t, op->logits, p->depth);
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->depth);
    st_emit_t e = open_error(c, &op->out, &op->head, p->depth);
    if (!in_range(control->label, 0, p->depth - 1))
        c->status = ST_BAD_LABEL;
    if (c->status)
        return;
    // One sample's gradient may be a thousand times the next one's: find its scale anew. All that
    // is made from it is in proportion, so there the last step's shifts fit.
    e.shift = 0;
    const st_loss_t loss = softmax_cross_entropy(p, logits, control->label, row, &e);
    control->loss_q16 = loss.loss_q16;
    control->predicted = loss.predicted;
    st_emit_end(&e);
}

static void run_apply_mask(st_context_t *c, const st_op_apply_mask_t *op) {
    int16_t *dy = PLACE_OUT(int16_t, op->dy, op->count);
    const uint8_t *bits = PLACE(uint8_t, op->bits, ((int64_t)op->count + 7) / 8);
    if (c->status == ST_OK)
        apply_mask(dy, op->count, bits);
}

static void run_error_add(st_context_t *c, const st_op_error_add_t *op) {
    const int16_t *dy = PLACE(int16_t, op->dy, op->count);
    st_emit_t e = open_error(c, &op->out, &op->head, op->count);
    if (c->status)
        return;
    error_add(dy, op->count, &e);
    st_emit_end(&e);
}

static void run_conv_grad_input(st_context_t *c, const st_op_conv_grad_t *op) {
    const st_conv_geometry_t *g = geometry(c, op->geometry);
    if (!shape_ok(c, g, &op->head))
        return;
    const st_conv_params_t p = {
        .weights = PLACE(int8_t, op->weights, weight_count(g, &op->head)),
        .scale_q15 = PLACE(uint16_t, op->scale_q15, g->out_c),
    };
    const int depthwise = is_depthwise(&op->head);
    const int16_t *dy = PLACE(int16_t, op->dy, out_count(g));
    int32_t *row = PLACE_OUT(int32_t, op->out.row, (int64_t)g->in_c * (1 + depthwise));
    st_emit_t e = open_error(c, &op->out, &op->head, in_count(g));
    if (c->status)
        return;
    if (depthwise)
        depthwise_conv2d_grad_input(g, &p, dy, row, &e);
    else
        conv2d_grad_input(g, &p, dy, row, &e);
    st_emit_end(&e);
}

static void run_avg_pool_grad_input(st_context_t *c, const st_op_pool_grad_t *op) {
    const st_conv_geometry_t *g = pool_geometry(c, op->geometry);
    if (!g)
        return;
    const int16_t *dy = PLACE(int16_t, op->dy, out_count(g));
    int32_t *row = PLACE_OUT(int32_t, op->out.row, g->in_c);
    st_emit_t e = open_error(c, &op->out, &op->head, in_count(g));
    if (!in_range(op->count_log2, 0, 12))
        c->status = ST_BAD_OPERATOR;
    if (c->status)
        return;
    avg_pool_grad_input(g, op->count_log2, dy, row, &e);
    st_emit_end(&e);
}

static void run_softmax_grad_input(st_context_t *c, const st_op_softmax_grad_t *op) {
    const st_softmax_params_t *p = softmax_params(c, op->params);
    if (!p)
        return;
    const int64_t count = (int64_t)p->rows * p->depth;
    const int8_t *y = PLACE(int8_t, op->y, count);
    const int16_t *dy = PLACE(int16_t, op->dy, count);
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->depth);
    st_emit_t e = open_error(c, &op->out, &op->head, count);
    if (c->status)
        return;
    softmax_grad_input(p, y, dy, row, &e);
    st_emit_end(&e);
}

// Writing the weights must not change the list of channels that says where to write.
static int are_apart(const void *a, int64_t a_size, const void *b, int64_t b_size) {
    const uintptr_t a_at = (uintptr_t)a, b_at = (uintptr_t)b;
    return a_at + (size_t)a_size <= b_at || b_at + (size_t)b_size <= a_at;
}

static void place_weights(st_context_t *c, const st_op_update_t *op, const st_conv_geometry_t *g,
                          st_update_t *u) {
    const int64_t n = weight_count(g, &op->head);
    u->n_channels = op->chosen;
    u->channels = channel_list(c, op->channels, op->chosen, g->in_c);
    u->kept = PLACE(int8_t, op->kept, (int64_t)g->in_h * g->in_w * op->chosen);
    u->weights = PLACE_OUT(int8_t, op->weights, n);
    u->residual = is_nowhere(op->residual) ? NULL : PLACE_OUT(int8_t, op->residual, n);
    u->weight_rate = (const st_rate_t *)PLACE(uint16_t, op->weight_rate, 2 * (int64_t)g->out_c);
    const int64_t list = (int64_t)op->chosen * 2;
    if (c->status == ST_OK && !(are_apart(u->channels, list, u->weights, n) &&
                                are_apart(u->channels, list, u->residual, u->residual ? n : 0)))
        c->status = ST_BAD_REF;
}

static void place_bias(st_context_t *c, const st_op_update_t *op, const st_conv_geometry_t *g,
                       st_update_t *u) {
    u->bias = PLACE_OUT(int32_t, op->bias, g->out_c);
    u->bias_rate = (const st_rate_t *)PLACE(uint16_t, op->bias_rate, 2 * (int64_t)g->out_c);
}

static void run_update(st_context_t *c, const st_op_update_t *op) {
    const st_conv_geometry_t *g = geometry(c, op->geometry);
    if (!shape_ok(c, g, &op->head))
        return;
    const st_control_t *control = control_of(c);
    st_update_t u = {
        .learning_rate = {(uint16_t)control->rate_mantissa, (int16_t)control->rate_exponent},
        .error_exponent = error_exponent(c, op->dy_exponent_at),
        .seed = st_random(control->seed, (uint32_t)op->layer),
    };
    if (op->chosen)
        place_weights(c, op, g, &u);
    if (!is_nowhere(op->bias))
        place_bias(c, op, g, &u);
    const int16_t *dy = PLACE(int16_t, op->dy, out_count(g));
    int32_t *row = op->chosen ? PLACE_ARENA(int32_t, op->row, op->chosen) : NULL;
    if (c->status)
        return;
    if (is_depthwise(&op->head))
        depthwise_conv2d_update(g, dy, &u, row);
    else
        conv2d_update(g, dy, &u, row);
}

/// The machine ///

static void run_one(st_context_t *c, const st_op_head_t *op) {
    switch (op->opcode) {
#define CASE(code, words_of, run)                                                                  \
    case code:                                                                                     \
        if (op->words * 4u != sizeof(words_of))                                                    \
            break;                                                                                 \
        run(c, (const words_of *)op);                                                              \
        return;
        CASE(OP_CONV2D, st_op_conv_t, run_conv)
        CASE(OP_DEPTHWISE_CONV2D, st_op_conv_t, run_conv)
        CASE(OP_FULLY_CONNECTED, st_op_conv_t, run_conv)
        CASE(OP_AVG_POOL, st_op_pool_t, run_avg_pool)
        CASE(OP_ADD, st_op_add_t, run_add)
        CASE(OP_SOFTMAX, st_op_softmax_t, run_softmax)
        CASE(OP_CLAMP_MASK, st_op_clamp_mask_t, run_clamp_mask)
        CASE(OP_KEEP_CHANNELS, st_op_keep_t, run_keep_channels)
        CASE(OP_LOSS, st_op_loss_t, run_loss)
        CASE(OP_APPLY_MASK, st_op_apply_mask_t, run_apply_mask)
        CASE(OP_ERROR_ADD, st_op_error_add_t, run_error_add)
        CASE(OP_CONV2D_GRAD_INPUT, st_op_conv_grad_t, run_conv_grad_input)
        CASE(OP_DEPTHWISE_CONV2D_GRAD_INPUT, st_op_conv_grad_t, run_conv_grad_input)
        CASE(OP_AVG_POOL_GRAD_INPUT, st_op_pool_grad_t, run_avg_pool_grad_input)
        CASE(OP_SOFTMAX_GRAD_INPUT, st_op_softmax_grad_t, run_softmax_grad_input)
        CASE(OP_CONV2D_UPDATE, st_op_update_t, run_update)
        CASE(OP_DEPTHWISE_CONV2D_UPDATE, st_op_update_t, run_update)
#undef CASE
    }
    c->status = ST_BAD_OPERATOR;
}

static int is_skipped(const st_machine_t *m, const st_op_head_t *op) {
    return (op->flags & (m->training ? FLAG_INFERENCE_ONLY : FLAG_TRAINING_ONLY)) != 0;
}

static st_status_t check_buffers(const st_machine_t *m) {
    for (int i = 0; i < 3; i++)
        if (m->buffer[i].size && (uintptr_t)m->buffer[i].data & 3)
            return ST_BAD_BUFFER;
    if (m->buffer[ST_IN_STATE].size < sizeof(st_control_t))
        return ST_BAD_BUFFER;
    const uint32_t *word = (const uint32_t *)m->buffer[ST_IN_IMAGE].data;
    const size_t size = m->buffer[ST_IN_IMAGE].size;
    if (size < 64 || word[WORD_MAGIC] != ST_IMAGE_MAGIC || word[WORD_VERSION] != ST_IMAGE_VERSION ||
        word[WORD_SIZE] > size)
        return ST_BAD_IMAGE;
    return ST_OK;
}

// Operator `index`: the image holds a table of references to them.
static const st_op_head_t *operator_at(st_context_t *c, int32_t index) {
    const uint32_t *word = (const uint32_t *)c->machine->buffer[ST_IN_IMAGE].data;
    const uint32_t *table = PLACE_FIXED(uint32_t, word[WORD_OPS], word[WORD_OP_COUNT]);
    if (!table)
        return NULL;
    const st_op_head_t *op = (const st_op_head_t *)PLACE_FIXED(uint32_t, table[index], 1);
    if (op)
        (void)PLACE_FIXED(uint32_t, table[index], op->words);
    return op;
}

st_status_t st_program_run(const st_machine_t *m, int32_t begin, int32_t end, int32_t *at) {
    st_context_t c = {m, check_buffers(m)};
    *at = begin;
    if (c.status)
        return c.status;
    const uint32_t *word = (const uint32_t *)m->buffer[ST_IN_IMAGE].data;
    if (begin < 0 || end < begin || (uint32_t)end > word[WORD_OP_COUNT])
        return ST_BAD_OPERATOR;
    for (; *at < end; ++*at) {
        const st_op_head_t *op = operator_at(&c, *at);
        if (c.status == ST_OK && !is_skipped(m, op))
            run_one(&c, op);
        if (c.status)
            return c.status;
    }
    return ST_OK;
}

const char *st_status_text(st_status_t status) {
    switch (status) {
    case ST_OK:
        return "ok";
    case ST_BAD_BUFFER:
        return "buffer too small or not 4-byte aligned";
    case ST_BAD_IMAGE:
        return "not an image of this version";
    case ST_BAD_REF:
        return "operator points outside its buffers";
    case ST_BAD_OPERATOR:
        return "unknown operator or impossible parameters";
    case ST_BAD_LABEL:
        return "label is not a class of the model";
    }
    return "unknown status";
}
