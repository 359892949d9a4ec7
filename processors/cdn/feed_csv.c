/* feed_csv.c: tables by lines: ipfeed, geofeed (RFC 8805), NetBox's export, plain lists of prefixes.
 */
#include <stdio.h>

#include "processors/cdn/feed.h"

#define LINE_MAX_SIZE (16u << 10)
#define CELLS_MAX     64

size_t flue_csv_cells(uint8_t *line, size_t size, struct flue_bytes *cells, size_t max)
{
    size_t count = 0, at = 0;

    for (;;) {
        if (count == max)
            return SIZE_MAX;
        if (at < size && line[at] == '"') {
            uint8_t *to = line + at + 1, *begin = to;
            for (at++;; at++) {
                if (at >= size)
                    return SIZE_MAX;
                if (line[at] == '"') {
                    if (at + 1 >= size || line[at + 1] != '"')
                        break;
                    at++;
                }
                *to++ = line[at];
            }
            at++;
            cells[count++] = flue_bytes(begin, (size_t)(to - begin));
            while (at < size && line[at] != ',') /* what stands between a quote and the comma */
                at++;
        } else {
            size_t begin = at;
            while (at < size && line[at] != ',')
                at++;
            cells[count++] = flue_bytes_trim(flue_bytes(line + begin, at - begin));
        }
        if (at >= size)
            return count;
        at++;
    }
}

enum role { IGNORED, NETWORK, VRF, ANYCAST, VALUE };
struct column {
    enum role role;
    enum flue_place_attribute attribute;
};
struct csv {
    struct flue_feed *feed;
    struct column columns[CELLS_MAX];
    size_t column_count, network; /* which column it is */
    bool header, netbox;
    bool addresses; /* NetBox's of hosts, as 10.0.0.5/24: not the network that they are in */
};

/* NetBox writes display names: "Scope type" is scope_type. */
static struct flue_bytes column_name(struct flue_bytes cell, char out[64])
{
    size_t size = cell.size < 63 ? cell.size : 63;
    for (size_t i = 0; i < size; i++) {
        char c = (char)cell.data[i];
        out[i] = c == ' ' || c == '-' ? '_' : (char)(c >= 'A' && c <= 'Z' ? c | 32 : c);
    }
    return flue_bytes(out, size);
}

/* "network" (ipfeed), "prefix" or "address" (NetBox) in a first line makes it a header. */
static bool read_header(struct csv *csv, const struct flue_bytes *cells, size_t count)
{
    char text[64];
    bool ipfeed = false;

    for (size_t i = 0; i < count && !ipfeed && !csv->netbox; i++) {
        struct flue_bytes name = column_name(cells[i], text);
        ipfeed = flue_bytes_is(name, "network");
        csv->addresses = flue_bytes_is(name, "address") || flue_bytes_is(name, "ip_address");
        csv->netbox = csv->addresses || flue_bytes_is(name, "prefix");
        csv->network = i;
    }
    if (!ipfeed && !csv->netbox)
        return false;
    csv->header = true;
    csv->column_count = count;
    csv->feed->form = csv->netbox ? "netbox" : "ipfeed";
    for (size_t i = 0; i < count; i++) {
        if (i == csv->network) {
            csv->columns[i].role = NETWORK;
            continue;
        }
        struct flue_bytes name = column_name(cells[i], text);
        struct column *column = &csv->columns[i];
        column->role = IGNORED;
        column->attribute = flue_place_attribute_find(name);
        /* ipfeed's region may be a bare subdivision; it is completed with the country. */
        if (csv->netbox && flue_bytes_is(name, "vrf")) {
            column->role = VRF;
        } else if (csv->netbox && (flue_bytes_is(name, "scope_id") || flue_bytes_is(name, "scope") ||
                                   flue_bytes_is(name, "site"))) {
            column->role = VALUE;
            column->attribute = FLUE_PLACE_SITE;
        } else if (flue_bytes_is(name, "is_anycast")) {
            column->role = ANYCAST;
        } else if (column->attribute != FLUE_PLACE_ATTRIBUTES) {
            column->role = VALUE;
        }
    }
    return true;
}

static bool geofeed_line(struct csv *csv, const struct flue_bytes *cells, size_t count,
                         unsigned line, struct flue_error *error)
{
    static const enum flue_place_attribute order[] = {FLUE_PLACE_COUNTRY, FLUE_PLACE_SUBDIVISION,
                                                      FLUE_PLACE_CITY, FLUE_PLACE_POSTAL_CODE};
    struct flue_feed_entry entry;
    bool any = false;

    if (count > 1 && !csv->feed->form)
        csv->feed->form = "geofeed";
    flue_feed_begin(csv->feed, &entry);
    for (size_t i = 0; i < 4 && i + 1 < count; i++) {
        any |= cells[i + 1].size > 0;
        flue_feed_set(csv->feed, &entry, line, order[i], cells[i + 1]);
    }
    if (count > 1 && !any) /* RFC 8805 2.1.1.1: all empty is "do not locate" */
        for (int i = FLUE_PLACE_CONTINENT; i <= FLUE_PLACE_POSTAL_CODE; i++)
            flue_feed_retract(&entry, (enum flue_place_attribute)i);
    return flue_feed_add(csv->feed, &entry, cells[0], line, error);
}

static void set_region(struct csv *csv, struct flue_feed_entry *entry, unsigned line,
                       struct flue_bytes region)
{
    const struct flue_places *places = &csv->feed->places;
    uint32_t country = entry->place.values[FLUE_PLACE_COUNTRY];
    char joined[16];

