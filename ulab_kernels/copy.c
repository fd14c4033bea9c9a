#include "copy.h"

static void copy_run(const int8_t *x, int32_t x_stride, int8_t *y, int32_t y_stride, int32_t n) {
    if (x_stride == 1 && y_stride == 1) {
        __builtin_memcpy(y, x, (size_t)n);
        return;
    }
    for (int32_t i = 0; i < n; i++, x += x_stride, y += y_stride)
        *y = *x;
}

void copy_s8(const st_copy_t *p, const int8_t *x, int8_t *y) {
    x += p->x_offset;
    y += p->y_offset;
    for (int32_t i = 0; i < p->count[0]; i++)
        for (int32_t j = 0; j < p->count[1]; j++)
            for (int32_t k = 0; k < p->count[2]; k++)
                copy_run(x + i * p->x_stride[0] + j * p->x_stride[1] + k * p->x_stride[2],
                         p->x_stride[3],
                         y + i * p->y_stride[0] + j * p->y_stride[1] + k * p->y_stride[2],
                         p->y_stride[3], p->count[3]);
}

void fill_s8(int8_t *y, int32_t n, int8_t value) {
    for (int32_t i = 0; i < n; i++)
        y[i] = value;
}

// Steps along one axis of x while it is walked through: which element of the copy comes next.
typedef struct {
    int32_t next, left; // index of the next copied element of x; how many follow
    int32_t at;         // where dy has it
} st_walk_t;

static st_walk_t walk(const st_gather_t *p, int axis, int32_t at) {
    return (st_walk_t){p->begin[axis], p->count[axis], at};
}

// Whether element i of the axis was copied; if so, *at is where dy has it.
static int step_to(st_walk_t *w, const st_gather_t *p, int axis, int32_t i, int32_t *at) {
    if (!w->left || i != w->next)
        return 0;
    *at = w->at;
    w->next += p->step[axis];
    w->at += p->dy_stride[axis];
    w->left--;
    return 1;
}

static void gather_row(const st_gather_t *p, const int16_t *dy, int32_t at, int32_t *row) {
    int32_t *to = row + p->begin[3];
    dy += at;
    for (int32_t i = 0; i < p->count[3]; i++, to += p->step[3], dy += p->dy_stride[3])
        *to = *dy;
}

void copy_grad_input(const st_gather_t *p, const int16_t *dy, int32_t *row, st_emit_t *dx) {
    int32_t out = 0, at[3] = {0, 0, 0};
    st_walk_t a = walk(p, 0, p->dy_offset);
    for (int32_t i = 0; i < p->size[0]; i++) {
        const int in_a = step_to(&a, p, 0, i, &at[0]);
        st_walk_t b = walk(p, 1, at[0]);
        for (int32_t j = 0; j < p->size[1]; j++) {
            const int in_b = step_to(&b, p, 1, j, &at[1]) && in_a;
            st_walk_t c = walk(p, 2, at[1]);
            for (int32_t k = 0; k < p->size[2]; k++, out += p->size[3]) {
                const int in_c = step_to(&c, p, 2, k, &at[2]) && in_b;
                for (int32_t n = 0; n < p->size[3]; n++)
                    row[n] = 0;
                if (in_c)
                    gather_row(p, dy, at[2], row);
                st_emit_row(dx, out, row, p->size[3]);
            }
        }
    }
}
