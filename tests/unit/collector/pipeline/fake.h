/* fake.h: a payload without a format and an exporter that does as told, for tests of the engine. */
#ifndef TESTS_PIPELINE_FAKE_H
#define TESTS_PIPELINE_FAKE_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/pipeline/graph.h"
#include "collector/pipeline/exporter.h"

#define MS UINT64_C(1000000)

/* ---- payload --------------------------------------------------------------------------------- */

static _Atomic int fake_alive;        /* payloads that exist */
static _Atomic bool fake_merge_fails; /* as without memory */

struct fake_payload {
    struct flue_payload base;
    uint64_t samples;
};

static const struct flue_payload_ops fake_ops;

static struct flue_payload *fake_new(uint64_t samples)
{
    struct fake_payload *fake = calloc(1, sizeof *fake);
    fake->base.ops = &fake_ops;
    atomic_init(&fake->base.refs, 1);
    fake->base.signal = FLUE_PROFILES;
    fake->samples = samples;
    atomic_fetch_add(&fake_alive, 1);
    return &fake->base;
}

static uint64_t fake_samples(const struct flue_payload *payload)
{
    return ((const struct fake_payload *)payload)->samples;
}

static void fake_destroy(struct flue_payload *payload)
{
    atomic_fetch_sub(&fake_alive, 1);
    free(payload);
}

static struct flue_payload *fake_clone(const struct flue_payload *payload, struct flue_error *error)
{
    return fake_new(fake_samples(payload));
}

static size_t fake_size(const struct flue_payload *payload)
{
    return 10 * (size_t)fake_samples(payload);
}

static enum flue_code fake_merge(struct flue_payload *const *payloads, size_t count,
                                 struct flue_account *account, struct flue_payload **out,
                                 struct flue_error *error)
{
    uint64_t samples = 0;
    if (atomic_load(&fake_merge_fails))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    for (size_t i = 0; i < count; i++)
        samples += fake_samples(payloads[i]);
    *out = fake_new(samples);
    return FLUE_OK;
}

static enum flue_code fake_split(const struct flue_payload *payload, uint64_t max, bool by_bytes,
                                 const struct flue_counts *total, struct flue_account *account,
                                 void (*emit)(void *arg, struct flue_payload *part,
                                              const struct flue_counts *counts),
                                 void *arg, struct flue_error *error)
{
    uint64_t left = fake_samples(payload), step = by_bytes ? (max + 9) / 10 : max;
    struct flue_counts rest = *total;
    while (left) {
        uint64_t n = left < step ? left : step;
        struct flue_counts share = rest;
        if (n < left) {
            share.samples = n;
            share.profiles = rest.profiles > 1 ? 1 : 0;
            share.bytes = rest.bytes * n / left;
        }
        emit(arg, fake_new(n), &share);
        rest.samples -= share.samples;
        rest.profiles -= share.profiles;
        rest.bytes -= share.bytes;
        left -= n;
    }
    return FLUE_OK;
}

static enum flue_code fake_slices(const struct flue_payload *payload, struct flue_arena *arena,
                                  struct flue_slices *out, struct flue_error *error)
{
    uint64_t *samples = flue_arena_alloc(arena, sizeof *samples);
    *samples = fake_samples(payload);
    (void)flue_slices_add(out, arena, flue_bytes(samples, sizeof *samples));
    return FLUE_OK;
}

static inline enum flue_code fake_decode(enum flue_form form, enum flue_signal signal,
                                         struct flue_block *body, struct flue_payload **out,
                                         struct flue_error *error)
{
    uint64_t samples;
    assert_int_equal(form, FLUE_FORM_OTLP);
    assert_int_equal(body->size, sizeof samples);
    memcpy(&samples, body->data, sizeof samples);
    flue_block_unref(body);
    *out = fake_new(samples);
    return FLUE_OK;
}

