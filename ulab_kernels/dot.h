// The inner loop of convolution and fully connected layers.
#ifndef ST_DOT_H
#define ST_DOT_H

#include "arch.h"

#include <stdint.h>

// Filters that a window meets at once: the loop of the small flavour shares what it loads of x.
#define ST_DOTS (1 + (ST_SMALL && ST_CORTEX_M0))

#if ST_SMALL && ST_CORTEX_M0
// sums[k] += sum of (x[i] + offset) * w[i + k * next]. Of the upper registers only two: at -Os the
// compiler saves no others.
static __attribute__((noinline)) void dots_s8(const int8_t *x, const int8_t *w, int32_t next,
                                              int32_t n, int32_t offset, int32_t sums[ST_DOTS]) {
    int32_t i = 0, first = 0, second = 0, a = offset, b = n;
    if (n <= 0)
        return;
    __asm__("mov r12, %3\n\tmov lr, %4\n"
            "1:\tldrsb %3, [%5, %0]\n\tldrsb %4, [%6, %0]\n\tadd %3, r12\n\tmul %4, %3\n\t"
            "add %1, %4\n\tldrsb %4, [%7, %0]\n\tmul %4, %3\n\tadd %2, %4\n\t"
            "add %0, #1\n\tcmp %0, lr\n\tbne 1b"
            : "+&l"(i), "+&l"(first), "+&l"(second), "+&l"(a), "+&l"(b)
            : "l"(x), "l"(w), "l"(w + next)
            : "r12", "lr", "cc", "memory");
    sums[0] += first;
    sums[1] += second;
}

// Sum of (x[i] + offset) * w[i].
static inline int32_t dot_s8(const int8_t *x, const int8_t *w, int32_t n, int32_t offset) {
    int32_t sums[ST_DOTS] = {0, 0};
    dots_s8(x, w, 0, n, offset, sums);
    return sums[0];
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

static inline void dots_s8(const int8_t *x, const int8_t *w, int32_t next, int32_t n,
                           int32_t offset, int32_t sums[ST_DOTS]) {
    (void)next;
    sums[0] += dot_s8(x, w, n, offset);
}
#endif

#endif
