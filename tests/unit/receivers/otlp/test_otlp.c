/* The receiver on real sockets: gRPC and HTTP, protobuf and JSON, every outcome in its protocol. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/net/client.h"
#include "collector/net/server.h"
#include "collector/pipeline/exporter.h"
#include "collector/pipeline/graph.h"
#include "config/bind.h"
#include "proto/otlp/otlp.h"

extern const struct flue_component flue_receiver_otlp;

#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        uint64_t give_up_ = flue_monotonic_ns() + UINT64_C(20000000000);                           \
        while (!(condition)) {                                                                     \
            if (flue_monotonic_ns() > give_up_)                                                    \
                fail_msg("never: %s", #condition);                                                 \
            nanosleep(&(struct timespec){0, 300000}, NULL);                                        \
        }                                                                                          \
    } while (0)

enum mode { TAKE, HOLD, OVERLOAD, REFUSE, PARTIAL };

struct bench {
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_budget budget;
    struct flue_account account;
    struct flue_arena arena;
    struct flue_server_set *servers;
    struct flue_exporter *exporter;
    struct flue_pipeline *pipeline;
    struct flue_consumer *consumer;
    void *receiver;
    uint16_t grpc, http;
    _Atomic int mode, sends, cancelled;
    struct flue_send *held;
    char attributes[1024], origin[1024];
    struct flue_counts counts;
    uint64_t deadline_ns;
};

static bool list_attribute(void *arg, const struct flue_attribute *a)
{
    char *out = arg;
    size_t used = strlen(out);
    snprintf(out + used, 1024 - used, "%.*s=%.*s\n", FLUE_PRI(a->key), FLUE_PRI(a->value.text));
    return true;
}

static void bench_cancel(struct flue_send *send)
{
    struct bench *bench = send->state;
    struct flue_verdict verdict = {.kind = FLUE_RETRY};
    send->state = NULL;
    (void)flue_fail(&verdict.error, FLUE_CANCELLED, "ended");
    flue_send_done(send, &verdict);
    atomic_fetch_add(&bench->cancelled, 1);
}

static void bench_send(void *instance, struct flue_send *send)
{
    struct bench *bench = instance;
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    const struct flue_origin *origin = send->batch->origin;
    struct flue_payload *payload = send->batch->payload;

    bench->attributes[0] = 0;
    payload->ops->attribute_each(payload, 0, list_attribute, bench->attributes);
    snprintf(bench->origin, sizeof bench->origin, "%.*s %.*s %.*s tenant=%.*s headers=%zu",
             FLUE_PRI(origin->receiver), FLUE_PRI(origin->transport),
             FLUE_PRI(origin->peer_address), FLUE_PRI(origin->tenant), origin->header_count);
    bench->counts = send->batch->counts;
    bench->deadline_ns = send->deadline_ns;
    switch (atomic_load(&bench->mode)) {
    case HOLD:
        send->state = bench;
        send->cancel = bench_cancel;
        bench->held = send;
        break;
    case OVERLOAD:
        verdict.kind = FLUE_RETRY;
        (void)flue_fail(&verdict.error, FLUE_UNAVAILABLE, "the next hop is down");
        verdict.error.retry_after_ms = 7000;
        flue_send_done(send, &verdict);
        break;
    case REFUSE:
        verdict.kind = FLUE_DROP;
        (void)flue_fail(&verdict.error, FLUE_INVALID, "the next hop does not like it");
        flue_send_done(send, &verdict);
        break;
    case PARTIAL:
        verdict.rejected.profiles = 1;
        (void)flue_fail(&verdict.error, FLUE_INVALID, "one too old");
        flue_send_done(send, &verdict);
        break;
    default:
        flue_send_ok(send);
    }
    atomic_fetch_add(&bench->sends, 1);
}

static const struct flue_component bench_exporter = {
    .kind = FLUE_EXPORTER, .name = "bench", .no_queue = true, .send = bench_send};

static uint16_t port_of(struct bench *bench, const char *endpoint)
{
    const char *address = flue_server_address(bench->servers, endpoint);
    assert_non_null(address);
    return (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
}

static void bench_start(struct bench *bench, const char *yaml)
{
    struct flue_error error = {0};
    struct flue_check check;
    const struct flue_component *c = &flue_receiver_otlp;

    memset(bench, 0, sizeof *bench);
    flue_log_configure(FLUE_ERROR + 1, false, 2);
    flue_arena_init(&bench->arena, 0, 0);
    flue_check_init(&check, &bench->arena);
    void *config = flue_bind_yaml(
        &check,
        yaml ? yaml
             : "{protocols: {grpc: {endpoint: '127.0.0.1:0'}, http: {endpoint: 'localhost:0', "
               "include_metadata: true}}, service_name_headers: [X-Service]}",
        c->fields, c->config_size);
    assert_non_null(config);
    c->check(config, &check);
    assert_int_equal(check.mistakes, 0);
    assert_int_equal(flue_loops_new(2, &bench->loops, &error), FLUE_OK);
    bench->metrics = flue_metrics_new("otelcol_");
    flue_budget_init(&bench->budget, 256 << 20);
    flue_account_init(&bench->account, &bench->budget, "profiles", 0);
    bench->servers = flue_server_set_new(bench->loops, bench->metrics, &bench->budget);
    struct flue_exporter_spec exporter = {.component = &bench_exporter,
                                          .instance = bench,
                                          .id = "bench",
                                          .loops = bench->loops,
                                          .metrics = bench->metrics};
    assert_int_equal(flue_exporter_new(&exporter, &bench->exporter, &error), FLUE_OK);
    struct flue_pipeline_spec spec = {.id = "profiles",
                                      .signal = FLUE_PROFILES,
                                      .exporters = &bench->exporter,
                                      .exporter_count = 1,
                                      .account = &bench->account,
                                      .loops = bench->loops,
                                      .metrics = bench->metrics};
    assert_int_equal(flue_pipeline_new(&spec, &bench->pipeline, &error), FLUE_OK);
    bench->consumer = flue_consumer_new(&bench->pipeline, 1);
    struct flue_create create = {.id = "otlp/edge",
                                 .config = config,
                                 .kind = FLUE_RECEIVER,
                                 .signals = FLUE_PROFILES,
                                 .loops = bench->loops,
                                 .metrics = bench->metrics,
                                 .arena = &bench->arena,
                                 .servers = bench->servers,
                                 .budget = &bench->budget,
                                 .profiles = bench->consumer};
    if (c->create(&create, &bench->receiver, &error) || c->start(bench->receiver, &error) ||
        flue_server_set_listen(bench->servers, &error))
        fail_msg("%s", error.text);
    assert_int_equal(flue_loops_run(bench->loops, &error), FLUE_OK);
    bench->grpc = port_of(bench, "127.0.0.1:0");
    bench->http = port_of(bench, "localhost:0");
}

static void bench_stop(struct bench *bench)
{
    AWAIT(flue_receiver_otlp.stopped(bench->receiver));
    flue_loops_stop(bench->loops);
    flue_exporter_destroy(bench->exporter);
    flue_server_set_destroy(bench->servers);
    flue_receiver_otlp.destroy(bench->receiver);
    flue_consumer_destroy(bench->consumer);
    flue_pipeline_destroy(bench->pipeline);
    flue_metrics_destroy(bench->metrics);
    flue_loops_destroy(bench->loops);
    flue_arena_destroy(&bench->arena);
    assert_int_equal(bench->account.used, 0);
    assert_int_equal(bench->budget.used, 0);
}

static double metric_value(struct bench *bench, const char *series)
{
    struct flue_buffer page;
    double value = -1;
    flue_buffer_init(&page, 1 << 24);
    flue_metrics_print(bench->metrics, &page);
    const char *line = page.data ? strstr(page.data, series) : NULL;
    if (line)
        value = strtod(line + strlen(series), NULL);
    flue_buffer_destroy(&page);
    return value;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

#define PROFILE(stack)                                                                             \
    "{\"sampleType\":{\"typeStrindex\":1,\"unitStrindex\":2},\"samples\":[{\"stackIndex\":" stack  \
    ",\"values\":[\"1\"]}]}"
#define DICTIONARY                                                                                 \
    "\"dictionary\":{\"mappingTable\":[{}],\"locationTable\":[{}],\"functionTable\":[{}],"         \
    "\"linkTable\":[{}],\"stringTable\":[\"\",\"cpu\",\"nanoseconds\"],\"attributeTable\":[{}],"   \
    "\"stackTable\":[{}]}"
#define BODY(resource, profiles)                                                                   \
    "{\"resourceProfiles\":[{" resource "\"scopeProfiles\":[{\"profiles\":[" profiles              \
    "]}]}]," DICTIONARY "}"
#define NAMED                                                                                      \
    "\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":"          \
    "\"router\"}}]},"

static struct flue_block *protobuf(const char *json)
{
    struct flue_block *block;
    struct flue_error error;
    if (flue_otlp_json_read(flue_bytes_of(json), 1 << 24, NULL, &block, &error))
        fail_msg("%s", error.text);
    return block;
}

/* ---- HTTP/1.1 -------------------------------------------------------------------------------- */

