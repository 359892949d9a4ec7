/* from_pprof_rows.c: rows of pprof's tables as rows of OTLP's, each made when it is first asked
 * for. Field numbers: pprof.proto, profiles.proto; attributes: semantic conventions for profiles.
 */
#include "proto/convert/from_pprof.h"

uint32_t flue_from_text(struct flue_from_pprof *from, struct flue_bytes text)
{
    uint32_t row = flue_otlp_tables_put(from->tables, FLUE_OTLP_STRING, text);

    return row == FLUE_OTLP_NO_ROW ? 0 : row;
}

uint32_t flue_from_string(struct flue_from_pprof *from, uint64_t number)
{
    if (number == 0 || number >= from->read.string_count)
        return 0;
    if (from->read.string_rows[number] == FLUE_OTLP_NO_ROW)
        from->read.string_rows[number] = flue_from_text(from, from->read.strings[number]);
    return from->read.string_rows[number];
}

static uint32_t made(uint32_t row)
{
    return row == FLUE_OTLP_NO_ROW ? 0 : row;
}

uint32_t flue_from_attribute_text(struct flue_from_pprof *from, struct flue_bytes key,
                                  struct flue_bytes text)
{
    struct flue_out *scratch = &from->tables->scratch;
    uint32_t key_row = flue_from_text(from, key);
    size_t mark = flue_out_size(scratch), inner;

    flue_out_number(scratch, 1, key_row);
    inner = flue_out_open(scratch, 2);
    flue_out_field(scratch, 1, text);
    flue_out_close(scratch, inner);
    return made(flue_otlp_tables_put_scratch(from->tables, FLUE_OTLP_ATTRIBUTE, mark));
}

static uint32_t attribute_flag(struct flue_from_pprof *from, const char *key, bool value)
{
    struct flue_out *scratch = &from->tables->scratch;
    uint32_t key_row = flue_from_text(from, flue_bytes_of(key));
    size_t mark = flue_out_size(scratch);
    uint8_t any_value[2] = {2 << 3, value};

    flue_out_number(scratch, 1, key_row);
    flue_out_field(scratch, 2, flue_bytes(any_value, sizeof any_value));
    return made(flue_otlp_tables_put_scratch(from->tables, FLUE_OTLP_ATTRIBUTE, mark));
}

/* GNU build ids are hex; Go's own have slashes. Any text comes back as it was from either. */
static uint32_t build_id(struct flue_from_pprof *from, struct flue_bytes text)
{
    bool hex = true;

    for (size_t i = 0; i < text.size && hex; i++)
        hex = (text.data[i] >= '0' && text.data[i] <= '9') ||
              (text.data[i] >= 'a' && text.data[i] <= 'f') ||
              (text.data[i] >= 'A' && text.data[i] <= 'F');
    return flue_from_attribute_text(from,
                                    hex ? FLUE_BYTES("process.executable.build_id.gnu")
                                        : FLUE_BYTES("process.executable.build_id.go"),
                                    text);
}

uint32_t flue_from_mapping(struct flue_from_pprof *from, struct flue_pprof_row *row)
{
    static const char *const flags[] = {
        "pprof.mapping.has_functions", "pprof.mapping.has_filenames",
        "pprof.mapping.has_line_numbers", "pprof.mapping.has_inline_frames"};
    struct flue_out *scratch = &from->tables->scratch;
    struct flue_reader r = flue_reader(row->content);
    uint64_t fields[11] = {0};
    uint32_t attributes[5];
    struct flue_field_value f;
    size_t count = 0, mark, inner;

    if (row->made != FLUE_OTLP_NO_ROW)
        return row->made;
    while (flue_read_field(&r, &f))
        if (f.number <= 10 && f.type == FLUE_VARINT)
            fields[f.number] = f.varint;
    if (fields[6] && fields[6] < from->read.string_count && from->read.strings[fields[6]].size)
        attributes[count++] = build_id(from, from->read.strings[fields[6]]);
    /* The first always, true or false: that says that a pprof has spoken (to_pprof_write.c). */
    for (size_t i = 0; i < 4; i++)
        if (i == 0 || fields[7 + i])
            attributes[count++] = attribute_flag(from, flags[i], fields[7 + i] != 0);
    fields[5] = flue_from_string(from, fields[5]);
    mark = flue_out_size(scratch);
    flue_out_number(scratch, 1, fields[2]);
    flue_out_number(scratch, 2, fields[3]);
    flue_out_number(scratch, 3, fields[4]);
    flue_out_number(scratch, 4, fields[5]);
    inner = flue_out_open(scratch, 5);
    for (size_t i = 0; i < count; i++)
        flue_out_varint(scratch, attributes[i]);
    flue_out_close(scratch, inner);
    row->made = made(flue_otlp_tables_put_scratch(from->tables, FLUE_OTLP_MAPPING, mark));
    return row->made;
}

