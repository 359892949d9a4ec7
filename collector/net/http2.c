/* http2.c: HTTP/2 on one connection, by nghttp2.
 *
 * Windows are given back by hand: the connection's at once, a stream's at once too unless its
 * account is over its share (request.h, stall). The library bounds resets, continuations, settings
 * and queued acknowledgements; what it does not bound is counted here: control frames and empty
 * DATA that come with no request beside them. Sources: RFC 9113; gRPC keepalive (A8, A9) for pings.
 */
#include <nghttp2/nghttp2.h>
#include <stdlib.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/net/http2_memory.h"
#include "collector/net/request.h"

#define STREAM_WINDOW     (1024 * 1024)
#define CONNECTION_WINDOW (8 * 1024 * 1024)
#define RESET_BURST       500
#define RESETS_PER_SECOND 50
#define CONTINUATIONS_MAX 8
#define CALM_BURST        1000 /* control frames beyond what requests earn */
#define CALM_PER_SECOND   100
#define CALM_PER_REQUEST  8
#define PING_STRIKES      2
#define IDLE_PING_NS      (7200ull * 1000 * 1000 * 1000) /* without streams, where not permitted */
#define GOING_NS          (100ull * 1000 * 1000)
#define COPY_AT_MOST      1024u
#define SECOND_NS         (1000ull * 1000 * 1000)

struct session {
    nghttp2_session *nghttp2;
    size_t open;           /* streams */
    size_t bodies;         /* of them, not yet complete */
    uint64_t idle_since;   /* 0: a stream is open */
    uint64_t header_since; /* 0: no header block is under way */
    uint64_t body_check;   /* when bodies are looked at */
    bool settled;          /* the peer's SETTINGS came */
    uint64_t going;        /* when the final GOAWAY follows; 0: none was announced */
    bool gone;             /* it was sent */
    uint64_t age_due, grace_due;
    uint64_t last_read, ping_sent; /* keepalive of ours */
    uint64_t last_ping;            /* of theirs */
    unsigned strikes;
    bool sent_since_ping;
    uint64_t calm_at;
    int64_t calm;
    bool terminated;
};

static struct session *session_of(struct flue_connection *connection)
{
    return connection->session;
}

static struct flue_exchange *exchange_of(struct session *session, int32_t stream)
{
    return nghttp2_session_get_stream_user_data(session->nghttp2, stream);
}

static void terminate(struct session *session, uint32_t code)
{
    if (!session->terminated)
        nghttp2_session_terminate_session(session->nghttp2, code);
    session->terminated = true;
}

/* A control frame costs one; time and requests earn. */
static void count_control(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    if (session->terminated)
        return; /* the rest of what was read with it; said once */
    uint64_t now = flue_monotonic_ns();
    session->calm += (int64_t)((now - session->calm_at) / (SECOND_NS / CALM_PER_SECOND));
    session->calm_at = now - (now - session->calm_at) % (SECOND_NS / CALM_PER_SECOND);
    if (session->calm > CALM_BURST)
        session->calm = CALM_BURST;
    if (--session->calm < 0) {
        flue_log(FLUE_WARN, "server", "a flood of HTTP/2 control frames; connection ended",
                 FLUE_S("peer", connection->peer), FLUE_LOG_END);
        terminate(session, NGHTTP2_ENHANCE_YOUR_CALM);
    }
}

/* As grpc-go: pings closer than min_time are struck, unless something was sent in between. */
static void count_ping(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    const struct flue_keepalive_enforcement_config *policy =
        &connection->listener->config.keepalive.enforcement_policy;
    uint64_t now = flue_monotonic_ns(), apart = (uint64_t)policy->min_time;
    count_control(connection);
    if (policy->min_time <= 0)
        return;
    if (session->sent_since_ping) {
        session->sent_since_ping = false;
        session->strikes = 0;
        session->last_ping = now;
        return;
    }
    if (session->open == 0 && !policy->permit_without_stream)
        apart = IDLE_PING_NS;
    if (session->last_ping && now - session->last_ping < apart &&
        ++session->strikes > PING_STRIKES && !session->terminated) {
        nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(session->nghttp2),
                              NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)"too_many_pings", 14);
        session->terminated = true;
    }
    session->last_ping = now;
}

/* ---- what comes ----------------------------------------------------------------------------- */

