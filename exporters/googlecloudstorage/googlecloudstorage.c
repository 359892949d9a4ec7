/* googlecloudstorage.c: profiles as objects of Google Cloud Storage; the Collector's keys, and the
 * layouts of flue's archive (archive/writer/writer.h). */
#include "archive/layout/key.h"
#include "archive/object/gcs.h"
#include "archive/writer/route.h"
#include "archive/writer/writer.h"
#include "collector/component.h"
#include "collector/pipeline/exporter.h"

struct partition_config {
    const char *format, *prefix;
};
struct bucket_config {
    struct flue_gcs_config gcs;
    const char *file_prefix;
    struct partition_config partition;
    int compression;
};
struct gcs_config {
    struct bucket_config bucket;
    const char *encoding;
    struct flue_archive_keys archive;
};

static const char *const compressions[] = {"", "none", "gzip", "zstd", NULL};
static const enum flue_coding codings[] = {FLUE_IDENTITY, FLUE_IDENTITY, FLUE_GZIP, FLUE_ZSTD};

static const struct flue_field partition_fields[] = {
    FLUE_STRING(struct partition_config, format,
                .help = "strftime's format of the folder, UTC, of the profile's own time; layouts "
                        "pprof and otlp have folders of their own"),
    FLUE_STRING(struct partition_config, prefix, .help = "before every key"), FLUE_FIELDS_END};
static const struct flue_field bucket_fields[] = {
    FLUE_SQUASH(struct bucket_config, gcs, struct flue_gcs_config, flue_gcs_fields),
    FLUE_STRING(struct bucket_config, file_prefix, .help = "before the name of an object"),
    FLUE_BLOCK(struct bucket_config, partition, struct partition_config, partition_fields,
               .help = "folders"),
    FLUE_ENUM(struct bucket_config, compression, .choices = compressions,
              .help = "of the Collector's layouts"),
    FLUE_IGNORED("project_id", "buckets are not made here, and an existing one needs no project"),
    FLUE_IGNORED("reuse_if_exists", "the bucket must exist; it is always used"),
    FLUE_IGNORED("region", "buckets are not made here"),
    FLUE_FIELDS_END};
static const struct flue_field gcs_fields[] = {
    FLUE_BLOCK(struct gcs_config, bucket, struct bucket_config, bucket_fields,
               .help = "the bucket, and how it is written"),
    FLUE_STRING(struct gcs_config, encoding, .def = "otlp_json",
                .help = "otlp_json or otlp_proto: one message per object"),
    FLUE_SQUASH(struct gcs_config, archive, struct flue_archive_keys, flue_archive_fields),
    FLUE_FIELDS_END};

static void gcs_check(const void *bound, struct flue_check *check)
{
    const struct gcs_config *config = bound;

    flue_object_gcs.check(&config->bucket.gcs, check);
    if (flue_archive_message(config->encoding) < 0)
        flue_check_fail(check, "encoding",
                        "there is no encoding extension \"%s\": use otlp_json or otlp_proto",
                        config->encoding);
    flue_archive_check_partition(config->bucket.partition.format, "bucket.partition.format", "UTC",
                                 "bucket.partition.format", check);
}

struct gcs {
    struct flue_archive_writer *writer;
    struct flue_zone *zone;
};

static enum flue_code gcs_create(const struct flue_create *create, void **instance,
                                 struct flue_error *error)
{
    const struct gcs_config *config = create->config;
    const struct bucket_config *bucket = &config->bucket;
    struct gcs *gcs = flue_arena_zalloc(create->arena, 1, sizeof *gcs);
    char *prefix = flue_key_prefix(create->arena, bucket->partition.prefix);
    enum flue_code code;

    if (!gcs || !prefix)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    if ((code = flue_zone_load("UTC", &gcs->zone, error)))
        return code;
    struct flue_archive_config archive = {.vendor = &flue_object_gcs,
                                          .store = &bucket->gcs,
                                          .prefix = prefix,
                                          .partition_format = bucket->partition.format,
                                          .zone = gcs->zone,
                                          .file_prefix = bucket->file_prefix,
                                          .compression = codings[bucket->compression],
                                          .uuidv7 = true,
                                          .put_attempts = 3,
                                          .put_max_backoff = (int64_t)20 * 1000000000};
    flue_archive_apply(&config->archive, flue_archive_message(config->encoding), &archive);
    *instance = gcs;
    code = flue_archive_writer_new(create, &archive, &gcs->writer, error);
    if (code)
        flue_zone_destroy(gcs->zone);
    return code;
}

static enum flue_code gcs_start(void *instance, struct flue_error *error)
{
    return flue_archive_writer_start(((struct gcs *)instance)->writer, error);
}

static void gcs_send(void *instance, struct flue_send *send)
{
    flue_archive_writer_send(((struct gcs *)instance)->writer, send);
}

static bool gcs_stopped(void *instance)
{
    return flue_archive_writer_stopped(((struct gcs *)instance)->writer);
}

static void gcs_destroy(void *instance)
{
    struct gcs *gcs = instance;
    flue_archive_writer_destroy(gcs->writer);
    flue_zone_destroy(gcs->zone);
}

const struct flue_component flue_exporter_googlecloudstorage = {
    .kind = FLUE_EXPORTER,
    .name = "googlecloudstorage",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "keeps profiles in Google Cloud Storage, as messages or as an archive",
    .config_size = sizeof(struct gcs_config),
    .fields = gcs_fields,
    .single_loop = true,
    .timeout_def = (int64_t)30 * 1000000000,
    .check = gcs_check,
    .create = gcs_create,
    .start = gcs_start,
    .send = gcs_send,
    .stopped = gcs_stopped,
    .destroy = gcs_destroy,
};
