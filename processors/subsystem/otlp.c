/* otlp.c: classify.h for OTLP. The dictionary is walked once for all resources; marks are attribute
 * rows at its end, and the index of one behind every sample. */
#include "processors/subsystem/classify.h"
#include "proto/otlp/quantity.h"
#include "proto/wire/writer.h"

#define UNKNOWN    (SUBSYSTEM_NONE - 1) /* not looked at yet */
#define NO_MARK    UINT8_MAX
#define MARK_ROOM  8u /* tag, length and index behind a sample */
#define FRAME_TYPE "profile.frame.type"

struct otlp_walk {
    const struct subsystem_work *work;
    struct flue_payload *payload;
    struct flue_error *error;
    enum flue_code code;
    struct flue_otlp_dictionary d;
    uint16_t *functions, *mappings, *locations, *stacks; /* verdicts */
    uint16_t *frame_types;         /* of attribute rows; NULL: no row is one */
    uint8_t *marks;                /* subsystems of attribute rows; NULL: no row is a mark */
    uint32_t rows[SUBSYSTEMS_MAX]; /* of our own marks; 0: none yet */
    uint32_t key;                  /* of them; 0: none yet */
    uint8_t *samples;              /* subsystems of one profile's, | KEPT */
    size_t sample_room;
    uint64_t sums[SUBSYSTEMS_MAX];
};

#define KEPT 0x80u
_Static_assert(SUBSYSTEMS_MAX <= KEPT, "a subsystem and a flag in one byte");

static bool no_memory(struct otlp_walk *w)
{
    w->code = flue_fail(w->error, FLUE_NO_MEMORY,
                        "classifying samples takes more than the %zu bytes set aside",
                        w->work->arena->budget);
    return false;
}

/* ---- tables --------------------------------------------------------------------------------- */

static bool read_attributes(struct otlp_walk *w)
{
    const struct subsystem_rules *rules = w->work->rules;
    uint32_t count = w->d.counts[FLUE_OTLP_ATTRIBUTE];
    uint32_t type_key = 0, mark_key = 0; /* row 0 is the empty string */
    for (uint32_t i = 0; i < count; i++) {
        struct flue_otlp_attribute_row row;
        struct flue_value value;
        flue_otlp_attribute_row_read(w->d.rows[FLUE_OTLP_ATTRIBUTE][i], &row);
        struct flue_bytes key = flue_otlp_string(&w->d, row.key);
        if (row.key && (row.key == type_key || flue_bytes_is(key, FRAME_TYPE))) {
            type_key = row.key;
            if (!w->frame_types) {
                w->frame_types = flue_arena_alloc(w->work->arena, count * sizeof(uint16_t));
                if (!w->frame_types)
                    return no_memory(w);
                memset(w->frame_types, 0xff, count * sizeof(uint16_t));
            }
            flue_otlp_value_read(row.value, &w->d, &value);
            if (value.type == FLUE_VALUE_STRING)
                w->frame_types[i] = subsystem_of_frame_type(rules, value.text);
        } else if (row.key && w->work->mark.size &&
                   (row.key == mark_key || flue_bytes_equal(key, w->work->mark))) {
            mark_key = row.key;
            if (!w->marks) {
                w->marks = flue_arena_alloc(w->work->arena, count);
                if (!w->marks)
                    return no_memory(w);
                memset(w->marks, NO_MARK, count);
            }
            flue_otlp_value_read(row.value, &w->d, &value);
            w->marks[i] = value.type == FLUE_VALUE_STRING ? subsystem_by_name(rules, value.text)
                                                          : SUBSYSTEM_OTHER;
        }
    }
    return true;
}

static uint16_t least(uint16_t a, uint16_t b)
{
    return a < b ? a : b;
}

static struct flue_bytes string(const struct otlp_walk *w, uint64_t row)
{
    return row < w->d.counts[FLUE_OTLP_STRING] ? w->d.rows[FLUE_OTLP_STRING][row]
                                               : flue_bytes(NULL, 0);
}

