#include "requantize.h"
#include "arch.h"

static void requantize_exactly(const st_requantize_t *r, int32_t step, int32_t bias) {
    const uint8_t *sum = (const uint8_t *)r->sums;
    int8_t *y = r->y;
    for (int32_t i = 0; i < r->count; i++, sum += step, y += r->y_step) {
        const int32_t v = st_requantize_exactly(*(const int32_t *)(const void *)sum + bias, r->f);
        *y = (int8_t)st_clamp(v + r->zero, r->lo, r->hi);
    }
}

#if ST_ARMV6M

// armv6m_requantize.S.
void st_requantize_run_fast(const st_requantize_t *run);
void st_requantize_row_fast(const st_requantize_t *row);
// The same where lo is the zero point.
void st_requantize_run_relu(const st_requantize_t *run);
void st_requantize_row_relu(const st_requantize_t *row);

#else

static void requantize_each(const st_requantize_t *r, int32_t step, int32_t bias) {
    const uint8_t *sum = (const uint8_t *)r->sums;
    int8_t *y = r->y;
    for (int32_t i = 0; i < r->count; i++, sum += step, y += r->y_step) {
        const int32_t all = *(const int32_t *)(const void *)sum + bias;
        int32_t v;
        if (!st_requantize_by(&r->reduced, all, &v))
            v = st_requantize_exactly(all, r->f) + r->zero - r->lo;
        *y = (int8_t)(st_clamp(v, 0, r->hi - r->lo) + r->lo);
    }
}

static void st_requantize_run_fast(const st_requantize_t *r) {
    requantize_each(r, r->sum_step, 0);
}

static void st_requantize_row_fast(const st_requantize_t *r) {
    requantize_each(r, 4, r->bias);
}

#define st_requantize_run_relu st_requantize_run_fast
#define st_requantize_row_relu st_requantize_row_fast

#endif

void st_requantize_prepare(st_requantize_t *r) {
    // Less lo, so that an output out of range is found by one comparison.
    r->reduced = st_reduce_if_possible(r->f, r->zero - r->lo);
}

void st_requantize_run(const st_requantize_t *run) {
    if (!st_is_reducible(run->f))
        requantize_exactly(run, run->sum_step, 0);
    else if (run->lo == run->zero)
        st_requantize_run_relu(run);
    else
        st_requantize_run_fast(run);
}

void st_requantize_row(const st_requantize_t *row) {
    if (!st_is_reducible(row->f))
        requantize_exactly(row, 4, row->bias);
    else if (row->lo == row->zero)
        st_requantize_row_relu(row);
    else
        st_requantize_row_fast(row);
}
