/* exporter.h: the engine's half of an exporter: queue, retry, concurrency, metrics,
 * acknowledgement.
 *
 * An exporter component turns one item into requests and gives a verdict; everything else is here,
 * once. A send is one item: it keeps its identity, and `state`, over all its attempts, so that what
 * an exporter fixed before the first attempt (times, labels, which parts were already taken) stays
 * fixed. Attempts of one item never overlap.
 *
 * An item stays on the loop where it arrived. Concurrency (num_consumers), bytes and count of the
 * queue are shared by all loops through atomics. An item keeps its place among num_consumers while
 * it waits to be sent again, so a destination that is down is not asked by the whole queue at once.
 * While the circuit of the destination is open (flow.h) items wait there, and one at a time probes.
 * Without a queue (sending_queue.enabled: false, or a component with no_queue) nothing bounds how
 * many sends run at a time but the senders themselves.
 */
#ifndef FLUE_PIPELINE_EXPORTER_H
#define FLUE_PIPELINE_EXPORTER_H

#include "collector/base/loop.h"
#include "collector/component.h"
#include "collector/pipeline/batch.h"

struct flue_send {
    struct flue_batch *batch; /* immutable */
    struct flue_loop *loop;
    unsigned attempt; /* 0 for the first */
    /* Its id in the durable queue, the same after a restart; 0: memory only. A part of a record
     * that was cut, or the join of several (`batch`), has the id of the (first) whole. */
    uint64_t record;
    uint64_t
        deadline_ns; /* of this attempt: `timeout`, or the caller's if that is earlier; 0: none */
    void *state;     /* the exporter's; freed by free_state when the item ends */
    void (*free_state)(void *state);
    /* While an attempt runs: the item is given up (deadline of a drain, sender gone). The exporter
     * ends its requests and still calls flue_send_done. May be NULL. */
    void (*cancel)(struct flue_send *send);
};

enum flue_verdict_kind {
    FLUE_SENT,  /* taken; `rejected` of it was refused by a partial success */
    FLUE_RETRY, /* come again, not before error.retry_after_ms */
    FLUE_DROP,  /* will never be taken: counted with error.code as the reason, logged */
    FLUE_SPLIT  /* too large: cut to `split_max` and send the parts */
};
struct flue_verdict {
    enum flue_verdict_kind kind;
    struct flue_error error;
    struct flue_counts rejected; /* SENT: of the item's counts */
    uint64_t split_max;          /* SPLIT: encoded bytes, or samples unless split_by_bytes */
    bool split_by_bytes;
};
void flue_send_done(struct flue_send *send, const struct flue_verdict *verdict);
/* Within an attempt, for an exporter that bounds its own concurrency (an adaptive one): this item
 * gives its place among num_consumers back, so that the engine goes on to the next. Once per item;
 * later calls do nothing. */
void flue_send_free_place(struct flue_send *send);
/* For exporters that gather many items into one object. Gives the memory of the batch back
 * (send->batch becomes NULL) while the item waits, also over several attempts; does nothing for an
 * item that is not a whole record. Load reads it again; `loaded` once, on the send's loop, never
 * from within, and not after flue_send_done. Other than FLUE_OK: FLUE_INVALID (the record is
 * damaged: drop it) or not now. */
void flue_send_park(struct flue_send *send);
void flue_send_load(struct flue_send *send,
                    void (*loaded)(struct flue_send *send, enum flue_code code,
                                   const struct flue_error *error));
/* SENT with nothing rejected. */
void flue_send_ok(struct flue_send *send);
/* RETRY or DROP by flue_code_facts(error->code)->retryable. */
void flue_send_fail(struct flue_send *send, const struct flue_error *error);

#endif
