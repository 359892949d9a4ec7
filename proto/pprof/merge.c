/* merge.c: see merge.h. Rows of all profiles are interned by hash into one document, bottom up:
 * strings, mappings, functions, locations, samples; the writer renumbers and leaves out what is not
 * used. */
#include "proto/pprof/merge.h"

#include <stdlib.h>

#include "collector/base/hash.h"
#include "proto/pprof/document.h"

#define BUDGET_FLOOR  ((size_t)4 << 20)
#define BUDGET_FACTOR 24 /* rows of the source, tables and rows of the result */

/* A growable table whose rows are found by content. */
struct interned {
    struct flue_table table;
    size_t count, room;
};

struct merging {
    struct flue_arena *arena;
    struct flue_error *error;
    struct flue_pprof_document doc;
    struct interned strings, mappings, functions, locations, samples;
    size_t lines, line_room, stack, stack_room, labels, label_room, values, value_room;
    size_t comments, comment_room;
    /* the profile that is being added, and its rows in doc */
    const struct flue_pprof_document *from;
    uint32_t *string_rows, *mapping_rows, *function_rows, *location_rows;
};

static enum flue_code used_up(struct merging *m)
{
    if (!m->arena->full)
        return flue_fail(m->error, FLUE_NO_MEMORY, "no memory to merge profiles");
    return flue_fail(m->error, FLUE_TOO_LARGE,
                     "merging profiles needs more than the %zu bytes that it may use",
                     m->arena->budget);
}

/* ---- strings -------------------------------------------------------------------------------- */

static bool string_equal(const void *rows, uint32_t row, const void *key)
{
    return flue_bytes_equal(((const struct merging *)rows)->doc.strings[row],
                            *(const struct flue_bytes *)key);
}

static uint32_t string_of(struct merging *m, struct flue_bytes text)
{
    uint64_t hash = flue_hash(text);
    uint32_t row = flue_table_find(&m->strings.table, hash, string_equal, m, &text);
    if (row != FLUE_TABLE_NONE)
        return row;
    row = (uint32_t)m->strings.count;
    if (!FLUE_ARENA_PUSH(m->arena, m->doc.strings, m->strings.count, m->strings.room, text) ||
        !flue_table_insert(&m->strings.table, hash, row))
        return FLUE_TABLE_NONE;
    return row;
}

/* ---- mappings ------------------------------------------------------------------------------- */

static uint64_t pages(const struct flue_pprof_mapping *mapping)
{
    uint64_t size = mapping->limit - mapping->start;
    return (size + 4095) & ~(uint64_t)4095;
}

static uint32_t file_of(const struct flue_pprof_mapping *mapping)
{
    return mapping->build_id ? mapping->build_id : mapping->filename;
}

static bool mapping_equal(const void *rows, uint32_t row, const void *key)
{
    const struct flue_pprof_mapping *a = &((const struct merging *)rows)->doc.mappings[row];
    const struct flue_pprof_mapping *b = key;
    return pages(a) == pages(b) && a->offset == b->offset && file_of(a) == file_of(b);
}

static uint32_t mapping_of(struct merging *m, const struct flue_pprof_mapping *from)
{
    struct flue_pprof_mapping mapping = *from;
    mapping.filename = m->string_rows[from->filename];
    mapping.build_id = m->string_rows[from->build_id];
    uint64_t hash = flue_hash_join(flue_hash_join(flue_hash_u64(pages(&mapping)), mapping.offset),
                                   file_of(&mapping));
    uint32_t row = flue_table_find(&m->mappings.table, hash, mapping_equal, m, &mapping);
    if (row != FLUE_TABLE_NONE) {
        struct flue_pprof_mapping *kept = &m->doc.mappings[row];
        kept->has_functions |= mapping.has_functions;
        kept->has_filenames |= mapping.has_filenames;
        kept->has_line_numbers |= mapping.has_line_numbers;
        kept->has_inline_frames |= mapping.has_inline_frames;
        return row;
    }
    row = (uint32_t)m->mappings.count;
    if (!FLUE_ARENA_PUSH(m->arena, m->doc.mappings, m->mappings.count, m->mappings.room, mapping) ||
        !flue_table_insert(&m->mappings.table, hash, row))
        return FLUE_TABLE_NONE;
    return row;
}

