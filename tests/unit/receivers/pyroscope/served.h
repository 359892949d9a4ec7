/* served.h: a receiver behind a real listener, a sink behind it that remembers what came, and a
 * small blocking client. For the tests of receivers whose payloads are pprof. */
#ifndef TESTS_RECEIVERS_SERVED_H
#define TESTS_RECEIVERS_SERVED_H

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "collector/base/clock.h"
#include "collector/pipeline/exporter.h"
#include "collector/service/service.h"
#include "proto/pprof/pprof.h"

/* ---- the sink ------------------------------------------------------------------------------- */

enum sink_mode { SINK_TAKES, SINK_IS_FULL, SINK_REFUSES };

static struct {
    pthread_mutex_t lock;
    enum sink_mode mode;
    unsigned batches;
    struct flue_counts counts; /* of all */
    char labels[8192];         /* of all series: "name=value\n", series divided by "--\n" */
    char tenant[200], transport[20];
    uint8_t profile[1u << 20]; /* the last one's bytes */
    size_t profile_size;
    struct flue_pprof_facts facts; /* as the receiver found them */
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void sink_note(const struct flue_batch *batch)
{
    size_t used = 0;
    sink.batches++;
    sink.counts.profiles += batch->counts.profiles;
    sink.counts.samples += batch->counts.samples;
    sink.counts.bytes += batch->counts.bytes;
    snprintf(sink.tenant, sizeof sink.tenant, "%.*s", FLUE_PRI(batch->origin->tenant));
    snprintf(sink.transport, sizeof sink.transport, "%.*s", FLUE_PRI(batch->origin->transport));
    for (size_t i = 0; i < flue_pprof_series_count(batch->payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(batch->payload, i);
        for (size_t j = 0; j < series->label_count; j++)
            used += (size_t)snprintf(sink.labels + used, sizeof sink.labels - used, "%.*s=%.*s\n",
                                     FLUE_PRI(series->labels[j].name),
                                     FLUE_PRI(series->labels[j].value));
        used += (size_t)snprintf(sink.labels + used, sizeof sink.labels - used, "--\n");
        for (size_t j = 0; j < series->profile_count; j++) {
            struct flue_bytes bytes = series->profiles[j].bytes;
            memcpy(sink.profile, bytes.data, bytes.size);
            sink.profile_size = bytes.size;
            sink.facts = series->profiles[j].facts;
        }
    }
}

static void sink_send(void *instance, struct flue_send *send)
{
    struct flue_error error = {0};
    pthread_mutex_lock(&sink.lock);
    enum sink_mode mode = sink.mode;
    if (mode == SINK_TAKES)
        sink_note(send->batch);
    pthread_mutex_unlock(&sink.lock);
    if (mode == SINK_TAKES) {
        flue_send_ok(send);
    } else if (mode == SINK_IS_FULL) {
        flue_fail(&error, FLUE_OVERLOADED, "the sink is full");
        error.retry_after_ms = 7000;
        flue_send_fail(send, &error);
    } else {
        flue_fail(&error, FLUE_REFUSED, "the sink does not want it");
        flue_send_fail(send, &error);
    }
}

static enum flue_code sink_create(const struct flue_create *create, void **instance,
                                  struct flue_error *error)
{
    *instance = &sink;
    return FLUE_OK;
}

static void sink_destroy(void *instance)
{
}

static const struct flue_field sink_fields[] = {FLUE_FIELDS_END};
static const struct flue_component sink_component = {
    .kind = FLUE_EXPORTER,
    .name = "sink",
    .signals = FLUE_PROFILES,
    .no_queue = true,
    .no_timeout = true,
    .summary = "remembers",
    .config_size = 1,
    .fields = sink_fields,
    .create = sink_create,
    .send = sink_send,
    .destroy = sink_destroy,
};

static void sink_reset(enum sink_mode mode)
{
    pthread_mutex_lock(&sink.lock);
    sink.mode = mode;
    sink.batches = 0;
    sink.counts = (struct flue_counts){0};
    sink.labels[0] = sink.tenant[0] = sink.transport[0] = '\0';
    sink.profile_size = 0;
    pthread_mutex_unlock(&sink.lock);
}

/* ---- the service ---------------------------------------------------------------------------- */

static struct flue_configuration *configuration;
static struct flue_service *service;
static char served_address[64];

/* `receiver`: the block under receivers in flow form; `endpoint` as it stands in there. */
static void serve(const struct flue_component *component, const char *receiver,
                  const char *endpoint)
{
    static const struct flue_component *registry[3];
    registry[0] = component;
    registry[1] = &sink_component;
    char source[2048];
    struct flue_error error = {0};
    snprintf(source, sizeof source,
             "yaml:{receivers: {%s}, exporters: {sink: {}}, service: {telemetry: {metrics: "
             "{readers: [{pull: {exporter: {prometheus: {host: localhost, port: 0}}}}]}}, "
             "pipelines: {profiles: {receivers: [%s], exporters: [sink]}}}}",
             receiver, component->name);
    const char *configs[] = {source};
    struct flue_sources sources = {.configs = configs, .config_count = 1};
    assert_int_equal(flue_configuration_load(&sources, registry, &configuration, &error), FLUE_OK);
    if (configuration->check.mistakes) {
        struct flue_buffer text;
        flue_buffer_init(&text, 65536);
        flue_check_print(&configuration->check, &text);
        fail_msg("%s", text.data);
    }
    if (flue_service_new(configuration, &service, &error) != FLUE_OK ||
        flue_service_start(service, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    const char *address = flue_service_address(service, endpoint);
    assert_non_null(address);
    snprintf(served_address, sizeof served_address, "%s", address);
}

#define DRAIN_PATIENCE_NS 4000000000ull /* the service itself gives up later */

static bool drained_late(void *arg)
{
    return flue_monotonic_ns() > *(uint64_t *)arg;
}

/* Nothing may be left open. */
static void unserve(void)
{
    uint64_t late = flue_monotonic_ns() + DRAIN_PATIENCE_NS;
    flue_service_stop(service, drained_late, &late, NULL);
    if (drained_late(&late))
        fail_msg("requests were left open");
    flue_service_destroy(service);
    flue_configuration_destroy(configuration);
}

/* ---- the client ----------------------------------------------------------------------------- */

struct answer {
    unsigned status;
    char text[65536]; /* headers and body */
    size_t body;      /* where it begins */
};

/* `head`: request line and headers without the blank line; Content-Length and Connection are added.
 * */
static struct answer ask(const char *head, struct flue_bytes body)
{
    struct answer answer = {0};
    struct sockaddr_in to = {.sin_family = AF_INET};
    char tail[100];
    size_t got = 0;
    ssize_t n;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)atoi(strrchr(served_address, ':') + 1));
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    snprintf(tail, sizeof tail, "\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", body.size);
    assert_int_equal(send(fd, head, strlen(head), MSG_NOSIGNAL), (ssize_t)strlen(head));
    assert_int_equal(send(fd, tail, strlen(tail), MSG_NOSIGNAL), (ssize_t)strlen(tail));
    for (size_t sent = 0; sent < body.size; sent += (size_t)n)
        if ((n = send(fd, body.data + sent, body.size - sent, MSG_NOSIGNAL)) <= 0)
            break;
    while (got < sizeof answer.text - 1 &&
           (n = recv(fd, answer.text + got, sizeof answer.text - 1 - got, 0)) > 0)
        got += (size_t)n;
    close(fd);
    if (sscanf(answer.text, "HTTP/1.1 %u", &answer.status) != 1)
        fail_msg("no answer to %.60s: \"%.100s\"", head, answer.text);
    assert_non_null(strstr(answer.text, "\r\n\r\n"));
    answer.body = (size_t)(strstr(answer.text, "\r\n\r\n") + 4 - answer.text);
    return answer;
}

/* The value of a series on the metrics page; -1: not there. */
static inline double counted(const char *series)
{
    char receiver[sizeof served_address];
    static struct answer page;
    const char *line, *metrics = flue_service_address(service, "localhost:0");
    assert_non_null(metrics);
    memcpy(receiver, served_address, sizeof receiver);
    snprintf(served_address, sizeof served_address, "%s", metrics);
    page = ask("GET /metrics HTTP/1.1\r\nHost: x", FLUE_BYTES(""));
    memcpy(served_address, receiver, sizeof receiver);
    line = strstr(page.text, series);
    return line ? strtod(line + strlen(series), NULL) : -1;
}

/* A client that leaves in the middle of its body, after the head was read. */
static inline void leave_within_body(const char *head)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    const struct linger reset = {1, 0};
    char text[1000], got[100] = "";
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)atoi(strrchr(served_address, ':') + 1));
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    int n = snprintf(text, sizeof text,
                     "%s\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n", head);
    assert_int_equal(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
    assert_true(recv(fd, got, sizeof got - 1, 0) > 0);
    assert_non_null(strstr(got, " 100 "));
    assert_int_equal(send(fd, "half", 4, MSG_NOSIGNAL), 4);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
}

/* A recorded request's line and headers, without those that the connection makes. */
static inline char *recorded_head(const char *name)
{
    char path[512], line[4096];
    char *head = calloc(1, 16384);
    snprintf(path, sizeof path, "%s/captures/%s.request", FLUE_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (!*line || strncasecmp(line, "content-length:", 15) == 0 ||
            strncasecmp(line, "connection:", 11) == 0 ||
            strncasecmp(line, "transfer-encoding:", 18) == 0)
            continue;
        if (*head)
            strncat(head, "\r\n", 16383 - strlen(head));
        strncat(head, line, 16383 - strlen(head));
    }
    fclose(file);
    return head;
}

static inline struct flue_block *recorded_body(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/captures/%s", FLUE_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    struct flue_block *block = flue_block_new(NULL, 1u << 20);
    block->size = fread(block->data, 1, 1u << 20, file);
    fclose(file);
    return block;
}

#endif
