/* config.h: the keys of the processor `cdn`. */
#ifndef FLUE_CDN_CONFIG_H
#define FLUE_CDN_CONFIG_H

#include "config/field.h"
#include "processors/cdn/header.h"
#include "processors/cdn/host_pattern.h"

enum flue_cdn_source {
    FLUE_CDN_ATTRIBUTES, /* what the resource has already */
    FLUE_CDN_HEADERS,
    FLUE_CDN_NODE_LABELS,
    FLUE_CDN_NETWORKS,
    FLUE_CDN_DATABASES,
    FLUE_CDN_HOST,
    FLUE_CDN_CLOUD_REGION,
    FLUE_CDN_POPS,
    FLUE_CDN_SOURCES
};
extern const char *const flue_cdn_source_names[];

struct flue_cdn_header {
    const char *name;
    int format; /* enum flue_header_format */
    const char *attribute;
};
struct flue_cdn_node_label {
    const char *label, *attribute;
};
struct flue_cdn_file {
    const char *path;
    const char *vrf;
    struct flue_map set;
};
struct flue_cdn_pattern {
    const char *host, *dictionary;
    struct flue_map set;
};
struct flue_cdn_dictionary {
    const char *name;
    struct flue_map codes;
};
struct flue_cdn_cloud_region {
    const char *cloud_provider, *cloud_region, *cdn_region;
};
struct flue_cdn_pop {
    const char *pop, *provider;
    struct flue_map set;
};
struct flue_cdn_config {
    struct flue_list sources; /* const char * */
    bool override;
    struct flue_list locked; /* const char * */
    struct flue_list trusted_peers, relays; /* const char *, prefixes */
    bool forwarded_for;
    struct flue_list address_attributes, host_attributes; /* const char * */
    struct flue_list headers, node_labels, networks, databases, patterns, dictionaries,
        cloud_regions, pops;
    int64_t reload_interval, max_prefixes, max_file_size;
};
extern const struct flue_field flue_cdn_fields[];
void flue_cdn_check(const void *config, struct flue_check *check);

/* After a good check: the order, each source at most once. Returns how many. */
size_t flue_cdn_order(const struct flue_cdn_config *config,
                      enum flue_cdn_source out[FLUE_CDN_SOURCES]);

#endif
