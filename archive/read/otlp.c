/* otlp.c: reading layout `otlp` (archive/layout/otlp.h): index, then the frames it names. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include "archive/layout/key.h"
#include "archive/layout/otlp.h"
#include "archive/read/archive.h"
#include "archive/read/hours.h"
#include "collector/base/codec.h"
#include "proto/convert/convert.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/names.h"

#define GAP         (256u << 10) /* between two frames that are still fetched as one */
#define RUN_MAX     (64u << 20)
#define FRAME_MAX   (1u << 30)
#define WORK_BUDGET ((size_t)2 << 30)

struct run { /* frames of one object that lie together */
    char *key;
    uint64_t offset, size;
    const struct flue_index_frame *frames;
    size_t count;
};
struct reading {
    struct flue_archive_reader *reader;
    struct flue_arena arena; /* of one hour */
    const char *folder;
    struct flue_bytes *keys; /* indexes, or data objects */
    uint64_t *sizes;
    size_t key_count, key_room, size_count, size_room;
    struct run *runs;
    size_t run_count, run_room;
    bool failed;
};

static void warn(struct reading *reading, struct flue_bytes key, const char *text)
{
    char name[300], line[900];

    snprintf(line, sizeof line, "%s: %s", flue_printable(key, name, sizeof name), text);
    reading->reader->warn(line);
}

/* ---- what to fetch --------------------------------------------------------------------------- */

static bool frame_wanted(const struct flue_question *q, const struct flue_index_frame *frame)
{
    bool type = !frame->type_count || frame->type_count >= FLUE_INDEX_TYPES;

    if (frame->max_ns < q->from_ns || frame->min_ns >= q->to_ns ||
        (q->service.size && !flue_bytes_equal(q->service, frame->service)))
        return false;
    for (size_t i = 0; i < frame->type_count && !type; i++)
        type = flue_question_type(q, frame->types[i]);
    return type;
}

static void add_runs(struct reading *reading, char *key, const struct flue_index_object *object)
{
    struct run *run = NULL;

    for (size_t i = 0; i < object->frame_count; i++) {
        const struct flue_index_frame *frame = &object->frames[i];
        if (!frame_wanted(reading->reader->question, frame) || frame->size == 0 ||
            frame->size > RUN_MAX * 4ull || frame->offset > INT64_MAX / 2)
            continue;
        if (run && frame->offset >= run->offset + run->size &&
            frame->offset - (run->offset + run->size) <= GAP &&
            frame->offset + frame->size - run->offset <= RUN_MAX) {
            run->size = frame->offset + frame->size - run->offset;
            run->count = (size_t)(frame - run->frames) + 1;
            continue;
        }
        struct run one = {key, frame->offset, frame->size, frame, 1};
        if (!FLUE_ARENA_PUSH(&reading->arena, reading->runs, reading->run_count, reading->run_room,
                             one)) {
            reading->failed = true;
            return;
        }
        run = &reading->runs[reading->run_count - 1];
    }
}

/* A key that an index says lies below its folder: it must not lead anywhere else. */
static bool key_ok(struct flue_bytes key)
{
    return key.size && key.size < 900 && key.data[0] != '/' &&
           !memmem(key.data, key.size, "..", 2) && !memchr(key.data, 0, key.size);
}

static void read_index(struct reading *reading, struct flue_bytes name, struct flue_bytes packed)
{
    struct flue_block *raw = NULL;
    struct flue_index index;
    struct flue_error error;

    if (flue_inflate(FLUE_ZSTD, packed, FLUE_INDEX_LIMIT, 10000, NULL, &raw, &error)) {
        warn(reading, name, error.text);
        return;
    }
    struct flue_bytes copy = flue_arena_copy(&reading->arena, flue_block_bytes(raw));
    flue_block_unref(raw);
    if (!copy.data || flue_index_read(copy, &reading->arena, &index, &error)) {
        warn(reading, name, copy.data ? error.text : "no memory");
        return;
    }
    for (size_t i = 0; i < index.count; i++) {
        char *key = key_ok(index.objects[i].key)
                        ? flue_arena_printf(&reading->arena, "%s%.*s", reading->folder,
                                            FLUE_PRI(index.objects[i].key))
                        : NULL;
        if (key)
            add_runs(reading, key, &index.objects[i]);
    }
}

static enum flue_code no_memory(struct flue_error *error)
{
    return flue_fail(error, FLUE_NO_MEMORY, "no memory to read an archive");
}