static const struct flue_payload_ops fake_ops = {
    .form = FLUE_FORM_OTLP,
    .name = "fake",
    .destroy = fake_destroy,
    .clone = fake_clone,
    .encoded_size = fake_size,
    .held_size = fake_size,
    .slices = fake_slices,
    .merge = fake_merge,
    .split = fake_split,
};

/* ---- exporter -------------------------------------------------------------------------------- */

enum fake_mode { FAKE_OK, FAKE_HOLD, FAKE_RETRY, FAKE_DROP, FAKE_SPLIT, FAKE_PARTIAL };
#define FAKE_HELD_MAX 4096

struct fake {
    _Atomic int mode;
    _Atomic int retries_then_ok; /* FAKE_RETRY: so many attempts fail, then it takes all; -1: all */
    uint32_t retry_after_ms;
    uint64_t split_max;
    _Atomic int attempts, taken, cancelled, running, running_max;
    _Atomic uint64_t samples;
    _Atomic uint64_t attempt_at[64];       /* when */
    struct flue_send *held[FAKE_HELD_MAX]; /* one loop only */
    _Atomic int held_count;
    _Atomic int *order; /* shared clock of several exporters */
    _Atomic int first_at;
    void (*hook)(struct fake *fake, struct flue_send *send);
};

static void fake_take(struct fake *fake, struct flue_send *send)
{
    atomic_fetch_add(&fake->samples, fake_samples(send->batch->payload));
    atomic_fetch_add(&fake->taken, 1);
    flue_send_ok(send);
}

static void fake_cancel(struct flue_send *send);

static void fake_send(void *instance, struct flue_send *send)
{
    struct fake *fake = instance;
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    int attempt = atomic_fetch_add(&fake->attempts, 1);

    if (attempt < 64)
        atomic_store(&fake->attempt_at[attempt], flue_monotonic_ns());
    if (fake->order && !atomic_load(&fake->first_at))
        atomic_store(&fake->first_at, atomic_fetch_add(fake->order, 1) + 1);
    if (fake->hook) {
        fake->hook(fake, send);
        return;
    }
    switch (atomic_load(&fake->mode)) {
    case FAKE_HOLD:
        send->cancel = fake_cancel;
        send->state = fake;
        fake->held[atomic_load(&fake->held_count)] = send;
        atomic_fetch_add(&fake->held_count, 1);
        return;
    case FAKE_RETRY:
        if (attempt < atomic_load(&fake->retries_then_ok) ||
            atomic_load(&fake->retries_then_ok) < 0) {
            verdict.kind = FLUE_RETRY;
            (void)flue_fail(&verdict.error, FLUE_UNAVAILABLE, "down");
            verdict.error.retry_after_ms = fake->retry_after_ms;
            flue_send_done(send, &verdict);
            return;
        }
        break;
    case FAKE_DROP:
        verdict.kind = FLUE_DROP;
        (void)flue_fail(&verdict.error, FLUE_REFUSED, "never");
        flue_send_done(send, &verdict);
        return;
    case FAKE_SPLIT:
        if (fake_samples(send->batch->payload) <= fake->split_max)
            break;
        verdict.kind = FLUE_SPLIT;
        verdict.split_max = fake->split_max;
        flue_send_done(send, &verdict);
        return;
    case FAKE_PARTIAL:
        verdict.rejected = (struct flue_counts){1, 2, 3};
        (void)flue_fail(&verdict.error, FLUE_INVALID, "one is bad");
        atomic_fetch_add(&fake->taken, 1);
        flue_send_done(send, &verdict);
        return;
    default:
        break;
    }
    fake_take(fake, send);
}

/* On the loop. */
static void fake_release(struct fake *fake, int index)
{
    struct flue_send *send = fake->held[index];
    fake->held[index] = NULL;
    if (send) {
        send->state = NULL;
        fake_take(fake, send);
    }
}

