/* server_config.c: the keys of a listener, their checks, and what they mean together.
 *
 * Source: OpenTelemetry Collector, confighttp, configgrpc and configauth (server side). */
#include <stdio.h>

#include "collector/base/codec.h"
#include "collector/net/client.h"
#include "collector/net/listener.h"
#include "collector/net/proxy.h"

#define MIB               (1024 * 1024)
#define BODY_LIMIT        (64ll * MIB)
#define HEADER_TIMEOUT_NS (10ll * 1000 * 1000 * 1000)
#define IDLE_TIMEOUT_NS   (300ll * 1000 * 1000 * 1000)
#define DAY_NS            (86400ll * 1000 * 1000 * 1000)
#define STREAMS_DEFAULT   100
#define STREAMS_MAX       10000

static const char *const transports[] = {"tcp", "unix", NULL};

static const struct flue_field cors_fields[] = {
    FLUE_STRINGS(struct flue_cors_config, allowed_origins,
                 .help = "origins of browsers that may send, * stands for any part"),
    FLUE_STRINGS(struct flue_cors_config, allowed_headers,
                 .help = "request headers that browsers may add; * for any"),
    FLUE_STRINGS(struct flue_cors_config, exposed_headers,
                 .help = "response headers that scripts may read"),
    FLUE_INT(struct flue_cors_config, max_age, .minimum = 0, .maximum = 86400, .unit = "seconds",
             .help = "how long a browser may remember the answer to a preflight"),
    FLUE_FIELDS_END,
};

#define DURATION(S, m, ...) FLUE_DURATION(S, m, .minimum = 0, .maximum = 3650 * DAY_NS, __VA_ARGS__)

static const struct flue_field keepalive_server_fields[] = {
    DURATION(struct flue_keepalive_server_config, max_connection_idle,
             .help = "a connection without a call for this long is told to go; unset: 5m"),
    DURATION(struct flue_keepalive_server_config, max_connection_age,
             .help = "a connection this old (10 % more or less) is told to go; unset: never"),
    DURATION(struct flue_keepalive_server_config, max_connection_age_grace,
             .help = "what its calls get to finish; unset: as long as they need"),
    DURATION(struct flue_keepalive_server_config, time, .def = "2h",
             .help = "ping after this long without a sign of life"),
    DURATION(struct flue_keepalive_server_config, timeout, .def = "20s",
             .help = "and close after this long without an answer"),
    FLUE_FIELDS_END,
};

static const struct flue_field enforcement_fields[] = {
    DURATION(struct flue_keepalive_enforcement_config, min_time, .def = "5m",
             .help = "clients that ping more often are told to calm down"),
    FLUE_BOOL(struct flue_keepalive_enforcement_config, permit_without_stream, .def = "false",
              .help = "allow pings while no call is open"),
    FLUE_FIELDS_END,
};

static const struct flue_field keepalive_fields[] = {
    FLUE_BLOCK(struct flue_keepalive_config, server_parameters, struct flue_keepalive_server_config,
               keepalive_server_fields),
    FLUE_BLOCK(struct flue_keepalive_config, enforcement_policy,
               struct flue_keepalive_enforcement_config, enforcement_fields),
    FLUE_FIELDS_END,
};

static const struct flue_field auth_fields[] = {
    FLUE_STRING(struct flue_server_auth_config, authenticator, .required = true,
                .help = "id of an extension (basicauth, bearertokenauth)"),
    FLUE_FIELDS_END,
};

static const struct flue_field proxy_fields[] = {
    FLUE_STRINGS(struct flue_proxy_config, from, .required = true,
                 .help = "addresses and networks of the balancers, or unix; they must send the "
                         "header, others must not"),
    FLUE_FIELDS_END,
};

struct middleware {
    const char *id;
};
static const struct flue_field middleware_fields[] = {
    FLUE_STRING(struct middleware, id, .help = "id of an extension"),
    FLUE_FIELDS_END,
};

