/* One request through a pipeline without memory: to a queue with batching, to a queue whose first
 * attempt fails, to one that asks for smaller parts, straight, and to a queue on disk. The sender
 * gets one answer, the books balance, nothing stays behind. */
#include <dirent.h>
#include <time.h>
#include <unistd.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/pipeline/exporter.h"
#include "collector/pipeline/graph.h"
#include "collector/storage/storage.h"
#include "proto/convert/decode.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "tests/fault/fault.h"

enum { BATCHED, RETRIED, SPLIT, DIRECT, DURABLE, EXPORTERS };

struct destination {
    int kind;
    bool failed_once; /* since the last request */
    uint64_t samples;
};

struct graph {
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_account account;
    struct destination destinations[EXPORTERS];
    struct flue_exporter_settings settings[EXPORTERS];
    struct flue_exporter *exporters[EXPORTERS];
    struct flue_pipeline *pipeline;
    struct flue_consumer *consumer;
    struct flue_storage *storage;
    char folder[32];
};

static struct flue_block *body;
static struct flue_budget budget;

static void take(void *instance, struct flue_send *item)
{
    struct destination *destination = instance;
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    uint64_t samples = flue_otlp_index_of(item->batch->payload)->samples;

    if (destination->kind == RETRIED && !destination->failed_once) {
        destination->failed_once = true;
        verdict.kind = FLUE_RETRY;
        (void)flue_fail(&verdict.error, FLUE_UNAVAILABLE, "down");
    } else if (destination->kind == SPLIT && samples > 3) {
        verdict.kind = FLUE_SPLIT;
        verdict.split_max = 3;
    } else {
        destination->samples += samples;
    }
    flue_send_done(item, &verdict);
}

static const struct flue_component component = {
    .kind = FLUE_EXPORTER, .name = "fault", .signals = FLUE_PROFILES, .send = take};

static void graph_make(struct graph *graph, unsigned first, unsigned count)
{
    static const struct flue_batcher_config batcher = {
        .flush_timeout = 1000000, .min_size = 1, .max_size = 5};
    static const char *const ids[] = {"fault/batched", "fault/retried", "fault/split",
                                      "fault/direct", "fault/durable"};
    struct flue_error error;

    memset(graph, 0, sizeof *graph);
    assert_int_equal(flue_loops_new(1, &graph->loops, &error), FLUE_OK);
    graph->metrics = flue_metrics_new("otelcol_");
    flue_budget_init(&budget, (int64_t)1 << 30);
    flue_account_init(&graph->account, &budget, "profiles", 0);
    for (unsigned i = 0; i < count; i++) {
        int kind = (int)(first + i);
        graph->destinations[i].kind = kind;
        graph->settings[i] = (struct flue_exporter_settings){
            .sending_queue = {.enabled = kind != DIRECT,
                              .num_consumers = 2,
                              .queue_size = 100,
                              .max_bytes = 1 << 26,
                              .batch = kind == BATCHED ? &batcher : NULL},
            .retry_on_failure = {.enabled = true,
                                 .initial_interval = 100000,
                                 .max_interval = 100000,
                                 .multiplier = 1.5}};
        struct flue_exporter_spec spec = {.component = &component,
                                          .instance = &graph->destinations[i],
                                          .id = ids[kind],
                                          .settings = &graph->settings[i],
                                          .loops = graph->loops,
                                          .metrics = graph->metrics};
        if (kind == DURABLE) {
            const struct flue_storage_config config = {
                .directory = graph->folder, .directory_mode = 0700, .segment_bytes = 8 << 20};
            (void)snprintf(graph->folder, sizeof graph->folder, "/tmp/flue-fault-XXXXXX");
            assert_non_null(mkdtemp(graph->folder));
            assert_int_equal(flue_storage_open(&config, "fault", graph->loops, graph->metrics,
                                               &graph->storage, &error),
                             FLUE_OK);
            assert_int_equal(flue_storage_queue_open(graph->storage, spec.id, &spec.log, &error),
                             FLUE_OK);
            spec.storage = graph->storage;
        }
        assert_int_equal(flue_exporter_new(&spec, &graph->exporters[i], &error), FLUE_OK);
    }
    struct flue_pipeline_spec spec = {.id = "profiles",
                                      .signal = FLUE_PROFILES,
                                      .exporters = graph->exporters,
                                      .exporter_count = count,
                                      .account = &graph->account,
                                      .loops = graph->loops,
                                      .metrics = graph->metrics};
    assert_int_equal(flue_pipeline_new(&spec, &graph->pipeline, &error), FLUE_OK);
    graph->consumer = flue_consumer_new(&graph->pipeline, 1);
    assert_non_null(graph->consumer);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(flue_exporter_start(graph->exporters[i], &error), FLUE_OK);
    assert_int_equal(flue_loops_run(graph->loops, &error), FLUE_OK);
}

static void graph_end(struct graph *graph)
{
    flue_loops_stop(graph->loops);
    for (unsigned i = 0; i < EXPORTERS; i++)
        flue_exporter_destroy(graph->exporters[i]);
    flue_consumer_destroy(graph->consumer);
    flue_pipeline_destroy(graph->pipeline);
    flue_storage_close(graph->storage);
    flue_metrics_destroy(graph->metrics);
    flue_loops_destroy(graph->loops);
    if (!graph->storage)
        return;
    DIR *folder = opendir(graph->folder);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        (void)unlinkat(dirfd(folder), entry->d_name, 0);
    (void)closedir(folder);
    assert_int_equal(rmdir(graph->folder), 0);
}

struct request {
    struct graph *graph;
    long left;
    bool for_good, fired, refused;
    _Atomic int answers;
    struct flue_outcome outcome;
};