/* ---- functions ------------------------------------------------------------------------------ */

static bool function_equal(const void *rows, uint32_t row, const void *key)
{
    const struct flue_pprof_function *a = &((const struct merging *)rows)->doc.functions[row];
    const struct flue_pprof_function *b = key;
    return a->name == b->name && a->system_name == b->system_name && a->filename == b->filename &&
           a->start_line == b->start_line;
}

static uint32_t function_of(struct merging *m, const struct flue_pprof_function *from)
{
    struct flue_pprof_function function = {m->string_rows[from->name],
                                           m->string_rows[from->system_name],
                                           m->string_rows[from->filename], from->start_line};
    uint64_t hash = flue_hash_join(
        flue_hash_join(flue_hash_join(flue_hash_u64(function.name), function.system_name),
                       function.filename),
        (uint64_t)function.start_line);
    uint32_t row = flue_table_find(&m->functions.table, hash, function_equal, m, &function);
    if (row != FLUE_TABLE_NONE)
        return row;
    row = (uint32_t)m->functions.count;
    if (!FLUE_ARENA_PUSH(m->arena, m->doc.functions, m->functions.count, m->functions.room,
                         function) ||
        !flue_table_insert(&m->functions.table, hash, row))
        return FLUE_TABLE_NONE;
    return row;
}

/* ---- locations ------------------------------------------------------------------------------ */

/* The candidate's lines stand behind the kept ones in doc.lines until it is known to be new. */
static bool location_equal(const void *rows, uint32_t row, const void *key)
{
    const struct flue_pprof_document *doc = &((const struct merging *)rows)->doc;
    const struct flue_pprof_location *a = &doc->locations[row], *b = key;
    if (a->address != b->address || a->mapping != b->mapping || a->folded != b->folded ||
        a->line_count != b->line_count)
        return false;
    for (uint32_t i = 0; i < a->line_count; i++) {
        const struct flue_pprof_line *x = &doc->lines[a->first_line + i];
        const struct flue_pprof_line *y = &doc->lines[b->first_line + i];
        if (x->function != y->function || x->line != y->line || x->column != y->column)
            return false;
    }
    return true;
}

static uint32_t location_of(struct merging *m, const struct flue_pprof_location *from)
{
    struct flue_pprof_location location = *from;
    uint64_t hash;
    location.first_line = (uint32_t)m->lines;
    if (from->mapping != FLUE_PPROF_NONE) {
        location.mapping = m->mapping_rows[from->mapping];
        /* where the kept mapping lies */
        location.address = from->address - m->from->mappings[from->mapping].start +
                           m->doc.mappings[location.mapping].start;
    }
    hash = flue_hash_join(flue_hash_u64(location.address),
                          (uint64_t)location.mapping << 1 | location.folded);
    for (uint32_t i = 0; i < from->line_count; i++) {
        struct flue_pprof_line line = m->from->lines[from->first_line + i];
        line.function = m->function_rows[line.function];
        hash = flue_hash_join(flue_hash_join(hash, line.function),
                              (uint64_t)line.line ^ (uint64_t)line.column << 40);
        if (!FLUE_ARENA_PUSH(m->arena, m->doc.lines, m->lines, m->line_room, line))
            return FLUE_TABLE_NONE;
    }
    uint32_t row = flue_table_find(&m->locations.table, hash, location_equal, m, &location);
    if (row != FLUE_TABLE_NONE) {
        m->lines = location.first_line;
        return row;
    }
    row = (uint32_t)m->locations.count;
    if (!FLUE_ARENA_PUSH(m->arena, m->doc.locations, m->locations.count, m->locations.room,
                         location) ||
        !flue_table_insert(&m->locations.table, hash, row))
        return FLUE_TABLE_NONE;
    return row;
}

/* ---- samples -------------------------------------------------------------------------------- */

