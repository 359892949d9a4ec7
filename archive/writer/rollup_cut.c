/* rollup_cut.c: the life of a cut, from the log's note to the ends of its items. See rollup.c. */
#include <stdlib.h>
#include "archive/writer/rollup_inside.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"

#define TEXT_BUDGET (8u << 20)

void flue_rollup_cut_set_busy(struct cut *cut, bool busy)
{
    if (cut->busy != busy)
        atomic_fetch_add(&cut->rollup->busy, busy ? 1u : (unsigned)-1);
    cut->busy = busy;
}

void flue_rollup_cut_drop_note(struct cut *cut)
{
    flue_storage_note_drop(cut->rollup->writer->create->storage, cut->number);
}

size_t flue_rollup_cut_index(const struct cut *cut, uint64_t record)
{
    size_t low = 0, high = cut->text.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (cut->text.records[middle] < record)
            low = middle + 1;
        else
            high = middle;
    }
    return low < cut->text.count && cut->text.records[low] == record ? low : SIZE_MAX;
}

struct cut *flue_rollup_cut_new(struct flue_rollup *rollup)
{
    struct cut *cut = calloc(1, sizeof *cut), **last;

    if (!cut || !(cut->note = calloc(1, sizeof *cut->note))) {
        free(cut);
        return NULL;
    }
    cut->rollup = rollup;
    cut->note->cut = cut;
    flue_arena_init(&cut->arena, TEXT_BUDGET, 0);
    flue_buffer_init(&cut->note->text, 1u << 20);
    for (last = &rollup->cuts; *last; last = &(*last)->next)
        ;
    *last = cut;
    return cut;
}

static void note_free(struct cut_note *note)
{
    note->cut = NULL;
    if (note->held)
        return; /* noted frees it */
    flue_buffer_destroy(&note->text);
    free(note);
}

static void cut_free(struct cut *cut)
{
    object_offload_stop(&cut->offload);
    if (cut->rollup->encoding == cut)
        cut->rollup->encoding = NULL;
    if (cut->rollup->lane) {
        flue_timer_disarm(cut->rollup->lane->loop, &cut->timer);
        flue_timer_disarm(cut->rollup->lane->loop, &cut->put.timer);
    }
    flue_rollup_cut_set_busy(cut, false);
    flue_otlp_object_destroy(cut->object);
    note_free(cut->note);
    flue_arena_destroy(&cut->arena);
    free(cut->members);
    free(cut);
}

void flue_rollup_cut_forget(struct cut *cut)
{
    struct cut **link = &cut->rollup->cuts;

    while (*link && *link != cut)
        link = &(*link)->next;
    if (*link)
        *link = cut->next;
    cut_free(cut);
}

void flue_rollup_cut_finished_one(struct cut *cut)
{
    if (--cut->unfinished == 0 && cut->state == CUT_WRITTEN) {
        flue_rollup_cut_drop_note(cut);
        flue_rollup_cut_forget(cut);
    }
}

struct cut *flue_rollup_cut_of_timer(struct flue_timer *timer)
{
    return (struct cut *)((char *)timer - offsetof(struct cut, timer));
}

void flue_rollup_cut_retry(struct cut *cut, void (*fire)(struct flue_timer *))
{
    unsigned shift = cut->failures > 4 ? 4 : cut->failures;
    uint64_t wait = FLUE_ROLLUP_RETRY << shift;

    cut->failures++;
    cut->timer.fire = fire;
    flue_timer_arm(cut->rollup->lane->loop, &cut->timer,
                   flue_monotonic_ns() + (wait < FLUE_ROLLUP_WAIT ? wait : FLUE_ROLLUP_WAIT));
}

void flue_rollup_cut_tell(const struct cut *cut, const char *what, const struct flue_error *error)
{
    flue_log(FLUE_WARN, "archive", what, FLUE_S("exporter", rollup_who(cut->rollup)),
             FLUE_U("records", cut->present), FLUE_S("error", error->text), FLUE_LOG_END);
}

static void index_given_up(struct flue_timer *timer)
{
    struct cut *cut = flue_rollup_cut_of_timer(timer);

    cut->indexing = false;
    cut->rollup->uploads--;
    flue_rollup_cut_dissolve(cut, true);
}

