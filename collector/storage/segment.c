/* segment.c: footers, and the scan of a segment that has none. See segment.h. */
#include "collector/storage/segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK ((size_t)256 * 1024)
#define PAGE  ((size_t)4096) /* what one bad sector costs at least */

void flue_segment_name(uint64_t number, const char *suffix, char *out)
{
    snprintf(out, 32, "%016" PRIx64 "%s", number, suffix);
}

bool flue_segment_number(const char *name, const char *suffix, uint64_t *number)
{
    uint8_t raw[8];
    if (strlen(name) != 16 + strlen(suffix) || strcmp(name + 16, suffix) != 0 ||
        !flue_unhex(flue_bytes(name, 16), raw, sizeof raw))
        return false;
    *number = 0;
    for (size_t i = 0; i < sizeof raw; i++)
        *number = *number << 8 | raw[i];
    /* A record's id has room for 48 bits of it. */
    return *number != 0 && *number >> 48 == 0;
}

enum flue_storage_sight flue_segment_block(const struct flue_storage_io *io, int fd,
                                           uint64_t number, struct flue_storage_block *out,
                                           int *failure)
{
    enum flue_storage_sight sight = FLUE_SIGHT_BROKEN;
    *failure = 0;
    for (uint64_t copy = 0; copy < 2; copy++) {
        ssize_t got = flue_storage_read_all(io, fd, out, sizeof *out, copy * sizeof *out);
        if (got < 0)
            *failure = (int)got;
        if (got != (ssize_t)sizeof *out)
            continue;
        sight = flue_storage_block_check(out, FLUE_SEGMENT_MAGIC);
        if (sight == FLUE_SIGHT_GOOD && out->number != number)
            sight = FLUE_SIGHT_BROKEN;
        if (sight != FLUE_SIGHT_BROKEN)
            break;
    }
    return sight;
}

/* ---- the footer ------------------------------------------------------------------------------ */

static bool rows_fit(const struct flue_storage_row *rows, uint32_t count, uint64_t data_end)
{
    uint64_t before = FLUE_STORAGE_DATA;
    for (uint32_t i = 0; i < count; i++) {
        const struct flue_storage_row *row = &rows[i];
        if (row->flags)
            continue;
        uint64_t size = flue_storage_record_size(row->head_size, row->body_size);
        if (row->head_size > FLUE_STORAGE_HEAD || row->body_size > FLUE_STORAGE_BODY ||
            row->offset < before || row->offset > data_end || size > data_end - row->offset)
            return false;
        before = row->offset + size;
    }
    return true;
}

/* 1: read, 0: there is none that is whole (`trailer` is set if only its rows are broken), or
 * -errno. */
static int read_footer(const struct flue_storage_io *io, int fd, uint64_t salt, uint64_t number,
                       uint64_t size, struct flue_storage_trailer *trailer,
                       struct flue_segment_rows *out)
{
    if (size < FLUE_STORAGE_DATA + sizeof *trailer)
        return 0;
    ssize_t got = flue_storage_read_all(io, fd, trailer, sizeof *trailer, size - sizeof *trailer);
    if (got != (ssize_t)sizeof *trailer ||
        !flue_storage_trailer_check(trailer, salt, number, size)) {
        trailer->row_count = 0;
        trailer->data_end = 0;
        return 0;
    }
    size_t bytes = trailer->row_count * sizeof *out->items;
    struct flue_storage_row *rows = malloc(bytes ? bytes : 1);
    if (!rows)
        return -ENOMEM;
    got = flue_storage_read_all(io, fd, rows, bytes, trailer->rows_offset);
    if (got != (ssize_t)bytes || flue_crc32c(0, rows, bytes) != trailer->rows_crc ||
        !rows_fit(rows, trailer->row_count, trailer->data_end)) {
        free(rows);
        out->broken_footer = true;
        return 0;
    }
    out->items = rows;
    out->count = trailer->row_count;
    out->data_end = trailer->data_end;
    out->sealed = true;
    for (uint32_t i = 0; i < out->count; i++)
        out->damaged += rows[i].flags == FLUE_ROW_DAMAGED;
    return 1;
}

/* ---- the scan -------------------------------------------------------------------------------- */

struct scan {
    const struct flue_storage_io *io;
    int fd;
    uint64_t salt, number, end;
    uint64_t synced; /* up to here it was acknowledged */
    uint8_t *chunk;
    struct flue_segment_rows *out;
    uint32_t room;
};

static bool add_row(struct scan *scan, const struct flue_storage_row *row)
{
    struct flue_segment_rows *out = scan->out;
    if (out->count == scan->room) {
        uint32_t room = scan->room ? scan->room * 2 : 256;
        struct flue_storage_row *items = realloc(out->items, room * sizeof *items);
        if (!items)
            return false;
        out->items = items;
        scan->room = room;
    }
    out->items[out->count++] = *row;
    return true;
}

