/* from_pprof_read.c: the tables of one pprof, found in one walk in any order of fields. Checks
 * bounds as it goes: a profile from a trusted hop has not been checked. Field numbers: pprof.proto.
 */
#include "proto/convert/from_pprof.h"

static uint64_t number_of(struct flue_bytes message, uint32_t field)
{
    struct flue_reader r = flue_reader(message);
    struct flue_field_value f;
    uint64_t number = 0;

    while (flue_read_field(&r, &f))
        if (f.number == field && f.type == FLUE_VARINT)
            number = f.varint;
    return number;
}

static bool row_add(struct flue_arena *arena, struct flue_pprof_rows *rows,
                    struct flue_bytes content)
{
    struct flue_pprof_row row = {number_of(content, 1), content, FLUE_OTLP_NO_ROW};

    return rows->count < UINT32_MAX - 1 &&
           FLUE_ARENA_PUSH(arena, rows->items, rows->count, rows->room, row);
}

static bool comments_add(struct flue_pprof_read *read, struct flue_arena *arena,
                         const struct flue_field_value *f)
{
    struct flue_reader run = flue_reader(f->bytes);
    uint64_t number;

    if (f->type == FLUE_VARINT)
        return FLUE_ARENA_PUSH(arena, read->comments, read->comment_count, read->comment_room,
                               f->varint);
    while (f->type == FLUE_LEN && flue_read_varint(&run, &number))
        if (!FLUE_ARENA_PUSH(arena, read->comments, read->comment_count, read->comment_room,
                             number))
            return false;
    return true;
}

static bool message_add(struct flue_pprof_read *read, struct flue_arena *arena,
                        const struct flue_field_value *f)
{
    struct flue_profile_type_rows type = {0, 0};

    switch (f->number) {
    case 1:
        type.type = number_of(f->bytes, 1);
        type.unit = number_of(f->bytes, 2);
        return FLUE_ARENA_PUSH(arena, read->types, read->type_count, read->type_room, type);
    case 2:
        read->samples++;
        return true;
    case 3:
        return row_add(arena, &read->mappings, f->bytes);
    case 4:
        return row_add(arena, &read->locations, f->bytes);
    case 5:
        return row_add(arena, &read->functions, f->bytes);
    case 6:
        return FLUE_ARENA_PUSH(arena, read->strings, read->string_count, read->string_room,
                               f->bytes);
    case 11:
        read->period_type.type = number_of(f->bytes, 1);
        read->period_type.unit = number_of(f->bytes, 2);
        return true;
    default:
        return true;
    }
}

static void number_set(struct flue_pprof_read *read, const struct flue_field_value *f)
{
    switch (f->number) {
    case 7:
        read->drop_frames = f->varint;
        break;
    case 8:
        read->keep_frames = f->varint;
        break;
    case 9:
        read->time_nanos = f->varint;
        break;
    case 10:
        read->duration_nanos = f->varint;
        break;
    case 12:
        read->period = f->varint;
        break;
    case 14:
        read->default_sample_type = f->varint;
        break;
    case 15:
        read->doc_url = f->varint;
        break;
    default:
        break;
    }
}

static bool same_id(const void *rows, uint32_t row, const void *key)
{
    const struct flue_pprof_rows *all = rows;

    return all->items[row].id == *(const uint64_t *)key;
}

static bool rows_index(struct flue_pprof_rows *rows, struct flue_arena *arena)
{
    rows->dense = true;
    for (size_t i = 0; i < rows->count && rows->dense; i++)
        rows->dense = rows->items[i].id == i + 1;
    if (rows->dense)
        return true;
    if (!flue_table_init(&rows->by_id, arena, rows->count))
        return false;
    for (size_t i = 0; i < rows->count; i++) {
        uint64_t hash = flue_hash_u64(rows->items[i].id);

        if (flue_table_find(&rows->by_id, hash, same_id, rows, &rows->items[i].id) ==
                FLUE_TABLE_NONE &&
            !flue_table_insert(&rows->by_id, hash, (uint32_t)i))
            return false;
    }
    return true;
}

struct flue_pprof_row *flue_pprof_row_by_id(struct flue_pprof_rows *rows, uint64_t id)
{
    uint32_t row;

    if (rows->dense)
        return id - 1 < rows->count ? &rows->items[id - 1] : NULL;
    row = flue_table_find(&rows->by_id, flue_hash_u64(id), same_id, rows, &id);
    return row == FLUE_TABLE_NONE ? NULL : &rows->items[row];
}

bool flue_pprof_read(struct flue_pprof_read *read, struct flue_arena *arena, struct flue_bytes raw,
                     bool *broken)
{
    struct flue_reader r = flue_reader(raw);
    struct flue_field_value f;

    memset(read, 0, sizeof *read);
    read->raw = raw;
    *broken = false;
    while (flue_read_field(&r, &f)) {
        if (f.number == 13 ? !comments_add(read, arena, &f)
                           : f.type == FLUE_LEN && !message_add(read, arena, &f))
            return false;
        if (f.type == FLUE_VARINT)
            number_set(read, &f);
    }
    if (!flue_reader_done(&r)) {
        *broken = true;
        return false;
    }
    read->string_rows = flue_arena_alloc(arena, read->string_count * sizeof *read->string_rows);
    if (!read->string_rows)
        return false;
    memset(read->string_rows, 0xFF, read->string_count * sizeof *read->string_rows);
    return rows_index(&read->mappings, arena) && rows_index(&read->locations, arena) &&
           rows_index(&read->functions, arena);
}
