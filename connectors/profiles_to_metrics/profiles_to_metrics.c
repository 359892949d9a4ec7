/* profiles_to_metrics.c: adds samples up to sums and sends them into a metrics pipeline.
 *
 * Stands among the exporters of profiles pipelines and the receivers of metrics pipelines. Adds up
 * by resource attributes (service.name, cdn.region), by one sample attribute (`subsystem`, which
 * the processor of that name gives) and by sample type, in seconds, bytes or events. Sums are
 * cumulative: what a destination did not get is in what it gets next. Sent every flush_interval,
 * and at the end. */
#include <stdio.h>
#include <unistd.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/pipeline/exporter.h"
#include "connectors/profiles_to_metrics/sums.h"
#include "proto/convert/convert.h"

#define SERIES_MAX  100000
#define WORK_FACTOR 24
#define WORK_FLOOR  ((size_t)8 << 20)
#define SECOND      INT64_C(1000000000)

static const struct flue_field fields[] = {
    FLUE_STRINGS(struct sums_config, resource_attributes, .def = "[service.name, cdn.region]",
                 .help = "of the resource, by which is added up; they are attributes of the sums"),
    FLUE_STRING(struct sums_config, sample_attribute, .def = "subsystem",
                .help = "of samples, by which is added up; samples without it are \"unmatched\""),
    FLUE_STRING(struct sums_config, namespace, .def = "profiles",
                .help = "before the names of the sums: profiles.time (s), profiles.size (By), "
                        "profiles.count"),
    FLUE_DURATION(struct sums_config, flush_interval, .def = "15s", .minimum = SECOND / 10,
                  .maximum = 3600 * SECOND, .help = "how often the sums are sent"),
    FLUE_INT(struct sums_config, max_series, .def = "2000", .minimum = 1, .maximum = SERIES_MAX,
             .unit = "series", .help = "what is new beyond it is counted as \"other\""),
    FLUE_FIELDS_END};

struct connector {
    const struct sums_config *config;
    const char *id;
    struct flue_loops *loops;
    struct flue_consumer *metrics;
    struct sums *sums;
    struct flue_timer timer;      /* on loop 0, as all below */
    bool stopping, sending, last; /* last: the sums on their way are the final ones */
    _Atomic bool idle;
    struct flue_metric *failed;
};

static void connector_check(const void *bound, struct flue_check *check)
{
    const struct sums_config *config = bound;
    if (config->resource_attributes.count > 16)
        flue_check_fail(check, "resource_attributes", "has %zu keys; 16 are possible",
                        config->resource_attributes.count);
    if (!config->namespace || !*config->namespace || strlen(config->namespace) > 100)
        flue_check_fail(check, "namespace", "must have 1 to 100 bytes");
}

/* ---- profiles in ----------------------------------------------------------------------------- */

static void connector_send(void *instance, struct flue_send *send)
{
    struct connector *self = instance;
    struct flue_payload *otlp;
    struct flue_error error = {0};
    struct flue_arena arena;
    size_t budget;
    enum flue_code code =
        flue_convert(send->batch->payload, FLUE_FORM_OTLP, send->batch->account, &otlp, &error);
    if (code == FLUE_OK) {
        budget = otlp->ops->encoded_size(otlp) * WORK_FACTOR;
        flue_arena_init(&arena, budget < WORK_FLOOR ? WORK_FLOOR : budget, 65536);
        code = sums_take(self->sums, otlp, &arena, &error);
        flue_arena_destroy(&arena);
        flue_payload_unref(otlp);
    }
    if (code == FLUE_OK)
        flue_send_ok(send);
    else
        flue_send_fail(send, &error);
}

/* ---- metrics out ----------------------------------------------------------------------------- */

static void flush(struct connector *self);

static void arm(struct connector *self)
{
    flue_timer_arm(self->loops->items[0], &self->timer,
                   flue_monotonic_ns() + (uint64_t)self->config->flush_interval);
}

static void fire(struct flue_timer *timer)
{
    struct connector *self =
        (struct connector *)(void *)((char *)timer - offsetof(struct connector, timer));
    if (!self->sending)
        flush(self);
    if (!self->stopping)
        arm(self);
}

static void flushed(void *arg, const struct flue_outcome *outcome)
{
    struct connector *self = arg;
    self->sending = false;
    if (outcome->error.code) {
        flue_metric_add(self->failed, 1);
        flue_log(FLUE_WARN, self->id, "sums were not taken: they are in the next",
                 FLUE_S("error", outcome->error.text), FLUE_LOG_END);
    }
    if (self->stopping && self->last)
        atomic_store(&self->idle, true);
    else if (self->stopping)
        flush(self);
}

