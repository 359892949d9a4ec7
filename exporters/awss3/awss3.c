/* awss3.c: profiles as objects of Amazon S3 and what speaks its protocol; the Collector's keys, and
 * the layouts of flue's archive (archive/writer/writer.h).
 *
 * The partition format applies to the profiles' own time. s3uploader.retry_* hold within one
 * attempt, retry_on_failure between attempts. */
#include <stdio.h>
#include "archive/layout/key.h"
#include "archive/object/s3.h"
#include "archive/writer/route.h"
#include "archive/writer/writer.h"
#include "collector/component.h"
#include "collector/pipeline/exporter.h"

#define PARTITION "year=%Y/month=%m/day=%d/hour=%H/minute=%M"

struct uploader_config {
    struct flue_s3_config s3;
    const char *s3_base_prefix, *s3_prefix, *s3_partition_format, *s3_partition_timezone;
    const char *file_prefix;
    int compression, retry_mode, unique_key_func_name;
    int64_t retry_max_attempts, retry_max_backoff;
};
struct attributes_config {
    const char *s3_bucket, *s3_prefix;
};
struct awss3_config {
    struct uploader_config s3uploader;
    const char *marshaler, *encoding, *encoding_file_extension;
    struct attributes_config resource_attrs_to_s3;
    struct flue_archive_keys archive;
};

static const char *const compressions[] = {"", "none", "gzip", "zstd", NULL};
static const enum flue_coding codings[] = {FLUE_IDENTITY, FLUE_IDENTITY, FLUE_GZIP, FLUE_ZSTD};
static const char *const retry_modes[] = {"standard", "adaptive", "nop", NULL};
enum { RETRY_NOP = 2 };
static const char *const unique_keys[] = {"", "random", "uuidv7", NULL};
enum { UNIQUE_UUIDV7 = 2 };

static const struct flue_field uploader_fields[] = {
    FLUE_SQUASH(struct uploader_config, s3, struct flue_s3_config, flue_s3_fields),
    FLUE_STRING(struct uploader_config, s3_base_prefix, .help = "before every key"),
    FLUE_STRING(struct uploader_config, s3_prefix,
                .help = "behind s3_base_prefix; resource_attrs_to_s3 may put another in its place"),
    FLUE_STRING(struct uploader_config, s3_partition_format, .def = PARTITION,
                .help = "strftime's format of the folder, of the profile's own time; layouts "
                        "pprof and otlp have folders of their own"),
    FLUE_STRING(struct uploader_config, s3_partition_timezone, .def = "Local",
                .help = "Local, UTC, or a name of the tz database"),
    FLUE_STRING(struct uploader_config, file_prefix, .help = "before the name of an object"),
    FLUE_ENUM(struct uploader_config, compression, .choices = compressions,
              .help = "of the Collector's layouts"),
    FLUE_ENUM(struct uploader_config, retry_mode, .choices = retry_modes, .def = "standard",
              .help = "within one attempt; nop: one try"),
    FLUE_INT(struct uploader_config, retry_max_attempts, .def = "3", .minimum = 1, .maximum = 100,
             .help = "tries of one object within one attempt"),
    FLUE_DURATION(struct uploader_config, retry_max_backoff, .def = "20s", .minimum = 1000000,
                  .maximum = (int64_t)3600 * 1000000000, .help = "longest wait between two tries"),
    FLUE_ENUM(struct uploader_config, unique_key_func_name, .choices = unique_keys,
              .help = "how names are made unique: of the content's hash, or as UUIDv7 of the time "
                      "of receipt and that hash; the same request always has the same name"),
    FLUE_FIELDS_END};
static const struct flue_field attributes_fields[] = {
    FLUE_STRING(struct attributes_config, s3_bucket,
                .help = "resource attribute that names the bucket; at most 63 different ones"),
    FLUE_STRING(struct attributes_config, s3_prefix,
                .help = "resource attribute whose value takes the place of s3_prefix"),
    FLUE_FIELDS_END};
static const struct flue_field awss3_fields[] = {
    FLUE_BLOCK(struct awss3_config, s3uploader, struct uploader_config, uploader_fields,
               .help = "the bucket, and how it is written"),
    FLUE_STRING(struct awss3_config, marshaler, .def = "otlp_json",
                .help = "otlp_json or otlp_proto: one message per object"),
    FLUE_STRING(struct awss3_config, encoding,
                .help = "otlp_json or otlp_proto; takes the place of marshaler"),
    FLUE_STRING(struct awss3_config, encoding_file_extension,
                .help = "extension of the objects when encoding is set"),
    FLUE_BLOCK(struct awss3_config, resource_attrs_to_s3, struct attributes_config,
               attributes_fields, .help = "what attributes say about where to write"),
    FLUE_SQUASH(struct awss3_config, archive, struct flue_archive_keys, flue_archive_fields),
    FLUE_FIELDS_END};

