/* sums.h: cumulative sums of sample values by resource attributes, one sample attribute and sample
 * type; bounded. One lock around all of it: whoever calls holds no other.
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

enum flue_code sums_new(const struct sums_config *config, struct sums **out,
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
