/* labels.h: from attributes to the labels of one series.
 *
 * Names are Pyroscope's (underscores, proto/pprof/names.h) unless `mapping` says another. At most
 * limits->names in all, counting "__*" and the labels that samples have: the server refuses more.
 * What must go goes from the end of this order, but nothing of its first line:
 *   1. "__*" and service_name   2. `priority`, in its order   3. all others by name
 * Longer names and values are cut at a character.
 */
#ifndef EXPORTERS_PYROSCOPE_LABELS_H
#define EXPORTERS_PYROSCOPE_LABELS_H

#include "collector/base/payload.h"
#include "exporters/pyroscope/settings.h"
#include "proto/pprof/pprof.h"

struct flue_label_limits {
    size_t names, name_bytes, value_bytes;
};

struct flue_series_labels {
    struct flue_pprof_label *items; /* sorted by name, no name twice */
    size_t count, room;
    size_t trimmed; /* left out for the limit, or cut */
};

/* Adds a label unless one of that name is there. False without memory. */
bool flue_labels_add(struct flue_series_labels *labels, struct flue_arena *arena,
                     struct flue_bytes name, struct flue_bytes value);
/* Adds what an attribute becomes. */
bool flue_labels_add_attribute(struct flue_series_labels *labels,
                               const struct flue_labels_config *config, struct flue_arena *arena,
                               const struct flue_attribute *attribute);
/* Puts service_name in where it is missing, applies the limits, sorts. */
bool flue_labels_finish(struct flue_series_labels *labels, const struct flue_labels_config *config,
                        const struct flue_label_limits *limits, struct flue_arena *arena);
/* Labels that nothing leaves out: "__*" and service_name. */
bool flue_label_stays(struct flue_bytes name);
/* Of a label in the order above: 0 for those that stay, SIZE_MAX for those that nobody names. */
size_t flue_label_rank(const struct flue_labels_config *config, struct flue_bytes name);

#endif
