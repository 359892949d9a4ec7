/* rollup_gather.c: members gather per place until they are enough or the first has waited long
 * enough; then they become a cut. See rollup.c. */
#include <stdlib.h>
#include "archive/writer/rollup_inside.h"
#include "collector/base/clock.h"

#define GATHERINGS_MAX 1024

/* ---- places ---------------------------------------------------------------------------------- */

struct place *flue_rollup_place(struct flue_rollup *rollup, const struct flue_place *wanted)
{
    struct place *place;

    for (place = rollup->places; place; place = place->next)
        if (flue_place_equal(&place->place, wanted)) {
            place->refs++;
            return place;
        }
    place = malloc(sizeof *place + wanted->bucket.size + wanted->folder.size + 1);
    if (!place)
        return NULL;
    if (wanted->bucket.size)
        memcpy(place->text, wanted->bucket.data, wanted->bucket.size);
    memcpy(place->text + wanted->bucket.size, wanted->folder.data, wanted->folder.size);
    place->place.bucket = flue_bytes(place->text, wanted->bucket.size);
    place->place.folder = flue_bytes(place->text + wanted->bucket.size, wanted->folder.size);
    place->refs = 1;
    place->next = rollup->places;
    rollup->places = place;
    return place;
}

void flue_rollup_place_unref(struct flue_rollup *rollup, struct place *place)
{
    struct place **link = &rollup->places;

    if (!place || --place->refs)
        return;
    while (*link != place)
        link = &(*link)->next;
    *link = place->next;
    free(place);
}

/* ---- gatherings ------------------------------------------------------------------------------ */

void flue_rollup_leave_gathering(struct member *member)
{
    struct gathering *gathering = member->gathering;

    *(member->previous ? &member->previous->next : &gathering->first) = member->next;
    *(member->next ? &member->next->previous : &gathering->last) = member->previous;
    gathering->count--;
    gathering->bytes -= member->bytes;
    member->gathering = NULL;
}

void flue_rollup_gathering_free(struct gathering *gathering)
{
    struct flue_rollup *rollup = gathering->rollup;
    struct gathering **link = &rollup->gatherings;

    while (*link != gathering)
        link = &(*link)->next;
    *link = gathering->next;
    rollup->gathering_count--;
    flue_timer_disarm(rollup->lane->loop, &gathering->timer);
    flue_rollup_place_unref(rollup, gathering->place);
    free(gathering);
}

static int by_record(const void *a, const void *b)
{
    uint64_t x = (*(struct member *const *)a)->item->send->record;
    uint64_t y = (*(struct member *const *)b)->item->send->record;
    return (x > y) - (x < y);
}

static bool fill_cut(struct cut *cut, struct gathering *gathering)
{
    uint64_t *records = flue_arena_zalloc(&cut->arena, gathering->count, sizeof *records);
    size_t count = 0;

    cut->members = calloc(gathering->count, sizeof *cut->members);
    cut->text.place.folder = flue_arena_copy(&cut->arena, gathering->place->place.folder);
    cut->text.place.bucket = flue_arena_copy(&cut->arena, gathering->place->place.bucket);
    if (!records || !cut->members || !cut->text.place.folder.data)
        return false;
    for (struct member *member = gathering->first; member; member = member->next) {
        cut->members[count++] = member;
        if (!cut->text.min_ns || member->min_ns < cut->text.min_ns)
            cut->text.min_ns = member->min_ns;
        if (member->max_ns > cut->text.max_ns)
            cut->text.max_ns = member->max_ns;
    }
    qsort(cut->members, count, sizeof *cut->members, by_record);
    for (size_t i = 0; i < count; i++) {
        records[i] = cut->members[i]->item->send->record;
        cut->members[i]->gathering = NULL;
        cut->members[i]->cut = cut;
    }
    cut->text.records = records;
    cut->text.count = cut->present = cut->unfinished = count;
    cut->text.seq = records[0];
    cut->text.encoder = flue_otlp_encoder();
    cut->text.level = (uint32_t)cut->rollup->writer->config.level;
    return true;
}

static void make_cut(struct gathering *gathering)
{
    struct flue_rollup *rollup = gathering->rollup;
    struct cut *cut = gathering->count ? flue_rollup_cut_new(rollup) : NULL;

    if (gathering->count && (!cut || !fill_cut(cut, gathering))) { /* no memory: later */
        if (cut)
            flue_rollup_cut_forget(cut);
        flue_timer_arm(rollup->lane->loop, &gathering->timer,
                       flue_monotonic_ns() + FLUE_ROLLUP_RETRY);
        return;
    }
    flue_rollup_gathering_free(gathering);
    if (!cut)
        return;
    cut->number = ++rollup->number;
    cut->state = CUT_LOGGING;
    flue_rollup_cut_log(cut);
}

static void due(struct flue_timer *timer)
{
    make_cut((struct gathering *)((char *)timer - offsetof(struct gathering, timer)));
}

static struct gathering *gathering_of(struct flue_rollup *rollup, struct place *place)
{
    uint64_t age = (uint64_t)rollup->writer->config.rollup.max_age;
    struct gathering *gathering, *oldest = NULL;

    for (gathering = rollup->gatherings; gathering; gathering = gathering->next) {
        if (gathering->place == place)
            return gathering;
        if (!oldest || gathering->timer.due_ns < oldest->timer.due_ns)
            oldest = gathering;
    }
    if (rollup->gathering_count >= GATHERINGS_MAX)
        make_cut(oldest);
    gathering = calloc(1, sizeof *gathering);
    if (!gathering)
        return NULL;
    gathering->rollup = rollup;
    gathering->place = place;
    place->refs++;
    gathering->next = rollup->gatherings;
    rollup->gatherings = gathering;
    rollup->gathering_count++;
    gathering->timer.fire = due;
    /* Some before the others, so that a fleet does not write on the minute. */
    flue_timer_arm(rollup->lane->loop, &gathering->timer,
                   flue_monotonic_ns() + age - flue_random_u64() % (age / 8 + 1));
    return gathering;
}

bool flue_rollup_gather(struct flue_rollup *rollup, struct member *member)
{
    struct gathering *gathering = gathering_of(rollup, member->place);

    if (!gathering)
        return false;
    member->gathering = gathering;
    member->next = NULL;
    member->previous = gathering->last;
    *(gathering->last ? &gathering->last->next : &gathering->first) = member;
    gathering->last = member;
    gathering->count++;
    gathering->bytes += member->bytes;
    if ((double)gathering->bytes * rollup->ratio >=
            (double)rollup->writer->config.rollup.max_size ||
        gathering->count >= FLUE_CUT_RECORDS)
        flue_timer_arm(rollup->lane->loop, &gathering->timer, flue_monotonic_ns());
    return true;
}
