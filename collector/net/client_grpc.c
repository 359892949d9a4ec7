/* client_grpc.c: see client_grpc.h. */
#include "collector/net/client_grpc.h"

#include <stdio.h>

#include "collector/base/clock.h"

#define TIMEOUT_STEP                                                                               \
    UINT64_C(100) /* ms: grpc-timeout is rounded up to it, so that HPACK knows it */

static const struct flue_field keepalive_fields[] = {
    FLUE_DURATION(struct flue_client_keepalive_config, time, .def = "10s", .minimum = 0,
                  .maximum = INT64_MAX, .help = "a PING after so much silence while calls are open"),
    FLUE_DURATION(struct flue_client_keepalive_config, timeout, .def = "10s", .minimum = 0,
                  .maximum = INT64_MAX, .help = "how long its answer may take"),
    FLUE_BOOL(struct flue_client_keepalive_config, permit_without_stream, .def = "false",
              .help = "also while no call is open"),
    FLUE_FIELDS_END,
};
static const char *const compressions[] = {"gzip", "snappy", "zstd", "none", "", NULL};
static const enum flue_coding codings[] = {FLUE_GZIP, FLUE_SNAPPY_FRAMED, FLUE_ZSTD, FLUE_IDENTITY,
                                           FLUE_IDENTITY};
enum { ROUND_ROBIN, PICK_FIRST };
static const char *const balancers[] = {"round_robin", "pick_first", NULL};

#define S struct flue_client_grpc_config
const struct flue_field flue_client_grpc_fields[] = {
    FLUE_BLOCK(S, tls, struct flue_tls_client_config, flue_tls_client_fields,
               .help = "TLS, on unless insecure: true"),
    FLUE_ENUM(S, compression, .choices = compressions, .def = "gzip",
              .help = "of the messages sent"),
    FLUE_BLOCK(S, compression_params, struct flue_client_compression,
               flue_client_compression_fields, .help = "how hard to compress"),
    FLUE_SECRETS(S, headers, .help = "sent with every call"),
    FLUE_OPTIONAL(S, keepalive, struct flue_client_keepalive_config, keepalive_fields,
                  .help = "PINGs that find a dead connection; unset: off"),
    FLUE_BOOL(S, wait_for_ready, .def = "false",
              .help = "calls wait for a connection until their timeout, else they fail at once and "
                      "are retried"),
    FLUE_ENUM(S, balancer_name, .choices = balancers, .def = "round_robin",
              .help = "over the addresses of the endpoint's name"),
    FLUE_STRING(S, user_agent, .help = "instead of flue/<version>"),
    FLUE_STRING(S, authority, .help = ":authority instead of the endpoint's"),
    FLUE_OPTIONAL(S, auth, struct flue_client_auth, flue_client_auth_fields,
                  .help = "credentials of an extension (basicauth, bearertokenauth)"),
    FLUE_INT(S, max_connections, .def = "0", .minimum = 0, .maximum = 64,
             .help = "per event loop; 0: as many as the server's stream limit demands"),
    FLUE_SIZE(S, max_request_size, .def = "64MiB", .minimum = 1024, .maximum = (int64_t)1 << 31,
              .unit = "bytes", .help = "of a message before compression; a larger one is split"),
    FLUE_IGNORED("read_buffer_size",
                 "one receive buffer per event loop is shared by all connections"),
    FLUE_IGNORED("write_buffer_size", "messages are written from where they lie, without a buffer"),
    FLUE_IGNORED("middlewares", "there are no client middlewares"),
    FLUE_FIELDS_END,
};
#undef S

void flue_client_grpc_check(const struct flue_client_grpc_config *config, const char *path,
                            struct flue_check *check)
{
    char tls[256];
    snprintf(tls, sizeof tls, "%stls", path);
    flue_tls_check(&config->tls.common, tls, check);
    flue_client_compression_check_at(&config->compression_params, codings[config->compression],
                                     compressions[config->compression], path, check);
    flue_client_headers_check_at(&config->headers, path, check);
}

enum flue_coding flue_client_grpc_coding(const struct flue_client_grpc_config *config)
{
    return codings[config->compression];
}

