/* label_sets.c: see label_sets.h. Span labels: the forms that clients send, producers' own names.
 */
#include "proto/convert/label_sets.h"

#include <math.h>
#include <stdlib.h>
#include "proto/pprof/names.h"

bool flue_label_sets_init(struct flue_label_sets *sets, struct flue_arena *arena,
                          const struct flue_otlp_dictionary *dictionary,
                          const struct flue_to_pprof_options *options)
{
    struct flue_label_set empty = {0};

    memset(sets, 0, sizeof *sets);
    sets->dictionary = dictionary;
    sets->options = options;
    sets->arena = arena;
    sets->attributes = flue_arena_zalloc(arena, (size_t)dictionary->counts[FLUE_OTLP_ATTRIBUTE] + 1,
                                         sizeof *sets->attributes);
    return sets->attributes && flue_table_init(&sets->table, arena, 16) &&
           FLUE_ARENA_PUSH(arena, sets->sets, sets->count, sets->room, empty);
}

static bool add(struct flue_label_sets *sets, struct flue_out_label label)
{
    return FLUE_ARENA_PUSH(sets->arena, sets->labels, sets->label_count, sets->label_room, label);
}

static bool add_text(struct flue_label_sets *sets, struct flue_out_label label,
                     const struct flue_value *value)
{
    label.is_text = true;
    label.text = flue_label_text(value, sets->arena);
    return label.text.data && add(sets, label);
}

/* The row of a string_value_strindex, so that the string is written once. */
static uint32_t string_row(struct flue_bytes any_value)
{
    struct flue_reader r = flue_reader(any_value);
    struct flue_field_value f;
    uint32_t row = 0;

    while (flue_read_field(&r, &f))
        row = f.number == 8 && f.type == FLUE_VARINT ? (uint32_t)f.varint : 0;
    return row;
}

static bool scalar_add(struct flue_label_sets *sets, struct flue_out_label label,
                       struct flue_bytes any_value)
{
    struct flue_value value;
    double whole;

    flue_otlp_value_read(any_value, sets->dictionary, &value);
    if (sets->options->numbers_as_text && value.type != FLUE_VALUE_STRING)
        return value.type == FLUE_VALUE_EMPTY || add_text(sets, label, &value);
    switch (value.type) {
    case FLUE_VALUE_EMPTY:
        return true;
    case FLUE_VALUE_STRING:
        label.is_text = true;
        label.text = value.text;
        label.text_row = string_row(any_value);
        return add(sets, label);
    case FLUE_VALUE_BOOL:
        label.number = value.boolean;
        return add(sets, label);
    case FLUE_VALUE_INT:
        label.number = value.integer;
        return add(sets, label);
    case FLUE_VALUE_DOUBLE:
        if (modf(value.number, &whole) == 0 && whole >= -9223372036854775808.0 &&
            whole < 9223372036854775808.0) {
            label.number = (int64_t)whole;
            return add(sets, label);
        }
        return add_text(sets, label, &value);
    case FLUE_VALUE_BYTES:
    case FLUE_VALUE_COMPLEX:
        return add_text(sets, label, &value);
    }
    return true;
}

static bool is_scalar(struct flue_bytes any_value)
{
    struct flue_value value;

    flue_otlp_value_read(any_value, NULL, &value);
    return value.type != FLUE_VALUE_COMPLEX;
}

/* The ArrayValue of an AnyValue, if it is one and holds scalars alone. */
static bool scalars_of(struct flue_bytes any_value, struct flue_bytes *array)
{
    struct flue_reader r = flue_reader(any_value);
    struct flue_field_value f;
    bool found = false;

    while (flue_read_field(&r, &f)) {
        found = f.number == 5 && f.type == FLUE_LEN;
        if (found)
            *array = f.bytes;
    }
    if (!found)
        return false;
    r = flue_reader(*array);
    while (flue_read_field(&r, &f))
        if (f.number == 1 && f.type == FLUE_LEN && !is_scalar(f.bytes))
            return false;
    return true;
}

static bool attribute_labels(struct flue_label_sets *sets,
                             const struct flue_otlp_attribute_row *row)
{
    struct flue_out_label label = {.key_row = row->key, .unit_row = row->unit};
    struct flue_bytes array = {NULL, 0};
    struct flue_field_value f;
    struct flue_reader r;

    if (!scalars_of(row->value, &array))
        return scalar_add(sets, label, row->value);
    r = flue_reader(array);
    while (flue_read_field(&r, &f))
        if (f.number == 1 && f.type == FLUE_LEN && !scalar_add(sets, label, f.bytes))
            return false;
    return true;
}

static bool kept(const struct flue_to_pprof_options *options, struct flue_bytes key)
{
    if (!options->drop_other_attributes)
        return true;
    for (size_t i = 0; i < options->keep_count; i++)
        if (flue_bytes_equal(options->keep_attributes[i], key))
            return true;
    return false;
}

static struct flue_label_attribute *attribute_of(struct flue_label_sets *sets, uint32_t row)
{
    struct flue_label_attribute *a = &sets->attributes[row];
    struct flue_otlp_attribute_row read;

