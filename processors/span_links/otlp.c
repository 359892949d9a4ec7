/* otlp.c: profiles in OTLP's form. The dictionary is walked once for keys that name spans; only
 * where there are some, its attributes are read and samples walked, and those that have one get
 * a row of the link table. Rows are remembered by what they were made of, so a sample costs a look
 * at its attribute indices. A link that came with a sample is kept, whatever labels say.
 *
 * Fields: Sample 2 attribute_indices, 3 link_index; KeyValueAndUnit 1 key_strindex, 2 value.
 */
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "processors/span_links/ids.h"
#include "processors/span_links/span_links.h"
#include "proto/otlp/index.h"
#include "proto/wire/writer.h"

#define MOST_PARTS 12 /* span attributes of one sample that are looked at */

static void remember(struct span_links *self, struct flue_bytes span, struct flue_bytes trace)
{
    uint64_t number = span_number(span);
    if (number && seen_asked(self->seen))
        seen_add(self->seen, number, trace, seen_now(flue_monotonic_ns()));
}

bool span_links_otlp_concerns(struct span_links *self, const struct flue_payload *payload)
{
    struct flue_otlp_fields it =
        flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_DICTIONARY, 0});
    bool asked = seen_asked(self->seen), concerns = false;
    struct flue_field_value field;
    struct flue_otlp_link link;

    while (flue_otlp_fields_next(&it, &field)) {
        if (field.number == FLUE_OTLP_STRING) {
            concerns |= id_form_of(field.bytes) != ID_NONE;
        } else if (field.number == FLUE_OTLP_LINK && asked) {
            flue_otlp_link_read(field.bytes, &link);
            remember(self, link.span_id, link.trace_id);
        }
    }
    return concerns;
}

struct told { /* what some attributes together say */
    uint32_t parts[MOST_PARTS];
    uint32_t count, link, drop; /* drop: 1 << part: the link says it */
};

struct linking {
    struct span_links *self;
    struct flue_payload *payload;
    struct flue_error *error;
    enum flue_code code;
    struct flue_arena arena;
    struct flue_otlp_dictionary dictionary;
    uint8_t *forms; /* by attribute row */
    struct flue_table table;
    struct told *told;
    size_t told_count, told_room;
    uint8_t *out; /* samples of one profile, rewritten */
    size_t out_room;
    uint64_t linked;
};

static bool no_memory(struct linking *l)
{
    if (!l->code)
        l->code = flue_fail(l->error, FLUE_NO_MEMORY, "no memory to link samples to spans");
    return false;
}

static bool value_of(const struct linking *l, uint32_t row, struct id_value *out)
{
    struct flue_otlp_attribute_row attribute;
    struct flue_value value;

    flue_otlp_attribute_row_read(l->dictionary.rows[FLUE_OTLP_ATTRIBUTE][row], &attribute);
    flue_otlp_value_read(attribute.value, &l->dictionary, &value);
    *out = (struct id_value){.is_text = value.type == FLUE_VALUE_STRING,
                             .text = value.text,
                             .number = value.type == FLUE_VALUE_INT ? value.integer : 0};
    return value.type == FLUE_VALUE_STRING || value.type == FLUE_VALUE_INT;
}

/* False: no attribute is of a span. Ids in impossible forms are not looked at again. */
static bool read_forms(struct linking *l)
{
    uint32_t strings = l->dictionary.counts[FLUE_OTLP_STRING];
    uint32_t rows = l->dictionary.counts[FLUE_OTLP_ATTRIBUTE];
    uint8_t *keys = flue_arena_zalloc(&l->arena, strings + 1, 1);
    bool any = false;

    l->forms = flue_arena_zalloc(&l->arena, rows + 1, 1);
    if (!keys || !l->forms)
        return no_memory(l);
    for (uint32_t i = 0; i < strings; i++)
        keys[i] = (uint8_t)id_form_of(l->dictionary.rows[FLUE_OTLP_STRING][i]);
    for (uint32_t i = 1; i < rows; i++) {
        struct flue_reader reader = flue_reader(l->dictionary.rows[FLUE_OTLP_ATTRIBUTE][i]);
        struct flue_field_value field;
        struct id_value value;
        struct ids ids = {0};
        enum id_form form = ID_NONE;
        while (flue_read_field(&reader, &field))
            if (field.number == 1 && field.varint < strings)
                form = keys[field.varint];
        if (form == ID_NONE)
            continue;
        if (!value_of(l, i, &value) || !ids_add(&ids, form, &value)) {
            flue_metric_add(l->self->impossible, 1);
            continue;
        }
        l->forms[i] = (uint8_t)form;
        any = true;
    }
    return any;
}

