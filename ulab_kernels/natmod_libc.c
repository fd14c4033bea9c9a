// For the native module only. It links to no C library, yet the compiler calls these (to clear or
// copy a struct, say): they go through MicroPython's function table.
#ifdef MICROPY_ENABLE_DYNRUNTIME

#include "arch.h"
#include "py/dynruntime.h"

#undef memset
#undef memcpy
#undef memmove

void *memset(void *to, int value, size_t bytes) {
    return mp_fun_table.memset_(to, value, bytes);
}

void *memmove(void *to, const void *from, size_t bytes) {
    return mp_fun_table.memmove_(to, from, bytes);
}

void *memcpy(void *to, const void *from, size_t bytes) {
    return mp_fun_table.memmove_(to, from, bytes);
}

#if ST_SMALL && defined(__ARM_ARCH_6M__)

// Division where the processor has none, bit by bit: libgcc's unrolled loops take 700 bytes more,
// and nothing divides for each element. Names, and results in two registers, as the ARM ABI has
// them.
#define ST_OF_LIBGCC __attribute__((used, externally_visible))

// The quotient in the lower half, the remainder in the upper.
ST_OF_LIBGCC uint64_t __aeabi_uidivmod(uint32_t n, uint32_t d) {
    uint32_t rest = 0;
    for (int32_t i = 0; i < 32; i++) {
        rest = rest << 1 | n >> 31;
        n <<= 1;
        if (rest >= d) {
            rest -= d;
            n++;
        }
    }
    return (uint64_t)rest << 32 | n;
}

ST_OF_LIBGCC uint32_t __aeabi_uidiv(uint32_t n, uint32_t d) {
    return (uint32_t)__aeabi_uidivmod(n, d);
}

// Towards zero; the remainder has the sign of n.
ST_OF_LIBGCC uint64_t __aeabi_idivmod(int32_t n, int32_t d) {
    const uint64_t both = __aeabi_uidivmod(n < 0 ? 0u - (uint32_t)n : (uint32_t)n,
                                           d < 0 ? 0u - (uint32_t)d : (uint32_t)d);
    const uint32_t q = (uint32_t)both, r = (uint32_t)(both >> 32);
    return (uint64_t)(n < 0 ? 0u - r : r) << 32 | ((n ^ d) < 0 ? 0u - q : q);
}

ST_OF_LIBGCC int32_t __aeabi_idiv(int32_t n, int32_t d) {
    return (int32_t)__aeabi_idivmod(n, d);
}

#endif

#else

// ISO C has no empty source file.
typedef int natmod_libc_is_empty;

#endif
