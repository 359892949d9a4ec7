/* otlp_http.c: sends batches to the next OTLP hop over HTTP, as protobuf or JSON.
 *
 * One item is one POST (collector/net/client_sender.h), over HTTP/2 where the server speaks it.
 * 429, 502, 503 and 504 may be repeated, nothing else; a partial success is never repeated (OTLP
 * specification 1.11). */
#include "collector/base/buffer.h"
#include "collector/component.h"
#include "collector/net/client_keys.h"
#include "collector/net/client_sender.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/reader.h"

/* What is sent where: every signal has its path and may have its own server. */
enum { PROFILES, TRACES, METRICS, WAYS };
static const struct {
    enum flue_signal signal;
    const char *path, *key;
} ways[WAYS] = {{FLUE_PROFILES, "/v1development/profiles", "profiles_endpoint"},
                {FLUE_TRACES, "/v1/traces", "traces_endpoint"},
                {FLUE_METRICS, "/v1/metrics", "metrics_endpoint"}};

struct otlp_http_config {
    const char *endpoint, *profiles_endpoint;
    const char *traces_endpoint, *metrics_endpoint, *logs_endpoint;
    struct flue_tls_client_config tls;
    int encoding, compression;
    struct flue_client_compression compression_params;
    struct flue_map headers;
    int64_t idle_conn_timeout, max_conns_per_host;
    bool disable_keep_alives, force_attempt_http2;
    int64_t http2_read_idle_timeout, http2_ping_timeout;
    const char *proxy_url;
    const struct flue_client_auth *auth;
    int64_t max_request_size;
};

enum { PROTO, JSON };
static const char *const encodings[] = {"proto", "json", NULL};
static const char *const compressions[] = {"gzip", "zlib", "deflate", "snappy", "x-snappy-framed",
                                           "zstd", "lz4",  "none",    "",       NULL};
static const enum flue_coding codings[] = {FLUE_GZIP,   FLUE_ZLIB,          FLUE_DEFLATE,
                                           FLUE_SNAPPY, FLUE_SNAPPY_FRAMED, FLUE_ZSTD,
                                           FLUE_LZ4,    FLUE_IDENTITY,      FLUE_IDENTITY};

static const struct flue_field otlp_http_fields[] = {
    FLUE_STRING(
        struct otlp_http_config, endpoint,
        .help = "base URL; /v1development/profiles, /v1/traces or /v1/metrics is put behind it"),
    FLUE_STRING(struct otlp_http_config, profiles_endpoint,
                .help = "full URL for profiles, instead of endpoint"),
    FLUE_STRING(struct otlp_http_config, traces_endpoint,
                .help = "full URL for traces, instead of endpoint"),
    FLUE_STRING(struct otlp_http_config, metrics_endpoint,
                .help = "full URL for metrics, instead of endpoint"),
    FLUE_STRING(struct otlp_http_config, logs_endpoint, .help = "accepted; no logs pass here"),
    FLUE_BLOCK(struct otlp_http_config, tls, struct flue_tls_client_config, flue_tls_client_fields,
               .help = "for https endpoints"),
    FLUE_ENUM(struct otlp_http_config, encoding, .choices = encodings, .def = "proto",
              .help = "protobuf, or OTLP's JSON; metrics are always protobuf"),
    FLUE_ENUM(struct otlp_http_config, compression, .choices = compressions, .def = "gzip",
              .help = "of the bodies sent"),
    FLUE_BLOCK(struct otlp_http_config, compression_params, struct flue_client_compression,
               flue_client_compression_fields, .help = "how hard to compress"),
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
    FLUE_OPTIONAL(struct otlp_http_config, auth, struct flue_client_auth, flue_client_auth_fields,
                  .help = "credentials of an extension (basicauth, bearertokenauth)"),
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
    struct flue_auth *auth;
    struct otlp_way {
        const char *endpoint; /* NULL: no pipeline needs it */
        struct flue_client_sender sender;
    } ways[WAYS];
};

struct otlp_item {
    struct flue_client_item base; /* first */
    struct flue_buffer json;
    struct flue_bytes json_bytes;
};

static const struct otlp_way *of_sender(const struct flue_client_sender *sender)
{
    return (const struct otlp_way *)(const void *)((const char *)sender -
                                                   offsetof(struct otlp_way, sender));
}

