/* counters.h: what samples add up to on the metrics page, by service, region, sample type and
 * subsystem; bounded.
 *
 * Families: processor_subsystem_seconds, _bytes and _count, with the labels service, region,
 * subsystem and sample_type (and processor and pipeline). Beyond `most` series a new one is counted
 * under service, region and sample_type "other"; the subsystem stays. Values are 64 bits of
 * nanoseconds or units; what passes that begins anew, as after a restart.
 *
 * Loops look up in a table of their own; what is new to a loop is looked for under a lock.
 */
#ifndef SUBSYSTEM_COUNTERS_H
#define SUBSYSTEM_COUNTERS_H

#include "collector/component.h"
#include "processors/subsystem/rules.h"
#include "proto/otlp/metric_types.h"

struct subsystem_counters;

/* The rules outlive it. */
enum flue_code subsystem_counters_new(const struct flue_create *create,
                                      const struct subsystem_rules *rules, size_t most,
                                      struct subsystem_counters **out, struct flue_error *error);
/* On the loop. `sums` by subsystem. */
void subsystem_counters_add(struct subsystem_counters *counters, unsigned loop,
                            struct flue_bytes service, struct flue_bytes region,
                            const struct flue_quantity_type *type, const uint64_t *sums);
/* The loops are stopped; takes its series off the page. NULL: fine. */
void subsystem_counters_destroy(struct subsystem_counters *counters);

#endif
