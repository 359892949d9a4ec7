/* to_pprof_write.c: see to_pprof.h. Field numbers: pprof.proto and profiles.proto.
 *
 * Written in the order sample types, samples, locations, functions, mappings, strings, rest: each
 * part finds out which rows the next must hold. */
#include "proto/convert/to_pprof.h"

#include <stdlib.h>
#include "proto/otlp/dictionary_run.h"

/* stack_kinds: how a row goes into a Sample. */
enum { STACK_UNREAD, STACK_VERBATIM, STACK_REWRITTEN };
#define UNKNOWN_NAME FLUE_BYTES("[unknown]")

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
    w->strings =
        flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_STRING), sizeof *w->strings);
    w->stacks = flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_STACK), sizeof *w->stacks);
    w->stack_kinds = flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_STACK), 1);
    w->locations =
        flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_LOCATION), sizeof *w->locations);
    w->functions =
        flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_FUNCTION), sizeof *w->functions);
    w->attribute_kinds = flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_ATTRIBUTE), 1);
    w->made_locations = flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_LOCATION),
                                          sizeof *w->made_locations);
    w->made_functions = flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_FUNCTION),
                                          sizeof *w->made_functions);
    w->mappings =
        flue_arena_zalloc(arena, flue_pprof_rows_of(w, FLUE_OTLP_MAPPING), sizeof *w->mappings);
    w->expected = expected;
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

uint32_t flue_pprof_string_row(struct flue_pprof_writer *w, uint32_t row)
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
uint32_t flue_pprof_string_text(struct flue_pprof_writer *w, struct flue_bytes text)
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

uint32_t flue_pprof_string_plain(struct flue_pprof_writer *w, struct flue_bytes text)
{
    return text.size ? flue_pprof_string_text(w, text) : 0;
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
                uint32_t key = flue_pprof_string_row(w, l->key_row), str = 0;

                if (l->is_text)
                    str = l->text_row && l->text.size ? flue_pprof_string_row(w, l->text_row)
                                                      : flue_pprof_string_text(w, l->text);
                label_write(out, key, str, l->number,
                            l->is_text ? 0 : flue_pprof_string_row(w, l->unit_row));
            }
        }
        if (set->span_id.size)
            label_write(out, flue_pprof_string_text(w, FLUE_BYTES("span_id")),
                        flue_pprof_string_text(w, set->span_id), 0, 0);
        if (set->trace_id.size)
            label_write(out, flue_pprof_string_text(w, FLUE_BYTES("trace_id")),
                        flue_pprof_string_text(w, set->trace_id), 0, 0);
        set->encoded_size = flue_out_size(out) - set->encoded_at;
    }
    return flue_bytes(out->block->data + set->encoded_at, set->encoded_size);
}

/* ------------------------------------------------------------------ samples */

void flue_pprof_row_use(struct flue_pprof_writer *w, struct flue_row_list *list, uint32_t row)
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

/* The depth with a Stack of so many bytes that its frames must be counted. */
static uint64_t __attribute__((cold)) deeper(uint64_t depth, struct flue_bytes content)
{
    struct flue_otlp_numbers numbers = flue_otlp_stack_locations(content);
    uint64_t count = 0, number;

    while (flue_otlp_numbers_next(&numbers, &number))
        count++;
    return count > depth ? count : depth;
}

static void stack_use(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_bytes content = flue_otlp_row(w->dictionary, FLUE_OTLP_STACK, row), run;

    w->stacks[row] = w->generation;
    flue_pprof_row_use(w, &w->used_stacks, row);
    if (content.size > w->depth)
        w->depth = content.size <= FLUE_DEPTH_COUNTED ? content.size : deeper(w->depth, content);
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
        flue_pprof_row_use(w, &w->used_locations, (uint32_t)number);
    }
}