static bool label_before(const struct flue_pprof_sample_label *a,
                         const struct flue_pprof_sample_label *b)
{
    if (a->key != b->key)
        return a->key < b->key;
    if (a->str != b->str)
        return a->str < b->str;
    if (a->num != b->num)
        return a->num < b->num;
    return a->num_unit < b->num_unit;
}

static bool sample_equal(const void *rows, uint32_t row, const void *key)
{
    const struct flue_pprof_document *doc = &((const struct merging *)rows)->doc;
    const struct flue_pprof_sample *a = &doc->samples[row], *b = key;
    if (a->location_count != b->location_count || a->label_count != b->label_count ||
        (a->location_count && memcmp(doc->stack + a->first_location, doc->stack + b->first_location,
                                     a->location_count * sizeof *doc->stack) != 0))
        return false;
    for (uint32_t i = 0; i < a->label_count; i++)
        if (label_before(&doc->labels[a->first_label + i], &doc->labels[b->first_label + i]) ||
            label_before(&doc->labels[b->first_label + i], &doc->labels[a->first_label + i]))
            return false;
    return true;
}

/* Stack and labels behind the kept ones, labels sorted; false without memory. */
static bool stage_sample(struct merging *m, const struct flue_pprof_sample *from,
                         struct flue_pprof_sample *sample, uint64_t *hash)
{
    *sample = (struct flue_pprof_sample){(uint32_t)m->stack, from->location_count,
                                         (uint32_t)m->labels, from->label_count};
    for (uint32_t i = 0; i < from->location_count; i++) {
        uint32_t row = m->location_rows[m->from->stack[from->first_location + i]];
        if (!FLUE_ARENA_PUSH(m->arena, m->doc.stack, m->stack, m->stack_room, row))
            return false;
    }
    for (uint32_t i = 0; i < from->label_count; i++) {
        struct flue_pprof_sample_label label = m->from->labels[from->first_label + i];
        label.key = m->string_rows[label.key];
        label.str = m->string_rows[label.str];
        label.num_unit = m->string_rows[label.num_unit];
        if (!FLUE_ARENA_PUSH(m->arena, m->doc.labels, m->labels, m->label_room, label))
            return false;
        size_t at = m->labels - 1;
        for (; at > sample->first_label && label_before(&label, &m->doc.labels[at - 1]); at--)
            m->doc.labels[at] = m->doc.labels[at - 1];
        m->doc.labels[at] = label;
    }
    *hash = sample->location_count == 0
                ? 0
                : flue_hash(flue_bytes(m->doc.stack + sample->first_location,
                                       sample->location_count * sizeof *m->doc.stack));
    for (uint32_t i = 0; i < sample->label_count; i++) {
        const struct flue_pprof_sample_label *label = &m->doc.labels[sample->first_label + i];
        *hash = flue_hash_join(flue_hash_join(*hash, (uint64_t)label->key << 32 | label->str),
                               flue_hash_join((uint64_t)label->num, label->num_unit));
    }
    return true;
}

/* Over 2^63 a value wraps, as it does in google/pprof. */
static void add_values(int64_t *to, const int64_t *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] = (int64_t)((uint64_t)to[i] + (uint64_t)from[i]);
}

static bool add_sample(struct merging *m, uint32_t index)
{
    struct flue_pprof_sample sample;
    const uint32_t types = m->doc.type_count;
    const int64_t *values = m->from->values + (size_t)index * types;
    int64_t zero = 0;
    uint64_t hash;
    if (!stage_sample(m, &m->from->samples[index], &sample, &hash))
        return false;
    uint32_t row = flue_table_find(&m->samples.table, hash, sample_equal, m, &sample);
    if (row != FLUE_TABLE_NONE) {
        m->stack = sample.first_location;
        m->labels = sample.first_label;
    } else {
        row = (uint32_t)m->samples.count;
        if (!FLUE_ARENA_PUSH(m->arena, m->doc.samples, m->samples.count, m->samples.room, sample) ||
            !flue_table_insert(&m->samples.table, hash, row))
            return false;
        for (uint32_t i = 0; i < types; i++)
            if (!FLUE_ARENA_PUSH(m->arena, m->doc.values, m->values, m->value_room, zero))
                return false;
    }
    add_values(m->doc.values + (size_t)row * types, values, types);
    return true;
}

