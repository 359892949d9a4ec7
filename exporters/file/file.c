/* file.c: keep profiles in the local file system.
 *
 * `layout: pprof` writes one object per profile exactly as object storage has it
 * (archive/layout/pprof.h), `layout: otlp` one object per request, with an index
 * (archive/layout/otlp.h); otherwise messages go one behind the other into one file, in the
 * Collector's form (stream.h), or into one file for every value of an attribute (groups.h). A batch
 * is acknowledged when its bytes have been written (but for layout stream: and synced). What must
 * be computed from the payload is computed on the loop; what blocks runs on the pool.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "archive/object/folder.h"
#include "archive/writer/writer.h"
#include "collector/base/buffer.h"
#include "collector/base/codec.h"
#include "collector/component.h"
#include "collector/pipeline/exporter.h"
#include "exporters/file/folder.h"
#include "exporters/file/groups.h"
#include "exporters/file/path.h"
#include "exporters/file/stream.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"

#define JSON_MAX          (256u << 20)
#define SLICES_BUDGET     (64u << 20)
#define COMPRESSION_LEVEL 3 /* of zstd, layout otlp */

enum { LAYOUT_STREAM, LAYOUT_PPROF, LAYOUT_OTLP };
enum { FORMAT_JSON, FORMAT_PROTO };
enum { COMPRESSION_NONE, COMPRESSION_ZSTD };

struct file_rotation {
    int64_t max_megabytes, max_days, max_backups;
    bool localtime;
};
struct file_group_by {
    bool enabled;
    const char *resource_attribute;
    int64_t max_open_files;
};
struct file_config {
    const char *path;
    int layout, format, compression;
    const char *encoding, *writer;
    bool append, create_directory;
    const char *directory_permissions;
    const struct file_rotation *rotation;
    struct file_group_by group_by;
};
static const struct flue_field group_by_fields[] = {
    FLUE_BOOL(struct file_group_by, enabled,
              .help =
                  "a file for every value of a resource attribute, which takes the place of the "
                  "one * in `path`; files are appended to"),
    FLUE_STRING(struct file_group_by, resource_attribute, .def = "fileexporter.path_segment",
                .help = "the attribute; resources without it go to MISSING"),
    FLUE_INT(struct file_group_by, max_open_files, .def = "100", .minimum = 1, .maximum = 10000,
             .help = "files open at a time"),
    FLUE_FIELDS_END};
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
static const char *const layouts[] = {"stream", "pprof", "otlp", NULL};
static const char *const formats[] = {"json", "proto", NULL};
static const char *const compressions[] = {"", "zstd", NULL};
static const struct flue_field file_fields[] = {
    FLUE_STRING(struct file_config, path, .required = true,
                .help = "the file; with layouts pprof and otlp the folder of the archive"),
    FLUE_ENUM(struct file_config, layout, .choices = layouts,
              .help =
                  "stream: messages in one file, as the Collector writes them; pprof: one object "
                  "per profile under {tenant}/{service}/{type}/dt=YYYY-MM-DD/hour=HH/; otlp: one "
                  "object per request under v1/tenant=/dt=/hour=/, with an index"),
    FLUE_ENUM(struct file_config, format, .choices = formats,
              .help = "layout stream: OTLP/JSON lines, or length-prefixed protobuf"),
    FLUE_STRING(struct file_config, encoding,
                .help = "otlp_json or otlp_proto; takes the place of format"),
    FLUE_STRING(struct file_config, writer,
                .help = "layout otlp: name of this instance in keys, stable and its own; default: "
                        "host name and exporter"),
    FLUE_ENUM(struct file_config, compression, .choices = compressions,
              .help = "layout stream: each message a zstd frame"),
    FLUE_BOOL(struct file_config, append,
              .help = "layout stream: keep what the file holds at start"),
    FLUE_BOOL(struct file_config, create_directory, .help = "make missing folders of `path`"),
    FLUE_STRING(struct file_config, directory_permissions, .def = "0755",
                .help = "octal mode of folders that are made"),
    FLUE_OPTIONAL(struct file_config, rotation, struct file_rotation, rotation_fields,
                  .help = "layout stream: begin a new file by size"),
    FLUE_BLOCK(struct file_config, group_by, struct file_group_by, group_by_fields,
               .help = "layout stream: several files"),
    FLUE_IGNORED("flush_interval", "every message is handed to the system at once"),
    FLUE_FIELDS_END};

