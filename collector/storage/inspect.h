/* inspect.h: looks at the folder of a log without the lock, for people: `flue queue`.
 *
 * Reads only, so it is safe beside a daemon that writes there. It then sees what was true a moment
 * ago: a segment may be removed while it is read (it is left out), and what is being written at the
 * end of the open segment is not there yet. Blocks on the disk; one thread.
 */
#ifndef FLUE_STORAGE_INSPECT_H
#define FLUE_STORAGE_INSPECT_H

#include "collector/storage/segment.h"
#include "collector/storage/storage.h"

struct flue_inspected_queue {
    char name[FLUE_STORAGE_NAME + 1];
    struct flue_storage_lag lag;
    uint64_t segments; /* that it owes something of */
};
struct flue_inspected_segment {
    uint64_t number, salt, file_size;
    uint32_t records, owed, damaged; /* owed: by at least one queue */
    uint64_t bytes;                  /* of the records */
    bool sealed, broken_header, broken_footer;
    struct flue_storage_row *rows; /* owing is by queue of the folder, what is finished left out */
};
struct flue_inspection {
    const struct flue_storage_io *io;
    const char *directory;
    struct flue_inspected_queue *queues[FLUE_STORAGE_QUEUES];
    unsigned queue_count;
    uint64_t segments, broken_entries, notes, broken_notes, set_aside;
    bool broken_finished;
};

/* Adds everything up in `out` (give it to flue_inspection_free in any case) and shows each segment
 * with its rows, by number; they are valid during the call. False from `visit` (may be NULL) ends
 * it. `directory` is borrowed. */
enum flue_code flue_storage_inspect(const char *directory, struct flue_inspection *out,
                                    bool (*visit)(void *arg, struct flue_inspection *inspection,
                                                  const struct flue_inspected_segment *segment),
                                    void *arg, struct flue_error *error);
void flue_inspection_free(struct flue_inspection *inspection);

/* Head and body of record `index` of a segment that is being shown, checksums verified; a reference
 * of each is the caller's. NULL `head`: verified only. FLUE_INVALID: damaged; FLUE_UNAVAILABLE. */
enum flue_code flue_inspect_record(const struct flue_inspection *inspection,
                                   const struct flue_inspected_segment *segment, uint32_t index,
                                   struct flue_block **head, struct flue_block **body,
                                   struct flue_error *error);

#endif
