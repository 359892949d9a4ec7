/* otlp.c: profiles in OTLP's form. The dictionary is walked once, for keys that name spans; only
 * where attributes tell possible ids, samples are walked, and those that have one get a row of the
 * link table. Rows are remembered by what they were made of, so a sample costs a look at its
 * attribute indices. A link that came with a sample is kept, whatever labels say.
 *
 * Fields: Sample 2 attribute_indices, 3 link_index; KeyValueAndUnit 1 key_strindex, 2 value.
 */
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "processors/span_links/ids.h"
#include "processors/span_links/span_links.h"
#include "proto/otlp/dictionary.h"
#include "proto/otlp/index.h"
#include "proto/wire/writer.h"

#define MOST_PARTS 12 /* span attributes of one sample that are looked at */

struct told {              /* what some attributes together say */
    uint32_t first, count; /* of parts: attribute rows */
    uint32_t link, drop;   /* drop: 1 << part: the link says it */
};
struct tellers { /* attributes that tell an id; `alone`: 1 + what is told by one by itself */
    struct id id;
    uint32_t alone;
};

struct linking {
    struct span_links *self;
    struct flue_payload *payload;
    struct flue_error *error;
    enum flue_code code;
    struct flue_arena arena;
    uint32_t *tells; /* by attribute row: 1 + its place in tellers; 0: it tells no id */
    uint32_t rows;
    struct tellers *tellers;
    size_t teller_count, teller_room;
    struct flue_table table;
    struct told *told;
    size_t told_count, told_room;
    uint32_t *parts;
    size_t part_count, part_room;
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

static void remember(struct span_links *self, struct flue_bytes span, struct flue_bytes trace)
{
    uint64_t number = span_number(span);
    if (number && seen_asked(self->seen))
        seen_add(self->seen, number, trace, seen_now(flue_monotonic_ns()));
}

/* Most payloads have no edits below resources: then a step is a few instructions here. */
static inline bool next(struct flue_otlp_fields *it, struct flue_field_value *field)
{
    return it->edits || it->resume ? flue_otlp_fields_next(it, field)
                                   : flue_read_field(&it->run, field);
}

/* ---- the dictionary ------------------------------------------------------------------------- */

struct key {
    uint32_t row;
    uint8_t form;
};
struct walked {
    struct key *keys; /* strings that name a form */
    size_t key_count, key_room;
    struct flue_bytes *attributes;
    size_t attribute_count, attribute_room;
    uint32_t strings;
};

/* Also remembers the spans of links that are there. */
static bool walk(struct linking *l, const struct flue_payload *payload, struct walked *w)
{
    struct flue_otlp_fields it =
        flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_DICTIONARY, 0});
    bool asked = seen_asked(l->self->seen);
    struct flue_field_value field;
    struct flue_otlp_link link;

    while (next(&it, &field)) {
        if (field.number == FLUE_OTLP_STRING) {
            struct key key = {w->strings++, (uint8_t)id_form_of(field.bytes)};
            if (key.form != ID_NONE &&
                !FLUE_ARENA_PUSH(&l->arena, w->keys, w->key_count, w->key_room, key))
                return no_memory(l);
        } else if (field.number == FLUE_OTLP_ATTRIBUTE) {
            if (!FLUE_ARENA_PUSH(&l->arena, w->attributes, w->attribute_count, w->attribute_room,
                                 field.bytes))
                return no_memory(l);
        } else if (field.number == FLUE_OTLP_LINK && asked) {
            flue_otlp_link_read(field.bytes, &link);
            remember(l->self, link.span_id, link.trace_id);
        }
    }
    return w->key_count && w->attribute_count;
}

static enum id_form form_of(struct flue_bytes attribute, const uint8_t *forms, uint32_t strings)
{
    struct flue_reader reader = flue_reader(attribute);
    struct flue_field_value field;
    enum id_form form = ID_NONE;

    while (flue_read_field(&reader, &field))
        if (field.number == 1)
            form = field.varint < strings ? forms[field.varint] : ID_NONE;
    return form;
}

