/* http1_session.c: HTTP/1.x requests of one connection, one at a time.
 *
 * While a request waits for its answer nothing more is read; what was received behind it is held
 * and goes on afterwards. A request that is answered before its body is there: a short known rest
 * is read and thrown away and the connection lives on; otherwise our end is closed, and the
 * connection drains a little (see connection.h), so that the client reads the answer and not a
 * reset. */
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/clock.h"
#include "collector/net/http1.h"
#include "collector/net/request.h"

#define DIRECT_AT_LEAST (64u * 1024)
#define DIRECT_AT_MOST  (1024u * 1024)

struct session {
    struct flue_http1 reader;
    struct flue_exchange *exchange;
    bool ended;      /* the request was read to its end */
    bool keep;       /* the connection lives on after the answer */
    bool discarding; /* the rest of a refused body */
    bool continued;  /* 100 was sent, or body bytes came without it */
    uint64_t discard_due;
    uint64_t idle_since; /* since when no request is open; 0: one is */
    uint64_t head_since; /* since the first byte of a head; 0: none */
    uint8_t *held;
    size_t held_size, held_at, held_room;
};

static struct session *session_of(struct flue_connection *connection)
{
    return connection->session;
}

static const char *reason_phrase(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } phrases[] = {{200, "OK"},
                   {204, "No Content"},
                   {400, "Bad Request"},
                   {401, "Unauthorized"},
                   {403, "Forbidden"},
                   {404, "Not Found"},
                   {405, "Method Not Allowed"},
                   {408, "Request Timeout"},
                   {411, "Length Required"},
                   {413, "Content Too Large"},
                   {414, "URI Too Long"},
                   {415, "Unsupported Media Type"},
                   {417, "Expectation Failed"},
                   {422, "Unprocessable Content"},
                   {429, "Too Many Requests"},
                   {431, "Request Header Fields Too Large"},
                   {499, "Client Closed Request"},
                   {500, "Internal Server Error"},
                   {501, "Not Implemented"},
                   {502, "Bad Gateway"},
                   {503, "Service Unavailable"},
                   {504, "Gateway Timeout"},
                   {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
        if (phrases[i].status == status)
            return phrases[i].text;
    return "Status";
}

static bool write_text(struct flue_connection *connection, const char *text)
{
    return flue_outqueue_write(flue_connection_out(connection), flue_bytes_of(text));
}

/* ---- answers -------------------------------------------------------------------------------- */

static bool write_head(struct flue_connection *connection, unsigned status,
                       const struct flue_header *headers, size_t count, const char *option)
{
    struct flue_outqueue *out = flue_connection_out(connection);
    char line[80];
    snprintf(line, sizeof line, "HTTP/1.1 %u %s\r\n", status, reason_phrase(status));
    bool good = write_text(connection, line);
    for (size_t i = 0; i < count; i++)
        good = good && flue_outqueue_write(out, headers[i].name) && write_text(connection, ": ") &&
               flue_outqueue_write(out, headers[i].value) && write_text(connection, "\r\n");
    return good && write_text(connection, option) && write_text(connection, "\r\n");
}

static bool write_body(struct flue_connection *connection, struct flue_bytes body)
{
    struct flue_outqueue *out = flue_connection_out(connection);
    if (body.size <= FLUE_OUTQUEUE_CHUNK)
        return flue_outqueue_write(out, body);
    struct flue_block *block = flue_block_copy(NULL, body);
    bool good = block && flue_outqueue_block(out, block, flue_block_bytes(block));
    flue_block_unref(block);
    return good;
}

static void respond(struct flue_connection *connection, struct flue_exchange *exchange,
                    unsigned status, const struct flue_header *headers, size_t count,
                    const struct flue_response *response)
{
    struct session *session = session_of(connection);
    struct flue_http1 *reader = &session->reader;
    if (!session->ended) {
        uint64_t left = flue_http1_direct(reader);
        bool waits = reader->expect_continue && !session->continued;
        if (!left && !reader->chunked && reader->content_length > 0 && exchange->received == 0)
            left = (uint64_t)reader->content_length;
        session->discarding = true;
        session->discard_due = flue_monotonic_ns() + FLUE_DRAIN_NS;
        if (reader->chunked || left > FLUE_DRAIN_BYTES || waits)
            session->keep = false;
    }
    if (response->close || connection->server->draining ||
        !connection->listener->config.keep_alives_enabled)
        session->keep = false;
    const char *option = !session->keep       ? "connection: close\r\n"
                         : reader->minor == 0 ? "connection: keep-alive\r\n"
                                              : "";
    bool silent = flue_bytes_is(exchange->request.method, "HEAD") || status == 204 || status == 304;
    if (!write_head(connection, status, headers, count, option) ||
        (!silent && !write_body(connection, response->body)))
        session->keep = false;
    if (!session->keep && !session->ended)
        flue_connection_finish(connection);
}

/* The bytes themselves are wrong and there is no request to answer, or its answer is under way. */
static void answer_broken(struct flue_connection *connection, unsigned status, const char *reason)
{
    char length[24], body[256];
    int size = snprintf(body, sizeof body, "%s\n", reason);
    snprintf(length, sizeof length, "%d", size);
    const struct flue_header headers[] = {
        {FLUE_BYTES("content-type"), FLUE_BYTES("text/plain; charset=utf-8")},
        {FLUE_BYTES("content-length"), flue_bytes_of(length)}};
    if (write_head(connection, status, headers, 2, "connection: close\r\n"))
        write_text(connection, body);
    flue_listener_count(connection->listener, status);
}

static bool broken(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    struct flue_exchange *exchange = session->exchange;
    session->keep = false;
    if (!exchange) {
        answer_broken(connection, session->reader.status, session->reader.reason);
    } else if (!exchange->answered) {
        struct flue_error error;
        flue_fail(&error, session->reader.status == 431 ? FLUE_HEADERS_TOO_LARGE : FLUE_INVALID,
                  "the body is broken: %s", session->reader.reason);
        flue_exchange_refuse(exchange, &error);
    }
    return false;
}

/* ---- requests ------------------------------------------------------------------------------- */

static bool begin(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    struct flue_http1 *reader = &session->reader;
    struct flue_exchange *exchange = flue_exchange_new(connection, FLUE_HTTP1);
    if (!exchange) {
        answer_broken(connection, 503, "no memory; send again later");
        return false;
    }
    session->exchange = exchange;
    session->head_since = session->idle_since = 0;
    session->keep = reader->keep_alive;
    session->continued = false;
    exchange->bad_header =
        !flue_exchange_target(exchange, reader->method, reader->target, reader->authority);
    for (size_t i = 0; i < reader->field_count; i++)
        if (!flue_exchange_header(exchange, flue_http1_name(reader, i),
                                  flue_http1_value(reader, i)))
            break;
    bool body = reader->chunked || reader->content_length > 0;
    flue_exchange_head(exchange);
    if (body && !exchange->answered && reader->expect_continue)
        session->continued = write_text(connection, "HTTP/1.1 100 Continue\r\n\r\n");
    return !connection->finishing;
}

/* Answered and read to its end: the next one. False: there is none. */
static bool next(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    flue_exchange_close(session->exchange);
    session->exchange = NULL;
    session->ended = session->discarding = false;
    if (!session->keep || connection->server->draining)
        return false;
    flue_http1_reset(&session->reader);
    session->idle_since = flue_monotonic_ns();
    return true;
}

/* Takes from `in` until it is used up or the request must wait. False: the end. */
static bool process(struct flue_connection *connection, struct flue_bytes *in)
{
    struct session *session = session_of(connection);
    for (;;) {
        struct flue_exchange *exchange = session->exchange;
        if (session->ended) {
            if (!exchange->answered || flue_connection_out(connection)->bytes >= FLUE_OUT_HIGH)
                return true;
            if (!next(connection))
                return false;
            continue;
        }
        if (exchange && in->size && flue_exchange_stall(exchange))
            return true;
        if (!exchange && in->size == 0)
            return true;
        if (!exchange && !session->head_since)
            session->head_since = flue_monotonic_ns();
        switch (flue_http1_feed(&session->reader, in)) {
        case FLUE_HTTP1_MORE:
            return true;
        case FLUE_HTTP1_HEAD:
            if (!begin(connection))
                return false;
            break;
        case FLUE_HTTP1_BODY:
            session->continued = true;
            flue_exchange_body(exchange, session->reader.piece);
            break;
        case FLUE_HTTP1_END:
            session->ended = true;
            flue_exchange_complete(exchange);
            break;
        case FLUE_HTTP1_ERROR:
            return broken(connection);
        }
        if (connection->finishing)
            return false;
    }
}

static bool hold(struct session *session, struct flue_bytes in)
{
    if (session->held_at) {
        memmove(session->held, session->held + session->held_at,
                session->held_size - session->held_at);
        session->held_size -= session->held_at;
        session->held_at = 0;
    }
    if (in.size > session->held_room - session->held_size) {
        size_t room = session->held_size + in.size;
        uint8_t *held = realloc(session->held, room);
        if (!held)
            return false;
        session->held = held;
        session->held_room = room;
    }
    memcpy(session->held + session->held_size, in.data, in.size);
    session->held_size += in.size;
    return true;
}

static bool waiting(const struct session *session)
{
    return session->ended || (session->exchange && session->exchange->stalled);
}

static bool input(struct flue_connection *connection, struct flue_bytes in)
{
    struct session *session = session_of(connection);
    if (session->held_size == 0 && !process(connection, &in))
        return false;
    connection->paused = waiting(session);
    return in.size == 0 || hold(session, in); /* at most one receive: paused reads nothing */
}

static bool flush(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    struct flue_bytes held = flue_bytes(NULL, 0);
    if (session->held)
        held = flue_bytes(session->held + session->held_at, session->held_size - session->held_at);
    bool good = process(connection, &held);
    if (held.size) {
        session->held_at = session->held_size - held.size;
    } else {
        free(session->held);
        session->held = NULL;
        session->held_size = session->held_at = session->held_room = 0;
    }
    connection->paused = waiting(session);
    if (good && connection->eof && !session->exchange && held.size == 0)
        return false;
    return good;
}

static uint8_t *direct(struct flue_connection *connection, size_t *room)
{
    struct session *session = session_of(connection);
    struct flue_exchange *exchange = session->exchange;
    uint64_t left = flue_http1_direct(&session->reader);
    if (!exchange || left < DIRECT_AT_LEAST || session->held_size || session->discarding ||
        exchange->stalled)
        return NULL;
    return flue_exchange_room(exchange, left < DIRECT_AT_MOST ? (size_t)left : DIRECT_AT_MOST,
                              room);
}

static bool direct_done(struct flue_connection *connection, size_t size)
{
    struct session *session = session_of(connection);
    struct flue_bytes none = flue_bytes(NULL, 0);
    flue_http1_received(&session->reader, size);
    flue_exchange_received(session->exchange, size);
    if (connection->finishing)
        return false;
    bool good = process(connection, &none);
    /* A body that was complete with this may be answered and gone already. */
    if (good && !session->ended && session->exchange)
        flue_exchange_stall(session->exchange);
    connection->paused = waiting(session);
    return good;
}

/* ---- the rest ------------------------------------------------------------------------------- */

static void resume(struct flue_connection *connection, struct flue_exchange *exchange)
{
    connection->paused = waiting(session_of(connection));
}

static bool ended(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    /* A client may end its side and wait for the answer; held bytes may hold whole requests. */
    return session->ended || session->held_size > 0 || connection->out.bytes > 0 ||
           connection->plain.bytes > 0;
}

static uint64_t later(uint64_t since, int64_t limit)
{
    return since && limit > 0 ? since + (uint64_t)limit : UINT64_MAX;
}

/* For a body: as long as something comes it may take its time. */
static int64_t body_limit(const struct flue_connection *connection)
{
    const struct flue_server_config *config = &connection->listener->config;
    return config->read_timeout > 0 ? config->read_timeout : config->idle_timeout;
}

static uint64_t due(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    const struct flue_server_config *config = &connection->listener->config;
    if (session->head_since)
        return later(session->head_since, config->read_header_timeout);
    if (session->idle_since)
        return later(session->idle_since, config->idle_timeout);
    if (!session->exchange || session->ended)
        return UINT64_MAX;
    if (session->discarding)
        return session->discard_due;
    if (session->exchange->stalled)
        return UINT64_MAX;
    return later(session->exchange->progress_ns, body_limit(connection));
}

static bool expire(struct flue_connection *connection, uint64_t now)
{
    struct session *session = session_of(connection);
    if (now < due(connection))
        return true;
    if (session->exchange && !session->exchange->answered) {
        struct flue_error error;
        flue_fail(&error, FLUE_TIMEOUT, "no more of the body came for %lld ms",
                  (long long)(body_limit(connection) / 1000000));
        session->keep = false;
        flue_exchange_refuse(session->exchange, &error);
    } else if (session->head_since && flue_http1_in_head(&session->reader)) {
        answer_broken(connection, 408, "the headers did not come in time");
    }
    return false;
}

static void drain(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    if (session->exchange)
        session->keep = false;
    else if (!session->head_since)
        flue_connection_finish(connection);
}

static void destroy(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    flue_http1_destroy(&session->reader);
    free(session->held);
    free(session);
}

bool flue_http1_session_new(struct flue_connection *connection)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return false;
    flue_http1_init(&session->reader);
    session->head_since = connection->accepted_ns;
    connection->session = session;
    connection->ops = &flue_http1_session_ops;
    return true;
}

const struct flue_session_ops flue_http1_session_ops = {
    .input = input,
    .flush = flush,
    .direct = direct,
    .direct_done = direct_done,
    .respond = respond,
    .resume = resume,
    .ended = ended,
    .due = due,
    .expire = expire,
    .drain = drain,
    .destroy = destroy,
};
