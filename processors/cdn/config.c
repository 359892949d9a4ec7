/* config.c: keys, and what bounds cannot say of them. */
#include "processors/cdn/config.h"

#include <stdio.h>

const char *const flue_cdn_source_names[] = {"attributes", "headers", "node_labels",  "networks",
                                             "databases",  "host",    "cloud_region", "pops",
                                             NULL};

static const struct flue_field header_fields[] = {
    FLUE_STRING(struct flue_cdn_header, name, .required = true,
                .help = "the header; the receiver needs include_metadata: true"),
    FLUE_ENUM(struct flue_cdn_header, format, .choices = flue_header_formats,
              .help = "the grammar of its value; `value`: the whole of it is the attribute"),
    FLUE_STRING(struct flue_cdn_header, attribute,
                .help = "with format value: what it says, as cdn.pop"),
    FLUE_FIELDS_END};
static const struct flue_field node_label_fields[] = {
    FLUE_STRING(struct flue_cdn_node_label, label, .required = true,
                .help = "read from the attribute k8s.node.label.LABEL"),
    FLUE_STRING(struct flue_cdn_node_label, attribute, .required = true,
                .help = "what it says, as cdn.region"),
    FLUE_FIELDS_END};
static const struct flue_field file_fields[] = {
    FLUE_STRING(struct flue_cdn_file, path, .required = true,
                .help = "a table of networks in any of the forms that `flue cdn import` reads, or a "
                        "MaxMind-format database"),
    FLUE_STRING(struct flue_cdn_file, vrf,
                .help = "NetBox's CSV: the VRF whose prefixes count; without it those of none"),
    FLUE_MAP(struct flue_cdn_file, set,
             .help = "attributes that every entry has which does not say otherwise"),
    FLUE_FIELDS_END};
static const struct flue_field pattern_fields[] = {
    FLUE_STRING(struct flue_cdn_pattern, host, .required = true,
                .help = "as edge-{pop:alpha3}{site:digits?}-{node}.{region}.cdn.example.net"),
    FLUE_STRING(struct flue_cdn_pattern, dictionary,
                .help = "the code that {pop} finds must stand in it, else the pattern does not "
                        "match; what it stands for is the PoP"),
    FLUE_MAP(struct flue_cdn_pattern, set, .help = "attributes of every host that matches"),
    FLUE_FIELDS_END};
static const struct flue_field dictionary_fields[] = {
    FLUE_STRING(struct flue_cdn_dictionary, name, .required = true,
                .help = "of a provider or a company: one code means different places to two"),
    FLUE_MAP(struct flue_cdn_dictionary, codes, .help = "code: PoP"), FLUE_FIELDS_END};
static const struct flue_field cloud_region_fields[] = {
    FLUE_STRING(struct flue_cdn_cloud_region, cloud_provider,
                .help = "value of cloud.provider; without it any"),
    FLUE_STRING(struct flue_cdn_cloud_region, cloud_region, .required = true,
                .help = "value of cloud.region"),
    FLUE_STRING(struct flue_cdn_cloud_region, cdn_region, .required = true,
                .help = "the cdn.region it belongs to"),
    FLUE_FIELDS_END};
static const struct flue_field pop_fields[] = {
    FLUE_STRING(struct flue_cdn_pop, pop, .required = true, .help = "value of cdn.pop"),
    FLUE_STRING(struct flue_cdn_pop, provider,
                .help = "value of cdn.provider; without it any, also none"),
    FLUE_MAP(struct flue_cdn_pop, set,
             .help = "facts of the site: cdn.region, cdn.site, cdn.tier, cdn.asn, geo.*"),
    FLUE_FIELDS_END};

