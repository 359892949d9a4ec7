/* connection.h: one accepted socket on its loop: TLS, what waits to be sent, time-outs, its end.
 *
 * Private to net/. A session (HTTP/1.1 or HTTP/2) sits on it through struct flue_session_ops. A
 * session never closes a connection from within: it returns false from its functions, or calls
 * flue_connection_finish, and marks it dirty. Dirty connections are flushed once per turn of the
 * loop, so that many answers leave with one sendmsg.
 */
#ifndef FLUE_NET_CONNECTION_H
#define FLUE_NET_CONNECTION_H

#include "collector/net/listener.h"
#include "collector/net/outqueue.h"
#include "collector/net/proxy.h"

#define FLUE_OUT_HIGH    (256u * 1024)  /* a session adds no more above it */
#define FLUE_DRAIN_BYTES (1024u * 1024) /* of a refused body */
#define FLUE_DRAIN_NS    (1000ull * 1000 * 1000)

struct flue_connection;
struct flue_exchange;

struct flue_session_ops {
    /* Takes all of `in` (keeping a copy of what it cannot use yet). False: the connection is
     * finished: what is queued is sent, then it is closed. */
    bool (*input)(struct flue_connection *connection, struct flue_bytes in);
    /* Puts what it has to say into the queue. False as above. */
    bool (*flush)(struct flue_connection *connection);
    /* Where the next bytes of a long body may be received into; NULL: nowhere. */
    uint8_t *(*direct)(struct flue_connection *connection, size_t *room);
    bool (*direct_done)(struct flue_connection *connection, size_t size);
    void (*respond)(struct flue_connection *connection, struct flue_exchange *exchange,
                    unsigned status, const struct flue_header *headers, size_t header_count,
                    const struct flue_response *response);
    /* The body of `exchange` may flow again. */
    void (*resume)(struct flue_connection *connection, struct flue_exchange *exchange);
    /* The peer sent its end. False: close at once. */
    bool (*ended)(struct flue_connection *connection);
    /* Monotonic time of the next time-out, UINT64_MAX: none; and what happens then (false: close).
     * expire may be called early. */
    uint64_t (*due)(struct flue_connection *connection);
    bool (*expire)(struct flue_connection *connection, uint64_t now);
    /* The server drains: finish what is open, begin nothing. */
    void (*drain)(struct flue_connection *connection);
    void (*destroy)(struct flue_connection *connection); /* exchanges are detached before */
};

struct flue_loop_server { /* a set's part on one loop */
    struct flue_server_set *set;
    struct flue_loop *loop;
    uv_prepare_t prepare;
    uv_check_t check;
    int handles; /* uv handles not yet closed, connections included */
    struct flue_connection *connections;
    struct flue_connection *dirty;
    struct flue_exchange *stalled; /* bodies held back */
    struct flue_timer stall_timer;
    struct flue_exchange *spare;
    size_t spare_count;
    bool draining, closing;
};

struct flue_proxy_header { /* as much as has come */
    size_t size;
    uint8_t data[FLUE_PROXY_MAX];
};

struct flue_connection {
    struct flue_loop_server *server;
    struct flue_loop *loop;
    struct flue_listener *listener;
    struct flue_connection *next, **link;
    struct flue_connection *next_dirty;
    struct flue_exchange *exchanges;    /* begun, stream not closed */
    const struct flue_session_ops *ops; /* NULL: the protocol is not known yet */
    void *session;
    int fd;
    uv_poll_t poll;
    int events; /* polled now */
    bool dirty;
    bool paused;    /* the session wants no input */
    bool eof;       /* the peer sent its end */
    bool finishing; /* send what is queued, then end */
    bool lingering; /* our end is sent; input is thrown away */
    bool closed;
    bool again; /* more to read, without waiting for the poll */
    char peer[56];
    struct flue_proxy_header *proxy; /* the PROXY header is still to come; NULL: none (any more) */
    char *tls_subject;
    uint8_t first[24]; /* until the protocol is known */
    size_t first_size;
    uint64_t accepted_ns;
    uint64_t write_progress_ns; /* 0: nothing waits */
    uint64_t linger_ns;
    size_t drained;
    struct flue_timer timer;
    struct flue_outqueue out; /* to the socket */
    SSL *ssl;
    bool handshaken;
    struct flue_bytes tls_in;   /* received, not yet decrypted; empty between events */
    struct flue_outqueue plain; /* not yet encrypted */
};

extern const struct flue_session_ops flue_http1_session_ops;
extern const struct flue_session_ops flue_http2_session_ops;
bool flue_http1_session_new(struct flue_connection *connection);
bool flue_http2_session_new(struct flue_connection *connection);

/* On the connection's loop. Takes the fd. */
void flue_connection_open(struct flue_loop_server *server, struct flue_listener *listener, int fd,
                          const char *peer);
void flue_connection_dirty(struct flue_connection *connection);
/* What the session writes: encrypted on the way out where TLS is on. */
struct flue_outqueue *flue_connection_out(struct flue_connection *connection);
/* Sends what is queued, ends our side, drains the peer's a little, closes. */
void flue_connection_finish(struct flue_connection *connection);

/* On its loop (or before it runs). */
bool flue_loop_server_start(struct flue_loop_server *server);
void flue_loop_server_drain(struct flue_loop_server *server);
void flue_loop_server_close(struct flue_loop_server *server);

#endif