/* What is 0 in every type says nothing. */
static void drop_zeros(struct merging *m)
{
    const uint32_t types = m->doc.type_count;
    size_t left = 0;
    for (size_t i = 0; i < m->samples.count; i++) {
        bool zero = true;
        for (uint32_t j = 0; j < types; j++)
            zero = zero && m->doc.values[i * types + j] == 0;
        if (zero)
            continue;
        m->doc.samples[left] = m->doc.samples[i];
        memmove(m->doc.values + left * types, m->doc.values + i * types,
                types * sizeof *m->doc.values);
        left++;
    }
    m->samples.count = left;
}

/* ---- the profile itself --------------------------------------------------------------------- */

static struct flue_pprof_value_type type_of(const struct merging *m,
                                            struct flue_pprof_value_type type)
{
    return (struct flue_pprof_value_type){m->string_rows[type.type], m->string_rows[type.unit]};
}

static bool same_type(struct flue_pprof_value_type a, struct flue_pprof_value_type b)
{
    return a.type == b.type && a.unit == b.unit;
}

static enum flue_code header(struct merging *m, size_t number)
{
    const struct flue_pprof_document *from = m->from;
    struct flue_pprof_document *doc = &m->doc;
    struct flue_pprof_value_type period = type_of(m, from->period_type);
    if (number == 0) {
        doc->types = flue_arena_zalloc(m->arena, from->type_count + 1u, sizeof *doc->types);
        if (!doc->types)
            return used_up(m);
        doc->type_count = from->type_count;
        for (uint32_t i = 0; i < from->type_count; i++)
            doc->types[i] = type_of(m, from->types[i]);
        doc->period_type = period;
        doc->has_period_type = from->has_period_type;
        doc->drop_frames = m->string_rows[from->drop_frames];
        doc->keep_frames = m->string_rows[from->keep_frames];
    }
    bool same = from->type_count == doc->type_count && same_type(period, doc->period_type);
    for (uint32_t i = 0; i < doc->type_count && same; i++)
        same = same_type(type_of(m, from->types[i]), doc->types[i]);
    if (!same)
        return flue_fail(m->error, FLUE_UNPROCESSABLE,
                         "profile %zu has other sample types or another period type than the first",
                         number);
    if (from->period > doc->period)
        doc->period = from->period;
    doc->duration_nanos = (int64_t)((uint64_t)doc->duration_nanos + (uint64_t)from->duration_nanos);
    if (from->time_nanos != 0 && (doc->time_nanos == 0 || from->time_nanos < doc->time_nanos))
        doc->time_nanos = from->time_nanos;
    if (!doc->default_sample_type)
        doc->default_sample_type = m->string_rows[from->default_sample_type];
    if (!doc->doc_url)
        doc->doc_url = m->string_rows[from->doc_url];
    for (uint32_t i = 0; i < from->comment_count; i++) {
        uint32_t comment = m->string_rows[from->comments[i]];
        bool there = false;
        for (size_t j = 0; j < m->comments && !there; j++)
            there = doc->comments[j] == comment;
        if (!there &&
            !FLUE_ARENA_PUSH(m->arena, doc->comments, m->comments, m->comment_room, comment))
            return used_up(m);
    }
    return FLUE_OK;
}

