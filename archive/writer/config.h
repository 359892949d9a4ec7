/* config.h: what the exporters of archives (object stores, files) tell their shared writer. */
#ifndef FLUE_ARCHIVE_CONFIG_H
#define FLUE_ARCHIVE_CONFIG_H

#include "archive/object/object.h"

enum flue_archive_layout {
    FLUE_LAYOUT_OTLP_JSON,  /* the Collector's: one message per object */
    FLUE_LAYOUT_OTLP_PROTO, /* the same */
    FLUE_LAYOUT_PPROF,      /* archive/layout/pprof.h */
    FLUE_LAYOUT_OTLP        /* archive/layout/otlp.h */
};

/* The keys that every exporter of archives has: layout, rollup, writer, compression_level. */
struct flue_rollup_config {
    int64_t max_size, max_age;
};
struct flue_archive_keys {
    int layout; /* 0: what the exporter's own keys say */
    struct flue_rollup_config rollup;
    const char *writer;
    int64_t compression_level;
};
extern const struct flue_field flue_archive_fields[]; /* for FLUE_SQUASH */

struct flue_zone;
struct flue_archive_config {
    enum flue_archive_layout layout;
    const struct flue_object_vendor *vendor;
    const void *store; /* the vendor's configuration */
    /* Configuration of the same store for another bucket; NULL: not possible. In `arena`, which
     * lives as long as the writer. */
    const void *(*store_of)(const void *store, const char *bucket, struct flue_arena *arena);
    const char *prefix;       /* by flue_key_prefix */
    const char *inner_prefix; /* what an attribute's value may take the place of */
    const char *partition_format;
    const struct flue_zone *zone;
    const char *file_prefix, *extension; /* of the Collector's layouts; extension NULL: theirs */
    enum flue_coding compression;
    bool uuidv7, zstd_extension;
    const char *bucket_attribute, *prefix_attribute; /* NULL: none */
    const char *writer;                              /* NULL: host name and storage */
    int64_t level;                                   /* of zstd, layout otlp */
    struct flue_rollup_config rollup;
    unsigned put_attempts;   /* of one request within an attempt */
    int64_t put_max_backoff; /* ns between them */
};

/* "otlp_json", "otlp_proto" (NULL and "": otlp_json); -1: no message of profiles. */
int flue_archive_message(const char *name);
/* The layout that the keys name, else `message`. */
enum flue_archive_layout flue_archive_layout_of(const struct flue_archive_keys *keys, int message);
/* layout, writer, level and rollup of `out`. */
void flue_archive_apply(const struct flue_archive_keys *keys, int message,
                        struct flue_archive_config *out);
/* For a component's check(): a strftime format and a zone. */
void flue_archive_check_partition(const char *format, const char *format_key, const char *zone,
                                  const char *zone_key, struct flue_check *check);

#endif
