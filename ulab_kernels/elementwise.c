#include "elementwise.h"

#include <stddef.h>
#include "arch.h"
#include "requantize.h"

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

// An operand's factor by halves: st_requantize((x - zero) * 2^20, f) without a 64-bit product.
// Below a whole unit: floor((v * multiplier + 2^10) / 2^11), which is the rounded upper half of v *
// 2^20 * multiplier. Then it is shifted, with ties away from zero.
typedef struct {
    int32_t upper_0, upper; // of x = 0, and of one more
    int32_t lower_0, lower;
    int32_t shift, half;
} st_term_of_t;

static st_term_of_t term_of(int32_t zero, st_requant_t f) {
    const int32_t upper = (f.multiplier >> 16) * 32, lower = f.multiplier & 0xffff;
    const int32_t half = f.shift ? (int32_t)(1u << (-f.shift - 1)) : 0;
    return (st_term_of_t){-zero * upper, upper, (1 << 10) - zero * lower, lower, -f.shift, half};
}

static inline int32_t term(const st_term_of_t *t, int32_t x) {
    const int32_t high = x * t->upper + t->upper_0 + ((x * t->lower + t->lower_0) >> 11);
    return t->shift ? (high + t->half + (high >> 31)) >> t->shift : high;
}

#define SOME 64 // elements of a run

// One operand of a sum. sign: 0 of the first one; else its terms are added, 1, or subtracted, -1.
typedef struct {
    st_term_of_t of;
    const int8_t *x;
    int32_t step, sign;
} st_operand_t;

#if ST_ARMV6M

// armv6m_terms.S: sums[n] = the terms of x, n > 0; or they are added.
void st_terms(const st_term_of_t *of, const int8_t *x, int32_t *sums, int32_t n, int32_t add);

static int has_terms(const st_operand_t *o, int32_t *sums, int32_t n) {
    if (o->step != 1 || o->sign < 0)
        return 0;
    st_terms(&o->of, o->x, sums, n, o->sign);
    return 1;
}

#else

static int has_terms(const st_operand_t *o, int32_t *sums, int32_t n) {
    (void)o, (void)sums, (void)n;
    return 0;
}

#endif

// Of the next n elements.
static void terms(st_operand_t *o, int32_t *sums, int32_t n) {
    const int8_t *x = o->x;
    if (!has_terms(o, sums, n))
        for (int32_t i = 0; i < n; i++, x += o->step)
            sums[i] = o->sign ? sums[i] + o->sign * term(&o->of, *x) : term(&o->of, *x);
    o->x += n * o->step;
}

// Of a + b (sign 1), a - b (-1). Shifts of the operands' factors are in [-31, 0].
typedef struct {
    int32_t count;
    st_operand_t a, b;
    st_requantize_t ends;
} st_sum_t;

static st_sum_t sum_of_two(const st_elementwise_t *p, int32_t sign) {
    st_sum_t s = {
        .count = p->count[3],
        .a = {term_of(p->a_zero, p->a_scale), NULL, p->a_stride[3], 0},
        .b = {term_of(p->b_zero, p->b_scale), NULL, p->b_stride[3], sign},
        .ends =
            {.y_step = 1, .f = p->y_scale, .zero = p->y_zero, .lo = p->act_min, .hi = p->act_max},
    };
    st_requantize_prepare(&s.ends);
    return s;
}

static void sum_run(st_sum_t *s, st_run_t r) {
    int32_t sums[SOME];
    s->ends.sums = sums;
    s->ends.y = r.y;
    s->a.x = r.a;
    s->b.x = r.b;
    for (int32_t left = s->count; left > 0; left -= SOME) {
        const int32_t n = s->ends.count = st_min(left, SOME);
        terms(&s->a, sums, n);
        terms(&s->b, sums, n);
        st_requantize_row(&s->ends);
        s->ends.y += n;
    }
}

static void mul_run(const st_elementwise_t *p, st_run_t r) {
    for (int32_t i = 0; i < p->count[3]; i++) {
        *r.y++ = clamped(p, (*r.a - p->a_zero) * (*r.b - p->b_zero));
        r.a += p->a_stride[3];
        r.b += p->b_stride[3];
    }
}

// s: NULL for a * b.
static void for_all_runs(const st_elementwise_t *p, st_run_t r, st_sum_t *s) {
    for (int32_t i = 0; i < p->count[0]; i++)
        for (int32_t j = 0; j < p->count[1]; j++)
            for (int32_t k = 0; k < p->count[2]; k++, r.y += p->count[3]) {
                const st_run_t run = {
                    r.a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2],
                    r.b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2],
                    r.y,
                };
                if (s)
                    sum_run(s, run);
                else
                    mul_run(p, run);
            }
}

void add_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    st_sum_t s = sum_of_two(p, 1);
    for_all_runs(p, (st_run_t){a, b, y}, &s);
}

void sub_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    st_sum_t s = sum_of_two(p, -1);
    for_all_runs(p, (st_run_t){a, b, y}, &s);
}

void mul_s8(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    for_all_runs(p, (st_run_t){a, b, y}, NULL);
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
