#include "collector/net/connection.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/net/request.h"

#define READS_PER_EVENT 16
#define TLS_PIECE       (16u * 1024)

static const uint8_t http2_preface[24] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void close_connection(struct flue_connection *connection);

/* ---- TLS: OpenSSL reads from what was received and writes into the queue
 * ------------------------- */

static int bio_read(BIO *bio, char *to, size_t room, size_t *got)
{
    struct flue_connection *connection = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (connection->tls_in.size == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    *got = connection->tls_in.size < room ? connection->tls_in.size : room;
    memcpy(to, connection->tls_in.data, *got);
    connection->tls_in = flue_bytes_from(connection->tls_in, *got);
    return 1;
}

static int bio_write(BIO *bio, const char *from, size_t size, size_t *written)
{
    struct flue_connection *connection = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (!flue_outqueue_write(&connection->out, flue_bytes(from, size)))
        return 0;
    *written = size;
    return 1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_once = PTHREAD_ONCE_INIT;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "flue connection");
    if (bio_method) {
        BIO_meth_set_read_ex(bio_method, bio_read);
        BIO_meth_set_write_ex(bio_method, bio_write);
        BIO_meth_set_ctrl(bio_method, bio_control);
    }
}

static bool tls_start(struct flue_connection *connection)
{
    pthread_once(&bio_once, make_bio_method);
    SSL_CTX *context = flue_tls_context(connection->listener->tls);
    connection->ssl = SSL_new(context);
    SSL_CTX_free(context);
    BIO *bio = connection->ssl && bio_method ? BIO_new(bio_method) : NULL;
    if (!bio)
        return false;
    BIO_set_data(bio, connection);
    BIO_set_init(bio, 1);
    SSL_set_bio(connection->ssl, bio, bio);
    SSL_set_accept_state(connection->ssl);
    return true;
}

static bool session_start(struct flue_connection *connection, bool http2)
{
    return http2 ? flue_http2_session_new(connection) : flue_http1_session_new(connection);
}

