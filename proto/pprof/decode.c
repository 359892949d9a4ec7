/* decode.c: pprof's bytes to rows. See document.h.
 *
 * Two walks: the first counts, so that every table is allocated once, exactly; the second fills. */
#include "proto/pprof/document.h"

#include "proto/pprof/ids.h"
#include "proto/wire/reader.h"

struct id_table {
    struct flue_ids sparse;
    bool dense; /* ids are 1, 2, 3, ... in order */
};

struct decoding {
    struct flue_pprof_document *doc;
    struct flue_arena *arena;
    struct flue_error *error;
    struct id_table locations, functions, mappings;
    struct flue_pprof_document at; /* counts filled so far */
};

static enum flue_code broken(struct decoding *d)
{
    return flue_fail(d->error, FLUE_INVALID, "profile: broken protobuf");
}

static bool too_many(uint32_t count)
{
    return count == UINT32_MAX - 1;
}

/* ---- counting ------------------------------------------------------------------------------- */

/* How many integers does this field hold? */
static bool count_integers(const struct flue_field_value *f, uint32_t *count)
{
    if (f->type == FLUE_VARINT) {
        ++*count;
        return !too_many(*count);
    }
    if (f->type != FLUE_LEN || f->bytes.size > UINT32_MAX / 2)
        return false;
    for (size_t i = 0; i < f->bytes.size; i++)
        *count += f->bytes.data[i] < 0x80;
    return *count < UINT32_MAX / 2;
}

static bool count_row(const struct flue_field_value *f, struct flue_pprof_document *n)
{
    struct flue_reader in = flue_reader(f->bytes);
    struct flue_field_value part = {0};
    switch (f->number) {
    case 1:
        n->type_count++;
        return true;
    case 2:
        n->sample_count++;
        while (flue_read_field(&in, &part)) {
            if (part.number == 1 && !count_integers(&part, &n->stack_count))
                return false;
            if (part.number == 3)
                n->label_count++;
        }
        return flue_reader_done(&in);
    case 3:
        n->mapping_count++;
        return true;
    case 4:
        n->location_count++;
        while (flue_read_field(&in, &part))
            n->line_count += part.number == 4;
        return flue_reader_done(&in);
    case 5:
        n->function_count++;
        return true;
    default:
        n->string_count++;
        return true;
    }
}

static enum flue_code count_all(struct decoding *d, struct flue_bytes raw)
{
    struct flue_reader in = flue_reader(raw);
    struct flue_field_value f = {0};
    if (raw.size > UINT32_MAX / 2)
        return flue_fail(d->error, FLUE_TOO_LARGE, "profile of %zu bytes cannot be decoded",
                         raw.size);
    while (flue_read_field(&in, &f)) {
        if (f.number <= 6 && (f.type != FLUE_LEN || !count_row(&f, d->doc)))
            return broken(d);
        if (f.number == 13 && !count_integers(&f, &d->doc->comment_count))
            return broken(d);
    }
    return flue_reader_done(&in) ? FLUE_OK : broken(d);
}

static enum flue_code allocate(struct decoding *d)
{
    struct flue_pprof_document *doc = d->doc;
    bool good = true;
#define TABLE(table, count)                                                                        \
    do {                                                                                           \
        doc->table = flue_arena_zalloc(d->arena, (size_t)(count) + 1, sizeof *doc->table);         \
        good = good && doc->table;                                                                 \
    } while (0)
    TABLE(strings, doc->string_count);
    TABLE(types, doc->type_count);
    TABLE(mappings, doc->mapping_count);
    TABLE(functions, doc->function_count);
    TABLE(locations, doc->location_count);
    TABLE(lines, doc->line_count);
    TABLE(samples, doc->sample_count);
    TABLE(stack, doc->stack_count);
    TABLE(labels, doc->label_count);
    TABLE(comments, doc->comment_count);
    doc->values = NULL;
    if (doc->type_count > 0 && doc->sample_count > SIZE_MAX / 8 / doc->type_count)
        good = false;
    else
        TABLE(values, (size_t)doc->sample_count * doc->type_count);
#undef TABLE
    return good ? FLUE_OK
                : flue_fail(d->error, FLUE_NO_MEMORY,
                            "decoding a profile of %u samples and %u strings needs more than the "
                            "%zu bytes that it may use",
                            doc->sample_count, doc->string_count, d->arena->budget);
}

