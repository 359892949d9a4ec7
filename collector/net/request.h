/* request.h: a request from its first header to its answer, whatever the protocol carries it.
 *
 * Private to net/. A session makes an exchange, adds headers, says when they are complete, hands
 * over the body in pieces, and says when its stream is closed; this file finds the route, keeps the
 * limits and the accounts, and calls the receiver. The exchange frees itself when it is answered
 * and its stream is closed. All on the loop of the connection.
 */
#ifndef FLUE_NET_REQUEST_H
#define FLUE_NET_REQUEST_H

#include "collector/net/connection.h"

#define FLUE_HEADER_LIST_MAX (16u * 1024) /* names, values and 32 bytes each, as HTTP/2 counts */

struct flue_exchange {
    struct flue_request request; /* first: one is the other */
    struct flue_loop_server *server;
    struct flue_listener *listener;
    struct flue_connection *connection; /* NULL: the stream is closed */
    struct flue_exchange *next, **link; /* of the connection */
    struct flue_exchange *next_stalled;
    const struct flue_route *route;
    struct flue_account *account;
    size_t limit; /* of the body, framing included */
    struct flue_header *headers;
    size_t header_room, header_bytes;
    bool headers_too_large, bad_header;
    bool grpc, prefix_checked;
    bool admitted, answered, closed, complete;
    struct flue_guard_job *verify; /* who sends it is being found out; the body waits */
    bool complete_later;           /* the body was complete before that */
    bool stalled;
    uint64_t stalled_ns;
    size_t received;      /* body bytes */
    uint64_t progress_ns; /* when the last of them came */
    size_t withheld;      /* HTTP/2: window not given back */
    int32_t stream;
    bool ended;      /* HTTP/2: the peer's END_STREAM came */
    unsigned status; /* of the answer */
    char peer[56];
    /* HTTP/2's answer while it is sent */
    struct flue_block *answer;
    size_t answer_at;
    const struct flue_header *trailers;
    size_t trailer_count;
};

/* NULL without memory. Linked to the connection. */
struct flue_exchange *flue_exchange_new(struct flue_connection *connection,
                                        enum flue_protocol protocol);
/* Copies. False: over the limit of the header list (the rest is ignored, the answer is 431) . */
bool flue_exchange_header(struct flue_exchange *exchange, struct flue_bytes name,
                          struct flue_bytes value);
/* method, target ("/path?query") and authority are copied. */
bool flue_exchange_target(struct flue_exchange *exchange, struct flue_bytes method,
                          struct flue_bytes target, struct flue_bytes authority);
/* Headers are complete: finds the route and calls it. Answered, admitted, or (verify) neither yet
 * when it returns. */
void flue_exchange_head(struct flue_exchange *exchange);
/* A piece of the body; ignored once answered. May answer (over the limit). */
void flue_exchange_body(struct flue_exchange *exchange, struct flue_bytes piece);
/* The same in place: where the next `want` bytes go (NULL: answered), and that `size` came. */
uint8_t *flue_exchange_room(struct flue_exchange *exchange, size_t want, size_t *room);
void flue_exchange_received(struct flue_exchange *exchange, size_t size);
/* The body is complete. */
void flue_exchange_complete(struct flue_exchange *exchange);
/* Answers by the route's refuse (or text/plain), if not yet answered. */
void flue_exchange_refuse(struct flue_exchange *exchange, const struct flue_error *error);
/* The stream is closed: detaches, and frees if answered. */
void flue_exchange_close(struct flue_exchange *exchange);

/* Should the body wait? (Its account is over the soft share and it is not near its end, or it is
 * not known who sends it.) Then it is put among the stalled; ops->resume follows when there is room,
 * or after a second. */
bool flue_exchange_stall(struct flue_exchange *exchange);

/* guard.c: the listener's authenticator looks at the credentials. True: go on. False: answered, or
 * flue_exchange_verified follows. */
bool flue_exchange_guard(struct flue_exchange *exchange);
/* It is known whether he may: the route sees it, or the refusal is the answer. */
void flue_exchange_verified(struct flue_exchange *exchange, bool may,
                            const struct flue_error *error);
/* Nobody waits for the result any more. */
void flue_exchange_guard_drop(struct flue_exchange *exchange);

static inline struct flue_exchange *flue_exchange_of(struct flue_request *request)
{
    return (struct flue_exchange *)(void *)request;
}

/* Decimal digits of `number`; `room` holds 20. On the way of every answer, so no printf. */
static inline struct flue_bytes flue_decimal(char *room, size_t number)
{
    char *at = room + 20;
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    return flue_bytes(at, (size_t)(room + 20 - at));
}

#endif