static bool keep_key(void *arg, const struct flue_object_listed *listed)
{
    struct reading *reading = arg;
    struct flue_bytes copy;
    const char *end = reading->reader->question->scan ? FLUE_OTLP_EXTENSION : ".idx";

    if (listed->folder || !flue_bytes_ends_with(listed->key, flue_bytes_of(end)))
        return true;
    copy = flue_arena_copy(&reading->arena, listed->key);
    reading->failed = reading->failed || !copy.data ||
                      !FLUE_ARENA_PUSH(&reading->arena, reading->keys, reading->key_count,
                                       reading->key_room, copy) ||
                      !FLUE_ARENA_PUSH(&reading->arena, reading->sizes, reading->size_count,
                                       reading->size_room, listed->size);
    return !reading->failed;
}

static enum flue_code list_keys(struct reading *reading, const char *below,
                                struct flue_error *error)
{
    bool scan = reading->reader->question->scan;
    char *prefix = flue_arena_printf(&reading->arena, "%s%s", reading->folder, below);

    if (!prefix)
        return no_memory(error);
    return flue_source_list(reading->reader->source, flue_bytes_of(prefix), flue_bytes(NULL, 0),
                            scan ? '/' : 0, keep_key, reading, error);
}

/* The index at the end of a data object, which may take a second get. */
static void read_tail(struct reading *reading, size_t at)
{
    struct flue_bytes key = reading->keys[at], index_bytes;
    uint64_t want = FLUE_OTLP_TAIL, size = reading->sizes[at];
    struct flue_index index;
    struct flue_error error;
    size_t missing = 1;

    for (unsigned tried = 0; tried < 3 && missing; tried++) {
        struct flue_source_get get = {.key = key};
        if (want > size)
            want = size;
        get.offset = (int64_t)(size - want); /* not from the end: Azure knows no such ranges */
        get.size = want;
        flue_source_get(reading->reader->source, &get, 1);
        if (get.error.code) {
            warn(reading, key, get.error.text);
            return;
        }
        struct flue_bytes end = flue_arena_copy(&reading->arena, flue_block_bytes(get.data));
        flue_block_unref(get.data);
        if (!end.data || flue_otlp_tail(end, &index_bytes, &missing, &error)) {
            warn(reading, key, end.data ? error.text : "no memory");
            return;
        }
        want += missing;
    }
    if (missing || flue_index_read(index_bytes, &reading->arena, &index, &error)) {
        warn(reading, key, missing ? "its index is cut" : error.text);
        return;
    }
    for (size_t i = 0; i < index.count; i++)
        add_runs(reading, (char *)(uintptr_t)key.data, &index.objects[i]);
}

/* ---- what was fetched ------------------------------------------------------------------------ */

struct message {
    struct reading *reading;
    const struct flue_payload *payload;
    struct flue_bytes key;
    enum flue_code code;
    struct flue_error *error;
};
struct label_seen {
    const struct flue_pprof_label *wanted;
    bool found;
};

static bool look_label(void *arg, const struct flue_attribute *attribute)
{
    struct label_seen *seen = arg;
    struct flue_arena arena;

    flue_arena_init(&arena, 64u << 10, 0);
    struct flue_bytes label = flue_attribute_label(attribute->key, &arena);
    if (flue_bytes_equal(attribute->key, seen->wanted->name) ||
        flue_bytes_equal(label, seen->wanted->name)) {
        struct flue_bytes text = flue_label_text(&attribute->value, &arena);
        seen->found = seen->found || flue_bytes_equal(text, seen->wanted->value);
    }
    flue_arena_destroy(&arena);
    return !seen->found;
}

static bool resource_wanted(const struct message *m, size_t resource)
{
    const struct flue_question *q = m->reading->reader->question;
    struct flue_value value;

    if (q->service.size &&
        !(m->payload->ops->attribute_get(m->payload, resource, FLUE_BYTES("service.name"),
                                         &value) &&
          value.type == FLUE_VALUE_STRING && flue_bytes_equal(value.text, q->service)) &&
        !flue_bytes_is(q->service, FLUE_SERVICE_NONE))
        return false;
    for (size_t i = 0; i < q->label_count; i++) {
        struct label_seen seen = {&q->labels[i], false};
        m->payload->ops->attribute_each(m->payload, resource, look_label, &seen);
        if (!seen.found)
            return false;
    }
    return true;
}

