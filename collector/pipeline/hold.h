/* hold.h: a batch that is acknowledged into a queue, but not sent before something has come, or
 * a time has passed.
 *
 * A stage sets batch->hold before it gives the batch on. An exporter with a queue then keeps the
 * item there (on disk and in memory, as any other) and asks `ripe` again and again until it says
 * yes; it is asked with `last` once, when the time is over or the exporter drains, and then must.
 * Held items have no place among num_consumers and join no batch before they are ripe. Without
 * a queue, or where the sender waits for the result, nothing is held. What comes back from disk
 * (after a restart, or because memory was short) goes out as it was written.
 *
 * A hold is shared by all exporters of a batch and asked by each, all on the batch's loop.
 */
#ifndef FLUE_PIPELINE_HOLD_H
#define FLUE_PIPELINE_HOLD_H

#include "collector/pipeline/batch.h"

struct flue_hold {
    _Atomic uint32_t refs;
    uint64_t until_ns, every_ns; /* monotonic; how often it asks */
    /* True: *batch goes out, as it is or another in its place (the reference with it). */
    bool (*ripe)(struct flue_hold *hold, struct flue_batch **batch, bool last);
    void (*destroy)(struct flue_hold *hold);
};

static inline struct flue_hold *flue_hold_ref(struct flue_hold *hold)
{
    if (hold)
        atomic_fetch_add_explicit(&hold->refs, 1, memory_order_relaxed);
    return hold;
}
static inline void flue_hold_unref(struct flue_hold *hold)
{
    if (hold && atomic_fetch_sub_explicit(&hold->refs, 1, memory_order_acq_rel) == 1)
        hold->destroy(hold);
}

#endif
