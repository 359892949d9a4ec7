/* otlp_exporter_test.h: an OTLP exporter between a test that plays the engine and a server on
 * loopback. The verdicts that the engine would get are kept here (this file stands in for
 * collector/pipeline/exporter.c). */
#ifndef OTLP_EXPORTER_TEST_H
#define OTLP_EXPORTER_TEST_H

#include "tests/unit/collector/net/test_client_peer.h"

#include "collector/pipeline/exporter.h"
#include "config/bind.h"
#include "proto/otlp/otlp.h"

struct engine {
    const struct flue_component *component;
    struct flue_arena arena;
    struct flue_create create;
    void *instance;
    struct flue_batch *batch;
    struct flue_send send;
    struct flue_verdict verdict;
    unsigned verdicts;
    sem_t ended;
    uint8_t *encoded; /* the batch as it must arrive */
    size_t encoded_size;
};

static struct engine *engine_now; /* one at a time */

void flue_send_done(struct flue_send *send, const struct flue_verdict *verdict)
{
    engine_now->verdict = *verdict;
    engine_now->verdicts++;
    send->cancel = NULL;
    sem_post(&engine_now->ended);
}

void flue_send_ok(struct flue_send *send)
{
    flue_send_done(send, &(struct flue_verdict){.kind = FLUE_SENT});
}

void flue_send_fail(struct flue_send *send, const struct flue_error *error)
{
    bool again = flue_code_facts(error->code)->retryable;
    flue_send_done(send,
                   &(struct flue_verdict){.kind = again ? FLUE_RETRY : FLUE_DROP, .error = *error});
}

static struct flue_batch *read_batch(void)
{
    FILE *file = fopen(FLUE_TEST_DATA "/otlp/ebpf-v1.11-ascending.otlp", "rb");
    assert_non_null(file);
    uint8_t *data = malloc(1 << 20);
    size_t size = fread(data, 1, 1 << 20, file);
    fclose(file);
    struct flue_block *block = flue_block_copy(NULL, flue_bytes(data, size));
    flue_block_finish(block);
    free(data);
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report;
    struct flue_error error;
    if (flue_otlp_read(block, &payload, &report, &error))
        fail_msg("%s", error.text);
    struct flue_origin from = {0};
    struct flue_origin *origin = flue_origin_new(&from);
    struct flue_batch *batch = flue_batch_new(payload, origin, report.counts, NULL);
    flue_origin_unref(origin);
    return batch;
}

/* The mistakes that a configuration has, as text (NULL: none); the bound struct in *config. */
PEER const char *engine_bind(const struct flue_component *component, struct flue_arena *arena,
                             const char *yaml, void **config)
{
    struct flue_check check;
    static struct flue_buffer out;
    flue_check_init(&check, arena);
    *config = flue_bind_yaml(&check, yaml, component->fields, component->config_size);
    if (*config && component->check)
        component->check(*config, &check);
    flue_buffer_destroy(&out);
    flue_buffer_init(&out, 65536);
    flue_check_print(&check, &out);
    return check.mistakes ? out.data : NULL;
}

PEER void engine_start(struct engine *engine, const struct flue_component *component,
                       const char *scheme, unsigned port, const char *more)
{
    char yaml[1000];
    void *config;
    struct flue_error error;
    memset(engine, 0, sizeof *engine);
    engine_now = engine;
    engine->component = component;
    flue_arena_init(&engine->arena, 0, 0);
    sem_init(&engine->ended, 0, 0);
    snprintf(yaml, sizeof yaml, "endpoint: %s127.0.0.1:%u\n%s", scheme, port, more);
    const char *mistakes = engine_bind(component, &engine->arena, yaml, &config);
    if (mistakes)
        fail_msg("%s", mistakes);
    engine->create = (struct flue_create){.id = "otlp/test",
                                          .config = config,
                                          .kind = FLUE_EXPORTER,
                                          .signals = FLUE_PROFILES,
                                          .arena = &engine->arena};
    assert_int_equal(flue_loops_new(1, &engine->create.loops, NULL), FLUE_OK);
    if (component->create(&engine->create, &engine->instance, &error) ||
        component->start(engine->instance, &error))
        fail_msg("%s", error.text);
    assert_int_equal(flue_loops_run(engine->create.loops, NULL), FLUE_OK);
    engine->batch = read_batch();
    struct flue_arena arena;
    struct flue_slices slices = {0};
    flue_arena_init(&arena, 0, 0);
    const struct flue_payload *payload = engine->batch->payload;
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, NULL), FLUE_OK);
    engine->encoded = malloc(slices.total);
    engine->encoded_size = slices.total;
    flue_slices_copy(&slices, engine->encoded);
    flue_arena_destroy(&arena);
    engine->send =
        (struct flue_send){.batch = engine->batch, .loop = engine->create.loops->items[0]};
}

static void engine_run(struct flue_loop *loop, void *arg)
{
    struct engine *engine = arg;
    engine->component->send(engine->instance, &engine->send);
}

PEER void engine_cancel(struct flue_loop *loop, void *arg)
{
    struct engine *engine = arg;
    if (engine->send.cancel)
        engine->send.cancel(&engine->send);
}

PEER void engine_begin(struct engine *engine)
{
    engine->send.deadline_ns = flue_monotonic_ns() + 20000 * MS;
    flue_loop_call(engine->send.loop, engine_run, engine);
}

PEER void engine_wait(struct engine *engine)
{
    while (sem_wait(&engine->ended) != 0)
        continue;
    engine->send.attempt++;
}

/* One attempt. */
PEER enum flue_verdict_kind engine_send(struct engine *engine)
{
    engine_begin(engine);
    engine_wait(engine);
    return engine->verdict.kind;
}

static void engine_free_state(struct flue_loop *loop, void *arg)
{
    struct engine *engine = arg;
    if (engine->send.state)
        engine->send.free_state(engine->send.state);
    flue_batch_unref(engine->batch);
}

PEER void engine_stop(struct engine *engine)
{
    flue_loop_call(engine->send.loop, engine_free_state, engine);
    flue_loops_stop(engine->create.loops);
    engine->component->destroy(engine->instance);
    flue_loops_destroy(engine->create.loops);
    flue_arena_destroy(&engine->arena);
    sem_destroy(&engine->ended);
    free(engine->encoded);
}

#endif
