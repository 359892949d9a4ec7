/* prefixes.c: texts; from prefixes to intervals. */
#include "processors/cdn/prefixes.h"

#include <arpa/inet.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>

#include "processors/cdn/intervals.h"

/* ---- texts ----------------------------------------------------------------------------------- */

bool flue_address_parse(struct flue_bytes text, struct flue_address *out)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char copy[INET6_ADDRSTRLEN + 1];

    if (text.size > 2 && text.data[0] == '[' && text.data[text.size - 1] == ']')
        text = flue_bytes(text.data + 1, text.size - 2);
    if (text.size == 0 || text.size >= sizeof copy || memchr(text.data, 0, text.size))
        return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, copy, out->bytes) == 1)
        return true;
    if (inet_pton(AF_INET6, copy, out->bytes) != 1)
        return false;
    out->v6 = memcmp(out->bytes, mapped, sizeof mapped) != 0;
    if (!out->v6) {
        memmove(out->bytes, out->bytes + 12, 4);
        memset(out->bytes + 4, 0, 12);
    }
    return true;
}

bool flue_address_text(const struct flue_address *address, char *out, size_t size)
{
    return inet_ntop(address->v6 ? AF_INET6 : AF_INET, address->bytes, out, (socklen_t)size) != NULL;
}

/* Clears the bits behind `length`; true if any was set. */
static bool mask(uint8_t *bytes, unsigned length)
{
    bool any = false;
    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = length > 8 * i ? length - 8 * i : 0;
        uint8_t kept = keep >= 8 ? bytes[i] : (uint8_t)(bytes[i] & ~(0xffu >> keep));
        any |= kept != bytes[i];
        bytes[i] = kept;
    }
    return any;
}

bool flue_prefix_parse(struct flue_bytes text, struct flue_prefix *out, bool *masked)
{
    text = flue_bytes_trim(text);
    size_t slash = flue_bytes_find(text, '/');
    struct flue_bytes address = slash == SIZE_MAX ? text : flue_bytes_first(text, slash);
    uint64_t length;

    memset(out, 0, sizeof *out);
    if (!flue_address_parse(address, &out->address))
        return false;
    unsigned longest = out->address.v6 ? 128 : 32;
    bool written_as_v6 = flue_bytes_find(address, ':') != SIZE_MAX;
    length = longest;
    if (slash != SIZE_MAX) {
        if (!flue_parse_u64(flue_bytes_from(text, slash + 1), &length))
            return false;
        if (written_as_v6 && !out->address.v6) { /* ::ffff:10.0.0.0/104 */
            if (length < 96)
                return false;
            length -= 96;
        }
    }
    if (length > longest)
        return false;
    out->length = (uint8_t)length;
    *masked = mask(out->address.bytes, out->length);
    return true;
}

bool flue_prefix_holds(const struct flue_prefix *prefix, const struct flue_address *address)
{
    uint8_t bytes[16];
    if (prefix->address.v6 != address->v6)
        return false;
    memcpy(bytes, address->bytes, sizeof bytes);
    (void)mask(bytes, prefix->length);
    return memcmp(bytes, prefix->address.bytes, sizeof bytes) == 0;
}

/* ---- intervals ------------------------------------------------------------------------------- */

/* What is in the /64 that a value of the IPv6 intervals leads to: starts and places, ascending. */
struct wide {
    uint32_t first, count;
};
/* A value of the IPv6 intervals with this bit: the number of such a /64. */
#define WIDE UINT32_C(0x80000000)

struct flue_prefixes {
    /* By the first 64 bits; an IPv4 address is their upper half. */
    struct flue_intervals *v4, *v6;
    struct wide *wides;
    uint64_t *lows;
    uint32_t *places; /* of lows */
    size_t wide_count, low_count, count;
};

static uint64_t high_of(const struct flue_prefix *p)
{
    uint64_t value;
    memcpy(&value, p->address.bytes, sizeof value);
    return be64toh(value);
}

static uint64_t low_of(const struct flue_prefix *p)
{
    uint64_t value;
    memcpy(&value, p->address.bytes + 8, sizeof value);
    return be64toh(value);
}

static int by_start(const void *a, const void *b)
{
    const struct flue_prefix *x = a, *y = b;
    if (x->address.v6 != y->address.v6)
        return x->address.v6 ? 1 : -1;
    int order = memcmp(x->address.bytes, y->address.bytes, 16);
    if (order)
        return order;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

/* One of equal prefixes stays; their place is `disputed` where they differ. */
static size_t unite(struct flue_prefix *items, size_t count, uint32_t disputed,
                    void (*dispute)(void *, const struct flue_prefix *,
                                    const struct flue_prefix *),
                    void *arg)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        struct flue_prefix *last = kept ? &items[kept - 1] : NULL;
        if (!last || last->address.v6 != items[i].address.v6 || last->length != items[i].length ||
            memcmp(last->address.bytes, items[i].address.bytes, 16) != 0) {
            items[kept++] = items[i];
            continue;
        }
        if (last->place == items[i].place)
            continue;
        if (dispute)
            dispute(arg, last, &items[i]);
        last->place = disputed;
    }
    return kept;
}

