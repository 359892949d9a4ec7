/* place.c: values of places: their names, their forms, interned. */
#include "processors/cdn/place.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct name {
    struct flue_bytes attribute;
    const char *columns[4]; /* of tables, NULL-ended; "." in a name is "_" in a column as well */
};
static const struct name names[FLUE_PLACE_ATTRIBUTES] = {
    [FLUE_PLACE_PROVIDER] = {FLUE_BYTES_INIT("cdn.provider"), {"cdn_provider", "provider"}},
    [FLUE_PLACE_REGION] = {FLUE_BYTES_INIT("cdn.region"), {"cdn_region"}},
    [FLUE_PLACE_POP] = {FLUE_BYTES_INIT("cdn.pop"), {"cdn_pop", "pop"}},
    [FLUE_PLACE_SITE] = {FLUE_BYTES_INIT("cdn.site"), {"cdn_site", "site"}},
    [FLUE_PLACE_TIER] = {FLUE_BYTES_INIT("cdn.tier"), {"cdn_tier", "tier"}},
    [FLUE_PLACE_ASN] = {FLUE_BYTES_INIT("cdn.asn"), {"cdn_asn", "asn"}},
    [FLUE_PLACE_CONTINENT] = {FLUE_BYTES_INIT("geo.continent.code"), {"continent"}},
    [FLUE_PLACE_COUNTRY] = {FLUE_BYTES_INIT("geo.country.iso_code"), {"country", "country_code"}},
    [FLUE_PLACE_SUBDIVISION] = {FLUE_BYTES_INIT("geo.region.iso_code"), {"region", "region_code"}},
    [FLUE_PLACE_CITY] = {FLUE_BYTES_INIT("geo.locality.name"), {"city"}},
    [FLUE_PLACE_LATITUDE] = {FLUE_BYTES_INIT("geo.location.lat"), {"latitude", "lat"}},
    [FLUE_PLACE_LONGITUDE] = {FLUE_BYTES_INIT("geo.location.lon"), {"longitude", "lon"}},
    [FLUE_PLACE_POSTAL_CODE] = {FLUE_BYTES_INIT("geo.postal_code"), {"postal_code"}},
    [FLUE_PLACE_CLOUD_PROVIDER] = {FLUE_BYTES_INIT("cloud.provider"), {"cloud_provider"}},
    [FLUE_PLACE_CLOUD_REGION] = {FLUE_BYTES_INIT("cloud.region"), {"cloud_region"}},
};

struct flue_bytes flue_place_attribute_name(enum flue_place_attribute attribute)
{
    return names[attribute].attribute;
}

enum flue_place_attribute flue_place_attribute_find(struct flue_bytes name)
{
    name = flue_bytes_trim(name);
    for (int i = 0; i < FLUE_PLACE_ATTRIBUTES; i++) {
        if (flue_bytes_equal_nocase(names[i].attribute, name))
            return (enum flue_place_attribute)i;
        for (const char *const *column = names[i].columns; *column; column++)
            if (flue_bytes_equal_nocase(flue_bytes_of(*column), name))
                return (enum flue_place_attribute)i;
    }
    return FLUE_PLACE_ATTRIBUTES;
}

/* ---- forms ----------------------------------------------------------------------------------- */

static bool letters(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] < 'A' || text[i] > 'Z')
            return false;
    return true;
}

static bool degrees(const char *text, double limit)
{
    char *end;
    double value = strtod(text, &end);
    return *text && !*end && isfinite(value) && fabs(value) <= limit;
}

static void fold(char *text, size_t size, char from, char to)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] >= from && text[i] < from + 26)
            text[i] = (char)(text[i] - from + to);
}

