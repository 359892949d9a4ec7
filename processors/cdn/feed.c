/* feed.c: what all forms share: entries, limits, warnings, and which form it is. */
#include "processors/cdn/feed.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define PLACES_BUDGET (48u << 20)
#define WARNINGS_MAX  20 /* that are said one by one */

enum flue_code flue_feed_init(struct flue_feed *feed, size_t max_prefixes, struct flue_error *error)
{
    memset(feed, 0, sizeof *feed);
    feed->max = max_prefixes;
    return flue_places_init(&feed->places, PLACES_BUDGET, error);
}

void flue_feed_destroy(struct flue_feed *feed)
{
    flue_places_destroy(&feed->places);
    free(feed->items);
    feed->items = NULL;
}

void flue_feed_warn(struct flue_feed *feed, unsigned line, const char *format, ...)
{
    char text[256];
    va_list arguments;

    if (++feed->warnings > WARNINGS_MAX || !feed->warn)
        return;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    feed->warn(feed->arg, line, text);
}

static void put(struct flue_feed *feed, struct flue_feed_entry *entry,
                enum flue_place_attribute attribute, struct flue_bytes value)
{
    uint32_t text = flue_places_text(&feed->places, value);
    if (text == UINT32_MAX)
        entry->failed = true;
    else
        entry->place.values[attribute] = text;
}

void flue_feed_begin(struct flue_feed *feed, struct flue_feed_entry *entry)
{
    memset(entry, 0, sizeof *entry);
    for (size_t i = 0; i < feed->default_count; i++)
        put(feed, entry, feed->defaults[i].attribute, feed->defaults[i].value);
}

void flue_feed_set(struct flue_feed *feed, struct flue_feed_entry *entry, unsigned line,
                   enum flue_place_attribute attribute, struct flue_bytes value)
{
    char text[FLUE_PLACE_VALUE_MAX], shown[64];
    size_t size;

    if (flue_bytes_trim(value).size == 0)
        return;
    if (flue_place_normalize(attribute, value, text, &size)) {
        put(feed, entry, attribute, flue_bytes(text, size));
        return;
    }
    flue_feed_warn(feed, line, "\"%s\" cannot be a %.*s; left out",
                   flue_printable(value, shown, sizeof shown),
                   FLUE_PRI(flue_place_attribute_name(attribute)));
}

void flue_feed_retract(struct flue_feed_entry *entry, enum flue_place_attribute attribute)
{
    entry->place.values[attribute] = FLUE_PLACE_RETRACTED;
}

bool flue_feed_add_prefix(struct flue_feed *feed, struct flue_feed_entry *entry,
                          const struct flue_prefix *prefix, struct flue_error *error)
{
    uint32_t place = entry->failed ? UINT32_MAX : flue_places_row(&feed->places, &entry->place);

    if (place == UINT32_MAX) {
        (void)flue_fail(error, FLUE_TOO_LARGE, "more than %u MiB of different places",
                        PLACES_BUDGET >> 20);
        return false;
    }
    if (feed->count == feed->max) {
        (void)flue_fail(error, FLUE_TOO_LARGE, "more than %zu prefixes (max_prefixes)", feed->max);
        return false;
    }
    if (feed->count == feed->room) {
        size_t room = feed->room ? feed->room * 2 : 1024;
        struct flue_prefix *items = realloc(feed->items, room * sizeof *items);
        if (!items) {
            (void)flue_fail(error, FLUE_NO_MEMORY, "no memory for %zu prefixes", room);
            return false;
        }
        feed->items = items;
        feed->room = room;
    }
    feed->items[feed->count] = *prefix;
    feed->items[feed->count++].place = place;
    return true;
}

bool flue_feed_add(struct flue_feed *feed, struct flue_feed_entry *entry, struct flue_bytes text,
                   unsigned line, struct flue_error *error)
{
    struct flue_prefix prefix;
    char shown[64];
    bool masked;

    if (!flue_prefix_parse(text, &prefix, &masked)) {
        feed->skipped++;
        flue_feed_warn(feed, line, "\"%s\" is no prefix; line left out",
                       flue_printable(text, shown, sizeof shown));
        return true;
    }
    if (masked)
        flue_feed_warn(feed, line, "\"%s\" has bits behind its length; they are cleared",
                       flue_printable(text, shown, sizeof shown));
    prefix.line = line;
    return flue_feed_add_prefix(feed, entry, &prefix, error);
}

enum flue_code flue_feed_read(struct flue_feed *feed, struct flue_bytes content,
                              struct flue_error *error)
{
    static const char marker[] = "\xab\xcd\xefMaxMind.com";
    size_t tail = content.size > (128u << 10) ? 128u << 10 : content.size;
    enum flue_code code;

    if (content.size && memmem(content.data + content.size - tail, tail, marker, sizeof marker - 1)) {
        code = flue_feed_read_mmdb(feed, content, error);
    } else {
        if (content.size >= 3 && memcmp(content.data, "\xef\xbb\xbf", 3) == 0)
            content = flue_bytes_from(content, 3);
        size_t first = 0;
        while (first < content.size && strchr(" \t\r\n", content.data[first]))
            first++;
        bool json = first < content.size && (content.data[first] == '{' || content.data[first] == '[');
        code = json ? flue_feed_read_json(feed, content, error)
                    : flue_feed_read_csv(feed, content, error);
    }
    if (code == FLUE_OK && feed->count == 0)
        code = flue_fail(error, FLUE_INVALID,
                         "no network in it (read as %s, %u lines left out): is it the right file?",
                         feed->form ? feed->form : "a list", feed->skipped);
    return code;
}
