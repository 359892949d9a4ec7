/* client_connection.c: a non-blocking socket, TLS if asked for, and the output queue.
 *
 * Plain text leaves in one sendmsg of frame heads and borrowed slices. With TLS the records are
 * gathered in `cipher` (through a BIO of our own) and leave in one send. */
#include "collector/net/client_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RECORD      16384u
#define RECORD_ROOM (RECORD + 512u)
#define CIPHER_SIZE (8 * RECORD_ROOM)
#define READ_TURNS  16 /* reads of a full buffer before others get their turn */
#define WRITE_TURNS 8
#define COPY_BELOW  192 /* smaller slices are copied: an iovec costs more */

/* ---- the queue ------------------------------------------------------------------------------ */

size_t flue_client_queue_vectors_left(const struct client_queue *queue)
{
    return QUEUE_VECTORS - queue->count;
}

/* Room for what nghttp2 may produce in one step (a HEADERS frame, or a DATA frame's head and at
 * least one slice). */
bool flue_client_queue_room(const struct client_queue *queue)
{
    return QUEUE_VECTORS - queue->count >= 8 &&
           QUEUE_CONTROL - queue->control_size >= RECORD + 1024 &&
           queue->queued - queue->sent < QUEUE_BYTES;
}

static void queue_add(struct client_queue *queue, const uint8_t *data, size_t size)
{
    struct iovec *last = queue->count > queue->from ? &queue->vectors[queue->count - 1] : NULL;
    queue->queued += size;
    if (last && (const uint8_t *)last->iov_base + last->iov_len == data) {
        last->iov_len += size;
        return;
    }
    queue->vectors[queue->count].iov_base = (void *)data;
    queue->vectors[queue->count++].iov_len = size;
}

void flue_client_queue_copy(struct client_queue *queue, const uint8_t *data, size_t size)
{
    uint8_t *at = queue->control + queue->control_size;
    memcpy(at, data, size);
    queue->control_size += size;
    queue_add(queue, at, size);
}

void flue_client_queue_borrow(struct client_queue *queue, const uint8_t *data, size_t size)
{
    if (size < COPY_BELOW && QUEUE_CONTROL - queue->control_size >= size)
        flue_client_queue_copy(queue, data, size);
    else
        queue_add(queue, data, size);
}

static bool queue_empty(const struct client_queue *queue)
{
    return queue->from == queue->count;
}

static void queue_advance(struct client_queue *queue, size_t size)
{
    queue->sent += size;
    while (size) {
        struct iovec *vector = &queue->vectors[queue->from];
        if (size < vector->iov_len) {
            vector->iov_base = (uint8_t *)vector->iov_base + size;
            vector->iov_len -= size;
            return;
        }
        size -= vector->iov_len;
        queue->from++;
    }
    if (queue_empty(queue)) {
        queue->from = queue->count = 0;
        queue->control_size = 0;
        free(queue->rescued);
        queue->rescued = NULL;
    }
}

bool flue_client_queue_rescue(struct client_queue *queue, uint64_t until)
{
    if (until <= queue->sent || queue_empty(queue))
        return true;
    size_t left = (size_t)(queue->queued - queue->sent), at = 0;
    uint8_t *rescued = malloc(left);
    if (!rescued)
        return false;
    for (size_t i = queue->from; i < queue->count; i++) {
        memcpy(rescued + at, queue->vectors[i].iov_base, queue->vectors[i].iov_len);
        at += queue->vectors[i].iov_len;
    }
    free(queue->rescued);
    queue->rescued = rescued;
    queue->from = 0;
    queue->count = 1;
    queue->vectors[0] = (struct iovec){rescued, left};
    queue->control_size = 0;
    return true;
}

/* ---- TLS ------------------------------------------------------------------------------------ */

