/* pipeline.c: processors in a row, exporters at the end, and the fan-out before it all. */
#include "collector/pipeline/item.h"
#include "collector/base/log.h"
#include <stdlib.h>

struct stage_counts { /* one writer per loop */
    _Alignas(64) _Atomic int64_t incoming, outgoing;
};

struct flue_stage {
    const struct flue_component *component;
    void *instance;
    char *id;
    struct flue_pipeline *pipeline;
    size_t index;
    struct stage_counts *counts;
    bool stopping;
};

struct flue_pipeline {
    char *id;
    enum flue_signal signal;
    struct flue_account *account;
    struct flue_stage *stages;
    size_t stage_count;
    struct flue_branch **branches; /* owned by their exporters */
    size_t branch_count;
    struct flue_ledger ledger;
    unsigned loop_count;
};

struct flue_consumer {
    size_t count;
    struct flue_pipeline *pipelines[];
};

/* ---- the way of a batch ---------------------------------------------------------------------- */

static void join_exporters(struct flue_pipeline *pipeline, struct flue_batch *batch,
                           struct flue_delivery *delivery)
{
    for (size_t i = 0; i + 1 < pipeline->branch_count; i++)
        flue_delivery_join(delivery, pipeline->branches[i], flue_batch_ref(batch));
    flue_delivery_join(delivery, pipeline->branches[pipeline->branch_count - 1], batch);
}

static void enter_stage(struct flue_pipeline *pipeline, size_t index, struct flue_batch *batch,
                        struct flue_delivery *delivery)
{
    if (flue_delivery_refused(delivery)) {
        flue_batch_unref(batch);
        return;
    }
    if (index == pipeline->stage_count) {
        join_exporters(pipeline, batch, delivery);
        return;
    }
    struct flue_stage *stage = &pipeline->stages[index];
    flue_own_add(&stage->counts[flue_delivery_loop(delivery)->index].incoming,
                 (int64_t)batch->counts.samples);
    stage->component->push(stage, batch, delivery);
}

void flue_stage_next(struct flue_stage *stage, struct flue_batch *batch,
                     struct flue_delivery *delivery)
{
    flue_own_add(&stage->counts[flue_delivery_loop(delivery)->index].outgoing,
                 (int64_t)batch->counts.samples);
    enter_stage(stage->pipeline, stage->index + 1, batch, delivery);
}

void *flue_stage_instance(struct flue_stage *stage)
{
    return stage->instance;
}

void flue_consumer_push(struct flue_consumer *consumer, struct flue_batch *batch,
                        struct flue_delivery *delivery)
{
    struct flue_counts counts = batch->counts;

    flue_delivery_pushed(delivery, &counts);
    for (size_t i = 0; i < consumer->count; i++) {
        struct flue_pipeline *pipeline = consumer->pipelines[i];
        flue_delivery_entered(delivery, &pipeline->ledger, &counts);
        enter_stage(pipeline, 0, i + 1 < consumer->count ? flue_batch_ref(batch) : batch, delivery);
    }
}

struct flue_account *flue_consumer_account(struct flue_consumer *consumer)
{
    return consumer->pipelines[0]->account;
}

/* ---- life ------------------------------------------------------------------------------------ */

static double read_incoming(void *arg)
{
    const struct flue_stage *stage = arg;
    int64_t sum = 0;
    for (unsigned i = 0; i < stage->pipeline->loop_count; i++)
        sum += atomic_load_explicit(&stage->counts[i].incoming, memory_order_relaxed);
    return (double)sum;
}

static double read_outgoing(void *arg)
{
    const struct flue_stage *stage = arg;
    int64_t sum = 0;
    for (unsigned i = 0; i < stage->pipeline->loop_count; i++)
        sum += atomic_load_explicit(&stage->counts[i].outgoing, memory_order_relaxed);
    return (double)sum;
}

static bool make_stage(struct flue_pipeline *pipeline, const struct flue_stage_spec *spec,
                       struct flue_metrics *metrics)
{
    struct flue_stage *stage = &pipeline->stages[pipeline->stage_count];
    size_t size = pipeline->loop_count * sizeof *stage->counts;

    stage->component = spec->component;
    stage->instance = spec->instance;
    stage->pipeline = pipeline;
    stage->index = pipeline->stage_count++;
    stage->id = strdup(spec->id);
    stage->counts = aligned_alloc(64, size);
    if (!stage->id || !stage->counts)
        return false;
    memset(stage->counts, 0, size);
    const struct flue_label labels[] = {{"processor", stage->id},
                                        {"pipeline", pipeline->id},
                                        {"otel_signal", pipeline->signal == FLUE_TRACES ? "traces"
                                                        : pipeline->signal == FLUE_METRICS
                                                            ? "metrics"
                                                            : "profiles"},
                                        {NULL, NULL}};
    if (metrics) {
        flue_metric_callback(metrics, FLUE_COUNTER, "processor_incoming_items",
                             "samples that came to the processor", labels, read_incoming, stage);
        flue_metric_callback(metrics, FLUE_COUNTER, "processor_outgoing_items",
                             "samples that the processor gave on", labels, read_outgoing, stage);
    }
    return true;
}