/* ---- configuration -------------------------------------------------------------------------- */

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
    struct flue_client_config client = {.tls = config->tls, .tls_by_scheme = true};
    struct flue_error error;
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        client.endpoint = urls[i].url;
        if (urls[i].url && *urls[i].url && flue_client_endpoint_check(urls[i].url, true, &error))
            flue_check_fail(check, urls[i].key, "%s", error.text);
        else
            flue_client_secrecy_check(&client, config->auth, &config->headers, "", check);
    }
    if (!(config->endpoint && *config->endpoint) &&
        !(config->profiles_endpoint && *config->profiles_endpoint) &&
        !(config->traces_endpoint && *config->traces_endpoint) &&
        !(config->metrics_endpoint && *config->metrics_endpoint))
        flue_check_fail(check, "",
                        "one of endpoint, profiles_endpoint, traces_endpoint and metrics_endpoint "
                        "is required");
    flue_tls_check(&config->tls.common, "tls", check);
    flue_client_compression_check(&config->compression_params, codings[config->compression],
                                  compressions[config->compression], check);
    flue_client_headers_check(&config->headers, check);
}

/* ---- requests ------------------------------------------------------------------------------- */

/* JSON is several times its protobuf, so what does not fit is cut in halves until it does. */
static enum flue_code encode_json(struct flue_client_item *base,
                                  struct flue_client_message *message, struct flue_error *error)
{
    struct otlp_item *item = (struct otlp_item *)(void *)base;
    flue_buffer_destroy(&item->json);
    flue_buffer_init(&item->json, (size_t)base->sender->max_request_size);
    enum flue_code code = flue_otlp_json_write(base->payload, &item->json, error);
    item->json_bytes = flue_buffer_bytes(&item->json);
    message->slices = (struct flue_slices){&item->json_bytes, 1, 1, item->json_bytes.size};
    message->too_large = code == FLUE_TOO_LARGE && item->json.failed;
    message->split_max = base->payload->ops->encoded_size(base->payload) / 2 + 1;
    return message->too_large ? FLUE_OK : code;
}

static void free_json(struct flue_client_item *base)
{
    flue_buffer_destroy(&((struct otlp_item *)(void *)base)->json);
}

static bool is_json(const struct flue_call *call)
{
    return flue_bytes_starts_with(flue_call_header(call, "content-type"),
                                  FLUE_BYTES("application/json"));
}

