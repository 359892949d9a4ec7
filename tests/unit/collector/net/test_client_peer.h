/* test_client_peer.h: a real HTTP/2 server on a thread, made to misbehave, and a bench that drives
 * a client on a loop of its own; for the client's tests. */
#ifndef TEST_CLIENT_PEER_H
#define TEST_CLIENT_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "collector/base/clock.h"
#include "collector/net/client.h"

#define PEER_STREAMS     4096
#define PEER_CONNECTIONS 80
#define MS               UINT64_C(1000000)
#define PEER             __attribute__((unused)) static

#define NEVER (24u * 3600 * 1000) /* a delay_ms that no test waits for */

struct peer_behaviour {
    uint32_t max_streams; /* SETTINGS_MAX_CONCURRENT_STREAMS; 0: not sent */
    uint32_t window;      /* INITIAL_WINDOW_SIZE; 0: default */
    uint32_t max_frame;
    unsigned delay_ms;  /* before an answer */
    unsigned answers;   /* so many at once, the others when peer->released; 0: all at once */
    unsigned refuse;    /* so many streams get REFUSED_STREAM first */
    unsigned goaway_at; /* n-th request of the first connection: GOAWAY naming the one before */
    bool reset;         /* RST_STREAM(INTERNAL_ERROR) instead of an answer */
    bool garbage;       /* bytes that are no HTTP/2 */
    bool silent;        /* takes the connection and never says a word */
    bool close_at_once;
    bool die_on_request; /* closes the connection when a request is complete */
    bool early;          /* answers when the headers are there, before the body */
    bool no_trailers;
    size_t response_size;    /* of the message; 0: 2 bytes */
    const char *status;      /* ":status"; NULL: 200 */
    const char *grpc_status; /* NULL: "0" */
    const char *details;     /* grpc-status-details-bin */
    unsigned fail_first;     /* so many requests get grpc-status 14, or :status 503 */
    const uint8_t *body;     /* instead of response_size */
    size_t body_size;
    const char *content_type, *retry_after;
    SSL_CTX *tls;
    const char *unix_path;
};

struct peer_stream {
    struct peer_connection *connection;
    int32_t id;
    uint64_t due_ns, sum;
    size_t left, all;
    bool waiting, held, answered, fails;
};

struct peer_connection {
    struct peer *peer;
    int fd;
    SSL *ssl;
    nghttp2_session *session;
    unsigned open, requests;
    uint8_t *out;
    size_t out_from, out_size, out_room;
    bool dead, first;
};

struct peer {
    struct peer_behaviour behaviour;
    int listener, wake[2];
    unsigned short port;
    pthread_t thread;
    struct peer_connection *connections[PEER_CONNECTIONS];
    struct peer_stream streams[PEER_STREAMS];
    unsigned stream_count;
    _Atomic bool released;
    /* What was seen; read after the call that made it has ended. */
    _Atomic unsigned accepted, requests, most_open, refused, resets, pings;
    _Atomic uint64_t bytes, sum, largest_frame;
    char path[128], agent[64], te[16], authority[128], coding[32], type[64], timeout[16],
        secret[32];
    uint8_t received[1 << 20]; /* the last body, or its beginning */
    size_t received_size;
};

static uint64_t peer_sum(uint64_t sum, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sum = sum * 31 + data[i];
    return sum;
}

static ssize_t peer_send(nghttp2_session *session, const uint8_t *data, size_t size, int flags,
                         void *user)
{
    struct peer_connection *c = user;
    if (c->out_size + size > c->out_room) {
        c->out_room = (c->out_size + size) * 2;
        c->out = realloc(c->out, c->out_room);
    }
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
    return (ssize_t)size;
}

