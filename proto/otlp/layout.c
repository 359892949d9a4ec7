/* layout.c: scores samples and Profiles under each layout; relabels old ones. */
#include "proto/otlp/layout.h"

#include "proto/otlp/index.h"
#include "proto/otlp/repair.h"
#include "proto/wire/splice.h"
#include "proto/wire/writer.h"

struct counting {
    uint64_t attributes, links, strings, dictionaries, tables_outside;
};

static struct counting count_tables(struct flue_bytes body)
{
    struct counting c = {0};
    struct flue_reader request = flue_reader(body);
    struct flue_field_value field;

    while (flue_read_field(&request, &field)) {
        struct flue_reader reader;
        if (field.type != FLUE_LEN)
            continue;
        c.tables_outside += field.number >= 3 && field.number <= 8;
        if (field.number != 2)
            continue;
        c.dictionaries++;
        reader = flue_reader(field.bytes);
        while (flue_read_field(&reader, &field)) {
            c.attributes += field.number == FLUE_OTLP_ATTRIBUTE;
            c.links += field.number == FLUE_OTLP_LINK;
            c.strings += field.number == FLUE_OTLP_STRING;
        }
    }
    c.attributes = c.attributes ? c.attributes : 1;
    c.links = c.links ? c.links : 1;
    c.strings = c.strings ? c.strings : 1;
    return c;
}

/* Walks all Profiles of a body; breaks off silently where the structure is wrong. */
static void each_profile(struct flue_bytes body,
                         void (*visit)(void *arg, const struct flue_field_value *profile),
                         void *arg)
{
    struct flue_reader request = flue_reader(body);
    struct flue_field_value field;

    while (flue_read_field(&request, &field)) {
        struct flue_reader resource;
        if (field.number != 1 || field.type != FLUE_LEN)
            continue;
        resource = flue_reader(field.bytes);
        while (flue_read_field(&resource, &field)) {
            struct flue_reader scope;
            if (field.number != 2 || field.type != FLUE_LEN)
                continue;
            scope = flue_reader(field.bytes);
            while (flue_read_field(&scope, &field))
                if (field.number == 2)
                    visit(arg, &field);
        }
    }
}

static uint64_t numbers(const struct flue_field_value *field, uint64_t limit, bool *bad)
{
    struct flue_reader reader = flue_reader(field->bytes);
    uint64_t value, count = 0;

    if (field->type == FLUE_VARINT) {
        *bad |= field->varint >= limit;
        return 1;
    }
    *bad |= field->type != FLUE_LEN;
    while (flue_read_varint(&reader, &value)) {
        *bad |= value >= limit;
        count++;
    }
    *bad |= !flue_reader_done(&reader);
    return count;
}

static bool sample_bad(const struct counting *c, struct flue_bytes sample, uint32_t attributes,
                       uint32_t link, uint32_t values)
{
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;
    uint64_t value_count = 0, time_count = 0;
    bool bad = false;

    while (flue_read_field(&reader, &field)) {
        if (field.number == attributes) {
            numbers(&field, c->attributes, &bad);
        } else if (field.number == link) {
            bad |= field.type != FLUE_VARINT || field.varint >= c->links;
        } else if (field.number == values) {
            value_count += numbers(&field, UINT64_MAX, &bad);
        } else if (field.number == 5) {
            bad |= field.type != FLUE_LEN && field.type != FLUE_FIXED64;
            time_count += field.type == FLUE_LEN ? field.bytes.size / 8 : 1;
        }
    }
    return bad || (!value_count && !time_count) ||
           (value_count && time_count && value_count != time_count);
}

struct score {
    struct counting tables;
    uint64_t sample_old, sample_new, profile_1_8, profile_1_9;
    uint64_t looks_1_7, looks_1_5, looks_1_3; /* Profiles */
};

static bool value_type_of_1_8(struct flue_bytes value_type)
{
    struct flue_reader reader = flue_reader(value_type);
    struct flue_field_value field;
    bool found = false;
    while (flue_read_field(&reader, &field))
        found |= field.number == 3; /* aggregation_temporality */
    return found;
}

