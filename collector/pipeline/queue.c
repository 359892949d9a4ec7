/* queue.c: who may come in, who is sent next, and how loops share what a destination allows.
 *
 * Items stay on their loop; shared are two sums (what the queue holds, in units and bytes) and the
 * count of places (num_consumers). Nobody waits for a lock: a loop that finds no place or no room
 * sets its bit and looks once more; who gives something back looks at the bits afterwards. With
 * sequential consistency at least one of the two sees the other. A place is handed over whole
 * (granted), so a busy loop cannot keep all places from the others.
 */
#include "collector/pipeline/item.h"
#include "collector/base/clock.h"
#include "collector/pipeline/hold.h"

#define FULL_RETRY_MS 1000 /* what a sender is told when a queue is full */

/* ---- reservation ----------------------------------------------------------------------------- */

static bool take(_Atomic uint64_t *used, uint64_t amount, uint64_t limit)
{
    if (atomic_fetch_add(used, amount) + amount <= limit)
        return true;
    atomic_fetch_sub(used, amount);
    return false;
}

static void post_wake(struct flue_exporter_loop *at)
{
    if (!atomic_exchange(&at->wake_posted, true))
        flue_loop_post(at->loop, &at->wake);
}

void flue_queue_wake_loops(struct flue_exporter *exporter, uint64_t loops)
{
    for (unsigned i = 0; loops && i < exporter->loops->count; i++, loops >>= 1)
        if (loops & 1)
            post_wake(&exporter->at[i]);
}

void flue_queue_wake_room(struct flue_exporter *exporter)
{
    uint64_t waiters = atomic_load(&exporter->room_waiters);
    if (waiters)
        flue_queue_wake_loops(exporter, waiters);
}

enum flue_code flue_queue_reserve(struct flue_item *item, struct flue_error *error)
{
    struct flue_exporter *exporter = item->at->exporter;
    const struct flue_queue_config *queue = &exporter->settings.sending_queue;
    const struct flue_payload *payload = item->send.batch->payload;

    if (atomic_load_explicit(&exporter->stopping, memory_order_relaxed))
        return flue_fail(error, FLUE_SHUTTING_DOWN, "exporter %s is shutting down", exporter->id);
    if (!exporter->queued)
        return FLUE_OK;
    uint64_t units = queue->sizer == FLUE_SIZER_REQUESTS ? 1
                     : queue->sizer == FLUE_SIZER_ITEMS  ? item->counts.samples
                                                         : payload->ops->encoded_size(payload);
    uint64_t bytes = payload->ops->held_size(payload);
    if (units > (uint64_t)queue->queue_size || bytes > (uint64_t)queue->max_bytes)
        return flue_fail(error, FLUE_TOO_LARGE,
                         "one request is larger than the whole queue of exporter %s "
                         "(sending_queue.queue_size %lld, max_bytes %lld): %llu units, %llu bytes",
                         exporter->id, (long long)queue->queue_size, (long long)queue->max_bytes,
                         (unsigned long long)units, (unsigned long long)bytes);
    bool fits = exporter->log ? flue_lag_reserve(item, units)
                              : take(&exporter->used_units, units, (uint64_t)queue->queue_size);
    if (fits && !exporter->log && !take(&exporter->used_bytes, bytes, (uint64_t)queue->max_bytes)) {
        atomic_fetch_sub(&exporter->used_units, units);
        fits = false;
    }
    if (!fits) {
        (void)flue_fail(
            error, FLUE_OVERLOADED,
            "the queue of exporter %s is full (sending_queue.queue_size %lld, max_bytes "
            "%lld); send again later",
            exporter->id, (long long)queue->queue_size, (long long)queue->max_bytes);
        if (error)
            error->retry_after_ms = FULL_RETRY_MS;
        return FLUE_OVERLOADED;
    }
    item->units = units;
    item->bytes = exporter->log ? 0 : bytes; /* that of a durable item when it enters memory */
    item->state = FLUE_ITEM_RESERVED;
    return FLUE_OK;
}

