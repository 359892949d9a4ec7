/* server.c: the set of listeners: collected by receivers, opened together, drained together. */
#include "collector/net/server.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "collector/net/auth.h"
#include "collector/net/connection.h"
#include "collector/net/request.h"

#define CONNECTIONS_MAX      16384
#define DESCRIPTORS_RESERVED 256 /* for files, clients, the pool */

static int64_t connection_limit(void)
{
    struct rlimit limit;
    int64_t descriptors = 1024;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        descriptors = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > INT32_MAX
                          ? INT32_MAX
                          : (int64_t)limit.rlim_cur;
    int64_t room = descriptors - DESCRIPTORS_RESERVED;
    if (room < descriptors / 2)
        room = descriptors / 2;
    return room < CONNECTIONS_MAX ? room : CONNECTIONS_MAX;
}

struct flue_server_set *flue_server_set_new(struct flue_loops *loops, struct flue_metrics *metrics,
                                            struct flue_budget *budget)
{
    struct flue_server_set *set = calloc(1, sizeof *set);
    if (!set)
        return NULL;
    set->loops = loops;
    set->metrics = metrics;
    set->budget = budget;
    set->connection_limit = connection_limit();
    return set;
}

static struct flue_metric *listener_metric(struct flue_listener *listener,
                                           enum flue_metric_type type, const char *name,
                                           const char *help, const char *reason)
{
    const struct flue_label labels[] = {
        {"endpoint", listener->config.endpoint}, {reason ? "reason" : NULL, reason}, {NULL, NULL}};
    return flue_metric(listener->set->metrics, type, name, help, labels);
}

static void make_metrics(struct flue_listener *listener)
{
    static const char refused[] = "connections that were not served";
    listener->accepted = listener_metric(listener, FLUE_COUNTER, "server_connections_accepted",
                                         "connections accepted", NULL);
    listener->open = listener_metric(listener, FLUE_GAUGE, "server_connections_open",
                                     "connections open now", NULL);
    listener->received = listener_metric(listener, FLUE_COUNTER, "server_received_bytes",
                                         "bytes received from sockets", NULL);
    listener->refused_limit = listener_metric(listener, FLUE_COUNTER, "server_connections_refused",
                                              refused, "connection_limit");
    listener->refused_descriptors = listener_metric(
        listener, FLUE_COUNTER, "server_connections_refused", refused, "accept_failed");
    listener->refused_tls = listener_metric(listener, FLUE_COUNTER, "server_connections_refused",
                                            refused, "tls_handshake");
    listener->refused_proxy = listener_metric(listener, FLUE_COUNTER, "server_connections_refused",
                                              refused, "proxy_protocol");
    listener->refused_other = listener_metric(listener, FLUE_COUNTER, "server_connections_refused",
                                              refused, "shutdown_or_memory");
}

static struct flue_listener *find_listener(const struct flue_server_set *set,
                                           const struct flue_server_config *config)
{
    for (struct flue_listener *listener = set->listeners; listener; listener = listener->next)
        if (listener->given->transport == config->transport &&
            strcmp(listener->given->endpoint, config->endpoint) == 0)
            return listener;
    return NULL;
}

/* Port 0 is a new socket for whoever asks. */
static bool any_port(const struct flue_server_config *config)
{
    return config->transport == 0 &&
           flue_bytes_ends_with(flue_bytes_of(config->endpoint), FLUE_BYTES(":0"));
}

enum flue_code flue_server_auth(const struct flue_create *create,
                                const struct flue_server_config *config, struct flue_error *error)
{
    struct flue_server_set *set = create->servers;
    struct flue_auth *auth;
    if (!config || !config->auth)
        return FLUE_OK;
    enum flue_code code = flue_auth_find(create, config->auth->authenticator, &auth, error);
    if (code)
        return code;
    if (!auth->look)
        return flue_fail(error, FLUE_INVALID,
                         "auth.authenticator: %s only has credentials of its own to send, and none "
                         "to compare with",
                         config->auth->authenticator);
    if (set->guard_count == FLUE_LISTENERS_MAX)
        return flue_fail(error, FLUE_INVALID, "more than %u endpoints with auth",
                         FLUE_LISTENERS_MAX);
    set->guards[set->guard_count].config = config;
    set->guards[set->guard_count++].auth = auth;
    return FLUE_OK;
}