static void take_profile(void *arg, const struct flue_to_pprof_result *result)
{
    struct message *m = arg;
    const struct flue_question *q = m->reading->reader->question;
    uint64_t time = (uint64_t)result->time_nanos;
    struct flue_error error;
    enum flue_code code;

    if (!m->code && resource_wanted(m, result->resource) &&
        ((int64_t)time <= 0 || (time >= q->from_ns && time < q->to_ns))) {
        code = flue_collect_add(m->reading->reader->collect, result->name, result->pprof, &error);
        if (code == FLUE_INVALID)
            warn(m->reading, m->key, error.text);
        else if (code)
            m->code = flue_fail(m->error, code, "%s", error.text);
    }
    flue_block_unref(result->block);
}

static enum flue_code read_message(struct reading *reading, struct flue_bytes key,
                                   struct flue_bytes message, struct flue_error *error)
{
    struct flue_block *body = flue_block_copy(NULL, message);
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report;
    struct flue_arena arena;
    struct message m = {.reading = reading, .key = key, .error = error};
    struct flue_error own;

    if (!body)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for %zu bytes", message.size);
    if (flue_otlp_read(body, &payload, &report, &own)) {
        warn(reading, key, own.text);
        return FLUE_OK;
    }
    if (!payload)
        return FLUE_OK;
    m.payload = payload;
    flue_arena_init(&arena, WORK_BUDGET, 0);
    const struct flue_to_pprof_options options = {0};
    if (flue_otlp_to_pprof(payload, &options, &arena, take_profile, &m, &own) && !m.code)
        warn(reading, key, own.text);
    flue_arena_destroy(&arena);
    flue_payload_unref(payload);
    return m.code;
}

static enum flue_code read_run(struct reading *reading, const struct run *run,
                               struct flue_bytes data, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    struct flue_bytes key = flue_bytes_of(run->key);

    for (size_t i = 0; !code && i < run->count; i++) {
        const struct flue_index_frame *frame = &run->frames[i];
        uint64_t at = frame->offset - run->offset;
        struct flue_block *raw = NULL;
        struct flue_bytes message;
        struct flue_error own = {0};
        size_t place = 0;
        if (!frame_wanted(reading->reader->question, frame))
            continue;
        if (at > data.size || frame->size > data.size - at ||
            flue_inflate(FLUE_ZSTD, flue_bytes(data.data + at, (size_t)frame->size), FRAME_MAX,
                         UINT32_MAX, NULL, &raw, &own)) {
            warn(reading, key, own.code ? own.text : "a frame is cut");
            continue;
        }
        while (!code && flue_otlp_message(flue_block_bytes(raw), &place, &message, &own))
            code = read_message(reading, key, message, error);
        if (own.code)
            warn(reading, key, own.text);
        flue_block_unref(raw);
    }
    return code;
}

static enum flue_code read_runs(struct reading *reading, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;

    for (size_t at = 0; !code && at < reading->run_count;) {
        struct flue_source_get gets[16];
        size_t count = 0;
        for (; count < 16 && at + count < reading->run_count; count++) {
            const struct run *run = &reading->runs[at + count];
            gets[count] = (struct flue_source_get){
                .key = flue_bytes_of(run->key), .offset = (int64_t)run->offset, .size = run->size};
        }
        flue_source_get(reading->reader->source, gets, count);
        for (size_t i = 0; i < count; i++) {
            if (gets[i].error.code)
                warn(reading, gets[i].key, gets[i].error.text);
            else if (!code)
                code = read_run(reading, &reading->runs[at + i], flue_block_bytes(gets[i].data),
                                error);
            flue_block_unref(gets[i].data);
        }
        at += count;
    }
    return code;
}

/* ---- hours ----------------------------------------------------------------------------------- */

static enum flue_code read_keys(struct reading *reading, bool *found, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;

    for (size_t i = 0; !code && i < reading->key_count; i++) {
        if (reading->reader->question->scan) {
            *found = true;
            read_tail(reading, i);
            continue;
        }
        struct flue_source_get get = {.key = reading->keys[i]};
        flue_source_get(reading->reader->source, &get, 1);
        if (get.error.code == FLUE_NOT_FOUND)
            continue;
        *found = true;
        if (get.error.code)
            code = flue_fail(error, get.error.code, "%s", get.error.text);
        else
            read_index(reading, get.key, flue_block_bytes(get.data));
        flue_block_unref(get.data);
    }
    return code;
}

