/* bind.c: blocks, lists and maps by their tables; scalars are in scalar.c. */
#include "config/bind.h"

#include "config/scalar.h"

static const struct flue_field enabled_only[] = {
    {.name = "enabled",
     .type = FLUE_FIELD_BOOL,
     .def = "true",
     .help = "false is the same as leaving the block out"},
    FLUE_FIELDS_END};

struct binder {
    struct flue_check *check;
    struct flue_tree tree; /* for defaults */
    bool failed;
};

static void bind_block(struct binder *b, struct flue_node *node, const char *path,
                       struct flue_position at, const struct flue_binding *bindings, size_t count);

static bool is_text(enum flue_field_type type)
{
    return type == FLUE_FIELD_STRING || type == FLUE_FIELD_SECRET || type == FLUE_FIELD_ENUM ||
           type == FLUE_FIELD_ENDPOINT;
}

static const char *join(struct binder *b, const char *path, const char *name)
{
    const char *full = flue_arena_printf(b->check->arena, "%s%s%s", path, *path ? "." : "", name);
    return full ? full : name;
}

static const char *join_index(struct binder *b, const char *path, size_t index)
{
    const char *full = flue_arena_printf(b->check->arena, "%s[%zu]", path, index);
    return full ? full : path;
}

static void *allocate(struct binder *b, size_t count, size_t size, struct flue_position at)
{
    void *memory = flue_arena_zalloc(b->check->arena, count ? count : 1, size);
    if (!memory) {
        flue_mistake_at(b->check, at, "the configuration is too large for its memory budget");
        b->failed = true;
    }
    return memory;
}

#define mistake(b, at, ...)                                                                        \
    do {                                                                                           \
        flue_mistake_at((b)->check, (at), __VA_ARGS__);                                            \
        (b)->failed = true;                                                                        \
    } while (0)

/* ---- lists and maps -------------------------------------------------------------------------- */

static void bind_list(struct binder *b, const struct flue_field *field, struct flue_node *node,
                      const char *path, struct flue_position at, struct flue_list *out)
{
    if (node->type != FLUE_NODE_LIST) {
        mistake(b, at, "%s: must be a list, not %s", path, flue_node_type_name(node->type));
        return;
    }
    bool strings = field->type == FLUE_FIELD_STRINGS;
    bool secrets = field->unit && strcmp(field->unit, "secret") == 0;
    char *items = allocate(b, node->count, strings ? sizeof(char *) : field->size, at);
    if (!items)
        return;
    for (size_t i = 0; i < node->count; i++) {
        struct flue_node *item = node->items[i];
        const char *name = join_index(b, path, i);
        if (strings) {
            const char *text = flue_bind_text(b->check, item, name, item->position, secrets);
            b->failed |= !text;
            ((const char **)(void *)items)[i] = text ? text : "";
        } else {
            struct flue_binding binding = {field->fields, items + i * field->size};
            bind_block(b, item, name, item->position, &binding, 1);
        }
    }
    out->items = items;
    out->count = node->count;
}

/* configopaque.MapList: [{name: a, value: b}] is another way to write {a: b}. */
static void bind_pairs(struct binder *b, struct flue_node *node, const char *path, bool secret,
                       struct flue_map_entry *entries)
{
    for (size_t i = 0; i < node->count; i++) {
        struct flue_node *item = node->items[i];
        const struct flue_node_entry *name = flue_node_find(item, "name");
        const struct flue_node_entry *value = flue_node_find(item, "value");
        const char *full = join_index(b, path, i);
        entries[i] = (struct flue_map_entry){"", ""};
        if (!name || !value || item->count != 2) {
            mistake(b, item->position, "%s: must be a map of name and value", full);
            continue;
        }
        const char *key = flue_bind_text(b->check, name->node, full, name->node->position, false);
        const char *text =
            flue_bind_text(b->check, value->node, full, value->node->position, secret);
        b->failed |= !key || !text;
        if (key && text)
            entries[i] = (struct flue_map_entry){key, text};
    }
}