static void score_profile(void *arg, const struct flue_field_value *profile)
{
    struct score *s = arg;
    struct flue_reader reader = flue_reader(profile->bytes);
    struct flue_field_value f;
    bool bad_1_8 = false, bad_1_9 = false;
    unsigned lens = 0, sign_1_7 = 0;

    if (profile->type != FLUE_LEN)
        return;
    while (flue_read_field(&reader, &f)) {
        bool len = f.type == FLUE_LEN, varint = f.type == FLUE_VARINT;
        switch (f.number) {
        case 1:
            bad_1_9 |= len && value_type_of_1_8(f.bytes);
            break;
        case 2:
            if (len) {
                s->sample_new += sample_bad(&s->tables, f.bytes, 2, 3, 4);
                s->sample_old += sample_bad(&s->tables, f.bytes, 3, 4, 2);
            }
            s->looks_1_3 += f.type == FLUE_FIXED64;
            break;
        case 3:
            sign_1_7 |= len ? 1 : 0;
            lens |= len ? 1 : 0;
            break;
        case 4:
            lens |= len ? 2 : 0;
            break;
        case 5:
            sign_1_7 |= varint ? 2 : 0;
            break;
        case 6:
            sign_1_7 |= len ? 4 : 0;
            lens |= len ? 4 : 0;
            break;
        case 7: /* an id has 16 bytes or none */
            bad_1_9 |= !len || (f.bytes.size != 16 && f.bytes.size != 0);
            numbers(&f, s->tables.strings, &bad_1_8);
            break;
        case 8:
            bad_1_8 |= !len;
            bad_1_9 |= !varint;
            break;
        case 9:
            bad_1_8 |= !varint;
            bad_1_9 |= !len;
            break;
        case 10:
            bad_1_8 |= !len;
            bad_1_9 |= !len;
            break;
        case 11:
            bad_1_8 |= !len;
            bad_1_9 |= !len && !varint;
            break;
        case 12:
            bad_1_8 |= !len && !varint;
            bad_1_9 = true;
            break;
        default:
            break;
        }
    }
    s->profile_1_8 += bad_1_8;
    s->profile_1_9 += bad_1_9;
    s->looks_1_7 += __builtin_popcount(sign_1_7) >= 2;
    s->looks_1_5 += __builtin_popcount(lens) >= 2;
}

static enum flue_code refuse(struct flue_error *error, const char *layout)
{
    return flue_fail(error, FLUE_INVALID,
                     "OTLP profiles layout %s is not supported; send v1.8 to v1.11 (OpenTelemetry "
                     "Collector from v0.136 on, async-profiler from 4.3 on)",
                     layout);
}

enum flue_code flue_otlp_layout(struct flue_bytes body, enum flue_otlp_layout *layout,
                                struct flue_error *error)
{
    struct score s = {.tables = count_tables(body)};
    uint64_t best;

    each_profile(body, score_profile, &s);
    if (s.looks_1_3)
        return refuse(error, "v1.3 (ProfileContainer)");
    if (s.looks_1_5 && !s.tables.dictionaries && s.tables.tables_outside < 3)
        return refuse(error, "v1.4 or v1.5 (tables in each Profile)");
    if (s.looks_1_7 && s.tables.tables_outside)
        return refuse(error, "v1.6 (tables beside the resources)");
    if (s.looks_1_7)
        return refuse(error, "v1.7 (no stack_table)");
    *layout = FLUE_OTLP_1_10;
    best = s.sample_new + s.profile_1_9;
    if (s.sample_old + s.profile_1_9 < best) {
        *layout = FLUE_OTLP_1_9;
        best = s.sample_old + s.profile_1_9;
    }
    if (s.sample_old + s.profile_1_8 < best)
        *layout = FLUE_OTLP_1_8;
    return FLUE_OK;
}

/* -------------------------------------------------------------- relabelling */

/* New tag bytes by old ones; 0: unchanged. A field in a wire type that it does not have keeps its
 * type under the new number, so that the judge refuses it. */
static const uint8_t sample_tags[128] = {
    [0x10] = 0x20, [0x12] = 0x22, [0x18] = 0x10, [0x1a] = 0x12, [0x20] = 0x18, [0x22] = 0x1a};
static const uint8_t profile_tags_1_8[128] = {
    [0x42] = 0x3a, [0x48] = 0x40, [0x52] = 0x4a, [0x5a] = 0x52, [0x62] = 0x5a, [0x60] = 0x58};

struct relabelling {
    bool profile_1_8;
};

static void relabel_sample(struct flue_bytes sample)
{
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;
    while (flue_read_field(&reader, &field)) {
        uint8_t *tag = (uint8_t *)field.tag_at;
        if (*tag < 0x80 && sample_tags[*tag])
            *tag = sample_tags[*tag];
    }
}

static void relabel_profile(void *arg, const struct flue_field_value *profile)
{
    const struct relabelling *r = arg;
    struct flue_reader reader = flue_reader(profile->bytes);
    struct flue_field_value field;

    while (profile->type == FLUE_LEN && flue_read_field(&reader, &field)) {
        uint8_t *tag = (uint8_t *)field.tag_at;
        if (field.number == 2 && field.type == FLUE_LEN)
            relabel_sample(field.bytes);
        else if (r->profile_1_8 && *tag < 0x80 && profile_tags_1_8[*tag])
            *tag = profile_tags_1_8[*tag];
    }
}