    if (a->read)
        return a;
    flue_otlp_attribute_row_read(flue_otlp_row(sets->dictionary, FLUE_OTLP_ATTRIBUTE, row), &read);
    a->read = true;
    a->dropped = !kept(sets->options, flue_otlp_string(sets->dictionary, read.key));
    a->first = (uint32_t)sets->label_count;
    if (!a->dropped && !attribute_labels(sets, &read))
        return NULL;
    a->count = (uint32_t)sets->label_count - a->first;
    return a;
}

static bool all_zero(struct flue_bytes b)
{
    for (size_t i = 0; i < b.size; i++)
        if (b.data[i])
            return false;
    return true;
}

static bool tells_span(const struct flue_out_label *label, struct flue_bytes key, uint64_t span,
                       struct flue_bytes hex)
{
    uint64_t number = (uint64_t)label->number;

    if (flue_bytes_is(key, "span_id"))
        return true;
    if (flue_bytes_is(key, "profile_id"))
        return label->is_text && flue_bytes_equal_nocase(label->text, hex);
    if (!flue_bytes_is(key, "span id") && !flue_bytes_is(key, "local root span id"))
        return false;
    return (!label->is_text || flue_parse_u64(label->text, &number)) && number == span;
}

static bool link_read(struct flue_label_sets *sets, struct flue_label_set *set)
{
    struct flue_otlp_link link;
    uint64_t span = 0;
    bool tell_span, tell_trace;
    char *hex;

    flue_otlp_link_read(flue_otlp_row(sets->dictionary, FLUE_OTLP_LINK, set->link), &link);
    tell_span = link.span_id.size == 8 && !all_zero(link.span_id);
    tell_trace = link.trace_id.size == 16 && !all_zero(link.trace_id);
    if (!tell_span && !tell_trace)
        return true;
    hex = flue_arena_alloc(sets->arena, 48);
    if (!hex)
        return false;
    if (tell_span) {
        flue_hex(link.span_id, hex);
        for (unsigned i = 0; i < 8; i++)
            span = span << 8 | link.span_id.data[i];
    }
    if (tell_trace)
        flue_hex(link.trace_id, hex + 16);
    for (uint32_t i = set->first; i < set->first + set->count; i++) {
        const struct flue_label_attribute *a = &sets->attributes[sets->rows[i]];

        for (uint32_t j = a->first; j < a->first + a->count; j++) {
            struct flue_bytes key = flue_otlp_string(sets->dictionary, sets->labels[j].key_row);

            if (tell_span && tells_span(&sets->labels[j], key, span, flue_bytes(hex, 16)))
                tell_span = false;
            if (flue_bytes_is(key, "trace_id"))
                tell_trace = false;
        }
    }
    if (tell_span)
        set->span_id = flue_bytes(hex, 16);
    if (tell_trace)
        set->trace_id = flue_bytes(hex + 16, 32);
    return true;
}

struct wanted {
    const uint32_t *rows;
    size_t count;
    uint32_t link;
};

static bool same(const void *all, uint32_t row, const void *key)
{
    const struct flue_label_sets *sets = all;
    const struct flue_label_set *set = &sets->sets[row];
    const struct wanted *wanted = key;

    return set->count == wanted->count && set->link == wanted->link &&
           (wanted->count == 0 || memcmp(sets->rows + set->first, wanted->rows,
                                         wanted->count * sizeof *wanted->rows) == 0);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

uint32_t flue_label_sets_find(struct flue_label_sets *sets, uint32_t *rows, size_t count,
                              uint32_t link)
{
    struct flue_label_set set = {.first = (uint32_t)sets->row_count, .link = link};
    struct wanted wanted = {rows, 0, link};
    uint64_t hash;
    uint32_t found;

    if (sets->options->drop_other_attributes) {
        for (size_t i = 0; i < count; i++) {
            struct flue_label_attribute *a = attribute_of(sets, rows[i]);

            if (!a)
                return UINT32_MAX;
            if (!a->dropped)
                rows[wanted.count++] = rows[i];
        }
        /* The order says nothing, and equal sets must be found equal. */
        if (wanted.count > 1)
            qsort(rows, wanted.count, sizeof *rows, by_number);
    } else {
        wanted.count = count;
    }
    if (wanted.count == 0 && link == 0)
        return 0;
    hash = flue_hash_join(flue_hash(flue_bytes(rows, wanted.count * sizeof *rows)), link);
    found = flue_table_find(&sets->table, hash, same, sets, &wanted);
    if (found != FLUE_TABLE_NONE)
        return found;
    for (size_t i = 0; i < wanted.count; i++)
        if (!attribute_of(sets, rows[i]) ||
            !FLUE_ARENA_PUSH(sets->arena, sets->rows, sets->row_count, sets->row_room, rows[i]))
            return UINT32_MAX;
    set.count = (uint32_t)wanted.count;
    if (!link_read(sets, &set) || sets->count >= UINT32_MAX - 1 ||
        !FLUE_ARENA_PUSH(sets->arena, sets->sets, sets->count, sets->room, set) ||
        !flue_table_insert(&sets->table, hash, (uint32_t)sets->count - 1))
        return UINT32_MAX;
    return (uint32_t)sets->count - 1;
}