struct intervals {
    uint64_t *starts;
    uint32_t *values;
    size_t count, room;
};

static bool push(struct intervals *out, uint64_t start, uint32_t value)
{
    if (out->count && out->starts[out->count - 1] == start) {
        out->values[out->count - 1] = value; /* the longer one begins at the same place */
    } else if (out->count && out->values[out->count - 1] == value) {
        return true;
    } else {
        if (out->count == out->room) {
            size_t room = out->room ? out->room * 2 : 1024;
            uint64_t *starts = realloc(out->starts, room * sizeof *starts);
            if (starts)
                out->starts = starts;
            uint32_t *values = realloc(out->values, room * sizeof *values);
            if (values)
                out->values = values;
            if (!starts || !values)
                return false;
            out->room = room;
        }
        out->starts[out->count] = start;
        out->values[out->count++] = value;
    }
    /* Two neighbours may have become equal. */
    if (out->count > 1 && out->values[out->count - 1] == out->values[out->count - 2])
        out->count--;
    return true;
}

struct open {
    uint64_t last; /* the greatest key in it */
    uint32_t place;
};
#define STACK_MAX 68 /* the ground, lengths 0 to 64, and the mark of a /64 with longer ones */

/* Prefixes of one piece of 64 bits, the first (`low` false) or the second, sorted by start, shorter
 * first: a stack holds those that contain the point where we are, on the ground of `outer`. */
static bool sweep(const struct flue_prefix *items, size_t count, bool low, uint32_t outer,
                  struct intervals *out)
{
    struct open stack[STACK_MAX];
    unsigned depth = 0;

    stack[depth++] = (struct open){UINT64_MAX, outer};
    if (!push(out, 0, outer))
        return false;
    for (size_t i = 0; i <= count; i++) {
        uint64_t start = i == count ? UINT64_MAX : low ? low_of(&items[i]) : high_of(&items[i]);
        /* Close what ends before the start; at the end, everything but the ground. */
        while (depth > 1 && (i == count || stack[depth - 1].last < start)) {
            uint64_t last = stack[--depth].last;
            if (last != UINT64_MAX && !push(out, last + 1, stack[depth - 1].place))
                return false;
        }
        if (i == count)
            break;
        unsigned length = items[i].length - (low ? 64u : 0u);
        stack[depth] = (struct open){start | (length == 64 ? 0 : UINT64_MAX >> length),
                                     items[i].place};
        if (!push(out, start, stack[depth++].place))
            return false;
    }
    return true;
}

/* The prefixes of one /64, all longer than 64. `of_one` is used again and again. */
static bool add_wide(struct flue_prefixes *p, size_t rooms[2], struct intervals *of_one,
                     const struct flue_prefix *items, size_t count, uint32_t outer)
{
    of_one->count = 0;
    if (!sweep(items, count, true, outer, of_one))
        return false;
    if (p->wide_count == rooms[0]) {
        size_t room = rooms[0] ? rooms[0] * 2 : 64;
        struct wide *wides = realloc(p->wides, room * sizeof *wides);
        if (!wides)
            return false;
        p->wides = wides;
        rooms[0] = room;
    }
    if (rooms[1] - p->low_count < of_one->count) {
        size_t room = rooms[1] * 2 + of_one->count;
        uint64_t *lows = realloc(p->lows, room * sizeof *lows);
        if (lows)
            p->lows = lows;
        uint32_t *places = realloc(p->places, room * sizeof *places);
        if (places)
            p->places = places;
        if (!lows || !places)
            return false;
        rooms[1] = room;
    }
    p->wides[p->wide_count++] = (struct wide){(uint32_t)p->low_count, (uint32_t)of_one->count};
    memcpy(p->lows + p->low_count, of_one->starts, of_one->count * sizeof *p->lows);
    memcpy(p->places + p->low_count, of_one->values, of_one->count * sizeof *p->places);
    p->low_count += of_one->count;
    return true;
}

/* Every /64 that holds longer prefixes becomes one entry marked WIDE, and what is in it goes into
 * `wides`. The stack holds the prefixes of at most /64 around the point where we are. */
