/* batch.h: the unit that travels: a payload, where it came from, and its counts as received.
 *
 * A batch is immutable once pushed to more than one place. A stage that gets a batch owns one
 * reference of it and must give it on or drop it. Before an edit call flue_batch_writable(), which
 * returns the same batch when nobody else holds it, else a copy with an own overlay.
 */
#ifndef FLUE_PIPELINE_BATCH_H
#define FLUE_PIPELINE_BATCH_H

#include "collector/base/payload.h"
#include "collector/pipeline/origin.h"

struct flue_batch {
    _Atomic uint32_t refs;
    struct flue_payload *payload; /* owned */
    struct flue_origin *origin;   /* owned reference */
    struct flue_counts counts;    /* as received, in this batch */
    struct flue_account *account; /* whose memory it is */
    struct flue_hold *hold;       /* hold.h: owned reference; NULL: may be sent at once */
};

/* Takes the payload's reference (also on failure); refs the origin. */
struct flue_batch *flue_batch_new(struct flue_payload *payload, struct flue_origin *origin,
                                  struct flue_counts counts, struct flue_account *account);
struct flue_batch *flue_batch_ref(struct flue_batch *batch);
void flue_batch_unref(struct flue_batch *batch);
/* Consumes `batch`, returns the editable one; NULL (and *error) without memory, `batch` dropped. */
struct flue_batch *flue_batch_writable(struct flue_batch *batch, struct flue_error *error);

#endif
