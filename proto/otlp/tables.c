/* tables.c: the rows of the dictionary, and the repeated integers in them and in samples. */
#include "proto/otlp/payload.h"

struct tables {
    struct flue_bytes *rows[FLUE_OTLP_TABLES];
    uint32_t room[FLUE_OTLP_TABLES];
    uint32_t *counts;
};

static inline void add_row(const struct tables *tables, const struct flue_field_value *field)
{
    uint32_t t = field->number;
    if (t < FLUE_OTLP_TABLES && field->bytes.data && tables->counts[t] < tables->room[t])
        tables->rows[t][tables->counts[t]++] = field->bytes;
}

enum flue_code flue_otlp_dictionary_open(const struct flue_payload *base, struct flue_arena *arena,
                                         struct flue_otlp_dictionary *out, struct flue_error *error)
{
    const struct flue_otlp_payload *payload = flue_otlp_payload(base);
    struct flue_otlp_fields it =
        flue_otlp_fields(base, (struct flue_otlp_place){FLUE_OTLP_IN_DICTIONARY, 0});
    struct tables tables = {.counts = out->counts};

    memset(out, 0, sizeof *out);
    for (unsigned t = 1; t < FLUE_OTLP_TABLES; t++) {
        tables.room[t] = payload->index->rows[t] + payload->appended[t];
        out->rows[t] = tables.rows[t] =
            flue_arena_alloc(arena, tables.room[t] * sizeof **tables.rows);
        if (!tables.rows[t])
            return flue_fail(error, FLUE_NO_MEMORY, "no room for %u rows of a dictionary table",
                             tables.room[t]);
    }
    if (it.edits) {
        struct flue_field_value field;
        while (flue_otlp_fields_next(&it, &field))
            add_row(&tables, &field);
    } else { /* the rule, and worth a loop that stays in registers */
        struct flue_reader run = it.run;
        struct flue_field_value field;
        while (flue_read_field(&run, &field))
            add_row(&tables, &field);
    }
    return FLUE_OK;
}

static struct flue_otlp_numbers numbers_in(struct flue_bytes message, uint32_t field, bool fixed)
{
    return (struct flue_otlp_numbers){.rest = flue_reader(message), .field = field, .fixed = fixed};
}

bool flue_otlp_numbers_next(struct flue_otlp_numbers *it, uint64_t *value)
{
    struct flue_field_value field;

    while (flue_reader_done(&it->run)) {
        if (flue_reader_done(&it->rest) || !flue_read_field(&it->rest, &field))
            return false;
        if (field.number != it->field)
            continue;
        if (field.type == FLUE_LEN) {
            it->run = flue_reader(field.bytes);
        } else {
            *value = field.varint;
            return true;
        }
    }
    if (!it->fixed)
        return flue_read_varint(&it->run, value);
    if (it->run.end - it->run.at < 8)
        return false;
    memcpy(value, it->run.at, 8);
    it->run.at += 8;
    return true;
}

size_t flue_otlp_numbers_count(struct flue_otlp_numbers it)
{
    size_t count = 0;
    uint64_t value;

    if (it.fixed && flue_reader_done(&it.rest))
        return (size_t)(it.run.end - it.run.at) / 8;
    while (flue_otlp_numbers_next(&it, &value))
        count++;
    return count;
}

/* Notes a field of repeated integers while a message is read once: a single packed run, which is
 * the rule, is walked by itself; anything else by looking through the message again. */
static void note(struct flue_otlp_numbers *numbers, const struct flue_field_value *field,
                 struct flue_bytes message, bool fixed)
{
    if (field->type == FLUE_LEN && !numbers->field) {
        numbers->run = flue_reader(field->bytes);
        numbers->field = field->number;
        numbers->fixed = fixed;
    } else {
        *numbers = numbers_in(message, field->number, fixed);
    }
}

