/* otlp_grpc.c: sends batches to the next OTLP hop over gRPC.
 *
 * One item is one unary call. The message is encoded (and compressed) once, before the first
 * attempt, and kept in the send's state for the others. What may be repeated is decided by
 * flue_call_grpc_result; a partial success is never repeated (OTLP specification 1.11). Every loop
 * has a client of its own; the TLS context is shared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/component.h"
#include "collector/net/client.h"
#include "collector/net/client_body.h"
#include "collector/pipeline/exporter.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"

#define MAX_HEADERS 48
#define SLICES_MOST ((size_t)256 << 20) /* of a request's list of slices */
#define ANSWER_MOST ((size_t)32 << 20)
#define TIMEOUT_STEP                                                                               \
    UINT64_C(100) /* ms: grpc-timeout is rounded up to it, so that HPACK knows it */

struct keepalive_config {
    int64_t time, timeout;
    bool permit_without_stream;
};
struct params_config {
    struct flue_value level;
};
struct auth_config {
    const char *authenticator;
};
struct otlp_grpc_config {
    const char *endpoint;
    struct flue_tls_client_config tls;
    int compression;
    struct params_config compression_params;
    struct flue_map headers;
    const struct keepalive_config *keepalive;
    bool wait_for_ready;
    int balancer_name;
    const char *user_agent, *authority;
    const struct auth_config *auth;
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
static const struct flue_field params_fields[] = {
    FLUE_VALUE(struct params_config, level,
               .help = "the codec's level, or \"dense\" for gzip and zstd: smaller, dearer"),
    FLUE_FIELDS_END,
};
static const struct flue_field auth_fields[] = {
    FLUE_STRING(struct auth_config, authenticator, .help = "id of an authenticator extension"),
    FLUE_FIELDS_END,
};

enum { GZIP, SNAPPY, ZSTD, NONE, EMPTY };
static const char *const compressions[] = {"gzip", "snappy", "zstd", "none", "", NULL};
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
    FLUE_BLOCK(struct otlp_grpc_config, compression_params, struct params_config, params_fields,
               .help = "how hard to compress"),
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
    FLUE_OPTIONAL(struct otlp_grpc_config, auth, struct auth_config, auth_fields,
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
    const char *id;
    struct flue_loops *loops;
    struct flue_tls *tls;
    struct flue_client *clients[64]; /* by loop */
    enum flue_coding coding;
    int level;
    struct flue_header headers[MAX_HEADERS]; /* of every call; grpc-timeout comes behind them */
    size_t header_count;
};

/* ---- configuration -------------------------------------------------------------------------- */

static bool read_level(const struct flue_value *value, int compression, int *out)
{
    *out = FLUE_LEVEL_DEFAULT;
    if (value->type == FLUE_VALUE_EMPTY)
        return true;
    if (value->type == FLUE_VALUE_STRING && flue_bytes_is(value->text, "dense")) {
        *out = FLUE_LEVEL_DENSE;
        return compression == GZIP || compression == ZSTD;
    }
    if (value->type != FLUE_VALUE_INT)
        return false;
    /* 0 means "not set" to the Collector, -1 the codec's default, -2 Huffman only. */
    int64_t most = compression == GZIP ? 9 : compression == ZSTD ? 22 : 0;
    if (value->integer > 0 && value->integer <= most)
        *out = (int)value->integer;
    return value->integer <= most && value->integer >= (compression == GZIP ? -2 : 0);
}

static bool reserved(const char *name)
{
    static const char *const names[] = {
        "content-type",         "te",         "grpc-encoding",     "grpc-timeout",
        "grpc-accept-encoding", "connection", "transfer-encoding", "content-length"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (flue_bytes_equal_nocase(flue_bytes_of(name), flue_bytes_of(names[i])))
            return true;
    return name[0] == ':' || name[0] == 0;
}

static void otlp_grpc_check(const void *bound, struct flue_check *check)
{
    const struct otlp_grpc_config *config = bound;
    struct flue_error error;
    int level;
    if (config->endpoint && flue_client_endpoint_check(config->endpoint, false, &error))
        flue_check_fail(check, "endpoint", "%s", error.text);
    flue_tls_check(&config->tls.common, "tls", check);
    if (!read_level(&config->compression_params.level, config->compression, &level))
        flue_check_fail(
            check, "compression_params.level",
            "not a level of \"%s\": gzip takes -2 to 9 or dense, zstd 0 to 22 or dense, "
            "others 0",
            compressions[config->compression]);
    if (config->headers.count > MAX_HEADERS - 8)
        flue_check_fail(check, "headers", "%zu headers, limit %d", config->headers.count,
                        MAX_HEADERS - 8);
    for (size_t i = 0; i < config->headers.count; i++)
        if (reserved(config->headers.items[i].key))
            flue_check_fail(check, "headers", "\"%s\" is set by the protocol itself",
                            config->headers.items[i].key);
    if (config->auth && config->auth->authenticator)
        flue_check_fail(check, "auth.authenticator",
                        "there are no authenticator extensions yet: use headers");
}

/* ---- life ----------------------------------------------------------------------------------- */

static void add_header(struct otlp_grpc *self, struct flue_bytes name, struct flue_bytes value)
{
    if (self->header_count < MAX_HEADERS)
        self->headers[self->header_count++] = (struct flue_header){name, value};
}

static struct flue_bytes lower_case(struct flue_arena *arena, const char *name)
{
    char *copy = flue_arena_string(arena, flue_bytes_of(name));
    for (char *c = copy; c && *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c |= 0x20;
    return flue_bytes_of(copy);
}

static enum flue_code otlp_grpc_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    static const enum flue_coding codings[] = {FLUE_GZIP, FLUE_SNAPPY_FRAMED, FLUE_ZSTD,
                                               FLUE_IDENTITY, FLUE_IDENTITY};
    const struct otlp_grpc_config *config = create->config;
    struct otlp_grpc *self = flue_arena_zalloc(create->arena, 1, sizeof *self);
    if (!self)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    self->config = config;
    self->id = create->id;
    self->loops = create->loops;
    self->coding = codings[config->compression];
    read_level(&config->compression_params.level, config->compression, &self->level);
    add_header(self, FLUE_BYTES("content-type"), FLUE_BYTES("application/grpc"));
    add_header(self, FLUE_BYTES("te"), FLUE_BYTES("trailers"));
    if (self->coding != FLUE_IDENTITY) /* gRPC's name of framed snappy is "snappy" */
        add_header(self, FLUE_BYTES("grpc-encoding"),
                   flue_bytes_of(compressions[config->compression]));
    add_header(self, FLUE_BYTES("grpc-accept-encoding"), FLUE_BYTES("gzip"));
    if (config->user_agent && *config->user_agent)
        add_header(self, FLUE_BYTES("user-agent"), flue_bytes_of(config->user_agent));
    for (size_t i = 0; i < config->headers.count; i++) {
        const struct flue_map_entry *entry = &config->headers.items[i];
        struct flue_bytes name = lower_case(create->arena, entry->key);
        if (!name.data)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
        add_header(self, name, flue_bytes_of(entry->value));
    }
    *instance = self;
    return FLUE_OK;
}

static void otlp_grpc_destroy(void *instance)
{
    struct otlp_grpc *self = instance;
    for (unsigned i = 0; i < self->loops->count; i++)
        flue_client_destroy(self->clients[i]);
    flue_tls_destroy(self->tls);
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
    enum flue_code code = FLUE_OK;
    if (config->keepalive) {
        client.keepalive_time = config->keepalive->time;
        client.keepalive_timeout = config->keepalive->timeout;
        client.keepalive_without_calls = config->keepalive->permit_without_stream;
    }
    if (flue_client_uses_tls(&client))
        code = flue_tls_client_new(&config->tls, "h2", &self->tls, error);
    for (unsigned i = 0; !code && i < self->loops->count; i++)
        code = flue_client_new(self->loops->items[i], &client, self->tls, &self->clients[i], error);
    return code;
}

/* ---- sending -------------------------------------------------------------------------------- */

struct otlp_send { /* send->state */
    struct otlp_grpc *self;
    struct flue_send *send;
    struct flue_payload *payload; /* in OTLP form */
    struct flue_arena arena;
    struct flue_client_body body;
    struct flue_call call;
    struct flue_header headers[MAX_HEADERS + 1];
    char timeout[24];
    bool encoded;   /* the body is ready for every attempt */
    bool encoding;  /* on the pool */
    bool cancelled; /* this attempt */
};

static void free_state(void *state)
{
    struct otlp_send *item = state;
    flue_client_body_free(&item->body);
    flue_payload_unref(item->payload);
    flue_arena_destroy(&item->arena);
    free(item);
}

/* The rejected share of what the item counts: its profiles are known, the rest in proportion. */
static struct flue_counts rejected_share(const struct flue_counts *whole, uint64_t profiles)
{
    if (profiles >= whole->profiles)
        return profiles ? *whole : (struct flue_counts){0};
    double part = (double)profiles / (double)whole->profiles;
    return (struct flue_counts){profiles, (uint64_t)((double)whole->samples * part),
                                (uint64_t)((double)whole->bytes * part)};
}

/* Status OK: what the next hop says about the data it took. It is never sent again. */
static enum flue_code read_answer(const struct otlp_send *item, struct flue_bytes message,
                                  struct flue_verdict *verdict)
{
    char said[256] = "", printable[300];
    uint64_t rejected = 0;
    if (flue_otlp_response_read(message, false, &rejected, said, sizeof said, &verdict->error)) {
        flue_fail_prefix(&verdict->error, "answer with status OK that is none");
        return verdict->error.code = FLUE_INVALID;
    }
    if (rejected || said[0]) {
        verdict->rejected = rejected_share(&item->send->batch->counts, rejected);
        flue_log(
            FLUE_WARN, "exporter", "partial success", FLUE_S("exporter", item->self->id),
            FLUE_U("dropped_profiles", rejected),
            FLUE_S("message", flue_printable(flue_bytes_of(said), printable, sizeof printable)),
            FLUE_LOG_END);
    }
    return FLUE_OK;
}

static void answered(struct flue_call *call)
{
    struct otlp_send *item = call->user;
    struct flue_send *send = item->send;
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    struct flue_bytes message;
    struct flue_arena arena;
    flue_arena_init(&arena, ANSWER_MOST, 0);
    enum flue_code code = flue_call_grpc_result(call, &arena, &message, &verdict.error);
    if (!code)
        code = read_answer(item, message, &verdict);
    if (code && call->error.code == FLUE_OK)
        flue_fail_prefix(&verdict.error, "\"%s\"", item->self->config->endpoint);
    flue_arena_destroy(&arena);
    if (code)
        flue_send_fail(send, &verdict.error);
    else
        flue_send_done(send, &verdict);
}

static void call_out(struct otlp_send *item)
{
    struct otlp_grpc *self = item->self;
    struct flue_send *send = item->send;
    size_t count = self->header_count;
    memcpy(item->headers, self->headers, count * sizeof item->headers[0]);
    if (send->deadline_ns) {
        uint64_t now = flue_monotonic_ns();
        uint64_t ms = send->deadline_ns > now ? (send->deadline_ns - now + 999999) / 1000000 : 1;
        ms = (ms + TIMEOUT_STEP - 1) / TIMEOUT_STEP * TIMEOUT_STEP;
        bool fits = ms < 100000000; /* at most eight digits (gRPC over HTTP/2) */
        int size = snprintf(item->timeout, sizeof item->timeout, "%u%c",
                            fits                   ? (unsigned)ms
                            : ms / 1000 < 99999999 ? (unsigned)(ms / 1000)
                                                   : 99999999u,
                            fits ? 'm' : 'S');
        item->headers[count++] = (struct flue_header){FLUE_BYTES("grpc-timeout"),
                                                      flue_bytes(item->timeout, (size_t)size)};
    }
    item->call = (struct flue_call){
        .client = self->clients[send->loop->index],
        .method = FLUE_BYTES("POST"),
        .path = FLUE_BYTES("/opentelemetry.proto.collector.profiles.v1development."
                           "ProfilesService/Export"),
        .headers = item->headers,
        .header_count = count,
        .body = &item->body.slices,
        .deadline_ns = send->deadline_ns,
        .done = answered,
        .user = item,
    };
    flue_call_send(&item->call);
}

static void body_ready(struct flue_client_body *body)
{
    struct otlp_send *item = body->user;
    struct flue_error error = body->error;
    item->encoding = false;
    item->encoded = !error.code;
    if (error.code)
        flue_fail_prefix(&error, "compression");
    else if (item->cancelled)
        flue_fail(&error, FLUE_CANCELLED, "cancelled");
    if (error.code)
        flue_send_fail(item->send, &error);
    else
        call_out(item);
}

static void cancel(struct flue_send *send)
{
    struct otlp_send *item = send->state;
    item->cancelled = true;
    if (!item->encoding)
        flue_call_cancel(&item->call);
}

/* The state of an item and the message as slices. */
static enum flue_code prepare(struct otlp_grpc *self, struct flue_send *send,
                              struct flue_slices *raw, struct flue_error *error)
{
    struct flue_batch *batch = send->batch;
    struct otlp_send *item = send->state;
    if (!item) {
        item = calloc(1, sizeof *item);
        if (!item)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
        item->self = self;
        item->send = send;
        flue_arena_init(&item->arena, SLICES_MOST, 0);
        send->state = item;
        send->free_state = free_state;
    }
    flue_arena_reset(&item->arena);
    if (!item->payload) {
        enum flue_code code =
            flue_convert(batch->payload, FLUE_FORM_OTLP, batch->account, &item->payload, error);
        if (code) {
            item->payload = NULL;
            return code;
        }
    }
    return item->payload->ops->slices(item->payload, &item->arena, raw, error);
}

static void otlp_grpc_send(void *instance, struct flue_send *send)
{
    struct otlp_grpc *self = instance;
    struct otlp_send *item = send->state;
    struct flue_slices raw = {0};
    struct flue_error error = {0};
    if (item && item->encoded) {
        item->cancelled = false;
        send->cancel = cancel;
        call_out(item);
        return;
    }
    if (prepare(self, send, &raw, &error)) {
        flue_send_fail(send, &error);
        return;
    }
    item = send->state;
    if (raw.total > (uint64_t)self->config->max_request_size) {
        struct flue_verdict verdict = {.kind = FLUE_SPLIT,
                                       .split_max = (uint64_t)self->config->max_request_size,
                                       .split_by_bytes = true};
        flue_fail(&verdict.error, FLUE_TOO_LARGE, "message of %zu bytes, max_request_size %lld",
                  raw.total, (long long)self->config->max_request_size);
        if (send->batch->counts.samples <= 1) /* cannot be cut */
            verdict.kind = FLUE_DROP;
        flue_send_done(send, &verdict);
        return;
    }
    item->cancelled = false;
    item->encoding = true;
    send->cancel = cancel;
    item->body.ready = body_ready;
    item->body.user = item;
    flue_client_body_make(&item->body, send->loop, &item->arena, &raw, self->coding, self->level,
                          true);
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
