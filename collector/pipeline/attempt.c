/* attempt.c: one attempt after another, what a verdict means, and how an item ends. */
#include "collector/pipeline/item.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include <stdlib.h>

static void item_end(struct flue_item *item, enum flue_item_result result,
                     const struct flue_error *error);

/* ---- ends ------------------------------------------------------------------------------------ */

static void free_state(struct flue_item *item)
{
    if (item->send.free_state && item->send.state)
        item->send.free_state(item->send.state);
    item->send.state = NULL;
}

static void put_place(struct flue_item *item)
{
    if (!item->place)
        return;
    item->place = false;
    flue_queue_put_place(item->at);
}

static void note_failure(struct flue_item *group, const struct flue_error *error)
{
    if (group->error || !error)
        return;
    group->error = malloc(sizeof *error);
    if (group->error)
        *group->error = *error;
}

/* The next part of a group without a queue: one after another. */
static void next_part(struct flue_item *group)
{
    for (struct flue_item *part = group->parts; part; part = part->sibling) {
        if (part->state == FLUE_ITEM_JOINED) {
            part->state = FLUE_ITEM_READY;
            flue_item_list_append(&part->at->parts, part);
            return;
        }
    }
}

static void group_end(struct flue_item *group)
{
    unsigned loop = group->at->loop->index;
    enum flue_item_result result = group->any_failed  ? FLUE_RESULT_FAILED
                                   : group->any_taken ? FLUE_RESULT_TAKEN
                                                      : FLUE_RESULT_REFUSED;
    struct flue_item *next;

    for (struct flue_item *part = group->parts; part; part = next) {
        next = part->sibling;
        if (result == FLUE_RESULT_TAKEN && part->result == FLUE_RESULT_REFUSED) {
            flue_ledger_add(&part->branch->ledger, loop, FLUE_ROW_RECEIVED, &part->counts);
            flue_ledger_drop(&part->branch->ledger, part->reason, &part->counts);
            flue_counts_add(&group->rejected, &part->counts);
        }
        flue_item_free(part);
    }
    group->parts = NULL;
    item_end(group, result, group->error);
}

static void part_ended(struct flue_item *part, const struct flue_error *error)
{
    struct flue_item *group = part->owner;

    if (part->result == FLUE_RESULT_TAKEN) {
        group->any_taken = true;
        flue_counts_add(&group->rejected, &part->rejected);
    } else if (part->result == FLUE_RESULT_FAILED) {
        group->any_failed = true;
    } else {
        group->reason = part->reason;
    }
    if (part->result != FLUE_RESULT_TAKEN || part->rejected.profiles)
        note_failure(group, error);
    if (--group->open_parts == 0)
        group_end(group);
    else if (!group->at->exporter->queued && !group->giving_up)
        next_part(group);
}

/* Everything that an item holds of its loop and exporter. */
static void let_go(struct flue_item *item)
{
    if (item->list)
        flue_item_unlist(item);
    flue_timer_disarm(item->at->loop, &item->timer);
    if (item->ticket.waiting)
        flue_flow_forget(item->at->exporter->flow, &item->ticket);
    flue_recall_forget(item);
    flue_queue_release(item);
    put_place(item);
    free_state(item);
}

static void item_end(struct flue_item *item, enum flue_item_result result,
                     const struct flue_error *error)
{
    struct flue_item *merged = item->merged;

    let_go(item);
    flue_record_end(item, false);
    flue_batch_unref(item->send.batch);
    item->send.batch = NULL;
    item->state = FLUE_ITEM_ENDED;
    item->result = result;
    item->merged = NULL;
    while (merged) { /* senders that wait for what was merged into this item */
        struct flue_item *next = merged->next;
        merged->owner = NULL;
        merged->next = NULL;
        merged->reason = item->reason;
        item_end(merged, result, error);
        merged = next;
    }
    if (item->owner)
        part_ended(item, error);
    else if (item->delivery)
        flue_delivery_item_ended(item, error);
    else
        flue_item_free(item);
}

