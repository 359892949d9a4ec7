/* otlp_grpc.c: sends batches to the next OTLP hop over gRPC.
 *
 * One item is one unary call (collector/net/client_sender.h). What may be repeated is decided by
 * flue_call_grpc_result; a partial success is never repeated (OTLP specification 1.11). */
#include <stdio.h>

#include "collector/base/clock.h"
#include "collector/component.h"
#include "collector/net/client_keys.h"
#include "collector/net/client_sender.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"

#define ANSWER_MOST ((size_t)32 << 20)
#define TIMEOUT_STEP                                                                               \
    UINT64_C(100) /* ms: grpc-timeout is rounded up to it, so that HPACK knows it */

struct keepalive_config {
    int64_t time, timeout;
    bool permit_without_stream;
};
struct otlp_grpc_config {
    const char *endpoint;
    struct flue_tls_client_config tls;
    int compression;
    struct flue_client_compression compression_params;
    struct flue_map headers;
    const struct keepalive_config *keepalive;
    bool wait_for_ready;
    int balancer_name;
    const char *user_agent, *authority;
    const struct flue_client_auth *auth;
    int64_t max_connections, max_request_size;
};

static const struct flue_field keepalive_fields[] = {
    FLUE_DURATION(struct keepalive_config, time, .def = "10s", .minimum = 0, .maximum = INT64_MAX,
                  .help = "a PING after so much silence while calls are open"),
    FLUE_DURATION(struct keepalive_config, timeout, .def = "10s", .minimum = 0,
                  .maximum = INT64_MAX, .help = "how long its answer may take"),
    FLUE_BOOL(struct keepalive_config, permit_without_stream, .def = "false",
              .help = "also while no call is open"),
    FLUE_FIELDS_END,
};
static const char *const compressions[] = {"gzip", "snappy", "zstd", "none", "", NULL};
static const enum flue_coding codings[] = {FLUE_GZIP, FLUE_SNAPPY_FRAMED, FLUE_ZSTD, FLUE_IDENTITY,
                                           FLUE_IDENTITY};
enum { ROUND_ROBIN, PICK_FIRST };
static const char *const balancers[] = {"round_robin", "pick_first", NULL};

static const struct flue_field otlp_grpc_fields[] = {
    FLUE_STRING(struct otlp_grpc_config, endpoint, .required = true,
                .help =
                    "host:port, dns:///host:port, unix:///path, or https://host:port, which means "
                    "TLS whatever tls.insecure says"),
    FLUE_BLOCK(struct otlp_grpc_config, tls, struct flue_tls_client_config, flue_tls_client_fields,
               .help = "TLS, on unless insecure: true"),
    FLUE_ENUM(struct otlp_grpc_config, compression, .choices = compressions, .def = "gzip",
              .help = "of the messages sent"),
    FLUE_BLOCK(struct otlp_grpc_config, compression_params, struct flue_client_compression,
               flue_client_compression_fields, .help = "how hard to compress"),
    FLUE_SECRETS(struct otlp_grpc_config, headers, .help = "sent with every call"),
    FLUE_OPTIONAL(struct otlp_grpc_config, keepalive, struct keepalive_config, keepalive_fields,
                  .help = "PINGs that find a dead connection; unset: off"),
    FLUE_BOOL(struct otlp_grpc_config, wait_for_ready, .def = "false",
              .help = "calls wait for a connection until their timeout, else they fail at once and "
                      "are retried"),
    FLUE_ENUM(struct otlp_grpc_config, balancer_name, .choices = balancers, .def = "round_robin",
              .help = "over the addresses of the endpoint's name"),
    FLUE_STRING(struct otlp_grpc_config, user_agent, .help = "instead of flue/<version>"),
    FLUE_STRING(struct otlp_grpc_config, authority, .help = ":authority instead of the endpoint's"),
    FLUE_OPTIONAL(struct otlp_grpc_config, auth, struct flue_client_auth, flue_client_auth_fields,
                  .help = "authenticator extensions; until there are any, use headers"),
    FLUE_INT(struct otlp_grpc_config, max_connections, .def = "0", .minimum = 0, .maximum = 64,
             .help = "per event loop; 0: as many as the server's stream limit demands"),
    FLUE_SIZE(struct otlp_grpc_config, max_request_size, .def = "64MiB", .minimum = 1024,
              .maximum = (int64_t)1 << 31, .unit = "bytes",
              .help = "of a message before compression; a larger one is split"),
    FLUE_IGNORED("read_buffer_size",
                 "one receive buffer per event loop is shared by all connections"),
    FLUE_IGNORED("write_buffer_size", "messages are written from where they lie, without a buffer"),
    FLUE_IGNORED("middlewares", "there are no client middlewares"),
    FLUE_FIELDS_END,
};