void flue_queue_give_memory(struct flue_exporter *exporter, uint64_t bytes)
{
    atomic_fetch_sub(&exporter->used_bytes, bytes);
    if (exporter->log && atomic_load(&exporter->starved))
        flue_queue_wake_loops(exporter, atomic_exchange(&exporter->starved, 0));
}

void flue_queue_release(struct flue_item *item)
{
    struct flue_exporter *exporter = item->at->exporter;

    if (!item->units && !item->bytes)
        return;
    atomic_fetch_sub(exporter->log ? &exporter->pending_units : &exporter->used_units, item->units);
    flue_queue_give_memory(exporter, item->bytes);
    item->units = item->bytes = 0;
    flue_queue_wake_room(exporter);
}

void flue_queue_wait_room(struct flue_exporter_loop *at, struct flue_delivery *delivery)
{
    *flue_delivery_room_next(delivery) = NULL;
    if (at->room_last)
        *flue_delivery_room_next(at->room_last) = delivery;
    else
        at->room_first = delivery;
    at->room_last = delivery;
    atomic_fetch_or(&at->exporter->room_waiters, UINT64_C(1) << at->loop->index);
    post_wake(at); /* what became free before the bit was seen */
}

void flue_queue_unwait_room(struct flue_exporter_loop *at, struct flue_delivery *delivery)
{
    struct flue_delivery *previous = NULL;

    for (struct flue_delivery *d = at->room_first; d; d = *flue_delivery_room_next(d)) {
        if (d != delivery) {
            previous = d;
            continue;
        }
        if (previous)
            *flue_delivery_room_next(previous) = *flue_delivery_room_next(d);
        else
            at->room_first = *flue_delivery_room_next(d);
        if (at->room_last == d)
            at->room_last = previous;
        break;
    }
    if (!at->room_first)
        atomic_fetch_and(&at->exporter->room_waiters, ~(UINT64_C(1) << at->loop->index));
}

/* In order; the first that finds no room keeps its place at the head. */
static void serve_room(struct flue_exporter_loop *at)
{
    while (at->room_first) {
        struct flue_delivery *delivery = at->room_first;
        struct flue_delivery *next = *flue_delivery_room_next(delivery);

        at->room_first = next;
        if (!next)
            at->room_last = NULL;
        if (flue_delivery_room(delivery))
            continue;
        *flue_delivery_room_next(delivery) = at->room_first;
        at->room_first = delivery;
        if (!at->room_last)
            at->room_last = delivery;
        return;
    }
    atomic_fetch_and(&at->exporter->room_waiters, ~(UINT64_C(1) << at->loop->index));
}

/* ---- places ---------------------------------------------------------------------------------- */

static bool claim_place(struct flue_exporter *exporter)
{
    uint64_t limit = (uint64_t)exporter->settings.sending_queue.num_consumers;
    uint64_t used = atomic_load(&exporter->places);

    while (used < limit)
        if (atomic_compare_exchange_weak(&exporter->places, &used, used + 1))
            return true;
    return false;
}

static bool take_place(struct flue_exporter_loop *at)
{
    struct flue_exporter *exporter = at->exporter;
    uint64_t bit = UINT64_C(1) << at->loop->index;

    if (at->spare) {
        at->spare--;
        return true;
    }
    if (claim_place(exporter))
        return true;
    atomic_fetch_or(&exporter->place_waiters, bit);
    return claim_place(exporter);
}

/* The next loop that waits, after this one in a circle; itself excluded. */
static struct flue_exporter_loop *waiting_loop(struct flue_exporter_loop *at)
{
    struct flue_exporter *exporter = at->exporter;
    uint64_t own = UINT64_C(1) << at->loop->index;
    uint64_t waiters = atomic_load(&exporter->place_waiters) & ~own;

