/* journal.c: `finished`, the file of what queues owe no more. See format.h.
 *
 * Entries are appended without a sync: a kill keeps them, a power cut costs duplicates. The file is
 * written anew (beside the old one, synced, renamed) at start and when it has grown to several
 * times what it says: for each queue a low-water mark, and the finished ranges above it.
 */
#include "collector/storage/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"

#define NAME         "finished"
#define MOST_ENTRIES (UINT64_C(16) << 20)

/* ---- reading --------------------------------------------------------------------------------- */

static int by_record(const void *a, const void *b)
{
    uint64_t left = ((const struct flue_storage_finished *)a)->record;
    uint64_t right = ((const struct flue_storage_finished *)b)->record;
    return left < right ? -1 : left > right;
}

/* Keeps the ranges, takes marks out; returns how many of the first `synced` entries are broken.
 * Those behind were never synced: a power cut may break them. */
static uint64_t sort_entries(struct flue_finished *out, const uint8_t *slots, uint32_t slot_count,
                             uint64_t synced)
{
    uint64_t broken = 0;
    size_t kept = 0;
    for (size_t i = 0; i < out->count; i++) {
        struct flue_storage_finished entry = out->entries[i];
        if (!flue_storage_finished_check(&entry)) {
            broken += i < synced;
            continue;
        }
        uint64_t number = flue_storage_number(entry.record);
        if (entry.type == FLUE_FINISHED_RANGE && number >= out->next)
            out->next = number + 1;
        if (entry.queue >= slot_count)
            continue;
        entry.queue = slots[entry.queue];
        if (entry.type == FLUE_FINISHED_RANGE)
            out->entries[kept++] = entry;
        else if (entry.record > out->marks[entry.queue])
            out->marks[entry.queue] = entry.record;
    }
    out->count = kept;
    if (kept)
        qsort(out->entries, kept, sizeof *out->entries, by_record);
    return broken;
}

static enum flue_code read_open(struct flue_storage *storage, int fd, const char *path,
                                struct flue_finished *out, struct flue_error *error)
{
    struct flue_storage_block block;
    uint8_t slots[FLUE_STORAGE_QUEUES];
    ssize_t got = flue_storage_read_all(storage->io, fd, &block, sizeof block, 0);
    enum flue_storage_sight sight = got == (ssize_t)sizeof block
                                        ? flue_storage_block_check(&block, FLUE_FINISHED_MAGIC)
                                        : FLUE_SIGHT_BROKEN;
    if (sight == FLUE_SIGHT_LATER)
        return flue_fail(error, FLUE_INVALID,
                         "%s was written by a later version of flue (format %u, this one knows "
                         "%u): run that one, or give this one another directory",
                         path, block.version, FLUE_STORAGE_VERSION);
    int64_t size = storage->io->size(storage->io, fd);
    uint64_t count =
        size > (int64_t)sizeof block ? ((uint64_t)size - sizeof block) / sizeof *out->entries : 0;
    if (sight == FLUE_SIGHT_BROKEN || count > MOST_ENTRIES) {
        flue_storage_set_aside(storage, NAME,
                               "it is damaged: records that were sent already come again");
        flue_metric_add(storage->damaged, 1);
        return FLUE_OK;
    }
    if (!flue_storage_slots(storage, &block, slots))
        return flue_fail(error, FLUE_INVALID,
                         "%s: more than %u queues, of this configuration and of earlier ones: give "
                         "the file_storage another directory",
                         storage->directory, FLUE_STORAGE_QUEUES);
    if (block.number > out->next)
        out->next = block.number;
    if (!count)
        return FLUE_OK;
    out->entries = malloc(count * sizeof *out->entries);
    if (!out->entries)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the %llu entries of %s",
                         (unsigned long long)count, path);
    got = flue_storage_read_all(storage->io, fd, out->entries, count * sizeof *out->entries,
                                sizeof block);
    out->count = got > 0 ? (size_t)got / sizeof *out->entries : 0;
    uint64_t broken = sort_entries(out, slots, block.queue_count, block.salt);
    if (got < 0 || broken) {
        flue_metric_add(storage->damaged, (int64_t)broken);
        flue_log(FLUE_WARN, "storage",
                 "entries of finished records are damaged: what they say is sent again",
                 FLUE_S("storage", storage->id), FLUE_S("file", path), FLUE_U("entries", broken),
                 FLUE_LOG_END);
    }
    return FLUE_OK;
}