static int bio_write(BIO *bio, const char *data, size_t size, size_t *written)
{
    struct client_connection *connection = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (size > CIPHER_SIZE - connection->cipher_size) {
        BIO_set_retry_write(bio);
        return 0;
    }
    memcpy(connection->cipher + connection->cipher_size, data, size);
    connection->cipher_size += size;
    *written = size;
    return 1;
}

static int bio_read(BIO *bio, char *data, size_t size, size_t *got)
{
    struct client_connection *connection = BIO_get_data(bio);
    ssize_t n;
    BIO_clear_retry_flags(bio);
    do
        n = recv(connection->fd, data, size, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        *got = (size_t)n;
        return 1;
    }
    if (n < 0 && errno == EAGAIN)
        BIO_set_retry_read(bio);
    return 0;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP || command == BIO_CTRL_PUSH ||
           command == BIO_CTRL_POP;
}

static BIO_METHOD *bio_method;
static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "flue client");
    if (bio_method) {
        BIO_meth_set_write_ex(bio_method, bio_write);
        BIO_meth_set_read_ex(bio_method, bio_read);
        BIO_meth_set_ctrl(bio_method, bio_control);
    }
}

static bool begin_tls(struct client_connection *connection)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static const unsigned char both[] = "\x02h2\x08http/1.1";
    struct flue_client *client = connection->client;
    const char *name = client->target.server_name;
    pthread_once(&once, make_bio_method);
    SSL_CTX *context = flue_tls_context(client->tls);
    connection->ssl = SSL_new(context);
    SSL_CTX_free(context);
    connection->cipher = malloc(CIPHER_SIZE);
    BIO *bio = bio_method ? BIO_new(bio_method) : NULL;
    if (!connection->ssl || !connection->cipher || !bio) {
        BIO_free(bio);
        return false;
    }
    BIO_set_data(bio, connection);
    BIO_set_init(bio, 1);
    SSL_set_bio(connection->ssl, bio, bio);
    SSL_set_connect_state(connection->ssl);
    SSL_set_mode(connection->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
    SSL_set_alpn_protos(connection->ssl, both,
                        client->config.protocol == FLUE_CLIENT_PROBE ? sizeof both - 1 : 3);
    X509_VERIFY_PARAM *verify = SSL_get0_param(connection->ssl);
    if (flue_client_is_ip(name))
        return X509_VERIFY_PARAM_set1_ip_asc(verify, name) == 1;
    X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(verify, name, 0) == 1 &&
           SSL_set_tlsext_host_name(connection->ssl, name) == 1;
}

static void tls_failed(struct client_connection *connection, const char *doing)
{
    const char *address = connection->address->text;
    long verdict = SSL_get_verify_result(connection->ssl);
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    if (verdict != X509_V_OK && connection->stage == CONNECTION_HANDSHAKE &&
        SSL_get_verify_mode(connection->ssl) != SSL_VERIFY_NONE)
        flue_client_connection_fail(connection,
                                    "TLS: the certificate of %s does not pass for \"%s\": %s (see "
                                    "tls.ca_file, tls.server_name_override)",
                                    address, connection->client->target.server_name,
                                    X509_verify_cert_error_string(verdict));
    else
        flue_client_connection_fail(connection, "TLS with %s: %s failed: %s", address, doing,
                                    reason ? reason : "the peer closed the connection");
}

