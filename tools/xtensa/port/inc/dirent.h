// Folders as Linux tells of them.
#ifndef PORT_DIRENT_H
#define PORT_DIRENT_H

#include <stdint.h>

struct dirent {
    uint64_t d_ino, d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

#define _DIRENT_HAVE_D_TYPE 1
#define DT_DIR 4
#define DT_REG 8

typedef struct {
    int is_open, file, at, end;
    char entries[2048] __attribute__((aligned(8)));
} DIR;

DIR *opendir(const char *path);
struct dirent *readdir(DIR *folder);
int closedir(DIR *folder);

#endif