/* Comments: for each Profile that has some, a row of the attribute table. Two rewritings: the rows
 * are known when all Profiles were seen, and the dictionary may stand before them. */
struct comments {
    struct flue_bytes body;
    struct flue_arena arena;
    struct flue_splice_step *steps; /* of the Profiles, without the messages around */
    size_t count, room;
    const struct flue_bytes *strings;
    size_t string_count;
    uint32_t key, attributes; /* the key's row; rows there are */
    struct flue_bytes *rows;  /* to be appended to the dictionary, whole fields */
    size_t row_count, row_room;
    bool failed;
};

static void put(struct comments *c, struct flue_splice_step step)
{
    if (!FLUE_ARENA_PUSH(&c->arena, c->steps, c->count, c->room, step))
        c->failed = true;
}

/* AttributeTable row { key, value: array of strings } from the indices of one Profile. */
static struct flue_bytes comment_row(struct comments *c, struct flue_bytes profile)
{
    size_t array = 0, value, row;
    uint8_t *out = NULL, *at = NULL;

    for (int pass = 0; pass < 2; pass++) {
        struct flue_otlp_numbers indices = {.rest = flue_reader(profile), .field = 7};
        uint64_t index;
        while (flue_otlp_numbers_next(&indices, &index)) {
            struct flue_bytes text;
            if (index >= c->string_count)
                continue;
            text = c->strings[index];
            if (pass == 0) {
                array += flue_len_field_size(1, flue_len_field_size(1, text.size));
            } else {
                at = flue_write_len_head(at, 1, flue_len_field_size(1, text.size));
                at = flue_write_len_field(at, 1, text);
            }
        }
        if (pass == 0) {
            value = flue_len_field_size(5, array);
            row = 1 + flue_varint_size(c->key) + flue_len_field_size(2, value);
            out = flue_arena_alloc(&c->arena, flue_len_field_size(FLUE_OTLP_ATTRIBUTE, row));
            if (!out) {
                c->failed = true;
                return flue_bytes(NULL, 0);
            }
            at = flue_write_len_head(out, FLUE_OTLP_ATTRIBUTE, row);
            *at++ = 0x08;
            at = flue_write_varint(at, c->key);
            at = flue_write_len_head(at, 2, value);
            at = flue_write_len_head(at, 5, array);
        }
    }
    return flue_bytes(out, (size_t)(at - out));
}

static void open_message(struct comments *c, unsigned depth, const struct flue_field_value *field)
{
    struct flue_reader tag = {field->tag_at, field->bytes.data};
    uint64_t unused;
    (void)flue_read_varint(&tag, &unused);
    put(c, (struct flue_splice_step){
               .message = true,
               .inside = (uint8_t)depth,
               .from = (uint32_t)(tag.at - c->body.data),
               .start = (uint32_t)(field->bytes.data - c->body.data),
               .to = (uint32_t)(field->bytes.data - c->body.data + field->bytes.size)});
}

static void comments_of_profile(struct comments *c, const struct flue_field_value *profile)
{
    struct flue_reader reader = flue_reader(profile->bytes);
    struct flue_field_value field;
    bool put_attribute = false;

    open_message(c, 2, profile);
    while (!c->failed && flue_read_field(&reader, &field)) {
        struct flue_bytes with = {NULL, 0}, row;
        uint8_t *out;
        if (field.number != 7)
            continue;
        if (!put_attribute && c->string_count) {
            row = comment_row(c, profile->bytes);
            out = flue_arena_alloc(&c->arena, 8);
            if (c->failed || !out ||
                !FLUE_ARENA_PUSH(&c->arena, c->rows, c->row_count, c->row_room, row)) {
                c->failed = true;
                return;
            }
            out[0] = 0x60; /* attribute_indices of 1.8 */
            with = flue_bytes(out, (size_t)(flue_write_varint(out + 1, c->attributes) - out));
            c->attributes++;
            put_attribute = true;
        }
        put(c, (struct flue_splice_step){.inside = 3,
                                         .from = (uint32_t)(field.tag_at - c->body.data),
                                         .to = (uint32_t)(reader.at - c->body.data),
                                         .with = with});
    }
}

static void drop_if_last(struct comments *c, size_t opened)
{
    if (c->count == opened + 1)
        c->count--;
}

static void comments_of_resource(struct comments *c, const struct flue_field_value *resource)
{
    struct flue_reader reader = flue_reader(resource->bytes);
    struct flue_field_value scope, field;
    size_t opened = c->count;

    open_message(c, 0, resource);
    while (flue_read_field(&reader, &scope)) {
        struct flue_reader inner;
        size_t opened_scope = c->count;
        if (scope.number != 2 || scope.type != FLUE_LEN)
            continue;
        inner = flue_reader(scope.bytes);
        open_message(c, 1, &scope);
        while (flue_read_field(&inner, &field)) {
            size_t opened_profile = c->count;
            if (field.number != 2 || field.type != FLUE_LEN)
                continue;
            comments_of_profile(c, &field);
            drop_if_last(c, opened_profile);
        }
        drop_if_last(c, opened_scope);
    }
    drop_if_last(c, opened);
}

