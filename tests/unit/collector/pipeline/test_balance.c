/* Numbers balance: random requests on several loops to three exporters that do anything, by seed.
 */
#include "fake_storage.h"
#include <stdio.h>

#define REQUESTS 3000

struct chaos {
    struct flue_timer timer;
    struct fake *fake;
    struct flue_send *send;
    struct flue_verdict verdict;
};

static _Atomic uint64_t seed;

static unsigned dice(unsigned sides)
{
    uint64_t x = atomic_fetch_add(&seed, UINT64_C(0x9e3779b97f4a7c15));
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (unsigned)((x ^ x >> 31) % sides);
}

static void chaos_answer(struct fake *fake, struct flue_send *send,
                         const struct flue_verdict *verdict)
{
    if (verdict->kind == FLUE_SENT)
        atomic_fetch_add(&fake->taken, 1);
    flue_send_done(send, verdict);
}

static void chaos_late(struct flue_timer *timer)
{
    struct chaos *chaos = (struct chaos *)timer, copy = *chaos;
    chaos->send->state = NULL;
    free(chaos);
    chaos_answer(copy.fake, copy.send, &copy.verdict);
}

static void chaos_cancel(struct flue_send *send)
{
    struct chaos *chaos = send->state;
    if (!chaos)
        return;
    flue_timer_disarm(send->loop, &chaos->timer);
    (void)flue_fail(&chaos->verdict.error, FLUE_CANCELLED, "cancelled");
    chaos->verdict.kind = dice(4) ? FLUE_RETRY : FLUE_SENT;
    chaos_late(&chaos->timer);
}

static void chaos_send(struct fake *fake, struct flue_send *send)
{
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    unsigned n = dice(100);

    if (n < 25) {
        verdict.kind = FLUE_RETRY;
        (void)flue_fail(&verdict.error, FLUE_UNAVAILABLE, "down");
        verdict.error.retry_after_ms = dice(3);
    } else if (n < 30) {
        verdict.kind = FLUE_DROP;
        (void)flue_fail(&verdict.error, FLUE_REFUSED, "never");
    } else if (n < 40 && fake_samples(send->batch->payload) > 1) {
        verdict.kind = FLUE_SPLIT;
        verdict.split_max = 1 + dice(20);
    } else if (n < 50) {
        verdict.rejected = (struct flue_counts){dice(3), dice(5), dice(9)};
        (void)flue_fail(&verdict.error, FLUE_INVALID, "some");
    }
    if (dice(2)) {
        chaos_answer(fake, send, &verdict);
        return;
    }
    struct chaos *chaos = calloc(1, sizeof *chaos);
    chaos->fake = fake;
    chaos->send = send;
    chaos->verdict = verdict;
    chaos->timer.fire = chaos_late;
    send->state = chaos;
    send->cancel = chaos_cancel;
    flue_timer_arm(send->loop, &chaos->timer, flue_monotonic_ns() + dice(2000) * 1000);
}

static void cancel_run(struct flue_loop *loop, void *arg)
{
    struct request *request = arg;
    if (request->delivery)
        flue_delivery_cancel(request->delivery);
}

/* What disks do: an append or a read fails now and then. */
static void shake(struct flue_storage *log)
{
    if (dice(30) == 0)
        atomic_store(&log->fail_appends, 1);
    if (dice(60) == 0)
        atomic_store(&log->fail_reads, 1);
}