static bool read_functions(struct otlp_walk *w)
{
    uint32_t count = w->d.counts[FLUE_OTLP_FUNCTION], strings = w->d.counts[FLUE_OTLP_STRING];
    uint16_t *files = flue_arena_alloc(w->work->arena, (strings + (size_t)1) * sizeof *files);
    w->functions = flue_arena_alloc(w->work->arena, (count + (size_t)1) * sizeof *w->functions);
    if (!files || !w->functions)
        return no_memory(w);
    for (uint32_t i = 0; i <= strings; i++)
        files[i] = UNKNOWN;
    for (uint32_t i = 0; i < count; i++) {
        struct flue_reader r = flue_reader(w->d.rows[FLUE_OTLP_FUNCTION][i]);
        struct flue_field_value f;
        uint64_t names[4] = {0}; /* 1 name, 2 system name, 3 file */
        uint16_t file = SUBSYSTEM_NONE;
        while (flue_read_field(&r, &f))
            if (f.number < 4)
                names[f.number] = f.varint;
        if (names[3] < strings) {
            if (files[names[3]] == UNKNOWN)
                files[names[3]] = subsystem_of_file(w->work->rules, string(w, names[3]));
            file = files[names[3]];
        }
        w->functions[i] =
            least(file, subsystem_of_function(w->work->rules, string(w, names[1]),
                                              string(w, names[2] == names[1] ? 0 : names[2])));
    }
    return true;
}

static bool read_mappings(struct otlp_walk *w)
{
    uint32_t count = w->d.counts[FLUE_OTLP_MAPPING];
    w->mappings = flue_arena_alloc(w->work->arena, (count + (size_t)1) * sizeof *w->mappings);
    if (!w->mappings)
        return no_memory(w);
    for (uint32_t i = 0; i < count; i++) {
        struct flue_otlp_mapping m;
        flue_otlp_mapping_read(w->d.rows[FLUE_OTLP_MAPPING][i], &m);
        w->mappings[i] = subsystem_of_mapping(w->work->rules, flue_otlp_string(&w->d, m.filename));
    }
    return true;
}

static uint16_t line(const struct otlp_walk *w, struct flue_bytes bytes)
{
    struct flue_reader r = flue_reader(bytes);
    struct flue_field_value f;
    uint64_t function = 0;
    while (flue_read_field(&r, &f))
        function = f.number == 1 ? f.varint : function;
    return function < w->d.counts[FLUE_OTLP_FUNCTION] ? w->functions[function] : SUBSYSTEM_NONE;
}

static uint16_t frame_type(const struct otlp_walk *w, const struct flue_field_value *f)
{
    struct flue_reader run = flue_reader(f->bytes);
    uint16_t least_of_all = SUBSYSTEM_NONE;
    uint64_t row = f->varint;
    bool more = f->type == FLUE_VARINT || flue_read_varint(&run, &row);
    for (; more; more = flue_read_varint(&run, &row))
        if (row < w->d.counts[FLUE_OTLP_ATTRIBUTE])
            least_of_all = least(least_of_all, w->frame_types[row]);
    return least_of_all;
}

/* 1 mapping, 3 lines, 4 attributes: where the code lies counts for each line. */
static uint16_t location(const struct otlp_walk *w, struct flue_bytes row)
{
    struct flue_reader r = flue_reader(row);
    struct flue_field_value f;
    struct flue_bytes first = {NULL, 0};
    uint16_t frame = SUBSYSTEM_NONE, sum = SUBSYSTEM_NONE;
    uint64_t mapping = 0;
    size_t lines = 0;
    while (flue_read_field(&r, &f)) {
        if (f.number == 1)
            mapping = f.varint;
        else if (f.number == 3 && lines++ == 0)
            first = f.bytes;
        else if (f.number == 4 && w->frame_types)
            frame = least(frame, frame_type(w, &f));
    }
    if (mapping < w->d.counts[FLUE_OTLP_MAPPING])
        frame = least(frame, w->mappings[mapping]);
    if (lines == 0)
        return frame;
    if (lines == 1)
        return least(frame, line(w, first));
    for (r = flue_reader(row); flue_read_field(&r, &f);)
        if (f.number == 3 && subsystem_join(w->work->rules, &sum, least(frame, line(w, f.bytes))))
            break;
    return sum;
}

