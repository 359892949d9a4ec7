/* subsystem.c: which part of the product do samples belong to: encoding, routing, sessions, ...
 *
 * Frames are mapped to subsystems by rules (rules.h; the ready ones: builtin.c). The result is
 * counters on the metrics page (counters.h) and, where sample_attribute names one, an attribute (in
 * pprof a label) on every sample. What no rule takes is "unmatched" and counted as such. Counted is
 * what passes: a request that is refused behind this processor and comes again counts again. */
#include <stdlib.h>
#include "processors/subsystem/classify.h"
#include "processors/subsystem/counters.h"

/* The work on one batch may take so many times its encoded size, and a floor. */
#define WORK_FACTOR 24
#define WORK_FLOOR  ((size_t)8 << 20)
#define MARK_MAX    128u /* bytes of sample_attribute */
#define SERIES_MAX  1800 /* with what is under "other" below a family's limit, base/metrics.h */

enum { LEAF_FIRST, ROOT_FIRST };
static const char *const searches[] = {"leaf_first", "root_first", NULL};

struct subsystem_config {
    struct flue_list rules, region_attributes;
    bool builtin_rules;
    int search;
    const char *sample_attribute;
    int64_t max_series;
};

static const struct flue_field subsystem_fields[] = {
    FLUE_LIST(struct subsystem_config, rules, struct subsystem_rule_config, subsystem_rule_fields,
              .help = "asked in this order, before the built-in ones"),
    FLUE_BOOL(struct subsystem_config, builtin_rules, .def = "true",
              .help = "the ready rules for encoders, packagers, CDN routers and services; false: "
                      "only `rules`"),
    FLUE_ENUM(struct subsystem_config, search, .choices = searches, .def = "leaf_first",
              .help = "which frame of a stack decides: the first, from the leaf or from the root, "
                      "that any rule takes"),
    FLUE_STRING(struct subsystem_config, sample_attribute,
                .help = "attribute (in pprof a label) that every sample gets, as in subsystem; a "
                        "sample that has it keeps it; empty: none"),
    FLUE_STRINGS(struct subsystem_config, region_attributes, .def = "[cdn.region, cloud.region]",
                 .help = "resource attributes that name the region on the metrics page; the first "
                         "that is there"),
    FLUE_INT(struct subsystem_config, max_series, .def = "1000", .minimum = 0,
             .maximum = SERIES_MAX, .unit = "series",
             .help = "on the metrics page; what is new beyond it is counted under service and "
                     "region \"other\"; 0: no counters"),
    FLUE_FIELDS_END};

struct subsystem {
    const struct subsystem_config *config;
    struct subsystem_rules *rules;
    struct subsystem_counters *counters; /* NULL: none */
    struct flue_bytes mark;
};

/* One batch. */
struct pass {
    const struct subsystem *subsystem;
    const struct flue_payload *payload;
    unsigned loop;
};

static void subsystem_check(const void *bound, struct flue_check *check)
{
    const struct subsystem_config *config = bound;
    const char *mark = config->sample_attribute;
    subsystem_rules_check(&config->rules, config->builtin_rules, "rules", check);
    if (mark && (strlen(mark) > MARK_MAX || !flue_utf8_valid(flue_bytes_of(mark))))
        flue_check_fail(check, "sample_attribute", "must be UTF-8 of at most %u bytes", MARK_MAX);
    if (mark && strncmp(mark, "__", 2) == 0)
        flue_check_fail(check, "sample_attribute", "begins with \"__\": such labels are identity");
    if (config->max_series == 0 && !(mark && *mark))
        flue_check_fail(check, "", "does nothing with max_series 0 and no sample_attribute");
}

static struct flue_bytes text_attribute(const struct flue_payload *payload, size_t resource,
                                        struct flue_bytes key)
{
    struct flue_value value;
    return payload->ops->attribute_get(payload, resource, key, &value) &&
                   value.type == FLUE_VALUE_STRING
               ? value.text
               : flue_bytes(NULL, 0);
}

