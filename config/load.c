/* load.c: reading and merging of sources, and --set. */
#include "config/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

bool flue_config_read_file(struct flue_arena *arena, const char *path, struct flue_bytes *out,
                           const char **reason)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) != 0) {
        *reason = strerror(errno);
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (S_ISDIR(facts.st_mode)) {
        close(fd);
        *reason = "is a directory";
        return false;
    }
    /* Not by st_size: pipes and /proc have none. */
    size_t room = facts.st_size > 0 && facts.st_size <= FLUE_YAML_MAX_BYTES
                      ? (size_t)facts.st_size + 1
                      : FLUE_YAML_MAX_BYTES + 1u;
    uint8_t *data = flue_arena_alloc(arena, room + 1);
    size_t size = 0;
    ssize_t got = 1;
    while (data && size < room && (got = read(fd, data + size, room - size)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        size += (size_t)got;
    }
    int error = errno;
    close(fd);
    *reason = !data ? "out of memory" : got < 0 ? strerror(error) : NULL;
    if (!*reason && size == room)
        *reason =
            size > FLUE_YAML_MAX_BYTES ? "is over the limit of 4 MiB" : "grew while it was read";
    if (*reason)
        return false;
    data[size] = 0;
    *out = flue_bytes(data, size);
    return true;
}

/* ---- merging --------------------------------------------------------------------------------- */

bool flue_node_merge(struct flue_tree *tree, struct flue_node *into, const struct flue_node *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const struct flue_node_entry *entry = &from->entries[i];
        struct flue_node_entry *old = flue_node_find(into, entry->key);
        if (old && old->node->type == FLUE_NODE_MAP && entry->node->type == FLUE_NODE_MAP) {
            if (!flue_node_merge(tree, old->node, entry->node))
                return false;
        } else if (!flue_node_put(tree, into, entry->key, &entry->position, entry->node)) {
            return false;
        }
    }
    return true;
}

/* {"a::b::c": v} to {a: {b: {c: v}}}, at the top level only, where the Collector does it. */
static struct flue_node *nest(struct flue_tree *tree, const struct flue_node *flat)
{
    struct flue_node *root = flue_node_new(tree, FLUE_NODE_MAP, &flat->position);
    for (size_t i = 0; root && i < flat->count; i++) {
        const struct flue_node_entry *entry = &flat->entries[i];
        struct flue_node *single = flue_node_new(tree, FLUE_NODE_MAP, &entry->position);
        struct flue_node *map = single;
        const char *rest = entry->key, *cut;
        while (map && (cut = strstr(rest, "::")) != NULL) {
            const char *key =
                flue_arena_string(tree->arena, flue_bytes(rest, (size_t)(cut - rest)));
            struct flue_node *child = flue_node_new(tree, FLUE_NODE_MAP, &entry->position);
            if (!key || !child || !flue_node_put(tree, map, key, &entry->position, child))
                return NULL;
            map = child;
            rest = cut + 2;
        }
        if (!map || !flue_node_put(tree, map, rest, &entry->position, entry->node) ||
            !flue_node_merge(tree, root, single))
            return NULL;
    }
    return root;
}

static const struct flue_position nowhere = {"", 0, 0};

/* Merges one parsed source into the whole. */
static bool take(struct flue_tree *tree, struct flue_node *root, struct flue_node *source,
                 struct flue_check *check)
{
    if (source->type == FLUE_NODE_NULL)
        return true;
    if (source->type != FLUE_NODE_MAP) {
        flue_mistake_at(check, source->position,
                        "a configuration is a map of receivers, exporters, service, ..., not %s",
                        flue_node_type_name(source->type));
        return false;
    }
    struct flue_node *nested = nest(tree, source);
    if (nested && flue_node_merge(tree, root, nested))
        return true;
    flue_mistake_at(check, source->position, "the configuration is too large: over %u values",
                    FLUE_YAML_MAX_NODES);
    return false;
}

static bool scheme_of(const char *source, const char *scheme, const char **rest)
{
    size_t size = strlen(scheme);
    if (strncmp(source, scheme, size) != 0 || source[size] != ':')
        return false;
    *rest = source + size + 1;
    return true;
}

