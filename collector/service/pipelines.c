/* pipelines.c: which component stands where, and every way in which that can be wrong. */
#include "collector/service/configuration.h"

#include "config/bind.h"

struct pipeline_lists {
    struct flue_list receivers, processors, exporters;
};

static const struct flue_field pipeline_fields[] = {
    FLUE_STRINGS(struct pipeline_lists, receivers), FLUE_STRINGS(struct pipeline_lists, processors),
    FLUE_STRINGS(struct pipeline_lists, exporters), FLUE_FIELDS_END};

static const struct flue_field pipelines_key[] = {FLUE_IGNORED("pipelines", "read apart"),
                                                  FLUE_FIELDS_END};

static struct flue_part *part_of(struct flue_configuration *c, enum flue_kind kind, const char *id,
                                 struct flue_nearest *nearest)
{
    for (size_t i = 0; i < c->part_count; i++) {
        if (c->parts[i].kind != kind)
            continue;
        if (strcmp(c->parts[i].id, id) == 0)
            return &c->parts[i];
        flue_nearest_offer(nearest, c->parts[i].id);
    }
    return NULL;
}

/* Where item `index` of list `key` stands. */
static struct flue_position item_position(const struct flue_node *block, const char *key,
                                          size_t index, struct flue_position otherwise)
{
    const struct flue_node_entry *entry = flue_node_find(block, key);
    if (entry && entry->node->type == FLUE_NODE_LIST && index < entry->node->count)
        return entry->node->items[index]->position;
    return entry ? flue_entry_position(entry) : otherwise;
}

/* The parts that a list of ids names. */
static void resolve(struct flue_configuration *c, enum flue_kind kind, const char *path,
                    const struct flue_node *block, const char *key, struct flue_position at,
                    const struct flue_list *ids, enum flue_signal signal,
                    struct flue_part_list *out)
{
    out->items = flue_arena_zalloc(&c->arena, ids->count ? ids->count : 1, sizeof *out->items);
    if (!out->items) {
        flue_mistake_at(&c->check, at, "out of memory");
        return;
    }
    for (size_t i = 0; i < ids->count; i++) {
        const char *id = ((const char **)ids->items)[i];
        struct flue_position where = item_position(block, key, i, at);
        struct flue_nearest nearest = {.word = id};
        struct flue_part *part = part_of(c, kind, id, &nearest);
        if (!part && (kind == FLUE_RECEIVER || kind == FLUE_EXPORTER))
            part = part_of(c, FLUE_CONNECTOR, id, &nearest);
        bool connector = part && part->kind == FLUE_CONNECTOR;
        char shown[96], takes[32], given[32];
        flue_printable(flue_bytes_of(id), shown, sizeof shown);
        if (!part) {
            flue_mistake_at(&c->check, where, "%s: the %s \"%s\" is not defined under %ss%s", path,
                            flue_kind_name(kind), shown, flue_kind_name(kind),
                            flue_nearest_hint(&nearest, &c->arena));
            continue;
        }
        bool twice = false;
        for (size_t j = 0; j < out->count; j++)
            twice |= out->items[j] == part;
        if (twice) {
            flue_mistake_at(&c->check, where, "%s: the %s \"%s\" stands in the list twice", path,
                            flue_kind_name(kind), shown);
            continue;
        }
        if (connector && kind == FLUE_RECEIVER) {
            if (part->component && signal && part->component->gives != signal)
                flue_mistake_at(&c->check, where,
                                "%s: the connector \"%s\" does not give %s, only %s", path, shown,
                                flue_signals_text(signal, given),
                                flue_signals_text(part->component->gives, takes));
            part->feeds = part->in_use = true;
            out->items[out->count++] = part;
            continue;
        }
        part->fed |= connector;
        if (signal && part->component && !(part->component->signals & signal))
            flue_mistake_at(&c->check, where, "%s: the %s \"%s\" does not take %s, only %s", path,
                            flue_kind_name(part->kind), shown, flue_signals_text(signal, given),
                            flue_signals_text(part->component->signals, takes));
        part->signals |= signal;
        part->in_use = true;
        out->items[out->count++] = part;
    }
}