static int on_begin_frame(nghttp2_session *nghttp2, const nghttp2_frame_hd *head, void *arg)
{
    struct session *session = session_of(arg);
    if (head->type == NGHTTP2_HEADERS)
        session->header_since = flue_monotonic_ns();
    else if (head->type != NGHTTP2_CONTINUATION)
        session->header_since = 0;
    return 0;
}

static int on_begin_headers(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
    struct flue_connection *connection = arg;
    struct session *session = session_of(connection);
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct flue_exchange *exchange = flue_exchange_new(connection, FLUE_HTTP2);
    if (!exchange)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    exchange->stream = frame->hd.stream_id;
    nghttp2_session_set_stream_user_data(nghttp2, frame->hd.stream_id, exchange);
    session->open++;
    session->bodies++;
    session->idle_since = 0;
    session->calm += CALM_PER_REQUEST;
    return 0;
}

static int on_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *arg)
{
    struct flue_exchange *exchange = exchange_of(session_of(arg), frame->hd.stream_id);
    struct flue_bytes key = flue_bytes(name, name_size), text = flue_bytes(value, value_size);
    if (!exchange || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0; /* trailers are read and forgotten */
    struct flue_request *request = &exchange->request;
    if (key.size == 0 || key.data[0] != ':') {
        if (flue_bytes_is(key, "host") && !request->authority.data)
            request->authority = flue_arena_copy(&request->arena, text);
        flue_exchange_header(exchange, key, text);
        return 0;
    }
    exchange->header_bytes += key.size + text.size + 32;
    if (exchange->header_bytes > FLUE_HEADER_LIST_MAX)
        exchange->headers_too_large = true;
    else if (flue_bytes_is(key, ":method"))
        request->method = flue_arena_copy(&request->arena, text);
    else if (flue_bytes_is(key, ":path"))
        request->path = flue_arena_copy(&request->arena, text);
    else if (flue_bytes_is(key, ":authority"))
        request->authority = flue_arena_copy(&request->arena, text);
    return 0;
}

static void body_ended(struct session *session, struct flue_exchange *exchange)
{
    if (exchange->ended)
        return;
    exchange->ended = true;
    session->bodies--;
    flue_exchange_complete(exchange);
}

static void request_head(struct flue_exchange *exchange)
{
    struct flue_request *request = &exchange->request;
    struct flue_bytes target = request->path;
    if (!request->method.data || target.size == 0 ||
        (target.data[0] != '/' && !flue_bytes_is(target, "*")) ||
        !flue_exchange_target(exchange, request->method, target,
                              request->authority.data ? request->authority : FLUE_BYTES("")))
        exchange->bad_header = true;
    flue_exchange_head(exchange);
}

static int on_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
    struct flue_connection *connection = arg;
    struct session *session = session_of(connection);
    struct flue_exchange *exchange = NULL;
    bool last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        session->header_since = 0;
        exchange = exchange_of(session, frame->hd.stream_id);
        if (exchange && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            request_head(exchange);
        if (exchange && last)
            body_ended(session, exchange);
        break;
    case NGHTTP2_DATA:
        exchange = exchange_of(session, frame->hd.stream_id);
        if (exchange && last)
            body_ended(session, exchange);
        if (!last && frame->hd.length == 0)
            count_control(connection);
        break;
    case NGHTTP2_SETTINGS:
        session->settled = true;
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            count_control(connection);
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            session->ping_sent = 0;
        else
            count_ping(connection);
        break;
    case NGHTTP2_PRIORITY:
        count_control(connection);
        break;
    default:
        break;
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, int code,
                            void *arg)
{
    session_of(arg)->header_since = 0;
    count_control(arg);
    return 0;
}

static int on_data(nghttp2_session *nghttp2, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t size, void *arg)
{
    struct flue_exchange *exchange = exchange_of(session_of(arg), stream);
    nghttp2_session_consume_connection(nghttp2, size);
    if (exchange) {
        flue_exchange_body(exchange, flue_bytes(data, size));
        if (flue_exchange_stall(exchange)) {
            exchange->withheld += size;
            return 0;
        }
    }
    nghttp2_session_consume_stream(nghttp2, stream, size);
    return 0;
}

static int on_stream_close(nghttp2_session *nghttp2, int32_t stream, uint32_t code, void *arg)
{
    struct session *session = session_of(arg);
    struct flue_exchange *exchange = exchange_of(session, stream);
    if (!exchange)
        return 0;
    nghttp2_session_set_stream_user_data(nghttp2, stream, NULL);
    if (!exchange->ended)
        session->bodies--;
    if (--session->open == 0)
        session->idle_since = flue_monotonic_ns();
    flue_exchange_close(exchange);
    return 0;
}

/* ---- what goes ------------------------------------------------------------------------------ */

static nghttp2_nv pair(struct flue_bytes name, struct flue_bytes value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.data,
                        .value = (uint8_t *)(uintptr_t)value.data,
                        .namelen = name.size,
                        .valuelen = value.size};
}

