/* writer.c: group commit. One thread takes all that waits, writes it with one pwritev (more where
 * the list is longer than the system takes), syncs once, and posts every `done`.
 *
 * A failed write or sync ends the segment. Nothing is known of the pages that a failed fsync
 * covered: the kernel may call them clean though they never reached the disk, so another fsync of
 * the same file would say "done" of data that is not there. The segment is cut back to what earlier
 * syncs covered, never written again, and the next segment's header repeats the cut, so that not
 * even a scan finds what was refused.
 */
#include "collector/storage/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"

#define BATCH_RECORDS 1024u
#define BATCH_PARTS   16384u
#define BATCH_BYTES   (UINT64_C(8) << 20) /* in one sync: a slow disk makes nobody wait for more */
#define FIRST_WAIT_NS UINT64_C(100000000)
#define LAST_WAIT_NS  UINT64_C(5000000000)

/* ---- what comes in --------------------------------------------------------------------------- */

static void append_done(struct flue_task *task)
{
    struct flue_storage_append *append =
        (struct flue_storage_append *)((char *)task - offsetof(struct flue_storage_append, task));
    append->done(append, append->error.code, append->error.code ? &append->error : NULL);
}

static void answer(struct flue_storage_append *append)
{
    append->task.run = append_done;
    flue_loop_post(append->loop, &append->task);
}

void flue_storage_append(struct flue_storage *storage, struct flue_storage_append *append)
{
    append->next = NULL;
    append->record = 0;
    append->error.code = FLUE_OK;
    append->error.retry_after_ms = 0;
    append->error.text[0] = 0;
    if (append->head->total > FLUE_STORAGE_HEAD)
        flue_fail(&append->error, FLUE_TOO_LARGE, "the head of a record has %zu bytes, limit %u",
                  append->head->total, FLUE_STORAGE_HEAD);
    else if (append->body->total > FLUE_STORAGE_BODY)
        flue_fail(&append->error, FLUE_TOO_LARGE, "a batch of %zu bytes, limit of the log %u",
                  append->body->total, FLUE_STORAGE_BODY);
    else if (append->queue_count == 0)
        flue_fail(&append->error, FLUE_INTERNAL, "a record that no queue owes");
    if (append->error.code) {
        answer(append);
        return;
    }
    pthread_mutex_lock(&storage->inbox_lock);
    bool first = !storage->appends && !storage->note_puts;
    *storage->appends_end = append;
    storage->appends_end = &append->next;
    if (first)
        pthread_cond_signal(&storage->inbox_work);
    pthread_mutex_unlock(&storage->inbox_lock);
}

static void note_done(struct flue_task *task)
{
    struct flue_storage_note *note =
        (struct flue_storage_note *)((char *)task - offsetof(struct flue_storage_note, task));
    note->done(note, note->error.code, note->error.code ? &note->error : NULL);
}

void flue_storage_note_put(struct flue_storage_note *note)
{
    struct flue_storage *storage = note->queue->storage;
    note->next = NULL;
    note->error.code = FLUE_OK;
    note->error.retry_after_ms = 0;
    note->error.text[0] = 0;
    pthread_mutex_lock(&storage->inbox_lock);
    bool first = !storage->appends && !storage->note_puts;
    *storage->note_puts_end = note;
    storage->note_puts_end = &note->next;
    if (first)
        pthread_cond_signal(&storage->inbox_work);
    pthread_mutex_unlock(&storage->inbox_lock);
}

/* ---- segments -------------------------------------------------------------------------------- */

static void failed(struct flue_storage *storage, int failure, const char *what, const char *path)
{
    struct flue_storage_writer *writer = &storage->writer;
    flue_metric_add(what[0] == 's' ? storage->sync_failures : storage->write_failures, 1);
    flue_storage_io_fail(&writer->failure, failure, what, path);
    flue_fail_prefix(&writer->failure, "%s", storage->id);
    writer->wait_ns = writer->wait_ns ? writer->wait_ns * 2 : FIRST_WAIT_NS;
    if (writer->wait_ns > LAST_WAIT_NS)
        writer->wait_ns = LAST_WAIT_NS;
    writer->retry_at = flue_monotonic_ns() + writer->wait_ns;
    flue_log(FLUE_ERROR, "storage", "new data is refused until a new segment can be written",
             FLUE_S("storage", storage->id), FLUE_S("error", writer->failure.text),
             FLUE_U("next_try_ms", writer->wait_ns / 1000000), FLUE_LOG_END);
}

