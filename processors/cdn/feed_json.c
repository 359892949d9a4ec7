/* feed_json.c: the range files that clouds and CDNs publish, Apache Traffic Control's files, CDNI
 * footprints (RFC 8006, 9388). The keys at the top tell which one it is.
 *
 * What a file does not say is not made up: CloudFront's region is "GLOBAL", Fastly's and
 * Cloudflare's lists name no place at all, and a service tag without a region has none.
 */
#include <jansson.h>
#include <stdio.h>

#include "processors/cdn/feed.h"

#define JSON_FILE_MAX (64u << 20)

struct reader {
    struct flue_feed *feed;
    struct flue_error *error;
    bool ok;
};

static struct flue_bytes text_of(const json_t *value)
{
    return json_is_string(value) ? flue_bytes(json_string_value(value), json_string_length(value))
                                 : flue_bytes(NULL, 0);
}

static struct flue_bytes text_at(const json_t *object, const char *key)
{
    return text_of(json_object_get(object, key));
}

struct said {
    enum flue_place_attribute attribute;
    struct flue_bytes value;
};

/* One prefix with what is said of it. Line 0: JSON has none. */
static void add(struct reader *r, struct flue_bytes prefix, const struct said *said, size_t count)
{
    struct flue_feed_entry entry;
    if (!r->ok || prefix.size == 0)
        return;
    flue_feed_begin(r->feed, &entry);
    for (size_t i = 0; i < count; i++)
        flue_feed_set(r->feed, &entry, 0, said[i].attribute, said[i].value);
    r->ok = flue_feed_add(r->feed, &entry, prefix, 0, r->error);
}

static void add_all(struct reader *r, const json_t *array, const struct said *said, size_t count)
{
    size_t i;
    json_t *item;
    json_array_foreach (array, i, item)
        add(r, text_of(item), said, count);
}

/* ---- AWS ------------------------------------------------------------------------------------- */

/* A prefix stands there as AMAZON and again under its service: the specific one is read; AMAZON
 * only where no other has the same prefix. */
static void aws_list(struct reader *r, const json_t *list, const char *key, json_t *specific)
{
    for (int pass = 0; pass < 2; pass++) {
        size_t i;
        json_t *item;
        json_array_foreach (list, i, item) {
            struct flue_bytes prefix = text_at(item, key), region = text_at(item, "region"),
                              group = text_at(item, "network_border_group");
            const char *name = json_string_value(json_object_get(item, key));
            bool amazon = flue_bytes_is(text_at(item, "service"), "AMAZON");
            if (!name || amazon != (pass == 1) || json_object_get(specific, name))
                continue;
            (void)json_object_set_new(specific, name, json_true());
            bool global = flue_bytes_is(region, "GLOBAL");
            bool cdn = flue_bytes_is(text_at(item, "service"), "CLOUDFRONT");
            const struct said said[] = {
                {FLUE_PLACE_PROVIDER, cdn ? FLUE_BYTES("cloudfront") : flue_bytes(NULL, 0)},
                {FLUE_PLACE_CLOUD_PROVIDER, FLUE_BYTES("aws")},
                {FLUE_PLACE_CLOUD_REGION, global ? flue_bytes(NULL, 0) : group.size ? group : region}};
            add(r, prefix, said, 3);
        }
    }
}

static void aws(struct reader *r, const json_t *root)
{
    json_t *specific = json_object();
    if (!specific)
        return;
    aws_list(r, json_object_get(root, "prefixes"), "ip_prefix", specific);
    aws_list(r, json_object_get(root, "ipv6_prefixes"), "ipv6_prefix", specific);
    json_decref(specific);
}

/* ---- Google, Azure, Fastly, Cloudflare ------------------------------------------------------- */

static void google(struct reader *r, const json_t *root)
{
    size_t i;
    json_t *item;
    json_array_foreach (json_object_get(root, "prefixes"), i, item) {
        const struct said said[] = {{FLUE_PLACE_CLOUD_PROVIDER, FLUE_BYTES("gcp")},
                                    {FLUE_PLACE_CLOUD_REGION, text_at(item, "scope")}};
        add(r, text_at(item, "ipv4Prefix"), said, 2);
        add(r, text_at(item, "ipv6Prefix"), said, 2);
    }
}

/* A prefix sits in many tags. One that says a region says more than one that does not, and Front
 * Door's says whose it is; tags of equal weight agree or are in dispute. */
