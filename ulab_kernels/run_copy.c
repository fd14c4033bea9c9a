#include "operators.h"

#include "copy.h"

// Indices stay far below 2^31, so that the sums of extremes cannot overflow.
#define MAX_ELEMENTS ST_MOST_ELEMENTS

// Whether offset + sum (count - 1) * stride stays within [0, n); counts are at least 1.
static int reaches(const int32_t count[ST_COPY_AXES], const int32_t stride[ST_COPY_AXES],
                   int32_t offset, st_count_t *n) {
    int32_t last = offset;
    if (!st_in_range(offset, 0, MAX_ELEMENTS))
        return 0;
    for (int i = 0; i < ST_COPY_AXES; i++) {
        if (!st_in_range(count[i], 1, MAX_ELEMENTS) || !st_in_range(stride[i], 0, MAX_ELEMENTS))
            return 0;
        const int32_t far = st_product(count[i] - 1, stride[i]);
        if (!st_in_range(far, 0, MAX_ELEMENTS - last))
            return 0;
        last += far;
    }
    *n = last + 1;
    return 1;
}

void st_run_copy(st_context_t *c, const st_op_copy_t *op) {
    const st_copy_t *p = PLACE_STRUCT(st_copy_t, op->params);
    st_count_t x_count, y_count;
    if (!p)
        return;
    if (!reaches(p->count, p->x_stride, p->x_offset, &x_count) ||
        !reaches(p->count, p->y_stride, p->y_offset, &y_count)) {
        c->status = ST_BAD_OPERATOR;
        return;
    }
    const int8_t *x = PLACE(int8_t, op->x, x_count);
    int8_t *y = PLACE_OUT(int8_t, op->y, y_count);
    if (c->status == ST_OK && !st_are_apart(x, (size_t)x_count, y, (size_t)y_count))
        c->status = ST_BAD_REF;
    if (c->status == ST_OK)
        copy_s8(p, x, y);
}

void st_run_fill(st_context_t *c, const st_op_fill_t *op) {
    int8_t *y = PLACE_OUT(int8_t, op->y, op->count);
    if (c->status == ST_OK)
        fill_s8(y, op->count, (int8_t)op->value);
}

// The elements of dx; 0 for a gather that would leave its tensors.
static st_count_t gather_size(const st_gather_t *p, st_count_t *dy_count) {
    st_count_t n = 1;
    for (int i = 0; i < ST_COPY_AXES; i++) {
        if (!st_in_range(p->size[i], 1, MAX_ELEMENTS) || !st_in_range(p->begin[i], 0, p->size[i]) ||
            !st_in_range(p->step[i], 1, MAX_ELEMENTS) || !st_in_range(p->count[i], 1, p->size[i]) ||
            !st_in_range(st_product(p->count[i] - 1, p->step[i]), 0, p->size[i] - p->begin[i] - 1))
            return 0;
        n = st_product(n, p->size[i]);
    }
    return n > 0 && reaches(p->count, p->dy_stride, p->dy_offset, dy_count) ? n : 0;
}

void st_run_copy_grad_input(st_context_t *c, const st_op_copy_grad_t *op) {
    const st_gather_t *p = PLACE_STRUCT(st_gather_t, op->params);
    st_count_t dy_count;
    const st_count_t n = p ? gather_size(p, &dy_count) : 0;
    if (!n) {
        c->status = ST_BAD_OPERATOR;
        return;
    }
    const int16_t *dy = PLACE(int16_t, op->dy, dy_count);
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->size[3]);
    st_emit_t e = st_open_error(c, &op->out, &op->head, n);
    if (c->status)
        return;
    copy_grad_input(p, dy, row, &e);
    st_emit_end(&e);
}
