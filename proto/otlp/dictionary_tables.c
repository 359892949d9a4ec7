/* dictionary_tables.c: rows made, found again by hash, and written. See dictionary_tables.h. */
#include "proto/otlp/dictionary_tables.h"

#define DICTIONARY_FIELD 2 /* of the request */

void flue_work_begin(struct flue_work *work, struct flue_account *account, size_t encoded)
{
    size_t budget =
        encoded > SIZE_MAX / FLUE_OTLP_WORK_FACTOR ? SIZE_MAX : encoded * FLUE_OTLP_WORK_FACTOR;

    work->budget = budget < FLUE_OTLP_WORK_FLOOR ? FLUE_OTLP_WORK_FLOOR : budget;
    flue_arena_init(&work->arena, work->budget, 0);
    work->account = account;
    work->charged = 0;
}

void flue_work_charge(struct flue_work *work, size_t more)
{
    size_t now = work->arena.used + more;

    if (!work->account)
        return;
    if (now > work->charged)
        flue_account_charge_always(work->account, now - work->charged);
    else
        flue_account_release(work->account, work->charged - now);
    work->charged = now;
}

void flue_work_end(struct flue_work *work)
{
    if (work->account)
        flue_account_release(work->account, work->charged);
    work->charged = 0;
    flue_arena_destroy(&work->arena);
}

enum flue_code flue_work_failed(const struct flue_work *work, struct flue_error *error)
{
    if (work->arena.used > work->budget / 4)
        return flue_fail(
            error, FLUE_TOO_LARGE,
            "working on this profile needs more than its budget of %zu bytes, %d times "
            "its encoded size; send smaller requests",
            work->budget, FLUE_OTLP_WORK_FACTOR);
    return flue_fail(error, FLUE_NO_MEMORY, "no memory for working on a profile (%zu bytes held)",
                     work->arena.used);
}

/* Row 0 as a row that others may be found equal to: an empty string is row 0, an empty stack too;
 * but a function without a name is a function, and "no function" is not. */
static bool zero_is_a_value(enum flue_otlp_table table)
{
    return table == FLUE_OTLP_STRING || table == FLUE_OTLP_STACK;
}

static uint32_t append(struct flue_otlp_tables *tables, enum flue_otlp_table table,
                       struct flue_bytes content)
{
    struct flue_otlp_made_table *t = &tables->tables[table];
    struct flue_otlp_made_row row;
    size_t count = t->count;

    flue_out_field(&t->rows, (uint32_t)table, content);
    if (t->rows.failed || flue_out_size(&t->rows) > UINT32_MAX)
        return FLUE_OTLP_NO_ROW;
    row.size = (uint32_t)content.size;
    row.at = (uint32_t)(flue_out_size(&t->rows) - content.size);
    if (count >= INT32_MAX || !FLUE_ARENA_PUSH(&tables->work->arena, t->index, count, t->room, row))
        return FLUE_OTLP_NO_ROW;
    t->count = (uint32_t)count;
    return t->count - 1;
}

bool flue_otlp_tables_init(struct flue_otlp_tables *tables, struct flue_work *work, bool intern,
                           size_t expected_bytes)
{
    size_t maximum = work->budget < UINT32_MAX ? work->budget : UINT32_MAX;

    memset(tables, 0, sizeof *tables);
    tables->work = work;
    tables->intern = intern;
    if (!flue_out_init(&tables->scratch, 1024, maximum) ||
        !flue_out_init(&tables->stack, 8192, maximum))
        tables->failed = true;
    for (unsigned i = 1; i < FLUE_OTLP_TABLES; i++) {
        struct flue_otlp_made_table *t = &tables->tables[i];

        if (!flue_out_init(&t->rows, expected_bytes / 4 + 256, maximum)) {
            tables->failed = true;
            continue;
        }
        if (append(tables, (enum flue_otlp_table)i, flue_bytes(NULL, 0)) != 0)
            tables->failed = true;
        if (intern && (!flue_table_init(&t->hashes, NULL, expected_bytes / 64) ||
                       (zero_is_a_value((enum flue_otlp_table)i) &&
                        !flue_table_insert(&t->hashes, flue_hash(flue_bytes(NULL, 0)), 0))))
            tables->failed = true;
    }
    return !tables->failed;
}

void flue_otlp_tables_destroy(struct flue_otlp_tables *tables)
{
    flue_out_destroy(&tables->scratch);
    flue_out_destroy(&tables->stack);
    for (unsigned i = 1; i < FLUE_OTLP_TABLES; i++) {
        flue_out_destroy(&tables->tables[i].rows);
        flue_table_destroy(&tables->tables[i].hashes);
    }
}

void flue_otlp_tables_clear(struct flue_otlp_tables *tables)
{
    for (unsigned i = 1; i < FLUE_OTLP_TABLES; i++) {
        struct flue_otlp_made_table *t = &tables->tables[i];

        t->count = 1;
        flue_out_cut(&t->rows, t->index[0].at);
    }
}

static bool same(const void *rows, uint32_t row, const void *key)
{
    const struct flue_otlp_made_table *t = rows;
    const struct flue_bytes *content = key;
    struct flue_otlp_made_row r = t->index[row];

    return r.size == content->size &&
           memcmp(t->rows.block->data + r.at, content->data, r.size) == 0;
}

uint32_t flue_otlp_tables_put(struct flue_otlp_tables *tables, enum flue_otlp_table table,
                              struct flue_bytes content)
{
    struct flue_otlp_made_table *t = &tables->tables[table];
    uint64_t hash = 0;
    uint32_t row;

    if (tables->failed)
        return FLUE_OTLP_NO_ROW;
    if (content.size == 0 && zero_is_a_value(table))
        return 0;
    if (tables->intern) {
        hash = flue_hash(content);
        row = flue_table_find(&t->hashes, hash, same, t, &content);
        if (row != FLUE_TABLE_NONE)
            return row;
    }
    row = append(tables, table, content);
    if (row == FLUE_OTLP_NO_ROW || (tables->intern && !flue_table_insert(&t->hashes, hash, row))) {
        tables->failed = true;
        return FLUE_OTLP_NO_ROW;
    }
    return row;
}

uint32_t flue_otlp_tables_put_scratch(struct flue_otlp_tables *tables, enum flue_otlp_table table,
                                      size_t mark)
{
    struct flue_out *scratch = &tables->scratch;
    uint32_t row;

    if (scratch->failed) {
        tables->failed = true;
        return FLUE_OTLP_NO_ROW;
    }
    row = flue_otlp_tables_put(
        tables, table, flue_bytes(scratch->block->data + mark, flue_out_size(scratch) - mark));
    flue_out_cut(scratch, mark);
    return row;
}

size_t flue_otlp_tables_size(const struct flue_otlp_tables *tables)
{
    size_t size = 0;

    for (unsigned i = 1; i < FLUE_OTLP_TABLES; i++)
        size += flue_out_size(&tables->tables[i].rows);
    return size;
}

void flue_otlp_tables_write(const struct flue_otlp_tables *tables, struct flue_out *body)
{
    size_t size = flue_otlp_tables_size(tables);
    uint8_t *at = flue_out_room(body, size + 16);

    if (!at)
        return;
    at = flue_write_len_head(at, DICTIONARY_FIELD, size);
    for (unsigned i = 1; i < FLUE_OTLP_TABLES; i++) {
        struct flue_bytes rows = flue_block_bytes(tables->tables[i].rows.block);

        memcpy(at, rows.data, rows.size);
        at += rows.size;
    }
    flue_out_end(body, at);
}