static ssize_t peer_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t room,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct peer_stream *stream = source->ptr;
    const struct peer_behaviour *b = &stream->connection->peer->behaviour;
    size_t part = room < stream->left ? room : stream->left;
    if (b->body)
        memcpy(buffer, b->body + stream->all - stream->left, part);
    else
        memset(buffer, 'r', part);
    stream->left -= part;
    if (stream->left == 0) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (!b->no_trailers) {
            const char *value = stream->fails ? "14" : b->grpc_status ? b->grpc_status : "0";
            const char *details = b->details ? b->details : "";
            nghttp2_nv trailers[] = {
                {(uint8_t *)"grpc-status", (uint8_t *)value, 11, strlen(value), 0},
                {(uint8_t *)"grpc-status-details-bin", (uint8_t *)details, 23, strlen(details), 0}};
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            nghttp2_submit_trailer(session, id, trailers, b->details ? 2 : 1);
        }
    }
    return (ssize_t)part;
}

static void peer_answer(struct peer_stream *stream)
{
    const struct peer_behaviour *b = &stream->connection->peer->behaviour;
    const char *status = b->no_trailers && stream->fails ? "503" : b->status ? b->status : "200";
    const char *type = b->content_type ? b->content_type : "application/grpc";
    const char *after = b->retry_after ? b->retry_after : "";
    nghttp2_nv head[] = {{(uint8_t *)":status", (uint8_t *)status, 7, strlen(status), 0},
                         {(uint8_t *)"content-type", (uint8_t *)type, 12, strlen(type), 0},
                         {(uint8_t *)"retry-after", (uint8_t *)after, 11, strlen(after), 0}};
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = peer_body};
    stream->waiting = false;
    stream->answered = true;
    stream->left = b->body ? b->body_size : b->response_size ? b->response_size : 2;
    stream->all = stream->left;
    if (b->reset)
        nghttp2_submit_rst_stream(stream->connection->session, 0, stream->id,
                                  NGHTTP2_INTERNAL_ERROR);
    else
        nghttp2_submit_response(stream->connection->session, stream->id, head,
                                b->retry_after ? 3 : 2, &body);
}

static int peer_begin(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct peer_connection *c = user;
    struct peer *peer = c->peer;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    if (peer->stream_count == PEER_STREAMS)
        abort();
    struct peer_stream *stream = &peer->streams[peer->stream_count++];
    *stream = (struct peer_stream){.connection = c,
                                   .id = frame->hd.stream_id,
                                   .fails = peer->stream_count <= peer->behaviour.fail_first};
    peer->received_size = 0;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
    if (++c->open > peer->most_open)
        peer->most_open = c->open;
    return 0;
}

static int peer_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                       size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                       void *user)
{
    struct peer *peer = ((struct peer_connection *)user)->peer;
    struct {
        const char *name;
        char *to;
        size_t room;
    } kept[] = {{":path", peer->path, sizeof peer->path},
                {"user-agent", peer->agent, sizeof peer->agent},
                {"te", peer->te, sizeof peer->te},
                {"content-type", peer->type, sizeof peer->type},
                {"content-encoding", peer->coding, sizeof peer->coding},
                {"grpc-encoding", peer->coding, sizeof peer->coding},
                {"grpc-timeout", peer->timeout, sizeof peer->timeout},
                {"x-secret", peer->secret, sizeof peer->secret},
                {":authority", peer->authority, sizeof peer->authority}};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        if (strlen(kept[i].name) == name_size && !memcmp(kept[i].name, name, name_size))
            snprintf(kept[i].to, kept[i].room, "%.*s", (int)value_size, (const char *)value);
    return 0;
}

static int peer_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                     size_t size, void *user)
{
    struct peer_connection *c = user;
    struct peer_stream *stream = nghttp2_session_get_stream_user_data(session, id);
    if (stream)
        stream->sum = peer_sum(stream->sum, data, size);
    struct peer *peer = c->peer;
    if (size <= sizeof peer->received - peer->received_size) {
        memcpy(peer->received + peer->received_size, data, size);
        peer->received_size += size;
    }
    peer->bytes += size;
    return 0;
}

