/* Reserve, direct sends, commit, and the answer back. */
#include "fake.h"

static void queued_is_answered_and_sent(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 2);
    graph_build(&graph, NULL, 0);
    request_on(&request, &graph, 0, 7);
    assert_int_equal(request.answers, 1);
    assert_int_equal(request.outcome.error.code, FLUE_OK);
    assert_int_equal(request.outcome.accepted.samples, 7);
    assert_int_equal(request.outcome.dropped.samples, 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(graph.fakes[i].samples, 7);
        assert_int_equal(state_of(&graph, i).sent.profiles, 2);
        assert_int_equal(state_of(&graph, i).queued_items, 0);
    }
    assert_balance(&graph);
    assert_int_equal(
        metric_value(&graph, "otelcol_exporter_sent_profile_samples_total{exporter=\"fake/a\"} "),
        7);
    assert_int_equal(
        metric_value(&graph, "otelcol_pipeline_received_samples_total{pipeline=\"profiles\"} "), 7);
    assert_int_equal(metric_value(&graph,
                                  "otelcol_exporter_received_bytes_total{exporter=\"fake/a\","
                                  "pipeline=\"profiles\"} "),
                     70);
    graph_destroy(&graph);
}

static void a_full_queue_refuses_everywhere(void **state)
{
    struct graph graph;
    struct request first = {0}, second = {0};
    graph_prepare(&graph, 1, 2);
    graph.settings[1].sending_queue.queue_size = 1;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[1].mode, FAKE_HOLD);
    request_on(&first, &graph, 0, 5);
    assert_int_equal(first.outcome.error.code, FLUE_OK);
    request_on(&second, &graph, 0, 6);
    assert_int_equal(second.answers, 1);
    assert_int_equal(second.outcome.error.code, FLUE_OVERLOADED);
    assert_non_null(strstr(second.outcome.error.text, "fake/b"));
    assert_int_equal(second.outcome.accepted.samples, 0);
    assert_int_equal(graph.fakes[0].samples, 5);
    assert_int_equal(state_of(&graph, 0).received.samples, 5);
    assert_int_equal(state_of(&graph, 1).received.samples, 5);
    assert_int_equal(state_of(&graph, 1).in_flight.samples, 5);
    assert_int_equal(
        metric_value(&graph,
                     "otelcol_exporter_enqueue_failed_profile_samples_total{exporter=\"fake/b\"} "),
        6);
    assert_int_equal(
        metric_value(&graph, "otelcol_pipeline_refused_samples_total{pipeline=\"profiles\"} "), 6);
    assert_balance(&graph);
    release_held(&graph, 1, 0);
    struct request third = {0};
    atomic_store(&graph.fakes[1].mode, FAKE_OK);
    request_on(&third, &graph, 0, 8);
    assert_int_equal(third.outcome.error.code, FLUE_OK);
    assert_int_equal(graph.fakes[1].samples, 13);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void drop_hurts_that_destination_alone(void **state)
{
    struct graph graph;
    struct request first = {0}, second = {0};
    graph_prepare(&graph, 1, 2);
    graph.settings[1].sending_queue.max_bytes = 60;
    graph.settings[1].sending_queue.on_overflow = FLUE_OVERFLOW_DROP;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[1].mode, FAKE_HOLD);
    request_on(&first, &graph, 0, 5);
    request_on(&second, &graph, 0, 6);
    assert_int_equal(second.outcome.error.code, FLUE_OK);
    assert_int_equal(second.outcome.accepted.samples, 6);
    assert_int_equal(second.outcome.dropped.samples, 6);
    assert_int_equal(graph.fakes[0].samples, 11);
    assert_int_equal(state_of(&graph, 1).dropped.samples, 6);
    assert_int_equal(metric_value(&graph,
                                  "otelcol_exporter_dropped_samples_total{exporter=\"fake/b\","
                                  "pipeline=\"profiles\",reason=\"queue_full\"} "),
                     6);
    assert_balance(&graph);
    release_held(&graph, 1, 0);
    graph_destroy(&graph);
}

