/* nodes.c: see nodes.h. */
#include "exporters/loadbalancing/nodes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"

#define LOST_FOR_NS UINT64_C(5000000000)

/* ---- nodes ---------------------------------------------------------------------------------- */

void flue_balance_node_unref(struct flue_balance_node *node)
{
    if (node && atomic_fetch_sub(&node->refs, 1) == 1)
        free(node);
}

static struct flue_balance_node *node_new(const char *endpoint)
{
    size_t size = strlen(endpoint);
    struct flue_balance_node *node = calloc(1, sizeof *node + size + 1);
    if (!node)
        return NULL;
    memcpy(node->endpoint, endpoint, size + 1);
    node->hash = XXH3_64bits(endpoint, size);
    node->refs = 1;
    return node;
}

void flue_balance_lost(struct flue_balance_node *node, uint64_t now_ns)
{
    atomic_store(&node->lost_until_ns, now_ns + LOST_FOR_NS);
}

void flue_balance_answers(struct flue_balance_node *node)
{
    if (atomic_load_explicit(&node->lost_until_ns, memory_order_relaxed))
        atomic_store(&node->lost_until_ns, 0);
}

/* ---- lists ---------------------------------------------------------------------------------- */

void flue_balance_list_unref(struct flue_balance_list *list)
{
    if (!list || atomic_fetch_sub(&list->refs, 1) != 1)
        return;
    for (unsigned i = 0; i < list->count; i++)
        flue_balance_node_unref(list->items[i]);
    free(list);
}

static bool is_lost(const struct flue_balance_node *node, uint64_t now_ns)
{
    return atomic_load_explicit(&((struct flue_balance_node *)node)->lost_until_ns,
                                memory_order_relaxed) > now_ns;
}

unsigned flue_balance_choose(const struct flue_balance_list *list, uint64_t key, uint64_t now_ns)
{
    unsigned best = 0;
    uint64_t most = 0;
    bool best_lost = true;
    for (unsigned i = 0; i < list->count; i++) {
        const uint64_t both[2] = {list->items[i]->hash, key};
        uint64_t score = XXH3_64bits(both, sizeof both);
        bool lost = is_lost(list->items[i], now_ns);
        if (i > 0 && (lost > best_lost || (lost == best_lost && score <= most)))
            continue;
        best = i;
        most = score;
        best_lost = lost;
    }
    return best;
}

bool flue_balance_other(const struct flue_balance_list *list, const struct flue_balance_node *node,
                        uint64_t now_ns)
{
    for (unsigned i = 0; i < list->count; i++)
        if (list->items[i] != node && !is_lost(list->items[i], now_ns))
            return true;
    return false;
}

static struct flue_balance_node *find(const struct flue_balance_list *list, const char *endpoint)
{
    for (unsigned i = 0; list && i < list->count; i++)
        if (strcmp(list->items[i]->endpoint, endpoint) == 0)
            return list->items[i];
    return NULL;
}

/* Nodes of the old list keep what is known of them. */
static struct flue_balance_list *list_new(const struct flue_balance_list *old,
                                          const char *const *endpoints, size_t count, bool *changed)
{
    struct flue_balance_list *list = calloc(1, sizeof *list + count * sizeof list->items[0]);
    if (!list)
        return NULL;
    list->refs = 1;
    *changed = !old;
    for (size_t i = 0; i < count; i++) {
        if (find(list, endpoints[i]))
            continue;
        struct flue_balance_node *node = find(old, endpoints[i]);
        if (node) {
            atomic_fetch_add(&node->refs, 1);
        } else if ((node = node_new(endpoints[i]))) {
            *changed = true;
        } else {
            flue_balance_list_unref(list);
            return NULL;
        }
        list->items[list->count++] = node;
    }
    *changed |= old && old->count != list->count;
    return list;
}

enum flue_code flue_balance_set(struct flue_balance_resolver *resolver,
                                const char *const *endpoints, size_t count,
                                struct flue_error *error)
{
    bool changed;
    if (count == 0 || count > FLUE_BALANCE_NODES)
        return flue_fail(error, FLUE_INVALID, "%zu nodes: there must be 1 to %d", count,
                         FLUE_BALANCE_NODES);
    struct flue_balance_list *old = resolver->list;
    struct flue_balance_list *fresh = list_new(old, endpoints, count, &changed);
    if (!fresh)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a list of nodes");
    if (!changed) {
        flue_balance_list_unref(fresh);
        return FLUE_OK;
    }
    for (unsigned i = 0; old && i < old->count; i++)
        atomic_store(&old->items[i]->gone, !find(fresh, old->items[i]->endpoint));
    for (unsigned i = 0; i < fresh->count; i++)
        atomic_store(&fresh->items[i]->gone, false);
    pthread_mutex_lock(&resolver->lock);
    resolver->list = fresh;
    pthread_mutex_unlock(&resolver->lock);
    flue_balance_list_unref(old);
    flue_metric_set(resolver->backends, (int64_t)fresh->count);
    flue_metric_add(resolver->updates, 1);
    return FLUE_OK;
}

struct flue_balance_list *flue_balance_now(struct flue_balance_resolver *resolver,
                                           struct flue_error *error)
{
    pthread_mutex_lock(&resolver->lock);
    struct flue_balance_list *list = resolver->list;
    if (list)
        atomic_fetch_add(&list->refs, 1);
    else
        *error = resolver->error;
    pthread_mutex_unlock(&resolver->lock);
    return list;
}

/* ---- DNS ------------------------------------------------------------------------------------ */

