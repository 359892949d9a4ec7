/* harness.h: a server on 127.0.0.1 with two loops, and plain sockets that speak to it byte by byte.
 */
#ifndef FLUE_TEST_NET_HARNESS_H
#define FLUE_TEST_NET_HARNESS_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
/* after setjmp.h and stdarg.h */
#include <cmocka.h>

#include "collector/base/clock.h"
#include "collector/net/rpc.h"
#include "collector/net/server.h"

#define MS          1000000ll
#define PATIENCE_MS 100000

struct harness {
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_budget budget;
    struct flue_account account;
    struct flue_server_set *set;
    struct flue_server_config config;
    uint16_t port;
    /* what the routes saw */
    _Atomic int heads, bodies, gone;
    _Atomic unsigned loops_seen; /* bit per loop index */
    _Atomic size_t last_body;
    _Atomic uint64_t deadline_ns, received_ns;
    _Atomic int refused[FLUE_CODES];
    char method[32], path[256], query[256], authority[256], peer[64], subject[256];
    struct flue_request *held; /* /hold keeps it here */
    struct flue_rpc_call *held_call;
    struct flue_route *routes;
    size_t route_count;
    size_t limit;
};

static inline void h_remember(struct harness *h, struct flue_request *request)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the last of several loops counts */
    pthread_mutex_lock(&lock);
    snprintf(h->method, sizeof h->method, "%.*s", FLUE_PRI(request->method));
    snprintf(h->path, sizeof h->path, "%.*s", FLUE_PRI(request->path));
    snprintf(h->query, sizeof h->query, "%.*s", FLUE_PRI(request->query));
    snprintf(h->authority, sizeof h->authority, "%.*s", FLUE_PRI(request->authority));
    snprintf(h->peer, sizeof h->peer, "%s", request->peer);
    snprintf(h->subject, sizeof h->subject, "%s", request->tls_subject ? request->tls_subject : "");
    h->deadline_ns = request->deadline_ns;
    h->received_ns = request->received_ns;
    atomic_fetch_or(&h->loops_seen, 1u << request->loop->index);
    pthread_mutex_unlock(&lock);
}

static inline void h_text(struct flue_request *request, unsigned status, const char *text)
{
    const struct flue_header header = {FLUE_BYTES("content-type"), FLUE_BYTES("text/plain")};
    const struct flue_response response = {
        .status = status, .headers = &header, .header_count = 1, .body = flue_bytes_of(text)};
    flue_respond(request, &response);
}

static inline void h_head(struct flue_request *request, void *arg)
{
    struct harness *h = arg;
    atomic_fetch_add(&h->heads, 1);
    h_remember(h, request);
    flue_request_admit(request, &h->account, h->limit);
}

/* /echo: the body back */
static inline void h_echo(struct flue_request *request, void *arg)
{
    struct harness *h = arg;
    h->last_body = request->body->size;
    atomic_fetch_add(&h->bodies, 1);
    const struct flue_header header = {FLUE_BYTES("content-type"), FLUE_BYTES("text/plain")};
    const struct flue_response response = {.status = 200,
                                           .headers = &header,
                                           .header_count = 1,
                                           .body = flue_block_bytes(request->body)};
    flue_respond(request, &response);
}

static inline void h_gone(struct flue_request *request)
{
    atomic_fetch_add((_Atomic int *)request->user, 1);
    h_text(request, 499, "");
}

/* /hold: answered when the client goes, or by the test */
static inline void h_hold(struct flue_request *request, void *arg)
{
    struct harness *h = arg;
    request->user = &h->gone;
    request->gone = h_gone;
    h->held = request;
    atomic_fetch_add(&h->bodies, 1);
}

static inline void h_refuse_at_once(struct flue_request *request, void *arg)
{
    struct harness *h = arg;
    atomic_fetch_add(&h->heads, 1);
    h_text(request, 503, "not now");
}

static const struct flue_server_config h_default_config = {.endpoint = "127.0.0.1:0",
                                                           .max_request_body_size = 4 << 20,
                                                           .read_header_timeout = 10000 * MS,
                                                           .idle_timeout = 20000 * MS,
                                                           .keep_alives_enabled = true};