static bool read_stacks(struct otlp_walk *w)
{
    uint32_t locations = w->d.counts[FLUE_OTLP_LOCATION], count = w->d.counts[FLUE_OTLP_STACK];
    w->locations = flue_arena_alloc(w->work->arena, (locations + (size_t)1) * sizeof(uint16_t));
    w->stacks = flue_arena_alloc(w->work->arena, (count + (size_t)1) * sizeof *w->stacks);
    if (!w->locations || !w->stacks)
        return no_memory(w);
    for (uint32_t i = 0; i < locations; i++)
        w->locations[i] = location(w, w->d.rows[FLUE_OTLP_LOCATION][i]);
    for (uint32_t i = 0; i < count; i++) {
        struct flue_otlp_numbers it = flue_otlp_stack_locations(w->d.rows[FLUE_OTLP_STACK][i]);
        uint16_t sum = SUBSYSTEM_NONE;
        uint64_t at;
        while (flue_otlp_numbers_next(&it, &at))
            if (at < locations && subsystem_join(w->work->rules, &sum, w->locations[at]))
                break;
        w->stacks[i] = sum;
    }
    return true;
}

/* ---- samples -------------------------------------------------------------------------------- */

static void see_attribute(const struct otlp_walk *w, uint64_t index, uint8_t *subsystem)
{
    if (index < w->d.counts[FLUE_OTLP_ATTRIBUTE] && w->marks[index] != NO_MARK)
        *subsystem = w->marks[index] | KEPT;
}

static void add_value(int64_t *sum, uint64_t value)
{
    if (__builtin_add_overflow(*sum, (int64_t)value, sum))
        *sum = (int64_t)value < 0 ? INT64_MIN : INT64_MAX;
}

/* 1 stack, 2 attributes, 4 values, 5 timestamps, each worth one where there are no values. */
static uint8_t read_sample(const struct otlp_walk *w, struct flue_bytes sample, int64_t *value)
{
    struct flue_reader r = flue_reader(sample), run;
    struct flue_field_value f;
    uint64_t stack = 0, number;
    size_t timestamps = 0;
    bool values = false;
    uint8_t mark = NO_MARK;
    *value = 0;
    while (flue_read_field(&r, &f)) {
        switch (f.number) {
        case 1:
            stack = f.varint;
            break;
        case 2:
            if (!w->marks)
                break;
            if (f.type == FLUE_VARINT)
                see_attribute(w, f.varint, &mark);
            for (run = flue_reader(f.bytes); flue_read_varint(&run, &number);)
                see_attribute(w, number, &mark);
            break;
        case 4:
            values = values || f.type == FLUE_VARINT || f.bytes.size;
            if (f.type == FLUE_VARINT)
                add_value(value, f.varint);
            for (run = flue_reader(f.bytes); flue_read_varint(&run, &number);)
                add_value(value, number);
            break;
        case 5:
            timestamps += f.type == FLUE_FIXED64 ? 1 : f.bytes.size / 8;
            break;
        default:
            break;
        }
    }
    if (!values)
        *value = (int64_t)timestamps;
    if (mark != NO_MARK)
        return mark;
    return subsystem_of_verdict(
        w->work->rules, stack < w->d.counts[FLUE_OTLP_STACK] ? w->stacks[stack] : SUBSYSTEM_NONE);
}

/* The attribute row of a subsystem, appended where it is needed first; 0 with w->code on failure.
 */
