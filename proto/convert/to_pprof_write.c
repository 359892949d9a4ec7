/* to_pprof_write.c: see to_pprof.h. Field numbers: pprof.proto and profiles.proto.
 *
 * Written in the order sample types, samples, locations, functions, mappings, strings, rest: each
 * part finds out which rows the next must hold. */
#include "proto/convert/to_pprof.h"

#include <stdlib.h>

/* stack_kinds: how a row goes into a Sample. */
enum { STACK_UNREAD, STACK_VERBATIM, STACK_REWRITTEN };
/* facts of mappings, and function_kinds */
enum { KNOWN = 1, HAS_FILENAME = 2, HAS_LINE = 4, HAS_INLINE = 8, HAS_FUNCTION = 16 };

#define UNKNOWN_NAME FLUE_BYTES("[unknown]")

static uint32_t rows_of(const struct flue_pprof_writer *w, enum flue_otlp_table table)
{
    uint32_t rows = w->dictionary->counts[table];

    return rows ? rows : 1;
}

bool flue_pprof_writer_init(struct flue_pprof_writer *w,
                            const struct flue_otlp_dictionary *dictionary,
                            struct flue_label_sets *sets, struct flue_work *work, size_t expected)
{
    struct flue_arena *arena = &work->arena;

    memset(w, 0, sizeof *w);
    w->dictionary = dictionary;
    w->sets = sets;
    w->work = work;
    flue_arena_init(&w->own_arena, work->budget, 0);
    w->strings = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_STRING), sizeof *w->strings);
    w->stacks = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_STACK), sizeof *w->stacks);
    w->stack_kinds = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_STACK), 1);
    w->locations = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_LOCATION), sizeof *w->locations);
    w->functions = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_FUNCTION), sizeof *w->functions);
    w->function_kinds = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_FUNCTION), 1);
    w->mappings = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_MAPPING), sizeof *w->mappings);
    return flue_out_init(&w->out, expected, work->budget) &&
           flue_out_init(&w->label_bytes, 256, work->budget) && w->strings && w->stacks &&
           w->stack_kinds && w->locations && w->functions && w->function_kinds && w->mappings;
}

void flue_pprof_writer_destroy(struct flue_pprof_writer *w)
{
    flue_out_destroy(&w->out);
    flue_out_destroy(&w->label_bytes);
    flue_arena_destroy(&w->own_arena);
}

/* ------------------------------------------------------------------ strings */

static uint32_t text_add(struct flue_pprof_writer *w, struct flue_bytes text)
{
    if (!FLUE_ARENA_PUSH(&w->work->arena, w->texts, w->text_count, w->text_room, text))
        w->out.failed = true;
    return (uint32_t)w->text_count;
}

static uint32_t string_row(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_bytes text;

    if (row == 0 || row >= w->dictionary->counts[FLUE_OTLP_STRING])
        return 0;
    if (w->strings[row].generation == w->generation)
        return w->strings[row].number;
    text = w->dictionary->rows[FLUE_OTLP_STRING][row];
    w->strings[row].generation = w->generation;
    w->strings[row].number = text.size ? text_add(w, text) : 0;
    return w->strings[row].number;
}

static bool same_text(const void *rows, uint32_t row, const void *key)
{
    const struct flue_bytes *texts = rows, *text = key;

    return flue_bytes_equal(texts[row], *text);
}

/* Text that is no row of the table. An empty one gets a row of its own: a label whose str is row 0
 * is a numeric one. */
static uint32_t string_text(struct flue_pprof_writer *w, struct flue_bytes text)
{
    uint64_t hash = flue_hash(text);
    uint32_t found = flue_table_find(&w->own, hash, same_text, w->texts, &text);

    if (found != FLUE_TABLE_NONE)
        return found + 1;
    found = text_add(w, text);
    if (!flue_table_insert(&w->own, hash, found - 1))
        w->out.failed = true;
    return found;
}

static uint32_t string_plain(struct flue_pprof_writer *w, struct flue_bytes text)
{
    return text.size ? string_text(w, text) : 0;
}

/* ------------------------------------------------------------------- labels */

