/* file.c: keep profiles in the local file system.
 *
 * Two ways: `layout: pprof` writes one object per profile exactly as object storage has it (archive.h);
 * otherwise messages go one behind the other into one file, in the Collector's form (stream.h).
 * A batch is acknowledged when its bytes have been written (layout pprof: and synced). What must be
 * computed from the payload is computed on the loop; what blocks runs on the pool.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "collector/base/buffer.h"
#include "collector/base/codec.h"
#include "collector/component.h"
#include "collector/pipeline/exporter.h"
#include "exporters/file/archive.h"
#include "exporters/file/path.h"
#include "exporters/file/stream.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"

#define JSON_MAX      (256u << 20)
#define SLICES_BUDGET (64u << 20)

enum { LAYOUT_STREAM, LAYOUT_PPROF };
enum { FORMAT_JSON, FORMAT_PROTO };
enum { COMPRESSION_NONE, COMPRESSION_ZSTD };

struct file_rotation {
    int64_t max_megabytes, max_days, max_backups;
    bool localtime;
};
struct file_config {
    const char *path;
    int layout, format, compression;
    bool append, create_directory;
    const char *directory_permissions;
    const struct file_rotation *rotation;
};
static const struct flue_field rotation_fields[] = {
    FLUE_INT(struct file_rotation, max_megabytes, .def = "100", .maximum = 1 << 20, .unit = "MiB",
             .help = "size at which a new file is begun; 0: never"),
    FLUE_INT(struct file_rotation, max_days, .maximum = 36500, .unit = "days",
             .help = "rotated files older than this are removed; 0: none"),
    FLUE_INT(struct file_rotation, max_backups, .def = "100", .maximum = 4096,
             .help = "rotated files that are kept; 0: all"),
    FLUE_BOOL(struct file_rotation, localtime,
              .help = "names of rotated files carry local time instead of UTC"),
    FLUE_FIELDS_END};
static const char *const layouts[] = {"stream", "pprof", NULL};
static const char *const formats[] = {"json", "proto", NULL};
static const char *const compressions[] = {"", "zstd", NULL};
static const struct flue_field file_fields[] = {
    FLUE_STRING(struct file_config, path, .required = true,
                .help = "the file; with layout pprof the folder of the archive"),
    FLUE_ENUM(struct file_config, layout, .choices = layouts,
              .help = "stream: messages in one file, as the Collector writes them; pprof: one object "
                      "per profile under {tenant}/{service}/{type}/dt=YYYY-MM-DD/hour=HH/"),
    FLUE_ENUM(struct file_config, format, .choices = formats,
              .help = "layout stream: OTLP/JSON lines, or length-prefixed protobuf"),
    FLUE_ENUM(struct file_config, compression, .choices = compressions,
              .help = "layout stream: each message a zstd frame"),
    FLUE_BOOL(struct file_config, append,
              .help = "layout stream: keep what the file holds at start"),
    FLUE_BOOL(struct file_config, create_directory, .help = "make missing folders of `path`"),
    FLUE_STRING(struct file_config, directory_permissions, .def = "0755",
                .help = "octal mode of folders that are made"),
    FLUE_OPTIONAL(struct file_config, rotation, struct file_rotation, rotation_fields,
                  .help = "layout stream: begin a new file by size"),
    FLUE_IGNORED("flush_interval", "every message is handed to the system at once"),
    FLUE_FIELDS_END};

struct file {
    const struct file_config *config;
    struct flue_stream *stream; /* NULL with layout pprof */
    struct flue_stream_rotation rotation;
    unsigned directory_mode;
};

struct file_job {
    struct flue_job job;
    struct flue_send *send;
    struct file *file;
    struct flue_archive_plan plan;
    struct flue_block *message; /* layout stream */
    struct flue_error error;
};

static bool octal(const char *text, unsigned *mode)
{
    char *end;
    unsigned long value = strtoul(text, &end, 8);
    *mode = (unsigned)value;
    return *text && !*end && value <= 0777;
}

static void file_check(const void *config, struct flue_check *check)
{
    const struct file_config *c = config;
    unsigned mode;

    if (c->path && !*c->path)
        flue_check_fail(check, "path", "is empty");
    if (c->directory_permissions && !octal(c->directory_permissions, &mode))
        flue_check_fail(check, "directory_permissions",
                        "\"%s\" is not an octal mode from 0000 to 0777", c->directory_permissions);
    if (c->layout == LAYOUT_PPROF && c->rotation)
        flue_check_fail(check, "rotation", "has no meaning with layout pprof: every profile is an "
                                           "object of its own");
}

static enum flue_code file_create(const struct flue_create *create, void **instance,
                                  struct flue_error *error)
{
    struct file *file = flue_arena_zalloc(create->arena, 1, sizeof *file);

    if (!file)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    file->config = create->config;
    octal(file->config->directory_permissions, &file->directory_mode);
    if (file->config->layout == LAYOUT_STREAM) {
        if (file->config->rotation)
            file->rotation = (struct flue_stream_rotation){
                file->config->rotation->max_megabytes, file->config->rotation->max_days,
                file->config->rotation->max_backups, file->config->rotation->localtime};
        file->stream = flue_stream_new(file->config->path, file->config->append,
                                       file->config->create_directory, file->directory_mode,
                                       file->config->rotation ? &file->rotation : NULL);
        if (!file->stream)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    }
    *instance = file;
    return FLUE_OK;
}

