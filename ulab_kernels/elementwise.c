#include "elementwise.h"

#define LEFT_SHIFT 20 // TFLite's headroom for int8 inputs of sums

// One run along the innermost axis.
typedef struct {
    const int8_t *a, *b;
    int8_t *y;
} st_run_t;

static int8_t clamped(const st_elementwise_t *p, int32_t sum) {
    const int32_t v = st_requantize(sum, p->y_scale) + p->y_zero;
    return (int8_t)st_clamp(v, p->act_min, p->act_max);
}

// sign: 1 for a + b, -1 for a - b.
static void sum_run(const st_elementwise_t *p, st_run_t r, int32_t sign) {
    for (int32_t i = 0; i < p->count[3]; i++) {
        int32_t a = st_requantize((*r.a - p->a_zero) * (1 << LEFT_SHIFT), p->a_scale);
        int32_t b = st_requantize((*r.b - p->b_zero) * (1 << LEFT_SHIFT), p->b_scale);
        *r.y++ = clamped(p, a + sign * b);
        r.a += p->a_stride[3];
        r.b += p->b_stride[3];
    }
}

static void mul_run(const st_elementwise_t *p, st_run_t r) {
    for (int32_t i = 0; i < p->count[3]; i++) {
        *r.y++ = clamped(p, (*r.a - p->a_zero) * (*r.b - p->b_zero));
        r.a += p->a_stride[3];
        r.b += p->b_stride[3];
    }
}

// sign 0: a * b.
static void for_all_runs(const st_elementwise_t *p, st_run_t r, int32_t sign) {
    for (int32_t i = 0; i < p->count[0]; i++)
        for (int32_t j = 0; j < p->count[1]; j++)
            for (int32_t k = 0; k < p->count[2]; k++, r.y += p->count[3]) {
                const st_run_t run = {
                    r.a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2],
                    r.b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2],
                    r.y,
                };
                if (sign)
                    sum_run(p, run, sign);
                else
                    mul_run(p, run);
            }
}

void add_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    for_all_runs(p, (st_run_t){a, b, y}, 1);
}

void sub_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    for_all_runs(p, (st_run_t){a, b, y}, -1);
}

void mul_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    for_all_runs(p, (st_run_t){a, b, y}, 0);
}

void mean_s8(const st_mean_t *p, const int8_t *x, int8_t *y) {
    for (int32_t o = 0; o < p->outer; o++, x += p->n * p->inner) {
        for (int32_t i = 0; i < p->inner; i++) {
            int32_t sum = -p->n * p->x_zero;
            for (int32_t k = 0; k < p->n; k++)
                sum += x[k * p->inner + i];
            *y++ = (int8_t)st_clamp(st_requantize(sum, p->scale) + p->y_zero, -128, 127);
        }
    }
}

static int32_t sum_of(const st_reduce_t *p, const int16_t *dy, const int8_t *other) {
    int32_t sum = 0;
    for (int32_t i = 0; i < p->sum_count[0]; i++)
        for (int32_t j = 0; j < p->sum_count[1]; j++)
            for (int32_t k = 0; k < p->sum_count[2]; k++) {
                const int32_t at[3] = {i, j, k};
                const int16_t *d = dy;
                const int8_t *o = other;
                for (int n = 0; n < 3; n++) {
                    d += at[n] * p->sum_dy_stride[n];
                    o += other ? at[n] * p->sum_other_stride[n] : 0;
                }
                for (int32_t l = 0; l < p->sum_count[3]; l++, d += p->sum_dy_stride[3]) {
                    sum += *d * (other ? *o - p->other_zero : 1);
                    o += other ? p->sum_other_stride[3] : 0;
                }
            }
    return sum;
}

static int32_t scaled(int32_t sum, int32_t factor_q15) {
    const int32_t v = st_mul_q15(sum, (uint32_t)(factor_q15 < 0 ? -factor_q15 : factor_q15));
    return factor_q15 < 0 ? -v : v;
}

void reduce_grad_input(const st_reduce_t *p, const int16_t *dy, const int8_t *other, int32_t *row,
                       st_emit_t *dx) {
    int32_t out = 0;
    for (int32_t i = 0; i < p->count[0]; i++)
        for (int32_t j = 0; j < p->count[1]; j++)
            for (int32_t k = 0; k < p->count[2]; k++, out += p->count[3]) {
                const int16_t *d =
                    dy + i * p->dy_stride[0] + j * p->dy_stride[1] + k * p->dy_stride[2];
                const int32_t o =
                    i * p->other_stride[0] + j * p->other_stride[1] + k * p->other_stride[2];
                for (int32_t l = 0; l < p->count[3]; l++) {
                    const int8_t *at = other ? other + o + l * p->other_stride[3] : other;
                    row[l] = scaled(sum_of(p, d + l * p->dy_stride[3], at), p->factor_q15);
                }
                st_emit_row(dx, out, row, p->count[3]);
            }
}
