/* span_links.c: spans and profiles find each other, whatever the SDK wrote.
 *
 * In a pipeline of profiles, span labels of every form become links (OTLP) or span_id and trace_id
 * (pprof). In a pipeline of traces, spans for which a profile was seen get pyroscope.profile.id.
 * The pipelines name the same id, and share what was seen (seen.h). In both, service.name is made
 * equal by the same table. Runs on every loop.
 */
#include "processors/span_links/span_links.h"
#include <stdlib.h>
#include "collector/pipeline/actions.h"
#include "proto/otlp/otlp.h"

static const struct flue_field span_links_fields[] = {
    FLUE_BOOL(struct span_links_config, keep_labels, .def = "false",
              .help = "labels that a link says completely stay beside it; in Pyroscope each is "
                      "a series of its own"),
    FLUE_DURATION(struct span_links_config, window, .def = "30s", .minimum = 1000000,
                  .maximum = INT64_C(600000000000),
                  .help =
                      "how long spans wait in the queue for a profile, and how long a profile's "
                      "spans are remembered beyond it"),
    FLUE_SIZE(struct span_links_config, max_bytes, .def = "64MiB", .minimum = 0,
              .maximum = (int64_t)1 << 40, .unit = "bytes",
              .help = "of spans that wait; more are sent unmarked at once"),
    FLUE_INT(struct span_links_config, max_spans, .def = "262144", .minimum = 1024,
             .maximum = 1 << 26, .unit = "spans",
             .help = "of profiles that are remembered, 16 bytes each; the oldest make room"),
    FLUE_MAP(struct span_links_config, service_names,
             .help = "service.name of profiles or traces to the one that both shall have"),
    FLUE_FIELDS_END};

/* ---- names ---------------------------------------------------------------------------------- */

/* The name that a resource's is to become; NULL: it stays. */
static const char *other_name(const struct span_links_config *config,
                              const struct flue_payload *payload, size_t resource)
{
    struct flue_value value;

    if (!payload->ops->attribute_get(payload, resource, FLUE_BYTES("service.name"), &value) ||
        value.type != FLUE_VALUE_STRING)
        return NULL;
    for (size_t i = 0; i < config->service_names.count; i++)
        if (flue_bytes_is(value.text, config->service_names.items[i].key))
            return config->service_names.items[i].value;
    return NULL;
}

static enum flue_code rename_one(struct flue_payload *payload, size_t resource, const char *name,
                                 struct flue_error *error)
{
    const struct flue_attribute item = {FLUE_BYTES("service.name"),
                                        {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(name)}};
    struct flue_attribute_set set;
    struct flue_block *block = NULL;
    struct flue_arena arena;
    enum flue_code code;

    flue_arena_init(&arena, 1 << 20, 0);
    code = flue_attribute_block(flue_otlp_attribute_set, &arena, &item, 1, &set, &block, error);
    if (code == FLUE_OK)
        code = payload->ops->attributes_set(payload, resource, &set, FLUE_SET_UPSERT, block, error);
    flue_block_unref(block);
    flue_arena_destroy(&arena);
    return code;
}

/* Consumes the batch; NULL with the error. */
static struct flue_batch *rename_all(const struct span_links *self, struct flue_batch *batch,
                                     struct flue_error *error)
{
    bool own = false;

    for (size_t i = 0; self->config->service_names.count &&
                       i < batch->payload->ops->resource_count(batch->payload);
         i++) {
        const char *name = other_name(self->config, batch->payload, i);
        if (!name)
            continue;
        if (!own && !(batch = flue_batch_writable(batch, error)))
            return NULL;
        own = true;
        if (rename_one(batch->payload, i, name, error) != FLUE_OK) {
            flue_batch_unref(batch);
            return NULL;
        }
    }
    return batch;
}

/* ---- profiles ------------------------------------------------------------------------------- */

static enum flue_code link_pprof(struct span_links *self, struct flue_batch **batch,
                                 struct flue_error *error)
{
    struct flue_payload *changed;
    struct flue_batch *made;
    enum flue_code code = span_links_pprof(self, (*batch)->payload, &changed, error);