static bool keep_index(struct reading *reading, const char *element)
{
    char *key = flue_arena_printf(&reading->arena, "%sindex/%s.idx", reading->folder, element);
    const struct flue_object_listed one = {.key = flue_bytes_of(key)};

    return key && keep_key(reading, &one);
}

/* The index of a writer, or of the loop that its name ends in; without one, those of its loops. */
static enum flue_code read_writer(struct reading *reading, bool *found, struct flue_error *error)
{
    const char *name = reading->reader->question->writer;
    const char *loop = strrchr(name, FLUE_WRITER_LOOP[0]);
    char element[FLUE_KEY_ELEMENT_ROOM], below[FLUE_KEY_ELEMENT_ROOM + 16];
    bool here = false;
    enum flue_code code = FLUE_OK;

    if (loop && (!loop[1] || strlen(loop) > 4 || loop[1 + strspn(loop + 1, "0123456789")]))
        loop = NULL;
    if (loop) {
        flue_key_element(flue_bytes(name, (size_t)(loop - name)), element);
        snprintf(below, sizeof below, "%s%s", element, loop);
        if (!keep_index(reading, below))
            return no_memory(error);
        code = read_keys(reading, &here, error);
    }
    flue_key_element(flue_bytes_of(name), element);
    if (!code && !here) {
        reading->key_count = 0;
        if (!keep_index(reading, element))
            return no_memory(error);
        code = read_keys(reading, &here, error);
    }
    if (!code && !here) {
        reading->key_count = 0;
        snprintf(below, sizeof below, "index/%s" FLUE_WRITER_LOOP, element);
        code = list_keys(reading, below, error);
        if (!code)
            code = read_keys(reading, &here, error);
    }
    *found = *found || here;
    return code;
}

static enum flue_code read_hour(struct flue_archive_reader *reader, uint64_t hour, bool *found,
                                struct flue_error *error)
{
    const struct flue_question *q = reader->question;
    struct reading reading = {.reader = reader};
    char tenant[FLUE_KEY_ELEMENT_ROOM];
    time_t seconds = (time_t)(hour * 3600);
    struct tm utc;
    enum flue_code code;

    flue_arena_init(&reading.arena, WORK_BUDGET, 0);
    flue_key_element(q->tenant.size ? q->tenant : FLUE_BYTES(FLUE_TENANT_NONE), tenant);
    gmtime_r(&seconds, &utc);
    reading.folder = flue_arena_printf(
        &reading.arena, "%.*sv1/tenant=%s/dt=%04d-%02d-%02d/hour=%02d/", FLUE_PRI(reader->prefix),
        tenant, utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour);
    code = reading.folder ? FLUE_OK : no_memory(error);
    if (!code && q->writer && !q->scan)
        code = read_writer(&reading, found, error);
    else if (!code && !(code = list_keys(&reading, q->scan ? "" : "index/", error)))
        code = read_keys(&reading, found, error);
    if (!code && reading.failed)
        code = no_memory(error);
    if (!code)
        code = read_runs(&reading, error);
    flue_arena_destroy(&reading.arena);
    return code;
}

struct hours {
    struct flue_archive_reader *reader;
    bool *found;
};

static enum flue_code on_hour(void *arg, uint64_t hour, struct flue_error *error)
{
    const struct hours *hours = arg;
    return read_hour(hours->reader, hour, hours->found, error);
}

enum flue_code flue_read_otlp(struct flue_archive_reader *reader, bool *found,
                              struct flue_error *error)
{
    const struct flue_question *q = reader->question;
    struct hours hours = {reader, found};
    char tenant[FLUE_KEY_ELEMENT_ROOM];
    struct flue_arena arena;
    enum flue_code code;

    *found = false;
    flue_arena_init(&arena, 64u << 10, 0);
    flue_key_element(q->tenant.size ? q->tenant : FLUE_BYTES(FLUE_TENANT_NONE), tenant);
    char *folder = flue_arena_printf(&arena, "%.*sv1/tenant=%s/", FLUE_PRI(reader->prefix), tenant);
    const struct flue_hours_span span = {.source = reader->source,
                                         .folder = flue_bytes_of(folder),
                                         .from_ns = q->from_ns,
                                         .to_ns = q->to_ns,
                                         .visit = on_hour,
                                         .arg = &hours};
    code = folder ? flue_read_hours(&span, error) : no_memory(error);
    flue_arena_destroy(&arena);
    return code;
}
