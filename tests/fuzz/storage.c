/* Recovery of arbitrary bytes: a segment whose header, record headers, rows or trailer are the
 * input, checksums made right or left wrong by the dice, so that the checks behind them are reached
 * too. Rows that come out must lie in the file; reading them may fail and must not do harm. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "collector/storage/segment.h"
#include "tests/fuzz/fuzz.h"

#define NUMBER 7
#define SALT   UINT64_C(0x1122334455667788)

static void repair(uint8_t *bytes, size_t size)
{
    struct flue_storage_record record;
    struct flue_storage_trailer trailer;
    for (size_t at = FLUE_STORAGE_DATA; at + sizeof record <= size && dice(16);) {
        memcpy(&record, bytes + at, sizeof record);
        record.salt = SALT;
        record.record = (uint64_t)NUMBER << 16 | (record.record & 0xff);
        record.head_size %= 64;
        record.body_size %= dice(4) ? 256 : 1u << 20;
        flue_storage_record_seal(&record);
        memcpy(bytes + at, &record, sizeof record);
        at += flue_storage_record_size(record.head_size, record.body_size);
    }
    if (dice(2) == 0 || size < FLUE_STORAGE_DATA + sizeof trailer)
        return;
    memcpy(&trailer, bytes + size - sizeof trailer, sizeof trailer);
    trailer.salt = SALT;
    trailer.number = NUMBER;
    trailer.row_count %= 8;
    size_t rows = trailer.row_count * sizeof(struct flue_storage_row);
    if (rows + sizeof trailer > size - FLUE_STORAGE_DATA)
        return;
    trailer.rows_offset = size - sizeof trailer - rows;
    trailer.rows_crc = flue_crc32c(0, bytes + trailer.rows_offset, rows);
    trailer.data_end = dice(4) ? trailer.rows_offset : trailer.data_end;
    flue_storage_trailer_seal(&trailer);
    memcpy(bytes + size - sizeof trailer, &trailer, sizeof trailer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(data, size);
    size_t whole = FLUE_STORAGE_DATA + size;
    uint8_t *bytes = calloc(1, whole);
    struct flue_storage_block *block = malloc(sizeof *block);
    FUZZ_CHECK(bytes && block, "memory");
    memcpy(bytes, data, size < FLUE_STORAGE_BLOCK ? size : FLUE_STORAGE_BLOCK);
    memcpy(bytes + FLUE_STORAGE_DATA, data, size);
    repair(bytes, whole);
    int fd = memfd_create("segment", 0), failure;
    FUZZ_CHECK(fd >= 0 && write(fd, bytes, whole) == (ssize_t)whole, "memory");
    flue_segment_block(&flue_storage_system, fd, NUMBER, block, &failure);
    struct flue_segment_rows rows;
    uint64_t cut = dice(4) ? UINT64_MAX : dice((uint32_t)whole + 100);
    failure = flue_segment_rows(&flue_storage_system, fd, SALT, NUMBER, whole, cut, &rows);
    FUZZ_CHECK(failure == 0, "nothing failed");
    FUZZ_CHECK(rows.count <= FLUE_STORAGE_RECORDS && rows.data_end <= whole + FLUE_STORAGE_ALIGN,
               "their bounds");
    for (uint32_t i = 0; i < rows.count; i++) {
        const struct flue_storage_row *row = &rows.items[i];
        if (row->flags)
            continue;
        FUZZ_CHECK(row->offset + row->head_size + row->body_size <= whole, "in the file");
        failure = flue_segment_record(&flue_storage_system, fd, SALT, (uint64_t)NUMBER << 16 | i,
                                      row, NULL, NULL);
        FUZZ_CHECK(failure == 0 || failure == -EBADMSG, "damaged or not");
        FUZZ_CHECK(failure == 0 || rows.sealed, "a scan delivers what it has verified");
    }
    free(rows.items);
    close(fd);
    free(bytes);
    free(block);
    return fuzz_end();
}
