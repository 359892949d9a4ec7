/* The life of a service with real listeners: start, health, metrics, drain, and what is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/net/server.h"
#include "collector/pipeline/exporter.h"
#include "collector/service/service.h"

extern const struct flue_component flue_exporter_debug, flue_exporter_nop,
    flue_extension_health_check;

/* ---- a payload that is only counts ------------------------------------------------------------
 */

static void payload_destroy(struct flue_payload *payload)
{
    free(payload);
}
static size_t payload_size(const struct flue_payload *payload)
{
    return 100;
}
static size_t payload_resources(const struct flue_payload *payload)
{
    return 1;
}
static bool payload_get(const struct flue_payload *payload, size_t resource, struct flue_bytes key,
                        struct flue_value *out)
{
    *out = (struct flue_value){.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("checkout")};
    return flue_bytes_is(key, "service.name");
}
static void payload_each(const struct flue_payload *payload, size_t resource,
                         flue_attribute_visit visit, void *arg)
{
    static const struct flue_attribute items[] = {
        {FLUE_BYTES_INIT("service.name"),
         {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES_INIT("check\"out")}},
        {FLUE_BYTES_INIT("cpus"), {.type = FLUE_VALUE_INT, .integer = 4}},
        {FLUE_BYTES_INIT("on"), {.type = FLUE_VALUE_BOOL, .boolean = true}},
        {FLUE_BYTES_INIT("load"), {.type = FLUE_VALUE_DOUBLE, .number = 0.5}},
        {FLUE_BYTES_INIT("id"), {.type = FLUE_VALUE_BYTES, .text = FLUE_BYTES_INIT("abc")}},
    };
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++)
        if (!visit(arg, &items[i]))
            return;
}
static const struct flue_payload_ops payload_ops = {
    .form = FLUE_FORM_OTLP,
    .name = "otlp",
    .destroy = payload_destroy,
    .encoded_size = payload_size,
    .held_size = payload_size,
    .resource_count = payload_resources,
    .attribute_get = payload_get,
    .attribute_each = payload_each,
};

/* ---- a receiver: POST /push pushes one batch; POST /hold is never answered by itself -----------
 */

struct probe {
    const struct flue_server_config *config;
    struct flue_server_set *servers;
    struct flue_consumer *consumer;
    struct flue_route routes[2];
};

static void pushed(void *arg, const struct flue_outcome *outcome)
{
    struct flue_request *request = arg;
    struct flue_response response = {.status = outcome->error.code ? 503 : 200};
    flue_respond(request, &response);
}

static void push(struct flue_request *request, void *arg)
{
    struct probe *probe = arg;
    struct flue_payload *payload = calloc(1, sizeof *payload);
    struct flue_origin *origin = flue_origin_new(&(struct flue_origin){0});
    assert_non_null(payload);
    payload->ops = &payload_ops;
    payload->refs = 1;
    payload->signal = FLUE_PROFILES;
    struct flue_batch *batch = flue_batch_new(payload, origin, (struct flue_counts){1, 7, 100},
                                              flue_consumer_account(probe->consumer));
    flue_origin_unref(origin);
    struct flue_delivery *delivery = flue_delivery_begin(request->loop, 0, pushed, request);
    flue_consumer_push(probe->consumer, batch, delivery);
    flue_delivery_end(delivery);
}

static void held_gone(struct flue_request *request)
{
    struct flue_response response = {.status = 500};
    flue_respond(request, &response);
}

static void admit(struct flue_request *request, void *arg)
{
    struct probe *probe = arg;
    flue_request_admit(request, flue_consumer_account(probe->consumer), 1024);
}

static _Atomic int held;

static void hold(struct flue_request *request, void *arg)
{
    request->gone = held_gone;
    atomic_fetch_add(&held, 1);
}