/* 2xx: what the next hop says about the data it took. It is never sent again. */
static enum flue_code read_answer(const struct flue_client_item *item, struct flue_verdict *verdict)
{
    const struct flue_call *call = &item->call;
    char said[256] = "";
    uint64_t rejected = 0;
    if (call->response.size == 0)
        return FLUE_OK;
    if (flue_otlp_response_read(call->response, is_json(call), &rejected, said, sizeof said,
                                &verdict->error)) {
        flue_fail_prefix(&verdict->error, "HTTP %u with a body that is no answer", call->status);
        return verdict->error.code = FLUE_INVALID;
    }
    flue_client_item_partial(item, rejected, said, verdict);
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

static void refused(const struct flue_client_item *item, struct flue_error *error)
{
    const struct flue_call *call = &item->call;
    char printable[300];
    struct flue_bytes said = status_message(call);
    flue_fail(error, code_of(call->status), "\"%s\": HTTP %u%s%s",
              of_sender(item->sender)->endpoint, call->status, said.size ? ": " : "",
              flue_printable(said, printable, sizeof printable));
    if (flue_code_facts(error->code)->retryable)
        error->retry_after_ms = flue_call_retry_after_ms(call);
}

static enum flue_code answered(struct flue_client_item *item, struct flue_verdict *verdict)
{
    const struct flue_call *call = &item->call;
    verdict->error = call->error;
    if (call->error.code)
        return call->error.code;
    if (call->status >= 200 && call->status < 300)
        return read_answer(item, verdict);
    refused(item, &verdict->error);
    return verdict->error.code;
}

/* ---- life ----------------------------------------------------------------------------------- */

/* The signal's own URL as it is, else the base URL's path with the signal's behind it. */
static enum flue_code set_path(struct otlp_http *self, unsigned index, struct flue_arena *arena,
                               struct flue_error *error)
{
    const struct otlp_http_config *config = self->config;
    struct otlp_way *way = &self->ways[index];
    const char *stated = index == TRACES    ? config->traces_endpoint
                         : index == METRICS ? config->metrics_endpoint
                                            : config->profiles_endpoint;
    bool own = stated && *stated;
    way->endpoint = own ? stated : config->endpoint;
    if (!way->endpoint || !*way->endpoint)
        return flue_fail(error, FLUE_INVALID, "one of endpoint and %s is required",
                         ways[index].key);
    struct flue_bytes path = flue_client_endpoint_path(way->endpoint), query = {0};
    size_t mark = flue_bytes_find(path, '?');
    if (mark != SIZE_MAX) {
        query = flue_bytes_from(path, mark);
        path = flue_bytes_first(path, mark);
    }
    if (!own)
        while (path.size && path.data[path.size - 1] == '/')
            path.size--;
    const char *text = flue_arena_printf(arena, "%.*s%s%.*s", FLUE_PRI(path),
                                         !own             ? ways[index].path
                                         : path.size == 0 ? "/"
                                                          : "",
                                         FLUE_PRI(query));
    if (!text)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    way->sender.path = flue_bytes_of(text);
    return FLUE_OK;
}

static enum flue_code otlp_http_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    const struct otlp_http_config *config = create->config;
    bool json = config->encoding == JSON;
    enum flue_coding coding = codings[config->compression];
    struct flue_header own[FLUE_CLIENT_OWN_HEADERS];
    size_t count = 0;
    struct otlp_http *self = flue_arena_zalloc(create->arena, 1, sizeof *self);
    if (!self)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    self->config = config;
    struct flue_client_sender sender = {
        .id = create->id,
        .loops = create->loops,
        .coding = coding,
        .max_request_size = (uint64_t)config->max_request_size,
        .item_size = sizeof(struct otlp_item),
        .form = FLUE_FORM_OTLP,
        .convert = flue_convert,
        .encode = json ? encode_json : NULL,
        .answered = answered,
        .free = free_json,
    };
    (void)flue_client_level(&config->compression_params, coding, &sender.level);
    own[count++] = (struct flue_header){FLUE_BYTES("content-type"),
                                        json ? FLUE_BYTES("application/json")
                                             : FLUE_BYTES("application/x-protobuf")};
    if (coding != FLUE_IDENTITY)
        own[count++] = (struct flue_header){FLUE_BYTES("content-encoding"),
                                            flue_bytes_of(compressions[config->compression])};
    *instance = self;
    enum flue_code code = flue_client_auth_find(create, config->auth, &self->auth, error);
    if (!code)
        code = flue_client_headers(&config->headers, own, count, create->arena, &sender.headers,
                                   &sender.header_count, error);
    for (unsigned i = 0; !code && i < WAYS; i++) {
        self->ways[i].sender = sender;
        if (i == METRICS && json) {
            own[0].value = FLUE_BYTES("application/x-protobuf");
            self->ways[i].sender.encode = NULL;
            code = flue_client_headers(&config->headers, own, count, create->arena,
                                       &self->ways[i].sender.headers,
                                       &self->ways[i].sender.header_count, error);
        }
        if (code)
            break;
        if (create->signals ? create->signals & ways[i].signal : i == PROFILES)
            code = set_path(self, i, create->arena, error);
    }
    return code;
}

static void otlp_http_destroy(void *instance)
{
    struct otlp_http *self = instance;
    for (unsigned i = 0; i < WAYS; i++)
        if (self->ways[i].endpoint)
            flue_client_sender_destroy(&self->ways[i].sender);
}

static enum flue_code otlp_http_start(void *instance, struct flue_error *error)
{
    struct otlp_http *self = instance;
    const struct otlp_http_config *config = self->config;
    bool one = config->disable_keep_alives || !config->force_attempt_http2;
    struct flue_client_config client = {
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
        .auth = self->auth,
    };
    enum flue_code code = FLUE_OK;
    for (unsigned i = 0; !code && i < WAYS; i++) {
        client.endpoint = self->ways[i].endpoint;
        if (client.endpoint)
            code = flue_client_sender_start(&self->ways[i].sender, &client, NULL, error);
    }
    return code;
}

static void otlp_http_send(void *instance, struct flue_send *send)
{
    struct otlp_http *self = instance;
    enum flue_signal signal = send->batch->payload->signal;
    unsigned way = signal == FLUE_METRICS ? METRICS : signal == FLUE_TRACES ? TRACES : PROFILES;
    flue_client_sender_send(&self->ways[way].sender, send);
}

const struct flue_component flue_exporter_otlp_http = {
    .kind = FLUE_EXPORTER,
    .name = "otlp_http",
    .alias = "otlphttp",
    .signals = FLUE_PROFILES | FLUE_TRACES | FLUE_METRICS,
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