/* ---- ids ------------------------------------------------------------------------------------ */

/* Ids must be known before what refers to them is filled, and records come in any order: a walk
 * over the tables alone, which ends at the first id that is not in order unless `sparse`. */
static enum flue_code learn_ids(struct decoding *d, struct flue_bytes raw)
{
    struct id_table *tables[6] = {[3] = &d->mappings, [4] = &d->locations, [5] = &d->functions};
    uint32_t rows[6] = {0};
    struct flue_reader in = flue_reader(raw);
    struct flue_field_value f = {0}, part = {0};
    d->mappings.dense = d->locations.dense = d->functions.dense = true;
    for (int turn = 0; turn < 2; turn++) {
        bool any_sparse = false;
        memset(rows, 0, sizeof rows);
        in = flue_reader(raw);
        while (flue_read_field(&in, &f)) {
            if (f.number < 3 || f.number > 5 || (turn == 1 && tables[f.number]->dense))
                continue;
            uint64_t id = 0;
            struct flue_reader record = flue_reader(f.bytes);
            while (flue_read_field(&record, &part))
                if (part.number == 1 && part.type == FLUE_VARINT)
                    id = part.varint;
            uint32_t row = rows[f.number]++;
            if (turn == 0) {
                if (id != (uint64_t)row + 1) {
                    tables[f.number]->dense = false;
                    any_sparse = true;
                }
                continue;
            }
            bool made;
            if (id == 0 || !flue_ids_put(&tables[f.number]->sparse, id, row, &made))
                return flue_fail(d->error, FLUE_NO_MEMORY, "no memory for the profile's ids");
        }
        if (!any_sparse)
            break;
    }
    return FLUE_OK;
}

static uint32_t row_of(const struct id_table *table, uint32_t count, uint64_t id)
{
    if (table->dense)
        return id >= 1 && id <= count ? (uint32_t)(id - 1) : FLUE_PPROF_NONE;
    uint32_t *row = id ? flue_ids_find(&table->sparse, id) : NULL;
    return row ? *row : FLUE_PPROF_NONE;
}

/* ---- filling -------------------------------------------------------------------------------- */

static bool string_row(const struct decoding *d, const struct flue_field_value *f, uint32_t *out)
{
    if (f->type != FLUE_VARINT || f->varint >= d->doc->string_count)
        return false;
    *out = (uint32_t)f->varint;
    return true;
}

static bool fill_type(const struct decoding *d, struct flue_bytes bytes,
                      struct flue_pprof_value_type *out)
{
    struct flue_reader in = flue_reader(bytes);
    struct flue_field_value f = {0};
    while (flue_read_field(&in, &f)) {
        if (f.number == 1 && !string_row(d, &f, &out->type))
            return false;
        if (f.number == 2 && !string_row(d, &f, &out->unit))
            return false;
    }
    return flue_reader_done(&in);
}

static bool add_location(struct decoding *d, uint64_t id)
{
    uint32_t row = row_of(&d->locations, d->doc->location_count, id);
    if (row == FLUE_PPROF_NONE || d->at.stack_count >= d->doc->stack_count)
        return false;
    d->doc->stack[d->at.stack_count++] = row;
    return true;
}

static bool fill_label(struct decoding *d, struct flue_bytes bytes)
{
    struct flue_pprof_sample_label *label = &d->doc->labels[d->at.label_count++];
    struct flue_reader in = flue_reader(bytes);
    struct flue_field_value f = {0};
    while (flue_read_field(&in, &f)) {
        if ((f.number == 1 && !string_row(d, &f, &label->key)) ||
            (f.number == 2 && !string_row(d, &f, &label->str)) ||
            (f.number == 4 && !string_row(d, &f, &label->num_unit)))
            return false;
        if (f.number == 3)
            label->num = (int64_t)f.varint;
    }
    return flue_reader_done(&in);
}

