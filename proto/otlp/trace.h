/* trace.h: OTLP traces (ExportTraceServiceRequest) as a payload: same operations, same overlay,
 * same splice as profiles.
 *
 * The messages around a Span have the numbers of those around a Profile, so a body of traces is
 * indexed by the same index (index.h): a "profile" of it is a Span, and FLUE_OTLP_IN_PROFILE is
 * a Span's content, into which an attribute can be put. There is no dictionary. Everything that
 * walks profiles' contents (samples, tables) is not for traces; resources, scopes, removal of a
 * Span (flue_otlp_profile_remove), flue_otlp_replace, attributes and JSON are.
 *
 * Counts: a span is one profile and one sample.
 *
 * Source: opentelemetry-proto 1.10, trace/v1/trace.proto; OTLP specification 1.11. Fields that are
 * not known pass byte for byte.
 */
#ifndef PROTO_OTLP_TRACE_H
#define PROTO_OTLP_TRACE_H

#include "proto/otlp/index.h"

/* Fields of Span. */
enum flue_span_field {
    FLUE_SPAN_TRACE_ID = 1,
    FLUE_SPAN_SPAN_ID = 2,
    FLUE_SPAN_PARENT_ID = 4,
    FLUE_SPAN_ATTRIBUTE = 9
};

struct flue_trace_report {
    struct flue_counts counts; /* of what was accepted; bytes is the body's size */
    uint64_t rejected_spans;   /* taken out: an id of a wrong length */
    char rejected_reason[400]; /* the first: path of the field, value, limit */
    uint64_t repaired_strings; /* invalid UTF-8 replaced */
};

/* Takes the caller's reference of `body` (finished), also on failure. *out is NULL with FLUE_OK
 * when no span is in it (an empty request is a success). FLUE_INVALID: broken structure, or no span
 * was good. */
enum flue_code flue_trace_read(struct flue_block *body, struct flue_payload **out,
                               struct flue_trace_report *report, struct flue_error *error);

/* As flue_otlp_json_read; flue_otlp_json_write writes both. */
enum flue_code flue_trace_json_read(struct flue_bytes json, size_t budget,
                                    struct flue_account *account, struct flue_block **body,
                                    struct flue_error *error);
struct flue_buffer;
/* As flue_otlp_response_write, with rejected_spans; flue_otlp_response_read reads both. */
void flue_trace_response_write(uint64_t rejected_spans, struct flue_bytes message, bool json,
                               struct flue_buffer *out);

/* What linking needs of a Span as edited. Ids are empty where they are not set. */
struct flue_trace_span {
    struct flue_bytes trace_id, span_id, parent_id;
    struct flue_bytes attribute; /* value (encoded AnyValue) of the attribute asked for */
    bool has_attribute;
};
void flue_trace_span_read(const struct flue_payload *payload, uint32_t span, struct flue_bytes key,
                          struct flue_trace_span *out);
/* Appends an attribute to a Span that has none of its key. */
enum flue_code flue_trace_span_add(struct flue_payload *payload, uint32_t span,
                                   const struct flue_attribute *attribute,
                                   struct flue_error *error);

/* For the table of operations (payload.c). */
enum flue_code flue_trace_merge(struct flue_payload *const *payloads, size_t count,
                                struct flue_account *account, struct flue_payload **out,
                                struct flue_error *error);
enum flue_code flue_trace_split(const struct flue_payload *payload, uint64_t max, bool by_bytes,
                                const struct flue_counts *total, struct flue_account *account,
                                void (*emit)(void *arg, struct flue_payload *part,
                                             const struct flue_counts *counts),
                                void *arg, struct flue_error *error);
extern const struct flue_payload_ops flue_trace_ops;

#endif
