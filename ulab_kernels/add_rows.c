#include "add_rows.h"
#include "arch.h"

// Elements [from, n) one after the other.
static void add_some(const st_terms_t *t, int32_t from) {
    for (int32_t i = from; i < t->n; i++) {
        int32_t sum = 0;
        for (int32_t k = 0; k < t->count; k++)
            sum += t->terms[k].factor * t->values[t->terms[k].at + i];
        t->row[i] += sum;
    }
}

#if ST_ARMV6M

// armv6m_add_rows.S: eight elements. words: rows and values begin at multiples of 4.
void st_add_rows_words(const st_term_t *terms, const st_term_t *end, const int8_t *values,
                       int32_t *row);
void st_add_rows_bytes(const st_term_t *terms, const st_term_t *end, const int8_t *values,
                       int32_t *row);

static int are_words(const st_terms_t *t) {
    uintptr_t all = (uintptr_t)t->values;
    for (int32_t k = 0; k < t->count; k++)
        all |= (uintptr_t)t->terms[k].at;
    return !(all & 3);
}

void st_terms_add(st_terms_t *t) {
    int32_t i = 0;
    if (t->count && t->n >= 8) {
        const int words = are_words(t);
        const st_term_t *end = t->terms + t->count;
        if (t->count & 1) { // there is room: a full list has an even number
            t->terms[t->count] = (st_term_t){0, t->terms[0].at};
            end++;
        }
        for (; i + 8 <= t->n; i += 8) {
            if (words)
                st_add_rows_words(t->terms, end, t->values + i, t->row + i);
            else
                st_add_rows_bytes(t->terms, end, t->values + i, t->row + i);
        }
    }
    add_some(t, i);
    t->count = 0;
}

#else

void st_terms_add(st_terms_t *t) {
    (void)add_some;
    for (int32_t k = 0; k < t->count; k++) {
        const int32_t factor = t->terms[k].factor;
        const int8_t *values = t->values + t->terms[k].at;
        for (int32_t i = 0; i < t->n; i++)
            t->row[i] += factor * values[i];
    }
    t->count = 0;
}

#endif
