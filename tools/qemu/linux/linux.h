// Calls of Linux on ARM and RISC-V, of those that tools/xtensa/bare.c makes.
#ifndef ST_LINUX_H
#define ST_LINUX_H

#include <stdint.h>

#if defined(__arm__)
enum { LINUX_EXIT = 1, LINUX_READ = 3, LINUX_WRITE = 4 };
#else
enum { LINUX_READ = 63, LINUX_WRITE = 64, LINUX_EXIT = 93 };
#endif

// What the call answers, or minus an error's number.
int32_t linux_call(int32_t number, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e,
                   intptr_t f);

#endif