/* `dictionary` is opened for the first value that is a row of the string table: a second walk,
 * which others are spared. */
static bool value_of(struct linking *l, const struct flue_payload *payload,
                     struct flue_bytes attribute, struct flue_otlp_dictionary *dictionary,
                     struct id_value *out)
{
    struct flue_otlp_attribute_row row;
    struct flue_field_value field;
    struct flue_reader reader;
    struct flue_value value;

    flue_otlp_attribute_row_read(attribute, &row);
    for (reader = flue_reader(row.value); flue_read_field(&reader, &field);)
        if (field.number == 8 && !dictionary->rows[FLUE_OTLP_STRING])
            l->code = flue_otlp_dictionary_open(payload, &l->arena, dictionary, l->error);
    flue_otlp_value_read(row.value, dictionary, &value);
    *out = (struct id_value){.is_text = value.type == FLUE_VALUE_STRING,
                             .text = value.text,
                             .number = value.type == FLUE_VALUE_INT ? value.integer : 0};
    return value.type == FLUE_VALUE_STRING || value.type == FLUE_VALUE_INT;
}

/* False: no attribute tells a possible id. Nothing of the payload is borrowed afterwards. */
static bool read_dictionary(struct linking *l, const struct flue_payload *payload)
{
    struct flue_otlp_dictionary dictionary = {.counts = {0}};
    struct walked w = {.strings = 0};
    uint8_t *forms;

    if (!walk(l, payload, &w))
        return false;
    forms = flue_arena_zalloc(&l->arena, w.strings, 1);
    l->tells = flue_arena_zalloc(&l->arena, w.attribute_count, sizeof *l->tells);
    if (!forms || !l->tells)
        return no_memory(l);
    l->rows = (uint32_t)w.attribute_count;
    for (size_t i = 0; i < w.key_count; i++)
        forms[w.keys[i].row] = w.keys[i].form;
    for (uint32_t i = 1; i < l->rows && !l->code; i++) {
        enum id_form form = form_of(w.attributes[i], forms, w.strings);
        struct tellers teller = {.alone = 0};
        struct id_value value;
        if (form == ID_NONE)
            continue;
        if (!value_of(l, payload, w.attributes[i], &dictionary, &value) ||
            !id_read(form, &value, &teller.id)) {
            flue_metric_add(l->self->impossible, 1);
            continue;
        }
        if (!FLUE_ARENA_PUSH(&l->arena, l->tellers, l->teller_count, l->teller_room, teller))
            return no_memory(l);
        l->tells[i] = (uint32_t)l->teller_count;
    }
    return l->teller_count != 0 && !l->code;
}

/* ---- what attributes say together ----------------------------------------------------------- */

struct wanted {
    const uint32_t *parts;
    uint32_t count;
};

static bool same(const void *linking, uint32_t row, const void *key)
{
    const struct linking *l = linking;
    const struct told *told = &l->told[row];
    const struct wanted *wanted = key;

    return told->count == wanted->count &&
           memcmp(l->parts + told->first, wanted->parts, told->count * sizeof *wanted->parts) == 0;
}

static struct tellers *teller_of(const struct linking *l, uint32_t attribute)
{
    return &l->tellers[l->tells[attribute] - 1];
}

static bool make_link(struct linking *l, struct told *told)
{
    const uint32_t *parts = l->parts + told->first;
    uint8_t row[64], *at = row;
    struct id_link link;
    struct ids ids = {0};

    for (uint32_t i = 0; i < told->count; i++)
        (void)ids_add(&ids, &teller_of(l, parts[i])->id);
    ids_link(&ids, &link);
    if (!link.has_span && !link.has_trace)
        return true;
    for (uint32_t i = 0; i < told->count && !l->self->config->keep_labels; i++) {
        const struct id *id = &teller_of(l, parts[i])->id;
        bool counts = ids.of[id->form].hi == id->hi && ids.of[id->form].lo == id->lo;
        if (link.told & 1u << id->form && counts)
            told->drop |= 1u << i;
    }
    at = flue_write_len_field(at, 1, flue_bytes(link.trace, 16));
    at = flue_write_len_field(at, 2, flue_bytes(link.span, 8));
    remember(l->self, flue_bytes(link.span, 8), flue_bytes(link.trace, link.has_trace ? 16 : 0));
    l->code = flue_otlp_dictionary_append(
        l->payload, FLUE_OTLP_LINK, flue_bytes(row, (size_t)(at - row)), &told->link, l->error);
    return l->code == FLUE_OK;
}