enum flue_code flue_finished_read(struct flue_storage *storage, struct flue_finished *out,
                                  struct flue_error *error)
{
    char path[FLUE_STORAGE_PATH];
    *out = (struct flue_finished){.next = 1};
    flue_storage_path(storage, NAME, path);
    int fd = storage->io->open(storage->io, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return FLUE_OK;
    if (fd < 0)
        return flue_storage_io_fail(error, fd, "open", path);
    enum flue_code code = read_open(storage, fd, path, out, error);
    storage->io->close(storage->io, fd);
    return code;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct entries {
    struct flue_storage_finished *items;
    size_t count, room;
    bool failed;
};

static void add(struct entries *entries, unsigned type, unsigned queue, uint64_t salt,
                uint64_t record, uint32_t count)
{
    if (entries->count == entries->room) {
        size_t room = entries->room ? entries->room * 2 : 64;
        struct flue_storage_finished *items =
            realloc(entries->items, room * sizeof *entries->items);
        if (!items) {
            entries->failed = true;
            return;
        }
        entries->items = items;
        entries->room = room;
    }
    struct flue_storage_finished *entry = &entries->items[entries->count++];
    *entry = (struct flue_storage_finished){
        .type = (uint16_t)type,
        .queue = (uint16_t)queue,
        .salt = type == FLUE_FINISHED_RANGE ? (uint32_t)salt : 0,
        .count = count,
        .record = record,
    };
    flue_storage_finished_seal(entry);
}

/* The runs of bits that are `value`, from `from` below `end`. */
static void add_runs(struct entries *entries, const struct flue_storage_segment *segment,
                     unsigned queue, const uint64_t *bits, bool value, uint32_t from, uint32_t end)
{
    for (uint32_t i = from; i < end;) {
        if (i % 64 == 0 && bits[i / 64] == (value ? 0 : UINT64_MAX)) {
            i += 64;
            continue;
        }
        if (flue_bit(bits, i) != value) {
            i++;
            continue;
        }
        uint32_t first = i;
        while (i < end && flue_bit(bits, i) == value)
            i++;
        add(entries, FLUE_FINISHED_RANGE, queue, segment->salt, segment->number << 16 | first,
            i - first);
    }
}

static void add_queue(struct flue_storage *storage, unsigned slot, struct entries *entries)
{
    bool marked = false;
    for (size_t i = 0; i < storage->segment_count; i++) {
        struct flue_storage_segment *segment = storage->segments[i];
        struct flue_storage_share *share = segment->shares[slot];
        if (!share)
            continue;
        uint64_t *fresh = flue_share_bits(share, FLUE_BITS_FRESH);
        memset(fresh, 0, share->capacity / 8);
        uint32_t from = 0,
                 end = segment->count < share->capacity ? segment->count : share->capacity;
        const uint64_t *owed = flue_share_bits(share, FLUE_BITS_OWED);
        if (!marked && share->owed_count) {
            while (!flue_bit(owed, from))
                from++;
            add(entries, FLUE_FINISHED_MARK, slot, 0, segment->number << 16 | from, 0);
            marked = true;
        }
        if (marked)
            add_runs(entries, segment, slot, owed, false, from, end);
        else if (segment->open) /* the mark will stand in front of what comes next */
            add_runs(entries, segment, slot, owed, false, 0, end);
    }
    if (!marked) {
        /* The open segment may not be in the list yet: its records come all the same. */
        uint64_t next = storage->open_number ? storage->open_number : storage->next_number;
        add(entries, FLUE_FINISHED_MARK, slot, 0, next << 16, 0);
    }
}

int flue_finished_rewrite(struct flue_storage *storage)
{
    const struct flue_storage_io *io = storage->io;
    struct flue_storage_reader *reader = &storage->reader;
    char path[FLUE_STORAGE_PATH], fresh_path[FLUE_STORAGE_PATH];
    struct entries entries = {0};
    struct flue_storage_block *block = calloc(1, sizeof *block);
    if (!block)
        return -ENOMEM;
    flue_storage_path(storage, NAME, path);
    flue_storage_path(storage, NAME ".tmp", fresh_path);
    pthread_mutex_lock(&storage->lock);
    for (unsigned slot = 0; slot < storage->queue_count; slot++)
        add_queue(storage, slot, &entries);
    block->number = storage->next_number;
    block->created_ns = flue_wall_ns();
    block->salt = entries.count;
    flue_storage_names(storage, block);
    pthread_mutex_unlock(&storage->lock);
    flue_storage_block_seal(block, FLUE_FINISHED_MAGIC);

    int fd = entries.failed ? -ENOMEM : io->open(io, fresh_path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    int failure = fd < 0 ? fd : 0;
    uint64_t size = sizeof *block + entries.count * sizeof *entries.items;
    if (!failure) {
        struct iovec parts[2] = {{block, sizeof *block},
                                 {entries.items, entries.count * sizeof *entries.items}};
        failure = flue_storage_write_all(io, fd, parts, entries.count ? 2 : 1, 0);
    }
    if (!failure)
        failure = io->sync(io, fd);
    if (!failure)
        failure = io->rename(io, fresh_path, path);
    if (!failure)
        failure = io->sync_folder(io, storage->directory);
    free(block);
    free(entries.items);
    if (failure) {
        if (fd >= 0) {
            io->close(io, fd);
            io->unlink(io, fresh_path);
        }
        return failure;
    }
    if (reader->fd >= 0)
        io->close(io, reader->fd);
    reader->fd = fd;
    reader->size = size;
    uint64_t grown = sizeof *block + (size - sizeof *block) * 4;
    reader->limit = grown > reader->least_limit ? grown : reader->least_limit;
    return 0;
}

int flue_finished_flush(struct flue_storage *storage)
{
    struct flue_storage_reader *reader = &storage->reader;
    struct entries entries = {0};
    pthread_mutex_lock(&storage->lock);
    while (storage->dirty) {
        struct flue_storage_segment *segment = storage->dirty;
        storage->dirty = segment->next_dirty;
        segment->dirty = false;
        for (unsigned slot = 0; slot < storage->queue_count; slot++) {
            struct flue_storage_share *share = segment->shares[slot];
            if (!share)
                continue;
            uint64_t *bits = flue_share_bits(share, FLUE_BITS_FRESH);
            add_runs(&entries, segment, slot, bits, true, 0, share->capacity);
            memset(bits, 0, share->capacity / 8);
        }
    }
    pthread_mutex_unlock(&storage->lock);
    int failure = entries.failed ? -ENOMEM : 0;
    size_t bytes = entries.count * sizeof *entries.items;
    if (!failure && bytes && reader->fd >= 0) { /* without a file a rewrite is due anyway */
        struct iovec part = {entries.items, bytes};
        failure = flue_storage_write_all(storage->io, reader->fd, &part, 1, reader->size);
        if (!failure)
            reader->size += bytes;
    }
    free(entries.items);
    return failure;
}
