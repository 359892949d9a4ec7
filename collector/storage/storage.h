/* storage.h: a log on disk of batches that exporters still owe: the durable half of a sending
 * queue (`sending_queue.storage`), one log per file_storage, shared by every exporter that names
 * it.
 *
 * A record is opaque to the log: head and body as slices, written once however many queues owe it.
 * It lies in a segment: a preallocated file with a version, records with checksums (CRC32C) of head
 * and body, and a footer when sealed (offset, size, counts and owing queues of every record), so
 * that recovery reads footers and scans the open segment alone. Each queue has a low-water mark and
 * a set of finished records above it, persisted without a sync (a kill keeps it, a power cut costs
 * duplicates only); a segment is removed when no queue owes a record of it.
 *
 * Acknowledgement: `done` of an append comes after the sync that covers the record (group commit: a
 * thread of its own takes all that waits, writes it with one writev and syncs once), or at once
 * after the write when fsync is off. A write or sync that fails fails every append that it covers,
 * and the segment is given up: it is never synced again as if nothing had happened; what was
 * acknowledged before in it stays readable.
 *
 * Threads: new, start, open, queue, close on the main thread while the loops do not run. Everything
 * else on any loop; callbacks come on the loop that is given. Nothing here blocks a loop: two
 * threads of the log's own write and read, so that a slow disk holds nothing but the log.
 *
 * Facts: reference figures of segment logs against LMDB and SQLite are in docs/performance.md.
 */
#ifndef FLUE_STORAGE_H
#define FLUE_STORAGE_H

#include "collector/base/block.h"
#include "collector/base/loop.h"
#include "collector/base/metrics.h"
#include "collector/base/payload.h"

struct flue_storage;
struct flue_storage_queue; /* one exporter's place in the log */

struct flue_storage_config {
    const char *directory;
    bool create_directory, fsync;
    unsigned directory_mode;
    int64_t segment_bytes; /* 0: 128 MiB */
    int64_t timeout;       /* ns to wait for the lock of the folder at start */
};

/* In memory alone, so that `flue validate` may make it and the extension's create returns it: the
 * instance of a file_storage IS the struct flue_storage. Main thread. */
enum flue_code flue_storage_new(const struct flue_storage_config *config, const char *id,
                                struct flue_loops *loops, struct flue_metrics *metrics,
                                struct flue_storage **out, struct flue_error *error);
/* Recovers what is there and starts the threads; once, later calls do nothing. Whoever comes first
 * calls it in its start (exporters start before extensions), before the loops run. Refuses a folder
 * that another process holds, or whose version it does not know. Damaged records are set aside and
 * counted, never delivered. */
enum flue_code flue_storage_start(struct flue_storage *storage, struct flue_error *error);
/* Everybody who wants a queue has opened it: one warning about those on disk that nobody did. Main
 * thread, after start; the extension's start calls it. */
void flue_storage_settle(struct flue_storage *storage);
/* new and start. */
enum flue_code flue_storage_open(const struct flue_storage_config *config, const char *id,
                                 struct flue_loops *loops, struct flue_metrics *metrics,
                                 struct flue_storage **out, struct flue_error *error);
/* Waits for what is being written. Callbacks that are due have been posted. NULL: fine. */
void flue_storage_close(struct flue_storage *storage);
const char *flue_storage_id(const struct flue_storage *storage);

/* ---- queues ---------------------------------------------------------------------------------- */

/* The queue of one exporter (by its id, at most 200 bytes), new or as recovered; at most 64 in one
 * log. Before or after start; what it owes and its notes are known after start. Opened twice: the
 * same queue. Queues found on disk that nobody opens keep their records, with one warning. */
enum flue_code flue_storage_queue_open(struct flue_storage *storage, const char *exporter,
                                       struct flue_storage_queue **out, struct flue_error *error);

struct flue_storage_lag { /* what a queue owes: not finished, whether taken or not */
    uint64_t records;
    uint64_t bytes; /* encoded, on disk */
    struct flue_counts counts;
    uint64_t oldest_ns; /* wall clock of the oldest record, to within a segment; 0: none */
};
void flue_storage_lag(const struct flue_storage_queue *queue, struct flue_storage_lag *out);
/* What the queue owed when the log was opened ("recovered at start"). */
void flue_storage_recovered(const struct flue_storage_queue *queue, struct flue_storage_lag *out);

/* ---- appending ------------------------------------------------------------------------------- */

