#include "fully_connected.h"
#include "arch.h"
#include "dot.h"
#include "mac16.h"
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

#if ST_ARMV6M

// armv6m_fully_connected.S; w: at a multiple of 4 bytes.
void st_four_rows(const int32_t *factors, const int8_t *w, int32_t n, int32_t *sums);
void st_six_packed(const int32_t *x_pairs, const int32_t *w, int32_t n, int32_t *lanes);

#else

// lanes: three times the sums of two rows, row + next * 2^16 and next alone; both are added to.
static void st_six_packed(const int32_t *x_pairs, const int32_t *w, int32_t n, int32_t *lanes) {
    const uint32_t mask = 0x00ff00ff;
    for (int32_t k = 0; k < n; k += 2, x_pairs += 3)
        for (int32_t pair = 0; pair < 3; pair++) {
            const uint32_t four = (uint32_t)*w++;
            const uint32_t two = (four & mask) * (uint32_t)x_pairs[0] +
                                 (four >> 8 & mask) * (uint32_t)x_pairs[1] + (uint32_t)x_pairs[2];
            lanes[2 * pair] = (int32_t)((uint32_t)lanes[2 * pair] + two);
            lanes[2 * pair + 1] += (int32_t)two >> 16;
        }
}

#endif

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
    const int is_found = !ST_SMALL && st_requantize_by(&now->reduced, sum, &v);
    return is_found ? v : st_requantize_once(sum, now->f) + zero;
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

// Outputs of one row of inputs.
typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    const int8_t *x;
    const int32_t *scratch; // what it holds of x
    int8_t *y;
    int32_t less; // 128 times the sum of all inputs
} st_row_of_outputs_t;

#define FOURS 4

#if ST_MAC16

// As st_mac16_dot takes them; returns 128 times the sum of all.
static int32_t make_factors(const int8_t *x, int32_t n, int32_t zero, int32_t *factors) {
    int16_t *to = (int16_t *)factors;
    int32_t total = 0;
    for (; n > 0; n -= 4, x += 4, to += 4) {
        const int32_t a = x[0] - zero, b = x[1] - zero, c = x[2] - zero, d = x[3] - zero;
        to[0] = (int16_t)a;
        to[1] = (int16_t)c;
        to[2] = (int16_t)b;
        to[3] = (int16_t)d;
        total += a + b + c + d;
    }
    return total * 128;
}

#else

// Of four inputs the first one, and of each other one what it is more than 256 times the one
// before; returns 128 times the sum of all.
static int32_t make_factors(const int8_t *x, int32_t n, int32_t zero, int32_t *factors) {
    int32_t total = 0;
    for (; n > 0; n -= 4, x += 4, factors += 4) {
        const int32_t a = x[0] - zero, b = x[1] - zero, c = x[2] - zero, d = x[3] - zero;
        factors[0] = a;
        factors[1] = b - 256 * a;
        factors[2] = c - 256 * b;
        factors[3] = d - 256 * c;
        total += a + b + c + d;
    }
    return total * 128;
}

#endif

static void each_row(const st_row_of_outputs_t *r, const int8_t *w, int32_t n, int32_t *sums) {
    for (int32_t i = 0; i < n; i++, w += r->g->in_c)
        sums[i] += dot_s8(r->x, w, r->g->in_c, -r->g->x_zero);
}

#if ST_ARMV6M

// Whether four rows were added, which must begin at multiples of 4 bytes.
static int has_four_rows(const st_row_of_outputs_t *r, const int8_t *w, int32_t n, int32_t *sums) {
    if (n < FOURS || ((uintptr_t)w & 3))
        return 0;
    for (int32_t i = 0; i < n; i++)
        sums[i] = (int32_t)((uint32_t)sums[i] - (uint32_t)r->less);
    st_four_rows(r->scratch, w, r->g->in_c, sums);
    return 1;
}

#elif ST_MAC16

// Whether rows were added, which must begin at multiples of 4 bytes.
static int has_four_rows(const st_row_of_outputs_t *r, const int8_t *w, int32_t n, int32_t *sums) {
    const int16_t *x = (const int16_t *)r->scratch;
    if ((uintptr_t)w & 3)
        return 0;
    for (int32_t i = 0; i < n; i++, w += r->g->in_c)
        sums[i] = (int32_t)((uint32_t)sums[i] + (uint32_t)st_mac16_dot(x, w, r->g->in_c) -
                            (uint32_t)r->less);
    return 1;
}

#else

