/* h2peer.h: an HTTP/2 client for tests: nghttp2 over a blocking socket, every result kept as text.
 */
#ifndef FLUE_TEST_NET_H2PEER_H
#define FLUE_TEST_NET_H2PEER_H

#include <nghttp2/nghttp2.h>
#include "tests/unit/collector/net/harness.h"

#define H2_STREAMS 600

struct h2_stream {
    char headers[4096]; /* "name: value\n", trailers after "--\n" */
    char body[8192];
    size_t body_size, headers_size; /* body_size counts what does not fit too */
    bool in_body, ended, closed;
    uint32_t code;
    const uint8_t *send; /* what is left of the request's body */
    size_t send_size;
    bool send_open; /* no END_STREAM behind it */
};
struct h2_peer {
    int fd;
    nghttp2_session *session;
    struct h2_stream *streams; /* by id */
    int32_t last;
    bool goaway, eof;
    uint32_t goaway_code;
    int goaways, pings_answered;
};

static inline struct h2_stream *h2_of(struct h2_peer *peer, int32_t id)
{
    assert_true(id > 0 && id < H2_STREAMS * 2);
    return &peer->streams[id / 2];
}

static inline int h2_header(nghttp2_session *session, const nghttp2_frame *frame,
                            const uint8_t *name, size_t name_size, const uint8_t *value,
                            size_t value_size, uint8_t flags, void *arg)
{
    struct h2_stream *stream = h2_of(arg, frame->hd.stream_id);
    if (frame->headers.cat == NGHTTP2_HCAT_HEADERS && !stream->in_body) {
        stream->in_body = true;
        stream->headers_size +=
            (size_t)snprintf(stream->headers + stream->headers_size,
                             sizeof stream->headers - stream->headers_size, "--\n");
    }
    stream->headers_size += (size_t)snprintf(
        stream->headers + stream->headers_size, sizeof stream->headers - stream->headers_size,
        "%.*s: %.*s\n", (int)name_size, (const char *)name, (int)value_size, (const char *)value);
    assert_true(stream->headers_size < sizeof stream->headers);
    return 0;
}

static inline int h2_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                          size_t size, void *arg)
{
    struct h2_stream *stream = h2_of(arg, id);
    size_t room =
        sizeof stream->body - 1 -
        (stream->body_size < sizeof stream->body ? stream->body_size : sizeof stream->body - 1);
    if (room)
        memcpy(stream->body + stream->body_size, data, size < room ? size : room);
    stream->body_size += size;
    return 0;
}

static inline int h2_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2_peer *peer = arg;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        peer->goaway = true;
        peer->goaways++;
        peer->goaway_code = frame->goaway.error_code;
    }
    if (frame->hd.type == NGHTTP2_PING && frame->hd.flags & NGHTTP2_FLAG_ACK)
        peer->pings_answered++;
    if (frame->hd.stream_id && frame->hd.flags & NGHTTP2_FLAG_END_STREAM &&
        (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA))
        h2_of(peer, frame->hd.stream_id)->ended = true;
    return 0;
}

static inline int h2_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    h2_of(arg, id)->closed = true;
    h2_of(arg, id)->code = code;
    return 0;
}

static inline ssize_t h2_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t room,
                              uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct h2_stream *stream = source->ptr;
    size_t size = stream->send_size < room ? stream->send_size : room;
    if (size == 0 && stream->send_open)
        return NGHTTP2_ERR_DEFERRED;
    memcpy(to, stream->send, size);
    stream->send += size;
    stream->send_size -= size;
    if (stream->send_size == 0 && !stream->send_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)size;
}

