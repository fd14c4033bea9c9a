#include "error_tensor.h"
#include "arch.h"
#include "cores.h"
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
    e->mode = accumulate ? ST_ADD : ST_OVERWRITE;
    e->edge = 0;
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

#if ST_ARMV6M

// armv6m_error.S: the same for elements four by four, until one exceeds the peak; where it stopped.
typedef struct {
    const int32_t *sums, *end;
    int16_t *to;
    int32_t shift, peak;
} st_put_fours_t;

int16_t *st_put_fours(const st_put_fours_t *job);

static int32_t put_while_fitting(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    int16_t *to = e->data + at;
    const st_put_fours_t job = {sums, sums + (n & ~3), to, e->shift, e->peak};
    const int32_t done = n < 4 || e->shift > 31 ? 0 : (int32_t)(st_put_fours(&job) - to);
    e->written = at + done;
    return done;
}

#else

// As put_element for all until one exceeds the peak; returns how many that were. All of e in
// locals: the int16 that are written might be its own.
ST_HOT static int32_t put_while_fitting(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    const int32_t peak = e->peak, range = 2 * peak, shift = e->shift;
    const int32_t before = shift ? shift - 1 : 0, after = shift ? 1 : 0;
    int16_t *to = e->data + at;
    int32_t i = 0;
    for (; i < n; i++) {
        const int32_t v = ((sums[i] >> before) + after) >> after;
        if ((uint32_t)v + (uint32_t)peak > (uint32_t)range)
            break;
        to[i] = (int16_t)v;
    }
    e->written = at + i;
    return i;
}

#endif

static void overwrite_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        i += put_while_fitting(e, at + i, sums + i, n - i);
        if (i < n)
            put_element(e, at + i, sums[i]);
    }
}

// Adds to what is there until one exceeds the peak; returns how many that were. For shifts up
// to 31.
ST_HOT static int32_t add_while_fitting(const st_emit_t *e, int16_t *to, const int32_t *sums,
                                        int32_t n) {
    const int32_t peak = e->peak, range = 2 * peak, shift = e->shift;
    const int32_t before = shift ? shift - 1 : 0, after = shift ? 1 : 0;
    int32_t i = 0;
    for (; i < n; i++) {
        const int32_t v = to[i] + (((sums[i] >> before) + after) >> after);
        if ((uint32_t)(v + peak) > (uint32_t)range)
            break;
        to[i] = (int16_t)v;
    }
    return i;
}

// From the i-th on; returns which is the first one that does not fit, or n.
static int32_t add_fitting(st_emit_t *e, int32_t at, const int32_t *sums, int32_t i, int32_t n) {
    for (; i < n; i++) {
        if (e->shift <= 31)
            i += add_while_fitting(e, e->data + at + i, sums + i, n - i);
        if (i == n)
            break;
        const int32_t v = e->data[at + i] + aligned(e, sums[i]);
        if (!fits(e, v))
            break;
        e->data[at + i] = (int16_t)v;
        e->peak = st_max(e->peak, v < 0 ? -v : v);
    }
    return i;
}

static void add_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    for (int32_t i = 0; (i = add_fitting(e, at, sums, i, n)) < n;)
        halve_written(e);
}

#if ST_SPLITS

static void take_back(const st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        e->data[at + i] = (int16_t)(e->data[at + i] - aligned(e, sums[i]));
}

static void try_to_add_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    const int32_t done = add_fitting(e, at, sums, 0, n);
    if (done == n)
        return;
    take_back(e, at, sums, done);
    e->edge = at;
}

#else

static void take_back(const st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    (void)e, (void)at, (void)sums, (void)n;
}

static void try_to_add_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    (void)e, (void)at, (void)sums, (void)n;
}

#endif

void st_emit_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n) {
    if (e->mode == ST_OVERWRITE)
        overwrite_row(e, at, sums, n);
    else if (e->mode == ST_ADD && at >= e->edge)
        add_row(e, at, sums, n);
    else if (e->mode == ST_TRY_TO_ADD && at < e->edge)
        try_to_add_row(e, at, sums, n);
    else if (e->mode == ST_TAKE_BACK && at < e->edge)
        take_back(e, at, sums, n);
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