static int has_four_rows(const st_row_of_outputs_t *r, const int8_t *w, int32_t n, int32_t *sums) {
    (void)r, (void)w, (void)n, (void)sums;
    return 0;
}

#endif

// sums[n] += n rows of weights times the inputs.
static void add_rows(const st_row_of_outputs_t *r, const int8_t *w, int32_t n, int32_t *sums) {
    if (!has_four_rows(r, w, n, sums))
        each_row(r, w, n, sums);
}

// Outputs [oc, oc + n), n <= 4; to make it four, some before them are summed once more.
static void four_outputs(const st_row_of_outputs_t *r, int32_t oc, int32_t n) {
    const int32_t first = st_max(0, st_min(oc, r->g->out_c - FOURS)), before = oc - first;
    int32_t sums[FOURS];
    for (int32_t i = 0; i < before + n; i++)
        sums[i] = r->p->bias[first + i];
    add_rows(r, r->p->weights + first * r->g->in_c, before + n, sums);
    put_outputs(r->g, r->p->requant + oc, sums + before, n, r->y + oc);
}

static void fours_part(const void *job, st_part_t part) {
    const st_row_of_outputs_t *row = (const st_row_of_outputs_t *)job;
    for (int32_t oc = part.begin; oc < part.end; oc += FOURS)
        four_outputs(row, oc, st_min(FOURS, row->g->out_c - oc));
}

void fully_connected_fours_s8(const st_conv_geometry_t *g, const st_conv_params_t *p,
                              const int8_t *x, int32_t *factors, int8_t *y) {
    for (int32_t row = 0; row < g->out_w; row++, x += g->in_c, y += g->out_c) {
        const int32_t less = make_factors(x, g->in_c, g->x_zero, factors);
        const st_row_of_outputs_t outputs = {g, p, x, factors, y, less};
        st_split(p->cores, fours_part, &outputs, (st_units_t){g->out_c, FOURS});
    }
}

/// From packed weights ///

#define HALF (1 << 15)

// Two inputs, and what is added to their products with weights that are 128 too large in either
// half of a word: that, back off, and what parts the halves (lanes.h).
static void pair_inputs(const int8_t *x, int32_t n, int32_t *pairs) {
    for (; n > 0; n -= 2, x += 2) {
        *pairs++ = x[0];
        *pairs++ = x[1];
        *pairs++ = (int32_t)(HALF - (uint32_t)(x[0] + x[1]) * 0x00800080u);
    }
}

// Outputs [oc, oc + n), n <= 6.
static void packed_outputs(const st_row_of_outputs_t *r, int32_t oc, int32_t n) {
    const int32_t in_c = r->g->in_c;
    const int32_t *group =
        (const int32_t *)(const void *)r->p->weights + oc / ST_SIXES * (ST_SIXES + in_c / 2 * 3);
    const uint32_t halves = (uint32_t)in_c / 2 * HALF;
    int32_t sums[ST_SIXES];
    for (int32_t i = 0; i < ST_SIXES; i++)
        sums[i] = group[i] + (i < n ? r->p->bias[oc + i] : 0);
    for (int32_t i = 0; i < ST_SIXES; i += 2)
        sums[i] = (int32_t)((uint32_t)sums[i] + ((uint32_t)sums[i + 1] << 16) - halves);
    st_six_packed(r->scratch, group + ST_SIXES, in_c, sums);
    for (int32_t i = 0; i < ST_SIXES; i += 2)
        sums[i] = (int32_t)((uint32_t)sums[i] - ((uint32_t)sums[i + 1] << 16));
    put_outputs(r->g, r->p->requant + oc, sums, n, r->y + oc);
}

static void packed_part(const void *job, st_part_t part) {
    const st_row_of_outputs_t *row = (const st_row_of_outputs_t *)job;
    for (int32_t oc = part.begin; oc < part.end; oc += ST_SIXES)
        packed_outputs(row, oc, st_min(ST_SIXES, row->g->out_c - oc));
}

void fully_connected_packed_s8(const st_conv_geometry_t *g, const st_conv_params_t *p,
                               const int8_t *x, int32_t *x_pairs, int8_t *y) {
    for (int32_t row = 0; row < g->out_w; row++, x += g->in_c, y += g->out_c) {
        const st_row_of_outputs_t outputs = {g, p, x, x_pairs, y, 0};
        pair_inputs(x, g->in_c, x_pairs);
        st_split(p->cores, packed_part, &outputs, (st_units_t){g->out_c, ST_SIXES});
    }
}
