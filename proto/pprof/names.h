/* names.h: label names of Pyroscope and attribute names of OpenTelemetry, both ways.
 *
 * One table of pairs, exact in both directions: "service_name" is "service.name". A label that is
 * not in the table is shown as an attribute under its own name ("region"). An attribute that is not
 * in the table becomes a label by the general rule: every byte but [a-zA-Z0-9_] becomes "_", a
 * leading digit gets a "_" before it, and several "_" at the start become one; the payload
 * remembers which attribute a label was made from, so the view still shows "team.cost.center", but
 * once such a label has left flue, it comes back as "team_cost_center". Labels that begin with "__"
 * are identity and no attributes.
 */
#ifndef PROTO_PPROF_NAMES_H
#define PROTO_PPROF_NAMES_H

#include "collector/base/arena.h"
#include "collector/base/attribute.h"

/* The attribute of a label: a static string of the table, or `label` itself. */
struct flue_bytes flue_label_attribute(struct flue_bytes label);
/* The label of an attribute: a static string, or `attribute` itself, or (general rule) a copy in
 * `arena`; NULL data without memory, and without `arena` (NULL) where a copy would be needed. */
struct flue_bytes flue_attribute_label(struct flue_bytes attribute, struct flue_arena *arena);
/* The general rule alone, into `out` (attribute.size + 1 bytes); the size. */
size_t flue_attribute_label_write(struct flue_bytes attribute, uint8_t *out);
static inline bool flue_label_is_identity(struct flue_bytes label)
{
    return label.size >= 2 && label.data[0] == '_' && label.data[1] == '_';
}

/* An attribute's value as a label's text: numbers in decimal, an array of one as that one, bytes as
 * base64, other arrays and maps as JSON. Borrowed or in `arena`; NULL data without memory or when
 * the value is broken or nested too deep. */
struct flue_bytes flue_label_text(const struct flue_value *value, struct flue_arena *arena);

#endif