/* "profiles/team-a" to its signal; 0 with the mistake said. */
static enum flue_signal signal_of(struct flue_configuration *c, const struct flue_node_entry *entry)
{
    size_t size = strcspn(entry->key, "/");
    const char *type = flue_arena_string(&c->arena, flue_bytes(entry->key, size));
    char shown[96];
    flue_printable(flue_bytes_of(entry->key), shown, sizeof shown);
    bool named = !entry->key[size] || entry->key[size + 1];
    if (type && strcmp(type, "profiles") == 0 && named)
        return FLUE_PROFILES;
    if (type && strcmp(type, "traces") == 0 && named)
        return FLUE_TRACES;
    if (type && strcmp(type, "metrics") == 0 && named)
        return FLUE_METRICS;
    if (type && strcmp(type, "logs") == 0) {
        flue_mistake_at(&c->check, entry->position,
                        "service.pipelines: \"%s\": profiles, traces and metrics of connectors are "
                        "carried, not logs",
                        shown);
        return 0;
    }
    struct flue_nearest nearest = {.word = type ? type : ""};
    flue_nearest_offer(&nearest, "profiles");
    flue_nearest_offer(&nearest, "traces");
    flue_nearest_offer(&nearest, "metrics");
    flue_mistake_at(&c->check, entry->position,
                    "service.pipelines: \"%s\" is no pipeline: write profiles, traces, "
                    "profiles/NAME or traces/NAME%s",
                    shown, flue_nearest_hint(&nearest, &c->arena));
    return 0;
}

static void read_pipeline(struct flue_configuration *c, const struct flue_node_entry *entry)
{
    struct pipeline_lists lists = {0};
    struct flue_binding binding = {pipeline_fields, &lists};
    enum flue_signal signal = signal_of(c, entry);
    const char *path = flue_arena_printf(&c->arena, "service.pipelines.%s", entry->key);
    if (!path || !flue_bind(&c->check, entry->node, path, entry->position, &binding, 1))
        return;
    struct flue_pipeline_plan *plan = &c->pipelines[c->pipeline_count++];
    const struct flue_node *block = entry->node;
    *plan = (struct flue_pipeline_plan){.id = entry->key, .signal = signal, .at = entry->position};
    resolve(c, FLUE_RECEIVER, path, block, "receivers", entry->position, &lists.receivers, signal,
            &plan->receivers);
    resolve(c, FLUE_PROCESSOR, path, block, "processors", entry->position, &lists.processors,
            signal, &plan->processors);
    resolve(c, FLUE_EXPORTER, path, block, "exporters", entry->position, &lists.exporters, signal,
            &plan->exporters);
    if (lists.receivers.count == 0)
        flue_check_fail(&c->check, "receivers", "is empty: a pipeline needs a receiver");
    if (lists.exporters.count == 0)
        flue_check_fail(&c->check, "exporters", "is empty: a pipeline needs an exporter");
}

/* sending_queue.storage names a file_storage that runs. */
static void check_storage(struct flue_configuration *c, const struct flue_part *part)
{
    const struct flue_queue_config *queue = &part->settings->sending_queue;
    struct flue_nearest nearest = {.word = queue->storage};
    char shown[96];
    if (!queue->enabled || !queue->storage)
        return;
    flue_printable(flue_bytes_of(queue->storage), shown, sizeof shown);
    const struct flue_part *found = part_of(c, FLUE_EXTENSION, queue->storage, &nearest);
    if (!found)
        flue_mistake_at(&c->check, part->at,
                        "%s.sending_queue.storage: \"%s\" is not defined under extensions%s",
                        part->path, shown, flue_nearest_hint(&nearest, &c->arena));
    else if (found->component && strcmp(found->component->name, "file_storage") != 0)
        flue_mistake_at(&c->check, part->at,
                        "%s.sending_queue.storage: \"%s\" keeps no queues: name a file_storage",
                        part->path, shown);
    else if (found->component && !found->in_use)
        flue_mistake_at(&c->check, part->at,
                        "%s.sending_queue.storage: \"%s\" does not run: add it to "
                        "service.extensions",
                        part->path, shown);
}

