#ifndef PORT_STATVFS_H
#define PORT_STATVFS_H

struct statvfs {
    unsigned int f_bsize, f_frsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_favail;
    unsigned int f_flag, f_namemax;
};

int statvfs(const char *path, struct statvfs *to);

#endif