static void report(void *arg, size_t resource, const struct flue_quantity_type *type,
                   const uint64_t *sums)
{
    const struct pass *pass = arg;
    const struct flue_list *keys = &pass->subsystem->config->region_attributes;
    struct flue_bytes region = flue_bytes(NULL, 0);
    for (size_t i = 0; i < keys->count && !region.size; i++)
        region = text_attribute(pass->payload, resource,
                                flue_bytes_of(((const char *const *)keys->items)[i]));
    subsystem_counters_add(pass->subsystem->counters, pass->loop,
                           text_attribute(pass->payload, resource, FLUE_BYTES("service.name")),
                           region, type, sums);
}

static enum flue_code classify(const struct subsystem *self, unsigned loop,
                               struct flue_batch *batch, struct flue_error *error)
{
    struct flue_payload *payload = batch->payload, *marked = NULL;
    struct pass pass = {self, payload, loop};
    struct flue_arena arena;
    struct subsystem_work work = {.rules = self->rules,
                                  .mark = self->mark,
                                  .report = self->counters ? report : NULL,
                                  .arg = &pass,
                                  .arena = &arena};
    bool pprof = payload->ops->form == FLUE_FORM_PPROF;
    size_t size = pprof ? 0 : payload->ops->encoded_size(payload);
    size_t factor = pprof ? (size_t)1 << 30 : size * WORK_FACTOR;
    enum flue_code code;

    flue_arena_init(&arena, factor < WORK_FLOOR ? WORK_FLOOR : factor, 65536);
    if (pprof)
        code = subsystem_pprof(&work, payload, batch->account, &marked, error);
    else
        code = subsystem_otlp(&work, payload, error);
    flue_arena_destroy(&arena);
    if (code == FLUE_OK && marked) {
        batch->payload = marked;
        flue_payload_unref(payload);
    }
    return code;
}

static void subsystem_push(struct flue_stage *stage, struct flue_batch *batch,
                           struct flue_delivery *delivery)
{
    const struct subsystem *self = flue_stage_instance(stage);
    struct flue_error error = {0};
    if (self->mark.size) {
        batch = flue_batch_writable(batch, &error);
        if (!batch) {
            flue_delivery_refuse(delivery, &error);
            return;
        }
    }
    if (classify(self, flue_delivery_loop(delivery)->index, batch, &error) == FLUE_OK) {
        flue_stage_next(stage, batch, delivery);
        return;
    }
    (void)flue_fail_prefix(&error, "subsystem");
    flue_delivery_refuse(delivery, &error);
    flue_batch_unref(batch);
}

static void subsystem_destroy(void *instance)
{
    struct subsystem *self = instance;
    subsystem_counters_destroy(self->counters);
}

static enum flue_code subsystem_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    const struct subsystem_config *config = create->config;
    struct subsystem *self = flue_arena_zalloc(create->arena, 1, sizeof *self);
    if (!self)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for subsystem");
    self->config = config;
    self->mark = flue_bytes_of(config->sample_attribute);
    enum flue_code code =
        subsystem_rules_new(&config->rules, config->builtin_rules, config->search == ROOT_FIRST,
                            create->arena, &self->rules, error);
    if (code == FLUE_OK && config->max_series)
        code = subsystem_counters_new(create, self->rules, (size_t)config->max_series,
                                      &self->counters, error);
    *instance = self;
    return code;
}

const struct flue_component flue_processor_subsystem = {
    .kind = FLUE_PROCESSOR,
    .name = "subsystem",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "counts and marks samples by the part of the product that they belong to: encoding, "
               "packaging, routing, sessions, TLS, allocation, ...",
    .config_size = sizeof(struct subsystem_config),
    .fields = subsystem_fields,
    .check = subsystem_check,
    .create = subsystem_create,
    .push = subsystem_push,
    .destroy = subsystem_destroy,
};
