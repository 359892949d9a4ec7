/* spy.c: see spy.h. */
#include "receivers/pyroscope/spy.h"

#include "proto/pprof/document.h"
#include "proto/wire/writer.h"

static bool scripting(struct flue_bytes spy)
{
    return flue_bytes_is(spy, "pyspy") || flue_bytes_is(spy, "rbspy") ||
           flue_bytes_is(spy, "scripting");
}

bool flue_spy_rewrites(struct flue_bytes spy, bool dash_in_sample_type)
{
    return scripting(spy) || (dash_in_sample_type && flue_bytes_is(spy, "dotnetspy"));
}

/* ---- names ---------------------------------------------------------------------------------- */

static struct flue_bytes joined(struct flue_arena *arena, struct flue_bytes file,
                                struct flue_bytes name)
{
    uint8_t *text = flue_arena_alloc(arena, file.size + 1 + name.size);
    if (!text)
        return flue_bytes(NULL, 0);
    memcpy(text, file.data, file.size);
    text[file.size] = ' ';
    if (name.size)
        memcpy(text + file.size + 1, name.data, name.size);
    return flue_bytes(text, file.size + 1 + name.size);
}

/* Every function gets a string of its own behind the table; the writer leaves out what is unused.
 */
static bool name_functions(struct flue_pprof_document *d, bool keep_absolute,
                           struct flue_arena *arena)
{
    struct flue_bytes *strings =
        flue_arena_zalloc(arena, (size_t)d->string_count + d->function_count + 1, sizeof *strings);
    if (!strings)
        return false;
    memcpy(strings, d->strings, d->string_count * sizeof *strings);
    d->strings = strings;
    for (uint32_t i = 0; i < d->function_count; i++) {
        struct flue_pprof_function *function = &d->functions[i];
        struct flue_bytes file = strings[function->filename];
        if (file.size == 0 || (keep_absolute && file.data[0] == '/'))
            continue;
        struct flue_bytes text = joined(arena, file, strings[function->name]);
        if (!text.data)
            return false;
        function->name = d->string_count;
        strings[d->string_count++] = text;
    }
    return true;
}

static bool underscore_types(struct flue_pprof_document *d, struct flue_arena *arena)
{
    struct flue_bytes *strings =
        flue_arena_zalloc(arena, (size_t)d->string_count + d->type_count + 1, sizeof *strings);
    if (!strings)
        return false;
    memcpy(strings, d->strings, d->string_count * sizeof *strings);
    d->strings = strings;
    for (uint32_t i = 0; i < d->type_count; i++) {
        struct flue_bytes text = flue_arena_copy(arena, strings[d->types[i].type]);
        if (!text.data)
            return false;
        for (size_t j = 0; j < text.size; j++)
            if (text.data[j] == '-')
                ((uint8_t *)text.data)[j] = '_';
        d->types[i].type = d->string_count;
        strings[d->string_count++] = text;
    }
    return true;
}

enum flue_code flue_spy_rewrite(struct flue_bytes spy, struct flue_bytes profile,
                                const struct flue_pprof_limits *limits,
                                struct flue_account *account, struct flue_block **out,
                                struct flue_error *error)
{
    struct flue_pprof_document document;
    struct flue_block *inflated;
    struct flue_arena arena;
    struct flue_bytes raw;
    enum flue_code code = flue_pprof_raw(profile, limits, account, &inflated, &raw, error);
    if (code != FLUE_OK)
        return code;
    flue_arena_init(&arena, (4u << 20) + raw.size * 16, 0);
    code = flue_pprof_decode(raw, &arena, &document, error);
    if (code == FLUE_OK &&
        !(scripting(spy) ? name_functions(&document, flue_bytes_is(spy, "pyspy"), &arena)
                         : underscore_types(&document, &arena)))
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory to rewrite the names of a profile");
    if (code == FLUE_OK)
        code = flue_pprof_encode(&document, 0, document.sample_count, &arena, account, out, error);
    flue_arena_destroy(&arena);
    flue_block_unref(inflated);
    return code;
}

/* ---- ids of .NET ---------------------------------------------------------------------------- */

#define MAX_DOTNET (8u << 20) /* real ones have some 100 KB */