static void bind_map(struct binder *b, const struct flue_field *field, struct flue_node *node,
                     const char *path, struct flue_position at, struct flue_map *out)
{
    bool secret = field->type == FLUE_FIELD_SECRETS;
    if (node->type != FLUE_NODE_MAP && node->type != FLUE_NODE_LIST) {
        mistake(b, at, "%s: must be a map, not %s", path, flue_node_type_name(node->type));
        return;
    }
    struct flue_map_entry *entries = allocate(b, node->count, sizeof *entries, at);
    if (!entries)
        return;
    if (node->type == FLUE_NODE_LIST) {
        bind_pairs(b, node, path, secret, entries);
    } else {
        for (size_t i = 0; i < node->count; i++) {
            struct flue_node_entry *entry = &node->entries[i];
            const char *text = "";
            if (entry->node->type != FLUE_NODE_NULL || entry->node->expanded)
                text = flue_bind_text(b->check, entry->node, join(b, path, entry->key),
                                      flue_entry_position(entry), secret);
            b->failed |= !text;
            entries[i] = (struct flue_map_entry){entry->key, text ? text : ""};
        }
    }
    out->items = entries;
    out->count = node->count;
}

/* ---- one field ------------------------------------------------------------------------------- */

static void bind_optional(struct binder *b, const struct flue_field *field, struct flue_node *node,
                          const char *path, struct flue_position at, void *member)
{
    bool enabled = true, own_key = false;
    for (const struct flue_field *f = field->fields; f->type != FLUE_FIELD_END; f++)
        if (f->name && strcmp(f->name, "enabled") == 0 && f->type == FLUE_FIELD_BOOL)
            own_key = true;
    void *block = allocate(b, 1, field->size, at);
    if (!block)
        return;
    struct flue_binding bindings[] = {{field->fields, block}, {enabled_only, &enabled}};
    bind_block(b, node, path, at, bindings, own_key ? 1 : 2);
    const struct flue_node_entry *entry = own_key ? flue_node_find(node, "enabled") : NULL;
    if (entry && entry->node->type == FLUE_NODE_BOOL)
        enabled = entry->node->boolean;
    *(void **)member = enabled ? block : NULL;
}

static void bind_field(struct binder *b, const struct flue_field *field, struct flue_node *node,
                       const char *path, struct flue_position at, void *member)
{
    switch (field->type) {
    case FLUE_FIELD_BLOCK: {
        struct flue_binding binding = {field->fields, member};
        bind_block(b, node, path, at, &binding, 1);
        break;
    }
    case FLUE_FIELD_OPTIONAL:
        bind_optional(b, field, node, path, at, member);
        break;
    case FLUE_FIELD_LIST:
    case FLUE_FIELD_STRINGS:
        bind_list(b, field, node, path, at, member);
        break;
    case FLUE_FIELD_MAP:
    case FLUE_FIELD_SECRETS:
        bind_map(b, field, node, path, at, member);
        break;
    case FLUE_FIELD_IGNORED:
    case FLUE_FIELD_END:
        break;
    default:
        b->failed |= !flue_bind_scalar(b->check, field, node, path, at, member);
        break;
    }
}