static bool submit_trailers(nghttp2_session *nghttp2, struct flue_exchange *exchange)
{
    nghttp2_nv pairs[16];
    size_t count = exchange->trailer_count < 16 ? exchange->trailer_count : 16;
    for (size_t i = 0; i < count; i++)
        pairs[i] = pair(exchange->trailers[i].name, exchange->trailers[i].value);
    return nghttp2_submit_trailer(nghttp2, exchange->stream, pairs, count) == 0;
}

static ssize_t read_answer(nghttp2_session *nghttp2, int32_t stream, uint8_t *to, size_t room,
                           uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct flue_exchange *exchange = source->ptr;
    size_t left = exchange->answer ? exchange->answer->size - exchange->answer_at : 0;
    size_t size = left < room ? left : room;
    if (size == left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (exchange->trailer_count) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (!submit_trailers(nghttp2, exchange))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    if (size > COPY_AT_MOST) {
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        return (ssize_t)size;
    }
    if (size)
        memcpy(to, exchange->answer->data + exchange->answer_at, size);
    exchange->answer_at += size;
    return (ssize_t)size;
}

static int send_data(nghttp2_session *nghttp2, nghttp2_frame *frame, const uint8_t *head,
                     size_t size, nghttp2_data_source *source, void *arg)
{
    struct flue_outqueue *out = flue_connection_out(arg);
    struct flue_exchange *exchange = source->ptr;
    struct flue_block *answer = exchange->answer;
    if (!flue_outqueue_write(out, flue_bytes(head, 9)) ||
        !flue_outqueue_block(out, answer, flue_bytes(answer->data + exchange->answer_at, size)))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    exchange->answer_at += size;
    return 0;
}

/* An answer that is complete before its request ends the request too (RFC 9113 8.1). */
static int on_frame_sent(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
    struct session *session = session_of(arg);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    session->sent_since_ping = true;
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    struct flue_exchange *exchange = exchange_of(session, frame->hd.stream_id);
    if (exchange && !exchange->ended)
        nghttp2_submit_rst_stream(nghttp2, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_NO_ERROR);
    return 0;
}

static bool copy_trailers(struct flue_exchange *exchange, const struct flue_response *response)
{
    struct flue_arena *arena = &exchange->request.arena;
    struct flue_header *copies = flue_arena_alloc(arena, response->trailer_count * sizeof *copies);
    if (!copies)
        return false;
    for (size_t i = 0; i < response->trailer_count; i++) {
        copies[i].name = flue_arena_copy(arena, response->trailers[i].name);
        copies[i].value = flue_arena_copy(arena, response->trailers[i].value);
        if (!copies[i].name.data || !copies[i].value.data)
            return false;
    }
    exchange->trailers = copies;
    exchange->trailer_count = response->trailer_count;
    return true;
}

/* HTTP/2 has lower-case names only; the configuration may hold others. */
static struct flue_bytes lower(struct flue_arena *arena, struct flue_bytes name)
{
    size_t i = 0;
    while (i < name.size && !(name.data[i] >= 'A' && name.data[i] <= 'Z'))
        i++;
    if (i == name.size)
        return name;
    uint8_t *copy = flue_arena_alloc(arena, name.size);
    for (i = 0; copy && i < name.size; i++)
        copy[i] = (uint8_t)(name.data[i] >= 'A' && name.data[i] <= 'Z' ? name.data[i] + 32
                                                                       : name.data[i]);
    return flue_bytes(copy, copy ? name.size : 0);
}

static void respond(struct flue_connection *connection, struct flue_exchange *exchange,
                    unsigned status, const struct flue_header *headers, size_t count,
                    const struct flue_response *response)
{
    struct session *session = session_of(connection);
    nghttp2_nv pairs[80];
    char code[20];
    size_t used = 0;
    pairs[used++] = pair(FLUE_BYTES(":status"), flue_decimal(code, status));
    for (size_t i = 0; i < count && used < 80; i++)
        pairs[used++] = pair(lower(&exchange->request.arena, headers[i].name), headers[i].value);
    bool silent = flue_bytes_is(exchange->request.method, "HEAD");
    bool body = response->body.size && !silent, good = true;
    if (body)
        good = (exchange->answer = flue_block_copy(NULL, response->body)) != NULL;
    if (good && response->trailer_count)
        good = copy_trailers(exchange, response);
    const nghttp2_data_provider provider = {.source = {.ptr = exchange},
                                            .read_callback = read_answer};
    if (good)
        good = nghttp2_submit_response(session->nghttp2, exchange->stream, pairs, used,
                                       body || response->trailer_count ? &provider : NULL) == 0;
    if (!good)
        nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE, exchange->stream,
                                  NGHTTP2_INTERNAL_ERROR);
}

