/* client_result.c: reading answers: headers, Retry-After, and gRPC's status.
 *
 * Sources: gRPC over HTTP/2 (PROTOCOL-HTTP2.md, http-grpc-status-mapping.md), google.rpc.Status and
 * RetryInfo, OTLP specification 1.11 (which codes may be repeated), RFC 9110 10.2.3. */
#include "collector/base/base64.h"
#include "collector/net/client_internal.h"

#include <stdio.h>
#include <time.h>

#define DETAILS_MOST  (16u * 1024)
#define RETRY_MOST_MS (3600u * 1000)
#define MESSAGE_MOST  320

bool flue_client_field_ok(struct flue_bytes value)
{
    for (size_t i = 0; i < value.size; i++)
        if ((value.data[i] < ' ' && value.data[i] != '\t') || value.data[i] == 0x7f)
            return false;
    return true;
}

static struct flue_bytes find(const struct flue_header *fields, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (flue_bytes_is(fields[i].name, name))
            return fields[i].value;
    return flue_bytes(NULL, 0);
}

struct flue_bytes flue_call_header(const struct flue_call *call, const char *name)
{
    return find(call->response_headers, call->response_header_count, name);
}

/* ---- Retry-After ---------------------------------------------------------------------------- */

static bool parse_http_date(struct flue_bytes text, time_t *out)
{
    /* IMF-fixdate, and the two obsolete forms that a recipient must take; all are GMT. */
    static const char *const forms[] = {"%a, %d %b %Y %H:%M:%S", "%A, %d-%b-%y %H:%M:%S",
                                        "%a %b %d %H:%M:%S %Y"};
    char copy[64];
    if (text.size >= sizeof copy)
        return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct tm tm = {0};
        const char *end = strptime(copy, forms[i], &tm);
        if (end && (*end == 0 || strcmp(end, " GMT") == 0 || strcmp(end, " UTC") == 0)) {
            *out = timegm(&tm);
            return true;
        }
    }
    return false;
}

uint32_t flue_call_retry_after_ms(const struct flue_call *call)
{
    struct flue_bytes text = flue_bytes_trim(flue_call_header(call, "retry-after"));
    uint64_t seconds;
    time_t when;
    if (text.size == 0)
        return 0;
    if (flue_parse_u64(text, &seconds))
        return seconds > RETRY_MOST_MS / 1000 ? RETRY_MOST_MS : (uint32_t)seconds * 1000;
    if (!parse_http_date(text, &when))
        return 0;
    int64_t wait = (int64_t)when * 1000 - (int64_t)(flue_wall_ns() / 1000000);
    if (wait <= 0)
        return 0;
    return wait > RETRY_MOST_MS ? RETRY_MOST_MS : (uint32_t)wait;
}

/* ---- google.rpc.Status ---------------------------------------------------------------------- */

/* Just enough of protobuf's wire format; false on anything broken. */
struct field {
    uint32_t number;
    uint64_t varint;
    struct flue_bytes bytes;
};

static bool take_varint(struct flue_bytes *in, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && in->size; shift += 7) {
        uint8_t byte = in->data[0];
        *in = flue_bytes_from(*in, 1);
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool take_field(struct flue_bytes *in, struct field *out)
{
    uint64_t tag, size = 0;
    *out = (struct field){0};
    if (!take_varint(in, &tag) || tag >> 32 || tag < 8)
        return false;
    out->number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0:
        return take_varint(in, &out->varint);
    case 1:
        size = 8;
        break;
    case 2:
        if (!take_varint(in, &size))
            return false;
        break;
    case 5:
        size = 4;
        break;
    default:
        return false;
    }
    if (size > in->size)
        return false;
    out->bytes = flue_bytes_first(*in, (size_t)size);
    *in = flue_bytes_from(*in, (size_t)size);
    return true;
}

/* RetryInfo { Duration retry_delay = 1; }, Duration { int64 seconds = 1; int32 nanos = 2; } */
static uint64_t read_retry_ms(struct flue_bytes info)
{
    struct field field, part;
    uint64_t ms = 0;
    while (info.size && take_field(&info, &field)) {
        if (field.number != 1)
            continue;
        struct flue_bytes duration = field.bytes;
        while (duration.size && take_field(&duration, &part)) {
            if (part.number == 1 && (int64_t)part.varint > 0)
                ms += part.varint > RETRY_MOST_MS / 1000 ? RETRY_MOST_MS : part.varint * 1000;
            else if (part.number == 2 && (int64_t)part.varint > 0 && part.varint < 1000000000)
                ms += (part.varint + 999999) / 1000000;
        }
    }
    return ms > RETRY_MOST_MS ? RETRY_MOST_MS : ms;
}

/* Status { int32 code = 1; string message = 2; repeated Any details = 3; },
 * Any { string type_url = 1; bytes value = 2; } */
static void read_status(struct flue_bytes status, struct flue_bytes *message, bool *retry_info,
                        uint32_t *retry_ms)
{
    struct field field, part;
    while (status.size && take_field(&status, &field)) {
        if (field.number == 2)
            *message = field.bytes;
        if (field.number != 3)
            continue;
        struct flue_bytes any = field.bytes, type = {0}, value = {0};
        while (any.size && take_field(&any, &part)) {
            if (part.number == 1)
                type = part.bytes;
            else if (part.number == 2)
                value = part.bytes;
        }
        if (flue_bytes_ends_with(type, FLUE_BYTES("/google.rpc.RetryInfo"))) {
            *retry_info = true;
            *retry_ms = (uint32_t)read_retry_ms(value);
        }
    }
}

/* ---- gRPC ----------------------------------------------------------------------------------- */

