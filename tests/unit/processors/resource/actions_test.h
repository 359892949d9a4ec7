/* actions_test.h: runs a processor of attributes over one resource and tells what came out. */
#ifndef TESTS_ACTIONS_TEST_H
#define TESTS_ACTIONS_TEST_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "collector/base/log.h"
#include "collector/pipeline/graph.h"
#include "collector/pipeline/exporter.h"
#include "config/bind.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/pprof.h"

struct bench {
    const struct flue_component *component;
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_budget budget;
    struct flue_account account;
    struct flue_arena arena;
    struct flue_exporter *exporter;
    struct flue_pipeline *pipeline;
    struct flue_consumer *consumer;
    struct flue_outcome outcome;
    char attributes[8192]; /* of the first resource, "key=value" lines */
};

static struct bench *current_bench;

static bool list_attribute(void *arg, const struct flue_attribute *a)
{
    char line[512];
    switch (a->value.type) {
    case FLUE_VALUE_STRING:
        snprintf(line, sizeof line, "%.*s=%.*s\n", FLUE_PRI(a->key), FLUE_PRI(a->value.text));
        break;
    case FLUE_VALUE_INT:
        snprintf(line, sizeof line, "%.*s=int %lld\n", FLUE_PRI(a->key),
                 (long long)a->value.integer);
        break;
    case FLUE_VALUE_DOUBLE:
        snprintf(line, sizeof line, "%.*s=double %g\n", FLUE_PRI(a->key), a->value.number);
        break;
    case FLUE_VALUE_BOOL:
        snprintf(line, sizeof line, "%.*s=bool %d\n", FLUE_PRI(a->key), a->value.boolean);
        break;
    default:
        snprintf(line, sizeof line, "%.*s=?\n", FLUE_PRI(a->key));
    }
    size_t used = strlen(arg);
    snprintf((char *)arg + used, sizeof current_bench->attributes - used, "%s", line);
    return true;
}

static void bench_send(void *instance, struct flue_send *send)
{
    struct bench *bench = instance;
    struct flue_payload *payload = send->batch->payload;
    struct flue_arena arena;
    struct flue_slices slices = {0};
    struct flue_error error;

    payload->ops->attribute_each(payload, 0, list_attribute, bench->attributes);
    /* What the edits became on the wire is read again, so that overlay and bytes agree. */
    if (payload->ops->form == FLUE_FORM_OTLP) {
        char before[sizeof bench->attributes];
        struct flue_payload *again;
        struct flue_otlp_report report;
        flue_arena_init(&arena, 1 << 24, 0);
        assert_int_equal(payload->ops->slices(payload, &arena, &slices, &error), FLUE_OK);
        struct flue_block *block = flue_block_new(NULL, slices.total);
        flue_slices_copy(&slices, block->data);
        block->size = slices.total;
        flue_block_finish(block);
        memcpy(before, bench->attributes, sizeof before);
        bench->attributes[0] = 0;
        assert_int_equal(flue_otlp_read(block, &again, &report, &error), FLUE_OK);
        again->ops->attribute_each(again, 0, list_attribute, bench->attributes);
        assert_string_equal(bench->attributes, before);
        flue_payload_unref(again);
        flue_arena_destroy(&arena);
    }
    flue_send_ok(send);
}

static const struct flue_component bench_exporter = {
    .kind = FLUE_EXPORTER, .name = "bench", .no_queue = true, .send = bench_send};

static void bench_start(struct bench *bench, const struct flue_component *component,
                        const char *yaml)
{
    struct flue_error error = {0};
    struct flue_check check;

    memset(bench, 0, sizeof *bench);
    current_bench = bench;
    flue_log_configure(FLUE_ERROR, false, 2);
    flue_arena_init(&bench->arena, 0, 0);
    flue_check_init(&check, &bench->arena);
    void *config = flue_bind_yaml(&check, yaml, component->fields, component->config_size);
    assert_non_null(config);
    component->check(config, &check);
    assert_int_equal(check.mistakes, 0);
    assert_int_equal(flue_loops_new(1, &bench->loops, &error), FLUE_OK);
    bench->metrics = flue_metrics_new("");
    flue_budget_init(&bench->budget, 1 << 30);
    flue_account_init(&bench->account, &bench->budget, "profiles", 0);
    struct flue_create create = {.id = component->name,
                                 .config = config,
                                 .kind = FLUE_PROCESSOR,
                                 .signals = FLUE_PROFILES,
                                 .loops = bench->loops,
                                 .metrics = bench->metrics,
                                 .arena = &bench->arena,
                                 .budget = &bench->budget,
                                 .account = &bench->account,
                                 .pipeline = "profiles"};
    struct flue_stage_spec stage = {.component = component, .id = component->name};
    if (component->create(&create, &stage.instance, &error))
        fail_msg("%s", error.text);
    struct flue_exporter_spec exporter = {.component = &bench_exporter,
                                          .instance = bench,
                                          .id = "bench",
                                          .loops = bench->loops,
                                          .metrics = bench->metrics};
    assert_int_equal(flue_exporter_new(&exporter, &bench->exporter, &error), FLUE_OK);
    struct flue_pipeline_spec spec = {.id = "profiles",
                                      .signal = FLUE_PROFILES,
                                      .stages = &stage,
                                      .stage_count = 1,
                                      .exporters = &bench->exporter,
                                      .exporter_count = 1,
                                      .account = &bench->account,
                                      .loops = bench->loops,
                                      .metrics = bench->metrics};
    assert_int_equal(flue_pipeline_new(&spec, &bench->pipeline, &error), FLUE_OK);
    bench->consumer = flue_consumer_new(&bench->pipeline, 1);
    assert_int_equal(flue_pipeline_start(bench->pipeline, &error), FLUE_OK);
}