/* 1 + its place in `told`; 0: *l->code. */
static uint32_t told_new(struct linking *l, const struct wanted *wanted)
{
    struct told told = {.first = (uint32_t)l->part_count, .count = wanted->count};

    for (uint32_t i = 0; i < wanted->count; i++)
        if (!FLUE_ARENA_PUSH(&l->arena, l->parts, l->part_count, l->part_room, wanted->parts[i]))
            return no_memory(l);
    if (!make_link(l, &told))
        return 0;
    if (!FLUE_ARENA_PUSH(&l->arena, l->told, l->told_count, l->told_room, told))
        return no_memory(l);
    return (uint32_t)l->told_count;
}

static uint32_t told_by(struct linking *l, const uint32_t *parts, uint32_t count)
{
    struct wanted wanted = {parts, count};
    uint64_t hash = count;
    uint32_t row;

    if (count == 1) {
        struct tellers *teller = teller_of(l, parts[0]);
        if (!teller->alone)
            teller->alone = told_new(l, &wanted);
        return teller->alone;
    }
    if (l->told_count && same(l, (uint32_t)l->told_count - 1, &wanted))
        return (uint32_t)l->told_count;
    for (uint32_t i = 0; i < count; i++)
        hash = flue_hash_join(hash, parts[i]);
    row = flue_table_find(&l->table, hash, same, l, &wanted);
    if (row != FLUE_TABLE_NONE)
        return row + 1;
    row = told_new(l, &wanted);
    if (row && !flue_table_insert(&l->table, hash, row - 1))
        return no_memory(l);
    return row;
}

/* ---- samples -------------------------------------------------------------------------------- */

/* What the sample's attributes say of a span, 1 + its place in `told`; 0: nothing, or it has a
 * link, or *l->code. */
static uint32_t read_sample(struct linking *l, struct flue_bytes sample)
{
    struct flue_reader reader = flue_reader(sample), run;
    struct flue_field_value field;
    uint32_t parts[MOST_PARTS], count = 0, told;
    uint64_t index;

    while (flue_read_field(&reader, &field)) {
        if (field.number == 3 && field.varint)
            return 0;
        if (field.number != 2)
            continue;
        if (field.type == FLUE_VARINT && field.varint < l->rows && l->tells[field.varint] &&
            count < MOST_PARTS)
            parts[count++] = (uint32_t)field.varint;
        for (run = flue_reader(field.bytes); flue_read_varint(&run, &index);)
            if (index < l->rows && l->tells[index] && count < MOST_PARTS)
                parts[count++] = (uint32_t)index;
    }
    told = count ? told_by(l, parts, count) : 0;
    return told && l->told[told - 1].link ? told : 0;
}

static bool dropped(const struct linking *l, const struct told *told, uint64_t attribute)
{
    for (uint32_t i = 0; i < told->count; i++)
        if (l->parts[told->first + i] == attribute)
            return told->drop >> i & 1;
    return false;
}

static uint8_t *write_indices(const struct linking *l, uint8_t *at,
                              const struct flue_field_value *field, const struct told *told)
{
    struct flue_reader run = flue_reader(field->bytes);
    size_t size = 0;
    uint64_t index;

    if (field->type == FLUE_VARINT) {
        if (dropped(l, told, field->varint))
            return at;
        *at++ = (uint8_t)flue_tag(2, FLUE_VARINT);
        return flue_write_varint(at, field->varint);
    }
    while (flue_read_varint(&run, &index))
        size += dropped(l, told, index) ? 0 : flue_varint_size(index);
    if (!size)
        return at;
    at = flue_write_len_head(at, 2, size);
    for (run = flue_reader(field->bytes); flue_read_varint(&run, &index);)
        if (!dropped(l, told, index))
            at = flue_write_varint(at, index);
    return at;
}

