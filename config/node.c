/* node.c: the tree, and what a plain scalar means. */
#include "config/node.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

struct flue_node *flue_node_new(struct flue_tree *tree, enum flue_node_type type,
                                const struct flue_position *position)
{
    if (tree->nodes >= FLUE_YAML_MAX_NODES)
        return NULL;
    struct flue_node *node = flue_arena_zalloc(tree->arena, 1, sizeof *node);
    if (!node)
        return NULL;
    tree->nodes++;
    node->type = type;
    node->position = *position;
    return node;
}

struct flue_node *flue_node_scalar(struct flue_tree *tree, const char *text,
                                   const struct flue_position *position)
{
    struct flue_node *node = flue_node_new(tree, FLUE_NODE_STRING, position);
    if (!node)
        return NULL;
    node->text = flue_arena_string(tree->arena, flue_bytes_of(text));
    if (!node->text)
        return NULL;
    flue_node_resolve(node);
    return node;
}

struct flue_node *flue_node_copy(struct flue_tree *tree, const struct flue_node *from)
{
    struct flue_node *node = flue_node_new(tree, from->type, &from->position);
    if (!node)
        return NULL;
    node->expanded = from->expanded;
    node->text = from->text;
    if (from->type == FLUE_NODE_MAP) {
        for (size_t i = 0; i < from->count; i++) {
            const struct flue_node_entry *entry = &from->entries[i];
            struct flue_node *copy = flue_node_copy(tree, entry->node);
            if (!copy || !flue_node_put(tree, node, entry->key, &entry->position, copy))
                return NULL;
        }
    } else if (from->type == FLUE_NODE_LIST) {
        for (size_t i = 0; i < from->count; i++) {
            struct flue_node *copy = flue_node_copy(tree, from->items[i]);
            if (!copy || !flue_node_append(tree, node, copy))
                return NULL;
        }
    } else if (from->type == FLUE_NODE_BOOL) {
        node->boolean = from->boolean;
    } else if (from->type == FLUE_NODE_INT) {
        node->integer = from->integer;
    } else if (from->type == FLUE_NODE_FLOAT) {
        node->number = from->number;
    }
    return node;
}

struct flue_node_entry *flue_node_find(const struct flue_node *map, const char *key)
{
    if (!map || map->type != FLUE_NODE_MAP)
        return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->entries[i].key, key) == 0)
            return &map->entries[i];
    return NULL;
}

bool flue_node_put(struct flue_tree *tree, struct flue_node *map, const char *key,
                   const struct flue_position *position, struct flue_node *node)
{
    struct flue_node_entry *entry = flue_node_find(map, key);
    if (entry) {
        entry->node = node;
        entry->position = *position;
        return true;
    }
    struct flue_node_entry fresh = {.key = key, .position = *position, .node = node};
    return FLUE_ARENA_PUSH(tree->arena, map->entries, map->count, map->room, fresh);
}

bool flue_node_append(struct flue_tree *tree, struct flue_node *list, struct flue_node *node)
{
    return FLUE_ARENA_PUSH(tree->arena, list->items, list->count, list->room, node);
}

static bool one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

/* Go's strconv.ParseInt(text, 0, 64) after underscores are taken out. */
static bool read_integer(const char *text, int64_t *out)
{
    char digits[80];
    size_t n = 0;
    for (const char *c = text; *c; c++) {
        if (*c == '_')
            continue;
        if (n + 1 == sizeof digits)
            return false;
        digits[n++] = *c;
    }
    digits[n] = 0;
    const char *at = digits;
    bool negative = false;
    if (*at == '-' || *at == '+')
        negative = *at++ == '-';
    int base = 10;
    if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X')) {
        base = 16;
        at += 2;
    } else if (at[0] == '0' && (at[1] == 'b' || at[1] == 'B')) {
        base = 2;
        at += 2;
    } else if (at[0] == '0' && (at[1] == 'o' || at[1] == 'O')) {
        base = 8;
        at += 2;
    } else if (at[0] == '0' && at[1]) {
        base = 8;
        at += 1;
    }
    if (!*at)
        return false;
    uint64_t value = 0;
    for (; *at; at++) {
        int digit = *at >= '0' && *at <= '9'   ? *at - '0'
                    : *at >= 'a' && *at <= 'f' ? *at - 'a' + 10
                    : *at >= 'A' && *at <= 'F' ? *at - 'A' + 10
                                               : 99;
        if (digit >= base || value > (UINT64_MAX - (uint64_t)digit) / (uint64_t)base)
            return false;
        value = value * (uint64_t)base + (uint64_t)digit;
    }
    if (value > (uint64_t)INT64_MAX + (negative ? 1 : 0))
        return false;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

/* ^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$ */
static bool read_float(const char *text, double *out)
{
    const char *at = text;
    if (*at == '-' || *at == '+')
        at++;
    size_t whole = strspn(at, "0123456789");
    at += whole;
    if (*at == '.') {
        at++;
        size_t part = strspn(at, "0123456789");
        if (whole == 0 && part == 0)
            return false;
        at += part;
    } else if (whole == 0) {
        return false;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        if (*at == '-' || *at == '+')
            at++;
        size_t power = strspn(at, "0123456789");
        if (power == 0)
            return false;
        at += power;
    }
    if (*at)
        return false;
    *out = strtod(text, NULL);
    return true;
}

void flue_node_resolve(struct flue_node *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    static const char *const infinities[] = {".inf",  ".Inf",  ".INF", "+.inf",
                                             "+.Inf", "+.INF", NULL};
    static const char *const negatives[] = {"-.inf", "-.Inf", "-.INF", NULL};
    static const char *const nans[] = {".nan", ".NaN", ".NAN", NULL};
    const char *text = node->text;
    node->type = FLUE_NODE_STRING;
    if (one_of(text, nulls)) {
        node->type = FLUE_NODE_NULL;
    } else if (one_of(text, trues) || one_of(text, falses)) {
        node->type = FLUE_NODE_BOOL;
        node->boolean = *text == 't' || *text == 'T';
    } else if (read_integer(text, &node->integer)) {
        node->type = FLUE_NODE_INT;
    } else if (read_float(text, &node->number)) {
        node->type = FLUE_NODE_FLOAT;
    } else if (one_of(text, infinities) || one_of(text, negatives)) {
        node->type = FLUE_NODE_FLOAT;
        node->number = *text == '-' ? -HUGE_VAL : HUGE_VAL;
    } else if (one_of(text, nans)) {
        node->type = FLUE_NODE_FLOAT;
        node->number = NAN;
    }
}

const char *flue_node_type_name(enum flue_node_type type)
{
    static const char *const names[] = {
        [FLUE_NODE_NULL] = "nothing",    [FLUE_NODE_BOOL] = "a boolean",
        [FLUE_NODE_INT] = "a number",    [FLUE_NODE_FLOAT] = "a number",
        [FLUE_NODE_STRING] = "a string", [FLUE_NODE_MAP] = "a map",
        [FLUE_NODE_LIST] = "a list",
    };
    return names[type];
}

struct flue_position flue_entry_position(const struct flue_node_entry *entry)
{
    switch (entry->node->type) {
    case FLUE_NODE_BOOL:
    case FLUE_NODE_INT:
    case FLUE_NODE_FLOAT:
    case FLUE_NODE_STRING:
        return entry->node->position;
    default:
        return entry->position;
    }
}
