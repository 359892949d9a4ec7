/* dates.c: the times of an item's parts; see parcel.h.
 *
 * A part's own time is the profile's, or that of its receipt where it has none, and for the nth
 * part of a cut profile n nanoseconds later: a function of the item. Where that cannot be (another
 * profile of the series has it, or it lies outside the server's window) the part gets another, and
 * the item a note of all such: rows of the part's number and its time, 4 and 8 bytes,
 * little-endian.
 */
#include <endian.h>
#include "collector/base/clock.h"
#include "exporters/pyroscope/parcel.h"
#include "proto/pprof/repair.h"

#define ROW       12
#define NOTE_MAX  (1u << 20)
#define HELD_MS   300000u /* until what is too old is looked at again */
#define LATEST_MS 3600000u

static int64_t own_time(const struct flue_parcel_part *part)
{
    int64_t time = part->time_nanos > 0 ? part->time_nanos : (int64_t)part->parcel->received_ns;

    return time + part->shift;
}

/* -1: too old; 1: too new */
static int outside(int64_t time, const struct flue_window_config *window, uint64_t now)
{
    if (window->older_than && time < (int64_t)now - window->older_than)
        return -1;
    return window->newer_than && time - (int64_t)now > window->newer_than;
}

uint32_t flue_part_held_ms(const struct flue_parcel_part *part,
                           const struct flue_window_config *window)
{
    uint64_t now = flue_wall_ns();
    int where = outside(part->time_nanos, window, now);
    int64_t ms;

    if (where <= 0)
        return where ? HELD_MS : 0;
    ms = (part->time_nanos - (int64_t)now - window->newer_than) / 1000000 + 1;
    return ms < LATEST_MS ? (uint32_t)ms : LATEST_MS;
}

static bool noted_time(struct flue_bytes note, size_t number, int64_t *time)
{
    for (size_t at = 0; at + ROW <= note.size; at += ROW) {
        uint32_t row;
        uint64_t value;
        memcpy(&row, note.data + at, sizeof row);
        memcpy(&value, note.data + at + 4, sizeof value);
        if (le32toh(row) != number)
            continue;
        *time = (int64_t)le64toh(value);
        return true;
    }
    return false;
}

static enum flue_code set_time(struct flue_parcel_part *part, int64_t time,
                               struct flue_error *error)
{
    struct flue_block *dated = NULL;
    enum flue_code code;

    if (time == part->time_nanos)
        return FLUE_OK;
    /* What was converted here is ours to write to, in the arena or in its own block. */
    if (!part->time_at || !flue_pprof_patch_time((uint8_t *)(uintptr_t)part->profile.data,
                                                 part->time_at, part->time_nanos, time)) {
        code = flue_pprof_set_time(part->profile, time, &flue_parcel_inflating,
                                   part->parcel->account, &dated, error);
        if (code)
            return code;
        flue_part_set(part, dated, false);
    }
    part->time_nanos = time;
    part->shift = 0;
    return FLUE_OK;
}

/* The time that a part outside the window is to have, or what else becomes of it. */
static int64_t place(struct flue_parcel_part *part, int64_t time,
                     const struct flue_window_config *window, uint64_t now)
{
    struct flue_error error;
    int where = outside(time, window, now);
    char text[25];

    if (!where)
        return time;
    switch (window->outside) {
    case FLUE_OUTSIDE_RESTAMP:
        return outside((int64_t)part->parcel->received_ns, window, now)
                   ? (int64_t)now
                   : (int64_t)part->parcel->received_ns;
    case FLUE_OUTSIDE_HOLD:
        part->held = true;
        break;
    case FLUE_OUTSIDE_DROP:
        flue_format_time(time > 0 ? (uint64_t)time : 0, text);
        flue_fail(&error, FLUE_REFUSED, "its time %s is %s by more than window.%s allows", text,
                  where < 0 ? "past" : "to come", where < 0 ? "older_than" : "newer_than");
        flue_parcel_refuse(part, &error);
        break;
    default: /* the server decides */
        break;
    }
    return time;
}

static bool note_add(struct flue_parcel *parcel, uint8_t **rows, size_t *used, size_t number,
                     int64_t time)
{
    uint32_t row = htole32((uint32_t)number);
    uint64_t value = htole64((uint64_t)time);

    if (!*rows)
        *rows = flue_arena_alloc(&parcel->arena, parcel->count * ROW);
    if (!*rows)
        return false;
    memcpy(*rows + *used, &row, sizeof row);
    memcpy(*rows + *used + 4, &value, sizeof value);
    *used += ROW;
    return true;
}

enum flue_code flue_parcel_date(struct flue_parcel *parcel,
                                const struct flue_parcel_options *options, struct flue_error *error)
{
    const struct flue_window_config *window = &options->config->window;
    uint64_t now = flue_wall_ns();
    enum flue_code code = FLUE_OK;
    uint8_t *rows = NULL;
    size_t used = 0;

    for (size_t i = 0; !code && i < parcel->count; i++) {
        struct flue_parcel_part *part = parcel->parts[i];
        int64_t own = own_time(part), time = own;
        if (part->unseen || part->status == FLUE_PART_REFUSED)
            continue; /* the trusted hop before us has dated it */
        if (noted_time(options->note, i, &time)) {
            flue_moment_take(options->moments, part->labels->hash, time);
        } else {
            time = place(part, own, window, now);
            if (part->status == FLUE_PART_REFUSED)
                continue;
            time = flue_moment_take(options->moments, part->labels->hash, time);
        }
        if (time != own && parcel->record && !note_add(parcel, &rows, &used, i, time))
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for the times of an item");
        code = set_time(part, time, error);
    }
    if (used && used <= NOTE_MAX && used != options->note.size) {
        parcel->note = flue_bytes(rows, used);
        parcel->note_pending = true;
    } else if (used) {
        parcel->noted = true;
    }
    return code;
}