#define BOTH_FIELDS                                                                                \
    FLUE_ENUM(struct flue_server_config, transport, .def = "tcp", .choices = transports,           \
              .help = "tcp, or unix with a path as endpoint"),                                     \
        FLUE_OPTIONAL(struct flue_server_config, tls, struct flue_tls_server_config,               \
                      flue_tls_server_fields, .help = "unset: plaintext"),                         \
        FLUE_OPTIONAL(struct flue_server_config, auth, struct flue_server_auth_config,             \
                      auth_fields, .help = "who may send; unset: everybody"),                      \
        FLUE_OPTIONAL(struct flue_server_config, proxy_protocol, struct flue_proxy_config,         \
                      proxy_fields,                                                                \
                      .help = "PROXY protocol (version 1 or 2) before TLS and HTTP, from these "   \
                              "peers; unset: from nobody"),                                        \
        FLUE_LIST(struct flue_server_config, middlewares, struct middleware, middleware_fields,    \
                  .help = "none are served: the memory_limiter processor refuses before a body "   \
                          "is read"),                                                              \
        FLUE_BOOL(struct flue_server_config, include_metadata, .def = "false",                     \
                  .help = "keep all request headers with the data, not only those named "          \
                          "elsewhere")

const struct flue_field flue_server_http_rest_fields[] = {
    BOTH_FIELDS,
    FLUE_INT(struct flue_server_config, max_request_body_size, .def = "67108864", .minimum = 1,
             .maximum = 1ll << 32, .unit = "bytes",
             .help = "limit of a body, before and after decompression; more is answered 413"),
    FLUE_OPTIONAL(struct flue_server_config, cors, struct flue_cors_config, cors_fields,
                  .help = "for browsers; unset: no CORS headers"),
    FLUE_MAP(struct flue_server_config, response_headers, .help = "added to every response"),
    FLUE_STRINGS(struct flue_server_config, compression_algorithms,
                 .help = "Content-Encodings that are taken, of \"\", gzip, zstd, zlib, snappy, "
                         "deflate, lz4, x-snappy-framed; unset: all"),
    DURATION(struct flue_server_config, read_timeout,
             .help = "a body of which nothing comes for this long is refused; 0: idle_timeout"),
    DURATION(struct flue_server_config, read_header_timeout, .def = "10s",
             .help = "time for the headers, and for a TLS handshake; 0: no limit"),
    DURATION(struct flue_server_config, write_timeout,
             .help = "a response of which nothing is taken for this long ends the connection; 0: "
                     "idle_timeout"),
    DURATION(struct flue_server_config, idle_timeout, .def = "5m",
             .help = "a connection without a request for this long is closed; 0: no limit"),
    FLUE_BOOL(struct flue_server_config, keep_alives_enabled, .def = "true",
              .help = "several requests on one HTTP/1.1 connection"),
    FLUE_FIELDS_END,
};

const struct flue_field flue_server_http_fields[] = {
    FLUE_ENDPOINT(struct flue_server_config, endpoint, .def = "localhost:4318",
                  .help = "address and port to listen on; port 0: any free one"),
    {.type = FLUE_FIELD_BLOCK,
     .size = sizeof(struct flue_server_config),
     .fields = flue_server_http_rest_fields},
    FLUE_FIELDS_END,
};

const struct flue_field flue_server_grpc_fields[] = {
    FLUE_ENDPOINT(struct flue_server_config, endpoint, .def = "localhost:4317",
                  .help = "address and port to listen on; port 0: any free one"),
    BOTH_FIELDS,
    FLUE_INT(struct flue_server_config, max_recv_msg_size_mib, .def = "64", .minimum = 1,
             .maximum = 4095, .unit = "MiB",
             .help = "limit of a message, before and after decompression; more is answered "
                     "RESOURCE_EXHAUSTED"),
    FLUE_INT(struct flue_server_config, max_concurrent_streams, .def = "100", .minimum = 1,
             .maximum = STREAMS_MAX, .help = "calls at a time on one connection"),
    FLUE_IGNORED("read_buffer_size", "one receive buffer is shared by all connections of a core"),
    FLUE_IGNORED("write_buffer_size", "answers are sent together, once per turn of the loop"),
    FLUE_BLOCK(struct flue_server_config, keepalive, struct flue_keepalive_config,
               keepalive_fields),
    FLUE_FIELDS_END,
};

