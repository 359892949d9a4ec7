#include "collector/net/status.h"

#include <stdio.h>

#include "collector/base/base64.h"

static void varint(struct flue_buffer *out, uint64_t value)
{
    for (; value > 0x7f; value >>= 7)
        flue_buffer_byte(out, (uint8_t)(value | 0x80));
    flue_buffer_byte(out, (uint8_t)value);
}

static void number_field(struct flue_buffer *out, unsigned field, uint64_t value)
{
    if (value) {
        varint(out, field << 3);
        varint(out, value);
    }
}

static void bytes_field(struct flue_buffer *out, unsigned field, struct flue_bytes value)
{
    varint(out, field << 3 | 2);
    varint(out, value.size);
    flue_buffer_add(out, value);
}

static void detail(struct flue_buffer *out, const char *type, const struct flue_buffer *value)
{
    struct flue_buffer any;
    flue_buffer_init(&any, FLUE_STATUS_MAX);
    bytes_field(&any, 1, flue_bytes_of(type));
    bytes_field(&any, 2, flue_buffer_bytes(value));
    out->failed |= any.failed | value->failed;
    bytes_field(out, 3, flue_buffer_bytes(&any));
    flue_buffer_destroy(&any);
}

/* "resource_profiles[0].x: is wrong" names a field before its first colon. */
static struct flue_bytes violated_field(const char *text)
{
    const char *colon = strstr(text, ": ");
    if (!colon || memchr(text, ' ', (size_t)(colon - text)))
        return flue_bytes(NULL, 0);
    return flue_bytes(text, (size_t)(colon - text));
}

static bool is_bad_request(const struct flue_error *error)
{
    return error->code == FLUE_INVALID || error->code == FLUE_UNPROCESSABLE;
}

void flue_status_proto(const struct flue_error *error, struct flue_buffer *out)
{
    struct flue_buffer message, inner;
    number_field(out, 1, flue_code_facts(error->code)->grpc);
    bytes_field(out, 2, flue_bytes_of(error->text));
    flue_buffer_init(&message, FLUE_STATUS_MAX);
    flue_buffer_init(&inner, FLUE_STATUS_MAX);
    if (error->retry_after_ms) {
        number_field(&inner, 1, error->retry_after_ms / 1000);
        number_field(&inner, 2, error->retry_after_ms % 1000 * 1000000ull);
        bytes_field(&message, 1, flue_buffer_bytes(&inner));
        detail(out, "type.googleapis.com/google.rpc.RetryInfo", &message);
    }
    if (is_bad_request(error)) {
        struct flue_bytes field = violated_field(error->text);
        flue_buffer_clear(&message);
        flue_buffer_clear(&inner);
        if (field.size)
            bytes_field(&inner, 1, field);
        bytes_field(&inner, 2, flue_bytes_of(error->text));
        bytes_field(&message, 1, flue_buffer_bytes(&inner));
        detail(out, "type.googleapis.com/google.rpc.BadRequest", &message);
    }
    out->failed |= message.failed | inner.failed;
    flue_buffer_destroy(&message);
    flue_buffer_destroy(&inner);
}

void flue_status_json(const struct flue_error *error, struct flue_buffer *out)
{
    flue_buffer_printf(out,
                       "{\"code\":%u,\"message\":", (unsigned)flue_code_facts(error->code)->grpc);
    flue_buffer_json(out, flue_bytes_of(error->text));
    if (error->retry_after_ms || is_bad_request(error))
        flue_buffer_text(out, ",\"details\":[");
    if (error->retry_after_ms)
        flue_buffer_printf(out,
                           "{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\","
                           "\"retryDelay\":\"%u.%03us\"}%s",
                           error->retry_after_ms / 1000, error->retry_after_ms % 1000,
                           is_bad_request(error) ? "," : "");
    if (is_bad_request(error)) {
        flue_buffer_text(out, "{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\","
                              "\"fieldViolations\":[{\"field\":");
        flue_buffer_json(out, violated_field(error->text));
        flue_buffer_text(out, ",\"description\":");
        flue_buffer_json(out, flue_bytes_of(error->text));
        flue_buffer_text(out, "}]}");
    }
    if (error->retry_after_ms || is_bad_request(error))
        flue_buffer_text(out, "]");
    flue_buffer_text(out, "}");
}

