/* repair.c: finds what must change in a body and has it spliced. */
#include "proto/otlp/repair.h"

#include "proto/wire/splice.h"
#include "proto/wire/writer.h"

struct repair {
    struct flue_bytes body;
    const struct flue_otlp_verdict *verdict;
    struct flue_arena arena;
    struct flue_splice_step *steps;
    size_t count, room;
    size_t next_profile;              /* of the verdict's list */
    uint32_t row[FLUE_OTLP_TABLES];   /* that the walk stands at */
    const struct flue_bytes *strings; /* of the dictionary; NULL until needed */
    uint32_t string_count;
    uint64_t repaired;
    bool everywhere; /* also messages that hold nothing but numbers */
    bool failed;
};

static uint32_t position(const struct repair *r, const uint8_t *at)
{
    return (uint32_t)(at - r->body.data);
}

static void put(struct repair *r, struct flue_splice_step step)
{
    if (!FLUE_ARENA_PUSH(&r->arena, r->steps, r->count, r->room, step))
        r->failed = true;
}

static void replace(struct repair *r, unsigned depth, const uint8_t *from, const uint8_t *to,
                    struct flue_bytes with)
{
    put(r, (struct flue_splice_step){.inside = (uint8_t)depth,
                                     .from = position(r, from),
                                     .to = position(r, to),
                                     .with = with});
}

enum flue_code flue_otlp_rewrite(struct flue_block **body, struct flue_splice_step *steps,
                                 size_t count, struct flue_arena *arena, struct flue_error *error)
{
    struct flue_bytes old = flue_block_bytes(*body);
    struct flue_slices slices = {0};
    struct flue_block *block;
    enum flue_code code;
    bool ok;
    size_t size = flue_splice_measure(old.size, steps, count, &ok);

    if (!ok || size > INT32_MAX)
        return flue_fail(error, FLUE_TOO_LARGE, "a request of over 2 GiB when put in order");
    code = flue_splice_write(old, steps, count, arena, &slices, error);
    if (code != FLUE_OK)
        return code;
    block = flue_block_new((*body)->account, size ? size : 1);
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "out of memory for %zu bytes of a request", size);
    flue_slices_copy(&slices, block->data);
    block->size = size;
    if (!flue_block_charge(block)) {
        flue_block_unref(block);
        return flue_fail(error, FLUE_OVERLOADED,
                         "no memory left for a second form of a request of %zu bytes", size);
    }
    flue_block_finish(block);
    flue_block_unref(*body);
    *body = block;
    return FLUE_OK;
}

/* What references and repairs add is limited as any decoding is (design.md, limits): a reference of
 * a few bytes may mean a long string. */
static void begin(struct repair *r, struct flue_bytes body)
{
    size_t budget = body.size * 8;
    r->body = body;
    flue_arena_init(&r->arena, budget < (4u << 20) ? 4u << 20 : budget, 0);
}

static enum flue_code finish(struct repair *r, struct flue_block **body, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    if (r->failed && !r->arena.full)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory to put the request in order");
    else if (r->failed)
        code = flue_fail(error, FLUE_TOO_LARGE,
                         "putting the request in order takes over %zu bytes of memory, its limit",
                         r->arena.budget);
    else if (r->count)
        code = flue_otlp_rewrite(body, r->steps, r->count, &r->arena, error);
    flue_arena_destroy(&r->arena);
    return code;
}

/* ---------------------------------------------------------------- joining */

static void open_message(struct repair *r, unsigned depth, const struct flue_field_value *field)
{
    struct flue_reader tag = {field->tag_at, field->bytes.data};
    uint64_t unused;
    (void)flue_read_varint(&tag, &unused);
    put(r, (struct flue_splice_step){.message = true,
                                     .inside = (uint8_t)depth,
                                     .from = position(r, tag.at),
                                     .start = position(r, field->bytes.data),
                                     .to = position(r, field->bytes.data + field->bytes.size)});
}

/* Joins the occurrences of field `number` in a message (a reader over its content). */
static void join_field(struct repair *r, struct flue_reader content, uint32_t number,
                       unsigned depth)
{
    struct flue_reader reader = content;
    struct flue_field_value field, first = {0};
    unsigned found = 0;

    while (flue_read_field(&reader, &field)) {
        if (field.number == number && field.type == FLUE_LEN && !found++)
            first = field;
    }
    if (found < 2)
        return;
    open_message(r, depth, &first);
    for (int pass = 0; pass < 2; pass++) {
        const uint8_t *end = first.bytes.data + first.bytes.size;
        reader = content;
        while (flue_read_field(&reader, &field)) {
            if (field.number != number || field.type != FLUE_LEN || field.tag_at == first.tag_at)
                continue;
            if (pass == 0)
                replace(r, depth + 1, end, end, field.bytes);
            else
                replace(r, depth, field.tag_at, reader.at, flue_bytes(NULL, 0));
        }
    }
}

