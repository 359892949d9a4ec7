/* folded.c: see folded.h. Frames and stacks are interned, so memory follows what is different. */
#include "proto/foreign/folded.h"

#include <inttypes.h>

#include "collector/base/hash.h"
#include "proto/pprof/document.h"

struct reading {
    struct flue_arena *arena;
    struct flue_error *error;
    struct flue_pprof_document doc;
    size_t string_room, function_room, stack_room, sample_room, value_room;
    size_t string_count, function_count, stack_count, sample_count, value_count;
    struct flue_table frames; /* row: function; its name is strings[row + first_frame] */
    struct flue_table stacks; /* row: sample; its text is texts[row] */
    struct flue_bytes *texts;
    size_t text_count, text_room;
    size_t first_frame;
    uint64_t line;
    int64_t scale;
};

static enum flue_code used_up(struct reading *r)
{
    if (!r->arena->full)
        return flue_fail(r->error, FLUE_NO_MEMORY, "no memory to read folded stacks");
    return flue_fail(r->error, FLUE_TOO_LARGE,
                     "line %" PRIu64 ": the stacks up to here need more than the %zu bytes that a "
                     "folded profile may use",
                     r->line, r->arena->budget);
}

static bool frame_equal(const void *rows, uint32_t row, const void *key)
{
    const struct reading *r = rows;
    return flue_bytes_equal(r->doc.strings[r->first_frame + row], *(const struct flue_bytes *)key);
}

static bool text_equal(const void *rows, uint32_t row, const void *key)
{
    return flue_bytes_equal(((const struct reading *)rows)->texts[row],
                            *(const struct flue_bytes *)key);
}

static bool add_string(struct reading *r, struct flue_bytes text)
{
    return FLUE_ARENA_PUSH(r->arena, r->doc.strings, r->string_count, r->string_room, text);
}

/* The function (and location) of a frame, or FLUE_TABLE_NONE without memory. */
static uint32_t frame_row(struct reading *r, struct flue_bytes frame)
{
    uint64_t hash = flue_hash(frame);
    uint32_t row = flue_table_find(&r->frames, hash, frame_equal, r, &frame);
    if (row != FLUE_TABLE_NONE)
        return row;
    row = (uint32_t)r->function_count;
    struct flue_pprof_function function = {.name = (uint32_t)r->string_count};
    if (!add_string(r, frame) ||
        !FLUE_ARENA_PUSH(r->arena, r->doc.functions, r->function_count, r->function_room,
                         function) ||
        !flue_table_insert(&r->frames, hash, row))
        return FLUE_TABLE_NONE;
    return row;
}

/* A new sample for a stack not seen before. */
static bool new_stack(struct reading *r, struct flue_bytes text, uint64_t hash)
{
    struct flue_pprof_sample sample = {.first_location = (uint32_t)r->stack_count};
    int64_t zero = 0;
    size_t end = text.size;
    for (;;) { /* from the leaf, which is last */
        size_t start = end;
        while (start > 0 && text.data[start - 1] != ';')
            start--;
        uint32_t row = frame_row(r, flue_bytes(text.data + start, end - start));
        if (row == FLUE_TABLE_NONE ||
            !FLUE_ARENA_PUSH(r->arena, r->doc.stack, r->stack_count, r->stack_room, row))
            return false;
        sample.location_count++;
        if (start == 0)
            break;
        end = start - 1;
    }
    return FLUE_ARENA_PUSH(r->arena, r->doc.samples, r->sample_count, r->sample_room, sample) &&
           FLUE_ARENA_PUSH(r->arena, r->doc.values, r->value_count, r->value_room, zero) &&
           FLUE_ARENA_PUSH(r->arena, r->texts, r->text_count, r->text_room, text) &&
           flue_table_insert(&r->stacks, hash, (uint32_t)(r->sample_count - 1));
}

static enum flue_code add_stack(struct reading *r, struct flue_bytes text, uint64_t count)
{
    uint64_t hash = flue_hash(text);
    int64_t scaled, sum;
    uint32_t row = flue_table_find(&r->stacks, hash, text_equal, r, &text);
    if (row == FLUE_TABLE_NONE) {
        if (r->sample_count >= UINT32_MAX / 2 || !new_stack(r, text, hash))
            return used_up(r);
        row = (uint32_t)(r->sample_count - 1);
    }
    if (count > INT64_MAX || __builtin_mul_overflow((int64_t)count, r->scale, &scaled) ||
        __builtin_add_overflow(r->doc.values[row], scaled, &sum))
        return flue_fail(r->error, FLUE_INVALID,
                         "line %" PRIu64 ": count %" PRIu64 " times %" PRId64
                         " passes 2^63-1 for this stack",
                         r->line, count, r->scale);
    r->doc.values[row] = sum;
    return FLUE_OK;
}

static enum flue_code group_line(struct reading *r, struct flue_bytes line)
{
    char shown[64];
    uint64_t count;
    size_t blank = line.size;
    while (blank > 0 && line.data[blank - 1] != ' ')
        blank--;
    if (blank == 0)
        return flue_fail(r->error, FLUE_INVALID,
                         "line %" PRIu64 ": \"%s\" has no count (want: frame;frame COUNT)", r->line,
                         flue_printable(line, shown, sizeof shown));
    if (!flue_parse_u64(flue_bytes_from(line, blank), &count))
        return flue_fail(r->error, FLUE_INVALID,
                         "line %" PRIu64 ": \"%s\" is not a count (want: frame;frame COUNT)",
                         r->line,
                         flue_printable(flue_bytes_from(line, blank), shown, sizeof shown));
    return add_stack(r, flue_bytes_trim(flue_bytes_first(line, blank)), count);
}

