/* stream.c: see stream.h. */
#include "exporters/file/stream.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "collector/base/log.h"
#include "exporters/file/path.h"

#define STAMP_SIZE 24 /* "-2026-11-21T08-00-00.000" */

struct flue_stream {
    pthread_mutex_t lock;
    char *path;
    const struct flue_stream_rotation *rotation;
    unsigned directory_mode;
    bool append, create_directory;
    int fd; /* -1: not open */
    off_t size;
};

struct flue_stream *flue_stream_new(const char *path, bool append, bool create_directory,
                                    unsigned directory_mode,
                                    const struct flue_stream_rotation *rotation)
{
    struct flue_stream *stream = calloc(1, sizeof *stream);

    if (!stream)
        return NULL;
    stream->path = strdup(path);
    if (!stream->path) {
        free(stream);
        return NULL;
    }
    pthread_mutex_init(&stream->lock, NULL);
    stream->append = append;
    stream->create_directory = create_directory;
    stream->directory_mode = directory_mode;
    stream->rotation = rotation;
    stream->fd = -1;
    return stream;
}

void flue_stream_destroy(struct flue_stream *stream)
{
    if (!stream)
        return;
    if (stream->fd >= 0)
        close(stream->fd);
    pthread_mutex_destroy(&stream->lock);
    free(stream->path);
    free(stream);
}

static enum flue_code io_failed(struct flue_error *error, const char *doing, const char *path)
{
    return flue_fail(error, FLUE_IO, "%s %s: %s", doing, path, strerror(errno));
}

static enum flue_code open_file(struct flue_stream *stream, struct flue_error *error)
{
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (stream->append ? 0 : O_TRUNC);
    struct stat facts;

    stream->fd = open(stream->path, flags, 0640);
    if (stream->fd < 0 && errno == ENOENT && stream->create_directory) {
        if (flue_path_make_parents(stream->path, stream->directory_mode) != 0)
            return io_failed(error, "making the folders of", stream->path);
        stream->fd = open(stream->path, flags, 0640);
    }
    if (stream->fd < 0)
        return io_failed(error, "opening", stream->path);
    stream->append = true; /* a second opening, after a rotation, must not empty anything */
    stream->size = fstat(stream->fd, &facts) == 0 ? facts.st_size : 0;
    return FLUE_OK;
}

/* Splits the path into what stands before a rotation's stamp and what stands behind it. */
static size_t stem_size(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(path, '.');
    return dot && dot > (slash ? slash + 1 : path) ? (size_t)(dot - path) : strlen(path);
}

static int newest_first(const void *a, const void *b)
{
    return strcmp(*(char *const *)b, *(char *const *)a);
}

/* Removes rotated files beyond max_backups or older than max_days; names sort by their stamps. */
static void prune(const struct flue_stream *stream)
{
    const struct flue_stream_rotation *rotation = stream->rotation;
    const char *slash = strrchr(stream->path, '/');
    const char *name = slash ? slash + 1 : stream->path;
    size_t folder = (size_t)(name - stream->path), stem = stem_size(stream->path) - folder;
    const char *extension = name + stem;
    char *names[4096], path[PATH_MAX];
    size_t count = 0;
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof path, "%.*s", (int)(folder ? folder : 1), folder ? stream->path : ".");
    if (!(dir = opendir(path)))
        return;
    while ((entry = readdir(dir)) && count < sizeof names / sizeof names[0]) {
        size_t size = strlen(entry->d_name);
        if (size == stem + STAMP_SIZE + strlen(extension) &&
            strncmp(entry->d_name, name, stem) == 0 && entry->d_name[stem] == '-' &&
            strcmp(entry->d_name + stem + STAMP_SIZE, extension) == 0 &&
            (names[count] = strdup(entry->d_name)))
            count++;
    }
    closedir(dir);
    qsort(names, count, sizeof names[0], newest_first);
    time_t oldest = rotation->max_days ? time(NULL) - rotation->max_days * 86400 : 0;
    for (size_t i = 0; i < count; i++) {
        struct stat facts;
        snprintf(path, sizeof path, "%.*s%s", (int)folder, stream->path, names[i]);
        if ((rotation->max_backups && i >= (size_t)rotation->max_backups) ||
            (oldest && stat(path, &facts) == 0 && facts.st_mtime < oldest))
            unlink(path);
        free(names[i]);
    }
}

static enum flue_code rotate(struct flue_stream *stream, struct flue_error *error)
{
    char to[PATH_MAX], stamp[32];
    size_t stem = stem_size(stream->path);
    struct timespec now;
    struct tm when;

    clock_gettime(CLOCK_REALTIME, &now);
    if (!(stream->rotation->localtime ? localtime_r(&now.tv_sec, &when)
                                      : gmtime_r(&now.tv_sec, &when)))
        return flue_fail(error, FLUE_IO, "the time of a rotated file cannot be written down");
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H-%M-%S", &when);
    snprintf(to, sizeof to, "%.*s-%s.%03ld%s", (int)stem, stream->path, stamp,
             now.tv_nsec / 1000000, stream->path + stem);
    close(stream->fd);
    stream->fd = -1;
    if (rename(stream->path, to) != 0)
        return io_failed(error, "rotating", stream->path);
    prune(stream);
    return open_file(stream, error);
}

static enum flue_code write_message(struct flue_stream *stream, struct flue_bytes message,
                                    bool framed, struct flue_error *error)
{
    uint8_t prefix[4] = {(uint8_t)(message.size >> 24), (uint8_t)(message.size >> 16),
                         (uint8_t)(message.size >> 8), (uint8_t)message.size};
    struct iovec parts[2] = {{prefix, 4}, {(void *)(uintptr_t)message.data, message.size}};
    size_t total = message.size + (framed ? 4 : 1), done = 0;
    char newline = '\n';

    if (!framed) {
        parts[0] = parts[1];
        parts[1] = (struct iovec){&newline, 1};
    }
    while (done < total) {
        struct iovec left[2];
        int count = 0;
        size_t skip = done;
        for (int i = 0; i < 2; i++) {
            if (skip >= parts[i].iov_len) {
                skip -= parts[i].iov_len;
                continue;
            }
            left[count].iov_base = (char *)parts[i].iov_base + skip;
            left[count++].iov_len = parts[i].iov_len - skip;
            skip = 0;
        }
        ssize_t n = writev(stream->fd, left, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            io_failed(error, "writing", stream->path);
            if (done && ftruncate(stream->fd, stream->size) != 0)
                flue_log(FLUE_ERROR, "exporter/file", "a half-written message could not be removed",
                         FLUE_S("path", stream->path), FLUE_LOG_END);
            return FLUE_IO;
        }
        done += (size_t)n;
    }
    stream->size += (off_t)total;
    return FLUE_OK;
}

enum flue_code flue_stream_write(struct flue_stream *stream, struct flue_bytes message, bool framed,
                                 struct flue_error *error)
{
    enum flue_code code = FLUE_OK;

    if (message.size > UINT32_MAX)
        return flue_fail(error, FLUE_TOO_LARGE,
                         "a message of %zu bytes does not fit its 32-bit length", message.size);
    pthread_mutex_lock(&stream->lock);
    if (stream->fd < 0)
        code = open_file(stream, error);
    if (!code && stream->rotation && stream->rotation->max_megabytes && stream->size > 0 &&
        stream->size + (off_t)message.size + 4 > (off_t)stream->rotation->max_megabytes << 20)
        code = rotate(stream, error);
    if (!code)
        code = write_message(stream, message, framed, error);
    pthread_mutex_unlock(&stream->lock);
    return code;
}
