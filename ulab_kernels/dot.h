// The inner loop of convolution and fully connected layers.
#ifndef ST_DOT_H
#define ST_DOT_H

#include "arch.h"

#include <stdint.h>

// Sum of (x[i] + offset) * w[i].
#if ST_SMALL && ST_CORTEX_M0
// The compiler's loop has two branches, and part of it on the stack.
static __attribute__((noinline)) int32_t dot_s8(const int8_t *x, const int8_t *w, int32_t n,
                                                int32_t offset) {
    int32_t sum = 0, i = 0, a, b;
    if (n > 0)
        __asm__("1: ldrsb %2, [%4, %1]\n\tldrsb %3, [%5, %1]\n\tadd %2, %6\n\tmul %2, %3\n\t"
                "add %0, %2\n\tadd %1, #1\n\tcmp %1, %7\n\tbne 1b"
                : "+l"(sum), "+l"(i), "=&l"(a), "=&l"(b)
                : "l"(x), "l"(w), "l"(offset), "h"(n)
                : "cc", "memory");
    return sum;
}
#else
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

#endif
