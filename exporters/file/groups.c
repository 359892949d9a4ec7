/* groups.c: see groups.h. */
#include "exporters/file/groups.h"
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "archive/layout/key.h"
#include "collector/base/hash.h"
#include "proto/otlp/dictionary.h"
#include "proto/otlp/index.h"

#define WORK_BUDGET (256u << 20)
#define MISSING     "MISSING"

struct open_file {
    char *path;
    struct flue_stream *stream;
    unsigned busy;
    uint64_t used;
};
struct flue_groups {
    pthread_mutex_t lock;
    pthread_cond_t idle;
    char *before, *after; /* of the path, around its '*' */
    struct flue_bytes attribute;
    char *attribute_text;
    bool create_directory;
    unsigned directory_mode;
    const struct flue_stream_rotation *rotation;
    struct open_file *files;
    size_t count, room;
    uint64_t turn;
};

void flue_groups_destroy(struct flue_groups *groups)
{
    if (!groups)
        return;
    for (size_t i = 0; i < groups->count; i++) {
        flue_stream_destroy(groups->files[i].stream);
        free(groups->files[i].path);
    }
    pthread_mutex_destroy(&groups->lock);
    pthread_cond_destroy(&groups->idle);
    free(groups->files);
    free(groups->before);
    free(groups->after);
    free(groups->attribute_text);
    free(groups);
}

struct flue_groups *flue_groups_new(const char *path, const char *attribute, size_t max_open_files,
                                    bool create_directory, unsigned directory_mode,
                                    const struct flue_stream_rotation *rotation)
{
    struct flue_groups *groups = calloc(1, sizeof *groups);
    const char *star = strchr(path, '*');

    if (!groups || !star) {
        free(groups);
        return NULL;
    }
    pthread_mutex_init(&groups->lock, NULL);
    pthread_cond_init(&groups->idle, NULL);
    groups->before = strndup(path, (size_t)(star - path));
    groups->after = strdup(star + 1);
    groups->attribute_text = strdup(attribute);
    groups->files = calloc(max_open_files, sizeof *groups->files);
    groups->room = max_open_files;
    groups->create_directory = create_directory;
    groups->directory_mode = directory_mode;
    groups->rotation = rotation;
    if (!groups->before || !groups->after || !groups->attribute_text || !groups->files) {
        flue_groups_destroy(groups);
        return NULL;
    }
    groups->attribute = flue_bytes_of(groups->attribute_text);
    return groups;
}

/* ---- files ------------------------------------------------------------------------------------
 */

/* The slot of `path`, or a free one, or that of the file longest unused; NULL while all are busy.
 */
static struct open_file *slot_of(struct flue_groups *groups, const char *path)
{
    struct open_file *oldest = NULL;

    for (size_t i = 0; i < groups->count; i++) {
        struct open_file *file = &groups->files[i];
        if (strcmp(file->path, path) == 0)
            return file;
        if (!file->busy && (!oldest || file->used < oldest->used))
            oldest = file;
    }
    return groups->count < groups->room ? &groups->files[groups->count] : oldest;
}

static struct open_file *take(struct flue_groups *groups, const char *path)
{
    struct open_file *file;

    pthread_mutex_lock(&groups->lock);
    while (!(file = slot_of(groups, path)))
        pthread_cond_wait(&groups->idle, &groups->lock);
    if (!file->path || strcmp(file->path, path) != 0) {
        char *copy = strdup(path);
        struct flue_stream *stream = copy
                                         ? flue_stream_new(path, true, groups->create_directory,
                                                           groups->directory_mode, groups->rotation)
                                         : NULL;
        if (!stream) {
            free(copy);
            pthread_mutex_unlock(&groups->lock);
            return NULL;
        }
        if (file == &groups->files[groups->count]) {
            groups->count++;
        } else {
            flue_stream_destroy(file->stream);
            free(file->path);
        }
        *file = (struct open_file){.path = copy, .stream = stream};
    }
    file->busy++;
    file->used = ++groups->turn;
    pthread_mutex_unlock(&groups->lock);
    return file;
}

static void give_back(struct flue_groups *groups, struct open_file *file)
{
    pthread_mutex_lock(&groups->lock);
    file->busy--;
    pthread_cond_signal(&groups->idle);
    pthread_mutex_unlock(&groups->lock);
}

/* ---- groups -----------------------------------------------------------------------------------
 */

