/* inside.h: what the files of the log share and nobody else sees.
 *
 * Three kinds of thread meet here: the loops (take, finish, lag), the writer (appends and notes,
 * one round after the other), the reader (reads, footers, `finished`, removal of files). What they
 * share stands under `lock`, held for moments and never over a call of the disk. A segment leaves
 * `segments` when nobody owes a record of it, and is freed by the reader alone.
 *
 * Memory: four bits for each record and queue of a segment, and the rows (64 bytes a record) of the
 * open segment, of segments that could not be sealed, and of others up to FLUE_STORAGE_CACHE.
 */
#ifndef FLUE_STORAGE_INSIDE_H
#define FLUE_STORAGE_INSIDE_H

#include <pthread.h>
#include "collector/storage/segment.h"
#include "collector/storage/storage.h"

#define FLUE_STORAGE_CACHE   ((size_t)16 << 20) /* bytes of rows of sealed segments */
#define FLUE_STORAGE_NOTES   65536u             /* in one log */
#define FLUE_STORAGE_DAMAGED 4u                 /* files set aside that are kept */
#define FLUE_STORAGE_PATH    4096u

/* What one queue owes of one segment: four bitmaps of `capacity` bits, one behind the other. */
struct flue_storage_share {
    uint32_t capacity, owed_count, taken_count;
    uint64_t words[];
};
enum {
    FLUE_BITS_OWED,
    FLUE_BITS_TAKEN,
    FLUE_BITS_FRESH, /* finished and not yet in `finished` */
    FLUE_BITS_LATE,  /* finished while the rows were not at hand: still in the lag's bytes */
    FLUE_BITS
};

struct flue_storage_segment {
    uint64_t number, salt;
    uint64_t file_size, first_ns, skip_until; /* skip_until: the footer could not be read */
    uint64_t cut;                             /* UINT64_MAX: none */
    uint32_t count, owed, damaged;
    bool open;   /* the writer's */
    bool pinned; /* its rows are nowhere else */
    bool dirty, wanted;
    bool late;                          /* a bit of FLUE_BITS_LATE is set */
    uint8_t slots[FLUE_STORAGE_QUEUES]; /* bit of the mask in the file to queue */
    struct flue_storage_row *rows;
    uint32_t rows_room;
    uint64_t used;
    struct flue_storage_share *shares[FLUE_STORAGE_QUEUES];
    struct flue_storage_segment *next_dirty, *next_dead;
};

struct flue_storage_watcher { /* outlives the log while it is posted */
    struct flue_task task;
    struct flue_storage *storage; /* NULL: the log is closed */
    struct flue_storage_queue *queue;
    bool posted;
};

struct flue_storage_queue {
    struct flue_storage *storage;
    unsigned slot;
    bool opened;
    char name[FLUE_STORAGE_NAME + 1];
    uint64_t untaken;
    struct flue_storage_lag lag, recovered;
    struct flue_storage_watcher *watcher;
    struct flue_loop *watch_loop;
    void (*ready)(void *arg);
    void *ready_arg;
};

struct flue_storage_noted {
    uint64_t number, file;
    unsigned slot;
};

struct flue_storage_writer { /* touched by the writer alone while it runs */
    pthread_t thread;
    bool running;
    struct flue_storage_segment *segment;
    int fd;
    uint64_t offset, capacity, synced;
    struct flue_storage_record *records;
    struct iovec *parts;
    size_t part_room;
    uint64_t retry_at, wait_ns; /* after a failure */
    struct flue_error failure;
};

struct flue_storage_reader { /* touched by the reader alone while it runs */
    pthread_t thread;
    bool running;
    int fd; /* of `finished`, -1: none */
    uint64_t size, limit, retry_at;
    uint64_t least_limit; /* below it `finished` is not written anew */
    struct {
        uint64_t record;
        unsigned count;
    } failed[16];
    unsigned failed_at;
};

struct flue_storage {
    char *id, *directory;
    bool create_directory, fsync, started, settled;
    unsigned directory_mode;
    uint64_t segment_bytes;
    int64_t timeout;
    const struct flue_storage_io *io;
    struct flue_loops *loops;
    int lock_fd;

    pthread_mutex_t lock;
    pthread_cond_t work; /* of the reader */
    struct flue_storage_segment **segments;
    size_t segment_count, segment_room;
    struct flue_storage_segment *dirty, *dead;
    struct flue_storage_queue *queues[FLUE_STORAGE_QUEUES];
    unsigned queue_count;
    struct flue_storage_cut cuts[FLUE_STORAGE_CUTS];
    unsigned cut_count;
    uint64_t next_number, next_note, tick;
    uint64_t open_number; /* of the segment that is being made or written; 0: none */
    size_t cached;
    struct flue_storage_noted *notes;
    size_t note_count, note_room;
    uint64_t *note_drops; /* files to remove */
    size_t note_drop_count, note_drop_room;
    struct flue_storage_read *reads, **reads_end;
    bool wanted, rewrite, reader_ending; /* rewrite: `finished` must be written anew */

