/* pprof.c: reading layout `pprof` (archive/layout/pprof.h): folders by listing, objects by name. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <time.h>
#include "archive/layout/key.h"
#include "archive/read/archive.h"
#include "archive/read/hours.h"

#define HOUR_NS     (3600ull * 1000000000u)
#define WORK_BUDGET (512u << 20)
#define AT_A_TIME   16
#define EXTENSION   ".pb.gz"

struct folders {
    struct flue_arena arena;
    struct flue_bytes *items; /* with '/' behind them */
    size_t count, room;
    bool failed;
};
struct reading {
    struct flue_archive_reader *reader;
    struct flue_arena arena;
    struct flue_bytes *keys; /* of one hour, without extension */
    size_t count, room;
    bool failed;
};

static void warn(struct reading *reading, struct flue_bytes key, const char *text)
{
    char name[300], line[900];

    snprintf(line, sizeof line, "%s: %s", flue_printable(key, name, sizeof name), text);
    reading->reader->warn(line);
}

static bool keep_folder(void *arg, const struct flue_object_listed *listed)
{
    struct folders *folders = arg;
    struct flue_bytes copy;

    if (!listed->folder)
        return true;
    copy = flue_arena_copy(&folders->arena, listed->key);
    folders->failed = !copy.data || !FLUE_ARENA_PUSH(&folders->arena, folders->items,
                                                     folders->count, folders->room, copy);
    return !folders->failed;
}

static enum flue_code list_folders(struct flue_source *source, struct flue_bytes prefix,
                                   struct folders *out, struct flue_error *error)
{
    enum flue_code code =
        flue_source_list(source, prefix, flue_bytes(NULL, 0), '/', keep_folder, out, error);
    return !code && out->failed ? flue_fail(error, FLUE_NO_MEMORY, "no memory to list folders")
                                : code;
}

/* The last element of a folder. */
static struct flue_bytes last_of(struct flue_bytes folder)
{
    size_t end = folder.size ? folder.size - 1 : 0, start = end;

    while (start > 0 && folder.data[start - 1] != '/')
        start--;
    return flue_bytes(folder.data + start, end - start);
}

/* {time}-{hash}.pb.gz, the time as 19 digits. */
static bool time_of(struct flue_bytes key, uint64_t *time)
{
    size_t start = key.size;

    while (start > 0 && key.data[start - 1] != '/')
        start--;
    struct flue_bytes name = flue_bytes_from(key, start);
    size_t dash = flue_bytes_find(name, '-');
    return dash != SIZE_MAX && flue_parse_u64(flue_bytes_first(name, dash), time);
}

static bool keep_object(void *arg, const struct flue_object_listed *listed)
{
    struct reading *reading = arg;
    const struct flue_question *q = reading->reader->question;
    struct flue_bytes copy;
    uint64_t time;

    if (listed->folder || !flue_bytes_ends_with(listed->key, FLUE_BYTES(EXTENSION)) ||
        !time_of(listed->key, &time))
        return true;
    if (time >= q->to_ns)
        return false; /* names are in order of time */
    if (time < q->from_ns)
        return true;
    copy = flue_arena_copy(&reading->arena,
                           flue_bytes_first(listed->key, listed->key.size - sizeof EXTENSION + 1));
    reading->failed = !copy.data || !FLUE_ARENA_PUSH(&reading->arena, reading->keys, reading->count,
                                                     reading->room, copy);
    return !reading->failed;
}

static bool labels_match(const struct flue_question *q, struct flue_bytes manifest)
{
    json_error_t why;
    json_t *root = json_loadb((const char *)manifest.data, manifest.size, 0, &why);
    const json_t *labels = json_object_get(root, "labels");
    bool all = labels != NULL;

    for (size_t i = 0; all && i < q->label_count; i++) {
        char name[300];
        if (q->labels[i].name.size >= sizeof name)
            return false;
        snprintf(name, sizeof name, "%.*s", FLUE_PRI(q->labels[i].name));
        const char *value = json_string_value(json_object_get(labels, name));
        for (char *dot = name; !value && (dot = strchr(dot, '.'));) /* an attribute's name */
            *dot = '_';
        if (!value)
            value = json_string_value(json_object_get(labels, name));
        all = value && flue_bytes_is(q->labels[i].value, value);
    }
    json_decref(root);
    return all;
}

static enum flue_code get_some(struct reading *reading, struct flue_bytes type,
                               const struct flue_bytes *keys, size_t count,
                               struct flue_error *error)
{
    const struct flue_question *q = reading->reader->question;
    struct flue_source_get gets[AT_A_TIME];
    char names[AT_A_TIME][FLUE_OBJECT_KEY_LIMIT];
    bool wanted[AT_A_TIME];
    size_t left = 0;
    enum flue_code code = FLUE_OK;

    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "%.*s.json", FLUE_PRI(keys[i]));
        gets[i] = (struct flue_source_get){.key = flue_bytes_of(names[i])};
        wanted[i] = true;
    }
    if (q->label_count) {
        flue_source_get(reading->reader->source, gets, count);
        for (size_t i = 0; i < count; i++) {
            if (gets[i].error.code)
                warn(reading, gets[i].key, gets[i].error.text);
            wanted[i] = !gets[i].error.code && labels_match(q, flue_block_bytes(gets[i].data));
            flue_block_unref(gets[i].data);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (!wanted[i])
            continue;
        snprintf(names[left], sizeof names[left], "%.*s" EXTENSION, FLUE_PRI(keys[i]));
        gets[left] = (struct flue_source_get){.key = flue_bytes_of(names[left])};
        left++;
    }
    flue_source_get(reading->reader->source, gets, left);
    for (size_t i = 0; i < left; i++) {
        struct flue_error own;
        if (gets[i].error.code) {
            warn(reading, gets[i].key, gets[i].error.text);
            continue;
        }
        enum flue_code one = code ? FLUE_OK
                                  : flue_collect_add(reading->reader->collect, type,
                                                     flue_block_bytes(gets[i].data), &own);
        if (one == FLUE_INVALID)
            warn(reading, gets[i].key, own.text);
        else if (one)
            code = flue_fail(error, one, "%s", own.text);
        flue_block_unref(gets[i].data);
    }
    return code;
}