/* 0: as its checksum says; -EBADMSG: not, or it cannot be read; -errno of another failure. */
static int check_run(struct scan *scan, uint64_t offset, uint64_t size, uint32_t expected)
{
    uint32_t crc = 0;
    while (size) {
        size_t piece = size < CHUNK ? (size_t)size : CHUNK;
        ssize_t got = flue_storage_read_all(scan->io, scan->fd, scan->chunk, piece, offset);
        if (got == -EIO || (got >= 0 && (size_t)got != piece)) {
            scan->out->unreadable |= got < 0;
            return -EBADMSG;
        }
        if (got < 0)
            return (int)got;
        crc = flue_crc32c(crc, scan->chunk, piece);
        offset += piece;
        size -= piece;
    }
    return crc == expected ? 0 : -EBADMSG;
}

/* Where the next record header with an index of at least `least` begins, `end` if nowhere. What
 * cannot be read is skipped page by page. */
static int find_record(struct scan *scan, uint64_t from, uint32_t least, uint64_t *found)
{
    size_t want = CHUNK;
    while (from + sizeof(struct flue_storage_record) <= scan->end) {
        size_t size = scan->end - from < want ? (size_t)(scan->end - from) : want;
        ssize_t got = flue_storage_read_all(scan->io, scan->fd, scan->chunk, size, from);
        if (got == -EIO && want > PAGE) {
            want = PAGE;
            continue;
        }
        if (got == -EIO) {
            scan->out->unreadable = true;
            from = (from / PAGE + 1) * PAGE;
            continue;
        }
        if (got < 0)
            return (int)got;
        size_t at = 0;
        for (; at + sizeof(struct flue_storage_record) <= (size_t)got; at += FLUE_STORAGE_ALIGN) {
            struct flue_storage_record record;
            uint32_t magic;
            memcpy(&magic, scan->chunk + at, sizeof magic);
            if (magic != FLUE_RECORD_MAGIC)
                continue;
            memcpy(&record, scan->chunk + at, sizeof record);
            if (flue_storage_record_check(&record, scan->salt, scan->number, from + at,
                                          scan->end) &&
                flue_storage_index(record.record) >= least) {
                *found = from + at;
                return 0;
            }
        }
        if (at == 0) /* the end of the file */
            break;
        from += at;
    }
    *found = scan->end;
    return 0;
}

/* The record at `at`; `gap`: where what is missing before it began. */
static int scan_record(struct scan *scan, const struct flue_storage_record *record, uint64_t at,
                       uint64_t gap)
{
    uint32_t index = flue_storage_index(record->record);
    struct flue_storage_row lost = {.offset = gap, .flags = FLUE_ROW_LOST};
    while (scan->out->count < index)
        if (!add_row(scan, &lost))
            return -ENOMEM;
    struct flue_storage_row row = flue_storage_row_of(record, at);
    int good = check_run(scan, at + sizeof *record, record->head_size, record->head_crc);
    if (good == 0)
        good = check_run(scan, at + sizeof *record + record->head_size, record->body_size,
                         record->body_crc);
    if (good != 0 && good != -EBADMSG)
        return good;
    if (good != 0)
        row.flags = FLUE_ROW_LOST;
    if (record->synced > scan->synced)
        scan->synced = record->synced;
    return add_row(scan, &row) ? 0 : -ENOMEM;
}

static uint64_t row_end(const struct flue_storage_row *row)
{
    return row->offset + flue_storage_record_size(row->head_size, row->body_size);
}

/* What is broken was acknowledged, if it lies below the greatest `synced`; otherwise it is the torn
 * end of the last writes. */
static void judge(struct scan *scan, uint64_t at)
{
    struct flue_segment_rows *out = scan->out;
    for (uint32_t i = 0; i < out->count; i++) {
        struct flue_storage_row *row = &out->items[i];
        if (!row->flags)
            continue;
        row->owing = 0;
        if (row->offset < scan->synced) {
            row->flags = FLUE_ROW_DAMAGED;
            out->damaged++;
        } else {
            out->unproven++;
        }
    }
    while (out->count && out->items[out->count - 1].flags == FLUE_ROW_LOST) {
        at = out->items[out->count - 1].offset;
        out->count--;
        out->unproven--;
    }
    out->data_end = at;
}

static int scan_all(struct scan *scan)
{
    uint64_t at = FLUE_STORAGE_DATA, gap = at;
    while (at + sizeof(struct flue_storage_record) <= scan->end) {
        struct flue_storage_record record;
        ssize_t got = flue_storage_read_all(scan->io, scan->fd, &record, sizeof record, at);
        if (got < 0 && got != -EIO)
            return (int)got;
        scan->out->unreadable |= got < 0;
        if (got == (ssize_t)sizeof record &&
            flue_storage_record_check(&record, scan->salt, scan->number, at, scan->end) &&
            flue_storage_index(record.record) >= scan->out->count) {
            int failure = scan_record(scan, &record, at, gap);
            if (failure)
                return failure;
            at = gap = row_end(&scan->out->items[scan->out->count - 1]);
            continue;
        }
        int failure = find_record(scan, at + FLUE_STORAGE_ALIGN, scan->out->count, &at);
        if (failure)
            return failure;
    }
    /* `gap` is the end of the last record that has a header; acknowledged data behind it (known
     * from a cut or a trailer) is gone with its header. */
    if (gap + FLUE_STORAGE_ALIGN <= scan->synced && scan->out->count < FLUE_STORAGE_RECORDS) {
        struct flue_storage_row lost = {.offset = gap, .flags = FLUE_ROW_LOST};
        if (!add_row(scan, &lost))
            return -ENOMEM;
        judge(scan, scan->synced < scan->end ? scan->synced : scan->end);
    } else {
        judge(scan, gap);
    }
    return 0;
}

