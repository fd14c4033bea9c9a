// The one place where it is decided which version of a kernel runs: ST_FAST(conv2d_s8)(...) is the
// one of simd.h in CPython on x86-64, where the processor has AVX2; the portable one in every other
// build, without a question at run time. No table of addresses: native modules have no place for
// it.
#ifndef ST_FAST_H
#define ST_FAST_H

#include "simd_level.h"

#if defined(ST_SIMD) && defined(__x86_64__) && defined(__GNUC__)
#include "simd.h"
#define ST_FAST(kernel) (st_simd_is_on() ? kernel##_simd : kernel)
#else
#define ST_FAST(kernel) kernel
static inline int st_simd_is_on(void) {
    return 0;
}
static inline int st_simd_set(int most) {
    (void)most;
    return ST_SIMD_NONE;
}
#endif

#endif
