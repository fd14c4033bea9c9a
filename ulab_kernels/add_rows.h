// The inner loop of the gradients of convolutions: a sum of int8 rows with int16 factors.
#ifndef ST_ADD_ROWS_H
#define ST_ADD_ROWS_H

#include <stdint.h>

#define ST_TERMS 64 // as many as are gathered before they are added

// A factor, and its row.
typedef struct {
    int32_t factor;
    const int8_t *row;
} st_term_t;

// Terms that are gathered to be added to row[n]: a loop that met zeros would spend most of its time
// on them, as half of the gradients behind a ReLU are.
typedef struct {
    int32_t *row;
    int32_t n, zero;
    int32_t total;       // of all factors so far
    int32_t added;       // of those that are added already
    int32_t count;       // gathered, and not added
    int32_t is_begun;    // row holds sums; else what is there does not count
    uintptr_t not_words; // its lower two bits: whether a row may begin beside a word
    st_term_t terms[ST_TERMS + 1];
} st_terms_t;

// n factors that are dy_step elements apart, each times scale / 2^15 where there is one, and their
// rows, `step` bytes apart.
typedef struct {
    const int16_t *dy;
    const uint16_t *scale;
    const int8_t *row;
    int32_t dy_step, step, n;
} st_factors_t;

// The sum of all terms goes to row[n], of int8 values minus zero.
static inline void st_terms_begin(st_terms_t *t, int32_t *row, int32_t n, int32_t zero) {
    t->row = row; // no initialiser: it would clear the terms, too
    t->n = n;
    t->zero = zero;
    t->total = t->added = t->count = t->is_begun = 0;
    t->not_words = 0;
}

// Gathers factors that are not 0, and adds them when there are many. What f holds then is of no
// use.
void st_terms_gather(st_terms_t *t, st_factors_t *f);

// row[i] is complete for what was gathered so far.
void st_terms_add(st_terms_t *t);

// Sums of `count` neighbours, the factors of each of which lie one element behind those of the one
// before: n sums each, `step` elements apart, the last of which is that of its factors.
typedef struct {
    int32_t count, step;
} st_neighbours_t;

// f: of the first one, 1 to ST_TERMS. t: as st_terms_begin leaves it.
void st_terms_sum(st_terms_t *t, const st_factors_t *f, st_neighbours_t to);

#endif
