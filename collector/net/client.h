/* client.h: requests to the next hop; one interface, two transports under it.
 *
 * nghttp2 for gRPC, Connect and OTLP over HTTP/2 (over TLS by ALPN; without TLS by prior knowledge,
 * found out by the peer's SETTINGS and remembered per address; as many connections as the peer's
 * stream limit and the calls in flight demand). libcurl's multi interface for HTTP/1.1. The choice
 * is the client's (`protocol`), not the exporter's.
 *
 * A client belongs to one loop. A call's body slices are borrowed: they must live until `done`.
 * done is called exactly once, never from within flue_call_send.
 *
 * A call that the peer cannot have seen (connection refused, GOAWAY with a lower last stream,
 * REFUSED_STREAM) is sent again on another connection by the client itself, a few times at most;
 * everything else is for the caller to retry. After a failed connection an address is left alone
 * for 0.2 s, growing by 1.6 to 5 s, with jitter; while every address is, calls fail at once (unless
 * wait_for_ready). Names are resolved on the pool, again after a connection was lost.
 *
 * What is written to a connection during one turn of the loop leaves it in one sendmsg, straight
 * from the body slices.
 */
#ifndef FLUE_NET_CLIENT_H
#define FLUE_NET_CLIENT_H

#include "collector/base/codec.h"
#include "collector/net/server.h"

enum flue_client_protocol {
    FLUE_CLIENT_HTTP2, /* HTTP/2 only: gRPC */
    FLUE_CLIENT_HTTP1, /* HTTP/1.1 only */
    FLUE_CLIENT_PROBE  /* HTTP/2 where the peer speaks it, else HTTP/1.1 */
};

struct flue_client_config { /* confighttp/configgrpc client keys that act on the transport */
    const char *endpoint; /* "host:port", "http://…", "https://…", "dns:///h:p", "unix:///path" */
    struct flue_tls_client_config tls;
    enum flue_client_protocol protocol;
    bool tls_by_scheme;  /* confighttp: https means TLS, http none; configgrpc: tls.insecure says */
    bool pick_first;     /* all calls to the first address that works; else to all in turn: a
                          * connection to each is kept while there are calls, and made again after
                          * it was lost or the name means others; the one with the fewest calls is
                          * next, of several the one that has waited longest */
    bool wait_for_ready; /* calls wait (until their deadline) for a connection */
    bool disable_keep_alives; /* HTTP/1.1: one request per connection */
    const char *authority;    /* Host or :authority; NULL: the endpoint's */
    struct flue_auth *auth;   /* net/auth.h: its header goes with every call; NULL: none. Borrowed */
    const char *proxy_url;    /* HTTP/1.1 only: a PROBE client with a proxy speaks HTTP/1.1 */
    int64_t max_connections;  /* 0: by need, up to 64 (HTTP/1.1: 256) */
    int64_t idle_timeout;     /* ns without a call, then the connection is closed; 0: never */
    int64_t keepalive_time, keepalive_timeout; /* ns of silence before a PING, and for its answer */
    bool keepalive_without_calls;
    size_t
        response_limit; /* bytes of body; more is FLUE_INVALID, "response over N bytes"; 0: 4 MiB */
};

/* ---- endpoints ------------------------------------------------------------------------------ */

/* For a component's check(): FLUE_INVALID says what is wrong with it. `url`: confighttp, a scheme
 * (http, https, unix) is required; else configgrpc's forms. */
enum flue_code flue_client_endpoint_check(const char *endpoint, bool url, struct flue_error *error);
/* Does it stay on this machine: a Unix socket, localhost, 127.0.0.0/8, ::1? False also for one that
 * is wrong. */
bool flue_client_endpoint_is_local(const char *endpoint);
/* Path and query of a URL ("/base?x=1"), borrowed; empty if none. The client itself ignores them.
 */
struct flue_bytes flue_client_endpoint_path(const char *endpoint);

/* ---- calls ---------------------------------------------------------------------------------- */

struct flue_client;
struct flue_call {
    struct flue_client *client;
    struct flue_bytes method;          /* "POST" */
    struct flue_bytes path;            /* with query, already escaped: "/v1/x?a=b" */
    const struct flue_header *headers; /* names lower-case, at most 64; borrowed until done;
                                        * user-agent is added if absent */
    size_t header_count;
    const struct flue_slices *body;       /* borrowed until done; NULL: none */
    uint64_t deadline_ns;                 /* monotonic; 0: none. FLUE_TIMEOUT when passed */
    void (*done)(struct flue_call *call); /* may free the call, and send others */
    void *user;

    /* The result, valid in done: error.code is FLUE_OK when a complete response came (whatever its
     * status), else FLUE_UNAVAILABLE, FLUE_TIMEOUT, FLUE_CANCELLED, FLUE_INVALID, FLUE_NO_MEMORY.
     * `sent` says whether the peer can have seen any of it. */
    struct flue_error error;
    bool sent;
    unsigned status;
    const struct flue_header *response_headers, *trailers;
    size_t response_header_count, trailer_count;
    struct flue_bytes response;
    void *transport; /* the client's own; NULL before send and from done on */
};

/* The configuration's strings are copied, but for `tls`, which must outlive the client. The TLS
 * context may be shared by the clients of all loops (ALPN is set per connection) and must outlive
 * them; NULL: made here. On the loop's thread, or before the loops run. */
enum flue_code flue_client_new(struct flue_loop *loop, const struct flue_client_config *config,
                               struct flue_tls *tls, struct flue_client **out,
                               struct flue_error *error);
/* Does this configuration mean TLS? */
bool flue_client_uses_tls(const struct flue_client_config *config);
void flue_call_send(struct flue_call *call);
/* done follows with FLUE_CANCELLED (from the loop, not from within). */
void flue_call_cancel(struct flue_call *call);
/* On its loop (or when the loops are stopped, before they are destroyed). Open calls end with
 * FLUE_CANCELLED first. */
void flue_client_destroy(struct flue_client *client);

struct flue_client_stats {
    unsigned connections; /* HTTP/2, those that can take calls */
    unsigned calls;       /* sent and not done, waiting ones included */
    unsigned waiting;     /* of those: not yet on a connection */
    uint64_t connected;   /* HTTP/2 connections ever made */
};
void flue_client_stats(const struct flue_client *client, struct flue_client_stats *out);

struct flue_bytes flue_call_header(const struct flue_call *call, const char *name);
/* Retry-After as seconds or HTTP date, in ms from now (at most an hour); 0: none. */
uint32_t flue_call_retry_after_ms(const struct flue_call *call);
/* gRPC unary over this client: frame prefix, grpc-status of trailers (or headers, or mapped from an
 * HTTP status), RetryInfo of grpc-status-details-bin. Fills *error (code, text, retry_after_ms) and
 * *message (without prefix; decompressed into `arena` if need be).
 *
 * The code says what OTLP says about repeating: FLUE_UNAVAILABLE (CANCELLED, ABORTED, OUT_OF_RANGE,
 * UNAVAILABLE, DATA_LOSS), FLUE_TIMEOUT (DEADLINE_EXCEEDED) and FLUE_RATE_LIMITED
 * (RESOURCE_EXHAUSTED with RetryInfo) may be repeated; every other code must not. */
enum flue_code flue_call_grpc_result(struct flue_call *call, struct flue_arena *arena,
                                     struct flue_bytes *message, struct flue_error *error);

#endif
