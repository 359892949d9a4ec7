/* trace_span.c: one Span, read and given an attribute. */
#include "proto/otlp/payload.h"
#include "proto/otlp/trace.h"

#define ATTRIBUTE_MOST 512 /* bytes of what is put into a span */

static bool key_is(struct flue_bytes key_value, struct flue_bytes key, struct flue_bytes *value)
{
    struct flue_reader reader = flue_reader(key_value);
    struct flue_field_value field;
    bool is = false;

    *value = flue_bytes(NULL, 0);
    while (flue_read_field(&reader, &field)) {
        if (field.number == 1) {
            is = flue_bytes_equal(field.bytes, key);
            if (!is && field.tag_at == key_value.data)
                return false;
        } else if (field.number == 2) {
            *value = field.bytes;
        }
    }
    return is;
}

void flue_trace_span_read(const struct flue_payload *payload, uint32_t span, struct flue_bytes key,
                          struct flue_trace_span *out)
{
    struct flue_otlp_fields it =
        flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_PROFILE, span});
    struct flue_field_value field;
    struct flue_bytes value;

    memset(out, 0, sizeof *out);
    while (flue_otlp_fields_next(&it, &field)) {
        switch (field.number) {
        case FLUE_SPAN_TRACE_ID:
            out->trace_id = field.bytes;
            break;
        case FLUE_SPAN_SPAN_ID:
            out->span_id = field.bytes;
            break;
        case FLUE_SPAN_PARENT_ID:
            out->parent_id = field.bytes;
            break;
        case FLUE_SPAN_ATTRIBUTE:
            if (!out->has_attribute && key_is(field.bytes, key, &value)) {
                out->has_attribute = true;
                out->attribute = value;
            }
            break;
        default:
            break;
        }
    }
}

enum flue_code flue_trace_span_add(struct flue_payload *payload, uint32_t span,
                                   const struct flue_attribute *attribute, struct flue_error *error)
{
    const struct flue_otlp_index *index = flue_otlp_index_of(payload);
    uint8_t encoded[ATTRIBUTE_MOST];
    size_t size = flue_otlp_attribute_size(FLUE_SPAN_ATTRIBUTE, attribute);
    uint32_t end;

    if (span >= index->profile_count || size > sizeof encoded)
        return flue_fail(error, FLUE_INTERNAL, "an attribute of %zu bytes for span %u of %u", size,
                         span, index->profile_count);
    (void)flue_otlp_attribute_write(encoded, FLUE_SPAN_ATTRIBUTE, attribute);
    end = index->profiles[span].at.end;
    return flue_otlp_replace(payload, (struct flue_otlp_place){FLUE_OTLP_IN_PROFILE, span}, end,
                             end, flue_bytes(encoded, size), error);
}
