/* What Swift's Glibc module leaves out: epoll, eventfd, and the ioctl-free bits of process supervision. */
#ifndef ASHLAR_CLINUX_H
#define ASHLAR_CLINUX_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* epoll_event holds a union in a packed struct; these keep the layout on the C side. */
int ashlar_epoll_add(int epoll_fd, int fd, uint32_t events, uint64_t token);
int ashlar_epoll_modify(int epoll_fd, int fd, uint32_t events, uint64_t token);
int ashlar_epoll_remove(int epoll_fd, int fd);
/* Waits for at most `capacity` events (never more than 64); returns their number or -1 with errno. */
int ashlar_epoll_wait(int epoll_fd, uint64_t *tokens, uint32_t *events, int capacity, int timeout_ms);

/* What stat(2) says of a file. Swift sees struct stat through several modules at once, and cannot tell which one to import;
 * this one has one home. */
struct ashlar_status {
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    int64_t size;
};
/* Follow links, or do not; 0, or -1 with errno. */
int ashlar_stat(const char *path, struct ashlar_status *status);
int ashlar_lstat(const char *path, struct ashlar_status *status);

/* write(2) past the page cache: address, count and the position in the file must be multiples of what the device wants. Elsewhere the
 * descriptor is as before. -1 with errno; EINVAL where the file system cannot do that. */
ssize_t ashlar_write_direct(int fd, const void *bytes, size_t count);

/* Has malloc(3) take blocks of less than `mmap_threshold_bytes` from its heaps, and give back to the system what is free at the end of
 * one only above `trim_threshold_bytes`. */
void ashlar_keep_freed_memory(int mmap_threshold_bytes, int trim_threshold_bytes);

/* The child is sent `signal` when the thread that forked it ends. */
int ashlar_set_parent_death_signal(int signal);

/* Forks and executes `path`. In the child: own process group, standard input from /dev/null, output and errors to the given
 * descriptors (-1 keeps the parent's), no other descriptors, user and group ids set where they are not -1, killed when the parent dies with
 * `parent_death_signal` (0: no). Returns the pid, or -1 with errno (also for a failed exec). */
pid_t ashlar_spawn(const char *path, char *const argv[], char *const envp[], const char *directory, int out_fd, int err_fd,
                   int64_t uid, int64_t gid, int parent_death_signal);

#endif