static int peer_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct peer_connection *c = user;
    struct peer *peer = c->peer;
    const struct peer_behaviour *b = &peer->behaviour;
    struct peer_stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_DATA && frame->hd.length > peer->largest_frame)
        peer->largest_frame = frame->hd.length;
    peer->resets += frame->hd.type == NGHTTP2_RST_STREAM;
    peer->pings += frame->hd.type == NGHTTP2_PING;
    bool head = frame->hd.type == NGHTTP2_HEADERS && stream;
    bool complete = stream &&
                    (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                    frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    bool going = b->goaway_at && c->first;
    if (head) {
        c->requests++;
        if (peer->refused < b->refuse) {
            peer->refused++;
            nghttp2_submit_rst_stream(session, 0, stream->id, NGHTTP2_REFUSED_STREAM);
            return 0;
        }
        if (going && c->requests == b->goaway_at)
            nghttp2_submit_goaway(session, 0, stream->id - 2, NGHTTP2_NO_ERROR, NULL, 0);
    }
    if (going && stream && stream->id >= (int32_t)(2 * b->goaway_at - 1))
        return 0;
    if (complete) {
        peer->requests++;
        peer->sum = stream->sum;
        c->dead = b->die_on_request;
    }
    if ((complete || (head && b->early)) && !stream->answered && !stream->waiting) {
        stream->waiting = true;
        stream->held = b->answers && peer->requests > b->answers;
        stream->due_ns = flue_monotonic_ns() + b->delay_ms * MS;
    }
    return 0;
}

static int peer_closed(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    struct peer_stream *stream = nghttp2_session_get_stream_user_data(session, id);
    ((struct peer_connection *)user)->open--;
    if (stream)
        stream->waiting = false;
    return 0;
}

static void peer_drop(struct peer *peer, unsigned i)
{
    struct peer_connection *c = peer->connections[i];
    for (unsigned s = 0; s < peer->stream_count; s++)
        if (peer->streams[s].connection == c)
            peer->streams[s].waiting = false;
    nghttp2_session_del(c->session);
    SSL_free(c->ssl);
    close(c->fd);
    free(c->out);
    free(c);
    peer->connections[i] = NULL;
}

static int peer_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                     const unsigned char *in, unsigned int in_size, void *arg)
{
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_size, (const unsigned char *)"\x02h2", 3, in, in_size) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void peer_accept(struct peer *peer)
{
    const struct peer_behaviour *b = &peer->behaviour;
    int fd = accept(peer->listener, NULL, NULL);
    unsigned slot = 0;
    if (fd < 0)
        return;
    bool first = peer->accepted++ == 0;
    while (slot < PEER_CONNECTIONS && peer->connections[slot])
        slot++;
    SSL *ssl = NULL;
    if (b->tls) {
        SSL_CTX_set_alpn_select_cb(b->tls, peer_alpn, peer);
        ssl = SSL_new(b->tls);
        SSL_set_fd(ssl, fd);
    }
    if (b->close_at_once || slot == PEER_CONNECTIONS || (ssl && SSL_accept(ssl) != 1)) {
        SSL_free(ssl);
        close(fd);
        return;
    }
    struct peer_connection *c = calloc(1, sizeof *c);
    *c = (struct peer_connection){.peer = peer, .fd = fd, .ssl = ssl, .first = first};
    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_send_callback(callbacks, peer_send);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, peer_begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, peer_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, peer_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, peer_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, peer_closed);
    nghttp2_session_server_new(&c->session, callbacks, c);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_settings_entry settings[3];
    size_t count = 0;
    if (b->max_streams)
        settings[count++] = (nghttp2_settings_entry){3, b->max_streams};
    if (b->window)
        settings[count++] = (nghttp2_settings_entry){4, b->window};
    if (b->max_frame)
        settings[count++] = (nghttp2_settings_entry){5, b->max_frame};
    if (b->garbage)
        peer_send(NULL, (const uint8_t *)"HTTP/1.1 400 Bad Request\r\n\r\n", 28, 0, c);
    else if (!b->silent)
        nghttp2_submit_settings(c->session, 0, settings, count);
    peer->connections[slot] = c;
}

