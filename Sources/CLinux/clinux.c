#define _GNU_SOURCE
#include "CLinux.h"

#include <grp.h>
#include <linux/close_range.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int ashlar_epoll_add(int epoll_fd, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data.u64 = token};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int ashlar_epoll_modify(int epoll_fd, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data.u64 = token};
    return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

int ashlar_epoll_remove(int epoll_fd, int fd) {
    return epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

int ashlar_epoll_wait(int epoll_fd, uint64_t *tokens, uint32_t *events, int capacity, int timeout_ms) {
    struct epoll_event buffer[64];
    if (capacity > 64) capacity = 64;
    int count = epoll_wait(epoll_fd, buffer, capacity, timeout_ms);
    for (int i = 0; i < count; i++) {
        tokens[i] = buffer[i].data.u64;
        events[i] = buffer[i].events;
    }
    return count;
}

static void fill(struct ashlar_status *status, const struct stat *found) {
    status->mode = found->st_mode;
    status->uid = found->st_uid;
    status->gid = found->st_gid;
    status->size = found->st_size;
}

int ashlar_stat(const char *path, struct ashlar_status *status) {
    struct stat found;
    if (stat(path, &found) != 0) return -1;
    fill(status, &found);
    return 0;
}

int ashlar_lstat(const char *path, struct ashlar_status *status) {
    struct stat found;
    if (lstat(path, &found) != 0) return -1;
    fill(status, &found);
    return 0;
}

ssize_t ashlar_write_direct(int fd, const void *bytes, size_t count) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_DIRECT) != 0) return -1;
    ssize_t written = write(fd, bytes, count);
    int error = errno;
    if (fcntl(fd, F_SETFL, flags) != 0 && written >= 0) return -1;
    errno = error;
    return written;
}

void ashlar_keep_freed_memory(int mmap_threshold_bytes, int trim_threshold_bytes) {
    mallopt(M_MMAP_THRESHOLD, mmap_threshold_bytes);
    mallopt(M_TRIM_THRESHOLD, trim_threshold_bytes);
}

int ashlar_set_parent_death_signal(int signal) {
    return prctl(PR_SET_PDEATHSIG, signal);
}

pid_t ashlar_spawn(const char *path, char *const argv[], char *const envp[], const char *directory, int out_fd, int err_fd,
                   int64_t uid, int64_t gid, int parent_death_signal) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) return -1;
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        int error = errno;
        close(report[0]);
        close(report[1]);
        errno = error;
        return -1;
    }
    if (pid == 0) {
        setpgid(0, 0);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        for (int s = 1; s < NSIG; s++) signal(s, SIG_DFL);
        int null_fd = open("/dev/null", O_RDWR);
        int ok = null_fd >= 0 && dup2(null_fd, 0) == 0;
        if (ok && out_fd >= 0) ok = dup2(out_fd, 1) == 1;
        if (ok && err_fd >= 0) ok = dup2(err_fd, 2) == 2;
        /* Whatever else is open here, sockets of other threads too, is not the child's: it would keep connections open that have been
         * closed. Those of a kernel before 5.11, which does not know this, are left. */
        syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
        if (ok && gid >= 0) ok = setgroups(0, NULL) == 0 && setgid((gid_t)gid) == 0;
        if (ok && uid >= 0) ok = setuid((uid_t)uid) == 0;
        if (ok && directory) ok = chdir(directory) == 0;
        /* After setuid, which clears it. */
        if (ok && parent_death_signal) {
            ok = prctl(PR_SET_PDEATHSIG, parent_death_signal) == 0;
            if (getppid() != parent) _exit(127);
        }
        if (ok) execve(path, argv, envp);
        int error = errno;
        ssize_t ignored = write(report[1], &error, sizeof error);
        (void)ignored;
        _exit(127);
    }
    close(report[1]);
    int error = 0;
    ssize_t n;
    do {
        n = read(report[0], &error, sizeof error);
    } while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n == (ssize_t)sizeof error) {
        errno = error;
        return -1;
    }
    return pid;
}