struct answer {
    int status;
    char text[8192];
    size_t size;
    const char *body;
    size_t body_size;
};

static int http_begin(struct bench *bench, const char *target, const char *headers,
                      const void *body, size_t size)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(bench->http),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char head[2048];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    int n = snprintf(
        head, sizeof head,
        "POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %zu\r\n%s\r\n", target,
        size, headers);
    assert_int_equal(send(fd, head, (size_t)n, MSG_NOSIGNAL), n);
    if (size)
        assert_int_equal(send(fd, body, size, MSG_NOSIGNAL), (ssize_t)size);
    return fd;
}

static void http_read(int fd, struct answer *out)
{
    ssize_t n;
    memset(out, 0, sizeof *out);
    while ((n = recv(fd, out->text + out->size, sizeof out->text - 1 - out->size, 0)) > 0)
        out->size += (size_t)n;
    close(fd);
    assert_true(out->size > 12);
    out->status = (int)strtol(out->text + 9, NULL, 10);
    out->body = strstr(out->text, "\r\n\r\n");
    assert_non_null(out->body);
    out->body += 4;
    out->body_size = out->size - (size_t)(out->body - out->text);
}

static struct answer http(struct bench *bench, const char *target, const char *headers,
                          const void *body, size_t size)
{
    struct answer answer;
    http_read(http_begin(bench, target, headers, body, size), &answer);
    return answer;
}