static void log_drop(const struct flue_item *item, const char *reason,
                     const struct flue_error *error)
{
    flue_log(FLUE_ERROR, "exporter", "dropped data that was accepted before",
             FLUE_S("exporter", item->at->exporter->id), FLUE_S("pipeline", item->branch->pipeline),
             FLUE_S("reason", reason), FLUE_U("profiles", item->counts.profiles),
             FLUE_U("samples", item->counts.samples), FLUE_U("bytes", item->counts.bytes),
             FLUE_S("error", error ? error->text : ""));
}

void flue_item_leave_line(struct flue_item *item)
{
    if (!item->in_line)
        return;
    item->in_line = false;
    flue_own_add(&item->at->queued_items, -1);
}

void flue_item_leave(struct flue_item *item)
{
    struct flue_ledger *ledger = &item->branch->ledger;
    unsigned loop = item->at->loop->index;

    flue_item_leave_line(item);
    if (item->started) {
        flue_ledger_subtract(ledger, loop, FLUE_ROW_IN_FLIGHT, &item->counts);
        flue_ledger_add(ledger, loop, FLUE_ROW_QUEUED, &item->counts);
    }
    let_go(item);
    flue_record_end(item, true);
    flue_item_free(item);
}

/* What says something about the data, not about who sends it or where to. */
static bool about_data(unsigned reason)
{
    return reason == FLUE_INVALID || reason == FLUE_UNPROCESSABLE || reason == FLUE_TOO_LARGE ||
           reason == FLUE_REFUSED || reason == FLUE_DROP_REJECTED;
}

static void retry(struct flue_item *item, const struct flue_error *error);

static void count_failure(const struct flue_item *item)
{
    flue_metric_add(item->at->exporter->send_failed[flue_signal_row(item->branch->signal)],
                    (int64_t)item->counts.samples);
}

/* False: it is not for a letter. */
static bool set_aside(struct flue_item *item, unsigned reason, const struct flue_error *error)
{
    struct flue_dead_letters *letters = item->at->exporter->dead_letters;
    struct flue_ledger *ledger = &item->branch->ledger;
    unsigned loop = item->at->loop->index;
    struct flue_error memory;

    if (!letters || !item->send.record || !item->counted || !item->started || !about_data(reason))
        return false;
    flue_ledger_subtract(ledger, loop, FLUE_ROW_IN_FLIGHT, &item->counts);
    flue_ledger_add(ledger, loop, FLUE_ROW_QUEUED, &item->counts);
    if (flue_dead_letters_keep(letters, item, reason, error)) {
        count_failure(item);
        item_end(item, FLUE_RESULT_REFUSED, error);
        return true;
    }
    flue_ledger_subtract(ledger, loop, FLUE_ROW_QUEUED, &item->counts);
    flue_ledger_add(ledger, loop, FLUE_ROW_IN_FLIGHT, &item->counts);
    (void)flue_fail(&memory, FLUE_NO_MEMORY, "no memory to set aside what was refused: %.300s",
                    error ? error->text : "");
    retry(item, &memory);
    return true;
}

void flue_item_fail(struct flue_item *item, unsigned reason, enum flue_item_result result,
                    const struct flue_error *error)
{
    struct flue_ledger *ledger = &item->branch->ledger;
    unsigned loop = item->at->loop->index;

    if (reason == FLUE_DROP_SHUTDOWN && item->send.record) {
        flue_item_leave(item);
        return;
    }
    if (result == FLUE_RESULT_REFUSED && set_aside(item, reason, error))
        return;
    item->reason = reason;
    flue_item_leave_line(item);
    if (item->started)
        count_failure(item);
    if (item->counted) {
        flue_ledger_subtract(ledger, loop, item->started ? FLUE_ROW_IN_FLIGHT : FLUE_ROW_QUEUED,
                             &item->counts);
        flue_ledger_drop(ledger, reason, &item->counts);
        log_drop(item, flue_drop_reason_name(reason), error);
    }
    item_end(item, result, error);
}

/* ---- attempts -------------------------------------------------------------------------------- */

/* The deadline of the one sender that waits; 0: none, or nobody waits. */
static uint64_t sender_deadline(const struct flue_item *item)
{
    while (item->owner)
        item = item->owner;
    return item->delivery ? flue_delivery_deadline(item->delivery) : 0;
}