struct file {
    const struct file_config *config;
    struct flue_stream *stream; /* NULL with layout pprof and with groups */
    struct flue_groups *groups; /* group_by */
    struct flue_stream_rotation rotation;
    unsigned directory_mode;
    struct flue_folder_config folder;
    struct flue_archive_writer *writer; /* layout otlp */
};

struct file_job {
    struct flue_job job;
    struct flue_send *send;
    struct file *file;
    struct flue_pprof_plan plan;
    struct flue_block *message; /* layout stream */
    struct flue_payload *otlp;  /* group_by: cut on the pool */
    struct flue_error error;
};

static bool writes_json(const struct file_config *config)
{
    if (config->encoding && *config->encoding)
        return flue_archive_message(config->encoding) == FLUE_LAYOUT_OTLP_JSON;
    return config->format == FORMAT_JSON;
}

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
    const char *star = c->path ? strchr(c->path, '*') : NULL;
    if (flue_archive_message(c->encoding) < 0)
        flue_check_fail(check, "encoding",
                        "there is no encoding extension \"%s\": use otlp_json or otlp_proto",
                        c->encoding);
    if (c->group_by.enabled && c->layout != LAYOUT_STREAM)
        flue_check_fail(check, "group_by",
                        "has no meaning with layouts pprof and otlp: they have folders of their "
                        "own");
    else if (c->group_by.enabled && (!star || strchr(star + 1, '*')))
        flue_check_fail(check, "path",
                        "group_by needs exactly one * in it, where the attribute's "
                        "value goes");
    if (c->layout != LAYOUT_STREAM && c->rotation)
        flue_check_fail(check, "rotation",
                        "has no meaning with layouts pprof and otlp: nothing is appended to");
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
        const struct flue_stream_rotation *rotation =
            file->config->rotation ? &file->rotation : NULL;
        if (file->config->group_by.enabled)
            file->groups =
                flue_groups_new(file->config->path, file->config->group_by.resource_attribute,
                                (size_t)file->config->group_by.max_open_files,
                                file->config->create_directory, file->directory_mode, rotation);
        else
            file->stream =
                flue_stream_new(file->config->path, file->config->append,
                                file->config->create_directory, file->directory_mode, rotation);
        if (!file->stream && !file->groups)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    }
    *instance = file;
    if (file->config->layout == LAYOUT_OTLP) {
        file->folder = (struct flue_folder_config){
            .path = file->config->path,
            .create_directory = file->config->create_directory,
            .fsync = true,
            .directory_permissions = file->config->directory_permissions};
        const struct flue_archive_config archive = {.layout = FLUE_LAYOUT_OTLP,
                                                    .vendor = &flue_object_folder,
                                                    .store = &file->folder,
                                                    .prefix = "",
                                                    .writer = file->config->writer,
                                                    .level = COMPRESSION_LEVEL,
                                                    .put_attempts = 1,
                                                    .put_max_backoff = 1};
        return flue_archive_writer_new(create, &archive, &file->writer, error);
    }
    return FLUE_OK;
}

/* The archive's own folder must be there, so that a missing mount is found at start and not filled.
 */
static enum flue_code file_start(void *instance, struct flue_error *error)
{
    struct file *file = instance;
    const char *path = file->config->path;
    struct stat facts;

    if (file->config->layout == LAYOUT_STREAM)
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
    return file->writer ? flue_archive_writer_start(file->writer, error) : FLUE_OK;
}