enum flue_code flue_pipeline_new(const struct flue_pipeline_spec *spec, struct flue_pipeline **out,
                                 struct flue_error *error)
{
    struct flue_pipeline *pipeline = calloc(1, sizeof *pipeline);
    size_t taken = 0; /* instances that the pipeline owns by now */

    *out = NULL;
    if (!pipeline)
        goto no_memory;
    pipeline->signal = spec->signal;
    pipeline->account = spec->account;
    pipeline->loop_count = spec->loops->count;
    pipeline->id = strdup(spec->id);
    pipeline->stages = calloc(spec->stage_count + 1, sizeof *pipeline->stages);
    pipeline->branches = calloc(spec->exporter_count + 1, sizeof(struct flue_branch *));
    if (!pipeline->id || !pipeline->stages || !pipeline->branches ||
        !flue_ledger_init(&pipeline->ledger, "pipeline", NULL, pipeline->id,
                          1u << FLUE_ROW_RECEIVED | 1u << FLUE_ROW_REFUSED, spec->loops->count,
                          spec->metrics))
        goto no_memory;
    while (taken < spec->stage_count)
        if (!make_stage(pipeline, &spec->stages[taken++], spec->metrics))
            goto no_memory;
    for (size_t i = 0; i < spec->exporter_count; i++) {
        struct flue_branch *branch =
            flue_branch_new(spec->exporters[i], pipeline->id, spec->signal, spec->account);
        if (!branch)
            goto no_memory;
        pipeline->branches[pipeline->branch_count++] = branch;
    }
    *out = pipeline;
    return FLUE_OK;
no_memory:
    flue_pipeline_destroy(pipeline);
    for (; taken < spec->stage_count; taken++)
        if (spec->stages[taken].component->destroy)
            flue_component_destroy(spec->stages[taken].component, spec->stages[taken].instance);
    return flue_fail(error, FLUE_NO_MEMORY, "no memory for pipeline %s", spec->id);
}

const char *flue_pipeline_id(const struct flue_pipeline *pipeline)
{
    return pipeline->id;
}

enum flue_code flue_pipeline_start(struct flue_pipeline *pipeline, struct flue_error *error)
{
    for (size_t i = 0; i < pipeline->stage_count; i++) {
        struct flue_stage *stage = &pipeline->stages[i];
        enum flue_code code =
            stage->component->start ? stage->component->start(stage->instance, error) : FLUE_OK;
        if (code != FLUE_OK) {
            (void)flue_fail_prefix(error, "processor %s of pipeline %s", stage->id, pipeline->id);
            return code;
        }
    }
    return FLUE_OK;
}

void flue_pipeline_stop(struct flue_pipeline *pipeline, uint64_t deadline_ns)
{
    for (size_t i = 0; i < pipeline->stage_count; i++) {
        struct flue_stage *stage = &pipeline->stages[i];
        if (stage->stopping)
            continue;
        stage->stopping = true;
        if (stage->component->stop)
            stage->component->stop(stage->instance, deadline_ns);
    }
}

bool flue_pipeline_stopped(struct flue_pipeline *pipeline)
{
    for (size_t i = 0; i < pipeline->stage_count; i++) {
        struct flue_stage *stage = &pipeline->stages[i];
        if (stage->component->stopped && !stage->component->stopped(stage->instance))
            return false;
    }
    return true;
}

void flue_pipeline_destroy(struct flue_pipeline *pipeline)
{
    if (!pipeline)
        return;
    for (size_t i = 0; i < pipeline->stage_count; i++) {
        struct flue_stage *stage = &pipeline->stages[i];
        if (stage->component->destroy)
            flue_component_destroy(stage->component, stage->instance);
        free(stage->counts);
        free(stage->id);
    }
    flue_ledger_destroy(&pipeline->ledger);
    free(pipeline->stages);
    free(pipeline->branches);
    free(pipeline->id);
    free(pipeline);
}

struct flue_consumer *flue_consumer_new(struct flue_pipeline *const *pipelines, size_t count)
{
    struct flue_consumer *consumer =
        malloc(sizeof *consumer + count * sizeof(struct flue_pipeline *));
    if (!consumer)
        return NULL;
    consumer->count = count;
    memcpy(consumer->pipelines, pipelines, count * sizeof(struct flue_pipeline *));
    return consumer;
}

void flue_consumer_destroy(struct flue_consumer *consumer)
{
    free(consumer);
}
