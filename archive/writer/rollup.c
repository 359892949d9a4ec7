/* rollup.c: many parked sends become one object.
 *
 * A send is an *item*, a *member* of every place that its profiles belong to. Members gather per
 * place until they are enough or the first has waited long enough; then they become a *cut*, which
 * is logged (cut.h) before anything of it is written. One cut at a time is encoded, record by
 * record; two more may be on their way to the store. A cut whose object and index are written is
 * logged as written, then its items end, then its note is dropped.
 *
 * After a restart, open cuts are read from the log and wait until all their records have come back:
 * then they are written again, the same bytes under the same key. Of a cut that was written only
 * the ends are made up. If records stay away (dropped from the queue, damaged) although others keep
 * coming no more, the cut is dissolved and its records gather anew: twice at worst, never lost.
 *
 * All on one loop.
 */
#include <stdlib.h>
#include "archive/writer/rollup_inside.h"
#include "collector/base/clock.h"

#define FIRST_RATIO 0.2 /* stored to encoded bytes, until it has been seen */

/* ---- items ----------------------------------------------------------------------------------- */

static void item_free(struct item *item)
{
    for (size_t i = 0; i < item->count; i++)
        flue_rollup_place_unref(item->rollup, item->members[i].place);
    free(item);
}

/* All its members are written, or it is given up. */
void flue_rollup_item_end(struct item *item, const struct flue_error *error, bool drop)
{
    struct flue_send *send = item->send;
    struct flue_verdict verdict = {.kind = !error->code ? FLUE_SENT
                                           : drop       ? FLUE_DROP
                                                        : FLUE_RETRY,
                                   .error = *error};

    send->cancel = NULL;
    send->state = NULL;
    for (size_t i = 0; i < item->count; i++) {
        struct cut *cut = item->members[i].cut;
        item->members[i].cut = NULL;
        if (cut)
            flue_rollup_cut_finished_one(cut);
    }
    item_free(item);
    flue_send_done(send, &verdict);
}

bool flue_rollup_item_leave(struct item *item)
{
    for (size_t i = 0; i < item->count; i++) {
        struct member *member = &item->members[i];
        struct cut *cut = member->cut;
        if (member->gathering)
            flue_rollup_leave_gathering(member);
        if (!cut || cut->state == CUT_NOTING || cut->state == CUT_WRITTEN)
            continue;
        if (cut->busy && cut->state != CUT_LOGGING) {
            item->leaving = true;
            flue_rollup_cut_abandon(cut);
            continue;
        }
        size_t at = flue_rollup_cut_index(cut, item->send->record);
        if (at != SIZE_MAX && cut->members[at] == member) {
            cut->members[at] = NULL;
            cut->present--;
        }
        member->cut = NULL;
        cut->unfinished--;
        if (cut->state != CUT_RECOVERED)
            cut->abandoned = true;
    }
    return !item->leaving;
}

void flue_rollup_item_drop(struct item *item)
{
    struct flue_send *send = item->send;
    struct flue_error error;

    (void)flue_fail(&error, FLUE_CANCELLED, "given up before its object was written");
    send->cancel = NULL;
    send->state = NULL;
    for (size_t i = 0; i < item->count; i++) {
        struct member *member = &item->members[i];
        struct cut *cut = member->cut;
        size_t at = cut && cut->members ? flue_rollup_cut_index(cut, send->record) : SIZE_MAX;
        if (member->gathering)
            flue_rollup_leave_gathering(member);
        if (at != SIZE_MAX && cut->members[at] == member)
            cut->members[at] = NULL;
    }
    item_free(item);
    flue_send_fail(send, &error);
}

void flue_rollup_member_written(struct member *member)
{
    static const struct flue_error fine;
    struct item *item = member->item;
    struct flue_error error;

    if (--item->open == 0) {
        flue_rollup_item_end(item, &fine, false);
    } else if (item->leaving) {
        item->leaving = false;
        (void)flue_fail(&error, FLUE_CANCELLED, "given up before its object was written");
        if (flue_rollup_item_leave(item))
            flue_rollup_item_end(item, &error, false);
    }
}

static void cancel(struct flue_send *send)
{
    struct item *item = send->state;
    struct flue_error error;

    (void)flue_fail(&error, FLUE_CANCELLED, "given up before its object was written");
    if (item && !item->leaving && flue_rollup_item_leave(item))
        flue_rollup_item_end(item, &error, false);
}

/* ---- the door -------------------------------------------------------------------------------- */

