/* labels.h: from attributes to the labels of one series.
 *
 * Names are Pyroscope's (underscores, proto/pprof/names.h) unless `mapping` says another. At most
 * FLUE_SERIES_LABELS in all, counting "__*" and the labels that samples have: the server refuses
 * more. What must go goes from the end of this order, but nothing of its first line:
 *   1. "__*" and service_name   2. `priority`, in its order   3. all others by name
 * Values over 2,048 bytes and names over 1,024 are cut at a character.
 */
#ifndef EXPORTERS_PYROSCOPE_LABELS_H
#define EXPORTERS_PYROSCOPE_LABELS_H

#include "collector/base/payload.h"
#include "config/field.h"
#include "proto/pprof/pprof.h"

#define FLUE_SERIES_LABELS 30

struct flue_labels_config {
    struct flue_map mapping;   /* attribute to label; an empty label drops the attribute */
    struct flue_list drop;     /* attributes, const char * */
    struct flue_list priority; /* labels, const char * */
};
extern const struct flue_field flue_labels_fields[];

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
                        size_t limit, struct flue_arena *arena);
/* Of tenant and labels; equal exactly when those are. */
uint64_t flue_labels_hash(const struct flue_series_labels *labels, struct flue_bytes tenant);
bool flue_labels_equal(const struct flue_series_labels *a, const struct flue_series_labels *b);

#endif