/* ---- polling -------------------------------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int events);

static void want(struct client_connection *connection, int events)
{
    if (connection->events == events || connection->stage == CONNECTION_CLOSED)
        return;
    connection->events = events;
    uv_poll_start(&connection->poll, events, on_poll);
}

void flue_client_connection_dirty(struct client_connection *connection)
{
    if (connection->dirty || connection->stage == CONNECTION_CLOSED)
        return;
    connection->dirty = true;
    connection->dirty_next = connection->client->dirty;
    connection->client->dirty = connection;
}

/* ---- ends ----------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    struct client_connection *connection = handle->data;
    struct flue_client *client = connection->client;
    free(connection->queue.rescued);
    free(connection->cipher);
    free(connection);
    flue_client_handle_closed(client);
}

void flue_client_connection_close(struct client_connection *connection)
{
    struct flue_client *client = connection->client;
    if (connection->stage == CONNECTION_CLOSED)
        return;
    connection->stage = CONNECTION_CLOSED;
    for (struct client_connection **at = &client->connections; *at; at = &(*at)->next)
        if (*at == connection) {
            *at = connection->next;
            break;
        }
    for (struct client_connection **at = &client->dirty; *at; at = &(*at)->dirty_next)
        if (*at == connection) {
            *at = connection->dirty_next;
            break;
        }
    flue_timer_disarm(client->loop, &connection->timer);
    nghttp2_session_del(connection->session);
    connection->session = NULL;
    SSL_free(connection->ssl);
    connection->ssl = NULL;
    connection->address->connections--;
    flue_client_address_unref(connection->address);
    connection->address = NULL;
    /* Before the descriptor's number can be another's: closing the handle looks at it again. */
    uv_close((uv_handle_t *)&connection->poll, on_closed);
    close(connection->fd);
}

void flue_client_connection_fail(struct client_connection *connection, const char *format, ...)
{
    struct flue_client *client = connection->client;
    struct client_state *state;
    struct flue_error error = {.code = FLUE_UNAVAILABLE};
    va_list args;
    if (connection->stage == CONNECTION_CLOSED)
        return;
    va_start(args, format);
    vsnprintf(error.text, sizeof error.text, format, args);
    va_end(args);
    bool was_ready = connection->stage >= CONNECTION_READY;
    /* A peer that takes connections and drops them is as good as none. */
    if (!was_ready || (connection->answered == 0 &&
                       flue_monotonic_ns() - connection->started_ns < CLIENT_SECOND)) {
        if (!connection->address->gone)
            flue_client_address_failed(client, connection->address);
        client->last_error = error;
    }
    client->stale = true;
    connection->stage = CONNECTION_DRAINING;
    connection->broken = true;
    while ((state = connection->calls.first)) {
        if (flue_client_http2_was_sent(state) || !flue_client_requeue(state))
            flue_client_finish(state, FLUE_UNAVAILABLE, "%s", error.text);
    }
    client->scheduled = true;
    flue_client_connection_close(connection);
}

static void peer_closed(struct client_connection *connection, int saved_errno)
{
    const char *why = saved_errno ? strerror(saved_errno) : "closed by the peer";
    switch (connection->stage) {
    case CONNECTION_CONNECTING:
        flue_client_connection_fail(connection, "cannot connect to %s: %s",
                                    connection->address->text, why);
        break;
    case CONNECTION_DRAINING:
        if (connection->calls.first)
            flue_client_connection_fail(connection, "connection to %s: %s",
                                        connection->address->text, why);
        else
            flue_client_connection_close(connection);
        break;
    case CONNECTION_READY:
        if (!connection->calls.first && connection->answered) { /* an idle one; nothing is wrong */
            connection->client->stale = true;
            flue_client_connection_close(connection);
            break;
        }
        flue_client_connection_fail(connection, "connection to %s: %s", connection->address->text,
                                    why);
        break;
    default:
        flue_client_connection_fail(connection, "connection to %s: %s before it could be used%s",
                                    connection->address->text, why,
                                    connection->ssl ||
                                            connection->client->config.protocol == FLUE_CLIENT_PROBE
                                        ? ""
                                        : " (does it speak HTTP/2 without TLS?)");
        break;
    }
}

/* The peer does not speak HTTP/2: HTTP/1.1 for some minutes, then it is asked again. */
static void speaks_http1(struct client_connection *connection)
{
    struct flue_client *client = connection->client;
    connection->address->speaks = CLIENT_SPEAKS_HTTP1;
    connection->address->probe_at_ns = flue_monotonic_ns() + CLIENT_PROBE_AGAIN;
    flue_client_address_works(connection->address);
    client->scheduled = true;
    flue_client_connection_close(connection);
}