/* One message in the configured format. Any thread. */
static enum flue_code encode_message(const struct file *file, const struct flue_payload *otlp,
                                     struct flue_block **out, struct flue_error *error)
{
    enum flue_code code;

    if (writes_json(file->config)) {
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
    return code;
}

/* Compressed if so configured, framed as the format asks. On the pool. */
static enum flue_code write_message(const struct file *file, struct flue_stream *stream,
                                    const struct flue_block *message, struct flue_error *error)
{
    struct flue_bytes bytes = flue_block_bytes(message);
    struct flue_block *packed = NULL;
    bool zstd = file->config->compression == COMPRESSION_ZSTD;
    enum flue_code code;

    if (zstd) {
        struct flue_slices one = {.items = &bytes, .count = 1, .room = 1, .total = bytes.size};
        if ((code = flue_deflate(FLUE_ZSTD, FLUE_LEVEL_DEFAULT, &one, &packed, error)))
            return code;
        bytes = flue_block_bytes(packed);
    }
    code = flue_stream_write(stream, bytes, zstd || !writes_json(file->config), error);
    flue_block_unref(packed);
    return code;
}

static enum flue_code write_part(void *arg, struct flue_stream *stream,
                                 const struct flue_payload *part, struct flue_error *error)
{
    const struct file *file = arg;
    struct flue_block *message = NULL;
    enum flue_code code = encode_message(file, part, &message, error);

    if (!code)
        code = write_message(file, stream, message, error);
    flue_block_unref(message);
    return code;
}

/* On the loop: what must be computed from the payload before it is given to the pool. */
static void prepare_stream(struct file_job *job, const struct flue_batch *batch)
{
    struct flue_payload *otlp = NULL;

    if (flue_convert(batch->payload, FLUE_FORM_OTLP, batch->account, &otlp, &job->error))
        return;
    if (job->file->groups) {
        job->otlp = otlp;
        return;
    }
    encode_message(job->file, otlp, &job->message, &job->error);
    flue_payload_unref(otlp);
}

static void work(struct flue_job *base)
{
    struct file_job *job = (struct file_job *)base;

    if (job->file->config->layout == LAYOUT_PPROF) {
        if (!flue_pprof_plan_name(job->send->batch, &job->plan, &job->error))
            flue_folder_write(&job->plan, job->file->config->path, job->file->directory_mode,
                              &job->error);
    } else if (job->file->groups)
        flue_groups_write(job->file->groups, job->otlp, job->send->state, write_part, job->file,
                          &job->error);
    else
        write_message(job->file, job->file->stream, job->message, &job->error);
}

static void finish(struct file_job *job)
{
    struct flue_send *send = job->send;
    struct flue_error error = job->error;

    flue_pprof_plan_destroy(&job->plan);
    flue_block_unref(job->message);
    flue_payload_unref(job->otlp);
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

    if (file->writer) {
        flue_archive_writer_send(file->writer, send);
        return;
    }
    struct file_job *job = calloc(1, sizeof *job);
    struct flue_error error = {0};

    if (file->groups && !send->state) { /* how many are written, over all attempts */
        send->state = calloc(1, sizeof(uint32_t));
        send->free_state = free;
    }
    if (!job || (file->groups && !send->state)) {
        free(job);
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
        flue_pprof_plan_open(send->batch, &job->plan, &job->error);
    else
        prepare_stream(job, send->batch);
    if (job->error.code)
        finish(job);
    else
        flue_pool_submit(send->loop, &job->job);
}

static bool file_stopped(void *instance)
{
    struct file *file = instance;
    return !file->writer || flue_archive_writer_stopped(file->writer);
}

static void file_destroy(void *instance)
{
    struct file *file = instance;
    flue_archive_writer_destroy(file->writer);
    flue_stream_destroy(file->stream);
    flue_groups_destroy(file->groups);
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
    .stopped = file_stopped,
    .destroy = file_destroy,
};
