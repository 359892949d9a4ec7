/* Retry, places, splitting, batching, drain. */
#include "fake.h"

static void retries_with_growing_waits(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].retry_on_failure.initial_interval = 8 * (int64_t)MS;
    graph.settings[0].retry_on_failure.multiplier = 2;
    graph.settings[0].retry_on_failure.max_interval = 20 * (int64_t)MS;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, 4);
    request_on(&request, &graph, 0, 5);
    assert_int_equal(request.outcome.error.code, FLUE_OK);
    AWAIT(graph.fakes[0].taken == 1);
    AWAIT(state_of(&graph, 0).sent.samples == 5);
    assert_int_equal(graph.fakes[0].attempts, 5);
    const uint64_t least[] = {8, 16, 20, 20};
    for (int i = 0; i < 4; i++)
        assert_true(graph.fakes[0].attempt_at[i + 1] - graph.fakes[0].attempt_at[i] >=
                    least[i] * MS);
    assert_int_equal(
        metric_value(&graph, "otelcol_exporter_retried_requests_total{exporter=\"fake/a\"} "), 4);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void jitter_stays_within_its_factor(void **state)
{
    struct graph graph;
    struct request requests[40];
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.num_consumers = 1;
    graph.settings[0].retry_on_failure.initial_interval = 4 * (int64_t)MS;
    graph.settings[0].retry_on_failure.randomization_factor = 0.5;
    graph.settings[0].retry_on_failure.multiplier = 1;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    uint64_t least = UINT64_MAX;
    bool below = false;
    for (int i = 0; i < 40; i++) {
        /* Once each: more in a row would open the circuit, which has waits of its own. */
        atomic_store(&graph.fakes[0].retries_then_ok, 2 * i + 1);
        request_on(&requests[i], &graph, 0, 5);
        AWAIT(state_of(&graph, 0).sent.samples == 5 * ((uint64_t)i + 1));
    }
    for (int i = 0; i < 62; i += 2) {
        uint64_t gap = graph.fakes[0].attempt_at[i + 1] - graph.fakes[0].attempt_at[i];
        least = gap < least ? gap : least;
        below |= gap < 4 * MS; /* a wait below the interval is seen with near certainty */
    }
    assert_true(least >= 2 * MS);
    assert_true(below);
    graph_destroy(&graph);
}

static void the_servers_delay_is_obeyed(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 1);
    graph.fakes[0].retry_after_ms = 60;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, 1);
    request_on(&request, &graph, 0, 5);
    AWAIT(state_of(&graph, 0).sent.samples == 5);
    assert_true(graph.fakes[0].attempt_at[1] - graph.fakes[0].attempt_at[0] >= 60 * MS);
    graph_destroy(&graph);
}

static void gives_up_after_max_elapsed_time(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].retry_on_failure.max_elapsed_time = 30 * (int64_t)MS;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, -1);
    request_on(&request, &graph, 0, 5);
    AWAIT(state_of(&graph, 0).dropped.samples == 5);
    assert_true(graph.fakes[0].attempts >= 2);
    assert_int_equal(metric_value(&graph, "otelcol_exporter_dropped_profiles_total{exporter="
                                          "\"fake/a\",pipeline=\"profiles\",reason="
                                          "\"max_elapsed_time\"} "),
                     2);
    assert_int_equal(
        metric_value(&graph,
                     "otelcol_exporter_send_failed_profile_samples_total{exporter=\"fake/a\"} "),
        5);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void without_retry_the_first_failure_drops(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].retry_on_failure.enabled = false;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, -1);
    request_on(&request, &graph, 0, 5);
    assert_int_equal(graph.fakes[0].attempts, 1);
    assert_int_equal(metric_value(&graph, "otelcol_exporter_dropped_samples_total{exporter="
                                          "\"fake/a\",pipeline=\"profiles\",reason="
                                          "\"unavailable\"} "),
                     5);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void a_split_sends_every_part(void **state)
{
    struct graph graph;
    struct request queued = {0}, direct = {0};
    for (int with_queue = 0; with_queue < 2; with_queue++) {
        graph_prepare(&graph, 1, 1);
        graph.settings[0].sending_queue.enabled = with_queue;
        graph.fakes[0].split_max = 30;
        graph_build(&graph, NULL, 0);
        atomic_store(&graph.fakes[0].mode, FAKE_SPLIT);
        request_on(with_queue ? &queued : &direct, &graph, 0, 100);
        AWAIT(state_of(&graph, 0).sent.samples == 100);
        assert_int_equal(graph.fakes[0].taken, 4);
        assert_int_equal(graph.fakes[0].samples, 100);
        assert_int_equal(state_of(&graph, 0).sent.profiles, 2);
        assert_int_equal(state_of(&graph, 0).sent.bytes, 1000);
        if (with_queue)
            assert_int_equal(metric_value(&graph, "otelcol_exporter_queue_size{data_type="
                                                  "\"profiles\",exporter=\"fake/a\"} "),
                             0);
        assert_balance(&graph);
        graph_destroy(&graph);
    }
    assert_int_equal(queued.outcome.error.code, FLUE_OK);
    assert_int_equal(direct.outcome.error.code, FLUE_OK);
}