static bool same(const void *rows, uint32_t row, const void *key)
{
    const struct told *a = (const struct told *)rows + row, *b = key;
    return a->count == b->count && memcmp(a->parts, b->parts, a->count * sizeof a->parts[0]) == 0;
}

static bool make_link(struct linking *l, struct told *told)
{
    uint8_t row[64], *at = row;
    struct id_value value;
    struct id_link link;
    struct ids ids = {0};

    for (uint32_t i = 0; i < told->count; i++)
        if (value_of(l, told->parts[i], &value))
            (void)ids_add(&ids, l->forms[told->parts[i]], &value);
    ids_link(&ids, &link);
    if (!link.has_span && !link.has_trace)
        return true;
    for (uint32_t i = 0; i < told->count && !l->self->config->keep_labels; i++)
        if (link.told & 1u << l->forms[told->parts[i]])
            told->drop |= 1u << i;
    at = flue_write_len_field(at, 1, flue_bytes(link.trace, 16));
    at = flue_write_len_field(at, 2, flue_bytes(link.span, 8));
    remember(l->self, flue_bytes(link.span, 8), flue_bytes(link.trace, link.has_trace ? 16 : 0));
    l->code = flue_otlp_dictionary_append(
        l->payload, FLUE_OTLP_LINK, flue_bytes(row, (size_t)(at - row)), &told->link, l->error);
    return l->code == FLUE_OK;
}

static const struct told *told_by(struct linking *l, const uint32_t *parts, uint32_t count)
{
    struct told told = {.count = count};
    uint64_t hash = count;

    for (uint32_t i = 0; i < count; i++) {
        told.parts[i] = parts[i];
        hash = flue_hash_join(hash, parts[i]);
    }
    uint32_t row = flue_table_find(&l->table, hash, same, l->told, &told);
    if (row != FLUE_TABLE_NONE)
        return &l->told[row];
    if (!make_link(l, &told))
        return NULL;
    if (!FLUE_ARENA_PUSH(&l->arena, l->told, l->told_count, l->told_room, told) ||
        !flue_table_insert(&l->table, hash, (uint32_t)l->told_count - 1)) {
        (void)no_memory(l);
        return NULL;
    }
    return &l->told[l->told_count - 1];
}

static bool dropped(const struct told *told, uint64_t attribute)
{
    for (uint32_t i = 0; i < told->count; i++)
        if (told->parts[i] == attribute)
            return told->drop >> i & 1;
    return false;
}

/* The sample with its link, and without what the link says. `at` has room for it. */
static uint8_t *write_sample(uint8_t *at, struct flue_bytes sample, const struct told *told)
{
    struct flue_otlp_sample fields;
    struct flue_otlp_numbers numbers;
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;
    size_t packed = 0, size = 1 + flue_varint_size(told->link);
    uint64_t index;

    flue_otlp_sample_read(sample, &fields);
    for (numbers = fields.attribute_indices; flue_otlp_numbers_next(&numbers, &index);)
        packed += dropped(told, index) ? 0 : flue_varint_size(index);
    size += packed ? flue_len_field_size(2, packed) : 0;
    while (flue_read_field(&reader, &field))
        if (field.number != 2 && field.number != 3)
            size += (size_t)(reader.at - field.tag_at);
    at = flue_write_len_head(at, 2, size);
    for (reader = flue_reader(sample); flue_read_field(&reader, &field);) {
        if (field.number == 2 || field.number == 3)
            continue;
        memcpy(at, field.tag_at, (size_t)(reader.at - field.tag_at));
        at += reader.at - field.tag_at;
    }
    if (packed) {
        at = flue_write_len_head(at, 2, packed);
        for (numbers = fields.attribute_indices; flue_otlp_numbers_next(&numbers, &index);)
            if (!dropped(told, index))
                at = flue_write_varint(at, index);
    }
    *at++ = (uint8_t)flue_tag(3, FLUE_VARINT);
    return flue_write_varint(at, told->link);
}

