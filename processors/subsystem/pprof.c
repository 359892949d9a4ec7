/* pprof.c: classify.h for pprof. A profile is walked as it lies on the wire, table after table, in
 * whatever order its fields stand; marks are a label behind every sample, and strings at the end.
 * The profile was checked when it came (proto/pprof/check.c), and is read within bounds anyway.
 *
 * Fields: Profile 1 sample_type, 2 sample, 3 mapping, 4 location, 5 function, 6 string_table,
 * 11 period_type, 12 period; Function 1 id, 2 name, 3 system_name, 4 filename; Mapping 1 id,
 * 5 filename; Location 1 id, 2 mapping_id, 4 line (1 function_id); Sample 1 location_id, 2 value,
 * 3 label (1 key, 2 str). */
#include <stdlib.h>
#include "processors/subsystem/classify.h"
#include "proto/pprof/ids.h"
#include "proto/pprof/rewrite.h"
#include "proto/wire/writer.h"

#define UNKNOWN        (SUBSYSTEM_NONE - 1)
#define KEPT           0x80u
#define DENSE_IDS      (1u << 20) /* ids under it are an index */
#define MOST_TYPES     64u        /* sample types that are counted */
#define INFLATED_MOST  ((size_t)64 << 20)
#define INFLATED_RATIO UINT32_MAX /* it was checked when it came */

/* Verdicts by id: nearly all producers number from 1. */
struct id_verdicts {
    uint16_t *dense;
    size_t room;
    struct flue_ids sparse;
};

struct pprof_walk {
    const struct subsystem_work *work;
    struct flue_account *account;
    struct flue_error *error;
    enum flue_code code;

    struct flue_bytes raw;
    struct flue_reader runs[7]; /* where the messages of a field stand, by its number */
    struct flue_bytes period_type;
    int64_t period;
    size_t resource;
    struct flue_bytes *strings;
    size_t string_count, string_room;
    struct id_verdicts functions, mappings, locations;
    uint16_t *files; /* by string */
    struct flue_quantity_type types[MOST_TYPES];
    size_t type_count;
    uint64_t mark_key; /* string of the label that is the mark; 0: no sample can have it */
    uint8_t *samples;  /* subsystem of each, | KEPT */
    size_t sample_count, sample_room, open_samples;
    uint64_t sums[MOST_TYPES][SUBSYSTEMS_MAX];
};

static bool no_memory(struct pprof_walk *w)
{
    w->code = flue_fail(w->error, FLUE_NO_MEMORY,
                        "classifying samples takes more than the %zu bytes set aside",
                        w->work->arena->budget);
    return false;
}

/* f->type says it, too, but a load of number and type as one waits for both stores. */
static bool is_bytes(const struct flue_field_value *f, uint32_t number)
{
    return f->number == number && f->bytes.data;
}

/* ---- ids ------------------------------------------------------------------------------------ */

static bool id_put(struct pprof_walk *w, struct id_verdicts *ids, uint64_t id, uint16_t verdict)
{
    if (id < DENSE_IDS) {
        if (id >= ids->room) {
            size_t room = id + 1 > 2 * ids->room ? id + 256 : 2 * ids->room;
            uint16_t *dense = flue_arena_alloc(w->work->arena, room * sizeof *dense);
            if (!dense)
                return no_memory(w);
            if (ids->room)
                memcpy(dense, ids->dense, ids->room * sizeof *dense);
            memset(dense + ids->room, 0xff, (room - ids->room) * sizeof *dense);
            ids->dense = dense;
            ids->room = room;
        }
        ids->dense[id] = verdict;
        return true;
    }
    if (verdict == SUBSYSTEM_NONE)
        return true;
    bool made;
    uint32_t *row = flue_ids_put(&ids->sparse, id, verdict, &made);
    return row ? (*row = verdict, true) : no_memory(w);
}

static uint16_t id_get(const struct id_verdicts *ids, uint64_t id)
{
    if (id < ids->room)
        return ids->dense[id];
    if (id < DENSE_IDS)
        return SUBSYSTEM_NONE;
    const uint32_t *row = flue_ids_find(&ids->sparse, id);
    return row ? (uint16_t)*row : SUBSYSTEM_NONE;
}

