// The inner loop of convolution and fully connected layers.
#ifndef ST_DOT_H
#define ST_DOT_H

#include "arch.h"

#include <stdint.h>

// Sum of (x[i] + offset) * w[i].
static inline int32_t dot_s8(const int8_t *x, const int8_t *w, int32_t n, int32_t offset) {
    int32_t sum = 0;
    for (; n >= 4; n -= 4, x += 4, w += 4)
        sum += (x[0] + offset) * w[0] + (x[1] + offset) * w[1] + (x[2] + offset) * w[2] +
               (x[3] + offset) * w[3];
    for (; n > 0; n--)
        sum += (*x++ + offset) * *w++;
    return sum;
}

#endif
