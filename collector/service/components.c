/* components.c: the registry's questions. */
#include "collector/service/components.h"

#include <stdio.h>

const char *flue_kind_name(enum flue_kind kind)
{
    static const char *const names[] = {
        [FLUE_RECEIVER] = "receiver",   [FLUE_PROCESSOR] = "processor",
        [FLUE_CONNECTOR] = "connector", [FLUE_EXPORTER] = "exporter",
        [FLUE_EXTENSION] = "extension",
    };
    return names[kind];
}

const char *flue_stability_name(enum flue_stability stability)
{
    static const char *const names[] = {
        [FLUE_DEVELOPMENT] = "development",
        [FLUE_ALPHA] = "alpha",
        [FLUE_BETA] = "beta",
        [FLUE_STABLE] = "stable",
    };
    return names[stability];
}

const struct flue_component *flue_component_find(const struct flue_component *const *components,
                                                 enum flue_kind kind, const char *name,
                                                 bool *deprecated)
{
    *deprecated = false;
    for (size_t i = 0; components[i]; i++)
        if (components[i]->kind == kind && strcmp(components[i]->name, name) == 0)
            return components[i];
    for (size_t i = 0; components[i]; i++) {
        if (components[i]->kind == kind && components[i]->alias &&
            strcmp(components[i]->alias, name) == 0) {
            *deprecated = true;
            return components[i];
        }
    }
    return NULL;
}

void flue_components_offer(const struct flue_component *const *components, enum flue_kind kind,
                           struct flue_nearest *nearest)
{
    for (size_t i = 0; components[i]; i++)
        if (components[i]->kind == kind)
            flue_nearest_offer(nearest, components[i]->name);
}

const char *flue_signals_text(unsigned signals, char *out)
{
    snprintf(out, 32, "%s%s%s%s%s", signals & FLUE_PROFILES ? "profiles" : "",
             signals & FLUE_PROFILES && signals & (FLUE_TRACES | FLUE_METRICS) ? ", " : "",
             signals & FLUE_TRACES ? "traces" : "",
             signals & FLUE_TRACES && signals & FLUE_METRICS ? ", " : "",
             signals & FLUE_METRICS ? "metrics" : "");
    return out;
}
