#include "losses.h"
#include "fixedpoint.h"

// What a step against the gradient could not do to an output at the end of its range.
static int32_t within_range(int8_t output, int32_t gradient) {
    const int pushes_out = (output == -128 && gradient > 0) || (output == 127 && gradient < 0);
    return pushes_out ? 0 : gradient;
}

st_target_loss_t mean_squared_error(const st_mse_t *p, const int8_t *y, const int8_t *target,
                                    int32_t *row, st_emit_t *dy) {
    int64_t squares = 0; // below 2^33
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t difference = y[i] - target[i];
        squares += difference * difference;
        row[i] = within_range(y[i], difference * p->factor);
    }
    st_emit_row(dy, 0, row, p->count);
    const int64_t loss = squares * p->loss_mantissa >> p->loss_shift;
    return (st_target_loss_t){loss > INT32_MAX ? INT32_MAX : (int32_t)loss, 0};
}

st_target_loss_t binary_cross_entropy(const st_bce_t *p, const int8_t *logits, const int8_t *target,
                                      int32_t *row, st_emit_t *dlogits) {
    st_target_loss_t result = {0, 1};
    int64_t loss = 0;
    for (int32_t i = 0; i < p->count; i++) {
        const int t = target[i] != 0;
        row[i] = within_range(logits[i], p->gradient[t][logits[i] + 128]);
        loss += p->loss[t][logits[i] + 128];
        result.is_right &= (logits[i] > p->zero) == t;
    }
    st_emit_row(dlogits, 0, row, p->count);
    result.loss_q16 = loss > INT32_MAX ? INT32_MAX : (int32_t)loss;
    return result;
}
