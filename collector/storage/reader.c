/* reader.c: the second thread of a log: reads records and footers, writes down what is finished,
 * removes segments that nobody needs. None of it holds up an append. */
#include "collector/storage/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"

#define RETRY_NS   UINT64_C(1000000000)
#define READ_TRIES 5 /* a record that the disk cannot read is given up after as many */

/* ---- rows ------------------------------------------------------------------------------------ */

static int read_rows(struct flue_storage *storage, const struct flue_storage_segment *segment,
                     struct flue_segment_rows *rows)
{
    const struct flue_storage_io *io = storage->io;
    char path[FLUE_STORAGE_PATH];
    flue_storage_segment_path(storage, segment->number, FLUE_STORAGE_SUFFIX, path);
    int fd = io->open(io, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int64_t size = io->size(io, fd);
    int failure = size < 0 ? (int)size
                           : flue_segment_rows(io, fd, segment->salt, segment->number,
                                               (uint64_t)size, segment->cut, rows);
    io->close(io, fd);
    if (failure)
        return failure;
    /* What has rotten since it was recovered is there as damage, so that every index has a row. */
    if (rows->count < segment->count) {
        struct flue_storage_row *items = realloc(rows->items, segment->count * sizeof *rows->items);
        if (!items) {
            free(rows->items);
            return -ENOMEM;
        }
        rows->items = items;
        for (; rows->count < segment->count; rows->count++)
            items[rows->count] = (struct flue_storage_row){.flags = FLUE_ROW_DAMAGED};
    }
    return 0;
}

/* 0 or -errno. The segment is not freed meanwhile: this thread alone frees. */
static int load_rows(struct flue_storage *storage, struct flue_storage_segment *segment)
{
    struct flue_segment_rows rows;
    pthread_mutex_lock(&storage->lock);
    bool there = segment->rows != NULL;
    pthread_mutex_unlock(&storage->lock);
    if (there)
        return 0;
    int failure = read_rows(storage, segment, &rows);
    pthread_mutex_lock(&storage->lock);
    if (failure) {
        flue_metric_add(storage->read_failures, 1);
        segment->skip_until = flue_monotonic_ns() + RETRY_NS;
        segment->late = false; /* the sums stay too high until the next start */
    } else {
        segment->rows = rows.items;
        segment->rows_room = rows.count;
        segment->skip_until = 0;
        flue_storage_late(storage, segment);
        if (!segment->pinned) /* one that is retired is counted nowhere */
            flue_storage_rows_cache(storage, segment);
    }
    for (unsigned i = 0; i < storage->queue_count; i++)
        if (segment->shares[i] && segment->shares[i]->owed_count > segment->shares[i]->taken_count)
            flue_storage_notify(storage->queues[i]);
    pthread_mutex_unlock(&storage->lock);
    if (failure) {
        struct flue_error error;
        char path[FLUE_STORAGE_PATH];
        flue_storage_segment_path(storage, segment->number, FLUE_STORAGE_SUFFIX, path);
        flue_storage_io_fail(&error, failure, "read", path);
        flue_log(FLUE_ERROR, "storage", "a segment cannot be read now: others are sent meanwhile",
                 FLUE_S("storage", storage->id), FLUE_S("error", error.text), FLUE_LOG_END);
    }
    return failure;
}

static void load_wanted(struct flue_storage *storage)
{
    for (;;) {
        struct flue_storage_segment *wanted = NULL;
        pthread_mutex_lock(&storage->lock);
        for (size_t i = 0; storage->wanted && i < storage->segment_count && !wanted; i++)
            if (storage->segments[i]->wanted)
                wanted = storage->segments[i];
        if (wanted)
            wanted->wanted = false;
        else
            storage->wanted = false;
        pthread_mutex_unlock(&storage->lock);
        if (!wanted)
            break;
        load_rows(storage, wanted);
    }
}

/* What was finished without its row still stands in the lag. */
static void settle_late(struct flue_storage *storage)
{
    for (;;) {
        struct flue_storage_segment *late = NULL;
        pthread_mutex_lock(&storage->lock);
        for (size_t i = 0; i < storage->segment_count && !late; i++)
            if (storage->segments[i]->late)
                late = storage->segments[i];
        if (late && late->rows) {
            flue_storage_late(storage, late);
            late = NULL;
        }
        pthread_mutex_unlock(&storage->lock);
        if (!late)
            break;
        load_rows(storage, late);
    }
}

/* ---- reads ----------------------------------------------------------------------------------- */

static void read_done(struct flue_task *task)
{
    struct flue_storage_read *read =
        (struct flue_storage_read *)((char *)task - offsetof(struct flue_storage_read, job.task));
    read->done(read, read->error.code, read->error.code ? &read->error : NULL);
}

void flue_storage_read(struct flue_storage_read *read)
{
    struct flue_storage *storage = read->queue->storage;
    read->head = read->body = NULL;
    read->error.code = FLUE_OK;
    read->error.retry_after_ms = 0;
    read->error.text[0] = 0;
    read->job.next = NULL;
    pthread_mutex_lock(&storage->lock);
    *storage->reads_end = read;
    storage->reads_end = (struct flue_storage_read **)(void *)&read->job.next;
    pthread_cond_signal(&storage->work);
    pthread_mutex_unlock(&storage->lock);
}

/* How often the disk has failed to read this record. */
static unsigned count_failure(struct flue_storage_reader *reader, uint64_t record)
{
    size_t room = sizeof reader->failed / sizeof reader->failed[0];
    for (size_t i = 0; i < room; i++)
        if (reader->failed[i].record == record)
            return ++reader->failed[i].count;
    reader->failed_at = (unsigned)((reader->failed_at + 1) % room);
    reader->failed[reader->failed_at].record = record;
    return reader->failed[reader->failed_at].count = 1;
}

static void read_failed(struct flue_storage *storage, struct flue_storage_read *read, int failure,
                        const char *path, const struct flue_storage_row *row)
{
    if (failure == -EBADMSG) {
        flue_metric_add(storage->damaged, 1);
        flue_fail(&read->error, FLUE_INVALID,
                  "%s: the record %016llx of %s at byte %llu is damaged: its checksum is wrong",
                  storage->id, (unsigned long long)read->record, path,
                  (unsigned long long)row->offset);
        return;
    }
    flue_metric_add(storage->read_failures, 1);
    flue_storage_io_fail(&read->error, failure, "read", path);
    flue_fail_prefix(&read->error, "%s", storage->id);
    if (failure != -ENOMEM && failure != -EAGAIN &&
        count_failure(&storage->reader, read->record) >= READ_TRIES)
        read->error.code = FLUE_INVALID;
}

static struct flue_block *block_of(struct flue_account *account, uint32_t size)
{
    struct flue_block *block = flue_block_new(account, size);
    if (!block)
        return NULL;
    if (account) {
        flue_account_charge_always(account, size);
        block->charged = size;
    }
    block->size = size;
    flue_block_finish(block);
    return block;
}

static int read_record(struct flue_storage *storage, struct flue_storage_read *read, uint64_t salt,
                       const struct flue_storage_row *row, const char *path)
{
    const struct flue_storage_io *io = storage->io;
    if (row->flags)
        return -EBADMSG;
    read->head = block_of(NULL, row->head_size);
    read->body = block_of(read->account, row->body_size);
    if (!read->head || !read->body)
        return -ENOMEM;
    int fd = io->open(io, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int failure =
        flue_segment_record(io, fd, salt, read->record, row, read->head->data, read->body->data);
    io->close(io, fd);
    return failure;
}

/* 0 or -errno. The writer's sealing may drop the rows between their loading and the look at them:
 * then they are loaded again. */
static int find_row(struct flue_storage *storage, struct flue_storage_segment *segment,
                    uint32_t index, struct flue_storage_row *row, uint64_t *salt)
{
    for (;;) {
        pthread_mutex_lock(&storage->lock);
        bool there = segment->rows != NULL;
        if (there) {
            *row = segment->rows[index];
            *salt = segment->salt;
            segment->used = ++storage->tick;
        }
        pthread_mutex_unlock(&storage->lock);
        if (there)
            return 0;
        int failure = load_rows(storage, segment);
        if (failure)
            return failure;
    }
}

static void read_one(struct flue_storage *storage, struct flue_storage_read *read)
{
    char path[FLUE_STORAGE_PATH];
    uint64_t number = flue_storage_number(read->record);
    uint32_t index = flue_storage_index(read->record);
    flue_storage_segment_path(storage, number, FLUE_STORAGE_SUFFIX, path);
    pthread_mutex_lock(&storage->lock);
    struct flue_storage_segment *segment = flue_storage_segment_find(storage, number);
    struct flue_storage_share *share = segment ? segment->shares[read->queue->slot] : NULL;
    bool owed =
        share && index < share->capacity && flue_bit(flue_share_bits(share, FLUE_BITS_OWED), index);
    pthread_mutex_unlock(&storage->lock);
    if (!owed) {
        flue_fail(&read->error, FLUE_INVALID, "%s: %s does not owe the record %016llx", storage->id,
                  read->queue->name, (unsigned long long)read->record);
        return;
    }
    struct flue_storage_row row = {.flags = FLUE_ROW_LOST};
    uint64_t salt = 0;
    int failure = find_row(storage, segment, index, &row, &salt);
    if (!failure)
        failure = read_record(storage, read, salt, &row, path);
    if (!failure)
        return;
    flue_block_unref(read->head);
    flue_block_unref(read->body);
    read->head = read->body = NULL;
    read_failed(storage, read, failure, path, &row);
}

/* ---- removal --------------------------------------------------------------------------------- */

static void remove_dead(struct flue_storage *storage)
{
    for (;;) {
        pthread_mutex_lock(&storage->lock);
        struct flue_storage_segment *segment = storage->dead;
        if (segment)
            storage->dead = segment->next_dead;
        bool dirty = segment && segment->dirty;
        if (dirty) { /* first it is written down; it comes again */
            segment->next_dead = storage->dead;
            storage->dead = segment;
        }
        pthread_mutex_unlock(&storage->lock);
        if (!segment || dirty)
            break;
        if (segment->late)
            load_rows(storage, segment);
        char path[FLUE_STORAGE_PATH], name[32];
        flue_segment_name(segment->number, FLUE_STORAGE_SUFFIX, name);
        flue_storage_path(storage, name, path);
        int failure = 0;
        if (segment->damaged)
            flue_storage_set_aside(storage, name, "it holds damaged records; the rest was sent");
        else
            failure = storage->io->unlink(storage->io, path);
        if (failure < 0 && failure != -ENOENT) {
            struct flue_error error;
            flue_metric_add(storage->write_failures, 1);
            flue_storage_io_fail(&error, failure, "remove", path);
            flue_log(FLUE_WARN, "storage", "a segment that nobody needs stays until the next start",
                     FLUE_S("storage", storage->id), FLUE_S("error", error.text), FLUE_LOG_END);
        }
        flue_metric_add(storage->bytes, -(int64_t)segment->file_size);
        flue_storage_segment_free(segment);
    }
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void write_finished(struct flue_storage *storage)
{
    struct flue_storage_reader *reader = &storage->reader;
    int failure = flue_finished_flush(storage);
    pthread_mutex_lock(&storage->lock);
    if (failure)
        storage->rewrite = true;
    bool rewrite = (storage->rewrite && flue_monotonic_ns() >= reader->retry_at) ||
                   (reader->fd >= 0 && reader->size > reader->limit);
    if (rewrite)
        storage->rewrite = false;
    pthread_mutex_unlock(&storage->lock);
    if (rewrite)
        failure = flue_finished_rewrite(storage);
    if (!failure)
        return;
    struct flue_error error;
    flue_metric_add(storage->write_failures, 1);
    flue_storage_io_fail(&error, failure, "write finished in", storage->directory);
    flue_log(FLUE_WARN, "storage",
             "what is finished cannot be written down: a kill would send it again",
             FLUE_S("storage", storage->id), FLUE_S("error", error.text), FLUE_LOG_END);
    pthread_mutex_lock(&storage->lock);
    storage->rewrite = true;
    reader->retry_at = flue_monotonic_ns() + RETRY_NS;
    pthread_mutex_unlock(&storage->lock);
}

static bool has_work(const struct flue_storage *storage)
{
    return storage->reads || storage->dirty || storage->dead || storage->wanted ||
           storage->note_drop_count;
}

/* Under `lock`: what must be tried again at some time; UINT64_MAX: nothing. */
static uint64_t next_try(const struct flue_storage *storage)
{
    uint64_t next = storage->rewrite ? storage->reader.retry_at : UINT64_MAX;
    for (size_t i = 0; i < storage->segment_count; i++)
        if (storage->segments[i]->skip_until && storage->segments[i]->skip_until < next)
            next = storage->segments[i]->skip_until;
    return next;
}

/* Segments that could not be read may be tried again: whoever looks for work is told. */
static void end_skips(struct flue_storage *storage)
{
    uint64_t now = flue_monotonic_ns();
    bool any = false;
    for (size_t i = 0; i < storage->segment_count; i++)
        if (storage->segments[i]->skip_until && storage->segments[i]->skip_until <= now) {
            storage->segments[i]->skip_until = 0;
            any = true;
        }
    for (unsigned i = 0; any && i < storage->queue_count; i++)
        if (storage->queues[i]->untaken)
            flue_storage_notify(storage->queues[i]);
}

static void wait_for_work(struct flue_storage *storage)
{
    while (!has_work(storage) && !storage->reader_ending) {
        uint64_t next = next_try(storage), now = flue_monotonic_ns();
        if (next <= now) {
            end_skips(storage);
            break;
        }
        if (next == UINT64_MAX) {
            pthread_cond_wait(&storage->work, &storage->lock);
            continue;
        }
        struct timespec until; /* the real clock: that of flue may have been moved by a test */
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t ns = (uint64_t)until.tv_nsec + (next - now < RETRY_NS ? next - now : RETRY_NS);
        until.tv_sec += (time_t)(ns / 1000000000);
        until.tv_nsec = (long)(ns % 1000000000);
        pthread_cond_timedwait(&storage->work, &storage->lock, &until);
    }
}

static void *reader_main(void *arg)
{
    struct flue_storage *storage = arg;
    for (;;) {
        pthread_mutex_lock(&storage->lock);
        wait_for_work(storage);
        bool ending = storage->reader_ending && !has_work(storage);
        struct flue_storage_read *reads = storage->reads;
        storage->reads = NULL;
        storage->reads_end = &storage->reads;
        pthread_mutex_unlock(&storage->lock);
        if (ending)
            break;
        write_finished(storage);
        load_wanted(storage);
        while (reads) { /* between two, what ended meanwhile: a kill would bring it back */
            struct flue_storage_read *next = (struct flue_storage_read *)(void *)reads->job.next;
            read_one(storage, reads);
            reads->job.task.run = read_done;
            flue_loop_post(reads->loop, &reads->job.task);
            reads = next;
            write_finished(storage);
        }
        settle_late(storage);
        remove_dead(storage);
        flue_notes_remove(storage);
    }
    return NULL;
}

bool flue_storage_reader_run(struct flue_storage *storage)
{
    storage->reader.running =
        pthread_create(&storage->reader.thread, NULL, reader_main, storage) == 0;
    if (storage->reader.running)
        pthread_setname_np(storage->reader.thread, "storage-read");
    return storage->reader.running;
}

void flue_storage_reader_stop(struct flue_storage *storage)
{
    if (!storage->reader.running)
        return;
    pthread_mutex_lock(&storage->lock);
    storage->reader_ending = true;
    pthread_cond_signal(&storage->work);
    pthread_mutex_unlock(&storage->lock);
    pthread_join(storage->reader.thread, NULL);
    storage->reader.running = false;
}