static enum flue_code probe_create(const struct flue_create *create, void **instance,
                                   struct flue_error *error)
{
    struct probe *probe = calloc(1, sizeof *probe);
    assert_non_null(probe);
    assert_non_null(create->profiles);
    assert_ptr_equal(create->extension(create, "nobody"), NULL);
    probe->config = create->config;
    probe->servers = create->servers;
    probe->consumer = create->profiles;
    probe->routes[0] =
        (struct flue_route){.method = "POST", .path = "/push", .arg = probe, .head = push};
    probe->routes[1] = (struct flue_route){
        .method = "POST", .path = "/hold", .arg = probe, .head = admit, .body = hold};
    *instance = probe;
    return FLUE_OK;
}
static enum flue_code probe_start(void *instance, struct flue_error *error)
{
    struct probe *probe = instance;
    return flue_server_add(probe->servers, "probe", probe->config, probe->routes, 2, error);
}
static void probe_destroy(void *instance)
{
    free(instance);
}
static const struct flue_component probe_component = {.kind = FLUE_RECEIVER,
                                                      .name = "probe",
                                                      .signals = FLUE_PROFILES,
                                                      .summary = "test",
                                                      .config_size =
                                                          sizeof(struct flue_server_config),
                                                      .fields = flue_server_http_fields,
                                                      .create = probe_create,
                                                      .start = probe_start,
                                                      .destroy = probe_destroy};

/* ---- an exporter that never answers until it is cancelled, and one that cannot be made ---------
 */

static const struct flue_field no_fields[] = {FLUE_FIELDS_END};
static char nothing;

static enum flue_code plain_create(const struct flue_create *create, void **instance,
                                   struct flue_error *error)
{
    *instance = &nothing;
    return FLUE_OK;
}
static enum flue_code fail_create(const struct flue_create *create, void **instance,
                                  struct flue_error *error)
{
    return flue_fail(error, FLUE_INVALID, "cannot be made");
}
static enum flue_code fail_start(void *instance, struct flue_error *error)
{
    return flue_fail(error, FLUE_IO, "cannot be started");
}
static void plain_destroy(void *instance)
{
}
static void cancelled(struct flue_send *send)
{
    struct flue_error error = {.code = FLUE_CANCELLED};
    flue_send_fail(send, &error);
}
static void stuck_send(void *instance, struct flue_send *send)
{
    send->cancel = cancelled;
}
#define EXPORTER(n, ...)                                                                           \
    {                                                                                              \
        .kind = FLUE_EXPORTER, .name = n, .signals = FLUE_PROFILES, .summary = "test",             \
        .fields = no_fields, .destroy = plain_destroy, __VA_ARGS__                                 \
    }
static const struct flue_component stuck =
    EXPORTER("stuck", .create = plain_create, .send = stuck_send);
static const struct flue_component unmakeable =
    EXPORTER("unmakeable", .create = fail_create, .send = stuck_send);
static const struct flue_component unstartable =
    EXPORTER("unstartable", .create = plain_create, .start = fail_start, .send = stuck_send);

/* ---- a processor that counts its instances -----------------------------------------------------
 */

static int processors_made, processors_gone;

static enum flue_code count_create(const struct flue_create *create, void **instance,
                                   struct flue_error *error)
{
    assert_non_null(create->account);
    assert_string_equal(create->account->name, create->pipeline);
    processors_made++;
    *instance = &nothing;
    return FLUE_OK;
}
static void count_push(struct flue_stage *stage, struct flue_batch *batch,
                       struct flue_delivery *delivery)
{
    flue_stage_next(stage, batch, delivery);
}
static void count_destroy(void *instance)
{
    processors_gone++;
}
static const struct flue_component counter = {.kind = FLUE_PROCESSOR,
                                              .name = "counter",
                                              .signals = FLUE_PROFILES,
                                              .summary = "test",
                                              .fields = no_fields,
                                              .create = count_create,
                                              .push = count_push,
                                              .destroy = count_destroy};

static const struct flue_component *const registry[] = {&probe_component,
                                                        &counter,
                                                        &flue_exporter_debug,
                                                        &flue_exporter_nop,
                                                        &stuck,
                                                        &unmakeable,
                                                        &unstartable,
                                                        &flue_extension_health_check,
                                                        NULL};