    if (code != FLUE_OK || !changed)
        return code;
    made = flue_batch_new(changed, (*batch)->origin, (*batch)->counts, (*batch)->account);
    if (!made)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a batch");
    flue_batch_unref(*batch);
    *batch = made;
    return FLUE_OK;
}

static void span_links_push(struct flue_stage *stage, struct flue_batch *batch,
                            struct flue_delivery *delivery)
{
    struct span_links *self = flue_stage_instance(stage);
    struct flue_error error;
    enum flue_code code;

    batch = rename_all(self, batch, &error);
    if (batch && batch->payload->signal == FLUE_TRACES) {
        span_links_traces(stage, batch, delivery);
        return;
    }
    code = !batch                                        ? error.code
           : batch->payload->ops->form == FLUE_FORM_OTLP ? span_links_otlp(self, &batch, &error)
                                                         : link_pprof(self, &batch, &error);
    if (code == FLUE_OK) {
        flue_stage_next(stage, batch, delivery);
        return;
    }
    flue_delivery_refuse(delivery, &error);
    flue_batch_unref(batch);
}

/* ---- life ----------------------------------------------------------------------------------- */

static double read_held(void *arg)
{
    return (double)atomic_load(&((struct seen *)arg)->held);
}

static void make_metrics(struct span_links *self, const struct flue_create *create)
{
    const struct flue_label own[] = {
        {"processor", create->id}, {"pipeline", create->pipeline}, {NULL, NULL}};
    struct flue_metrics *m = create->metrics;

    self->linked = flue_metric(m, FLUE_COUNTER, "span_links_linked_samples",
                               "samples whose span labels became links", own);
    self->impossible = flue_metric(m, FLUE_COUNTER, "span_links_impossible_ids",
                                   "span labels in no known form, left as they are", own);
    self->marked = flue_metric(m, FLUE_COUNTER, "span_links_marked_spans",
                               "spans that were given pyroscope.profile.id", own);
    self->held = flue_metric(m, FLUE_COUNTER, "span_links_held_spans",
                             "spans that waited in the queue for a profile", own);
    self->unmarked = flue_metric(m, FLUE_COUNTER, "span_links_unmarked_spans",
                                 "spans sent without a profile having been seen", own);
    self->full = flue_metric(m, FLUE_COUNTER, "span_links_not_held_spans",
                             "spans that did not wait, for max_bytes", own);
}

static enum flue_code span_links_create(const struct flue_create *create, void **instance,
                                        struct flue_error *error)
{
    const struct span_links_config *config = create->config;
    bool traces = create->pipeline && strncmp(create->pipeline, "traces", 6) == 0;
    struct span_links *self = calloc(1, sizeof *self);

    if (!self)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for processor %s", create->id);
    self->config = config;
    self->account = create->account;
    self->seen = seen_get(create->service, config);
    /* A span may be exported up to a window after its profile, or before it. */
    if (!self->seen || (traces && !seen_wanted(self->seen, (uint64_t)config->max_spans,
                                               2 * (uint64_t)config->window + 60000000000u))) {
        seen_drop(self->seen);
        free(self);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for processor %s", create->id);
    }
    make_metrics(self, create);
    if (traces) {
        const struct flue_label own[] = {{"processor", create->id}, {NULL, NULL}};
        flue_metric_callback(create->metrics, FLUE_GAUGE, "span_links_held_bytes",
                             "of spans that wait now", own, read_held, self->seen);
    }
    *instance = self;
    return FLUE_OK;
}

static void span_links_destroy(void *instance)
{
    struct span_links *self = instance;
    seen_drop(self->seen);
    free(self);
}

const struct flue_component flue_processor_span_links = {
    .kind = FLUE_PROCESSOR,
    .name = "span_links",
    .signals = FLUE_PROFILES | FLUE_TRACES,
    .needs = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "spans and profiles find each other, whatever the SDK wrote",
    .config_size = sizeof(struct span_links_config),
    .fields = span_links_fields,
    .create = span_links_create,
    .push = span_links_push,
    .destroy = span_links_destroy,
};