static void label_write(struct flue_out *out, uint32_t key, uint32_t str, int64_t num,
                        uint32_t unit)
{
    uint8_t *head = flue_out_room(out, 64), *at;

    if (!head)
        return;
    at = head + 2; /* at most 1 + 5 + 1 + 5 + 1 + 10 + 1 + 5 bytes */
    if (key) {
        *at++ = 0x08;
        at = flue_write_varint(at, key);
    }
    if (str) {
        *at++ = 0x10;
        at = flue_write_varint(at, str);
    }
    if (num) {
        *at++ = 0x18;
        at = flue_write_varint(at, (uint64_t)num);
    }
    if (unit) {
        *at++ = 0x20;
        at = flue_write_varint(at, unit);
    }
    head[0] = 0x1a;
    head[1] = (uint8_t)(at - head - 2);
    flue_out_end(out, at);
}

/* The set's labels with this generation's strings, encoded once. */
static struct flue_bytes labels_of(struct flue_pprof_writer *w, uint32_t number)
{
    struct flue_label_set *set = &w->sets->sets[number];
    struct flue_out *out = &w->label_bytes;

    if (set->generation != w->generation) {
        set->generation = w->generation;
        set->encoded_at = flue_out_size(out);
        for (uint32_t i = set->first; i < set->first + set->count; i++) {
            const struct flue_label_attribute *a = &w->sets->attributes[w->sets->rows[i]];

            for (uint32_t j = a->first; j < a->first + a->count; j++) {
                const struct flue_out_label *l = &w->sets->labels[j];
                uint32_t key = string_row(w, l->key_row), str = 0;

                if (l->is_text)
                    str = l->text_row && l->text.size ? string_row(w, l->text_row)
                                                      : string_text(w, l->text);
                label_write(out, key, str, l->number, l->is_text ? 0 : string_row(w, l->unit_row));
            }
        }
        if (set->span_id.size)
            label_write(out, string_text(w, FLUE_BYTES("span_id")), string_text(w, set->span_id), 0,
                        0);
        if (set->trace_id.size)
            label_write(out, string_text(w, FLUE_BYTES("trace_id")),
                        string_text(w, set->trace_id), 0, 0);
        set->encoded_size = flue_out_size(out) - set->encoded_at;
    }
    return flue_bytes(out->block->data + set->encoded_at, set->encoded_size);
}

/* ------------------------------------------------------------------ samples */

static void use(struct flue_pprof_writer *w, struct flue_row_list *list, uint32_t row)
{
    if (!FLUE_ARENA_PUSH(&w->work->arena, list->rows, list->count, list->room, row))
        w->out.failed = true;
}

/* A frame of row 0, "no location", which pprof has not: the placeholder stands one behind the table. */
static void stack_use(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_bytes content = flue_otlp_row(w->dictionary, FLUE_OTLP_STACK, row);
    struct flue_reader r = flue_reader(content);
    uint32_t limit = rows_of(w, FLUE_OTLP_LOCATION);
    bool zero = false, other = false;
    struct flue_field_value f;
    uint64_t number;

    while (flue_read_field(&r, &f)) {
        struct flue_reader run = flue_reader(f.bytes);

        if (f.number != 1) {
            other = true;
            continue;
        }
        if (f.type == FLUE_VARINT) { /* not packed */
            other = true;
            run = flue_reader(flue_bytes(f.tag_at, (size_t)(r.at - f.tag_at)));
            flue_read_varint(&run, &number); /* the tag */
        }
        while (flue_read_varint(&run, &number)) {
            if (number == 0 || number >= limit) {
                zero = true;
            } else if (w->locations[number] != w->generation) {
                w->locations[number] = w->generation;
                use(w, &w->used_locations, (uint32_t)number);
            }
        }
    }
    w->stacks[row] = w->generation;
    w->stack_kinds[row] = zero || other ? STACK_REWRITTEN : STACK_VERBATIM;
    w->unknown_location = w->unknown_location || zero;
}

/* Packed location ids, for the rare stack that cannot be copied. */
static void stack_rewrite(struct flue_pprof_writer *w, struct flue_bytes content)
{
    struct flue_otlp_numbers numbers = flue_otlp_stack_locations(content);
    uint32_t limit = rows_of(w, FLUE_OTLP_LOCATION);
    size_t mark = flue_out_open(&w->out, 1);
    uint64_t number;

    while (flue_otlp_numbers_next(&numbers, &number))
        flue_out_varint(&w->out, number == 0 || number >= limit ? limit : number);
    flue_out_close(&w->out, mark);
}

static int64_t times(int64_t value, int64_t factor)
{
    int64_t product;

    if (__builtin_mul_overflow(value, factor, &product))
        return (value < 0) == (factor < 0) ? INT64_MAX : INT64_MIN;
    return product;
}