#define GROWTH 24 /* of a sample: a longer head, the link */

/* The sample with its link, and without what the link says. */
static uint8_t *write_sample(const struct linking *l, uint8_t *at, struct flue_bytes sample,
                             const struct told *told)
{
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;
    uint8_t *content = at + 2, *end = content; /* the head of nearly all has two bytes */
    size_t size, more;

    while (flue_read_field(&reader, &field)) {
        if (field.number == 2) {
            end = write_indices(l, end, &field, told);
        } else if (field.number != 3) {
            memcpy(end, field.tag_at, (size_t)(reader.at - field.tag_at));
            end += reader.at - field.tag_at;
        }
    }
    *end++ = (uint8_t)flue_tag(3, FLUE_VARINT);
    end = flue_write_varint(end, told->link);
    size = (size_t)(end - content);
    more = flue_varint_size(size) - 1;
    if (more)
        memmove(content + more, content, size);
    (void)flue_write_len_head(at, 2, size);
    return end + more;
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

static struct flue_otlp_fields fields_of(const struct linking *l, uint32_t profile)
{
    return flue_otlp_fields(l->payload, (struct flue_otlp_place){FLUE_OTLP_IN_PROFILE, profile});
}

static bool one_profile(void *arg, const struct flue_otlp_profile *profile)
{
    struct linking *l = arg;
    struct flue_otlp_fields it = fields_of(l, profile->profile);
    uint32_t *says = flue_arena_alloc(&l->arena, ((size_t)profile->samples + 1) * sizeof *says);
    struct flue_field_value field;
    size_t size = 0;
    uint32_t i = 0;
    bool any = false;
    uint8_t *at;

    if (!says)
        return no_memory(l);
    while (next(&it, &field) && !l->code) { /* without writing: most profiles have none */
        if (field.number != 2)
            continue;
        any |= (says[i++] = read_sample(l, field.bytes)) != 0;
        size += (size_t)(it.run.at - field.tag_at) + GROWTH;
    }
    if (!any || l->code)
        return l->code == FLUE_OK;
    if (!room_for(l, size))
        return false;
    at = l->out;
    i = 0;
    for (it = fields_of(l, profile->profile); next(&it, &field);) {
        size_t whole = (size_t)(it.run.at - field.tag_at);
        if (field.number != 2)
            continue;
        if (says[i]) {
            at = write_sample(l, at, field.bytes, &l->told[says[i] - 1]);
            l->linked++;
        } else {
            memcpy(at, field.tag_at, whole);
            at += whole;
        }
        i++;
    }
    l->code = flue_otlp_samples_set(l->payload, profile->profile,
                                    flue_bytes(l->out, (size_t)(at - l->out)), l->error);
    return l->code == FLUE_OK;
}

enum flue_code span_links_otlp(struct span_links *self, struct flue_batch **batch,
                               struct flue_error *error)
{
    struct linking l = {.self = self, .error = error};
    size_t budget = (*batch)->payload->ops->encoded_size((*batch)->payload) * FLUE_OTLP_WORK_FACTOR;

    flue_arena_init(&l.arena, budget < FLUE_OTLP_WORK_FLOOR ? FLUE_OTLP_WORK_FLOOR : budget, 0);
    if (read_dictionary(&l, (*batch)->payload)) {
        *batch = flue_batch_writable(*batch, error);
        if (!*batch) {
            l.code = error->code;
        } else {
            l.payload = (*batch)->payload;
            if (flue_table_init(&l.table, &l.arena, 64))
                (void)flue_otlp_each_profile(l.payload, one_profile, &l);
            else
                (void)no_memory(&l);
        }
    }
    if (l.linked)
        flue_metric_add(self->linked, (int64_t)l.linked);
    free(l.out);
    flue_arena_destroy(&l.arena);
    return l.code;
}