/* ---- tables --------------------------------------------------------------------------------- */

static struct flue_bytes string_at(const struct pprof_walk *w, uint64_t row)
{
    return row < w->string_count ? w->strings[row] : flue_bytes(NULL, 0);
}

static uint16_t least(uint16_t a, uint16_t b)
{
    return a < b ? a : b;
}

static bool add_string(struct pprof_walk *w, struct flue_bytes text)
{
    if (w->work->mark.size && flue_bytes_equal(text, w->work->mark))
        w->mark_key = w->string_count;
    return FLUE_ARENA_PUSH(w->work->arena, w->strings, w->string_count, w->string_room, text) ||
           no_memory(w);
}

static uint16_t file_verdict(struct pprof_walk *w, uint64_t row)
{
    if (row == 0 || row >= w->string_count)
        return SUBSYSTEM_NONE;
    if (w->files[row] == UNKNOWN)
        w->files[row] = subsystem_of_file(w->work->rules, w->strings[row]);
    return w->files[row];
}

static bool add_function(struct pprof_walk *w, struct flue_bytes row)
{
    struct flue_reader r = flue_reader(row);
    struct flue_field_value f;
    uint64_t fields[5] = {0};
    while (flue_read_field(&r, &f))
        if (f.number < 5)
            fields[f.number] = f.varint;
    struct flue_bytes system =
        fields[3] == fields[2] ? flue_bytes(NULL, 0) : string_at(w, fields[3]);
    uint16_t verdict = subsystem_of_function(w->work->rules, string_at(w, fields[2]), system);
    return id_put(w, &w->functions, fields[1], least(verdict, file_verdict(w, fields[4])));
}

static bool add_mapping(struct pprof_walk *w, struct flue_bytes row)
{
    struct flue_reader r = flue_reader(row);
    struct flue_field_value f;
    uint64_t id = 0, filename = 0;
    while (flue_read_field(&r, &f)) {
        id = f.number == 1 ? f.varint : id;
        filename = f.number == 5 ? f.varint : filename;
    }
    return id_put(w, &w->mappings, id,
                  subsystem_of_mapping(w->work->rules, string_at(w, filename)));
}

static uint64_t line_function(struct flue_bytes line)
{
    struct flue_reader r = flue_reader(line);
    struct flue_field_value f;
    uint64_t function = 0;
    while (flue_read_field(&r, &f))
        function = f.number == 1 ? f.varint : function;
    return function;
}

/* Where the code lies counts for each line. */
static bool add_location(struct pprof_walk *w, struct flue_bytes row)
{
    struct flue_reader r = flue_reader(row);
    struct flue_field_value f;
    struct flue_bytes first = {NULL, 0};
    uint64_t id = 0, mapping = 0;
    uint16_t sum = SUBSYSTEM_NONE, frame;
    size_t lines = 0;
    while (flue_read_field(&r, &f)) {
        if (f.number == 1)
            id = f.varint;
        else if (f.number == 2)
            mapping = f.varint;
        else if (is_bytes(&f, 4) && lines++ == 0)
            first = f.bytes;
    }
    frame = id_get(&w->mappings, mapping);
    if (lines == 1)
        frame = least(frame, id_get(&w->functions, line_function(first)));
    if (lines < 2)
        return id_put(w, &w->locations, id, frame);
    for (r = flue_reader(row); flue_read_field(&r, &f);)
        if (is_bytes(&f, 4) &&
            subsystem_join(w->work->rules, &sum,
                           least(frame, id_get(&w->functions, line_function(f.bytes)))))
            break;
    return id_put(w, &w->locations, id, sum);
}

/* The one walk over the whole top level: strings, and where everything else stands. */
static bool read_strings(struct pprof_walk *w)
{
    struct flue_reader r = flue_reader(w->raw);
    struct flue_field_value f;
    memset(w->runs, 0, sizeof w->runs);
    w->period_type = flue_bytes(NULL, 0);
    w->period = 0;
    while (flue_read_field(&r, &f)) {
        if (is_bytes(&f, 11))
            w->period_type = f.bytes;
        else if (f.number == 12)
            w->period = (int64_t)f.varint;
        if (f.number > 6 || !f.bytes.data)
            continue;
        if (!w->runs[f.number].at)
            w->runs[f.number].at = f.tag_at;
        w->runs[f.number].end = r.at;
        if (f.number == 6 && !add_string(w, f.bytes))
            return false;
    }
    return true;
}

