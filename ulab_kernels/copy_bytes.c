#include "copy_bytes.h"
#include "arch.h"

#if ST_ARMV6M

// n a multiple of 16, > 0; both aligned.
static inline void copy_blocks(int8_t **to, const int8_t **from, int32_t n) {
    int8_t *end = *to + n;
    __asm__ volatile("1:\n ldmia %1!, {r3, r4, r5, r6}\n stmia %0!, {r3, r4, r5, r6}\n"
                     "cmp %0, %2\n bne 1b\n"
                     : "+l"(*to), "+l"(*from)
                     : "h"(end)
                     : "r3", "r4", "r5", "r6", "cc", "memory");
}

ST_HOT void st_copy_bytes(int8_t *to, const int8_t *from, int32_t n) {
    if (!(((uintptr_t)to | (uintptr_t)from) & 3)) {
        if (n >= 16)
            copy_blocks(&to, &from, n & ~15);
        n &= 15;
        for (; n >= 4; n -= 4, to += 4, from += 4)
            *(int32_t *)(void *)to = *(const int32_t *)(const void *)from;
    }
    for (; n > 0; n--)
        *to++ = *from++;
}

#else

void st_copy_bytes(int8_t *to, const int8_t *from, int32_t n) {
    __builtin_memmove(to, from, (uint32_t)n); // a damaged image may have one in the other
}

#endif

void st_fill_bytes(int8_t *to, int32_t value, int32_t n) {
    __builtin_memset(to, value, (uint32_t)n);
}