static bool sweep_v6(struct flue_prefixes *p, const struct flue_prefix *items, size_t count,
                     struct intervals *out)
{
    struct flue_prefix *flat = malloc((count ? count : 1) * sizeof *flat);
    struct intervals of_one = {0};
    struct open stack[STACK_MAX];
    size_t flats = 0, rooms[2] = {0, 0};
    unsigned depth = 0;
    bool ok = flat != NULL;

    stack[depth++] = (struct open){UINT64_MAX, 0};
    for (size_t i = 0; ok && i < count;) {
        uint64_t high = high_of(&items[i]);
        while (depth > 1 && stack[depth - 1].last < high)
            depth--;
        if (items[i].length <= 64) {
            unsigned length = items[i].length;
            uint64_t span = length == 64 ? 0 : UINT64_MAX >> length;
            stack[depth++] = (struct open){high | span, items[i].place};
            flat[flats++] = items[i++];
            continue;
        }
        size_t end = i;
        while (end < count && items[end].length > 64 && high_of(&items[end]) == high)
            end++;
        flat[flats] = items[i];
        flat[flats].length = 64;
        flat[flats++].place = WIDE | (uint32_t)p->wide_count;
        ok = add_wide(p, rooms, &of_one, items + i, end - i, stack[depth - 1].place);
        i = end;
    }
    ok = ok && sweep(flat, flats, false, 0, out);
    free(of_one.starts);
    free(of_one.values);
    free(flat);
    return ok;
}

static bool build_intervals(struct flue_prefixes *p, const struct flue_prefix *items, size_t count,
                            size_t fours)
{
    struct intervals swept = {0};
    bool ok = sweep(items, fours, false, 0, &swept) &&
              (p->v4 = flue_intervals_new(swept.starts, swept.values, swept.count)) != NULL;

    swept.count = 0;
    ok = ok && sweep_v6(p, items + fours, count - fours, &swept) &&
         (p->v6 = flue_intervals_new(swept.starts, swept.values, swept.count)) != NULL;
    free(swept.starts);
    free(swept.values);
    return ok;
}

enum flue_code flue_prefixes_build(struct flue_prefix *items, size_t count, uint32_t disputed,
                                   void (*dispute)(void *arg, const struct flue_prefix *one,
                                                   const struct flue_prefix *other),
                                   void *arg, struct flue_prefixes **out, struct flue_error *error)
{
    struct flue_prefixes *p = calloc(1, sizeof *p);
    size_t fours = 0;

    if (!p)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a table of prefixes");
    if (count)
        qsort(items, count, sizeof *items, by_start);
    p->count = count = unite(items, count, disputed, dispute, arg);
    while (fours < count && !items[fours].address.v6)
        fours++;
    if (!build_intervals(p, items, count, fours)) {
        flue_prefixes_destroy(p);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a table of %zu prefixes", count);
    }
    *out = p;
    return FLUE_OK;
}

void flue_prefixes_destroy(struct flue_prefixes *prefixes)
{
    if (!prefixes)
        return;
    flue_intervals_destroy(prefixes->v4);
    flue_intervals_destroy(prefixes->v6);
    free(prefixes->wides);
    free(prefixes->lows);
    free(prefixes->places);
    free(prefixes);
}

/* ---- look-up --------------------------------------------------------------------------------- */

static uint32_t find_wide(const struct flue_prefixes *p, const struct wide *wide, uint64_t low)
{
    size_t below = wide->first, above = below + wide->count; /* the last that is <= low */
    while (above - below > 1) {
        size_t middle = below + (above - below) / 2;
        if (p->lows[middle] <= low)
            below = middle;
        else
            above = middle;
    }
    return p->places[below];
}

uint32_t flue_prefixes_find(const struct flue_prefixes *prefixes,
                            const struct flue_address *address)
{
    uint64_t high, low;

    memcpy(&high, address->bytes, sizeof high);
    high = be64toh(high);
    if (!address->v6)
        return flue_intervals_find(prefixes->v4, high);
    uint32_t value = flue_intervals_find(prefixes->v6, high);
    if (!(value & WIDE))
        return value;
    memcpy(&low, address->bytes + 8, sizeof low);
    return find_wide(prefixes, &prefixes->wides[value & ~WIDE], be64toh(low));
}

size_t flue_prefixes_count(const struct flue_prefixes *prefixes)
{
    return prefixes->count;
}

size_t flue_prefixes_bytes(const struct flue_prefixes *prefixes)
{
    return sizeof *prefixes + flue_intervals_bytes(prefixes->v4) +
           flue_intervals_bytes(prefixes->v6) + prefixes->wide_count * sizeof *prefixes->wides +
           prefixes->low_count * (sizeof *prefixes->lows + sizeof *prefixes->places);
}
