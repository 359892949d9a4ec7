/* check.h: every mistake of a configuration, with its place, and the nearest right name.
 *
 * Loading, binding, the components' own checks and the graph all write into one flue_check; who
 * asked for it (flue validate, flue run) prints the whole. Bounded: after FLUE_CHECK_MAX the rest
 * is only counted. Main thread.
 */
#ifndef FLUE_CONFIG_CHECK_H
#define FLUE_CONFIG_CHECK_H

#include "collector/base/buffer.h"
#include "config/node.h"

#define FLUE_CHECK_MAX 500u

struct flue_mistake {
    struct flue_position position;
    const char *text;
    uint32_t order; /* of discovery, for equal positions */
    bool warning;
};

struct flue_check {
    struct flue_arena *arena;
    struct flue_mistake *items;
    size_t count, room;
    size_t mistakes, warnings; /* also those beyond the maximum */
    /* The block that flue_check_fail's paths are in. */
    const struct flue_node *node;
    const char *path;
    struct flue_position at;
};

/* `arena` outlives the check: texts live in it. */
void flue_check_init(struct flue_check *check, struct flue_arena *arena);
/* The block that follows is `node` (may be NULL), called `path` in messages, at `at`. */
void flue_check_enter(struct flue_check *check, const struct flue_node *node, const char *path,
                      struct flue_position at);
void flue_mistake_at(struct flue_check *check, struct flue_position position, const char *format,
                     ...) __attribute__((format(printf, 3, 4)));
void flue_warning_at(struct flue_check *check, struct flue_position position, const char *format,
                     ...) __attribute__((format(printf, 3, 4)));
/* One line each, "file:line:column: text", in the order of the files; warnings say "warning: ". */
void flue_check_print(struct flue_check *check, struct flue_buffer *out);

/* The nearest of several names: start with {.word = w}, offer every candidate, read `best` (NULL
 * when none is near enough to be meant). */
struct flue_nearest {
    const char *word;
    const char *best;
    size_t distance;
};
void flue_nearest_offer(struct flue_nearest *nearest, const char *candidate);
/* " (did you mean \"x\"?)" in the arena, or "". */
const char *flue_nearest_hint(const struct flue_nearest *nearest, struct flue_arena *arena);

#endif