/* Is there anything but zeros behind the last record? */
static uint64_t torn_bytes(struct scan *scan, uint64_t from)
{
    uint64_t last = from;
    for (uint64_t at = from; at < scan->end;) {
        size_t size = scan->end - at < CHUNK ? (size_t)(scan->end - at) : CHUNK;
        ssize_t got = flue_storage_read_all(scan->io, scan->fd, scan->chunk, size, at);
        if (got <= 0)
            break;
        for (size_t i = (size_t)got; i > 0; i--)
            if (scan->chunk[i - 1]) {
                last = at + i;
                break;
            }
        at += (uint64_t)got;
        if (last < at - (uint64_t)got) /* a whole chunk of zeros: it was never written */
            break;
    }
    return last - from;
}

int flue_segment_rows(const struct flue_storage_io *io, int fd, uint64_t salt, uint64_t number,
                      uint64_t size, uint64_t cut, struct flue_segment_rows *out)
{
    struct flue_storage_trailer trailer = {.row_count = 0};
    *out = (struct flue_segment_rows){.data_end = FLUE_STORAGE_DATA};
    int footer = read_footer(io, fd, salt, number, size, &trailer, out);
    if (footer)
        return footer < 0 ? footer : 0;
    struct scan scan = {
        .io = io, .fd = fd, .salt = salt, .number = number, .end = size, .out = out};
    if (cut < size)
        scan.end = cut;
    if (cut != UINT64_MAX)
        scan.synced = cut;
    if (trailer.data_end) {
        scan.end = trailer.data_end;
        scan.synced = trailer.data_end;
    }
    scan.chunk = malloc(CHUNK);
    int failure = scan.chunk ? scan_all(&scan) : -ENOMEM;
    if (!failure)
        out->torn = torn_bytes(&scan, out->data_end);
    free(scan.chunk);
    if (failure) {
        free(out->items);
        out->items = NULL;
        out->count = 0;
    }
    return failure;
}

int flue_segment_seal(const struct flue_storage_io *io, int fd, uint64_t salt, uint64_t number,
                      const struct flue_storage_row *rows, uint32_t count, uint64_t data_end,
                      bool sync, uint64_t *size)
{
    size_t bytes = count * sizeof *rows;
    struct flue_storage_trailer trailer = {
        .salt = salt,
        .number = number,
        .rows_offset = data_end,
        .row_count = count,
        .rows_crc = flue_crc32c(0, rows, bytes),
        .data_end = data_end,
    };
    flue_storage_trailer_seal(&trailer);
    struct iovec parts[2] = {{(void *)(uintptr_t)rows, bytes}, {&trailer, sizeof trailer}};
    int failure = flue_storage_write_all(io, fd, parts, 2, data_end);
    if (!failure)
        failure = io->truncate(io, fd, data_end + bytes + sizeof trailer);
    if (!failure && sync)
        failure = io->sync(io, fd);
    if (!failure)
        *size = data_end + bytes + sizeof trailer;
    return failure < 0 ? failure : 0;
}

int flue_segment_record(const struct flue_storage_io *io, int fd, uint64_t salt, uint64_t id,
                        const struct flue_storage_row *row, void *head, void *body)
{
    struct flue_storage_record record;
    ssize_t got = flue_storage_read_all(io, fd, &record, sizeof record, row->offset);
    if (got < 0)
        return (int)got;
    if (got != (ssize_t)sizeof record ||
        !flue_storage_record_check(&record, salt, flue_storage_number(id), row->offset,
                                   UINT64_MAX) ||
        record.record != id || record.head_size != row->head_size ||
        record.body_size != row->body_size)
        return -EBADMSG;
    uint64_t at = row->offset + sizeof record;
    const struct {
        void *to;
        uint32_t size, crc;
    } runs[] = {{head, record.head_size, record.head_crc},
                {body, record.body_size, record.body_crc}};
    for (size_t i = 0; i < 2; i++) {
        void *to = runs[i].to ? runs[i].to : malloc(runs[i].size ? runs[i].size : 1);
        if (!to)
            return -ENOMEM;
        got = flue_storage_read_all(io, fd, to, runs[i].size, at);
        bool good = got == (ssize_t)runs[i].size && flue_crc32c(0, to, runs[i].size) == runs[i].crc;
        if (to != runs[i].to)
            free(to);
        if (got < 0)
            return (int)got;
        if (!good)
            return -EBADMSG;
        at += runs[i].size;
    }
    return 0;
}