static bool pump(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    struct flue_outqueue *out = flue_connection_out(connection);
    while (out->bytes < FLUE_OUT_HIGH) {
        const uint8_t *data;
        ssize_t size = nghttp2_session_mem_send(session->nghttp2, &data);
        if (size < 0)
            return false;
        if (size == 0)
            return true;
        if (!flue_outqueue_write(out, flue_bytes(data, (size_t)size)))
            return false;
    }
    return true;
}

static bool flush(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    if (!pump(connection))
        return false;
    /* Between the two GOAWAYs the library thinks that it is done. */
    return nghttp2_session_want_read(session->nghttp2) ||
           nghttp2_session_want_write(session->nghttp2) ||
           (session->going && !session->gone && !session->terminated);
}

static bool input(struct flue_connection *connection, struct flue_bytes in)
{
    struct session *session = session_of(connection);
    session->last_read = flue_monotonic_ns();
    ssize_t used = nghttp2_session_mem_recv(session->nghttp2, in.data, in.size);
    if (used >= 0)
        return true;
    terminate(session, used == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM
                       : used == NGHTTP2_ERR_NOMEM ? NGHTTP2_INTERNAL_ERROR
                                                   : NGHTTP2_PROTOCOL_ERROR);
    pump(connection);
    return false;
}

/* ---- time ----------------------------------------------------------------------------------- */

static void sooner(uint64_t *due, uint64_t at)
{
    if (at < *due)
        *due = at;
}

static uint64_t later(uint64_t since, int64_t limit)
{
    return limit > 0 ? since + (uint64_t)limit : UINT64_MAX;
}

static int64_t body_limit(const struct flue_connection *connection)
{
    const struct flue_server_config *config = &connection->listener->config;
    return config->read_timeout > 0 ? config->read_timeout : config->idle_timeout;
}

static uint64_t due(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    const struct flue_server_config *config = &connection->listener->config;
    const struct flue_keepalive_server_config *keepalive = &config->keepalive.server_parameters;
    uint64_t at = UINT64_MAX;
    if (!session->settled)
        sooner(&at, later(connection->accepted_ns, config->read_header_timeout));
    if (session->header_since)
        sooner(&at, later(session->header_since, config->read_header_timeout));
    if (session->idle_since && !session->going)
        sooner(&at, later(session->idle_since, config->idle_timeout));
    if (session->going && !session->gone)
        sooner(&at, session->going);
    if (session->age_due)
        sooner(&at, session->age_due);
    if (session->grace_due)
        sooner(&at, session->grace_due);
    if (session->ping_sent)
        sooner(&at, later(session->ping_sent, keepalive->timeout));
    else
        sooner(&at, later(session->last_read, keepalive->time));
    int64_t limit = body_limit(connection);
    if (session->bodies && limit > 0) {
        if (!session->body_check)
            session->body_check = flue_monotonic_ns() + (uint64_t)limit / 4 + 1;
        sooner(&at, session->body_check);
    }
    return at;
}

static void check_bodies(struct flue_connection *connection, uint64_t now)
{
    struct session *session = session_of(connection);
    uint64_t limit = (uint64_t)body_limit(connection);
    struct flue_exchange *next;
    session->body_check = 0;
    for (struct flue_exchange *exchange = connection->exchanges; exchange; exchange = next) {
        next = exchange->next;
        if (exchange->ended || exchange->answered || exchange->stalled || !exchange->progress_ns ||
            now - exchange->progress_ns < limit)
            continue;
        struct flue_error error;
        flue_fail(&error, FLUE_TIMEOUT, "no more of the body came for %lld ms",
                  (long long)(limit / 1000000));
        flue_exchange_refuse(exchange, &error);
    }
}

