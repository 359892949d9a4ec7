/* rollup_recover.c: cuts that a restart found open wait for their records. See rollup.c. */
#include <stdlib.h>
#include "archive/writer/rollup_inside.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"

#define RECOVERY_QUIET (60 * 1000000000ull) /* without a recovered record: no more will come */

static bool recover_note(void *arg, uint64_t number, struct flue_bytes text)
{
    struct flue_rollup *rollup = arg;
    struct cut *cut = flue_rollup_cut_new(rollup);
    struct flue_bytes copy;
    struct flue_error error;

    if (number > rollup->number)
        rollup->number = number;
    if (!cut)
        return true;
    cut->number = number;
    cut->state = CUT_RECOVERED;
    copy = flue_arena_copy(&cut->arena, text);
    if (!copy.data || flue_cut_read(copy, &cut->arena, &cut->text, &error) ||
        !(cut->members = calloc(cut->text.count, sizeof *cut->members))) {
        flue_log(FLUE_WARN, "archive", "a cut of the queue cannot be read and is left out",
                 FLUE_S("exporter", rollup_who(rollup)), FLUE_LOG_END);
        flue_rollup_cut_forget(cut);
        return true;
    }
    /* Another encoder would make other bytes: its records gather anew. */
    if (!cut->text.written && (cut->text.encoder != flue_otlp_encoder() ||
                               cut->text.level != (uint32_t)rollup->writer->config.level)) {
        flue_rollup_cut_drop_note(cut);
        flue_rollup_cut_forget(cut);
        return true;
    }
    rollup->recovering++;
    return true;
}

static void recovery_over(struct flue_timer *timer)
{
    struct flue_rollup *rollup =
        (struct flue_rollup *)((char *)timer - offsetof(struct flue_rollup, recovery));
    uint64_t now = flue_monotonic_ns();
    struct cut *cut, *next;

    if (now < rollup->recovered_ns + RECOVERY_QUIET) {
        flue_timer_arm(rollup->lane->loop, timer, rollup->recovered_ns + RECOVERY_QUIET);
        return;
    }
    rollup->recovering = 0;
    for (cut = rollup->cuts; cut; cut = next) {
        next = cut->next;
        if (cut->state != CUT_RECOVERED)
            continue;
        if (cut->text.written) {
            cut->state = CUT_WRITTEN;
            cut->unfinished++;
            flue_rollup_cut_finished_one(cut);
        } else {
            flue_log(FLUE_INFO, "archive",
                     "records of a cut did not come back; the rest is cut anew",
                     FLUE_S("exporter", rollup_who(rollup)), FLUE_U("records", cut->text.count),
                     FLUE_U("present", cut->present), FLUE_LOG_END);
            flue_rollup_cut_dissolve(cut, false);
        }
        if (next) /* the list may have changed: begin again */
            next = rollup->cuts;
    }
}

bool flue_rollup_rejoin(struct flue_rollup *rollup, struct member *member)
{
    for (struct cut *cut = rollup->cuts; cut; cut = cut->next) {
        if (cut->state != CUT_RECOVERED ||
            !flue_place_equal(&cut->text.place, &member->place->place))
            continue;
        size_t at = flue_rollup_cut_index(cut, member->item->send->record);
        if (at == SIZE_MAX || cut->members[at])
            continue;
        cut->unfinished++;
        member->cut = cut;
        if (cut->text.written) {
            member->item->open--;
            return true;
        }
        cut->members[at] = member;
        if (++cut->present == cut->text.count) {
            rollup->recovering--;
            cut->state = CUT_QUEUED;
        }
        return true;
    }
    return false;
}

void flue_rollup_recover(struct flue_rollup *rollup)
{
    flue_storage_notes(rollup->writer->create->storage, recover_note, rollup);
}

void flue_rollup_recovery_begin(struct flue_rollup *rollup, uint64_t now)
{
    if (!rollup->recovering)
        return;
    rollup->recovered_ns = now;
    rollup->recovery.fire = recovery_over;
    flue_timer_arm(rollup->lane->loop, &rollup->recovery, now + RECOVERY_QUIET);
}
