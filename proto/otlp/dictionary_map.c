/* dictionary_map.c: rows of one dictionary taken over into another, with all that they refer to.
 * See dictionary_tables.h. The depth is that of the tables (stack, location, function, string);
 * only the value of an attribute nests, and it is bounded. */
#include "proto/otlp/dictionary_run.h"
#include "proto/otlp/dictionary_tables.h"
#include "proto/otlp/otlp.h"

bool flue_otlp_map_init(struct flue_otlp_map *map, const struct flue_otlp_dictionary *from,
                        struct flue_otlp_tables *to, bool remember)
{
    memset(map, 0, sizeof *map);
    map->from = from;
    map->to = to;
    map->remember = remember;
    for (unsigned i = 1; i < FLUE_OTLP_TABLES; i++) {
        size_t bytes = (size_t)from->counts[i] * sizeof(uint32_t);

        map->rows[i] = flue_arena_alloc(&to->work->arena, bytes);
        if (!map->rows[i])
            return false;
        memset(map->rows[i], 0xFF, bytes);
    }
    map->location_codes = flue_arena_zalloc(
        &to->work->arena, (size_t)from->counts[FLUE_OTLP_LOCATION] + 1, sizeof(uint64_t));
    return map->location_codes;
}

static uint32_t take_function(struct flue_otlp_map *map, struct flue_bytes row)
{
    struct flue_otlp_function f;
    uint8_t content[40], *at = content;
    uint32_t strings[3];

    flue_otlp_function_read(row, &f);
    strings[0] = flue_otlp_map_row(map, FLUE_OTLP_STRING, f.name);
    strings[1] = flue_otlp_map_row(map, FLUE_OTLP_STRING, f.system_name);
    strings[2] = flue_otlp_map_row(map, FLUE_OTLP_STRING, f.filename);
    for (unsigned i = 0; i < 3; i++)
        if (strings[i]) {
            at = flue_write_varint(at, flue_tag(i + 1, FLUE_VARINT));
            at = flue_write_varint(at, strings[i]);
        }
    if (f.start_line) {
        at = flue_write_varint(at, flue_tag(4, FLUE_VARINT));
        at = flue_write_varint(at, (uint64_t)f.start_line);
    }
    return flue_otlp_tables_put(map->to, FLUE_OTLP_FUNCTION,
                                flue_bytes(content, (size_t)(at - content)));
}

/* Packed field `field` with every number as a row of `table` in the new dictionary. A row that is
 * taken over on the way is composed behind the open field and cut off again. */
static void rows_packed(struct flue_otlp_map *map, uint32_t field, enum flue_otlp_table table,
                        struct flue_otlp_numbers numbers)
{
    struct flue_out *scratch = &map->to->scratch;
    size_t mark = 0;
    uint64_t number;

    while (flue_otlp_numbers_next(&numbers, &number)) {
        uint32_t row = flue_otlp_map_row(map, table, (uint32_t)number);

        if (!mark)
            mark = flue_out_open(scratch, field);
        flue_out_varint(scratch, row);
    }
    if (mark)
        flue_out_close(scratch, mark);
}

static uint32_t take_mapping(struct flue_otlp_map *map, struct flue_bytes row)
{
    struct flue_out *scratch = &map->to->scratch;
    size_t mark = flue_out_size(scratch);
    struct flue_otlp_mapping m;

    flue_otlp_mapping_read(row, &m);
    flue_out_number(scratch, 1, m.memory_start);
    flue_out_number(scratch, 2, m.memory_limit);
    flue_out_number(scratch, 3, m.file_offset);
    flue_out_number(scratch, 4, flue_otlp_map_row(map, FLUE_OTLP_STRING, m.filename));
    rows_packed(map, 5, FLUE_OTLP_ATTRIBUTE, m.attribute_indices);
    return flue_otlp_tables_put_scratch(map->to, FLUE_OTLP_MAPPING, mark);
}

static uint32_t take_location(struct flue_otlp_map *map, struct flue_bytes row)
{
    struct flue_out *scratch = &map->to->scratch;
    size_t mark = flue_out_size(scratch);
    struct flue_otlp_location l;
    struct flue_otlp_line line;

    flue_otlp_location_read(row, &l);
    flue_out_number(scratch, 1, flue_otlp_map_row(map, FLUE_OTLP_MAPPING, l.mapping));
    flue_out_number(scratch, 2, l.address);
    while (flue_otlp_line_next(&l.lines, &line)) {
        uint32_t function = flue_otlp_map_row(map, FLUE_OTLP_FUNCTION, line.function);
        uint8_t *head = flue_out_room(scratch, 40), *at;

        if (!head)
            break;
        at = head + 2; /* a line is shorter than 128 bytes */
        if (function) {
            *at++ = 0x08;
            at = flue_write_varint(at, function);
        }
        if (line.line) {
            *at++ = 0x10;
            at = flue_write_varint(at, (uint64_t)line.line);
        }
        if (line.column) {
            *at++ = 0x18;
            at = flue_write_varint(at, (uint64_t)line.column);
        }
        head[0] = 0x1a;
        head[1] = (uint8_t)(at - head - 2);
        flue_out_end(scratch, at);
    }
    rows_packed(map, 4, FLUE_OTLP_ATTRIBUTE, l.attribute_indices);
    return flue_otlp_tables_put_scratch(map->to, FLUE_OTLP_LOCATION, mark);
}

