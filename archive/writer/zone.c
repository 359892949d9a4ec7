/* zone.c: see zone.h and route.h. */
#include "archive/writer/zone.h"
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include "archive/writer/route.h"

#define FILE_MAX (256u * 1024)
#define FOLDER   "/usr/share/zoneinfo/"

struct flue_zone {
    size_t count;
    struct {
        int64_t from;
        int32_t offset;
    } spans[]; /* the first from INT64_MIN on */
};

bool flue_zone_time(const struct flue_zone *zone, time_t seconds, struct tm *out)
{
    size_t low = 0, high;

    if (!zone)
        return localtime_r(&seconds, out);
    for (high = zone->count; high - low > 1;) {
        size_t middle = low + (high - low) / 2;
        if (zone->spans[middle].from <= seconds)
            low = middle;
        else
            high = middle;
    }
    seconds += zone->spans[low].offset;
    if (!gmtime_r(&seconds, out))
        return false;
    out->tm_gmtoff = zone->spans[low].offset;
    return true;
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static int64_t get64(const uint8_t *at)
{
    return (int64_t)((uint64_t)get32(at) << 32 | get32(at + 4));
}

struct header {
    uint32_t isutc, isstd, leap, times, types, chars;
};
#define HEADER_SIZE 44

static bool read_header(struct flue_bytes b, struct header *out)
{
    if (b.size < HEADER_SIZE || memcmp(b.data, "TZif", 4) != 0)
        return false;
    *out = (struct header){get32(b.data + 20), get32(b.data + 24), get32(b.data + 28),
                           get32(b.data + 32), get32(b.data + 36), get32(b.data + 40)};
    return out->isutc < FILE_MAX && out->isstd < FILE_MAX && out->leap < FILE_MAX &&
           out->times < FILE_MAX && out->types > 0 && out->types < 256 && out->chars < FILE_MAX;
}

static struct flue_zone *parse(struct flue_bytes b)
{
    struct header h;

    if (!read_header(b, &h) || b.data[4] < '2')
        return NULL;
    b = flue_bytes_from(b, HEADER_SIZE + h.times * 5 + h.types * 6 + h.chars + h.leap * 8 +
                               h.isstd + h.isutc);
    if (!read_header(b, &h) || b.size < HEADER_SIZE + (size_t)h.times * 9 + (size_t)h.types * 6)
        return NULL;
    const uint8_t *times = b.data + HEADER_SIZE, *which = times + (size_t)h.times * 8;
    const uint8_t *types = which + h.times;
    struct flue_zone *zone = malloc(sizeof *zone + ((size_t)h.times + 1) * sizeof zone->spans[0]);
    if (!zone)
        return NULL;
    zone->count = (size_t)h.times + 1;
    zone->spans[0].from = INT64_MIN;
    zone->spans[0].offset = (int32_t)get32(types);
    for (uint32_t i = 0; i < h.times; i++) {
        if (which[i] >= h.types) {
            free(zone);
            return NULL;
        }
        zone->spans[i + 1].from = get64(times + (size_t)i * 8);
        zone->spans[i + 1].offset = (int32_t)get32(types + (size_t)which[i] * 6);
    }
    return zone;
}

static bool plain_name(const char *name)
{
    if (!*name || *name == '/' || strstr(name, "..") || strlen(name) > 64)
        return false;
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/") ==
           strlen(name);
}

enum flue_code flue_zone_load(const char *name, struct flue_zone **out, struct flue_error *error)
{
    char path[128];
    uint8_t *bytes;
    size_t size = 0;

    *out = NULL;
    if (!name || !*name || strcasecmp(name, "local") == 0)
        return FLUE_OK;
    if (strcasecmp(name, "UTC") == 0) {
        if (!(*out = calloc(1, sizeof **out + sizeof(*out)->spans[0])))
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for a time zone");
        (*out)->count = 1;
        (*out)->spans[0].from = INT64_MIN;
        return FLUE_OK;
    }
    snprintf(path, sizeof path, FOLDER "%s", name);
    FILE *file = plain_name(name) ? fopen(path, "rb") : NULL;
    if (!file)
        return flue_fail(error, FLUE_INVALID,
                         "there is no time zone \"%.64s\" in " FOLDER
                         "; use Local, UTC, or a name as Europe/Paris (package tzdata)",
                         name);
    bytes = malloc(FILE_MAX);
    if (bytes)
        size = fread(bytes, 1, FILE_MAX, file);
    fclose(file);
    *out = bytes ? parse(flue_bytes(bytes, size)) : NULL;
    free(bytes);
    if (!*out)
        return flue_fail(error, FLUE_INVALID, "%s is not a time zone that this flue reads", path);
    return FLUE_OK;
}

void flue_zone_destroy(struct flue_zone *zone)
{
    free(zone);
}
