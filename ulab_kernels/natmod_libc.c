// For the native module only. It links to no C library, yet the compiler calls these (to clear or
// copy a struct, say): they go through MicroPython's function table.
#ifdef MICROPY_ENABLE_DYNRUNTIME

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

#else

// ISO C has no empty source file.
typedef int natmod_libc_is_empty;

#endif