struct otlp_grpc {
    const struct otlp_grpc_config *config;
    struct flue_client_sender sender;
};

struct otlp_item {
    struct flue_client_item base; /* first */
    struct flue_header headers[FLUE_CLIENT_OWN_HEADERS + FLUE_CLIENT_CONFIG_HEADERS];
    char timeout[24];
};

static const struct otlp_grpc *of_sender(const struct flue_client_sender *sender)
{
    return (const struct otlp_grpc *)(const void *)((const char *)sender -
                                                    offsetof(struct otlp_grpc, sender));
}

/* ---- configuration -------------------------------------------------------------------------- */

static void otlp_grpc_check(const void *bound, struct flue_check *check)
{
    const struct otlp_grpc_config *config = bound;
    struct flue_error error;
    if (config->endpoint && flue_client_endpoint_check(config->endpoint, false, &error))
        flue_check_fail(check, "endpoint", "%s", error.text);
    flue_tls_check(&config->tls.common, "tls", check);
    flue_client_compression_check(&config->compression_params, codings[config->compression],
                                  compressions[config->compression], check);
    flue_client_headers_check(&config->headers, check);
    flue_client_auth_check(config->auth, check);
}

/* ---- calls ---------------------------------------------------------------------------------- */

/* Status OK: what the next hop says about the data it took. It is never sent again. */
static enum flue_code read_answer(const struct flue_client_item *item, struct flue_bytes message,
                                  struct flue_verdict *verdict)
{
    char said[256] = "";
    uint64_t rejected = 0;
    if (flue_otlp_response_read(message, false, &rejected, said, sizeof said, &verdict->error)) {
        flue_fail_prefix(&verdict->error, "answer with status OK that is none");
        return verdict->error.code = FLUE_INVALID;
    }
    flue_client_item_partial(item, rejected, said, verdict);
    return FLUE_OK;
}

static enum flue_code answered(struct flue_client_item *item, struct flue_verdict *verdict)
{
    const struct otlp_grpc *self = of_sender(item->sender);
    struct flue_bytes message;
    struct flue_arena arena;
    flue_arena_init(&arena, ANSWER_MOST, 0);
    enum flue_code code = flue_call_grpc_result(&item->call, &arena, &message, &verdict->error);
    if (!code)
        code = read_answer(item, message, verdict);
    if (code && item->call.error.code == FLUE_OK)
        flue_fail_prefix(&verdict->error, "\"%s\"", self->config->endpoint);
    flue_arena_destroy(&arena);
    return code;
}