    if (!waiters)
        return NULL;
    uint64_t above = waiters & ~((own << 1) - 1);
    return &exporter->at[__builtin_ctzll(above ? above : waiters)];
}

static void grant(struct flue_exporter_loop *to)
{
    atomic_fetch_add(&to->granted, 1);
    post_wake(to);
}

static void give_place_back(struct flue_exporter_loop *at)
{
    struct flue_exporter_loop *other = waiting_loop(at);

    if (other) {
        grant(other);
        return;
    }
    atomic_fetch_sub(&at->exporter->places, 1);
    other = waiting_loop(at);
    if (other && claim_place(at->exporter))
        grant(other);
}

void flue_queue_put_place(struct flue_exporter_loop *at)
{
    /* Every second place goes to another loop that waits. */
    if (at->ready.first && (++at->turn % 2 || !waiting_loop(at)))
        at->spare++;
    else
        give_place_back(at);
}

/* ---- what is sent next ----------------------------------------------------------------------- */

void flue_queue_ready(struct flue_item *item)
{
    struct flue_item_list *ready = &item->at->ready;
    struct flue_item *before = ready->last;

    item->state = FLUE_ITEM_READY;
    if (flue_in_order(item->at->exporter)) /* parts of one record stay as they come */
        while (before && before->send.record > item->send.record)
            before = before->previous;
    flue_item_list_insert(ready, before, item);
}

static void line_up(struct flue_item *item);

/* Asks again whether a held item may go; `last`: it must. */
static void ask(struct flue_timer *timer)
{
    struct flue_item *item =
        (struct flue_item *)((char *)timer - offsetof(struct flue_item, timer));
    struct flue_hold *hold = item->send.batch->hold;
    struct flue_exporter_loop *at = item->at;
    uint64_t now = flue_monotonic_ns(), next = now + hold->every_ns;
    bool last = at->draining || at->expired || now >= hold->until_ns;

    if (!hold->ripe(hold, &item->send.batch, last) && !last) {
        flue_timer_arm(at->loop, timer, next < hold->until_ns ? next : hold->until_ns);
        return;
    }
    flue_item_unlist(item);
    line_up(item);
}

/* Among those that wait for their time; flue_attempt_hurry lets go of it when the exporter drains.
 */
static void hold(struct flue_item *item)
{
    item->state = FLUE_ITEM_BACKOFF;
    flue_item_list_append(&item->at->running, item);
    item->timer.fire = ask;
    flue_timer_arm(item->at->loop, &item->timer, 1);
}

void flue_queue_enter(struct flue_item *item)
{
    struct flue_exporter_loop *at = item->at;

    item->in_line = true;
    flue_own_add(&at->queued_items, 1);
    if (item->send.batch->hold && !item->delivery && !at->draining && !at->expired)
        hold(item);
    else
        line_up(item);
}

static void line_up(struct flue_item *item)
{
    struct flue_exporter_loop *at = item->at;

    if (at->exporter->settings.sending_queue.batch && !at->expired) {
        flue_batcher_add(item);
        if (at->draining)
            flue_batcher_flush_all(at);
    } else {
        flue_queue_ready(item);
    }
    flue_queue_pump(at);
}

static void expire_ready(struct flue_exporter_loop *at)
{
    struct flue_item *item;
    struct flue_error error;

    (void)flue_fail(&error, FLUE_SHUTTING_DOWN, "exporter %s was shut down before it was sent",
                    at->exporter->id);
    while ((item = at->ready.first) || (item = at->parts.first))
        flue_item_fail(item, FLUE_DROP_SHUTDOWN, FLUE_RESULT_FAILED, &error);
}

/* A drain does not knock at a closed door for what is on disk anyway. */
static bool leaves(const struct flue_exporter_loop *at)
{
    const struct flue_exporter *exporter = at->exporter;

    return at->draining && exporter->log && exporter->flow &&
           flue_flow_circuit(exporter->flow) != FLUE_CIRCUIT_CLOSED;
}

