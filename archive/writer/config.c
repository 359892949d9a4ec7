/* config.c: see config.h. */
#include "archive/writer/config.h"
#include "archive/writer/route.h"

static const char *const layouts[] = {"", "otlp_json", "otlp_proto", "pprof", "otlp", NULL};

static const struct flue_field rollup_fields[] = {
    FLUE_SIZE(struct flue_rollup_config, max_size, .def = "64MiB", .minimum = 64 << 10,
              .maximum = (int64_t)256 << 20, .unit = "bytes",
              .help = "compressed size at which an object is closed"),
    FLUE_DURATION(struct flue_rollup_config, max_age, .def = "5m", .minimum = 1000000000,
                  .maximum = (int64_t)3600 * 1000000000,
                  .help = "how long the first profile of an object waits for others"),
    FLUE_FIELDS_END};

const struct flue_field flue_archive_fields[] = {
    FLUE_ENUM(struct flue_archive_keys, layout, .choices = layouts,
              .help = "pprof: an object for every profile; otlp: many profiles in one object with "
                      "an index (flue fetch reads both); otlp_json, otlp_proto: one message per "
                      "object, as the Collector has it"),
    FLUE_BLOCK(struct flue_archive_keys, rollup, struct flue_rollup_config, rollup_fields,
               .help = "layout otlp: how much goes into one object; needs sending_queue.storage, "
                       "without it there is one object per request"),
    FLUE_STRING(struct flue_archive_keys, writer,
                .help = "layout otlp: name of this instance in keys, stable and its own; default: "
                        "host name and exporter"),
    FLUE_INT(struct flue_archive_keys, compression_level, .def = "3", .minimum = 1, .maximum = 19,
             .help = "layout otlp: level of zstd"),
    FLUE_FIELDS_END};

int flue_archive_message(const char *name)
{
    if (!name || !*name || strcmp(name, "otlp_json") == 0)
        return FLUE_LAYOUT_OTLP_JSON;
    return strcmp(name, "otlp_proto") == 0 ? FLUE_LAYOUT_OTLP_PROTO : -1;
}

enum flue_archive_layout flue_archive_layout_of(const struct flue_archive_keys *keys, int message)
{
    static const enum flue_archive_layout of[] = {FLUE_LAYOUT_OTLP_JSON, FLUE_LAYOUT_OTLP_JSON,
                                                  FLUE_LAYOUT_OTLP_PROTO, FLUE_LAYOUT_PPROF,
                                                  FLUE_LAYOUT_OTLP};
    if (keys->layout)
        return of[keys->layout];
    return message == FLUE_LAYOUT_OTLP_PROTO ? FLUE_LAYOUT_OTLP_PROTO : FLUE_LAYOUT_OTLP_JSON;
}

void flue_archive_apply(const struct flue_archive_keys *keys, int message,
                        struct flue_archive_config *out)
{
    out->layout = flue_archive_layout_of(keys, message);
    out->writer = keys->writer;
    out->level = keys->compression_level;
    out->rollup = keys->rollup;
}

void flue_archive_check_partition(const char *format, const char *format_key, const char *zone,
                                  const char *zone_key, struct flue_check *check)
{
    struct flue_zone *loaded = NULL;
    struct flue_error error;
    char folder[256];

    if (flue_zone_load(zone, &loaded, &error)) {
        flue_check_fail(check, zone_key, "%s", error.text);
        return;
    }
    if (!flue_partition_format(format, loaded, 1000000000, folder, sizeof folder))
        flue_check_fail(check, format_key, "gives an empty folder, or one of over %zu bytes",
                        sizeof folder - 1);
    else if (*folder == '/' || strstr(folder, "//") || strstr(folder, ".."))
        flue_check_fail(check, format_key,
                        "gives the folder \"%.100s\": no \"..\", no empty part, no \"/\" first",
                        folder);
    flue_zone_destroy(loaded);
}