static enum flue_code every_line(struct reading *r, struct flue_bytes text,
                                 enum flue_folded_form form)
{
    enum flue_code code = FLUE_OK;
    while (text.size > 0 && code == FLUE_OK) {
        size_t end = flue_bytes_find(text, '\n');
        struct flue_bytes line = flue_bytes_first(text, end);
        text = end == SIZE_MAX ? flue_bytes_from(text, text.size) : flue_bytes_from(text, end + 1);
        r->line++;
        if (line.size > 0 && line.data[line.size - 1] == '\r')
            line.size--;
        line = flue_bytes_trim(line);
        if (line.size == 0)
            continue;
        code = form == FLUE_FOLDED_GROUPS ? group_line(r, line) : add_stack(r, line, 1);
    }
    return code;
}

/* Every function has one location with one line. */
static enum flue_code finish(struct reading *r, const struct flue_folded_meaning *meaning,
                             struct flue_account *account, struct flue_block **out)
{
    struct flue_pprof_document *doc = &r->doc;
    size_t count = r->function_count;
    struct flue_pprof_value_type type = {1, 2};
    doc->locations = flue_arena_zalloc(r->arena, count + 1, sizeof *doc->locations);
    doc->lines = flue_arena_zalloc(r->arena, count + 1, sizeof *doc->lines);
    if (!doc->locations || !doc->lines)
        return used_up(r);
    for (size_t i = 0; i < count; i++) {
        doc->lines[i].function = (uint32_t)i;
        doc->locations[i] = (struct flue_pprof_location){
            .mapping = FLUE_PPROF_NONE, .first_line = (uint32_t)i, .line_count = 1};
    }
    doc->types = &type;
    doc->type_count = 1;
    doc->string_count = (uint32_t)r->string_count;
    doc->function_count = doc->location_count = doc->line_count = (uint32_t)count;
    doc->sample_count = (uint32_t)r->sample_count;
    doc->stack_count = (uint32_t)r->stack_count;
    doc->period_type = (struct flue_pprof_value_type){3, 4};
    doc->has_period_type = meaning->period_type.size > 0;
    doc->period = meaning->period;
    doc->time_nanos = meaning->time_nanos;
    doc->duration_nanos = meaning->duration_nanos;
    enum flue_code code =
        flue_pprof_encode(doc, 0, doc->sample_count, r->arena, account, out, r->error);
    return code == FLUE_NO_MEMORY && r->arena->full ? used_up(r) : code;
}

static enum flue_code repaired(struct flue_bytes *text, struct flue_account *account,
                               struct flue_block **holder, struct flue_error *error)
{
    size_t size = flue_utf8_repaired_size(*text);
    struct flue_block *block = flue_block_new(account, size);
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to repair %zu bytes of text", size);
    flue_utf8_repair(*text, block->data);
    block->size = size;
    flue_block_finish(block);
    *text = flue_block_bytes(block);
    *holder = block;
    return FLUE_OK;
}

enum flue_code flue_folded_to_pprof(struct flue_bytes text, enum flue_folded_form form,
                                    const struct flue_folded_meaning *meaning, size_t budget,
                                    struct flue_account *account, struct flue_block **out,
                                    struct flue_folded_facts *facts, struct flue_error *error)
{
    struct flue_arena arena;
    struct flue_block *holder = NULL;
    struct reading r = {.arena = &arena, .error = error, .scale = meaning->scale};
    enum flue_code code = FLUE_OK;
    *facts = (struct flue_folded_facts){0};
    if (text.size >= 2 && ((text.data[0] == 0xff && text.data[1] == 0xfe) ||
                           (text.data[0] == 0xfe && text.data[1] == 0xff)))
        return flue_fail(error, FLUE_INVALID, "line 1: the text is UTF-16; send UTF-8");
    if (flue_bytes_starts_with(text, FLUE_BYTES("\xef\xbb\xbf")))
        text = flue_bytes_from(text, 3);
    if (text.size > UINT32_MAX / 2)
        return flue_fail(error, FLUE_TOO_LARGE, "folded text of %zu bytes", text.size);
    if (!flue_utf8_valid(text)) {
        facts->repaired = true;
        if ((code = repaired(&text, account, &holder, error)) != FLUE_OK)
            return code;
    }
    flue_arena_init(&arena, budget, 0);
    const struct flue_bytes fixed[] = {FLUE_BYTES(""), meaning->type, meaning->unit,
                                       meaning->period_type, meaning->period_unit};
    bool good = flue_table_init(&r.frames, &arena, 64) && flue_table_init(&r.stacks, &arena, 64);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed && good; i++)
        good = add_string(&r, fixed[i]);
    r.first_frame = r.string_count;
    code = good ? every_line(&r, text, form) : used_up(&r);
    if (code == FLUE_OK)
        code = finish(&r, meaning, account, out);
    facts->samples = r.sample_count;
    flue_arena_destroy(&arena);
    flue_block_unref(holder);
    return code;
}