static inline void h_start(struct harness *h, const struct flue_server_config *config,
                           struct flue_route *routes, size_t count)
{
    struct flue_error error = {0};
    memset(h, 0, sizeof *h);
    h->config = *config;
    assert_int_equal(flue_loops_new(2, &h->loops, &error), FLUE_OK);
    h->metrics = flue_metrics_new("test_");
    flue_budget_init(&h->budget, 256 << 20);
    flue_account_init(&h->account, &h->budget, "profiles", 0);
    h->set = flue_server_set_new(h->loops, h->metrics, &h->budget);
    assert_non_null(h->set);
    for (size_t i = 0; i < count; i++)
        if (!routes[i].arg)
            routes[i].arg = h;
    if (flue_server_add(h->set, "test", &h->config, routes, count, &error) ||
        flue_server_set_listen(h->set, &error))
        fail_msg("%s", error.text);
    assert_int_equal(flue_loops_run(h->loops, &error), FLUE_OK);
    const char *address = flue_server_address(h->set, h->config.endpoint);
    assert_non_null(address);
    if (h->config.transport == 0)
        h->port = (uint16_t)atoi(strrchr(address, ':') + 1);
}

static inline void h_stop(struct harness *h)
{
    flue_loops_stop(h->loops);
    flue_server_set_destroy(h->set);
    flue_loops_destroy(h->loops);
    flue_metrics_destroy(h->metrics);
    assert_int_equal(h->account.used, 0);
    flue_block_trim();
}

#define H_ROUTES                                                                                   \
    {                                                                                              \
        {.method = "POST", .path = "/echo", .head = h_head, .body = h_echo},                       \
            {.method = "GET", .path = "/echo", .head = h_head, .body = h_echo},                    \
            {.method = "POST", .path = "/hold", .head = h_head, .body = h_hold},                   \
        {                                                                                          \
            .method = "POST", .path = "/busy", .head = h_refuse_at_once                            \
        }                                                                                          \
    }

/* Waits until `condition` holds. */
#define H_AWAIT(condition)                                                                         \
    do {                                                                                           \
        uint64_t until_ = flue_monotonic_ns() + PATIENCE_MS * 1000000ull;                          \
        while (!(condition)) {                                                                     \
            if (flue_monotonic_ns() > until_)                                                      \
                fail_msg("waited too long for " #condition);                                       \
            usleep(500);                                                                           \
        }                                                                                          \
    } while (0)

static inline int h_connect(uint16_t port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)(void *)&at, sizeof at) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline void h_send(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent < 0)
            return; /* the server has ended the connection: what it said can still be read */
        at += sent;
        size -= (size_t)sent;
    }
}

static inline void h_say(int fd, const char *text)
{
    h_send(fd, text, strlen(text));
}

/* Reads until `needle` has come (NULL: until the end). The number of bytes; -1: reset or too slow.
 */
static inline long h_read_until(int fd, char *out, size_t room, const char *needle)
{
    size_t size = 0;
    out[0] = 0;
    for (;;) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        if (poll(&poller, 1, PATIENCE_MS) <= 0)
            return -1;
        ssize_t got = recv(fd, out + size, room - 1 - size, 0);
        if (got < 0)
            return -1;
        if (got == 0)
            return needle ? -1 : (long)size;
        size += (size_t)got;
        out[size] = 0;
        if (needle && strstr(out, needle))
            return (long)size;
        assert_true(size < room - 1);
    }
}

/* One exchange on a connection of its own, read to its end. */
static inline void h_once(uint16_t port, const char *request, char *out, size_t room)
{
    int fd = h_connect(port);
    assert_true(fd >= 0);
    h_say(fd, request);
    if (h_read_until(fd, out, room, NULL) < 0)
        fail_msg("no orderly end; got: %s", out);
    close(fd);
}

#define H_STARTS(text, prefix)                                                                     \
    do {                                                                                           \
        if (strncmp(text, prefix, strlen(prefix)) != 0)                                            \
            fail_msg("expected \"%s\", got \"%.300s\"", prefix, text);                             \
    } while (0)
#define H_HAS(text, part)                                                                          \
    do {                                                                                           \
        if (!strstr(text, part))                                                                   \
            fail_msg("expected \"%s\" in \"%.600s\"", part, text);                                 \
    } while (0)

#endif
