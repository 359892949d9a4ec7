/* encode.c: rows to pprof's bytes, with no row that nothing refers to. See document.h.
 *
 * Marks what the chosen samples need, numbers it in the document's order, measures, writes. */
#include "proto/pprof/document.h"
#include "proto/pprof/pprof.h"
#include "proto/wire/writer.h"

struct encoding {
    const struct flue_pprof_document *doc;
    uint32_t first, end;
    /* new number of every old row; locations, functions and mappings from 1 (their ids), 0: left
     * out */
    uint32_t *strings, *locations, *functions, *mappings;
};

static void mark_type(struct encoding *e, struct flue_pprof_value_type type)
{
    e->strings[type.type] = e->strings[type.unit] = 1;
}

static void mark_locations(struct encoding *e)
{
    const struct flue_pprof_document *doc = e->doc;
    for (uint32_t i = 0; i < doc->location_count; i++) {
        const struct flue_pprof_location *location = &doc->locations[i];
        if (!e->locations[i])
            continue;
        if (location->mapping != FLUE_PPROF_NONE)
            e->mappings[location->mapping] = 1;
        for (uint32_t j = 0; j < location->line_count; j++)
            e->functions[doc->lines[location->first_line + j].function] = 1;
    }
    /* The first mapping is the program itself, by convention, also where no sample is in it. */
    if (doc->mapping_count > 0)
        e->mappings[0] = 1;
    for (uint32_t i = 0; i < doc->mapping_count; i++)
        if (e->mappings[i])
            e->strings[doc->mappings[i].filename] = e->strings[doc->mappings[i].build_id] = 1;
    for (uint32_t i = 0; i < doc->function_count; i++) {
        const struct flue_pprof_function *function = &doc->functions[i];
        if (e->functions[i])
            e->strings[function->name] = e->strings[function->system_name] =
                e->strings[function->filename] = 1;
    }
}

static void number(uint32_t *marks, uint32_t count, uint32_t from)
{
    for (uint32_t i = 0; i < count; i++)
        if (marks[i])
            marks[i] = from++;
}

static void mark(struct encoding *e)
{
    const struct flue_pprof_document *doc = e->doc;
    for (uint32_t i = e->first; i < e->end; i++) {
        const struct flue_pprof_sample *sample = &doc->samples[i];
        for (uint32_t j = 0; j < sample->location_count; j++)
            e->locations[doc->stack[sample->first_location + j]] = 1;
        for (uint32_t j = 0; j < sample->label_count; j++) {
            const struct flue_pprof_sample_label *label = &doc->labels[sample->first_label + j];
            e->strings[label->key] = e->strings[label->str] = e->strings[label->num_unit] = 1;
        }
    }
    mark_locations(e);
    for (uint32_t i = 0; i < doc->type_count; i++)
        mark_type(e, doc->types[i]);
    if (doc->has_period_type)
        mark_type(e, doc->period_type);
    for (uint32_t i = 0; i < doc->comment_count; i++)
        e->strings[doc->comments[i]] = 1;
    e->strings[doc->drop_frames] = e->strings[doc->keep_frames] = 1;
    e->strings[doc->default_sample_type] = e->strings[doc->doc_url] = 1;
    e->strings[0] = 1;
    number(e->strings + 1, doc->string_count - 1, 1);
    e->strings[0] = 0;
    number(e->locations, doc->location_count, 1);
    number(e->functions, doc->function_count, 1);
    number(e->mappings, doc->mapping_count, 1);
}

/* The same walk measures (`at` NULL: only sizes are added) and writes, so the two cannot differ. */
struct sink {
    uint8_t *at;
    size_t size;
};

static void put_varint(struct sink *s, uint64_t value)
{
    if (s->at)
        s->at = flue_write_varint(s->at, value);
    s->size += flue_varint_size(value);
}

static void put_int(struct sink *s, uint32_t field, uint64_t value)
{
    if (value == 0)
        return;
    put_varint(s, flue_tag(field, FLUE_VARINT));
    put_varint(s, value);
}

static void put_head(struct sink *s, uint32_t field, size_t size)
{
    put_varint(s, flue_tag(field, FLUE_LEN));
    put_varint(s, size);
}

static size_t int_size(uint64_t value)
{
    return value ? 1 + flue_varint_size(value) : 0; /* field numbers below 16 */
}