/* Two GOAWAYs (RFC 9113 6.8): the first says that the end is near, the second where it is; what the
 * client began in between is still served. */
static void go(struct flue_connection *connection, uint64_t now)
{
    struct session *session = session_of(connection);
    if (session->going)
        return;
    nghttp2_submit_shutdown_notice(session->nghttp2);
    session->going = now + GOING_NS;
}

static bool expire(struct flue_connection *connection, uint64_t now)
{
    struct session *session = session_of(connection);
    const struct flue_server_config *config = &connection->listener->config;
    const struct flue_keepalive_server_config *keepalive = &config->keepalive.server_parameters;
    if ((!session->settled && later(connection->accepted_ns, config->read_header_timeout) <= now) ||
        (session->header_since &&
         later(session->header_since, config->read_header_timeout) <= now)) {
        terminate(session, NGHTTP2_SETTINGS_TIMEOUT);
        pump(connection);
        return false;
    }
    if ((session->grace_due && session->grace_due <= now) ||
        (session->ping_sent && later(session->ping_sent, keepalive->timeout) <= now))
        return false;
    if (session->idle_since && later(session->idle_since, config->idle_timeout) <= now)
        go(connection, now);
    if (session->age_due && session->age_due <= now) {
        session->age_due = 0;
        if (keepalive->max_connection_age_grace > 0)
            session->grace_due = now + (uint64_t)keepalive->max_connection_age_grace;
        go(connection, now);
    }
    if (session->going && !session->gone && session->going <= now) {
        session->gone = true;
        nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(session->nghttp2),
                              NGHTTP2_NO_ERROR, NULL, 0);
    }
    if (!session->ping_sent && later(session->last_read, keepalive->time) <= now) {
        session->ping_sent = now;
        nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_NONE, NULL);
    }
    if (session->body_check && session->body_check <= now)
        check_bodies(connection, now);
    return true;
}

/* ---- the rest ------------------------------------------------------------------------------- */

static void resume(struct flue_connection *connection, struct flue_exchange *exchange)
{
    nghttp2_session_consume_stream(session_of(connection)->nghttp2, exchange->stream,
                                   exchange->withheld);
    exchange->withheld = 0;
}

static bool ended(struct flue_connection *connection)
{
    return false;
}

static void drain(struct flue_connection *connection)
{
    go(connection, flue_monotonic_ns());
}

static void destroy(struct flue_connection *connection)
{
    struct session *session = session_of(connection);
    nghttp2_session_del(session->nghttp2);
    free(session);
}

static nghttp2_session_callbacks *callbacks;
static nghttp2_option *options;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_callbacks(void)
{
    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&options) != 0)
        return;
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
    nghttp2_option_set_no_auto_window_update(options, 1);
    nghttp2_option_set_stream_reset_rate_limit(options, RESET_BURST, RESETS_PER_SECOND);
    nghttp2_option_set_max_continuations(options, CONTINUATIONS_MAX);
}

bool flue_http2_session_new(struct flue_connection *connection)
{
    const struct flue_server_config *config = &connection->listener->config;
    struct session *session = calloc(1, sizeof *session);
    pthread_once(&once, make_callbacks);
    if (!session || !options ||
        nghttp2_session_server_new3(&session->nghttp2, callbacks, connection, options,
                                    flue_http2_memory()) != 0) {
        free(session);
        return false;
    }
    uint64_t now = flue_monotonic_ns();
    session->idle_since = session->last_read = session->calm_at = now;
    session->calm = CALM_BURST;
    uint64_t age = (uint64_t)config->keepalive.server_parameters.max_connection_age;
    if (config->keepalive.server_parameters.max_connection_age > 0)
        session->age_due = now + age - age / 10 + flue_random_u64() % (age / 5 + 1);
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)config->max_concurrent_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, FLUE_HEADER_LIST_MAX}};
    connection->session = session;
    connection->ops = &flue_http2_session_ops;
    return nghttp2_submit_settings(session->nghttp2, NGHTTP2_FLAG_NONE, settings,
                                   sizeof settings / sizeof settings[0]) == 0 &&
           nghttp2_session_set_local_window_size(session->nghttp2, NGHTTP2_FLAG_NONE, 0,
                                                 CONNECTION_WINDOW) == 0;
}

const struct flue_session_ops flue_http2_session_ops = {
    .input = input,
    .flush = flush,
    .respond = respond,
    .resume = resume,
    .ended = ended,
    .due = due,
    .expire = expire,
    .drain = drain,
    .destroy = destroy,
};
