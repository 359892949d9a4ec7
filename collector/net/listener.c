#include "collector/net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/net/connection.h"

#define BACKLOG         1024
#define ACCEPTS_AT_ONCE 64
#define PAUSE_NS        (100ull * 1000 * 1000)

/* ---- sockets -------------------------------------------------------------------------------- */

static void print_address(const struct sockaddr *address, char *out, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(out, size, "%s:%u", host, ntohs(in->sin_port));
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        const uint8_t *bytes = in6->sin6_addr.s6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
            inet_ntop(AF_INET, bytes + 12, host, sizeof host);
            snprintf(out, size, "%s:%u", host, ntohs(in6->sin6_port));
        } else {
            inet_ntop(AF_INET6, bytes, host, sizeof host);
            snprintf(out, size, "[%s]:%u", host, ntohs(in6->sin6_port));
        }
    } else {
        snprintf(out, size, "unix");
    }
}

/* "host:port", "[v6]:port", ":port" (every address). False: malformed. */
static bool split(const char *endpoint, char *host, size_t host_size, const char **port)
{
    const char *colon = strrchr(endpoint, ':');
    if (!colon || !colon[1])
        return false;
    size_t size = (size_t)(colon - endpoint);
    if (size >= 2 && endpoint[0] == '[' && endpoint[size - 1] == ']') {
        endpoint++;
        size -= 2;
    } else if (memchr(endpoint, ':', size)) {
        return false; /* an IPv6 address without brackets */
    }
    if (size >= host_size)
        return false;
    memcpy(host, endpoint, size);
    host[size] = 0;
    *port = colon + 1;
    return true;
}

