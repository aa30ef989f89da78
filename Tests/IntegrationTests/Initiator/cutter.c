/* A TCP forwarder on 127.0.0.1 that cuts connections.
 *
 *   cutter PORT UPSTREAM-PORT SEED MINIMUM MAXIMUM
 *
 * Each connection is cut after a number of bytes between MINIMUM and MAXIMUM, counted over both directions: exactly so many are
 * passed on, and then both ends are closed, whatever was in the middle of being sent; every second time by a reset. One line
 * "cut" a cut goes to standard output. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t mix(uint64_t z) {
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int send_all(int to, const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t sent = send(to, bytes, count, MSG_NOSIGNAL);
        if (sent <= 0) return -1;
        bytes += sent;
        count -= (size_t)sent;
    }
    return 0;
}

/* Passes bytes on until `left` of them have gone, or either end has closed. */
static void forward(int client, int upstream_port, uint64_t left, int is_reset) {
    static char bytes[1 << 16];
    struct sockaddr_in address = loopback(upstream_port);
    int upstream = socket(AF_INET, SOCK_STREAM, 0);
    if (upstream < 0 || connect(upstream, (struct sockaddr *)&address, sizeof address) != 0) return;
    int ends[2] = {client, upstream};
    while (left > 0) {
        struct pollfd entries[2] = {{client, POLLIN, 0}, {upstream, POLLIN, 0}};
        if (poll(entries, 2, -1) < 0) return;
        for (int i = 0; i < 2 && left > 0; i++) {
            if (!entries[i].revents) continue;
            ssize_t count = recv(ends[i], bytes, left < sizeof bytes ? left : sizeof bytes, 0);
            if (count <= 0 || send_all(ends[!i], bytes, (size_t)count) != 0) return;
            left -= (uint64_t)count;
        }
    }
    if (write(STDOUT_FILENO, "cut\n", 4) != 4) return;
    struct linger option = {.l_onoff = 1, .l_linger = 0};
    for (int i = 0; is_reset && i < 2; i++) setsockopt(ends[i], SOL_SOCKET, SO_LINGER, &option, sizeof option);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: see the head of cutter.c\n");
        return 2;
    }
    uint64_t random = mix(strtoull(argv[3], NULL, 10));
    uint64_t minimum = strtoull(argv[4], NULL, 10), maximum = strtoull(argv[5], NULL, 10);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = loopback(atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (minimum > maximum || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0) {
        perror("cutter");
        return 2;
    }
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        random = mix(random);
        pid_t parent = getpid();
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) return 0;
            close(listener);
            /* The process's end closes both ends. */
            forward(client, atoi(argv[2]), minimum + random % (maximum - minimum + 1), (int)(random >> 63));
            return 0;
        }
        close(client);
    }
}