struct cut {
    struct flue_arena arena;
    struct flue_bytes *names; /* of each group */
    size_t count, room;
    uint32_t *group_of; /* resource to group */
    struct flue_table table;
};

static bool same_name(const void *rows, uint32_t row, const void *key)
{
    return flue_bytes_equal(((const struct flue_bytes *)rows)[row],
                            *(const struct flue_bytes *)key);
}

static bool find_groups(const struct flue_groups *groups, const struct flue_payload *payload,
                        struct cut *cut)
{
    size_t resources = payload->ops->resource_count(payload);

    cut->group_of = flue_arena_zalloc(&cut->arena, resources + 1, sizeof *cut->group_of);
    if (!cut->group_of || !flue_table_init(&cut->table, &cut->arena, resources))
        return false;
    for (size_t i = 0; i < resources; i++) {
        char element[FLUE_KEY_ELEMENT_ROOM];
        struct flue_value value;
        struct flue_bytes name = FLUE_BYTES(MISSING);
        if (payload->ops->attribute_get(payload, i, groups->attribute, &value) &&
            value.type == FLUE_VALUE_STRING && value.text.size)
            name = flue_bytes(element, flue_key_element(value.text, element));
        uint64_t hash = flue_hash(name);
        uint32_t row = flue_table_find(&cut->table, hash, same_name, cut->names, &name);
        if (row == FLUE_TABLE_NONE) {
            struct flue_bytes copy = flue_arena_copy(&cut->arena, name);
            row = (uint32_t)cut->count;
            if (!copy.data ||
                !FLUE_ARENA_PUSH(&cut->arena, cut->names, cut->count, cut->room, copy) ||
                !flue_table_insert(&cut->table, hash, row))
                return false;
        }
        cut->group_of[i] = row;
    }
    return true;
}

/* The resources of one group alone, with a dictionary of what they use. */
static enum flue_code part_of(const struct flue_payload *payload, const struct cut *cut,
                              uint32_t group, struct flue_payload **out, struct flue_error *error)
{
    size_t resources = payload->ops->resource_count(payload);
    struct flue_payload *part = payload->ops->clone(payload, error);
    enum flue_code code = part ? FLUE_OK : FLUE_NO_MEMORY;

    *out = NULL;
    for (size_t i = 0; !code && i < resources; i++)
        if (cut->group_of[i] != group)
            code = flue_otlp_resource_remove(part, (uint32_t)i, error);
    if (!code)
        code = flue_otlp_prune(part, NULL, out, error);
    flue_payload_unref(part);
    return code;
}

static enum flue_code
write_group(struct flue_groups *groups, struct flue_bytes name, const struct flue_payload *part,
            enum flue_code (*write)(void *, struct flue_stream *, const struct flue_payload *,
                                    struct flue_error *),
            void *arg, struct flue_error *error)
{
    char path[PATH_MAX];
    struct open_file *file;
    enum flue_code code;

    if ((size_t)snprintf(path, sizeof path, "%s%.*s%s", groups->before, FLUE_PRI(name),
                         groups->after) >= sizeof path)
        return flue_fail(error, FLUE_IO, "path of over %d bytes: %.100s...", PATH_MAX, path);
    file = take(groups, path);
    if (!file)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to open %s", path);
    code = write(arg, file->stream, part, error);
    give_back(groups, file);
    return code;
}

enum flue_code flue_groups_write(struct flue_groups *groups, const struct flue_payload *payload,
                                 uint32_t *done,
                                 enum flue_code (*write)(void *arg, struct flue_stream *stream,
                                                         const struct flue_payload *part,
                                                         struct flue_error *error),
                                 void *arg, struct flue_error *error)
{
    struct cut cut = {.count = 0};
    enum flue_code code = FLUE_OK;

    flue_arena_init(&cut.arena, WORK_BUDGET, 0);
    if (!find_groups(groups, payload, &cut))
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory to group %zu resources",
                         payload->ops->resource_count(payload));
    while (!code && *done < cut.count) {
        struct flue_payload *part = NULL;
        if (cut.count == 1) {
            code = write_group(groups, cut.names[0], payload, write, arg, error);
        } else {
            code = part_of(payload, &cut, *done, &part, error);
            if (!code && part)
                code = write_group(groups, cut.names[*done], part, write, arg, error);
            flue_payload_unref(part);
        }
        *done += code == FLUE_OK;
    }
    flue_arena_destroy(&cut.arena);
    return code;
}
