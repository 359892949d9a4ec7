/* schema.h: the messages of an OTLP profiles request (layout 1.10) as a table, for the slow path,
 * which walks anything the same way and names fields in what it says to people. */
#ifndef PROTO_OTLP_SCHEMA_H
#define PROTO_OTLP_SCHEMA_H

#include "proto/otlp/index.h"

enum flue_otlp_message {
    FLUE_OTLP_M_REQUEST,
    FLUE_OTLP_M_DICTIONARY,
    FLUE_OTLP_M_MAPPING,
    FLUE_OTLP_M_LOCATION,
    FLUE_OTLP_M_LINE,
    FLUE_OTLP_M_FUNCTION,
    FLUE_OTLP_M_LINK,
    FLUE_OTLP_M_ATTRIBUTE,
    FLUE_OTLP_M_STACK,
    FLUE_OTLP_M_RESOURCE_PROFILES,
    FLUE_OTLP_M_RESOURCE,
    FLUE_OTLP_M_ENTITY,
    FLUE_OTLP_M_SCOPE_PROFILES,
    FLUE_OTLP_M_SCOPE,
    FLUE_OTLP_M_PROFILE,
    FLUE_OTLP_M_SAMPLE,
    FLUE_OTLP_M_VALUE_TYPE,
    FLUE_OTLP_M_KEY_VALUE,
    FLUE_OTLP_M_ANY_VALUE,
    FLUE_OTLP_M_ARRAY,
    FLUE_OTLP_M_LIST,
    FLUE_OTLP_MESSAGES
};

enum flue_otlp_field_kind {
    FLUE_OTLP_F_UNKNOWN = 0,
    FLUE_OTLP_F_NUMBER, /* varint */
    FLUE_OTLP_F_FIXED64,
    FLUE_OTLP_F_STRING,
    FLUE_OTLP_F_BYTES,
    FLUE_OTLP_F_ID,        /* bytes, `to` of them or none */
    FLUE_OTLP_F_MESSAGE,   /* `to`: which */
    FLUE_OTLP_F_INDEX,     /* `to`: table */
    FLUE_OTLP_F_INDICES,   /* repeated, packed or not; `to`: table */
    FLUE_OTLP_F_NUMBERS,   /* repeated varint, packed or not */
    FLUE_OTLP_F_TIMES,     /* repeated fixed64, packed or not */
    FLUE_OTLP_F_REFERENCE, /* key_strindex, string_value_strindex */
};

struct flue_otlp_field {
    const char *name;
    uint8_t kind, to;
    bool repeated;
};
#define FLUE_OTLP_FIELDS 12 /* one more than the greatest known number */

extern const struct flue_otlp_field flue_otlp_schema[FLUE_OTLP_MESSAGES][FLUE_OTLP_FIELDS];
extern const char *const flue_otlp_table_names[FLUE_OTLP_TABLES];
/* The message of a table's row; strings have none (FLUE_OTLP_MESSAGES). */
extern const uint8_t flue_otlp_row_messages[FLUE_OTLP_TABLES];

static inline const struct flue_otlp_field *flue_otlp_known(enum flue_otlp_message message,
                                                            uint32_t number)
{
    static const struct flue_otlp_field unknown;
    return number < FLUE_OTLP_FIELDS ? &flue_otlp_schema[message][number] : &unknown;
}

#endif