#define PATH  "/v1development/profiles"
#define PROTO "content-type: application/x-protobuf\r\n"
#define JSON  "content-type: application/json\r\n"

static struct answer http_proto(struct bench *bench, const char *json)
{
    struct flue_block *body = protobuf(json);
    struct answer answer = http(bench, PATH, PROTO, body->data, body->size);
    flue_block_unref(body);
    return answer;
}

static struct answer http_json(struct bench *bench, const char *target, const char *headers,
                               const char *json)
{
    return http(bench, target, headers, json, strlen(json));
}

static void http_success(void **state)
{
    struct bench bench;
    bench_start(&bench, NULL);
    struct answer a = http_proto(&bench, BODY(NAMED, PROFILE("0")));
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body_size, 0);
    assert_non_null(strstr(a.text, "content-type: application/x-protobuf\r\n"));
    assert_string_equal(bench.attributes, "service.name=router\n");
    assert_string_equal(bench.origin, "otlp/edge http 127.0.0.1 tenant= headers=4");
    assert_int_equal(bench.counts.profiles, 1);
    assert_int_equal(bench.counts.samples, 1);
    a = http_json(&bench, PATH,
                  JSON "x-scope-orgid: media\r\nauthorization: secret\r\ncookie: c\r\n",
                  BODY(NAMED, PROFILE("0")));
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "{}");
    assert_non_null(strstr(a.text, "content-type: application/json\r\n"));
    assert_string_equal(bench.origin, "otlp/edge http 127.0.0.1 tenant=media headers=5");
    assert_int_equal(bench.sends, 2);
    assert_int_equal(metric_value(&bench,
                                  "otelcol_receiver_accepted_profile_samples_total{receiver="
                                  "\"otlp/edge\",transport=\"http\"} "),
                     2);
    assert_int_equal(
        metric_value(&bench, "otelcol_pipeline_received_profiles_total{pipeline=\"profiles\"} "),
        2);
    bench_stop(&bench);
}