static void sample_write(struct flue_pprof_writer *w, const struct flue_pprof_head *head,
                         const struct flue_sample_list *const *lists, size_t number)
{
    const struct flue_sample_row *row = &lists[0]->rows[number];
    struct flue_bytes stack = flue_otlp_row(w->dictionary, FLUE_OTLP_STACK, row->stack), labels;
    size_t values, mark;
    uint8_t *at;

    if (stack.size && w->stacks[row->stack] != w->generation)
        stack_use(w, row->stack);
    labels = labels_of(w, row->labels);
    mark = flue_out_open(&w->out, 2);
    if (stack.size && w->stack_kinds[row->stack] == STACK_REWRITTEN)
        stack_rewrite(w, stack);
    else
        flue_out_bytes(&w->out, stack);
    values = flue_out_open(&w->out, 2);
    for (size_t i = 0; i < head->type_count; i++) {
        int64_t value = lists[i]->values[number];

        at = flue_out_room(&w->out, 10);
        if (!at)
            return;
        flue_out_end(&w->out,
                     flue_write_varint(at, (uint64_t)(head->times_period[i]
                                                          ? times(value, head->period)
                                                          : value)));
    }
    flue_out_close(&w->out, values);
    flue_out_bytes(&w->out, labels);
    flue_out_close(&w->out, mark);
}

/* ---------------------------------------------------------------- locations */

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

    while (flue_otlp_numbers_next(&attributes, &index))
        if (flue_bytes_is(attribute_key(w, index, &value), "pprof.location.is_folded"))
            return value.type == FLUE_VALUE_BOOL && value.boolean;
    return false;
}

static uint8_t function_use(struct flue_pprof_writer *w, uint32_t row)
{
    if (w->functions[row] != w->generation) {
        w->functions[row] = w->generation;
        use(w, &w->used_functions, row);
        if (!w->function_kinds[row]) {
            struct flue_otlp_function f;

            flue_otlp_function_read(flue_otlp_row(w->dictionary, FLUE_OTLP_FUNCTION, row), &f);
            w->function_kinds[row] = (uint8_t)(KNOWN | (f.filename ? HAS_FILENAME : 0));
        }
    }
    return w->function_kinds[row];
}

/* Explicit pprof.mapping.has_* attributes are what a pprof said: such a mapping stays one. Without
 * them frames with and without names stand in two, since Pyroscope symbolizes by mapping. */
static void mapping_read(struct flue_pprof_writer *w, struct flue_mapping_state *state, uint32_t row)
{
    static const struct {
        const char *key;
        uint8_t fact;
    } keys[] = {{"pprof.mapping.has_functions", HAS_FUNCTION},
                {"pprof.mapping.has_filenames", HAS_FILENAME},
                {"pprof.mapping.has_line_numbers", HAS_LINE},
                {"pprof.mapping.has_inline_frames", HAS_INLINE}};
    struct flue_otlp_mapping mapping;
    struct flue_value value;
    uint64_t index;

    state->read = true;
    flue_otlp_mapping_read(flue_otlp_row(w->dictionary, FLUE_OTLP_MAPPING, row), &mapping);
    while (flue_otlp_numbers_next(&mapping.attribute_indices, &index)) {
        struct flue_bytes key = attribute_key(w, index, &value);

        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            if (value.type == FLUE_VALUE_BOOL && flue_bytes_is(key, keys[i].key))
                state->kind |= (uint8_t)(KNOWN | (value.boolean ? keys[i].fact : 0));
    }
}

/* The id under which a frame's mapping goes: the row, or behind all rows its half without names. */
static uint64_t mapping_use(struct flue_pprof_writer *w, uint32_t row, bool symbolized,
                            uint8_t facts)
{
    struct flue_mapping_state *state;

    if (row == 0 || row >= w->dictionary->counts[FLUE_OTLP_MAPPING])
        return 0;
    state = &w->mappings[row];
    if (!state->read)
        mapping_read(w, state, row);
    if (state->generation != w->generation) {
        state->generation = w->generation;
        state->facts = 0;
        state->symbolized = state->bare = false;
        use(w, &w->used_mappings, row);
    }
    if (state->kind || symbolized) {
        state->symbolized = true;
        state->facts |= facts;
        return row;
    }
    state->bare = true;
    return (uint64_t)rows_of(w, FLUE_OTLP_MAPPING) + row;
}

static void placeholder_line(struct flue_pprof_writer *w)
{
    size_t mark = flue_out_open(&w->out, 4);

    w->unknown_function = true;
    flue_out_number(&w->out, 1, rows_of(w, FLUE_OTLP_FUNCTION));
    flue_out_close(&w->out, mark);
}

