/* delivery.c: reserve everywhere, send where there is no queue, write down where the queue is on
 * disk, then commit; and the answer back.
 */
#include "collector/pipeline/item.h"
#include "collector/base/clock.h"
#include <stdio.h>
#include <stdlib.h>

enum phase {
    OPEN,    /* batches come, stages hold */
    WAITING, /* block_on_overflow: for room in a queue */
    DIRECT,  /* branches whose answer the sender waits for */
    STORING, /* durable queues write it down */
    SETTLED
};

/* A pipeline that got something, to say afterwards whether it was received or refused. */
struct entry {
    struct flue_ledger *pipeline;
    struct flue_counts counts;
};
#define ENTRIES_INLINE 4
#define ENTRIES_MAX    4096

#define STORE_TIMEOUT_NS                                                                           \
    UINT64_C(30000000000) /* a sender without a deadline waits for a slow disk */

struct flue_delivery {
    struct flue_loop *loop;
    uint64_t deadline_ns;
    flue_delivery_done done;
    void *arg;
    enum phase phase;
    bool ended, refused, cancelled, answered;
    unsigned holds;   /* the receiver's, until flue_delivery_end, and those of stages */
    unsigned pending; /* branches that have not answered */
    struct flue_item *first, **last;
    struct flue_exporter_loop *room_at; /* WAITING */
    struct flue_delivery *room_next;
    struct flue_timer timer;
    struct flue_counts pushed;
    struct flue_error *refusal; /* the first refusal for good */
    struct entry *entries;
    unsigned entry_count, entry_room;
    struct entry inline_entries[ENTRIES_INLINE];
    struct flue_outcome outcome;
};

static void proceed(struct flue_delivery *delivery);

struct flue_delivery *flue_delivery_begin(struct flue_loop *loop, uint64_t deadline_ns,
                                          flue_delivery_done done, void *arg)
{
    struct flue_delivery *delivery = malloc(sizeof *delivery);
    if (!delivery)
        return NULL;
    /* All but the texts of the outcome. */
    memset(delivery, 0, offsetof(struct flue_delivery, inline_entries));
    memset(&delivery->outcome.accepted, 0, sizeof delivery->outcome.accepted);
    memset(&delivery->outcome.dropped, 0, sizeof delivery->outcome.dropped);
    delivery->outcome.rejected_profiles = 0;
    delivery->outcome.rejected_reason[0] = 0;
    delivery->outcome.error.code = FLUE_OK;
    delivery->outcome.error.retry_after_ms = 0;
    delivery->outcome.error.text[0] = 0;
    delivery->loop = loop;
    delivery->deadline_ns = deadline_ns;
    delivery->done = done;
    delivery->arg = arg;
    delivery->holds = 1;
    delivery->last = &delivery->first;
    delivery->entries = delivery->inline_entries;
    delivery->entry_room = ENTRIES_INLINE;
    return delivery;
}

struct flue_loop *flue_delivery_loop(struct flue_delivery *delivery)
{
    return delivery->loop;
}

uint64_t flue_delivery_deadline(const struct flue_delivery *delivery)
{
    return delivery->deadline_ns;
}

bool flue_delivery_refused(const struct flue_delivery *delivery)
{
    return delivery->refused;
}

void flue_delivery_refuse(struct flue_delivery *delivery, const struct flue_error *error)
{
    if (delivery->refused)
        return;
    delivery->refused = true;
    delivery->outcome.error = *error;
    if (error->code == FLUE_OK)
        (void)flue_fail(&delivery->outcome.error, FLUE_INTERNAL, "refused without a reason");
}

void flue_delivery_hold(struct flue_delivery *delivery)
{
    delivery->holds++;
}

void flue_delivery_release(struct flue_delivery *delivery)
{
    if (--delivery->holds == 0 && delivery->phase == OPEN)
        proceed(delivery);
}

void flue_delivery_end(struct flue_delivery *delivery)
{
    delivery->ended = true;
    flue_delivery_release(delivery);
}

static void refuse_memory(struct flue_delivery *delivery)
{
    struct flue_error error;
    (void)flue_fail(&error, FLUE_NO_MEMORY, "no memory for another request; send it again");
    flue_delivery_refuse(delivery, &error);
}

void flue_delivery_pushed(struct flue_delivery *delivery, const struct flue_counts *counts)
{
    flue_counts_add(&delivery->pushed, counts);
}

