#include "fully_connected.h"
#include "dot.h"

void fully_connected_s8(const st_conv_geometry_t *g, const st_conv_params_t *p, const int8_t *x,
                        int8_t *y) {
    for (int32_t row = 0; row < g->out_w; row++, x += g->in_c) {
        const int8_t *w = p->weights;
        int32_t less = 0;
        for (int32_t i = 0; g->w_zero && i < g->in_c; i++)
            less += g->w_zero * (x[i] - g->x_zero);
        for (int32_t oc = 0; oc < g->out_c; oc++, w += g->in_c) {
            int32_t sum = p->bias[oc] + dot_s8(x, w, g->in_c, -g->x_zero) - less;
            int32_t v = st_requantize_once(sum, p->requant[oc]) + g->y_zero;
            *y++ = (int8_t)st_clamp(v, g->act_min, g->act_max);
        }
    }
}
