/* json_schema.h: OTLP profiles and traces as OTLP/JSON names them: one table that drives reading and writing.
 *
 * Sources: OTLP specification 1.11, "JSON Protobuf Encoding" (lowerCamelCase keys, 64-bit integers
 * as decimal strings, traceId and spanId in hex), protobuf's JSON mapping for the rest, and the
 * Collector where the specification is silent (profileId in hex; original names accepted by
 * readers).
 */
#ifndef PROTO_OTLP_JSON_SCHEMA_H
#define PROTO_OTLP_JSON_SCHEMA_H

#include <stdbool.h>
#include <stdint.h>

enum flue_json_kind {
    FLUE_JSON_MESSAGE,
    FLUE_JSON_STRING,
    FLUE_JSON_BYTES, /* base64 */
    FLUE_JSON_HEX,   /* an id: hex; base64 is read too where the length tells */
    FLUE_JSON_BOOL,
    FLUE_JSON_INT32, /* varint, written as number */
    FLUE_JSON_UINT32,
    FLUE_JSON_INT64, /* varint, written as string */
    FLUE_JSON_UINT64,
    FLUE_JSON_FIXED32,
    FLUE_JSON_FIXED64, /* written as string */
    FLUE_JSON_DOUBLE
};

struct flue_json_field {
    const char *name, *other; /* camelCase; the original or an older name, also read */
    uint8_t number;
    enum flue_json_kind kind;
    bool repeated;
    bool oneof; /* there even when it is zero */
    const struct flue_json_field *message;
    uint8_t id_size; /* HEX */
};

/* Each ends with a NULL name. */
extern const struct flue_json_field flue_json_request[];
extern const struct flue_json_field flue_json_trace_request[];

#endif
