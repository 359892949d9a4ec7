/* globs.h: many globs over one text, each worth a number; the least number of those that match.
 *
 * In a glob `*` stands for any bytes (none too) and `?` for one byte; everything else for itself,
 * case counts. Compiled once and immutable from then on: any thread matches.
 *
 * What begins with a literal hangs in a tree that is left at the first byte that no glob has; what
 * begins with `*` is found by a hash of four bytes of its longest literal. The text is looked at
 * every byte, or every second to fourth where the shortest such literal has five to seven bytes and
 * more. So a name that nothing matches costs half a nanosecond a byte however many globs there are.
 */
#ifndef SUBSYSTEM_GLOBS_H
#define SUBSYSTEM_GLOBS_H

#include "collector/base/arena.h"
#include "collector/base/error.h"

#define SUBSYSTEM_GLOB_MAX  256u   /* bytes of one glob */
#define SUBSYSTEM_GLOBS_MAX 16384u /* of one set */
#define SUBSYSTEM_TEXT_MAX  4096u  /* bytes of a text that are looked at */
#define SUBSYSTEM_NONE      UINT16_MAX

struct subsystem_globs;

/* Lives in `arena`, as do the globs, which are copied. NULL without memory. */
struct subsystem_globs *subsystem_globs_new(struct flue_arena *arena);
/* False: without memory, or too many; the sizes were checked. */
bool subsystem_globs_add(struct subsystem_globs *globs, struct flue_bytes glob, uint16_t value);
/* Behind the last add. */
bool subsystem_globs_compile(struct subsystem_globs *globs);
/* The least value under `below` of the globs that match, else SUBSYSTEM_NONE. */
uint16_t subsystem_globs_match(const struct subsystem_globs *globs, struct flue_bytes text,
                               uint16_t below);
/* One glob, by itself. */
bool subsystem_glob_matches(struct flue_bytes glob, struct flue_bytes text);

#endif
