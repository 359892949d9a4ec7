/* storage.c: the life of a log: made, started, closed; its queues and metrics. See storage.h. */
#include "collector/storage/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"

#define SEGMENT_BYTES       (UINT64_C(128) << 20)
#define LEAST_SEGMENT_BYTES (UINT64_C(64) << 10)
#define MOST_SEGMENT_BYTES  (UINT64_C(1) << 30)
#define LEAST_FINISHED      (UINT64_C(1) << 20)
#define LOCK_POLL_NS        10000000

void flue_storage_path(const struct flue_storage *storage, const char *name, char *out)
{
    snprintf(out, FLUE_STORAGE_PATH, "%s/%s", storage->directory, name);
}

void flue_storage_segment_path(const struct flue_storage *storage, uint64_t number,
                               const char *suffix, char *out)
{
    char name[64];
    flue_segment_name(number, suffix, name);
    flue_storage_path(storage, name, out);
}

/* ---- made ------------------------------------------------------------------------------------ */

static void make_metrics(struct flue_storage *storage, struct flue_metrics *metrics)
{
    static const double seconds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                     0.025,  0.05,    0.1,    0.25,  0.5,    1,     5};
    const struct flue_label labels[] = {{"storage", storage->id}, {NULL, NULL}};
    struct flue_label failing[] = {{"storage", storage->id}, {"operation", "write"}, {NULL, NULL}};
    static const char failures[] = "disk operations of a storage that failed";
    storage->bytes =
        flue_metric(metrics, FLUE_GAUGE, "storage_size_bytes",
                    "bytes of a storage's segments on disk, preallocated ones too", labels);
    storage->records = flue_metric(metrics, FLUE_GAUGE, "storage_owed_records",
                                   "records that queues owe, added up over the queues", labels);
    storage->appended = flue_metric(metrics, FLUE_COUNTER, "storage_appended_records",
                                    "records written and acknowledged", labels);
    storage->appended_bytes = flue_metric(metrics, FLUE_COUNTER, "storage_appended_bytes",
                                          "bytes of records written and acknowledged", labels);
    storage->syncs = flue_metric(metrics, FLUE_COUNTER, "storage_syncs",
                                 "syncs of records; one covers all that waited", labels);
    storage->torn = flue_metric(metrics, FLUE_COUNTER, "storage_torn_segments",
                                "segments whose last write is broken; it was never acknowledged, "
                                "unless the disk has lost it since",
                                labels);
    storage->damaged =
        flue_metric(metrics, FLUE_COUNTER, "storage_damaged_records",
                    "records, notes and headers whose checksum is wrong, set aside", labels);
    storage->write_failures =
        flue_metric(metrics, FLUE_COUNTER, "storage_failures", failures, failing);
    failing[1].value = "sync";
    storage->sync_failures =
        flue_metric(metrics, FLUE_COUNTER, "storage_failures", failures, failing);
    failing[1].value = "read";
    storage->read_failures =
        flue_metric(metrics, FLUE_COUNTER, "storage_failures", failures, failing);
    storage->sync_seconds =
        flue_histogram(metrics, "storage_sync_seconds", "how long a sync of records took", labels,
                       seconds, sizeof seconds / sizeof seconds[0]);
}

static bool init_locks(struct flue_storage *storage)
{
    pthread_condattr_t monotonic; /* the wall clock may jump */
    if (pthread_condattr_init(&monotonic) != 0)
        return false;
    bool good = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 &&
                pthread_cond_init(&storage->work, &monotonic) == 0;
    pthread_condattr_destroy(&monotonic);
    return good && pthread_cond_init(&storage->inbox_work, NULL) == 0 &&
           pthread_mutex_init(&storage->lock, NULL) == 0 &&
           pthread_mutex_init(&storage->inbox_lock, NULL) == 0;
}

