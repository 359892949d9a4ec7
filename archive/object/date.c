/* date.c: see date.h. */
#include "archive/object/date.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

/* Behind what the format took; NULL: not that, or before 1970. */
static const char *take(struct flue_bytes text, const char *format, char copy[48], struct tm *tm)
{
    memset(tm, 0, sizeof *tm);
    if (text.size >= 48)
        return NULL;
    if (text.size)
        memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    const char *end = strptime(copy, format, tm);
    return end && tm->tm_year >= 70 ? end : NULL;
}

bool object_http_date(struct flue_bytes text, uint64_t *seconds)
{
    char copy[48];
    struct tm tm;
    const char *end = take(text, "%a, %d %b %Y %H:%M:%S GMT", copy, &tm);
    if (!end || *end)
        return false;
    *seconds = (uint64_t)timegm(&tm);
    return true;
}

bool object_iso_date(struct flue_bytes text, uint64_t *seconds)
{
    char copy[48];
    struct tm tm;
    const char *end = take(text, "%Y-%m-%dT%H:%M:%S", copy, &tm);
    if (!end)
        return false;
    if (*end == '.')
        for (end++; isdigit((unsigned char)*end); end++)
            continue;
    if (strcmp(end, "Z") != 0 && strcmp(end, "+00:00") != 0)
        return false;
    *seconds = (uint64_t)timegm(&tm);
    return true;
}

void object_rfc1123(uint64_t seconds, char *out)
{
    time_t time = (time_t)seconds;
    struct tm tm;
    gmtime_r(&time, &tm);
    strftime(out, 30, "%a, %d %b %Y %H:%M:%S GMT", &tm); /* flue never sets a locale */
}
