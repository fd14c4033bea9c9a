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

#define ST_SPREAD 0x9e3779b9u // from one counter to the next
#define ST_RANDOM_START 0x85ebca6bu
#define ST_MIX_1 0x7feb352du
#define ST_MIX_2 0x846ca68bu

// A bijective 32-bit mix (two rounds of xorshift-multiply, "lowbias32" constants).
static inline uint32_t st_mix32(uint32_t x) {
    x ^= x >> 16;
    x = st_times(x, ST_MIX_1);
    x ^= x >> 15;
    x = st_times(x, ST_MIX_2);
    x ^= x >> 16;
    return x;
}

static inline uint32_t st_random(uint32_t seed, uint32_t counter) {
    return st_mix32(seed ^ (st_times(counter, ST_SPREAD) + ST_RANDOM_START));
}

// For the slot-th sum of a row whose first counter is `base`. Two neighbours share a hash, which
// the second reads from its other end: their upper 16 bits, which decide, have nothing in common.
static inline uint32_t st_random_in_row(uint32_t seed, uint32_t base, uint32_t slot) {
    const uint32_t x = st_mix32(seed + st_times(base + (slot >> 1), ST_SPREAD));
    return slot & 1 ? __builtin_bswap32(x) : x;
}

#endif