enum flue_code flue_storage_new(const struct flue_storage_config *config, const char *id,
                                struct flue_loops *loops, struct flue_metrics *metrics,
                                struct flue_storage **out, struct flue_error *error)
{
    size_t longest = FLUE_STORAGE_PATH - 128; /* names of files come behind it */
    if (strlen(config->directory) >= longest)
        return flue_fail(error, FLUE_INVALID, "directory: %zu bytes long, limit %zu",
                         strlen(config->directory), longest - 1);
    struct flue_storage *storage = calloc(1, sizeof *storage);
    if (!storage || !init_locks(storage)) {
        free(storage);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the storage %s", id);
    }
    storage->id = strdup(id);
    storage->directory = strdup(config->directory);
    if (!storage->id || !storage->directory) {
        flue_storage_close(storage);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the storage %s", id);
    }
    size_t size = strlen(storage->directory);
    while (size > 1 && storage->directory[size - 1] == '/')
        storage->directory[--size] = 0;
    uint64_t bytes = config->segment_bytes > 0 ? (uint64_t)config->segment_bytes : SEGMENT_BYTES;
    if (bytes < LEAST_SEGMENT_BYTES)
        bytes = LEAST_SEGMENT_BYTES;
    storage->segment_bytes = bytes < MOST_SEGMENT_BYTES ? bytes : MOST_SEGMENT_BYTES;
    storage->create_directory = config->create_directory;
    storage->directory_mode = config->directory_mode ? config->directory_mode : 0750;
    storage->fsync = config->fsync;
    storage->timeout = config->timeout;
    storage->io = &flue_storage_system;
    storage->loops = loops;
    storage->lock_fd = storage->reader.fd = storage->writer.fd = -1;
    storage->next_number = storage->next_note = 1;
    storage->reader.least_limit = LEAST_FINISHED;
    storage->appends_end = &storage->appends;
    storage->note_puts_end = &storage->note_puts;
    storage->reads_end = &storage->reads;
    make_metrics(storage, metrics);
    *out = storage;
    return FLUE_OK;
}

void flue_storage_use_io(struct flue_storage *storage, const struct flue_storage_io *io)
{
    storage->io = io;
}

const char *flue_storage_id(const struct flue_storage *storage)
{
    return storage->id;
}

/* ---- queues ---------------------------------------------------------------------------------- */

struct flue_storage_queue *flue_storage_queue_named(struct flue_storage *storage, const char *name,
                                                    size_t size)
{
    for (unsigned i = 0; i < storage->queue_count; i++)
        if (strlen(storage->queues[i]->name) == size &&
            memcmp(storage->queues[i]->name, name, size) == 0)
            return storage->queues[i];
    if (storage->queue_count == FLUE_STORAGE_QUEUES || memchr(name, 0, size))
        return NULL;
    struct flue_storage_queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return NULL;
    memcpy(queue->name, name, size);
    queue->storage = storage;
    queue->slot = storage->queue_count;
    storage->queues[storage->queue_count++] = queue;
    return queue;
}

bool flue_storage_slots(struct flue_storage *storage, const struct flue_storage_block *block,
                        uint8_t *slots)
{
    for (uint32_t i = 0; i < block->queue_count; i++) {
        const struct flue_storage_queue *queue =
            flue_storage_queue_named(storage, block->names[i].text, block->names[i].size);
        if (!queue)
            return false;
        slots[i] = (uint8_t)queue->slot;
    }
    return true;
}

void flue_storage_names(const struct flue_storage *storage, struct flue_storage_block *block)
{
    block->queue_count = storage->queue_count;
    for (unsigned i = 0; i < storage->queue_count; i++) {
        size_t size = strlen(storage->queues[i]->name);
        block->names[i].size = (uint8_t)size;
        memcpy(block->names[i].text, storage->queues[i]->name, size);
    }
}

enum flue_code flue_storage_queue_open(struct flue_storage *storage, const char *exporter,
                                       struct flue_storage_queue **out, struct flue_error *error)
{
    size_t size = strlen(exporter);
    if (size == 0 || size > FLUE_STORAGE_NAME)
        return flue_fail(error, FLUE_INVALID,
                         "the id of an exporter with storage has %zu bytes: 1 to %u are possible",
                         size, FLUE_STORAGE_NAME);
    pthread_mutex_lock(&storage->lock);
    unsigned before = storage->queue_count;
    struct flue_storage_queue *queue = flue_storage_queue_named(storage, exporter, size);
    bool full = before == FLUE_STORAGE_QUEUES;
    if (queue) {
        queue->opened = true;
        if (storage->started && storage->queue_count != before) {
            storage->rewrite = true; /* `finished` must know its name */
            pthread_cond_signal(&storage->work);
        }
    }
    pthread_mutex_unlock(&storage->lock);
    if (!queue && full)
        return flue_fail(error, FLUE_INVALID,
                         "%s: a log has at most %u queues, those of earlier configurations that "
                         "still owe something included: give %s another file_storage",
                         storage->id, FLUE_STORAGE_QUEUES, exporter);
    if (!queue)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the queue of %s", exporter);
    *out = queue;
    return FLUE_OK;
}

