#include "operators.h"

#include "activation.h"
#include "elementwise.h"
#include "fast.h"

#define MAX_ELEMENTS ST_MOST_ELEMENTS

// One more than the largest index that a walk over the axes reaches; 0 where it cannot be made.
static st_count_t extent(const int32_t count[ST_AXES], const int32_t stride[ST_AXES]) {
    int32_t last = 0;
    for (int i = 0; i < ST_AXES; i++) {
        if (!st_in_range(count[i], 1, MAX_ELEMENTS) || !st_in_range(stride[i], 0, MAX_ELEMENTS))
            return 0;
        const int32_t far = st_product(count[i] - 1, stride[i]);
        if (!st_in_range(far, 0, MAX_ELEMENTS - 1 - last))
            return 0;
        last += far;
    }
    return last + 1;
}

// Elements of a tensor with these axes; 0 where there are too many.
static st_count_t size_of(const int32_t count[ST_AXES]) {
    st_count_t n = 1;
    for (int i = 0; i < ST_AXES; i++)
        n = st_product(n, count[i]);
    return st_max(n, 0);
}

static int shift_ok(st_requant_t scale, int32_t largest) {
    return st_in_range(scale.shift, -31, largest);
}

static int params_ok(const st_elementwise_t *p, uint8_t opcode) {
    const int is_product = opcode == OP_MUL;
    return st_in_range(p->a_zero, -128, 127) && st_in_range(p->b_zero, -128, 127) &&
           st_in_range(p->y_zero, -128, 127) && shift_ok(p->a_scale, 0) &&
           shift_ok(p->b_scale, 0) && shift_ok(p->y_scale, is_product ? 30 : 0);
}

typedef struct {
    const st_elementwise_t *p;
    const int8_t *a, *b;
    int8_t *y;
    uint8_t opcode;
} st_elementwise_job_t;

static void elementwise(const st_elementwise_job_t *job) {
    if (job->opcode == OP_ADD)
        ST_FAST(add_s8)(job->p, job->a, job->b, job->y);
    else if (job->opcode == OP_SUB)
        ST_FAST(sub_s8)(job->p, job->a, job->b, job->y);
    else
        ST_FAST(mul_s8)(job->p, job->a, job->b, job->y);
}

// The first axis that has more than one element, if any has.
static int long_axis(const st_elementwise_t *p) {
    int axis = 0;
    while (axis < ST_AXES - 1 && p->count[axis] == 1)
        axis++;
    return axis;
}

// A part of that axis.
static void elementwise_part(const void *work, st_part_t part) {
    st_elementwise_job_t job = *(const st_elementwise_job_t *)work;
    st_elementwise_t p = *job.p;
    const int axis = long_axis(&p);
    int32_t y_step = 1;
    for (int i = axis + 1; i < ST_AXES; i++)
        y_step *= p.count[i];
    p.count[axis] = part.end - part.begin;
    job.p = &p;
    job.a += part.begin * p.a_stride[axis];
    job.b += part.begin * p.b_stride[axis];
    job.y += part.begin * y_step;
    elementwise(&job);
}

void st_run_elementwise(st_context_t *c, const st_op_elementwise_t *op) {
    const st_elementwise_t *p = PLACE_STRUCT(st_elementwise_t, op->params);
    if (!p)
        return;
    const st_count_t a_size = extent(p->count, p->a_stride), b_size = extent(p->count, p->b_stride);
    const st_count_t y_size = a_size && b_size ? size_of(p->count) : 0;
    if (!y_size || !params_ok(p, op->head.opcode)) {
        c->status = ST_BAD_OPERATOR;
        return;
    }
    const int8_t *a = PLACE(int8_t, op->a, a_size), *b = PLACE(int8_t, op->b, b_size);
    int8_t *y = PLACE_OUT(int8_t, op->y, y_size);
    if (c->status)
        return;
    const st_elementwise_job_t job = {p, a, b, y, op->head.opcode};
    if (st_is_split(c->cores))
        st_split(c->cores, elementwise_part, &job, (st_units_t){p->count[long_axis(p)], 1});
    else
        elementwise(&job);
}

static int mean_ok(const st_mean_t *p) {
    return st_in_range(p->outer, 1, ST_MAX_LENGTH) && st_in_range(p->inner, 1, ST_MAX_LENGTH) &&
           st_in_range(p->n, 1, 1 << 22) && st_in_range(p->x_zero, -128, 127) &&
           st_in_range(p->y_zero, -128, 127) && shift_ok(p->scale, 30) &&
           st_volume(p->outer, p->inner, p->n) > 0;
}

void st_run_mean(st_context_t *c, const st_op_mean_t *op) {
    const st_mean_t *p = PLACE_STRUCT(st_mean_t, op->params);
    if (!p || !mean_ok(p)) {
        c->status = ST_BAD_OPERATOR;
        return;
    }
    const int8_t *x = PLACE(int8_t, op->x, st_volume(p->outer, p->n, p->inner));
    int8_t *y = PLACE_OUT(int8_t, op->y, st_product(p->outer, p->inner));
    if (c->status == ST_OK)
        mean_s8(p, x, y);
}

// Index extent of the sums over the sum's axes that start at any element of dx; 0: impossible.
static st_count_t both(st_count_t first, st_count_t second) {
    return first && second && first + second - 1 <= MAX_ELEMENTS ? first + second - 1 : 0;
}

void st_run_reduce_grad_input(st_context_t *c, const st_op_reduce_grad_t *op) {
    const st_reduce_t *p = PLACE_STRUCT(st_reduce_t, op->params);
    if (!p)
        return;
    const st_count_t dy_size =
        both(extent(p->count, p->dy_stride), extent(p->sum_count, p->sum_dy_stride));
    const st_count_t other_size =
        both(extent(p->count, p->other_stride), extent(p->sum_count, p->sum_other_stride));
    const st_count_t n = dy_size && other_size ? size_of(p->count) : 0;
    if (!n || !st_in_range(p->other_zero, -128, 127) ||
        !st_in_range(p->factor_q15, -(1 << 15), 1 << 15)) {
        c->status = ST_BAD_OPERATOR;
        return;
    }
    const int16_t *dy = PLACE(int16_t, op->dy, dy_size);
    const int8_t *other = st_is_nowhere(op->other) ? NULL : PLACE(int8_t, op->other, other_size);
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->count[3]);
    st_emit_t e = st_open_error(c, &op->out, &op->head, n);
    if (c->status)
        return;
    reduce_grad_input(p, dy, other, row, &e);
    st_emit_end(&e);
}

void st_run_error_add(st_context_t *c, const st_op_error_add_t *op) {
    const int16_t *dy = PLACE(int16_t, op->dy, op->count);
    st_emit_t e = st_open_error(c, &op->out, &op->head, op->count);
    if (c->status)
        return;
    ST_FAST(error_add)(dy, op->count, &e);
    st_emit_end(&e);
}