static const char *const status_names[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

static enum flue_code code_of(unsigned status, bool retry_info)
{
    switch (status) {
    case 3:
        return FLUE_INVALID;
    case 4:
        return FLUE_TIMEOUT;
    case 5:
    case 12:
        return FLUE_NOT_FOUND;
    case 7:
        return FLUE_FORBIDDEN;
    case 8:
        return retry_info ? FLUE_RATE_LIMITED : FLUE_REFUSED;
    case 16:
        return FLUE_UNAUTHENTICATED;
    case 1:
    case 10:
    case 11:
    case 14:
    case 15:
        return FLUE_UNAVAILABLE;
    default:
        return FLUE_REFUSED;
    }
}

static unsigned status_of_http(unsigned http)
{
    switch (http) {
    case 400:
        return 13;
    case 401:
        return 16;
    case 403:
        return 7;
    case 404:
        return 12;
    case 429:
    case 502:
    case 503:
    case 504:
        return 14;
    default:
        return 2;
    }
}

static size_t percent_decode(struct flue_bytes text, uint8_t *out, size_t room)
{
    size_t size = 0;
    for (size_t i = 0; i < text.size && size < room; i++) {
        if (text.data[i] == '%' && i + 2 < text.size &&
            flue_unhex(flue_bytes(text.data + i + 1, 2), &out[size], 1)) {
            size++;
            i += 2;
        } else {
            out[size++] = text.data[i];
        }
    }
    return size;
}

static enum flue_code read_message(struct flue_call *call, struct flue_arena *arena,
                                   struct flue_bytes *message, struct flue_error *error)
{
    struct flue_bytes in = call->response;
    *message = flue_bytes(NULL, 0);
    if (in.size == 0)
        return FLUE_OK;
    uint64_t size = in.size < 5 ? 0
                                : (uint64_t)in.data[1] << 24 | (uint64_t)in.data[2] << 16 |
                                      (uint64_t)in.data[3] << 8 | in.data[4];
    if (in.size < 5 || size != in.size - 5 || in.data[0] > 1)
        return flue_fail(error, FLUE_INVALID,
                         "the gRPC answer of %zu bytes is not one message (its prefix says %llu)",
                         in.size, (unsigned long long)size);
    struct flue_bytes body = flue_bytes_from(in, 5);
    if (in.data[0] == 0) {
        *message = body;
        return FLUE_OK;
    }
    enum flue_coding coding;
    struct flue_block *block = NULL;
    struct flue_bytes name = flue_call_header(call, "grpc-encoding");
    if (!flue_coding_by_name(name, &coding) || coding == FLUE_IDENTITY)
        return flue_fail(error, FLUE_INVALID,
                         "the gRPC answer is compressed, but its grpc-encoding is not known");
    enum flue_code code =
        flue_inflate(coding, body, CLIENT_RESPONSE_LIMIT, FLUE_RATIO_LIMIT, NULL, &block, error);
    if (code) {
        flue_fail_prefix(error, "gRPC answer");
        return code == FLUE_NO_MEMORY ? code : FLUE_INVALID;
    }
    *message = flue_arena_copy(arena, flue_block_bytes(block));
    flue_block_unref(block);
    return message->data ? FLUE_OK : flue_fail(error, FLUE_NO_MEMORY, "no memory for an answer");
}

enum flue_code flue_call_grpc_result(struct flue_call *call, struct flue_arena *arena,
                                     struct flue_bytes *message, struct flue_error *error)
{
    struct flue_error local;
    if (!error)
        error = &local;
    *message = flue_bytes(NULL, 0);
    *error = call->error;
    if (call->error.code)
        return call->error.code;

    const struct flue_header *from = call->trailers;
    size_t count = call->trailer_count;
    struct flue_bytes text = find(from, count, "grpc-status");
    if (!text.data) {
        from = call->response_headers;
        count = call->response_header_count;
        text = find(from, count, "grpc-status");
    }
    uint64_t status;
    if (!text.data) {
        if (call->status == 200)
            return flue_fail(error, FLUE_REFUSED, "the answer has no grpc-status");
        status = status_of_http(call->status);
        flue_fail(error, code_of((unsigned)status, false), "HTTP %u instead of a gRPC status",
                  call->status);
        error->retry_after_ms = flue_call_retry_after_ms(call);
        return error->code;
    }
    if (!flue_parse_u64(text, &status))
        status = 2;
    if (status == 0)
        return read_message(call, arena, message, error);

    uint8_t decoded[MESSAGE_MOST], details[DETAILS_MOST];
    char printable[MESSAGE_MOST];
    bool retry_info = false;
    uint32_t retry_ms = 0;
    struct flue_bytes said = {
        decoded, percent_decode(find(from, count, "grpc-message"), decoded, sizeof decoded)};
    struct flue_bytes encoded = find(from, count, "grpc-status-details-bin");
    encoded = flue_bytes_first(encoded, flue_bytes_find(encoded, ',')); /* of several the first */
    size_t size;
    if (encoded.size && flue_base64_room(encoded.size) <= sizeof details &&
        flue_base64_decode(encoded, details, &size)) {
        struct flue_bytes fuller = {0};
        read_status(flue_bytes(details, size), &fuller, &retry_info, &retry_ms);
        if (fuller.size > said.size)
            said = fuller;
    }
    flue_fail(error, code_of((unsigned)(status > 16 ? 2 : status), retry_info), "%s: %s",
              status_names[status > 16 ? 2 : status],
              flue_printable(said, printable, sizeof printable));
    error->retry_after_ms = retry_info && retry_ms == 0 ? 1 : retry_ms;
    return error->code;
}