static int by_position(const struct flue_splice_step *a, const struct flue_splice_step *b)
{
    return a->from < b->from ? -1 : a->from > b->from;
}

/* Within one container: children and joined parts come in any order, so steps are sorted in the
 * end. Insertion at the end of a message (deeper) stays before what stands behind it: insertion
 * order is kept for equal positions. */
static void sort_steps(struct flue_splice_step *steps, struct flue_splice_step *other, size_t count)
{
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t at = 0; at < count; at += 2 * width) {
            size_t left = at, middle = at + width < count ? at + width : count;
            size_t right = middle, end = at + 2 * width < count ? at + 2 * width : count;
            for (size_t i = at; i < end; i++)
                other[i] =
                    left < middle && (right >= end || by_position(&steps[left], &steps[right]) <= 0)
                        ? steps[left++]
                        : steps[right++];
        }
        memcpy(steps, other, count * sizeof *steps);
    }
}

enum flue_code flue_otlp_join(struct flue_block **body, struct flue_error *error)
{
    struct repair r = {0};
    struct flue_reader request;
    struct flue_field_value resource, scope;

    begin(&r, flue_block_bytes(*body));
    request = flue_reader(r.body);
    join_field(&r, request, 2, 0);
    while (flue_read_field(&request, &resource)) {
        struct flue_reader reader = flue_reader(resource.bytes);
        size_t opened = r.count;
        if (resource.number != 1 || resource.type != FLUE_LEN)
            continue;
        open_message(&r, 0, &resource);
        join_field(&r, reader, 1, 1);
        while (flue_read_field(&reader, &scope)) {
            size_t opened_scope = r.count;
            if (scope.number != 2 || scope.type != FLUE_LEN)
                continue;
            open_message(&r, 1, &scope);
            join_field(&r, flue_reader(scope.bytes), 1, 2);
            if (r.count == opened_scope + 1)
                r.count--;
        }
        if (r.count == opened + 1)
            r.count--;
    }
    if (!r.failed && r.count) {
        struct flue_splice_step *other = flue_arena_alloc(&r.arena, r.count * sizeof *other);
        if (other)
            sort_steps(r.steps, other, r.count);
        else
            r.failed = true;
    }
    return finish(&r, body, error);
}

/* --------------------------------------------------------------- repairing */

static void load_strings(struct repair *r)
{
    struct flue_reader request = flue_reader(r->body);
    struct flue_field_value field;
    struct flue_bytes *rows = NULL;
    size_t count = 0, room = 0;

    while (flue_read_field(&request, &field)) {
        struct flue_reader reader;
        if (field.number != 2)
            continue;
        reader = flue_reader(field.bytes);
        while (flue_read_field(&reader, &field))
            if (field.number == FLUE_OTLP_STRING && !r->failed)
                r->failed = !FLUE_ARENA_PUSH(&r->arena, rows, count, room, field.bytes);
    }
    r->strings = rows ? rows : (const struct flue_bytes *)"";
    r->string_count = (uint32_t)count;
}

/* A whole field 1 (key, string_value) with the string that a reference means. */
static struct flue_bytes resolved(struct repair *r, uint64_t index)
{
    struct flue_bytes text = {NULL, 0};
    bool valid;
    size_t size;
    uint8_t *out, *at;

    if (!r->strings)
        load_strings(r);
    if (!r->failed && index < r->string_count)
        text = r->strings[index];
    valid = flue_utf8_valid(text);
    size = valid ? text.size : flue_utf8_repaired_size(text);
    out = flue_arena_alloc(&r->arena, flue_len_field_size(1, size));
    if (!out) {
        r->failed = true;
        return flue_bytes(NULL, 0);
    }
    if (valid) {
        at = flue_write_len_field(out, 1, text);
    } else {
        at = flue_write_len_head(out, 1, size);
        flue_utf8_repair(text, at);
        at += size;
    }
    return flue_bytes(out, (size_t)(at - out));
}

static void repair_text(struct repair *r, unsigned depth, const struct flue_field_value *field)
{
    size_t size;
    uint8_t *out;

    if (flue_utf8_valid(field->bytes))
        return;
    size = flue_utf8_repaired_size(field->bytes);
    out = flue_arena_alloc(&r->arena, size);
    if (!out) {
        r->failed = true;
        return;
    }
    flue_utf8_repair(field->bytes, out);
    r->repaired++;
    open_message(r, depth, field);
    replace(r, depth + 1, field->bytes.data, field->bytes.data + field->bytes.size,
            flue_bytes(out, size));
}

