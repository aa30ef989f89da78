/* Holds back what arrives at TCP sockets of other processes: packets are lost, and TCP sends them again later.
 *
 *   deafen MILLISECONDS PERCENT PID:FD...
 *
 * While it runs, PERCENT of the packets that come to each socket are dropped by a filter on it (100: all). Nobody is told: to the ends it is
 * a network that is slow, or gone in one direction. The sockets are borrowed from their processes (pidfd_getfd), which takes the rights of a
 * debugger. Exit codes: 0 done; 1 a socket or process is gone; 2 wrong arguments; 3 it is not permitted, or unknown to this kernel. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SOCKETS_MAX 2

static int fail(const char *what) {
    int error = errno;
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    return error == EPERM || error == EACCES || error == ENOSYS ? 3 : 1;
}

int main(int argc, char **argv) {
    if (argc < 4 || argc > 3 + SOCKETS_MAX) {
        fprintf(stderr, "usage: deafen MILLISECONDS PERCENT PID:FD...\n");
        return 2;
    }
    unsigned milliseconds = (unsigned)atoi(argv[1]), percent = (unsigned)atoi(argv[2]);
    if (percent > 100) percent = 100;
    /* A packet is taken where a random number is not below the share that is lost. */
    uint32_t lost = percent == 100 ? UINT32_MAX : (uint32_t)(UINT32_MAX / 100 * percent);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM)),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, lost, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    int sockets[SOCKETS_MAX], count = 0;
    for (int i = 3; i < argc; i++) {
        int pid, fd;
        if (sscanf(argv[i], "%d:%d", &pid, &fd) != 2) return 2;
        int process = (int)syscall(SYS_pidfd_open, pid, 0);
        if (process < 0) return fail("pidfd_open");
        sockets[count] = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
        if (sockets[count] < 0) return fail("pidfd_getfd");
        close(process);
        count++;
    }
    for (int i = 0; i < count; i++)
        if (setsockopt(sockets[i], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0) return fail("SO_ATTACH_FILTER");
    usleep(milliseconds * 1000);
    int result = 0, none = 0;
    for (int i = 0; i < count; i++)
        if (setsockopt(sockets[i], SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof none) < 0) result = fail("SO_DETACH_FILTER");
    return result;
}