static void always_split(struct fake *fake, struct flue_send *send)
{
    struct flue_verdict verdict = {.kind = FLUE_SPLIT, .split_max = 1};
    flue_send_done(send, &verdict);
}

static void what_cannot_be_cut_is_dropped(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 1);
    graph.fakes[0].hook = always_split;
    graph_build(&graph, NULL, 0);
    request_on(&request, &graph, 0, 3);
    assert_int_equal(state_of(&graph, 0).dropped.samples, 3);
    assert_int_equal(metric_value(&graph, "otelcol_exporter_dropped_samples_total{exporter="
                                          "\"fake/a\",pipeline=\"profiles\",reason="
                                          "\"too_large\"} "),
                     3);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void second_part_is_bad(struct fake *fake, struct flue_send *send)
{
    struct flue_verdict verdict = {.kind = FLUE_SPLIT, .split_max = 10};
    if (fake_samples(send->batch->payload) > 10) {
        flue_send_done(send, &verdict);
    } else if (atomic_fetch_add(&fake->running, 1) == 1) {
        verdict.kind = FLUE_DROP;
        (void)flue_fail(&verdict.error, FLUE_REFUSED, "the second is bad");
        flue_send_done(send, &verdict);
    } else {
        fake_take(fake, send);
    }
}

static void a_part_refused_for_good_is_a_partial_success(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.enabled = false;
    graph.fakes[0].hook = second_part_is_bad;
    graph_build(&graph, NULL, 0);
    request_on(&request, &graph, 0, 30);
    assert_int_equal(request.answers, 1);
    assert_int_equal(request.outcome.error.code, FLUE_OK);
    assert_string_equal(request.outcome.rejected_reason, "the second is bad");
    assert_int_equal(state_of(&graph, 0).sent.samples, 20);
    assert_int_equal(state_of(&graph, 0).dropped.samples, 10);
    assert_balance(&graph);
    graph_destroy(&graph);
}

/* ---- places ---------------------------------------------------------------------------------- */

static void synchronous_sends_do_not_recurse(void **state)
{
    struct graph graph;
    struct request first = {0};
    static struct request requests[20000];
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.num_consumers = 1;
    graph.settings[0].sending_queue.queue_size = 1 << 20;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    request_on(&first, &graph, 0, 1);
    for (int i = 0; i < 20000; i++)
        request_on(&requests[i], &graph, 0, 1);
    assert_int_equal(state_of(&graph, 0).queued_items, 20000);
    assert_int_equal(graph.fakes[0].attempts, 1);
    atomic_store(&graph.fakes[0].mode, FAKE_OK);
    release_held(&graph, 0, 0);
    assert_int_equal(graph.fakes[0].samples, 20001);
    assert_balance(&graph);
    graph_destroy(&graph);
}

struct slow {
    struct flue_timer timer;
    struct fake *fake;
    struct flue_send *send;
};
static void slow_done(struct flue_timer *timer)
{
    struct slow *slow = (struct slow *)timer;
    struct flue_send *send = slow->send;
    struct fake *fake = slow->fake;
    free(slow);
    atomic_fetch_sub(&fake->running, 1);
    fake_take(fake, send);
}
static void slow_send(struct fake *fake, struct flue_send *send)
{
    struct slow *slow = calloc(1, sizeof *slow);
    int running = atomic_fetch_add(&fake->running, 1) + 1, most = atomic_load(&fake->running_max);
    while (running > most && !atomic_compare_exchange_weak(&fake->running_max, &most, running))
        ;
    slow->fake = fake;
    slow->send = send;
    slow->timer.fire = slow_done;
    flue_timer_arm(send->loop, &slow->timer, flue_monotonic_ns() + MS / 4);
}

