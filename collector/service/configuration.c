/* configuration.c: sections and components of a file; pipelines.c has the rest. */
#include "collector/service/configuration.h"

#include <stdlib.h>

#include "config/bind.h"

static const char *const sections[] = {
    [FLUE_RECEIVER] = "receivers", [FLUE_PROCESSOR] = "processors", [FLUE_CONNECTOR] = "connectors",
    [FLUE_EXPORTER] = "exporters", [FLUE_EXTENSION] = "extensions",
};

/* type[/name]: the Collector's component id. NULL: fine. */
static const char *id_problem(const char *id)
{
    size_t size = strcspn(id, "/");
    if (size == 0)
        return "has no type before its name";
    if (size > 63)
        return "has a type of more than 63 characters";
    for (size_t i = 0; i < size; i++) {
        char c = id[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && (i == 0 || (c != '_' && (c < '0' || c > '9'))))
            return "has a type that is not made of letters, digits and _";
    }
    if (!id[size])
        return NULL;
    if (!id[size + 1])
        return "has nothing behind its \"/\"";
    if (strlen(id + size + 1) > 1024)
        return "has a name of more than 1024 characters";
    for (const char *c = id + size + 1; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return "has a blank or control character in its name";
    return NULL;
}

/* The component that an id's type names, or NULL with the mistake said. */
static const struct flue_component *type_of(struct flue_configuration *c,
                                            const struct flue_component *const *components,
                                            enum flue_kind kind,
                                            const struct flue_node_entry *entry)
{
    const char *id = entry->key, *problem = id_problem(id);
    char shown[96];
    if (problem) {
        flue_mistake_at(&c->check, entry->position, "%s: the id \"%s\" %s", sections[kind],
                        flue_printable(flue_bytes_of(id), shown, sizeof shown), problem);
        return NULL;
    }
    const char *type = flue_arena_string(&c->arena, flue_bytes(id, strcspn(id, "/")));
    bool deprecated;
    if (!type)
        return NULL;
    const struct flue_component *found = flue_component_find(components, kind, type, &deprecated);
    if (found) {
        if (deprecated)
            flue_warning_at(&c->check, entry->position,
                            "%s.%s: the type \"%s\" is deprecated: it is now called \"%s\"",
                            sections[kind], id, type, found->name);
        return found;
    }
    for (int other = 0; other < FLUE_KINDS; other++) {
        if (flue_component_find(components, (enum flue_kind)other, type, &deprecated)) {
            flue_mistake_at(&c->check, entry->position,
                            "%s: there is no %s \"%s\"; it is a kind of %s, which stand under %s",
                            sections[kind], flue_kind_name(kind), type,
                            flue_kind_name((enum flue_kind)other), sections[other]);
            return NULL;
        }
    }
    struct flue_nearest nearest = {.word = type};
    flue_components_offer(components, kind, &nearest);
    const char *hint = flue_nearest_hint(&nearest, &c->arena);
    flue_mistake_at(&c->check, entry->position, "%s: there is no %s \"%s\"%s%s", sections[kind],
                    flue_kind_name(kind), type, hint,
                    *hint ? "" : "; `flue components` lists what there is");
    return NULL;
}

/* What is on disk is kept until it is sent, unless the file says otherwise. */
static void keep_durable(struct flue_configuration *c, const struct flue_part *part)
{
    struct flue_retry_config *retry = &part->settings->retry_on_failure;
    const struct flue_queue_config *queue = &part->settings->sending_queue;
    const struct flue_node_entry *block = flue_node_find(part->node, "retry_on_failure");
    const struct flue_node_entry *entry = block && block->node->type == FLUE_NODE_MAP
                                              ? flue_node_find(block->node, "max_elapsed_time")
                                              : NULL;
    if (!queue->enabled || !queue->storage)
        return;
    if (!entry)
        retry->max_elapsed_time = 0;
    else if (retry->enabled && retry->max_elapsed_time)
        flue_warning_at(
            &c->check, flue_entry_position(entry),
            "%s.retry_on_failure.max_elapsed_time: what was acknowledged and is on disk "
            "is dropped after this time; 0 keeps it until it is sent",
            part->path);
    if (!retry->enabled)
        flue_warning_at(&c->check, part->at,
                        "%s.retry_on_failure.enabled: false: what was acknowledged and is on disk "
                        "is dropped when it fails once",
                        part->path);
}

static void bind_part(struct flue_configuration *c, struct flue_part *part)
{
    const struct flue_component *component = part->component;
    struct flue_binding bindings[2] = {{component->fields, part->config}};
    size_t count = 1;
    if (part->kind == FLUE_EXPORTER && !component->no_queue) {
        part->settings = flue_arena_zalloc(&c->arena, 1, sizeof *part->settings);
        flue_exporter_fields(component, &part->engine_fields);
        bindings[count++] = (struct flue_binding){part->engine_fields.fields, part->settings};
    }
    if (!part->config || (count == 2 && !part->settings)) {
        flue_mistake_at(&c->check, part->at, "out of memory");
        return;
    }
    /* Checks read what was bound: after a mistake they would complain about its consequences. */
    if (!flue_bind(&c->check, part->node, part->path, part->at, bindings, count))
        return;
    if (component->check)
        component->check(part->config, &c->check);
    if (part->settings) {
        keep_durable(c, part);
        flue_exporter_settings_check(part->settings, &c->check);
    }
}

static void read_section(struct flue_configuration *c,
                         const struct flue_component *const *components, enum flue_kind kind,
                         const struct flue_node *section, const struct flue_node_entry *entry)
{
    if (section->type == FLUE_NODE_NULL)
        return;
    if (section->type != FLUE_NODE_MAP) {
        flue_mistake_at(&c->check, flue_entry_position(entry), "%s: must be a map, not %s",
                        sections[kind], flue_node_type_name(section->type));
        return;
    }
    for (size_t i = 0; i < section->count; i++) {
        const struct flue_node_entry *item = &section->entries[i];
        const struct flue_component *component = type_of(c, components, kind, item);
        struct flue_part *part = &c->parts[c->part_count++];
        *part = (struct flue_part){.kind = kind,
                                   .component = component,
                                   .id = item->key,
                                   .at = item->position,
                                   .node = item->node};
        if (!component)
            continue; /* kept, so that a pipeline that names it is not told it is undefined */
        part->path = flue_arena_printf(&c->arena, "%s.%s", sections[kind], item->key);
        part->config =
            flue_arena_zalloc(&c->arena, 1, component->config_size ? component->config_size : 1);
        if (!part->path)
            part->path = item->key;
        bind_part(c, part);
    }
}

static void read_root(struct flue_configuration *c, const struct flue_component *const *components)
{
    size_t parts = 0;
    for (int kind = 0; kind < FLUE_KINDS; kind++) {
        const struct flue_node_entry *entry = flue_node_find(c->root, sections[kind]);
        if (entry && entry->node->type == FLUE_NODE_MAP)
            parts += entry->node->count;
    }
    c->parts = flue_arena_zalloc(&c->arena, parts ? parts : 1, sizeof *c->parts);
    if (!c->parts) {
        flue_mistake_at(&c->check, c->root->position, "out of memory");
        return;
    }
    struct flue_node *service = NULL;
    for (size_t i = 0; i < c->root->count; i++) {
        const struct flue_node_entry *entry = &c->root->entries[i];
        int kind = 0;
        while (kind < FLUE_KINDS && strcmp(entry->key, sections[kind]) != 0)
            kind++;
        if (kind < FLUE_KINDS) {
            read_section(c, components, (enum flue_kind)kind, entry->node, entry);
        } else if (strcmp(entry->key, "service") == 0) {
            service = entry->node;
        } else {
            struct flue_nearest nearest = {.word = entry->key};
            char shown[96];
            for (int k = 0; k < FLUE_KINDS; k++)
                flue_nearest_offer(&nearest, sections[k]);
            flue_nearest_offer(&nearest, "service");
            flue_mistake_at(&c->check, entry->position, "unknown key \"%s\"%s",
                            flue_printable(flue_bytes_of(entry->key), shown, sizeof shown),
                            flue_nearest_hint(&nearest, &c->arena));
        }
    }
    flue_configuration_pipelines(c, service);
}

enum flue_code flue_configuration_load(const struct flue_sources *sources,
                                       const struct flue_component *const *components,
                                       struct flue_configuration **out, struct flue_error *error)
{
    struct flue_configuration *c = calloc(1, sizeof *c);
    if (!c)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the configuration");
    flue_arena_init(&c->arena, FLUE_CONFIGURATION_BUDGET, 0);
    flue_check_init(&c->check, &c->arena);
    c->tree.arena = &c->arena;
    c->root = flue_config_load(&c->tree, sources, &c->check);
    if (c->root)
        read_root(c, components);
    if (c->arena.starved) { /* what could not be made is missing without a mistake */
        flue_configuration_destroy(c);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the configuration");
    }
    *out = c;
    return FLUE_OK;
}

void flue_configuration_destroy(struct flue_configuration *configuration)
{
    if (!configuration)
        return;
    flue_arena_destroy(&configuration->arena);
    free(configuration);
}
