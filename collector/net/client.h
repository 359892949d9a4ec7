/* client.h: requests to the next hop; one interface, two transports under it.
 *
 * nghttp2 for gRPC, Connect and OTLP over HTTP/2 (over TLS by ALPN; without TLS by prior knowledge,
 * found out by the peer's SETTINGS and remembered per address; as many connections as the peer's
 * stream limit and the calls in flight demand). libcurl's multi interface for HTTP/1.1. The choice
 * is the client's (`protocol`), not the exporter's.
 *
 * A client belongs to one loop. A call's body slices are borrowed: they must live until `done`. done
 * is called exactly once, never from within flue_call_send.
 */
#ifndef FLUE_NET_CLIENT_H
#define FLUE_NET_CLIENT_H

#include "collector/base/codec.h"
#include "collector/net/server.h"

enum flue_client_protocol {
    FLUE_CLIENT_HTTP2,  /* HTTP/2 only: gRPC */
    FLUE_CLIENT_HTTP1,  /* HTTP/1.1 only */
    FLUE_CLIENT_PROBE   /* HTTP/2 where the peer speaks it, else HTTP/1.1 */
};

struct flue_client_config { /* confighttp/configgrpc client keys that act on the transport */
    const char *endpoint;   /* "host:port", "http://…", "https://…", "dns:///h:p", "unix:///path" */
    struct flue_tls_client_config tls;
    enum flue_client_protocol protocol;
    bool tls_by_scheme;     /* confighttp: https means TLS, http none; configgrpc: tls.insecure says */
    const char *proxy_url;  /* HTTP/1.1 only */
    int64_t max_connections; /* 0: by need */
    int64_t idle_timeout, keepalive_time, keepalive_timeout;
    size_t response_limit;  /* bytes of body; more is FLUE_INVALID, "response over N bytes" */
};

struct flue_client;
struct flue_call {
    struct flue_client *client;
    struct flue_bytes method;      /* "POST" */
    struct flue_bytes path;        /* with query, already escaped: "/v1/x?a=b" */
    const struct flue_header *headers; /* borrowed until done; user-agent is added if absent */
    size_t header_count;
    const struct flue_slices *body;    /* borrowed until done */
    uint64_t deadline_ns;              /* monotonic; 0: none. FLUE_TIMEOUT when passed */
    void (*done)(struct flue_call *call);
    void *user;

    /* The result, valid in done: error.code is FLUE_OK when a complete response came (whatever its
     * status), else FLUE_UNAVAILABLE, FLUE_TIMEOUT, FLUE_CANCELLED, FLUE_INVALID. `sent` says whether
     * the peer can have seen any of it. */
    struct flue_error error;
    bool sent;
    unsigned status;
    const struct flue_header *response_headers, *trailers;
    size_t response_header_count, trailer_count;
    struct flue_bytes response;
    void *transport; /* the client's own */
};

/* The TLS context may be shared by the clients of all loops; NULL: made here. */
enum flue_code flue_client_new(struct flue_loop *loop, const struct flue_client_config *config,
                               struct flue_tls *tls, struct flue_client **out,
                               struct flue_error *error);
void flue_call_send(struct flue_call *call);
/* done follows with FLUE_CANCELLED (from the loop, not from within). */
void flue_call_cancel(struct flue_call *call);
/* On its loop (or when the loops are stopped). Open calls end with FLUE_CANCELLED first. */
void flue_client_destroy(struct flue_client *client);

struct flue_bytes flue_call_header(const struct flue_call *call, const char *name);
/* Retry-After as seconds or HTTP date, in ms from now; 0: none. */
uint32_t flue_call_retry_after_ms(const struct flue_call *call);
/* gRPC unary over this client: frame prefix, grpc-status of trailers (or headers, or mapped from an
 * HTTP status), RetryInfo of grpc-status-details-bin. Fills *error (code, text, retry_after_ms) and
 * *message (without prefix; decompressed into `arena` if need be). */
enum flue_code flue_call_grpc_result(struct flue_call *call, struct flue_arena *arena,
                                     struct flue_bytes *message, struct flue_error *error);

#endif