static void stack_locations(struct flue_pprof_writer *w, uint32_t row)
{
    struct flue_bytes content = flue_otlp_row(w->dictionary, FLUE_OTLP_STACK, row), run;
    uint32_t *locations = w->locations, generation = w->generation;
    uint32_t limit = flue_pprof_rows_of(w, FLUE_OTLP_LOCATION);
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
    uint32_t limit = flue_pprof_rows_of(w, FLUE_OTLP_LOCATION);
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

/* --------------------------------------------------------------------- whole */

static void type_write(struct flue_pprof_writer *w, uint32_t field, struct flue_profile_type type)
{
    size_t mark = flue_out_open(&w->out, field);

    flue_out_number(&w->out, 1, flue_pprof_string_plain(w, type.type));
    flue_out_number(&w->out, 2, flue_pprof_string_plain(w, type.unit));
    flue_out_close(&w->out, mark);
}

static void placeholders_write(struct flue_pprof_writer *w)
{
    size_t mark;

    if (w->unknown_location) {
        mark = flue_out_open(&w->out, 4);
        flue_out_number(&w->out, 1, flue_pprof_rows_of(w, FLUE_OTLP_LOCATION));
        flue_pprof_placeholder_line(w, &w->out, 0, 0);
        w->unknown_function = true;
        flue_out_close(&w->out, mark);
    }
    if (w->unknown_function) {
        mark = flue_out_open(&w->out, 5);
        flue_out_number(&w->out, 1, flue_pprof_rows_of(w, FLUE_OTLP_FUNCTION));
        flue_out_number(&w->out, 2, flue_pprof_string_text(w, UNKNOWN_NAME));
        flue_out_close(&w->out, mark);
    }
}

static bool generation_begin(struct flue_pprof_writer *w)
{
    if (!w->out.block && !flue_out_init(&w->out, w->expected, w->work->budget))
        return false;
    w->time_at = 0;
    w->depth = 0;
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

    flue_out_number(out, 7, flue_pprof_string_plain(w, head->drop_frames));
    flue_out_number(out, 8, flue_pprof_string_plain(w, head->keep_frames));
    w->time_at = head->time_nanos && !out->failed ? flue_out_size(out) + 1 : 0;
    flue_out_number(out, 9, (uint64_t)head->time_nanos);
    flue_out_number(out, 10, (uint64_t)head->duration_nanos);
    if (head->period_type.type.size || head->period_type.unit.size)
        type_write(w, 11, head->period_type);
    flue_out_number(out, 12, (uint64_t)head->period);
    for (size_t i = 0; i < head->comment_count; i++) {
        uint8_t *at = flue_out_room(out, 16);
        uint32_t comment = flue_pprof_string_plain(w, head->comments[i]);

        if (at) { /* an empty comment is one as well */
            *at++ = 13 << 3;
            flue_out_end(out, flue_write_varint(at, comment));
        }
    }
    flue_out_number(out, 14, flue_pprof_string_plain(w, head->default_sample_type));
    flue_out_number(out, 15, flue_pprof_string_plain(w, head->doc_url));
}

struct flue_bytes flue_pprof_write(struct flue_pprof_writer *w, const struct flue_pprof_head *head,
                                   const struct flue_sample_list *const *lists, size_t first,
                                   size_t count)
{
    if (!generation_begin(w))
        return flue_bytes(NULL, 0);
    for (size_t i = 0; i < head->type_count; i++)
        type_write(w, 1, head->types[i]);
    for (size_t i = first; i < first + count && !w->out.failed; i++)
        sample_write(w, head, lists, i);
    locations_use(w);
    for (size_t i = 0; i < w->used_locations.count && !w->out.failed; i++)
        flue_pprof_location_write(w, w->used_locations.rows[i]);
    for (size_t i = 0; i < w->used_functions.count; i++)
        flue_pprof_function_write(w, w->used_functions.rows[i]);
    flue_pprof_mappings_write(w);
    placeholders_write(w);
    rest_write(w, head);
    flue_out_field(&w->out, 6, flue_bytes(NULL, 0));
    for (size_t i = 0; i < w->text_count; i++)
        flue_out_field(&w->out, 6, w->texts[i]);
    if (w->out.failed || w->label_bytes.failed)
        return flue_bytes(NULL, 0);
    return flue_block_bytes(w->out.block);
}

struct flue_block *flue_pprof_writer_take(struct flue_pprof_writer *w)
{
    struct flue_block *block = w->out.block;

    w->out.block = NULL;
    return block;
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
        .depth = w->depth,
        .time_nanos = head->time_nanos,
        .duration_nanos = head->duration_nanos,
    };
    for (size_t i = 0; i < head->type_count; i++)
        if (flue_bytes_find(head->types[i].type, '-') != SIZE_MAX)
            facts->dash_in_sample_type = true;
}
