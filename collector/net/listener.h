/* listener.h: one listening socket with its routes, and what the listeners of a set share.
 *
 * Private to net/. A listener is made and changed on the main thread before it listens; then it is
 * read-only for the loops, but for its socket, which loop 0 polls.
 */
#ifndef FLUE_NET_LISTENER_H
#define FLUE_NET_LISTENER_H

#include <pthread.h>
#include "collector/net/server.h"

#define FLUE_ROUTES_MAX    64u
#define FLUE_LISTENERS_MAX 64u

struct flue_listener {
    struct flue_server_set *set;
    struct flue_listener *next;
    const struct flue_server_config *given; /* by the first who named it: compared with others */
    struct flue_server_config config;       /* in effect: see flue_server_config_effective */
    const char *component;                  /* who named it first */
    struct flue_tls *tls;
    struct flue_auth *auth; /* NULL: everybody may send */
    const struct flue_route *routes[FLUE_ROUTES_MAX];
    size_t route_count;
    int fd; /* -1: not open */
    char address[160];
    char *unlink_path; /* of a Unix socket that is ours */
    bool polled;
    uv_poll_t poll;
    struct flue_timer pause; /* after EMFILE */
    struct flue_metric *accepted, *open, *received;
    struct flue_metric *refused_limit, *refused_descriptors, *refused_tls, *refused_proxy, *refused_other;
    _Atomic(struct flue_metric *) codes[600]; /* requests by status, made on first use */
};

struct flue_loop_server; /* connection.h */
struct flue_server_set {
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_budget *budget;
    struct flue_listener *listeners;
    size_t listener_count;
    struct { /* by flue_server_auth */
        const struct flue_server_config *config;
        struct flue_auth *auth;
    } guards[FLUE_LISTENERS_MAX];
    size_t guard_count;
    struct flue_loop_server *per_loop[64];
    bool listening;
    int64_t connection_limit;
    _Atomic int64_t connections; /* accepted and not closed */
    _Atomic int64_t requests;    /* begun and not answered */
};

/* Binds and listens (no polling yet). Resolves host names, so main thread only. */
enum flue_code flue_listener_open(struct flue_listener *listener, struct flue_error *error);
/* On loop 0. */
void flue_listener_poll(struct flue_listener *listener);
/* On loop 0: accepts no more. */
void flue_listener_close(struct flue_listener *listener);
/* One answer more with this HTTP status. Any loop. */
void flue_listener_count(struct flue_listener *listener, unsigned status);

/* The configuration as it acts: MiB made bytes, and for gRPC, which has no keys for them, the
 * limits of the house (header time-out 10 s, idle 5 min). */
struct flue_server_config flue_server_config_effective(const struct flue_server_config *config);
bool flue_server_config_equal(const struct flue_server_config *a,
                              const struct flue_server_config *b);

#endif