static uint32_t take_stack(struct flue_otlp_map *map, struct flue_bytes row)
{
    struct flue_out *out = &map->to->stack; /* not the scratch, which the locations use meanwhile */
    const uint64_t *codes = map->location_codes;
    uint32_t limit = map->from->counts[FLUE_OTLP_LOCATION];
    struct flue_otlp_numbers locations;
    const uint8_t *at, *end;
    struct flue_bytes run;
    uint8_t *to, *full;
    uint64_t number;
    size_t open;

    if (row.size == 0)
        return 0;
    flue_out_cut(out, 0);
    open = flue_out_open(out, 1);
    if (!flue_stack_run(row, &run)) {
        locations = flue_otlp_stack_locations(row);
        while (flue_otlp_numbers_next(&locations, &number))
            flue_out_varint(out, flue_otlp_map_row(map, FLUE_OTLP_LOCATION, (uint32_t)number));
    } else {
        for (at = run.data, end = at + run.size; at < end;) {
            to = flue_out_room(out, 4096);
            if (!to)
                break;
            for (full = to + 4096 - 8; at < end && to < full;) {
                uint32_t from = flue_run_next(&at, end);
                uint64_t code = from < limit ? codes[from] : 0;

                if (__builtin_expect(code == 0, 0))
                    code = flue_run_code(flue_otlp_map_row(map, FLUE_OTLP_LOCATION, from));
                to = flue_run_write(to, code);
            }
            flue_out_end(out, to);
        }
    }
    if (flue_out_size(out) == open)
        return 0;
    flue_out_close(out, open);
    if (out->failed)
        map->to->failed = true;
    return flue_otlp_tables_put(map->to, FLUE_OTLP_STACK, flue_block_bytes(out->block));
}

static void value_copy(struct flue_otlp_map *map, struct flue_bytes value, unsigned depth);

/* ArrayValue (values = 1) or KeyValueList (values = 1, each a KeyValue). */
static void values_copy(struct flue_otlp_map *map, struct flue_bytes list, bool pairs,
                        unsigned depth)
{
    struct flue_out *scratch = &map->to->scratch;
    struct flue_reader r = flue_reader(list), pair;
    struct flue_field_value f, g;
    size_t mark, inner;

    while (flue_read_field(&r, &f)) {
        if (f.number != 1 || f.type != FLUE_LEN)
            continue;
        mark = flue_out_open(scratch, 1);
        if (!pairs) {
            value_copy(map, f.bytes, depth);
            flue_out_close(scratch, mark);
            continue;
        }
        pair = flue_reader(f.bytes);
        while (flue_read_field(&pair, &g))
            if (g.number == 1 && g.type == FLUE_LEN) {
                flue_out_field(scratch, 1, g.bytes);
            } else if (g.number == 2 && g.type == FLUE_LEN) {
                inner = flue_out_open(scratch, 2);
                value_copy(map, g.bytes, depth);
                flue_out_close(scratch, inner);
            } else if (g.number == 3 && g.type == FLUE_VARINT) {
                flue_out_number(scratch, 3,
                                flue_otlp_map_row(map, FLUE_OTLP_STRING, (uint32_t)g.varint));
            }
        flue_out_close(scratch, mark);
    }
}

/* An AnyValue as it is, but for references to strings. */
static void value_copy(struct flue_otlp_map *map, struct flue_bytes value, unsigned depth)
{
    struct flue_out *scratch = &map->to->scratch;
    struct flue_reader r = flue_reader(value);
    struct flue_field_value f;
    size_t mark;

    if (depth == 0)
        return;
    while (flue_read_field(&r, &f)) {
        if (f.number == 8 && f.type == FLUE_VARINT) {
            uint32_t row = flue_otlp_map_row(map, FLUE_OTLP_STRING, (uint32_t)f.varint);
            uint8_t *at = flue_out_room(scratch, 8);

            if (at) { /* a member of a oneof is written even when it is zero */
                *at++ = 0x40;
                flue_out_end(scratch, flue_write_varint(at, row));
            }
        } else if ((f.number == 5 || f.number == 6) && f.type == FLUE_LEN) {
            mark = flue_out_open(scratch, f.number);
            values_copy(map, f.bytes, f.number == 6, depth - 1);
            flue_out_close(scratch, mark);
        } else {
            flue_out_bytes(scratch, flue_bytes(f.tag_at, (size_t)(r.at - f.tag_at)));
        }
    }
}