static void put_type(struct sink *s, const struct encoding *e, uint32_t field,
                     struct flue_pprof_value_type type)
{
    uint32_t t = e->strings[type.type], u = e->strings[type.unit];
    put_head(s, field, int_size(t) + int_size(u));
    put_int(s, 1, t);
    put_int(s, 2, u);
}

static size_t label_size(const struct encoding *e, const struct flue_pprof_sample_label *label)
{
    return int_size(e->strings[label->key]) + int_size(e->strings[label->str]) +
           int_size((uint64_t)label->num) + int_size(e->strings[label->num_unit]);
}

static void put_sample(struct sink *s, const struct encoding *e, uint32_t row)
{
    const struct flue_pprof_document *doc = e->doc;
    const struct flue_pprof_sample *sample = &doc->samples[row];
    const int64_t *values = doc->values + (size_t)row * doc->type_count;
    size_t stack = 0, numbers = 0, labels = 0;
    for (uint32_t i = 0; i < sample->location_count; i++)
        stack += flue_varint_size(e->locations[doc->stack[sample->first_location + i]]);
    for (uint32_t i = 0; i < doc->type_count; i++)
        numbers += flue_varint_size((uint64_t)values[i]);
    for (uint32_t i = 0; i < sample->label_count; i++)
        labels += flue_len_field_size(3, label_size(e, &doc->labels[sample->first_label + i]));
    put_head(s, 2,
             (stack ? flue_len_field_size(1, stack) : 0) +
                 (numbers ? flue_len_field_size(2, numbers) : 0) + labels);
    if (stack) {
        put_head(s, 1, stack);
        for (uint32_t i = 0; i < sample->location_count; i++)
            put_varint(s, e->locations[doc->stack[sample->first_location + i]]);
    }
    if (numbers) {
        put_head(s, 2, numbers);
        for (uint32_t i = 0; i < doc->type_count; i++)
            put_varint(s, (uint64_t)values[i]);
    }
    for (uint32_t i = 0; i < sample->label_count; i++) {
        const struct flue_pprof_sample_label *label = &doc->labels[sample->first_label + i];
        put_head(s, 3, label_size(e, label));
        put_int(s, 1, e->strings[label->key]);
        put_int(s, 2, e->strings[label->str]);
        put_int(s, 3, (uint64_t)label->num);
        put_int(s, 4, e->strings[label->num_unit]);
    }
}

static void put_mapping(struct sink *s, const struct encoding *e, uint32_t row)
{
    const struct flue_pprof_mapping *m = &e->doc->mappings[row];
    const uint64_t parts[10] = {e->mappings[row],
                                m->start,
                                m->limit,
                                m->offset,
                                e->strings[m->filename],
                                e->strings[m->build_id],
                                m->has_functions,
                                m->has_filenames,
                                m->has_line_numbers,
                                m->has_inline_frames};
    size_t size = 0;
    for (int i = 0; i < 10; i++)
        size += int_size(parts[i]);
    put_head(s, 3, size);
    for (uint32_t i = 0; i < 10; i++)
        put_int(s, i + 1, parts[i]);
}

static size_t line_size(const struct encoding *e, const struct flue_pprof_line *line)
{
    return int_size(e->functions[line->function]) + int_size((uint64_t)line->line) +
           int_size((uint64_t)line->column);
}

static void put_location(struct sink *s, const struct encoding *e, uint32_t row)
{
    const struct flue_pprof_location *l = &e->doc->locations[row];
    const struct flue_pprof_line *lines = l->line_count ? &e->doc->lines[l->first_line] : NULL;
    uint64_t mapping = l->mapping == FLUE_PPROF_NONE ? 0 : e->mappings[l->mapping];
    size_t size = int_size(e->locations[row]) + int_size(mapping) + int_size(l->address) +
                  int_size(l->folded);
    for (uint32_t i = 0; i < l->line_count; i++)
        size += flue_len_field_size(4, line_size(e, &lines[i]));
    put_head(s, 4, size);
    put_int(s, 1, e->locations[row]);
    put_int(s, 2, mapping);
    put_int(s, 3, l->address);
    for (uint32_t i = 0; i < l->line_count; i++) {
        put_head(s, 4, line_size(e, &lines[i]));
        put_int(s, 1, e->functions[lines[i].function]);
        put_int(s, 2, (uint64_t)lines[i].line);
        put_int(s, 3, (uint64_t)lines[i].column);
    }
    put_int(s, 5, l->folded);
}

