/* actions.h: a list of edits of resource attributes, shared by the processors `resource` and
 * `attributes` (the Collector's attraction: insert, update, upsert, delete, hash, extract,
 * convert).
 *
 * Knows no encoding: the caller hands in flue_otlp_attribute_set. Constant actions that follow each
 * other with one mode are one pre-encoded set, made at create. The rest is done per resource.
 *
 * Patterns are POSIX extended regular expressions (regcomp) with what people write for the
 * Collector translated: named groups (?P<name>...) and (?<name>...), groups without capture
 * (?:...), a leading
 * (?i), and \d \D \w \W \s \S, also within brackets (\D \W \S not there). Lazy quantifiers,
 * look-around and back-references are refused when the configuration is read. The longest match
 * wins, as POSIX says, not the first alternative. Values over 4 KiB are not matched.
 */
#ifndef FLUE_PIPELINE_ACTIONS_H
#define FLUE_PIPELINE_ACTIONS_H

#include "collector/base/block.h"
#include "collector/component.h"

enum flue_action_kind {
    FLUE_ACTION_INSERT,
    FLUE_ACTION_UPDATE,
    FLUE_ACTION_UPSERT,
    FLUE_ACTION_DELETE,
    FLUE_ACTION_HASH,
    FLUE_ACTION_EXTRACT,
    FLUE_ACTION_CONVERT
};
struct flue_action_config {
    const char *key;
    int action; /* enum flue_action_kind */
    struct flue_value value;
    const char *from_attribute, *from_context, *pattern, *converted_type;
};
extern const struct flue_field flue_action_fields[];

/* `list`: of struct flue_action_config; `path`: the list's key, "actions". */
void flue_actions_check(const struct flue_list *list, const char *path, struct flue_check *check);

typedef enum flue_code (*flue_encode_attributes)(struct flue_arena *arena,
                                                 const struct flue_attribute *items, size_t count,
                                                 struct flue_attribute_set *out,
                                                 struct flue_error *error);
/* A set that lies whole in a block of its own (one reference, the caller's), so that payloads can
 * keep it alive. `arena` is for encoding only. */
enum flue_code flue_attribute_block(flue_encode_attributes encode, struct flue_arena *arena,
                                    const struct flue_attribute *items, size_t count,
                                    struct flue_attribute_set *set, struct flue_block **block,
                                    struct flue_error *error);

struct flue_actions;
/* The list outlives the actions. `loops`: how many loops will run them. */
enum flue_code flue_actions_new(const struct flue_list *list, unsigned loops,
                                flue_encode_attributes encode, struct flue_actions **out,
                                struct flue_error *error);
/* Edits every resource of `batch`, which must be writable. On that loop. */
enum flue_code flue_actions_run(struct flue_actions *actions, unsigned loop,
                                struct flue_batch *batch, struct flue_error *error);
void flue_actions_destroy(struct flue_actions *actions);

/* For the component of a processor whose instance is a struct flue_actions. push: makes the batch
 * writable, edits it and gives it on, or refuses the delivery. */
void flue_actions_push(struct flue_stage *stage, struct flue_batch *batch,
                       struct flue_delivery *delivery);
void flue_actions_destroy_instance(void *instance);

/* The pattern's translation, for tests: into `out`; names of its capturing groups by number, empty
 * where a group has none. */
#define FLUE_PATTERN_GROUPS 32
struct flue_pattern {
    char text[2048];
    char names[FLUE_PATTERN_GROUPS][128];
    unsigned groups;
    bool ignore_case;
};
enum flue_code flue_pattern_translate(const char *pattern, struct flue_pattern *out,
                                      struct flue_error *error);

#endif