void flue_attempt_start(struct flue_item *item)
{
    struct flue_exporter_loop *at = item->at;
    struct flue_exporter *exporter = at->exporter;
    uint64_t deadline = item->counted ? 0 : sender_deadline(item);
    uint64_t now = flue_monotonic_ns();

    if (!item->started) {
        item->started = true;
        item->first_ns = now;
        item->interval_ns = (uint64_t)exporter->settings.retry_on_failure.initial_interval;
        flue_item_leave_line(item);
        if (item->counted) {
            flue_ledger_subtract(&item->branch->ledger, at->loop->index, FLUE_ROW_QUEUED,
                                 &item->counts);
            flue_ledger_add(&item->branch->ledger, at->loop->index, FLUE_ROW_IN_FLIGHT,
                            &item->counts);
        }
    }
    if (exporter->settings.timeout) {
        uint64_t own = now + (uint64_t)exporter->settings.timeout;
        deadline = deadline && deadline < own ? deadline : own;
    }
    item->send.deadline_ns = deadline;
    item->state = FLUE_ITEM_SENDING;
    flue_item_list_append(&at->running, item);
    flue_own_add(&at->sending, 1);
    exporter->component->send(exporter->instance, &item->send);
}

static struct flue_item *item_of_timer(struct flue_timer *timer)
{
    return (struct flue_item *)((char *)timer - offsetof(struct flue_item, timer));
}

/* Its turn has come, with a place in the flow. */
static void let_in(struct flue_flow_ticket *ticket)
{
    struct flue_item *item =
        (struct flue_item *)((char *)ticket - offsetof(struct flue_item, ticket));
    struct flue_exporter_loop *at = item->at;

    flue_timer_disarm(at->loop, &item->timer);
    flue_item_unlist(item);
    item->ticketed = true;
    flue_attempt_start(item);
    flue_queue_pump(at);
}

static void held_too_long(struct flue_timer *timer)
{
    struct flue_item *item = item_of_timer(timer);
    struct flue_exporter_loop *at = item->at;
    struct flue_error error;

    (void)flue_fail(&error, FLUE_UNAVAILABLE,
                    "the destination kept failing for retry_on_failure.max_elapsed_time");
    flue_item_fail(item, FLUE_DROP_MAX_ELAPSED, FLUE_RESULT_FAILED, &error);
    flue_queue_pump(at);
}

/* A drain does not wait for the circuit. */
static void held_no_more(struct flue_timer *timer)
{
    struct flue_item *item = item_of_timer(timer);
    struct flue_exporter_loop *at = item->at;

    flue_flow_forget(at->exporter->flow, &item->ticket);
    flue_item_unlist(item);
    flue_attempt_start(item);
    flue_queue_pump(at);
}

void flue_attempt_begin(struct flue_item *item)
{
    struct flue_exporter_loop *at = item->at;
    struct flue_exporter *exporter = at->exporter;
    uint64_t most = (uint64_t)exporter->settings.retry_on_failure.max_elapsed_time;

    if (!exporter->flow || at->draining) {
        flue_attempt_start(item);
        return;
    }
    item->ticket.ready = let_in;
    if (flue_flow_take(exporter->flow, at->loop, &item->ticket)) {
        item->ticketed = true;
        flue_attempt_start(item);
        return;
    }
    item->state = FLUE_ITEM_HELD;
    flue_item_list_append(&at->running, item);
    if (item->started && most) {
        item->timer.fire = held_too_long;
        flue_timer_arm(at->loop, &item->timer, item->first_ns + most);
    }
}

void flue_attempt_hurry(struct flue_exporter_loop *at)
{
    uint64_t now = flue_monotonic_ns();
    struct flue_item *next;

    for (struct flue_item *item = at->running.first; item; item = next) {
        next = item->next; /* leaving ends no other item */
        bool waits = item->state == FLUE_ITEM_BACKOFF || item->state == FLUE_ITEM_HELD;
        if (item->send.record && (waits || (item->state == FLUE_ITEM_LOADING && !item->recall))) {
            flue_item_leave(item);
        } else if (waits) {
            if (item->state == FLUE_ITEM_HELD)
                item->timer.fire = held_no_more;
            flue_timer_arm(at->loop, &item->timer, now);
        } else if (item->state == FLUE_ITEM_SENDING && item->send.record && !item->send.batch) {
            /* Parked: it waits for others that come no more, and stands in the log. */
            flue_item_give_up(item, FLUE_SHUTTING_DOWN);
        }
    }
}

