/* archive.c: see archive.h. */
#include "exporters/file/archive.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "collector/base/buffer.h"
#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "exporters/file/path.h"
#include "proto/convert/convert.h"
#include "proto/pprof/pprof.h"

#define PLAN_BUDGET   (64u << 20)
#define MANIFEST_MAX  (1u << 20)
#define LABEL_TENANT  "anonymous"
#define LABEL_SERVICE "unknown_service"

static struct flue_bytes label(const struct flue_pprof_series *series, const char *name,
                               const char *otherwise)
{
    for (size_t i = 0; i < series->label_count; i++)
        if (flue_bytes_is(series->labels[i].name, name) && series->labels[i].value.size)
            return series->labels[i].value;
    return flue_bytes_of(otherwise);
}

/* First 16 digits of the SHA-256 over all labels, each with its length, and the profile. */
static bool content_hash(const struct flue_pprof_series *series, struct flue_bytes profile,
                         char out[17])
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t digest[EVP_MAX_MD_SIZE];
    bool ok = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL);

    for (size_t i = 0; ok && i < series->label_count; i++) {
        const struct flue_bytes parts[] = {series->labels[i].name, series->labels[i].value};
        for (unsigned k = 0; ok && k < 2; k++) {
            uint64_t size = parts[k].size;
            ok = EVP_DigestUpdate(context, &size, sizeof size) &&
                 EVP_DigestUpdate(context, parts[k].data, parts[k].size);
        }
    }
    ok = ok && EVP_DigestUpdate(context, profile.data, profile.size) &&
         EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    if (ok) {
        flue_hex(flue_bytes(digest, 8), out);
        out[16] = 0;
    }
    return ok;
}

static bool write_manifest(struct flue_archive_plan *plan, struct flue_archive_object *object,
                           const struct flue_pprof_series *series,
                           const struct flue_pprof_profile *profile, const struct flue_batch *batch,
                           uint64_t time_ns)
{
    struct flue_buffer json;
    char when[25];
    const char *slash = strrchr(object->path, '/');

    flue_buffer_init(&json, MANIFEST_MAX);
    flue_buffer_text(&json, "{\"object\":");
    flue_buffer_byte(&json, '"');
    flue_buffer_text(&json, slash ? slash + 1 : object->path);
    flue_buffer_text(&json, ".pb.gz\",\"time\":");
    flue_format_time(time_ns, when);
    flue_buffer_printf(&json, "\"%s\",\"time_unix_nano\":\"%" PRIu64 "\"", when, time_ns);
    flue_buffer_printf(&json, ",\"duration_nano\":\"%" PRId64 "\"", profile->facts.duration_nanos);
    flue_buffer_printf(&json, ",\"samples\":%" PRIu64, profile->facts.samples);
    flue_buffer_printf(&json, ",\"size\":%zu", profile->facts.inflated_size);
    flue_buffer_text(&json, ",\"tenant\":");
    flue_buffer_json(&json, batch->origin->tenant);
    flue_buffer_text(&json, ",\"receiver\":");
    flue_buffer_json(&json, batch->origin->receiver);
    flue_format_time(batch->origin->received_ns, when);
    flue_buffer_printf(&json, ",\"received\":\"%s\",\"labels\":{", when);
    for (size_t i = 0; i < series->label_count; i++) {
        if (i)
            flue_buffer_byte(&json, ',');
        flue_buffer_json(&json, series->labels[i].name);
        flue_buffer_byte(&json, ':');
        flue_buffer_json(&json, series->labels[i].value);
    }
    flue_buffer_text(&json, "}}\n");
    if (!json.failed) {
        struct flue_bytes copy = flue_arena_copy(&plan->arena, flue_buffer_bytes(&json));
        object->manifest = (char *)(uintptr_t)copy.data;
        object->manifest_size = copy.size;
    }
    flue_buffer_destroy(&json);
    return object->manifest != NULL;
}

static enum flue_code plan_profile(struct flue_archive_plan *plan, const struct flue_batch *batch,
                                   const struct flue_pprof_series *series,
                                   const struct flue_pprof_profile *profile,
                                   struct flue_error *error)
{
    char tenant[FLUE_PATH_ELEMENT + 16], service[FLUE_PATH_ELEMENT + 16];
    char type[FLUE_PATH_ELEMENT + 16], hash[17];
    struct flue_archive_object object = {.pprof = profile->bytes, .gzip = profile->facts.gzip};
    uint64_t time_ns = profile->facts.time_nanos > 0 ? (uint64_t)profile->facts.time_nanos
                                                     : batch->origin->received_ns;
    time_t seconds = (time_t)(time_ns / 1000000000u);
    struct tm utc;

    flue_path_element(batch->origin->tenant.size ? batch->origin->tenant : FLUE_BYTES(LABEL_TENANT),
                      tenant);
    flue_path_element(label(series, "service_name", LABEL_SERVICE), service);
    flue_path_element(label(series, "__name__", "profile"), type);
    if (!gmtime_r(&seconds, &utc) || !content_hash(series, profile->bytes, hash))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to name an archive object");
    object.path = flue_arena_printf(
        &plan->arena, "%s/%s/%s/dt=%04d-%02d-%02d/hour=%02d/%019" PRIu64 "-%s", tenant, service,
        type, utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, time_ns, hash);
    if (!object.path || !write_manifest(plan, &object, series, profile, batch, time_ns) ||
        !FLUE_ARENA_PUSH(&plan->arena, plan->objects, plan->count, plan->room, object))
        return flue_fail(error, FLUE_NO_MEMORY, "the names of one batch take more than %u bytes",
                         PLAN_BUDGET);
    return FLUE_OK;
}

