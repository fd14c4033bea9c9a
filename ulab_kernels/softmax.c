#include "softmax.h"
#include "fixedpoint.h"

static int32_t row_argmax(const int8_t *x, int32_t depth) {
    int32_t best = 0;
    for (int32_t i = 1; i < depth; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

// (x - max) * beta * scale in Q5.26, <= 0.
static int32_t scaled_diff(const st_softmax_params_t *p, int32_t diff) {
    return st_mul_high((int32_t)((uint32_t)diff << p->left_shift), p->multiplier);
}

// The same in Q16, which has room for any difference.
static int32_t scaled_diff_q16(const st_softmax_params_t *p, int32_t diff) {
    return (int32_t)(((int64_t)diff * p->multiplier) >> (41 - p->left_shift));
}

// Sum over the row of exp(x - max), Q12.19.
static int32_t sum_of_exps(const st_softmax_params_t *p, const int8_t *x, int32_t max) {
    int32_t sum = 0;
    for (int32_t i = 0; i < p->depth; i++)
        if (x[i] - max >= p->diff_min)
            sum += st_round_shift(st_exp_negative(scaled_diff(p, x[i] - max)), 12);
    return sum;
}

// exp(diff) * scale with the given number of bits left of the Q0.31 product taken away.
static int32_t probability(const st_softmax_params_t *p, int32_t diff, int32_t scale, int shift) {
    if (diff < p->diff_min)
        return 0;
    return st_round_shift(st_mul_high(scale, st_exp_negative(scaled_diff(p, diff))),
                          st_min(shift, 31));
}

void softmax_s8(const st_softmax_params_t *p, const int8_t *x, int8_t *y) {
    for (int32_t r = 0; r < p->rows; r++, x += p->depth, y += p->depth) {
        const int32_t max = x[row_argmax(x, p->depth)];
        int bits;
        const int32_t scale = st_reciprocal(sum_of_exps(p, x, max), &bits);
        for (int32_t i = 0; i < p->depth; i++) {
            int32_t v = probability(p, x[i] - max, scale, bits + 31 - 8) - 128;
            y[i] = (int8_t)st_clamp(v, -128, 127);
        }
    }
}

void softmax_grad_input(const st_softmax_params_t *p, const int8_t *y, const int16_t *dy,
                        int32_t *row, st_emit_t *dx) {
    for (int32_t r = 0; r < p->rows; r++, y += p->depth, dy += p->depth) {
        int32_t dot = 0;
        for (int32_t i = 0; i < p->depth; i++)
            dot += (y[i] + 128) * dy[i];
        for (int32_t i = 0; i < p->depth; i++)
            row[i] = (y[i] + 128) * (dy[i] * 256 - dot);
        st_emit_row(dx, r * p->depth, row, p->depth);
    }
}

// Whether a step against the gradient would push a logit at the end of its range further out.
static int pushes_out(int8_t logit, int32_t gradient) {
    return (logit == -128 && gradient > 0) || (logit == 127 && gradient < 0);
}

st_loss_t softmax_cross_entropy(const st_softmax_params_t *p, const int8_t *logits,
                                st_answer_t answer, int32_t *row, st_emit_t *dlogits) {
    st_loss_t loss = {0, row_argmax(logits, p->depth)};
    const int32_t max = logits[loss.predicted];
    const int32_t sum = sum_of_exps(p, logits, max);
    int bits;
    const int32_t scale = st_reciprocal(sum, &bits);
    int32_t others = 0;
    for (int32_t i = 0; i < p->depth; i++) { // Q30
        row[i] = probability(p, logits[i] - max, scale, bits + 1) - answer.smoothing;
        others += i == answer.label ? 0 : row[i];
    }
    row[answer.label] = -others; // p - 1, also where p is too near 1 to tell
    for (int32_t i = 0; i < p->depth; i++)
        if (pushes_out(logits[i], row[i]))
            row[i] = 0;
    loss.loss_q16 = st_ln_q16((uint32_t)sum, 19) - scaled_diff_q16(p, logits[answer.label] - max);
    st_emit_row(dlogits, 0, row, p->depth);
    return loss;
}
