/* route.c: see route.h. */
#include "archive/writer/route.h"
#include <stdio.h>
#include <time.h>
#include "archive/layout/key.h"
#include "archive/writer/zone.h"
#include "proto/otlp/index.h"
#include "proto/pprof/pprof.h"

#define ROUTES_BUDGET (1u << 20)
#define SECOND        1000000000u

void flue_routes_init(struct flue_routes *routes, const struct flue_archive_config *config,
                      const struct flue_origin *origin)
{
    memset(routes, 0, sizeof *routes);
    routes->config = config;
    routes->origin = origin;
    flue_arena_init(&routes->arena, ROUTES_BUDGET, 0);
}

void flue_routes_destroy(struct flue_routes *routes)
{
    flue_arena_destroy(&routes->arena);
}

bool flue_partition_format(const char *format, const struct flue_zone *zone, uint64_t time_ns,
                           char *out, size_t size)
{
    time_t seconds = (time_t)(time_ns / SECOND);
    struct tm when;

    if (!format || !*format) {
        *out = 0;
        return true;
    }
    if (!flue_zone_time(zone, seconds, &when))
        return false;
        /* No literal here: the format is the operator's, and only strftime reads it. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return strftime(out, size, format, &when) > 0;
#pragma GCC diagnostic pop
}

static struct flue_bytes attribute(const struct flue_payload *payload, size_t resource,
                                   const char *key)
{
    struct flue_value value;

    if (!key || !payload->ops->attribute_get(payload, resource, flue_bytes_of(key), &value) ||
        value.type != FLUE_VALUE_STRING)
        return flue_bytes(NULL, 0);
    return value.text;
}

/* The attribute's value as a prefix: its parts escaped one by one. False: too long. */
static bool attribute_prefix(struct flue_bytes value, char *out, size_t size)
{
    size_t at = 0;

    while (value.size) {
        char element[FLUE_KEY_ELEMENT_ROOM];
        size_t slash = flue_bytes_find(value, '/');
        struct flue_bytes part = flue_bytes_first(value, slash);
        if (part.size) {
            size_t length = flue_key_element(part, element);
            if (at + length + 2 > size)
                return false;
            memcpy(out + at, element, length);
            at += length;
            out[at++] = '/';
        }
        value = slash == SIZE_MAX ? flue_bytes(NULL, 0) : flue_bytes_from(value, slash + 1);
    }
    out[at] = 0;
    return true;
}

static bool write_folder(struct flue_routes *routes, const char *inner, uint64_t time_ns, char *out,
                         size_t size)
{
    const struct flue_archive_config *config = routes->config;
    char time[256], tenant[FLUE_KEY_ELEMENT_ROOM];
    time_t seconds = (time_t)(time_ns / SECOND);
    struct tm utc;

    if (config->layout == FLUE_LAYOUT_OTLP) {
        struct flue_bytes name = routes->origin->tenant;
        flue_key_element(name.size ? name : FLUE_BYTES(FLUE_TENANT_NONE), tenant);
        return gmtime_r(&seconds, &utc) &&
               (size_t)snprintf(out, size, "%s%sv1/tenant=%s/dt=%04d-%02d-%02d/hour=%02d/",
                                config->prefix, inner, tenant, utc.tm_year + 1900, utc.tm_mon + 1,
                                utc.tm_mday, utc.tm_hour) < size;
    }
    if (!flue_partition_format(config->partition_format, config->zone, time_ns, time, sizeof time))
        return false;
    return (size_t)snprintf(out, size, "%s%s%s%s", config->prefix, inner, time, *time ? "/" : "") <
           size;
}

static size_t find(const struct flue_routes *routes, const struct flue_place *place)
{
    for (size_t i = 0; i < routes->count; i++)
        if (flue_place_equal(&routes->items[i].place, place))
            return i;
    return SIZE_MAX;
}

static size_t look_up(struct flue_routes *routes, const struct flue_payload *payload,
                      size_t resource, uint64_t time_ns, bool fixed)
{
    const struct flue_archive_config *config = routes->config;
    char inner[512], folder[900];
    struct flue_routed routed = {0};
    struct flue_bytes value = attribute(payload, resource, config->prefix_attribute);
    size_t row;

    snprintf(inner, sizeof inner, "%s", config->inner_prefix ? config->inner_prefix : "");
    if (value.size && !attribute_prefix(value, inner, sizeof inner))
        snprintf(inner, sizeof inner, "%s", config->inner_prefix ? config->inner_prefix : "");
    if (!write_folder(routes, inner, time_ns, folder, sizeof folder))
        snprintf(folder, sizeof folder, "%s", config->prefix);
    routed.place.bucket = attribute(payload, resource, config->bucket_attribute);
    routed.place.folder = flue_bytes_of(folder);
    row = find(routes, &routed.place);
    if (row != SIZE_MAX || fixed)
        return row;
    if (routes->count == FLUE_ROUTES_MAX)
        return 0;
    routed.place.folder = flue_arena_copy(&routes->arena, routed.place.folder);
    if (routed.place.bucket.size)
        routed.place.bucket = flue_arena_copy(&routes->arena, routed.place.bucket);
    if (!routed.place.folder.data ||
        !FLUE_ARENA_PUSH(&routes->arena, routes->items, routes->count, routes->room, routed)) {
        routes->failed = true;
        return routes->count ? 0 : SIZE_MAX;
    }
    return routes->count - 1;
}

size_t flue_route(struct flue_routes *routes, const struct flue_payload *payload, size_t resource,
                  uint64_t time_ns, bool fixed)
{
    uint64_t second = time_ns / SECOND;

    if (routes->valid && routes->last_resource == resource && routes->last_second == second)
        return routes->last;
    size_t row = look_up(routes, payload, resource, time_ns, fixed);
    routes->valid = row != SIZE_MAX || fixed;
    routes->last_resource = resource;
    routes->last_second = second;
    routes->last = row;
    return row;
}

struct filling {
    struct flue_routes *routes;
    const struct flue_payload *payload;
    bool failed;
};

static bool fill_one(struct filling *filling, size_t resource, uint64_t own_ns, uint64_t samples)
{
    uint64_t time = flue_key_time(own_ns, filling->routes->origin->received_ns);
    size_t row = flue_route(filling->routes, filling->payload, resource, time, false);

    if (row == SIZE_MAX) {
        filling->failed = true;
        return false;
    }
    struct flue_routed *routed = &filling->routes->items[row];
    if (!routed->min_ns || time < routed->min_ns)
        routed->min_ns = time;
    if (time > routed->max_ns)
        routed->max_ns = time;
    routed->profiles++;
    routed->samples += samples;
    return true;
}

static bool fill_otlp(void *arg, const struct flue_otlp_profile *profile)
{
    struct filling *filling = arg;
    struct flue_otlp_profile_fields fields;

    flue_otlp_profile_read(filling->payload, profile->profile, &fields);
    return fill_one(filling, profile->resource, fields.time_unix_nano, profile->samples);
}

/* A profile whose envelope alone was checked has no facts yet. */
static int64_t pprof_time(const struct flue_pprof_profile *profile)
{
    static const struct flue_pprof_limits limits = {256u << 20, 1000};
    struct flue_pprof_facts facts;

    if (profile->facts.inflated_size ||
        flue_pprof_check(profile->bytes, &limits, &facts, NULL) != FLUE_OK)
        return profile->facts.time_nanos;
    return facts.time_nanos;
}

enum flue_code flue_routes_fill(struct flue_routes *routes, const struct flue_payload *payload,
                                struct flue_error *error)
{
    struct filling filling = {routes, payload, false};

    if (payload->ops->form == FLUE_FORM_OTLP) {
        flue_otlp_each_profile(payload, fill_otlp, &filling);
    } else {
        for (size_t i = 0; i < flue_pprof_series_count(payload); i++) {
            const struct flue_pprof_series *series = flue_pprof_series_at(payload, i);
            for (size_t k = 0; series && k < series->profile_count; k++)
                if (!fill_one(&filling, i, (uint64_t)pprof_time(&series->profiles[k]),
                              series->profiles[k].facts.samples))
                    break;
        }
    }
    routes->valid = false;
    if (filling.failed)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to name the objects of a request");
    return FLUE_OK;
}