unsigned flue_server_codings(const struct flue_server_config *config)
{
    unsigned codings = 0;
    enum flue_coding coding;
    if (config->compression_algorithms.count == 0)
        return (1u << FLUE_CODINGS) - 1;
    for (size_t i = 0; i < config->compression_algorithms.count; i++)
        if (flue_coding_by_name(
                flue_bytes_of(((const char *const *)config->compression_algorithms.items)[i]),
                &coding))
            codings |= 1u << coding;
    if (codings & 1u << FLUE_SNAPPY) /* "snappy" is either form: the first bytes say which */
        codings |= 1u << FLUE_SNAPPY_FRAMED;
    return codings;
}

void flue_server_check(const struct flue_server_config *config, const char *path,
                       struct flue_check *check)
{
    char at[256];
#define AT(key) (snprintf(at, sizeof at, "%s%s%s", path, *path ? "." : "", key), at)
    if (!config->endpoint || !*config->endpoint)
        flue_check_fail(check, AT("endpoint"), "endpoint is empty: give host:port%s",
                        config->transport == 1 ? ", or a path with transport: unix" : "");
    else if (config->transport == 1 && strlen(config->endpoint) > 107)
        flue_check_fail(check, AT("endpoint"),
                        "the path of a Unix socket has at most 107 bytes, this one has %zu",
                        strlen(config->endpoint));
    else if (config->transport == 0 && !strrchr(config->endpoint, ':'))
        flue_check_fail(check, AT("endpoint"), "\"%s\" has no port: give host:port",
                        config->endpoint);
    for (size_t i = 0; i < config->compression_algorithms.count; i++) {
        enum flue_coding coding;
        const char *name = ((const char *const *)config->compression_algorithms.items)[i];
        if (!flue_coding_by_name(flue_bytes_of(name), &coding))
            flue_check_fail(check, AT("compression_algorithms"),
                            "unknown compression \"%s\": of \"\", gzip, zstd, zlib, snappy, "
                            "deflate, lz4, x-snappy-framed",
                            name);
    }
    if (config->middlewares.count)
        flue_check_fail(check, AT("middlewares"),
                        "there are no server middlewares; put memory_limiter among the processors "
                        "of the pipeline: it refuses before a body is read, and limits are keys of "
                        "this block");
    for (size_t i = 0; i < config->response_headers.count; i++) {
        const struct flue_map_entry *entry = &config->response_headers.items[i];
        bool bad = !*entry->key || strlen(entry->key) > 256 || strlen(entry->value) > 4096;
        for (const char *c = entry->key; *c; c++)
            bad |= *c <= ' ' || *c >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", *c) != NULL;
        for (const char *c = entry->value; *c; c++)
            bad |= (unsigned char)*c < ' ' || *c == 0x7f;
        if (bad)
            flue_check_fail(check, AT("response_headers"),
                            "\"%.64s\" is not a header that can be sent", entry->key);
    }
    if (config->proxy_protocol) {
        char proxy[256];
        snprintf(proxy, sizeof proxy, "%s", AT("proxy_protocol"));
        flue_proxy_check(config->proxy_protocol, proxy, check);
    }
    if (config->tls) {
        char tls[256];
        snprintf(tls, sizeof tls, "%s", AT("tls"));
        flue_tls_check(&config->tls->common, tls, check);
        const struct flue_tls_config *common = &config->tls->common;
        if (!(common->cert_file && *common->cert_file) && !(common->cert_pem && *common->cert_pem))
            flue_check_fail(check, tls, "a listener with tls needs cert_file and key_file");
    } else if (config->auth && config->endpoint && config->transport == 0 &&
               (*config->endpoint == ':' || !flue_client_endpoint_is_local(config->endpoint))) {
        flue_check_warn(check, AT("auth"),
                        "senders give their credentials to \"%.200s\" without TLS, where everybody "
                        "between can read them: add tls, or listen on localhost",
                        config->endpoint);
    }
#undef AT
}

struct flue_server_config flue_server_config_effective(const struct flue_server_config *config)
{
    struct flue_server_config effective = *config;
    if (config->max_recv_msg_size_mib > 0) {
        const struct flue_keepalive_server_config *keepalive = &config->keepalive.server_parameters;
        effective.max_request_body_size = config->max_recv_msg_size_mib * MIB;
        effective.read_header_timeout = HEADER_TIMEOUT_NS;
        effective.idle_timeout =
            keepalive->max_connection_idle > 0 ? keepalive->max_connection_idle : IDLE_TIMEOUT_NS;
        effective.keep_alives_enabled = true;
    }
    if (effective.max_request_body_size <= 0)
        effective.max_request_body_size = BODY_LIMIT;
    if (effective.max_concurrent_streams <= 0)
        effective.max_concurrent_streams = STREAMS_DEFAULT;
    return effective;
}

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_list(const struct flue_list *a, const struct flue_list *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!same_text(((const char *const *)a->items)[i], ((const char *const *)b->items)[i]))
            return false;
    return true;
}

