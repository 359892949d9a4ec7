/* item.h: what the parts of the engine know of each other (pipeline/ only).
 *
 * An item is one batch on its way to one exporter, with everything it needs embedded: its place in
 * a delivery, in a list of its exporter, its timer, its reservation. It lives on one loop.
 *
 *   JOINED -> RESERVED -> (BATCHING ->) READY -> SENDING <-> BACKOFF -> ENDED
 *   JOINED -> SENDING (no queue)
 *   READY, BACKOFF -> HELD -> SENDING (the circuit is open: waits for its turn to probe)
 *   LOADING -> READY (read back from the log)
 *   SENDING -> GROUP (cut into parts; ends with the last of them)
 *   BATCHING -> MERGED (its sender waits; ends with the item that carries it)
 *
 * "counted": the ledger's received includes it, nobody waits for it. Otherwise its delivery, group
 * or carrier is told the result, and decides what is counted.
 *
 * "durable": the exporter has a log (sending_queue.storage). Its items stand on disk before they
 * are counted, so they may leave memory at any time (flue_item_leave) and come back.
 */
#ifndef FLUE_PIPELINE_ITEM_H
#define FLUE_PIPELINE_ITEM_H

#include "collector/pipeline/exporter.h"
#include "collector/pipeline/flow.h"
#include "collector/pipeline/graph.h"
#include "collector/pipeline/ledger.h"
#include "collector/storage/storage.h"

enum flue_item_state {
    FLUE_ITEM_JOINED,
    FLUE_ITEM_RESERVED,
    FLUE_ITEM_BATCHING,
    FLUE_ITEM_LOADING,
    FLUE_ITEM_READY,
    FLUE_ITEM_HELD,
    FLUE_ITEM_SENDING,
    FLUE_ITEM_BACKOFF,
    FLUE_ITEM_GROUP,
    FLUE_ITEM_MERGED,
    FLUE_ITEM_ENDED
};
enum flue_item_result {
    FLUE_RESULT_NONE,
    FLUE_RESULT_TAKEN,   /* but for `rejected` */
    FLUE_RESULT_REFUSED, /* for good, with `reason` */
    FLUE_RESULT_FAILED,  /* the sender may come again */
    FLUE_RESULT_SKIPPED  /* on_overflow: drop */
};

struct flue_item_list {
    struct flue_item *first, *last;
};

#define FLUE_HALVINGS 64 /* of one request, in search of what of it is refused */

/* Records that several items carry between them: parts of one, or one of several. */
struct flue_owed {
    unsigned items;    /* that have not ended */
    unsigned halvings; /* left, in the search for a poison piece */
    bool left;         /* one of them was not sent: the records stay on disk */
    size_t count;
    uint64_t records[];
};

struct flue_item {
    struct flue_send send; /* first: the exporter's view; send.record: the (first) record */
    struct flue_branch *branch;
    struct flue_exporter_loop *at;
    struct flue_counts counts; /* as received; outlives the batch of a merged item */
    enum flue_item_state state;
    enum flue_item_result result;
    bool counted, place, started, in_line; /* in_line: stands in queued_items */
    bool ticketed;                         /* `ticket` has its place in the exporter's flow */
    uint8_t giving_up;                     /* enum flue_code: CANCELLED or SHUTTING_DOWN */
    unsigned reason;                       /* of REFUSED: enum flue_drop_reason */
    uint64_t units, bytes;                 /* reserved */
    uint64_t first_ns;                     /* of the first attempt */
    uint64_t interval_ns;                  /* the next wait, before jitter */
    struct flue_timer timer;
    struct flue_item_list *list;
    struct flue_item *previous, *next; /* in `list`, or the free list */
    struct flue_delivery *delivery;    /* who waits, or NULL */
    struct flue_item *owner;           /* the group or the carrier that it belongs to */
    struct flue_item *parts;           /* of a group, by `sibling` */
    struct flue_item *merged;          /* of a carrier: items whose senders wait, by `next` */
    struct flue_item *sibling;         /* next in the delivery or group */
    unsigned open_parts;
    bool any_taken, any_failed;
    struct flue_counts rejected; /* by a partial success, or parts refused for good */
    struct flue_error *error;    /* of a group: its first failure; rare */
    struct flue_owed *owed;      /* NULL: only send.record, or nothing */
    struct flue_branch *route;   /* of a recovered record: its pipeline, if that still exists */
    struct flue_recall *recall;  /* LOADING, or parked and being loaded */
    void (*told)(struct flue_send *send, enum flue_code code, const struct flue_error *error);
    struct flue_flow_ticket ticket;
};

/* One pipeline's way to one exporter; owned by the exporter. */
struct flue_branch {
    struct flue_exporter *exporter;
    const char *pipeline;    /* id; copied */
    enum flue_signal signal; /* what passes there */
    struct flue_account *account;
    struct flue_ledger ledger;
    struct flue_branch *next;
};