static void empty_requests_succeed(void **state)
{
    struct bench bench;
    bench_start(&bench, NULL);
    struct answer a = http(&bench, PATH, PROTO, "", 0);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body_size, 0);
    a = http_json(&bench, PATH, JSON, "{}");
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "{}");
    a = http_json(&bench, PATH, JSON, "");
    assert_int_equal(a.status, 400);
    assert_int_equal(bench.sends, 0);
    bench_stop(&bench);
}

static void names_of_services(void **state)
{
    struct bench bench;
    bench_start(&bench, NULL);
    (void)http_json(&bench, PATH, JSON, BODY("", PROFILE("0")));
    assert_string_equal(bench.attributes, "service.name=unknown_service\n");
    (void)http_json(&bench, PATH "?service.name=from%20query", JSON, BODY("", PROFILE("0")));
    assert_string_equal(bench.attributes, "service.name=from query\n");
    (void)http_json(&bench, PATH "?service.name=query", JSON "x-service: header\r\n",
                    BODY("", PROFILE("0")));
    assert_string_equal(bench.attributes, "service.name=header\n");
    (void)http_json(&bench, PATH, JSON "x-service: header\r\n", BODY(NAMED, PROFILE("0")));
    assert_string_equal(bench.attributes, "service.name=router\n");
    (void)http_json(&bench, PATH,
                    JSON "x-service: a\xff"
                         "b\r\n",
                    BODY("", PROFILE("0")));
    assert_string_equal(bench.attributes, "service.name=a\xef\xbf\xbd"
                                          "b\n");
    /* What has other attributes may be named by them later. */
    (void)http_json(&bench, PATH, JSON,
                    BODY("\"resource\":{\"attributes\":[{\"key\":\"container.id\",\"value\":{"
                         "\"stringValue\":\"c1\"}}]},",
                         PROFILE("0")));
    assert_string_equal(bench.attributes, "container.id=c1\n");
    bench_stop(&bench);
}

static void partial_success_has_true_counts(void **state)
{
    struct bench bench;
    uint64_t rejected;
    char message[400];
    struct flue_error error;
    bench_start(&bench, NULL);
    struct answer a =
        http_proto(&bench, BODY(NAMED, PROFILE("0") "," PROFILE("9") "," PROFILE("8")));
    assert_int_equal(a.status, 200);
    assert_int_equal(flue_otlp_response_read(flue_bytes(a.body, a.body_size), false, &rejected,
                                             message, sizeof message, &error),
                     FLUE_OK);
    assert_int_equal(rejected, 2);
    assert_non_null(strstr(message, "9"));
    assert_int_equal(bench.counts.profiles, 1);
    assert_int_equal(metric_value(&bench, "otelcol_receiver_rejected_profiles_total{receiver="
                                          "\"otlp/edge\"} "),
                     2);
    a = http_json(&bench, PATH, JSON, BODY(NAMED, PROFILE("0") "," PROFILE("9")));
    assert_non_null(strstr(a.body, "\"partialSuccess\""));
    assert_non_null(strstr(a.body, "\"rejectedProfiles\""));
    /* All of it bad: refused. */
    a = http_proto(&bench, BODY(NAMED, PROFILE("9")));
    assert_int_equal(a.status, 400);
    /* What a queue-less next hop rejects travels back. */
    atomic_store(&bench.mode, PARTIAL);
    a = http_proto(&bench, BODY(NAMED, PROFILE("0") "," PROFILE("0") "," PROFILE("9")));
    assert_int_equal(flue_otlp_response_read(flue_bytes(a.body, a.body_size), false, &rejected,
                                             message, sizeof message, &error),
                     FLUE_OK);
    assert_int_equal(rejected, 2);
    bench_stop(&bench);
}

