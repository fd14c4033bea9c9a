#include "operands.h"

#include "avg_pool.h"

st_count_t st_product(st_count_t a, st_count_t b) {
    const uint64_t product = (uint64_t)(uint32_t)a * (uint32_t)b;
    return (a | b) < 0 || product > ST_MOST_ELEMENTS ? -1 : (st_count_t)product;
}

st_count_t st_volume(st_count_t a, st_count_t b, st_count_t c) {
    return st_product(st_product(a, b), c);
}

// The address behind a reference to n elements, or NULL with the context's status set.
void *st_place(st_context_t *c, st_ref_t ref, st_count_t n, size_t element) {
    const uint32_t space = st_space_of(ref), offset = ref & ((1u << ST_REF_BITS) - 1);
    if (space < ST_BUFFERS && st_in_range(n, 0, ST_MOST_ELEMENTS)) {
        const st_buffer_t *b = &c->machine->buffer[space];
        if (offset <= b->size && (size_t)n * element <= b->size - offset &&
            (offset & (element - 1)) == 0)
            return b->data + offset;
    }
    c->status = ST_BAD_REF;
    return NULL;
}

// Shapes, tables and operators must not change while they are being used: only the image is safe.
const void *st_place_fixed(st_context_t *c, st_ref_t ref, st_count_t n, size_t element) {
    if (st_space_of(ref) != ST_IN_IMAGE) {
        c->status = ST_BAD_REF;
        return NULL;
    }
    return st_place(c, ref, n, element);
}

void *st_place_writable(st_context_t *c, st_ref_t ref, st_count_t n, size_t element) {
    const uint32_t space = st_space_of(ref);
    if (space == ST_IN_IMAGE || space == ST_IN_STORE) {
        c->status = ST_BAD_REF;
        return NULL;
    }
    return st_place(c, ref, n, element);
}

void *st_place_in_arena(st_context_t *c, st_ref_t ref, st_count_t n, size_t element) {
    if (st_space_of(ref) != ST_IN_ARENA && st_space_of(ref) != ST_IN_COLD) {
        c->status = ST_BAD_REF;
        return NULL;
    }
    return st_place(c, ref, n, element);
}

st_control_t *st_control_of(st_context_t *c) {
    return (st_control_t *)c->machine->buffer[ST_IN_STATE].data;
}

/// Geometry ///

st_count_t st_in_count(const st_conv_geometry_t *g) {
    return st_in_bytes(g, 0);
}

st_count_t st_out_count(const st_conv_geometry_t *g) {
    return st_out_bytes(g, 0);
}

st_count_t st_in_bytes(const st_conv_geometry_t *g, int32_t rows) {
    return st_volume((rows ? rows : g->in_h), g->in_w, g->in_c);
}

st_count_t st_out_bytes(const st_conv_geometry_t *g, int32_t rows) {
    return st_volume((rows ? rows : g->out_h), g->out_w, g->out_c);
}

static int all_in_range(const int32_t v[6], int32_t hi) {
    for (int i = 0; i < 6; i++)
        if (!st_in_range(v[i], 1, hi))
            return 0;
    return 1;
}

// together: whether all taps of a window may lie at one place, where dilations are 0.
static int dims_ok(const st_conv_geometry_t *g, int together) {
    const int32_t maps[6] = {g->in_h, g->in_w, g->in_c, g->out_h, g->out_w, g->out_c};
    const int32_t window[6] = {g->kernel_h,
                               g->kernel_w,
                               g->stride_h,
                               g->stride_w,
                               g->dilation_h + together,
                               g->dilation_w + together};
    return all_in_range(maps, ST_MAX_LENGTH) && all_in_range(window, ST_MAX_KERNEL);
}

// Every window must meet the input: first tap at or before its end, last tap at or behind its
// start. The kernels rely on it.
static int windows_ok(const st_conv_geometry_t *g) {
    return st_in_range(g->pad_h, 0, (g->kernel_h - 1) * g->dilation_h) &&
           st_in_range(g->pad_w, 0, (g->kernel_w - 1) * g->dilation_w) &&
           (g->out_h - 1) * g->stride_h - g->pad_h < g->in_h &&
           (g->out_w - 1) * g->stride_w - g->pad_w < g->in_w;
}

static int values_ok(const st_conv_geometry_t *g) {
    return st_in_range(g->x_zero, -128, 127) && st_in_range(g->y_zero, -128, 127) &&
           st_in_range(g->act_min, -128, 127) && st_in_range(g->act_max, g->act_min, 127) &&
           st_in_range(g->w_zero, -128, 128) && st_in_range(g->groups, 1, g->in_c);
}

static const st_conv_geometry_t *place_geometry(st_context_t *c, st_ref_t ref, int together) {
    const st_conv_geometry_t *g = PLACE_STRUCT(st_conv_geometry_t, ref);
    if (!g)
        return NULL;
    if (!dims_ok(g, together) || !windows_ok(g) || !values_ok(g) || st_in_count(g) < 0 ||
        st_out_count(g) < 0) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return g;
}

const st_conv_geometry_t *st_geometry(st_context_t *c, st_ref_t ref) {
    return place_geometry(c, ref, 0);
}

const st_conv_geometry_t *st_gradient_geometry(st_context_t *c, st_ref_t ref) {
    return place_geometry(c, ref, 1);
}

// Pooling keeps the channels, and its windows have no holes that could miss the input.
const st_conv_geometry_t *st_pool_geometry(st_context_t *c, st_ref_t ref) {
    const st_conv_geometry_t *g = st_geometry(c, ref);
    if (g && (g->out_c != g->in_c || g->dilation_h != 1 || g->dilation_w != 1 ||
              g->kernel_h * g->kernel_w > ST_AVG_POOL_MAX_WINDOW || g->groups != 1)) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return g;
}

const st_softmax_params_t *st_softmax_params(st_context_t *c, st_ref_t ref) {
    const st_softmax_params_t *p = PLACE_STRUCT(st_softmax_params_t, ref);
    if (p && (!st_in_range(p->rows, 1, 65536) || !st_in_range(p->depth, 1, ST_SOFTMAX_MAX_DEPTH) ||
              p->multiplier < 0 || !st_in_range(p->left_shift, 0, 31) ||
              !st_in_range(p->diff_min, -255, 0))) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return p;
}

// The chosen channels, all of them below `of`. Not in the arena, where kernels write.
const uint16_t *st_channel_list(st_context_t *c, st_ref_t ref, int32_t n, int32_t of) {
    if (st_space_of(ref) == ST_IN_ARENA || st_space_of(ref) == ST_IN_COLD)
        c->status = ST_BAD_REF;
    const uint16_t *index = PLACE(uint16_t, ref, n);
    for (int32_t i = 0; index && i < n; i++)
        if (index[i] >= of)
            c->status = ST_BAD_OPERATOR;
    return index;
}
