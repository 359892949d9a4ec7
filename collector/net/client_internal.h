/* client_internal.h: what the files of the client share; nobody else includes it.
 *
 *   client.c             calls from send to done; which transport and connection takes them
 *   client_address.c     endpoints, resolving, which address is tried
 *   client_connection.c  a socket with TLS and an output queue of borrowed slices
 *   client_http2.c       an nghttp2 session over it
 *   client_http1.c       libcurl
 *   client_result.c      reading answers
 *
 * All on the loop of the client.
 */
#ifndef FLUE_NET_CLIENT_INTERNAL_H
#define FLUE_NET_CLIENT_INTERNAL_H

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "collector/base/buffer.h"
#include "collector/base/clock.h"
#include "collector/net/client.h"

#define CLIENT_MAX_ADDRESSES   32
#define CLIENT_MAX_CONNECTIONS 64
#define CLIENT_MAX_STREAMS     1000 /* a connection's, where the peer names no lower limit */
#define CLIENT_MAX_RESENDS     4
#define CLIENT_MAX_HEADERS     64           /* of a request */
#define CLIENT_MAX_FIELDS      128          /* of a response, trailers included */
#define CLIENT_MAX_HEAD        (64u * 1024) /* their bytes */
#define CLIENT_RESPONSE_LIMIT  (4u * 1024 * 1024)
#define CLIENT_SECOND          UINT64_C(1000000000)
#define CLIENT_CONNECT_TIMEOUT (10 * CLIENT_SECOND) /* TCP, TLS and the peer's SETTINGS */
#define CLIENT_PROBE_TIMEOUT   (1 * CLIENT_SECOND)  /* for SETTINGS when HTTP/2 is a guess */
#define CLIENT_PROBE_AGAIN     (300 * CLIENT_SECOND)

/* ---- addresses ------------------------------------------------------------------------------ */

struct client_address {
    unsigned refs; /* the list and every connection */
    struct sockaddr_storage storage;
    socklen_t size;
    char text[128]; /* "10.1.2.3:4317", "[::1]:4317", a path */
    bool gone;      /* no longer what the name means */
    unsigned failures;
    uint64_t retry_at_ns; /* left alone until then */
    enum { CLIENT_UNKNOWN, CLIENT_SPEAKS_HTTP2, CLIENT_SPEAKS_HTTP1 } speaks;
    uint64_t probe_at_ns; /* SPEAKS_HTTP1: when to ask again */
    unsigned connections;
};

struct client_target {
    bool local; /* Unix socket; host is its path */
    bool scheme_https;
    char *host;        /* without brackets */
    char *port;        /* decimal */
    char *authority;   /* Host, :authority */
    char *server_name; /* for SNI and verification */
    char *label;       /* for messages: "host:port" or the path */
};

/* ---- calls ---------------------------------------------------------------------------------- */

struct client_list {
    struct client_state *first, *last;
};

enum client_place { CLIENT_PENDING, CLIENT_STREAM, CLIENT_HTTP1, CLIENT_FINISHED };

struct client_state { /* one call, from send to done */
    struct flue_call *call;
    struct flue_client *client;
    struct client_state *next, *previous;
    struct client_list *list;
    enum client_place place;
    struct flue_timer deadline;
    unsigned resends;
    bool sent; /* bytes of it reached a socket that may have carried them to the peer */

    struct client_connection *connection; /* STREAM */
    int32_t stream;                       /* 0: none */
    bool reset;                           /* when abandoned, tell the peer */
    uint64_t queued_from, queued_until;   /* positions in the connection's output; 0: none */
    struct http1_request *request;        /* HTTP1 */

    size_t slice, offset; /* how far the body is handed out */
    size_t body_left;
    char length[24]; /* content-length */
    struct flue_block *credentials;

    unsigned status;
    bool head_done; /* the final (not 1xx) header block is complete: what follows are trailers */
    char *head;
    size_t head_size, head_room;
    struct flue_header *fields;
    size_t field_count, field_room, trailer_from;
    struct flue_buffer body;
};

/* ---- connections ---------------------------------------------------------------------------- */

#define QUEUE_VECTORS 512
#define QUEUE_CONTROL (64u * 1024)
#define QUEUE_BYTES   (2u * 1024 * 1024) /* what is handed to nghttp2's flow control at a time */

/* What waits to be written: own bytes (frames' heads, small slices) lie in control, large slices
 * are borrowed from bodies. Filled only when empty; an entry never moves. */
struct client_queue {
    struct iovec vectors[QUEUE_VECTORS];
    size_t from, count;
    uint64_t queued, sent; /* bytes, ever; never 0 once something was queued */
    size_t control_size;
    uint8_t *rescued; /* bytes of bodies that were given back before they were written */
    uint8_t control[QUEUE_CONTROL];
};

struct client_connection {
    struct flue_client *client;
    struct client_connection *next;
    struct client_address *address;
    uv_poll_t poll;
    int fd;
    int events; /* what poll waits for */
    enum {
        CONNECTION_CONNECTING,
        CONNECTION_HANDSHAKE,
        CONNECTION_SETTINGS, /* waits for the peer's */
        CONNECTION_READY,
        CONNECTION_DRAINING, /* finishes its streams, takes no more */
        CONNECTION_CLOSED
    } stage;
    bool guess; /* plaintext HTTP/2 that the peer may not speak */
    bool dirty; /* on the list of those to be flushed */
    struct client_connection *dirty_next;
    bool broken; /* to be failed at the next flush; the reason is in `error` */
    struct flue_error error;
    struct flue_timer timer;
    uint64_t started_ns, heard_ns, idle_since_ns, ping_sent_ns;
    uint64_t answered; /* calls */
    uint64_t picked;   /* the client's `picks` when it was last chosen for a call */