void flue_status_connect(const struct flue_error *error, struct flue_buffer *out)
{
    flue_buffer_printf(out, "{\"code\":\"%s\",\"message\":", flue_code_facts(error->code)->connect);
    flue_buffer_json(out, flue_bytes_of(error->text));
    flue_buffer_text(out, "}");
}

/* gRPC over HTTP/2, Status-Message: printable ASCII, everything else and "%" as %XX. */
static struct flue_bytes percent_encoded(struct flue_arena *arena, const char *text)
{
    size_t size = strlen(text), used = 0;
    char *out = flue_arena_alloc(arena, size * 3 + 1);
    if (!out)
        return FLUE_BYTES("no%20memory");
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c < 0x7f && c != '%')
            out[used++] = (char)c;
        else
            used += (size_t)snprintf(out + used, 4, "%%%02X", c);
    }
    return flue_bytes(out, used);
}

/* Without padding, as grpc-status-details-bin is usually written. */
static struct flue_bytes base64(struct flue_arena *arena, struct flue_bytes in)
{
    size_t size = (in.size + 2) / 3 * 4;
    char *out = flue_arena_alloc(arena, size + 1);
    if (!out)
        return flue_bytes(NULL, 0);
    flue_base64_encode(in, out);
    return flue_bytes(out, in.size % 3 ? size - 3 + in.size % 3 : size);
}

void flue_status_grpc(struct flue_request *request, const struct flue_error *error,
                      struct flue_bytes accept_encoding)
{
    char code[8];
    struct flue_header headers[5];
    size_t count = 0;
    snprintf(code, sizeof code, "%u", (unsigned)flue_code_facts(error->code)->grpc);
    headers[count++] =
        (struct flue_header){FLUE_BYTES("content-type"), FLUE_BYTES("application/grpc")};
    headers[count++] = (struct flue_header){FLUE_BYTES("grpc-status"), flue_bytes_of(code)};
    headers[count++] = (struct flue_header){FLUE_BYTES("grpc-message"),
                                            percent_encoded(&request->arena, error->text)};
    if (error->retry_after_ms || is_bad_request(error)) {
        struct flue_buffer status;
        flue_buffer_init(&status, FLUE_STATUS_MAX);
        flue_status_proto(error, &status);
        struct flue_bytes text = base64(&request->arena, flue_buffer_bytes(&status));
        if (!status.failed && text.data)
            headers[count++] = (struct flue_header){FLUE_BYTES("grpc-status-details-bin"), text};
        flue_buffer_destroy(&status);
    }
    if (accept_encoding.size)
        headers[count++] =
            (struct flue_header){FLUE_BYTES("grpc-accept-encoding"), accept_encoding};
    const struct flue_response response = {
        .status = 200, .headers = headers, .header_count = count};
    flue_respond(request, &response);
}

bool flue_status_retry_after(struct flue_request *request, const struct flue_error *error,
                             unsigned status, struct flue_header *out)
{
    if (!error->retry_after_ms || (status != 429 && status != 503))
        return false;
    const char *seconds =
        flue_arena_printf(&request->arena, "%u", (error->retry_after_ms + 999) / 1000);
    *out = (struct flue_header){FLUE_BYTES("retry-after"), flue_bytes_of(seconds)};
    return seconds != NULL;
}

void flue_status_refuse(struct flue_request *request, const struct flue_error *error)
{
    if (flue_bytes_starts_with(flue_request_header(request, "content-type"),
                               FLUE_BYTES("application/grpc"))) {
        flue_status_grpc(request, error, flue_bytes(NULL, 0));
        return;
    }
    unsigned status = flue_code_facts(error->code)->http;
    struct flue_header headers[3] = {
        {FLUE_BYTES("content-type"), FLUE_BYTES("text/plain; charset=utf-8")},
        {FLUE_BYTES("x-content-type-options"), FLUE_BYTES("nosniff")}};
    size_t count = 2 + flue_status_retry_after(request, error, status, &headers[2]);
    char text[sizeof error->text + 2];
    int size = snprintf(text, sizeof text, "%s\n", error->text);
    const struct flue_response response = {.status = status,
                                           .headers = headers,
                                           .header_count = count,
                                           .body = flue_bytes(text, (size_t)size)};
    flue_respond(request, &response);
}