static enum flue_code read_hour(struct flue_archive_reader *reader, struct flue_bytes folder,
                                uint64_t hour, bool *found, struct flue_error *error)
{
    struct reading reading = {.reader = reader};
    time_t seconds = (time_t)(hour * 3600);
    struct flue_bytes type = last_of(folder);
    struct tm utc;
    enum flue_code code;

    flue_arena_init(&reading.arena, WORK_BUDGET, 0);
    gmtime_r(&seconds, &utc);
    char *prefix =
        flue_arena_printf(&reading.arena, "%.*sdt=%04d-%02d-%02d/hour=%02d/", FLUE_PRI(folder),
                          utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour);
    char *after = prefix ? flue_arena_printf(&reading.arena, "%s%019" PRIu64, prefix,
                                             reader->question->from_ns)
                         : NULL;
    code = after
               ? flue_source_list(reader->source, flue_bytes_of(prefix),
                                  reader->question->from_ns / HOUR_NS == hour ? flue_bytes_of(after)
                                                                              : flue_bytes(NULL, 0),
                                  0, keep_object, &reading, error)
               : flue_fail(error, FLUE_NO_MEMORY, "no memory to read an archive");
    if (!code && reading.failed)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory to read an archive");
    *found = *found || reading.count;
    struct flue_bytes name = flue_key_element_text(type, &reading.arena);
    for (size_t at = 0; !code && at < reading.count; at += AT_A_TIME) {
        size_t some = reading.count - at < AT_A_TIME ? reading.count - at : AT_A_TIME;
        code = get_some(&reading, name.data ? name : type, reading.keys + at, some, error);
    }
    flue_arena_destroy(&reading.arena);
    return code;
}

struct hours {
    struct flue_archive_reader *reader;
    struct flue_bytes folder; /* of one type */
    bool *found;
};

static enum flue_code on_hour(void *arg, uint64_t hour, struct flue_error *error)
{
    const struct hours *hours = arg;
    return read_hour(hours->reader, hours->folder, hour, hours->found, error);
}

/* One service's folder: the types that are named as asked for; if none is, the profiles of all
 * types are looked into for the sample type. */
static enum flue_code read_service(struct flue_archive_reader *reader, struct flue_bytes folder,
                                   bool *found, struct flue_error *error)
{
    const struct flue_question *q = reader->question;
    struct folders types = {0};
    bool named = false;
    enum flue_code code;

    flue_arena_init(&types.arena, 16u << 20, 0);
    code = list_folders(reader->source, folder, &types, error);
    for (size_t i = 0; i < types.count; i++)
        named = named || (q->type.size && flue_question_type(q, last_of(types.items[i])));
    for (size_t i = 0; !code && i < types.count; i++) {
        if (named && !flue_question_type(q, last_of(types.items[i])))
            continue;
        struct hours hours = {reader, types.items[i], found};
        const struct flue_hours_span span = {.source = reader->source,
                                             .folder = types.items[i],
                                             .from_ns = q->from_ns,
                                             .to_ns = q->to_ns,
                                             .visit = on_hour,
                                             .arg = &hours};
        code = flue_read_hours(&span, error);
    }
    flue_arena_destroy(&types.arena);
    return code;
}

enum flue_code flue_read_pprof(struct flue_archive_reader *reader, bool *found,
                               struct flue_error *error)
{
    const struct flue_question *q = reader->question;
    char tenant[FLUE_KEY_ELEMENT_ROOM], service[FLUE_KEY_ELEMENT_ROOM];
    struct folders services = {0};
    enum flue_code code = FLUE_OK;

    *found = false;
    flue_arena_init(&services.arena, 64u << 20, 0);
    flue_key_element(q->tenant.size ? q->tenant : FLUE_BYTES(FLUE_TENANT_NONE), tenant);
    flue_key_element(q->service, service);
    char *folder =
        flue_arena_printf(&services.arena, "%.*s%s/%s%s", FLUE_PRI(reader->prefix), tenant,
                          q->service.size ? service : "", q->service.size ? "/" : "");
    if (!folder)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory to read an archive");
    else if (q->service.size)
        code = read_service(reader, flue_bytes_of(folder), found, error);
    else
        code = list_folders(reader->source, flue_bytes_of(folder), &services, error);
    for (size_t i = 0; !code && i < services.count; i++)
        code = read_service(reader, services.items[i], found, error);
    flue_arena_destroy(&services.arena);
    return code;
}