static void http_errors(void **state)
{
    struct bench bench;
    bench_start(&bench, NULL);
    atomic_store(&bench.mode, OVERLOAD);
    struct answer a = http_json(&bench, PATH, JSON, BODY(NAMED, PROFILE("0")));
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.text, "retry-after: 7\r\n"));
    assert_non_null(strstr(a.body, "the next hop is down"));
    atomic_store(&bench.mode, REFUSE);
    a = http_json(&bench, PATH, JSON, BODY(NAMED, PROFILE("0")));
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body, "does not like it"));
    assert_int_equal(metric_value(&bench, "otelcol_receiver_refused_profile_samples_total{receiver="
                                          "\"otlp/edge\",transport=\"http\"} "),
                     2);
    atomic_store(&bench.mode, TAKE);
    int sends = bench.sends;
    a = http(&bench, PATH, "content-type: text/plain\r\n", "x", 1);
    assert_int_equal(a.status, 415);
    a = http(&bench, PATH, PROTO "content-encoding: br\r\n", "x", 1);
    assert_int_equal(a.status, 415);
    a = http(&bench, "/v1/traces", PROTO, "x", 1);
    assert_int_equal(a.status, 404);
    a = http_json(&bench, PATH, JSON, "{\"resourceProfiles\":[");
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body, "\"message\""));
    struct flue_block *body = protobuf(BODY(NAMED, PROFILE("0")));
    for (size_t cut = 1; cut < body->size; cut++) {
        a = http(&bench, PATH, PROTO, body->data, cut);
        if (a.status != 200)
            assert_int_equal(a.status, 400);
        else
            assert_true(cut > 0); /* a cut between two fields is a shorter, valid message */
    }
    flue_block_unref(body);
    assert_true(metric_value(&bench, "otelcol_receiver_refused_requests_total{reason=\"invalid\","
                                     "receiver=\"otlp/edge\"} ") > 10);
    assert_int_equal(metric_value(&bench, "otelcol_receiver_refused_requests_total{reason="
                                          "\"bad_media\",receiver=\"otlp/edge\"} "),
                     1);
    assert_true(bench.sends >= sends);
    bench_stop(&bench);
}

static void large_json_goes_over_the_pool(void **state)
{
    struct bench bench;
    const char *start = "{\"resourceProfiles\":[{" NAMED "\"scopeProfiles\":[{\"profiles\":[";
    const char *end = "]}]}]," DICTIONARY "}";
    size_t room = 1 << 20, size = 0, count = 2000;
    char *text = malloc(room);
    bench_start(&bench, NULL);
    size = (size_t)snprintf(text, room, "%s", start);
    for (size_t i = 0; i < count; i++)
        size += (size_t)snprintf(text + size, room - size, "%s%s", i ? "," : "", PROFILE("0"));
    size += (size_t)snprintf(text + size, room - size, "%s", end);
    assert_true(size > 100000);
    struct answer a = http(&bench, PATH, JSON, text, size);
    assert_int_equal(a.status, 200);
    assert_int_equal(bench.counts.profiles, count);
    /* With less memory than reading may need, it is refused before it is read. */
    atomic_store(&bench.budget.hard, 1 << 20);
    a = http(&bench, PATH, JSON, text, size);
    assert_int_equal(a.status, 413);
    assert_non_null(strstr(a.body, "JSON may need"));
    free(text);
    bench_stop(&bench);
}

static void a_client_that_leaves_cancels(void **state)
{
    struct bench bench;
    struct flue_block *body = protobuf(BODY(NAMED, PROFILE("0")));
    bench_start(&bench, NULL);
    atomic_store(&bench.mode, HOLD);
    int fd = http_begin(&bench, PATH, PROTO, body->data, body->size);
    AWAIT(bench.sends == 1);
    const struct linger reset = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    AWAIT(bench.cancelled == 1);
    flue_block_unref(body);
    bench_stop(&bench);
}

/* ---- gRPC ------------------------------------------------------------------------------------ */

struct grpc_call {
    struct bench *bench;
    const char *path;
    struct flue_block *message;
    struct flue_client *client;
    struct flue_call call;
    struct flue_slices slices;
    struct flue_bytes parts[2];
    uint8_t prefix[5];
    const char *timeout, *tenant;
    struct flue_header headers[4];
    _Atomic bool done;
    struct flue_error error;
    uint8_t response[1024];
    size_t response_size;
};

