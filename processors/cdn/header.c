/* header.c: grammars of headers that name a place. */
#include "processors/cdn/header.h"

const char *const flue_header_formats[] = {"value",
                                           "cf_ray",
                                           "fastly_forwarded_server",
                                           "fastly_served_by",
                                           "cloudfront_pop",
                                           "bunny_server",
                                           NULL};

static bool letters(struct flue_bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if ((text.data[i] | 32) < 'a' || (text.data[i] | 32) > 'z')
            return false;
    return text.size > 0;
}

static bool digits(struct flue_bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
    return text.size > 0;
}

static bool cf_ray(struct flue_bytes value, struct flue_bytes *found)
{
    uint8_t id[8];
    struct flue_bytes pop = flue_bytes_from(value, 17);
    if (value.size != 20 || value.data[16] != '-' || !letters(pop) ||
        !flue_unhex(flue_bytes_first(value, 16), id, sizeof id))
        return false;
    found[FLUE_PLACE_PROVIDER] = FLUE_BYTES("cloudflare");
    found[FLUE_PLACE_POP] = pop;
    return true;
}

/* "cache-ams21040-AMS", "cache-ams-eham8680062-AMS": the code behind the last dash. */
static struct flue_bytes fastly_pop(struct flue_bytes name)
{
    if (!flue_bytes_starts_with(name, FLUE_BYTES("cache-")) || name.size < 14 ||
        name.data[name.size - 4] != '-')
        return flue_bytes(NULL, 0);
    struct flue_bytes pop = flue_bytes_from(name, name.size - 3);
    bool same = flue_bytes_equal_nocase(flue_bytes(name.data + 6, 3), pop);
    return letters(pop) && same ? pop : flue_bytes(NULL, 0);
}

static bool fastly(struct flue_bytes value, bool edge_first, struct flue_bytes *found)
{
    struct flue_bytes edge = {NULL, 0};
    unsigned names = 0;

    while (value.size && names < 16) {
        size_t comma = flue_bytes_find(value, ',');
        struct flue_bytes name =
            flue_bytes_trim(comma == SIZE_MAX ? value : flue_bytes_first(value, comma));
        struct flue_bytes pop = fastly_pop(name);
        value = comma == SIZE_MAX ? flue_bytes(NULL, 0) : flue_bytes_from(value, comma + 1);
        names++;
        /* A client may have put names of its own before Fastly's. */
        if (pop.size && (!edge.size || !edge_first))
            edge = pop;
    }
    if (!edge.size)
        return false;
    found[FLUE_PLACE_PROVIDER] = FLUE_BYTES("fastly");
    found[FLUE_PLACE_POP] = edge;
    return true;
}

static bool amz_cf_pop(struct flue_bytes value, struct flue_bytes *found)
{
    size_t dash = flue_bytes_find(value, '-');
    struct flue_bytes place = dash == SIZE_MAX ? value : flue_bytes_first(value, dash);
    struct flue_bytes kind = dash == SIZE_MAX ? FLUE_BYTES("C1") : flue_bytes_from(value, dash + 1);
    if (place.size < 4 || !letters(flue_bytes_first(place, 3)) || !digits(flue_bytes_from(place, 3)) ||
        kind.size < 2 || (kind.data[0] != 'C' && kind.data[0] != 'P') ||
        !digits(flue_bytes_from(kind, 1)))
        return false;
    found[FLUE_PLACE_PROVIDER] = FLUE_BYTES("cloudfront");
    found[FLUE_PLACE_POP] = flue_bytes_first(place, 3);
    found[FLUE_PLACE_SITE] = place;
    return true;
}

/* The code is a country with a number or an airport, which its form does not tell: it is a name. */
static bool bunny_server(struct flue_bytes value, struct flue_bytes *found)
{
    if (!flue_bytes_starts_with(value, FLUE_BYTES("BunnyCDN-")))
        return false;
    value = flue_bytes_from(value, 9);
    size_t dash = flue_bytes_find(value, '-');
    struct flue_bytes code = flue_bytes_first(value, dash == SIZE_MAX ? 0 : dash);
    if (code.size < 3 || code.size > 5 || !letters(flue_bytes_first(code, 2)) ||
        !digits(flue_bytes_from(value, dash + 1)))
        return false;
    found[FLUE_PLACE_PROVIDER] = FLUE_BYTES("bunny");
    found[FLUE_PLACE_POP] = code;
    return true;
}

bool flue_header_place(enum flue_header_format format, enum flue_place_attribute attribute,
                       struct flue_bytes value, struct flue_bytes found[FLUE_PLACE_ATTRIBUTES])
{
    value = flue_bytes_trim(value);
    switch (format) {
    case FLUE_HEADER_CF_RAY:
        return cf_ray(value, found);
    case FLUE_HEADER_FORWARDED_SERVER:
        return fastly(value, true, found);
    case FLUE_HEADER_SERVED_BY:
        return fastly(value, false, found);
    case FLUE_HEADER_AMZ_CF_POP:
        return amz_cf_pop(value, found);
    case FLUE_HEADER_BUNNY_SERVER:
        return bunny_server(value, found);
    default:
        if (value.size == 0)
            return false;
        found[attribute] = value;
        return true;
    }
}

/* ---- who sent it ----------------------------------------------------------------------------- */

/* "10.0.0.1", "10.0.0.1:80", "[::1]:80", "::1" */
static bool entry_address(struct flue_bytes text, struct flue_address *out)
{
    text = flue_bytes_trim(text);
    if (flue_address_parse(text, out))
        return true;
    size_t end = text.size;
    while (end && text.data[end - 1] != ':')
        end--;
    if (end < 2 || !digits(flue_bytes_from(text, end)))
        return false;
    text = flue_bytes_first(text, end - 1);
    bool bracketed = text.data[0] == '[';
    return (bracketed || flue_bytes_find(text, ':') == SIZE_MAX) && flue_address_parse(text, out);
}

struct flue_address flue_header_sender(struct flue_address peer, struct flue_bytes forwarded_for,
                                       bool (*trusted)(const void *arg,
                                                       const struct flue_address *address),
                                       const void *arg)
{
    struct flue_address at = peer, next;

    for (unsigned i = 0; i < 32 && forwarded_for.size && trusted(arg, &at); i++) {
        size_t begin = forwarded_for.size;
        while (begin && forwarded_for.data[begin - 1] != ',')
            begin--;
        if (!entry_address(flue_bytes_from(forwarded_for, begin), &next))
            break;
        at = next;
        forwarded_for = flue_bytes_first(forwarded_for, begin ? begin - 1 : 0);
    }
    return at;
}