/* ---- helpers -----------------------------------------------------------------------------------
 */

struct running {
    struct flue_configuration *configuration;
    struct flue_service *service;
    struct flue_error error;
};

/* False when it could not be made or started; the reason is in `error`. */
static bool start(struct running *r, const char *yaml)
{
    char source[4096];
    snprintf(source, sizeof source, "yaml:%s", yaml);
    const char *configs[] = {source};
    struct flue_sources sources = {.configs = configs, .config_count = 1};
    *r = (struct running){0};
    assert_int_equal(flue_configuration_load(&sources, registry, &r->configuration, NULL), FLUE_OK);
    if (r->configuration->check.mistakes) {
        struct flue_buffer text;
        flue_buffer_init(&text, 65536);
        flue_check_print(&r->configuration->check, &text);
        fail_msg("%s", text.data);
    }
    return !flue_service_new(r->configuration, &r->service, &r->error) &&
           !flue_service_start(r->service, &r->error);
}

static void finish(struct running *r)
{
    flue_service_destroy(r->service);
    flue_configuration_destroy(r->configuration);
}

static int dial(const char *address)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    assert_non_null(colon);
    bool brackets = *address == '[';
    snprintf(host, sizeof host, "%.*s", (int)(colon - address) - 2 * brackets, address + brackets);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *found;
    assert_int_equal(getaddrinfo(host, colon + 1, &hints, &found), 0);
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    struct timeval patience = {20, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int result = connect(fd, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    assert_int_equal(result, 0);
    return fd;
}

static char answer[1 << 18];

/* One request on a connection of its own; the status, and the whole answer in `answer`. */
static int ask(const char *address, const char *method, const char *path)
{
    char request[256];
    int fd = dial(address), status = 0;
    int size = snprintf(request, sizeof request,
                        "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", method, path,
                        *method == 'P' ? "Content-Length: 0\r\n" : "");
    assert_int_equal(send(fd, request, (size_t)size, MSG_NOSIGNAL), size);
    size_t used = 0;
    ssize_t got;
    while (used + 1 < sizeof answer &&
           (got = recv(fd, answer + used, sizeof answer - 1 - used, 0)) > 0)
        used += (size_t)got;
    answer[used] = 0;
    close(fd);
    assert_int_equal(sscanf(answer, "HTTP/1.1 %d", &status), 1);
    return status;
}

#define ENDPOINTS                                                                                  \
    "receivers: {probe: {endpoint: \"127.0.0.1:0\"}}\n"                                            \
    "extensions: {health_check: {endpoint: \"127.0.0.1:0\"}}\n"
#define SERVICE                                                                                    \
    "service:\n  extensions: [health_check]\n"                                                     \
    "  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: localhost, port: "    \
    "0}}}}]}}\n"

static void whole_life(void **state)
{
    struct running r;
    processors_made = processors_gone = 0;
    if (!start(&r, ENDPOINTS "processors: {counter: }\n"
                             "exporters: {nop: , debug: {verbosity: detailed}}\n" SERVICE
                             "  flue: {loops: 2, metrics_prefix: flue_}\n"
                             "  pipelines:\n"
                             "    profiles: {receivers: [probe], processors: [counter], exporters: "
                             "[nop, debug]}\n"
                             "    profiles/b: {receivers: [probe], processors: [counter], "
                             "exporters: [nop]}\n"))
        fail_msg("%s", r.error.text);
    assert_int_equal(processors_made, 2); /* one per pipeline */
    const char *probe = flue_service_address(r.service, "127.0.0.1:0");
    const char *page = flue_service_address(r.service, "localhost:0");
    assert_non_null(probe);
    assert_non_null(page);
    assert_int_equal(ask(probe, "POST", "/push"), 200);
    assert_int_equal(ask(page, "GET", "/metrics"), 200);
    assert_non_null(strstr(answer, "content-type: text/plain; version=0.0.4"));
    assert_non_null(strstr(answer, "\nflue_process_memory_rss "));
    assert_non_null(strstr(answer, "\nflue_process_cpu_seconds_total "));
    assert_non_null(strstr(answer, "\nflue_process_uptime_total "));
    assert_null(strstr(answer, "otelcol_"));
    assert_int_equal(ask(page, "GET", "/other"), 404);
    uint64_t lost = 99;
    flue_service_stop(r.service, NULL, NULL, &lost);
    assert_int_equal(lost, 0);
    finish(&r);
    assert_int_equal(processors_gone, 2);
}

static void health(void **state)
{
    struct running r;
    if (!start(&r, "receivers: {probe: {endpoint: \"[::1]:0\"}}\n"
                   "extensions: {health_check: {endpoint: \"127.0.0.1:0\", path: /healthz}}\n"
                   "exporters: {nop: }\nservice:\n  extensions: [health_check]\n"
                   "  telemetry: {metrics: {readers: []}}\n"
                   "  pipelines: {profiles: {receivers: [probe], exporters: [nop]}}\n"))
        fail_msg("%s", r.error.text);
    const char *address = flue_service_address(r.service, "127.0.0.1:0");
    assert_int_equal(ask(address, "GET", "/healthz"), 200);
    assert_non_null(strstr(answer, "content-type: application/json"));
    assert_non_null(strstr(answer, "{\"status\":\"Server available\",\"upSince\":\"20"));
    assert_non_null(strstr(answer, "\"uptime\":\""));
    assert_int_equal(ask(address, "GET", "/"), 404);
    flue_service_stop(r.service, NULL, NULL, NULL);
    finish(&r);
}

struct stopping {
    struct flue_service *service;
    uint64_t lost;
    _Atomic bool hurry, done;
};

static bool hurry(void *arg)
{
    return atomic_load(&((struct stopping *)arg)->hurry);
}

static void *stop_in_thread(void *arg)
{
    struct stopping *stopping = arg;
    flue_service_stop(stopping->service, hurry, stopping, &stopping->lost);
    atomic_store(&stopping->done, true);
    return NULL;
}

/* While a request is open the service drains: health says 503, and what was begun may finish. */
static void health_while_draining(void **state)
{
    struct running r;
    struct stopping stopping = {0};
    pthread_t thread;
    if (!start(&r, "receivers: {probe: {endpoint: \"[::1]:0\"}}\n"
                   "extensions: {health_check: {endpoint: \"127.0.0.1:0\", response_body: "
                   "{unhealthy: \"not now\"}}}\n"
                   "exporters: {nop: }\nservice:\n  extensions: [health_check]\n"
                   "  telemetry: {metrics: {level: none}}\n  flue: {drain_timeout: 60s}\n"
                   "  pipelines: {profiles: {receivers: [probe], exporters: [nop]}}\n"))
        fail_msg("%s", r.error.text);
    const char *health_address = flue_service_address(r.service, "127.0.0.1:0");
    int open = dial(flue_service_address(r.service, "[::1]:0"));
    static const char request[] = "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    assert_int_equal(send(open, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
    while (atomic_load(&held) == 0)
        sched_yield();
    assert_int_equal(ask(health_address, "GET", "/"), 200);
    stopping.service = r.service;
    assert_int_equal(pthread_create(&thread, NULL, stop_in_thread, &stopping), 0);
    while (ask(health_address, "GET", "/") != 503)
        sched_yield();
    assert_non_null(strstr(answer, "\r\n\r\nnot now"));
    assert_false(atomic_load(&stopping.done));
    /* A reset, since a client may end its side and still wait. The last request is over, and the
     * drain ends long before its 60 s. */
    struct linger reset = {1, 0};
    uint64_t closed = flue_monotonic_ns();
    setsockopt(open, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(open);
    pthread_join(thread, NULL);
    assert_true(flue_monotonic_ns() - closed < UINT64_C(20000000000));
    assert_int_equal(stopping.lost, 0);
    finish(&r);
}

/* What a dead destination could not take until the deadline is counted and said. */
static void left_behind(void **state)
{
    struct running r;
    char path[] = "/tmp/flue-service-XXXXXX";
    int log = mkstemp(path);
    assert_true(log >= 0);
    flue_log_configure(FLUE_INFO, false, log);
    if (!start(&r, "receivers: {probe: {endpoint: \"127.0.0.1:0\"}}\n"
                   "exporters: {stuck: {timeout: 1h}, nop: }\nservice:\n"
                   "  telemetry: {metrics: {readers: []}}\n  flue: {drain_timeout: 100ms}\n"
                   "  pipelines: {profiles: {receivers: [probe], exporters: [stuck, nop]}}\n"))
        fail_msg("%s", r.error.text);
    const char *address = flue_service_address(r.service, "127.0.0.1:0");
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(address, "POST", "/push"), 200);
    uint64_t lost = 0, before = flue_monotonic_ns();
    flue_service_stop(r.service, NULL, NULL, &lost);
    assert_true(flue_monotonic_ns() - before >= UINT64_C(100000000));
    assert_int_equal(lost, 21);
    finish(&r);
    flue_log_configure(FLUE_ERROR, false, 2);
    ssize_t size = pread(log, answer, sizeof answer - 1, 0);
    assert_true(size > 0);
    answer[size] = 0;
    assert_non_null(strstr(answer, "given up at shutdown"));
    assert_non_null(strstr(answer, "stuck"));
    assert_non_null(strstr(answer, "drained, nothing left"));
    close(log);
    unlink(path);
}

static size_t count_of(const char *text, const char *word)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++)
        count++;
    return count;
}