/* nghttp2 says that it cannot go on; `error` says why. */
static void session_failed(struct client_connection *connection)
{
    if (connection->guess && connection->stage == CONNECTION_SETTINGS)
        speaks_http1(connection);
    else
        flue_client_connection_fail(connection, "%s", connection->error.text);
}

/* ---- writing -------------------------------------------------------------------------------- */

enum written { WRITTEN_ALL, WRITTEN_PART, WRITTEN_FAILED };

static enum written write_plain(struct client_connection *connection)
{
    struct client_queue *queue = &connection->queue;
    while (!queue_empty(queue)) {
        struct msghdr message = {.msg_iov = queue->vectors + queue->from,
                                 .msg_iovlen = queue->count - queue->from};
        ssize_t n = sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return WRITTEN_PART;
        if (n < 0) {
            peer_closed(connection, errno);
            return WRITTEN_FAILED;
        }
        queue_advance(queue, (size_t)n);
    }
    return WRITTEN_ALL;
}

static enum written write_cipher(struct client_connection *connection)
{
    while (connection->cipher_from < connection->cipher_size) {
        ssize_t n =
            send(connection->fd, connection->cipher + connection->cipher_from,
                 connection->cipher_size - connection->cipher_from, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return WRITTEN_PART;
        if (n < 0) {
            peer_closed(connection, errno);
            return WRITTEN_FAILED;
        }
        connection->cipher_from += (size_t)n;
    }
    connection->cipher_from = connection->cipher_size = 0;
    return WRITTEN_ALL;
}

/* One record: from the slice itself where it is long enough. False: the connection failed. */
static bool encrypt_record(struct client_connection *connection)
{
    uint8_t gathered[RECORD];
    struct client_queue *queue = &connection->queue;
    const struct iovec *first = &queue->vectors[queue->from];
    const uint8_t *data = first->iov_base;
    size_t size = first->iov_len, written;
    if (size >= RECORD) {
        size = RECORD;
    } else if (queue->from + 1 < queue->count) {
        size = 0;
        for (size_t i = queue->from; i < queue->count && size < RECORD; i++) {
            size_t part = queue->vectors[i].iov_len;
            if (part > RECORD - size)
                part = RECORD - size;
            memcpy(gathered + size, queue->vectors[i].iov_base, part);
            size += part;
        }
        data = gathered;
    }
    ERR_clear_error();
    if (SSL_write_ex(connection->ssl, data, size, &written) != 1) {
        int why = SSL_get_error(connection->ssl, 0);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
            return true;
        tls_failed(connection, "writing");
        return false;
    }
    queue_advance(queue, written);
    return true;
}

static enum written write_tls(struct client_connection *connection)
{
    struct client_queue *queue = &connection->queue;
    for (;;) {
        uint64_t before = queue->sent;
        while (!queue_empty(queue) && CIPHER_SIZE - connection->cipher_size >= RECORD_ROOM) {
            uint64_t at = queue->sent;
            if (!encrypt_record(connection))
                return WRITTEN_FAILED;
            if (queue->sent == at)
                break;
        }
        enum written result = write_cipher(connection);
        if (result != WRITTEN_ALL || queue_empty(queue))
            return result;
        if (queue->sent == before)
            return WRITTEN_PART;
    }
}

void flue_client_connection_flush(struct client_connection *connection)
{
    if (connection->stage == CONNECTION_CLOSED || connection->stage == CONNECTION_CONNECTING)
        return;
    if (connection->stage == CONNECTION_HANDSHAKE) {
        if (write_cipher(connection) == WRITTEN_PART)
            want(connection, UV_READABLE | UV_WRITABLE);
        else if (connection->stage != CONNECTION_CLOSED)
            want(connection, UV_READABLE);
        return;
    }
    for (unsigned turn = 0; turn < WRITE_TURNS; turn++) {
        if (connection->broken ||
            (queue_empty(&connection->queue) && !flue_client_http2_fill(connection))) {
            session_failed(connection);
            return;
        }
        bool idle = queue_empty(&connection->queue) && connection->cipher_size == 0;
        if (idle) {
            want(connection, UV_READABLE);
            if (connection->stage == CONNECTION_DRAINING && connection->streams == 0)
                flue_client_connection_close(connection);
            return;
        }
        enum written result = connection->ssl ? write_tls(connection) : write_plain(connection);
        if (result == WRITTEN_FAILED)
            return;
        if (result == WRITTEN_PART) {
            want(connection, UV_READABLE | UV_WRITABLE);
            return;
        }
    }
    want(connection, UV_READABLE | UV_WRITABLE); /* more to say, but others wait too */
}

/* ---- reading -------------------------------------------------------------------------------- */

static bool hand_over(struct client_connection *connection, const uint8_t *data, size_t size)
{
    if (flue_client_http2_receive(connection, data, size))
        return true;
    session_failed(connection);
    return false;
}

static void read_plain(struct client_connection *connection)
{
    struct flue_loop *loop = connection->client->loop;
    for (unsigned turn = 0; turn < READ_TURNS; turn++) {
        ssize_t n = recv(connection->fd, loop->receive, FLUE_LOOP_RECEIVE_SIZE, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            int saved = n < 0 ? errno : 0;
            if (connection->guess && connection->stage == CONNECTION_SETTINGS)
                speaks_http1(connection);
            else
                peer_closed(connection, saved);
            return;
        }
        if (!hand_over(connection, loop->receive, (size_t)n) || n < (ssize_t)FLUE_LOOP_RECEIVE_SIZE)
            return;
    }
}

static void read_tls(struct client_connection *connection)
{
    struct flue_loop *loop = connection->client->loop;
    /* Until it says "no more": what it holds already, no poll will announce. */
    for (;;) {
        size_t got;
        ERR_clear_error();
        if (SSL_read_ex(connection->ssl, loop->receive, FLUE_LOOP_RECEIVE_SIZE, &got) != 1) {
            switch (SSL_get_error(connection->ssl, 0)) {
            case SSL_ERROR_WANT_READ:
            case SSL_ERROR_WANT_WRITE:
                break;
            case SSL_ERROR_ZERO_RETURN:
                peer_closed(connection, 0);
                return;
            default:
                if (ERR_peek_error())
                    tls_failed(connection, "reading");
                else
                    peer_closed(connection, errno);
                return;
            }
            break;
        }
        if (!hand_over(connection, loop->receive, got))
            return;
    }
    if (connection->cipher_size)
        flue_client_connection_dirty(connection);
}

/* ---- getting ready -------------------------------------------------------------------------- */

static void begin_http2(struct client_connection *connection)
{
    connection->stage = CONNECTION_SETTINGS;
    connection->heard_ns = flue_monotonic_ns();
    if (!flue_client_http2_begin(connection)) {
        flue_client_connection_fail(connection, "no memory for a connection to %s",
                                    connection->address->text);
        return;
    }
    flue_client_connection_timer(connection);
    flue_client_connection_dirty(connection);
}

static void handshake(struct client_connection *connection)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(connection->ssl);
    int saved = errno;
    if (result != 1) {
        int why = SSL_get_error(connection->ssl, result);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
            flue_client_connection_flush(connection);
            return;
        }
        if (why == SSL_ERROR_SYSCALL && saved)
            peer_closed(connection, saved);
        else {
            write_cipher(connection); /* the alert that tells the peer why */
            if (connection->stage != CONNECTION_CLOSED)
                tls_failed(connection, "the handshake");
        }
        return;
    }
    const unsigned char *chosen;
    unsigned int size;
    SSL_get0_alpn_selected(connection->ssl, &chosen, &size);
    bool h2 = size == 2 && memcmp(chosen, "h2", 2) == 0;
    if (!h2 && connection->client->config.protocol == FLUE_CLIENT_PROBE)
        speaks_http1(connection);
    else
        begin_http2(connection); /* gRPC servers without ALPN speak HTTP/2 all the same */
}