enum { LOCATION = 4, FUNCTION = 5, LINE = 4 };

static uint64_t id_of(struct flue_bytes record)
{
    struct flue_reader in = flue_reader(record);
    struct flue_field_value f = {0};
    uint64_t id = 0;
    while (flue_read_field(&in, &f))
        if (f.number == 1 && f.type == FLUE_VARINT)
            id = f.varint;
    return id;
}

/* A record with its field 1 replaced by `id`; with `lines`, the same for its lines' field 1. */
static uint8_t *with_id(uint8_t *at, struct flue_bytes record, uint64_t id, bool lines,
                        uint64_t line_id)
{
    struct flue_reader in = flue_reader(record);
    struct flue_field_value f = {0};
    at = flue_write_varint(at, flue_tag(1, FLUE_VARINT));
    at = flue_write_varint(at, id);
    while (flue_read_field(&in, &f)) {
        if (f.number == 1)
            continue;
        if (lines && f.number == LINE && f.type == FLUE_LEN) {
            struct flue_bytes line = f.bytes;
            uint8_t body[256], *end;
            if (line.size > sizeof body - 16)
                continue;
            end = with_id(body, line, line_id, false, 0);
            at = flue_write_len_field(at, LINE, flue_bytes(body, (size_t)(end - body)));
            continue;
        }
        memcpy(at, f.tag_at, (size_t)(in.at - f.tag_at));
        at += in.at - f.tag_at;
    }
    return at;
}

bool flue_spy_dotnet_ids(struct flue_bytes profile, const struct flue_pprof_limits *limits,
                         struct flue_account *account, struct flue_block **out)
{
    struct flue_block *inflated, *block = NULL, *records = NULL;
    struct flue_bytes raw;
    size_t locations = 0, functions = 0, at_location = 0;
    uint64_t *ids = NULL;
    struct flue_field_value f = {0};
    struct flue_arena arena;
    bool good = false;
    if (flue_pprof_raw(profile, limits, account, &inflated, &raw, NULL) != FLUE_OK)
        return false;
    flue_arena_init(&arena, (1u << 20) + raw.size * 8, 0);
    struct flue_reader in = flue_reader(raw);
    while (flue_read_field(&in, &f)) {
        locations += f.number == LOCATION && f.type == FLUE_LEN;
        if (f.number == FUNCTION && f.type == FLUE_LEN) {
            functions++;
            if (id_of(f.bytes) != 0)
                goto out;
        }
    }
    if (!flue_reader_done(&in) || functions == 0 || functions != locations || raw.size > MAX_DOTNET)
        goto out;
    ids = flue_arena_zalloc(&arena, locations, sizeof *ids);
    /* The worst is an empty line, of two bytes, which gets an id of ten: 13 bytes. */
    block = flue_block_new(account, raw.size * 8 + locations * 96 + 64);
    records = flue_block_new(account, raw.size * 8 + 512);
    if (!ids || !block || !records)
        goto out;
    uint8_t *at = block->data;
    size_t at_function = 0;
    for (in = flue_reader(raw); flue_read_field(&in, &f);)
        if (f.number == LOCATION && f.type == FLUE_LEN)
            ids[at_location++] = id_of(f.bytes);
    at_location = 0;
    for (in = flue_reader(raw); flue_read_field(&in, &f);) {
        if ((f.number == LOCATION || f.number == FUNCTION) && f.type == FLUE_LEN) {
            uint64_t id = f.number == LOCATION ? ids[at_location++] : ids[at_function++];
            uint8_t *end = with_id(records->data, f.bytes, id, f.number == LOCATION, id);
            at = flue_write_len_field(at, f.number,
                                      flue_bytes(records->data, (size_t)(end - records->data)));
        } else {
            memcpy(at, f.tag_at, (size_t)(in.at - f.tag_at));
            at += in.at - f.tag_at;
        }
    }
    block->size = (size_t)(at - block->data);
    flue_block_finish(block);
    *out = block;
    good = true;
out:
    if (!good)
        flue_block_unref(block);
    flue_block_unref(records);
    flue_block_unref(inflated);
    flue_arena_destroy(&arena);
    return good;
}