/* What the sample's attributes say of a span; NULL: nothing, or it has a link, or *l->code. */
static const struct told *read_sample(struct linking *l, struct flue_bytes sample)
{
    struct flue_reader reader = flue_reader(sample), run;
    struct flue_field_value field;
    uint32_t parts[MOST_PARTS], count = 0;
    uint32_t rows = l->dictionary.counts[FLUE_OTLP_ATTRIBUTE];
    uint64_t index;

    while (flue_read_field(&reader, &field)) {
        if (field.number == 3 && field.varint)
            return NULL;
        if (field.number != 2)
            continue;
        if (field.type == FLUE_VARINT && field.varint < rows && l->forms[field.varint] &&
            count < MOST_PARTS)
            parts[count++] = (uint32_t)field.varint;
        for (run = flue_reader(field.bytes); flue_read_varint(&run, &index);)
            if (index < rows && l->forms[index] && count < MOST_PARTS)
                parts[count++] = (uint32_t)index;
    }
    const struct told *told = count ? told_by(l, parts, count) : NULL;
    return told && told->link ? told : NULL;
}

static bool room_for(struct linking *l, size_t size)
{
    if (size <= l->out_room)
        return true;
    free(l->out);
    l->out_room = 0;
    l->out = malloc(size);
    if (!l->out)
        return no_memory(l);
    l->out_room = size;
    return true;
}

static bool one_profile(void *arg, const struct flue_otlp_profile *profile)
{
    struct linking *l = arg;
    struct flue_otlp_samples it = flue_otlp_samples(l->payload, profile->profile);
    struct flue_bytes sample;
    size_t size = 0;
    bool any = false;
    uint8_t *at;

    /* First without writing: most profiles have none. A told row stays where it is made. */
    while (flue_otlp_samples_next(&it, &sample)) {
        any |= read_sample(l, sample) != NULL;
        size += sample.size + 32; /* head, link, the list packed anew */
        if (l->code)
            return false;
    }
    if (!any)
        return true;
    if (!room_for(l, size))
        return false;
    at = l->out;
    for (it = flue_otlp_samples(l->payload, profile->profile);
         flue_otlp_samples_next(&it, &sample);) {
        const struct told *told = read_sample(l, sample);
        at = told ? write_sample(at, sample, told) : flue_write_len_field(at, 2, sample);
        l->linked += told != NULL;
    }
    l->code = flue_otlp_samples_set(l->payload, profile->profile,
                                    flue_bytes(l->out, (size_t)(at - l->out)), l->error);
    return l->code == FLUE_OK;
}

enum flue_code span_links_otlp(struct span_links *self, struct flue_payload *payload,
                               struct flue_error *error)
{
    struct linking l = {.self = self, .payload = payload, .error = error};
    size_t budget = payload->ops->encoded_size(payload) * 8;

    flue_arena_init(&l.arena, budget < (4u << 20) ? 4u << 20 : budget, 0);
    l.code = flue_otlp_dictionary_open(payload, &l.arena, &l.dictionary, error);
    if (!l.code && read_forms(&l) && !l.code) {
        if (flue_table_init(&l.table, &l.arena, 64))
            (void)flue_otlp_each_profile(payload, one_profile, &l);
        else
            (void)no_memory(&l);
    }
    if (l.linked)
        flue_metric_add(self->linked, (int64_t)l.linked);
    free(l.out);
    flue_arena_destroy(&l.arena);
    return l.code;
}
