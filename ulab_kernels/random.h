// Counter-based random bits: a pure function of (seed, counter), so results depend neither on the
// order of a loop nor on the number of cores.
#ifndef ST_RANDOM_H
#define ST_RANDOM_H

#include <stdint.h>

// x * c as one instruction: for Cortex-M0+ the compiler would write twenty shifts and additions.
static inline uint32_t st_times(uint32_t x, uint32_t c) {
    __asm__("" : "+r"(c));
    return x * c;
}

// A bijective 32-bit mix (two rounds of xorshift-multiply, "lowbias32" constants).
static inline uint32_t st_mix32(uint32_t x) {
    x ^= x >> 16;
    x = st_times(x, 0x7feb352du);
    x ^= x >> 15;
    x = st_times(x, 0x846ca68bu);
    x ^= x >> 16;
    return x;
}

static inline uint32_t st_random(uint32_t seed, uint32_t counter) {
    return st_mix32(seed ^ (st_times(counter, 0x9e3779b9u) + 0x85ebca6bu));
}

#endif
