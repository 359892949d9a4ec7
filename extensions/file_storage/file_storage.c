/* file_storage.c: the folder in which sending queues are durable (`sending_queue.storage`).
 *
 * The Collector's extension of this name with its keys, over the segment log of collector/storage.
 * The instance IS the struct flue_storage: exporters get it by the id of the extension, open their
 * queues in create, and start it; whoever comes first recovers the folder. Create does no I/O, so
 * `flue validate` may run beside the daemon that holds the folder.
 */
#include <stdlib.h>
#include "collector/base/log.h"
#include "collector/component.h"
#include "collector/storage/storage.h"

struct compaction_config {
    bool present; /* the block is there: nothing in it has an effect */
};
struct file_storage_config {
    const char *directory, *directory_permissions;
    int64_t timeout;
    bool fsync, create_directory;
    const struct compaction_config *compaction;
};

static const char no_compaction[] = "segments are removed as a whole; there is nothing to compact";
static const struct flue_field compaction_fields[] = {
    FLUE_IGNORED("directory", no_compaction),
    FLUE_IGNORED("on_start", no_compaction),
    FLUE_IGNORED("on_rebound", no_compaction),
    FLUE_IGNORED("rebound_needed_threshold_mib", no_compaction),
    FLUE_IGNORED("rebound_trigger_threshold_mib", no_compaction),
    FLUE_IGNORED("max_transaction_size", no_compaction),
    FLUE_IGNORED("check_interval", no_compaction),
    FLUE_IGNORED("cleanup_on_start", no_compaction),
    FLUE_FIELDS_END};

static const struct flue_field file_storage_fields[] = {
    FLUE_STRING(struct file_storage_config, directory, .def = "/var/lib/otelcol/file_storage",
                .help = "folder of the log; for one process at a time"),
    FLUE_DURATION(struct file_storage_config, timeout, .def = "1s", .minimum = 0,
                  .maximum = INT64_C(3600000000000),
                  .help = "how long to wait at start for another process to leave the folder"),
    FLUE_BOOL(struct file_storage_config, fsync, .def = "true",
              .help = "acknowledge only what is on disk; false: a power cut loses what was "
                      "acknowledged last"),
    FLUE_BOOL(struct file_storage_config, create_directory,
              .help = "make the folder, and those above it"),
    FLUE_STRING(struct file_storage_config, directory_permissions, .def = "0750",
                .help = "octal mode of a folder that it makes"),
    FLUE_OPTIONAL(struct file_storage_config, compaction, struct compaction_config,
                  compaction_fields, .help = "accepted and ignored: there is nothing to compact"),
    FLUE_IGNORED("recreate", "damaged files are set aside by themselves, and the rest is kept"),
    FLUE_FIELDS_END};

/* Octal as the Collector writes it: "0750", "750". False: it is not. */
static bool read_mode(const char *text, unsigned *mode)
{
    unsigned value = 0;
    size_t size = strlen(text);
    if (size == 0 || size > 5)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '7')
            return false;
        value = value * 8 + (unsigned)(text[i] - '0');
    }
    *mode = value;
    return value <= 0777;
}

static void file_storage_check(const void *data, struct flue_check *check)
{
    const struct file_storage_config *config = data;
    unsigned mode;
    if (!config->directory[0])
        flue_check_fail(check, "directory", "is empty: name the folder of the log");
    if (!read_mode(config->directory_permissions, &mode))
        flue_check_fail(check, "directory_permissions",
                        "\"%s\" is no octal mode from 0000 to 0777, as \"0750\"",
                        config->directory_permissions);
    else if ((mode & 0700) != 0700 && config->create_directory)
        flue_check_fail(check, "directory_permissions",
                        "\"%s\" does not let flue itself read, write and enter the folder that it "
                        "makes: the first digit must be 7",
                        config->directory_permissions);
    if (!config->fsync)
        flue_check_warn(
            check, "fsync",
            "false: a power cut loses what was acknowledged in the last seconds; a kill "
            "of the process does not");
}

static enum flue_code file_storage_create(const struct flue_create *create, void **instance,
                                          struct flue_error *error)
{
    const struct file_storage_config *config = create->config;
    unsigned mode = 0750;
    read_mode(config->directory_permissions, &mode);
    struct flue_storage_config log = {
        .directory = config->directory,
        .create_directory = config->create_directory,
        .fsync = config->fsync,
        .directory_mode = mode,
        .timeout = config->timeout,
    };
    struct flue_storage *storage;
    enum flue_code code =
        flue_storage_new(&log, create->id, create->loops, create->metrics, &storage, error);
    if (code)
        return code;
    if (config->compaction)
        flue_log(FLUE_INFO, "file_storage",
                 "compaction.* has no effect: segments are removed as a whole when nobody needs "
                 "them",
                 FLUE_S("extension", create->id), FLUE_LOG_END);
    *instance = storage;
    return FLUE_OK;
}

/* Extensions start after exporters: who wants a queue has opened it. */
static enum flue_code file_storage_start(void *instance, struct flue_error *error)
{
    enum flue_code code = flue_storage_start(instance, error);
    if (!code)
        flue_storage_settle(instance);
    return code;
}

static void file_storage_destroy(void *instance)
{
    flue_storage_close(instance);
}

const struct flue_component flue_extension_file_storage = {
    .kind = FLUE_EXTENSION,
    .name = "file_storage",
    .stability = FLUE_BETA,
    .summary = "a folder in which sending queues survive a kill and a power cut",
    .config_size = sizeof(struct file_storage_config),
    .fields = file_storage_fields,
    .check = file_storage_check,
    .create = file_storage_create,
    .start = file_storage_start,
    .destroy = file_storage_destroy,
};
