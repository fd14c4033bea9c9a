#include "add.h"

#define LEFT_SHIFT 20 // TFLite's headroom for int8 inputs

void add_s8(const st_add_params_t *p, const int8_t *a, const int8_t *b, int8_t *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        int32_t va = st_requantize((a[i] - p->a_zero) * (1 << LEFT_SHIFT), p->a_scale);
        int32_t vb = st_requantize((b[i] - p->b_zero) * (1 << LEFT_SHIFT), p->b_scale);
        int32_t v = st_requantize(va + vb, p->y_scale) + p->y_zero;
        y[i] = (int8_t)st_clamp(v, p->act_min, p->act_max);
    }
}