static void connected(struct client_connection *connection, int status)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (!error && status < 0)
        error = -status; /* libuv says EBADF for whatever poll calls an error */
    if (error) {
        peer_closed(connection, error);
        return;
    }
    want(connection, UV_READABLE);
    if (!connection->client->use_tls) {
        connection->guess = connection->client->config.protocol == FLUE_CLIENT_PROBE &&
                            connection->address->speaks != CLIENT_SPEAKS_HTTP2;
        begin_http2(connection);
        return;
    }
    connection->stage = CONNECTION_HANDSHAKE;
    if (!begin_tls(connection)) {
        flue_client_connection_fail(connection, "no memory for TLS with %s",
                                    connection->address->text);
        return;
    }
    handshake(connection);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct client_connection *connection = poll->data;
    struct flue_client *client = connection->client;
    if (connection->stage == CONNECTION_CONNECTING) {
        connected(connection, status);
    } else if (connection->stage == CONNECTION_HANDSHAKE) {
        if (events & UV_WRITABLE)
            flue_client_connection_flush(connection);
        if (connection->stage == CONNECTION_HANDSHAKE)
            handshake(connection);
    } else if (connection->stage != CONNECTION_CLOSED) {
        if (status < 0 || events & UV_READABLE) {
            if (connection->ssl)
                read_tls(connection);
            else
                read_plain(connection);
        }
        if (connection->stage != CONNECTION_CLOSED)
            flue_client_connection_dirty(connection);
    }
    flue_client_run_finished(client);
}