static inline void h2_open(struct h2_peer *peer, uint16_t port)
{
    nghttp2_session_callbacks *callbacks;
    memset(peer, 0, sizeof *peer);
    peer->fd = h_connect(port);
    assert_true(peer->fd >= 0);
    peer->streams = calloc(H2_STREAMS, sizeof *peer->streams);
    assert_non_null(peer->streams);
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, h2_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, h2_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, h2_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, h2_close);
    assert_int_equal(nghttp2_session_client_new(&peer->session, callbacks, peer), 0);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 24}};
    nghttp2_submit_settings(peer->session, 0, settings, 1);
    nghttp2_session_set_local_window_size(peer->session, 0, 0, 1 << 24);
}

static inline void h2_end(struct h2_peer *peer)
{
    nghttp2_session_del(peer->session);
    free(peer->streams);
    close(peer->fd);
}

/* Sends what is to be sent and reads what comes within `wait_ms`. */
static inline void h2_turn(struct h2_peer *peer, int wait_ms)
{
    static char buffer[65536];
    const uint8_t *data;
    ssize_t size;
    while ((size = nghttp2_session_mem_send(peer->session, &data)) > 0) {
        ssize_t sent = 0;
        while (sent < size) {
            struct pollfd both = {.fd = peer->fd, .events = POLLOUT | POLLIN};
            assert_true(poll(&both, 1, PATIENCE_MS) > 0);
            if (both.revents & POLLIN) { /* the server must not wait for us to read */
                ssize_t got = recv(peer->fd, buffer, sizeof buffer, MSG_DONTWAIT);
                if (got == 0 || (got < 0 && errno != EAGAIN)) {
                    peer->eof = true;
                    return;
                }
                if (got > 0)
                    nghttp2_session_mem_recv(peer->session, (uint8_t *)buffer, (size_t)got);
            }
            ssize_t one =
                send(peer->fd, data + sent, (size_t)(size - sent), MSG_NOSIGNAL | MSG_DONTWAIT);
            if (one < 0 && errno != EAGAIN) {
                peer->eof = true;
                break;
            }
            sent += one > 0 ? one : 0;
        }
        if (peer->eof)
            break;
    }
    struct pollfd in = {.fd = peer->fd, .events = POLLIN};
    if (poll(&in, 1, wait_ms) <= 0)
        return;
    ssize_t got = recv(peer->fd, buffer, sizeof buffer, 0);
    if (got <= 0)
        peer->eof = true;
    else
        nghttp2_session_mem_recv(peer->session, (uint8_t *)buffer, (size_t)got);
}

#define H2_AWAIT(peer, condition)                                                                  \
    do {                                                                                           \
        uint64_t until_ = flue_monotonic_ns() + PATIENCE_MS * 1000000ull;                          \
        while (!(condition)) {                                                                     \
            if (flue_monotonic_ns() > until_)                                                      \
                fail_msg("waited too long for " #condition);                                       \
            h2_turn(peer, 5);                                                                      \
        }                                                                                          \
    } while (0)

/* Headers as name, value, ...; the last NULL. Returns the stream. */
static inline int32_t h2_request(struct h2_peer *peer, const char *path, const void *body,
                                 size_t size, bool open, const char *const *more)
{
    nghttp2_nv pairs[200];
    size_t count = 0;
    const char *const first[] = {":method", "POST",       ":scheme", "http", ":path",
                                 path,      ":authority", "x",       NULL};
    for (int part = 0; part < 2; part++)
        for (const char *const *at = part ? more : first; at && *at; at += 2)
            pairs[count++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)at[0],
                                          .value = (uint8_t *)(uintptr_t)at[1],
                                          .namelen = strlen(at[0]),
                                          .valuelen = strlen(at[1])};
    int32_t next = (int32_t)nghttp2_session_get_next_stream_id(peer->session);
    struct h2_stream *stream = h2_of(peer, next);
    stream->send = body;
    stream->send_size = size;
    stream->send_open = open;
    nghttp2_data_provider provider = {.source = {.ptr = stream}, .read_callback = h2_read};
    int32_t id = nghttp2_submit_request(peer->session, NULL, pairs, count,
                                        body || open ? &provider : NULL, NULL);
    assert_int_equal(id, next);
    return id;
}

#endif