struct flue_storage_append {
    /* Both borrowed until done. The head is small (origin, form, tenant): at most 64 KiB. */
    const struct flue_slices *head, *body;
    struct flue_counts counts;
    uint64_t time_ns;                         /* wall clock of receipt */
    struct flue_storage_queue *const *queues; /* who owes it; borrowed until done */
    size_t queue_count;
    /* Appended records are `taken` by their appender for these queues (see flue_storage_take): the
     * bit i says that queues[i] has the batch in memory and sends it from there. */
    uint64_t taken;
    struct flue_loop *loop;
    /* Once, on `loop`, never from within. FLUE_OK: durable, `record` is its id. Otherwise nothing
     * of it will ever be delivered: FLUE_UNAVAILABLE (disk full, read-only, EIO), FLUE_TOO_LARGE.
     */
    void (*done)(struct flue_storage_append *append, enum flue_code code,
                 const struct flue_error *error);
    void *user;
    uint64_t record;
    struct flue_task task;            /* the log's own */
    struct flue_storage_append *next; /* the log's own */
    struct flue_error error;          /* the log's own */
};
void flue_storage_append(struct flue_storage *storage, struct flue_storage_append *append);

/* ---- taking, reading, finishing -------------------------------------------------------------- */

enum flue_storage_order { FLUE_STORAGE_NEWEST, FLUE_STORAGE_OLDEST };
struct flue_storage_entry {
    uint64_t record;
    uint64_t time_ns;
    uint64_t bytes; /* encoded */
    struct flue_counts counts;
};
/* The next record that the queue owes and nobody has taken, marked as taken. False: none, or none
 * at hand: what is needed of a sealed segment is then being read, and the watcher is told. */
bool flue_storage_take(struct flue_storage_queue *queue, enum flue_storage_order order,
                       struct flue_storage_entry *out);
/* `ready` is posted to `loop` (one post at a time, several reasons may be one) when a take that
 * said false may now find something: a footer was read, a record was appended that nobody has
 * taken, or one was put back. NULL `loop` ends it. Set it before the loops run. */
void flue_storage_watch(struct flue_storage_queue *queue, struct flue_loop *loop,
                        void (*ready)(void *arg), void *arg);
/* Not sent after all: it can be taken again. */
void flue_storage_put_back(struct flue_storage_queue *queue, uint64_t record);
/* The queue owes it no more (sent or dropped, the caller counts which). Unknown or finished
 * already: nothing happens. */
void flue_storage_finish(struct flue_storage_queue *queue, uint64_t record);

struct flue_storage_read {
    struct flue_storage_queue *queue;
    uint64_t record;
    struct flue_account *account; /* charged for `body`, over its limit too: it was acknowledged */
    struct flue_loop *loop;
    /* Once, on `loop`. FLUE_OK: head and body, one reference of each is the caller's. FLUE_INVALID:
     * the record is damaged or unreadable for good (say so, drop it); FLUE_UNAVAILABLE: not now. */
    void (*done)(struct flue_storage_read *read, enum flue_code code,
                 const struct flue_error *error);
    void *user;
    struct flue_block *head, *body;
    struct flue_job job;     /* the log's own */
    struct flue_error error; /* the log's own */
};
void flue_storage_read(struct flue_storage_read *read);

/* ---- notes ----------------------------------------------------------------------------------- */

/* A small durable text of a queue under a number of its own (at most 1 MiB): what must be known
 * again after a crash beside the records, as the cut of a roll-up. `done` as for an append. */
struct flue_storage_note {
    struct flue_storage_queue *queue;
    uint64_t number; /* chosen by the caller; unique in its queue */
    struct flue_bytes text;
    struct flue_loop *loop;
    void (*done)(struct flue_storage_note *note, enum flue_code code,
                 const struct flue_error *error);
    void *user;
    struct flue_task task;          /* the log's own */
    struct flue_storage_note *next; /* the log's own */
    struct flue_error error;        /* the log's own */
};
void flue_storage_note_put(struct flue_storage_note *note);
/* Forgets it (not synced: a crash may bring it back, so acting on it twice must be harmless). */
void flue_storage_note_drop(struct flue_storage_queue *queue, uint64_t number);
/* Those that are there, by number; on the main thread before the loops run. */
void flue_storage_notes(const struct flue_storage_queue *queue,
                        bool (*visit)(void *arg, uint64_t number, struct flue_bytes text),
                        void *arg);

#endif
