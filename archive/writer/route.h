/* route.h: where a profile goes: the folder of its tenant and time, and what attributes of its
 * resource say about bucket and prefix. A function of configuration and profile alone, so that a
 * record read again after a crash goes where it went before.
 */
#ifndef FLUE_ARCHIVE_ROUTE_H
#define FLUE_ARCHIVE_ROUTE_H

#include "archive/writer/config.h"
#include "collector/base/arena.h"
#include "collector/pipeline/batch.h"

struct flue_place {
    struct flue_bytes bucket; /* of an attribute; empty: the configured one */
    struct flue_bytes folder; /* with '/' behind it, or empty */
};
static inline bool flue_place_equal(const struct flue_place *a, const struct flue_place *b)
{
    return flue_bytes_equal(a->folder, b->folder) && flue_bytes_equal(a->bucket, b->bucket);
}

struct flue_routed {
    struct flue_place place;
    uint64_t min_ns, max_ns; /* of the profiles that went there */
    uint64_t profiles, samples;
};
/* Routes of one batch. At most FLUE_ROUTES_MAX different places: what would be more goes to the
 * first ("home"). */
#define FLUE_ROUTES_MAX 64
struct flue_routes {
    const struct flue_archive_config *config;
    const struct flue_origin *origin;
    struct flue_arena arena; /* 1 MiB at most */
    struct flue_routed *items;
    size_t count, room;
    /* The last one looked up. */
    size_t last_resource, last;
    uint64_t last_second;
    bool valid, failed;
};
void flue_routes_init(struct flue_routes *routes, const struct flue_archive_config *config,
                      const struct flue_origin *origin);
void flue_routes_destroy(struct flue_routes *routes);
/* The row for a profile of this resource and time (flue_key_time); SIZE_MAX without memory. With
 * `fixed` rows are only looked for: SIZE_MAX where it is none of them. */
size_t flue_route(struct flue_routes *routes, const struct flue_payload *payload, size_t resource,
                  uint64_t time_ns, bool fixed);
/* Routes every profile of a payload of either form. */
enum flue_code flue_routes_fill(struct flue_routes *routes, const struct flue_payload *payload,
                                struct flue_error *error);

/* A time by strftime's format in a zone (NULL or "": local time). False: over `size`. */
struct flue_zone;
bool flue_partition_format(const char *format, const struct flue_zone *zone, uint64_t time_ns,
                           char *out, size_t size);
/* "Local", "UTC" or a name of the tz database. NULL zone for local time. Main thread. */
enum flue_code flue_zone_load(const char *name, struct flue_zone **out, struct flue_error *error);
void flue_zone_destroy(struct flue_zone *zone);

#endif