/* A line that names no function and says nothing else either. */
static bool line_empty(const struct flue_otlp_line *line)
{
    return line->function == 0 && line->line == 0 && line->column == 0;
}

static void location_write(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_bytes content = flue_otlp_row(w->dictionary, FLUE_OTLP_LOCATION, row);
    uint8_t facts = HAS_FUNCTION;
    struct flue_otlp_location location;
    struct flue_otlp_line line;
    struct flue_reader lines;
    size_t count = 0, mark;
    bool bare;

    flue_otlp_location_read(content, &location);
    for (lines = location.lines; flue_otlp_line_next(&lines, &line); count++) {
        if (line.function && line.function < w->dictionary->counts[FLUE_OTLP_FUNCTION])
            facts |= function_use(w, line.function) & HAS_FILENAME;
        facts |= line.line ? HAS_LINE : 0;
        facts |= count ? HAS_INLINE : 0;
    }
    if (count == 1) {
        lines = location.lines;
        flue_otlp_line_next(&lines, &line);
        count = !line_empty(&line);
    }
    bare = count == 0 && location.address != 0;
    mark = flue_out_open(&w->out, 4);
    flue_out_number(&w->out, 1, row);
    flue_out_number(&w->out, 2, mapping_use(w, location.mapping, !bare, bare ? 0 : facts));
    flue_out_number(&w->out, 3, location.address);
    if (count == 0 && !bare) {
        placeholder_line(w); /* Pyroscope drops every sample that holds a frame without anything */
    } else if (count) {
        struct flue_reader r = flue_reader(content);
        struct flue_field_value f;

        while (flue_read_field(&r, &f)) {
            struct flue_reader one = flue_reader(flue_bytes(f.tag_at, (size_t)(r.at - f.tag_at)));

            if (f.number != 3 || f.type != FLUE_LEN)
                continue;
            flue_otlp_line_next(&one, &line);
            if (line.function && line.function < w->dictionary->counts[FLUE_OTLP_FUNCTION]) {
                flue_out_field(&w->out, 4, f.bytes);
            } else {
                size_t inner = flue_out_open(&w->out, 4);

                w->unknown_function = true;
                flue_out_number(&w->out, 1, rows_of(w, FLUE_OTLP_FUNCTION));
                flue_out_number(&w->out, 2, (uint64_t)line.line);
                flue_out_number(&w->out, 3, (uint64_t)line.column);
                flue_out_close(&w->out, inner);
            }
        }
    }
    if (is_folded(w, location.attribute_indices))
        flue_out_number(&w->out, 5, 1);
    flue_out_close(&w->out, mark);
}

static void function_write(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_otlp_function f;
    size_t mark = flue_out_open(&w->out, 5);

    flue_otlp_function_read(flue_otlp_row(w->dictionary, FLUE_OTLP_FUNCTION, row), &f);
    flue_out_number(&w->out, 1, row);
    flue_out_number(&w->out, 2, string_row(w, f.name));
    flue_out_number(&w->out, 3, string_row(w, f.system_name));
    flue_out_number(&w->out, 4, string_row(w, f.filename));
    flue_out_number(&w->out, 5, (uint64_t)f.start_line);
    flue_out_close(&w->out, mark);
}

/* The build id: GNU's first, as Pyroscope and debuginfod know it. Its row, or its text alone. */
static uint32_t build_id(struct flue_pprof_writer *w, struct flue_otlp_numbers attributes)
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
    return string_plain(w, best);
}

static void mapping_write(struct flue_pprof_writer *w, uint32_t row, uint64_t id, uint8_t facts)
{
    struct flue_otlp_mapping m;
    size_t mark = flue_out_open(&w->out, 3);

    w->mappings_written++;
    flue_otlp_mapping_read(flue_otlp_row(w->dictionary, FLUE_OTLP_MAPPING, row), &m);
    flue_out_number(&w->out, 1, id);
    flue_out_number(&w->out, 2, m.memory_start);
    flue_out_number(&w->out, 3, m.memory_limit);
    flue_out_number(&w->out, 4, m.file_offset);
    flue_out_number(&w->out, 5, string_row(w, m.filename));
    flue_out_number(&w->out, 6, build_id(w, m.attribute_indices));
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
static void mappings_write(struct flue_pprof_writer *w)
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
            mapping_write(w, row, (uint64_t)rows_of(w, FLUE_OTLP_MAPPING) + row, 0);
    }
}

/* --------------------------------------------------------------------- whole */