static int message_of(const struct awss3_config *config)
{
    return flue_archive_message(config->encoding && *config->encoding ? config->encoding
                                                                      : config->marshaler);
}

static void awss3_check(const void *bound, struct flue_check *check)
{
    const struct awss3_config *config = bound;
    const struct uploader_config *uploader = &config->s3uploader;

    flue_object_s3.check(&uploader->s3, check);
    if (flue_archive_message(config->marshaler) < 0)
        flue_check_fail(check, "marshaler",
                        "\"%s\" cannot carry profiles: use otlp_json or otlp_proto",
                        config->marshaler);
    if (flue_archive_message(config->encoding) < 0)
        flue_check_fail(check, "encoding",
                        "there is no encoding extension \"%s\": use otlp_json or otlp_proto",
                        config->encoding);
    flue_archive_check_partition(uploader->s3_partition_format, "s3uploader.s3_partition_format",
                                 uploader->s3_partition_timezone,
                                 "s3uploader.s3_partition_timezone", check);
}

static const void *store_of(const void *store, const char *bucket, struct flue_arena *arena)
{
    struct flue_s3_config *copy = flue_arena_alloc(arena, sizeof *copy);

    if (copy) {
        *copy = *(const struct flue_s3_config *)store;
        copy->s3_bucket = bucket;
    }
    return copy;
}

struct awss3 {
    struct flue_archive_writer *writer;
    struct flue_zone *zone;
};

static enum flue_code awss3_create(const struct flue_create *create, void **instance,
                                   struct flue_error *error)
{
    const struct awss3_config *config = create->config;
    const struct uploader_config *uploader = &config->s3uploader;
    struct awss3 *awss3 = flue_arena_zalloc(create->arena, 1, sizeof *awss3);
    char *base = flue_key_prefix(create->arena, uploader->s3_base_prefix);
    char *prefix = flue_key_prefix(create->arena, uploader->s3_prefix);
    enum flue_code code;

    if (!awss3 || !base || !prefix)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    if ((code = flue_zone_load(uploader->s3_partition_timezone, &awss3->zone, error)))
        return code;
    struct flue_archive_config archive = {
        .vendor = &flue_object_s3,
        .store = &uploader->s3,
        .store_of = store_of,
        .prefix = base,
        .inner_prefix = prefix,
        .partition_format = uploader->s3_partition_format,
        .zone = awss3->zone,
        .file_prefix = uploader->file_prefix,
        .extension = config->encoding && *config->encoding ? config->encoding_file_extension : NULL,
        .compression = codings[uploader->compression],
        .uuidv7 = uploader->unique_key_func_name == UNIQUE_UUIDV7,
        .bucket_attribute = config->resource_attrs_to_s3.s3_bucket,
        .prefix_attribute = config->resource_attrs_to_s3.s3_prefix,
        .put_attempts =
            uploader->retry_mode == RETRY_NOP ? 1 : (unsigned)uploader->retry_max_attempts,
        .put_max_backoff = uploader->retry_max_backoff};
    flue_archive_apply(&config->archive, message_of(config), &archive);
    if (archive.bucket_attribute && !*archive.bucket_attribute)
        archive.bucket_attribute = NULL;
    if (archive.prefix_attribute && !*archive.prefix_attribute)
        archive.prefix_attribute = NULL;
    *instance = awss3;
    code = flue_archive_writer_new(create, &archive, &awss3->writer, error);
    if (code)
        flue_zone_destroy(awss3->zone);
    return code;
}

static enum flue_code awss3_start(void *instance, struct flue_error *error)
{
    return flue_archive_writer_start(((struct awss3 *)instance)->writer, error);
}

static void awss3_send(void *instance, struct flue_send *send)
{
    flue_archive_writer_send(((struct awss3 *)instance)->writer, send);
}

static bool awss3_stopped(void *instance)
{
    return flue_archive_writer_stopped(((struct awss3 *)instance)->writer);
}

static void awss3_destroy(void *instance)
{
    struct awss3 *awss3 = instance;
    flue_archive_writer_destroy(awss3->writer);
    flue_zone_destroy(awss3->zone);
}

const struct flue_component flue_exporter_awss3 = {
    .kind = FLUE_EXPORTER,
    .name = "awss3",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "keeps profiles in S3: the Collector's objects, or an archive that flue reads back",
    .config_size = sizeof(struct awss3_config),
    .fields = awss3_fields,
    .single_loop = true,
    .check = awss3_check,
    .create = awss3_create,
    .start = awss3_start,
    .send = awss3_send,
    .stopped = awss3_stopped,
    .destroy = awss3_destroy,
};