    if (region.size && region.size <= 3 && country > FLUE_PLACE_RETRACTED) {
        int size = snprintf(joined, sizeof joined, "%.*s-%.*s", FLUE_PRI(places->texts[country]),
                            FLUE_PRI(region));
        region = flue_bytes(joined, (size_t)size);
    }
    flue_feed_set(csv->feed, entry, line, FLUE_PLACE_SUBDIVISION, region);
}

static bool yes(struct flue_bytes cell)
{
    return flue_bytes_equal_nocase(cell, FLUE_BYTES("true")) || flue_bytes_is(cell, "1") ||
           flue_bytes_equal_nocase(cell, FLUE_BYTES("yes"));
}

static bool table_line(struct csv *csv, const struct flue_bytes *cells, size_t count, unsigned line,
                       struct flue_error *error)
{
    struct flue_feed_entry entry;
    struct flue_bytes region = {NULL, 0};
    bool anycast = false;

    flue_feed_begin(csv->feed, &entry);
    if (count > csv->column_count)
        flue_feed_warn(csv->feed, line, "%zu cells, but the header has %zu; the rest is ignored",
                       count, csv->column_count);
    for (size_t i = 0; i < count && i < csv->column_count; i++) {
        const struct column *column = &csv->columns[i];
        if (column->role == VRF) {
            const char *wanted = csv->feed->netbox_vrf ? csv->feed->netbox_vrf : "";
            if (!flue_bytes_is(cells[i], wanted))
                return true;
        } else if (column->role == ANYCAST) {
            anycast = yes(cells[i]);
        } else if (column->role == VALUE && flue_bytes_is(cells[i], "\\N")) {
            flue_feed_retract(&entry, column->attribute);
        } else if (column->role == VALUE && column->attribute == FLUE_PLACE_SUBDIVISION) {
            region = cells[i];
        } else if (column->role == VALUE) {
            flue_feed_set(csv->feed, &entry, line, column->attribute, cells[i]);
        }
    }
    set_region(csv, &entry, line, region);
    if (anycast) /* the address is in many places: it says who, not where */
        for (int i = 0; i < FLUE_PLACE_WRITTEN; i++)
            if (i != FLUE_PLACE_PROVIDER && i != FLUE_PLACE_ASN)
                flue_feed_retract(&entry, (enum flue_place_attribute)i);
    struct flue_bytes network = csv->network < count ? cells[csv->network] : flue_bytes(NULL, 0);
    size_t slash = csv->addresses ? flue_bytes_find(network, '/') : SIZE_MAX;
    return flue_feed_add(csv->feed, &entry,
                         slash == SIZE_MAX ? network : flue_bytes_first(network, slash), line, error);
}

/* "# ipfeed_version=2; ...": a form that is not known yet must not be guessed at. */
static enum flue_code check_version(struct flue_bytes line, struct flue_error *error)
{
    const char *at = memmem(line.data, line.size, "ipfeed_version=", 15);
    if (!at)
        return FLUE_OK;
    const char *end = (const char *)line.data + line.size;
    uint64_t version = 0;
    size_t digits = 0;
    for (at += 15; at + digits < end && at[digits] >= '0' && at[digits] <= '9'; digits++)
        ;
    if (!flue_parse_u64(flue_bytes(at, digits), &version) || version > 1)
        return flue_fail(error, FLUE_UNPROCESSABLE,
                         "ipfeed_version is %.*s; version 1 is what can be read", (int)digits, at);
    return FLUE_OK;
}

enum flue_code flue_feed_read_csv(struct flue_feed *feed, struct flue_bytes content,
                                  struct flue_error *error)
{
    struct csv csv = {.feed = feed};
    struct flue_bytes cells[CELLS_MAX];
    uint8_t copy[LINE_MAX_SIZE];
    unsigned line = 0;
    bool first = true;

    while (content.size) {
        const uint8_t *newline = memchr(content.data, '\n', content.size);
        size_t size = newline ? (size_t)(newline - content.data) : content.size;
        struct flue_bytes text = flue_bytes(content.data, size);
        content = flue_bytes_from(content, newline ? size + 1 : size);
        line++;
        if (text.size && text.data[text.size - 1] == '\r')
            text.size--;
        text = flue_bytes_trim(text);
        if (text.size == 0)
            continue;
        if (text.data[0] == '#') {
            if (line == 1 && check_version(text, error) != FLUE_OK)
                return error ? error->code : FLUE_UNPROCESSABLE;
            continue;
        }
        if (text.size > sizeof copy) {
            feed->skipped++;
            flue_feed_warn(feed, line, "a line of %zu bytes, at most %zu; left out", text.size,
                           sizeof copy);
            continue;
        }
        /* A comment ends a line of a geofeed; a table's cells may hold the sign. */
        size_t hash = csv.header ? SIZE_MAX : flue_bytes_find(text, '#');
        if (hash != SIZE_MAX)
            text = flue_bytes_trim(flue_bytes_first(text, hash));
        memcpy(copy, text.data, text.size);
        size_t count = flue_csv_cells(copy, text.size, cells, CELLS_MAX);
        if (count == SIZE_MAX) {
            feed->skipped++;
            flue_feed_warn(feed, line, "a quote without its end, or over %d cells; left out",
                           CELLS_MAX);
            continue;
        }
        bool header = first && read_header(&csv, cells, count);
        first = false;
        if (header)
            continue;
        if (!(csv.header ? table_line(&csv, cells, count, line, error)
                         : geofeed_line(&csv, cells, count, line, error)))
            return error ? error->code : FLUE_TOO_LARGE;
    }
    if (!feed->form)
        feed->form = "list";
    return FLUE_OK;
}