/* ---- the timer ------------------------------------------------------------------------------ */

/* One timer for all: connecting, the answer to a PING, silence, idleness. It is not moved by
 * traffic; when it fires it looks at what has happened meanwhile. */
void flue_client_connection_timer(struct client_connection *connection)
{
    const struct flue_client_config *config = &connection->client->config;
    uint64_t due = 0;
    if (connection->stage < CONNECTION_READY) {
        due = connection->guess && connection->stage == CONNECTION_SETTINGS
                  ? connection->heard_ns + CLIENT_PROBE_TIMEOUT
                  : connection->started_ns + CLIENT_CONNECT_TIMEOUT;
    } else if (connection->stage != CONNECTION_CLOSED) {
        uint64_t idle = connection->idle_since_ns && config->idle_timeout > 0
                            ? connection->idle_since_ns + (uint64_t)config->idle_timeout
                            : 0;
        uint64_t ping = 0;
        if (connection->ping_sent_ns)
            ping = connection->ping_sent_ns + (uint64_t)config->keepalive_timeout;
        else if (config->keepalive_time > 0 &&
                 (connection->streams || config->keepalive_without_calls))
            ping = connection->heard_ns + (uint64_t)config->keepalive_time;
        due = idle && (!ping || idle < ping) ? idle : ping;
    }
    if (due)
        flue_timer_arm(connection->client->loop, &connection->timer, due);
    else
        flue_timer_disarm(connection->client->loop, &connection->timer);
}

