/* server.h: listeners, and requests as receivers see them.
 *
 * One listener speaks HTTP/1.1, HTTP/2 (prior knowledge, ALPN over TLS) and with them gRPC and
 * Connect. A receiver adds routes; a request comes to it twice:
 *
 *   head()  when the headers are complete, before the body: admit (say which account pays and how
 *           large a body may be) or answer at once, which refuses early. The rest of a refused body
 *           is drained up to 1 MiB or 1 s, so that the client reads the answer and not a reset.
 *   body()  when the body is complete; it lies in request->body as received (still compressed,
 *           still framed). The receiver answers now or later, exactly once, with flue_respond.
 *
 * A request lives until it has been answered AND its stream is closed; a receiver may keep the
 * pointer until it answers. When the client goes away before, `gone` is called (if set); the answer
 * must still be given, and goes nowhere. Before body() only a receiver that set `gone` has to
 * answer: without it the request ends with its stream. All on the loop of the connection.
 *
 * Back-pressure: over the account's soft share window updates (HTTP/2) or reads (HTTP/1.1) are
 * withheld while a body is incoming; new requests are refused before the body by
 * flue_request_admit.
 */
#ifndef FLUE_NET_SERVER_H
#define FLUE_NET_SERVER_H

#include "collector/base/block.h"
#include "collector/base/loop.h"
#include "collector/component.h"
#include "collector/net/tls.h"

/* ---- configuration (confighttp and configgrpc server keys, one struct for both) ------------- */

struct flue_cors_config {
    struct flue_list allowed_origins, allowed_headers, exposed_headers;
    int64_t max_age;
};
struct flue_keepalive_server_config {
    int64_t max_connection_idle, max_connection_age, max_connection_age_grace, time, timeout;
};
struct flue_keepalive_enforcement_config {
    int64_t min_time;
    bool permit_without_stream;
};
struct flue_keepalive_config {
    struct flue_keepalive_server_config server_parameters;
    struct flue_keepalive_enforcement_config enforcement_policy;
};
struct flue_server_auth_config {
    const char *authenticator;
};
struct flue_proxy_config {
    struct flue_list from; /* addresses, networks, "unix" */
};
struct flue_server_config {
    const char *endpoint;                     /* "host:port", or a path with transport unix */
    int transport;                            /* 0 tcp, 1 unix */
    const struct flue_tls_server_config *tls; /* NULL: plaintext */
    int64_t max_request_body_size;            /* bytes, before and after decompression */
    int64_t max_recv_msg_size_mib; /* grpc's key for it; 0 in an http block. A request's config has
                                    * max_request_body_size in bytes, whichever was given */
    bool include_metadata;
    const struct flue_server_auth_config *auth; /* NULL: nobody is asked who he is */
    /* NULL: no PROXY protocol. A peer in `from` must begin with its header, and the source that it
     * names is the request's peer; to all others the header is no HTTP and no TLS. */
    const struct flue_proxy_config *proxy_protocol;
    struct flue_list middlewares;               /* refused by flue_server_check */
    /* http only */
    const struct flue_cors_config *cors;
    struct flue_map response_headers;
    struct flue_list compression_algorithms;
    int64_t read_timeout, read_header_timeout, write_timeout, idle_timeout;
    bool keep_alives_enabled;
    /* grpc only */
    int64_t max_concurrent_streams;
    struct flue_keepalive_config keepalive;
};
/* For receivers' field tables: FLUE_OPTIONAL(..., struct flue_server_config,
 * flue_server_http_fields) The tables differ in keys (max_recv_msg_size_mib becomes
 * max_request_body_size) and defaults. The endpoints' defaults are OTLP's (localhost:4318,
 * localhost:4317); a receiver with another one lists its own FLUE_ENDPOINT row and squashes
 * flue_server_http_rest_fields, the same without `endpoint`. */
extern const struct flue_field flue_server_http_fields[];
extern const struct flue_field flue_server_http_rest_fields[];
extern const struct flue_field flue_server_grpc_fields[];
/* Bits 1 << enum flue_coding of compression_algorithms (all, where none are given). */
unsigned flue_server_codings(const struct flue_server_config *config);
void flue_server_check(const struct flue_server_config *config, const char *path,
                       struct flue_check *check);