static void fake_cancel(struct flue_send *send)
{
    struct fake *fake = send->state;
    struct flue_error error;

    send->state = NULL;
    for (int i = 0; i < atomic_load(&fake->held_count); i++)
        if (fake->held[i] == send)
            fake->held[i] = NULL;
    atomic_fetch_add(&fake->cancelled, 1);
    (void)flue_fail(&error, FLUE_CANCELLED, "ended");
    struct flue_verdict verdict = {.kind = FLUE_RETRY, .error = error};
    flue_send_done(send, &verdict);
}

static const struct flue_component fake_component = {
    .kind = FLUE_EXPORTER, .name = "fake", .signals = FLUE_PROFILES, .send = fake_send};

/* ---- a graph --------------------------------------------------------------------------------- */

#define FAKES_MAX 4
struct graph {
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_budget budget;
    struct flue_account account;
    struct fake fakes[FAKES_MAX];
    struct flue_exporter_settings settings[FAKES_MAX];
    struct flue_exporter *exporters[FAKES_MAX];
    unsigned count;
    struct flue_pipeline *pipeline;
    struct flue_consumer *consumer;
    /* Of exporters with a queue on disk. */
    struct flue_storage *storage;
    struct flue_storage_queue *logs[FAKES_MAX];
    const char *dead_letters;
    const struct flue_component *component; /* NULL: fake_component */
};

static struct flue_exporter_settings usual_settings(void)
{
    return (struct flue_exporter_settings){.sending_queue = {.enabled = true,
                                                             .num_consumers = 10,
                                                             .queue_size = 1000,
                                                             .max_bytes = 1 << 28},
                                           .retry_on_failure = {.enabled = true,
                                                                .initial_interval = 5 * (int64_t)MS,
                                                                .max_interval = 20 * (int64_t)MS,
                                                                .max_elapsed_time = 0,
                                                                .multiplier = 1.5},
                                           .timeout = 1000 * (int64_t)MS};
}

static void graph_prepare(struct graph *graph, unsigned loops, unsigned exporters)
{
    struct flue_error error;
    memset(graph, 0, sizeof *graph);
    flue_log_configure(FLUE_ERROR + 1, false, 2);
    assert_int_equal(flue_loops_new(loops, &graph->loops, &error), FLUE_OK);
    graph->metrics = flue_metrics_new("otelcol_");
    flue_budget_init(&graph->budget, 1 << 30);
    flue_account_init(&graph->account, &graph->budget, "profiles", 0);
    graph->count = exporters;
    for (unsigned i = 0; i < exporters; i++)
        graph->settings[i] = usual_settings();
}

static void graph_build(struct graph *graph, const struct flue_stage_spec *stages, size_t count)
{
    static const char *const ids[FAKES_MAX] = {"fake/a", "fake/b", "fake/c", "fake/d"};
    struct flue_error error;
    for (unsigned i = 0; i < graph->count; i++) {
        struct flue_exporter_spec spec = {.component =
                                              graph->component ? graph->component : &fake_component,
                                          .storage = graph->logs[i] ? graph->storage : NULL,
                                          .log = graph->logs[i],
                                          .dead_letters = graph->dead_letters,
                                          .instance = &graph->fakes[i],
                                          .id = ids[i],
                                          .settings = &graph->settings[i],
                                          .loops = graph->loops,
                                          .metrics = graph->metrics};
        assert_int_equal(flue_exporter_new(&spec, &graph->exporters[i], &error), FLUE_OK);
    }
    struct flue_pipeline_spec spec = {.id = "profiles",
                                      .signal = FLUE_PROFILES,
                                      .stages = stages,
                                      .stage_count = count,
                                      .exporters = graph->exporters,
                                      .exporter_count = graph->count,
                                      .account = &graph->account,
                                      .loops = graph->loops,
                                      .metrics = graph->metrics};
    assert_int_equal(flue_pipeline_new(&spec, &graph->pipeline, &error), FLUE_OK);
    graph->consumer = flue_consumer_new(&graph->pipeline, 1);
    for (unsigned i = 0; i < graph->count; i++)
        assert_int_equal(flue_exporter_start(graph->exporters[i], &error), FLUE_OK);
    assert_int_equal(flue_loops_run(graph->loops, &error), FLUE_OK);
}

