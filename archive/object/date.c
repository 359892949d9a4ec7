/* date.c: see date.h. */
#include "archive/object/date.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

bool object_http_date(struct flue_bytes text, uint64_t *seconds)
{
    char copy[40];
    struct tm tm = {0};
    if (text.size >= sizeof copy)
        return false;
    if (text.size)
        memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    const char *end = strptime(copy, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end || *end || tm.tm_year < 70)
        return false;
    *seconds = (uint64_t)timegm(&tm);
    return true;
}

bool object_iso_date(struct flue_bytes text, uint64_t *seconds)
{
    char copy[48];
    struct tm tm = {0};
    if (text.size >= sizeof copy)
        return false;
    if (text.size)
        memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    const char *end = strptime(copy, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end || tm.tm_year < 70)
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
