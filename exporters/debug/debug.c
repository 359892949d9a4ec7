/* debug.c: says on the log what arrives.
 *
 * basic: one line per batch with its counts; normal: one more line per resource with the name of
 * its service; detailed: every attribute of every resource. The first sampling_initial batches of a
 * second are said, then every sampling_thereafter-th (0: none). Runs on every loop; the only state
 * is a window of atomics. Never says a payload's samples. */
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/pipeline/exporter.h"

#define TEXT_MAX 16384u /* bytes of attributes in one line */

enum verbosity { BASIC, NORMAL, DETAILED };
static const char *const verbosities[] = {"basic", "normal", "detailed", NULL};

struct debug_config {
    int verbosity;
    int64_t sampling_initial, sampling_thereafter;
};

static const struct flue_field debug_fields[] = {
    FLUE_ENUM(struct debug_config, verbosity, .def = "basic", .choices = verbosities,
              .help = "how much is said of a batch: its counts, its services, all attributes"),
    FLUE_INT(struct debug_config, sampling_initial, .def = "2", .minimum = 0, .maximum = 1000000,
             .unit = "batches", .help = "said in every second before sampling begins"),
    FLUE_INT(struct debug_config, sampling_thereafter, .def = "1", .minimum = 0,
             .maximum = 1000000000, .help = "then every n-th of the same second; 0: none"),
    FLUE_IGNORED("use_internal_logger", "lines always go to flue's own log"),
    FLUE_IGNORED("output_paths", "lines always go to flue's own log"),
    FLUE_FIELDS_END};

struct debug {
    const struct debug_config *config;
    const char *id;
    _Atomic uint64_t second; /* of the window */
    _Atomic uint64_t seen;   /* in the window */
};

static bool sampled(struct debug *debug)
{
    uint64_t now = flue_monotonic_ns() / 1000000000u;
    uint64_t window = atomic_load_explicit(&debug->second, memory_order_relaxed);
    if (window != now && atomic_compare_exchange_strong(&debug->second, &window, now))
        atomic_store_explicit(&debug->seen, 0, memory_order_relaxed);
    uint64_t n = atomic_fetch_add_explicit(&debug->seen, 1, memory_order_relaxed);
    uint64_t first = (uint64_t)debug->config->sampling_initial;
    uint64_t every = (uint64_t)debug->config->sampling_thereafter;
    return n < first || (every && (n - first) % every == 0);
}

static void add_value(struct flue_buffer *text, const struct flue_value *value)
{
    switch (value->type) {
    case FLUE_VALUE_STRING:
        flue_buffer_json(text, value->text);
        break;
    case FLUE_VALUE_BOOL:
        flue_buffer_text(text, value->boolean ? "true" : "false");
        break;
    case FLUE_VALUE_INT:
        flue_buffer_printf(text, "%lld", (long long)value->integer);
        break;
    case FLUE_VALUE_DOUBLE:
        flue_buffer_printf(text, "%g", value->number);
        break;
    case FLUE_VALUE_BYTES:
        flue_buffer_printf(text, "(%zu bytes)", value->text.size);
        break;
    case FLUE_VALUE_COMPLEX:
        flue_buffer_text(text, "(structured)");
        break;
    default:
        flue_buffer_text(text, "(empty)");
        break;
    }
}

static bool add_attribute(void *arg, const struct flue_attribute *attribute)
{
    struct flue_buffer *text = arg;
    if (text->size)
        flue_buffer_text(text, " ");
    flue_buffer_add(text, attribute->key);
    flue_buffer_text(text, "=");
    add_value(text, &attribute->value);
    return !text->failed;
}

static void say_resource(const struct debug *debug, const struct flue_payload *payload, size_t i)
{
    struct flue_value value;
    if (debug->config->verbosity == NORMAL) {
        bool named = payload->ops->attribute_get(payload, i, FLUE_BYTES("service.name"), &value) &&
                     value.type == FLUE_VALUE_STRING;
        flue_log(FLUE_INFO, debug->id, "resource", FLUE_U("index", i),
                 FLUE_B("service.name", named ? value.text : FLUE_BYTES("")), FLUE_LOG_END);
        return;
    }
    struct flue_buffer text;
    flue_buffer_init(&text, TEXT_MAX);
    payload->ops->attribute_each(payload, i, add_attribute, &text);
    flue_log(FLUE_INFO, debug->id, "resource", FLUE_U("index", i),
             FLUE_B("attributes", flue_buffer_bytes(&text)),
             FLUE_S("cut", text.failed ? "true" : "false"), FLUE_LOG_END);
    flue_buffer_destroy(&text);
}

static void debug_send(void *instance, struct flue_send *send)
{
    struct debug *debug = instance;
    const struct flue_batch *batch = send->batch;
    if (sampled(debug)) {
        size_t resources = batch->payload->ops->resource_count(batch->payload);
        flue_log(FLUE_INFO, debug->id, "batch", FLUE_U("resources", resources),
                 FLUE_U("profiles", batch->counts.profiles),
                 FLUE_U("samples", batch->counts.samples), FLUE_U("bytes", batch->counts.bytes),
                 FLUE_S("form", batch->payload->ops->name), FLUE_LOG_END);
        for (size_t i = 0; i < resources && debug->config->verbosity != BASIC; i++)
            say_resource(debug, batch->payload, i);
    }
    flue_send_ok(send);
}

static enum flue_code debug_create(const struct flue_create *create, void **instance,
                                   struct flue_error *error)
{
    struct debug *debug = flue_arena_zalloc(create->arena, 1, sizeof *debug);
    if (!debug)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    debug->config = create->config;
    debug->id = create->id;
    *instance = debug;
    return FLUE_OK;
}

static void debug_destroy(void *instance)
{
    (void)instance; /* lives in the service's arena */
}

const struct flue_component flue_exporter_debug = {
    .kind = FLUE_EXPORTER,
    .name = "debug",
    .signals = FLUE_PROFILES | FLUE_TRACES | FLUE_METRICS,
    .stability = FLUE_BETA,
    .summary = "says on the log what arrives",
    .config_size = sizeof(struct debug_config),
    .fields = debug_fields,
    .no_queue = true,
    .create = debug_create,
    .send = debug_send,
    .destroy = debug_destroy,
};