static uint32_t function_row(struct flue_from_pprof *from, uint64_t id)
{
    struct flue_pprof_row *row = flue_pprof_row_by_id(&from->read.functions, id);
    struct flue_out *scratch = &from->tables->scratch;
    uint64_t fields[6] = {0};
    struct flue_field_value f;
    struct flue_reader r;
    size_t mark;

    if (!row)
        return 0;
    if (row->made != FLUE_OTLP_NO_ROW)
        return row->made;
    r = flue_reader(row->content);
    while (flue_read_field(&r, &f))
        if (f.number <= 5 && f.type == FLUE_VARINT)
            fields[f.number] = f.varint;
    for (size_t i = 2; i <= 4; i++)
        fields[i] = flue_from_string(from, fields[i]);
    mark = flue_out_size(scratch);
    for (uint32_t i = 1; i <= 4; i++)
        flue_out_number(scratch, i, fields[i + 1]);
    row->made = made(flue_otlp_tables_put_scratch(from->tables, FLUE_OTLP_FUNCTION, mark));
    return row->made;
}

static void line_write(struct flue_from_pprof *from, struct flue_bytes line)
{
    struct flue_out *scratch = &from->tables->scratch;
    struct flue_reader r = flue_reader(line);
    uint64_t fields[4] = {0};
    struct flue_field_value f;
    size_t mark;

    while (flue_read_field(&r, &f))
        if (f.number <= 3 && f.type == FLUE_VARINT)
            fields[f.number] = f.varint;
    fields[1] = function_row(from, fields[1]);
    mark = flue_out_open(scratch, 3);
    for (uint32_t i = 1; i <= 3; i++)
        flue_out_number(scratch, i, fields[i]);
    flue_out_close(scratch, mark);
}

uint32_t flue_from_location(struct flue_from_pprof *from, struct flue_pprof_row *row)
{
    struct flue_out *scratch = &from->tables->scratch;
    struct flue_reader r = flue_reader(row->content);
    uint64_t mapping_id = 0, address = 0;
    struct flue_pprof_row *mapping;
    struct flue_field_value f;
    bool folded = false;
    uint32_t attribute;
    size_t mark, inner;

    if (row->made != FLUE_OTLP_NO_ROW)
        return row->made;
    while (flue_read_field(&r, &f)) {
        if (f.type != FLUE_VARINT)
            continue;
        if (f.number == 2)
            mapping_id = f.varint;
        else if (f.number == 3)
            address = f.varint;
        else if (f.number == 5)
            folded = f.varint != 0;
    }
    mapping = mapping_id ? flue_pprof_row_by_id(&from->read.mappings, mapping_id) : NULL;
    attribute = folded ? attribute_flag(from, "pprof.location.is_folded", true) : 0;
    mark = flue_out_size(scratch);
    flue_out_number(scratch, 1, mapping ? flue_from_mapping(from, mapping) : 0);
    flue_out_number(scratch, 2, address);
    r = flue_reader(row->content);
    while (flue_read_field(&r, &f))
        if (f.number == 4 && f.type == FLUE_LEN)
            line_write(from, f.bytes);
    if (attribute) {
        inner = flue_out_open(scratch, 4);
        flue_out_varint(scratch, attribute);
        flue_out_close(scratch, inner);
    }
    row->made = made(flue_otlp_tables_put_scratch(from->tables, FLUE_OTLP_LOCATION, mark));
    return row->made;
}

static void stack_add(struct flue_from_pprof *from, uint64_t id)
{
    struct flue_pprof_row *row = flue_pprof_row_by_id(&from->read.locations, id);

    if (row)
        flue_out_varint(&from->tables->scratch, flue_from_location(from, row));
}

uint32_t flue_from_stack(struct flue_from_pprof *from, struct flue_bytes sample)
{
    struct flue_out *scratch = &from->tables->scratch;
    struct flue_reader r = flue_reader(sample), run;
    size_t mark = flue_out_size(scratch), inner = flue_out_open(scratch, 1);
    struct flue_field_value f;
    uint64_t id;

    while (flue_read_field(&r, &f)) {
        if (f.number != 1)
            continue;
        if (f.type == FLUE_VARINT)
            stack_add(from, f.varint);
        else if (f.type == FLUE_LEN)
            for (run = flue_reader(f.bytes); flue_read_varint(&run, &id);)
                stack_add(from, id);
    }
    if (flue_out_size(scratch) == inner)
        flue_out_cut(scratch, mark);
    else
        flue_out_close(scratch, inner);
    return made(flue_otlp_tables_put_scratch(from->tables, FLUE_OTLP_STACK, mark));
}