/* The debug exporter's words, by verbosity and sampling. */
static void debug_says(void **state)
{
    static const struct {
        const char *keys, *has, *has_not;
        size_t batches_min, batches_max;
    } rows[] = {
        {"{}", "resources=1 profiles=1 samples=7 bytes=100 form=otlp", "index=", 4, 4},
        {"{verbosity: normal}", "index=0 service.name=checkout", "cpus", 4, 4},
        {"{verbosity: detailed}",
         "service.name=\\\"check\\\\\\\"out\\\" cpus=4 on=true load=0.5 id=(3 bytes)", "cut=true",
         4, 4},
        /* A second may end between two of the four. */
        {"{sampling_initial: 1, sampling_thereafter: 0}", "samples=7", "index=", 1, 2},
        {"{sampling_initial: 0, sampling_thereafter: 3}", "samples=7", "index=", 2, 3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct running r;
        char path[] = "/tmp/flue-debug-XXXXXX", yaml[1024];
        int log = mkstemp(path);
        assert_true(log >= 0);
        snprintf(yaml, sizeof yaml,
                 "receivers: {probe: {endpoint: \"127.0.0.1:0\"}}\nexporters: {debug/d: %s}\n"
                 "service:\n  telemetry: {metrics: {readers: []}}\n"
                 "  pipelines: {profiles: {receivers: [probe], exporters: [debug/d]}}\n",
                 rows[i].keys);
        if (!start(&r, yaml))
            fail_msg("%s", r.error.text);
        flue_log_configure(FLUE_INFO, false, log);
        for (int j = 0; j < 4; j++)
            assert_int_equal(ask(flue_service_address(r.service, "127.0.0.1:0"), "POST", "/push"),
                             200);
        flue_log_configure(FLUE_ERROR, false, 2);
        flue_service_stop(r.service, NULL, NULL, NULL);
        finish(&r);
        ssize_t size = pread(log, answer, sizeof answer - 1, 0);
        assert_true(size > 0);
        answer[size] = 0;
        if (!strstr(answer, rows[i].has))
            fail_msg("%s is not in %s", rows[i].has, answer);
        assert_null(strstr(answer, rows[i].has_not));
        assert_in_range(count_of(answer, "batch"), rows[i].batches_min, rows[i].batches_max);
        close(log);
        unlink(path);
    }
}

/* A second signal does not wait for the deadline. */
static void hurried(void **state)
{
    struct running r;
    struct stopping stopping = {.hurry = true};
    if (!start(&r, "receivers: {probe: {endpoint: \"127.0.0.1:0\"}}\n"
                   "exporters: {stuck: {timeout: 1h}}\nservice:\n"
                   "  telemetry: {metrics: {readers: []}}\n  flue: {drain_timeout: 1h}\n"
                   "  pipelines: {profiles: {receivers: [probe], exporters: [stuck]}}\n"))
        fail_msg("%s", r.error.text);
    assert_int_equal(ask(flue_service_address(r.service, "127.0.0.1:0"), "POST", "/push"), 200);
    flue_service_stop(r.service, hurry, &stopping, &stopping.lost);
    assert_int_equal(stopping.lost, 7);
    finish(&r);
}

static void failures(void **state)
{
    static const struct {
        const char *exporters, *listed, *text;
    } rows[] = {
        {"{nop: , unmakeable: }", "[nop, unmakeable]", "exporters.unmakeable: cannot be made"},
        {"{unstartable/x: , nop: }", "[nop, unstartable/x]",
         "exporters.unstartable/x: cannot be started"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct running r;
        char yaml[1024];
        snprintf(yaml, sizeof yaml,
                 ENDPOINTS "processors: {counter: }\nexporters: %s\n" SERVICE
                           "  pipelines: {profiles: {receivers: [probe], processors: [counter], "
                           "exporters: %s}}\n",
                 rows[i].exporters, rows[i].listed);
        assert_false(start(&r, yaml));
        assert_string_equal(r.error.text, rows[i].text);
        finish(&r);
    }
}

/* A port that is taken: said, and everything is taken down again. */
static void port_taken(void **state)
{
    struct running first, second;
    char yaml[1024];
    if (!start(&first, "receivers: {probe: {endpoint: \"127.0.0.1:0\"}}\nexporters: {nop: }\n"
                       "service:\n  telemetry: {metrics: {readers: []}}\n"
                       "  pipelines: {profiles: {receivers: [probe], exporters: [nop]}}\n"))
        fail_msg("%s", first.error.text);
    const char *address = flue_service_address(first.service, "127.0.0.1:0");
    snprintf(yaml, sizeof yaml,
             "receivers: {probe: {endpoint: \"%s\"}}\nexporters: {nop: }\n"
             "service:\n  telemetry: {metrics: {readers: []}}\n"
             "  pipelines: {profiles: {receivers: [probe], exporters: [nop]}}\n",
             address);
    assert_false(start(&second, yaml));
    assert_non_null(strstr(second.error.text, address));
    finish(&second);
    flue_service_stop(first.service, NULL, NULL, NULL);
    finish(&first);
}

/* What validate does: made, not started, and nothing is left. */
static void made_only(void **state)
{
    struct flue_configuration *c;
    struct flue_service *service;
    const char *configs[] = {"yaml:" ENDPOINTS "exporters: {stuck: }\n" SERVICE
                             "  pipelines: {profiles: {receivers: [probe], exporters: [stuck]}}\n"};
    struct flue_sources sources = {.configs = configs, .config_count = 1};
    assert_int_equal(flue_configuration_load(&sources, registry, &c, NULL), FLUE_OK);
    assert_int_equal(flue_service_new(c, &service, NULL), FLUE_OK);
    flue_service_destroy(service);
    flue_configuration_destroy(c);
}

int main(void)
{
    flue_log_configure(FLUE_ERROR, false, 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_only),   cmocka_unit_test(whole_life),
        cmocka_unit_test(health),      cmocka_unit_test(health_while_draining),
        cmocka_unit_test(left_behind), cmocka_unit_test(hurried),
        cmocka_unit_test(failures),    cmocka_unit_test(port_taken),
        cmocka_unit_test(debug_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