static void direct_goes_before_queued(void **state)
{
    struct graph graph;
    _Atomic int order = 0;
    struct request bad = {0}, good = {0};
    graph_prepare(&graph, 1, 2);
    graph.settings[1].sending_queue.enabled = false;
    graph.settings[1].retry_on_failure.enabled = false;
    graph.fakes[0].order = graph.fakes[1].order = &order;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[1].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[1].retries_then_ok, -1);
    request_on(&bad, &graph, 0, 5);
    assert_int_equal(bad.outcome.error.code, FLUE_UNAVAILABLE);
    assert_int_equal(graph.fakes[0].attempts, 0);
    assert_int_equal(state_of(&graph, 0).received.samples, 0);
    assert_int_equal(state_of(&graph, 1).received.samples, 0);
    atomic_store(&graph.fakes[1].first_at, 0);
    atomic_store(&graph.fakes[1].mode, FAKE_OK);
    request_on(&good, &graph, 0, 6);
    assert_int_equal(good.outcome.error.code, FLUE_OK);
    assert_true(graph.fakes[1].first_at < graph.fakes[0].first_at);
    assert_int_equal(graph.fakes[0].samples, 6);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void direct_retries_within_the_deadline(void **state)
{
    struct graph graph;
    struct request request = {0}, late = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.enabled = false;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, 2);
    request.deadline_ns = flue_monotonic_ns() + 10000 * MS;
    request_on(&request, &graph, 0, 5);
    AWAIT(request.answers);
    assert_int_equal(request.outcome.error.code, FLUE_OK);
    assert_int_equal(graph.fakes[0].attempts, 3);
    atomic_store(&graph.fakes[0].retries_then_ok, -1);
    late.deadline_ns = flue_monotonic_ns() + 30 * MS;
    request_on(&late, &graph, 0, 5);
    AWAIT(late.answers);
    assert_int_equal(late.outcome.error.code, FLUE_UNAVAILABLE);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void refused_for_good(void **state)
{
    struct graph graph;
    struct request alone = {0}, two = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.enabled = false;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_DROP);
    request_on(&alone, &graph, 0, 5);
    assert_int_equal(alone.outcome.error.code, FLUE_REFUSED);
    assert_string_equal(alone.outcome.error.text, "never");
    assert_int_equal(state_of(&graph, 0).received.samples, 0);
    graph_destroy(&graph);

    graph_prepare(&graph, 1, 2);
    graph.settings[0].sending_queue.enabled = false;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_DROP);
    request_on(&two, &graph, 0, 5);
    assert_int_equal(two.outcome.error.code, FLUE_OK);
    assert_int_equal(two.outcome.dropped.samples, 5);
    assert_int_equal(graph.fakes[1].samples, 5);
    assert_int_equal(state_of(&graph, 0).dropped.samples, 5);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void partial_success_travels_back(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.enabled = false;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_PARTIAL);
    request_on(&request, &graph, 0, 5);
    assert_int_equal(request.outcome.error.code, FLUE_OK);
    assert_int_equal(request.outcome.rejected_profiles, 1);
    assert_string_equal(request.outcome.rejected_reason, "one is bad");
    assert_int_equal(state_of(&graph, 0).sent.samples, 3);
    assert_int_equal(state_of(&graph, 0).dropped.samples, 2);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void cancel_run(struct flue_loop *loop, void *arg)
{
    struct request *request = arg;
    if (request->delivery)
        flue_delivery_cancel(request->delivery);
}

