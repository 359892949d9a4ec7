/* resource.c: edits the attributes of every resource of a batch (key `attributes`, as the
 * Collector's resource processor). In pprof form a resource is a series and its labels are the
 * attributes. The edits themselves: collector/pipeline/actions.h. */
#include "collector/pipeline/actions.h"
#include "proto/otlp/otlp.h"

struct resource_config {
    struct flue_list attributes; /* struct flue_action_config */
};

static const struct flue_field resource_fields[] = {
    FLUE_LIST(struct resource_config, attributes, struct flue_action_config, flue_action_fields,
              .help = "what to do, in this order"),
    FLUE_FIELDS_END};

static void resource_check(const void *config, struct flue_check *check)
{
    const struct resource_config *resource = config;
    flue_actions_check(&resource->attributes, "attributes", check);
}

static enum flue_code resource_create(const struct flue_create *create, void **instance,
                                      struct flue_error *error)
{
    const struct resource_config *config = create->config;
    return flue_actions_new(&config->attributes, create->loops->count, flue_otlp_attribute_set,
                            (struct flue_actions **)instance, error);
}

const struct flue_component flue_processor_resource = {
    .kind = FLUE_PROCESSOR,
    .name = "resource",
    .signals = FLUE_PROFILES | FLUE_TRACES,
    .stability = FLUE_BETA,
    .summary = "adds, changes and removes resource attributes",
    .config_size = sizeof(struct resource_config),
    .fields = resource_fields,
    .check = resource_check,
    .create = resource_create,
    .push = flue_actions_push,
    .destroy = flue_actions_destroy_instance,
};
