/* trace_schema.h: the messages of a traces request as a table; for this folder alone. */
#ifndef PROTO_OTLP_TRACE_SCHEMA_H
#define PROTO_OTLP_TRACE_SCHEMA_H

#include <stdbool.h>
#include <stdint.h>

enum flue_trace_message {
    FLUE_TRACE_M_REQUEST,
    FLUE_TRACE_M_RESOURCE_SPANS,
    FLUE_TRACE_M_RESOURCE,
    FLUE_TRACE_M_ENTITY,
    FLUE_TRACE_M_SCOPE_SPANS,
    FLUE_TRACE_M_SCOPE,
    FLUE_TRACE_M_SPAN,
    FLUE_TRACE_M_EVENT,
    FLUE_TRACE_M_LINK,
    FLUE_TRACE_M_STATUS,
    FLUE_TRACE_M_KEY_VALUE,
    FLUE_TRACE_M_ANY_VALUE,
    FLUE_TRACE_M_ARRAY,
    FLUE_TRACE_M_LIST,
    FLUE_TRACE_MESSAGES
};

enum flue_trace_kind {
    FLUE_TRACE_F_UNKNOWN = 0,
    FLUE_TRACE_F_NUMBER,
    FLUE_TRACE_F_FIXED64,
    FLUE_TRACE_F_FIXED32,
    FLUE_TRACE_F_STRING,
    FLUE_TRACE_F_BYTES,
    FLUE_TRACE_F_ID,     /* bytes, `to` of them or none */
    FLUE_TRACE_F_MESSAGE /* `to`: which */
};

struct flue_trace_field {
    const char *name;
    uint8_t kind, to;
    bool repeated;
};
#define FLUE_TRACE_FIELDS 17 /* one more than the greatest known number */

extern const struct flue_trace_field flue_trace_schema[FLUE_TRACE_MESSAGES][FLUE_TRACE_FIELDS];

static inline const struct flue_trace_field *flue_trace_known(enum flue_trace_message message,
                                                              uint32_t number)
{
    static const struct flue_trace_field unknown;
    return number < FLUE_TRACE_FIELDS ? &flue_trace_schema[message][number] : &unknown;
}

#endif
