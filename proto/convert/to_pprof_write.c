/* to_pprof_write.c: see to_pprof.h. Field numbers: pprof.proto and profiles.proto.
 *
 * Written in the order sample types, samples, locations, functions, mappings, strings, rest: each
 * part finds out which rows the next must hold. */
#include "proto/convert/to_pprof.h"

#include <stdlib.h>
#include "proto/otlp/dictionary_run.h"

/* stack_kinds: how a row goes into a Sample. */
enum { STACK_UNREAD, STACK_VERBATIM, STACK_REWRITTEN };
/* attribute_kinds of locations */
enum { ATTRIBUTE_UNREAD, ATTRIBUTE_OTHER, ATTRIBUTE_FOLDED };
/* facts of mappings */
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
    w->attribute_kinds = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_ATTRIBUTE), 1);
    w->made_locations =
        flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_LOCATION), sizeof *w->made_locations);
    w->made_functions =
        flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_FUNCTION), sizeof *w->made_functions);
    w->mappings = flue_arena_zalloc(arena, rows_of(w, FLUE_OTLP_MAPPING), sizeof *w->mappings);
    return flue_out_init(&w->out, expected, work->budget) &&
           flue_out_init(&w->label_bytes, 256, work->budget) &&
           flue_out_init(&w->location_bytes, 1024, work->budget) && w->strings && w->stacks &&
           w->stack_kinds && w->locations && w->functions && w->attribute_kinds &&
           w->made_locations && w->made_functions && w->mappings;
}