/* The open segment is written no more. Holds the lock afterwards. */
static void leave_segment(struct flue_storage *storage, uint64_t size)
{
    struct flue_storage_writer *writer = &storage->writer;
    struct flue_storage_segment *segment = writer->segment;
    storage->io->close(storage->io, writer->fd);
    writer->fd = -1;
    writer->segment = NULL;
    pthread_mutex_lock(&storage->lock);
    flue_metric_add(storage->bytes, (int64_t)size - (int64_t)segment->file_size);
    segment->file_size = size;
    segment->open = false;
    storage->open_number = 0;
}

/* The rows of the open segment, and where it ends, as a footer. */
static void seal_segment(struct flue_storage *storage)
{
    struct flue_storage_writer *writer = &storage->writer;
    struct flue_storage_segment *segment = writer->segment;
    char path[FLUE_STORAGE_PATH];
    uint64_t size = writer->capacity;
    if (!segment)
        return;
    int failure = segment->count ? flue_segment_seal(storage->io, writer->fd, segment->salt,
                                                     segment->number, segment->rows, segment->count,
                                                     writer->offset, storage->fsync, &size)
                                 : 0;
    if (failure) { /* every record in it is synced: it is read, and scanned at the next start */
        struct flue_error error;
        flue_storage_segment_path(storage, segment->number, FLUE_STORAGE_SUFFIX, path);
        flue_metric_add(storage->write_failures, 1);
        flue_storage_io_fail(&error, failure, "seal", path);
        flue_log(FLUE_WARN, "storage", "a segment stays without footer",
                 FLUE_S("storage", storage->id), FLUE_S("error", error.text), FLUE_LOG_END);
    }
    leave_segment(storage, size);
    segment->pinned = failure != 0;
    if (!segment->pinned && segment->rows)
        flue_storage_rows_cache(storage, segment);
    flue_storage_segment_retire(storage, segment);
    pthread_mutex_unlock(&storage->lock);
}

static void abandon_segment(struct flue_storage *storage)
{
    struct flue_storage_writer *writer = &storage->writer;
    struct flue_storage_segment *segment = writer->segment;
    uint64_t size = writer->capacity;
    if (storage->io->truncate(storage->io, writer->fd, writer->offset) >= 0)
        size = writer->offset;
    leave_segment(storage, size);
    segment->pinned = true;
    segment->cut = writer->offset;
    if (storage->cut_count < FLUE_STORAGE_CUTS)
        storage->cuts[storage->cut_count++] =
            (struct flue_storage_cut){segment->number, segment->cut};
    flue_storage_segment_retire(storage, segment);
    pthread_mutex_unlock(&storage->lock);
}

static int write_header(struct flue_storage *storage, int fd,
                        const struct flue_storage_segment *segment)
{
    struct flue_storage_block *block = calloc(1, sizeof *block);
    if (!block)
        return -ENOMEM;
    block->number = segment->number;
    block->salt = segment->salt;
    block->created_ns = flue_wall_ns();
    pthread_mutex_lock(&storage->lock);
    flue_storage_names(storage, block);
    block->cut_count = storage->cut_count;
    memcpy(block->cuts, storage->cuts, storage->cut_count * sizeof storage->cuts[0]);
    pthread_mutex_unlock(&storage->lock);
    flue_storage_block_seal(block, FLUE_SEGMENT_MAGIC);
    struct iovec copies[2] = {{block, sizeof *block}, {block, sizeof *block}};
    int failure = flue_storage_write_all(storage->io, fd, copies, 2, 0);
    free(block);
    return failure;
}

/* The header and the name in the folder are on disk before the first record is written, so that a
 * segment without a header never held anything. */