void flue_storage_settle(struct flue_storage *storage)
{
    char names[400];
    size_t at = 0, count = 0;
    uint64_t records = 0;
    names[0] = 0;
    for (unsigned i = 0; i < storage->queue_count; i++) {
        const struct flue_storage_queue *queue = storage->queues[i];
        if (queue->opened || !queue->recovered.records)
            continue;
        count++;
        records += queue->recovered.records;
        if (at < sizeof names)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "",
                                   queue->name);
    }
    if (count && !storage->settled)
        flue_log(FLUE_WARN, "storage",
                 "queues on disk that no exporter of this configuration names keep their records: "
                 "name the exporter again, or remove the directory",
                 FLUE_S("storage", storage->id), FLUE_S("directory", storage->directory),
                 FLUE_S("queues", names), FLUE_U("records", records), FLUE_LOG_END);
    storage->settled = true;
}

/* ---- watchers -------------------------------------------------------------------------------- */

static void watcher_run(struct flue_task *task)
{
    struct flue_storage_watcher *watcher = (struct flue_storage_watcher *)task;
    struct flue_storage *storage = watcher->storage;
    if (!storage) {
        free(watcher);
        return;
    }
    pthread_mutex_lock(&storage->lock);
    watcher->posted = false;
    void (*ready)(void *arg) = watcher->queue->watch_loop ? watcher->queue->ready : NULL;
    void *arg = watcher->queue->ready_arg;
    pthread_mutex_unlock(&storage->lock);
    if (ready)
        ready(arg);
}

void flue_storage_watch(struct flue_storage_queue *queue, struct flue_loop *loop,
                        void (*ready)(void *arg), void *arg)
{
    struct flue_storage *storage = queue->storage;
    pthread_mutex_lock(&storage->lock);
    queue->watch_loop = loop;
    queue->ready = ready;
    queue->ready_arg = arg;
    if (!queue->watcher) {
        queue->watcher = calloc(1, sizeof *queue->watcher);
        if (queue->watcher)
            *queue->watcher = (struct flue_storage_watcher){
                .task = {.run = watcher_run}, .storage = storage, .queue = queue};
    }
    pthread_mutex_unlock(&storage->lock);
}

/* The loops do not run: a task that is posted runs when they are destroyed, and frees it. */
static void watcher_free(struct flue_storage_watcher *watcher)
{
    if (watcher && watcher->posted)
        watcher->storage = NULL;
    else
        free(watcher);
}

/* ---- start and close ------------------------------------------------------------------------- */

static enum flue_code make_directory(struct flue_storage *storage, struct flue_error *error)
{
    char path[FLUE_STORAGE_PATH];
    size_t size = strlen(storage->directory);
    memcpy(path, storage->directory, size + 1);
    for (size_t i = 1; i <= size; i++) { /* with those above it, as mkdir -p */
        if (path[i] != '/' && path[i] != 0)
            continue;
        path[i] = 0;
        int failure = storage->io->make_folder(storage->io, path, storage->directory_mode);
        if (failure < 0 && failure != -EEXIST && i == size)
            return flue_storage_io_fail(error, failure, "create the directory", path);
        if (i < size)
            path[i] = '/';
    }
    return FLUE_OK;
}

