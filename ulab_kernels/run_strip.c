// Strips: a chain of convolutions and poolings run row by row, so that no map between them exists
// whole. Between two of them lies a window of the few rows that the next one reads; when it is
// full, the rows still needed move to its front. Each row is made once, by the same kernels on the
// same numbers as in the plain order: the outputs are equal bit for bit.
#include "operators.h"

#include "arch.h"
#include "avg_pool.h"
#include "conv2d_lanes.h"
#include "conv2d_mac16.h"
#include "depthwise3x3.h"
#include "depthwise_conv2d.h"
#include "depthwise_mac16.h"
#include "fast.h"
#include "fixedpoint.h"
#include "fully_connected.h"
#include "interrupt.h"
#include "lookup.h"
#include "max_pool.h"

#define MAX_STAGES 8

void st_run_whole_window(const st_window_op_t *op) {
    switch (op->opcode) {
    case OP_AVG_POOL:
        avg_pool_s8(op->g, op->x, op->y);
        break;
    case OP_MAX_POOL:
        max_pool_s8(op->g, op->x, op->winner, op->y);
        break;
    case OP_DEPTHWISE_CONV2D:
        if (ST_LANES && op->scratch.data)
            depthwise3x3_s8(op->g, &op->p, op->x, op->scratch, op->y);
        else if (ST_MAC16 && op->scratch.words >= depthwise_mac16_scratch(op->g))
            depthwise_mac16_s8(op->g, &op->p, op->x, op->scratch, op->y);
        else
            ST_FAST(depthwise_conv2d_s8)(op->g, &op->p, op->x, op->y);
        break;
    case OP_FULLY_CONNECTED:
        if (op->is_packed)
            ST_FAST(fully_connected_packed_s8)(op->g, &op->p, op->x, op->scratch.data, op->y);
        else if ((ST_LANES || ST_MAC16) && op->scratch.data)
            fully_connected_fours_s8(op->g, &op->p, op->x, op->scratch.data, op->y);
        else
            ST_FAST(fully_connected_s8)(op->g, &op->p, op->x, op->y);
        break;
    default:
        if (ST_LANES && op->scratch.data)
            conv2d_lanes_s8(op->g, &op->p, op->x, op->scratch, op->y);
        else if (ST_MAC16 && op->scratch.data)
            conv2d_mac16_s8(op->g, &op->p, op->x, op->scratch, op->y);
        else
            ST_FAST(conv2d_s8)(op->g, &op->p, op->x, op->y);
    }
}

// A stage of the chain. Its output window holds rows [base, made) of its map in `room` rows.
typedef struct {
    st_window_op_t op;
    int32_t base, made, room;
} st_stage_t;

static int32_t first_row_read(const st_stage_t *s) {
    return st_max(0, s->made * s->op.g->stride_h - s->op.g->pad_h);
}

// Rows of the input that must have been made before the stage's next row can be.
static int32_t rows_read(const st_stage_t *s) {
    const st_conv_geometry_t *g = s->op.g;
    return st_min(g->in_h,
                  s->made * g->stride_h - g->pad_h + (g->kernel_h - 1) * g->dilation_h + 1);
}

static size_t row_bytes(const st_stage_t *s) {
    return (size_t)s->op.g->out_w * (size_t)s->op.g->out_c;
}

// Makes room for the next row: what the next stage will not read again is given up.
static void slide(st_stage_t *s, const st_stage_t *next) {
    const int32_t first = first_row_read(next);
    if (first >= s->made) { // a stride beyond the kernel: nobody reads the rows between
        s->base = s->made = first;
    } else if (s->made - s->base == s->room) {
        __builtin_memmove(s->op.y, s->op.y + (size_t)(first - s->base) * row_bytes(s),
                          (size_t)(s->made - first) * row_bytes(s));
        s->base = first;
    }
}

// The stage whose turn it is: the last one whose input is there.
static int32_t ready_stage(st_stage_t *stages, int32_t count) {
    int32_t i = count - 1;
    while (i > 0 && stages[i - 1].made < rows_read(&stages[i])) {
        i--;
        slide(&stages[i], &stages[i + 1]);
    }
    return i;
}

// Runs the stage for one row of its output. in_base, in_made: rows of the input in memory.
static void make_row(st_stage_t *s, int32_t in_base, int32_t in_made) {
    st_window_op_t row = s->op;
    st_conv_geometry_t g = *s->op.g;
    g.out_h = 1;
    g.pad_h = s->op.g->pad_h + in_base - s->made * s->op.g->stride_h;
    g.in_h = in_made - in_base;
    row.g = &g;
    row.y += (size_t)(s->made - s->base) * row_bytes(s);
    st_run_window(&row);
    s->op.scratch.kept = 1; // all scratch of a strip lives as long as it runs
    if (s->op.table)
        lookup_s8(s->op.table, row.y, (int32_t)row_bytes(s), row.y);
    s->made++;
}