static struct item *item_new(struct flue_rollup *rollup, struct flue_send *send,
                             struct flue_error *error)
{
    const struct flue_batch *batch = send->batch;
    uint64_t bytes = batch->payload->ops->encoded_size(batch->payload), profiles = 0;
    struct flue_routes routes;
    struct item *item = NULL;
    bool ok = true;

    flue_routes_init(&routes, &rollup->writer->config, batch->origin);
    if (!flue_routes_fill(&routes, batch->payload, error))
        item = calloc(1, sizeof *item + (routes.count + 1) * sizeof item->members[0]);
    for (size_t i = 0; item && i < routes.count; i++)
        profiles += routes.items[i].profiles;
    for (size_t i = 0; item && i < routes.count; i++) {
        const struct flue_routed *routed = &routes.items[i];
        item->members[i] =
            (struct member){.item = item,
                            .place = flue_rollup_place(rollup, &routed->place),
                            .min_ns = routed->min_ns,
                            .max_ns = routed->max_ns,
                            .bytes = profiles ? bytes * routed->profiles / profiles : bytes};
        ok = ok && item->members[i].place;
    }
    if (item) {
        item->rollup = rollup;
        item->send = send;
        item->count = item->open = (uint32_t)routes.count;
    }
    if (!item || !ok) {
        if (item)
            item_free(item);
        item = NULL;
        if (!error->code)
            (void)flue_fail(error, FLUE_NO_MEMORY, "no memory to gather profiles");
    }
    flue_routes_destroy(&routes);
    return item;
}

void flue_rollup_send(struct flue_rollup *rollup, struct flue_archive_lane *lane,
                      struct flue_send *send)
{
    struct flue_error error = {0};
    struct item *item;
    uint64_t now = flue_monotonic_ns();

    if (!rollup->lane) {
        rollup->lane = lane;
        flue_rollup_recovery_begin(rollup, now);
    }
    if (send->batch->origin->received_ns < rollup->started_ns)
        rollup->recovered_ns = now;
    item = item_new(rollup, send, &error);
    if (!item) {
        flue_send_fail(send, &error);
        return;
    }
    flue_send_park(send);
    if (send->batch) { /* part of a record, or several: it cannot be read again by itself */
        item_free(item);
        flue_request_send(lane, send);
        return;
    }
    send->state = item;
    send->cancel = cancel;
    item->open++; /* keeps it until all members have their place */
    for (size_t i = 0; i < item->count && !error.code; i++)
        if (!flue_rollup_rejoin(rollup, &item->members[i]) &&
            !flue_rollup_gather(rollup, &item->members[i]))
            (void)flue_fail(&error, FLUE_NO_MEMORY, "no memory to gather profiles");
    if (error.code) {
        if (flue_rollup_item_leave(item))
            flue_rollup_item_end(item, &error, false);
        return;
    }
    if (--item->open == 0) {
        flue_rollup_item_end(item, &error, false);
        return;
    }
    flue_rollup_start_next(rollup);
    if (send->state == item)
        flue_send_free_place(send);
}

struct flue_rollup *flue_rollup_new(struct flue_archive_writer *writer)
{
    struct flue_rollup *rollup = calloc(1, sizeof *rollup);

    if (!rollup)
        return NULL;
    rollup->writer = writer;
    rollup->ratio = FIRST_RATIO;
    rollup->started_ns = flue_wall_ns();
    flue_rollup_recover(rollup);
    return rollup;
}

bool flue_rollup_idle(const struct flue_rollup *rollup)
{
    return atomic_load(&((struct flue_rollup *)(uintptr_t)rollup)->busy) == 0;
}

void flue_rollup_destroy(struct flue_rollup *rollup)
{
    if (!rollup)
        return;
    if (rollup->lane)
        flue_timer_disarm(rollup->lane->loop, &rollup->recovery);
    while (rollup->gatherings) {
        struct gathering *gathering = rollup->gatherings;
        while (gathering->first)
            flue_rollup_item_drop(gathering->first->item);
        flue_rollup_gathering_free(gathering);
    }
    while (rollup->cuts) {
        struct cut *cut = rollup->cuts;
        object_offload_stop(&cut->offload); /* it reads the members */
        for (size_t i = 0; cut->members && i < cut->text.count; i++)
            if (cut->members[i])
                flue_rollup_item_drop(cut->members[i]->item);
        flue_rollup_cut_forget(cut);
    }
    free(rollup);
}
