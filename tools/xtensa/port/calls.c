// The calls of a C library that MicroPython's files and clocks make, by Linux.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <unistd.h>
#include "linux.h"
#include "py/mpconfig.h"
#include "py/mphal.h"

int errno;

// -1 and errno for an error.
static int32_t call(int32_t number, intptr_t a, intptr_t b, intptr_t c) {
    const int32_t answer = linux_call(number, a, b, c, 0, 0, 0);
    if (answer >= 0 || answer < -4095)
        return answer;
    errno = -answer;
    return -1;
}

int open(const char *path, int flags, ...) {
    return call(LINUX_OPEN, (intptr_t)path, flags, 0644);
}

int close(int file) {
    return call(LINUX_CLOSE, file, 0, 0);
}

ssize_t read(int file, void *to, size_t bytes) {
    return call(LINUX_READ, file, (intptr_t)to, (intptr_t)bytes);
}

ssize_t write(int file, const void *from, size_t bytes) {
    return call(LINUX_WRITE, file, (intptr_t)from, (intptr_t)bytes);
}

off_t lseek(int file, off_t offset, int from) {
    return call(LINUX_LSEEK, file, offset, from);
}

int fsync(int file) {
    return call(LINUX_FSYNC, file, 0, 0);
}

void sync(void) {
    call(LINUX_SYNC, 0, 0, 0);
}

int poll(struct pollfd *files, nfds_t count, int timeout) {
    return call(LINUX_POLL, (intptr_t)files, (intptr_t)count, timeout);
}

int unlink(const char *path) {
    return call(LINUX_UNLINK, (intptr_t)path, 0, 0);
}

int rename(const char *from, const char *to) {
    return call(LINUX_RENAME, (intptr_t)from, (intptr_t)to, 0);
}

int mkdir(const char *path, mode_t mode) {
    return call(LINUX_MKDIR, (intptr_t)path, (intptr_t)mode, 0);
}

int rmdir(const char *path) {
    return call(LINUX_RMDIR, (intptr_t)path, 0, 0);
}

int chdir(const char *path) {
    return call(LINUX_CHDIR, (intptr_t)path, 0, 0);
}

char *getcwd(char *to, size_t bytes) {
    return call(LINUX_GETCWD, (intptr_t)to, (intptr_t)bytes, 0) < 0 ? NULL : to;
}

void _exit(int status) {
    for (;;)
        call(LINUX_EXIT, status, 0, 0);
}

// As the kernel writes it.
typedef struct {
    uint64_t device, inode;
    uint32_t mode, links, user, group;
    uint64_t special;
    int64_t bytes;
    uint32_t block, unused;
    uint64_t blocks;
    uint32_t accessed, accessed_ns, modified, modified_ns, changed, changed_ns, unused_too[2];
} linux_stat_t;

int stat(const char *path, struct stat *to) {
    linux_stat_t found;
    if (call(LINUX_STAT64, (intptr_t)path, (intptr_t)&found, 0) < 0)
        return -1;
    memset(to, 0, sizeof(*to));
    to->st_mode = (mode_t)found.mode;
    to->st_size = (off_t)found.bytes;
    to->st_mtime = (time_t)found.modified;
    return 0;
}

typedef struct {
    uint32_t type, block;
    uint64_t blocks, free, available, files, free_files;
    uint32_t id[2], name_bytes, fragment, flags, spare[4];
} linux_statfs_t;

// In blocks of which a word can count.
static uint32_t in_word(uint64_t blocks) {
    return blocks >> 30 ? 1u << 30 : (uint32_t)blocks;
}

int statvfs(const char *path, struct statvfs *to) {
    linux_statfs_t found;
    if (call(LINUX_STATFS64, (intptr_t)path, sizeof(found), (intptr_t)&found) < 0)
        return -1;
    memset(to, 0, sizeof(*to));
    to->f_bsize = to->f_frsize = found.block;
    to->f_blocks = in_word(found.blocks);
    to->f_bfree = in_word(found.free);
    to->f_bavail = in_word(found.available);
    to->f_namemax = found.name_bytes;
    return 0;
}

void *port_alloc_code(size_t bytes) {
    enum { PAGE = 4096, READ_WRITE_EXECUTE = 7, PRIVATE = 2, ANONYMOUS = 0x800 };
    const intptr_t whole = (intptr_t)((bytes + PAGE - 1) & ~(size_t)(PAGE - 1));
    return (void *)linux_call(LINUX_MMAP2, 0, whole, READ_WRITE_EXECUTE, PRIVATE | ANONYMOUS, -1,
                              0);
}

// MicroPython's own ------------------------------------------------------------------------------

static uint64_t now_us(void) {
    int32_t time[2];
    call(LINUX_GETTIMEOFDAY, (intptr_t)time, 0, 0);
    return (uint64_t)time[0] * 1000000u + (uint32_t)time[1];
}

mp_uint_t mp_hal_ticks_us(void) {
    return (mp_uint_t)now_us();
}

mp_uint_t mp_hal_ticks_ms(void) {
    return (mp_uint_t)(now_us() / 1000u);
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return mp_hal_ticks_us();
}

void mp_hal_delay_us(mp_uint_t us) {
    for (const mp_uint_t start = mp_hal_ticks_us(); mp_hal_ticks_us() - start < us;)
        ;
}

void mp_hal_delay_ms(mp_uint_t ms) {
    mp_hal_delay_us(1000 * ms);
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t bytes) {
    return (mp_uint_t)write(STDOUT_FILENO, text, bytes);
}

void mp_hal_stdout_tx_strn_cooked(const char *text, size_t bytes) {
    mp_hal_stdout_tx_strn(text, bytes);
}
