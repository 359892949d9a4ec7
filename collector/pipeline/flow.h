/* flow.h: how much a destination is asked to take at once, and whether it is asked at all.
 *
 * One flow per destination, shared by all loops through atomics:
 *
 *   limit    places for requests in flight, min..max. Latency is averaged over windows of as many
 *            answers as there are places. It grows by an eighth while a window that used its places
 *            stays near the best latency known, shrinks by an eighth when it rises to twice that,
 *            and by a third on an answer that says "too much" (429, 503, a timeout), once per
 *            round trip. max 0: no limit (whoever calls bounds it otherwise).
 *   circuit  closed -> open after FLUE_FLOW_FAILURES failures in a row -> half-open after a wait
 *            (doubling from open_ns to open_max_ns, a quarter of jitter either way, never less
 *            than the destination's own retry-after): one probe at a time. Any answer that shows a
 *            working destination closes it.
 *
 * A ticket is one request's place. Its owner embeds it, zeroed but for `ready`. It is used on one
 * loop; take, forget, give are for that loop's thread. Nothing here locks or waits.
 */
#ifndef FLUE_PIPELINE_FLOW_H
#define FLUE_PIPELINE_FLOW_H

#include "collector/base/loop.h"
#include "collector/base/metrics.h"

#define FLUE_FLOW_FAILURES 5

struct flue_flow;

struct flue_flow_config {
    const char *exporter; /* label of the metrics; copied */
    const char *endpoint; /* a second label, for one of several replicas; NULL: none */
    unsigned min, max;    /* bounds of the limit; max 0: none */
    unsigned initial;     /* where it begins; 0: min */
    bool circuit;         /* false: only the limit (the engine has a circuit per exporter) */
    int64_t open_ns, open_max_ns; /* 0: 1 s, 30 s */
    struct flue_loops *loops;
    struct flue_metrics *metrics; /* NULL: none */
};

/* Main thread; NULL without memory. Destroyed when the loops are stopped. */
struct flue_flow *flue_flow_new(const struct flue_flow_config *config);
void flue_flow_destroy(struct flue_flow *flow); /* NULL: fine */

struct flue_flow_ticket {
    /* It has its place now. Called from a give, a timer or a post on the ticket's loop. */
    void (*ready)(struct flue_flow_ticket *ticket);
    struct flue_loop *loop; /* set by take */
    struct flue_flow_ticket *next, *previous;
    uint64_t since_ns; /* when it got its place */
    bool waiting, probe;
};

/* True: the place is there, `ready` will not be called. False: in line (first come, first served on
 * each loop, loops in turn); `ready` tells. */
bool flue_flow_take(struct flue_flow *flow, struct flue_loop *loop,
                    struct flue_flow_ticket *ticket);
/* Leaves the line; fine if it does not stand there. */
void flue_flow_forget(struct flue_flow *flow, struct flue_flow_ticket *ticket);

enum flue_flow_answer {
    FLUE_FLOW_WORKS,    /* an answer of a working destination, also one that refuses the data */
    FLUE_FLOW_TOO_MUCH, /* it works and wants less: 429 */
    FLUE_FLOW_FAILED,   /* cannot be reached, 5xx, garbage */
    FLUE_FLOW_SLOW,     /* 503 or a timeout: failed, and too much */
    FLUE_FLOW_UNKNOWN   /* cancelled or never sent: says nothing */
};
/* Gives the place back. `retry_after_ms`: of a failure, 0: not stated. */
void flue_flow_give(struct flue_flow *flow, struct flue_flow_ticket *ticket,
                    enum flue_flow_answer answer, uint32_t retry_after_ms);

/* The usual reading of an error: RATE_LIMITED and OVERLOADED are too much, UNAVAILABLE with a
 * stated delay and TIMEOUT are slow, what will not be retried works, CANCELLED, SHUTTING_DOWN and
 * NO_MEMORY are unknown. */
enum flue_flow_answer flue_flow_answer_of(const struct flue_error *error);

enum flue_circuit_state { FLUE_CIRCUIT_CLOSED, FLUE_CIRCUIT_HALF_OPEN, FLUE_CIRCUIT_OPEN };
enum flue_circuit_state flue_flow_circuit(const struct flue_flow *flow);
/* Monotonic; 0: closed. */
uint64_t flue_flow_open_until(const struct flue_flow *flow);
unsigned flue_flow_limit(const struct flue_flow *flow);     /* UINT_MAX: none */
unsigned flue_flow_in_flight(const struct flue_flow *flow); /* 0 without a limit */

#endif