static void again(struct flue_timer *timer)
{
    struct flue_item *item = item_of_timer(timer);
    struct flue_exporter_loop *at = item->at;

    flue_item_unlist(item);
    item->send.attempt++;
    flue_metric_add(at->exporter->retried, 1);
    if (item->place) /* of a queue: its sender is no probe */
        flue_attempt_begin(item);
    else
        flue_attempt_start(item);
    flue_queue_pump(at);
}

/* Exponential with jitter, and never before the destination's own delay. */
static uint64_t next_wait(struct flue_item *item, const struct flue_error *error)
{
    const struct flue_retry_config *retry = &item->at->exporter->settings.retry_on_failure;
    double interval = (double)item->interval_ns;
    double unit = (double)(flue_random_u64() >> 11) * 0x1p-53;
    double wait =
        interval * (1 - retry->randomization_factor + 2 * retry->randomization_factor * unit);
    double grown = interval * retry->multiplier;
    uint64_t stated = (uint64_t)error->retry_after_ms * 1000000u;

    if (grown > (double)retry->max_interval)
        grown = (double)retry->max_interval;
    item->interval_ns = (uint64_t)grown;
    return wait > (double)stated ? (uint64_t)wait : stated;
}

static void retry(struct flue_item *item, const struct flue_error *error)
{
    struct flue_exporter_loop *at = item->at;
    const struct flue_retry_config *config = &at->exporter->settings.retry_on_failure;

    if (item->giving_up) {
        struct flue_error gone;
        (void)flue_fail(&gone, (enum flue_code)item->giving_up,
                        "given up; the last error was: %.300s", error->text);
        flue_item_fail(item, FLUE_DROP_SHUTDOWN, FLUE_RESULT_FAILED, &gone);
        return;
    }
    if (!at->exporter->retries) {
        flue_item_fail(item, error->code, FLUE_RESULT_FAILED, error);
        return;
    }
    if (at->draining && item->send.record) { /* once more after the next start */
        flue_item_leave(item);
        return;
    }
    uint64_t now = flue_monotonic_ns(), wait = next_wait(item, error), due = now + wait;
    uint64_t deadline = item->counted ? 0 : sender_deadline(item);
    if (deadline && due >= deadline) {
        flue_item_fail(item, error->code, FLUE_RESULT_FAILED, error);
        return;
    }
    if (config->max_elapsed_time && due - item->first_ns > (uint64_t)config->max_elapsed_time) {
        flue_item_fail(item, FLUE_DROP_MAX_ELAPSED, FLUE_RESULT_FAILED, error);
        return;
    }
    if (at->expired || (at->draining && due >= at->drain_deadline_ns)) {
        flue_item_fail(item, FLUE_DROP_SHUTDOWN, FLUE_RESULT_FAILED, error);
        return;
    }
    flue_log(FLUE_INFO, "exporter", "will send again", FLUE_S("exporter", at->exporter->id),
             FLUE_U("attempt", item->send.attempt + 1), FLUE_U("after_ms", wait / 1000000),
             FLUE_S("error", error->text));
    item->state = FLUE_ITEM_BACKOFF;
    flue_item_list_append(&at->running, item);
    item->timer.fire = again;
    flue_timer_arm(at->loop, &item->timer, due);
}

static struct flue_counts at_most(struct flue_counts counts, const struct flue_counts *limit)
{
    counts.profiles = counts.profiles < limit->profiles ? counts.profiles : limit->profiles;
    counts.samples = counts.samples < limit->samples ? counts.samples : limit->samples;
    counts.bytes = counts.bytes < limit->bytes ? counts.bytes : limit->bytes;
    return counts;
}