/* One that is only fed, or only feeds, would swallow or never give anything. */
static void check_connectors(struct flue_configuration *c)
{
    for (size_t i = 0; i < c->part_count; i++) {
        const struct flue_part *part = &c->parts[i];
        if (part->kind == FLUE_CONNECTOR && part->fed != part->feeds)
            flue_mistake_at(&c->check, part->at,
                            part->fed
                                ? "%s stands among exporters, but among no pipeline's receivers"
                                : "%s stands among receivers, but among no pipeline's exporters",
                            part->path ? part->path : part->id);
    }
}

static void warn_unused(struct flue_configuration *c)
{
    for (size_t i = 0; i < c->part_count; i++) {
        const struct flue_part *part = &c->parts[i];
        if (part->component && !part->in_use)
            flue_warning_at(&c->check, part->at,
                            part->kind == FLUE_EXTENSION
                                ? "%s is defined, but service.extensions does not name it"
                                : "%s is defined, but no pipeline names it",
                            part->path);
    }
}

/* Two signals that are to meet must pass the same instance. */
static void warn_apart(struct flue_configuration *c)
{
    for (size_t i = 0; i < c->part_count; i++) {
        const struct flue_part *part = &c->parts[i];
        unsigned needs = part->component ? part->component->needs : 0;
        char has[32], missing[32];
        if (part->in_use && needs & ~part->signals)
            flue_warning_at(&c->check, part->at,
                            "%s stands in pipelines of %s alone and finds no %s: name the same id "
                            "in a pipeline of these, and bring both to the same instance (sidecar, "
                            "agent, or loadbalancing by service)",
                            part->path, flue_signals_text(part->signals, has),
                            flue_signals_text(needs & ~part->signals, missing));
    }
}

static void check_signals(struct flue_configuration *c)
{
    for (size_t i = 0; i < c->part_count; i++) {
        const struct flue_part *part = &c->parts[i];
        if (!part->in_use || !part->config || !part->component->check_signals)
            continue;
        flue_check_enter(&c->check, part->node, part->path, part->at);
        part->component->check_signals(part->config, part->signals, &c->check);
    }
}

void flue_configuration_pipelines(struct flue_configuration *c, struct flue_node *service)
{
    struct flue_position at = service ? service->position : c->root->position;
    const struct flue_node_entry *section = flue_node_find(c->root, "service");
    if (section)
        at = section->position;
    char nothing = 0; /* an ignored key has no member */
    struct flue_binding bindings[] = {{flue_service_fields, &c->service},
                                      {pipelines_key, &nothing}};
    if (flue_bind(&c->check, service, "service", at, bindings, 2))
        flue_service_settings_check(&c->service, &c->check);
    resolve(c, FLUE_EXTENSION, "service.extensions", service, "extensions", at,
            &c->service.extensions, 0, &c->extensions);
    for (size_t i = 0; i < c->part_count; i++)
        if (c->parts[i].settings)
            check_storage(c, &c->parts[i]);

    const struct flue_node_entry *entry = service ? flue_node_find(service, "pipelines") : NULL;
    const struct flue_node *pipelines = entry ? entry->node : NULL;
    if (!pipelines || pipelines->type == FLUE_NODE_NULL ||
        (pipelines->type == FLUE_NODE_MAP && pipelines->count == 0)) {
        flue_mistake_at(&c->check, entry ? entry->position : at,
                        "service.pipelines: at least one pipeline is needed, as in profiles: "
                        "{receivers: [otlp], exporters: [debug]}");
    } else if (pipelines->type != FLUE_NODE_MAP) {
        flue_mistake_at(&c->check, flue_entry_position(entry),
                        "service.pipelines: must be a map, not %s",
                        flue_node_type_name(pipelines->type));
    } else {
        c->pipelines = flue_arena_zalloc(&c->arena, pipelines->count, sizeof *c->pipelines);
        for (size_t i = 0; c->pipelines && i < pipelines->count; i++)
            read_pipeline(c, &pipelines->entries[i]);
    }
    check_connectors(c);
    warn_unused(c);
    warn_apart(c);
    if (c->check.mistakes == 0) /* it reads what was bound */
        check_signals(c);
}