enum flue_code flue_archive_plan(const struct flue_batch *batch, struct flue_archive_plan *plan,
                                 struct flue_error *error)
{
    memset(plan, 0, sizeof *plan);
    flue_arena_init(&plan->arena, PLAN_BUDGET, 0);
    if (flue_convert(batch->payload, FLUE_FORM_PPROF, batch->account, &plan->payload, error))
        return error ? error->code : FLUE_INTERNAL;
    for (size_t i = 0; i < flue_pprof_series_count(plan->payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(plan->payload, i);
        for (size_t k = 0; series && k < series->profile_count; k++) {
            enum flue_code code = plan_profile(plan, batch, series, &series->profiles[k], error);
            if (code)
                return code;
        }
    }
    return FLUE_OK;
}

void flue_archive_plan_destroy(struct flue_archive_plan *plan)
{
    flue_payload_unref(plan->payload);
    flue_arena_destroy(&plan->arena);
    memset(plan, 0, sizeof *plan);
}

static enum flue_code io_failed(struct flue_error *error, const char *doing, const char *path)
{
    return flue_fail(error, FLUE_IO, "%s %s: %s", doing, path, strerror(errno));
}

static bool write_all(int fd, struct flue_bytes b)
{
    while (b.size) {
        ssize_t n = write(fd, b.data, b.size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        b = flue_bytes_from(b, (size_t)n);
    }
    return true;
}

/* Temporary name, content, fsync, rename: the file is there whole or not at all. */
static enum flue_code write_file(const char *path, struct flue_bytes content,
                                 unsigned directory_mode, struct flue_error *error)
{
    char temporary[PATH_MAX];
    int fd;
    static _Atomic uint32_t sequence;

    if ((size_t)snprintf(temporary, sizeof temporary, "%s.%d.%u.tmp", path, (int)getpid(),
                         sequence++) >= sizeof temporary)
        return flue_fail(error, FLUE_IO, "path of over %d bytes: %.100s...", PATH_MAX, path);
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0 && errno == ENOENT) {
        if (flue_path_make_parents(temporary, directory_mode) != 0)
            return io_failed(error, "making the folders of", temporary);
        fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    }
    if (fd < 0)
        return io_failed(error, "creating", temporary);
    bool ok = write_all(fd, content) && fsync(fd) == 0;
    int saved = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        saved = errno;
    }
    if (ok && rename(temporary, path) == 0)
        return FLUE_OK;
    if (!ok)
        errno = saved;
    io_failed(error, "writing", path);
    unlink(temporary);
    return FLUE_IO;
}

/* The names in a folder are on disk only when the folder is. */
static enum flue_code sync_folder(const char *root, const char *path, struct flue_error *error)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int fd;

    snprintf(folder, sizeof folder, "%s/%.*s", root, (int)(slash - path), path);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return io_failed(error, "opening", folder);
    int result = fsync(fd);
    int saved = errno;
    close(fd);
    errno = saved;
    return result == 0 ? FLUE_OK : io_failed(error, "syncing", folder);
}

static enum flue_code write_object(const struct flue_archive_object *object, const char *root,
                                   unsigned directory_mode, struct flue_error *error)
{
    char path[PATH_MAX];
    struct flue_block *packed = NULL;
    struct flue_bytes content = object->pprof;
    enum flue_code code;
    int base = snprintf(path, sizeof path - 8, "%s/%s", root, object->path);

    if (base < 0 || (size_t)base >= sizeof path - 8)
        return flue_fail(error, FLUE_IO, "path of over %d bytes: %.100s...", PATH_MAX, path);
    if (!object->gzip) {
        struct flue_slices one = {.items = &content, .count = 1, .room = 1, .total = content.size};
        if ((code = flue_deflate(FLUE_GZIP, FLUE_LEVEL_DEFAULT, &one, &packed, error)))
            return code;
        content = flue_block_bytes(packed);
    }
    memcpy(path + base, ".json", 6);
    code = write_file(path, flue_bytes(object->manifest, object->manifest_size), directory_mode,
                      error);
    if (!code) {
        memcpy(path + base, ".pb.gz", 7);
        code = write_file(path, content, directory_mode, error);
    }
    flue_block_unref(packed);
    return code;
}

static bool same_folder(const char *a, const char *b)
{
    const char *slash = strrchr(a, '/');
    return strncmp(a, b, (size_t)(slash - a) + 1) == 0 && !strchr(b + (slash - a) + 1, '/');
}

enum flue_code flue_archive_write(const struct flue_archive_plan *plan, const char *root,
                                  unsigned directory_mode, struct flue_error *error)
{
    for (size_t i = 0; i < plan->count; i++) {
        const char *path = plan->objects[i].path;
        enum flue_code code = write_object(&plan->objects[i], root, directory_mode, error);
        if (!code && (i + 1 == plan->count || !same_folder(path, plan->objects[i + 1].path)))
            code = sync_folder(root, path, error);
        if (code)
            return code;
    }
    return FLUE_OK;
}
