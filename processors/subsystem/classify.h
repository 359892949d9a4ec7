/* classify.h: a payload's samples by subsystem: sums, and marks where they are asked for.
 *
 * Tables are walked once: a verdict for every function, mapping and location, then for every stack;
 * a sample costs a look-up. On one loop.
 */
#ifndef SUBSYSTEM_CLASSIFY_H
#define SUBSYSTEM_CLASSIFY_H

#include "collector/base/payload.h"
#include "processors/subsystem/rules.h"
#include "proto/otlp/metric_types.h"

/* Of one resource and sample type: `sums` by subsystem, in the type's quantity (nanoseconds, bytes,
 * count), saturated. Borrowed for the call. */
typedef void (*subsystem_report)(void *arg, size_t resource, const struct flue_quantity_type *type,
                                 const uint64_t *sums);

struct subsystem_work {
    const struct subsystem_rules *rules;
    /* Key of the attribute or label that every sample gets; empty: none. A sample that has it
     * already keeps it and counts by it. */
    struct flue_bytes mark;
    subsystem_report report;
    void *arg;
    struct flue_arena *arena; /* for the time of the call; reset on the way */
};

/* With a mark the payload must not be shared. On failure give it up. */
enum flue_code subsystem_otlp(const struct subsystem_work *work, struct flue_payload *payload,
                              struct flue_error *error);
/* With a mark *out is a new payload, the marked one; without *out is not touched. */
enum flue_code subsystem_pprof(const struct subsystem_work *work,
                               const struct flue_payload *payload, struct flue_account *account,
                               struct flue_payload **out, struct flue_error *error);

#endif
