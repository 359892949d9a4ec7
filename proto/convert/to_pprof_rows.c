/* to_pprof_rows.c: locations, functions and mappings of one pprof. See to_pprof.h; the samples
 * before them are in to_pprof_write.c. Field numbers: pprof.proto and profiles.proto. */
#include "proto/convert/to_pprof.h"

#include <stdlib.h>

/* attribute_kinds of locations */
enum { ATTRIBUTE_UNREAD, ATTRIBUTE_OTHER, ATTRIBUTE_FOLDED };
/* facts of mappings */
enum { KNOWN = 1, HAS_FILENAME = 2, HAS_LINE = 4, HAS_INLINE = 8, HAS_FUNCTION = 16 };

static struct flue_bytes attribute_key(struct flue_pprof_writer *w, uint64_t index,
                                       struct flue_value *value)
{
    struct flue_otlp_attribute_row row;

    flue_otlp_attribute_row_read(flue_otlp_row(w->dictionary, FLUE_OTLP_ATTRIBUTE, (uint32_t)index),
                                 &row);
    flue_otlp_value_read(row.value, w->dictionary, value);
    return flue_otlp_string(w->dictionary, row.key);
}

static bool is_folded(struct flue_pprof_writer *w, struct flue_otlp_numbers attributes)
{
    struct flue_value value;
    uint64_t index;

    while (flue_otlp_numbers_next(&attributes, &index)) {
        uint8_t *kind =
            w->attribute_kinds + (index < flue_pprof_rows_of(w, FLUE_OTLP_ATTRIBUTE) ? index : 0);

        if (*kind == ATTRIBUTE_UNREAD)
            *kind = flue_bytes_is(attribute_key(w, index, &value), "pprof.location.is_folded") &&
                            value.type == FLUE_VALUE_BOOL && value.boolean
                        ? ATTRIBUTE_FOLDED
                        : ATTRIBUTE_OTHER;
        if (*kind == ATTRIBUTE_FOLDED)
            return true;
    }
    return false;
}

static const struct flue_otlp_function *function_at(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_function_read *made = &w->made_functions[row];

    if (!made->read) {
        flue_otlp_function_read(flue_otlp_row(w->dictionary, FLUE_OTLP_FUNCTION, row),
                                &made->fields);
        made->read = true;
    }
    return &made->fields;
}

/* GNU's first, as Pyroscope and debuginfod know it. */
static struct flue_bytes build_id(struct flue_pprof_writer *w, struct flue_otlp_numbers attributes)
{
    static const char *const keys[] = {"process.executable.build_id.gnu",
                                       "process.executable.build_id.go",
                                       "process.executable.build_id.htlhash"};
    struct flue_bytes best = flue_bytes(NULL, 0);
    size_t rank = 3;
    struct flue_value value;
    uint64_t index;

    while (flue_otlp_numbers_next(&attributes, &index)) {
        struct flue_bytes key = attribute_key(w, index, &value);

        for (size_t i = 0; i < rank; i++)
            if (value.type == FLUE_VALUE_STRING && value.text.size && flue_bytes_is(key, keys[i])) {
                best = value.text;
                rank = i;
            }
    }
    return best;
}

/* Explicit pprof.mapping.has_* attributes are what a pprof said: such a mapping stays one. Without
 * them frames with and without names stand in two, since Pyroscope symbolizes by mapping. */
static void mapping_read(struct flue_pprof_writer *w, struct flue_mapping_state *state,
                         uint32_t row)
{
    static const struct {
        const char *key;
        uint8_t fact;
    } keys[] = {{"pprof.mapping.has_functions", HAS_FUNCTION},
                {"pprof.mapping.has_filenames", HAS_FILENAME},
                {"pprof.mapping.has_line_numbers", HAS_LINE},
                {"pprof.mapping.has_inline_frames", HAS_INLINE}};
    struct flue_otlp_numbers attributes;
    struct flue_value value;
    uint64_t index;

    state->read = true;
    flue_otlp_mapping_read(flue_otlp_row(w->dictionary, FLUE_OTLP_MAPPING, row), &state->fields);
    state->build_id = build_id(w, state->fields.attribute_indices);
    attributes = state->fields.attribute_indices;
    while (flue_otlp_numbers_next(&attributes, &index)) {
        struct flue_bytes key = attribute_key(w, index, &value);

        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            if (value.type == FLUE_VALUE_BOOL && flue_bytes_is(key, keys[i].key))
                state->kind |= (uint8_t)(KNOWN | (value.boolean ? keys[i].fact : 0));
    }
}

static struct flue_mapping_state *mapping_at(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_mapping_state *state = &w->mappings[row];

    if (!state->read)
        mapping_read(w, state, row);
    return state;
}