static struct flue_node *read_source(struct flue_tree *tree, const char *source,
                                     struct flue_check *check)
{
    const char *rest, *reason;
    struct flue_bytes text;
    if (scheme_of(source, "yaml", &rest))
        return flue_yaml_parse(tree, "--config yaml:", flue_bytes_of(rest), NULL, check);
    if (scheme_of(source, "env", &rest)) {
        const char *value = getenv(rest);
        if (!value) {
            flue_mistake_at(check, nowhere, "--config %s: the environment variable is not set",
                            source);
            return NULL;
        }
        const char *file = flue_arena_printf(tree->arena, "env:%s", rest);
        return flue_yaml_parse(tree, file ? file : "env:", flue_bytes_of(value), NULL, check);
    }
    if (scheme_of(source, "http", &rest) || scheme_of(source, "https", &rest)) {
        flue_mistake_at(check, nowhere,
                        "--config %s: configuration is not fetched over the network; save it as a "
                        "file and name that",
                        source);
        return NULL;
    }
    const char *path = scheme_of(source, "file", &rest) ? rest : source;
    if (!flue_config_read_file(tree->arena, path, &text, &reason)) {
        flue_mistake_at(check, nowhere, "--config %s: %s", source, reason);
        return NULL;
    }
    const char *name = flue_arena_string(tree->arena, flue_bytes_of(path));
    return flue_yaml_parse(tree, name ? name : "", text, NULL, check);
}

static bool take_set(struct flue_tree *tree, struct flue_node *root, const char *set,
                     struct flue_check *check)
{
    const char *equals = strchr(set, '=');
    struct flue_bytes key = flue_bytes_trim(flue_bytes(set, equals ? (size_t)(equals - set) : 0));
    if (key.size == 0) {
        flue_mistake_at(check, nowhere, "--set %s: write KEY=VALUE, as in --set %s", set,
                        "exporters.debug.verbosity=detailed");
        return false;
    }
    const char *path = flue_arena_string(tree->arena, key);
    const char *file = flue_arena_printf(tree->arena, "--set %.*s", FLUE_PRI(key));
    if (!path || !file)
        return false;
    struct flue_position at = {file, 1, (unsigned)(equals - set) + 2};
    struct flue_node *value = flue_yaml_parse(tree, file, flue_bytes_of(equals + 1), &at, check);
    struct flue_node *flat = value ? flue_node_new(tree, FLUE_NODE_MAP, &at) : NULL;
    if (!flat)
        return false;
    if (!strstr(path, "::")) {
        /* "." separates when no "::" does, so that a key with a dot can be written too. */
        struct flue_buffer joined;
        flue_buffer_init(&joined, 4096);
        for (const char *c = path; *c; c++)
            flue_buffer_text(&joined, *c == '.' ? "::" : (const char[]){*c, 0});
        path = joined.failed ? NULL : flue_arena_string(tree->arena, flue_buffer_bytes(&joined));
        flue_buffer_destroy(&joined);
    }
    return path && flue_node_put(tree, flat, path, &at, value) && take(tree, root, flat, check);
}

struct flue_node *flue_config_load(struct flue_tree *tree, const struct flue_sources *sources,
                                   struct flue_check *check)
{
    size_t before = check->mistakes;
    struct flue_node *root = flue_node_new(tree, FLUE_NODE_MAP, &nowhere);
    if (!root) {
        flue_mistake_at(check, nowhere, "out of memory");
        return NULL;
    }
    /* Every unreadable source is named, not only the first. */
    for (size_t i = 0; i < sources->config_count; i++) {
        struct flue_node *source = read_source(tree, sources->configs[i], check);
        if (source && !root->position.line)
            root->position = (struct flue_position){source->position.file, 1, 1};
        if (source)
            take(tree, root, source, check);
    }
    for (size_t i = 0; i < sources->set_count; i++)
        take_set(tree, root, sources->sets[i], check);
    if (check->mistakes != before)
        return NULL;
    flue_node_expand(tree, root, check);
    return root;
}