static enum flue_code lock_directory(struct flue_storage *storage, struct flue_error *error)
{
    char path[FLUE_STORAGE_PATH];
    flue_storage_path(storage, "lock", path);
    int fd = storage->io->open(storage->io, path, O_RDWR | O_CREAT, 0640);
    if (fd < 0)
        return fd == -ENOENT
                   ? flue_fail(error, FLUE_UNAVAILABLE,
                               "there is no directory %s: create it, or set create_directory: true",
                               storage->directory)
                   : flue_storage_io_fail(error, fd, "create", path);
    storage->lock_fd = fd;
    uint64_t until = flue_monotonic_ns() + (storage->timeout > 0 ? (uint64_t)storage->timeout : 0);
    for (;;) {
        int failure = storage->io->lock(storage->io, fd);
        if (failure >= 0)
            return FLUE_OK;
        if (failure != -EWOULDBLOCK)
            return flue_storage_io_fail(error, failure, "lock", path);
        if (flue_monotonic_ns() >= until)
            return flue_fail(error, FLUE_UNAVAILABLE,
                             "%s is in use by another process, or by another file_storage of "
                             "this one: end that, or give this one "
                             "another directory",
                             storage->directory);
        struct timespec pause = {0, LOCK_POLL_NS};
        nanosleep(&pause, NULL);
    }
}

enum flue_code flue_storage_start(struct flue_storage *storage, struct flue_error *error)
{
    if (storage->started)
        return FLUE_OK;
    enum flue_code code = FLUE_OK;
    if (storage->create_directory)
        code = make_directory(storage, error);
    if (!code)
        code = lock_directory(storage, error);
    if (!code)
        code = flue_storage_recover(storage, error);
    if (!code) {
        int failure = flue_finished_rewrite(storage);
        if (failure) { /* a full disk must not keep flue from sending what makes it less full */
            struct flue_error why;
            flue_metric_add(storage->write_failures, 1);
            flue_storage_io_fail(&why, failure, "write finished in", storage->directory);
            flue_log(FLUE_WARN, "storage",
                     "what is finished cannot be written down: a kill would send it again",
                     FLUE_S("storage", storage->id), FLUE_S("error", why.text), FLUE_LOG_END);
            storage->rewrite = true;
        }
        if (!flue_storage_reader_run(storage) || !flue_storage_writer_run(storage))
            code = flue_fail(error, FLUE_NO_MEMORY, "cannot start the threads of %s", storage->id);
    }
    if (code) {
        flue_storage_writer_stop(storage);
        flue_storage_reader_stop(storage);
        return flue_fail_prefix(error, "%s", storage->id);
    }
    storage->started = true;
    return FLUE_OK;
}

enum flue_code flue_storage_open(const struct flue_storage_config *config, const char *id,
                                 struct flue_loops *loops, struct flue_metrics *metrics,
                                 struct flue_storage **out, struct flue_error *error)
{
    enum flue_code code = flue_storage_new(config, id, loops, metrics, out, error);
    if (code)
        return code;
    code = flue_storage_start(*out, error);
    if (code) {
        flue_storage_close(*out);
        *out = NULL;
    }
    return code;
}

void flue_storage_close(struct flue_storage *storage)
{
    if (!storage)
        return;
    flue_storage_writer_stop(storage);
    flue_storage_reader_stop(storage);
    if (storage->reader.fd >= 0)
        storage->io->close(storage->io, storage->reader.fd);
    if (storage->lock_fd >= 0)
        storage->io->close(storage->io, storage->lock_fd);
    int64_t bytes = 0, records = 0;
    for (size_t i = 0; i < storage->segment_count; i++) {
        bytes += (int64_t)storage->segments[i]->file_size;
        flue_storage_segment_free(storage->segments[i]);
    }
    while (storage->dead) { /* only where the reader never ran */
        struct flue_storage_segment *segment = storage->dead;
        storage->dead = segment->next_dead;
        bytes += (int64_t)segment->file_size;
        flue_storage_segment_free(segment);
    }
    for (unsigned i = 0; i < storage->queue_count; i++) {
        records += (int64_t)storage->queues[i]->lag.records;
        watcher_free(storage->queues[i]->watcher);
        free(storage->queues[i]);
    }
    if (storage->bytes) {
        flue_metric_add(storage->bytes, -bytes);
        flue_metric_add(storage->records, -records);
    }
    free(storage->segments);
    free(storage->notes);
    free(storage->note_drops);
    free(storage->id);
    free(storage->directory);
    pthread_mutex_destroy(&storage->lock);
    pthread_mutex_destroy(&storage->inbox_lock);
    pthread_cond_destroy(&storage->work);
    pthread_cond_destroy(&storage->inbox_work);
    free(storage);
}
