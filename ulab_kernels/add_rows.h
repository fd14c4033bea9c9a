// The inner loop of the gradients of convolutions: a sum of int8 rows with int16 factors.
#ifndef ST_ADD_ROWS_H
#define ST_ADD_ROWS_H

#include <stdint.h>

#define ST_TERMS 64 // as many as are gathered before they are added; an even number

// A factor, and where its row begins.
typedef struct {
    int32_t factor, at;
} st_term_t;

// Terms that are gathered to be added to row[n]: a loop that met zeros would spend most of its time
// on them, as half of the gradients behind a ReLU are.
typedef struct {
    const int8_t *values;
    int32_t *row;
    int32_t n, count;
    st_term_t terms[ST_TERMS];
} st_terms_t;

// row[i] += sum over the terms gathered of factor * values[at + i]; then there are none.
void st_terms_add(st_terms_t *t);

#endif
