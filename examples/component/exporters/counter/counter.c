/* counter.c: counts samples by an attribute of their resource; a worked example of an exporter.
 *
 * docs/writing-a-component.md goes through it. The folder's name is the component's name, and the
 * description at the end must be called flue_exporter_counter: the build needs to know no more. */

/* Step 1: what it needs. component.h is what a component is; read the other headers on demand. */
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "collector/base/log.h"
#include "collector/pipeline/exporter.h"
#include "proto/otlp/index.h"
#include "proto/pprof/pprof.h"

/* Step 2: the configuration, a struct and one row per key. The row alone makes parsing, default,
 * bounds, error messages, `flue components --help counter` and the reference. */
struct counter_config {
    const char *attribute;
    int64_t max_values, log_interval;
};

static const struct flue_field counter_fields[] = {
    FLUE_STRING(struct counter_config, attribute, .def = "service.name",
                .help = "attribute of the resource whose values are counted apart"),
    FLUE_INT(struct counter_config, max_values, .def = "1000", .minimum = 1,
             .maximum = FLUE_METRIC_MAX_SERIES,
             .help = "values that each event loop tells apart; what comes later is \"other\""),
    FLUE_DURATION(struct counter_config, log_interval, .def = "10s", .minimum = 0,
                  .maximum = INT64_C(86400000000000),
                  .help = "how often the counts are logged while data comes; 0: never"),
    FLUE_FIELDS_END};

/* Step 3: what bounds cannot say. Every mistake is collected, with the key that it belongs to. */
static void counter_check(const void *data, struct flue_check *check)
{
    const struct counter_config *config = data;
    if (!config->attribute || !*config->attribute)
        flue_check_fail(check, "attribute", "is empty; name an attribute, such as service.name");
}

/* Step 4: the instance. send runs on every loop at once, so what changes is kept per loop, and no
 * lock is needed. What grows has a maximum: max_values rows, and a budget for their memory. */
struct counted {
    const char *value;
    struct flue_metric *samples;
};
struct counter_loop {
    struct flue_arena arena;
    struct flue_table table; /* value to row */
    struct counted *rows;
    size_t count, room;
    uint64_t logged_ns;
};
struct counter {
    const struct counter_config *config;
    const char *id;
    struct flue_metrics *metrics;
    struct flue_metric *other;
    struct counter_loop *loops;
    unsigned loop_count;
};
#define BYTES_PER_VALUE 512u

static struct flue_metric *metric_of(struct counter *counter, const char *value)
{
    const struct flue_label labels[] = {{"exporter", counter->id}, {"value", value}, {NULL, NULL}};
    return flue_metric(counter->metrics, FLUE_COUNTER, "counter_samples",
                       "samples by the value of the attribute that is counted", labels);
}

/* create makes the instance and does no I/O: `flue validate` calls it too. */
static enum flue_code counter_create(const struct flue_create *create, void **instance,
                                     struct flue_error *error)
{
    unsigned loops = create->loops->count;
    struct counter *counter = flue_arena_zalloc(create->arena, 1, sizeof *counter);
    if (!counter ||
        !(counter->loops = flue_arena_zalloc(create->arena, loops, sizeof *counter->loops)))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    counter->config = create->config;
    counter->id = create->id;
    counter->metrics = create->metrics;
    counter->other = metric_of(counter, "other");
    counter->loop_count = loops;
    for (unsigned i = 0; i < loops; i++) {
        struct counter_loop *at = &counter->loops[i];
        flue_arena_init(&at->arena, (size_t)counter->config->max_values * BYTES_PER_VALUE + 65536,
                        0);
        if (!flue_table_init(&at->table, &at->arena, 16))
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    }
    *instance = counter;
    return FLUE_OK;
}

/* Step 5: the work. Text from the network is escaped before it becomes a label or a log line. */
static bool same_value(const void *rows, uint32_t row, const void *key)
{
    return strcmp(((const struct counted *)rows)[row].value, key) == 0;
}