static int create_segment(struct flue_storage *storage, struct flue_storage_segment *segment,
                          const char *path, const char **what)
{
    struct flue_storage_writer *writer = &storage->writer;
    const struct flue_storage_io *io = storage->io;
    *what = "create";
    int fd = io->open(io, path, O_RDWR | O_CREAT | O_EXCL, 0640);
    if (fd < 0)
        return fd;
    *what = "allocate";
    int failure = io->allocate(io, fd, writer->capacity);
    if (failure >= 0) {
        *what = "write";
        failure = write_header(storage, fd, segment);
    }
    if (failure >= 0 && storage->fsync) {
        *what = "sync";
        failure = io->sync(io, fd);
        if (failure >= 0)
            failure = io->sync_folder(io, storage->directory);
    }
    if (failure < 0) {
        io->close(io, fd);
        io->unlink(io, path);
        return failure;
    }
    writer->fd = fd;
    return 0;
}

static bool open_segment(struct flue_storage *storage, uint64_t record_size)
{
    struct flue_storage_writer *writer = &storage->writer;
    char path[FLUE_STORAGE_PATH];
    const char *what = "create";
    if (writer->retry_at && flue_monotonic_ns() < writer->retry_at)
        return false;
    uint64_t need = FLUE_STORAGE_DATA + record_size + sizeof(struct flue_storage_row) +
                    sizeof(struct flue_storage_trailer);
    writer->capacity = need > storage->segment_bytes ? need : storage->segment_bytes;
    pthread_mutex_lock(&storage->lock);
    uint64_t number = storage->open_number = storage->next_number++;
    pthread_mutex_unlock(&storage->lock);
    flue_storage_segment_path(storage, number, FLUE_STORAGE_SUFFIX, path);
    struct flue_storage_segment *segment = flue_storage_segment_new(number, flue_random_u64());
    int failure = segment ? create_segment(storage, segment, path, &what) : -ENOMEM;
    if (!failure) {
        segment->open = segment->pinned = true;
        segment->file_size = writer->capacity;
        pthread_mutex_lock(&storage->lock);
        bool added = flue_storage_segment_add(storage, segment);
        pthread_mutex_unlock(&storage->lock);
        if (!added) {
            storage->io->close(storage->io, writer->fd);
            storage->io->unlink(storage->io, path);
            writer->fd = -1;
            failure = -ENOMEM;
        }
    }
    if (failure) {
        pthread_mutex_lock(&storage->lock);
        storage->open_number = 0;
        pthread_mutex_unlock(&storage->lock);
        flue_storage_segment_free(segment);
        failed(storage, failure, what, path);
        return false;
    }
    flue_metric_add(storage->bytes, (int64_t)writer->capacity);
    writer->segment = segment;
    writer->offset = writer->synced = FLUE_STORAGE_DATA;
    return true;
}

/* ---- batches --------------------------------------------------------------------------------- */

struct batch {
    struct flue_storage_append *first, **end;
    size_t count, parts;
    uint64_t bytes;
};

static void refuse(struct flue_storage *storage, struct flue_storage_append *append)
{
    const struct flue_storage_writer *writer = &storage->writer;
    uint64_t now = flue_monotonic_ns();
    append->error = writer->failure;
    append->error.retry_after_ms =
        writer->retry_at > now ? (uint32_t)((writer->retry_at - now) / 1000000) + 1 : 1;
    append->record = 0;
    answer(append);
}

/* The batch is durable: from now on it can be taken. */
static void publish(struct flue_storage *storage, struct batch *batch)
{
    struct flue_storage_writer *writer = &storage->writer;
    struct flue_storage_segment *segment = writer->segment;
    const struct flue_storage_append *append = batch->first;
    uint64_t at = writer->offset;
    pthread_mutex_lock(&storage->lock);
    for (size_t i = 0; i < batch->count; i++, append = append->next) {
        const struct flue_storage_record *record = &writer->records[i];
        uint32_t index = segment->count;
        segment->rows[index] = flue_storage_row_of(record, at);
        at += flue_storage_record_size(record->head_size, record->body_size);
        if (!segment->first_ns)
            segment->first_ns = record->time_ns;
        segment->count++;
        for (size_t q = 0; q < append->queue_count; q++) {
            struct flue_storage_queue *queue = append->queues[q];
            bool taken = q < 64 && (append->taken >> q & 1);
            flue_storage_owe(storage, segment, index, &segment->rows[index], queue->slot, taken);
            if (!taken)
                flue_storage_notify(queue);
        }
    }
    pthread_mutex_unlock(&storage->lock);
    flue_metric_add(storage->appended, (int64_t)batch->count);
    flue_metric_add(storage->appended_bytes, (int64_t)batch->bytes);
    writer->offset = at;
}