static bool taken_out(struct repair *r, const struct flue_field_value *profile)
{
    const struct flue_otlp_verdict *v = r->verdict;
    if (!v || r->next_profile == v->bad_count ||
        v->bad_profiles[r->next_profile] != position(r, profile->tag_at))
        return false;
    r->next_profile++;
    return true;
}

/* A KeyValue's plain key wins when it is not empty. */
static bool has_key(struct flue_bytes key_value)
{
    struct flue_reader reader = flue_reader(key_value);
    struct flue_field_value field;
    bool has = false;
    while (flue_read_field(&reader, &field))
        if (field.number == 1)
            has = field.bytes.size > 0;
    return has;
}
static bool has_reference(struct flue_bytes key_value)
{
    struct flue_reader reader = flue_reader(key_value);
    struct flue_field_value field;
    bool has = false;
    while (flue_read_field(&reader, &field))
        if (field.number == 3)
            has = field.varint != 0;
    return has;
}

static bool holds_text(enum flue_otlp_message message)
{
    switch (message) {
    case FLUE_OTLP_M_MAPPING:
    case FLUE_OTLP_M_LOCATION:
    case FLUE_OTLP_M_LINE:
    case FLUE_OTLP_M_FUNCTION:
    case FLUE_OTLP_M_LINK:
    case FLUE_OTLP_M_STACK:
    case FLUE_OTLP_M_SAMPLE:
    case FLUE_OTLP_M_VALUE_TYPE:
        return false;
    default:
        return true;
    }
}

static void repair_message(struct repair *r, enum flue_otlp_message message,
                           struct flue_bytes content, unsigned depth)
{
    struct flue_reader reader = flue_reader(content);
    struct flue_field_value field;
    bool plain = true, reference = false;

    if (message == FLUE_OTLP_M_KEY_VALUE) {
        plain = has_key(content);
        reference = !plain && has_reference(content);
    }
    while (!r->failed && flue_read_field(&reader, &field)) {
        const struct flue_otlp_field *known = flue_otlp_known(message, field.number);
        uint32_t tag = flue_tag(field.number, field.type);
        size_t opened;
        if (known->kind == FLUE_OTLP_F_UNKNOWN)
            continue;
        if (message == FLUE_OTLP_M_DICTIONARY) {
            uint32_t row = r->row[field.number]++;
            if (r->verdict && flue_otlp_row_bad(r->verdict, field.number, row)) {
                uint8_t *empty = flue_arena_alloc(&r->arena, 2);
                if (!empty) {
                    r->failed = true;
                    return;
                }
                empty[0] = (uint8_t)flue_tag(field.number, FLUE_LEN);
                empty[1] = 0;
                replace(r, depth, field.tag_at, reader.at, flue_bytes(empty, 2));
                continue;
            }
        }
        if ((message == FLUE_OTLP_M_SCOPE_PROFILES && field.number == 2 && taken_out(r, &field)) ||
            (message == FLUE_OTLP_M_KEY_VALUE && field.number == 1 && reference)) {
            replace(r, depth, field.tag_at, reader.at, flue_bytes(NULL, 0));
            continue;
        }
        if (known->kind == FLUE_OTLP_F_REFERENCE) {
            bool key = message == FLUE_OTLP_M_KEY_VALUE;
            struct flue_bytes with = {NULL, 0};
            if (!key || (!plain && field.varint))
                with = resolved(r, field.varint);
            replace(r, depth, field.tag_at, reader.at, with);
            continue;
        }
        if (*field.tag_at >= 0x80) { /* all known tags have one byte */
            const uint8_t *end = field.tag_at;
            uint8_t *minimal = flue_arena_alloc(&r->arena, 1);
            if (!minimal) {
                r->failed = true;
                return;
            }
            *minimal = (uint8_t)tag;
            while (*end++ >= 0x80)
                ;
            replace(r, depth, field.tag_at, end, flue_bytes(minimal, 1));
        }
        if (known->kind == FLUE_OTLP_F_STRING && field.type == FLUE_LEN) {
            repair_text(r, depth, &field);
        } else if (known->kind == FLUE_OTLP_F_MESSAGE && field.type == FLUE_LEN &&
                   (r->everywhere || holds_text(known->to))) {
            opened = r->count;
            open_message(r, depth, &field);
            repair_message(r, known->to, field.bytes, depth + 1);
            if (r->count == opened + 1)
                r->count--;
        }
    }
}

enum flue_code flue_otlp_repair(struct flue_block **body, const struct flue_otlp_verdict *verdict,
                                bool tags, uint64_t *strings, struct flue_error *error)
{
    struct repair r = {.verdict = verdict, .everywhere = tags};

    begin(&r, flue_block_bytes(*body));
    repair_message(&r, FLUE_OTLP_M_REQUEST, r.body, 0);
    *strings += r.repaired;
    return finish(&r, body, error);
}
