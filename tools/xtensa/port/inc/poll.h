#ifndef PORT_POLL_H
#define PORT_POLL_H

#define POLLIN 1
#define POLLOUT 4
#define POLLERR 8
#define POLLHUP 16
#define POLLNVAL 32

typedef unsigned int nfds_t;

struct pollfd {
    int fd;
    short events, revents;
};

int poll(struct pollfd *files, nfds_t count, int timeout);

#endif