static void grpc_done(struct flue_call *call)
{
    struct grpc_call *g = call->user;
    struct flue_arena arena;
    struct flue_bytes message = {0};
    flue_arena_init(&arena, 1 << 20, 0);
    flue_call_grpc_result(call, &arena, &message, &g->error);
    if (message.size)
        memcpy(g->response, message.data, message.size);
    g->response_size = message.size;
    flue_arena_destroy(&arena);
    atomic_store(&g->done, true);
}

static void grpc_begin(struct flue_loop *loop, void *arg)
{
    struct grpc_call *g = arg;
    char endpoint[64];
    struct flue_error error;
    size_t size = g->message->size;
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%u", g->bench->grpc);
    struct flue_client_config config = {.endpoint = endpoint,
                                        .tls = {.insecure = true},
                                        .protocol = FLUE_CLIENT_HTTP2,
                                        .response_limit = 1 << 20};
    if (flue_client_new(loop, &config, NULL, &g->client, &error))
        fail_msg("%s", error.text);
    for (unsigned i = 0; i < 4; i++)
        g->prefix[1 + i] = (uint8_t)(size >> (24 - 8 * i));
    g->parts[0] = flue_bytes(g->prefix, 5);
    g->parts[1] = flue_block_bytes(g->message);
    g->slices = (struct flue_slices){g->parts, size ? 2 : 1, 2, 5 + size};
    g->headers[0] =
        (struct flue_header){FLUE_BYTES("content-type"), FLUE_BYTES("application/grpc")};
    g->headers[1] = (struct flue_header){FLUE_BYTES("te"), FLUE_BYTES("trailers")};
    g->headers[2] = (struct flue_header){FLUE_BYTES("grpc-timeout"), flue_bytes_of(g->timeout)};
    g->headers[3] = (struct flue_header){FLUE_BYTES("x-scope-orgid"), flue_bytes_of(g->tenant)};
    g->call = (struct flue_call){.client = g->client,
                                 .method = FLUE_BYTES("POST"),
                                 .path = flue_bytes_of(g->path),
                                 .headers = g->headers,
                                 .header_count = g->tenant ? 4 : 3,
                                 .body = &g->slices,
                                 .done = grpc_done,
                                 .user = g};
    flue_call_send(&g->call);
}

static void grpc_end(struct flue_loop *loop, void *arg)
{
    flue_client_destroy(((struct grpc_call *)arg)->client);
}

static void grpc_of(struct bench *bench, struct grpc_call *g, const char *version, const char *json,
                    const char *tenant)
{
    char path[128];
    memset(g, 0, sizeof *g);
    g->tenant = tenant;
    snprintf(path, sizeof path, "/opentelemetry.proto.collector.profiles.%s.ProfilesService/Export",
             version);
    g->bench = bench;
    g->path = path;
    g->message = json ? protobuf(json) : flue_block_copy(NULL, flue_bytes("", 0));
    g->timeout = "30S";
    flue_loop_call(bench->loops->items[0], grpc_begin, g);
    AWAIT(g->done);
    flue_loop_call(bench->loops->items[0], grpc_end, g);
    flue_block_unref(g->message);
}

static void grpc(struct bench *bench, struct grpc_call *g, const char *version, const char *json)
{
    grpc_of(bench, g, version, json, NULL);
}

/* Refused before the body, in the words of each protocol. */
static void tenants_are_checked(void **state)
{
    struct bench bench;
    struct grpc_call g;
    char longest[152];
    bench_start(&bench, NULL);
    static const char *const bad[] = {".", "..", "a/b", "a b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char headers[200];
        snprintf(headers, sizeof headers, JSON "x-scope-orgid: %s\r\n", bad[i]);
        struct answer a = http_json(&bench, PATH, headers, BODY(NAMED, PROFILE("0")));
        assert_int_equal(a.status, 400);
        assert_non_null(strstr(a.body, "X-Scope-OrgID"));
        grpc_of(&bench, &g, "v1development", BODY(NAMED, PROFILE("0")), bad[i]);
        assert_int_not_equal(g.error.code, FLUE_OK);
        assert_false(flue_code_facts(g.error.code)->retryable);
        assert_non_null(strstr(g.error.text, "X-Scope-OrgID"));
    }
    assert_int_equal(bench.sends, 0);
    assert_int_equal(metric_value(&bench, "otelcol_receiver_refused_requests_total{reason="
                                          "\"invalid\",receiver=\"otlp/edge\"} "),
                     8);
    memset(longest, 'a', sizeof longest);
    longest[151] = 0;
    grpc_of(&bench, &g, "v1development", BODY(NAMED, PROFILE("0")), longest);
    assert_int_not_equal(g.error.code, FLUE_OK);
    longest[150] = 0;
    grpc_of(&bench, &g, "v1development", BODY(NAMED, PROFILE("0")), longest);
    assert_int_equal(g.error.code, FLUE_OK);
    assert_int_equal(bench.sends, 1);
    bench_stop(&bench);
}

