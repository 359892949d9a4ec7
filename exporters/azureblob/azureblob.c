/* azureblob.c: profiles as blobs of Azure; the Collector's keys, and the layouts of flue's archive
 * (archive/writer/writer.h). */
#include "archive/layout/key.h"
#include "archive/object/azure.h"
#include "archive/writer/route.h"
#include "archive/writer/writer.h"
#include "collector/component.h"
#include "collector/pipeline/exporter.h"

struct container_config {
    const char *profiles, *logs, *metrics, *traces;
};
struct azureblob_config {
    struct flue_azure_config azure;
    struct container_config container;
    const char *prefix, *partition_format, *partition_timezone, *file_prefix;
    int format, compression;
    struct flue_archive_keys archive;
};

static const char *const formats[] = {"json", "proto", NULL};
static const char *const compressions[] = {"", "none", "gzip", "zstd", NULL};
static const enum flue_coding codings[] = {FLUE_IDENTITY, FLUE_IDENTITY, FLUE_GZIP, FLUE_ZSTD};

static const struct flue_field container_fields[] = {
    FLUE_STRING(struct container_config, profiles, .def = "profiles",
                .help = "the container for profiles"),
    FLUE_STRING(struct container_config, logs, .help = "accepted; no logs pass here"),
    FLUE_STRING(struct container_config, metrics, .help = "accepted; no metrics pass here"),
    FLUE_STRING(struct container_config, traces, .help = "accepted; no traces pass here"),
    FLUE_FIELDS_END};
static const struct flue_field azureblob_fields[] = {
    FLUE_BLOCK(struct azureblob_config, container, struct container_config, container_fields,
               .help = "the container, per signal"),
    FLUE_SQUASH(struct azureblob_config, azure, struct flue_azure_config, flue_azure_fields),
    FLUE_STRING(struct azureblob_config, prefix, .help = "before every name"),
    FLUE_STRING(struct azureblob_config, partition_format, .def = "%Y/%m/%d/%H",
                .help = "strftime's format of the folder, of the profile's own time; layouts pprof "
                        "and otlp have folders of their own"),
    FLUE_STRING(struct azureblob_config, partition_timezone, .def = "UTC",
                .help = "Local, UTC, or a name of the tz database"),
    FLUE_STRING(struct azureblob_config, file_prefix, .help = "before the name of a blob"),
    FLUE_ENUM(struct azureblob_config, format, .choices = formats,
              .help = "one message per blob, as OTLP/JSON or protobuf"),
    FLUE_ENUM(struct azureblob_config, compression, .choices = compressions,
              .help = "of the Collector's layouts"),
    FLUE_SQUASH(struct azureblob_config, archive, struct flue_archive_keys, flue_archive_fields),
    FLUE_IGNORED("blob_name_format", "it has no format for profiles; use prefix, partition_format "
                                     "and file_prefix"),
    FLUE_IGNORED("append_blob", "every blob is written whole"),
    FLUE_IGNORED("encodings", "they are for logs, metrics and traces; use format"),
    FLUE_FIELDS_END};

static struct flue_azure_config azure_of(const struct azureblob_config *config)
{
    struct flue_azure_config azure = config->azure;
    azure.container = config->container.profiles;
    return azure;
}

static void azureblob_check(const void *bound, struct flue_check *check)
{
    const struct azureblob_config *config = bound;
    struct flue_azure_config azure = azure_of(config);

    flue_object_azure.check(&azure, check);
    flue_archive_check_partition(config->partition_format, "partition_format",
                                 config->partition_timezone, "partition_timezone", check);
}

struct azureblob {
    struct flue_archive_writer *writer;
    struct flue_azure_config azure;
    struct flue_zone *zone;
};

static enum flue_code azureblob_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    const struct azureblob_config *config = create->config;
    struct azureblob *blob = flue_arena_zalloc(create->arena, 1, sizeof *blob);
    char *prefix = flue_key_prefix(create->arena, config->prefix);
    enum flue_code code;

    if (!blob || !prefix)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    if ((code = flue_zone_load(config->partition_timezone, &blob->zone, error)))
        return code;
    blob->azure = azure_of(config);
    struct flue_archive_config archive = {.vendor = &flue_object_azure,
                                          .store = &blob->azure,
                                          .prefix = prefix,
                                          .partition_format = config->partition_format,
                                          .zone = blob->zone,
                                          .file_prefix = config->file_prefix,
                                          .compression = codings[config->compression],
                                          .uuidv7 = true,
                                          .put_attempts = 3,
                                          .put_max_backoff = (int64_t)20 * 1000000000};
    flue_archive_apply(&config->archive,
                       config->format ? FLUE_LAYOUT_OTLP_PROTO : FLUE_LAYOUT_OTLP_JSON, &archive);
    *instance = blob;
    code = flue_archive_writer_new(create, &archive, &blob->writer, error);
    if (code)
        flue_zone_destroy(blob->zone);
    return code;
}

static enum flue_code azureblob_start(void *instance, struct flue_error *error)
{
    return flue_archive_writer_start(((struct azureblob *)instance)->writer, error);
}

static void azureblob_send(void *instance, struct flue_send *send)
{
    flue_archive_writer_send(((struct azureblob *)instance)->writer, send);
}

static bool azureblob_stopped(void *instance)
{
    return flue_archive_writer_stopped(((struct azureblob *)instance)->writer);
}

static void azureblob_destroy(void *instance)
{
    struct azureblob *blob = instance;
    flue_archive_writer_destroy(blob->writer);
    flue_zone_destroy(blob->zone);
}

const struct flue_component flue_exporter_azureblob = {
    .kind = FLUE_EXPORTER,
    .name = "azureblob",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "keeps profiles in Azure Blob storage, as messages or as an archive",
    .config_size = sizeof(struct azureblob_config),
    .fields = azureblob_fields,
    .single_loop = true,
    .timeout_def = (int64_t)30 * 1000000000,
    .check = azureblob_check,
    .create = azureblob_create,
    .start = azureblob_start,
    .send = azureblob_send,
    .stopped = azureblob_stopped,
    .destroy = azureblob_destroy,
};
