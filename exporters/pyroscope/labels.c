/* labels.c: see labels.h. */
#include "exporters/pyroscope/labels.h"
#include <stdlib.h>
#include "proto/pprof/names.h"

bool flue_labels_add(struct flue_series_labels *labels, struct flue_arena *arena,
                     struct flue_bytes name, struct flue_bytes value)
{
    struct flue_pprof_label label = {name, value};

    for (size_t i = 0; i < labels->count; i++)
        if (flue_bytes_equal(labels->items[i].name, name))
            return true;
    return FLUE_ARENA_PUSH(arena, labels->items, labels->count, labels->room, label);
}

static bool listed(const struct flue_list *list, struct flue_bytes name)
{
    const char *const *items = list->items;
    for (size_t i = 0; i < list->count; i++)
        if (flue_bytes_is(name, items[i]))
            return true;
    return false;
}

bool flue_labels_add_attribute(struct flue_series_labels *labels,
                               const struct flue_labels_config *config, struct flue_arena *arena,
                               const struct flue_attribute *attribute)
{
    struct flue_bytes name = {NULL, 0}, value;

    if (attribute->key.size == 0 || listed(&config->drop, attribute->key))
        return true;
    if (config->keep.count && !listed(&config->keep, attribute->key) &&
        !flue_bytes_is(attribute->key, "service.name"))
        return true;
    for (size_t i = 0; i < config->mapping.count && !name.data; i++)
        if (flue_bytes_is(attribute->key, config->mapping.items[i].key))
            name = flue_bytes_of(config->mapping.items[i].value);
    if (name.data && name.size == 0)
        return true;
    if (!name.data) {
        name = flue_attribute_label(attribute->key, arena);
        if (flue_label_is_identity(name))
            return true; /* no sender's attribute names a series, its session or its type */
    }
    value = flue_label_text(&attribute->value, arena);
    if (!name.data || !value.data)
        return arena->used < arena->budget; /* a value that cannot be text is left out */
    if (value.size == 0)
        return true; /* an empty label is no label */
    name = flue_arena_copy(arena, name);
    value = flue_arena_copy(arena, value);
    return name.data && value.data && flue_labels_add(labels, arena, name, value);
}

/* At most `size` bytes, not in the middle of a character. */
static struct flue_bytes cut(struct flue_bytes text, size_t size)
{
    if (text.size <= size)
        return text;
    while (size && (text.data[size] & 0xC0) == 0x80)
        size--;
    return flue_bytes_first(text, size);
}

bool flue_label_stays(struct flue_bytes name)
{
    return flue_label_is_identity(name) || flue_bytes_is(name, "service_name");
}

size_t flue_label_rank(const struct flue_labels_config *config, struct flue_bytes name)
{
    const char *const *items = config->priority.items;

    if (flue_label_stays(name))
        return 0;
    for (size_t i = 0; i < config->priority.count; i++)
        if (flue_bytes_is(name, items[i]))
            return 1 + i;
    return SIZE_MAX;
}

static int by_name(const void *a, const void *b)
{
    return flue_bytes_compare(((const struct flue_pprof_label *)a)->name,
                              ((const struct flue_pprof_label *)b)->name);
}

/* Takes out the last one of the order in the header until `limit` are left, but nothing of its
 * first group; items sorted by name. */
static void trim(struct flue_series_labels *labels, const struct flue_labels_config *config,
                 size_t limit)
{
    while (labels->count > limit) {
        size_t last = 0, worst = 0;
        for (size_t i = 0; i < labels->count; i++) {
            size_t r = flue_label_rank(config, labels->items[i].name);
            if (r >= worst) {
                worst = r;
                last = i;
            }
        }
        if (worst == 0)
            return;
        memmove(&labels->items[last], &labels->items[last + 1],
                (labels->count - last - 1) * sizeof labels->items[0]);
        labels->count--;
        labels->trimmed++;
    }
}

static bool name_service(struct flue_series_labels *labels, struct flue_arena *arena)
{
    struct flue_bytes executable = {NULL, 0};
    char *name;

    for (size_t i = 0; i < labels->count; i++) {
        if (flue_bytes_is(labels->items[i].name, "service_name"))
            return true;
        if (flue_bytes_is(labels->items[i].name, "process_executable_name"))
            executable = labels->items[i].value;
    }
    name = executable.size ? flue_arena_printf(arena, "unknown_service:%.*s", FLUE_PRI(executable))
                           : flue_arena_string(arena, FLUE_BYTES("unknown_service"));
    return name && flue_labels_add(labels, arena, FLUE_BYTES("service_name"), flue_bytes_of(name));
}

/* Names that became equal when they were cut: the first of them stays. */
static void drop_twins(struct flue_series_labels *labels)
{
    size_t kept = 0;

    for (size_t i = 0; i < labels->count; i++) {
        if (kept && flue_bytes_equal(labels->items[kept - 1].name, labels->items[i].name))
            labels->trimmed++;
        else
            labels->items[kept++] = labels->items[i];
    }
    labels->count = kept;
}

bool flue_labels_finish(struct flue_series_labels *labels, const struct flue_labels_config *config,
                        const struct flue_label_limits *limits, struct flue_arena *arena)
{
    if (!name_service(labels, arena))
        return false;
    for (size_t i = 0; i < labels->count; i++) {
        struct flue_pprof_label *label = &labels->items[i];
        if (label->name.size > limits->name_bytes || label->value.size > limits->value_bytes)
            labels->trimmed++;
        label->name = cut(label->name, limits->name_bytes);
        label->value = cut(label->value, limits->value_bytes);
    }
    qsort(labels->items, labels->count, sizeof labels->items[0], by_name);
    drop_twins(labels);
    trim(labels, config, limits->names);
    return true;
}
