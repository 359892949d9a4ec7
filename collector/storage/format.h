/* format.h: what stands in the files of a log. Own format, version 1, little endian.
 *
 *   NNNNNNNNNNNNNNNN.segment   hexadecimal number, rising, never used twice
 *     block, block             who the slots of a record's owing mask are (twice: one may rot)
 *     record*                  header, head, body, padding to 16; the header first
 *     rows, trailer            the footer of a sealed segment; the trailer ends the file
 *   finished                   block, then entries: what queues owe no more
 *   NNNNNNNNNNNNNNNN.note      header, queue, text
 *   lock                       held (flock) by the process that writes
 *   *.tmp                      was being written; removed at start
 *   *.damaged                  set aside for people; never read, the oldest are removed
 *
 * Magic, version and checksum of a block stand where they stand in every version, so that a folder
 * of a later flue is refused and a rotten block is not taken for one. Every segment has a random
 * salt, which a record header repeats and its checksum covers: bytes of a sender that look like a
 * record are none. `synced` says up to where the segment was known to be on disk when the record
 * was written: what is broken below the greatest `synced` is damage to acknowledged data, what is
 * broken behind it is a write that never was acknowledged (the torn tail).
 *
 * Pure: no allocation, no I/O. Any thread.
 */
#ifndef FLUE_STORAGE_FORMAT_H
#define FLUE_STORAGE_FORMAT_H

#include "collector/base/bytes.h"

#define FLUE_STORAGE_VERSION 1
#define FLUE_STORAGE_QUEUES  64u
#define FLUE_STORAGE_NAME    200u         /* bytes of a queue's name */
#define FLUE_STORAGE_BLOCK   (16u * 1024) /* one copy of a header block */
#define FLUE_STORAGE_DATA    (32u * 1024) /* where the records of a segment begin */
#define FLUE_STORAGE_RECORDS 32768u       /* in one segment, at most */
#define FLUE_STORAGE_HEAD    (64u * 1024) /* bytes of a head */
#define FLUE_STORAGE_BODY    (1u << 30)   /* bytes of a body */
#define FLUE_STORAGE_NOTE    (1u << 20)   /* bytes of a note */
#define FLUE_STORAGE_CUTS    64u
#define FLUE_STORAGE_ALIGN   16u
#define FLUE_RECORD_MAGIC    UINT32_C(0x43524c46) /* "FLRC" */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files of a log are little endian");

/* A segment that a failed write or sync ended: nothing from `size` on was acknowledged. */
struct flue_storage_cut {
    uint64_t number, size;
};

/* Of a segment and of `finished`: who the queues are. 16 KiB with what is zero. */
struct flue_storage_block {
    char magic[8];
    uint32_t version, crc; /* of the version and everything behind it */
    uint64_t number;       /* segment: its own; finished: the next that was free */
    uint64_t salt;         /* finished: how many of the entries were synced with the block */
    uint64_t created_ns;
    uint32_t queue_count, cut_count;
    struct flue_storage_cut cuts[FLUE_STORAGE_CUTS];
    struct {
        uint8_t size;
        char text[FLUE_STORAGE_NAME];
    } names[FLUE_STORAGE_QUEUES];
    uint8_t zero[FLUE_STORAGE_BLOCK - 48 - 16 * FLUE_STORAGE_CUTS -
                 (1 + FLUE_STORAGE_NAME) * FLUE_STORAGE_QUEUES];
};
_Static_assert(sizeof(struct flue_storage_block) == FLUE_STORAGE_BLOCK, "a block is 16 KiB");

struct flue_storage_record {
    uint32_t magic, crc; /* of everything behind it in the header */
    uint64_t salt, record, time_ns, owing;
    uint64_t profiles, samples, bytes;
    uint64_t synced;
    uint32_t head_size, body_size, head_crc, body_crc;
};
_Static_assert(sizeof(struct flue_storage_record) == 88, "a record header has no holes");
/* Header, head, body and padding. */
static inline uint64_t flue_storage_record_size(uint64_t head_size, uint64_t body_size)
{
    uint64_t size = sizeof(struct flue_storage_record) + head_size + body_size;
    return (size + FLUE_STORAGE_ALIGN - 1) / FLUE_STORAGE_ALIGN * FLUE_STORAGE_ALIGN;
}

