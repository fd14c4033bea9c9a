// Weights that have no room in RAM: the layer stays in flash, and the weights of those input
// channels that were trained lie elsewhere, in columns: in the state, or in the store in flash.
#ifndef ST_COLUMNS_H
#define ST_COLUMNS_H

#include <stdint.h>

// table: for each input channel where its column is: upper three bits and offset as in every
// reference, nowhere for a channel that is as it came. A column is int8 [kernel_h, kernel_w,
// out_c].
typedef struct {
    const uint32_t *table;
    int8_t *state;
    const int8_t *store;
    int32_t rounds_once; // FULLY_CONNECTED
    int32_t channels;    // of the table
} st_columns_t;

// The column of an input channel; NULL where it is as it came.
static inline const int8_t *st_column(const st_columns_t *c, int32_t channel) {
    const uint32_t ref = c->table[channel], offset = ref & 0x1fffffffu;
    if (ref >> 29 == 1)
        return c->state + offset;
    return ref >> 29 == 4 ? c->store + offset : 0;
}

#endif
