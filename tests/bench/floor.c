/* floor.c: what it costs to receive bytes and send them on over loopback, with nothing else.
 *
 *   flue_bench_floor BODY_BYTES CONNECTIONS SECONDS [CPU_OF_FORWARDER CPU_OF_THE_REST]
 *
 * A source writes bodies of the given size, a forwarder receives into one 256 KiB buffer and sends
 * on what it got, a drain reads. Prints the forwarder's CPU seconds per GB, by the scheduler's
 * statistics: the unit in which every other figure is given.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RECEIVE  (256 * 1024)
#define CONN_MAX 64

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static int listen_on(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)address, size) || listen(fd, CONN_MAX) ||
        getsockname(fd, (struct sockaddr *)address, &size))
        die("listen");
    return fd;
}

static int connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address))
        die("connect");
    return fd;
}

static void source(const struct sockaddr_in *to, size_t body, int connections)
{
    struct pollfd fds[CONN_MAX];
    char *bytes = malloc(body);

    memset(bytes, 'x', body);
    for (int i = 0; i < connections; i++)
        fds[i] = (struct pollfd){connect_to(to), POLLOUT, 0};
    size_t left[CONN_MAX] = {0};
    for (;;) {
        if (poll(fds, (nfds_t)connections, -1) < 0)
            die("poll");
        for (int i = 0; i < connections; i++) {
            if (!(fds[i].revents & POLLOUT))
                continue;
            if (left[i] == 0)
                left[i] = body;
            ssize_t n =
                send(fds[i].fd, bytes + body - left[i], left[i], MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0)
                left[i] -= (size_t)n;
        }
    }
}

static void drain(int listener, int connections)
{
    struct pollfd fds[CONN_MAX];
    char *bytes = malloc(RECEIVE);

    for (int i = 0; i < connections; i++)
        fds[i] = (struct pollfd){accept(listener, NULL, NULL), POLLIN, 0};
    for (;;) {
        if (poll(fds, (nfds_t)connections, -1) < 0)
            die("poll");
        for (int i = 0; i < connections; i++)
            if (fds[i].revents && recv(fds[i].fd, bytes, RECEIVE, MSG_DONTWAIT) == 0)
                exit(0);
    }
}

static void forward(int listener, const struct sockaddr_in *to, int connections,
                    _Atomic uint64_t *total)
{
    struct pollfd fds[CONN_MAX];
    int out[CONN_MAX];
    char *bytes = malloc(RECEIVE);

    for (int i = 0; i < connections; i++) {
        fds[i] = (struct pollfd){accept(listener, NULL, NULL), POLLIN, 0};
        out[i] = connect_to(to);
    }
    for (;;) {
        if (poll(fds, (nfds_t)connections, -1) < 0)
            die("poll");
        for (int i = 0; i < connections; i++) {
            if (!fds[i].revents)
                continue;
            ssize_t n = recv(fds[i].fd, bytes, RECEIVE, MSG_DONTWAIT);
            if (n <= 0)
                continue;
            for (ssize_t done = 0; done < n;) {
                ssize_t sent = send(out[i], bytes + done, (size_t)(n - done), MSG_NOSIGNAL);
                if (sent < 0)
                    die("send");
                done += sent;
            }
            *total += (uint64_t)n;
        }
    }
}

static uint64_t cpu_ns(pid_t pid)
{
    char path[64];
    uint64_t ns = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    if (!(file = fopen(path, "r")) || fscanf(file, "%" SCNu64, &ns) != 1)
        die(path);
    fclose(file);
    return ns;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "floor BODY_BYTES CONNECTIONS SECONDS [FORWARDER_CPU OTHER_CPU]\n");
        return 2;
    }
    size_t body = strtoul(argv[1], NULL, 10);
    int connections = (int)strtol(argv[2], NULL, 10);
    double seconds = strtod(argv[3], NULL);
    int forwarder_cpu = argc > 5 ? (int)strtol(argv[4], NULL, 10) : 1;
    int other_cpu = argc > 5 ? (int)strtol(argv[5], NULL, 10) : 0;
    struct sockaddr_in first, second;
    int listener = listen_on(&first), end = listen_on(&second);
    _Atomic uint64_t *total =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[3];

    if (connections < 1 || connections > CONN_MAX || body == 0 || total == MAP_FAILED)
        return 2;
    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            pin(i == 1 ? forwarder_cpu : other_cpu);
            if (i == 0)
                drain(end, connections);
            else if (i == 1)
                forward(listener, &second, connections, total);
            else
                source(&first, body, connections);
        }
    }
    struct timespec warm = {0, 300000000};
    nanosleep(&warm, NULL);
    uint64_t cpu = cpu_ns(pids[1]), bytes = *total;
    struct timespec run = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&run, NULL);
    cpu = cpu_ns(pids[1]) - cpu;
    bytes = *total - bytes;
    for (int i = 0; i < 3; i++)
        kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    printf("{\"bytes\": %" PRIu64 ", \"cpu_ns\": %" PRIu64
           ", \"cpu_s_per_gb\": %.4f, \"mb_per_s\": %.0f}\n",
           bytes, cpu, (double)cpu / (double)bytes, (double)bytes / seconds / 1e6);
    return 0;
}