/* The time that is left goes along as grpc-timeout. */
static void request(struct flue_client_item *base)
{
    struct otlp_item *item = (struct otlp_item *)(void *)base;
    struct flue_call *call = &base->call;
    if (!call->deadline_ns)
        return;
    uint64_t now = flue_monotonic_ns();
    uint64_t ms = call->deadline_ns > now ? (call->deadline_ns - now + 999999) / 1000000 : 1;
    ms = (ms + TIMEOUT_STEP - 1) / TIMEOUT_STEP * TIMEOUT_STEP;
    bool fits = ms < 100000000; /* at most eight digits (gRPC over HTTP/2) */
    int size = snprintf(item->timeout, sizeof item->timeout, "%u%c",
                        fits                   ? (unsigned)ms
                        : ms / 1000 < 99999999 ? (unsigned)(ms / 1000)
                                               : 99999999u,
                        fits ? 'm' : 'S');
    memcpy(item->headers, call->headers, call->header_count * sizeof item->headers[0]);
    item->headers[call->header_count++] =
        (struct flue_header){FLUE_BYTES("grpc-timeout"), flue_bytes(item->timeout, (size_t)size)};
    call->headers = item->headers;
}

/* ---- life ----------------------------------------------------------------------------------- */

static enum flue_code otlp_grpc_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    const struct otlp_grpc_config *config = create->config;
    enum flue_coding coding = codings[config->compression];
    struct flue_header own[FLUE_CLIENT_OWN_HEADERS];
    size_t count = 0;
    struct otlp_grpc *self = flue_arena_zalloc(create->arena, 1, sizeof *self);
    if (!self)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    self->config = config;
    self->sender = (struct flue_client_sender){
        .id = create->id,
        .loops = create->loops,
        .path = FLUE_BYTES("/opentelemetry.proto.collector.profiles.v1development."
                           "ProfilesService/Export"),
        .coding = coding,
        .grpc = true,
        .max_request_size = (uint64_t)config->max_request_size,
        .item_size = sizeof(struct otlp_item),
        .form = FLUE_FORM_OTLP,
        .convert = flue_convert,
        .request = request,
        .answered = answered,
    };
    (void)flue_client_level(&config->compression_params, coding, &self->sender.level);
    own[count++] = (struct flue_header){FLUE_BYTES("content-type"), FLUE_BYTES("application/grpc")};
    own[count++] = (struct flue_header){FLUE_BYTES("te"), FLUE_BYTES("trailers")};
    if (coding != FLUE_IDENTITY) /* gRPC's name of framed snappy is "snappy" */
        own[count++] = (struct flue_header){FLUE_BYTES("grpc-encoding"),
                                            flue_bytes_of(compressions[config->compression])};
    own[count++] = (struct flue_header){FLUE_BYTES("grpc-accept-encoding"), FLUE_BYTES("gzip")};
    if (config->user_agent && *config->user_agent)
        own[count++] =
            (struct flue_header){FLUE_BYTES("user-agent"), flue_bytes_of(config->user_agent)};
    *instance = self;
    return flue_client_headers(&config->headers, own, count, create->arena, &self->sender.headers,
                               &self->sender.header_count, error);
}

static void otlp_grpc_destroy(void *instance)
{
    flue_client_sender_destroy(&((struct otlp_grpc *)instance)->sender);
}

static enum flue_code otlp_grpc_start(void *instance, struct flue_error *error)
{
    struct otlp_grpc *self = instance;
    const struct otlp_grpc_config *config = self->config;
    struct flue_client_config client = {
        .endpoint = config->endpoint,
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
    return flue_client_sender_start(&self->sender, &client, "h2", error);
}

static void otlp_grpc_send(void *instance, struct flue_send *send)
{
    flue_client_sender_send(&((struct otlp_grpc *)instance)->sender, send);
}

const struct flue_component flue_exporter_otlp_grpc = {
    .kind = FLUE_EXPORTER,
    .name = "otlp_grpc",
    .alias = "otlp",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "sends to the next OTLP hop over gRPC",
    .config_size = sizeof(struct otlp_grpc_config),
    .fields = otlp_grpc_fields,
    .timeout_def = INT64_C(5000000000),
    .check = otlp_grpc_check,
    .create = otlp_grpc_create,
    .start = otlp_grpc_start,
    .send = otlp_grpc_send,
    .destroy = otlp_grpc_destroy,
};