static void azure(struct reader *r, const json_t *root)
{
    json_t *seen = json_object(), *tag;
    for (int pass = 0; seen && pass < 3; pass++) {
        size_t i, j;
        json_array_foreach (json_object_get(root, "values"), i, tag) {
            const json_t *properties = json_object_get(tag, "properties");
            struct flue_bytes region = text_at(properties, "region"), name = text_at(tag, "name");
            bool front_door = flue_bytes_starts_with(name, FLUE_BYTES("AzureFrontDoor"));
            int weight = front_door ? 0 : region.size ? 1 : 2;
            const struct said said[] = {
                {FLUE_PLACE_PROVIDER, front_door ? FLUE_BYTES("azure_front_door") : flue_bytes(NULL, 0)},
                {FLUE_PLACE_CLOUD_PROVIDER, FLUE_BYTES("azure")},
                {FLUE_PLACE_CLOUD_REGION, region}};
            json_t *prefix;
            if (weight != pass)
                continue;
            json_array_foreach (json_object_get(properties, "addressPrefixes"), j, prefix) {
                const char *key = json_string_value(prefix);
                json_t *before = key ? json_object_get(seen, key) : NULL;
                if (!key || (before && json_integer_value(before) < pass))
                    continue;
                (void)json_object_set_new(seen, key, json_integer(pass));
                add(r, text_of(prefix), said, 3);
            }
        }
    }
    json_decref(seen);
}

static void list_of(struct reader *r, const char *provider, const json_t *fours, const json_t *sixes)
{
    const struct said said = {FLUE_PLACE_PROVIDER, flue_bytes_of(provider)};
    add_all(r, fours, &said, 1);
    add_all(r, sixes, &said, 1);
}

/* ---- Apache Traffic Control ------------------------------------------------------------------ */

static struct flue_bytes number_text(const json_t *value, char *out, size_t size)
{
    if (json_is_number(value))
        return flue_bytes(out, (size_t)snprintf(out, size, "%.6f", json_number_value(value)));
    return text_of(value);
}

static void coverage_zones(struct reader *r, const json_t *zones)
{
    const char *name;
    json_t *zone;
    json_object_foreach ((json_t *)zones, name, zone) {
        const json_t *at = json_object_get(zone, "coordinates");
        char latitude[32], longitude[32];
        const struct said said[] = {
            {FLUE_PLACE_SITE, flue_bytes_of(name)},
            {FLUE_PLACE_LATITUDE, number_text(json_object_get(at, "latitude"), latitude, 32)},
            {FLUE_PLACE_LONGITUDE, number_text(json_object_get(at, "longitude"), longitude, 32)}};
        add_all(r, json_object_get(zone, "network"), said, 3);
        add_all(r, json_object_get(zone, "network6"), said, 3);
    }
}

/* The servers themselves: address to cache group, its coordinates, and the tier of its type. */
static void crconfig(struct reader *r, const json_t *root)
{
    const char *host;
    json_t *server;
    json_object_foreach (json_object_get(root, "contentServers"), host, server) {
        struct flue_bytes group = text_at(server, "cacheGroup"), type = text_at(server, "type");
        const char *key = json_string_value(json_object_get(server, "cacheGroup"));
        const json_t *at = key ? json_object_get(json_object_get(root, "edgeLocations"), key) : NULL;
        char latitude[32], longitude[32];
        bool edge = flue_bytes_starts_with(type, FLUE_BYTES("EDGE"));
        bool mid = flue_bytes_starts_with(type, FLUE_BYTES("MID"));
        bool origin = flue_bytes_starts_with(type, FLUE_BYTES("ORG"));
        const struct said said[] = {
            {FLUE_PLACE_SITE, group},
            {FLUE_PLACE_TIER, edge     ? FLUE_BYTES("edge")
                              : mid    ? FLUE_BYTES("shield")
                              : origin ? FLUE_BYTES("origin")
                                       : flue_bytes(NULL, 0)},
            {FLUE_PLACE_LATITUDE, number_text(json_object_get(at, "lat"), latitude, 32)},
            {FLUE_PLACE_LONGITUDE, number_text(json_object_get(at, "lon"), longitude, 32)}};
        add(r, text_at(server, "ip"), said, 4);
        /* "2001:db8::5/64" is the server's address in its network, not the network */
        struct flue_bytes six = text_at(server, "ip6");
        size_t slash = flue_bytes_find(six, '/');
        add(r, slash == SIZE_MAX ? six : flue_bytes_first(six, slash), said, 4);
    }
}

/* ---- CDNI footprints ------------------------------------------------------------------------- */