static bool tls_handshaken(struct flue_connection *connection)
{
    connection->handshaken = true;
    X509 *certificate = SSL_get0_peer_certificate(connection->ssl);
    if (certificate) {
        BIO *text = BIO_new(BIO_s_mem());
        char *data = NULL;
        long size = 0;
        if (text &&
            X509_NAME_print_ex(text, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0)
            size = BIO_get_mem_data(text, &data);
        if (size > 0 && size < 4096)
            connection->tls_subject = strndup(data, (size_t)size);
        BIO_free(text);
        if (!connection->tls_subject)
            return false;
    }
    const unsigned char *alpn = NULL;
    unsigned int alpn_size = 0;
    SSL_get0_alpn_selected(connection->ssl, &alpn, &alpn_size);
    if (alpn_size == 0)
        return true; /* as without TLS: the first bytes say */
    return session_start(connection, alpn_size == 2 && memcmp(alpn, "h2", 2) == 0);
}

/* ---- input ---------------------------------------------------------------------------------- */

/* Which protocol? The HTTP/2 preface or anything else; it may come byte by byte. */
static bool detect(struct flue_connection *connection, struct flue_bytes in)
{
    while (in.size && connection->first_size < sizeof http2_preface &&
           in.data[0] == http2_preface[connection->first_size]) {
        connection->first[connection->first_size++] = in.data[0];
        in = flue_bytes_from(in, 1);
    }
    bool http2 = connection->first_size == sizeof http2_preface;
    if (!http2 && in.size == 0)
        return true;
    if (!session_start(connection, http2))
        return false;
    struct flue_bytes first = flue_bytes(connection->first, connection->first_size);
    if (first.size && !connection->ops->input(connection, first))
        return false;
    return in.size == 0 || connection->ops->input(connection, in);
}

static bool give(struct flue_connection *connection, struct flue_bytes in)
{
    return connection->ops ? connection->ops->input(connection, in) : detect(connection, in);
}

/* False: the connection is to end; *fatal: without another word. */
static bool tls_receive(struct flue_connection *connection, struct flue_bytes in, bool *fatal)
{
    connection->tls_in = in;
    for (;;) {
        uint8_t piece[TLS_PIECE];
        size_t size = 0;
        ERR_clear_error();
        int result = SSL_read_ex(connection->ssl, piece, sizeof piece, &size);
        if (!connection->handshaken && SSL_is_init_finished(connection->ssl) &&
            !tls_handshaken(connection)) {
            *fatal = true;
            return false;
        }
        if (result == 1) {
            if (!connection->finishing && !give(connection, flue_bytes(piece, size))) {
                connection->tls_in = flue_bytes(NULL, 0);
                return false;
            }
            continue;
        }
        connection->tls_in = flue_bytes(NULL, 0);
        int reason = SSL_get_error(connection->ssl, result);
        if (reason == SSL_ERROR_WANT_READ)
            return true;
        if (reason == SSL_ERROR_ZERO_RETURN) {
            connection->eof = true;
            return !connection->ops || connection->ops->ended(connection);
        }
        if (!connection->handshaken) {
            flue_metric_add(connection->listener->refused_tls, 1);
            unsigned long code = ERR_peek_error();
            flue_log(FLUE_INFO, "server", "TLS handshake failed", FLUE_S("peer", connection->peer),
                     FLUE_S("error", code ? ERR_reason_error_string(code) : "ended"), FLUE_LOG_END);
        }
        ERR_clear_error();
        return false; /* an alert may lie in the queue */
    }
}

static void proxy_refused(struct flue_connection *connection, const char *why)
{
    flue_metric_add(connection->listener->refused_proxy, 1);
    flue_log(FLUE_INFO, "server", "connection refused: PROXY protocol",
             FLUE_S("peer", connection->peer), FLUE_S("error", why), FLUE_LOG_END);
}

/* The header may come in pieces; what follows it is left in *in. False: close. */
static bool proxy_receive(struct flue_connection *connection, struct flue_bytes *in)
{
    struct flue_proxy_header *header = connection->proxy;
    char peer[FLUE_PROXY_PEER];
    const char *why = "";
    size_t before = header->size, size;
    size_t take = sizeof header->data - before < in->size ? sizeof header->data - before : in->size;
    memcpy(header->data + before, in->data, take);
    header->size += take;
    switch (flue_proxy_read(flue_bytes(header->data, header->size), &size, peer, &why)) {
    case FLUE_PROXY_MORE:
        *in = flue_bytes_from(*in, take);
        return true;
    case FLUE_PROXY_WRONG:
        proxy_refused(connection, why);
        return false;
    case FLUE_PROXY_DONE:
        break;
    }
    if (peer[0])
        snprintf(connection->peer, sizeof connection->peer, "%s", peer);
    *in = flue_bytes_from(*in, size - before);
    free(header);
    connection->proxy = NULL;
    return true;
}

static void receive(struct flue_connection *connection)
{
    connection->again = false;
    for (int i = 0; i < READS_PER_EVENT; i++) {
        if (connection->eof || connection->closed || (connection->paused && !connection->finishing))
            return;
        uint8_t *to = NULL;
        size_t room = 0;
        if (!connection->ssl && connection->ops && connection->ops->direct &&
            !connection->finishing)
            to = connection->ops->direct(connection, &room);
        bool direct = to != NULL;
        if (!direct) {
            to = connection->loop->receive;
            room = FLUE_LOOP_RECEIVE_SIZE;
        }
        ssize_t got = recv(connection->fd, to, room, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got <= 0) {
            connection->eof = true;
            if (connection->proxy && connection->proxy->size)
                proxy_refused(connection, "ended within the header");
            if (got < 0 || connection->finishing || !connection->ops ||
                !connection->ops->ended(connection))
                close_connection(connection);
            return;
        }
        flue_metric_add(connection->listener->received, got);
        bool good = true, fatal = false;
        struct flue_bytes in = flue_bytes(to, (size_t)got);
        if (connection->finishing) {
            connection->drained += (size_t)got;
            if (connection->drained > FLUE_DRAIN_BYTES) {
                close_connection(connection);
                return;
            }
        } else if (direct) {
            good = connection->ops->direct_done(connection, (size_t)got);
        } else if (connection->proxy && !proxy_receive(connection, &in)) {
            good = false;
            fatal = true;
        } else if (in.size == 0) {
            good = true; /* the header, or a part of it, was all */
        } else if (connection->ssl) {
            good = tls_receive(connection, in, &fatal);
        } else {
            good = give(connection, in);
        }
        if (fatal) {
            close_connection(connection);
            return;
        }
        if (!good)
            flue_connection_finish(connection);
        if ((size_t)got < room)
            return;
    }
    connection->again = true; /* others first; the flush of this turn brings us back */
}

/* ---- output --------------------------------------------------------------------------------- */

struct flue_outqueue *flue_connection_out(struct flue_connection *connection)
{
    return connection->ssl ? &connection->plain : &connection->out;
}

void flue_connection_dirty(struct flue_connection *connection)
{
    if (connection->dirty || connection->closed)
        return;
    connection->dirty = true;
    connection->next_dirty = connection->server->dirty;
    connection->server->dirty = connection;
}

void flue_connection_finish(struct flue_connection *connection)
{
    connection->finishing = true;
    flue_connection_dirty(connection);
}

static bool encrypt(struct flue_connection *connection)
{
    while (connection->plain.bytes && connection->handshaken &&
           connection->out.bytes < FLUE_OUT_HIGH) {
        uint8_t piece[TLS_PIECE];
        size_t size = flue_outqueue_peek(&connection->plain, piece, sizeof piece), written = 0;
        ERR_clear_error();
        if (SSL_write_ex(connection->ssl, piece, size, &written) != 1) {
            ERR_clear_error();
            return false;
        }
        flue_outqueue_take(&connection->plain, written);
    }
    return true;
}

static void poll_event(uv_poll_t *handle, int status, int events);

static void update_poll(struct flue_connection *connection)
{
    int events = 0;
    if (!connection->eof && (!connection->paused || connection->finishing))
        events |= UV_READABLE;
    else if (!connection->eof)
        events |= UV_DISCONNECT;
    if (connection->out.bytes)
        events |= UV_WRITABLE;
    if (events == connection->events)
        return;
    connection->events = events;
    if (events)
        uv_poll_start(&connection->poll, events, poll_event);
    else
        uv_poll_stop(&connection->poll);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t write_limit(const struct flue_connection *connection)
{
    const struct flue_server_config *config = &connection->listener->config;
    int64_t limit = config->write_timeout ? config->write_timeout : config->idle_timeout;
    return limit > 0 ? (uint64_t)limit : UINT64_MAX / 4;
}

static uint64_t connection_due(struct flue_connection *connection)
{
    uint64_t due = UINT64_MAX;
    int64_t head = connection->listener->config.read_header_timeout;
    if (connection->lingering)
        return connection->linger_ns;
    if (connection->write_progress_ns)
        due = connection->write_progress_ns + write_limit(connection);
    if (connection->finishing)
        return due;
    if (connection->ops)
        due = sooner(due, connection->ops->due(connection));
    else if (head > 0)
        due = sooner(due, connection->accepted_ns + (uint64_t)head);
    return due;
}

/* Most time-outs move on before they fire: the timer is only ever brought forward here, and looks
 * again when it fires. */
static void update_timer(struct flue_connection *connection)
{
    uint64_t due = connection_due(connection);
    if (due != UINT64_MAX && (!connection->timer.due_ns || due < connection->timer.due_ns))
        flue_timer_arm(connection->loop, &connection->timer, due);
}

static void timer_fired(struct flue_timer *timer)
{
    struct flue_connection *connection =
        (struct flue_connection *)(void *)((char *)timer - offsetof(struct flue_connection, timer));
    uint64_t now = flue_monotonic_ns();
    if (connection_due(connection) <= now) {
        bool late = connection->finishing || !connection->ops ||
                    (connection->write_progress_ns &&
                     connection->write_progress_ns + write_limit(connection) <= now);
        if (late) {
            if (connection->proxy && !connection->finishing)
                proxy_refused(connection, "not complete within read_header_timeout");
            close_connection(connection);
            return;
        }
        if (!connection->ops->expire(connection, now))
            flue_connection_finish(connection);
    }
    flue_connection_dirty(connection);
}

/* Everything is sent. False: close now. */
static bool end_output(struct flue_connection *connection)
{
    if (connection->lingering)
        return true;
    if (connection->ssl && !connection->handshaken)
        return false; /* the alert is out */
    if (connection->ssl && connection->handshaken) {
        SSL_shutdown(connection->ssl);
        ERR_clear_error();
        if (flue_outqueue_send(&connection->out, connection->fd) < 0)
            return false;
    }
    shutdown(connection->fd, SHUT_WR);
    connection->lingering = true;
    connection->linger_ns = flue_monotonic_ns() + FLUE_DRAIN_NS;
    return !connection->eof;
}

/* False: closed. */
static bool flush(struct flue_connection *connection)
{
    bool more = true;
    for (int round = 0; more && round < 16; round++) {
        if (connection->ops && !connection->finishing && !connection->ops->flush(connection))
            connection->finishing = true;
        /* Above the mark a session holds back what it has: ask again once this much has left. */
        more = connection->out.bytes + connection->plain.bytes >= FLUE_OUT_HIGH;
        if (connection->ssl && !encrypt(connection))
            goto broken;
        if (!connection->out.bytes)
            break;
        long sent = flue_outqueue_send(&connection->out, connection->fd);
        if (sent < 0)
            goto broken;
        if (connection->out.bytes == 0)
            connection->write_progress_ns = 0;
        else if (sent > 0 || !connection->write_progress_ns)
            connection->write_progress_ns = flue_monotonic_ns();
        if (connection->out.bytes)
            return true;
    }
    if (more)
        flue_connection_dirty(connection); /* others first */
    else if (connection->finishing && !end_output(connection))
        goto broken;
    return true;
broken:
    close_connection(connection);
    return false;
}

static void flush_dirty(struct flue_loop_server *server)
{
    /* Flushing may make others dirty, or the same again: two rounds, the rest next turn. */
    for (int round = 0; round < 2 && server->dirty; round++) {
        struct flue_connection *connection = server->dirty;
        server->dirty = NULL;
        while (connection) {
            struct flue_connection *next = connection->next_dirty;
            connection->dirty = false;
            if (!connection->closed && connection->again)
                receive(connection);
            if (!connection->closed && flush(connection)) {
                if (connection->again)
                    flue_connection_dirty(connection);
                update_poll(connection);
                update_timer(connection);
            }
            connection = next;
        }
    }
    if (server->dirty && !server->closing)
        uv_async_send(&server->loop->wake);
}

static void on_prepare(uv_prepare_t *handle)
{
    flush_dirty(handle->data);
}

static void on_check(uv_check_t *handle)
{
    flush_dirty(handle->data);
}

/* ---- life ----------------------------------------------------------------------------------- */

static void poll_event(uv_poll_t *handle, int status, int events)
{
    struct flue_connection *connection = handle->data;
    if (status < 0) {
        close_connection(connection);
        return;
    }
    if ((events & UV_DISCONNECT) && !(connection->events & UV_READABLE)) {
        /* Not reading because a request is being worked on. A half-closed client still gets its
         * answer; one that is gone for good does not. */
        int reason = 0;
        socklen_t size = sizeof reason;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &reason, &size);
        if (reason) {
            close_connection(connection);
            return;
        }
        connection->events &= ~UV_DISCONNECT;
        uv_poll_start(&connection->poll, connection->events, poll_event);
        if (!connection->events)
            uv_poll_stop(&connection->poll);
        connection->events |= UV_DISCONNECT; /* as good as polled: it was told */
    }
    if (events & UV_READABLE)
        receive(connection);
    flue_connection_dirty(connection);
}

static void connection_freed(uv_handle_t *handle)
{
    struct flue_connection *connection = handle->data;
    connection->server->handles--;
    flue_outqueue_destroy(&connection->out);
    flue_outqueue_destroy(&connection->plain);
    free(connection->proxy);
    free(connection->tls_subject);
    free(connection);
}

static void close_connection(struct flue_connection *connection)
{
    if (connection->closed)
        return;
    connection->closed = true;
    while (connection->exchanges)
        flue_exchange_close(connection->exchanges);
    if (connection->ops)
        connection->ops->destroy(connection);
    *connection->link = connection->next;
    if (connection->next)
        connection->next->link = connection->link;
    if (connection->dirty) {
        struct flue_connection **at = &connection->server->dirty;
        while (*at && *at != connection)
            at = &(*at)->next_dirty;
        if (*at)
            *at = connection->next_dirty;
    }
    flue_timer_disarm(connection->loop, &connection->timer);
    SSL_free(connection->ssl);
    connection->ssl = NULL;
    uv_close((uv_handle_t *)&connection->poll, connection_freed);
    close(connection->fd);
    flue_metric_add(connection->listener->open, -1);
    atomic_fetch_sub(&connection->loop->connections, 1);
    atomic_fetch_sub(&connection->server->set->connections, 1);
}

static void refuse(struct flue_loop_server *server, struct flue_listener *listener, int fd)
{
    flue_metric_add(listener->refused_other, 1);
    flue_metric_add(listener->open, -1);
    atomic_fetch_sub(&server->loop->connections, 1);
    atomic_fetch_sub(&server->set->connections, 1);
    close(fd);
}

void flue_connection_open(struct flue_loop_server *server, struct flue_listener *listener, int fd,
                          const char *peer)
{
    struct flue_connection *connection =
        server->draining || server->closing ? NULL : calloc(1, sizeof *connection);
    if (!connection || uv_poll_init(&server->loop->uv, &connection->poll, fd) != 0) {
        free(connection);
        refuse(server, listener, fd);
        return;
    }
    server->handles++;
    connection->server = server;
    connection->loop = server->loop;
    connection->listener = listener;
    connection->fd = fd;
    connection->poll.data = connection;
    connection->accepted_ns = flue_monotonic_ns();
    connection->timer.fire = timer_fired;
    snprintf(connection->peer, sizeof connection->peer, "%s", peer);
    connection->link = &server->connections;
    connection->next = server->connections;
    if (connection->next)
        connection->next->link = &connection->next;
    server->connections = connection;
    const struct flue_proxy_config *proxy = listener->config.proxy_protocol;
    if (proxy && flue_proxy_listed(proxy, peer)) {
        connection->proxy = malloc(sizeof *connection->proxy);
        if (!connection->proxy) {
            flue_metric_add(listener->refused_other, 1);
            close_connection(connection);
            return;
        }
        connection->proxy->size = 0;
    }
    if (listener->tls && !tls_start(connection)) {
        flue_metric_add(listener->refused_tls, 1);
        close_connection(connection);
        return;
    }
    update_poll(connection);
    update_timer(connection);
}

bool flue_loop_server_start(struct flue_loop_server *server)
{
    server->prepare.data = server->check.data = server;
    if (uv_prepare_init(&server->loop->uv, &server->prepare) != 0)
        return false;
    server->handles++;
    uv_prepare_start(&server->prepare, on_prepare);
    uv_unref((uv_handle_t *)&server->prepare);
    if (uv_check_init(&server->loop->uv, &server->check) != 0)
        return false;
    server->handles++;
    uv_check_start(&server->check, on_check);
    uv_unref((uv_handle_t *)&server->check);
    return true;
}

void flue_loop_server_drain(struct flue_loop_server *server)
{
    server->draining = true;
    struct flue_connection *next;
    for (struct flue_connection *connection = server->connections; connection; connection = next) {
        next = connection->next;
        if (!connection->ops)
            flue_connection_finish(connection);
        else
            connection->ops->drain(connection);
        flue_connection_dirty(connection);
    }
}

static void handle_closed(uv_handle_t *handle)
{
    ((struct flue_loop_server *)handle->data)->handles--;
}

void flue_loop_server_close(struct flue_loop_server *server)
{
    server->closing = true;
    while (server->connections)
        close_connection(server->connections);
    flue_timer_disarm(server->loop, &server->stall_timer);
    if (server->handles && server->prepare.data && !uv_is_closing((uv_handle_t *)&server->prepare))
        uv_close((uv_handle_t *)&server->prepare, handle_closed);
    if (server->check.type == UV_CHECK && !uv_is_closing((uv_handle_t *)&server->check))
        uv_close((uv_handle_t *)&server->check, handle_closed);
    while (server->spare) {
        struct flue_exchange *exchange = server->spare;
        server->spare = exchange->next;
        flue_arena_destroy(&exchange->request.arena);
        free(exchange);
    }
}
