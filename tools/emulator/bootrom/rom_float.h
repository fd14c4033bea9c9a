// Bit-level helpers shared by the float parts of the boot ROM.
#ifndef ROM_FLOAT_H
#define ROM_FLOAT_H
#include <stdint.h>

static inline uint64_t double_bits(double x)
{
    union { double d; uint64_t u; } both = {x};
    return both.u;
}

static inline double bits_double(uint64_t u)
{
    union { uint64_t u; double d; } both = {u};
    return both.d;
}

static inline double power_of_2(int n) { return bits_double((uint64_t)(1023 + n) << 52); }

static inline float float_power_of_2(int n)
{
    union { uint32_t u; float f; } both = {(uint32_t)(127 + n) << 23};
    return both.f;
}

#endif