/* A union joins networks with the places that they have in common. */
static void footprint(struct reader *r, const json_t *object)
{
    struct flue_bytes type = text_at(object, "footprint-type");
    const json_t *values = json_object_get(object, "footprint-value"), *parts[2];
    struct said said[2] = {{FLUE_PLACE_COUNTRY, {NULL, 0}}, {FLUE_PLACE_SUBDIVISION, {NULL, 0}}};
    size_t i, networks = 0;
    json_t *item;

    if (flue_bytes_equal_nocase(type, FLUE_BYTES("footprintunion"))) {
        json_array_foreach (values, i, item) {
            struct flue_bytes kind = text_at(item, "footprint-type");
            const json_t *list = json_object_get(item, "footprint-value");
            if (flue_bytes_is(kind, "ipv4cidr") || flue_bytes_is(kind, "ipv6cidr")) {
                if (networks < 2)
                    parts[networks++] = list;
            } else if (json_array_size(list) == 1 && flue_bytes_is(kind, "countrycode")) {
                said[0].value = text_of(json_array_get(list, 0));
            } else if (json_array_size(list) == 1 && flue_bytes_is(kind, "subdivisioncode")) {
                said[1].value = text_of(json_array_get(list, 0));
            }
        }
    } else if (flue_bytes_is(type, "ipv4cidr") || flue_bytes_is(type, "ipv6cidr")) {
        parts[networks++] = values;
    }
    while (networks)
        add_all(r, parts[--networks], said, 2);
}

/* ---- which one ------------------------------------------------------------------------------- */

static void footprints(struct reader *r, const json_t *list)
{
    size_t i;
    json_t *item;
    json_array_foreach (list, i, item)
        footprint(r, item);
}

static const char *read_root(struct reader *r, const json_t *root)
{
    const json_t *prefixes = json_object_get(root, "prefixes"), *inner;

    if (json_is_array(root) && json_object_get(json_array_get(root, 0), "footprint-type")) {
        footprints(r, root);
        return "footprints";
    }
    if (json_is_array(root)) { /* Bunny's edge server list; whose it is comes from `set` */
        add_all(r, root, NULL, 0);
        return "list";
    }
    if (json_object_get(root, "ipv6_prefixes") ||
        json_object_get(json_array_get(prefixes, 0), "ip_prefix")) {
        aws(r, root);
        return "aws";
    }
    if (prefixes) {
        google(r, root);
        return "google";
    }
    if (json_object_get(root, "values") && json_object_get(root, "changeNumber")) {
        azure(r, root);
        return "azure";
    }
    if ((inner = json_object_get(root, "result")) && json_object_get(inner, "ipv4_cidrs")) {
        list_of(r, "cloudflare", json_object_get(inner, "ipv4_cidrs"),
                json_object_get(inner, "ipv6_cidrs"));
        return "cloudflare";
    }
    if (json_object_get(root, "addresses") && json_object_get(root, "ipv6_addresses")) {
        list_of(r, "fastly", json_object_get(root, "addresses"),
                json_object_get(root, "ipv6_addresses"));
        return "fastly";
    }
    if ((inner = json_object_get(root, "coverageZones")) ||
        (inner = json_object_get(root, "deepCoverageZones"))) {
        coverage_zones(r, inner);
        flue_feed_warn(r->feed, 0,
                       "coverage zones say by which cache group clients are served, not where servers "
                       "stand; those are in the CRConfig");
        return "traffic_control_zones";
    }
    if (json_object_get(root, "contentServers")) {
        crconfig(r, root);
        return "traffic_control_config";
    }
    if ((inner = json_object_get(root, "footprints"))) {
        footprints(r, inner);
        return "footprints";
    }
    return NULL;
}

enum flue_code flue_feed_read_json(struct flue_feed *feed, struct flue_bytes content,
                                   struct flue_error *error)
{
    struct flue_error own = {0};
    struct reader r = {feed, &own, true};
    json_error_t problem;

    if (content.size > JSON_FILE_MAX)
        return flue_fail(error, FLUE_TOO_LARGE, "%zu bytes of JSON; at most %u are read",
                         content.size, JSON_FILE_MAX);
    json_t *root = json_loadb((const char *)content.data, content.size, JSON_REJECT_DUPLICATES,
                              &problem);
    if (!root)
        return flue_fail(error, FLUE_INVALID, "line %d, column %d: %s", problem.line,
                         problem.column, problem.text);
    feed->form = read_root(&r, root);
    json_decref(root);
    if (!feed->form)
        return flue_fail(error, FLUE_UNPROCESSABLE,
                         "JSON, but none of the files that are known: AWS, Google, Azure, Fastly, "
                         "Cloudflare, Traffic Control, CDNI footprints");
    if (!r.ok) {
        if (error)
            *error = own;
        return own.code;
    }
    return FLUE_OK;
}