static bool fill_sample(struct decoding *d, struct flue_bytes bytes)
{
    struct flue_pprof_document *doc = d->doc;
    uint32_t row = d->at.sample_count++, value = 0;
    struct flue_pprof_sample *sample = &doc->samples[row];
    int64_t *values = doc->values + (size_t)row * doc->type_count;
    struct flue_reader in = flue_reader(bytes), run;
    struct flue_field_value f = {0};
    uint64_t number;
    sample->first_location = d->at.stack_count;
    sample->first_label = d->at.label_count;
    while (flue_read_field(&in, &f)) {
        if (f.number == 3) {
            if (f.type != FLUE_LEN || !fill_label(d, f.bytes))
                return false;
            continue;
        }
        if (f.number > 2)
            continue;
        if (f.type == FLUE_VARINT) {
            if (f.number == 1 ? !add_location(d, f.varint) : value >= doc->type_count)
                return false;
            if (f.number == 2)
                values[value++] = (int64_t)f.varint;
            continue;
        }
        if (f.type != FLUE_LEN)
            return false;
        for (run = flue_reader(f.bytes); run.at < run.end;) {
            if (!flue_read_varint(&run, &number) ||
                (f.number == 1 ? !add_location(d, number) : value >= doc->type_count))
                return false;
            if (f.number == 2)
                values[value++] = (int64_t)number;
        }
    }
    sample->location_count = d->at.stack_count - sample->first_location;
    sample->label_count = d->at.label_count - sample->first_label;
    return flue_reader_done(&in) && value == doc->type_count;
}

static bool fill_mapping(struct decoding *d, struct flue_bytes bytes)
{
    struct flue_pprof_mapping *m = &d->doc->mappings[d->at.mapping_count++];
    struct flue_reader in = flue_reader(bytes);
    struct flue_field_value f = {0};
    while (flue_read_field(&in, &f)) {
        switch (f.number) {
        case 2:
            m->start = f.varint;
            break;
        case 3:
            m->limit = f.varint;
            break;
        case 4:
            m->offset = f.varint;
            break;
        case 5:
            if (!string_row(d, &f, &m->filename))
                return false;
            break;
        case 6:
            if (!string_row(d, &f, &m->build_id))
                return false;
            break;
        case 7:
            m->has_functions = f.varint != 0;
            break;
        case 8:
            m->has_filenames = f.varint != 0;
            break;
        case 9:
            m->has_line_numbers = f.varint != 0;
            break;
        case 10:
            m->has_inline_frames = f.varint != 0;
            break;
        default:
            break;
        }
    }
    return flue_reader_done(&in);
}

static bool fill_line(struct decoding *d, struct flue_bytes bytes)
{
    struct flue_pprof_line *line = &d->doc->lines[d->at.line_count++];
    struct flue_reader in = flue_reader(bytes);
    struct flue_field_value f = {0};
    line->function = FLUE_PPROF_NONE;
    while (flue_read_field(&in, &f)) {
        if (f.number == 1)
            line->function = row_of(&d->functions, d->doc->function_count, f.varint);
        else if (f.number == 2)
            line->line = (int64_t)f.varint;
        else if (f.number == 3)
            line->column = (int64_t)f.varint;
    }
    return flue_reader_done(&in) && line->function != FLUE_PPROF_NONE;
}

static bool fill_location(struct decoding *d, struct flue_bytes bytes)
{
    struct flue_pprof_location *location = &d->doc->locations[d->at.location_count++];
    struct flue_reader in = flue_reader(bytes);
    struct flue_field_value f = {0};
    location->first_line = d->at.line_count;
    location->mapping = FLUE_PPROF_NONE;
    while (flue_read_field(&in, &f)) {
        if (f.number == 2)
            location->mapping = row_of(&d->mappings, d->doc->mapping_count, f.varint);
        else if (f.number == 3)
            location->address = f.varint;
        else if (f.number == 5)
            location->folded = f.varint != 0;
        else if (f.number == 4 && (f.type != FLUE_LEN || !fill_line(d, f.bytes)))
            return false;
    }
    location->line_count = d->at.line_count - location->first_line;
    return flue_reader_done(&in);
}

