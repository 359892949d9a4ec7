/* profile_name.h: what Pyroscope calls a profile, from its sample types and its period.
 *
 * Pyroscope knows a profile by name:type:unit:period type:period unit, and its user interface and
 * dashboards by a short list of those (process_cpu:cpu:nanoseconds:cpu:nanoseconds, ...). Producers
 * of OTLP name them otherwise; this is the one table between. docs/conversion.md shows it to
 * people.
 */
#ifndef PROTO_CONVERT_PROFILE_NAME_H
#define PROTO_CONVERT_PROFILE_NAME_H

#include "collector/base/arena.h"

struct flue_profile_type {
    struct flue_bytes type, unit;
};

/* Never empty, always a valid metric name ([a-zA-Z_:][a-zA-Z0-9_:]*): static or in `arena`. NULL
 * data without memory. */
struct flue_bytes flue_profile_name(const struct flue_profile_type *types, size_t count,
                                    struct flue_profile_type period, struct flue_arena *arena);

/* Rewrites types, units and period of a profile that was born as OTLP to the well-known ones, in
 * place. times_period[i] becomes true where the values of type i must be multiplied by
 * `period_value` (a count of samples that stands for time or bytes). No two types become the same.
 */
void flue_profile_types_known(struct flue_profile_type *types, size_t count, bool *times_period,
                              struct flue_profile_type *period, int64_t period_value);

#endif