static void bench_done(void *arg, const struct flue_outcome *outcome)
{
    ((struct bench *)arg)->outcome = *outcome;
}

/* Takes the payload. The loops need not run: all is synchronous. */
static void bench_push(struct bench *bench, struct flue_payload *payload,
                       struct flue_origin *origin)
{
    struct flue_delivery *delivery =
        flue_delivery_begin(bench->loops->items[0], 0, bench_done, bench);
    bench->attributes[0] = 0;
    flue_consumer_push(
        bench->consumer,
        flue_batch_new(payload, origin, (struct flue_counts){1, 1, 100}, &bench->account),
        delivery);
    flue_delivery_end(delivery);
}

static void bench_stop(struct bench *bench)
{
    flue_exporter_destroy(bench->exporter);
    flue_consumer_destroy(bench->consumer);
    flue_pipeline_destroy(bench->pipeline);
    flue_metrics_destroy(bench->metrics);
    flue_loops_destroy(bench->loops);
    flue_arena_destroy(&bench->arena);
}

/* One profile of one sample whose resource has the attributes in `json` (a list of KeyValue). */
static inline struct flue_payload *otlp_with(struct flue_account *account, const char *json)
{
    char text[4096];
    struct flue_block *body = NULL;
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report = {0};
    struct flue_error error = {0};

    snprintf(
        text, sizeof text,
        "{\"resourceProfiles\":[{\"resource\":{\"attributes\":[%s]},\"scopeProfiles\":[{"
        "\"profiles\":[{\"sampleType\":{\"typeStrindex\":1,\"unitStrindex\":2},\"samples\":[{"
        "\"stackIndex\":0,\"values\":[\"1\"]}]}]}]}],\"dictionary\":{\"mappingTable\":[{}],"
        "\"locationTable\":[{}],\"functionTable\":[{}],\"linkTable\":[{}],\"stringTable\":[\"\","
        "\"cpu\",\"nanoseconds\"],\"attributeTable\":[{}],\"stackTable\":[{}]}}",
        json);
    if (flue_otlp_json_read(flue_bytes_of(text), 1 << 24, account, &body, &error) ||
        flue_otlp_read(body, &payload, &report, &error))
        fail_msg("%s", error.text);
    assert_int_equal(report.rejected_profiles, 0);
    return payload;
}

#define ATTRIBUTE(key, value) "{\"key\":\"" key "\",\"value\":{\"stringValue\":\"" value "\"}}"

/* One run over one resource: what came out. */
static inline const char *edit(const struct flue_component *component, const char *yaml,
                               const char *attributes)
{
    static struct bench bench;
    static char result[sizeof bench.attributes];

    bench_start(&bench, component, yaml);
    bench_push(&bench, otlp_with(&bench.account, attributes), NULL);
    if (bench.outcome.error.code)
        fail_msg("%s", bench.outcome.error.text);
    memcpy(result, bench.attributes, sizeof result);
    bench_stop(&bench);
    assert_int_equal(bench.account.used, 0);
    return result;
}

static inline size_t mistakes_of(const struct flue_component *component, const char *yaml,
                                 const char *expected)
{
    struct flue_arena arena;
    struct flue_check check;
    struct flue_buffer text;

    flue_arena_init(&arena, 0, 0);
    flue_check_init(&check, &arena);
    void *config = flue_bind_yaml(&check, yaml, component->fields, component->config_size);
    if (config && component->check)
        component->check(config, &check);
    flue_buffer_init(&text, 1 << 16);
    flue_check_print(&check, &text);
    if (expected && (!text.data || !strstr(text.data, expected)))
        fail_msg("no \"%s\" in: %s", expected, text.data ? text.data : "");
    flue_buffer_destroy(&text);
    size_t mistakes = check.mistakes;
    flue_arena_destroy(&arena);
    return mistakes;
}

#endif
