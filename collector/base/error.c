/* error.c: what each code means in each protocol. See error.h. */
#include "collector/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { /* google.rpc.Code */
       GRPC_OK = 0,
       GRPC_CANCELLED = 1,
       GRPC_INVALID_ARGUMENT = 3,
       GRPC_DEADLINE_EXCEEDED = 4,
       GRPC_PERMISSION_DENIED = 7,
       GRPC_RESOURCE_EXHAUSTED = 8,
       GRPC_UNIMPLEMENTED = 12,
       GRPC_INTERNAL = 13,
       GRPC_UNAVAILABLE = 14,
       GRPC_UNAUTHENTICATED = 16
};

static const struct flue_code_facts facts[FLUE_CODES] = {
    [FLUE_OK] = {"ok", false, GRPC_OK, 200, "", 200},
    [FLUE_INVALID] = {"invalid", false, GRPC_INVALID_ARGUMENT, 400, "invalid_argument", 400},
    [FLUE_UNPROCESSABLE] = {"unprocessable", false, GRPC_INVALID_ARGUMENT, 422, "invalid_argument",
                            400},
    [FLUE_TOO_LARGE] = {"too_large", false, GRPC_RESOURCE_EXHAUSTED, 413, "resource_exhausted",
                        429},
    [FLUE_BAD_MEDIA] = {"bad_media", false, GRPC_UNIMPLEMENTED, 415, "unimplemented", 415},
    [FLUE_BAD_ENCODING] = {"bad_encoding", false, GRPC_UNIMPLEMENTED, 415, "unimplemented", 501},
    [FLUE_BAD_METHOD] = {"bad_method", false, GRPC_UNIMPLEMENTED, 405, "unimplemented", 405},
    [FLUE_NOT_FOUND] = {"not_found", false, GRPC_UNIMPLEMENTED, 404, "unimplemented", 404},
    [FLUE_LENGTH_REQUIRED] = {"length_required", false, GRPC_INVALID_ARGUMENT, 411,
                              "invalid_argument", 411},
    [FLUE_HEADERS_TOO_LARGE] = {"headers_too_large", false, GRPC_RESOURCE_EXHAUSTED, 431,
                                "resource_exhausted", 431},
    [FLUE_UNAUTHENTICATED] = {"unauthenticated", false, GRPC_UNAUTHENTICATED, 401,
                              "unauthenticated", 401},
    [FLUE_FORBIDDEN] = {"forbidden", false, GRPC_PERMISSION_DENIED, 403, "permission_denied", 403},
    [FLUE_OVERLOADED] = {"overloaded", true, GRPC_UNAVAILABLE, 503, "unavailable", 503},
    [FLUE_RATE_LIMITED] = {"rate_limited", true, GRPC_RESOURCE_EXHAUSTED, 429, "resource_exhausted",
                           429},
    [FLUE_UNAVAILABLE] = {"unavailable", true, GRPC_UNAVAILABLE, 503, "unavailable", 503},
    [FLUE_TIMEOUT] = {"timeout", true, GRPC_DEADLINE_EXCEEDED, 504, "deadline_exceeded", 504},
    [FLUE_CANCELLED] = {"cancelled", true, GRPC_CANCELLED, 499, "canceled", 499},
    [FLUE_SHUTTING_DOWN] = {"shutting_down", true, GRPC_UNAVAILABLE, 503, "unavailable", 503},
    [FLUE_REFUSED] = {"refused", false, GRPC_INVALID_ARGUMENT, 400, "invalid_argument", 400},
    [FLUE_NO_MEMORY] = {"no_memory", true, GRPC_UNAVAILABLE, 503, "unavailable", 503},
    [FLUE_IO] = {"io", true, GRPC_UNAVAILABLE, 503, "unavailable", 503},
    [FLUE_INTERNAL] = {"internal", false, GRPC_INTERNAL, 500, "internal", 500},
};

const struct flue_code_facts *flue_code_facts(enum flue_code code)
{
    return &facts[(unsigned)code < FLUE_CODES ? code : FLUE_INTERNAL];
}

/* What was cut in the middle of a UTF-8 character ends before it. */
static void whole_characters(char *text)
{
    size_t size = strlen(text), tail = 0;

    while (tail < 3 && tail < size && ((unsigned char)text[size - 1 - tail] & 0xC0) == 0x80)
        tail++;
    if (tail < size && (unsigned char)text[size - 1 - tail] >= 0xC0)
        text[size - 1 - tail] = 0;
}

enum flue_code flue_fail(struct flue_error *error, enum flue_code code, const char *format, ...)
{
    va_list args;

    if (error) {
        error->code = code;
        error->retry_after_ms = 0;
        va_start(args, format);
        int size = vsnprintf(error->text, sizeof error->text, format, args);
        if (size < 0)
            error->text[0] = 0;
        else if ((size_t)size >= sizeof error->text)
            whole_characters(error->text);
        va_end(args);
    }
    return code;
}

enum flue_code flue_fail_prefix(struct flue_error *error, const char *format, ...)
{
    char prefix[sizeof error->text - 2];
    va_list args;
    size_t used, kept;

    if (!error)
        return FLUE_INTERNAL;
    va_start(args, format);
    if (vsnprintf(prefix, sizeof prefix, format, args) < 0)
        prefix[0] = 0;
    va_end(args);
    used = strlen(prefix);
    kept = strlen(error->text);
    if (kept > sizeof error->text - 1 - used - 2)
        kept = sizeof error->text - 1 - used - 2;
    memmove(error->text + used + 2, error->text, kept);
    memcpy(error->text, prefix, used);
    memcpy(error->text + used, ": ", 2);
    error->text[used + 2 + kept] = 0;
    return error->code;
}