// Makes one row of the last stage, and of the others what it takes.
static void make_last_row(st_stage_t *stages, int32_t count) {
    int32_t i;
    do {
        i = ready_stage(stages, count);
        st_stage_t *s = &stages[i];
        if (i == 0)
            make_row(s, 0, s->op.g->in_h);
        else
            make_row(s, s[-1].base, s[-1].made);
    } while (i < count - 1);
}

/// Checks ///

static void bind_stage(st_context_t *c, const st_op_head_t *op, st_rows_t rows, st_window_op_t *w) {
    if (op->opcode == OP_AVG_POOL && op->words * 4u == sizeof(st_op_pool_t))
        st_bind_pool(c, (const st_op_pool_t *)op, rows, w);
    else if (op->opcode == OP_MAX_POOL && op->words * 4u == sizeof(st_op_max_pool_t) &&
             st_is_nowhere(((const st_op_max_pool_t *)op)->winner))
        st_bind_max_pool(c, (const st_op_max_pool_t *)op, rows, w);
    else if ((op->opcode == OP_CONV2D || op->opcode == OP_DEPTHWISE_CONV2D) &&
             op->words * 4u == sizeof(st_op_conv_t))
        st_bind_conv(c, (const st_op_conv_t *)op, rows, w);
    else
        c->status = ST_BAD_OPERATOR;
}

// Each stage must take what the one before it makes, from a window with room for all it reads.
static int fits_next(const st_stage_t *s, const st_stage_t *next) {
    const st_conv_geometry_t *a = s->op.g, *b = next->op.g;
    const int32_t span = (b->kernel_h - 1) * b->dilation_h + 1;
    return a->out_h == b->in_h && a->out_w == b->in_w && a->out_c == b->in_c &&
           s->op.y == next->op.x && s->room >= st_min(span, b->in_h) && s->room <= b->in_h;
}

// A LOOKUP in a strip works in place on what the stage before it makes.
static int is_lookup_of(const st_op_head_t *op, const st_op_head_t *stage) {
    if (op->opcode != OP_LOOKUP || op->words * 4u != sizeof(st_op_lookup_t))
        return 0;
    const st_op_lookup_t *l = (const st_op_lookup_t *)op;
    return l->x == l->y && l->y == ((const st_ref_t *)stage)[stage->words - 1];
}

// Binds the stages of the `count` operators behind operator `index`; returns how many there are.
static int32_t bind_stages(st_context_t *c, const st_op_strip_t *op, int32_t index,
                           st_stage_t *stages) {
    const int32_t *room = PLACE_FIXED(int32_t, op->windows, op->stages - 1);
    int32_t n = 0;
    const st_op_head_t *stage = NULL;
    for (int32_t i = 0; i < op->count && c->status == ST_OK; i++) {
        const st_op_head_t *sub = st_operator_at(c, index + 1 + i);
        if (c->status == ST_OK && stage && !stages[n - 1].op.table && is_lookup_of(sub, stage)) {
            stages[n - 1].op.table = PLACE_FIXED(int8_t, ((const st_op_lookup_t *)sub)->table, 256);
            continue;
        }
        if (c->status || n == op->stages)
            return -1;
        const int last = n == op->stages - 1;
        const st_rows_t rows = {n ? room[n - 1] : 0, last ? 0 : room[n]};
        if (!st_in_range(rows.in, n > 0, ST_MAX_LENGTH) ||
            !st_in_range(rows.out, !last, ST_MAX_LENGTH))
            break;
        stage = sub;
        stages[n] = (st_stage_t){.room = rows.out};
        bind_stage(c, sub, rows, &stages[n].op);
        if (c->status == ST_OK && n && !fits_next(&stages[n - 1], &stages[n]))
            break;
        n++;
    }
    return n;
}

void st_run_strip(st_context_t *c, const st_op_strip_t *op, int32_t index) {
    st_stage_t stages[MAX_STAGES];
    if (!st_in_range(op->stages, 2, MAX_STAGES) ||
        !st_in_range(op->count, op->stages, 2 * MAX_STAGES)) {
        c->status = ST_BAD_OPERATOR;
        return;
    }
    if (bind_stages(c, op, index, stages) != op->stages && c->status == ST_OK)
        c->status = ST_BAD_OPERATOR;
    if (c->status)
        return;
    const int32_t rows = stages[op->stages - 1].op.g->out_h;
    for (int32_t row = 0; row < rows && c->status == ST_OK; row++) {
        make_last_row(stages, op->stages);
        if (st_is_interrupted())
            c->status = ST_INTERRUPTED;
    }
}
