/* sums.h: cumulative sums of sample values by resource attributes, one sample attribute and sample
 * type; bounded. One lock around all of it: whoever calls holds no other.
 *
 * Sums begin at 0 when `sums` is made, which is their start time. One that passes 2^63-1 (of
 * nanoseconds, bytes or events) begins anew, with a start time of then. What is new beyond
 * max_series is counted under "other" in every attribute; of it, what has no sample attribute stays
 * "unmatched", so that the unmatched share is the true one.
 */
#ifndef PROFILES_TO_METRICS_SUMS_H
#define PROFILES_TO_METRICS_SUMS_H

#include "collector/base/payload.h"
#include "config/field.h"
#include "proto/otlp/metric_types.h"

struct sums_config {
    struct flue_list resource_attributes; /* const char * */
    const char *sample_attribute, *namespace;
    int64_t max_series, flush_interval;
};
struct sums;

/* `instance`: service.instance.id of what is written, so that the sums of two writers are not taken
 * for each other; copied. */
enum flue_code sums_new(const struct sums_config *config, const char *instance, struct sums **out,
                        struct flue_error *error);
void sums_destroy(struct sums *sums); /* NULL: fine */

/* Adds every sample of an OTLP payload. `arena` for the time of the call. Any thread. */
enum flue_code sums_take(struct sums *sums, const struct flue_payload *payload,
                         struct flue_arena *arena, struct flue_error *error);
/* All sums as metrics; *out NULL: there are none yet. */
enum flue_code sums_write(struct sums *sums, struct flue_account *account,
                          struct flue_payload **out, struct flue_counts *counts,
                          struct flue_error *error);
/* Series there are, and how often something was counted under "other" for want of room. */
size_t sums_series(struct sums *sums);
uint64_t sums_overflowed(struct sums *sums);

#endif