static uint32_t take_attribute(struct flue_otlp_map *map, struct flue_bytes row)
{
    struct flue_out *scratch = &map->to->scratch;
    size_t mark = flue_out_size(scratch), inner;
    struct flue_otlp_attribute_row a;

    flue_otlp_attribute_row_read(row, &a);
    flue_out_number(scratch, 1, flue_otlp_map_row(map, FLUE_OTLP_STRING, a.key));
    if (a.value.data) {
        inner = flue_out_open(scratch, 2);
        value_copy(map, a.value, FLUE_OTLP_MAX_DEPTH);
        flue_out_close(scratch, inner);
    }
    flue_out_number(scratch, 3, flue_otlp_map_row(map, FLUE_OTLP_STRING, a.unit));
    return flue_otlp_tables_put_scratch(map->to, FLUE_OTLP_ATTRIBUTE, mark);
}

static uint32_t take_link(struct flue_otlp_map *map, struct flue_bytes row)
{
    struct flue_otlp_link link;
    uint8_t content[64], *at = content;

    flue_otlp_link_read(row, &link);
    if (link.trace_id.size > 16 || link.span_id.size > 8)
        return flue_otlp_tables_put(map->to, FLUE_OTLP_LINK, row);
    if (link.trace_id.size)
        at = flue_write_len_field(at, 1, link.trace_id);
    if (link.span_id.size)
        at = flue_write_len_field(at, 2, link.span_id);
    return flue_otlp_tables_put(map->to, FLUE_OTLP_LINK,
                                flue_bytes(content, (size_t)(at - content)));
}

uint32_t flue_otlp_map_take(struct flue_otlp_map *map, enum flue_otlp_table table, uint32_t row)
{
    struct flue_bytes content = map->from->rows[table][row];
    struct flue_otlp_taken taken = {(uint32_t)table, row};
    uint32_t to = FLUE_OTLP_NO_ROW;

    switch (table) {
    case FLUE_OTLP_MAPPING:
        to = take_mapping(map, content);
        break;
    case FLUE_OTLP_LOCATION:
        to = take_location(map, content);
        break;
    case FLUE_OTLP_FUNCTION:
        to = take_function(map, content);
        break;
    case FLUE_OTLP_LINK:
        to = take_link(map, content);
        break;
    case FLUE_OTLP_STRING:
        to = flue_otlp_tables_put(map->to, table, content);
        break;
    case FLUE_OTLP_ATTRIBUTE:
        to = take_attribute(map, content);
        break;
    case FLUE_OTLP_STACK:
        to = take_stack(map, content);
        break;
    case FLUE_OTLP_TABLES:
        break;
    }
    if (to == FLUE_OTLP_NO_ROW ||
        (map->remember && !FLUE_ARENA_PUSH(&map->to->work->arena, map->taken, map->taken_count,
                                           map->taken_room, taken))) {
        map->to->failed = true;
        return 0;
    }
    map->rows[table][row] = to;
    if (table == FLUE_OTLP_LOCATION)
        map->location_codes[row] = flue_run_code(to);
    return to;
}

static void untake(struct flue_otlp_map *map)
{
    struct flue_otlp_taken last = map->taken[--map->taken_count];

    map->rows[last.table][last.row] = FLUE_OTLP_NO_ROW;
    if (last.table == FLUE_OTLP_LOCATION)
        map->location_codes[last.row] = 0;
}

void flue_otlp_map_mark(const struct flue_otlp_map *map, struct flue_otlp_mark *mark)
{
    mark->taken = map->taken_count;
    for (unsigned i = 1; i < FLUE_OTLP_TABLES; i++) {
        mark->counts[i] = map->to->tables[i].count;
        mark->sizes[i] = flue_out_size(&map->to->tables[i].rows);
    }
}

void flue_otlp_map_back(struct flue_otlp_map *map, const struct flue_otlp_mark *mark)
{
    while (map->taken_count > mark->taken)
        untake(map);
    for (unsigned i = 1; i < FLUE_OTLP_TABLES; i++) {
        map->to->tables[i].count = mark->counts[i];
        flue_out_cut(&map->to->tables[i].rows, mark->sizes[i]);
    }
}

void flue_otlp_map_restart(struct flue_otlp_map *map)
{
    while (map->taken_count > 0)
        untake(map);
    flue_otlp_tables_clear(map->to);
}
