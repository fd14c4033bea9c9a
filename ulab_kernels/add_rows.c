#include "add_rows.h"
#include "arch.h"
#include "fixedpoint.h"

// Elements [from, n) one after the other.
static void add_some(const st_terms_t *t, int32_t from) {
    const int32_t less = (t->total - t->added) * t->zero;
    const st_term_t *end = t->terms + t->count;
    for (int32_t i = from; i < t->n; i++) {
        int32_t sum = t->is_begun ? t->row[i] - less : -less;
        for (const st_term_t *term = t->terms; term < end; term++)
            sum += term->factor * term->row[i];
        t->row[i] = sum;
    }
}

#if ST_ARMV6M

// armv6m_add_rows.S: 8 * blocks elements of row are the sums of the terms and `start`, or that is
// added to them. words: rows begin at multiples of 4, and start has the sum of all factors times
// -128. The list of terms ends with a row that is no address.
typedef struct {
    const st_term_t *terms;
    int32_t *row;
    int32_t blocks, start, add;
} st_add_rows_t;

void st_add_rows_words(const st_add_rows_t *job);
void st_add_rows_bytes(const st_add_rows_t *job);

#define NO_ROW ((const int8_t *)(1u << 31))

static int32_t add_blocks(st_terms_t *t) {
    const int32_t blocks = t->n >> 3, total = t->total - t->added, bytes = t->not_words & 3;
    const int32_t start = -total * (t->zero + (bytes ? 0 : 128));
    const st_add_rows_t job = {t->terms, t->row, blocks, start, t->is_begun};
    if (!blocks)
        return 0;
    t->terms[t->count].row = NO_ROW;
    if (bytes)
        st_add_rows_bytes(&job);
    else
        st_add_rows_words(&job);
    return blocks * 8;
}

// armv6m_add_rows.S: gathers n factors; where the next one goes. total: that of the terms.
st_term_t *st_gather_scaled(const st_factors_t *f, st_term_t *to, int32_t *total);
st_term_t *st_gather(const st_factors_t *f, st_term_t *to, int32_t *total);

static st_term_t *gather(const st_factors_t *f, st_term_t *to, int32_t *total) {
    return f->scale ? st_gather_scaled(f, to, total) : st_gather(f, to, total);
}

#else

static int32_t add_blocks(st_terms_t *t) {
    (void)t;
    return 0;
}

static st_term_t *gather(const st_factors_t *f, st_term_t *to, int32_t *total) {
    for (int32_t i = 0; i < f->n; i++) {
        int32_t d = f->dy[i * f->dy_step];
        if (!d)
            continue;
        if (f->scale)
            d = (d * (int32_t)f->scale[i] + (1 << 14)) >> 15;
        *total += d;
        *to++ = (st_term_t){d, f->row + i * f->step};
    }
    return to;
}

#endif

void st_terms_add(st_terms_t *t) {
    const int32_t done = add_blocks(t);
    if (done < t->n)
        add_some(t, done);
    t->added = t->total;
    t->count = 0;
    t->is_begun = 1;
    t->not_words = 0;
}

static void gather_some(st_terms_t *t, const st_factors_t *f) {
    t->not_words |= (uintptr_t)f->row | (uintptr_t)f->step;
    t->count = (int32_t)(gather(f, t->terms + t->count, &t->total) - t->terms);
}

// As many as there is room for.
static void gather_and_add(st_terms_t *t, st_factors_t *f) {
    const int32_t left = f->n;
    if (t->count > ST_TERMS / 2)
        st_terms_add(t);
    f->n = st_min(left, ST_TERMS - t->count);
    gather_some(t, f);
    f->dy += f->n * f->dy_step;
    f->row += f->n * f->step;
    f->scale += f->scale ? f->n : 0;
    f->n = left - f->n;
}

void st_terms_gather(st_terms_t *t, st_factors_t *f) {
    while (t->count + f->n > ST_TERMS)
        gather_and_add(t, f);
    if (f->n > 0)
        gather_some(t, f);
}