static bool same_map(const struct flue_map *a, const struct flue_map *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!same_text(a->items[i].key, b->items[i].key) ||
            !same_text(a->items[i].value, b->items[i].value))
            return false;
    return true;
}

static bool same_auth(const struct flue_server_auth_config *a,
                      const struct flue_server_auth_config *b)
{
    if (!a || !b)
        return a == b;
    return same_text(a->authenticator, b->authenticator);
}

static bool same_tls(const struct flue_tls_server_config *a, const struct flue_tls_server_config *b)
{
    if (!a || !b)
        return a == b;
    const struct flue_tls_config *x = &a->common, *y = &b->common;
    return same_text(x->ca_file, y->ca_file) && same_text(x->ca_pem, y->ca_pem) &&
           same_text(x->cert_file, y->cert_file) && same_text(x->cert_pem, y->cert_pem) &&
           same_text(x->key_file, y->key_file) && same_text(x->key_pem, y->key_pem) &&
           same_text(x->min_version, y->min_version) && same_text(x->max_version, y->max_version) &&
           same_list(&x->cipher_suites, &y->cipher_suites) &&
           same_list(&x->curve_preferences, &y->curve_preferences) &&
           x->include_system_ca_certs_pool == y->include_system_ca_certs_pool &&
           x->include_insecure_cipher_suites == y->include_insecure_cipher_suites &&
           x->reload_interval == y->reload_interval &&
           same_text(a->client_ca_file, b->client_ca_file) &&
           a->client_ca_file_reload == b->client_ca_file_reload;
}

static bool same_proxy(const struct flue_proxy_config *a, const struct flue_proxy_config *b)
{
    if (!a || !b)
        return a == b;
    return same_list(&a->from, &b->from);
}

static bool same_cors(const struct flue_cors_config *a, const struct flue_cors_config *b)
{
    if (!a || !b)
        return a == b;
    return same_list(&a->allowed_origins, &b->allowed_origins) &&
           same_list(&a->allowed_headers, &b->allowed_headers) &&
           same_list(&a->exposed_headers, &b->exposed_headers) && a->max_age == b->max_age;
}

bool flue_server_config_equal(const struct flue_server_config *a,
                              const struct flue_server_config *b)
{
    const struct flue_keepalive_config *x = &a->keepalive, *y = &b->keepalive;
    return same_text(a->endpoint, b->endpoint) && a->transport == b->transport &&
           same_tls(a->tls, b->tls) && same_auth(a->auth, b->auth) && same_cors(a->cors, b->cors) &&
           same_proxy(a->proxy_protocol, b->proxy_protocol) &&
           a->max_request_body_size == b->max_request_body_size &&
           a->max_recv_msg_size_mib == b->max_recv_msg_size_mib &&
           a->include_metadata == b->include_metadata &&
           same_map(&a->response_headers, &b->response_headers) &&
           same_list(&a->compression_algorithms, &b->compression_algorithms) &&
           a->read_timeout == b->read_timeout && a->read_header_timeout == b->read_header_timeout &&
           a->write_timeout == b->write_timeout && a->idle_timeout == b->idle_timeout &&
           a->keep_alives_enabled == b->keep_alives_enabled &&
           a->max_concurrent_streams == b->max_concurrent_streams &&
           x->server_parameters.max_connection_idle == y->server_parameters.max_connection_idle &&
           x->server_parameters.max_connection_age == y->server_parameters.max_connection_age &&
           x->server_parameters.max_connection_age_grace ==
               y->server_parameters.max_connection_age_grace &&
           x->server_parameters.time == y->server_parameters.time &&
           x->server_parameters.timeout == y->server_parameters.timeout &&
           x->enforcement_policy.min_time == y->enforcement_policy.min_time &&
           x->enforcement_policy.permit_without_stream ==
               y->enforcement_policy.permit_without_stream;
}
