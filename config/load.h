/* load.h: from --config and --set to one tree: read, merged left to right, expanded.
 *
 * Source of facts: OpenTelemetry Collector confmap (expand.go, resolver.go, provider/). A source is
 * "file:PATH", "env:NAME", "yaml:TEXT" or a bare path. Maps merge deeply; lists and scalars are
 * replaced; a null map erases. "::" in a top-level key separates keys. Then values are expanded:
 *
 *   ${env:NAME} ${env:NAME:-default} ${NAME} ${NAME:-default} ${file:PATH} ${yaml:TEXT}
 *
 * References nest ("${env:A:-${env:B}}", resolved from the inside out), and what they give is
 * expanded again, at most FLUE_EXPAND_ROUNDS times. A value that is one whole reference is parsed
 * as YAML and may become any type, while a string field gets the text as it was (without the line
 * ends at the end of a file). An odd number of $ before "${" makes it plain text; at the end every
 * "$$" becomes "$". Keys are not expanded. A variable that is not set and has no default is empty,
 * with a warning.
 */
#ifndef FLUE_CONFIG_LOAD_H
#define FLUE_CONFIG_LOAD_H

#include "config/check.h"

#define FLUE_EXPAND_ROUNDS    1000
#define FLUE_EXPAND_MAX_BYTES (1u << 20) /* of one value */
#define FLUE_EXPAND_TOTAL     20000      /* references of the whole configuration */
#define FLUE_EXPAND_MAX_DEPTH 96

struct flue_sources {
    const char *const *configs; /* as given to --config, in order */
    size_t config_count;
    const char *const *sets; /* "a.b.c=v" or "a::b.c::d=v" (then only "::" separates) */
    size_t set_count;
};

/* The map of the whole configuration. NULL when a mistake makes it unreadable; other mistakes (an
 * expansion that fails) are in `check` and leave the value as it was written. */
struct flue_node *flue_config_load(struct flue_tree *tree, const struct flue_sources *sources,
                                   struct flue_check *check);

/* The two steps, for those who have a tree already. Merging moves `from`'s nodes into `into`. */
bool flue_node_merge(struct flue_tree *tree, struct flue_node *into, const struct flue_node *from);
void flue_node_expand(struct flue_tree *tree, struct flue_node *node, struct flue_check *check);

/* Reads a whole file of at most FLUE_YAML_MAX_BYTES into the arena; false with the reason. */
bool flue_config_read_file(struct flue_arena *arena, const char *path, struct flue_bytes *out,
                           const char **reason);

#endif