    pthread_mutex_t inbox_lock;
    pthread_cond_t inbox_work;
    struct flue_storage_append *appends, **appends_end;
    struct flue_storage_note *note_puts, **note_puts_end;
    bool writer_ending;

    struct flue_storage_writer writer;
    struct flue_storage_reader reader;

    struct flue_metric *bytes, *records, *appended, *appended_bytes, *syncs, *damaged, *torn,
        *write_failures, *sync_failures, *read_failures;
    struct flue_histogram *sync_seconds;
};

void flue_storage_path(const struct flue_storage *storage, const char *name, char *out);
void flue_storage_segment_path(const struct flue_storage *storage, uint64_t number,
                               const char *suffix, char *out);

/* ---- index.c: segments in memory; all under `lock` ------------------------------------------- */

static inline uint64_t *flue_share_bits(struct flue_storage_share *share, unsigned kind)
{
    return share->words + (size_t)kind * (share->capacity / 64);
}
static inline bool flue_bit(const uint64_t *bits, uint32_t at)
{
    return bits[at / 64] >> at % 64 & 1;
}

struct flue_storage_segment *flue_storage_segment_new(uint64_t number, uint64_t salt);
void flue_storage_segment_free(struct flue_storage_segment *segment);
/* Numbers rise. False without memory. */
bool flue_storage_segment_add(struct flue_storage *storage, struct flue_storage_segment *segment);
struct flue_storage_segment *flue_storage_segment_find(struct flue_storage *storage,
                                                       uint64_t number);
/* Takes a closed segment that nobody owes anything of out of the list, for the reader to remove. */
void flue_storage_segment_retire(struct flue_storage *storage,
                                 struct flue_storage_segment *segment);
/* Room for record `index` of `slot`. False without memory. */
bool flue_storage_share_reserve(struct flue_storage_segment *segment, unsigned slot,
                                uint32_t index);
bool flue_storage_rows_reserve(struct flue_storage_segment *segment, uint32_t count);
/* A record that is durable; its room was reserved. */
void flue_storage_owe(struct flue_storage *storage, struct flue_storage_segment *segment,
                      uint32_t index, const struct flue_storage_row *row, unsigned slot,
                      bool taken);
void flue_storage_lag_add(struct flue_storage_lag *lag, const struct flue_storage_row *row);
void flue_storage_lag_take(struct flue_storage_lag *lag, const struct flue_storage_row *row);
/* Rows of a closed segment came or need not be kept any more; forgets others over the cache. */
void flue_storage_rows_cache(struct flue_storage *storage, struct flue_storage_segment *segment);
/* The rows are there: what was finished without them leaves the lags. */
void flue_storage_late(struct flue_storage *storage, struct flue_storage_segment *segment);
/* Posts to the watcher of the queue, if it has one. */
void flue_storage_notify(struct flue_storage_queue *queue);

/* ---- recover.c, journal.c, notes.c, writer.c, reader.c --------------------------------------- */

enum flue_code flue_storage_recover(struct flue_storage *storage, struct flue_error *error);
/* The queue of this name, made if need be; NULL: there are 64, or no memory. Under `lock` or before
 * the threads run. */
struct flue_storage_queue *flue_storage_queue_named(struct flue_storage *storage, const char *name,
                                                    size_t size);
/* Slots to queues by the names of a block. False: more than 64 in all. */
bool flue_storage_slots(struct flue_storage *storage, const struct flue_storage_block *block,
                        uint8_t *slots);
void flue_storage_names(const struct flue_storage *storage, struct flue_storage_block *block);
/* Renames what cannot be read and keeps the newest few. */
void flue_storage_set_aside(struct flue_storage *storage, const char *name, const char *why);

struct flue_finished {                     /* what `finished` said */
    struct flue_storage_finished *entries; /* RANGEs by record; malloc */
    size_t count;
    uint64_t marks[FLUE_STORAGE_QUEUES]; /* by queue of the log */
    uint64_t next;                       /* no number from here on was used */
};
enum flue_code flue_finished_read(struct flue_storage *storage, struct flue_finished *out,
                                  struct flue_error *error);
/* Writes it anew from memory, beside the old one. 0 or -errno. The reader's, or before it runs. */
int flue_finished_rewrite(struct flue_storage *storage);
/* Appends what is fresh. Unlocks for the disk. 0 or -errno. */
int flue_finished_flush(struct flue_storage *storage);

enum flue_code flue_notes_recover(struct flue_storage *storage, struct flue_error *error);
void flue_notes_write(struct flue_storage *storage, struct flue_storage_note *note);
void flue_notes_remove(struct flue_storage *storage); /* the reader's: what was dropped */

bool flue_storage_writer_run(struct flue_storage *storage);
void flue_storage_writer_stop(struct flue_storage *storage); /* writes what waits; seals */
bool flue_storage_reader_run(struct flue_storage *storage);
void flue_storage_reader_stop(struct flue_storage *storage);

#endif
