/* sample_types.c: see sample_types.h. Field numbers: proto/pprof.proto. */
#include "proto/pprof/sample_types.h"

#include "proto/wire/writer.h"

#define SAMPLE_TYPE         1
#define STRING_TABLE        6
#define DEFAULT_SAMPLE_TYPE 14
#define VALUE_TYPE_TYPE     1
#define TYPES_MAX           64

/* Of one renamed type: the string it had, and the one it gets. */
struct renamed {
    uint64_t old, now;
    struct flue_bytes name;
};
struct renaming {
    struct renamed types[TYPES_MAX];
    size_t count;
    uint64_t strings; /* rows of string_table */
};

static uint64_t type_of(struct flue_bytes value_type)
{
    struct flue_reader in = flue_reader(value_type);
    struct flue_field_value f;
    uint64_t type = 0;

    while (flue_read_field(&in, &f))
        if (f.number == VALUE_TYPE_TYPE && f.type == FLUE_VARINT)
            type = f.varint;
    return type;
}

static const struct renamed *find(const struct renaming *r, uint64_t string)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->types[i].old == string)
            return &r->types[i];
    return NULL;
}

/* Which types there are, then which of their names hold a '-'. */
static enum flue_code collect(struct flue_bytes raw, struct renaming *r, struct flue_error *error)
{
    struct flue_reader in = flue_reader(raw);
    struct flue_field_value f;
    size_t kept = 0;

    while (flue_read_field(&in, &f)) {
        if (f.number == SAMPLE_TYPE && f.type == FLUE_LEN && !find(r, type_of(f.bytes))) {
            if (r->count == TYPES_MAX)
                return flue_fail(error, FLUE_TOO_LARGE, "sample_type: more than %d entries",
                                 TYPES_MAX);
            r->types[r->count++].old = type_of(f.bytes);
        }
    }
    in = flue_reader(raw);
    while (flue_read_field(&in, &f)) {
        if (f.number != STRING_TABLE || f.type != FLUE_LEN)
            continue;
        for (size_t i = 0; i < r->count; i++)
            if (r->types[i].old == r->strings)
                r->types[i].name = f.bytes;
        r->strings++;
    }
    for (size_t i = 0; i < r->count; i++) {
        if (!r->types[i].name.size || !memchr(r->types[i].name.data, '-', r->types[i].name.size))
            continue;
        r->types[kept] = r->types[i];
        r->types[kept].now = r->strings + kept;
        kept++;
    }
    r->count = kept;
    return FLUE_OK;
}

/* A ValueType with its `type` replaced: the new one first, the old one left out. */
static size_t value_type(struct flue_bytes old, uint64_t type, uint8_t *out)
{
    struct flue_reader in = flue_reader(old);
    struct flue_field_value f;
    size_t size = 1 + flue_varint_size(type);
    uint8_t *at = out;

    if (at) {
        at = flue_write_varint(at, flue_tag(VALUE_TYPE_TYPE, FLUE_VARINT));
        at = flue_write_varint(at, type);
    }
    while (flue_read_field(&in, &f)) {
        size_t field = (size_t)(in.at - f.tag_at);
        if (f.number == VALUE_TYPE_TYPE)
            continue;
        size += field;
        if (at) {
            memcpy(at, f.tag_at, field);
            at += field;
        }
    }
    return size;
}

/* Measures with out NULL. */
static size_t rewrite(struct flue_bytes raw, const struct renaming *r, uint8_t *out)
{
    struct flue_reader in = flue_reader(raw);
    struct flue_field_value f;
    size_t size = 0;

    while (flue_read_field(&in, &f)) {
        const struct renamed *type = NULL;
        if (f.number == SAMPLE_TYPE && f.type == FLUE_LEN && (type = find(r, type_of(f.bytes)))) {
            size_t inner = value_type(f.bytes, type->now, NULL);
            if (out) {
                uint8_t *at = flue_write_len_head(out + size, SAMPLE_TYPE, inner);
                value_type(f.bytes, type->now, at);
            }
            size += flue_len_field_size(SAMPLE_TYPE, inner);
        } else if (f.number == DEFAULT_SAMPLE_TYPE && f.type == FLUE_VARINT &&
                   (type = find(r, f.varint))) {
            if (out)
                flue_write_varint(
                    flue_write_varint(out + size, flue_tag(DEFAULT_SAMPLE_TYPE, FLUE_VARINT)),
                    type->now);
            size += 1 + flue_varint_size(type->now);
        } else {
            size_t field = (size_t)(in.at - f.tag_at);
            if (out)
                memcpy(out + size, f.tag_at, field);
            size += field;
        }
    }
    for (size_t i = 0; i < r->count; i++) {
        if (out) {
            uint8_t *at = flue_write_len_field(out + size, STRING_TABLE, r->types[i].name);
            for (size_t k = 0; k < r->types[i].name.size; k++)
                if (at[-1 - (ptrdiff_t)k] == '-')
                    at[-1 - (ptrdiff_t)k] = '_';
        }
        size += flue_len_field_size(STRING_TABLE, r->types[i].name.size);
    }
    return size;
}

enum flue_code flue_pprof_underscore_types(struct flue_bytes profile,
                                           const struct flue_pprof_limits *limits,
                                           struct flue_account *account, struct flue_block **out,
                                           struct flue_error *error)
{
    struct renaming r = {.count = 0};
    struct flue_block *inflated = NULL, *block = NULL;
    struct flue_bytes raw;
    enum flue_code code = flue_pprof_raw(profile, limits, account, &inflated, &raw, error);

    if (!code)
        code = collect(raw, &r, error);
    if (!code) {
        size_t size = rewrite(raw, &r, NULL);
        block = flue_block_new(account, size ? size : 1);
        if (!block) {
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory to rewrite a profile of %zu bytes",
                             size);
        } else {
            rewrite(raw, &r, block->data);
            block->size = size;
            flue_block_finish(block);
            *out = block;
        }
    }
    flue_block_unref(inflated);
    return code;
}