static void type_write(struct flue_pprof_writer *w, uint32_t field, struct flue_profile_type type)
{
    size_t mark = flue_out_open(&w->out, field);

    flue_out_number(&w->out, 1, string_plain(w, type.type));
    flue_out_number(&w->out, 2, string_plain(w, type.unit));
    flue_out_close(&w->out, mark);
}

static void placeholders_write(struct flue_pprof_writer *w)
{
    size_t mark;

    if (w->unknown_location) {
        mark = flue_out_open(&w->out, 4);
        flue_out_number(&w->out, 1, rows_of(w, FLUE_OTLP_LOCATION));
        placeholder_line(w);
        flue_out_close(&w->out, mark);
    }
    if (w->unknown_function) {
        mark = flue_out_open(&w->out, 5);
        flue_out_number(&w->out, 1, rows_of(w, FLUE_OTLP_FUNCTION));
        flue_out_number(&w->out, 2, string_text(w, UNKNOWN_NAME));
        flue_out_close(&w->out, mark);
    }
}

static bool generation_begin(struct flue_pprof_writer *w)
{
    w->generation++;
    w->text_count = w->mappings_written = 0;
    w->used_locations.count = w->used_functions.count = w->used_mappings.count = 0;
    w->unknown_location = w->unknown_function = false;
    flue_out_cut(&w->out, 0);
    flue_out_cut(&w->label_bytes, 0);
    flue_arena_reset(&w->own_arena);
    return flue_table_init(&w->own, &w->own_arena, 8);
}

static void rest_write(struct flue_pprof_writer *w, const struct flue_pprof_head *head)
{
    struct flue_out *out = &w->out;

    flue_out_number(out, 7, string_plain(w, head->drop_frames));
    flue_out_number(out, 8, string_plain(w, head->keep_frames));
    flue_out_number(out, 9, (uint64_t)head->time_nanos);
    flue_out_number(out, 10, (uint64_t)head->duration_nanos);
    if (head->period_type.type.size || head->period_type.unit.size)
        type_write(w, 11, head->period_type);
    flue_out_number(out, 12, (uint64_t)head->period);
    for (size_t i = 0; i < head->comment_count; i++) {
        uint8_t *at = flue_out_room(out, 16);
        uint32_t comment = string_plain(w, head->comments[i]);

        if (at) { /* an empty comment is one as well */
            *at++ = 13 << 3;
            flue_out_end(out, flue_write_varint(at, comment));
        }
    }
    flue_out_number(out, 14, string_plain(w, head->default_sample_type));
    flue_out_number(out, 15, string_plain(w, head->doc_url));
}

struct flue_bytes flue_pprof_write(struct flue_pprof_writer *w, const struct flue_pprof_head *head,
                                   const struct flue_sample_list *const *lists)
{
    if (!generation_begin(w))
        return flue_bytes(NULL, 0);
    for (size_t i = 0; i < head->type_count; i++)
        type_write(w, 1, head->types[i]);
    for (size_t i = 0; i < lists[0]->count && !w->out.failed; i++)
        sample_write(w, head, lists, i);
    for (size_t i = 0; i < w->used_locations.count && !w->out.failed; i++)
        location_write(w, w->used_locations.rows[i]);
    for (size_t i = 0; i < w->used_functions.count; i++)
        function_write(w, w->used_functions.rows[i]);
    mappings_write(w);
    placeholders_write(w);
    rest_write(w, head);
    flue_out_field(&w->out, 6, flue_bytes(NULL, 0));
    for (size_t i = 0; i < w->text_count; i++)
        flue_out_field(&w->out, 6, w->texts[i]);
    if (w->out.failed || w->label_bytes.failed)
        return flue_bytes(NULL, 0);
    return flue_block_bytes(w->out.block);
}

void flue_pprof_writer_facts(const struct flue_pprof_writer *w, const struct flue_pprof_head *head,
                             size_t samples, struct flue_pprof_facts *facts)
{
    *facts = (struct flue_pprof_facts){
        .inflated_size = flue_out_size(&w->out),
        .samples = samples,
        .sample_types = head->type_count,
        .locations = w->used_locations.count + w->unknown_location,
        .functions = w->used_functions.count + w->unknown_function,
        .mappings = w->mappings_written,
        .strings = w->text_count + 1,
        .time_nanos = head->time_nanos,
        .duration_nanos = head->duration_nanos,
    };
    for (size_t i = 0; i < head->type_count; i++)
        if (flue_bytes_find(head->types[i].type, '-') != SIZE_MAX)
            facts->dash_in_sample_type = true;
}
