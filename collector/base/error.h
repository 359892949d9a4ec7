/* error.h: one enumeration drives what happens; the text is for people.
 *
 * Every function that can fail for a reason that a person should read takes a struct flue_error *
 * (may be NULL) and returns enum flue_code, FLUE_OK being 0. The table in error.c is the only place
 * that says whether a code may be retried and how it looks in each protocol.
 *
 * Sources: OTLP specification 1.11 (retryable codes), Connect protocol (HTTP status of a code).
 */
#ifndef FLUE_BASE_ERROR_H
#define FLUE_BASE_ERROR_H

#include <stdbool.h>
#include <stdint.h>

enum flue_code {
    FLUE_OK = 0,
    FLUE_INVALID,           /* the data is wrong and will stay wrong */
    FLUE_UNPROCESSABLE,     /* well-formed, but a format that this end does not take (HTTP 422) */
    FLUE_TOO_LARGE,         /* over a size, count or ratio limit */
    FLUE_BAD_MEDIA,         /* content type (HTTP 415) */
    FLUE_BAD_ENCODING,      /* content coding (HTTP 415, gRPC UNIMPLEMENTED) */
    FLUE_BAD_METHOD,        /* HTTP 405 */
    FLUE_NOT_FOUND,         /* no such path (HTTP 404, gRPC UNIMPLEMENTED) */
    FLUE_LENGTH_REQUIRED,   /* HTTP 411 */
    FLUE_HEADERS_TOO_LARGE, /* HTTP 431 */
    FLUE_UNAUTHENTICATED,
    FLUE_FORBIDDEN,
    FLUE_OVERLOADED,   /* memory or queue full here: the same data may come again later */
    FLUE_RATE_LIMITED, /* a quota of this sender: come again after retry_after_ms */
    FLUE_UNAVAILABLE,  /* the next hop cannot be reached or says so */
    FLUE_TIMEOUT,      /* a deadline passed */
    FLUE_CANCELLED,    /* the caller went away */
    FLUE_SHUTTING_DOWN,
    FLUE_REFUSED,   /* the next hop refused the data for good */
    FLUE_NO_MEMORY, /* an allocation failed or a budget is used up */
    FLUE_IO,        /* disk or socket error, errno in the text */
    FLUE_INTERNAL,
    FLUE_CODES
};

struct flue_error {
    enum flue_code code;
    uint32_t retry_after_ms; /* 0: not stated */
    char text[496];          /* what, where, what to do: field, value and limit; never a secret */
};

struct flue_code_facts {
    const char *name;    /* counter label, snake_case: "too_large" */
    bool retryable;      /* may the same data succeed later? */
    uint8_t grpc;        /* google.rpc.Code */
    uint16_t http;       /* status of an OTLP/HTTP or plain answer */
    const char *connect; /* Connect error code; its HTTP status follows from the Connect table */
    uint16_t connect_http;
};
const struct flue_code_facts *flue_code_facts(enum flue_code code);

/* Fills `error` (if not NULL) and returns `code`, so that a failure is one statement:
 *     return flue_fail(error, FLUE_TOO_LARGE, "body of %zu bytes, limit %zu", size, limit); */
enum flue_code flue_fail(struct flue_error *error, enum flue_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts "prefix: " before the text that is there (the way from the outside in). */
enum flue_code flue_fail_prefix(struct flue_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