static void sent(struct flue_item *item, const struct flue_verdict *verdict)
{
    struct flue_ledger *ledger = &item->branch->ledger;
    unsigned loop = item->at->loop->index;
    struct flue_counts rejected = at_most(verdict->rejected, &item->counts);
    bool some = rejected.profiles || rejected.samples || rejected.bytes;
    bool all = some && rejected.profiles == item->counts.profiles &&
               rejected.samples == item->counts.samples;

    if (all && set_aside(item, FLUE_DROP_REJECTED, &verdict->error))
        return;
    if (item->counted)
        flue_ledger_subtract(ledger, loop, FLUE_ROW_IN_FLIGHT, &item->counts);
    else
        flue_ledger_add(ledger, loop, FLUE_ROW_RECEIVED, &item->counts);
    if (!some) {
        flue_ledger_add(ledger, loop, FLUE_ROW_SENT, &item->counts);
        item_end(item, FLUE_RESULT_TAKEN, NULL);
        return;
    }
    struct flue_counts rest = {item->counts.profiles - rejected.profiles,
                               item->counts.samples - rejected.samples,
                               item->counts.bytes - rejected.bytes};
    flue_ledger_add(ledger, loop, FLUE_ROW_SENT, &rest);
    flue_ledger_drop(ledger, FLUE_DROP_REJECTED, &rejected);
    flue_log(FLUE_WARN, "exporter", "the destination took a part only",
             FLUE_S("exporter", item->at->exporter->id),
             FLUE_U("rejected_profiles", rejected.profiles), FLUE_S("error", verdict->error.text));
    item->rejected = rejected;
    item_end(item, FLUE_RESULT_TAKEN, &verdict->error);
}

static void split(struct flue_item *item, const struct flue_verdict *verdict)
{
    struct flue_error error;

    if (flue_item_split(item, verdict->split_max, verdict->split_by_bytes, &error))
        return;
    if (error.code == FLUE_TOO_LARGE || !flue_code_facts(error.code)->retryable)
        flue_item_fail(item, error.code, FLUE_RESULT_REFUSED, &error);
    else
        retry(item, &error); /* no memory now */
}

/* Halves of what was refused, down to the profile that was meant; what a destination refuses as a
 * whole is not sought for ever. */
static bool halve(struct flue_item *item, const struct flue_error *error)
{
    if (!item->send.record || !item->send.batch || !about_data(error->code) ||
        item->counts.profiles < 2 || item->counts.samples < 2 ||
        flue_in_order(item->at->exporter)) /* a half would come behind what is younger */
        return false;
    if (item->owed && !item->owed->halvings)
        return false;
    if (item->owed)
        item->owed->halvings--;
    return flue_item_split(item, (item->counts.samples + 1) / 2, false, NULL);
}

static void give_ticket(struct flue_item *item, const struct flue_verdict *verdict)
{
    enum flue_flow_answer answer =
        verdict->kind == FLUE_RETRY ? flue_flow_answer_of(&verdict->error) : FLUE_FLOW_WORKS;

    item->ticketed = false;
    flue_flow_give(item->at->exporter->flow, &item->ticket, answer, verdict->error.retry_after_ms);
}

void flue_send_done(struct flue_send *send, const struct flue_verdict *verdict)
{
    struct flue_item *item = (struct flue_item *)send;
    struct flue_exporter_loop *at = item->at;

    flue_recall_forget(item);
    if (item->ticketed)
        give_ticket(item, verdict);
    flue_item_unlist(item);
    flue_own_add(&at->sending, -1);
    item->send.cancel = NULL;
    switch (verdict->kind) {
    case FLUE_SENT:
        sent(item, verdict);
        break;
    case FLUE_RETRY:
        retry(item, &verdict->error);
        break;
    case FLUE_DROP:
        if (halve(item, &verdict->error))
            break;
        flue_item_fail(item, verdict->error.code, FLUE_RESULT_REFUSED, &verdict->error);
        break;
    case FLUE_SPLIT:
        split(item, verdict);
        break;
    }
    flue_queue_pump(at);
}

