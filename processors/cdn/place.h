/* place.h: where a machine stands, as far as one source knows: the values of a few attributes,
 * interned, so that a million prefixes share what they have in common.
 *
 * A value is known, empty (this source does not know: ask the next), or retracted (`\N` of an
 * ipfeed: nobody may answer). The attributes are flue's `cdn.*` (no convention exists; cdn.pop
 * agrees with semantic-conventions #958) and the `geo.*` of semantic conventions 1.41, here of the
 * place where the code ran, never of a viewer.
 *
 * A set of places is filled by one thread and read by any once it is complete.
 */
#ifndef FLUE_CDN_PLACE_H
#define FLUE_CDN_PLACE_H

#include "collector/base/attribute.h"
#include "collector/base/error.h"
#include "collector/base/hash.h"

enum flue_place_attribute {
    FLUE_PLACE_PROVIDER,
    FLUE_PLACE_REGION,
    FLUE_PLACE_POP,
    FLUE_PLACE_SITE,
    FLUE_PLACE_TIER, /* edge, shield, origin */
    FLUE_PLACE_ASN,
    FLUE_PLACE_CONTINENT,
    FLUE_PLACE_COUNTRY,     /* ISO 3166-1, two letters */
    FLUE_PLACE_SUBDIVISION, /* ISO 3166-2, "CA-QC" */
    FLUE_PLACE_CITY,
    FLUE_PLACE_LATITUDE,
    FLUE_PLACE_LONGITUDE,
    FLUE_PLACE_POSTAL_CODE,
    FLUE_PLACE_WRITTEN, /* those before it are written to resources; the next two only lead on */
    FLUE_PLACE_CLOUD_PROVIDER = FLUE_PLACE_WRITTEN,
    FLUE_PLACE_CLOUD_REGION,
    FLUE_PLACE_ATTRIBUTES
};
/* "cdn.provider", "geo.country.iso_code", ... */
struct flue_bytes flue_place_attribute_name(enum flue_place_attribute attribute);
/* The attribute by its name, or by a column of the native table ("cdn_pop", "country"); else
 * FLUE_PLACE_ATTRIBUTES. */
enum flue_place_attribute flue_place_attribute_find(struct flue_bytes name);

/* A value as it is kept: trimmed, codes in the case of their standard, an ASN without "AS". False:
 * it cannot be one (a latitude of 200, a country of three letters, a tier that is none). `out`
 * holds FLUE_PLACE_VALUE_MAX bytes. */
#define FLUE_PLACE_VALUE_MAX 256
bool flue_place_normalize(enum flue_place_attribute attribute, struct flue_bytes value, char *out,
                          size_t *size);

#define FLUE_PLACE_EMPTY     0u
#define FLUE_PLACE_RETRACTED 1u

struct flue_place { /* rows of flue_places.values */
    uint32_t values[FLUE_PLACE_ATTRIBUTES];
};
struct flue_places {
    struct flue_arena arena;
    struct flue_bytes *texts; /* 0 and 1 are FLUE_PLACE_EMPTY and _RETRACTED */
    size_t text_count, text_room;
    struct flue_place *rows; /* row 0 knows nothing, row 1 is retracted in everything */
    size_t row_count, row_room;
    struct flue_table text_index, row_index;
};
#define FLUE_PLACE_NOWHERE  0u
#define FLUE_PLACE_DISPUTED 1u

/* `budget` bytes for everything in it. */
enum flue_code flue_places_init(struct flue_places *places, size_t budget,
                                struct flue_error *error);
void flue_places_destroy(struct flue_places *places); /* zeroed: fine */
/* The indices that were interned before, or new ones; UINT32_MAX: over the budget. */
uint32_t flue_places_text(struct flue_places *places, struct flue_bytes text);
uint32_t flue_places_row(struct flue_places *places, const struct flue_place *place);
/* What building needs and reading does not. */
void flue_places_seal(struct flue_places *places);

/* The value of one attribute; NULL data when empty or retracted. */
static inline struct flue_bytes flue_places_value(const struct flue_places *places, uint32_t row,
                                                  enum flue_place_attribute attribute)
{
    uint32_t text = places->rows[row].values[attribute];
    return text > FLUE_PLACE_RETRACTED ? places->texts[text] : flue_bytes(NULL, 0);
}

#endif
