/* delivery.h: one request on its way to every destination, and the answer on its way back.
 *
 * The receiver begins a delivery, pushes its batches into its consumer (the fan-out to all
 * pipelines that name the receiver), and ends it. Every pipeline's processors run; at the end of a
 * pipeline each exporter joins the delivery as a branch. Nothing is sent or queued before all of
 * them have joined. Then:
 *
 *   1. reserve: every branch with a queue reserves its bytes. A full queue with on_overflow: refuse
 *      refuses the whole delivery (nothing was taken anywhere); with drop the branch is left out
 * and counted.
 *   2. branches without a queue are sent first; a final failure there refuses the delivery.
 *   3. branches with a queue on disk are written down, once per log however many they are; a disk
 *      that fails refuses the delivery.
 *   4. commit: the reserved items enter their queues.
 *
 * `done` is called exactly once, on the loop of the delivery, possibly before flue_delivery_end
 * returns. A stage that must wait holds the delivery (flue_delivery_hold / _release).
 * One loop; nothing here is thread-safe, nothing here locks.
 */
#ifndef FLUE_PIPELINE_DELIVERY_H
#define FLUE_PIPELINE_DELIVERY_H

#include "collector/base/loop.h"
#include "collector/pipeline/batch.h"

struct flue_delivery;

/* What went wrong is in `error` (FLUE_OK: all was taken). `dropped` counts what a branch with
 * on_overflow: drop, or a destination that refused for good, did not take (information; the sender
 * need not repeat). */
struct flue_outcome {
    struct flue_error error;
    struct flue_counts accepted, dropped;
    /* A direct (queue-less) OTLP next hop may accept in part: */
    uint64_t rejected_profiles;
    char rejected_reason[256];
};
typedef void (*flue_delivery_done)(void *arg, const struct flue_outcome *outcome);

/* `deadline_ns` monotonic, 0: none. NULL without memory. */
struct flue_delivery *flue_delivery_begin(struct flue_loop *loop, uint64_t deadline_ns,
                                          flue_delivery_done done, void *arg);
/* No more pushes by the receiver. */
void flue_delivery_end(struct flue_delivery *delivery);
/* The sender is gone: nothing not yet sent is sent on its behalf; done is still called. */
void flue_delivery_cancel(struct flue_delivery *delivery);

/* For stages. A refusal makes the delivery fail with the first error; pushing on is pointless but
 * harmless. */
void flue_delivery_refuse(struct flue_delivery *delivery, const struct flue_error *error);
bool flue_delivery_refused(const struct flue_delivery *delivery);
void flue_delivery_hold(struct flue_delivery *delivery);
void flue_delivery_release(struct flue_delivery *delivery);
struct flue_loop *flue_delivery_loop(struct flue_delivery *delivery);
uint64_t flue_delivery_deadline(const struct flue_delivery *delivery);

/* Where a receiver pushes: all pipelines of one signal that name it. push takes the batch's
 * reference. */
struct flue_consumer;
void flue_consumer_push(struct flue_consumer *consumer, struct flue_batch *batch,
                        struct flue_delivery *delivery);
/* The account to which a request's bytes are charged before it has a batch (the first pipeline's).
 */
struct flue_account *flue_consumer_account(struct flue_consumer *consumer);

#endif