static bool fill_function(struct decoding *d, struct flue_bytes bytes)
{
    struct flue_pprof_function *function = &d->doc->functions[d->at.function_count++];
    struct flue_reader in = flue_reader(bytes);
    struct flue_field_value f = {0};
    while (flue_read_field(&in, &f)) {
        if ((f.number == 2 && !string_row(d, &f, &function->name)) ||
            (f.number == 3 && !string_row(d, &f, &function->system_name)) ||
            (f.number == 4 && !string_row(d, &f, &function->filename)))
            return false;
        if (f.number == 5)
            function->start_line = (int64_t)f.varint;
    }
    return flue_reader_done(&in);
}

static bool fill_comments(struct decoding *d, const struct flue_field_value *f)
{
    struct flue_field_value one = {.type = FLUE_VARINT, .varint = f->varint};
    if (f->type == FLUE_VARINT)
        return string_row(d, &one, &d->doc->comments[d->at.comment_count++]);
    for (struct flue_reader run = flue_reader(f->bytes); run.at < run.end;)
        if (!flue_read_varint(&run, &one.varint) ||
            !string_row(d, &one, &d->doc->comments[d->at.comment_count++]))
            return false;
    return true;
}

static bool fill_field(struct decoding *d, const struct flue_field_value *f)
{
    struct flue_pprof_document *doc = d->doc;
    switch (f->number) {
    case 1:
        return fill_type(d, f->bytes, &doc->types[d->at.type_count++]);
    case 2:
        return fill_sample(d, f->bytes);
    case 3:
        return fill_mapping(d, f->bytes);
    case 4:
        return fill_location(d, f->bytes);
    case 5:
        return fill_function(d, f->bytes);
    case 6:
        doc->strings[d->at.string_count++] = f->bytes;
        return true;
    case 7:
        return string_row(d, f, &doc->drop_frames);
    case 8:
        return string_row(d, f, &doc->keep_frames);
    case 9:
        if (f->varint)
            doc->time_nanos = (int64_t)f->varint;
        return f->type == FLUE_VARINT;
    case 10:
        doc->duration_nanos = (int64_t)f->varint;
        return f->type == FLUE_VARINT;
    case 11:
        doc->has_period_type = true;
        return f->type == FLUE_LEN && fill_type(d, f->bytes, &doc->period_type);
    case 12:
        doc->period = (int64_t)f->varint;
        return f->type == FLUE_VARINT;
    case 13:
        return fill_comments(d, f);
    case 14:
        return string_row(d, f, &doc->default_sample_type);
    case 15:
        return string_row(d, f, &doc->doc_url);
    default:
        return true;
    }
}

enum flue_code flue_pprof_decode(struct flue_bytes raw, struct flue_arena *arena,
                                 struct flue_pprof_document *out, struct flue_error *error)
{
    struct decoding d = {.doc = out, .arena = arena, .error = error};
    struct flue_reader in = flue_reader(raw);
    struct flue_field_value f = {0};
    *out = (struct flue_pprof_document){0};
    enum flue_code code = count_all(&d, raw);
    if (code == FLUE_OK)
        code = allocate(&d);
    if (code == FLUE_OK)
        code = learn_ids(&d, raw);
    while (code == FLUE_OK && flue_read_field(&in, &f))
        if (!fill_field(&d, &f))
            code = flue_fail(error, FLUE_INVALID,
                             "profile: field %u refers to a row that is not there", f.number);
    flue_ids_destroy(&d.locations.sparse);
    flue_ids_destroy(&d.functions.sparse);
    flue_ids_destroy(&d.mappings.sparse);
    return code;
}
