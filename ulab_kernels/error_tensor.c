#include "error_tensor.h"
#include "arch.h"
#include "fixedpoint.h"

// Round half up; error tensors have bits to spare, so the bias of the ties does not matter.
static inline int32_t shift_round(int32_t v, int n) {
    return n ? ((v >> (n - 1)) + 1) >> 1 : v;
}

// v / 2 to nearest, ties to even: halving again and again must not leave a 1 where nothing is.
static inline int32_t half_of(int32_t v) {
    return (v + (v >> 1 & 1)) >> 1;
}

static void halve_written(st_emit_t *e) {
    for (int32_t i = 0; i < e->written; i++)
        e->data[i] = (int16_t)half_of(e->data[i]);
    e->peak = (e->peak + 1) >> 1;
    e->shift++;
}

void st_emit_begin(st_emit_t *e, int base_exponent, int accumulate) {
    e->base_exponent = (int16_t)base_exponent;
    e->accumulate = (int8_t)accumulate;
    e->shift = (int16_t)st_clamp(*e->state.shift, 0, 31);
    e->written = accumulate ? e->count : 0;
    e->peak = 0;
    if (!accumulate)
        return;
    // The shift that the values there already have; beyond these ends, either side vanishes.
    int present = st_clamp(*e->state.exponent - base_exponent, -64, 1024);
    if (present >= 31 || e->shift < present) {
        e->shift = (int16_t)present;
        return;
    }
    int target = e->shift;
    e->shift = (int16_t)present;
    while (e->shift < target)
        halve_written(e);
}

static int32_t aligned(const st_emit_t *e, int32_t sum) {
    return e->shift > 31 ? 0 : shift_round(sum, e->shift);
}

static int fits(const st_emit_t *e, int32_t v) {
    return v <= e->limit && v >= -e->limit;
}

// One element that may not fit.
static void put_element(st_emit_t *e, int32_t at, int32_t sum) {
    int32_t v = shift_round(sum, e->shift);
    while (!fits(e, v)) {
        halve_written(e);
        v = shift_round(sum, e->shift);
    }
    e->data[at] = (int16_t)v;
    e->written = at + 1;
    e->peak = st_max(e->peak, v < 0 ? -v : v);
}

// As put_element for all until one does not fit; returns how many did. For shifts above 0.
ST_HOT static int32_t put_while_fitting(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    const int32_t limit = e->limit, shift = e->shift - 1;
    int32_t peak = e->peak;
    int16_t *to = e->data + at;
    const int32_t *begin = sums, *end = sums + n;
    for (; sums < end; sums++) {
        const int32_t v = ((*sums >> shift) + 1) >> 1;
        if (v > peak || v < -peak) {
            if (v > limit || v < -limit)
                break;
            peak = v < 0 ? -v : v;
        }
        *to++ = (int16_t)v;
    }
    e->peak = peak;
    e->written = at + (int32_t)(sums - begin);
    return (int32_t)(sums - begin);
}

static void overwrite_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        if (e->shift > 0)
            i += put_while_fitting(e, at + i, sums + i, n - i);
        if (i < n)
            put_element(e, at + i, sums[i]);
    }
}

static void add_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        int32_t v = e->data[at + i] + aligned(e, sums[i]);
        while (!fits(e, v)) {
            halve_written(e);
            v = e->data[at + i] + aligned(e, sums[i]);
        }
        e->data[at + i] = (int16_t)v;
        e->peak = st_max(e->peak, v < 0 ? -v : v);
    }
}

void st_emit_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    if (e->accumulate)
        add_row(e, at, sums, n);
    else
        overwrite_row(e, at, sums, n);
}

int st_emit_join(st_emit_t *e, const st_emit_t *second, int start) {
    if (e->shift != start)
        return 0;
    while (e->shift < second->shift)
        halve_written(e);
    e->written += second->written;
    e->peak = st_max(e->peak, second->peak);
    return 1;
}

void st_emit_end(const st_emit_t *e) {
    *e->state.exponent = (int16_t)(e->base_exponent + e->shift);
    int lower = e->shift > 0 && e->peak < e->limit >> 2;
    *e->state.shift = (int16_t)(e->shift - lower);
}