static void done(void *arg, const struct flue_outcome *outcome)
{
    struct request *request = arg;
    request->outcome = *outcome;
    atomic_fetch_add(&request->answers, 1);
}

static void run(struct flue_loop *loop, void *arg)
{
    struct request *request = arg;
    const struct flue_origin from = {.receiver = FLUE_BYTES_INIT("otlp"),
                                     .transport = FLUE_BYTES_INIT("grpc"),
                                     .peer = FLUE_BYTES_INIT("127.0.0.1:1")};
    struct flue_otlp_report report;
    struct flue_payload *payload;
    struct flue_error error = {0};
    struct flue_block *copy = flue_block_copy(&request->graph->account, flue_block_bytes(body));

    flue_otlp_read(copy, &payload, &report, &error);
    flue_block_trim();
    fault_arm(request->left, request->for_good);
    struct flue_delivery *delivery = flue_delivery_begin(loop, 0, done, request);
    if (delivery) {
        struct flue_origin *origin = flue_origin_new(&from);
        struct flue_batch *batch = NULL;
        if (origin)
            batch = flue_batch_new(payload, origin, report.counts, &request->graph->account);
        else
            flue_payload_unref(payload);
        if (batch)
            flue_consumer_push(request->graph->consumer, batch, delivery);
        else {
            flue_fail(&error, FLUE_NO_MEMORY, "no memory for a batch");
            flue_delivery_refuse(delivery, &error);
        }
        if (origin)
            flue_origin_unref(origin);
        flue_delivery_end(delivery);
    } else {
        flue_payload_unref(payload);
        request->refused = true;
    }
    request->fired = fault_fired;
    fault_disarm();
}

/* On the loop, where the books are not being written meanwhile: nothing under way, and
 * received = sent + dropped. */
struct look {
    struct graph *graph;
    bool quiet;
};
static void look(struct flue_loop *loop, void *arg)
{
    struct look *look = arg;
    look->quiet = true;
    for (unsigned i = 0; i < EXPORTERS && look->graph->exporters[i]; i++) {
        struct flue_exporter_state s;
        flue_exporter_state(look->graph->exporters[i], &s);
        look->quiet &= s.queued_items == 0 && s.in_flight_items == 0 &&
                       s.received.samples == s.sent.samples + s.dropped.samples &&
                       s.received.profiles == s.sent.profiles + s.dropped.profiles &&
                       s.received.bytes == s.sent.bytes + s.dropped.bytes;
    }
}
static bool quiet(struct graph *graph)
{
    struct look now = {.graph = graph};
    flue_loop_call(graph->loops->items[0], look, &now);
    return now.quiet;
}

#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        uint64_t until_ = flue_monotonic_ns() + UINT64_C(20000000000);                             \
        while (!(condition)) {                                                                     \
            if (flue_monotonic_ns() > until_)                                                      \
                fail_msg("never: %s (allocation %ld)", #condition, request.left);                  \
            nanosleep(&(struct timespec){0, 100000}, NULL);                                        \
        }                                                                                          \
    } while (0)

static void clear(struct flue_loop *loop, void *arg)
{
    struct graph *graph = arg;
    for (unsigned i = 0; i < EXPORTERS; i++)
        graph->destinations[i].failed_once = false;
}

static void sweep(unsigned first, unsigned count, unsigned least)
{
    struct graph graph;
    graph_make(&graph, first, count);
    for (int for_good = 0; for_good < 2; for_good++) {
        unsigned failures = 0;
        for (long n = 0;; n++) {
            struct request request = {.graph = &graph, .left = n, .for_good = for_good};
            flue_loop_call(graph.loops->items[0], clear, &graph);
            flue_loop_call(graph.loops->items[0], run, &request);
            if (!request.refused)
                AWAIT(atomic_load(&request.answers) > 0);
            AWAIT(quiet(&graph) && atomic_load(&graph.account.used) == 0);
            assert_int_equal(atomic_load(&request.answers), !request.refused);
            if (!request.fired) {
                assert_int_equal(request.outcome.error.code, FLUE_OK);
                break;
            }
            enum flue_code code = request.refused ? FLUE_NO_MEMORY : request.outcome.error.code;
            if (code != FLUE_OK && !flue_code_facts(code)->retryable)
                fail_msg("allocation %ld: a sender is told never to come again: %s", n,
                         request.outcome.error.text);
            failures++;
        }
        if (failures < least)
            fail_msg("only %u allocations failed", failures);
    }
    graph_end(&graph);
}

static void batched(void **state)
{
    sweep(BATCHED, 1, 3);
}
static void retried(void **state)
{
    sweep(RETRIED, 1, 3);
}
static void cut(void **state)
{
    sweep(SPLIT, 1, 5);
}
static void direct(void **state)
{
    sweep(DIRECT, 1, 3);
}
static void durable(void **state)
{
    sweep(DURABLE, 1, 6);
}
static void several(void **state)
{
    sweep(BATCHED, DURABLE, 10);
}
static void several_and_a_disk(void **state)
{
    sweep(BATCHED, EXPORTERS, 6);
}

static int begin(void **state)
{
    flue_log_configure(FLUE_ERROR + 1, false, 2);
    flue_payload_decoder(flue_decode);
    body = fault_file("otlp/async-profiler-alloc.otlp");
    return 0;
}
static int end(void **state)
{
    flue_block_unref(body);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(batched),
                                       cmocka_unit_test(retried),
                                       cmocka_unit_test(cut),
                                       cmocka_unit_test(direct),
                                       cmocka_unit_test(durable),
                                       cmocka_unit_test(several),
                                       cmocka_unit_test(several_and_a_disk)};
    return cmocka_run_group_tests(tests, begin, end);
}
