#include "patch.h"
#include "arch.h"
#include "fixedpoint.h"

// Rows (columns) of the map in patch i of an axis.
static st_range_t inside(int32_t begin, int32_t patch, int32_t i, int32_t length) {
    const int32_t at = begin + i * patch;
    return (st_range_t){st_max(at, 0), st_min(at + patch, length)};
}

// Part of a map: one patch.
typedef struct {
    st_range_t rows, columns;
} st_patch_t;

static st_patch_t patch_at(const st_patches_t *p, int32_t row, int32_t column) {
    return (st_patch_t){inside(p->top, p->patch_h, row, p->h),
                        inside(p->left, p->patch_w, column, p->w)};
}

static int32_t count_of(const st_patch_t *a) {
    return (a->rows.end - a->rows.begin) * (a->columns.end - a->columns.begin);
}

/// Values ///

// What the means of a patch are made from: elements of a row `step` bytes apart.
typedef struct {
    int32_t rows, columns;
    int32_t step, row_end; // row_end: from behind a row to the next
    uint32_t half, reciprocal;
} st_patch_mean_t;

// Bytes are counted from -128, so that sums have no sign: with half of the count they are at most
// 255.5 * count, and exact below 2^24 / count (ST_MAX_PATCH).
static st_patch_mean_t patch_mean(const st_patches_t *p, const st_patch_t *a) {
    const uint32_t count = (uint32_t)count_of(a);
    const int32_t columns = a->columns.end - a->columns.begin;
    return (st_patch_mean_t){.rows = a->rows.end - a->rows.begin,
                             .columns = columns,
                             .step = p->c,
                             .row_end = (p->w - columns) * p->c,
                             .half = 128 * count + count / 2,
                             .reciprocal = (1u << 24) / count + 1};
}

// Of the patches that most plans have.
static inline uint32_t sum_of_four(const st_patch_mean_t *m, const int8_t *x) {
    const int8_t *below = x + 2 * m->step + m->row_end;
    return (uint32_t)(x[0] + x[m->step] + below[0] + below[m->step]);
}

static uint32_t sum_of_patch(const st_patch_mean_t *m, const int8_t *x) {
    uint32_t sum = 0;
    for (int32_t rows = m->rows; rows > 0; rows--, x += m->row_end)
        for (int32_t columns = m->columns; columns > 0; columns--, x += m->step)
            sum += (uint32_t)*x;
    return sum;
}

ST_HOT static void mean_channels(const st_patch_mean_t *m, const int8_t *x,
                                 const st_channels_t *channels, int8_t *kept) {
    const int are_four = m->rows == 2 && m->columns == 2;
    for (int32_t i = 0; i < channels->n; i++) {
        const int8_t *at = x + channels->index[i];
        const uint32_t sum = m->half + (are_four ? sum_of_four(m, at) : sum_of_patch(m, at));
        kept[i] = (int8_t)((int32_t)(sum * m->reciprocal >> 24) - 128);
    }
    for (int32_t i = channels->n; i < channels->step; i++)
        kept[i] = 0;
}

void patch_values_s8(const st_patches_t *p, const st_channels_t *channels, const int8_t *x,
                     int8_t *kept) {
    for (int32_t row = 0; row < p->rows; row++) {
        for (int32_t column = 0; column < p->columns; column++) {
            const st_patch_t a = patch_at(p, row, column);
            const st_patch_mean_t m = patch_mean(p, &a);
            const int8_t *first = x + (a.rows.begin * p->w + a.columns.begin) * p->c;
            for (int32_t c = 0; c < p->c; c += channels->of, kept += channels->step)
                mean_channels(&m, first + c, channels, kept);
        }
    }
}

/// Errors ///

ST_HOT static void add_elements(const int16_t *dy, int32_t n, int32_t *row) {
    ST_UNROLL(4)
    for (int32_t i = 0; i < n; i++)
        row[i] += dy[i];
}

void patch_errors(const st_patches_t *p, const int16_t *dy, int32_t *row, st_emit_t *d) {
    int32_t at = 0;
    for (int32_t i = 0; i < p->rows; i++) {
        for (int32_t j = 0; j < p->columns; j++, at += p->c) {
            const st_patch_t a = patch_at(p, i, j);
            for (int32_t c = 0; c < p->c; c++)
                row[c] = 0;
            for (int32_t y = a.rows.begin; y < a.rows.end; y++)
                for (int32_t x = a.columns.begin; x < a.columns.end; x++)
                    add_elements(dy + (y * p->w + x) * p->c, p->c, row);
            st_emit_row(d, at, row, p->c);
        }
    }
}

// row[n] = d * 2^(count_log2 + 15) / count; at most 2^15 times d.
static void share_out(const int16_t *d, int32_t n, int32_t count, int count_log2, int32_t *row) {
    const int32_t share = st_min(((1 << (count_log2 + 15)) + (count >> 1)) / count, 1 << 15);
    for (int32_t c = 0; c < n; c++)
        row[c] = d[c] * share;
}

// The patch that element i of an axis belongs to; -1 for none.
static int32_t patch_of(int32_t i, int32_t begin, int32_t patch, int32_t patches) {
    const int32_t at = i < begin ? -1 : (i - begin) / patch;
    return at < patches ? at : -1;
}

// The share of the elements of one patch.
static void make_share(const st_patches_t *p, int count_log2, const int16_t *d, const int32_t at[2],
                       int32_t *row) {
    if (at[0] < 0 || at[1] < 0) {
        for (int32_t c = 0; c < p->c; c++)
            row[c] = 0;
        return;
    }
    const st_patch_t a = patch_at(p, at[0], at[1]);
    share_out(d + (at[0] * p->columns + at[1]) * p->c, p->c, count_of(&a), count_log2, row);
}

void spread_errors(const st_patches_t *p, int count_log2, const int16_t *d, int32_t *row,
                   st_emit_t *dx) {
    int32_t out = 0;
    for (int32_t y = 0; y < p->h; y++) {
        int32_t at[2] = {patch_of(y, p->top, p->patch_h, p->rows), -2};
        for (int32_t x = 0; x < p->w; x++, out += p->c) {
            const int32_t column = patch_of(x, p->left, p->patch_w, p->columns);
            if (column != at[1]) {
                at[1] = column;
                make_share(p, count_log2, d, at, row);
            }
            st_emit_row(dx, out, row, p->c);
        }
    }
}
