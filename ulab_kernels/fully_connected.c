#include "fully_connected.h"
#include "arch.h"
#include "dot.h"
#include "requantize.h"

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

// sums[6] += x times six rows of n weights: word k / 4 of the first row lies at w + k * k_step / 4,
// that of the next one row_step behind.
static void add_six_rows(const int32_t *x, const int8_t *w, int32_t n, int in_order,
                         int32_t *sums) {
    const int32_t k_step = in_order ? 4 * ST_SIXES : 4, row_step = in_order ? 4 : n;
    for (int32_t k = 0; k < n; k += 4, w += k_step)
        for (int32_t row = 0; row < ST_SIXES; row++)
            for (int32_t i = 0; i < 4; i++)
                sums[row] += x[k + i] * w[row * row_step + i];
}

#if ST_ARMV6M
// armv6m_fully_connected.S; weights at multiples of 4 bytes.
void st_six_rows(const int32_t *x, const int8_t *w, int32_t n, int32_t *sums);
void st_six_rows_in_order(const int32_t *x, const int8_t *w, int32_t n, int32_t *sums);
#endif

static void six_rows(const int32_t *x, const int8_t *w, int32_t n, int in_order, int32_t *sums) {
#if ST_ARMV6M
    if (!((uintptr_t)w & 3)) {
        if (in_order)
            st_six_rows_in_order(x, w, n, sums);
        else
            st_six_rows(x, w, n, sums);
        return;
    }
#endif
    add_six_rows(x, w, n, in_order, sums);
}

// The factor in use, reduced: often all outputs share one.
typedef struct {
    st_requant_t f;
    st_reduced_t reduced;
} st_factor_t;

static st_factor_t factor_of(st_requant_t f, int32_t zero) {
    return (st_factor_t){f, st_reduce_if_possible(f, zero)};
}

static int32_t output(const st_factor_t *now, int32_t sum, int32_t zero) {
    int32_t v;
    return st_requantize_by(&now->reduced, sum, &v) ? v : st_requantize_once(sum, now->f) + zero;
}

static void put_outputs(const st_conv_geometry_t *g, const st_requant_t *f, const int32_t *sums,
                        int32_t n, int8_t *y) {
    st_factor_t now = factor_of(f[0], g->y_zero);
    for (int32_t i = 0; i < n; i++) {
        if (f[i].multiplier != now.f.multiplier || f[i].shift != now.f.shift)
            now = factor_of(f[i], g->y_zero);
        y[i] = (int8_t)st_clamp(output(&now, sums[i], g->y_zero), g->act_min, g->act_max);
    }
}

// Outputs [oc, oc + n), n <= 6, of one row of inputs.
static void six_outputs(const st_conv_geometry_t *g, const st_conv_params_t *p, st_sixes_t s,
                        int32_t oc, int8_t *y) {
    const int32_t n = st_min(ST_SIXES, g->out_c - oc);
    const int8_t *w = p->weights + oc * g->in_c;
    int32_t sums[ST_SIXES];
    for (int32_t i = 0; i < ST_SIXES; i++)
        sums[i] = i < n ? p->bias[oc + i] : 0;
    if (s.in_order || n == ST_SIXES)
        six_rows(s.x_wide, w, g->in_c, s.in_order, sums);
    else
        for (int32_t i = 0; i < n; i++)
            for (int32_t k = 0; k < g->in_c; k++)
                sums[i] += s.x_wide[k] * w[i * g->in_c + k];
    put_outputs(g, p->requant + oc, sums, n, y + oc);
}

// Of one row of inputs.
typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    st_sixes_t sixes;
    int8_t *y;
} st_row_of_outputs_t;

static void outputs_part(const void *job, st_part_t part) {
    const st_row_of_outputs_t *row = (const st_row_of_outputs_t *)job;
    for (int32_t oc = part.begin; oc < part.end; oc += ST_SIXES)
        six_outputs(row->g, row->p, row->sixes, oc, row->y);
}

void fully_connected_sixes_s8(const st_conv_geometry_t *g, const st_conv_params_t *p,
                              const int8_t *x, st_sixes_t sixes, int8_t *y) {
    for (int32_t row = 0; row < g->out_w; row++, x += g->in_c, y += g->out_c) {
        const st_row_of_outputs_t outputs = {g, p, sixes, y};
        for (int32_t i = 0; i < g->in_c; i++)
            sixes.x_wide[i] = x[i] - g->x_zero;
        st_split(p->cores, outputs_part, &outputs, (st_units_t){g->out_c, ST_SIXES});
    }
}