int flue_client_grpc_level(const struct flue_client_grpc_config *config)
{
    int level;
    (void)flue_client_level(&config->compression_params, codings[config->compression], &level);
    return level;
}

struct flue_client_config flue_client_grpc_settings(const struct flue_client_grpc_config *config)
{
    struct flue_client_config client = {
        .tls = config->tls,
        .protocol = FLUE_CLIENT_HTTP2,
        .pick_first = config->balancer_name == PICK_FIRST,
        .wait_for_ready = config->wait_for_ready,
        .authority = config->authority,
        .max_connections = config->max_connections,
    };
    if (config->keepalive) {
        client.keepalive_time = config->keepalive->time;
        client.keepalive_timeout = config->keepalive->timeout;
        client.keepalive_without_calls = config->keepalive->permit_without_stream;
    }
    return client;
}

void flue_client_grpc_secrecy_check(const struct flue_client_grpc_config *config,
                                    const char *endpoint, const char *path,
                                    struct flue_check *check)
{
    struct flue_client_config client = flue_client_grpc_settings(config);
    client.endpoint = endpoint;
    flue_client_secrecy_check(&client, config->auth, &config->headers, path, check);
}

enum flue_code flue_client_grpc_headers(const struct flue_client_grpc_config *config,
                                        struct flue_arena *arena, const struct flue_header **out,
                                        size_t *count, struct flue_error *error)
{
    struct flue_header own[FLUE_CLIENT_OWN_HEADERS];
    size_t own_count = 0;
    own[own_count++] =
        (struct flue_header){FLUE_BYTES("content-type"), FLUE_BYTES("application/grpc")};
    own[own_count++] = (struct flue_header){FLUE_BYTES("te"), FLUE_BYTES("trailers")};
    if (codings[config->compression] != FLUE_IDENTITY) /* gRPC's name of framed snappy: "snappy" */
        own[own_count++] = (struct flue_header){FLUE_BYTES("grpc-encoding"),
                                                flue_bytes_of(compressions[config->compression])};
    own[own_count++] = (struct flue_header){FLUE_BYTES("grpc-accept-encoding"), FLUE_BYTES("gzip")};
    if (config->user_agent && *config->user_agent)
        own[own_count++] =
            (struct flue_header){FLUE_BYTES("user-agent"), flue_bytes_of(config->user_agent)};
    return flue_client_headers(&config->headers, own, own_count, arena, out, count, error);
}

struct flue_bytes flue_client_grpc_export(enum flue_signal signal)
{
#define OTLP "/opentelemetry.proto.collector."
    switch (signal) {
    case FLUE_TRACES:
        return FLUE_BYTES(OTLP "trace.v1.TraceService/Export");
    case FLUE_METRICS:
        return FLUE_BYTES(OTLP "metrics.v1.MetricsService/Export");
    case FLUE_PROFILES:
        break;
    }
    return FLUE_BYTES(OTLP "profiles.v1development.ProfilesService/Export");
#undef OTLP
}

void flue_client_grpc_deadline(struct flue_call *call, struct flue_client_grpc_request *request)
{
    if (!call->deadline_ns)
        return;
    uint64_t now = flue_monotonic_ns();
    uint64_t ms = call->deadline_ns > now ? (call->deadline_ns - now + 999999) / 1000000 : 1;
    ms = (ms + TIMEOUT_STEP - 1) / TIMEOUT_STEP * TIMEOUT_STEP;
    bool fits = ms < 100000000; /* at most eight digits (gRPC over HTTP/2) */
    int size = snprintf(request->timeout, sizeof request->timeout, "%u%c",
                        fits                   ? (unsigned)ms
                        : ms / 1000 < 99999999 ? (unsigned)(ms / 1000)
                                               : 99999999u,
                        fits ? 'm' : 'S');
    memcpy(request->headers, call->headers, call->header_count * sizeof request->headers[0]);
    request->headers[call->header_count++] = (struct flue_header){
        FLUE_BYTES("grpc-timeout"), flue_bytes(request->timeout, (size_t)size)};
    call->headers = request->headers;
}
