#include "elementwise.h"

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

// An operand's factor by halves: st_requantize(v * 2^20, f) for |v| <= 255 without a 64-bit
// product.
typedef struct {
    int32_t zero, upper, lower;
    int shift;
    int32_t mask;
} st_term_of_t;

static st_term_of_t term_of(int32_t zero, st_requant_t f) {
    return (st_term_of_t){zero, f.multiplier >> 16, f.multiplier & 0xffff, -f.shift,
                          (int32_t)((1u << -f.shift) - 1)};
}

static inline int32_t term(const st_term_of_t *t, int32_t x) {
    const int32_t v = x - t->zero;
    // floor((v * multiplier + 2^10) / 2^11), which is the rounded upper half of v * 2^20 *
    // multiplier.
    const int32_t high = v * t->upper * 32 + ((v * t->lower + (1 << 10)) >> 11);
    return (high >> t->shift) + ((high & t->mask) > (t->mask >> 1) + (high < 0));
}

// sign: 1 for a + b, -1 for a - b. Shifts of the operands' factors are in [-31, 0].
ST_HOT static void sum_run(const st_elementwise_t *p, st_run_t r, int32_t sign) {
    const st_term_of_t a = term_of(p->a_zero, p->a_scale), b = term_of(p->b_zero, p->b_scale);
    const st_requant_t f = p->y_scale;
    const st_reduced_t reduced = st_reduce_if_possible(f, p->y_zero);
    const int32_t a_step = p->a_stride[3], b_step = p->b_stride[3];
    const int32_t lo = p->act_min, hi = p->act_max, zero = p->y_zero;
    for (int32_t i = p->count[3]; i > 0; i--, r.a += a_step, r.b += b_step) {
        const int32_t sum = term(&a, *r.a) + sign * term(&b, *r.b);
        int32_t v;
        if (!st_requantize_by(&reduced, sum, &v))
            v = st_requantize_exactly(sum, f) + zero;
        *r.y++ = (int8_t)st_clamp(v, lo, hi);
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
