/* escape.h: keys and values in URLs. Pure functions.
 *
 * Source: SigV4's URI encoding, which is the strictest of all vendors': A-Z a-z 0-9 - _ . ~ stay,
 * every other byte is %XX in upper case, a blank is %20.
 */
#ifndef FLUE_ARCHIVE_ESCAPE_H
#define FLUE_ARCHIVE_ESCAPE_H

#include "collector/base/arena.h"
#include "collector/base/buffer.h"

struct flue_url_pair {
    struct flue_bytes name, value; /* not escaped */
};

/* `slash`: "/" stays. */
void flue_url_escape(struct flue_buffer *out, struct flue_bytes b, bool slash);
/* The pairs escaped, sorted by name and then value as they are escaped, "name=value" joined by "&":
 * SigV4's canonical query, which is also sent. At most 24 pairs. */
void flue_url_query(struct flue_buffer *out, const struct flue_url_pair *pairs, size_t count);
/* %XX to bytes ("+" stays); false: a "%" without two hex digits, or no memory. */
bool flue_url_unescape(struct flue_bytes text, struct flue_arena *arena, struct flue_bytes *out);

#endif
