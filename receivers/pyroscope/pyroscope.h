/* pyroscope.h: what the two surfaces of this receiver (/ingest and push.v1) share. */
#ifndef RECEIVERS_PYROSCOPE_PYROSCOPE_H
#define RECEIVERS_PYROSCOPE_PYROSCOPE_H

#include "collector/component.h"
#include "collector/net/rpc.h"
#include "proto/pprof/pprof.h"
#include "receivers/pyroscope/trusted.h"

struct pyroscope_config {
    struct flue_server_config server; /* squashed */
    struct flue_list trusted;         /* strings */
};

enum { PYROSCOPE_HTTP, PYROSCOPE_CONNECT, PYROSCOPE_GRPC, PYROSCOPE_TRANSPORTS };

struct pyroscope {
    const struct pyroscope_config *config;
    const char *id;
    struct flue_consumer *consumer;
    struct flue_server_set *servers;
    struct flue_metrics *metrics;
    struct flue_trusted trusted;
    struct flue_rpc_service service;
    struct flue_route routes[3];
    struct flue_metric *accepted[PYROSCOPE_TRANSPORTS], *refused[PYROSCOPE_TRANSPORTS],
        *failed[PYROSCOPE_TRANSPORTS];
    struct flue_metric *rejected_profiles, *repaired_profiles;
    _Atomic(struct flue_metric *) reasons[FLUE_CODES]; /* made at first use */
};

/* Sends one payload down the pipelines and counts what becomes of it. Takes the payload's reference.
 * `done` is called once, possibly before this returns. *delivery (may be NULL) is the one in progress
 * until then, for flue_delivery_cancel. */
struct pyroscope_sending {
    struct pyroscope *receiver;
    struct flue_request *request;
    int transport;
    uint64_t samples;
    struct flue_delivery *delivery; /* NULL when done */
    void (*done)(struct pyroscope_sending *sending, const struct flue_error *error);
};
void pyroscope_send(struct pyroscope_sending *sending, struct flue_payload *payload,
                    const struct flue_counts *counts);
void pyroscope_count_refusal(struct pyroscope *receiver, enum flue_code code);

void pyroscope_ingest_route(struct pyroscope *receiver, const char *path, struct flue_route *route);
void pyroscope_push_route(struct pyroscope *receiver, struct flue_route *route);

#endif
