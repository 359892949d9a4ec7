/* client_http2.c: an nghttp2 client session over a connection.
 *
 * Body bytes are never copied: nghttp2 says when a DATA frame may go (flow control), and its
 * payload is queued as borrowed slices behind the frame's nine bytes. A stream's user data is its
 * call's state, or NULL once the call is over; callbacks look there, never at a pointer of their
 * own. */
#include "collector/net/client_internal.h"
#include "collector/net/http2_memory.h"

#include <stdio.h>
#include <stdlib.h>

#define CONNECTION_WINDOW (16 * 1024 * 1024)
#define FRAME_MOST        (256u * 1024) /* where the peer takes larger DATA frames than 16 KiB */

static struct client_state *state_of(nghttp2_session *session, int32_t stream)
{
    return nghttp2_session_get_stream_user_data(session, stream);
}

/* ---- sending -------------------------------------------------------------------------------- */

static ssize_t on_read(nghttp2_session *session, int32_t stream, uint8_t *buffer, size_t length,
                       uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct client_connection *connection = user;
    struct client_state *state = state_of(session, stream);
    if (!state)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    const struct flue_slices *body = state->call->body;
    size_t slice = state->slice, offset = state->offset, take = 0;
    size_t vectors = flue_client_queue_vectors_left(&connection->queue) - 4;
    while (take < length && slice < body->count && vectors) {
        size_t part = body->items[slice].size - offset;
        if (part > length - take) {
            take = length;
            break;
        }
        take += part;
        vectors -= part > 0;
        offset = 0;
        slice++;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (take == state->body_left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)take;
}

static ssize_t on_read_length(nghttp2_session *session, uint8_t type, int32_t stream,
                              int32_t session_window, int32_t stream_window, uint32_t frame_size,
                              void *user)
{
    return frame_size < FRAME_MOST ? frame_size : FRAME_MOST;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t length, nghttp2_data_source *source, void *user)
{
    struct client_connection *connection = user;
    struct client_queue *queue = &connection->queue;
    struct client_state *state = state_of(session, frame->hd.stream_id);
    if (!state)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    flue_client_queue_copy(queue, head, 9);
    state->body_left -= length;
    while (length) {
        struct flue_bytes slice = state->call->body->items[state->slice];
        size_t part = slice.size - state->offset;
        if (part > length)
            part = length;
        if (part)
            flue_client_queue_borrow(queue, slice.data + state->offset, part);
        state->offset += part;
        length -= part;
        if (state->offset == slice.size) {
            state->slice++;
            state->offset = 0;
        }
    }
    state->queued_until = queue->queued;
    return flue_client_queue_room(queue) ? 0 : NGHTTP2_ERR_PAUSE;
}

static int on_before_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct client_connection *connection = user;
    if (frame->hd.type == NGHTTP2_HEADERS) {
        struct client_state *state = state_of(session, frame->hd.stream_id);
        if (state)
            state->queued_from = connection->queue.queued;
    }
    return 0;
}

bool flue_client_http2_was_sent(const struct client_state *state)
{
    return state->connection && state->queued_from &&
           state->connection->queue.sent > state->queued_from;
}

bool flue_client_http2_fill(struct client_connection *connection)
{
    struct client_queue *queue = &connection->queue;
    if (!connection->session)
        return true;
    while (flue_client_queue_room(queue)) {
        const uint8_t *data;
        uint64_t before = queue->queued;
        ssize_t n = nghttp2_session_mem_send(connection->session, &data);
        if (n < 0) {
            flue_fail(&connection->error, FLUE_UNAVAILABLE, "connection to %s: %s",
                      connection->address->text, nghttp2_strerror((int)n));
            return false;
        }
        if (n > 0)
            flue_client_queue_copy(queue, data, (size_t)n);
        else if (queue->queued == before)
            break;
    }
    bool over = queue->queued == queue->sent && !nghttp2_session_want_read(connection->session) &&
                !nghttp2_session_want_write(connection->session);
    if (over && !(connection->stage == CONNECTION_DRAINING && connection->streams == 0)) {
        if (!connection->error.code)
            flue_fail(&connection->error, FLUE_UNAVAILABLE, "connection to %s: the session ended",
                      connection->address->text);
        return false;
    }
    return true;
}

static nghttp2_nv pair(struct flue_bytes name, struct flue_bytes value)
{
    uint8_t flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
    if (flue_bytes_is(name, "authorization") || flue_bytes_is(name, "cookie"))
        flags |= NGHTTP2_NV_FLAG_NO_INDEX;
    return (nghttp2_nv){(uint8_t *)name.data, (uint8_t *)value.data, name.size, value.size, flags};
}

