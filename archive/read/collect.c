/* collect.c: see collect.h. */
#include "archive/read/collect.h"
#include <stdio.h>
#include <stdlib.h>
#include "proto/pprof/document.h"
#include "proto/pprof/merge.h"

#define KINDS_MAX   64
#define HELD_COUNT  128
#define HELD_BYTES  (64u << 20)
#define WORK_BUDGET ((size_t)4 << 30)

static const struct flue_pprof_limits limits = {1u << 30, 10000};

struct kind { /* profiles with the same sample types, in order */
    char types[512];
    struct flue_bytes name;
    struct flue_block *profiles[HELD_COUNT];
    size_t count, bytes;
};
struct flue_collect {
    const struct flue_question *question;
    struct flue_arena arena;
    struct kind *kinds[KINDS_MAX];
    size_t kind_count;
    uint64_t count;
};

bool flue_question_type(const struct flue_question *question, struct flue_bytes name)
{
    static const char process[] = "process_";
    size_t size = sizeof process - 1;

    if (!question->type.size || flue_bytes_equal(question->type, name))
        return true;
    return name.size == size + question->type.size && memcmp(name.data, process, size) == 0 &&
           flue_bytes_equal(flue_bytes_from(name, size), question->type);
}

struct flue_collect *flue_collect_new(const struct flue_question *question)
{
    struct flue_collect *collect = calloc(1, sizeof *collect);

    if (collect) {
        collect->question = question;
        flue_arena_init(&collect->arena, WORK_BUDGET, 0);
    }
    return collect;
}

void flue_collect_destroy(struct flue_collect *collect)
{
    if (!collect)
        return;
    for (size_t i = 0; i < collect->kind_count; i++) {
        for (size_t k = 0; k < collect->kinds[i]->count; k++)
            flue_block_unref(collect->kinds[i]->profiles[k]);
        free(collect->kinds[i]);
    }
    flue_arena_destroy(&collect->arena);
    free(collect);
}

uint64_t flue_collect_count(const struct flue_collect *collect)
{
    return collect->count;
}

static enum flue_code merge_kind(struct kind *kind, struct flue_error *error)
{
    struct flue_bytes profiles[HELD_COUNT];
    struct flue_block *one = NULL;
    enum flue_code code;

    if (kind->count < 2)
        return FLUE_OK;
    for (size_t i = 0; i < kind->count; i++)
        profiles[i] = flue_block_bytes(kind->profiles[i]);
    code = flue_pprof_merge(profiles, kind->count, &limits, NULL, &one, error);
    if (code)
        return code;
    for (size_t i = 0; i < kind->count; i++)
        flue_block_unref(kind->profiles[i]);
    kind->profiles[0] = one;
    kind->count = 1;
    kind->bytes = one->size;
    return FLUE_OK;
}

static struct kind *kind_of(struct flue_collect *collect, const char *types, struct flue_bytes name)
{
    struct kind *kind;

    for (size_t i = 0; i < collect->kind_count; i++)
        if (strcmp(collect->kinds[i]->types, types) == 0)
            return collect->kinds[i];
    if (collect->kind_count == KINDS_MAX || !(kind = calloc(1, sizeof *kind)))
        return NULL;
    snprintf(kind->types, sizeof kind->types, "%s", types);
    kind->name = flue_arena_copy(&collect->arena, name);
    return collect->kinds[collect->kind_count++] = kind;
}

enum flue_code flue_collect_add(struct flue_collect *collect, struct flue_bytes name,
                                struct flue_bytes profile, struct flue_error *error)
{
    struct flue_pprof_type_name *types;
    struct flue_pprof_facts facts;
    struct flue_arena arena;
    char text[sizeof((struct kind *)NULL)->types] = "";
    size_t at = 0;
    bool wanted = flue_question_type(collect->question, name);
    struct flue_block *block = NULL;
    struct flue_bytes raw;
    enum flue_code code;

    flue_arena_init(&arena, 1u << 20, 0);
    code = flue_pprof_check_types(profile, &limits, &facts, &arena, &types, error);
    for (size_t i = 0; !code && i < facts.sample_types; i++) {
        char type[80], unit[80];
        wanted = wanted || flue_bytes_equal(types[i].type, collect->question->type);
        if (at < sizeof text)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%s/%s", i ? ", " : "",
                                   flue_printable(types[i].type, type, sizeof type),
                                   flue_printable(types[i].unit, unit, sizeof unit));
    }
    flue_arena_destroy(&arena);
    if (code || !wanted)
        return code;
    code = flue_pprof_raw(profile, &limits, NULL, &block, &raw, error);
    if (!code && !block && !(block = flue_block_copy(NULL, raw)))
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for a profile of %zu bytes", raw.size);
    if (code)
        return code;
    struct kind *kind = kind_of(collect, text, name);
    if (!kind) {
        flue_block_unref(block);
        return flue_fail(error, FLUE_TOO_LARGE, "over %d kinds of profiles: name one with --type",
                         KINDS_MAX);
    }
    kind->profiles[kind->count++] = block;
    kind->bytes += block->size;
    collect->count++;
    if (kind->count == HELD_COUNT || kind->bytes > HELD_BYTES)
        code = merge_kind(kind, error);
    return code;
}