/* *out NULL without `auth`; false: nobody called flue_server_auth. */
static bool find_guard(const struct flue_server_set *set, const struct flue_server_config *config,
                       struct flue_auth **out)
{
    *out = NULL;
    for (size_t i = 0; i < set->guard_count; i++)
        if (set->guards[i].config == config)
            *out = set->guards[i].auth;
    return *out || !config->auth;
}

static enum flue_code new_listener(struct flue_server_set *set, const char *component,
                                   const struct flue_server_config *config,
                                   struct flue_listener **out, struct flue_error *error)
{
    if (set->listener_count == FLUE_LISTENERS_MAX)
        return flue_fail(error, FLUE_INVALID, "%s: more than %u endpoints", component,
                         FLUE_LISTENERS_MAX);
    struct flue_auth *auth;
    if (!find_guard(set, config, &auth))
        return flue_fail(error, FLUE_INVALID, "%s: this endpoint cannot have auth: %s", component,
                         config->endpoint);
    struct flue_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory for a listener", component);
    listener->auth = auth;
    listener->set = set;
    listener->fd = -1;
    listener->component = component;
    listener->given = config;
    listener->config = flue_server_config_effective(config);
    make_metrics(listener);
    if (config->tls && flue_tls_server_new(config->tls, "h2,http/1.1", &listener->tls, error)) {
        free(listener);
        flue_fail_prefix(error, "%s", component);
        return error ? error->code : FLUE_INVALID;
    }
    struct flue_listener **last = &set->listeners;
    while (*last)
        last = &(*last)->next;
    *last = *out = listener;
    set->listener_count++;
    return FLUE_OK;
}

enum flue_code flue_server_add(struct flue_server_set *set, const char *component,
                               const struct flue_server_config *config,
                               const struct flue_route *routes, size_t count,
                               struct flue_error *error)
{
    struct flue_listener *listener = any_port(config) ? NULL : find_listener(set, config);
    /* One component may add its routes in several calls. */
    if (any_port(config))
        for (listener = set->listeners; listener && listener->given != config;)
            listener = listener->next;
    if (listener && !flue_server_config_equal(listener->given, config))
        return flue_fail(error, FLUE_INVALID,
                         "%s: endpoint %s is already used by %s with other settings: make them "
                         "equal, or use another port",
                         component, config->endpoint, listener->component);
    if (!listener) {
        enum flue_code code = new_listener(set, component, config, &listener, error);
        if (code)
            return code;
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < listener->route_count; j++)
            if (strcmp(listener->routes[j]->path, routes[i].path) == 0 &&
                strcmp(listener->routes[j]->method, routes[i].method) == 0)
                return flue_fail(error, FLUE_INVALID,
                                 "%s: %s %s on endpoint %s is already served (by %s)", component,
                                 routes[i].method, routes[i].path, config->endpoint,
                                 listener->component);
        if (listener->route_count == FLUE_ROUTES_MAX)
            return flue_fail(error, FLUE_INVALID, "%s: more than %u paths on endpoint %s",
                             component, FLUE_ROUTES_MAX, config->endpoint);
        listener->routes[listener->route_count++] = &routes[i];
    }
    return FLUE_OK;
}

/* ---- on the loops --------------------------------------------------------------------------- */

static void start_on_loop(struct flue_loop *loop, void *arg)
{
    struct flue_server_set *set = arg;
    if (!flue_loop_server_start(set->per_loop[loop->index]))
        set->per_loop[loop->index]->draining = true; /* takes no connection */
}