void flue_send_ok(struct flue_send *send)
{
    struct flue_verdict verdict;
    verdict.kind = FLUE_SENT;
    verdict.rejected = (struct flue_counts){0, 0, 0};
    flue_send_done(send, &verdict);
}

void flue_send_fail(struct flue_send *send, const struct flue_error *error)
{
    struct flue_verdict verdict = {
        .kind = flue_code_facts(error->code)->retryable ? FLUE_RETRY : FLUE_DROP, .error = *error};
    flue_send_done(send, &verdict);
}

void flue_send_free_place(struct flue_send *send)
{
    struct flue_item *item = (struct flue_item *)send;
    struct flue_exporter_loop *at = item->at;

    if (!item->place)
        return;
    put_place(item);
    flue_queue_pump(at);
}

/* ---- splitting ------------------------------------------------------------------------------- */

struct cut {
    struct flue_item *whole, *first, **last;
    size_t count;
    bool failed;
};

static void cut_part(void *arg, struct flue_payload *payload, const struct flue_counts *counts)
{
    struct cut *cut = arg;
    const struct flue_batch *batch = cut->whole->send.batch;
    struct flue_batch *own = flue_batch_new(payload, batch->origin, *counts, batch->account);
    struct flue_item *part = own ? flue_item_new(cut->whole->at, cut->whole->branch) : NULL;

    if (!part) {
        flue_batch_unref(own);
        cut->failed = true;
        return;
    }
    part->send.batch = own;
    part->counts = *counts;
    part->counted = cut->whole->counted;
    part->route = cut->whole->route;
    *cut->last = part;
    cut->last = &part->sibling;
    cut->count++;
}

/* The reservation goes over to the parts, by samples; what division leaves to the last. */
static void share_reservation(struct cut *cut)
{
    struct flue_item *whole = cut->whole;
    uint64_t samples = whole->counts.samples, units = whole->units, bytes = whole->bytes;

    for (struct flue_item *part = cut->first; part; part = part->sibling) {
        double share = samples ? (double)part->counts.samples / (double)samples : 0;
        part->units = (uint64_t)((double)whole->units * share);
        part->bytes = (uint64_t)((double)whole->bytes * share);
        if (!part->sibling || part->units > units)
            part->units = units;
        if (!part->sibling || part->bytes > bytes)
            part->bytes = bytes;
        units -= part->units;
        bytes -= part->bytes;
    }
    whole->units = whole->bytes = 0;
}

static void parts_ready(struct cut *cut)
{
    struct flue_item *whole = cut->whole, *before = NULL;
    const struct flue_exporter *exporter = whole->at->exporter;
    struct flue_item_list *ready = &whole->at->ready;
    struct flue_item *newest = ready->last;

    /* Next, and in order, so that a large item keeps its turn. */
    for (struct flue_item *part = cut->first; part; part = part->sibling) {
        part->in_line = true;
        part->state = FLUE_ITEM_READY;
        flue_own_add(&whole->at->queued_items, 1);
        if (flue_in_order(exporter)) {
            flue_queue_ready(part);
        } else if (exporter->log) { /* the last is the next */
            flue_item_list_insert(ready, newest, part);
        } else {
            flue_item_list_insert(ready, before, part);
            before = part;
        }
    }
}

/* The records of the whole are owed by its parts together. False without memory. */
static bool share_records(struct cut *cut)
{
    struct flue_item *whole = cut->whole;
    struct flue_owed *owed = whole->owed;

    if (!whole->send.record)
        return true;
    if (!owed) {
        owed = malloc(sizeof *owed + sizeof owed->records[0]);
        if (!owed)
            return false;
        *owed = (struct flue_owed){.items = 1, .halvings = FLUE_HALVINGS, .count = 1};
        owed->records[0] = whole->send.record;
    }
    owed->items += (unsigned)cut->count - 1;
    for (struct flue_item *part = cut->first; part; part = part->sibling) {
        part->send.record = whole->send.record;
        part->owed = owed;
    }
    whole->send.record = 0;
    whole->owed = NULL;
    return true;
}