/* What waits to become one request: same branch, form, tenant, partition keys. */
struct flue_batch_group {
    struct flue_exporter_loop *at;
    struct flue_batch_group *next;
    struct flue_item_list items;
    struct flue_timer timer;
    uint64_t size; /* in the batcher's sizer */
    size_t count;
};
#define FLUE_BATCH_GROUPS_MAX 1000

struct flue_exporter_loop {
    _Alignas(64) struct flue_exporter *exporter;
    struct flue_loop *loop;
    struct flue_item_list ready;   /* wait for a place */
    struct flue_item_list parts;   /* of a direct group: next to be sent, no place needed */
    struct flue_item_list running; /* SENDING and BACKOFF */
    struct flue_batch_group *groups;
    struct flue_item *free_items;
    unsigned free_count, group_count, spare, turn;
    bool pumping, draining, expired;
    bool loading; /* in_order: one record is read at a time */
    struct flue_letter *letters; /* that wait to be written again */
    struct flue_timer drain_timer;
    uint64_t drain_deadline_ns;
    struct flue_delivery *room_first, *room_last; /* block_on_overflow: wait for room */
    struct flue_task wake, stop;
    _Atomic bool wake_posted;
    _Atomic uint32_t granted; /* places handed over by other loops */
    _Atomic int64_t live;     /* items that exist; one writer */
    _Atomic int64_t sending, queued_items;
};

struct flue_exporter {
    const struct flue_component *component;
    void *instance;
    char *id;
    bool queued; /* has a sending queue */
    bool retries;
    struct flue_exporter_settings settings;
    struct flue_metrics *metrics;
    struct flue_branch *branches;
    struct flue_exporter_loop *at; /* one per loop */
    struct flue_loops *loops;
    unsigned signals;                                       /* or'ed */
    struct flue_metric *send_failed[3], *enqueue_failed[3]; /* by flue_signal_row */
    struct flue_metric *retried, *capacity;
    struct flue_histogram *batch_size;
    struct flue_bytes *partition_keys; /* lower-case */
    size_t partition_count;
    _Atomic bool stopping;
    bool component_stopping;
    uint64_t stop_deadline_ns;
    _Alignas(64) _Atomic uint64_t used_units, used_bytes;
    _Alignas(64) _Atomic uint64_t places;         /* in use */
    _Atomic uint64_t place_waiters, room_waiters; /* bit per loop */
    struct flue_flow *flow;                       /* the circuit; NULL without retries */
    /* sending_queue.storage; NULL without */
    struct flue_storage *storage;
    struct flue_storage_queue *log;
    struct flue_dead_letters *dead_letters;
    struct flue_branch *recovered;               /* the books of what was there at start */
    struct flue_exporter_loop *home;             /* of a single_loop component; watches the log */
    _Alignas(64) _Atomic uint64_t pending_units; /* reserved, not yet in the log's lag */
    _Atomic uint64_t first_own;                  /* records below it were there at start */
    _Atomic uint64_t hungry;    /* loops that found nothing to take; bit per loop */
    _Atomic uint64_t starved;   /* loops that found no memory for it */
    _Atomic uint32_t handovers; /* on their way to `home`, or to a dead letter */
};

/* exporter.c */
static inline unsigned flue_signal_row(enum flue_signal signal)
{
    return signal == FLUE_TRACES ? 1 : signal == FLUE_METRICS ? 2 : 0;
}
struct flue_branch *flue_branch_new(struct flue_exporter *exporter, const char *pipeline,
                                    enum flue_signal signal, struct flue_account *account);
struct flue_item *flue_item_new(struct flue_exporter_loop *at, struct flue_branch *branch);
void flue_item_free(struct flue_item *item);
/* Behind `before`; NULL: at the front. */
void flue_item_list_insert(struct flue_item_list *list, struct flue_item *before,
                           struct flue_item *item);
static inline void flue_item_list_append(struct flue_item_list *list, struct flue_item *item)
{
    flue_item_list_insert(list, list->last, item);
}
void flue_item_unlist(struct flue_item *item);
/* Sends begin in the order of the records. */
static inline bool flue_in_order(const struct flue_exporter *exporter)
{
    return exporter->log && exporter->component->in_order;
}
static inline struct flue_exporter_loop *flue_branch_at(const struct flue_branch *branch,
                                                        const struct flue_loop *loop)
{
    return &branch->exporter->at[loop->index];
}

/* queue.c: reservation, places, what is sent next */
enum flue_code flue_queue_reserve(struct flue_item *item, struct flue_error *error);
void flue_queue_release(struct flue_item *item);
void flue_queue_give_memory(struct flue_exporter *exporter, uint64_t bytes);
void flue_queue_enter(struct flue_item *item); /* reserved; to the batcher, or ready */
void flue_queue_ready(struct flue_item *item);
void flue_queue_pump(struct flue_exporter_loop *at);
void flue_queue_put_place(struct flue_exporter_loop *at);
void flue_queue_wait_room(struct flue_exporter_loop *at, struct flue_delivery *delivery);
void flue_queue_unwait_room(struct flue_exporter_loop *at, struct flue_delivery *delivery);
void flue_queue_wake(struct flue_task *task);
void flue_queue_stop(struct flue_task *task);
void flue_queue_expire(struct flue_exporter_loop *at);
void flue_queue_wake_room(struct flue_exporter *exporter);
void flue_queue_wake_loops(struct flue_exporter *exporter, uint64_t loops);

