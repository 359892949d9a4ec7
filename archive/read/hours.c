/* hours.c: see hours.h. */
#include "archive/read/hours.h"
#include <time.h>

#define HOUR_NS       (3600ull * 1000000000u)
#define ASKED_BY_NAME 48 /* hours */

struct walk {
    const struct flue_hours_span *span;
    uint64_t first, last; /* hours */
    uint64_t day;         /* days since 1970 of the hours that are listed */
    struct flue_error *error;
    enum flue_code code;
};

/* "dt=2026-11-21" as days since 1970. */
static bool read_day(struct flue_bytes text, uint64_t *day)
{
    uint64_t year, month, of_month;
    struct tm utc = {0};

    if (text.size != 13 || !flue_bytes_starts_with(text, FLUE_BYTES("dt=")) ||
        text.data[7] != '-' || text.data[10] != '-' ||
        !flue_parse_u64(flue_bytes(text.data + 3, 4), &year) ||
        !flue_parse_u64(flue_bytes(text.data + 8, 2), &month) ||
        !flue_parse_u64(flue_bytes(text.data + 11, 2), &of_month) || year < 1970 || month < 1 ||
        month > 12 || of_month < 1 || of_month > 31)
        return false;
    utc.tm_year = (int)year - 1900;
    utc.tm_mon = (int)month - 1;
    utc.tm_mday = (int)of_month;
    *day = (uint64_t)timegm(&utc) / 86400;
    return utc.tm_mday == (int)of_month; /* no 31st of November */
}

/* The last element of a listed folder, without its '/'. */
static struct flue_bytes name_of(const struct flue_object_listed *listed)
{
    size_t end = listed->key.size ? listed->key.size - 1 : 0, start = end;

    while (start > 0 && listed->key.data[start - 1] != '/')
        start--;
    return flue_bytes(listed->key.data + start, end - start);
}

static bool on_hour(void *arg, const struct flue_object_listed *listed)
{
    struct walk *walk = arg;
    struct flue_bytes name = name_of(listed);
    uint64_t hour;

    if (!listed->folder || name.size != 7 || !flue_bytes_starts_with(name, FLUE_BYTES("hour=")) ||
        !flue_parse_u64(flue_bytes_from(name, 5), &hour) || hour > 23)
        return true;
    hour += walk->day * 24;
    if (hour >= walk->first && hour <= walk->last)
        walk->code = walk->span->visit(walk->span->arg, hour, walk->error);
    return !walk->code;
}

static bool on_day(void *arg, const struct flue_object_listed *listed)
{
    struct walk *walk = arg;
    enum flue_code code;

    if (!listed->folder || !read_day(name_of(listed), &walk->day) || walk->day < walk->first / 24 ||
        walk->day > walk->last / 24)
        return true;
    code = flue_source_list(walk->span->source, listed->key, flue_bytes(NULL, 0), '/', on_hour,
                            walk, walk->error);
    if (code)
        walk->code = code;
    return !walk->code;
}

enum flue_code flue_read_hours(const struct flue_hours_span *span, struct flue_error *error)
{
    struct walk walk = {.span = span, .error = error, .first = span->from_ns / HOUR_NS};
    enum flue_code code;

    if (span->from_ns >= span->to_ns)
        return FLUE_OK;
    walk.last = (span->to_ns - 1) / HOUR_NS;
    if (walk.last - walk.first >= ASKED_BY_NAME) {
        code = flue_source_list(span->source, span->folder, flue_bytes(NULL, 0), '/', on_day, &walk,
                                error);
        return walk.code ? walk.code : code;
    }
    for (uint64_t hour = walk.first; !walk.code && hour <= walk.last; hour++)
        walk.code = span->visit(span->arg, hour, error);
    return walk.code;
}
