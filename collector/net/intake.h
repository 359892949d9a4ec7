/* intake.h: how a receiver's payloads enter its pipelines, and what is counted on the way.
 *
 * A receiver has one intake. A request is admitted when its headers are known; what became of its
 * body is pushed as one batch with the request's origin, and the outcome comes back for the answer.
 * Counted per transport: samples (or spans) accepted, refused (by the pipelines), failed (by flue
 * itself); and requests refused, by reason, whoever refuses them.
 *
 * An intake lives as long as the receiver; pushes are on the loop of their request.
 */
#ifndef FLUE_NET_INTAKE_H
#define FLUE_NET_INTAKE_H

#include "collector/net/server.h"

enum flue_transport { FLUE_OVER_HTTP, FLUE_OVER_CONNECT, FLUE_OVER_GRPC, FLUE_TRANSPORTS };

struct flue_intake {
    const char *receiver;           /* component id; borrowed */
    struct flue_consumer *consumer; /* NULL: no pipeline names the receiver */
    struct flue_metrics *metrics;
    struct flue_metric *accepted[FLUE_TRANSPORTS], *refused[FLUE_TRANSPORTS],
        *failed[FLUE_TRANSPORTS];
    _Atomic(struct flue_metric *) reasons[FLUE_CODES]; /* made at first use */
    _Atomic int open;                                  /* pushes without an outcome */
};

/* `transports`: bits 1 << enum flue_transport, those that have counters. */
void flue_intake_init(struct flue_intake *intake, const struct flue_create *create,
                      unsigned transports);
/* The same for the pipelines of traces; what is counted are spans. */
void flue_intake_init_traces(struct flue_intake *intake, const struct flue_create *create,
                             unsigned transports);
/* A request that is answered with an error, once. */
void flue_intake_count_refusal(struct flue_intake *intake, enum flue_code code);
/* No push is open: for the component's `stopped`. */
bool flue_intake_stopped(const struct flue_intake *intake);

/* When the headers are known: FLUE_INVALID if X-Scope-OrgID names no tenant, else the account that
 * pays for the body. */
enum flue_code flue_intake_admit(const struct flue_intake *intake,
                                 const struct flue_request *request, struct flue_account **account,
                                 struct flue_error *error);

/* One request's data on its way; embedded in what the receiver keeps for the request. */
struct flue_intake_push {
    struct flue_intake *intake;
    struct flue_request *request;
    enum flue_transport transport;
    /* Called once, possibly before flue_intake_push returns: answer; the push may be gone then. */
    void (*done)(struct flue_intake_push *push, const struct flue_outcome *outcome);
    /* its own */
    uint64_t samples;
    struct flue_delivery *delivery; /* NULL: not begun, or done */
};
/* Takes the payload's reference. */
void flue_intake_push(struct flue_intake_push *push, struct flue_payload *payload,
                      const struct flue_counts *counts);
/* The client went away; done is still called. Nothing happens where nothing is on its way. */
void flue_intake_cancel(struct flue_intake_push *push);

#endif
