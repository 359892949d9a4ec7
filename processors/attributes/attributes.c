/* attributes.c: the Collector's attributes processor (key `actions`). Profiles have no attributes
 * of their own that a user sets, so it acts on the attributes of their resources, as `resource`
 * does. In pprof form a resource is a series and its labels are the attributes. The edits
 * themselves: collector/pipeline/actions.h. */
#include "collector/pipeline/actions.h"
#include "proto/otlp/otlp.h"

struct attributes_config {
    struct flue_list actions; /* struct flue_action_config */
};

static const struct flue_field attributes_fields[] = {
    FLUE_LIST(struct attributes_config, actions, struct flue_action_config, flue_action_fields,
              .help = "what to do with the attributes of each resource, in this order"),
    FLUE_FIELDS_END};

static void attributes_check(const void *config, struct flue_check *check)
{
    const struct attributes_config *attributes = config;
    flue_actions_check(&attributes->actions, "actions", check);
}

static enum flue_code attributes_create(const struct flue_create *create, void **instance,
                                        struct flue_error *error)
{
    const struct attributes_config *config = create->config;
    return flue_actions_new(&config->actions, create->loops->count, flue_otlp_attribute_set,
                            (struct flue_actions **)instance, error);
}

const struct flue_component flue_processor_attributes = {
    .kind = FLUE_PROCESSOR,
    .name = "attributes",
    .signals = FLUE_PROFILES | FLUE_TRACES,
    .stability = FLUE_BETA,
    .summary = "adds, changes and removes attributes of the resources of profiles and traces",
    .config_size = sizeof(struct attributes_config),
    .fields = attributes_fields,
    .check = attributes_check,
    .create = attributes_create,
    .push = flue_actions_push,
    .destroy = flue_actions_destroy_instance,
};
