/* rules.h: which subsystem a frame belongs to, and a stack.
 *
 * A rule names a subsystem and globs over a frame's function, package, file, mapping and type; a
 * frame belongs to the first rule of which any glob matches it. A stack belongs to the first of its
 * frames, seen from the leaf or from the root, that any rule takes. Rules marked `fallback` are
 * asked only about stacks that no other rule took: then the first rule wins that takes any frame.
 *
 * A *verdict* is the number of a rule in the order in which they are asked: those that are no
 * fallback first. Everything is compiled once and immutable: any thread.
 */
#ifndef SUBSYSTEM_RULES_H
#define SUBSYSTEM_RULES_H

#include "config/field.h"
#include "processors/subsystem/globs.h"

#define SUBSYSTEM_RULES_MAX 4096u /* with the built-in ones */
#define SUBSYSTEMS_MAX      128u  /* names, with the two below */
#define SUBSYSTEM_NAME_MAX  64u   /* bytes */
#define SUBSYSTEM_UNMATCHED 0u    /* the subsystem of what no rule takes: "unmatched" */
#define SUBSYSTEM_OTHER     1u    /* of what came marked with a name that no rule has: "other" */

struct subsystem_rule_config {
    const char *subsystem;
    struct flue_list function, package, file, mapping, frame_type; /* const char * */
    bool fallback;
};
extern const struct flue_field subsystem_rule_fields[];

/* The ready set for streaming, as a NULL-ended table: builtin.c. */
struct subsystem_builtin {
    const char *subsystem;
    bool fallback;
    /* Each NULL-ended. */
    const char *const *function, *const *package, *const *file, *const *mapping, *const *frame_type;
};
extern const struct subsystem_builtin subsystem_builtin[];

struct subsystem_rules;

/* `rules`: of struct subsystem_rule_config, asked before the built-in ones. Lives in `arena`. */
enum flue_code subsystem_rules_new(const struct flue_list *rules, bool builtin, bool root_first,
                                   struct flue_arena *arena, struct subsystem_rules **out,
                                   struct flue_error *error);
/* `path`: the list's key. */
void subsystem_rules_check(const struct flue_list *rules, bool builtin, const char *path,
                           struct flue_check *check);

/* Verdicts about one row of a table each; SUBSYSTEM_NONE: no rule. */
uint16_t subsystem_of_function(const struct subsystem_rules *rules, struct flue_bytes name,
                               struct flue_bytes system_name);
uint16_t subsystem_of_file(const struct subsystem_rules *rules, struct flue_bytes path);
uint16_t subsystem_of_mapping(const struct subsystem_rules *rules, struct flue_bytes path);
uint16_t subsystem_of_frame_type(const struct subsystem_rules *rules, struct flue_bytes type);

/* Verdicts of frames, or of the lines of a location, put together one by one from the leaf on;
 * true: nothing that follows can change it. */
bool subsystem_join(const struct subsystem_rules *rules, uint16_t *sum, uint16_t frame);

/* Numbers of subsystems: SUBSYSTEM_UNMATCHED, SUBSYSTEM_OTHER, then those of the rules. */
uint8_t subsystem_of_verdict(const struct subsystem_rules *rules, uint16_t verdict);
size_t subsystem_count(const struct subsystem_rules *rules);
const char *subsystem_name(const struct subsystem_rules *rules, size_t subsystem);
/* By its name; SUBSYSTEM_OTHER when no rule has it. */
uint8_t subsystem_by_name(const struct subsystem_rules *rules, struct flue_bytes name);

#endif
