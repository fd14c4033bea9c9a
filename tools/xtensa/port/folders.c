// Reading folders, by Linux.
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>
#include "linux.h"

// Of which this many are open at once.
static DIR folders[4];

DIR *opendir(const char *path) {
    for (DIR *d = folders; d < folders + sizeof(folders) / sizeof(folders[0]); d++)
        if (!d->is_open) {
            d->file = open(path, O_DIRECTORY);
            d->at = d->end = 0;
            d->is_open = d->file >= 0;
            return d->is_open ? d : NULL;
        }
    return NULL;
}

struct dirent *readdir(DIR *d) {
    if (d->at == d->end) {
        d->at = 0;
        d->end = linux_call(LINUX_GETDENTS64, d->file, (intptr_t)d->entries, sizeof(d->entries), 0,
                            0, 0);
        if (d->end <= 0) {
            d->end = 0;
            return NULL;
        }
    }
    struct dirent *entry = (struct dirent *)(d->entries + d->at);
    d->at += entry->d_reclen;
    return entry;
}

int closedir(DIR *d) {
    d->is_open = 0;
    return close(d->file);
}