void flue_pprof_writer_destroy(struct flue_pprof_writer *w)
{
    flue_out_destroy(&w->out);
    flue_out_destroy(&w->label_bytes);
    flue_out_destroy(&w->location_bytes);
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
            label_write(out, string_text(w, FLUE_BYTES("trace_id")), string_text(w, set->trace_id),
                        0, 0);
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

/* Is there a 0 among the numbers of a run? Only there a varint of minimal length has a zero byte; a
 * longer one that ends in zero costs the rewriting that a 0 would. */
static bool has_zero(struct flue_bytes run)
{
    return run.size && memchr(run.data, 0, run.size);
}

static void stack_use(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_bytes content = flue_otlp_row(w->dictionary, FLUE_OTLP_STACK, row), run;

    w->stacks[row] = w->generation;
    use(w, &w->used_stacks, row);
    if (w->stack_kinds[row] == STACK_UNREAD)
        w->stack_kinds[row] =
            flue_stack_run(content, &run) && !has_zero(run) ? STACK_VERBATIM : STACK_REWRITTEN;
}

static void location_use(struct flue_pprof_writer *w, uint64_t number)
{
    if (number == 0 || number >= w->dictionary->counts[FLUE_OTLP_LOCATION]) {
        w->unknown_location = true;
    } else if (w->locations[number] != w->generation) {
        w->locations[number] = w->generation;
        use(w, &w->used_locations, (uint32_t)number);
    }
}

static void stack_locations(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_bytes content = flue_otlp_row(w->dictionary, FLUE_OTLP_STACK, row), run;
    uint32_t *locations = w->locations, generation = w->generation;
    uint32_t limit = rows_of(w, FLUE_OTLP_LOCATION);
    struct flue_otlp_numbers numbers;
    const uint8_t *at, *end;
    uint64_t number;

    if (!flue_stack_run(content, &run)) {
        for (numbers = flue_otlp_stack_locations(content);
             flue_otlp_numbers_next(&numbers, &number);)
            location_use(w, number);
        return;
    }
    for (at = run.data, end = at + run.size; at < end;) {
        uint32_t next = flue_run_next(&at, end);

        if (__builtin_expect(next >= limit || locations[next] != generation, 0))
            location_use(w, next);
    }
}

/* The locations of all used stacks. Where every stack of the table is used and none needs a look of
 * its own, that is every location: stacks are most of an application's profile, and are then only
 * copied. (A location that no stack has is written too; nobody makes such tables.) */
static void locations_use(struct flue_pprof_writer *w)
{
    bool plain = w->used_stacks.count + 1 == w->dictionary->counts[FLUE_OTLP_STACK];

    for (size_t i = 0; i < w->used_stacks.count && plain; i++)
        plain = w->stack_kinds[w->used_stacks.rows[i]] == STACK_VERBATIM;
    if (plain)
        for (uint32_t i = 1; i < w->dictionary->counts[FLUE_OTLP_LOCATION]; i++)
            location_use(w, i);
    else
        for (size_t i = 0; i < w->used_stacks.count; i++)
            stack_locations(w, w->used_stacks.rows[i]);
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

static int64_t value_of(const struct flue_pprof_head *head,
                        const struct flue_sample_list *const *lists, size_t type, size_t number)
{
    int64_t value = lists[type]->values[number];

    return head->times_period[type] ? times(value, head->period) : value;
}

static void sample_rewrite(struct flue_pprof_writer *w, const struct flue_pprof_head *head,
                           const struct flue_sample_list *const *lists, size_t number,
                           struct flue_bytes stack, struct flue_bytes labels)
{
    size_t mark = flue_out_open(&w->out, 2), values;

    stack_rewrite(w, stack);
    values = flue_out_open(&w->out, 2);
    for (size_t i = 0; i < head->type_count; i++)
        flue_out_varint(&w->out, (uint64_t)value_of(head, lists, i, number));
    flue_out_close(&w->out, values);
    flue_out_bytes(&w->out, labels);
    flue_out_close(&w->out, mark);
}

static void sample_write(struct flue_pprof_writer *w, const struct flue_pprof_head *head,
                         const struct flue_sample_list *const *lists, size_t number)
{
    const struct flue_sample_row *row = &lists[0]->rows[number];
    struct flue_bytes stack = flue_otlp_row(w->dictionary, FLUE_OTLP_STACK, row->stack), labels;
    size_t values = 0, size;
    uint8_t *at;

    if (stack.size && w->stacks[row->stack] != w->generation)
        stack_use(w, row->stack);
    labels = labels_of(w, row->labels);
    if (stack.size && w->stack_kinds[row->stack] == STACK_REWRITTEN) {
        sample_rewrite(w, head, lists, number, stack, labels);
        return;
    }
    for (size_t i = 0; i < head->type_count; i++)
        values += flue_varint_size((uint64_t)value_of(head, lists, i, number));
    size = stack.size + flue_len_field_size(2, values) + labels.size;
    at = flue_out_room(&w->out, size + 16);
    if (!at)
        return;
    at = flue_write_len_head(at, 2, size);
    if (stack.size)
        memcpy(at, stack.data, stack.size);
    at = flue_write_len_head(at + stack.size, 2, values);
    for (size_t i = 0; i < head->type_count; i++)
        at = flue_write_varint(at, (uint64_t)value_of(head, lists, i, number));
    if (labels.size)
        memcpy(at, labels.data, labels.size);
    flue_out_end(&w->out, at + labels.size);
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

    while (flue_otlp_numbers_next(&attributes, &index)) {
        uint8_t *kind = w->attribute_kinds + (index < rows_of(w, FLUE_OTLP_ATTRIBUTE) ? index : 0);

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
    return (uint64_t)rows_of(w, FLUE_OTLP_MAPPING) + row;
}

static void mapping_use(struct flue_pprof_writer *w, uint32_t row, bool symbolized, uint8_t facts)
{
    struct flue_mapping_state *state = mapping_at(w, row);

    if (state->generation != w->generation) {
        state->generation = w->generation;
        state->facts = 0;
        state->symbolized = state->bare = false;
        use(w, &w->used_mappings, row);
    }
    if (state->kind || symbolized) {
        state->symbolized = true;
        state->facts |= facts;
    } else {
        state->bare = true;
    }
}

/* A Line of no function: of the placeholder, one behind the table. */
static void placeholder_line(struct flue_pprof_writer *w, struct flue_out *out, int64_t line,
                             int64_t column)
{
    size_t mark = flue_out_open(out, 4);

    flue_out_number(out, 1, rows_of(w, FLUE_OTLP_FUNCTION));
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
        placeholder_line(w, &w->location_bytes, line.line, line.column);
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
        placeholder_line(w, out, 0, 0);
    }
    if (view.has_attributes) {
        flue_otlp_location_read(content, &location);
        if (is_folded(w, location.attribute_indices))
            flue_out_number(out, 5, 1);
    }
    flue_out_close(out, mark);
    made->size = (uint32_t)(flue_out_size(out) - made->at);
}

static void location_write(struct flue_pprof_writer *w, uint32_t row)
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
            use(w, &w->used_functions, function);
        }
    }
    flue_out_bytes(&w->out, flue_bytes(w->location_bytes.block->data + made->at, made->size));
}

static void function_write(struct flue_pprof_writer *w, uint32_t row)
{
    const struct flue_otlp_function *f = function_at(w, row);
    uint8_t *head = flue_out_room(&w->out, 64), *at;
    uint32_t name = string_row(w, f->name), system_name = string_row(w, f->system_name);
    uint32_t filename = string_row(w, f->filename);

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
    flue_out_number(&w->out, 5, string_row(w, m->filename));
    flue_out_number(&w->out, 6, string_plain(w, state->build_id));
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
        placeholder_line(w, &w->out, 0, 0);
        w->unknown_function = true;
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
    w->used_stacks.count = w->used_locations.count = w->used_functions.count =
        w->used_mappings.count = 0;
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
    locations_use(w);
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
