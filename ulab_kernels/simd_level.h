// Which vectors the fast kernels use, where they are built (fast.h).
#ifndef ST_SIMD_LEVEL_H
#define ST_SIMD_LEVEL_H

enum { ST_SIMD_NONE, ST_SIMD_AVX2, ST_SIMD_AVX512 };

#endif
