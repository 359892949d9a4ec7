/* bind.h: from nodes to a component's struct by its field table.
 *
 * Types are strict, as in the Collector (no weak typing): a quoted number is no number. The one
 * exception is its own: a value that came whole from ${...} may be a string whatever it looks like.
 * A null value is the default. Every mistake is collected with its place; binding goes on behind
 * it. Strings and nested structs live in the check's arena. Main thread.
 */
#ifndef FLUE_CONFIG_BIND_H
#define FLUE_CONFIG_BIND_H

#include "config/check.h"

/* Several tables may share one block (a component's own fields and the engine's). */
struct flue_binding {
    const struct flue_field *fields;
    void *out; /* zeroed, as large as the table's struct */
};

/* `node`: the block's map, or NULL or a null node for "all defaults"; its flags for printing are
 * set. `path` is how messages call it ("exporters.pyroscope/media"); `at` its place when `node` has
 * none. Leaves `check` entered at this block, so that a component's check function can follow.
 * False: there was a mistake. */
bool flue_bind(struct flue_check *check, struct flue_node *node, const char *path,
               struct flue_position at, const struct flue_binding *bindings, size_t count);

/* For tests and tools: the struct that this YAML gives (no expansion), or NULL with mistakes. */
void *flue_bind_yaml(struct flue_check *check, const char *yaml, const struct flue_field *fields,
                     size_t size);

/* Offers every key of a table, squashed ones too. */
void flue_fields_offer(const struct flue_field *fields, struct flue_nearest *nearest);

/* The tables that squash a table, from the inside out: does one have a row of its own for this key?
 * (FLUE_SQUASH; `outer` may be NULL) */
struct flue_squash {
    const struct flue_field *fields;
    const struct flue_squash *outer;
};
bool flue_field_hidden(const struct flue_squash *outer, const char *name);

#endif