bool flue_place_normalize(enum flue_place_attribute attribute, struct flue_bytes value, char *out,
                          size_t *size)
{
    value = flue_bytes_trim(value);
    if (value.size == 0 || value.size >= FLUE_PLACE_VALUE_MAX || !flue_utf8_valid(value))
        return false;
    for (size_t i = 0; i < value.size; i++)
        if (value.data[i] < ' ' || value.data[i] == 0x7f)
            return false;
    memcpy(out, value.data, value.size);
    out[value.size] = 0;
    *size = value.size;
    switch (attribute) {
    case FLUE_PLACE_ASN: {
        uint64_t number;
        if (value.size > 2 && (out[0] | 32) == 'a' && (out[1] | 32) == 's') {
            memmove(out, out + 2, value.size - 1);
            *size -= 2;
        }
        if (!flue_parse_u64(flue_bytes(out, *size), &number) || number == 0 || number > UINT32_MAX)
            return false;
        *size = (size_t)snprintf(out, FLUE_PLACE_VALUE_MAX, "%llu", (unsigned long long)number);
        return true;
    }
    case FLUE_PLACE_CONTINENT:
    case FLUE_PLACE_COUNTRY:
        fold(out, *size, 'a', 'A');
        return *size == 2 && letters(out, 2);
    case FLUE_PLACE_SUBDIVISION:
        fold(out, *size, 'a', 'A');
        return *size >= 4 && *size <= 6 && letters(out, 2) && out[2] == '-';
    case FLUE_PLACE_TIER:
        fold(out, *size, 'A', 'a');
        return !strcmp(out, "edge") || !strcmp(out, "shield") || !strcmp(out, "origin");
    case FLUE_PLACE_LATITUDE:
        return degrees(out, 90);
    case FLUE_PLACE_LONGITUDE:
        return degrees(out, 180);
    default:
        return true;
    }
}

/* ---- interning ------------------------------------------------------------------------------- */

static bool same_text(const void *rows, uint32_t row, const void *key)
{
    return flue_bytes_equal(((const struct flue_bytes *)rows)[row], *(const struct flue_bytes *)key);
}

static bool same_row(const void *rows, uint32_t row, const void *key)
{
    return memcmp(&((const struct flue_place *)rows)[row], key, sizeof(struct flue_place)) == 0;
}

enum flue_code flue_places_init(struct flue_places *places, size_t budget, struct flue_error *error)
{
    static const struct flue_bytes nothing = {NULL, 0};
    struct flue_place nowhere = {{0}}, disputed;

    memset(places, 0, sizeof *places);
    flue_arena_init(&places->arena, budget, 64u << 10);
    for (int i = 0; i < FLUE_PLACE_ATTRIBUTES; i++)
        disputed.values[i] = FLUE_PLACE_RETRACTED;
    if (flue_table_init(&places->text_index, NULL, 64) &&
        flue_table_init(&places->row_index, NULL, 64) &&
        FLUE_ARENA_PUSH(&places->arena, places->texts, places->text_count, places->text_room,
                        nothing) &&
        FLUE_ARENA_PUSH(&places->arena, places->texts, places->text_count, places->text_room,
                        nothing) &&
        flue_places_row(places, &nowhere) == FLUE_PLACE_NOWHERE &&
        flue_places_row(places, &disputed) == FLUE_PLACE_DISPUTED)
        return FLUE_OK;
    flue_places_destroy(places);
    return flue_fail(error, FLUE_NO_MEMORY, "no memory for a table of places");
}

void flue_places_seal(struct flue_places *places)
{
    flue_table_destroy(&places->text_index);
    flue_table_destroy(&places->row_index);
    places->text_index = places->row_index = (struct flue_table){0};
}

void flue_places_destroy(struct flue_places *places)
{
    flue_places_seal(places);
    flue_arena_destroy(&places->arena);
}

uint32_t flue_places_text(struct flue_places *places, struct flue_bytes text)
{
    uint64_t hash = flue_hash(text);
    uint32_t row = flue_table_find(&places->text_index, hash, same_text, places->texts, &text);

    if (row != FLUE_TABLE_NONE)
        return row;
    struct flue_bytes copy = flue_arena_copy(&places->arena, text);
    if (!copy.data || !FLUE_ARENA_PUSH(&places->arena, places->texts, places->text_count,
                                       places->text_room, copy))
        return UINT32_MAX;
    row = (uint32_t)(places->text_count - 1);
    return flue_table_insert(&places->text_index, hash, row) ? row : UINT32_MAX;
}

uint32_t flue_places_row(struct flue_places *places, const struct flue_place *place)
{
    uint64_t hash = flue_hash(flue_bytes(place, sizeof *place));
    uint32_t row = flue_table_find(&places->row_index, hash, same_row, places->rows, place);

    if (row != FLUE_TABLE_NONE)
        return row;
    if (!FLUE_ARENA_PUSH(&places->arena, places->rows, places->row_count, places->row_room, *place))
        return UINT32_MAX;
    row = (uint32_t)(places->row_count - 1);
    return flue_table_insert(&places->row_index, hash, row) ? row : UINT32_MAX;
}