static bool readable(const struct client_connection *connection)
{
    struct pollfd one = {.fd = connection->fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1;
}

static void on_timer(struct flue_timer *timer)
{
    struct client_connection *connection =
        (struct client_connection *)(void *)((char *)timer -
                                             offsetof(struct client_connection, timer));
    struct flue_client *client = connection->client;
    const struct flue_client_config *config = &client->config;
    uint64_t now = flue_monotonic_ns();
    if (connection->stage == CONNECTION_CONNECTING || connection->stage == CONNECTION_HANDSHAKE) {
        flue_client_connection_fail(
            connection, "no connection to %s within 10 s%s", connection->address->text,
            connection->stage == CONNECTION_HANDSHAKE ? " (TLS handshake)" : "");
    } else if (connection->stage == CONNECTION_SETTINGS) {
        /* A loop that was busy for longer than that must read what lies there before it judges. */
        if (connection->guess && readable(connection))
            flue_timer_arm(client->loop, &connection->timer, now + CLIENT_PROBE_TIMEOUT);
        else if (connection->guess)
            speaks_http1(connection);
        else
            flue_client_connection_fail(
                connection, "%s took the connection but sent no HTTP/2 SETTINGS within 10 s",
                connection->address->text);
    } else {
        if (connection->ping_sent_ns) {
            if (connection->heard_ns > connection->ping_sent_ns)
                connection->ping_sent_ns = 0;
            else if (now - connection->ping_sent_ns >= (uint64_t)config->keepalive_timeout) {
                flue_client_connection_fail(connection, "%s did not answer a keepalive PING",
                                            connection->address->text);
                flue_client_run_finished(client);
                return;
            }
        } else if (config->keepalive_time > 0 &&
                   (connection->streams || config->keepalive_without_calls) &&
                   now - connection->heard_ns >= (uint64_t)config->keepalive_time) {
            connection->ping_sent_ns = now;
            flue_client_http2_ping(connection);
        }
        if (connection->idle_since_ns && config->idle_timeout > 0 &&
            now - connection->idle_since_ns >= (uint64_t)config->idle_timeout) {
            connection->stage = CONNECTION_DRAINING;
            nghttp2_session_terminate_session(connection->session, NGHTTP2_NO_ERROR);
            flue_client_connection_dirty(connection);
        } else {
            flue_client_connection_timer(connection);
        }
    }
    flue_client_run_finished(client);
}

/* ---- opening -------------------------------------------------------------------------------- */

struct client_connection *flue_client_connection_open(struct flue_client *client,
                                                      struct client_address *address)
{
    struct client_connection *connection = malloc(sizeof *connection);
    int family = address->storage.ss_family, on = 1, fd = -1, saved = ENOMEM;
    if (address->speaks == CLIENT_SPEAKS_HTTP1)
        address->probe_at_ns = flue_monotonic_ns() + CLIENT_PROBE_AGAIN;
    if (connection) {
        /* The queue's arrays are left untouched: pages that are not used are not there. */
        memset(connection, 0, offsetof(struct client_connection, queue));
        memset(&connection->queue.from, 0,
               offsetof(struct client_queue, control) - offsetof(struct client_queue, from));
        connection->queue.queued = connection->queue.sent = 1;
        fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        saved = errno;
    }
    if (fd >= 0) {
        if (family != AF_UNIX)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        saved = 0;
        if (connect(fd, (struct sockaddr *)&address->storage, address->size) != 0 &&
            errno != EINPROGRESS)
            saved = errno;
    }
    if (!saved && uv_poll_init_socket(&client->loop->uv, &connection->poll, fd) != 0)
        saved = ENOMEM;
    if (saved) {
        flue_client_address_failed(client, address);
        flue_fail(&client->last_error, FLUE_UNAVAILABLE, "cannot connect to %s: %s", address->text,
                  strerror(saved));
        if (fd >= 0)
            close(fd);
        free(connection);
        return NULL;
    }
    connection->client = client;
    connection->address = address;
    connection->fd = fd;
    connection->started_ns = flue_monotonic_ns();
    connection->timer.fire = on_timer;
    connection->poll.data = connection;
    address->refs++;
    address->connections++;
    connection->next = client->connections;
    client->connections = connection;
    client->handles++;
    want(connection, UV_WRITABLE);
    flue_client_connection_timer(connection);
    return connection;
}
