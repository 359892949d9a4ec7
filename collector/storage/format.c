/* format.c: checksums and checks of what stands in the files of a log. See format.h. */
#include "collector/storage/format.h"

#include <isa-l.h>

uint32_t flue_crc32c(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *at = data;
    crc = ~crc;
    while (size) {
        size_t piece = size < (1u << 30) ? size : 1u << 30; /* the library counts in int */
        crc = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)piece, crc);
        at += piece;
        size -= piece;
    }
    return ~crc;
}

static uint32_t crc_behind(const void *whole, size_t size, const uint32_t *field)
{
    const uint8_t *from = (const uint8_t *)(field + 1);
    return flue_crc32c(0, from, size - (size_t)(from - (const uint8_t *)whole));
}

/* The version too: a rotten one must not look like a later one. */
static uint32_t block_crc(const struct flue_storage_block *block)
{
    const uint8_t *from = (const uint8_t *)(&block->crc + 1);
    return flue_crc32c(flue_crc32c(0, &block->version, sizeof block->version), from,
                       sizeof *block - (size_t)(from - (const uint8_t *)block));
}

void flue_storage_block_seal(struct flue_storage_block *block, const char *magic)
{
    memcpy(block->magic, magic, sizeof block->magic);
    block->version = FLUE_STORAGE_VERSION;
    block->crc = block_crc(block);
}

enum flue_storage_sight flue_storage_block_check(const struct flue_storage_block *block,
                                                 const char *magic)
{
    if (memcmp(block->magic, magic, sizeof block->magic) != 0 || block->crc != block_crc(block))
        return FLUE_SIGHT_BROKEN;
    if (block->version != FLUE_STORAGE_VERSION)
        return FLUE_SIGHT_LATER;
    if (block->queue_count > FLUE_STORAGE_QUEUES || block->cut_count > FLUE_STORAGE_CUTS)
        return FLUE_SIGHT_BROKEN;
    for (uint32_t i = 0; i < block->queue_count; i++)
        if (block->names[i].size == 0 || block->names[i].size > FLUE_STORAGE_NAME)
            return FLUE_SIGHT_BROKEN;
    return FLUE_SIGHT_GOOD;
}

void flue_storage_record_seal(struct flue_storage_record *record)
{
    record->magic = FLUE_RECORD_MAGIC;
    record->crc = crc_behind(record, sizeof *record, &record->crc);
}

bool flue_storage_record_check(const struct flue_storage_record *record, uint64_t salt,
                               uint64_t number, uint64_t offset, uint64_t end)
{
    return record->magic == FLUE_RECORD_MAGIC && record->salt == salt &&
           flue_storage_number(record->record) == number &&
           flue_storage_index(record->record) < FLUE_STORAGE_RECORDS &&
           record->head_size <= FLUE_STORAGE_HEAD && record->body_size <= FLUE_STORAGE_BODY &&
           offset <= end &&
           flue_storage_record_size(record->head_size, record->body_size) <= end - offset &&
           record->crc == crc_behind(record, sizeof *record, &record->crc);
}

void flue_storage_trailer_seal(struct flue_storage_trailer *trailer)
{
    memcpy(trailer->magic, FLUE_TRAILER_MAGIC, sizeof trailer->magic);
    trailer->version = FLUE_STORAGE_VERSION;
    trailer->crc = crc_behind(trailer, sizeof *trailer, &trailer->crc);
}

bool flue_storage_trailer_check(const struct flue_storage_trailer *trailer, uint64_t salt,
                                uint64_t number, uint64_t size)
{
    uint64_t footer =
        (uint64_t)trailer->row_count * sizeof(struct flue_storage_row) + sizeof *trailer;
    return memcmp(trailer->magic, FLUE_TRAILER_MAGIC, sizeof trailer->magic) == 0 &&
           trailer->crc == crc_behind(trailer, sizeof *trailer, &trailer->crc) &&
           trailer->version == FLUE_STORAGE_VERSION && trailer->salt == salt &&
           trailer->number == number && trailer->row_count <= FLUE_STORAGE_RECORDS &&
           footer <= size && trailer->rows_offset == size - footer &&
           trailer->data_end <= trailer->rows_offset && trailer->data_end >= FLUE_STORAGE_DATA;
}

void flue_storage_finished_seal(struct flue_storage_finished *entry)
{
    entry->crc = crc_behind(entry, sizeof *entry, &entry->crc);
}

bool flue_storage_finished_check(const struct flue_storage_finished *entry)
{
    return entry->crc == crc_behind(entry, sizeof *entry, &entry->crc) &&
           (entry->type == FLUE_FINISHED_MARK || entry->type == FLUE_FINISHED_RANGE) &&
           entry->queue < FLUE_STORAGE_QUEUES && entry->count <= FLUE_STORAGE_RECORDS;
}
