/* inspect.c: see inspect.h. What is owed is what the rows say less what `finished` says, as in
 * recover.c, but without changing anything. */
#include "collector/storage/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH         4096
#define MOST_ENTRIES (UINT64_C(16) << 20)

struct inspecting {
    struct flue_inspection *out;
    uint64_t *numbers;
    size_t count, room;
    struct flue_storage_cut cuts[FLUE_STORAGE_CUTS];
    unsigned cut_count;
    uint64_t marks[FLUE_STORAGE_QUEUES];
    struct flue_storage_finished *entries; /* queues as of the inspection */
    size_t entry_count;
    struct flue_storage_block block;
    bool failed;
};

static struct flue_inspected_queue *queue_named(struct flue_inspection *out, const char *name,
                                                size_t size, uint8_t *slot)
{
    for (unsigned i = 0; i < out->queue_count; i++)
        if (strlen(out->queues[i]->name) == size && memcmp(out->queues[i]->name, name, size) == 0) {
            *slot = (uint8_t)i;
            return out->queues[i];
        }
    struct flue_inspected_queue *queue =
        out->queue_count < FLUE_STORAGE_QUEUES ? calloc(1, sizeof *queue) : NULL;
    if (!queue)
        return NULL;
    memcpy(queue->name, name, size);
    *slot = (uint8_t)out->queue_count;
    out->queues[out->queue_count++] = queue;
    return queue;
}

static bool slots_of(struct flue_inspection *out, const struct flue_storage_block *block,
                     uint8_t *slots)
{
    for (uint32_t i = 0; i < block->queue_count; i++)
        if (!queue_named(out, block->names[i].text, block->names[i].size, &slots[i]))
            return false;
    return true;
}

static bool visit_name(void *arg, const char *name)
{
    struct inspecting *in = arg;
    uint64_t number;
    if (flue_segment_number(name, ".note", &number))
        in->out->notes++;
    size_t size = strlen(name);
    if (size > 8 && strcmp(name + size - 8, ".damaged") == 0)
        in->out->set_aside++;
    if (!flue_segment_number(name, FLUE_STORAGE_SUFFIX, &number))
        return true;
    if (in->count == in->room) {
        size_t room = in->room ? in->room * 2 : 64;
        uint64_t *numbers = realloc(in->numbers, room * sizeof *numbers);
        if (!numbers) {
            in->failed = true;
            return false;
        }
        in->numbers = numbers;
        in->room = room;
    }
    in->numbers[in->count++] = number;
    return true;
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static int by_record(const void *a, const void *b)
{
    uint64_t left = ((const struct flue_storage_finished *)a)->record;
    uint64_t right = ((const struct flue_storage_finished *)b)->record;
    return left < right ? -1 : left > right;
}

/* ---- `finished` ------------------------------------------------------------------------------ */

static enum flue_code read_entries(struct inspecting *in, int fd, struct flue_error *error)
{
    const struct flue_storage_io *io = in->out->io;
    uint8_t slots[FLUE_STORAGE_QUEUES];
    int64_t size = io->size(io, fd);
    uint64_t count = size > (int64_t)sizeof in->block
                         ? ((uint64_t)size - sizeof in->block) / sizeof *in->entries
                         : 0;
    if (!slots_of(in->out, &in->block, slots))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory, or over %u queues",
                         FLUE_STORAGE_QUEUES);
    in->entries = count < MOST_ENTRIES ? malloc(count * sizeof *in->entries + 1) : NULL;
    if (!in->entries)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for %llu entries of finished",
                         (unsigned long long)count);
    ssize_t got = flue_storage_read_all(io, fd, in->entries, count * sizeof *in->entries,
                                        sizeof in->block);
    count = got > 0 ? (uint64_t)got / sizeof *in->entries : 0;
    for (uint64_t i = 0; i < count; i++) {
        struct flue_storage_finished entry = in->entries[i];
        if (!flue_storage_finished_check(&entry)) {
            in->out->broken_entries += i < in->block.salt;
            continue;
        }
        if (entry.queue >= in->block.queue_count)
            continue;
        entry.queue = slots[entry.queue];
        if (entry.type == FLUE_FINISHED_RANGE)
            in->entries[in->entry_count++] = entry;
        else if (entry.record > in->marks[entry.queue])
            in->marks[entry.queue] = entry.record;
    }
    if (in->entry_count)
        qsort(in->entries, in->entry_count, sizeof *in->entries, by_record);
    return FLUE_OK;
}

