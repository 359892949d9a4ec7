/* folder.c: see folder.h. */
#include "exporters/file/folder.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>
#include "exporters/file/path.h"

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

static enum flue_code write_object(const struct flue_pprof_object *object, const char *root,
                                   unsigned directory_mode, struct flue_error *error)
{
    char path[PATH_MAX];
    struct flue_block *packed = NULL;
    struct flue_bytes content;
    enum flue_code code;
    int base = snprintf(path, sizeof path - 8, "%s/%s", root, object->key);

    if (base < 0 || (size_t)base >= sizeof path - 8)
        return flue_fail(error, FLUE_IO, "path of over %d bytes: %.100s...", PATH_MAX, path);
    if ((code = flue_pprof_object_content(object, &content, &packed, error)))
        return code;
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

enum flue_code flue_folder_write(const struct flue_pprof_plan *plan, const char *root,
                                 unsigned directory_mode, struct flue_error *error)
{
    for (size_t i = 0; i < plan->count; i++) {
        const char *key = plan->objects[i].key;
        enum flue_code code = write_object(&plan->objects[i], root, directory_mode, error);
        if (!code && (i + 1 == plan->count || !same_folder(key, plan->objects[i + 1].key)))
            code = sync_folder(root, key, error);
        if (code)
            return code;
    }
    return FLUE_OK;
}