static void grpc_outcomes(void **state)
{
    struct bench bench;
    struct grpc_call g;
    uint64_t rejected;
    char message[400];
    struct flue_error error;

    bench_start(&bench, NULL);
    grpc(&bench, &g, "v1development", BODY(NAMED, PROFILE("0")));
    assert_int_equal(g.error.code, FLUE_OK);
    assert_int_equal(g.response_size, 0);
    assert_string_equal(bench.origin, "otlp/edge grpc 127.0.0.1 tenant= headers=0");
    grpc(&bench, &g, "v1experimental", BODY(NAMED, PROFILE("0")));
    assert_int_equal(g.error.code, FLUE_OK);
    assert_int_equal(bench.sends, 2);
    grpc(&bench, &g, "v1development", NULL); /* a message of zero bytes */
    assert_int_equal(g.error.code, FLUE_OK);
    assert_int_equal(bench.sends, 2);
    grpc(&bench, &g, "v2", BODY(NAMED, PROFILE("0")));
    assert_int_not_equal(g.error.code, FLUE_OK);
    grpc(&bench, &g, "v1development", BODY(NAMED, PROFILE("0") "," PROFILE("7")));
    assert_int_equal(g.error.code, FLUE_OK);
    assert_int_equal(flue_otlp_response_read(flue_bytes(g.response, g.response_size), false,
                                             &rejected, message, sizeof message, &error),
                     FLUE_OK);
    assert_int_equal(rejected, 1);
    atomic_store(&bench.mode, OVERLOAD);
    grpc(&bench, &g, "v1development", BODY(NAMED, PROFILE("0")));
    assert_int_equal(g.error.code, FLUE_UNAVAILABLE);
    assert_int_equal(g.error.retry_after_ms, 7000);
    atomic_store(&bench.mode, REFUSE);
    grpc(&bench, &g, "v1development", BODY(NAMED, PROFILE("0")));
    assert_false(flue_code_facts(g.error.code)->retryable);
    assert_int_equal(metric_value(&bench,
                                  "otelcol_receiver_accepted_profile_samples_total{receiver="
                                  "\"otlp/edge\",transport=\"grpc\"} "),
                     3);
    bench_stop(&bench);
}

static void one_protocol_at_least(void **state)
{
    struct flue_arena arena;
    struct flue_check check;
    struct flue_buffer text;
    flue_arena_init(&arena, 0, 0);
    flue_check_init(&check, &arena);
    void *config = flue_bind_yaml(&check, "{protocols: {}}", flue_receiver_otlp.fields,
                                  flue_receiver_otlp.config_size);
    flue_receiver_otlp.check(config, &check);
    flue_buffer_init(&text, 1 << 16);
    flue_check_print(&check, &text);
    assert_non_null(
        strstr(text.data, "must specify at least one protocol when using the OTLP receiver"));
    flue_buffer_destroy(&text);
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http_success),
        cmocka_unit_test(empty_requests_succeed),
        cmocka_unit_test(names_of_services),
        cmocka_unit_test(partial_success_has_true_counts),
        cmocka_unit_test(http_errors),
        cmocka_unit_test(large_json_goes_over_the_pool),
        cmocka_unit_test(a_client_that_leaves_cancels),
        cmocka_unit_test(tenants_are_checked),
        cmocka_unit_test(grpc_outcomes),
        cmocka_unit_test(one_protocol_at_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