bool flue_client_http2_submit(struct client_connection *connection, struct client_state *state)
{
    struct flue_client *client = connection->client;
    const struct flue_call *call = state->call;
    nghttp2_nv pairs[CLIENT_MAX_HEADERS + 7];
    size_t count = 4;
    bool agent = false, length = false;
    struct flue_header credentials;
    if (!flue_client_credentials(state, &credentials))
        return true;
    struct flue_bytes authority = flue_bytes_of(client->target.authority);
    for (size_t i = 0; i < call->header_count; i++) {
        struct flue_bytes name = call->headers[i].name;
        if (flue_bytes_is(name, "host")) {
            authority = call->headers[i].value;
            continue;
        }
        if (credentials.name.size && flue_bytes_equal(name, credentials.name))
            continue;
        agent |= flue_bytes_is(name, "user-agent");
        length |= flue_bytes_is(name, "content-length");
        pairs[count++] = pair(name, call->headers[i].value);
    }
    state->body_left = 0;
    for (size_t i = 0; call->body && i < call->body->count; i++)
        state->body_left += call->body->items[i].size;
    if (credentials.name.size) {
        pairs[count] = pair(credentials.name, credentials.value);
        pairs[count++].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
    }
    if (!agent)
        pairs[count++] = pair(FLUE_BYTES("user-agent"), FLUE_BYTES("flue/" FLUE_VERSION));
    if (!length && client->config.protocol != FLUE_CLIENT_HTTP2) {
        int size = snprintf(state->length, sizeof state->length, "%zu", state->body_left);
        pairs[count++] =
            pair(FLUE_BYTES("content-length"), flue_bytes(state->length, (size_t)size));
    }
    pairs[0] = pair(FLUE_BYTES(":method"), call->method);
    pairs[1] =
        pair(FLUE_BYTES(":scheme"), client->use_tls ? FLUE_BYTES("https") : FLUE_BYTES("http"));
    pairs[2] = pair(FLUE_BYTES(":path"), call->path);
    pairs[3] = pair(FLUE_BYTES(":authority"), authority);

    nghttp2_data_provider provider = {.read_callback = on_read};
    int32_t stream = nghttp2_submit_request(connection->session, NULL, pairs, count,
                                            state->body_left ? &provider : NULL, state);
    if (stream == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE) {
        connection->stage = CONNECTION_DRAINING;
        flue_client_connection_dirty(connection);
        return false;
    }
    if (stream < 0) {
        flue_client_finish(state, stream == NGHTTP2_ERR_NOMEM ? FLUE_NO_MEMORY : FLUE_INVALID,
                           "request cannot be sent: %s", nghttp2_strerror(stream));
        return true;
    }
    flue_client_list_remove(state);
    state->place = CLIENT_STREAM;
    state->connection = connection;
    state->stream = stream;
    state->reset = true;
    state->slice = state->offset = 0;
    state->queued_from = state->queued_until = 0;
    flue_client_list_append(&connection->calls, state);
    connection->idle_since_ns = 0;
    if (connection->streams++ == 0 && client->config.keepalive_time > 0) {
        connection->heard_ns = flue_monotonic_ns();
        flue_client_connection_timer(connection);
    }
    flue_client_connection_dirty(connection);
    return true;
}

void flue_client_http2_abandon(struct client_state *state)
{
    struct client_connection *connection = state->connection;
    if (!connection)
        return;
    if (state->stream && connection->session) {
        nghttp2_session_set_stream_user_data(connection->session, state->stream, NULL);
        if (state->reset)
            nghttp2_submit_rst_stream(connection->session, NGHTTP2_FLAG_NONE, state->stream,
                                      NGHTTP2_CANCEL);
    }
    if (!flue_client_queue_rescue(&connection->queue, state->queued_until)) {
        connection->broken = true;
        flue_fail(&connection->error, FLUE_UNAVAILABLE, "no memory for the output of a connection");
    }
    state->connection = NULL;
    state->stream = 0;
    flue_client_connection_dirty(connection);
}

void flue_client_http2_ping(struct client_connection *connection)
{
    nghttp2_submit_ping(connection->session, NGHTTP2_FLAG_NONE, NULL);
    flue_client_connection_dirty(connection);
}

/* ---- receiving ------------------------------------------------------------------------------ */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user)
{
    struct client_state *state = state_of(session, frame->hd.stream_id);
    if (!state)
        return 0;
    if (name_size && name[0] == ':') {
        uint64_t status;
        if (flue_bytes_is(flue_bytes(name, name_size), ":status") &&
            flue_parse_u64(flue_bytes(value, value_size), &status) && status < 1000)
            state->status = (unsigned)status;
        return 0;
    }
    flue_client_response_field(state, flue_bytes(name, name_size), flue_bytes(value, value_size));
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t size, void *user)
{
    struct client_state *state = state_of(session, stream);
    if (state)
        flue_client_response_body(state, data, size);
    return 0;
}

static void complete(struct client_connection *connection, struct client_state *state)
{
    connection->answered++;
    /* The peer may answer before it has the whole body: the rest is not sent. */
    state->reset = state->body_left > 0;
    flue_client_finish(state, FLUE_OK, "%s", "");
}