static void poll_listeners(struct flue_loop *loop, void *arg)
{
    struct flue_server_set *set = arg;
    for (struct flue_listener *listener = set->listeners; listener; listener = listener->next)
        flue_listener_poll(listener);
}

static void close_listeners(struct flue_loop *loop, void *arg)
{
    struct flue_server_set *set = arg;
    for (struct flue_listener *listener = set->listeners; listener; listener = listener->next)
        flue_listener_close(listener);
}

static void drain_on_loop(struct flue_loop *loop, void *arg)
{
    flue_loop_server_drain(((struct flue_server_set *)arg)->per_loop[loop->index]);
}

static void close_on_loop(struct flue_loop *loop, void *arg)
{
    flue_loop_server_close(((struct flue_server_set *)arg)->per_loop[loop->index]);
}

struct count {
    struct flue_server_set *set;
    int handles;
};

static void count_on_loop(struct flue_loop *loop, void *arg)
{
    struct count *count = arg;
    count->handles = count->set->per_loop[loop->index]->handles;
}

enum flue_code flue_server_set_listen(struct flue_server_set *set, struct flue_error *error)
{
    if (!set->listeners)
        return FLUE_OK;
    for (struct flue_listener *listener = set->listeners; listener; listener = listener->next) {
        enum flue_code code = flue_listener_open(listener, error);
        if (code)
            return code;
    }
    for (unsigned i = 0; i < set->loops->count; i++) {
        struct flue_loop_server *server = calloc(1, sizeof *server);
        if (!server)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for the listeners");
        server->set = set;
        server->loop = set->loops->items[i];
        set->per_loop[i] = server;
    }
    for (unsigned i = 0; i < set->loops->count; i++)
        flue_loop_call(set->loops->items[i], start_on_loop, set);
    flue_loop_call(set->loops->items[0], poll_listeners, set);
    set->listening = true;
    return FLUE_OK;
}

const char *flue_server_address(struct flue_server_set *set, const char *endpoint)
{
    for (struct flue_listener *listener = set->listeners; listener; listener = listener->next)
        if (strcmp(listener->given->endpoint, endpoint) == 0)
            return listener->address[0] ? listener->address : NULL;
    return NULL;
}

void flue_server_set_drain(struct flue_server_set *set)
{
    if (!set->listening)
        return;
    flue_loop_call(set->loops->items[0], close_listeners, set);
    for (unsigned i = 0; i < set->loops->count; i++)
        flue_loop_call(set->loops->items[i], drain_on_loop, set);
}

size_t flue_server_set_open_requests(struct flue_server_set *set)
{
    int64_t requests = atomic_load(&set->requests);
    return requests > 0 ? (size_t)requests : 0;
}

/* libuv frees a handle on its loop; where the loops no longer run, this thread turns them. */
static void await_handles(struct flue_server_set *set, struct flue_loop *loop)
{
    struct count count = {.set = set};
    for (;;) {
        if (!atomic_load(&set->loops->running))
            uv_run(&loop->uv, UV_RUN_NOWAIT);
        flue_loop_call(loop, count_on_loop, &count);
        if (count.handles == 0)
            return;
    }
}

void flue_server_set_destroy(struct flue_server_set *set)
{
    if (!set)
        return;
    if (set->listening) {
        flue_loop_call(set->loops->items[0], close_listeners, set);
        for (unsigned i = 0; i < set->loops->count; i++)
            flue_loop_call(set->loops->items[i], close_on_loop, set);
        for (unsigned i = 0; i < set->loops->count; i++)
            await_handles(set, set->loops->items[i]);
    } else {
        for (struct flue_listener *listener = set->listeners; listener; listener = listener->next)
            flue_listener_close(listener);
    }
    for (unsigned i = 0; i < set->loops->count; i++)
        free(set->per_loop[i]);
    while (set->listeners) {
        struct flue_listener *listener = set->listeners;
        set->listeners = listener->next;
        flue_tls_destroy(listener->tls);
        free(listener);
    }
    free(set);
}
