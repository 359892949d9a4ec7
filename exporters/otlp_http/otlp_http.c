/* otlp_http.c: sends batches to the next OTLP hop over HTTP, as protobuf or JSON.
 *
 * One item is one POST, over HTTP/2 where the server speaks it. The body is encoded (and
 * compressed) once, before the first attempt, and kept in the send's state for the others. 429,
 * 502, 503 and 504 may be repeated, nothing else; a partial success is never repeated (OTLP
 * specification 1.11). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collector/base/buffer.h"
#include "collector/base/log.h"
#include "collector/component.h"
#include "collector/net/client.h"
#include "collector/net/client_body.h"
#include "collector/pipeline/exporter.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/reader.h"

#define MAX_HEADERS   48
#define SLICES_MOST   ((size_t)256 << 20) /* of a request's list of slices */
#define PROFILES_PATH "/v1development/profiles"

struct params_config {
    struct flue_value level;
};
struct auth_config {
    const char *authenticator;
};
struct otlp_http_config {
    const char *endpoint, *profiles_endpoint;
    const char *traces_endpoint, *metrics_endpoint, *logs_endpoint;
    struct flue_tls_client_config tls;
    int encoding, compression;
    struct params_config compression_params;
    struct flue_map headers;
    int64_t idle_conn_timeout, max_conns_per_host;
    bool disable_keep_alives, force_attempt_http2;
    int64_t http2_read_idle_timeout, http2_ping_timeout;
    const char *proxy_url;
    const struct auth_config *auth;
    int64_t max_request_size;
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

enum { PROTO, JSON };
static const char *const encodings[] = {"proto", "json", NULL};
static const char *const compressions[] = {"gzip", "zlib", "deflate", "snappy", "x-snappy-framed",
                                           "zstd", "lz4",  "none",    "",       NULL};
static const enum flue_coding codings[] = {FLUE_GZIP,   FLUE_ZLIB,          FLUE_DEFLATE,
                                           FLUE_SNAPPY, FLUE_SNAPPY_FRAMED, FLUE_ZSTD,
                                           FLUE_LZ4,    FLUE_IDENTITY,      FLUE_IDENTITY};

static const struct flue_field otlp_http_fields[] = {
    FLUE_STRING(struct otlp_http_config, endpoint,
                .help = "base URL; /v1development/profiles is put behind it"),
    FLUE_STRING(struct otlp_http_config, profiles_endpoint,
                .help = "full URL for profiles, instead of endpoint"),
    FLUE_STRING(struct otlp_http_config, traces_endpoint, .help = "full URL for traces"),
    FLUE_STRING(struct otlp_http_config, metrics_endpoint, .help = "full URL for metrics"),
    FLUE_STRING(struct otlp_http_config, logs_endpoint, .help = "accepted; no logs pass here"),
    FLUE_BLOCK(struct otlp_http_config, tls, struct flue_tls_client_config, flue_tls_client_fields,
               .help = "for https endpoints"),
    FLUE_ENUM(struct otlp_http_config, encoding, .choices = encodings, .def = "proto",
              .help = "protobuf, or OTLP's JSON"),
    FLUE_ENUM(struct otlp_http_config, compression, .choices = compressions, .def = "gzip",
              .help = "of the bodies sent"),
    FLUE_BLOCK(struct otlp_http_config, compression_params, struct params_config, params_fields,
               .help = "how hard to compress"),
    FLUE_SECRETS(struct otlp_http_config, headers, .help = "sent with every request"),
    FLUE_DURATION(struct otlp_http_config, idle_conn_timeout, .def = "90s", .minimum = 0,
                  .maximum = INT64_MAX,
                  .help = "an unused connection is closed after it; 0: never"),
    FLUE_INT(struct otlp_http_config, max_conns_per_host, .def = "0", .minimum = 0,
             .maximum = 65536, .help = "connections per event loop; 0: by need"),
    FLUE_BOOL(struct otlp_http_config, disable_keep_alives, .def = "false",
              .help = "one request a connection; means HTTP/1.1"),
    FLUE_BOOL(struct otlp_http_config, force_attempt_http2, .def = "true",
              .help = "HTTP/2 where the server speaks it, with or without TLS; false: HTTP/1.1"),
    FLUE_DURATION(struct otlp_http_config, http2_read_idle_timeout, .def = "0s", .minimum = 0,
                  .maximum = INT64_MAX, .help = "a PING after so much silence; 0: off"),
    FLUE_DURATION(struct otlp_http_config, http2_ping_timeout, .def = "15s", .minimum = 0,
                  .maximum = INT64_MAX, .help = "how long its answer may take"),
    FLUE_STRING(struct otlp_http_config, proxy_url,
                .help = "HTTP proxy; means HTTP/1.1. The environment's proxies are not used"),
    FLUE_OPTIONAL(struct otlp_http_config, auth, struct auth_config, auth_fields,
                  .help = "authenticator extensions; until there are any, use headers"),
    FLUE_SIZE(struct otlp_http_config, max_request_size, .def = "64MiB", .minimum = 1024,
              .maximum = (int64_t)1 << 31, .unit = "bytes",
              .help = "of a body before compression; a larger one is split"),
    FLUE_IGNORED("read_buffer_size",
                 "one receive buffer per event loop is shared by all connections"),
    FLUE_IGNORED("write_buffer_size", "bodies are written from where they lie, without a buffer"),
    FLUE_IGNORED("max_idle_conns", "idle_conn_timeout and max_conns_per_host bound them"),
    FLUE_IGNORED("max_idle_conns_per_host", "idle_conn_timeout and max_conns_per_host bound them"),
    FLUE_IGNORED("cookies", "cookies are not kept"),
    FLUE_IGNORED("middlewares", "there are no client middlewares"),
    FLUE_FIELDS_END,
};

struct otlp_http {
    const struct otlp_http_config *config;
    const char *id, *endpoint;
    struct flue_bytes path;
    struct flue_loops *loops;
    struct flue_tls *tls;
    struct flue_client *clients[64]; /* by loop */
    enum flue_coding coding;
    int level;
    struct flue_header headers[MAX_HEADERS]; /* of every request */
    size_t header_count;
};

/* ---- configuration -------------------------------------------------------------------------- */

static bool read_level(const struct flue_value *value, int compression, int *out)
{
    enum flue_coding coding = codings[compression];
    bool zip = coding == FLUE_GZIP || coding == FLUE_ZLIB || coding == FLUE_DEFLATE;
    *out = FLUE_LEVEL_DEFAULT;
    if (value->type == FLUE_VALUE_EMPTY)
        return true;
    if (value->type == FLUE_VALUE_STRING && flue_bytes_is(value->text, "dense")) {
        *out = FLUE_LEVEL_DENSE;
        return zip || coding == FLUE_ZSTD;
    }
    if (value->type != FLUE_VALUE_INT)
        return false;
    /* 0 means "not set" to the Collector, -1 the codec's default, -2 Huffman only. */
    int64_t most = zip ? 9 : coding == FLUE_ZSTD ? 22 : 0;
    if (value->integer > 0 && value->integer <= most)
        *out = (int)value->integer;
    return value->integer <= most && value->integer >= (zip ? -2 : 0);
}

static bool reserved(const char *name)
{
    static const char *const names[] = {"content-type", "content-encoding", "content-length",
                                        "connection", "transfer-encoding"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (flue_bytes_equal_nocase(flue_bytes_of(name), flue_bytes_of(names[i])))
            return true;
    return name[0] == ':' || name[0] == 0;
}

static void otlp_http_check(const void *bound, struct flue_check *check)
{
    const struct otlp_http_config *config = bound;
    const struct {
        const char *key, *url;
    } urls[] = {{"endpoint", config->endpoint},
                {"profiles_endpoint", config->profiles_endpoint},
                {"traces_endpoint", config->traces_endpoint},
                {"metrics_endpoint", config->metrics_endpoint},
                {"logs_endpoint", config->logs_endpoint}};
    struct flue_error error;
    int level;
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++)
        if (urls[i].url && *urls[i].url && flue_client_endpoint_check(urls[i].url, true, &error))
            flue_check_fail(check, urls[i].key, "%s", error.text);
    if (!(config->endpoint && *config->endpoint) &&
        !(config->profiles_endpoint && *config->profiles_endpoint))
        flue_check_fail(check, "", "one of endpoint and profiles_endpoint is required");
    flue_tls_check(&config->tls.common, "tls", check);
    if (!read_level(&config->compression_params.level, config->compression, &level))
        flue_check_fail(check, "compression_params.level",
                        "not a level of \"%s\": gzip, zlib and deflate take -2 to 9 or dense, zstd "
                        "0 to 22 or dense, others 0",
                        compressions[config->compression]);
    if (config->headers.count > MAX_HEADERS - 4)
        flue_check_fail(check, "headers", "%zu headers, limit %d", config->headers.count,
                        MAX_HEADERS - 4);
    for (size_t i = 0; i < config->headers.count; i++)
        if (reserved(config->headers.items[i].key))
            flue_check_fail(check, "headers", "\"%s\" is set by the protocol itself",
                            config->headers.items[i].key);
    if (config->auth && config->auth->authenticator)
        flue_check_fail(check, "auth.authenticator",
                        "there are no authenticator extensions yet: use headers");
}

/* ---- life ----------------------------------------------------------------------------------- */

static void add_header(struct otlp_http *self, struct flue_bytes name, struct flue_bytes value)
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

/* The signal's own URL as it is, else the base URL's path with the signal's behind it. */
static enum flue_code set_path(struct otlp_http *self, struct flue_arena *arena,
                               struct flue_error *error)
{
    const struct otlp_http_config *config = self->config;
    bool own = config->profiles_endpoint && *config->profiles_endpoint;
    self->endpoint = own ? config->profiles_endpoint : config->endpoint;
    struct flue_bytes path = flue_client_endpoint_path(self->endpoint), query = {0};
    size_t mark = flue_bytes_find(path, '?');
    if (mark != SIZE_MAX) {
        query = flue_bytes_from(path, mark);
        path = flue_bytes_first(path, mark);
    }
    if (!own)
        while (path.size && path.data[path.size - 1] == '/')
            path.size--;
    const char *text = flue_arena_printf(arena, "%.*s%s%.*s", FLUE_PRI(path),
                                         !own             ? PROFILES_PATH
                                         : path.size == 0 ? "/"
                                                          : "",
                                         FLUE_PRI(query));
    if (!text)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    self->path = flue_bytes_of(text);
    return FLUE_OK;
}

static enum flue_code otlp_http_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    const struct otlp_http_config *config = create->config;
    struct otlp_http *self = flue_arena_zalloc(create->arena, 1, sizeof *self);
    if (!self)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    self->config = config;
    self->id = create->id;
    self->loops = create->loops;
    self->coding = codings[config->compression];
    read_level(&config->compression_params.level, config->compression, &self->level);
    enum flue_code code = set_path(self, create->arena, error);
    if (code)
        return code;
    add_header(self, FLUE_BYTES("content-type"),
               config->encoding == JSON ? FLUE_BYTES("application/json")
                                        : FLUE_BYTES("application/x-protobuf"));
    if (self->coding != FLUE_IDENTITY)
        add_header(self, FLUE_BYTES("content-encoding"),
                   flue_bytes_of(compressions[config->compression]));
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

static void otlp_http_destroy(void *instance)
{
    struct otlp_http *self = instance;
    for (unsigned i = 0; i < self->loops->count; i++)
        flue_client_destroy(self->clients[i]);
    flue_tls_destroy(self->tls);
}

static enum flue_code otlp_http_start(void *instance, struct flue_error *error)
{
    struct otlp_http *self = instance;
    const struct otlp_http_config *config = self->config;
    bool one = config->disable_keep_alives || !config->force_attempt_http2;
    struct flue_client_config client = {
        .endpoint = self->endpoint,
        .tls = config->tls,
        .protocol = one ? FLUE_CLIENT_HTTP1 : FLUE_CLIENT_PROBE,
        .tls_by_scheme = true,
        .disable_keep_alives = config->disable_keep_alives,
        .proxy_url = config->proxy_url,
        .max_connections = config->max_conns_per_host,
        .idle_timeout = config->idle_conn_timeout,
        .keepalive_time = config->http2_read_idle_timeout,
        .keepalive_timeout = config->http2_ping_timeout,
        .keepalive_without_calls = true,
    };
    enum flue_code code = FLUE_OK;
    if (flue_client_uses_tls(&client))
        code = flue_tls_client_new(&config->tls, NULL, &self->tls, error);
    for (unsigned i = 0; !code && i < self->loops->count; i++)
        code = flue_client_new(self->loops->items[i], &client, self->tls, &self->clients[i], error);
    return code;
}

/* ---- sending -------------------------------------------------------------------------------- */

struct otlp_send { /* send->state */
    struct otlp_http *self;
    struct flue_send *send;
    struct flue_payload *payload; /* in OTLP form */
    struct flue_arena arena;
    struct flue_buffer json;
    struct flue_bytes json_bytes;
    struct flue_client_body body;
    struct flue_call call;
    bool encoded;   /* the body is ready for every attempt */
    bool encoding;  /* on the pool */
    bool cancelled; /* this attempt */
};

static void free_state(void *state)
{
    struct otlp_send *item = state;
    flue_client_body_free(&item->body);
    flue_buffer_destroy(&item->json);
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

static bool is_json(const struct flue_call *call)
{
    return flue_bytes_starts_with(flue_call_header(call, "content-type"),
                                  FLUE_BYTES("application/json"));
}

/* 2xx: what the next hop says about the data it took. It is never sent again. */
static enum flue_code read_answer(const struct otlp_send *item, struct flue_verdict *verdict)
{
    const struct flue_call *call = &item->call;
    char said[256] = "", printable[300];
    uint64_t rejected = 0;
    if (call->response.size == 0)
        return FLUE_OK;
    if (flue_otlp_response_read(call->response, is_json(call), &rejected, said, sizeof said,
                                &verdict->error)) {
        flue_fail_prefix(&verdict->error, "HTTP %u with a body that is no answer", call->status);
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

static enum flue_code code_of(unsigned status)
{
    switch (status) {
    case 429:
        return FLUE_RATE_LIMITED;
    case 502:
    case 503:
    case 504:
        return FLUE_UNAVAILABLE;
    case 400:
        return FLUE_INVALID;
    case 401:
        return FLUE_UNAUTHENTICATED;
    case 403:
        return FLUE_FORBIDDEN;
    case 404:
        return FLUE_NOT_FOUND;
    case 405:
        return FLUE_BAD_METHOD;
    case 413:
        return FLUE_TOO_LARGE;
    case 415:
        return FLUE_BAD_MEDIA;
    default:
        return FLUE_REFUSED;
    }
}

/* The message of a google.rpc.Status (field 2), or the body itself where it is text. */
static struct flue_bytes status_message(const struct flue_call *call)
{
    struct flue_reader reader = flue_reader(call->response);
    struct flue_field_value field;
    struct flue_bytes found = flue_bytes(NULL, 0);
    if (flue_bytes_find(flue_call_header(call, "content-type"), '/') != SIZE_MAX &&
        !flue_bytes_starts_with(flue_call_header(call, "content-type"),
                                FLUE_BYTES("application/x-protobuf")) &&
        !flue_bytes_starts_with(flue_call_header(call, "content-type"),
                                FLUE_BYTES("application/protobuf")))
        return call->response;
    while (flue_read_field(&reader, &field))
        if (field.number == 2 && field.type == FLUE_LEN)
            found = field.bytes;
    return flue_reader_done(&reader) && found.size ? found : call->response;
}

static void refused(const struct otlp_send *item, struct flue_error *error)
{
    const struct flue_call *call = &item->call;
    char printable[300];
    struct flue_bytes said = status_message(call);
    flue_fail(error, code_of(call->status), "\"%s\": HTTP %u%s%s", item->self->endpoint,
              call->status, said.size ? ": " : "",
              flue_printable(said, printable, sizeof printable));
    if (flue_code_facts(error->code)->retryable)
        error->retry_after_ms = flue_call_retry_after_ms(call);
}

static void answered(struct flue_call *call)
{
    struct otlp_send *item = call->user;
    struct flue_verdict verdict = {.kind = FLUE_SENT, .error = call->error};
    enum flue_code code = call->error.code;
    if (!code && call->status >= 200 && call->status < 300) {
        code = read_answer(item, &verdict);
    } else if (!code) {
        refused(item, &verdict.error);
        code = verdict.error.code;
    }
    if (code)
        flue_send_fail(item->send, &verdict.error);
    else
        flue_send_done(item->send, &verdict);
}

static void call_out(struct otlp_send *item)
{
    struct otlp_http *self = item->self;
    struct flue_send *send = item->send;
    item->call = (struct flue_call){
        .client = self->clients[send->loop->index],
        .method = FLUE_BYTES("POST"),
        .path = self->path,
        .headers = self->headers,
        .header_count = self->header_count,
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
static enum flue_code prepare(struct otlp_http *self, struct flue_send *send,
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
        flue_buffer_init(&item->json, (size_t)self->config->max_request_size);
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
    if (self->config->encoding == PROTO)
        return item->payload->ops->slices(item->payload, &item->arena, raw, error);
    flue_buffer_clear(&item->json);
    enum flue_code code = flue_otlp_json_write(item->payload, &item->json, error);
    item->json_bytes = flue_buffer_bytes(&item->json);
    *raw = (struct flue_slices){&item->json_bytes, 1, 1, item->json_bytes.size};
    return code;
}

static void too_large(struct otlp_send *item)
{
    struct flue_send *send = item->send;
    long long limit = (long long)item->self->config->max_request_size;
    size_t size = item->payload->ops->encoded_size(item->payload);
    struct flue_verdict verdict = {.kind = FLUE_SPLIT, .split_by_bytes = true};
    if (item->self->config->encoding == PROTO) {
        verdict.split_max = (uint64_t)limit;
        flue_fail(&verdict.error, FLUE_TOO_LARGE, "body of %zu bytes, max_request_size %lld", size,
                  limit);
    } else { /* JSON is several times its protobuf: halves, until they fit */
        verdict.split_max = size / 2 + 1;
        flue_fail(&verdict.error, FLUE_TOO_LARGE,
                  "%zu bytes are more than max_request_size %lld as JSON", size, limit);
    }
    if (send->batch->counts.samples <= 1) /* cannot be cut */
        verdict.kind = FLUE_DROP;
    flue_send_done(send, &verdict);
}

static void otlp_http_send(void *instance, struct flue_send *send)
{
    struct otlp_http *self = instance;
    struct otlp_send *item = send->state;
    struct flue_slices raw = {0};
    struct flue_error error = {0};
    if (item && item->encoded) {
        item->cancelled = false;
        send->cancel = cancel;
        call_out(item);
        return;
    }
    enum flue_code code = prepare(self, send, &raw, &error);
    item = send->state;
    if (code == FLUE_TOO_LARGE && item->json.failed) {
        too_large(item);
        return;
    }
    if (code) {
        flue_send_fail(send, &error);
        return;
    }
    if (raw.total > (uint64_t)self->config->max_request_size) {
        too_large(item);
        return;
    }
    item->cancelled = false;
    item->encoding = true;
    send->cancel = cancel;
    item->body.ready = body_ready;
    item->body.user = item;
    flue_client_body_make(&item->body, send->loop, &item->arena, &raw, self->coding, self->level,
                          false);
}

const struct flue_component flue_exporter_otlp_http = {
    .kind = FLUE_EXPORTER,
    .name = "otlp_http",
    .alias = "otlphttp",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "sends to the next OTLP hop over HTTP",
    .config_size = sizeof(struct otlp_http_config),
    .fields = otlp_http_fields,
    .timeout_def = INT64_C(30000000000),
    .check = otlp_http_check,
    .create = otlp_http_create,
    .start = otlp_http_start,
    .send = otlp_http_send,
    .destroy = otlp_http_destroy,
};
