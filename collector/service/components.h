/* components.h: every component that the build found, and finding one by the name in a file. */
#ifndef FLUE_SERVICE_COMPONENTS_H
#define FLUE_SERVICE_COMPONENTS_H

#include "collector/component.h"
#include "config/check.h"

/* Made by the build (generated/components.c): the folders receivers/NAME, processors/NAME, ... in
 * order, NULL at the end. */
extern const struct flue_component *const flue_components[];

/* "receiver"; the section of a file is its plural. */
const char *flue_kind_name(enum flue_kind kind);
const char *flue_stability_name(enum flue_stability stability);

/* By name or deprecated alias; `*deprecated` says which. NULL: none of that kind. */
const struct flue_component *flue_component_find(const struct flue_component *const *components,
                                                 enum flue_kind kind, const char *name,
                                                 bool *deprecated);
/* Offers every name of a kind. */
void flue_components_offer(const struct flue_component *const *components, enum flue_kind kind,
                           struct flue_nearest *nearest);
/* "profiles, traces" for a set of enum flue_signal; `out` holds 32 bytes. */
const char *flue_signals_text(unsigned signals, char *out);

#endif
