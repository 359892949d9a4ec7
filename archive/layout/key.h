/* key.h: text from the network as one element of a key, a path or a file name.
 *
 * Letters, digits, '_', '-', '=' and a '.' that is not first stand for themselves; every other byte
 * is %XX. Empty becomes "%". Over FLUE_KEY_ELEMENT bytes it is cut and ends in "~" and eight digits
 * of its SHA-256, so that different texts stay different. No element can be "." or ".." or hold a
 * '/'.
 */
#ifndef FLUE_ARCHIVE_KEY_H
#define FLUE_ARCHIVE_KEY_H

#include "collector/base/arena.h"

#define FLUE_KEY_ELEMENT      180
#define FLUE_KEY_ELEMENT_ROOM (FLUE_KEY_ELEMENT + 16)
#define FLUE_WRITER_LOOP      "~" /* between a writer's name and its loop; in no short element */
#define FLUE_TENANT_NONE      "anonymous"       /* stands where a profile has no tenant */
#define FLUE_SERVICE_NONE     "unknown_service" /* and no service */

/* Terminated; returns its length. */
size_t flue_key_element(struct flue_bytes text, char out[FLUE_KEY_ELEMENT_ROOM]);
/* The text of an element again, in `arena`; NULL data where it was cut, or without memory. */
struct flue_bytes flue_key_element_text(struct flue_bytes element, struct flue_arena *arena);

/* The time by which a profile is put away: its own, or that of receipt where it has none (zero,
 * negative). */
static inline uint64_t flue_key_time(uint64_t profile_ns, uint64_t received_ns)
{
    return (int64_t)profile_ns > 0 ? profile_ns : received_ns;
}

/* A prefix that people write ("/team//a/"): without empty parts, "." and "..", with one '/' behind
 * it; empty stays empty. NULL without memory. */
char *flue_key_prefix(struct flue_arena *arena, const char *text);

#endif
