/* folded.c: see render.h. */
#include "archive/read/render.h"
#include <inttypes.h>
#include <stdlib.h>
#include "archive/read/frames.h"
#include "collector/base/hash.h"

#define BUDGET ((size_t)2 << 30)

/* Stacks that differ by address or line only have one text: they are one row. */
struct row {
    size_t start, size; /* of the text */
    int64_t value;
};
struct fold {
    struct flue_arena arena; /* of rows and table */
    struct flue_buffer texts;
    struct row *rows;
    size_t count, room;
    struct flue_table table;
};

static void write_name(struct flue_bytes name, struct flue_buffer *out)
{
    for (size_t i = 0; i < name.size; i++) {
        uint8_t byte = name.data[i];
        flue_buffer_byte(out, byte == ';' ? ':' : byte < 0x20 || byte == 0x7f ? ' ' : byte);
    }
}

static struct flue_bytes text_of(const struct fold *fold, const struct row *row)
{
    return flue_bytes(fold->texts.data + row->start, row->size);
}

static bool same(const void *rows, uint32_t row, const void *key)
{
    const struct fold *fold = rows;
    return flue_bytes_equal(text_of(fold, &fold->rows[row]), *(const struct flue_bytes *)key);
}

/* A sum past the limit stays at it. */
static int64_t sum(int64_t a, int64_t b)
{
    int64_t out;
    if (__builtin_add_overflow(a, b, &out))
        return a < 0 ? INT64_MIN : INT64_MAX;
    return out;
}

static bool add(struct fold *fold, const struct flue_bytes *names, size_t count, int64_t value)
{
    size_t start = fold->texts.size;

    for (size_t k = 0; k < count; k++) {
        if (k)
            flue_buffer_byte(&fold->texts, ';');
        write_name(names[k], &fold->texts);
    }
    if (!count)
        flue_buffer_text(&fold->texts, "[no stack]");
    if (fold->texts.failed)
        return false;
    struct row row = {start, fold->texts.size - start, value};
    struct flue_bytes text = text_of(fold, &row);
    uint64_t hash = flue_hash(text);
    uint32_t at = flue_table_find(&fold->table, hash, same, fold, &text);
    if (at != FLUE_TABLE_NONE) {
        fold->rows[at].value = sum(fold->rows[at].value, value);
        fold->texts.size = start;
        return true;
    }
    at = (uint32_t)fold->count;
    return at < FLUE_TABLE_NONE &&
           FLUE_ARENA_PUSH(&fold->arena, fold->rows, fold->count, fold->room, row) &&
           flue_table_insert(&fold->table, hash, at);
}

enum flue_code flue_render_folded(struct flue_bytes raw, uint32_t value, struct flue_buffer *out,
                                  struct flue_error *error)
{
    struct fold fold = {.count = 0};
    struct flue_frames frames;
    enum flue_code code = flue_frames_open(&frames, raw, error);

    flue_arena_init(&fold.arena, BUDGET, 0);
    flue_buffer_init(&fold.texts, out->maximum);
    if (!code && !flue_table_init(&fold.table, &fold.arena, 1024))
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for the stacks of a profile");
    for (uint32_t i = 0; !code && i < frames.document.sample_count; i++) {
        struct flue_bytes *names;
        size_t count;
        int64_t v = flue_frames_value(&frames, i, value);
        if (v == 0 || (code = flue_frames_stack(&frames, i, &names, &count, error)))
            continue;
        if (!add(&fold, names, count, v))
            code = flue_fail(error, FLUE_NO_MEMORY, "the text is over %zu bytes, or no memory",
                             out->maximum);
    }
    for (size_t i = 0; !code && i < fold.count; i++) {
        if (fold.rows[i].value == 0)
            continue;
        flue_buffer_add(out, text_of(&fold, &fold.rows[i]));
        flue_buffer_printf(out, " %" PRId64 "\n", fold.rows[i].value);
    }
    if (!code && out->failed)
        code = flue_fail(error, FLUE_NO_MEMORY, "the text is over %zu bytes", out->maximum);
    flue_buffer_destroy(&fold.texts);
    flue_arena_destroy(&fold.arena);
    flue_frames_close(&frames);
    return code;
}