static void graph_destroy(struct graph *graph)
{
    flue_loops_stop(graph->loops);
    for (unsigned i = 0; i < graph->count; i++)
        flue_exporter_destroy(graph->exporters[i]);
    flue_consumer_destroy(graph->consumer);
    flue_pipeline_destroy(graph->pipeline);
    flue_metrics_destroy(graph->metrics);
    flue_loops_destroy(graph->loops);
    assert_int_equal(atomic_load(&fake_alive), 0);
}

/* Until `condition` or for two minutes: a loaded machine takes its time. */
#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        uint64_t give_up_ = flue_monotonic_ns() + 120000 * MS;                                     \
        while (!(condition)) {                                                                     \
            if (flue_monotonic_ns() > give_up_)                                                    \
                fail_msg("never: %s", #condition);                                                 \
            nanosleep(&(struct timespec){0, 200000}, NULL);                                        \
        }                                                                                          \
    } while (0)

/* ---- requests -------------------------------------------------------------------------------- */

struct request {
    struct graph *graph;
    uint64_t samples, deadline_ns;
    struct flue_origin *origin;
    struct flue_delivery *delivery;
    _Atomic int answers;
    struct flue_outcome outcome;
};

static void request_done(void *arg, const struct flue_outcome *outcome)
{
    struct request *request = arg;
    request->outcome = *outcome;
    request->delivery = NULL;
    atomic_fetch_add(&request->answers, 1);
}

static void request_run(struct flue_loop *loop, void *arg)
{
    struct request *request = arg;
    struct flue_counts counts = {2, request->samples, request->samples * 10};
    struct flue_delivery *delivery =
        flue_delivery_begin(loop, request->deadline_ns, request_done, request);

    request->delivery = delivery;
    flue_consumer_push(request->graph->consumer,
                       flue_batch_new(fake_new(request->samples), request->origin, counts,
                                      &request->graph->account),
                       delivery);
    flue_delivery_end(delivery);
}

static void request_on(struct request *request, struct graph *graph, unsigned loop,
                       uint64_t samples)
{
    request->graph = graph;
    request->samples = samples;
    flue_loop_call(graph->loops->items[loop], request_run, request);
}

static struct flue_exporter_state state_of(struct graph *graph, unsigned exporter)
{
    struct flue_exporter_state state;
    flue_exporter_state(graph->exporters[exporter], &state);
    return state;
}

static void assert_balance(struct graph *graph)
{
    for (unsigned i = 0; i < graph->count; i++) {
        struct flue_exporter_state s = state_of(graph, i);
        assert_int_equal(s.received.profiles + s.recovered.profiles,
                         s.sent.profiles + s.dropped.profiles + s.queued.profiles +
                             s.in_flight.profiles);
        assert_int_equal(s.received.samples + s.recovered.samples,
                         s.sent.samples + s.dropped.samples + s.queued.samples +
                             s.in_flight.samples);
        assert_int_equal(s.received.bytes + s.recovered.bytes,
                         s.sent.bytes + s.dropped.bytes + s.queued.bytes + s.in_flight.bytes);
    }
}

/* The value of one line of the metrics page, or -1. */
static inline double metric_value(struct graph *graph, const char *series)
{
    struct flue_buffer page;
    double value = -1;
    flue_buffer_init(&page, 1 << 24);
    flue_metrics_print(graph->metrics, &page);
    const char *line = page.data ? strstr(page.data, series) : NULL;
    if (line)
        value = strtod(line + strlen(series), NULL);
    flue_buffer_destroy(&page);
    return value;
}

struct release {
    struct fake *fake;
    int index;
};
static void release_run(struct flue_loop *loop, void *arg)
{
    struct release *release = arg;
    fake_release(release->fake, release->index);
}
static inline void release_held(struct graph *graph, unsigned exporter, int index)
{
    struct release release = {&graph->fakes[exporter], index};
    flue_loop_call(graph->loops->items[0], release_run, &release);
}

#endif
