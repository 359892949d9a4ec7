/* describe.h: a field table as text for people: `flue components --help` and docs/components.md. */
#ifndef FLUE_CONFIG_DESCRIBE_H
#define FLUE_CONFIG_DESCRIBE_H

#include "collector/base/buffer.h"
#include "config/field.h"

/* One row per key, nested keys with their path ("protocols.grpc.endpoint", "attributes[].key"):
 * type, default, bounds with unit, help. `prefix` stands before every path. */
void flue_fields_text(const struct flue_field *fields, const char *prefix, struct flue_buffer *out);
/* The same as rows of a Markdown table (the head is the caller's: key, type, default, meaning). */
void flue_fields_markdown(const struct flue_field *fields, const char *prefix,
                          struct flue_buffer *out);

#endif