static uint32_t row_of(struct otlp_walk *w, uint8_t subsystem)
{
    uint8_t row[2 * SUBSYSTEM_NAME_MAX], *at = row;
    struct flue_bytes name = flue_bytes_of(subsystem_name(w->work->rules, subsystem));
    if (w->rows[subsystem])
        return w->rows[subsystem];
    if (!w->key)
        w->code = flue_otlp_dictionary_append(w->payload, FLUE_OTLP_STRING, w->work->mark, &w->key,
                                              w->error);
    if (w->code)
        return 0;
    *at++ = (uint8_t)flue_tag(1, FLUE_VARINT);
    at = flue_write_varint(at, w->key);
    at = flue_write_len_head(at, 2, flue_len_field_size(1, name.size));
    at = flue_write_len_field(at, 1, name);
    w->code = flue_otlp_dictionary_append(w->payload, FLUE_OTLP_ATTRIBUTE,
                                          flue_bytes(row, (size_t)(at - row)), &w->rows[subsystem],
                                          w->error);
    return w->code ? 0 : w->rows[subsystem];
}

static bool mark_samples(struct otlp_walk *w, uint32_t profile, size_t count, size_t bytes)
{
    uint8_t *out = flue_arena_alloc(w->work->arena, bytes + count * (2 * MARK_ROOM) + 1), *at = out;
    struct flue_otlp_samples it = flue_otlp_samples(w->payload, profile);
    struct flue_bytes sample;
    if (!out)
        return no_memory(w);
    for (size_t i = 0; i < count && flue_otlp_samples_next(&it, &sample); i++) {
        uint8_t subsystem = w->samples[i];
        size_t size = 0;
        uint32_t row = 0;
        if (!(subsystem & KEPT)) {
            /* An appended row leaves what was received, and so `it`, where it is. */
            row = row_of(w, subsystem);
            if (!row)
                return false;
            size = flue_len_field_size(2, flue_varint_size(row));
        }
        at = flue_write_len_head(at, 2, sample.size + size);
        memcpy(at, sample.data, sample.size);
        at += sample.size;
        if (row) {
            at = flue_write_len_head(at, 2, flue_varint_size(row));
            at = flue_write_varint(at, row);
        }
    }
    w->code =
        flue_otlp_samples_set(w->payload, profile, flue_bytes(out, (size_t)(at - out)), w->error);
    return w->code == FLUE_OK;
}

static bool one_profile(void *arg, const struct flue_otlp_profile *profile)
{
    struct otlp_walk *w = arg;
    struct flue_quantity_type type;
    struct flue_otlp_samples it = flue_otlp_samples(w->payload, profile->profile);
    size_t subsystems = subsystem_count(w->work->rules), n = 0, bytes = 0, open = 0;
    struct flue_bytes sample;
    flue_otlp_quantity(w->payload, &w->d, profile, &type);
    bool counts = type.quantity != FLUE_QUANTITY_NONE && w->work->report;

    if (w->sample_room < profile->samples && w->work->mark.size) {
        w->sample_room = profile->samples + (size_t)profile->samples / 2;
        w->samples = flue_arena_alloc(w->work->arena, w->sample_room);
        if (!w->samples)
            return no_memory(w);
    }
    memset(w->sums, 0, subsystems * sizeof *w->sums);
    while (flue_otlp_samples_next(&it, &sample)) {
        int64_t value;
        uint8_t subsystem = read_sample(w, sample, &value);
        if (counts)
            flue_quantity_add(&w->sums[subsystem & ~KEPT],
                              flue_quantity_amount(value, type.factor));
        if (w->work->mark.size && n < w->sample_room)
            w->samples[n] = subsystem;
        n++;
        open += !(subsystem & KEPT);
        bytes += sample.size;
    }
    if (counts && n)
        w->work->report(w->work->arg, profile->resource, &type, w->sums);
    if (!w->work->mark.size || !open)
        return true;
    return mark_samples(w, profile->profile, n < w->sample_room ? n : w->sample_room, bytes);
}

enum flue_code subsystem_otlp(const struct subsystem_work *work, struct flue_payload *payload,
                              struct flue_error *error)
{
    struct otlp_walk w = {.work = work, .payload = payload, .error = error};
    enum flue_code code = flue_otlp_dictionary_open(payload, work->arena, &w.d, error);
    if (code)
        return code;
    if (read_attributes(&w) && read_functions(&w) && read_mappings(&w) && read_stacks(&w))
        flue_otlp_each_profile(payload, one_profile, &w);
    return w.code;
}