static int open_socket(const struct addrinfo *at, bool dual)
{
    int on = 1, off = 0;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (at->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual ? &off : &on, sizeof on);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static enum flue_code open_tcp(struct flue_listener *listener, struct flue_error *error)
{
    const char *endpoint = listener->config.endpoint, *port;
    char host[256];
    if (!split(endpoint, host, sizeof host, &port))
        return flue_fail(error, FLUE_INVALID,
                         "%s: endpoint \"%.128s\" is not host:port (IPv6 in brackets)",
                         listener->component, endpoint);
    bool all = host[0] == 0;
    struct addrinfo hints = {.ai_family = all || strcmp(host, "::") == 0 ? AF_INET6 : AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(all ? "::" : host, port, &hints, &found);
    if (failure != 0)
        return flue_fail(error, FLUE_INVALID, "%s: endpoint \"%.128s\": %s", listener->component,
                         endpoint, gai_strerror(failure));
    /* A name with several addresses: IPv4 first, as loopback senders use 127.0.0.1. */
    int reason = 0;
    for (int round = 0; round < 2 && listener->fd < 0; round++)
        for (struct addrinfo *at = found; at && listener->fd < 0; at = at->ai_next)
            if ((at->ai_family == AF_INET) == (round == 0)) {
                listener->fd = open_socket(at, true);
                reason = listener->fd < 0 ? errno : 0;
            }
    freeaddrinfo(found);
    if (listener->fd < 0 && all && reason == EAFNOSUPPORT) { /* a host without IPv6 */
        struct sockaddr_in any = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
        struct addrinfo at = {.ai_family = AF_INET,
                              .ai_addr = (struct sockaddr *)(void *)&any,
                              .ai_addrlen = sizeof any};
        listener->fd = open_socket(&at, false);
        reason = listener->fd < 0 ? errno : 0;
    }
    if (listener->fd < 0)
        return flue_fail(error, FLUE_IO, "%s: cannot listen on %.128s: %s", listener->component,
                         endpoint, strerror(reason));
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    if (getsockname(listener->fd, (struct sockaddr *)(void *)&bound, &size) == 0)
        print_address((struct sockaddr *)(void *)&bound, listener->address,
                      sizeof listener->address);
    return FLUE_OK;
}

/* A socket file that nobody listens on is left over from a process that was killed. */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(address->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool stale =
        connect(fd, (const struct sockaddr *)(const void *)address, sizeof *address) != 0 &&
        errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static enum flue_code open_unix(struct flue_listener *listener, struct flue_error *error)
{
    const char *path = listener->config.endpoint;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return flue_fail(error, FLUE_INVALID,
                         "%s: endpoint: a Unix socket's path has at most %zu "
                         "bytes, this one has %zu",
                         listener->component, sizeof address.sun_path - 1, strlen(path));
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return flue_fail(error, FLUE_IO, "%s: socket: %s", listener->component, strerror(errno));
    mode_t before = umask(0117); /* 0660 from the first moment */
    int result = bind(fd, (const struct sockaddr *)(const void *)&address, sizeof address);
    if (result != 0 && errno == EADDRINUSE && is_stale(&address) && unlink(path) == 0)
        result = bind(fd, (const struct sockaddr *)(const void *)&address, sizeof address);
    int reason = errno;
    umask(before);
    if (result == 0) {
        listener->unlink_path = strdup(path);
        if (listen(fd, BACKLOG) == 0) {
            listener->fd = fd;
            snprintf(listener->address, sizeof listener->address, "%s", path);
            return FLUE_OK;
        }
        reason = errno;
    }
    close(fd);
    return flue_fail(error, FLUE_IO, "%s: cannot listen on \"%s\": %s", listener->component, path,
                     strerror(reason));
}

enum flue_code flue_listener_open(struct flue_listener *listener, struct flue_error *error)
{
    return listener->config.transport == 1 ? open_unix(listener, error) : open_tcp(listener, error);
}

/* ---- accepting ------------------------------------------------------------------------------ */

struct handover { /* an accepted socket on its way to its loop */
    struct flue_task task;
    struct flue_listener *listener;
    struct flue_loop_server *server;
    int fd;
    char peer[56];
};

static void take_over(struct flue_task *task)
{
    struct handover *handover = (struct handover *)(void *)task;
    flue_connection_open(handover->server, handover->listener, handover->fd, handover->peer);
    free(handover);
}

static void assign(struct flue_listener *listener, int fd, const struct sockaddr *peer)
{
    struct flue_server_set *set = listener->set;
    struct flue_loop *loop = flue_loops_least_loaded(set->loops);
    struct handover *handover = malloc(sizeof *handover);
    if (!handover) {
        flue_metric_add(listener->refused_other, 1);
        close(fd);
        return;
    }
    int on = 1;
    if (peer->sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *handover = (struct handover){.task = {.run = take_over},
                                  .listener = listener,
                                  .server = set->per_loop[loop->index],
                                  .fd = fd};
    print_address(peer, handover->peer, sizeof handover->peer);
    /* Counted here, so that the next one sees it. */
    atomic_fetch_add(&loop->connections, 1);
    atomic_fetch_add(&set->connections, 1);
    flue_metric_add(listener->accepted, 1);
    flue_metric_add(listener->open, 1);
    flue_loop_post(loop, &handover->task);
}

static void on_connection(uv_poll_t *handle, int status, int events);

static void pause_over(struct flue_timer *timer)
{
    struct flue_listener *listener =
        (struct flue_listener *)(void *)((char *)timer - offsetof(struct flue_listener, pause));
    uv_poll_start(&listener->poll, UV_READABLE, on_connection);
}

/* Without descriptors or memory accept() would fail again at once, for ever. */
static void pause_accepting(struct flue_listener *listener)
{
    uv_poll_stop(&listener->poll);
    listener->pause.fire = pause_over;
    flue_timer_arm(listener->set->loops->items[0], &listener->pause,
                   flue_monotonic_ns() + PAUSE_NS);
}

static void on_connection(uv_poll_t *handle, int status, int events)
{
    struct flue_listener *listener = handle->data;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        struct sockaddr_storage peer = {.ss_family = AF_UNIX};
        socklen_t size = sizeof peer;
        int fd = accept4(listener->fd, (struct sockaddr *)(void *)&peer, &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                flue_metric_add(listener->refused_descriptors, 1);
                flue_log(FLUE_WARN, "server", "cannot accept connections",
                         FLUE_S("endpoint", listener->address), FLUE_S("error", strerror(errno)),
                         FLUE_LOG_END);
                pause_accepting(listener);
            }
            return;
        }
        if (atomic_load(&listener->set->connections) >= listener->set->connection_limit) {
            flue_metric_add(listener->refused_limit, 1);
            flue_log(FLUE_WARN, "server", "too many connections",
                     FLUE_S("endpoint", listener->address),
                     FLUE_I("limit", listener->set->connection_limit), FLUE_LOG_END);
            close(fd);
            continue;
        }
        assign(listener, fd, (struct sockaddr *)(void *)&peer);
    }
}

void flue_listener_poll(struct flue_listener *listener)
{
    struct flue_loop *loop = listener->set->loops->items[0];
    if (uv_poll_init(&loop->uv, &listener->poll, listener->fd) != 0)
        return;
    listener->polled = true;
    listener->poll.data = listener;
    listener->set->per_loop[0]->handles++;
    uv_poll_start(&listener->poll, UV_READABLE, on_connection);
}

static void poll_closed(uv_handle_t *handle)
{
    struct flue_listener *listener = handle->data;
    listener->set->per_loop[0]->handles--;
}

void flue_listener_close(struct flue_listener *listener)
{
    if (listener->polled) {
        listener->polled = false;
        flue_timer_disarm(listener->set->loops->items[0], &listener->pause);
        uv_close((uv_handle_t *)&listener->poll, poll_closed);
    }
    if (listener->fd >= 0)
        close(listener->fd);
    listener->fd = -1;
    if (listener->unlink_path)
        unlink(listener->unlink_path);
    free(listener->unlink_path);
    listener->unlink_path = NULL;
}

void flue_listener_count(struct flue_listener *listener, unsigned status)
{
    if (status >= sizeof listener->codes / sizeof listener->codes[0])
        status = 0;
    struct flue_metric *metric =
        atomic_load_explicit(&listener->codes[status], memory_order_acquire);
    if (!metric) {
        char code[8];
        snprintf(code, sizeof code, "%u", status);
        const struct flue_label labels[] = {
            {"endpoint", listener->config.endpoint}, {"code", code}, {NULL, NULL}};
        metric = flue_metric(listener->set->metrics, FLUE_COUNTER, "server_requests",
                             "requests by HTTP status of the answer", labels);
        atomic_store_explicit(&listener->codes[status], metric, memory_order_release);
    }
    flue_metric_add(metric, 1);
}