static enum flue_code read_finished(struct inspecting *in, struct flue_error *error)
{
    const struct flue_storage_io *io = in->out->io;
    char path[PATH];
    snprintf(path, sizeof path, "%s/finished", in->out->directory);
    int fd = io->open(io, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return FLUE_OK;
    if (fd < 0)
        return flue_storage_io_fail(error, fd, "open", path);
    enum flue_code code = FLUE_OK;
    ssize_t got = flue_storage_read_all(io, fd, &in->block, sizeof in->block, 0);
    if (got == (ssize_t)sizeof in->block &&
        flue_storage_block_check(&in->block, FLUE_FINISHED_MAGIC) == FLUE_SIGHT_GOOD)
        code = read_entries(in, fd, error);
    else
        in->out->broken_finished = true;
    io->close(io, fd);
    return code;
}

/* ---- segments -------------------------------------------------------------------------------- */

static void segment_path(const struct flue_inspection *out, uint64_t number, char *path)
{
    char name[32];
    flue_segment_name(number, FLUE_STORAGE_SUFFIX, name);
    snprintf(path, PATH, "%s/%s", out->directory, name);
}

/* Who owes this row, by queue of the inspection. */
static uint64_t owing_of(const struct inspecting *in, const uint8_t *slots, uint64_t record,
                         uint64_t owing)
{
    uint64_t out = 0;
    for (; owing; owing &= owing - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(owing);
        if (bit < in->block.queue_count && record >= in->marks[slots[bit]])
            out |= UINT64_C(1) << slots[bit];
    }
    return out;
}

static void take_finished(const struct inspecting *in, struct flue_inspected_segment *segment)
{
    size_t low = 0, high = in->entry_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (flue_storage_number(in->entries[middle].record) < segment->number)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < in->entry_count &&
           flue_storage_number(in->entries[low].record) == segment->number;
         low++) {
        const struct flue_storage_finished *entry = &in->entries[low];
        uint32_t first = flue_storage_index(entry->record);
        for (uint32_t i = first; entry->salt == (uint32_t)segment->salt && i < segment->records &&
                                 i - first < entry->count;
             i++)
            segment->rows[i].owing &= ~(UINT64_C(1) << entry->queue);
    }
}

static void add_up(struct inspecting *in, struct flue_inspected_segment *segment)
{
    uint64_t seen = 0;
    for (uint32_t i = 0; i < segment->records; i++) {
        const struct flue_storage_row *row = &segment->rows[i];
        uint64_t bytes = (uint64_t)row->head_size + row->body_size;
        if (!row->flags)
            segment->bytes += bytes;
        segment->owed += row->owing != 0;
        for (uint64_t left = row->owing; left; left &= left - 1) {
            unsigned slot = (unsigned)__builtin_ctzll(left);
            struct flue_inspected_queue *queue = in->out->queues[slot];
            queue->segments += !(seen >> slot & 1);
            seen |= UINT64_C(1) << slot;
            queue->lag.records++;
            queue->lag.bytes += bytes;
            queue->lag.counts.profiles += row->profiles;
            queue->lag.counts.samples += row->samples;
            queue->lag.counts.bytes += row->bytes;
            if (!queue->lag.oldest_ns || row->time_ns < queue->lag.oldest_ns)
                queue->lag.oldest_ns = row->time_ns;
        }
    }
}

/* 0, or -errno. */
static int read_segment(struct inspecting *in, int fd, struct flue_inspected_segment *segment)
{
    const struct flue_storage_io *io = in->out->io;
    uint8_t slots[FLUE_STORAGE_QUEUES];
    struct flue_segment_rows rows;
    uint64_t cut = UINT64_MAX;
    int failure;
    int64_t size = io->size(io, fd);
    if (size < 0)
        return (int)size;
    segment->file_size = (uint64_t)size;
    if (flue_segment_block(io, fd, segment->number, &in->block, &failure) != FLUE_SIGHT_GOOD) {
        segment->broken_header = true;
        return failure;
    }
    if (!slots_of(in->out, &in->block, slots))
        return -ENOMEM;
    for (unsigned i = 0; i < in->cut_count; i++)
        if (in->cuts[i].number == segment->number && in->cuts[i].size < cut)
            cut = in->cuts[i].size;
    segment->salt = in->block.salt;
    failure =
        flue_segment_rows(io, fd, segment->salt, segment->number, segment->file_size, cut, &rows);
    if (failure)
        return failure;
    segment->rows = rows.items;
    segment->records = rows.count;
    segment->sealed = rows.sealed;
    segment->broken_footer = rows.broken_footer;
    segment->damaged = rows.damaged;
    for (uint32_t i = 0; i < rows.count; i++)
        rows.items[i].owing =
            owing_of(in, slots, segment->number << 16 | i, rows.items[i].owing);
    take_finished(in, segment);
    add_up(in, segment);
    return 0;
}