/* Every message of one field, in order. */
static bool each(struct pprof_walk *w, uint32_t field,
                 bool (*visit)(struct pprof_walk *w, struct flue_bytes row))
{
    struct flue_reader r = w->runs[field];
    struct flue_field_value f;
    while (r.at && flue_read_field(&r, &f))
        if (is_bytes(&f, field) && !visit(w, f.bytes))
            return false;
    return true;
}

struct value_type {
    uint64_t type, unit;
};

static struct value_type value_type(struct flue_bytes row)
{
    struct flue_reader r = flue_reader(row);
    struct flue_field_value f;
    struct value_type out = {0, 0};
    while (flue_read_field(&r, &f)) {
        out.type = f.number == 1 ? f.varint : out.type;
        out.unit = f.number == 2 ? f.varint : out.unit;
    }
    return out;
}

static void read_types(struct pprof_walk *w)
{
    struct flue_reader r = w->runs[1];
    struct flue_field_value f;
    struct value_type types[MOST_TYPES], period_type = value_type(w->period_type);
    while (r.at && flue_read_field(&r, &f))
        if (is_bytes(&f, 1) && w->type_count < MOST_TYPES)
            types[w->type_count++] = value_type(f.bytes);
    struct flue_bytes about = string_at(w, period_type.type);
    bool measured = false;
    for (size_t i = 0; i < w->type_count; i++)
        measured |= flue_time_unit(string_at(w, types[i].unit)) != 0;
    for (size_t i = 0; i < w->type_count; i++)
        flue_quantity_of(string_at(w, types[i].type), string_at(w, types[i].unit), about,
                         string_at(w, period_type.unit), w->period, measured, &w->types[i]);
}

/* ---- samples -------------------------------------------------------------------------------- */

static void see_label(const struct pprof_walk *w, struct flue_bytes label, uint8_t *mark)
{
    struct flue_reader r = flue_reader(label);
    struct flue_field_value f;
    uint64_t key = 0, str = 0;
    while (flue_read_field(&r, &f)) {
        key = f.number == 1 ? f.varint : key;
        str = f.number == 2 ? f.varint : str;
    }
    if (key == w->mark_key && str)
        *mark = subsystem_by_name(w->work->rules, string_at(w, str)) | KEPT;
}

struct values {
    int64_t items[MOST_TYPES];
    size_t count;
};

static void add_value(struct values *values, uint64_t value)
{
    if (values->count < MOST_TYPES)
        values->items[values->count++] = (int64_t)value;
}

static uint8_t read_sample(const struct pprof_walk *w, struct flue_bytes sample,
                           struct values *values)
{
    struct flue_reader r = flue_reader(sample), run;
    struct flue_field_value f;
    uint16_t sum = SUBSYSTEM_NONE;
    uint8_t mark = 0;
    bool settled = false;
    uint64_t number;
    values->count = 0;
    while (flue_read_field(&r, &f)) {
        switch (f.number) {
        case 1:
            if (f.type == FLUE_VARINT && !settled)
                settled = subsystem_join(w->work->rules, &sum, id_get(&w->locations, f.varint));
            for (run = flue_reader(f.bytes); !settled && flue_read_varint(&run, &number);)
                settled = subsystem_join(w->work->rules, &sum, id_get(&w->locations, number));
            break;
        case 2:
            if (f.type == FLUE_VARINT)
                add_value(values, f.varint);
            for (run = flue_reader(f.bytes); flue_read_varint(&run, &number);)
                add_value(values, number);
            break;
        case 3:
            if (w->mark_key && f.type == FLUE_LEN)
                see_label(w, f.bytes, &mark);
            break;
        default:
            break;
        }
    }
    return mark ? mark : subsystem_of_verdict(w->work->rules, sum);
}

