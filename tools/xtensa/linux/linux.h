// Calls of Linux on Xtensa.
#ifndef ST_LINUX_H
#define ST_LINUX_H

#include <stdint.h>

enum {
    LINUX_OPEN = 8,
    LINUX_CLOSE = 9,
    LINUX_READ = 12,
    LINUX_WRITE = 13,
    LINUX_LSEEK = 15,
    LINUX_POLL = 16,
    LINUX_FSYNC = 26,
    LINUX_RENAME = 33,
    LINUX_UNLINK = 38,
    LINUX_RMDIR = 39,
    LINUX_MKDIR = 40,
    LINUX_CHDIR = 41,
    LINUX_GETCWD = 43,
    LINUX_STAT64 = 47,
    LINUX_GETDENTS64 = 60,
    LINUX_MMAP2 = 80,
    LINUX_EXIT = 118,
    LINUX_SYNC = 178,
    LINUX_STATFS64 = 186,
    LINUX_GETTIMEOFDAY = 192,
};

// What the call answers, or minus an error's number.
int32_t linux_call(int32_t number, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e,
                   intptr_t f);

#endif
