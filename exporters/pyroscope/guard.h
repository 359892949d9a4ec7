/* guard.h: which labels have too many values.
 *
 * The values of every label are counted within a window by linear counting: a bitmap of 131,072
 * bits a label (16 KiB, made when the label is first seen; at most FLUE_GUARD_LABELS of them, other
 * labels are not watched), good to a percent up to the largest limit. A label that passes the limit
 * is guarded for one window from a stated moment on: what was received before keeps it. So whether
 * a profile has the label depends on when it was received and on that moment alone, which a durable
 * queue keeps as a note: a profile that is sent again, after a restart too, has the labels that it
 * had. Shared by all loops; a lock only where a label is new.
 */
#ifndef EXPORTERS_PYROSCOPE_GUARD_H
#define EXPORTERS_PYROSCOPE_GUARD_H

#include "collector/base/metrics.h"

#define FLUE_GUARD_LABELS    256
#define FLUE_GUARD_LIMIT_MAX 200000

enum flue_guard_action { FLUE_GUARD_DROP, FLUE_GUARD_REPLACE };
struct flue_guard_config {
    int64_t limit, window; /* 0: no guard; ns */
    int action;
};

struct flue_guard;
/* `exact`: guarded from the moment of the decision (what waits in a durable queue may have been
 * sent already), not from the receipt of the profile that tripped it. NULL without memory. Main
 * thread. */
struct flue_guard *flue_guard_new(const struct flue_guard_config *config, const char *exporter,
                                  struct flue_metrics *metrics, bool exact);
void flue_guard_destroy(struct flue_guard *guard); /* NULL: fine */

/* Is the label guarded for what was received then? Counted in the label's metric. Any loop. */
bool flue_guard_holds(struct flue_guard *guard, struct flue_bytes label, uint64_t received_ns);
/* Counts a value; true when that tripped the guard just now. */
bool flue_guard_count(struct flue_guard *guard, struct flue_bytes label, struct flue_bytes value,
                      uint64_t received_ns);
/* Another number whenever answers for what was received then may have changed, or values must be
 * counted anew. */
uint64_t flue_guard_generation(struct flue_guard *guard, uint64_t received_ns);
bool flue_guard_active(const struct flue_guard *guard); /* is any label guarded? */

/* For notes: the span in which a label is guarded, and its return after a restart (main thread). */
struct flue_guard_span {
    uint64_t from_ns, until_ns;
};
bool flue_guard_span_of(struct flue_guard *guard, struct flue_bytes label,
                        struct flue_guard_span *out);
bool flue_guard_restore(struct flue_guard *guard, struct flue_bytes label,
                        const struct flue_guard_span *span);

#endif