static bool write_batch(struct flue_storage *storage, struct batch *batch)
{
    struct flue_storage_writer *writer = &storage->writer;
    const char *what = "write";
    int failure = flue_storage_write_all(storage->io, writer->fd, writer->parts, batch->parts,
                                         writer->offset);
    if (!failure && storage->fsync) {
        uint64_t begun = flue_monotonic_ns();
        what = "sync";
        failure = storage->io->sync(storage->io, writer->fd);
        flue_metric_add(storage->syncs, 1);
        flue_histogram_observe(storage->sync_seconds, (double)(flue_monotonic_ns() - begun) / 1e9);
    }
    if (failure >= 0)
        return true;
    char path[FLUE_STORAGE_PATH];
    flue_storage_segment_path(storage, writer->segment->number, FLUE_STORAGE_SUFFIX, path);
    failed(storage, failure, what, path);
    abandon_segment(storage);
    return false;
}

static void commit(struct flue_storage *storage, struct batch *batch)
{
    struct flue_storage_writer *writer = &storage->writer;
    if (!batch->count)
        return;
    bool good = write_batch(storage, batch);
    if (good) {
        publish(storage, batch);
        writer->synced = writer->offset;
        writer->wait_ns = writer->retry_at = 0;
    }
    struct flue_storage_append *append = batch->first;
    for (size_t i = 0; i < batch->count; i++) {
        struct flue_storage_append *next = append->next; /* answered, it may be gone */
        if (good)
            answer(append);
        else
            refuse(storage, append);
        append = next;
    }
    *batch = (struct batch){.end = &batch->first};
}

static bool reserve(struct flue_storage *storage, const struct flue_storage_append *append,
                    const struct batch *batch)
{
    struct flue_storage_writer *writer = &storage->writer;
    struct flue_storage_segment *segment = writer->segment;
    size_t parts = batch->parts + append->head->count + append->body->count + 2;
    if (!writer->records)
        writer->records = malloc(BATCH_RECORDS * sizeof *writer->records);
    if (parts > writer->part_room) {
        size_t room = writer->part_room ? writer->part_room : 256;
        while (room < parts)
            room *= 2;
        struct iovec *grown = realloc(writer->parts, room * sizeof *grown);
        if (!grown)
            return false;
        writer->parts = grown;
        writer->part_room = room;
    }
    uint32_t index = segment->count + (uint32_t)batch->count;
    pthread_mutex_lock(&storage->lock);
    bool good = writer->records && flue_storage_rows_reserve(segment, index + 1);
    for (size_t q = 0; good && q < append->queue_count; q++)
        good = flue_storage_share_reserve(segment, append->queues[q]->slot, index);
    pthread_mutex_unlock(&storage->lock);
    return good;
}

static uint32_t add_slices(struct flue_storage_writer *writer, struct batch *batch,
                           const struct flue_slices *slices)
{
    uint32_t crc = 0;
    for (size_t i = 0; i < slices->count; i++) {
        struct flue_bytes b = slices->items[i];
        if (!b.size)
            continue;
        crc = flue_crc32c(crc, b.data, b.size);
        writer->parts[batch->parts++] = (struct iovec){(void *)(uintptr_t)b.data, b.size};
    }
    return crc;
}

static void add(struct flue_storage *storage, struct batch *batch,
                struct flue_storage_append *append, uint64_t size)
{
    static const uint8_t zeros[FLUE_STORAGE_ALIGN];
    struct flue_storage_writer *writer = &storage->writer;
    struct flue_storage_record *record = &writer->records[batch->count];
    append->record =
        writer->segment->number << 16 | (writer->segment->count + (uint32_t)batch->count);
    *record = (struct flue_storage_record){
        .salt = writer->segment->salt,
        .record = append->record,
        .time_ns = append->time_ns,
        .profiles = append->counts.profiles,
        .samples = append->counts.samples,
        .bytes = append->counts.bytes,
        .synced = writer->synced,
        .head_size = (uint32_t)append->head->total,
        .body_size = (uint32_t)append->body->total,
    };
    for (size_t q = 0; q < append->queue_count; q++)
        record->owing |= UINT64_C(1) << append->queues[q]->slot;
    writer->parts[batch->parts++] = (struct iovec){record, sizeof *record};
    record->head_crc = add_slices(writer, batch, append->head);
    record->body_crc = add_slices(writer, batch, append->body);
    size_t padding = (size_t)(size - sizeof *record - record->head_size - record->body_size);
    if (padding)
        writer->parts[batch->parts++] = (struct iovec){(void *)(uintptr_t)zeros, padding};
    flue_storage_record_seal(record);
    *batch->end = append;
    batch->end = &append->next;
    batch->count++;
    batch->bytes += size;
}

