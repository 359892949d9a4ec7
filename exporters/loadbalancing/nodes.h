/* nodes.h: which nodes there are, and which of them a key belongs to.
 *
 * Rendezvous hashing: every node has a score for a key, the highest wins. A node that goes moves
 * only its own keys, one that comes takes its share from all; every flue with the same list of nodes
 * decides alike. A node that cannot be reached is left out for some seconds.
 *
 * A list is immutable and replaced whole by the resolver; a node keeps its identity over lists. Any
 * thread may hold references.
 */
#ifndef FLUE_LOADBALANCING_NODES_H
#define FLUE_LOADBALANCING_NODES_H

#include <pthread.h>
#include "collector/base/loop.h"
#include "collector/base/metrics.h"

#define FLUE_BALANCE_NODES 256

struct flue_balance_node {
    _Atomic uint32_t refs;
    uint64_t hash;
    _Atomic uint64_t lost_until_ns; /* monotonic; 0: it answers, as far as is known */
    _Atomic bool gone;              /* no longer in the list */
    char endpoint[];                /* "10.1.2.3:4317" */
};
void flue_balance_node_unref(struct flue_balance_node *node);

struct flue_balance_list {
    _Atomic uint32_t refs;
    unsigned count;
    struct flue_balance_node *items[];
};
void flue_balance_list_unref(struct flue_balance_list *list);
/* The index of the node of a key; nodes that are lost count only when all are. */
unsigned flue_balance_choose(const struct flue_balance_list *list, uint64_t key, uint64_t now_ns);
/* Is another one than this there that is not lost? */
bool flue_balance_other(const struct flue_balance_list *list, const struct flue_balance_node *node,
                        uint64_t now_ns);
void flue_balance_lost(struct flue_balance_node *node, uint64_t now_ns);
void flue_balance_answers(struct flue_balance_node *node);

struct flue_balance_resolver {
    /* Set before start. `changed`: on loop 0, after the list was replaced or could not be found. */
    const char *hostname, *port; /* DNS; NULL: static */
    int64_t interval, timeout;
    void (*changed)(void *arg);
    void *arg;
    struct flue_metric *found, *not_found, *backends, *updates;
    /* its own */
    pthread_mutex_t lock; /* of list and error */
    struct flue_balance_list *list;
    struct flue_error error; /* while there is no list */
    struct flue_loop *loop;
    struct flue_timer timer, patience;
    struct flue_balance_lookup *lookup; /* running */
    bool stopping;
    bool complained; /* said once until it is found again */
};
void flue_balance_resolver_init(struct flue_balance_resolver *resolver);
/* A list of its own, in place of the one before. FLUE_INVALID: none or more than 256. */
enum flue_code flue_balance_set(struct flue_balance_resolver *resolver,
                                const char *const *endpoints, size_t count,
                                struct flue_error *error);
/* DNS only: asks now, then every interval, on the pool. */
void flue_balance_resolver_start(struct flue_balance_resolver *resolver, struct flue_loop *loop);
/* The list of now, referenced; NULL: *error says why there is none (code FLUE_OK: it is being
 * looked for, `changed` follows). */
struct flue_balance_list *flue_balance_now(struct flue_balance_resolver *resolver,
                                           struct flue_error *error);
/* The loops are stopped. */
void flue_balance_resolver_destroy(struct flue_balance_resolver *resolver);

#endif