void flue_otlp_sample_read(struct flue_bytes sample, struct flue_otlp_sample *out)
{
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&reader, &field)) {
        switch (field.number) {
        case 1:
            out->stack_index = (uint32_t)field.varint;
            break;
        case 2:
            note(&out->attribute_indices, &field, sample, false);
            break;
        case 3:
            out->link_index = (uint32_t)field.varint;
            break;
        case 4:
            note(&out->values, &field, sample, false);
            break;
        case 5:
            note(&out->timestamps, &field, sample, true);
            break;
        default:
            break;
        }
    }
}

void flue_otlp_mapping_read(struct flue_bytes row, struct flue_otlp_mapping *out)
{
    struct flue_reader reader = flue_reader(row);
    struct flue_field_value field;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&reader, &field)) {
        switch (field.number) {
        case 1:
            out->memory_start = field.varint;
            break;
        case 2:
            out->memory_limit = field.varint;
            break;
        case 3:
            out->file_offset = field.varint;
            break;
        case 4:
            out->filename = (uint32_t)field.varint;
            break;
        case 5:
            note(&out->attribute_indices, &field, row, false);
            break;
        default:
            break;
        }
    }
}

void flue_otlp_location_read(struct flue_bytes row, struct flue_otlp_location *out)
{
    struct flue_reader reader = flue_reader(row);
    struct flue_field_value field;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&reader, &field)) {
        switch (field.number) {
        case 1:
            out->mapping = (uint32_t)field.varint;
            break;
        case 2:
            out->address = field.varint;
            break;
        case 3:
            if (!out->lines.at)
                out->lines = (struct flue_reader){field.tag_at, reader.end};
            break;
        case 4:
            note(&out->attribute_indices, &field, row, false);
            break;
        default:
            break;
        }
    }
}

bool flue_otlp_line_next(struct flue_reader *lines, struct flue_otlp_line *out)
{
    struct flue_field_value field;

    while (!flue_reader_done(lines) && flue_read_field(lines, &field)) {
        struct flue_reader reader;
        if (field.number != 3)
            continue;
        memset(out, 0, sizeof *out);
        reader = flue_reader(field.bytes);
        while (flue_read_field(&reader, &field)) {
            if (field.number == 1)
                out->function = (uint32_t)field.varint;
            else if (field.number == 2)
                out->line = (int64_t)field.varint;
            else if (field.number == 3)
                out->column = (int64_t)field.varint;
        }
        return true;
    }
    return false;
}

void flue_otlp_function_read(struct flue_bytes row, struct flue_otlp_function *out)
{
    struct flue_reader reader = flue_reader(row);
    struct flue_field_value field;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&reader, &field)) {
        if (field.number == 1)
            out->name = (uint32_t)field.varint;
        else if (field.number == 2)
            out->system_name = (uint32_t)field.varint;
        else if (field.number == 3)
            out->filename = (uint32_t)field.varint;
        else if (field.number == 4)
            out->start_line = (int64_t)field.varint;
    }
}

void flue_otlp_link_read(struct flue_bytes row, struct flue_otlp_link *out)
{
    struct flue_reader reader = flue_reader(row);
    struct flue_field_value field;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&reader, &field)) {
        if (field.number == 1)
            out->trace_id = field.bytes;
        else if (field.number == 2)
            out->span_id = field.bytes;
    }
}

void flue_otlp_attribute_row_read(struct flue_bytes row, struct flue_otlp_attribute_row *out)
{
    struct flue_reader reader = flue_reader(row);
    struct flue_field_value field;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&reader, &field)) {
        if (field.number == 1)
            out->key = (uint32_t)field.varint;
        else if (field.number == 2)
            out->value = field.bytes;
        else if (field.number == 3)
            out->unit = (uint32_t)field.varint;
    }
}

struct flue_otlp_numbers flue_otlp_stack_locations(struct flue_bytes row)
{
    struct flue_reader reader = flue_reader(row);
    struct flue_field_value field;

    if (!flue_reader_done(&reader) && flue_read_field(&reader, &field) && field.number == 1 &&
        field.type == FLUE_LEN && flue_reader_done(&reader))
        return (struct flue_otlp_numbers){.run = flue_reader(field.bytes), .field = 1};
    return numbers_in(row, 1, false);
}
