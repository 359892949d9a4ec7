/* yaml.c: libyaml's events to nodes, with every growth bounded. */
#include <yaml.h>

#include "config/check.h"

struct anchor {
    const char *name;
    struct flue_node *node;
};

struct reader {
    yaml_parser_t parser;
    struct flue_tree *tree;
    struct flue_check *check; /* may be NULL */
    const char *file;
    const struct flue_position *at;
    struct anchor *anchors;
    size_t anchor_count, anchor_room;
    bool failed;
};

static struct flue_position position_of(const struct reader *r, yaml_mark_t mark)
{
    if (r->at)
        return *r->at;
    return (struct flue_position){r->file, (unsigned)mark.line + 1, (unsigned)mark.column + 1};
}

#define refuse(r, mark, ...)                                                                       \
    do {                                                                                           \
        if ((r)->check && !(r)->failed)                                                            \
            flue_mistake_at((r)->check, position_of((r), (mark)), __VA_ARGS__);                    \
        (r)->failed = true;                                                                        \
    } while (0)

static void refuse_full(struct reader *r, yaml_mark_t mark)
{
    refuse(r, mark, "the configuration has more than %u values (aliases counted as often as used)",
           FLUE_YAML_MAX_NODES);
}

static bool next(struct reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event))
        return true;
    yaml_mark_t mark = r->parser.problem_mark;
    refuse(r, mark, "not valid YAML: %s%s%s",
           r->parser.problem ? r->parser.problem : "the text is not UTF-8",
           r->parser.context ? " " : "", r->parser.context ? r->parser.context : "");
    return false;
}

static void remember(struct reader *r, const yaml_char_t *name, struct flue_node *node,
                     yaml_mark_t mark)
{
    if (!name)
        return;
    struct anchor anchor = {
        .name = flue_arena_string(r->tree->arena, flue_bytes_of((const char *)name)), .node = node};
    if (!anchor.name ||
        !FLUE_ARENA_PUSH(r->tree->arena, r->anchors, r->anchor_count, r->anchor_room, anchor))
        refuse_full(r, mark);
}

static struct flue_node *read_alias(struct reader *r, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    for (size_t i = r->anchor_count; i-- > 0;) {
        if (strcmp(r->anchors[i].name, name) != 0)
            continue;
        if (!r->anchors[i].node) {
            refuse(r, event->start_mark, "the anchor \"%s\" contains itself", name);
            return NULL;
        }
        struct flue_node *copy = flue_node_copy(r->tree, r->anchors[i].node);
        if (!copy)
            refuse_full(r, event->start_mark);
        return copy;
    }
    refuse(r, event->start_mark, "the alias \"*%s\" has no anchor before it", name);
    return NULL;
}

static struct flue_node *read_scalar(struct reader *r, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    const char *tag = (const char *)event->data.scalar.tag;
    if (strlen(text) != event->data.scalar.length) {
        refuse(r, event->start_mark, "a value holds a NUL character");
        return NULL;
    }
    struct flue_position at = position_of(r, event->start_mark);
    struct flue_node *node = flue_node_scalar(r->tree, text, &at);
    if (!node) {
        refuse_full(r, event->start_mark);
        return NULL;
    }
    static const struct {
        const char *tag;
        enum flue_node_type type;
    } tags[] = {{YAML_STR_TAG, FLUE_NODE_STRING},
                {YAML_INT_TAG, FLUE_NODE_INT},
                {YAML_FLOAT_TAG, FLUE_NODE_FLOAT},
                {YAML_BOOL_TAG, FLUE_NODE_BOOL},
                {YAML_NULL_TAG, FLUE_NODE_NULL}};
    if (!tag || strcmp(tag, "!") == 0) {
        if (tag || event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
            node->type = FLUE_NODE_STRING;
        return node;
    }
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        if (strcmp(tag, tags[i].tag) != 0)
            continue;
        if (tags[i].type == FLUE_NODE_FLOAT && node->type == FLUE_NODE_INT) {
            node->number = (double)node->integer;
            node->type = FLUE_NODE_FLOAT;
        }
        if (tags[i].type == FLUE_NODE_STRING)
            node->type = FLUE_NODE_STRING;
        if (node->type == tags[i].type)
            return node;
        refuse(r, event->start_mark, "the value does not fit its tag %s", tag);
        return NULL;
    }
    refuse(r, event->start_mark, "the tag %s is not known here; leave it out", tag);
    return NULL;
}

static struct flue_node *read_node(struct reader *r, yaml_event_t *event, unsigned depth);

static struct flue_node *read_list(struct reader *r, yaml_event_t *start, unsigned depth)
{
    struct flue_position at = position_of(r, start->start_mark);
    struct flue_node *list = flue_node_new(r->tree, FLUE_NODE_LIST, &at);
    size_t slot = r->anchor_count;
    if (!list) {
        refuse_full(r, start->start_mark);
        return NULL;
    }
    remember(r, start->data.sequence_start.anchor, NULL, start->start_mark);
    bool anchored = r->anchor_count > slot;
    while (!r->failed) {
        yaml_event_t event;
        if (!next(r, &event))
            return NULL;
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            if (anchored)
                r->anchors[slot].node = list;
            return list;
        }
        struct flue_node *item = read_node(r, &event, depth + 1);
        if (item && !flue_node_append(r->tree, list, item))
            refuse_full(r, event.start_mark);
        yaml_event_delete(&event);
    }
    return NULL;
}