/* ---- the answer ------------------------------------------------------------------------------ */

static uint32_t column_of(const struct flue_pprof_document *d, struct flue_bytes type)
{
    for (uint32_t i = 0; i < d->type_count; i++)
        if (flue_bytes_equal(d->strings[d->types[i].type], type))
            return i;
    return UINT32_MAX;
}

/* The profile with the values of one type alone. *out NULL: it has none. */
static enum flue_code project(struct flue_bytes raw, struct flue_bytes type, char unit[80],
                              struct flue_block **out, struct flue_error *error)
{
    struct flue_arena arena, scratch;
    struct flue_pprof_document d;
    enum flue_code code;

    flue_arena_init(&arena, WORK_BUDGET, 0);
    flue_arena_init(&scratch, WORK_BUDGET, 0);
    *out = NULL;
    code = flue_pprof_decode(raw, &arena, &d, error);
    uint32_t column = code ? UINT32_MAX : column_of(&d, type);
    if (column != UINT32_MAX) {
        for (uint32_t i = 0; i < d.sample_count; i++)
            d.values[i] = d.values[(size_t)i * d.type_count + column];
        d.types += column;
        d.type_count = 1;
        d.default_sample_type = 0;
        flue_printable(d.strings[d.types[0].unit], unit, 80);
        code = flue_pprof_encode(&d, 0, d.sample_count, &scratch, NULL, out, error);
    }
    flue_arena_destroy(&arena);
    flue_arena_destroy(&scratch);
    return code;
}

static enum flue_code several(const struct flue_collect *collect, struct flue_error *error)
{
    char list[300] = "";
    size_t at = 0;

    for (size_t i = 0; i < collect->kind_count && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? "; " : "",
                               collect->kinds[i]->types);
    return flue_fail(error, FLUE_UNPROCESSABLE,
                     "profiles of different types cannot be merged; name one type with --type, "
                     "there are: %s",
                     list);
}

/* Several kinds that share the type asked for: reduced to it, then merged. */
static enum flue_code reduce(struct flue_collect *collect, struct flue_error *error)
{
    struct flue_question question = *collect->question;
    struct kind *into = NULL;
    char first[80] = "", unit[80];

    for (size_t i = 0; i < collect->kind_count; i++) {
        struct kind *kind = collect->kinds[i];
        struct flue_block *block = NULL;
        enum flue_code code = merge_kind(kind, error);
        if (!code && kind->count)
            code = project(flue_block_bytes(kind->profiles[0]), question.type, unit, &block, error);
        if (code)
            return code;
        if (!block || (into && strcmp(first, unit) != 0)) {
            flue_block_unref(block);
            return several(collect, error);
        }
        flue_block_unref(kind->profiles[0]);
        kind->count = 0;
        if (!into) {
            into = kind;
            snprintf(first, sizeof first, "%s", unit);
        }
        into->profiles[into->count++] = block;
    }
    collect->kinds[0] = into ? into : collect->kinds[0];
    return FLUE_OK;
}

static enum flue_code choose_value(const struct flue_collect *collect, struct flue_bytes raw,
                                   uint32_t *value, struct flue_error *error)
{
    struct flue_pprof_document d;
    struct flue_arena arena;
    enum flue_code code;

    flue_arena_init(&arena, WORK_BUDGET, 0);
    code = flue_pprof_decode(raw, &arena, &d, error);
    if (!code) {
        *value = column_of(&d, collect->question->type);
        if (*value == UINT32_MAX && d.default_sample_type)
            *value = column_of(&d, d.strings[d.default_sample_type]);
        if (*value == UINT32_MAX)
            *value = d.type_count ? d.type_count - 1 : 0;
    }
    flue_arena_destroy(&arena);
    return code;
}

enum flue_code flue_collect_finish(struct flue_collect *collect, struct flue_block **out,
                                   uint32_t *value, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;

    *out = NULL;
    if (!collect->kind_count)
        return flue_fail(error, FLUE_NOT_FOUND, "no profile was found");
    if (collect->kind_count > 1) {
        if (!collect->question->type.size)
            return several(collect, error);
        code = reduce(collect, error);
    }
    if (!code)
        code = merge_kind(collect->kinds[0], error);
    if (!code)
        code =
            choose_value(collect, flue_block_bytes(collect->kinds[0]->profiles[0]), value, error);
    if (!code)
        *out = flue_block_ref(collect->kinds[0]->profiles[0]);
    return code;
}