/* The archive's own folder must be there, so that a missing mount is found at start and not filled. */
static enum flue_code file_start(void *instance, struct flue_error *error)
{
    struct file *file = instance;
    const char *path = file->config->path;
    struct stat facts;

    if (file->config->layout != LAYOUT_PPROF)
        return FLUE_OK;
    if (stat(path, &facts) != 0 && file->config->create_directory) {
        char *copy = strdup(path);
        if (copy) {
            flue_path_make_parents(copy, file->directory_mode);
            free(copy);
        }
        mkdir(path, file->directory_mode);
    }
    if (stat(path, &facts) != 0 || !S_ISDIR(facts.st_mode))
        return flue_fail(error, FLUE_IO,
                         "path %s is not a folder; make it, or set create_directory: true", path);
    if (access(path, W_OK | X_OK) != 0)
        return flue_fail(error, FLUE_IO, "path %s: this user may not write there", path);
    return FLUE_OK;
}

static enum flue_code encode_message(struct file *file, const struct flue_batch *batch,
                                     struct flue_block **out, struct flue_error *error)
{
    struct flue_payload *otlp = NULL;
    enum flue_code code = flue_convert(batch->payload, FLUE_FORM_OTLP, batch->account, &otlp, error);

    if (code)
        return code;
    if (file->config->format == FORMAT_JSON) {
        struct flue_buffer json;
        flue_buffer_init(&json, JSON_MAX);
        code = flue_otlp_json_write(otlp, &json, error);
        if (!code && !(*out = flue_block_copy(NULL, flue_buffer_bytes(&json))))
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory for %zu bytes of JSON", json.size);
        flue_buffer_destroy(&json);
    } else {
        struct flue_arena arena;
        struct flue_slices slices = {0};
        flue_arena_init(&arena, SLICES_BUDGET, 0);
        code = otlp->ops->slices(otlp, &arena, &slices, error);
        if (!code && !(*out = flue_block_new(NULL, slices.total)))
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory for %zu bytes", slices.total);
        if (!code) {
            flue_slices_copy(&slices, (*out)->data);
            (*out)->size = slices.total;
            flue_block_finish(*out);
        }
        flue_arena_destroy(&arena);
    }
    flue_payload_unref(otlp);
    return code;
}

static void write_stream(struct file_job *job)
{
    struct file *file = job->file;
    struct flue_bytes message = flue_block_bytes(job->message);
    struct flue_block *packed = NULL;
    bool zstd = file->config->compression == COMPRESSION_ZSTD;

    if (zstd) {
        struct flue_slices one = {.items = &message, .count = 1, .room = 1, .total = message.size};
        if (flue_deflate(FLUE_ZSTD, FLUE_LEVEL_DEFAULT, &one, &packed, &job->error))
            return;
        message = flue_block_bytes(packed);
    }
    flue_stream_write(file->stream, message, zstd || file->config->format == FORMAT_PROTO,
                      &job->error);
    flue_block_unref(packed);
}

static void work(struct flue_job *base)
{
    struct file_job *job = (struct file_job *)base;

    if (job->file->config->layout == LAYOUT_PPROF)
        flue_archive_write(&job->plan, job->file->config->path, job->file->directory_mode,
                           &job->error);
    else
        write_stream(job);
}

static void finish(struct file_job *job)
{
    struct flue_send *send = job->send;
    struct flue_error error = job->error;

    flue_archive_plan_destroy(&job->plan);
    flue_block_unref(job->message);
    free(job);
    if (error.code)
        flue_send_fail(send, &error);
    else
        flue_send_ok(send);
}

static void done(struct flue_job *base)
{
    finish((struct file_job *)base);
}

static void file_send(void *instance, struct flue_send *send)
{
    struct file *file = instance;
    struct file_job *job = calloc(1, sizeof *job);
    struct flue_error error = {0};

    if (!job) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory to write a batch");
        flue_send_fail(send, &error);
        return;
    }
    job->send = send;
    job->file = file;
    job->job.loop = send->loop;
    job->job.work = work;
    job->job.done = done;
    if (file->config->layout == LAYOUT_PPROF)
        flue_archive_plan(send->batch, &job->plan, &job->error);
    else
        encode_message(file, send->batch, &job->message, &job->error);
    if (job->error.code)
        finish(job);
    else
        flue_pool_submit(send->loop, &job->job);
}

static void file_destroy(void *instance)
{
    struct file *file = instance;
    flue_stream_destroy(file->stream);
}

const struct flue_component flue_exporter_file = {
    .kind = FLUE_EXPORTER,
    .name = "file",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "keeps profiles in the local file system, as one file of messages or as an archive",
    .config_size = sizeof(struct file_config),
    .fields = file_fields,
    .no_queue = true,
    .check = file_check,
    .create = file_create,
    .start = file_start,
    .send = file_send,
    .destroy = file_destroy,
};