/* The id under which a frame's mapping goes: the row, or behind all rows its half without names. */
static uint64_t mapping_id(struct flue_pprof_writer *w, uint32_t row, bool symbolized)
{
    if (row == 0 || symbolized || mapping_at(w, row)->kind)
        return row;
    return (uint64_t)flue_pprof_rows_of(w, FLUE_OTLP_MAPPING) + row;
}

static void mapping_use(struct flue_pprof_writer *w, uint32_t row, bool symbolized, uint8_t facts)
{
    struct flue_mapping_state *state = mapping_at(w, row);

    if (state->generation != w->generation) {
        state->generation = w->generation;
        state->facts = 0;
        state->symbolized = state->bare = false;
        flue_pprof_row_use(w, &w->used_mappings, row);
    }
    if (state->kind || symbolized) {
        state->symbolized = true;
        state->facts |= facts;
    } else {
        state->bare = true;
    }
}

/* A Line of no function: of the placeholder, one behind the table. */
void flue_pprof_placeholder_line(struct flue_pprof_writer *w, struct flue_out *out, int64_t line,
                                 int64_t column)
{
    size_t mark = flue_out_open(out, 4);

    flue_out_number(out, 1, flue_pprof_rows_of(w, FLUE_OTLP_FUNCTION));
    flue_out_number(out, 2, (uint64_t)line);
    flue_out_number(out, 3, (uint64_t)column);
    flue_out_close(out, mark);
}

static void line_read(struct flue_bytes content, struct flue_otlp_line *line)
{
    struct flue_reader r = flue_reader(content);
    struct flue_field_value f;

    *line = (struct flue_otlp_line){0};
    while (flue_read_field(&r, &f))
        switch (f.number) {
        case 1:
            line->function = (uint32_t)f.varint;
            break;
        case 2:
            line->line = (int64_t)f.varint;
            break;
        case 3:
            line->column = (int64_t)f.varint;
            break;
        default:
            break;
        }
}

/* One Line behind the other fields of a Location; what it says of functions goes into `made`. */
static void line_make(struct flue_pprof_writer *w, struct flue_location_made *made,
                      struct flue_bytes content, bool first)
{
    struct flue_otlp_line line;

    line_read(content, &line);
    made->facts |= (uint8_t)((line.line ? HAS_LINE : 0) | (first ? 0 : HAS_INLINE));
    if (line.function == 0 || line.function >= w->dictionary->counts[FLUE_OTLP_FUNCTION]) {
        made->unknown_function = true;
        flue_pprof_placeholder_line(w, &w->location_bytes, line.line, line.column);
        return;
    }
    if (function_at(w, line.function)->filename)
        made->facts |= HAS_FILENAME;
    made->functions++;
    if (!FLUE_ARENA_PUSH(&w->work->arena, w->line_functions, w->line_function_count,
                         w->line_function_room, line.function))
        w->out.failed = true;
    flue_out_field(&w->location_bytes, 4, content);
}

struct location_view {
    uint32_t mapping;
    uint64_t address;
    size_t lines;
    struct flue_bytes last_line;
    bool has_attributes;
};

/* Numbers alone are compared: the body is checked, and a compare of number and wire type together
 * waits for both stores (performance of this walk is that of the conversion). */
static void location_view(struct flue_bytes content, struct location_view *view)
{
    struct flue_reader r = flue_reader(content);
    struct flue_field_value f;

    *view = (struct location_view){0};
    while (flue_read_field(&r, &f))
        switch (f.number) {
        case 1:
            view->mapping = (uint32_t)f.varint;
            break;
        case 2:
            view->address = f.varint;
            break;
        case 3:
            view->lines++;
            view->last_line = f.bytes;
            break;
        case 4:
            view->has_attributes = true;
            break;
        default:
            break;
        }
}

/* No line, or one that names no function and says nothing else either. */
static bool is_nameless(const struct location_view *view)
{
    struct flue_otlp_line line;

    if (view->lines != 1)
        return view->lines == 0;
    line_read(view->last_line, &line);
    return line.function == 0 && line.line == 0 && line.column == 0;
}

/* Encodes the Location, whole, for all generations. */
static void location_make(struct flue_pprof_writer *w, uint32_t row,
                          struct flue_location_made *made)
{
    struct flue_bytes content = w->dictionary->rows[FLUE_OTLP_LOCATION][row];
    struct flue_out *out = &w->location_bytes;
    struct flue_reader r = flue_reader(content);
    struct flue_otlp_location location;
    struct location_view view;
    struct flue_field_value f;
    bool nameless, first = true;
    size_t mark;

