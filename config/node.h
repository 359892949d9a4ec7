/* node.h: a configuration file as a tree that still knows where everything stood.
 *
 * Nodes live in the arena of their tree and are changed in place by expansion and merging (load.h),
 * then read by binding (bind.h) and printing (print.h). Main thread only.
 *
 * Source of facts: gopkg.in/yaml.v3, which is what the OpenTelemetry Collector reads a file with:
 * yes, no, on and off are strings, 0777 and 0o777 are octal, 1_000 is a number.
 */
#ifndef FLUE_CONFIG_NODE_H
#define FLUE_CONFIG_NODE_H

#include "collector/base/arena.h"
#include "config/field.h"

#define FLUE_YAML_MAX_BYTES   (4u << 20) /* of one file */
#define FLUE_YAML_MAX_DEPTH   64
#define FLUE_YAML_MAX_NODES   100000u /* of all files; aliases counted as often as used */
#define FLUE_YAML_MAX_ENTRIES 4096u   /* keys of one map */

struct flue_check;

enum flue_node_type {
    FLUE_NODE_NULL,
    FLUE_NODE_BOOL,
    FLUE_NODE_INT,
    FLUE_NODE_FLOAT,
    FLUE_NODE_STRING,
    FLUE_NODE_MAP,
    FLUE_NODE_LIST
};

struct flue_node_entry {
    const char *key;
    struct flue_position position; /* of the key */
    struct flue_node *node;
    bool used; /* binding found a field for it */
};

struct flue_node {
    enum flue_node_type type;
    bool expanded; /* was one whole ${...}: `text` is what a string field gets, whatever the type */
    bool as_text;  /* bound to a string: printed as `text` */
    bool secret;   /* bound to a secret: printed as [REDACTED] */
    struct flue_position position;
    const char *text; /* scalars, and everything `expanded`: as written */
    union {
        bool boolean;
        int64_t integer;
        double number;
    };
    struct flue_node_entry *entries; /* MAP */
    struct flue_node **items;        /* LIST */
    size_t count, room;
};

struct flue_tree {
    struct flue_arena *arena;
    size_t nodes;
};

/* NULL when the arena or the number of nodes is used up. */
struct flue_node *flue_node_new(struct flue_tree *tree, enum flue_node_type type,
                                const struct flue_position *position);
/* A scalar from plain text, typed as YAML does. */
struct flue_node *flue_node_scalar(struct flue_tree *tree, const char *text,
                                   const struct flue_position *position);
struct flue_node *flue_node_copy(struct flue_tree *tree, const struct flue_node *node);
struct flue_node_entry *flue_node_find(const struct flue_node *map, const char *key);
/* Puts `node` under `key`, in the place of what is there. False without memory. */
bool flue_node_put(struct flue_tree *tree, struct flue_node *map, const char *key,
                   const struct flue_position *position, struct flue_node *node);
bool flue_node_append(struct flue_tree *tree, struct flue_node *list, struct flue_node *node);
/* Sets type and value of a scalar from its text (plain style). */
void flue_node_resolve(struct flue_node *node);
/* "a map", "the string", ... for messages. */
const char *flue_node_type_name(enum flue_node_type type);
/* Where a person looks for this entry: the value if it is a scalar, else the key. */
struct flue_position flue_entry_position(const struct flue_node_entry *entry);

/* One YAML document (an empty one is a null node). Every node gets the position in `file`, or `at`
 * when that is given (text that came from an environment variable). On a mistake: NULL, and the
 * mistake in `check` unless that is NULL. Aliases are copied; merge keys (<<) are applied. */
struct flue_node *flue_yaml_parse(struct flue_tree *tree, const char *file, struct flue_bytes text,
                                  const struct flue_position *at, struct flue_check *check);

#endif