/* A default takes the same way as a value, so that it obeys the same bounds. */
static void bind_default(struct binder *b, const struct flue_field *field, const char *path,
                         struct flue_position at, void *member)
{
    struct flue_node *node;
    if (field->type == FLUE_FIELD_BLOCK) {
        struct flue_binding binding = {field->fields, member};
        bind_block(b, NULL, path, at, &binding, 1);
        return;
    }
    if (!field->def || field->type == FLUE_FIELD_IGNORED)
        return;
    if (flue_field_is_scalar(field->type)) {
        node = flue_node_scalar(&b->tree, field->def, &at);
        if (node && is_text(field->type))
            node->type = FLUE_NODE_STRING;
    } else {
        node = flue_yaml_parse(&b->tree, at.file, flue_bytes_of(field->def), &at, b->check);
    }
    if (node)
        bind_field(b, field, node, path, at, member);
    else
        mistake(b, at, "%s: its default \"%s\" cannot be read", path, field->def);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* The entry for a field, by its name or its deprecated one. */
static struct flue_node_entry *entry_of(struct binder *b, const struct flue_field *field,
                                        struct flue_node *node, const char *path)
{
    struct flue_node_entry *entry = flue_node_find(node, field->name);
    struct flue_node_entry *old = field->alias ? flue_node_find(node, field->alias) : NULL;
    if (entry)
        entry->used = true;
    if (!old)
        return entry;
    old->used = true;
    if (entry) {
        mistake(b, old->position,
                "%s: \"%s\" is the old name of \"%s\", which is also there: "
                "leave one out",
                path, field->alias, field->name);
        return entry;
    }
    flue_warning_at(b->check, old->position, "%s: \"%s\" is deprecated: it is now called \"%s\"",
                    path, field->alias, field->name);
    return old;
}

bool flue_field_hidden(const struct flue_squash *outer, const char *name)
{
    for (; outer; outer = outer->outer)
        for (const struct flue_field *f = outer->fields; f->type != FLUE_FIELD_END; f++)
            if (f->name && strcmp(f->name, name) == 0)
                return true;
    return false;
}

static void bind_fields(struct binder *b, struct flue_node *node, const char *path,
                        struct flue_position at, const struct flue_field *fields,
                        const struct flue_squash *outer, char *out)
{
    const struct flue_squash here = {fields, outer};
    for (const struct flue_field *f = fields; f->type != FLUE_FIELD_END; f++) {
        if (!f->name) {
            bind_fields(b, node, path, at, f->fields, &here, out + f->offset);
            continue;
        }
        if (flue_field_hidden(outer, f->name))
            continue;
        const char *name = join(b, path, f->name);
        struct flue_node_entry *entry = node ? entry_of(b, f, node, path) : NULL;
        bool null = entry && entry->node->type == FLUE_NODE_NULL;
        /* ${env:UNSET} in a string is the empty string, not the default. */
        if (null && entry->node->expanded && is_text(f->type))
            null = false;
        bool empty = entry && !null && f->required && is_text(f->type) && entry->node->text &&
                     !*entry->node->text;
        void *member = out + f->offset;
        if (entry && null && f->type == FLUE_FIELD_OPTIONAL)
            bind_optional(b, f, NULL, name, entry->position, member);
        else if (entry && !null && !empty)
            bind_field(b, f, entry->node, name, flue_entry_position(entry), member);
        else if (f->required)
            mistake(b, entry ? entry->position : at, "%s: is required%s%s", name,
                    f->help ? ": " : "", f->help ? f->help : "");
        else
            bind_default(b, f, name, entry ? entry->position : at, member);
    }
}

void flue_fields_offer(const struct flue_field *fields, struct flue_nearest *nearest)
{
    for (const struct flue_field *f = fields; f->type != FLUE_FIELD_END; f++) {
        if (f->name)
            flue_nearest_offer(nearest, f->name);
        else
            flue_fields_offer(f->fields, nearest);
    }
}

static void bind_block(struct binder *b, struct flue_node *node, const char *path,
                       struct flue_position at, const struct flue_binding *bindings, size_t count)
{
    if (node && node->type == FLUE_NODE_NULL)
        node = NULL;
    if (node && node->type != FLUE_NODE_MAP) {
        mistake(b, at, "%s: must be a map, not %s", path, flue_node_type_name(node->type));
        return;
    }
    for (size_t i = 0; node && i < node->count; i++)
        node->entries[i].used = false;
    for (size_t i = 0; i < count; i++)
        bind_fields(b, node, path, at, bindings[i].fields, NULL, bindings[i].out);
    for (size_t i = 0; node && i < node->count; i++) {
        const struct flue_node_entry *entry = &node->entries[i];
        char shown[96];
        if (entry->used)
            continue;
        struct flue_nearest nearest = {.word = entry->key};
        for (size_t j = 0; j < count; j++)
            flue_fields_offer(bindings[j].fields, &nearest);
        mistake(b, entry->position, "%s: unknown key \"%s\"%s", path,
                flue_printable(flue_bytes_of(entry->key), shown, sizeof shown),
                flue_nearest_hint(&nearest, b->check->arena));
    }
}

bool flue_bind(struct flue_check *check, struct flue_node *node, const char *path,
               struct flue_position at, const struct flue_binding *bindings, size_t count)
{
    struct binder b = {.check = check, .tree = {.arena = check->arena}};
    flue_check_enter(check, node, path, at);
    bind_block(&b, node, path, at, bindings, count);
    return !b.failed;
}

void *flue_bind_yaml(struct flue_check *check, const char *yaml, const struct flue_field *fields,
                     size_t size)
{
    struct flue_tree tree = {.arena = check->arena};
    struct flue_position at = {"test.yaml", 1, 1};
    struct flue_node *node = flue_yaml_parse(&tree, at.file, flue_bytes_of(yaml), NULL, check);
    void *out = flue_arena_zalloc(check->arena, 1, size ? size : 1);
    struct flue_binding binding = {fields, out};
    return node && out && flue_bind(check, node, "", at, &binding, 1) ? out : NULL;
}
