/* attributes.h: the resource of a pushed profile, from its query string and named headers. */
#ifndef RECEIVERS_PPROF_ATTRIBUTES_H
#define RECEIVERS_PPROF_ATTRIBUTES_H

#include "collector/net/server.h"
#include "proto/pprof/pprof.h"

#define FLUE_PPROF_MAX_ATTRIBUTES 64

/* Every query parameter is an attribute ("?service.name=encoder&pop=ams1"), then every header that
 * `headers` (lower-case name to attribute) lists, unless the query had the attribute. Strings are
 * borrowed or in the request's arena. "__name__" names the profile. FLUE_INVALID: a parameter
 * without name, twice, not UTF-8, another "__" name, or more than FLUE_PPROF_MAX_ATTRIBUTES. */
struct flue_pprof_attributes {
    struct flue_pprof_label items[FLUE_PPROF_MAX_ATTRIBUTES]; /* names of OpenTelemetry */
    size_t count;
    struct flue_bytes name; /* __name__, or empty */
};
enum flue_code flue_pprof_attributes_read(struct flue_bytes query, const struct flue_map *headers,
                                          const struct flue_header *given, size_t given_count,
                                          struct flue_arena *arena,
                                          struct flue_pprof_attributes *out,
                                          struct flue_error *error);

#endif