/* "<<: *defaults" or a list of such: keys that the map does not have itself. */
static void apply_merge(struct reader *r, struct flue_node *map, const struct flue_node *from,
                        yaml_mark_t mark)
{
    if (from->type == FLUE_NODE_LIST) {
        for (size_t i = 0; i < from->count && !r->failed; i++) {
            if (from->items[i]->type == FLUE_NODE_LIST)
                refuse(r, mark, "\"<<\" takes a map or a list of maps");
            else
                apply_merge(r, map, from->items[i], mark);
        }
        return;
    }
    if (from->type != FLUE_NODE_MAP) {
        refuse(r, mark, "\"<<\" takes a map or a list of maps");
        return;
    }
    for (size_t i = 0; i < from->count; i++)
        if (!flue_node_find(map, from->entries[i].key) &&
            !flue_node_put(r->tree, map, from->entries[i].key, &from->entries[i].position,
                           from->entries[i].node))
            refuse_full(r, mark);
}

static void read_entry(struct reader *r, struct flue_node *map, struct flue_node **merge,
                       yaml_event_t *event, unsigned depth)
{
    struct flue_position at = position_of(r, event->start_mark);
    if (event->type != YAML_SCALAR_EVENT) {
        refuse(r, event->start_mark, "a key must be a plain word, not a map, list or alias");
        return;
    }
    struct flue_bytes text = flue_bytes(event->data.scalar.value, event->data.scalar.length);
    const char *key = flue_arena_string(r->tree->arena, text);
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (!key || strlen(key) != text.size) {
        refuse(r, event->start_mark, "a key holds a NUL character");
        return;
    }
    const struct flue_node_entry *before = flue_node_find(map, key);
    if (before) {
        refuse(r, event->start_mark, "the key \"%s\" stands here twice (first in line %u)", key,
               before->position.line);
        return;
    }
    if (map->count >= FLUE_YAML_MAX_ENTRIES) {
        refuse(r, event->start_mark, "a map has more than %u keys", FLUE_YAML_MAX_ENTRIES);
        return;
    }
    yaml_event_t value;
    if (!next(r, &value))
        return;
    struct flue_node *node = read_node(r, &value, depth + 1);
    if (node && plain && strcmp(key, "<<") == 0)
        *merge = node;
    else if (node && !flue_node_put(r->tree, map, key, &at, node))
        refuse_full(r, value.start_mark);
    yaml_event_delete(&value);
}

static struct flue_node *read_map(struct reader *r, yaml_event_t *start, unsigned depth)
{
    struct flue_position at = position_of(r, start->start_mark);
    struct flue_node *map = flue_node_new(r->tree, FLUE_NODE_MAP, &at), *merge = NULL;
    size_t slot = r->anchor_count;
    if (!map) {
        refuse_full(r, start->start_mark);
        return NULL;
    }
    remember(r, start->data.mapping_start.anchor, NULL, start->start_mark);
    bool anchored = r->anchor_count > slot;
    while (!r->failed) {
        yaml_event_t event;
        if (!next(r, &event))
            return NULL;
        if (event.type == YAML_MAPPING_END_EVENT) {
            if (merge)
                apply_merge(r, map, merge, event.start_mark);
            yaml_event_delete(&event);
            if (anchored)
                r->anchors[slot].node = map;
            return r->failed ? NULL : map;
        }
        read_entry(r, map, &merge, &event, depth);
        yaml_event_delete(&event);
    }
    return NULL;
}

static struct flue_node *read_node(struct reader *r, yaml_event_t *event, unsigned depth)
{
    if (depth > FLUE_YAML_MAX_DEPTH) {
        refuse(r, event->start_mark, "nested deeper than %d levels", FLUE_YAML_MAX_DEPTH);
        return NULL;
    }
    struct flue_node *node = NULL;
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return read_alias(r, event);
    case YAML_SCALAR_EVENT:
        node = read_scalar(r, event);
        if (node)
            remember(r, event->data.scalar.anchor, node, event->start_mark);
        return node;
    case YAML_SEQUENCE_START_EVENT:
        return read_list(r, event, depth);
    case YAML_MAPPING_START_EVENT:
        return read_map(r, event, depth);
    default:
        refuse(r, event->start_mark, "not valid YAML: a value is missing");
        return NULL;
    }
}

static struct flue_node *read_document(struct reader *r)
{
    struct flue_node *root = NULL;
    bool more = true;
    while (more && !r->failed) {
        yaml_event_t event;
        if (!next(r, &event))
            return NULL;
        switch (event.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (root)
                refuse(r, event.start_mark, "a second YAML document: one file holds one");
            break;
        case YAML_STREAM_END_EVENT:
            more = false;
            break;
        default:
            root = read_node(r, &event, 1);
            break;
        }
        yaml_event_delete(&event);
    }
    return r->failed ? NULL : root;
}

struct flue_node *flue_yaml_parse(struct flue_tree *tree, const char *file, struct flue_bytes text,
                                  const struct flue_position *at, struct flue_check *check)
{
    struct reader r = {.tree = tree, .check = check, .file = file, .at = at};
    yaml_mark_t start = {0, 0, 0};
    if (text.size > FLUE_YAML_MAX_BYTES) {
        refuse(&r, start, "%zu bytes of YAML, the limit is %u", text.size, FLUE_YAML_MAX_BYTES);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        refuse(&r, start, "out of memory");
        return NULL;
    }
    yaml_parser_set_input_string(&r.parser, text.data ? text.data : (const uint8_t *)"", text.size);
    struct flue_node *root = read_document(&r);
    yaml_parser_delete(&r.parser);
    if (!root && !r.failed) {
        struct flue_position top = position_of(&r, start);
        root = flue_node_scalar(tree, "", &top);
        if (!root)
            refuse_full(&r, start);
    }
    return root;
}
