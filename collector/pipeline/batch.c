/* batch.c: reference counts, and copy on write. */
#include "collector/pipeline/hold.h"
#include <stdlib.h>

struct flue_batch *flue_batch_new(struct flue_payload *payload, struct flue_origin *origin,
                                  struct flue_counts counts, struct flue_account *account)
{
    struct flue_batch *batch = malloc(sizeof *batch);
    if (!batch) {
        flue_payload_unref(payload);
        return NULL;
    }
    atomic_init(&batch->refs, 1);
    batch->payload = payload;
    batch->origin = origin ? flue_origin_ref(origin) : NULL;
    batch->counts = counts;
    batch->account = account;
    batch->hold = NULL;
    return batch;
}

struct flue_batch *flue_batch_ref(struct flue_batch *batch)
{
    atomic_fetch_add_explicit(&batch->refs, 1, memory_order_relaxed);
    return batch;
}

void flue_batch_unref(struct flue_batch *batch)
{
    if (!batch || atomic_fetch_sub_explicit(&batch->refs, 1, memory_order_acq_rel) != 1)
        return;
    flue_payload_unref(batch->payload);
    flue_origin_unref(batch->origin);
    flue_hold_unref(batch->hold);
    free(batch);
}

struct flue_batch *flue_batch_writable(struct flue_batch *batch, struct flue_error *error)
{
    bool alone = atomic_load_explicit(&batch->refs, memory_order_acquire) == 1;

    if (alone && !flue_payload_shared(batch->payload))
        return batch;
    struct flue_payload *clone = batch->payload->ops->clone(batch->payload, error);
    struct flue_batch *copy = NULL;
    if (clone) {
        copy = flue_batch_new(clone, batch->origin, batch->counts, batch->account);
        if (!copy)
            (void)flue_fail(error, FLUE_NO_MEMORY, "no memory for a copy of a batch");
        else
            copy->hold = flue_hold_ref(batch->hold);
    }
    flue_batch_unref(batch);
    return copy;
}