/* attempt.c: attempts, verdicts, ends */
void flue_attempt_start(struct flue_item *item);
/* The same when the circuit lets it. */
void flue_attempt_begin(struct flue_item *item);
/* A drain begins: what waits for its next attempt gets it now, or is left on disk. */
void flue_attempt_hurry(struct flue_exporter_loop *at);
/* The last word on an item that was not taken: counted and logged, or its sender told. */
void flue_item_fail(struct flue_item *item, unsigned reason, enum flue_item_result result,
                    const struct flue_error *error);
void flue_item_leave_line(struct flue_item *item);
/* A durable item gives up its memory; its record stays in the log, to be taken again. In no list.
 */
void flue_item_leave(struct flue_item *item);
/* CANCELLED or SHUTTING_DOWN: ends now, or as soon as the exporter has ended its attempt. */
void flue_item_give_up(struct flue_item *item, enum flue_code why);
/* Cuts `item` (in no list, no attempt running); its parts are ready to be sent. False and *error:
 * it stays as it was. FLUE_TOO_LARGE: there is nothing to cut. */
bool flue_item_split(struct flue_item *item, uint64_t max, bool by_bytes, struct flue_error *error);

/* store.c: from a delivery to the log */
/* Appends every RESERVED item of `first` (by `sibling`) whose exporter has a log, one record for
 * all that share log and payload. *begun: `done` comes once on `loop`, never from within, and the
 * items stay until then; its error NULL: all are durable and have their send.record. Otherwise
 * there are none, or it failed at once. */
enum flue_code flue_store(struct flue_item *first, struct flue_loop *loop, bool *begun,
                          void (*done)(void *arg, const struct flue_error *error), void *arg,
                          struct flue_error *error);
/* Of a delivery that is refused after all. */
void flue_store_undo(struct flue_item *first);

/* recall.c: between the log and memory */
/* Enough room in the lag? Counts `units` as pending. */
bool flue_lag_reserve(struct flue_item *item, uint64_t units);
uint64_t flue_lag_units(const struct flue_exporter *exporter);
/* Counted and in the log: goes on in memory, or waits on disk. */
void flue_durable_enter(struct flue_item *item);
void flue_drop_oldest(struct flue_exporter_loop *at);
/* Takes a record for the loop, which has a place for it. False: none now. */
bool flue_recall_next(struct flue_exporter_loop *at);
/* Is it worth a place to ask for the next? */
bool flue_recall_wanted(const struct flue_exporter_loop *at);
/* The item has ended, or (`left`) goes back: tells the log once the last of its items has. */
void flue_record_end(struct flue_item *item, bool left);
/* The same for what was taken over from an item; on its loop. */
void flue_record_settle(struct flue_exporter *exporter, uint64_t record, struct flue_owed *owed,
                        bool left);
enum flue_code flue_durable_start(struct flue_exporter *exporter, struct flue_error *error);
void flue_recall_forget(struct flue_item *item); /* of an exporter that is taken down */

/* deadletter.c: what a destination will never take, kept beside the log */
struct flue_dead_letters;
enum flue_code flue_dead_letters_new(const char *directory, const char *exporter,
                                     struct flue_metrics *metrics, struct flue_dead_letters **out,
                                     struct flue_error *error);
/* Takes the record over from the item, which is counted as queued: it is finished, and dropped in
 * the books with `reason` (enum flue_drop_reason), when the letter is on disk. False: no memory now,
 * the item keeps it. */
bool flue_dead_letters_keep(struct flue_dead_letters *letters, struct flue_item *item,
                            unsigned reason, const struct flue_error *error);
/* A drain: what could not be written yet stays in the log. */
void flue_dead_letters_leave(struct flue_exporter_loop *at);
void flue_dead_letters_destroy(struct flue_dead_letters *letters); /* NULL: fine */

/* batcher.c */
void flue_batcher_add(struct flue_item *item);
void flue_batcher_flush_all(struct flue_exporter_loop *at);
void flue_batcher_forget(struct flue_item *item); /* leaves its group */

/* delivery.c */
void flue_delivery_join(struct flue_delivery *delivery, struct flue_branch *branch,
                        struct flue_batch *batch); /* takes the reference */
void flue_delivery_entered(struct flue_delivery *delivery, struct flue_ledger *pipeline,
                           const struct flue_counts *counts);
void flue_delivery_pushed(struct flue_delivery *delivery, const struct flue_counts *counts);
void flue_delivery_item_ended(struct flue_item *item, const struct flue_error *error);
/* There may be room; false: waits again (and is not in the list). */
bool flue_delivery_room(struct flue_delivery *delivery);
void flue_delivery_no_room(struct flue_delivery *delivery, const struct flue_error *error);
struct flue_delivery **flue_delivery_room_next(struct flue_delivery *delivery);

#endif