/* ---- routes and requests -------------------------------------------------------------------- */

enum flue_protocol { FLUE_HTTP1, FLUE_HTTP2 };

struct flue_header {
    struct flue_bytes name; /* lower-case */
    struct flue_bytes value;
};

struct flue_request {
    struct flue_loop *loop;
    const struct flue_server_config *config; /* in effect: sizes in bytes, defaults filled in */
    enum flue_protocol protocol;
    bool tls;
    struct flue_bytes method, path, query, authority; /* path without query, not decoded */
    const struct flue_header *headers;
    size_t header_count;
    const char *peer;        /* "10.1.2.3:41544", "unix"; by the PROXY header where there is one */
    const char *tls_subject; /* of a verified client certificate, or NULL */
    uint64_t received_ns;    /* monotonic, when the headers were complete */
    uint64_t deadline_ns;    /* monotonic, from grpc-timeout or connect-timeout-ms; 0: none */
    int64_t content_length;  /* -1: not stated */
    struct flue_block *body; /* finished and owned by the request; take it by setting NULL */
    struct flue_arena arena; /* as long as the request */
    void *user;              /* the receiver's */
    void (*gone)(struct flue_request *request);
};

struct flue_route {
    const char *method; /* "POST"; others get 405 with Allow, by `refuse` */
    const char *path;   /* exact */
    void *arg;
    void (*head)(struct flue_request *request, void *arg);
    void (*body)(struct flue_request *request, void *arg);
    /* Something is wrong before the receiver could see it (405, broken framing, body over the
     * limit, time-out in the body): answer in this route's own protocol. NULL: text/plain. */
    void (*refuse)(struct flue_request *request, void *arg, const struct flue_error *error);
};

/* First value of a header by lower-case name, or NULL data. */
struct flue_bytes flue_request_header(const struct flue_request *request, const char *name);
/* First value of a query parameter, percent-decoded into the request's arena ("+" is a blank); NULL
 * data if absent. */
struct flue_bytes flue_request_query(struct flue_request *request, const char *name);
/* In head(): read the body, on this account. `expected` is the content length or 0. Answers by the
 * route's refuse and returns false when the account or `limit` says no. */
bool flue_request_admit(struct flue_request *request, struct flue_account *account, size_t limit);

struct flue_response {
    unsigned status;
    const struct flue_header *headers; /* copied; content-length is added */
    size_t header_count;
    struct flue_bytes body;             /* copied */
    const struct flue_header *trailers; /* HTTP/2 only (gRPC) */
    size_t trailer_count;
    bool close; /* HTTP/1.1: and then close */
};
void flue_respond(struct flue_request *request, const struct flue_response *response);

/* ---- servers -------------------------------------------------------------------------------- */

/* Two receivers (or two blocks of one) that name the same endpoint with equal settings share the
 * listener; the same path twice, or unequal settings, is an error of start. */
struct flue_server_set;
struct flue_server_set *flue_server_set_new(struct flue_loops *loops, struct flue_metrics *metrics,
                                            struct flue_budget *budget);
/* Collects; called by receivers in start. `route` and `config` live as long as the set. */
enum flue_code flue_server_add(struct flue_server_set *set, const char *component,
                               const struct flue_server_config *config,
                               const struct flue_route *routes, size_t count,
                               struct flue_error *error);
/* In a component's create, before flue_server_add with the same `config`: finds the extension that
 * config->auth names (net/auth.h), for which flue_server_add then looks. Nothing to do without it.
 */
enum flue_code flue_server_auth(const struct flue_create *create,
                                const struct flue_server_config *config, struct flue_error *error);
/* Binds and listens (the service calls it after all receivers have started). */
enum flue_code flue_server_set_listen(struct flue_server_set *set, struct flue_error *error);
/* What a listener got: "127.0.0.1:43511" where the configuration said port 0; NULL if unknown. */
const char *flue_server_address(struct flue_server_set *set, const char *endpoint);
/* No new connections; GOAWAY or Connection: close; requests already begun go on. */
void flue_server_set_drain(struct flue_server_set *set);
size_t flue_server_set_open_requests(struct flue_server_set *set);
void flue_server_set_destroy(struct flue_server_set *set);

#endif
