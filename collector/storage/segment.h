/* segment.h: what a segment file says, read from its footer or, without one, by a scan.
 *
 * Reads only, so it is shared by recovery and by the commands that look at a folder. Any thread;
 * blocks on the disk.
 */
#ifndef FLUE_STORAGE_SEGMENT_H
#define FLUE_STORAGE_SEGMENT_H

#include "collector/storage/format.h"
#include "collector/storage/io.h"

#define FLUE_STORAGE_SUFFIX ".segment"

/* The header block: GOOD when one of its two copies is. `failure`: 0, or the -errno of a read that
 * made it BROKEN. */
enum flue_storage_sight flue_segment_block(const struct flue_storage_io *io, int fd,
                                           uint64_t number, struct flue_storage_block *out,
                                           int *failure);

struct flue_segment_rows {
    struct flue_storage_row *items; /* malloc; the caller frees it */
    uint32_t count;
    uint64_t data_end;  /* where the last record ends */
    bool sealed;        /* read from its footer */
    bool broken_footer; /* it has one, whose rows are broken */
    uint32_t damaged;   /* rows with FLUE_ROW_DAMAGED */
    /* Of the last write, which no later record says was synced: bytes behind data_end, and broken
     * records in front of whole ones. Never acknowledged, unless the disk has lost them since. */
    uint64_t torn;
    uint32_t unproven;
    bool unreadable; /* the disk failed to read some of it: perhaps not for good */
};
/* `size`: of the file. `cut`: from there on nothing was acknowledged (a failed write), or
 * UINT64_MAX. 0 or -errno. A record that cannot be read is damaged, which is no failure. */
int flue_segment_rows(const struct flue_storage_io *io, int fd, uint64_t salt, uint64_t number,
                      uint64_t size, uint64_t cut, struct flue_segment_rows *out);

/* Writes rows and trailer behind data_end, cuts the file there and syncs. 0 or -errno. */
int flue_segment_seal(const struct flue_storage_io *io, int fd, uint64_t salt, uint64_t number,
                      const struct flue_storage_row *rows, uint32_t count, uint64_t data_end,
                      bool sync, uint64_t *size);

/* Head and body of a row into memory of its sizes (NULL: checked only). 0, -EBADMSG: broken, or
 * another -errno. */
int flue_segment_record(const struct flue_storage_io *io, int fd, uint64_t salt, uint64_t record,
                        const struct flue_storage_row *row, void *head, void *body);

/* "0000000000000001.segment"; out holds 32 bytes. */
void flue_segment_name(uint64_t number, const char *suffix, char *out);
/* False: no such name. */
bool flue_segment_number(const char *name, const char *suffix, uint64_t *number);

#endif
