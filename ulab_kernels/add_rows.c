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

#define ADD 1u       // to what is in row
#define FOUR_MORE 4u // elements behind the blocks

// armv6m_add_rows.S: 8 * blocks elements of row are the sums of the terms and `start`, or that is
// added to them. words: rows begin at multiples of 4, start has the sum of all factors times -128,
// and there may be four elements more. The list of terms ends with a row that is no address.
typedef struct {
    const st_term_t *terms;
    int32_t *row;
    int32_t blocks, start;
    uint32_t flags;
} st_add_rows_t;

void st_add_rows_words(const st_add_rows_t *job);
void st_add_rows_bytes(const st_add_rows_t *job);

#define NO_ROW ((const int8_t *)(1u << 31))

static int32_t add_blocks(st_terms_t *t) {
    const int32_t blocks = t->n >> 3, total = t->total - t->added, bytes = t->not_words & 3;
    const int32_t start = -total * (t->zero + (bytes ? 0 : 128)), in_blocks = blocks * 8;
    const uint32_t more = bytes ? 0 : (uint32_t)t->n & FOUR_MORE;
    const st_add_rows_t job = {t->terms, t->row, blocks, start, more | (t->is_begun ? ADD : 0)};
    t->terms[t->count].row = NO_ROW;
    if (bytes && blocks)
        st_add_rows_bytes(&job);
    else if (in_blocks + more)
        st_add_rows_words(&job);
    return in_blocks + (int32_t)more;
}

// armv6m_add_rows.S: gathers n factors; where the next one goes. total: that of the terms.
st_term_t *st_gather_scaled(const st_factors_t *f, st_term_t *to, int32_t *total);
st_term_t *st_gather(const st_factors_t *f, st_term_t *to, int32_t *total);

static st_term_t *gather_terms(const st_factors_t *f, st_term_t *to, int32_t *total) {
    return f->scale ? st_gather_scaled(f, to, total) : st_gather(f, to, total);
}

#else

#if ST_XTENSA_MAC16

// xtensa_add_rows.S: 8 * blocks elements of row are the sums of `count` terms and `start`, or that
// is added to them. words: rows begin at multiples of 4, start has the sum of all factors times
// -128.
typedef struct {
    const st_term_t *terms;
    int32_t count;
    int32_t *row;
    int32_t blocks, start, is_begun;
} st_add_rows_t;

void st_add_rows_words(const st_add_rows_t *job);
void st_add_rows_bytes(const st_add_rows_t *job);

static int32_t add_blocks(st_terms_t *t) {
    const int32_t blocks = t->n >> 3, total = t->total - t->added, bytes = t->not_words & 3;
    const int32_t start = -total * (t->zero + (bytes ? 0 : 128));
    const st_add_rows_t job = {t->terms, t->count, t->row, blocks, start, t->is_begun};
    if (bytes && blocks)
        st_add_rows_bytes(&job);
    else if (blocks)
        st_add_rows_words(&job);
    return blocks * 8;
}

#else

static int32_t add_blocks(st_terms_t *t) {
    (void)t;
    return 0;
}

#endif

static st_term_t *gather_terms(const st_factors_t *f, st_term_t *to, int32_t *total) {
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

static void add_all(st_terms_t *t) {
    const int32_t done = add_blocks(t);
    if (done < t->n)
        add_some(t, done);
}

void st_terms_add(st_terms_t *t) {
    add_all(t);
    t->added = t->total;
    t->count = 0;
    t->is_begun = 1;
    t->not_words = 0;
}

static void gather_some(st_terms_t *t, const st_factors_t *f) {
    t->not_words |= (uintptr_t)f->row | (uintptr_t)f->step;
    t->count = (int32_t)(gather_terms(f, t->terms + t->count, &t->total) - t->terms);
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

void st_terms_sum(st_terms_t *t, const st_factors_t *f, st_neighbours_t to) {
    st_factors_t one = *f;
    for (int32_t *row = t->row, *end = row + to.count * to.step; row < end; row += to.step) {
        t->row = row;
        t->total = t->count = 0;
        gather_some(t, &one);
        add_all(t);
        row[to.step - 1] = t->total;
        one.dy++;
    }
}
