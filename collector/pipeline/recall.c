/* recall.c: between the log on disk and memory: what is kept in both, what goes on from disk alone.
 *
 * What is in memory is the newest: when memory is short the oldest that waits on a loop is left to
 * the disk (it stands there already), and a loop that has nothing in memory takes the newest record
 * that nobody has. So after an outage the newest goes first, and the backlog as fast as is left.
 *
 * A component that sends `in_order` keeps nothing in memory on the way in: every record goes
 * through the disk and is taken from there, the oldest first, one read at a time (one that fails is
 * tried again before the next).
 *
 * A loop that found nothing to take is `hungry` until the log says that there may be something, one
 * that found no memory is `starved` until some is given back.
 */
#include "collector/pipeline/item.h"
#include "collector/pipeline/record.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include <stdlib.h>

#define MEMORY_PART                                                                                \
    8 /* of the process's budget, for what one exporter has in memory and on disk                  \
       */
#define READ_AGAIN_NS UINT64_C(1000000000)
#define HEAD_BUDGET   ((size_t)4 * FLUE_RECORD_HEAD_MAX)

struct flue_recall {
    struct flue_storage_read read; /* first */
    struct flue_item *item;        /* NULL: it has ended meanwhile */
    bool drop;                     /* read only to know whose it is */
    void (*loaded)(struct flue_send *send, enum flue_code code, const struct flue_error *error);
};

/* ---- lag ------------------------------------------------------------------------------------- */

uint64_t flue_lag_units(const struct flue_exporter *exporter)
{
    struct flue_storage_lag lag;

    flue_storage_lag(exporter->log, &lag);
    switch (exporter->settings.sending_queue.sizer) {
    case FLUE_SIZER_REQUESTS:
        return lag.records;
    case FLUE_SIZER_ITEMS:
        return lag.counts.samples;
    default:
        return lag.bytes;
    }
}

bool flue_lag_reserve(struct flue_item *item, uint64_t units)
{
    struct flue_exporter *exporter = item->at->exporter;
    const struct flue_queue_config *queue = &exporter->settings.sending_queue;
    uint64_t pending = atomic_fetch_add(&exporter->pending_units, units);

    if (queue->on_overflow != FLUE_OVERFLOW_DROP &&
        flue_lag_units(exporter) + pending + units > (uint64_t)queue->queue_size) {
        atomic_fetch_sub(&exporter->pending_units, units);
        return false;
    }
    item->units = units;
    return true;
}

void flue_record_settle(struct flue_exporter *exporter, uint64_t record, struct flue_owed *owed,
                        bool left)
{
    if (owed) {
        owed->left |= left;
        if (--owed->items)
            return;
        left = owed->left;
    }
    for (size_t i = 0; i < (owed ? owed->count : 1); i++) {
        uint64_t one = owed ? owed->records[i] : record;
        if (left)
            flue_storage_put_back(exporter->log, one);
        else
            flue_storage_finish(exporter->log, one);
    }
    free(owed);
    if (!left)
        flue_queue_wake_room(exporter);
}