static void load_strings(struct comments *c)
{
    struct flue_reader request = flue_reader(c->body);
    struct flue_field_value field;
    struct flue_bytes *rows = NULL;
    size_t room = 0;

    while (flue_read_field(&request, &field)) {
        struct flue_reader reader;
        if (field.number != 2 || field.type != FLUE_LEN)
            continue;
        reader = flue_reader(field.bytes);
        while (flue_read_field(&reader, &field)) {
            if (field.number == FLUE_OTLP_STRING && !c->failed)
                c->failed = !FLUE_ARENA_PUSH(&c->arena, rows, c->string_count, room, field.bytes);
            c->attributes += field.number == FLUE_OTLP_ATTRIBUTE;
        }
    }
    c->strings = rows;
}

static enum flue_code rewrite(struct comments *c, struct flue_block **body,
                              struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    if (c->failed)
        return flue_fail(error, FLUE_TOO_LARGE,
                         "moving the comments of a v1.8 request takes over %zu bytes, its limit",
                         c->arena.budget);
    if (c->count)
        code = flue_otlp_rewrite(body, c->steps, c->count, &c->arena, error);
    c->count = 0;
    c->body = flue_block_bytes(*body);
    return code;
}

/* The rows go to the end of the dictionary; the key's string first. */
static void append_rows(struct comments *c)
{
    static const uint8_t key[] = "\x2a\x15pprof.profile.comment";
    struct flue_reader request = flue_reader(c->body);
    struct flue_field_value field, dictionary = {0};
    uint32_t end;

    while (flue_read_field(&request, &field))
        if (field.number == 2 && field.type == FLUE_LEN)
            dictionary = field;
    end = (uint32_t)(dictionary.bytes.data - c->body.data + dictionary.bytes.size);
    open_message(c, 0, &dictionary);
    put(c, (struct flue_splice_step){
               .inside = 1, .from = end, .to = end, .with = flue_bytes(key, sizeof key - 1)});
    for (size_t i = 0; i < c->row_count; i++)
        put(c, (struct flue_splice_step){.inside = 1, .from = end, .to = end, .with = c->rows[i]});
}

static enum flue_code move_comments(struct flue_block **body, struct flue_error *error)
{
    static const uint8_t zero_row[] = {0x32, 0x00};
    struct comments c = {.body = flue_block_bytes(*body)};
    size_t budget = c.body.size * 8, zero_rows;
    struct flue_reader request = flue_reader(c.body);
    struct flue_field_value field;
    enum flue_code code;

    flue_arena_init(&c.arena, budget < (4u << 20) ? 4u << 20 : budget, 0);
    load_strings(&c);
    c.key = (uint32_t)c.string_count;
    zero_rows = c.string_count && c.attributes == 0;
    if (zero_rows) {
        struct flue_bytes row = {zero_row, sizeof zero_row};
        c.failed |= !FLUE_ARENA_PUSH(&c.arena, c.rows, c.row_count, c.row_room, row);
        c.attributes = 1;
    }
    while (flue_read_field(&request, &field))
        if (field.number == 1 && field.type == FLUE_LEN)
            comments_of_resource(&c, &field);
    code = rewrite(&c, body, error);
    if (code == FLUE_OK && c.row_count > zero_rows) {
        append_rows(&c);
        code = rewrite(&c, body, error);
    }
    flue_arena_destroy(&c.arena);
    return code;
}

enum flue_code flue_otlp_to_1_10(struct flue_block **body, enum flue_otlp_layout layout,
                                 struct flue_error *error)
{
    struct relabelling r = {.profile_1_8 = layout == FLUE_OTLP_1_8};
    enum flue_code code = r.profile_1_8 ? move_comments(body, error) : FLUE_OK;

    if (code != FLUE_OK || layout == FLUE_OTLP_1_10)
        return code;
    if (atomic_load_explicit(&(*body)->refs, memory_order_acquire) > 1) {
        struct flue_block *copy = flue_block_copy((*body)->account, flue_block_bytes(*body));
        if (!copy)
            return flue_fail(error, FLUE_NO_MEMORY, "out of memory for %zu bytes of a request",
                             (*body)->size);
        flue_block_finish(copy);
        flue_block_unref(*body);
        *body = copy;
    }
    each_profile(flue_block_bytes(*body), relabel_profile, &r);
    return FLUE_OK;
}
