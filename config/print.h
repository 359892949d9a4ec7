/* print.h: a tree as canonical YAML or JSON, which reads again to the same tree.
 *
 * Order is the files'. What was bound to a string is written as its text, in quotes where it would
 * read as something else; "$" is written "$$". Secrets (by the type of their field) are [REDACTED],
 * as are the passwords of URLs, and what stands under an ignored key and is named like a secret.
 */
#ifndef FLUE_CONFIG_PRINT_H
#define FLUE_CONFIG_PRINT_H

#include "collector/base/buffer.h"
#include "config/node.h"

#define FLUE_REDACTED "[REDACTED]"

void flue_node_print_yaml(const struct flue_node *node, bool redact, struct flue_buffer *out);
void flue_node_print_json(const struct flue_node *node, bool redact, struct flue_buffer *out);

#endif