    location_view(content, &view);
    nameless = is_nameless(&view);
    made->bare = nameless && view.address != 0;
    made->facts = made->bare ? 0 : HAS_FUNCTION;
    made->mapping = view.mapping < w->dictionary->counts[FLUE_OTLP_MAPPING] ? view.mapping : 0;
    made->first_function = (uint32_t)w->line_function_count;
    made->at = (uint32_t)flue_out_size(out);
    mark = flue_out_open(out, 4);
    flue_out_number(out, 1, row);
    flue_out_number(out, 2, mapping_id(w, made->mapping, !made->bare));
    flue_out_number(out, 3, view.address);
    if (!nameless) {
        for (; flue_read_field(&r, &f); first = first && f.number != 3)
            if (f.number == 3)
                line_make(w, made, f.bytes, first);
    } else if (!made->bare) { /* Pyroscope drops every sample that holds a frame without anything */
        made->unknown_function = true;
        flue_pprof_placeholder_line(w, out, 0, 0);
    }
    if (view.has_attributes) {
        flue_otlp_location_read(content, &location);
        if (is_folded(w, location.attribute_indices))
            flue_out_number(out, 5, 1);
    }
    flue_out_close(out, mark);
    made->size = (uint32_t)(flue_out_size(out) - made->at);
}

void flue_pprof_location_write(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_location_made *made = &w->made_locations[row];

    if (made->size == 0)
        location_make(w, row, made);
    if (w->location_bytes.failed || flue_out_size(&w->location_bytes) > UINT32_MAX)
        w->out.failed = true;
    if (w->out.failed)
        return;
    if (made->mapping)
        mapping_use(w, made->mapping, !made->bare, made->facts);
    w->unknown_function = w->unknown_function || made->unknown_function;
    for (uint32_t i = made->first_function; i < made->first_function + made->functions; i++) {
        uint32_t function = w->line_functions[i];

        if (w->functions[function] != w->generation) {
            w->functions[function] = w->generation;
            flue_pprof_row_use(w, &w->used_functions, function);
        }
    }
    flue_out_bytes(&w->out, flue_bytes(w->location_bytes.block->data + made->at, made->size));
}

void flue_pprof_function_write(struct flue_pprof_writer *w, uint32_t row)
{
    const struct flue_otlp_function *f = function_at(w, row);
    uint8_t *head = flue_out_room(&w->out, 64), *at;
    uint32_t name = flue_pprof_string_row(w, f->name),
             system_name = flue_pprof_string_row(w, f->system_name);
    uint32_t filename = flue_pprof_string_row(w, f->filename);

    if (!head)
        return;
    at = head + 2; /* at most 4 * 6 + 11 bytes */
    *at++ = 1 << 3;
    at = flue_write_varint(at, row);
    if (name) {
        *at++ = 2 << 3;
        at = flue_write_varint(at, name);
    }
    if (system_name) {
        *at++ = 3 << 3;
        at = flue_write_varint(at, system_name);
    }
    if (filename) {
        *at++ = 4 << 3;
        at = flue_write_varint(at, filename);
    }
    if (f->start_line) {
        *at++ = 5 << 3;
        at = flue_write_varint(at, (uint64_t)f->start_line);
    }
    head[0] = 5 << 3 | FLUE_LEN;
    head[1] = (uint8_t)(at - head - 2);
    flue_out_end(&w->out, at);
}

static void mapping_write(struct flue_pprof_writer *w, uint32_t row, uint64_t id, uint8_t facts)
{
    const struct flue_mapping_state *state = mapping_at(w, row);
    const struct flue_otlp_mapping *m = &state->fields;
    size_t mark = flue_out_open(&w->out, 3);

    w->mappings_written++;
    flue_out_number(&w->out, 1, id);
    flue_out_number(&w->out, 2, m->memory_start);
    flue_out_number(&w->out, 3, m->memory_limit);
    flue_out_number(&w->out, 4, m->file_offset);
    flue_out_number(&w->out, 5, flue_pprof_string_row(w, m->filename));
    flue_out_number(&w->out, 6, flue_pprof_string_plain(w, state->build_id));
    flue_out_number(&w->out, 7, (facts & HAS_FUNCTION) != 0);
    flue_out_number(&w->out, 8, (facts & HAS_FILENAME) != 0);
    flue_out_number(&w->out, 9, (facts & HAS_LINE) != 0);
    flue_out_number(&w->out, 10, (facts & HAS_INLINE) != 0);
    flue_out_close(&w->out, mark);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* In order of the table: a pprof's first mapping is its main binary. */
void flue_pprof_mappings_write(struct flue_pprof_writer *w)
{
    struct flue_row_list *used = &w->used_mappings;

    if (used->count)
        qsort(used->rows, used->count, sizeof *used->rows, by_number);
    for (size_t i = 0; i < used->count; i++) {
        uint32_t row = used->rows[i];
        const struct flue_mapping_state *state = &w->mappings[row];

        if (state->symbolized)
            mapping_write(w, row, row, state->kind ? state->kind : state->facts);
        if (state->bare)
            mapping_write(w, row, (uint64_t)flue_pprof_rows_of(w, FLUE_OTLP_MAPPING) + row, 0);
    }
}
