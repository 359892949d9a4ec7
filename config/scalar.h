/* scalar.h: one scalar node to one member, with its bounds; the leaf half of bind.c. */
#ifndef FLUE_CONFIG_SCALAR_H
#define FLUE_CONFIG_SCALAR_H

#include "config/check.h"

/* Writes the member at `out`; on a mistake it is said at `at` under the name `path` and the member
 * is left zero. The node is not null. */
bool flue_bind_scalar(struct flue_check *check, const struct flue_field *field,
                      struct flue_node *node, const char *path, struct flue_position at, void *out);
bool flue_field_is_scalar(enum flue_field_type type);
/* A node as the text of a string, or NULL (said) when it is not one. */
const char *flue_bind_text(struct flue_check *check, struct flue_node *node, const char *path,
                           struct flue_position at, bool secret);
/* "10s", "64 MiB", "1000 requests": a bound as a person writes it. */
const char *flue_bound_text(const struct flue_field *field, int64_t value, char *out, size_t size);

#endif