static void cancel_ends_what_runs_and_commits_nothing(void **state)
{
    struct graph graph;
    struct request request = {0};
    graph_prepare(&graph, 1, 2);
    graph.settings[1].sending_queue.enabled = false;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[1].mode, FAKE_HOLD);
    request_on(&request, &graph, 0, 5);
    assert_int_equal(request.answers, 0);
    assert_int_equal(graph.fakes[1].held_count, 1);
    flue_loop_call(graph.loops->items[0], cancel_run, &request);
    assert_int_equal(request.answers, 1);
    assert_int_equal(request.outcome.error.code, FLUE_CANCELLED);
    assert_int_equal(graph.fakes[1].cancelled, 1);
    assert_int_equal(graph.fakes[0].attempts, 0);
    assert_int_equal(
        metric_value(&graph,
                     "otelcol_exporter_queue_size{data_type=\"profiles\",exporter=\"fake/a\"} "),
        0);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void wait_for_result_answers_at_the_end(void **state)
{
    struct graph graph;
    struct request request = {0}, refused = {0}, gone = {0};
    graph_prepare(&graph, 1, 2);
    graph.settings[0].sending_queue.wait_for_result = true;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    request_on(&request, &graph, 0, 5);
    assert_int_equal(request.answers, 0);
    assert_int_equal(graph.fakes[1].attempts, 0); /* commits only when the waiting one has it */
    release_held(&graph, 0, 0);
    assert_int_equal(request.answers, 1);
    assert_int_equal(request.outcome.error.code, FLUE_OK);
    assert_int_equal(graph.fakes[1].samples, 5);
    request_on(&gone, &graph, 0, 9);
    flue_loop_call(graph.loops->items[0], cancel_run, &gone);
    assert_int_equal(gone.outcome.error.code, FLUE_CANCELLED);
    atomic_store(&graph.fakes[0].mode, FAKE_DROP);
    graph.fakes[1].attempts = 0;
    request_on(&refused, &graph, 0, 5);
    assert_int_equal(refused.outcome.error.code, FLUE_OK); /* the other one takes it */
    assert_int_equal(refused.outcome.dropped.samples, 5);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void block_waits_for_room(void **state)
{
    struct graph graph;
    struct request first = {0}, second = {0}, third = {0}, late = {0}, huge = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.block_on_overflow = true;
    graph.settings[0].sending_queue.sizer = FLUE_SIZER_ITEMS;
    graph.settings[0].sending_queue.queue_size = 10;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    request_on(&first, &graph, 0, 8);
    request_on(&second, &graph, 0, 9);
    request_on(&third, &graph, 0, 1); /* there is room, but the second is first in line */
    assert_int_equal(first.answers, 1);
    assert_int_equal(second.answers, 0);
    assert_int_equal(third.answers, 0);
    late.deadline_ns = flue_monotonic_ns() + 5 * MS;
    request_on(&late, &graph, 0, 4);
    AWAIT(late.answers);
    assert_int_equal(late.outcome.error.code, FLUE_TIMEOUT);
    request_on(&huge, &graph, 0, 11);
    assert_int_equal(huge.answers, 0); /* behind the others */
    release_held(&graph, 0, 0);
    AWAIT(second.answers && third.answers && huge.answers);
    assert_int_equal(second.outcome.error.code, FLUE_OK);
    assert_int_equal(third.outcome.error.code, FLUE_OK);
    assert_int_equal(huge.outcome.error.code, FLUE_TOO_LARGE);
    AWAIT(graph.fakes[0].held_count == 3);
    release_held(&graph, 0, 1);
    release_held(&graph, 0, 2);
    assert_int_equal(state_of(&graph, 0).sent.samples, 18);
    assert_balance(&graph);
    graph_destroy(&graph);
}

static void block_is_cancelled_and_refused_at_stop(void **state)
{
    struct graph graph;
    struct request first = {0}, gone = {0}, stopped = {0}, after = {0};
    graph_prepare(&graph, 1, 1);
    graph.settings[0].sending_queue.block_on_overflow = true;
    graph.settings[0].sending_queue.queue_size = 1;
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    request_on(&first, &graph, 0, 1);
    request_on(&gone, &graph, 0, 2);
    request_on(&stopped, &graph, 0, 3);
    flue_loop_call(graph.loops->items[0], cancel_run, &gone);
    assert_int_equal(gone.outcome.error.code, FLUE_CANCELLED);
    flue_exporter_stop(graph.exporters[0], flue_monotonic_ns() + 10000 * MS);
    AWAIT(stopped.answers);
    assert_int_equal(stopped.outcome.error.code, FLUE_SHUTTING_DOWN);
    request_on(&after, &graph, 0, 1);
    assert_int_equal(after.outcome.error.code, FLUE_SHUTTING_DOWN);
    release_held(&graph, 0, 0);
    AWAIT(flue_exporter_stopped(graph.exporters[0]));
    assert_int_equal(state_of(&graph, 0).lost_items, 0);
    assert_balance(&graph);
    graph_destroy(&graph);
}

/* ---- stages ---------------------------------------------------------------------------------- */

struct holder {
    struct flue_stage *stage;
    struct flue_batch *batch;
    struct flue_delivery *delivery;
    bool refuse, edit;
    int edited_alone;
};

static void holder_push(struct flue_stage *stage, struct flue_batch *batch,
                        struct flue_delivery *delivery)
{
    struct holder *holder = flue_stage_instance(stage);
    struct flue_error error;

    if (holder->refuse) {
        (void)flue_fail(&error, FLUE_INVALID, "not this one");
        flue_delivery_refuse(delivery, &error);
        flue_batch_unref(batch);
        return;
    }
    if (holder->edit) {
        struct flue_batch *own = flue_batch_writable(batch, &error);
        holder->edited_alone = own == batch;
        flue_stage_next(stage, own, delivery);
        return;
    }
    holder->stage = stage;
    holder->batch = batch;
    holder->delivery = delivery;
    flue_delivery_hold(delivery);
}

static void holder_release(struct flue_loop *loop, void *arg)
{
    struct holder *holder = arg;
    flue_stage_next(holder->stage, holder->batch, holder->delivery);
    flue_delivery_release(holder->delivery);
}

static const struct flue_component holder_component = {
    .kind = FLUE_PROCESSOR, .name = "holder", .push = holder_push};

static void a_stage_holds_and_refuses(void **state)
{
    struct graph graph;
    struct holder holder = {0};
    struct flue_stage_spec stage = {&holder_component, &holder, "holder"};
    struct request held = {0}, refused = {0};
    graph_prepare(&graph, 1, 1);
    graph_build(&graph, &stage, 1);
    request_on(&held, &graph, 0, 5);
    assert_int_equal(held.answers, 0);
    assert_int_equal(graph.fakes[0].attempts, 0);
    flue_loop_call(graph.loops->items[0], holder_release, &holder);
    assert_int_equal(held.answers, 1);
    assert_int_equal(graph.fakes[0].samples, 5);
    holder.refuse = true;
    request_on(&refused, &graph, 0, 6);
    assert_int_equal(refused.outcome.error.code, FLUE_INVALID);
    assert_int_equal(graph.fakes[0].samples, 5);
    assert_int_equal(metric_value(&graph,
                                  "otelcol_processor_incoming_items_total{otel_signal="
                                  "\"profiles\",pipeline=\"profiles\",processor=\"holder\"} "),
                     11);
    assert_int_equal(metric_value(&graph,
                                  "otelcol_processor_outgoing_items_total{otel_signal="
                                  "\"profiles\",pipeline=\"profiles\",processor=\"holder\"} "),
                     5);
    graph_destroy(&graph);
}

/* Two pipelines of one receiver, an exporter each; a stage in the second. */
static void two_pipelines(struct graph *graph, const struct flue_stage_spec *stage,
                          struct flue_pipeline **pipelines)
{
    static const char *const ids[] = {"profiles/a", "profiles/b"};
    struct flue_error error;

    graph_build(graph, NULL, 0);
    for (unsigned i = 0; i < 2; i++) {
        struct flue_pipeline_spec spec = {.id = ids[i],
                                          .signal = FLUE_PROFILES,
                                          .stages = stage,
                                          .stage_count = i,
                                          .exporters = &graph->exporters[i],
                                          .exporter_count = 1,
                                          .account = &graph->account,
                                          .loops = graph->loops,
                                          .metrics = graph->metrics};
        assert_int_equal(flue_pipeline_new(&spec, &pipelines[i], &error), FLUE_OK);
    }
    flue_consumer_destroy(graph->consumer);
    graph->consumer = flue_consumer_new(pipelines, 2);
}

/* One answer for both: where either refuses, neither has taken anything, unless it was told to let
 * the other go on (drop), or refused what it will never take. */
static void two_pipelines_give_one_answer(void **state)
{
    static const struct {
        const char *name;
        bool stage_refuses, full, drop, direct;
        int mode;
        enum flue_code code;
        bool first_takes;
    } cases[] = {
        {"both take", .code = FLUE_OK, .first_takes = true},
        {"a stage refuses", .stage_refuses = true, .code = FLUE_INVALID},
        {"a queue is full", .full = true, .code = FLUE_TOO_LARGE},
        {"a queue drops", .full = true, .drop = true, .code = FLUE_OK, .first_takes = true},
        {"a destination is away", .direct = true, .mode = FAKE_RETRY, .code = FLUE_UNAVAILABLE},
        {"a destination never takes it", .direct = true, .mode = FAKE_DROP, .code = FLUE_OK,
         .first_takes = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct graph graph;
        struct holder holder = {.edit = true, .refuse = cases[i].stage_refuses};
        struct flue_stage_spec stage = {&holder_component, &holder, "holder"};
        struct flue_pipeline *pipelines[2];
        struct request request = {0};

        graph_prepare(&graph, 1, 2);
        graph.settings[1].sending_queue.enabled = !cases[i].direct;
        graph.settings[1].sending_queue.max_bytes = cases[i].full ? 10 : 1000;
        graph.settings[1].sending_queue.on_overflow =
            cases[i].drop ? FLUE_OVERFLOW_DROP : FLUE_OVERFLOW_REFUSE;
        graph.settings[1].retry_on_failure.enabled = false;
        atomic_store(&graph.fakes[1].mode, cases[i].mode);
        atomic_store(&graph.fakes[1].retries_then_ok, -1);
        two_pipelines(&graph, &stage, pipelines);
        request_on(&request, &graph, 0, 5);
        if (request.answers != 1 || request.outcome.error.code != cases[i].code ||
            (graph.fakes[0].samples == 5) != cases[i].first_takes)
            fail_msg("%s: %d answers, %d, %s", cases[i].name, request.answers,
                     request.outcome.error.code, request.outcome.error.text);
        bool refused = cases[i].code != FLUE_OK;
        assert_int_equal(state_of(&graph, 0).received.samples, refused ? 0 : 5);
        assert_int_equal(request.outcome.accepted.samples, refused ? 0 : 5);
        assert_int_equal(request.outcome.dropped.samples,
                         !refused && (cases[i].drop || cases[i].direct) ? 5 : 0);
        for (unsigned p = 0; p < 2; p++) {
            char series[100];
            (void)snprintf(series, sizeof series,
                           "otelcol_pipeline_%s_samples_total{pipeline=\"profiles/%c\"} ",
                           refused ? "refused" : "received", 'a' + (int)p);
            assert_int_equal(metric_value(&graph, series), 5);
        }
        assert_balance(&graph);
        flue_loops_stop(graph.loops);
        for (unsigned e = 0; e < 2; e++)
            flue_exporter_destroy(graph.exporters[e]);
        flue_consumer_destroy(graph.consumer);
        flue_pipeline_destroy(pipelines[0]);
        flue_pipeline_destroy(pipelines[1]);
        flue_pipeline_destroy(graph.pipeline);
        flue_metrics_destroy(graph.metrics);
        flue_loops_destroy(graph.loops);
        assert_int_equal(fake_alive, 0);
    }
}

static void fan_out_copies_only_what_is_shared(void **state)
{
    struct graph graph;
    struct holder holders[2] = {{.edit = true}, {.edit = true}};
    struct flue_stage_spec stage = {&holder_component, &holders[0], "edit"};
    struct flue_stage_spec other = {&holder_component, &holders[1], "edit"};
    struct request request = {0};
    struct flue_error error;
    graph_prepare(&graph, 1, 1);
    graph_build(&graph, &stage, 1);
    struct flue_pipeline_spec spec = {.id = "profiles/b",
                                      .signal = FLUE_PROFILES,
                                      .stages = &other,
                                      .stage_count = 1,
                                      .exporters = graph.exporters,
                                      .exporter_count = 1,
                                      .account = &graph.account,
                                      .loops = graph.loops,
                                      .metrics = graph.metrics};
    struct flue_pipeline *second;
    assert_int_equal(flue_pipeline_new(&spec, &second, &error), FLUE_OK);
    flue_consumer_destroy(graph.consumer);
    graph.consumer = flue_consumer_new((struct flue_pipeline *[]){graph.pipeline, second}, 2);
    request_on(&request, &graph, 0, 5);
    assert_int_equal(request.outcome.error.code, FLUE_OK);
    assert_int_equal(request.outcome.accepted.samples, 5);
    assert_false(holders[0].edited_alone); /* the second pipeline still has it */
    assert_true(holders[1].edited_alone);
    assert_int_equal(state_of(&graph, 0).sent.samples, 10);
    assert_balance(&graph);
    flue_loops_stop(graph.loops);
    flue_exporter_destroy(graph.exporters[0]);
    flue_consumer_destroy(graph.consumer);
    flue_pipeline_destroy(second);
    flue_pipeline_destroy(graph.pipeline);
    flue_metrics_destroy(graph.metrics);
    flue_loops_destroy(graph.loops);
    assert_int_equal(fake_alive, 0);
}

static void origin_holds_copies(void **state)
{
    char peer[] = "10.1.2.3:4", key[] = "x-scope-orgid", value[] = "media";
    struct flue_attribute header = {
        .key = flue_bytes_of(key),
        .value = {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(value)}};
    struct flue_origin from = {.peer = flue_bytes_of(peer), .headers = &header, .header_count = 1};
    struct flue_origin *origin = flue_origin_new(&from);
    memset(peer, 0, sizeof peer);
    memset(key, 0, sizeof key);
    memset(value, 0, sizeof value);
    assert_true(flue_bytes_is(origin->peer, "10.1.2.3:4"));
    assert_true(flue_bytes_is(flue_origin_header(origin, FLUE_BYTES("x-scope-orgid")), "media"));
    assert_null(flue_origin_header(origin, FLUE_BYTES("other")).data);
    flue_origin_ref(origin);
    flue_origin_unref(origin);
    flue_origin_unref(origin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queued_is_answered_and_sent),
        cmocka_unit_test(a_full_queue_refuses_everywhere),
        cmocka_unit_test(drop_hurts_that_destination_alone),
        cmocka_unit_test(direct_goes_before_queued),
        cmocka_unit_test(direct_retries_within_the_deadline),
        cmocka_unit_test(refused_for_good),
        cmocka_unit_test(partial_success_travels_back),
        cmocka_unit_test(cancel_ends_what_runs_and_commits_nothing),
        cmocka_unit_test(wait_for_result_answers_at_the_end),
        cmocka_unit_test(block_waits_for_room),
        cmocka_unit_test(block_is_cancelled_and_refused_at_stop),
        cmocka_unit_test(a_stage_holds_and_refuses),
        cmocka_unit_test(two_pipelines_give_one_answer),
        cmocka_unit_test(fan_out_copies_only_what_is_shared),
        cmocka_unit_test(origin_holds_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