static void peer_write(struct peer_connection *c)
{
    if (!c->peer->behaviour.silent && !c->peer->behaviour.garbage)
        nghttp2_session_send(c->session);
    while (c->out_from < c->out_size) {
        size_t left = c->out_size - c->out_from;
        ssize_t n = c->ssl ? SSL_write(c->ssl, c->out + c->out_from, (int)left)
                           : send(c->fd, c->out + c->out_from, left, MSG_NOSIGNAL);
        if (n <= 0) {
            c->dead = true;
            return;
        }
        c->out_from += (size_t)n;
    }
    c->out_from = c->out_size = 0;
}

static void peer_read(struct peer_connection *c)
{
    static __thread uint8_t buffer[256 * 1024];
    do {
        ssize_t n = c->ssl ? SSL_read(c->ssl, buffer, sizeof buffer)
                           : recv(c->fd, buffer, sizeof buffer, 0);
        if (n <= 0 || (!c->peer->behaviour.garbage && !c->peer->behaviour.silent &&
                       nghttp2_session_mem_recv(c->session, buffer, (size_t)n) < 0)) {
            c->dead = true;
            return;
        }
    } while (c->ssl && SSL_pending(c->ssl));
}

static void *peer_main(void *arg)
{
    struct peer *peer = arg;
    for (;;) {
        struct pollfd fds[PEER_CONNECTIONS + 2] = {{.fd = peer->wake[0], .events = POLLIN},
                                                   {.fd = peer->listener, .events = POLLIN}};
        int wait = -1;
        uint64_t now = flue_monotonic_ns();
        for (unsigned i = 0; i < peer->stream_count; i++) {
            struct peer_stream *stream = &peer->streams[i];
            if (stream->waiting && stream->held && !peer->released) {
                wait = 2;
            } else if (stream->waiting && stream->due_ns <= now) {
                peer_answer(stream);
            } else if (stream->waiting) {
                int left = (int)((stream->due_ns - now) / MS) + 1;
                wait = wait < 0 || left < wait ? left : wait;
            }
        }
        for (unsigned i = 0; i < PEER_CONNECTIONS; i++) {
            struct peer_connection *c = peer->connections[i];
            if (c && !c->dead)
                peer_write(c);
            if (c && c->dead)
                peer_drop(peer, i);
            fds[i + 2] = (struct pollfd){.fd = peer->connections[i] ? peer->connections[i]->fd : -1,
                                         .events = POLLIN};
        }
        poll(fds, PEER_CONNECTIONS + 2, wait);
        if (fds[0].revents)
            break;
        for (unsigned i = 0; i < PEER_CONNECTIONS; i++)
            if (fds[i + 2].revents && peer->connections[i])
                peer_read(peer->connections[i]);
        if (fds[1].revents)
            peer_accept(peer);
    }
    for (unsigned i = 0; i < PEER_CONNECTIONS; i++)
        if (peer->connections[i])
            peer_drop(peer, i);
    return NULL;
}

static int bind_loopback(unsigned short *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons(*port)};
    socklen_t size = sizeof at;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    getsockname(fd, (struct sockaddr *)&at, &size);
    *port = ntohs(at.sin_port);
    return fd;
}

/* A port where nobody listens, and nobody will: it stays bound until the program ends. */
PEER unsigned short dead_port(void)
{
    unsigned short port = 0;
    (void)bind_loopback(&port);
    return port;
}

/* When the listener is closed, its port is a dead one, not another program's. */
PEER int listen_loopback(unsigned short *port)
{
    *port = dead_port();
    int fd = bind_loopback(port);
    assert_int_equal(listen(fd, 128), 0);
    return fd;
}