static bool add_sample(struct pprof_walk *w, struct flue_bytes row)
{
    struct values values;
    uint8_t subsystem = read_sample(w, row, &values);
    for (size_t i = 0; i < values.count && i < w->type_count; i++)
        if (w->types[i].quantity != FLUE_QUANTITY_NONE)
            flue_quantity_add(&w->sums[i][subsystem & ~KEPT],
                              flue_quantity_amount(values.items[i], w->types[i].factor));
    w->open_samples += !(subsystem & KEPT);
    if (!w->work->mark.size) {
        w->sample_count++;
        return true;
    }
    return FLUE_ARENA_PUSH(w->work->arena, w->samples, w->sample_count, w->sample_room,
                           subsystem) ||
           no_memory(w);
}

static bool walk(struct pprof_walk *w)
{
    if (!read_strings(w))
        return false;
    w->files = flue_arena_alloc(w->work->arena, (w->string_count + 1) * sizeof *w->files);
    if (!w->files)
        return no_memory(w);
    for (size_t i = 0; i <= w->string_count; i++)
        w->files[i] = UNKNOWN;
    read_types(w);
    for (size_t i = 0; i < w->type_count; i++)
        memset(w->sums[i], 0, sizeof w->sums[i]);
    if (!each(w, 5, add_function) || !each(w, 3, add_mapping) || !each(w, 4, add_location) ||
        !each(w, 2, add_sample))
        return false;
    for (size_t i = 0; i < w->type_count && w->sample_count && w->work->report; i++)
        if (w->types[i].quantity != FLUE_QUANTITY_NONE)
            w->work->report(w->work->arg, w->resource, &w->types[i], w->sums[i]);
    return true;
}

/* ---- marks ---------------------------------------------------------------------------------- */

/* Strings that are put behind the profile's own: the key, then the names in use. */
struct additions {
    uint64_t key, names[SUBSYSTEMS_MAX];
    struct flue_bytes texts[SUBSYSTEMS_MAX + 2];
    size_t count, size;
};

static uint64_t add_text(const struct pprof_walk *w, struct additions *a, struct flue_bytes text)
{
    a->texts[a->count] = text;
    a->size += flue_len_field_size(6, text.size);
    return w->string_count + a->count++;
}

static void plan(const struct pprof_walk *w, struct additions *a)
{
    if (w->string_count == 0) /* string 0 must be the empty one */
        (void)add_text(w, a, flue_bytes(NULL, 0));
    a->key = w->mark_key ? w->mark_key : add_text(w, a, w->work->mark);
    for (size_t i = 0; i < w->sample_count; i++) {
        uint8_t subsystem = w->samples[i];
        if (!(subsystem & KEPT) && !a->names[subsystem])
            a->names[subsystem] =
                add_text(w, a, flue_bytes_of(subsystem_name(w->work->rules, subsystem)));
    }
}

static size_t label_size(const struct additions *a, uint8_t subsystem)
{
    return 2 + flue_varint_size(a->key) + flue_varint_size(a->names[subsystem]);
}

static uint8_t *write_label(uint8_t *at, const struct additions *a, uint8_t subsystem)
{
    at = flue_write_len_head(at, 3, label_size(a, subsystem));
    *at++ = (uint8_t)flue_tag(1, FLUE_VARINT);
    at = flue_write_varint(at, a->key);
    *at++ = (uint8_t)flue_tag(2, FLUE_VARINT);
    return flue_write_varint(at, a->names[subsystem]);
}

static uint8_t *copy(uint8_t *at, const uint8_t *from, const uint8_t *to)
{
    memcpy(at, from, (size_t)(to - from));
    return at + (to - from);
}