/* In memory alone: in order. With a log: the newest, unless the component wants order. */
static struct flue_item *next_ready(const struct flue_exporter_loop *at)
{
    bool newest = at->exporter->log && !flue_in_order(at->exporter);
    return newest ? at->ready.last : at->ready.first;
}

void flue_queue_pump(struct flue_exporter_loop *at)
{
    struct flue_item *item;
    bool waits = false; /* for a place */

    if (at->pumping)
        return;
    at->pumping = true;
    for (;;) {
        if (at->expired || leaves(at))
            expire_ready(at);
        if ((item = at->parts.first)) {
            flue_item_unlist(item);
            flue_attempt_start(item);
            continue;
        }
        item = next_ready(at);
        if (!item && !(at->exporter->log && flue_recall_wanted(at)))
            break;
        if (!take_place(at)) {
            waits = true;
            break;
        }
        if (!item) {
            if (flue_recall_next(at))
                continue;
            at->spare++;
            break;
        }
        flue_item_unlist(item);
        item->place = true;
        flue_attempt_begin(item);
    }
    if (!waits && !at->ready.first) {
        uint64_t bit = UINT64_C(1) << at->loop->index;
        if (atomic_load_explicit(&at->exporter->place_waiters, memory_order_relaxed) & bit)
            atomic_fetch_and(&at->exporter->place_waiters, ~bit);
        while (at->spare) {
            at->spare--;
            give_place_back(at);
        }
    }
    at->pumping = false;
}

void flue_queue_wake(struct flue_task *task)
{
    struct flue_exporter_loop *at =
        (struct flue_exporter_loop *)((char *)task - offsetof(struct flue_exporter_loop, wake));

    atomic_store(&at->wake_posted, false);
    at->spare += atomic_exchange(&at->granted, 0);
    flue_queue_pump(at);
    serve_room(at);
}

/* ---- drain ----------------------------------------------------------------------------------- */

void flue_queue_expire(struct flue_exporter_loop *at)
{
    at->draining = at->expired = true;
    flue_dead_letters_leave(at);
    flue_batcher_flush_all(at);
    /* What ends here may end others of the list (parts of a group): begin again after each. */
    bool again = true;
    while (again) {
        again = false;
        for (struct flue_item *item = at->running.first; item; item = item->next) {
            if (item->giving_up)
                continue;
            flue_item_give_up(item, FLUE_SHUTTING_DOWN);
            again = true;
            break;
        }
    }
    flue_queue_pump(at);
}

static void drain_timeout(struct flue_timer *timer)
{
    flue_queue_expire(
        (struct flue_exporter_loop *)((char *)timer -
                                      offsetof(struct flue_exporter_loop, drain_timer)));
}

void flue_queue_stop(struct flue_task *task)
{
    struct flue_exporter_loop *at =
        (struct flue_exporter_loop *)((char *)task - offsetof(struct flue_exporter_loop, stop));
    struct flue_error error;

    at->draining = true;
    at->drain_deadline_ns = at->exporter->stop_deadline_ns;
    flue_dead_letters_leave(at);
    (void)flue_fail(&error, FLUE_SHUTTING_DOWN, "exporter %s is shutting down", at->exporter->id);
    while (at->room_first) {
        struct flue_delivery *delivery = at->room_first;
        flue_queue_unwait_room(at, delivery);
        flue_delivery_no_room(delivery, &error);
    }
    flue_batcher_flush_all(at);
    flue_attempt_hurry(at);
    if (atomic_load_explicit(&at->live, memory_order_relaxed) > 0) {
        at->drain_timer.fire = drain_timeout;
        flue_timer_arm(at->loop, &at->drain_timer,
                       at->drain_deadline_ns ? at->drain_deadline_ns : 1);
    }
    flue_queue_pump(at);
}