/* What the footer, and memory, know of a record. The id of row i of segment n is n << 16 | i. */
struct flue_storage_row {
    uint64_t offset, time_ns, owing;
    uint64_t profiles, samples, bytes;
    uint32_t head_size, body_size;
    uint32_t flags, reserved;
};
_Static_assert(sizeof(struct flue_storage_row) == 64, "a row has no holes");
static inline struct flue_storage_row flue_storage_row_of(const struct flue_storage_record *record,
                                                          uint64_t offset)
{
    return (struct flue_storage_row){
        .offset = offset,
        .time_ns = record->time_ns,
        .owing = record->owing,
        .profiles = record->profiles,
        .samples = record->samples,
        .bytes = record->bytes,
        .head_size = record->head_size,
        .body_size = record->body_size,
    };
}
enum {
    FLUE_ROW_LOST = 1,   /* there is no such record (a number that was skipped); owing is 0 */
    FLUE_ROW_DAMAGED = 2 /* it was acknowledged and is broken; owing is 0 */
};

struct flue_storage_trailer {
    char magic[8];
    uint32_t version, crc; /* of everything behind it */
    uint64_t salt, number, rows_offset;
    uint32_t row_count, rows_crc;
    uint64_t data_end, reserved;
};
_Static_assert(sizeof(struct flue_storage_trailer) == 64, "a trailer has no holes");

struct flue_storage_finished { /* an entry of `finished` */
    uint32_t crc;              /* of everything behind it */
    uint16_t type, queue;
    uint32_t salt, count; /* RANGE: the low half of the segment's salt */
    uint64_t record;
};
_Static_assert(sizeof(struct flue_storage_finished) == 24, "an entry has no holes");
enum {
    FLUE_FINISHED_MARK = 1, /* all records below `record` */
    FLUE_FINISHED_RANGE = 2 /* `count` records from `record` on, of one segment */
};

struct flue_storage_note_header {
    char magic[8];
    uint32_t version, crc; /* of everything behind it, name and text too */
    uint64_t number;
    uint32_t name_size, text_size;
};
_Static_assert(sizeof(struct flue_storage_note_header) == 32, "a note header has no holes");

static inline uint64_t flue_storage_number(uint64_t record)
{
    return record >> 16;
}
static inline uint32_t flue_storage_index(uint64_t record)
{
    return (uint32_t)(record & 0xffff);
}

/* CRC32C; begin with 0, go on with what came back. */
uint32_t flue_crc32c(uint32_t crc, const void *data, size_t size);

enum flue_storage_sight {
    FLUE_SIGHT_GOOD,
    FLUE_SIGHT_BROKEN,
    FLUE_SIGHT_LATER
}; /* a later version */

void flue_storage_block_seal(struct flue_storage_block *block, const char *magic);
enum flue_storage_sight flue_storage_block_check(const struct flue_storage_block *block,
                                                 const char *magic);
void flue_storage_record_seal(struct flue_storage_record *record);
/* Is it a record of the segment `number` with this salt, that ends before `end`? */
bool flue_storage_record_check(const struct flue_storage_record *record, uint64_t salt,
                               uint64_t number, uint64_t offset, uint64_t end);
void flue_storage_trailer_seal(struct flue_storage_trailer *trailer);
/* Does it fit a file of `size` bytes? */
bool flue_storage_trailer_check(const struct flue_storage_trailer *trailer, uint64_t salt,
                                uint64_t number, uint64_t size);
void flue_storage_finished_seal(struct flue_storage_finished *entry);
bool flue_storage_finished_check(const struct flue_storage_finished *entry);

#define FLUE_SEGMENT_MAGIC  "FLUESEGM"
#define FLUE_FINISHED_MAGIC "FLUEFINI"
#define FLUE_TRAILER_MAGIC  "FLUEFOOT"
#define FLUE_NOTE_MAGIC     "FLUENOTE"

#endif