static bool fits(const struct flue_storage_writer *writer, const struct batch *batch, uint64_t size)
{
    uint64_t count = writer->segment->count + batch->count + 1;
    return count <= FLUE_STORAGE_RECORDS && writer->offset + batch->bytes + size +
                                                    count * sizeof(struct flue_storage_row) +
                                                    sizeof(struct flue_storage_trailer) <=
                                                writer->capacity;
}

static void write_appends(struct flue_storage *storage, struct flue_storage_append *append)
{
    struct flue_storage_writer *writer = &storage->writer;
    struct batch batch = {.end = &batch.first};
    while (append) {
        struct flue_storage_append *next = append->next;
        uint64_t size = flue_storage_record_size(append->head->total, append->body->total);
        if (batch.count && (batch.count == BATCH_RECORDS || batch.bytes + size > BATCH_BYTES ||
                            batch.parts + append->head->count + append->body->count > BATCH_PARTS ||
                            !fits(writer, &batch, size)))
            commit(storage, &batch);
        if (writer->segment && !fits(writer, &batch, size))
            seal_segment(storage);
        if (!writer->segment && !open_segment(storage, size)) {
            refuse(storage, append);
        } else if (!reserve(storage, append, &batch)) {
            flue_fail(&append->error, FLUE_UNAVAILABLE, "%s: no memory to write a record",
                      storage->id);
            answer(append);
        } else {
            add(storage, &batch, append, size);
        }
        append = next;
    }
    commit(storage, &batch);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void *writer_main(void *arg)
{
    struct flue_storage *storage = arg;
    pthread_mutex_lock(&storage->inbox_lock);
    for (;;) {
        while (!storage->appends && !storage->note_puts && !storage->writer_ending)
            pthread_cond_wait(&storage->inbox_work, &storage->inbox_lock);
        struct flue_storage_append *appends = storage->appends;
        struct flue_storage_note *notes = storage->note_puts;
        if (!appends && !notes)
            break;
        storage->appends = NULL;
        storage->appends_end = &storage->appends;
        storage->note_puts = NULL;
        storage->note_puts_end = &storage->note_puts;
        pthread_mutex_unlock(&storage->inbox_lock);
        write_appends(storage, appends);
        while (notes) {
            struct flue_storage_note *next = notes->next;
            flue_notes_write(storage, notes);
            notes->task.run = note_done;
            flue_loop_post(notes->loop, &notes->task);
            notes = next;
        }
        pthread_mutex_lock(&storage->inbox_lock);
    }
    pthread_mutex_unlock(&storage->inbox_lock);
    seal_segment(storage);
    return NULL;
}

bool flue_storage_writer_run(struct flue_storage *storage)
{
    storage->writer.running =
        pthread_create(&storage->writer.thread, NULL, writer_main, storage) == 0;
    if (storage->writer.running)
        pthread_setname_np(storage->writer.thread, "storage-write");
    return storage->writer.running;
}

void flue_storage_writer_stop(struct flue_storage *storage)
{
    struct flue_storage_writer *writer = &storage->writer;
    if (writer->running) {
        pthread_mutex_lock(&storage->inbox_lock);
        storage->writer_ending = true;
        pthread_cond_signal(&storage->inbox_work);
        pthread_mutex_unlock(&storage->inbox_lock);
        pthread_join(writer->thread, NULL);
        writer->running = false;
    }
    free(writer->records);
    free(writer->parts);
    writer->records = NULL;
    writer->parts = NULL;
}