const struct flue_field flue_cdn_fields[] = {
    FLUE_STRINGS(struct flue_cdn_config, sources,
                 .def = "[attributes, headers, node_labels, networks, databases, host, "
                        "cloud_region, pops]",
                 .help = "where to look, for each attribute: the first that knows wins; pops adds "
                         "facts to the PoP that was found"),
    FLUE_BOOL(struct flue_cdn_config, override,
              .help = "what is found takes the place of what the resource says already"),
    FLUE_STRINGS(struct flue_cdn_config, locked,
                 .help = "attributes that a sender cannot set: theirs are replaced or removed"),
    FLUE_STRINGS(struct flue_cdn_config, trusted_peers,
                 .help = "networks of senders whose headers are believed; none: nobody's"),
    FLUE_STRINGS(struct flue_cdn_config, relays,
                 .help = "networks of senders that pass on what others have sent (gateways, "
                         "balancers): their address and headers say nothing about the place"),
    FLUE_BOOL(struct flue_cdn_config, forwarded_for,
              .help = "the address behind trusted peers is read from X-Forwarded-For, from the "
                      "right"),
    FLUE_STRINGS(struct flue_cdn_config, address_attributes, .def = "[host.ip]",
                 .help = "attributes of the resource that hold the machine's address; tried before "
                         "the sender's"),
    FLUE_STRINGS(struct flue_cdn_config, host_attributes, .def = "[host.name, k8s.node.name]",
                 .help = "attributes of the resource that hold the machine's name"),
    FLUE_LIST(struct flue_cdn_config, headers, struct flue_cdn_header, header_fields,
              .help = "headers of trusted peers that name a place"),
    FLUE_LIST(struct flue_cdn_config, node_labels, struct flue_cdn_node_label, node_label_fields,
              .help = "labels of the Kubernetes node"),
    FLUE_LIST(struct flue_cdn_config, networks, struct flue_cdn_file, file_fields,
              .help = "tables of networks; the longest prefix of a table wins, and the first table "
                      "that knows"),
    FLUE_LIST(struct flue_cdn_config, databases, struct flue_cdn_file, file_fields,
              .help = "the same for databases of others, which are asked later"),
    FLUE_LIST(struct flue_cdn_config, patterns, struct flue_cdn_pattern, pattern_fields,
              .help = "forms of host names; two that match with different results give nothing"),
    FLUE_LIST(struct flue_cdn_config, dictionaries, struct flue_cdn_dictionary, dictionary_fields,
              .help = "codes in host names"),
    FLUE_LIST(struct flue_cdn_config, cloud_regions, struct flue_cdn_cloud_region,
              cloud_region_fields, .help = "from regions of a cloud to regions of the CDN"),
    FLUE_LIST(struct flue_cdn_config, pops, struct flue_cdn_pop, pop_fields,
              .help = "facts of points of presence"),
    FLUE_DURATION(struct flue_cdn_config, reload_interval, .def = "30s",
                  .minimum = 100000000, .maximum = 86400000000000,
                  .help = "how often files are looked at; a changed one is read whole and swapped"),
    FLUE_INT(struct flue_cdn_config, max_prefixes, .def = "1048576", .minimum = 1,
             .maximum = 1 << 24, .help = "prefixes of one file"),
    FLUE_SIZE(struct flue_cdn_config, max_file_size, .def = "256MiB", .minimum = 1024,
              .maximum = (int64_t)1 << 32, .help = "bytes of one file"),
    FLUE_FIELDS_END};

/* ---- check ----------------------------------------------------------------------------------- */