static void flush(struct connector *self)
{
    struct flue_account *account = flue_consumer_account(self->metrics);
    struct flue_outcome failed = {.error = {0}};
    static const struct flue_origin nowhere;
    struct flue_payload *payload;
    struct flue_counts counts;
    struct flue_origin *origin = NULL;
    struct flue_batch *batch = NULL;
    struct flue_delivery *delivery = NULL;
    self->sending = true;
    self->last = self->stopping;
    if (sums_write(self->sums, account, &payload, &counts, &failed.error) || !payload) {
        flushed(self, &failed);
        return;
    }
    struct flue_origin from = nowhere;
    from.received_ns = flue_wall_ns();
    from.receiver = flue_bytes_of(self->id);
    origin = flue_origin_new(&from);
    if (origin)
        batch = flue_batch_new(payload, origin, counts, account);
    else
        flue_payload_unref(payload);
    if (batch)
        delivery = flue_delivery_begin(self->loops->items[0], 0, flushed, self);
    flue_origin_unref(origin);
    if (!delivery) {
        flue_batch_unref(batch);
        flue_fail(&failed.error, FLUE_NO_MEMORY, "no memory to send sums");
        flushed(self, &failed);
        return;
    }
    flue_consumer_push(self->metrics, batch, delivery);
    flue_delivery_end(delivery);
}

/* ---- life ------------------------------------------------------------------------------------ */

static double read_series(void *arg)
{
    return (double)sums_series(arg);
}

static double read_overflowed(void *arg)
{
    return (double)sums_overflowed(arg);
}

/* Of every flue with this connector, and every such connector within it, another one; that of a pod
 * stays with the pod. */
static void instance_id(const char *id, char *out, size_t room)
{
    const char *name = strchr(id, '/');
    char host[256];
    if (gethostname(host, sizeof host) != 0)
        snprintf(host, sizeof host, "flue");
    host[sizeof host - 1] = 0;
    snprintf(out, room, "%s-%ld%.200s", host, (long)getpid(), name ? name : "");
}

static enum flue_code connector_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    struct connector *self = flue_arena_zalloc(create->arena, 1, sizeof *self);
    const struct flue_label labels[] = {{"connector", create->id}, {NULL, NULL}};
    char instance_name[512];
    if (!self)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a connector");
    self->config = create->config;
    self->id = create->id;
    self->loops = create->loops;
    self->metrics = create->metrics_out;
    self->timer.fire = fire;
    instance_id(create->id, instance_name, sizeof instance_name);
    enum flue_code code = sums_new(self->config, instance_name, &self->sums, error);
    if (code)
        return code;
    self->failed = flue_metric(create->metrics, FLUE_COUNTER, "connector_failed_flushes",
                               "times that the metrics pipeline did not take the sums", labels);
    flue_metric_callback(create->metrics, FLUE_GAUGE, "connector_series",
                         "series that samples are added up to", labels, read_series, self->sums);
    flue_metric_callback(create->metrics, FLUE_COUNTER, "connector_overflowed",
                         "times that something was counted as \"other\" because max_series was "
                         "reached",
                         labels, read_overflowed, self->sums);
    *instance = self;
    return FLUE_OK;
}

static void start_timer(struct flue_loop *loop, void *arg)
{
    arm(arg);
}

static enum flue_code connector_start(void *instance, struct flue_error *error)
{
    struct connector *self = instance;
    flue_loop_call(self->loops->items[0], start_timer, self);
    return FLUE_OK;
}

static void last_flush(struct flue_loop *loop, void *arg)
{
    struct connector *self = arg;
    self->stopping = true;
    flue_timer_disarm(loop, &self->timer);
    if (!self->sending)
        flush(self);
}

static void connector_stop(void *instance, uint64_t deadline_ns)
{
    struct connector *self = instance;
    flue_loop_call(self->loops->items[0], last_flush, self);
}

static bool connector_stopped(void *instance)
{
    return atomic_load(&((struct connector *)instance)->idle);
}

static void connector_destroy(void *instance)
{
    sums_destroy(((struct connector *)instance)->sums);
}

const struct flue_component flue_connector_profiles_to_metrics = {
    .kind = FLUE_CONNECTOR,
    .name = "profiles_to_metrics",
    .signals = FLUE_PROFILES,
    .gives = FLUE_METRICS,
    .stability = FLUE_BETA,
    .summary = "adds samples up to sums by service, region, subsystem and sample type, for a "
               "metrics pipeline",
    .config_size = sizeof(struct sums_config),
    .fields = fields,
    .no_queue = true,
    .check = connector_check,
    .create = connector_create,
    .start = connector_start,
    .send = connector_send,
    .stop = connector_stop,
    .stopped = connector_stopped,
    .destroy = connector_destroy,
};