static void put_function(struct sink *s, const struct encoding *e, uint32_t row)
{
    const struct flue_pprof_function *f = &e->doc->functions[row];
    const uint64_t parts[5] = {e->functions[row], e->strings[f->name], e->strings[f->system_name],
                               e->strings[f->filename], (uint64_t)f->start_line};
    size_t size = 0;
    for (int i = 0; i < 5; i++)
        size += int_size(parts[i]);
    put_head(s, 5, size);
    for (uint32_t i = 0; i < 5; i++)
        put_int(s, i + 1, parts[i]);
}

static void put_all(struct sink *s, const struct encoding *e)
{
    const struct flue_pprof_document *doc = e->doc;
    size_t comments = 0;
    for (uint32_t i = 0; i < doc->type_count; i++)
        put_type(s, e, 1, doc->types[i]);
    for (uint32_t i = e->first; i < e->end; i++)
        put_sample(s, e, i);
    for (uint32_t i = 0; i < doc->mapping_count; i++)
        if (e->mappings[i])
            put_mapping(s, e, i);
    for (uint32_t i = 0; i < doc->location_count; i++)
        if (e->locations[i])
            put_location(s, e, i);
    for (uint32_t i = 0; i < doc->function_count; i++)
        if (e->functions[i])
            put_function(s, e, i);
    for (uint32_t i = 0; i < doc->string_count; i++) {
        if (i > 0 && !e->strings[i])
            continue;
        struct flue_bytes text = doc->strings[i];
        put_head(s, 6, text.size);
        if (s->at && text.size)
            s->at = (uint8_t *)memcpy(s->at, text.data, text.size) + text.size;
        s->size += text.size;
    }
    put_int(s, 7, e->strings[doc->drop_frames]);
    put_int(s, 8, e->strings[doc->keep_frames]);
    put_int(s, 9, (uint64_t)doc->time_nanos);
    put_int(s, 10, (uint64_t)doc->duration_nanos);
    if (doc->has_period_type)
        put_type(s, e, 11, doc->period_type);
    put_int(s, 12, (uint64_t)doc->period);
    for (uint32_t i = 0; i < doc->comment_count; i++)
        comments += flue_varint_size(e->strings[doc->comments[i]]);
    if (comments) {
        put_head(s, 13, comments);
        for (uint32_t i = 0; i < doc->comment_count; i++)
            put_varint(s, e->strings[doc->comments[i]]);
    }
    put_int(s, 14, e->strings[doc->default_sample_type]);
    put_int(s, 15, e->strings[doc->doc_url]);
}

enum flue_code flue_pprof_encode(const struct flue_pprof_document *document, uint32_t first,
                                 uint32_t count, struct flue_arena *scratch,
                                 struct flue_account *account, struct flue_block **out,
                                 struct flue_error *error)
{
    struct encoding e = {.doc = document, .first = first, .end = first + count};
    struct sink measure = {0}, writing;
    if (document->string_count == 0)
        return flue_fail(error, FLUE_INVALID, "profile without string table");
    e.strings = flue_arena_zalloc(scratch, document->string_count, sizeof *e.strings);
    e.locations = flue_arena_zalloc(scratch, document->location_count + 1u, sizeof *e.locations);
    e.functions = flue_arena_zalloc(scratch, document->function_count + 1u, sizeof *e.functions);
    e.mappings = flue_arena_zalloc(scratch, document->mapping_count + 1u, sizeof *e.mappings);
    if (!e.strings || !e.locations || !e.functions || !e.mappings)
        return flue_fail(error, FLUE_NO_MEMORY, "no room to renumber a profile's rows");
    mark(&e);
    put_all(&measure, &e);
    struct flue_block *block = flue_block_new(account, measure.size);
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a profile of %zu bytes",
                         measure.size);
    writing = (struct sink){.at = block->data};
    put_all(&writing, &e);
    block->size = writing.size;
    if (!flue_block_charge(block)) {
        flue_block_unref(block);
        return flue_fail(error, FLUE_OVERLOADED, "no memory left for a profile of %zu bytes",
                         measure.size);
    }
    flue_block_finish(block);
    *out = block;
    return FLUE_OK;
}