#define FOR_EACH(type, item, list)                                                                 \
    for (type *item = (type *)(list).items,                                                        \
              *item##_end = (type *)(list).items + (list).count;                                   \
         item < item##_end; item++)
#define PATH(out, ...) (void)snprintf(out, sizeof(out), __VA_ARGS__)

static void check_attribute(const char *name, const char *path, struct flue_check *check)
{
    if (flue_place_attribute_find(flue_bytes_of(name)) >= FLUE_PLACE_WRITTEN)
        flue_check_fail(check, path,
                        "there is no attribute \"%s\"; cdn.provider, cdn.region, cdn.pop, cdn.site, "
                        "cdn.tier, cdn.asn, geo.continent.code, geo.country.iso_code, "
                        "geo.region.iso_code, geo.locality.name, geo.location.lat, "
                        "geo.location.lon and geo.postal_code are",
                        name);
}

static void check_set(const struct flue_map *set, const char *path, struct flue_check *check)
{
    char text[FLUE_PLACE_VALUE_MAX], where[160];
    size_t size;
    for (size_t i = 0; i < set->count; i++) {
        const struct flue_map_entry *entry = &set->items[i];
        enum flue_place_attribute attribute = flue_place_attribute_find(flue_bytes_of(entry->key));
        PATH(where, "%s.%s", path, entry->key);
        if (attribute >= FLUE_PLACE_WRITTEN)
            check_attribute(entry->key, where, check);
        else if (!flue_place_normalize(attribute, flue_bytes_of(entry->value), text, &size))
            flue_check_fail(check, where, "\"%s\" cannot be a %.*s", entry->value,
                            FLUE_PRI(flue_place_attribute_name(attribute)));
    }
}

static void check_networks(const struct flue_list *list, const char *key, struct flue_check *check)
{
    for (size_t i = 0; i < list->count; i++) {
        const char *text = ((const char *const *)list->items)[i];
        struct flue_prefix prefix;
        char path[64];
        bool masked;
        if (flue_prefix_parse(flue_bytes_of(text), &prefix, &masked))
            continue;
        PATH(path, "%s[%zu]", key, i);
        flue_check_fail(check, path, "\"%s\" is no network, as 10.0.0.0/8 is", text);
    }
}

static void check_sources(const struct flue_cdn_config *config, struct flue_check *check)
{
    unsigned seen = 0;
    for (size_t i = 0; i < config->sources.count; i++) {
        const char *name = ((const char *const *)config->sources.items)[i];
        char path[64];
        int source = 0;
        PATH(path, "sources[%zu]", i);
        while (flue_cdn_source_names[source] && strcmp(flue_cdn_source_names[source], name) != 0)
            source++;
        if (!flue_cdn_source_names[source])
            flue_check_fail(check, path,
                            "there is no source \"%s\"; attributes, headers, node_labels, networks, "
                            "databases, host, cloud_region and pops are",
                            name);
        else if (seen & 1u << source)
            flue_check_fail(check, path, "\"%s\" stands there twice", name);
        seen |= 1u << source;
    }
    if (config->headers.count && !config->trusted_peers.count)
        flue_check_warn(check, "headers", "trusted_peers is empty, so no header is ever believed");
}

static void check_patterns(const struct flue_cdn_config *config, struct flue_check *check)
{
    char path[96];
    size_t i = 0;
    FOR_EACH (const struct flue_cdn_pattern, pattern, config->patterns) {
        struct flue_host_pattern compiled;
        struct flue_error error;
        bool found = !pattern->dictionary;
        PATH(path, "patterns[%zu].host", i);
        if (flue_host_pattern_compile(pattern->host, &compiled, &error) != FLUE_OK)
            flue_check_fail(check, path, "%s", error.text);
        FOR_EACH (const struct flue_cdn_dictionary, dictionary, config->dictionaries)
            found |= pattern->dictionary && strcmp(dictionary->name, pattern->dictionary) == 0;
        PATH(path, "patterns[%zu].dictionary", i);
        if (!found)
            flue_check_fail(check, path, "there is no dictionary \"%s\"", pattern->dictionary);
        PATH(path, "patterns[%zu].set", i++);
        check_set(&pattern->set, path, check);
    }
}

void flue_cdn_check(const void *of, struct flue_check *check)
{
    const struct flue_cdn_config *config = of;
    char path[96];
    size_t i;

    check_sources(config, check);
    check_networks(&config->trusted_peers, "trusted_peers", check);
    check_networks(&config->relays, "relays", check);
    for (i = 0; i < config->locked.count; i++) {
        PATH(path, "locked[%zu]", i);
        check_attribute(((const char *const *)config->locked.items)[i], path, check);
    }
    i = 0;
    FOR_EACH (const struct flue_cdn_header, header, config->headers) {
        PATH(path, "headers[%zu].attribute", i++);
        if (header->format == FLUE_HEADER_VALUE && !header->attribute)
            flue_check_fail(check, path, "format value needs the attribute that the header names");
        else if (header->attribute)
            check_attribute(header->attribute, path, check);
    }
    i = 0;
    FOR_EACH (const struct flue_cdn_node_label, label, config->node_labels) {
        PATH(path, "node_labels[%zu].attribute", i++);
        check_attribute(label->attribute, path, check);
    }
    const struct flue_list *files[] = {&config->networks, &config->databases};
    for (unsigned list = 0; list < 2; list++) {
        i = 0;
        FOR_EACH (const struct flue_cdn_file, file, *files[list]) {
            PATH(path, "%s[%zu].set", list ? "databases" : "networks", i++);
            check_set(&file->set, path, check);
        }
    }
    check_patterns(config, check);
    i = 0;
    FOR_EACH (const struct flue_cdn_pop, pop, config->pops) {
        PATH(path, "pops[%zu].set", i++);
        check_set(&pop->set, path, check);
    }
}

size_t flue_cdn_order(const struct flue_cdn_config *config,
                      enum flue_cdn_source out[FLUE_CDN_SOURCES])
{
    size_t count = 0;
    for (size_t i = 0; i < config->sources.count && count < FLUE_CDN_SOURCES; i++)
        for (int source = 0; flue_cdn_source_names[source]; source++)
            if (strcmp(flue_cdn_source_names[source],
                       ((const char *const *)config->sources.items)[i]) == 0)
                out[count++] = (enum flue_cdn_source)source;
    return count;
}
