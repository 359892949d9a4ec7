/* loadbalancing.h: what the files of this folder share.
 *
 *   loadbalancing.c  keys, life, what each loop has: a client for each node
 *   item.c           one item of the queue: cut into parts, sent, answered
 *   split.c          a request cut by key
 *   nodes.c          which nodes there are, and which one a key belongs to
 */
#ifndef FLUE_LOADBALANCING_H
#define FLUE_LOADBALANCING_H

#include "collector/net/client_body.h"
#include "collector/net/client_grpc.h"
#include "collector/pipeline/exporter.h"
#include "exporters/loadbalancing/nodes.h"
#include "exporters/loadbalancing/split.h"

struct flue_balancer;
struct flue_balance_item;

struct flue_balance_client { /* of one node on one loop */
    struct flue_balance_client *next;
    struct flue_balance_node *node;
    struct flue_client *client;
    unsigned calls;
};

struct flue_balance_place { /* what a loop has */
    struct flue_balancer *balancer;
    struct flue_loop *loop;
    struct flue_balance_client *clients;
    struct flue_balance_item *waiting; /* for the first list of nodes */
    struct flue_task task;             /* the list has changed */
    _Atomic bool posted;
};

struct flue_balancer {
    const char *id;
    struct flue_loops *loops;
    struct flue_balance_rule rule; /* but for signal and tenant, which are the item's */
    struct flue_client_config client;
    const struct flue_header *headers;
    size_t header_count;
    enum flue_coding coding;
    int level;
    int64_t timeout; /* ns of one call; 0: the item's deadline alone */
    uint64_t max_request_size;
    struct flue_tls *tls;
    struct flue_balance_resolver resolver;
    struct flue_balance_place places[64]; /* by loop */
};

/* The client of a node; NULL: *error. Counts a call, which flue_balance_client_done takes back. */
struct flue_balance_client *flue_balance_client(struct flue_balance_place *place,
                                                struct flue_balance_node *node,
                                                struct flue_error *error);
void flue_balance_client_done(struct flue_balance_place *place,
                              struct flue_balance_client *client);

/* item.c: the component's send, and what has waited for nodes. */
void flue_balance_send(struct flue_balance_place *place, struct flue_send *send);
void flue_balance_wake(struct flue_balance_place *place);

#endif