static void collect_cuts(struct inspecting *in)
{
    const struct flue_storage_io *io = in->out->io;
    for (size_t i = 0; i < in->count; i++) {
        char path[PATH];
        int failure;
        segment_path(in->out, in->numbers[i], path);
        int fd = io->open(io, path, O_RDONLY, 0);
        if (fd < 0)
            continue;
        if (flue_segment_block(io, fd, in->numbers[i], &in->block, &failure) == FLUE_SIGHT_GOOD)
            for (uint32_t c = 0; c < in->block.cut_count; c++)
                if (in->cut_count < FLUE_STORAGE_CUTS &&
                    bsearch(&in->block.cuts[c].number, in->numbers, in->count,
                            sizeof *in->numbers, by_number))
                    in->cuts[in->cut_count++] = in->block.cuts[c];
        io->close(io, fd);
    }
}

static enum flue_code inspect(struct inspecting *in,
                              bool (*visit)(void *arg, struct flue_inspection *inspection,
                                            const struct flue_inspected_segment *segment),
                              void *arg, struct flue_error *error)
{
    const struct flue_storage_io *io = in->out->io;
    enum flue_code code = read_finished(in, error);
    if (code)
        return code;
    int failure = io->list(io, in->out->directory, visit_name, in);
    if (failure < 0)
        return flue_storage_io_fail(error, failure, "list", in->out->directory);
    if (in->failed)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the segments");
    if (in->count)
        qsort(in->numbers, in->count, sizeof *in->numbers, by_number);
    collect_cuts(in);
    for (size_t i = 0; i < in->count; i++) {
        struct flue_inspected_segment segment = {.number = in->numbers[i]};
        char path[PATH];
        segment_path(in->out, segment.number, path);
        int fd = io->open(io, path, O_RDONLY, 0);
        if (fd == -ENOENT) /* removed meanwhile: nobody owes it any more */
            continue;
        if (fd < 0)
            return flue_storage_io_fail(error, fd, "open", path);
        failure = read_segment(in, fd, &segment);
        io->close(io, fd);
        if (failure)
            return flue_storage_io_fail(error, failure, "read", path);
        in->out->segments++;
        bool more = !visit || visit(arg, in->out, &segment);
        free(segment.rows);
        if (!more)
            break;
    }
    return FLUE_OK;
}

enum flue_code flue_storage_inspect(const char *directory, struct flue_inspection *out,
                                    bool (*visit)(void *arg, struct flue_inspection *inspection,
                                                  const struct flue_inspected_segment *segment),
                                    void *arg, struct flue_error *error)
{
    *out = (struct flue_inspection){.io = &flue_storage_system, .directory = directory};
    if (strlen(directory) + 64 > PATH)
        return flue_fail(error, FLUE_INVALID, "the directory's name has over %d bytes", PATH - 64);
    struct inspecting *in = calloc(1, sizeof *in);
    if (!in)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    in->out = out;
    enum flue_code code = inspect(in, visit, arg, error);
    free(in->numbers);
    free(in->entries);
    free(in);
    return code;
}

void flue_inspection_free(struct flue_inspection *inspection)
{
    for (unsigned i = 0; i < inspection->queue_count; i++)
        free(inspection->queues[i]);
    inspection->queue_count = 0;
}

enum flue_code flue_inspect_record(const struct flue_inspection *inspection,
                                   const struct flue_inspected_segment *segment, uint32_t index,
                                   struct flue_block **head, struct flue_block **body,
                                   struct flue_error *error)
{
    const struct flue_storage_io *io = inspection->io;
    const struct flue_storage_row *row = &segment->rows[index];
    uint64_t record = segment->number << 16 | index;
    char path[PATH];
    segment_path(inspection, segment->number, path);
    if (row->flags)
        return flue_fail(error, FLUE_INVALID, "%s: the record %llx at byte %llu is damaged", path,
                         (unsigned long long)record, (unsigned long long)row->offset);
    struct flue_block *blocks[2] = {NULL, NULL};
    int fd = io->open(io, path, O_RDONLY, 0);
    int failure = fd < 0 ? fd : 0;
    if (!failure && head) {
        blocks[0] = flue_block_new(NULL, row->head_size);
        blocks[1] = flue_block_new(NULL, row->body_size);
        if (!blocks[0] || !blocks[1])
            failure = -ENOMEM;
    }
    if (!failure)
        failure = flue_segment_record(io, fd, segment->salt, record, row,
                                      head ? blocks[0]->data : NULL, head ? blocks[1]->data : NULL);
    if (fd >= 0)
        io->close(io, fd);
    if (!failure) {
        if (head) {
            blocks[0]->size = row->head_size;
            blocks[1]->size = row->body_size;
            *head = blocks[0];
            *body = blocks[1];
        }
        return FLUE_OK;
    }
    flue_block_unref(blocks[0]);
    flue_block_unref(blocks[1]);
    return failure == -EBADMSG
               ? flue_fail(error, FLUE_INVALID, "%s: the record %llx at byte %llu is damaged", path,
                           (unsigned long long)record, (unsigned long long)row->offset)
               : flue_storage_io_fail(error, failure, "read", path);
}