static uint8_t *write_marked(const struct pprof_walk *w, const struct additions *a, uint8_t *at)
{
    struct flue_reader r = w->runs[2];
    struct flue_field_value f;
    const uint8_t *from = w->raw.data;
    size_t n = 0;
    while (r.at && flue_read_field(&r, &f)) {
        if (!is_bytes(&f, 2) || n >= w->sample_count)
            continue;
        uint8_t subsystem = w->samples[n++];
        if (subsystem & KEPT)
            continue;
        at = copy(at, from, f.tag_at);
        from = r.at;
        at = flue_write_len_head(at, 2,
                                 f.bytes.size + flue_len_field_size(3, label_size(a, subsystem)));
        at = copy(at, f.bytes.data, f.bytes.data + f.bytes.size);
        at = write_label(at, a, subsystem);
    }
    at = copy(at, from, w->raw.data + w->raw.size);
    for (size_t i = 0; i < a->count; i++)
        at = flue_write_len_field(at, 6, a->texts[i]);
    return at;
}

static enum flue_code mark(struct pprof_walk *w, struct flue_pprof_profile *profile,
                           struct flue_block **out)
{
    struct additions a = {.count = 0};
    plan(w, &a);
    /* Of a sample: its length grows by up to four bytes, a label has three heads and two numbers.
     */
    size_t most = w->raw.size + a.size +
                  w->open_samples *
                      (8 + flue_varint_size(a.key) + flue_varint_size(w->string_count + a.count));
    struct flue_block *block = flue_block_new(w->account, most);
    if (!block)
        return flue_fail(w->error, FLUE_NO_MEMORY, "no memory for a profile of %zu bytes", most);
    block->size = (size_t)(write_marked(w, &a, block->data) - block->data);
    if (w->account) { /* data already taken must be able to leave */
        flue_account_charge_always(w->account, block->size);
        block->charged = block->size;
    }
    flue_block_finish(block);
    profile->bytes = flue_block_bytes(block);
    profile->facts.gzip = false;
    profile->facts.inflated_size = block->size;
    profile->facts.strings += a.count;
    profile->facts.sample_labels++;
    profile->facts.all_labels++;
    *out = block;
    return FLUE_OK;
}

/* ---- profiles ------------------------------------------------------------------------------- */

static void forget(struct pprof_walk *w)
{
    flue_ids_destroy(&w->functions.sparse);
    flue_ids_destroy(&w->mappings.sparse);
    flue_ids_destroy(&w->locations.sparse);
    w->functions = w->mappings = w->locations = (struct id_verdicts){0};
    w->strings = NULL;
    w->samples = NULL;
    w->string_count = w->string_room = w->sample_count = w->sample_room = 0;
    w->open_samples = w->type_count = 0;
    w->mark_key = 0;
    flue_arena_reset(w->work->arena);
}

static enum flue_code one_profile(void *arg, size_t series, struct flue_pprof_profile *profile,
                                  struct flue_block **block, struct flue_error *error)
{
    struct pprof_walk *w = arg;
    struct flue_block *inflated = NULL;
    size_t most = profile->facts.inflated_size ? profile->facts.inflated_size : INFLATED_MOST;
    const struct flue_pprof_limits limits = {most, INFLATED_RATIO};
    w->resource = series;
    w->strings = flue_arena_alloc(w->work->arena, profile->facts.strings * sizeof *w->strings);
    w->string_room = w->strings ? profile->facts.strings : 0;
    w->code = flue_pprof_raw(profile->bytes, &limits, w->account, &inflated, &w->raw, error);
    if (w->code == FLUE_OK && walk(w) && block && w->open_samples)
        w->code = mark(w, profile, block);
    forget(w);
    flue_block_unref(inflated);
    return w->code;
}

enum flue_code subsystem_pprof(const struct subsystem_work *work,
                               const struct flue_payload *payload, struct flue_account *account,
                               struct flue_payload **out, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    struct pprof_walk *w = calloc(1, sizeof *w);
    if (!w)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to classify samples");
    w->work = work;
    w->account = account;
    w->error = error;
    if (work->mark.size) {
        code = flue_pprof_rewrite(payload, account, one_profile, w, out, error);
        free(w);
        return code;
    }
    for (size_t i = 0; i < flue_pprof_series_count(payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(payload, i);
        for (size_t j = 0; j < series->profile_count && code == FLUE_OK; j++) {
            struct flue_pprof_profile profile = series->profiles[j];
            code = one_profile(w, i, &profile, NULL, error);
        }
    }
    free(w);
    return code;
}