static enum flue_code add_profile(struct merging *m, size_t number)
{
    const struct flue_pprof_document *from = m->from;
    struct flue_arena *arena = m->arena;
    bool good = true;
#define ROWS(table, count, make)                                                                   \
    do {                                                                                           \
        table = flue_arena_zalloc(arena, (size_t)(count) + 1, sizeof *table);                      \
        good = good && table;                                                                      \
        for (uint32_t i = 0; good && i < (count); i++)                                             \
            good = (table[i] = (make)) != FLUE_TABLE_NONE;                                         \
    } while (0)
    ROWS(m->string_rows, from->string_count, string_of(m, from->strings[i]));
    if (!good)
        return used_up(m);
    enum flue_code code = header(m, number);
    if (code != FLUE_OK)
        return code;
    ROWS(m->mapping_rows, from->mapping_count, mapping_of(m, &from->mappings[i]));
    ROWS(m->function_rows, from->function_count, function_of(m, &from->functions[i]));
    ROWS(m->location_rows, from->location_count, location_of(m, &from->locations[i]));
#undef ROWS
    for (uint32_t i = 0; good && i < from->sample_count; i++)
        good = add_sample(m, i);
    return good ? FLUE_OK : used_up(m);
}

static enum flue_code write_out(struct merging *m, struct flue_account *account,
                                struct flue_block **out)
{
    struct flue_pprof_document *doc = &m->doc;
    drop_zeros(m);
    doc->string_count = (uint32_t)m->strings.count;
    doc->mapping_count = (uint32_t)m->mappings.count;
    doc->function_count = (uint32_t)m->functions.count;
    doc->location_count = (uint32_t)m->locations.count;
    doc->line_count = (uint32_t)m->lines;
    doc->sample_count = (uint32_t)m->samples.count;
    doc->stack_count = (uint32_t)m->stack;
    doc->label_count = (uint32_t)m->labels;
    doc->comment_count = (uint32_t)m->comments;
    enum flue_code code =
        flue_pprof_encode(doc, 0, doc->sample_count, m->arena, account, out, m->error);
    return code == FLUE_NO_MEMORY ? used_up(m) : code;
}

static enum flue_code merge_raw(const struct flue_bytes *raw, size_t count, size_t budget,
                                struct flue_account *account, struct flue_block **out,
                                struct flue_error *error)
{
    struct flue_arena arena;
    struct merging m = {.arena = &arena, .error = error};
    struct flue_table *const tables[] = {&m.strings.table, &m.mappings.table, &m.functions.table,
                                         &m.locations.table, &m.samples.table};
    enum flue_code code = FLUE_OK;
    bool good = true;
    flue_arena_init(&arena, budget, 0);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        good = good && flue_table_init(tables[i], &arena, 64);
    if (!good || string_of(&m, FLUE_BYTES("")) == FLUE_TABLE_NONE)
        code = used_up(&m);
    for (size_t i = 0; i < count && code == FLUE_OK; i++) {
        struct flue_pprof_document from;
        code = flue_pprof_decode(raw[i], &arena, &from, error);
        m.from = &from;
        if (code == FLUE_OK)
            code = add_profile(&m, i);
        else if (code == FLUE_NO_MEMORY)
            code = used_up(&m);
    }
    if (code == FLUE_OK)
        code = write_out(&m, account, out);
    flue_arena_destroy(&arena);
    return code;
}

enum flue_code flue_pprof_merge(const struct flue_bytes *profiles, size_t count,
                                const struct flue_pprof_limits *limits,
                                struct flue_account *account, struct flue_block **out,
                                struct flue_error *error)
{
    struct flue_block **inflated = calloc(count + 1, sizeof(struct flue_block *));
    struct flue_bytes *raw = calloc(count + 1, sizeof *raw);
    enum flue_code code = FLUE_OK;
    size_t total = 0;
    if (!inflated || !raw)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory to merge %zu profiles", count);
    else if (count == 0)
        code = flue_fail(error, FLUE_INVALID, "no profiles to merge");
    for (size_t i = 0; i < count && code == FLUE_OK; i++) {
        code = flue_pprof_raw(profiles[i], limits, account, &inflated[i], &raw[i], error);
        total += raw[i].size;
    }
    if (code == FLUE_OK)
        code = merge_raw(raw, count, BUDGET_FLOOR + total * BUDGET_FACTOR, account, out, error);
    for (size_t i = 0; inflated && i < count; i++)
        flue_block_unref(inflated[i]);
    free(inflated);
    free(raw);
    return code;
}