void flue_rollup_cut_abandon(struct cut *cut)
{
    struct flue_loop *loop = cut->rollup->lane->loop;

    if (cut->abandoned)
        return;
    cut->abandoned = true;
    if (cut->putting) {
        flue_put_cancel(&cut->put);
    } else if (cut->indexing) {
        flue_hours_forget(cut->rollup->lane->hours, &cut->add);
        cut->timer.fire = index_given_up;
        flue_timer_arm(loop, &cut->timer, flue_monotonic_ns());
    } else if (cut->timer.due_ns) {
        flue_timer_arm(loop, &cut->timer, flue_monotonic_ns());
    }
}

void flue_rollup_cut_dissolve(struct cut *cut, bool keep_note)
{
    struct flue_rollup *rollup = cut->rollup;
    struct flue_error error;

    (void)flue_fail(&error, FLUE_CANCELLED, "given up before its object was written");
    if (rollup->encoding == cut)
        rollup->encoding = NULL;
    if (!keep_note)
        flue_rollup_cut_drop_note(cut);
    flue_rollup_cut_set_busy(cut, false);
    cut->state = CUT_LOGGING; /* nobody's any more */
    for (size_t i = 0; i < cut->text.count; i++) {
        struct member *member = cut->members[i];
        if (!member)
            continue;
        cut->members[i] = NULL;
        member->cut = NULL;
        cut->unfinished--;
        if (!member->item->leaving && flue_rollup_gather(rollup, member))
            continue;
        member->item->leaving = false;
        if (flue_rollup_item_leave(member->item))
            flue_rollup_item_end(member->item, &error, false);
    }
    flue_rollup_cut_forget(cut);
    flue_rollup_start_next(rollup);
}

/* ---- notes ----------------------------------------------------------------------------------- */

static void noted(struct flue_storage_note *done, enum flue_code code,
                  const struct flue_error *error)
{
    struct cut_note *note = done->user;
    struct cut *cut = note->cut;

    note->held = false;
    if (!cut) {
        note_free(note);
        return;
    }
    note->done(cut, code ? error : NULL);
}

static void note(struct cut *cut, void (*done)(struct cut *cut, const struct flue_error *error))
{
    struct cut_note *note = cut->note;
    struct flue_error error;

    flue_buffer_clear(&note->text);
    flue_cut_write(&cut->text, &note->text);
    if (note->text.failed) {
        (void)flue_fail(&error, FLUE_NO_MEMORY, "no memory for a note");
        done(cut, &error);
        return;
    }
    note->note = (struct flue_storage_note){.queue = cut->rollup->writer->create->storage,
                                            .number = cut->number,
                                            .text = flue_buffer_bytes(&note->text),
                                            .loop = cut->rollup->lane->loop,
                                            .done = noted,
                                            .user = note};
    note->done = done;
    note->held = true;
    flue_rollup_cut_set_busy(cut, true);
    flue_storage_note_put(&note->note);
}

static void log_again(struct flue_timer *timer)
{
    flue_rollup_cut_log(flue_rollup_cut_of_timer(timer));
}

static void logged(struct cut *cut, const struct flue_error *error)
{
    flue_rollup_cut_set_busy(cut, false);
    if (error) {
        flue_rollup_cut_tell(cut, "a cut could not be logged, nothing of it is written yet", error);
        flue_rollup_cut_retry(cut, log_again);
        return;
    }
    cut->state = CUT_QUEUED;
    flue_rollup_start_next(cut->rollup);
}

void flue_rollup_cut_log(struct cut *cut)
{
    note(cut, logged);
}

static void noted_written(struct cut *cut, const struct flue_error *error)
{
    struct flue_rollup *rollup = cut->rollup;
    size_t count = cut->text.count;
    struct member **members = cut->members;

    /* If the log could not take it, a crash right now costs duplicates. */
    if (error)
        flue_rollup_cut_tell(cut, "a written object could not be noted", error);
    flue_rollup_cut_set_busy(cut, false);
    cut->state = CUT_WRITTEN;
    cut->members = NULL;
    cut->unfinished++; /* until all are told */
    for (size_t i = 0; i < count; i++)
        if (members[i])
            flue_rollup_member_written(members[i]);
    free(members);
    flue_rollup_cut_finished_one(cut);
    flue_rollup_start_next(rollup);
}

void flue_rollup_cut_is_written(struct cut *cut)
{
    struct flue_rollup *rollup = cut->rollup;

    rollup->uploads--;
    if (cut->encoded)
        rollup->ratio = rollup->ratio * 0.7 + (double)cut->stored / (double)cut->encoded * 0.3;
    flue_otlp_object_destroy(cut->object);
    cut->object = NULL;
    cut->state = CUT_NOTING;
    cut->text.written = true;
    note(cut, noted_written);
    flue_rollup_start_next(rollup);
}