void flue_record_end(struct flue_item *item, bool left)
{
    struct flue_owed *owed = item->owed;
    uint64_t record = item->send.record;

    if (!record)
        return;
    item->send.record = 0;
    item->owed = NULL;
    flue_record_settle(item->at->exporter, record, owed, left);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static uint64_t memory_limit(const struct flue_exporter *exporter)
{
    uint64_t limit = (uint64_t)exporter->settings.sending_queue.max_bytes;
    const struct flue_account *account = exporter->branches ? exporter->branches->account : NULL;
    int64_t hard = account ? atomic_load_explicit(&account->budget->hard, memory_order_relaxed) : 0;
    uint64_t part = hard > 0 ? (uint64_t)hard / MEMORY_PART : limit;

    return part < limit ? part : limit;
}

static bool take_memory(struct flue_exporter *exporter, uint64_t bytes)
{
    if (atomic_fetch_add(&exporter->used_bytes, bytes) + bytes <= memory_limit(exporter))
        return true;
    atomic_fetch_sub(&exporter->used_bytes, bytes);
    return false;
}

/* The oldest that waits here and is a whole record. */
static struct flue_item *oldest_waiting(const struct flue_exporter_loop *at)
{
    struct flue_item *item = at->ready.first;

    while (item && (item->owed || !item->send.record))
        item = item->next;
    return item;
}

static void enter_memory(struct flue_item *item)
{
    uint64_t bytes = item->send.batch->payload->ops->held_size(item->send.batch->payload);
    struct flue_item *oldest;

    while (!take_memory(item->at->exporter, bytes)) {
        if (!(oldest = oldest_waiting(item->at))) {
            flue_item_leave(item);
            return;
        }
        flue_item_leave(oldest);
    }
    item->bytes = bytes;
    flue_queue_enter(item);
}

/* ---- from a delivery ------------------------------------------------------------------------- */

/* A component of one loop: the batch with an overlay of its own, for the other loop. */
struct handover {
    struct flue_task task;
    struct flue_exporter_loop *home;
    struct flue_branch *branch;
    struct flue_batch *batch;
    struct flue_counts counts;
    uint64_t record;
};

static void arrive(struct flue_task *task)
{
    struct handover *handover = (struct handover *)task;
    struct flue_exporter *exporter = handover->home->exporter;
    struct flue_item *item = flue_item_new(handover->home, handover->branch);

    if (item) {
        item->send.batch = handover->batch;
        item->send.record = handover->record;
        item->counts = handover->counts;
        item->counted = true;
        enter_memory(item);
    } else {
        flue_batch_unref(handover->batch);
        flue_storage_put_back(exporter->log, handover->record);
    }
    free(handover);
    atomic_fetch_sub(&exporter->handovers, 1);
}

static void hand_over(struct flue_item *item, struct flue_exporter_loop *home)
{
    const struct flue_batch *batch = item->send.batch;
    struct handover *handover = calloc(1, sizeof *handover);
    struct flue_payload *clone = handover ? batch->payload->ops->clone(batch->payload, NULL) : NULL;

    if (clone)
        handover->batch = flue_batch_new(clone, batch->origin, batch->counts, batch->account);
    if (!handover || !handover->batch) {
        free(handover);
        flue_item_leave(item);
        return;
    }
    handover->task.run = arrive;
    handover->home = home;
    handover->branch = item->branch;
    handover->counts = item->counts;
    handover->record = item->send.record;
    item->send.record = 0;
    atomic_fetch_add(&home->exporter->handovers, 1);
    flue_item_free(item);
    flue_loop_post(home->loop, &handover->task);
}

void flue_durable_enter(struct flue_item *item)
{
    struct flue_exporter_loop *at = item->at;
    struct flue_exporter *exporter = at->exporter;
    bool drop = exporter->settings.sending_queue.on_overflow == FLUE_OVERFLOW_DROP;

    flue_queue_release(item); /* the lag has it */
    if (at->expired || flue_in_order(exporter))
        flue_item_leave(item);
    else if (exporter->component->single_loop && exporter->home != at)
        hand_over(item, exporter->home);
    else
        enter_memory(item);
    if (drop)
        flue_drop_oldest(at);
}

/* ---- from the disk --------------------------------------------------------------------------- */

static struct flue_branch *branch_named(struct flue_exporter *exporter, struct flue_bytes pipeline)
{
    for (struct flue_branch *branch = exporter->branches; branch; branch = branch->next)
        if (branch != exporter->recovered && flue_bytes_is(pipeline, branch->pipeline))
            return branch;
    return NULL;
}

/* In whose books a record stands; `certain`: without reading it. */
static struct flue_branch *books_of(struct flue_exporter *exporter, uint64_t record, bool *certain)
{
    *certain = true;
    if (record < atomic_load(&exporter->first_own))
        return exporter->recovered;
    struct flue_branch *first = exporter->branches;
    if (first == exporter->recovered)
        first = first->next;
    *certain = !first->next || (first->next == exporter->recovered && !first->next->next);
    return first;
}

static void count_route(struct flue_item *item, const struct flue_record_head *head)
{
    struct flue_exporter *exporter = item->at->exporter;

    for (size_t i = 0; i < head->route_count; i++) {
        if (!flue_bytes_is(head->routes[i].exporter, exporter->id))
            continue;
        item->route = branch_named(exporter, head->routes[i].pipeline);
        if (item->route && item->branch != exporter->recovered)
            item->branch = item->route;
        return;
    }
}

/* Takes both references. */
static enum flue_code rebuild(struct flue_item *item, struct flue_block *head_block,
                              struct flue_block *body, struct flue_error *error)
{
    struct flue_record_head head;
    struct flue_payload *payload = NULL;
    struct flue_arena arena;
    bool certain;

    flue_arena_init(&arena, HEAD_BUDGET, 0);
    item->branch = books_of(item->at->exporter, item->send.record, &certain);
    enum flue_code code = flue_record_read(flue_block_bytes(head_block), &arena, &head, error);
    if (code == FLUE_OK) {
        count_route(item, &head);
        code = flue_payload_read(head.form, head.signal, body, &payload, error);
    } else {
        flue_block_unref(body);
    }
    if (code == FLUE_OK && !payload)
        code = flue_fail(error, FLUE_INVALID, "a record of the queue on disk holds nothing");
    if (code == FLUE_OK) {
        const struct flue_branch *branch = item->route ? item->route : item->at->exporter->branches;
        struct flue_origin *origin = flue_origin_new(&head.origin);
        item->send.batch =
            origin ? flue_batch_new(payload, origin, head.counts, branch->account) : NULL;
        if (!origin)
            flue_payload_unref(payload);
        flue_origin_unref(origin);
        item->counts = head.counts;
        if (!item->send.batch)
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory for a record of the queue on disk");
    }
    flue_arena_destroy(&arena);
    flue_block_unref(head_block);
    return code;
}

static void damaged(struct flue_item *item, const struct flue_error *error)
{
    flue_item_fail(item, FLUE_DROP_DAMAGED, FLUE_RESULT_REFUSED, error);
}

static void read_again(struct flue_timer *timer);

static bool begin_read(struct flue_item *item, bool drop,
                       void (*done)(struct flue_storage_read *read, enum flue_code code,
                                    const struct flue_error *error))
{
    struct flue_exporter *exporter = item->at->exporter;
    struct flue_recall *recall = calloc(1, sizeof *recall);

    if (!recall)
        return false;
    recall->item = item;
    recall->drop = drop;
    recall->read.queue = exporter->log;
    recall->read.record = item->send.record;
    recall->read.account = exporter->branches->account;
    recall->read.loop = item->at->loop;
    recall->read.done = done;
    item->recall = recall;
    flue_storage_read(&recall->read);
    return true;
}

void flue_recall_forget(struct flue_item *item)
{
    if (item->recall)
        item->recall->item = NULL;
    item->recall = NULL;
}

/* The item whose read this was, and its blocks; NULL (and all given back): it has ended. */
static struct flue_item *read_ended(struct flue_recall *recall, enum flue_code code)
{
    struct flue_item *item = recall->item;

    if (item)
        item->recall = NULL;
    else if (code == FLUE_OK) {
        flue_block_unref(recall->read.head);
        flue_block_unref(recall->read.body);
    }
    return item;
}

static void wait_and_read_again(struct flue_item *item)
{
    item->at->loading = flue_in_order(item->at->exporter);
    item->timer.fire = read_again;
    flue_timer_arm(item->at->loop, &item->timer, flue_monotonic_ns() + READ_AGAIN_NS);
}

static void go_on(struct flue_item *item, bool drop)
{
    struct flue_exporter_loop *at = item->at;
    struct flue_exporter *exporter = at->exporter;

    flue_item_unlist(item);
    if (drop) {
        struct flue_error error;
        (void)flue_fail(&error, FLUE_OVERLOADED, "the queue is full: the oldest was dropped");
        flue_item_fail(item, FLUE_DROP_QUEUE_FULL, FLUE_RESULT_REFUSED, &error);
        return;
    }
    uint64_t held = item->send.batch->payload->ops->held_size(item->send.batch->payload);
    atomic_fetch_add(&exporter->used_bytes, held);
    atomic_fetch_sub(&exporter->used_bytes, item->bytes);
    item->bytes = held;
    if (at->expired) {
        flue_item_leave(item);
        return;
    }
    if (exporter->settings.sending_queue.batch) {
        item->place = false;
        at->spare++; /* the pump gives it back when nothing is ready */
        flue_item_leave_line(item);
        flue_queue_enter(item);
        return;
    }
    if (flue_in_order(exporter) && at->ready.first) { /* parts of what was cut meanwhile */
        item->place = false;
        at->spare++;
        flue_queue_ready(item);
        return;
    }
    flue_attempt_begin(item);
}

static void recalled(struct flue_storage_read *read, enum flue_code code,
                     const struct flue_error *why)
{
    struct flue_recall *recall = (struct flue_recall *)read;
    struct flue_item *item = read_ended(recall, code);
    struct flue_error error;

    if (!item) {
        free(recall);
        return;
    }
    struct flue_exporter_loop *at = item->at;
    at->loading = false;
    if (code == FLUE_OK)
        code = rebuild(item, read->head, read->body, &error);
    else
        error = *why;
    if (code == FLUE_OK)
        go_on(item, recall->drop);
    else if (item->giving_up || at->expired)
        flue_item_leave(item);
    else if (flue_code_facts(code)->retryable)
        wait_and_read_again(item);
    else
        damaged(item, &error);
    free(recall);
    flue_queue_pump(at);
}

static void read_again(struct flue_timer *timer)
{
    struct flue_item *item =
        (struct flue_item *)((char *)timer - offsetof(struct flue_item, timer));

    if (!begin_read(item, false, recalled))
        wait_and_read_again(item);
}

/* An item for a record that is taken, being read. */
static bool recall(struct flue_exporter_loop *at, const struct flue_storage_entry *entry, bool drop)
{
    struct flue_exporter *exporter = at->exporter;
    bool certain;
    struct flue_item *item = flue_item_new(at, books_of(exporter, entry->record, &certain));

    if (!item)
        return false;
    item->send.record = entry->record;
    item->counts = entry->counts;
    item->counted = true;
    item->state = FLUE_ITEM_LOADING;
    if (!begin_read(item, drop, recalled)) {
        item->send.record = 0;
        flue_item_free(item);
        return false;
    }
    item->in_line = true;
    flue_own_add(&at->queued_items, 1);
    flue_item_list_append(&at->running, item);
    item->bytes = entry->bytes;
    atomic_fetch_add(&exporter->used_bytes, item->bytes);
    item->place = !drop;
    at->loading = flue_in_order(exporter);
    return true;
}

bool flue_recall_wanted(const struct flue_exporter_loop *at)
{
    const struct flue_exporter *exporter = at->exporter;
    uint64_t bit = UINT64_C(1) << at->loop->index;

    if (at->draining || at->loading || (exporter->component->single_loop && exporter->home != at))
        return false;
    return !((atomic_load_explicit(&exporter->hungry, memory_order_relaxed) |
              atomic_load_explicit(&exporter->starved, memory_order_relaxed)) &
             bit);
}

bool flue_recall_next(struct flue_exporter_loop *at)
{
    struct flue_exporter *exporter = at->exporter;
    uint64_t bit = UINT64_C(1) << at->loop->index;
    enum flue_storage_order order =
        flue_in_order(exporter) ? FLUE_STORAGE_OLDEST : FLUE_STORAGE_NEWEST;
    struct flue_storage_entry entry;

    if (atomic_load(&exporter->used_bytes) >= memory_limit(exporter)) {
        atomic_fetch_or(&exporter->starved, bit);
        if (atomic_load(&exporter->used_bytes) >= memory_limit(exporter))
            return false;
        atomic_fetch_and(&exporter->starved, ~bit);
    }
    if (!flue_storage_take(exporter->log, order, &entry)) {
        atomic_fetch_or(&exporter->hungry, bit);
        if (!flue_storage_take(exporter->log, order, &entry))
            return false;
        atomic_fetch_and(&exporter->hungry, ~bit);
    }
    /* What a drain left, in parts perhaps, is not sent again by this process. */
    if (!atomic_load(&exporter->stopping) && recall(at, &entry, false))
        return true;
    flue_storage_put_back(exporter->log, entry.record);
    atomic_fetch_or(&exporter->starved, bit); /* for want of memory: when some is given back */
    return false;
}

void flue_drop_oldest(struct flue_exporter_loop *at)
{
    struct flue_exporter *exporter = at->exporter;
    uint64_t limit = (uint64_t)exporter->settings.sending_queue.queue_size;
    struct flue_storage_entry entry;
    struct flue_item *item;
    struct flue_error error;
    bool certain;

    (void)flue_fail(&error, FLUE_OVERLOADED,
                    "the queue is full (sending_queue.queue_size %llu): the oldest was dropped",
                    (unsigned long long)limit);
    while (flue_lag_units(exporter) > limit) {
        if (!flue_storage_take(exporter->log, FLUE_STORAGE_OLDEST, &entry)) {
            if (!(item = oldest_waiting(at)))
                return;
            flue_item_fail(item, FLUE_DROP_QUEUE_FULL, FLUE_RESULT_REFUSED, &error);
            continue;
        }
        struct flue_branch *branch = books_of(exporter, entry.record, &certain);
        if (atomic_load(&exporter->stopping)) { /* it may be what is left of parts */
            flue_storage_put_back(exporter->log, entry.record);
            return;
        }
        if (!certain) {
            if (!recall(at, &entry, true))
                flue_storage_put_back(exporter->log, entry.record);
            return;
        }
        flue_ledger_subtract(&branch->ledger, at->loop->index, FLUE_ROW_QUEUED, &entry.counts);
        flue_ledger_drop(&branch->ledger, FLUE_DROP_QUEUE_FULL, &entry.counts);
        flue_storage_finish(exporter->log, entry.record);
        flue_log(FLUE_ERROR, "exporter", "dropped data that was accepted before",
                 FLUE_S("exporter", exporter->id), FLUE_S("reason", "queue_full"),
                 FLUE_U("profiles", entry.counts.profiles), FLUE_U("samples", entry.counts.samples),
                 FLUE_U("bytes", entry.counts.bytes), FLUE_S("error", error.text));
    }
}

/* ---- parking --------------------------------------------------------------------------------- */

void flue_send_park(struct flue_send *send)
{
    struct flue_item *item = (struct flue_item *)send;

    if (!send->record || item->owed || !send->batch)
        return;
    flue_queue_release(item);
    flue_batch_unref(send->batch);
    send->batch = NULL;
}

static void loaded(struct flue_storage_read *read, enum flue_code code,
                   const struct flue_error *why)
{
    struct flue_recall *recall = (struct flue_recall *)read;
    struct flue_item *item = read_ended(recall, code);
    struct flue_error error;

    if (item) {
        struct flue_branch *branch = item->branch;
        if (code == FLUE_OK) {
            code = rebuild(item, read->head, read->body, &error);
            item->branch = branch; /* the books do not change while it is in flight */
        } else {
            error = *why;
        }
        if (code == FLUE_OK) {
            item->bytes = item->send.batch->payload->ops->held_size(item->send.batch->payload);
            atomic_fetch_add(&item->at->exporter->used_bytes, item->bytes);
        }
        recall->loaded(&item->send, code, code == FLUE_OK ? NULL : &error);
    }
    free(recall);
}

/* What is there already, or cannot be had: told by a timer, so never from within. */
static void load_told(struct flue_timer *timer)
{
    struct flue_item *item =
        (struct flue_item *)((char *)timer - offsetof(struct flue_item, timer));
    struct flue_error error;

    if (item->send.batch) {
        item->told(&item->send, FLUE_OK, NULL);
        return;
    }
    (void)flue_fail(&error, FLUE_NO_MEMORY, "no memory to read a record of the queue on disk");
    item->told(&item->send, FLUE_NO_MEMORY, &error);
}

void flue_send_load(struct flue_send *send,
                    void (*told)(struct flue_send *send, enum flue_code code,
                                 const struct flue_error *error))
{
    struct flue_item *item = (struct flue_item *)send;

    if (!send->batch && begin_read(item, false, loaded)) {
        item->recall->loaded = told;
        return;
    }
    item->told = told;
    item->timer.fire = load_told;
    flue_timer_arm(send->loop, &item->timer, flue_monotonic_ns());
}

/* ---- start ----------------------------------------------------------------------------------- */

static void something_to_take(void *arg)
{
    struct flue_exporter *exporter = arg;

    flue_queue_wake_loops(exporter, atomic_exchange(&exporter->hungry, 0));
}

enum flue_code flue_durable_start(struct flue_exporter *exporter, struct flue_error *error)
{
    struct flue_storage_lag lag;
    struct flue_account *account = exporter->branches ? exporter->branches->account : NULL;
    enum flue_code code = flue_storage_start(exporter->storage, error);

    if (code != FLUE_OK)
        return code;
    flue_storage_recovered(exporter->log, &lag);
    exporter->recovered = flue_branch_new(exporter, "recovered",
                                          exporter->signals & FLUE_PROFILES ? FLUE_PROFILES
                                          : exporter->signals & FLUE_TRACES ? FLUE_TRACES
                                                                            : FLUE_METRICS,
                                          account);
    if (!exporter->recovered)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", exporter->id);
    flue_ledger_add(&exporter->recovered->ledger, 0, FLUE_ROW_RECOVERED, &lag.counts);
    flue_ledger_add(&exporter->recovered->ledger, 0, FLUE_ROW_QUEUED, &lag.counts);
    if (lag.records)
        flue_log(FLUE_INFO, "exporter", "found in the queue on disk and sent from there",
                 FLUE_S("exporter", exporter->id), FLUE_U("requests", lag.records),
                 FLUE_U("profiles", lag.counts.profiles), FLUE_U("samples", lag.counts.samples),
                 FLUE_U("bytes", lag.bytes));
    flue_storage_watch(exporter->log, exporter->home->loop, something_to_take, exporter);
    flue_queue_wake_loops(exporter, UINT64_MAX);
    return FLUE_OK;
}