bool flue_item_split(struct flue_item *item, uint64_t max, bool by_bytes, struct flue_error *error)
{
    struct flue_batch *batch = item->send.batch;
    struct flue_ledger *ledger = &item->branch->ledger;
    unsigned loop = item->at->loop->index;
    struct cut cut = {.whole = item};
    struct flue_item *next;

    cut.last = &cut.first;
    if (!batch) {
        (void)flue_fail(error, FLUE_NO_MEMORY, "what is parked cannot be cut");
        return false;
    }
    enum flue_code code =
        batch->payload->ops->split(batch->payload, max ? max : 1, by_bytes, &item->counts,
                                   batch->account, cut_part, &cut, error);
    if (code == FLUE_OK && cut.failed)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for the parts of a large request");
    if (code == FLUE_OK && cut.count < 2)
        code = flue_fail(error, FLUE_TOO_LARGE,
                         "too large for the destination (%llu %s) and cannot be cut further",
                         (unsigned long long)max, by_bytes ? "bytes" : "samples");
    if (code == FLUE_OK && !share_records(&cut))
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for the parts of a large request");
    if (code != FLUE_OK) {
        if (error)
            error->code = code;
        for (; cut.first; cut.first = next) {
            next = cut.first->sibling;
            flue_item_free(cut.first);
        }
        return false;
    }
    share_reservation(&cut);
    flue_item_leave_line(item);
    put_place(item);
    if (item->counted) {
        flue_ledger_subtract(ledger, loop, item->started ? FLUE_ROW_IN_FLIGHT : FLUE_ROW_QUEUED,
                             &item->counts);
        for (struct flue_item *part = cut.first; part; part = part->sibling)
            flue_ledger_add(ledger, loop, FLUE_ROW_QUEUED, &part->counts);
        parts_ready(&cut);
        for (struct flue_item *part = cut.first; part; part = next) {
            next = part->sibling;
            part->sibling = NULL;
        }
        free_state(item);
        flue_item_free(item);
        return true;
    }
    free_state(item);
    flue_batch_unref(item->send.batch);
    item->send.batch = NULL;
    item->state = FLUE_ITEM_GROUP;
    item->parts = cut.first;
    item->open_parts = (unsigned)cut.count;
    for (struct flue_item *part = cut.first; part; part = part->sibling)
        part->owner = item;
    if (item->at->exporter->queued)
        parts_ready(&cut);
    else
        next_part(item);
    return true;
}

/* ---- giving up ------------------------------------------------------------------------------- */

/* A merged item whose sender went away leaves the item that carries it, which goes on. */
static void leave_carrier(struct flue_item *item)
{
    struct flue_item **link = &item->owner->merged;

    while (*link && *link != item)
        link = &(*link)->next;
    if (*link)
        *link = item->next;
    item->owner = NULL;
    item->next = NULL;
}

void flue_item_give_up(struct flue_item *item, enum flue_code why)
{
    struct flue_exporter_loop *at = item->at;
    struct flue_error error;

    if (item->giving_up)
        return;
    item->giving_up = (uint8_t)why;
    (void)flue_fail(&error, why, "%s",
                    why == FLUE_CANCELLED ? "the sender went away"
                                          : "shut down before it was sent");
    switch (item->state) {
    case FLUE_ITEM_SENDING:
        if (item->send.cancel)
            item->send.cancel(&item->send);
        return;
    case FLUE_ITEM_LOADING:
        if (item->recall)
            return; /* leaves when it is read */
        break;
    case FLUE_ITEM_GROUP:
        item->open_parts++; /* keeps it until all have been told */
        for (struct flue_item *part = item->parts; part; part = part->sibling)
            if (part->state != FLUE_ITEM_ENDED)
                flue_item_give_up(part, why);
        if (--item->open_parts == 0)
            group_end(item);
        flue_queue_pump(at);
        return;
    case FLUE_ITEM_MERGED:
        leave_carrier(item);
        break;
    case FLUE_ITEM_BATCHING:
        flue_batcher_forget(item);
        break;
    default:
        break;
    }
    flue_item_fail(item, FLUE_DROP_SHUTDOWN, FLUE_RESULT_FAILED, &error);
    flue_queue_pump(at);
}