/* What was left on disk is found, and sent, by the next process. */
static void after_restart(struct graph *old, struct flue_storage *log, const uint64_t *samples)
{
    struct graph graph;

    log_restart(log);
    atomic_store(&log->fail_appends, 0);
    atomic_store(&log->fail_reads, 0);
    graph_prepare(&graph, 2, 3);
    graph.storage = log;
    memcpy(graph.logs, old->logs, sizeof graph.logs);
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(state_of(&graph, i).recovered.samples, samples[i]);
        AWAIT(state_of(&graph, i).sent.samples == samples[i]);
    }
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void run_seed(uint64_t start, bool drain_in_time)
{
    static const char *const ids[] = {"fake/a", "fake/b", "fake/c"};
    struct flue_storage *log = log_new();
    struct flue_error error;
    uint64_t before[3] = {0};

    static struct request requests[REQUESTS];
    struct graph graph;
    struct flue_batcher_config batch = {
        .flush_timeout = 3 * (int64_t)MS, .min_size = 60, .max_size = 100};
    atomic_store(&seed, start);
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 3, 3);
    flue_payload_decoder(fake_decode);
    graph.storage = log;
    for (unsigned i = 0; i < 3; i++) {
        struct flue_exporter_settings *s = &graph.settings[i];
        s->sending_queue.num_consumers = 1 + dice(4);
        s->sending_queue.queue_size = 20 + dice(200);
        s->sending_queue.sizer = (int)dice(3);
        if (s->sending_queue.sizer == FLUE_SIZER_BYTES)
            s->sending_queue.queue_size *= 100;
        s->sending_queue.on_overflow = (int)dice(2);
        s->sending_queue.block_on_overflow = !s->sending_queue.on_overflow && dice(2);
        s->sending_queue.batch = dice(2) ? &batch : NULL;
        s->sending_queue.wait_for_result = dice(3) == 0;
        s->sending_queue.enabled = dice(4) != 0;
        s->retry_on_failure.enabled = dice(4) != 0;
        s->retry_on_failure.initial_interval = MS / 4;
        s->retry_on_failure.max_interval = 2 * (int64_t)MS;
        s->retry_on_failure.max_elapsed_time = 6 * (int64_t)MS;
        s->retry_on_failure.randomization_factor = 0.5;
        if (s->sending_queue.enabled && dice(2)) {
            s->sending_queue.wait_for_result = false;
            s->sending_queue.max_bytes = 4096 << dice(4);
            assert_int_equal(flue_storage_queue_open(log, ids[i], &graph.logs[i], &error), FLUE_OK);
        }
        graph.fakes[i].hook = chaos_send;
    }
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (dice(2))
            requests[i].deadline_ns = flue_monotonic_ns() + (1 + dice(20)) * MS;
        shake(log);
        request_on(&requests[i], &graph, i % 3, 1 + dice(50));
        if (dice(20) == 0 && i >= 3)
            flue_loop_call(graph.loops->items[(i - 3) % 3], cancel_run, &requests[i - 3]);
    }
    if (drain_in_time)
        for (unsigned i = 0; i < REQUESTS; i++)
            AWAIT(requests[i].answers);
    for (unsigned i = 0; i < 3; i++)
        flue_exporter_stop(graph.exporters[i],
                           flue_monotonic_ns() + (drain_in_time ? 10000 : 1) * MS);
    for (unsigned i = 0; i < 3; i++)
        AWAIT(flue_exporter_stopped(graph.exporters[i]));
    uint64_t accepted = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        AWAIT(requests[i].answers);
        assert_int_equal(requests[i].answers, 1);
        accepted += requests[i].outcome.accepted.samples;
    }
    assert_balance(&graph);
    for (unsigned i = 0; i < 3; i++) {
        struct flue_exporter_state s = state_of(&graph, i);
        char series[160];
        if (graph.logs[i]) {
            struct flue_storage_lag lag;
            flue_storage_lag(graph.logs[i], &lag);
            /* Of a record that was cut some parts may have been sent. */
            assert_true(lag.counts.samples >= s.queued.samples);
            assert_int_equal(s.in_flight.samples, 0);
            assert_int_equal(s.lost_items, 0);
            assert_true((lag.records == 0) == (s.queued.samples == 0));
            before[i] = lag.counts.samples;
        } else {
            assert_int_equal(s.queued.samples + s.in_flight.samples, 0);
        }
        assert_int_equal(s.queued_items + s.in_flight_items, 0);
        assert_int_equal(s.received.bytes, s.received.samples * 10);
        /* What was accepted reached every destination's books; direct ones may have taken more. */
        assert_true(s.received.samples >= accepted);
        if (graph.settings[i].sending_queue.enabled &&
            !graph.settings[i].sending_queue.wait_for_result)
            assert_int_equal(s.received.samples, accepted);
        if (drain_in_time)
            assert_int_equal(s.lost_items, 0);
        if (!graph.settings[i].sending_queue.enabled)
            continue;
        if (graph.logs[i]) {
            (void)snprintf(
                series, sizeof series,
                "otelcol_exporter_queue_held_bytes{data_type=\"profiles\",exporter=\"%s\"} ",
                flue_exporter_id(graph.exporters[i]));
            assert_int_equal(metric_value(&graph, series), 0);
            continue;
        }
        (void)snprintf(series, sizeof series,
                       "otelcol_exporter_queue_size{data_type=\"profiles\",exporter=\"%s\"} ",
                       flue_exporter_id(graph.exporters[i]));
        assert_int_equal(metric_value(&graph, series), 0);
        (void)snprintf(series, sizeof series,
                       "otelcol_exporter_queue_held_bytes{data_type=\"profiles\",exporter=\"%s\"} ",
                       flue_exporter_id(graph.exporters[i]));
        assert_int_equal(metric_value(&graph, series), 0);
    }
    assert_int_equal(
        metric_value(&graph, "otelcol_pipeline_received_samples_total{pipeline=\"profiles\"} "),
        accepted);
    graph_destroy(&graph);
    after_restart(&graph, log, before);
    log_destroy(log);
}

static void numbers_balance_when_drained(void **state)
{
    for (uint64_t i = 1; i <= 12; i++)
        run_seed(i, true);
}

static void numbers_balance_when_cut_off(void **state)
{
    for (uint64_t i = 101; i <= 112; i++)
        run_seed(i, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_balance_when_drained),
        cmocka_unit_test(numbers_balance_when_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