static struct flue_metric *counter_of(struct counter *counter, struct counter_loop *at,
                                      const struct flue_payload *payload, size_t resource)
{
    struct flue_value value;
    char text[128] = "";
    if (payload->ops->attribute_get(payload, resource, flue_bytes_of(counter->config->attribute),
                                    &value) &&
        value.type == FLUE_VALUE_STRING)
        flue_printable(value.text, text, sizeof text);
    uint64_t hash = flue_hash(flue_bytes_of(text));
    uint32_t row = flue_table_find(&at->table, hash, same_value, at->rows, text);
    if (row != FLUE_TABLE_NONE)
        return at->rows[row].samples;
    struct counted fresh = {.value = NULL};
    if (at->count < (size_t)counter->config->max_values)
        fresh.value = flue_arena_string(&at->arena, flue_bytes_of(text));
    if (!fresh.value || !FLUE_ARENA_PUSH(&at->arena, at->rows, at->count, at->room, fresh))
        return counter->other; /* full: an ordinary thing, not an error */
    if (!flue_table_insert(&at->table, hash, (uint32_t)(at->count - 1))) {
        at->count--;
        return counter->other;
    }
    return at->rows[at->count - 1].samples = metric_of(counter, fresh.value);
}

/* A batch is OTLP or pprof. Attributes look the same in both; samples lie in different places. */
struct walk {
    struct counter *counter;
    struct counter_loop *at;
    const struct flue_payload *payload;
};

static bool count_profile(void *arg, const struct flue_otlp_profile *profile)
{
    const struct walk *walk = arg;
    flue_metric_add(counter_of(walk->counter, walk->at, walk->payload, profile->resource),
                    profile->samples);
    return true;
}

static void count_series(const struct walk *walk)
{
    for (size_t i = 0; i < flue_pprof_series_count(walk->payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(walk->payload, i);
        struct flue_metric *samples = counter_of(walk->counter, walk->at, walk->payload, i);
        for (size_t k = 0; k < series->profile_count; k++)
            flue_metric_add(samples, (int64_t)series->profiles[k].facts.samples);
    }
}

static void log_counts(const struct counter *counter, const struct counter_loop *at)
{
    for (size_t i = 0; i < at->count; i++)
        flue_log(FLUE_INFO, counter->id, "counted", FLUE_S("value", at->rows[i].value),
                 FLUE_I("samples", flue_metric_get(at->rows[i].samples)), FLUE_LOG_END);
}

/* Step 6: send gets one item and must answer once, now or later, with flue_send_ok, flue_send_fail
 * or flue_send_done. Queue, retries, concurrency, balance and acknowledgement are the engine's. */
static void counter_send(void *instance, struct flue_send *send)
{
    struct counter *counter = instance;
    struct counter_loop *at = &counter->loops[send->loop->index];
    struct walk walk = {counter, at, send->batch->payload};
    uint64_t now = flue_monotonic_ns(), every = (uint64_t)counter->config->log_interval;

    if (walk.payload->ops->form == FLUE_FORM_OTLP)
        flue_otlp_each_profile(walk.payload, count_profile, &walk);
    else
        count_series(&walk);
    if (every && now - at->logged_ns >= every) {
        at->logged_ns = now;
        log_counts(counter, at);
    }
    flue_send_ok(send);
}

/* Step 7: the end. The loops have stopped; `counter` itself lies in the engine's arena. */
static void counter_destroy(void *instance)
{
    struct counter *counter = instance;
    for (unsigned i = 0; i < counter->loop_count; i++)
        flue_arena_destroy(&counter->loops[i].arena);
}

/* Step 8: the description, the one thing with linkage. no_queue: counting cannot fail or wait, so
 * the keys sending_queue, retry_on_failure and timeout would have no meaning. */
const struct flue_component flue_exporter_counter = {
    .kind = FLUE_EXPORTER,
    .name = "counter",
    .signals = FLUE_PROFILES,
    .stability = FLUE_DEVELOPMENT,
    .summary = "counts samples by an attribute of their resource",
    .config_size = sizeof(struct counter_config),
    .fields = counter_fields,
    .no_queue = true,
    .check = counter_check,
    .create = counter_create,
    .send = counter_send,
    .destroy = counter_destroy,
};