static void num_consumers_holds_over_all_loops(void **state)
{
    struct graph graph;
    static struct request requests[400];
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 4, 1);
    graph.settings[0].sending_queue.num_consumers = 3;
    graph.fakes[0].hook = slow_send;
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < 400; i++)
        request_on(&requests[i], &graph, i < 300 ? 0 : i % 4, 1);
    AWAIT(graph.fakes[0].taken == 400);
    assert_int_equal(graph.fakes[0].running_max, 3);
    AWAIT(state_of(&graph, 0).sent.samples == 400);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void free_place_hold(struct fake *fake, struct flue_send *send)
{
    flue_send_free_place(send);
    flue_send_free_place(send);
    fake->held[atomic_fetch_add(&fake->held_count, 1)] = send;
}

static void an_exporter_may_bound_itself(void **state)
{
    struct graph graph;
    struct request requests[6];
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.num_consumers = 1;
    graph.fakes[0].hook = free_place_hold;
    graph_build(&graph, NULL, 0);
    for (int i = 0; i < 6; i++)
        request_on(&requests[i], &graph, 0, 1);
    assert_int_equal(graph.fakes[0].held_count, 6);
    for (int i = 0; i < 6; i++)
        release_held(&graph, 0, i);
    assert_int_equal(state_of(&graph, 0).sent.samples, 6);
    graph_destroy(&graph);
}

/* ---- batching -------------------------------------------------------------------------------- */

static struct flue_batcher_config batching(int64_t min, int64_t max)
{
    return (struct flue_batcher_config){
        .flush_timeout = 10000 * (int64_t)MS, .min_size = min, .max_size = max};
}

