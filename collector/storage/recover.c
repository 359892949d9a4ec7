/* recover.c: what a folder holds becomes segments and queues in memory. See format.h.
 *
 * Sealed segments are read by their footers; the one that was open (or could not be sealed) is
 * scanned, its torn end cut off, and sealed. Nothing here delivers a record whose checksum is
 * wrong.
 */
#include "collector/storage/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/log.h"

#define MOST_SEGMENTS 1000000u

struct folder {
    struct flue_storage *storage;
    uint64_t *numbers, *set_aside;
    size_t count, room, set_aside_count, set_aside_room;
    char (*leftovers)[40]; /* *.tmp */
    size_t leftover_count, leftover_room;
    bool failed;
};

static bool push_number(uint64_t **items, size_t *count, size_t *room, uint64_t number)
{
    if (*count == *room) {
        size_t more = *room ? *room * 2 : 64;
        uint64_t *grown = more > MOST_SEGMENTS * 2 ? NULL : realloc(*items, more * sizeof *grown);
        if (!grown)
            return false;
        *items = grown;
        *room = more;
    }
    (*items)[(*count)++] = number;
    return true;
}

static bool visit_name(void *arg, const char *name)
{
    struct folder *folder = arg;
    size_t size = strlen(name);
    uint64_t number;
    bool good = true;
    if (flue_segment_number(name, FLUE_STORAGE_SUFFIX, &number)) {
        good = push_number(&folder->numbers, &folder->count, &folder->room, number);
    } else if (flue_segment_number(name, FLUE_STORAGE_SUFFIX ".damaged", &number)) {
        good = push_number(&folder->set_aside, &folder->set_aside_count, &folder->set_aside_room,
                           number);
    } else if (size > 4 && size < 40 && strcmp(name + size - 4, ".tmp") == 0) {
        if (folder->leftover_count == folder->leftover_room) {
            size_t room = folder->leftover_room ? folder->leftover_room * 2 : 16;
            char(*grown)[40] = realloc(folder->leftovers, room * sizeof *grown);
            if (!grown)
                return true; /* the next start removes it */
            folder->leftovers = grown;
            folder->leftover_room = room;
        }
        snprintf(folder->leftovers[folder->leftover_count++], sizeof folder->leftovers[0], "%s",
                 name);
    }
    folder->failed |= !good;
    return good;
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

void flue_storage_set_aside(struct flue_storage *storage, const char *name, const char *why)
{
    char path[FLUE_STORAGE_PATH], other[FLUE_STORAGE_PATH], file[64];
    snprintf(file, sizeof file, "%.48s.damaged", name);
    flue_storage_path(storage, name, path);
    flue_storage_path(storage, file, other);
    int failure = storage->io->rename(storage->io, path, other);
    flue_log(FLUE_ERROR, "storage", "set aside as damaged", FLUE_S("storage", storage->id),
             FLUE_S("file", failure < 0 ? path : other), FLUE_S("why", why), FLUE_LOG_END);
}

/* ---- one segment ----------------------------------------------------------------------------- */

struct recovery {
    struct flue_storage *storage;
    struct flue_finished finished;
    size_t finished_at; /* the ranges before it are of lower segments */
    uint64_t records, damaged, torn, scanned;
    struct flue_error *error;
};

static uint64_t cut_of(const struct flue_storage *storage, uint64_t number)
{
    uint64_t cut = UINT64_MAX;
    for (unsigned i = 0; i < storage->cut_count; i++)
        if (storage->cuts[i].number == number && storage->cuts[i].size < cut)
            cut = storage->cuts[i].size;
    return cut;
}

static uint64_t remap(const uint8_t *slots, uint32_t slot_count, uint64_t owing)
{
    uint64_t out = 0;
    for (; owing; owing &= owing - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(owing);
        if (bit < slot_count)
            out |= UINT64_C(1) << slots[bit];
    }
    return out;
}

/* Takes out of the rows' owing masks what `finished` says. */
static void apply_finished(struct recovery *recovery, uint64_t number, uint64_t salt,
                           struct flue_storage_row *rows, uint32_t count)
{
    const struct flue_finished *finished = &recovery->finished;
    uint64_t marked = 0; /* queues whose mark lies in or above this segment */
    for (unsigned slot = 0; slot < FLUE_STORAGE_QUEUES; slot++)
        if (finished->marks[slot] > number << 16)
            marked |= UINT64_C(1) << slot;
    for (uint32_t i = 0; marked && i < count; i++)
        for (uint64_t left = marked & rows[i].owing; left; left &= left - 1) {
            unsigned slot = (unsigned)__builtin_ctzll(left);
            if ((number << 16 | i) < finished->marks[slot])
                rows[i].owing &= ~(UINT64_C(1) << slot);
        }
    size_t at = recovery->finished_at;
    while (at < finished->count && flue_storage_number(finished->entries[at].record) < number)
        at++;
    for (; at < finished->count && flue_storage_number(finished->entries[at].record) == number;
         at++) {
        const struct flue_storage_finished *entry = &finished->entries[at];
        uint32_t first = flue_storage_index(entry->record);
        for (uint32_t i = first;
             entry->salt == (uint32_t)salt && i < count && i - first < entry->count; i++)
            rows[i].owing &= ~(UINT64_C(1) << entry->queue);
    }
    recovery->finished_at = at;
}

static bool owe_rows(struct flue_storage *storage, struct flue_storage_segment *segment)
{
    for (uint32_t i = 0; i < segment->count; i++)
        for (uint64_t left = segment->rows[i].owing; left; left &= left - 1) {
            unsigned slot = (unsigned)__builtin_ctzll(left);
            if (!flue_storage_share_reserve(segment, slot, segment->count - 1))
                return false;
            flue_storage_owe(storage, segment, i, &segment->rows[i], slot, false);
        }
    return true;
}

/* A scan that was cut short becomes a sealed segment, so that the next start need not scan. */
static void seal(struct flue_storage *storage, struct flue_storage_segment *segment, int fd,
                 const struct flue_segment_rows *rows, const char *path)
{
    struct flue_error error;
    uint64_t size = segment->file_size;
    int failure =
        fd < 0 ? fd
               : flue_segment_seal(storage->io, fd, segment->salt, segment->number, rows->items,
                                   rows->count, rows->data_end, storage->fsync, &size);
    segment->file_size = size;
    segment->pinned = failure != 0;
    if (!failure)
        return;
    flue_metric_add(storage->write_failures, 1);
    flue_storage_io_fail(&error, failure, "seal", path);
    flue_log(FLUE_WARN, "storage", "a segment stays without footer: the next start scans it again",
             FLUE_S("storage", storage->id), FLUE_S("error", error.text), FLUE_LOG_END);
}

static enum flue_code fill_segment(struct recovery *recovery, struct flue_storage_segment *segment,
                                   const struct flue_storage_block *block,
                                   struct flue_segment_rows *rows, int fd, const char *path)
{
    struct flue_storage *storage = recovery->storage;
    if (!rows->sealed && rows->unreadable)
        segment->pinned = true; /* the next start reads it again: the disk may have recovered */
    else if (!rows->sealed && rows->count)
        seal(storage, segment, fd, rows, path);
    segment->rows = rows->items;
    segment->rows_room = segment->count = rows->count;
    segment->damaged = rows->damaged;
    for (uint32_t i = 0; i < rows->count; i++) {
        segment->rows[i].owing = remap(segment->slots, block->queue_count, segment->rows[i].owing);
        if (!segment->first_ns)
            segment->first_ns = segment->rows[i].time_ns;
    }
    apply_finished(recovery, segment->number, segment->salt, segment->rows, segment->count);
    if (!owe_rows(storage, segment))
        return flue_fail(recovery->error, FLUE_NO_MEMORY, "no memory for the records of %s", path);
    recovery->records += segment->count;
    recovery->damaged += rows->damaged;
    recovery->torn += rows->torn;
    if (!rows->sealed)
        recovery->scanned++;
    if (rows->broken_footer) /* rot, or a power cut while it was being written */
        flue_log(FLUE_WARN, "storage", "a footer is broken: the segment was scanned instead",
                 FLUE_S("storage", storage->id), FLUE_S("file", path), FLUE_LOG_END);
    if (!rows->sealed && (rows->torn || rows->unproven)) {
        flue_metric_add(storage->torn, 1);
        flue_log(FLUE_WARN, "storage",
                 "the last write before a crash is broken: it was never acknowledged, unless the "
                 "disk has lost it since; what is whole of it is sent",
                 FLUE_S("storage", storage->id), FLUE_S("file", path),
                 FLUE_U("torn_bytes", rows->torn), FLUE_U("broken_records", rows->unproven),
                 FLUE_LOG_END);
    }
    if (segment->damaged) {
        flue_metric_add(storage->damaged, segment->damaged);
        flue_log(FLUE_ERROR, "storage", "damaged: what is broken is never delivered",
                 FLUE_S("storage", storage->id), FLUE_S("file", path),
                 FLUE_U("records", rows->damaged), FLUE_LOG_END);
    }
    if (!flue_storage_segment_add(storage, segment))
        return flue_fail(recovery->error, FLUE_NO_MEMORY, "no memory for the segments of %s",
                         storage->directory);
    flue_metric_add(storage->bytes, (int64_t)segment->file_size);
    if (segment->rows && !segment->pinned)
        flue_storage_rows_cache(storage, segment);
    if (!segment->owed)
        flue_storage_segment_retire(storage, segment);
    return FLUE_OK;
}

static enum flue_code recover_rows(struct recovery *recovery, uint64_t number, int fd,
                                   const struct flue_storage_block *block, const char *path)
{
    struct flue_storage *storage = recovery->storage;
    int64_t size = storage->io->size(storage->io, fd);
    if (size < 0)
        return flue_storage_io_fail(recovery->error, (int)size, "read", path);
    struct flue_segment_rows rows;
    int failure = flue_segment_rows(storage->io, fd, block->salt, number, (uint64_t)size,
                                    cut_of(storage, number), &rows);
    if (failure)
        return flue_storage_io_fail(recovery->error, failure, "read", path);
    struct flue_storage_segment *segment = flue_storage_segment_new(number, block->salt);
    if (!segment) {
        free(rows.items);
        return flue_fail(recovery->error, FLUE_NO_MEMORY, "no memory for %s", path);
    }
    segment->file_size = (uint64_t)size;
    enum flue_code code = FLUE_OK;
    if (!flue_storage_slots(storage, block, segment->slots))
        code = flue_fail(recovery->error, FLUE_INVALID,
                         "%s: more than %u queues, of this configuration and of earlier ones: give "
                         "the file_storage another directory",
                         storage->directory, FLUE_STORAGE_QUEUES);
    if (!code)
        return fill_segment(recovery, segment, block, &rows, fd, path);
    free(rows.items);
    flue_storage_segment_free(segment);
    return code;
}

static enum flue_code recover_segment(struct recovery *recovery, uint64_t number,
                                      struct flue_storage_block *block)
{
    struct flue_storage *storage = recovery->storage;
    char path[FLUE_STORAGE_PATH], name[32];
    int failure;
    flue_segment_name(number, FLUE_STORAGE_SUFFIX, name);
    flue_storage_path(storage, name, path);
    int fd = storage->io->open(storage->io, path, O_RDWR, 0);
    if (fd < 0)
        return flue_storage_io_fail(recovery->error, fd, "open", path);
    enum flue_code code = FLUE_OK;
    switch (flue_segment_block(storage->io, fd, number, block, &failure)) {
    case FLUE_SIGHT_LATER:
        code = flue_fail(recovery->error, FLUE_INVALID,
                         "%s was written by a later version of flue (format %u, this one knows "
                         "%u): run that one, or give this one another directory",
                         path, block->version, FLUE_STORAGE_VERSION);
        break;
    case FLUE_SIGHT_BROKEN: {
        /* The header is synced before the first record is written: without one nothing is lost. */
        uint8_t first[256], zeros[sizeof first] = {0};
        ssize_t got =
            flue_storage_read_all(storage->io, fd, first, sizeof first, FLUE_STORAGE_DATA);
        bool empty = got == 0 || (got > 0 && memcmp(first, zeros, (size_t)got) == 0);
        if (failure || got < 0) { /* as above: it stays where it is */
            struct flue_error why;
            recovery->damaged++;
            flue_metric_add(storage->damaged, 1);
            flue_metric_add(storage->read_failures, 1);
            flue_storage_io_fail(&why, failure ? failure : (int)got, "read", path);
            flue_log(FLUE_ERROR, "storage", "a segment is left out until the next start",
                     FLUE_S("storage", storage->id), FLUE_S("error", why.text), FLUE_LOG_END);
        } else if (empty) {
            storage->io->unlink(storage->io, path);
        } else {
            recovery->damaged++;
            flue_metric_add(storage->damaged, 1);
            flue_storage_set_aside(storage, name, "both copies of its header are broken");
        }
        break;
    }
    case FLUE_SIGHT_GOOD:
        code = recover_rows(recovery, number, fd, block, path);
        break;
    }
    storage->io->close(storage->io, fd);
    return code;
}

/* ---- the folder ------------------------------------------------------------------------------ */

/* What a later segment says of those that a failed write ended. */
static void collect_cuts(struct flue_storage *storage, const struct folder *folder,
                         struct flue_storage_block *block)
{
    for (size_t i = 0; i < folder->count; i++) {
        char path[FLUE_STORAGE_PATH];
        int failure;
        flue_storage_segment_path(storage, folder->numbers[i], FLUE_STORAGE_SUFFIX, path);
        int fd = storage->io->open(storage->io, path, O_RDONLY, 0);
        if (fd < 0)
            continue;
        if (flue_segment_block(storage->io, fd, folder->numbers[i], block, &failure) ==
            FLUE_SIGHT_GOOD)
            for (uint32_t c = 0; c < block->cut_count; c++) {
                const struct flue_storage_cut *cut = &block->cuts[c];
                if (bsearch(&cut->number, folder->numbers, folder->count, sizeof cut->number,
                            by_number) &&
                    cut_of(storage, cut->number) > cut->size &&
                    storage->cut_count < FLUE_STORAGE_CUTS)
                    storage->cuts[storage->cut_count++] = *cut;
            }
        storage->io->close(storage->io, fd);
    }
}

static void remove_old_damage(struct flue_storage *storage, struct folder *folder)
{
    if (folder->set_aside_count <= FLUE_STORAGE_DAMAGED)
        return;
    qsort(folder->set_aside, folder->set_aside_count, sizeof *folder->set_aside, by_number);
    for (size_t i = 0; i + FLUE_STORAGE_DAMAGED < folder->set_aside_count; i++) {
        char path[FLUE_STORAGE_PATH];
        flue_storage_segment_path(storage, folder->set_aside[i], FLUE_STORAGE_SUFFIX ".damaged",
                                  path);
        storage->io->unlink(storage->io, path);
    }
}

static enum flue_code recover_folder(struct flue_storage *storage, struct folder *folder,
                                     struct flue_error *error)
{
    struct recovery recovery = {.storage = storage, .error = error};
    struct flue_storage_block *block = malloc(sizeof *block);
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to recover %s", storage->directory);
    for (size_t i = 0; i < folder->leftover_count; i++) {
        char path[FLUE_STORAGE_PATH];
        flue_storage_path(storage, folder->leftovers[i], path);
        storage->io->unlink(storage->io, path);
    }
    remove_old_damage(storage, folder);
    if (folder->count)
        qsort(folder->numbers, folder->count, sizeof *folder->numbers, by_number);
    enum flue_code code = flue_finished_read(storage, &recovery.finished, error);
    storage->next_number = recovery.finished.next;
    if (folder->count && folder->numbers[folder->count - 1] >= storage->next_number)
        storage->next_number = folder->numbers[folder->count - 1] + 1;
    for (size_t i = 0; i < folder->set_aside_count; i++)
        if (folder->set_aside[i] >= storage->next_number)
            storage->next_number = folder->set_aside[i] + 1;
    if (!code)
        collect_cuts(storage, folder, block);
    for (size_t i = 0; !code && i < folder->count; i++)
        code = recover_segment(&recovery, folder->numbers[i], block);
    free(recovery.finished.entries);
    free(block);
    if (code)
        return code;
    /* What was cut has been sealed there, or is cut in memory and said again in later headers. */
    for (unsigned i = 0; i < storage->cut_count; i++) {
        const struct flue_storage_segment *segment =
            flue_storage_segment_find(storage, storage->cuts[i].number);
        if (!segment || !segment->pinned)
            storage->cuts[i--] = storage->cuts[--storage->cut_count];
    }
    for (unsigned i = 0; i < storage->queue_count; i++) {
        struct flue_storage_queue *queue = storage->queues[i];
        flue_storage_lag(queue, &queue->recovered);
    }
    if (folder->count)
        flue_log(FLUE_INFO, "storage", "recovered", FLUE_S("storage", storage->id),
                 FLUE_S("directory", storage->directory), FLUE_U("segments", folder->count),
                 FLUE_U("scanned", recovery.scanned), FLUE_U("records", recovery.records),
                 FLUE_U("damaged", recovery.damaged), FLUE_U("torn_bytes", recovery.torn),
                 FLUE_LOG_END);
    return FLUE_OK;
}

enum flue_code flue_storage_recover(struct flue_storage *storage, struct flue_error *error)
{
    struct folder folder = {.storage = storage};
    int failure = storage->io->list(storage->io, storage->directory, visit_name, &folder);
    enum flue_code code = FLUE_OK;
    if (failure < 0)
        code = flue_storage_io_fail(error, failure, "list", storage->directory);
    else if (folder.failed)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for the file names in %s, or over %u",
                         storage->directory, MOST_SEGMENTS);
    if (!code)
        code = recover_folder(storage, &folder, error);
    free(folder.numbers);
    free(folder.set_aside);
    free(folder.leftovers);
    if (!code)
        code = flue_notes_recover(storage, error);
    return code;
}