static void on_settings(struct client_connection *connection)
{
    struct flue_client *client = connection->client;
    uint32_t limit = nghttp2_session_get_remote_settings(connection->session,
                                                         NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    connection->limit = limit < CLIENT_MAX_STREAMS ? limit : CLIENT_MAX_STREAMS;
    client->peer_limit = connection->limit ? connection->limit : 1;
    client->scheduled = true;
    if (connection->stage != CONNECTION_SETTINGS)
        return;
    connection->stage = CONNECTION_READY;
    connection->address->speaks = CLIENT_SPEAKS_HTTP2;
    flue_client_address_works(connection->address);
    connection->idle_since_ns = flue_monotonic_ns();
    client->connected++;
    flue_client_connection_timer(connection);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct client_connection *connection = user;
    struct client_state *state;
    switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            on_settings(connection);
        break;
    case NGHTTP2_GOAWAY:
        if (connection->stage == CONNECTION_READY)
            connection->stage = CONNECTION_DRAINING;
        connection->client->stale = true;
        connection->client->scheduled = true;
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) {
            char why[200];
            flue_fail(
                &connection->error, FLUE_UNAVAILABLE, "%s ended the connection: %s (%s)",
                connection->address->text, nghttp2_http2_strerror(frame->goaway.error_code),
                flue_printable(flue_bytes(frame->goaway.opaque_data, frame->goaway.opaque_data_len),
                               why, sizeof why));
        }
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
            connection->ping_sent_ns = 0;
            flue_client_connection_timer(connection);
        }
        break;
    case NGHTTP2_HEADERS:
        state = state_of(session, frame->hd.stream_id);
        if (!state)
            break;
        if (!state->head_done && state->status >= 100 && state->status < 200) {
            flue_client_response_reset(state);
            break;
        }
        if (!state->head_done) {
            state->head_done = true;
            state->trailer_from = state->field_count;
        }
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
            complete(connection, state);
        break;
    case NGHTTP2_DATA:
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM &&
            (state = state_of(session, frame->hd.stream_id)))
            complete(connection, state);
        break;
    default:
        break;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
    struct client_connection *connection = user;
    struct flue_client *client = connection->client;
    struct client_state *state = state_of(session, stream);
    connection->streams--;
    if (state) {
        bool unseen = (code == NGHTTP2_REFUSED_STREAM && !state->head_done) ||
                      !flue_client_http2_was_sent(state);
        state->reset = false; /* it is closed already */
        if (!unseen || !flue_client_requeue(state))
            flue_client_finish(state, FLUE_UNAVAILABLE, "%s ended the call: %s",
                               connection->address->text, nghttp2_http2_strerror(code));
    }
    if (client->pending.first)
        client->scheduled = true;
    if (connection->streams == 0) {
        connection->idle_since_ns = flue_monotonic_ns();
        if (client->config.idle_timeout > 0 || client->config.keepalive_time > 0)
            flue_client_connection_timer(connection);
        if (connection->stage == CONNECTION_DRAINING)
            flue_client_connection_dirty(connection);
    }
    return 0;
}

static int on_error(nghttp2_session *session, int code, const char *message, size_t size,
                    void *user)
{
    struct client_connection *connection = user;
    char text[300];
    flue_fail(&connection->error, FLUE_UNAVAILABLE, "connection to %s: %s",
              connection->address->text,
              flue_printable(flue_bytes(message, size), text, sizeof text));
    return 0;
}

bool flue_client_http2_receive(struct client_connection *connection, const uint8_t *data,
                               size_t size)
{
    connection->heard_ns = flue_monotonic_ns();
    ssize_t n = nghttp2_session_mem_recv(connection->session, data, size);
    if (n < 0) {
        flue_fail(&connection->error, FLUE_UNAVAILABLE, "connection to %s: %s",
                  connection->address->text, nghttp2_strerror((int)n));
        return false;
    }
    /* What is not SETTINGS is not HTTP/2 (on_error has the text). */
    if (connection->stage == CONNECTION_SETTINGS && connection->error.code)
        return false;
    return true;
}

/* ---- sessions ------------------------------------------------------------------------------- */

enum flue_code flue_client_http2_callbacks(nghttp2_session_callbacks **out,
                                           struct flue_error *error)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a client");
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, on_read_length);
    nghttp2_session_callbacks_set_before_frame_send_callback(callbacks, on_before_send);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_error_callback2(callbacks, on_error);
    *out = callbacks;
    return FLUE_OK;
}

bool flue_client_http2_begin(struct client_connection *connection)
{
    struct flue_client *client = connection->client;
    size_t window = client->config.response_limit;
    nghttp2_option *option;
    if (nghttp2_option_new(&option) != 0)
        return false;
    nghttp2_option_set_no_closed_streams(option, 1);
    int result = nghttp2_session_client_new3(&connection->session, client->callbacks, connection,
                                             option, flue_http2_memory());
    nghttp2_option_del(option);
    if (result != 0)
        return false;
    if (window < 65535)
        window = 65535;
    if (window > CLIENT_RESPONSE_LIMIT)
        window = CLIENT_RESPONSE_LIMIT;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)window},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, CLIENT_MAX_HEAD},
    };
    return nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings,
                                   sizeof settings / sizeof settings[0]) == 0 &&
           nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0,
                                                 CONNECTION_WINDOW) == 0;
}