static void small_requests_become_one(void **state)
{
    struct graph graph;
    struct request requests[5];
    struct flue_batcher_config batch = batching(100, 0);
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.batch = &batch;
    graph_build(&graph, NULL, 0);
    for (int i = 0; i < 4; i++)
        request_on(&requests[i], &graph, 0, 24);
    assert_int_equal(graph.fakes[0].attempts, 0);
    assert_int_equal(state_of(&graph, 0).queued.samples, 96);
    request_on(&requests[4], &graph, 0, 24);
    assert_int_equal(graph.fakes[0].attempts, 1);
    assert_int_equal(graph.fakes[0].samples, 120);
    assert_int_equal(state_of(&graph, 0).sent.profiles, 10);
    assert_int_equal(metric_value(&graph, "otelcol_exporter_queue_batch_send_size_count{exporter="
                                          "\"fake/a\"} "),
                     1);
    assert_int_equal(metric_value(&graph, "otelcol_exporter_queue_size{data_type=\"profiles\","
                                          "exporter=\"fake/a\"} "),
                     0);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void flush_timeout_sends_what_there_is(void **state)
{
    struct graph graph;
    struct request requests[2];
    struct flue_batcher_config batch = batching(1000, 0);
    memset(requests, 0, sizeof requests);
    batch.flush_timeout = 20 * (int64_t)MS;
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.batch = &batch;
    graph_build(&graph, NULL, 0);
    request_on(&requests[0], &graph, 0, 1);
    request_on(&requests[1], &graph, 0, 2);
    AWAIT(graph.fakes[0].samples == 3);
    assert_int_equal(graph.fakes[0].attempts, 1);
    graph_destroy(&graph);
}

static void large_requests_are_cut(void **state)
{
    struct graph graph;
    struct request requests[3];
    struct flue_batcher_config batch = batching(50, 60);
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.batch = &batch;
    graph_build(&graph, NULL, 0);
    request_on(&requests[0], &graph, 0, 40);
    request_on(&requests[1], &graph, 0, 30); /* together 70: the first goes alone */
    assert_int_equal(graph.fakes[0].samples, 40);
    request_on(&requests[2], &graph, 0, 150); /* the 30 alone, then 60 + 60 + 30 */
    assert_int_equal(graph.fakes[0].samples, 220);
    assert_int_equal(graph.fakes[0].attempts, 5);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static struct flue_origin *origin_of(const char *tenant, const char *team)
{
    struct flue_attribute header = {
        .key = FLUE_BYTES("x-team"),
        .value = {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(team)}};
    struct flue_origin from = {
        .tenant = flue_bytes_of(tenant), .headers = &header, .header_count = 1};
    return flue_origin_new(&from);
}

static void tenants_and_partitions_stay_apart(void **state)
{
    struct graph graph;
    struct request requests[6];
    const char *keys[] = {"X-Team"};
    struct flue_batcher_config batch = batching(10, 0);
    struct flue_origin *origins[4] = {origin_of("one", "a"), origin_of("two", "a"),
                                      origin_of("one", "b"), origin_of("one", "a")};
    memset(requests, 0, sizeof requests);
    batch.partition.metadata_keys = (struct flue_list){keys, 1};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.batch = &batch;
    graph_build(&graph, NULL, 0);
    for (int i = 0; i < 3; i++) {
        requests[i].origin = origins[i];
        request_on(&requests[i], &graph, 0, 9);
    }
    assert_int_equal(graph.fakes[0].attempts, 0);
    requests[3].origin = origins[3];
    request_on(&requests[3], &graph, 0, 1);
    assert_int_equal(graph.fakes[0].attempts, 1);
    assert_int_equal(graph.fakes[0].samples, 10);
    flue_exporter_stop(graph.exporters[0], flue_monotonic_ns() + 10000 * MS);
    AWAIT(flue_exporter_stopped(graph.exporters[0]));
    assert_int_equal(graph.fakes[0].attempts, 3);
    assert_int_equal(graph.fakes[0].samples, 28);
    assert_balance(&graph);
    for (int i = 0; i < 4; i++)
        flue_origin_unref(origins[i]);
    graph_destroy(&graph);
}

static void a_failed_merge_loses_nothing(void **state)
{
    struct graph graph;
    struct request requests[2];
    struct flue_batcher_config batch = batching(10, 0);
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.batch = &batch;
    graph_build(&graph, NULL, 0);
    atomic_store(&fake_merge_fails, true);
    request_on(&requests[0], &graph, 0, 5);
    request_on(&requests[1], &graph, 0, 6);
    atomic_store(&fake_merge_fails, false);
    assert_int_equal(graph.fakes[0].attempts, 2);
    assert_int_equal(graph.fakes[0].samples, 11);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void cancel_run(struct flue_loop *loop, void *arg)
{
    struct request *request = arg;
    if (request->delivery)
        flue_delivery_cancel(request->delivery);
}

static void waiting_senders_get_the_result_of_their_batch(void **state)
{
    struct graph graph;
    struct request requests[4];
    struct flue_batcher_config batch = batching(10, 0);
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.batch = &batch;
    graph.settings[0].sending_queue.wait_for_result = true;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    request_on(&requests[0], &graph, 0, 3);
    request_on(&requests[1], &graph, 0, 4);
    flue_loop_call(graph.loops->items[0], cancel_run, &requests[1]); /* leaves before the merge */
    assert_int_equal(requests[1].outcome.error.code, FLUE_CANCELLED);
    request_on(&requests[2], &graph, 0, 5);
    request_on(&requests[3], &graph, 0, 6);
    assert_int_equal(graph.fakes[0].held_count, 1);
    flue_loop_call(graph.loops->items[0], cancel_run, &requests[2]); /* and one after it */
    assert_int_equal(requests[2].outcome.error.code, FLUE_CANCELLED);
    assert_int_equal(requests[0].answers + requests[3].answers, 0);
    release_held(&graph, 0, 0);
    assert_int_equal(requests[0].answers, 1);
    assert_int_equal(requests[3].answers, 1);
    assert_int_equal(requests[0].outcome.error.code, FLUE_OK);
    assert_int_equal(state_of(&graph, 0).sent.samples, 14);
    assert_balance(&graph);
    graph_destroy(&graph);
}

/* ---- drain ----------------------------------------------------------------------------------- */

static void drain_sends_what_waits(void **state)
{
    struct graph graph;
    static struct request requests[50];
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 2, 1);
    graph.settings[0].sending_queue.num_consumers = 2;
    graph.fakes[0].hook = slow_send;
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < 50; i++)
        request_on(&requests[i], &graph, i % 2, 2);
    flue_exporter_stop(graph.exporters[0], flue_monotonic_ns() + 10000 * MS);
    AWAIT(flue_exporter_stopped(graph.exporters[0]));
    assert_int_equal(state_of(&graph, 0).sent.samples, 100);
    assert_int_equal(state_of(&graph, 0).lost_items, 0);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void a_drain_tries_again_what_was_waiting_for_long(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].retry_on_failure.initial_interval = 3600 * 1000 * (int64_t)MS;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, 1);
    request_on(&request, &graph, 0, 5);
    flue_exporter_stop(graph.exporters[0], flue_monotonic_ns() + 10000 * MS);
    AWAIT(flue_exporter_stopped(graph.exporters[0]));
    assert_int_equal(state_of(&graph, 0).sent.samples, 5);
    graph_destroy(&graph);
}