struct flue_balance_lookup {
    struct flue_job job;
    struct flue_balance_resolver *resolver; /* NULL: it has gone */
    const char *hostname, *port;
    struct addrinfo *addresses;
    int result, saved_errno;
};

static struct flue_balance_lookup *of_job(struct flue_job *job)
{
    return (struct flue_balance_lookup *)(void *)((char *)job -
                                                  offsetof(struct flue_balance_lookup, job));
}

static void look_up(struct flue_job *job)
{
    struct flue_balance_lookup *lookup = of_job(job);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    lookup->result = getaddrinfo(lookup->hostname, lookup->port, &hints, &lookup->addresses);
    lookup->saved_errno = errno;
}

static void failed(struct flue_balance_resolver *resolver, const char *why)
{
    flue_metric_add(resolver->not_found, 1);
    pthread_mutex_lock(&resolver->lock);
    flue_fail(&resolver->error, FLUE_UNAVAILABLE, "\"%s\" cannot be resolved: %s",
              resolver->hostname, why);
    bool first = !resolver->list;
    pthread_mutex_unlock(&resolver->lock);
    if (resolver->complained)
        return;
    resolver->complained = true;
    flue_log(FLUE_WARN, "exporter",
             first ? "cannot resolve the nodes" : "cannot resolve the nodes; the old ones stay",
             FLUE_S("error", resolver->error.text), FLUE_LOG_END);
}

static void take(struct flue_balance_resolver *resolver, const struct addrinfo *addresses)
{
    char texts[FLUE_BALANCE_NODES][80];
    const char *endpoints[FLUE_BALANCE_NODES];
    size_t count = 0;
    struct flue_error error;
    for (const struct addrinfo *a = addresses; a && count < FLUE_BALANCE_NODES; a = a->ai_next) {
        char host[NI_MAXHOST];
        if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST))
            continue;
        snprintf(texts[count], sizeof texts[count],
                 a->ai_family == AF_INET6 ? "[%.60s]:%s" : "%.60s:%s", host, resolver->port);
        endpoints[count] = texts[count];
        count++;
    }
    if (flue_balance_set(resolver, endpoints, count, &error)) {
        failed(resolver, error.text);
        return;
    }
    resolver->complained = false;
    flue_metric_add(resolver->found, 1);
}

static void looked_up(struct flue_job *job)
{
    struct flue_balance_lookup *lookup = of_job(job);
    struct flue_balance_resolver *resolver = lookup->resolver;
    if (resolver) {
        resolver->lookup = NULL;
        flue_timer_disarm(resolver->loop, &resolver->patience);
        if (lookup->result == 0)
            take(resolver, lookup->addresses);
        else
            failed(resolver, lookup->result == EAI_SYSTEM ? strerror(lookup->saved_errno)
                                                          : gai_strerror(lookup->result));
        resolver->changed(resolver->arg);
        if (!resolver->stopping)
            flue_timer_arm(resolver->loop, &resolver->timer,
                           flue_monotonic_ns() + (uint64_t)resolver->interval);
    }
    if (lookup->addresses)
        freeaddrinfo(lookup->addresses);
    free(lookup);
}

/* What waits for the first list waits no longer; the answer is still taken when it comes. */
static void out_of_patience(struct flue_timer *timer)
{
    struct flue_balance_resolver *resolver =
        (struct flue_balance_resolver *)(void *)((char *)timer -
                                                 offsetof(struct flue_balance_resolver, patience));
    failed(resolver, "no answer within resolver.dns.timeout");
    resolver->changed(resolver->arg);
}

static void ask(struct flue_timer *timer)
{
    struct flue_balance_resolver *resolver =
        (struct flue_balance_resolver *)(void *)((char *)timer -
                                                 offsetof(struct flue_balance_resolver, timer));
    struct flue_balance_lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup) {
        failed(resolver, "no memory");
        resolver->changed(resolver->arg);
        flue_timer_arm(resolver->loop, timer, flue_monotonic_ns() + (uint64_t)resolver->interval);
        return;
    }
    *lookup = (struct flue_balance_lookup){.job = {.work = look_up, .done = looked_up},
                                           .resolver = resolver,
                                           .hostname = resolver->hostname,
                                           .port = resolver->port};
    resolver->lookup = lookup;
    flue_timer_arm(resolver->loop, &resolver->patience,
                   flue_monotonic_ns() + (uint64_t)resolver->timeout);
    flue_pool_submit(resolver->loop, &lookup->job);
}

static void begin(struct flue_loop *loop, void *arg)
{
    struct flue_balance_resolver *resolver = arg;
    ask(&resolver->timer);
}

static void end(struct flue_loop *loop, void *arg)
{
    struct flue_balance_resolver *resolver = arg;
    resolver->stopping = true;
    flue_timer_disarm(loop, &resolver->timer);
    flue_timer_disarm(loop, &resolver->patience);
    if (resolver->lookup)
        resolver->lookup->resolver = NULL;
}

void flue_balance_resolver_init(struct flue_balance_resolver *resolver)
{
    pthread_mutex_init(&resolver->lock, NULL);
    resolver->timer.fire = ask;
    resolver->patience.fire = out_of_patience;
}

void flue_balance_resolver_start(struct flue_balance_resolver *resolver, struct flue_loop *loop)
{
    resolver->loop = loop;
    if (resolver->hostname)
        flue_loop_call(loop, begin, resolver);
}

void flue_balance_resolver_destroy(struct flue_balance_resolver *resolver)
{
    if (resolver->loop)
        flue_loop_call(resolver->loop, end, resolver);
    flue_balance_list_unref(resolver->list);
    resolver->list = NULL;
    pthread_mutex_destroy(&resolver->lock);
}