PEER struct peer *peer_start(const struct peer_behaviour *behaviour)
{
    struct peer *peer = calloc(1, sizeof *peer);
    peer->behaviour = *behaviour;
    signal(SIGPIPE, SIG_IGN); /* the peer's own SSL_write */
    assert_int_equal(pipe(peer->wake), 0);
    if (behaviour->unix_path) {
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        snprintf(at.sun_path, sizeof at.sun_path, "%s", behaviour->unix_path);
        unlink(at.sun_path);
        peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(peer->listener, (struct sockaddr *)&at, sizeof at), 0);
        assert_int_equal(listen(peer->listener, 128), 0);
    } else {
        peer->listener = listen_loopback(&peer->port);
    }
    assert_int_equal(pthread_create(&peer->thread, NULL, peer_main, peer), 0);
    return peer;
}

PEER void peer_stop(struct peer *peer)
{
    assert_int_equal(write(peer->wake[1], "x", 1), 1);
    pthread_join(peer->thread, NULL);
    close(peer->listener);
    close(peer->wake[0]);
    close(peer->wake[1]);
    if (peer->behaviour.unix_path)
        unlink(peer->behaviour.unix_path);
    free(peer);
}

/* A self-signed certificate for `name`; its PEM in `pem`. */
PEER SSL_CTX *peer_tls(const char *name, char *pem, size_t pem_size)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    char names[128];
    X509V3_CTX context;
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 7);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    snprintf(names, sizeof names, "DNS:%s", name);
    X509V3_set_ctx_nodb(&context);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, names);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(tls, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls, key), 1);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, certificate);
    int size = BIO_read(bio, pem, (int)pem_size - 1);
    assert_true(size > 0);
    pem[size] = 0;
    BIO_free(bio);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return tls;
}

/* ---- the client's side ---------------------------------------------------------------------- */

struct bench { /* one loop with a client, driven from the test's thread */
    struct flue_loops *loops;
    struct flue_client *client;
    struct flue_client_config config;
    struct flue_error error;
    enum flue_code code;
    struct flue_client_stats stats;
};

struct test_call {
    struct flue_call call;
    struct bench *bench;
    sem_t ended;
    struct flue_error error; /* kept from the result, as everything here */
    unsigned status, ends;
    bool sent;
    char response[256], trailer[32], header[64];
    size_t response_size;
    enum flue_code grpc;
    struct flue_error grpc_error;
    uint32_t retry_after_ms;
    struct flue_bytes items[64];
    struct flue_slices body;
    bool cancel_at_once, free_body; /* free it in done, as callers do */
};

static void bench_new(struct flue_loop *loop, void *arg)
{
    struct bench *bench = arg;
    bench->code = flue_client_new(loop, &bench->config, NULL, &bench->client, &bench->error);
}

PEER void bench_start(struct bench *bench, const struct flue_client_config *config)
{
    memset(bench, 0, sizeof *bench);
    bench->config = *config;
    assert_int_equal(flue_loops_new(1, &bench->loops, NULL), FLUE_OK);
    assert_int_equal(flue_loops_run(bench->loops, NULL), FLUE_OK);
    flue_loop_call(bench->loops->items[0], bench_new, bench);
}

static void bench_destroy(struct flue_loop *loop, void *arg)
{
    flue_client_destroy(((struct bench *)arg)->client);
    ((struct bench *)arg)->client = NULL;
}

PEER void bench_stop(struct bench *bench)
{
    flue_loop_call(bench->loops->items[0], bench_destroy, bench);
    flue_loops_destroy(bench->loops);
}

static void get_stats(struct flue_loop *loop, void *arg)
{
    flue_client_stats(((struct bench *)arg)->client, &((struct bench *)arg)->stats);
}

PEER struct flue_client_stats bench_stats(struct bench *bench)
{
    flue_loop_call(bench->loops->items[0], get_stats, bench);
    return bench->stats;
}