static void the_deadline_cancels_and_counts_what_is_left(void **state)
{
    struct graph graph;
    struct request requests[5];
    struct flue_batcher_config batch = batching(1, 0);
    memset(requests, 0, sizeof requests);
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.num_consumers = 2;
    graph.settings[0].sending_queue.batch = &batch;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    for (int i = 0; i < 5; i++)
        request_on(&requests[i], &graph, 0, 3);
    flue_exporter_stop(graph.exporters[0], flue_monotonic_ns() + 20 * MS);
    AWAIT(flue_exporter_stopped(graph.exporters[0]));
    struct flue_exporter_state s = state_of(&graph, 0);
    assert_int_equal(graph.fakes[0].cancelled, 2);
    assert_int_equal(s.lost_items, 5);
    assert_int_equal(s.lost.samples, 15);
    assert_int_equal(s.lost.profiles, 10);
    assert_int_equal(metric_value(&graph, "otelcol_exporter_dropped_samples_total{exporter="
                                          "\"fake/a\",pipeline=\"profiles\",reason=\"shutdown\"} "),
                     15);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void never_answers(struct fake *fake, struct flue_send *send)
{
    atomic_fetch_add(&fake->held_count, 1);
}

static void what_never_answers_is_counted_at_the_end(void **state)
{
    struct graph graph;
    struct request queued = {0}, direct = {0};
    graph_prepare(&graph, 1, 2);
    graph.fakes[0].hook = graph.fakes[1].hook = never_answers;
    graph.settings[1].sending_queue.wait_for_result = true;
    graph_build(&graph, NULL, 0);
    request_on(&direct, &graph, 0, 4);
    assert_int_equal(direct.answers, 0);
    graph.fakes[1].hook = NULL;
    request_on(&queued, &graph, 0, 3);
    assert_int_equal(queued.answers, 1);
    flue_loops_stop(graph.loops);
    flue_exporter_destroy(graph.exporters[1]);
    assert_int_equal(direct.answers, 1);
    assert_int_equal(direct.outcome.error.code, FLUE_SHUTTING_DOWN);
    flue_exporter_destroy(graph.exporters[0]);
    flue_consumer_destroy(graph.consumer);
    flue_pipeline_destroy(graph.pipeline);
    flue_metrics_destroy(graph.metrics);
    flue_loops_destroy(graph.loops);
    assert_int_equal(fake_alive, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retries_with_growing_waits),
        cmocka_unit_test(jitter_stays_within_its_factor),
        cmocka_unit_test(the_servers_delay_is_obeyed),
        cmocka_unit_test(gives_up_after_max_elapsed_time),
        cmocka_unit_test(without_retry_the_first_failure_drops),
        cmocka_unit_test(a_split_sends_every_part),
        cmocka_unit_test(what_cannot_be_cut_is_dropped),
        cmocka_unit_test(a_part_refused_for_good_is_a_partial_success),
        cmocka_unit_test(synchronous_sends_do_not_recurse),
        cmocka_unit_test(num_consumers_holds_over_all_loops),
        cmocka_unit_test(an_exporter_may_bound_itself),
        cmocka_unit_test(small_requests_become_one),
        cmocka_unit_test(flush_timeout_sends_what_there_is),
        cmocka_unit_test(large_requests_are_cut),
        cmocka_unit_test(tenants_and_partitions_stay_apart),
        cmocka_unit_test(a_failed_merge_loses_nothing),
        cmocka_unit_test(waiting_senders_get_the_result_of_their_batch),
        cmocka_unit_test(drain_sends_what_waits),
        cmocka_unit_test(a_drain_tries_again_what_was_waiting_for_long),
        cmocka_unit_test(the_deadline_cancels_and_counts_what_is_left),
        cmocka_unit_test(what_never_answers_is_counted_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