    SSL *ssl;
    uint8_t *cipher; /* CIPHER_SIZE, what TLS has to say to the socket */
    size_t cipher_from, cipher_size;

    nghttp2_session *session;
    unsigned streams; /* open ones */
    unsigned limit;
    struct client_list calls;
    struct client_queue queue;
};

/* ---- the client ----------------------------------------------------------------------------- */

struct flue_client {
    struct flue_loop *loop;
    struct flue_client_config config;
    struct client_target target;
    bool use_tls, own_tls, http1_only;
    struct flue_tls *tls;
    uv_prepare_t prepare;
    unsigned handles; /* open libuv handles; the memory goes with the last */
    bool closing;
    bool scheduled; /* look at pending in the next prepare */

    struct client_list pending, finished, http1_calls;
    struct flue_call *refused; /* without memory for a state; linked by `transport` */
    unsigned call_count, pending_count;
    struct client_state *spare;
    unsigned spare_count;

    struct client_address *addresses[CLIENT_MAX_ADDRESSES];
    unsigned address_count, next_address;
    bool fixed;                     /* numeric or Unix: never resolved */
    bool stale;                     /* a connection was lost: resolve before the next is made */
    struct client_resolve *resolve; /* running */
    uint64_t resolved_ns, resolve_at_ns;
    unsigned resolve_failures;
    struct flue_error last_error; /* of connecting or resolving */
    struct flue_timer retry;

    nghttp2_session_callbacks *callbacks;
    struct client_connection *connections, *dirty;
    uint64_t picks;
    unsigned peer_limit; /* stream limit that the last peer stated; 0: not known */
    uint64_t connected;

    struct client_http1 *http1;
};

/* client.c */
void flue_client_schedule(struct flue_client *client);
/* Takes the state off whatever list it is on and gives the answer: the response as it stands with
 * code FLUE_OK, else the failure. done runs later, by flue_client_run_finished. */
void flue_client_finish(struct client_state *state, enum flue_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Back to the front of the queue; false (nothing done) when it was sent again too often. */
bool flue_client_requeue(struct client_state *state);
void flue_client_run_finished(struct flue_client *client);
void flue_client_handle_closed(struct flue_client *client);
void flue_client_list_remove(struct client_state *state);
void flue_client_list_append(struct client_list *list, struct client_state *state);
/* The response as it comes in. False: over a limit or no memory, the state is finished. */
bool flue_client_response_field(struct client_state *state, struct flue_bytes name,
                                struct flue_bytes value);
bool flue_client_response_body(struct client_state *state, const uint8_t *data, size_t size);
/* The header of config.auth; empty name: none. False: there are no credentials now, the state is
 * finished. It lies in the state until the call ends. */
bool flue_client_credentials(struct client_state *state, struct flue_header *out);
void flue_client_response_reset(struct client_state *state); /* after a 1xx, before a resend */

/* client_address.c */
enum flue_code flue_client_target_parse(const struct flue_client_config *config,
                                        struct client_target *target, struct flue_error *error);
void flue_client_target_free(struct client_target *target);
/* True: there are addresses to try. False: they are being looked for, or *failed. */
bool flue_client_addresses_ready(struct flue_client *client, bool *failed);
void flue_client_addresses_free(struct flue_client *client);
void flue_client_address_failed(struct flue_client *client, struct client_address *address);
void flue_client_address_works(struct client_address *address);
void flue_client_address_unref(struct client_address *address);
bool flue_client_is_ip(const char *host);

/* client_connection.c */
struct client_connection *flue_client_connection_open(struct flue_client *client,
                                                      struct client_address *address);
void flue_client_connection_flush(struct client_connection *connection);
void flue_client_connection_dirty(struct client_connection *connection);
/* Its calls are sent again or fail with the text. Not from within nghttp2's callbacks. */
void flue_client_connection_fail(struct client_connection *connection, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void flue_client_connection_close(struct client_connection *connection);
void flue_client_connection_timer(struct client_connection *connection);
size_t flue_client_queue_vectors_left(const struct client_queue *queue);
bool flue_client_queue_room(const struct client_queue *queue);
void flue_client_queue_copy(struct client_queue *queue, const uint8_t *data, size_t size);
void flue_client_queue_borrow(struct client_queue *queue, const uint8_t *data, size_t size);
/* The bytes in the queue up to `until` are given back to their owner: copied if not yet written.
 * False: no memory, the connection cannot go on. */
bool flue_client_queue_rescue(struct client_queue *queue, uint64_t until);

/* client_http2.c */
enum flue_code flue_client_http2_callbacks(nghttp2_session_callbacks **out,
                                           struct flue_error *error);
/* The peer is connected: begin the session. */
bool flue_client_http2_begin(struct client_connection *connection);
/* False: the connection is to be failed, `error` says why. */
bool flue_client_http2_receive(struct client_connection *connection, const uint8_t *data,
                               size_t size);
/* Moves frames into the empty queue. False: as above. */
bool flue_client_http2_fill(struct client_connection *connection);
/* False: this connection takes no more calls. */
bool flue_client_http2_submit(struct client_connection *connection, struct client_state *state);
void flue_client_http2_abandon(struct client_state *state);
void flue_client_http2_ping(struct client_connection *connection);
/* Any of its bytes may have reached the peer. */
bool flue_client_http2_was_sent(const struct client_state *state);

/* client_http1.c */
void flue_client_http1_destroy(struct client_http1 *http1);
void flue_client_http1_start(struct client_state *state, struct client_address *address);
void flue_client_http1_abandon(struct client_state *state);
/* Those that ended inside libcurl's callbacks. */
void flue_client_http1_turn(struct flue_client *client);

/* client_result.c */
bool flue_client_field_ok(struct flue_bytes value); /* no CR, LF, NUL */

#endif