static void call_done(struct flue_call *call)
{
    struct test_call *test = call->user;
    struct flue_arena arena;
    struct flue_bytes message;
    flue_arena_init(&arena, 0, 0);
    test->ends++;
    test->error = call->error;
    test->status = call->status;
    test->sent = call->sent;
    test->response_size = call->response.size;
    snprintf(test->response, sizeof test->response, "%.*s", FLUE_PRI(call->response));
    test->retry_after_ms = flue_call_retry_after_ms(call);
    snprintf(test->header, sizeof test->header, "%.*s", FLUE_PRI(flue_call_header(call, "x-test")));
    for (size_t i = 0; i < call->trailer_count; i++)
        snprintf(test->trailer, sizeof test->trailer, "%.*s", FLUE_PRI(call->trailers[i].value));
    test->grpc = flue_call_grpc_result(call, &arena, &message, &test->grpc_error);
    flue_arena_destroy(&arena);
    if (test->free_body) {
        free((void *)test->items[0].data);
        test->body.count = 0;
    }
    sem_post(&test->ended);
}

static void call_send(struct flue_loop *loop, void *arg)
{
    struct test_call *test = arg;
    flue_call_send(&test->call);
    if (test->ends != 0) /* never from within */
        abort();
    if (test->cancel_at_once)
        flue_call_cancel(&test->call);
}

static void call_cancel(struct flue_loop *loop, void *arg)
{
    flue_call_cancel(&((struct test_call *)arg)->call);
}

/* A POST of `size` bytes, cut into slices of `slice` (0: one). */
PEER struct test_call *call_new(struct bench *bench, size_t size, size_t slice)
{
    static const struct flue_header headers[] = {
        {FLUE_BYTES_INIT("content-type"), FLUE_BYTES_INIT("application/grpc")},
        {FLUE_BYTES_INIT("te"), FLUE_BYTES_INIT("trailers")}};
    struct test_call *test = calloc(1, sizeof *test);
    uint8_t *data = size ? malloc(size) : NULL;
    test->bench = bench;
    sem_init(&test->ended, 0, 0);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    test->body.items = test->items;
    for (size_t at = 0; at < size;) {
        size_t part = slice && test->body.count < 63 && slice < size - at ? slice : size - at;
        test->items[test->body.count++] = flue_bytes(data + at, part);
        at += part;
    }
    test->body.total = size;
    test->call = (struct flue_call){.client = bench->client,
                                    .method = FLUE_BYTES("POST"),
                                    .path = FLUE_BYTES("/x.Y/Z"),
                                    .headers = headers,
                                    .header_count = 2,
                                    .body = &test->body,
                                    .done = call_done,
                                    .user = test};
    return test;
}

PEER void call_start(struct test_call *test)
{
    flue_loop_call(test->bench->loops->items[0], call_send, test);
}

PEER void call_stop(struct test_call *test)
{
    flue_loop_call(test->bench->loops->items[0], call_cancel, test);
}

PEER void call_wait(struct test_call *test)
{
    struct timespec until;
    int result;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 120;
    while ((result = sem_timedwait(&test->ended, &until)) != 0 && errno == EINTR)
        continue;
    assert_int_equal(result, 0);
    assert_int_equal(test->ends, 1);
}

PEER uint64_t call_sum(const struct test_call *test)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < test->body.count; i++)
        sum = peer_sum(sum, test->items[i].data, test->items[i].size);
    return sum;
}

PEER void call_free(struct test_call *test)
{
    if (test->body.count)
        free((void *)test->items[0].data);
    sem_destroy(&test->ended);
    free(test);
}

/* Until a condition holds, at most two minutes. */
#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        uint64_t await_until_ = flue_monotonic_ns() + 120000 * MS;                                 \
        while (!(condition)) {                                                                     \
            assert_true(flue_monotonic_ns() < await_until_);                                       \
            usleep(1000);                                                                          \
        }                                                                                          \
    } while (0)

#endif