void flue_delivery_entered(struct flue_delivery *delivery, struct flue_ledger *pipeline,
                           const struct flue_counts *counts)
{
    for (unsigned i = 0; i < delivery->entry_count; i++) {
        if (delivery->entries[i].pipeline == pipeline) {
            flue_counts_add(&delivery->entries[i].counts, counts);
            return;
        }
    }
    if (delivery->entry_count == delivery->entry_room) {
        unsigned room = delivery->entry_room * 4;
        bool first = delivery->entries == delivery->inline_entries;
        struct entry *more = room > ENTRIES_MAX
                                 ? NULL
                                 : realloc(first ? NULL : delivery->entries, room * sizeof *more);
        if (!more) {
            refuse_memory(delivery);
            return;
        }
        if (first)
            memcpy(more, delivery->inline_entries, sizeof delivery->inline_entries);
        delivery->entries = more;
        delivery->entry_room = room;
    }
    delivery->entries[delivery->entry_count++] = (struct entry){pipeline, *counts};
}

void flue_delivery_join(struct flue_delivery *delivery, struct flue_branch *branch,
                        struct flue_batch *batch)
{
    struct flue_item *item = NULL;

    if (!delivery->refused) {
        item = flue_item_new(flue_branch_at(branch, delivery->loop), branch);
        if (!item)
            refuse_memory(delivery);
    }
    if (!item) {
        flue_batch_unref(batch);
        return;
    }
    item->send.batch = batch;
    item->counts = batch->counts;
    item->delivery = delivery;
    *delivery->last = item;
    delivery->last = &item->sibling;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void answer(struct flue_delivery *delivery)
{
    unsigned loop = delivery->loop->index;
    struct flue_outcome *outcome = &delivery->outcome;

    if (delivery->answered)
        return;
    delivery->answered = true;
    for (unsigned i = 0; i < delivery->entry_count; i++)
        flue_ledger_add(delivery->entries[i].pipeline, loop,
                        delivery->refused ? FLUE_ROW_REFUSED : FLUE_ROW_RECEIVED,
                        &delivery->entries[i].counts);
    if (!delivery->refused)
        outcome->accepted = delivery->pushed;
    if (outcome->rejected_profiles > delivery->pushed.profiles)
        outcome->rejected_profiles = delivery->pushed.profiles;
    delivery->done(delivery->arg, outcome);
}

static void finish(struct flue_delivery *delivery)
{
    delivery->phase = SETTLED;
    flue_timer_disarm(delivery->loop, &delivery->timer);
    for (struct flue_item *item = delivery->first, *next; item; item = next) {
        next = item->sibling;
        flue_queue_release(item);
        flue_item_free(item);
    }
    answer(delivery);
    if (delivery->entries != delivery->inline_entries)
        free(delivery->entries);
    free(delivery->refusal);
    free(delivery);
}

static void refused_item(struct flue_item *item, unsigned loop)
{
    flue_ledger_add(&item->branch->ledger, loop, FLUE_ROW_REFUSED, &item->counts);
}

static void commit(struct flue_delivery *delivery);

/* Also what was written down after all is not kept. */
static void refuse_stored(struct flue_delivery *delivery)
{
    flue_store_undo(delivery->first);
    for (struct flue_item *item = delivery->first; item; item = item->sibling)
        if (item->state == FLUE_ITEM_RESERVED && item->at->exporter->log)
            refused_item(item, delivery->loop->index);
    finish(delivery);
}

static void stored(void *arg, const struct flue_error *error)
{
    struct flue_delivery *delivery = arg;

    if (error)
        flue_delivery_refuse(delivery, error);
    if (delivery->refused)
        refuse_stored(delivery);
    else
        commit(delivery);
}

/* The sender is told; whatever the disk still does with it is undone when it has ended. */
static void store_timeout(struct flue_timer *timer)
{
    struct flue_delivery *delivery =
        (struct flue_delivery *)((char *)timer - offsetof(struct flue_delivery, timer));
    struct flue_error error;

    (void)flue_fail(&error, FLUE_TIMEOUT,
                    "the queue on disk did not take the request in time; send it again");
    flue_delivery_refuse(delivery, &error);
    answer(delivery);
}

static void store(struct flue_delivery *delivery)
{
    struct flue_error error;
    bool begun;

    delivery->phase = STORING;
    enum flue_code code =
        flue_store(delivery->first, delivery->loop, &begun, stored, delivery, &error);
    if (begun) {
        uint64_t due = flue_monotonic_ns() + STORE_TIMEOUT_NS;
        if (delivery->deadline_ns && delivery->deadline_ns < due)
            due = delivery->deadline_ns;
        delivery->timer.fire = store_timeout;
        flue_timer_arm(delivery->loop, &delivery->timer, due);
    } else if (code == FLUE_OK) {
        commit(delivery);
    } else {
        flue_delivery_refuse(delivery, &error);
        refuse_stored(delivery);
    }
}

/* Every branch that the sender waits for has answered: write down, commit, or refuse. */
static void settle(struct flue_delivery *delivery)
{
    unsigned loop = delivery->loop->index;
    bool taker = false, refusal = false, durable = false;

    for (struct flue_item *item = delivery->first; item; item = item->sibling) {
        taker |= item->state == FLUE_ITEM_RESERVED || item->result == FLUE_RESULT_TAKEN ||
                 item->result == FLUE_RESULT_SKIPPED;
        refusal |= item->result == FLUE_RESULT_REFUSED;
        durable |= item->at->exporter->log != NULL;
    }
    if (refusal && !taker) {
        struct flue_error generic;
        (void)flue_fail(&generic, FLUE_REFUSED, "the destination refused the data for good");
        flue_delivery_refuse(delivery, delivery->refusal ? delivery->refusal : &generic);
    }
    if (delivery->refused) {
        for (struct flue_item *item = delivery->first; item; item = item->sibling)
            if (item->result == FLUE_RESULT_FAILED || item->result == FLUE_RESULT_REFUSED)
                refused_item(item, loop);
        finish(delivery);
        return;
    }
    if (durable)
        store(delivery);
    else
        commit(delivery);
}

/* `in_order`: those alone that the log gives out in their order. */
static void enter(struct flue_item **link, bool in_order)
{
    while (*link) {
        struct flue_item *item = *link;
        if (in_order && !flue_in_order(item->at->exporter)) {
            link = &item->sibling;
            continue;
        }
        *link = item->sibling;
        item->sibling = NULL;
        if (item->at->exporter->log)
            flue_durable_enter(item);
        else
            flue_queue_enter(item);
    }
}

static void commit(struct flue_delivery *delivery)
{
    unsigned loop = delivery->loop->index;
    struct flue_item **link = &delivery->first, *commits = NULL, **last = &commits;

    while (*link) {
        struct flue_item *item = *link;
        struct flue_ledger *ledger = &item->branch->ledger;
        const struct flue_counts *counts = &item->counts;

        if (item->state == FLUE_ITEM_RESERVED) {
            *link = item->sibling;
            item->sibling = NULL;
            item->delivery = NULL;
            item->counted = true;
            *last = item;
            last = &item->sibling;
            continue;
        }
        if (item->result == FLUE_RESULT_SKIPPED || item->result == FLUE_RESULT_REFUSED) {
            flue_ledger_add(ledger, loop, FLUE_ROW_RECEIVED, counts);
            flue_ledger_drop(
                ledger, item->result == FLUE_RESULT_SKIPPED ? FLUE_DROP_QUEUE_FULL : item->reason,
                counts);
            flue_counts_add(&delivery->outcome.dropped, counts);
        }
        link = &item->sibling;
    }
    /* The answer first: an exporter that sends at once then runs outside of this delivery. Only
     * where order counts the log has it before its sender can send the next. */
    for (struct flue_item *item = commits; item; item = item->sibling) {
        flue_ledger_add(&item->branch->ledger, loop, FLUE_ROW_RECEIVED, &item->counts);
        flue_ledger_add(&item->branch->ledger, loop, FLUE_ROW_QUEUED, &item->counts);
    }
    enter(&commits, true);
    finish(delivery);
    enter(&commits, false);
}

void flue_delivery_item_ended(struct flue_item *item, const struct flue_error *error)
{
    struct flue_delivery *delivery = item->delivery;

    if (item->result == FLUE_RESULT_FAILED && error)
        flue_delivery_refuse(delivery, error);
    if (item->result == FLUE_RESULT_REFUSED && error && !delivery->refusal) {
        delivery->refusal = malloc(sizeof *error);
        if (delivery->refusal)
            *delivery->refusal = *error;
    }
    if (item->rejected.profiles || item->rejected.samples) {
        delivery->outcome.rejected_profiles += item->rejected.profiles;
        if (!delivery->outcome.rejected_reason[0] && error)
            (void)snprintf(delivery->outcome.rejected_reason,
                           sizeof delivery->outcome.rejected_reason, "%.255s", error->text);
    }
    if (--delivery->pending == 0 && delivery->phase == DIRECT)
        settle(delivery);
}

/* ---- reserve --------------------------------------------------------------------------------- */

static void room_timeout(struct flue_timer *timer)
{
    struct flue_delivery *delivery =
        (struct flue_delivery *)((char *)timer - offsetof(struct flue_delivery, timer));
    struct flue_error error;

    (void)flue_fail(&error, FLUE_TIMEOUT,
                    "the queue of exporter %s stayed full until the deadline of the request",
                    delivery->room_at->exporter->id);
    flue_queue_unwait_room(delivery->room_at, delivery);
    flue_delivery_no_room(delivery, &error);
}

static void release_all(struct flue_delivery *delivery)
{
    for (struct flue_item *item = delivery->first; item; item = item->sibling) {
        flue_queue_release(item);
        item->state = FLUE_ITEM_JOINED;
        item->result = FLUE_RESULT_NONE;
    }
}

/* False: the delivery waits for room, at `*at`, or is refused. */
static bool reserve_all(struct flue_delivery *delivery, struct flue_exporter_loop **at)
{
    struct flue_error error;

    *at = NULL;
    for (struct flue_item *item = delivery->first; item; item = item->sibling) {
        struct flue_exporter *exporter = item->at->exporter;
        const struct flue_queue_config *queue = &exporter->settings.sending_queue;

        bool behind = queue->block_on_overflow && delivery->phase == OPEN && item->at->room_first;
        enum flue_code code = behind ? FLUE_OVERLOADED : flue_queue_reserve(item, &error);
        if (code == FLUE_OK)
            continue;
        if (code == FLUE_OVERLOADED && queue->block_on_overflow) {
            release_all(delivery);
            *at = item->at;
            return false;
        }
        flue_metric_add(exporter->enqueue_failed[flue_signal_row(item->branch->signal)],
                        (int64_t)item->counts.samples);
        if (queue->on_overflow == FLUE_OVERFLOW_DROP && code != FLUE_SHUTTING_DOWN) {
            item->result = FLUE_RESULT_SKIPPED;
            continue;
        }
        refused_item(item, delivery->loop->index);
        flue_delivery_refuse(delivery, &error);
        return false;
    }
    return true;
}

static void start_direct(struct flue_delivery *delivery)
{
    flue_timer_disarm(delivery->loop, &delivery->timer);
    delivery->phase = DIRECT;
    delivery->pending = 1; /* an answer that comes at once must not settle before all have begun */
    for (struct flue_item *item = delivery->first; item; item = item->sibling) {
        struct flue_exporter *exporter = item->at->exporter;
        if (delivery->refused)
            break; /* by an answer that came at once */
        if (item->result != FLUE_RESULT_NONE)
            continue;
        if (!exporter->queued) {
            delivery->pending++;
            flue_attempt_start(item);
        } else if (exporter->settings.sending_queue.wait_for_result) {
            delivery->pending++;
            flue_queue_enter(item);
        }
    }
    if (--delivery->pending == 0)
        settle(delivery);
}

static bool go_on(struct flue_delivery *delivery)
{
    struct flue_exporter_loop *at;

    if (delivery->refused) {
        finish(delivery);
        return true;
    }
    if (reserve_all(delivery, &at)) {
        start_direct(delivery);
        return true;
    }
    if (!at) {
        finish(delivery);
        return true;
    }
    delivery->phase = WAITING;
    delivery->room_at = at;
    return false;
}

static void proceed(struct flue_delivery *delivery)
{
    if (go_on(delivery))
        return;
    if (delivery->deadline_ns) {
        delivery->timer.fire = room_timeout;
        flue_timer_arm(delivery->loop, &delivery->timer, delivery->deadline_ns);
    }
    flue_queue_wait_room(delivery->room_at, delivery);
}

bool flue_delivery_room(struct flue_delivery *delivery)
{
    struct flue_exporter_loop *at = delivery->room_at;

    if (go_on(delivery))
        return true;
    if (delivery->room_at == at)
        return false;
    flue_queue_wait_room(delivery->room_at, delivery); /* another queue is full now */
    return true;
}

void flue_delivery_no_room(struct flue_delivery *delivery, const struct flue_error *error)
{
    unsigned loop = delivery->loop->index;

    for (struct flue_item *item = delivery->first; item; item = item->sibling) {
        if (item->at == delivery->room_at) {
            flue_metric_add(
                item->at->exporter->enqueue_failed[flue_signal_row(item->branch->signal)],
                (int64_t)item->counts.samples);
            refused_item(item, loop);
        }
    }
    flue_delivery_refuse(delivery, error);
    finish(delivery);
}

struct flue_delivery **flue_delivery_room_next(struct flue_delivery *delivery)
{
    return &delivery->room_next;
}

void flue_delivery_cancel(struct flue_delivery *delivery)
{
    struct flue_error error;

    if (delivery->cancelled || delivery->phase == SETTLED)
        return;
    delivery->cancelled = true;
    (void)flue_fail(&error, FLUE_CANCELLED, "the sender went away");
    if (delivery->phase == WAITING) {
        flue_queue_unwait_room(delivery->room_at, delivery);
        flue_delivery_no_room(delivery, &error);
        return;
    }
    flue_delivery_refuse(delivery, &error);
    if (delivery->phase != DIRECT)
        return;
    delivery->pending++; /* keeps it until all have been told */
    for (struct flue_item *item = delivery->first; item; item = item->sibling)
        if (item->state != FLUE_ITEM_RESERVED && item->result == FLUE_RESULT_NONE)
            flue_item_give_up(item, FLUE_CANCELLED);
    if (--delivery->pending == 0)
        settle(delivery);
}
