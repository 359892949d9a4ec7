/* response.c: ExportProfilesServiceResponse, and in the same shape ExportTraceServiceResponse {
 * partial_success = 1 { rejected_profiles = 1, error_message = 2 } }, in protobuf and in JSON. What
 * is rejected are profiles or spans. */
#include <inttypes.h>
#include "collector/base/buffer.h"
#include "proto/otlp/otlp.h"
#include "proto/otlp/trace.h"
#include "proto/wire/json_budget.h"
#include "proto/wire/writer.h"

static void response_write(uint64_t rejected, const char *name, struct flue_bytes message,
                           bool json, struct flue_buffer *out)
{
    size_t size = 0;
    uint8_t head[32], *at = head;

    if (json) {
        flue_buffer_text(out, "{");
        if (rejected || message.size) {
            const char *comma = "";
            flue_buffer_text(out, "\"partialSuccess\":{");
            if (rejected) { /* int64 is a string in JSON */
                flue_buffer_printf(out, "\"%s\":\"%" PRIu64 "\"", name, rejected);
                comma = ",";
            }
            if (message.size) {
                flue_buffer_printf(out, "%s\"errorMessage\":", comma);
                flue_buffer_json(out, message);
            }
            flue_buffer_text(out, "}");
        }
        flue_buffer_text(out, "}");
        return;
    }
    if (!rejected && !message.size)
        return;
    if (rejected)
        size += 1 + flue_varint_size(rejected);
    if (message.size)
        size += flue_len_field_size(2, message.size);
    at = flue_write_len_head(at, 1, size);
    if (rejected) {
        *at++ = 0x08;
        at = flue_write_varint(at, rejected);
    }
    if (message.size)
        at = flue_write_len_head(at, 2, message.size);
    flue_buffer_add(out, flue_bytes(head, (size_t)(at - head)));
    flue_buffer_add(out, message);
}

void flue_otlp_response_write(uint64_t rejected_profiles, struct flue_bytes message, bool json,
                              struct flue_buffer *out)
{
    response_write(rejected_profiles, "rejectedProfiles", message, json, out);
}

void flue_trace_response_write(uint64_t rejected_spans, struct flue_bytes message, bool json,
                               struct flue_buffer *out)
{
    response_write(rejected_spans, "rejectedSpans", message, json, out);
}

static void keep_message(struct flue_bytes text, char *message, size_t size)
{
    if (message && size)
        flue_printable(text, message, size);
}

static enum flue_code read_json(struct flue_bytes response, uint64_t *rejected, char *message,
                                size_t message_size, struct flue_error *error)
{
    struct flue_json_budget budget; /* the answer's size is limited already */
    json_t *root, *partial, *count, *text;
    enum flue_code code;

    flue_json_begin(&budget, flue_json_bound(response));
    code = flue_json_parse(&budget, response, &root, error);
    if (code != FLUE_OK) {
        flue_json_end(&budget);
        if (code == FLUE_INVALID)
            flue_fail_prefix(error, "the answer is not JSON");
        return code;
    }
    partial = json_object_get(root, "partialSuccess");
    count = json_object_get(partial, "rejectedProfiles");
    if (!count)
        count = json_object_get(partial, "rejectedSpans");
    text = json_object_get(partial, "errorMessage");
    if (json_is_integer(count) && json_integer_value(count) > 0)
        *rejected = (uint64_t)json_integer_value(count);
    else if (json_is_string(count))
        (void)flue_parse_u64(flue_bytes_of(json_string_value(count)), rejected);
    if (json_is_string(text))
        keep_message(flue_bytes(json_string_value(text), json_string_length(text)), message,
                     message_size);
    json_decref(root);
    flue_json_end(&budget);
    return FLUE_OK;
}

enum flue_code flue_otlp_response_read(struct flue_bytes response, bool json,
                                       uint64_t *rejected_profiles, char *message,
                                       size_t message_size, struct flue_error *error)
{
    struct flue_reader reader = flue_reader(response);
    struct flue_field_value field;
    bool whole = true;

    *rejected_profiles = 0;
    if (message && message_size)
        message[0] = 0;
    if (json)
        return response.size ? read_json(response, rejected_profiles, message, message_size, error)
                             : FLUE_OK;
    while (flue_read_field(&reader, &field)) {
        struct flue_reader partial;
        if (field.number != 1 || field.type != FLUE_LEN)
            continue;
        partial = flue_reader(field.bytes);
        while (flue_read_field(&partial, &field)) {
            if (field.number == 1 && field.type == FLUE_VARINT)
                *rejected_profiles = (int64_t)field.varint > 0 ? field.varint : 0;
            else if (field.number == 2 && field.type == FLUE_LEN)
                keep_message(field.bytes, message, message_size);
        }
        whole &= flue_reader_done(&partial);
    }
    if (!whole || !flue_reader_done(&reader))
        return flue_fail(error, FLUE_INVALID, "the answer is no Export...ServiceResponse");
    return FLUE_OK;
}
