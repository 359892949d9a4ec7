/* from_pprof.c: series of pprof as an OTLP request: a ResourceProfiles for every series, in it a
 * ScopeProfiles for every pprof, in it a Profile for every sample type, in the pprof's order. One
 * dictionary for all. See convert.h; field numbers: profiles.proto, resource.proto, common.proto.
 */
#include "proto/convert/from_pprof.h"

#include "collector/base/codec.h"
#include "proto/convert/to_pprof.h"
#include "proto/otlp/dictionary_copy.h"
#include "proto/pprof/names.h"
#include "proto/pprof/pprof.h"

#define MOST_INFLATED ((size_t)64 << 20) /* of a profile that nobody has checked */

struct from_all {
    struct flue_work work;
    struct flue_otlp_tables tables;
    struct flue_out body;
    struct flue_arena arena; /* of one pprof */
    struct flue_from_pprof from;
    struct flue_error *error;
};

static enum flue_code no_memory(struct from_all *all)
{
    return flue_work_failed(&all->work, all->error);
}

/* ------------------------------------------------------------------ attributes */

struct series_attributes {
    struct flue_out *body;
    struct flue_bytes scope_name, scope_version;
};

static bool series_attribute(void *arg, const struct flue_attribute *attribute)
{
    struct series_attributes *series = arg;
    uint8_t *at;

    /* attribute_each lends strings of the payload, which stays as it is meanwhile */
    if (flue_bytes_is(attribute->key, "otel.scope.name"))
        series->scope_name = attribute->value.text;
    else if (flue_bytes_is(attribute->key, "otel.scope.version"))
        series->scope_version = attribute->value.text;
    else if ((at = flue_out_room(series->body, flue_otlp_attribute_size(1, attribute))))
        flue_out_end(series->body, flue_otlp_attribute_write(at, 1, attribute));
    return true;
}

/* Scope attributes (field 3): what sample types there were, in which order, and the default. */
static void scope_write(struct from_all *all, const struct series_attributes *series)
{
    const struct flue_pprof_read *read = &all->from.read;
    struct flue_out *body = &all->body;
    size_t scope = flue_out_open(body, 1), attribute, value, array, element;
    uint8_t *at;

    if (series->scope_name.size)
        flue_out_field(body, 1, series->scope_name);
    if (series->scope_version.size)
        flue_out_field(body, 2, series->scope_version);
    attribute = flue_out_open(body, 3);
    flue_out_field(body, 1, FLUE_BYTES("pprof.scope.sample_type_order"));
    value = flue_out_open(body, 2);
    array = flue_out_open(body, 5);
    for (size_t i = 0; i < read->type_count; i++) {
        element = flue_out_open(body, 1);
        at = flue_out_room(body, 16);
        if (at) {
            *at++ = 3 << 3;
            flue_out_end(body, flue_write_varint(at, i));
        }
        flue_out_close(body, element);
    }
    flue_out_close(body, array);
    flue_out_close(body, value);
    flue_out_close(body, attribute);
    if (read->default_sample_type && read->default_sample_type < read->string_count) {
        attribute = flue_out_open(body, 3);
        flue_out_field(body, 1, FLUE_BYTES("pprof.scope.default_sample_type"));
        value = flue_out_open(body, 2);
        flue_out_field(body, 1, read->strings[read->default_sample_type]);
        flue_out_close(body, value);
        flue_out_close(body, attribute);
    }
    flue_out_close(body, scope);
}

static uint32_t comments_row(struct flue_from_pprof *from)
{
    struct flue_out *scratch = &from->tables->scratch;
    const struct flue_pprof_read *read = &from->read;
    uint32_t key = flue_from_text(from, FLUE_BYTES("pprof.profile.comment")), row;
    size_t mark = flue_out_size(scratch), value, array, element;

    flue_out_number(scratch, 1, key);
    value = flue_out_open(scratch, 2);
    array = flue_out_open(scratch, 5);
    for (size_t i = 0; i < read->comment_count; i++) {
        element = flue_out_open(scratch, 1);
        flue_out_field(scratch, 1,
                       read->comments[i] < read->string_count ? read->strings[read->comments[i]]
                                                              : flue_bytes(NULL, 0));
        flue_out_close(scratch, element);
    }
    flue_out_close(scratch, array);
    flue_out_close(scratch, value);
    row = flue_otlp_tables_put_scratch(from->tables, FLUE_OTLP_ATTRIBUTE, mark);
    return row == FLUE_OTLP_NO_ROW ? 0 : row;
}

static bool attribute_of_string(struct from_all *all, const char *key, uint64_t number,
                                uint32_t **rows, size_t *count, size_t *room)
{
    struct flue_from_pprof *from = &all->from;

    if (number == 0 || number >= from->read.string_count || from->read.strings[number].size == 0)
        return true;
    return FLUE_ARENA_PUSH(
        &all->arena, *rows, *count, *room,
        flue_from_attribute_text(from, flue_bytes_of(key), from->read.strings[number]));
}

/* Attribute rows of every Profile of this pprof: what a pprof says of itself, and the labels of its
 * series that are no attributes. */
static bool profile_attributes(struct from_all *all, const struct flue_pprof_series *series,
                               uint32_t **rows, size_t *count)
{
    struct flue_from_pprof *from = &all->from;
    char key[256];
    size_t room = 0;

    *rows = NULL;
    *count = 0;
    if (from->read.comment_count &&
        !FLUE_ARENA_PUSH(&all->arena, *rows, *count, room, comments_row(from)))
        return false;
    if (!attribute_of_string(all, "pprof.profile.drop_frames", from->read.drop_frames, rows, count,
                             &room) ||
        !attribute_of_string(all, "pprof.profile.keep_frames", from->read.keep_frames, rows, count,
                             &room) ||
        !attribute_of_string(all, "pprof.profile.doc_url", from->read.doc_url, rows, count, &room))
        return false;
    for (size_t i = 0; i < series->label_count; i++) {
        const struct flue_pprof_label *label = &series->labels[i];

        if (!flue_label_is_identity(label->name) || label->name.size > 200)
            continue;
        memcpy(key, FLUE_IDENTITY_PREFIX, sizeof FLUE_IDENTITY_PREFIX - 1);
        memcpy(key + sizeof FLUE_IDENTITY_PREFIX - 1, label->name.data, label->name.size);
        if (!FLUE_ARENA_PUSH(
                &all->arena, *rows, *count, room,
                flue_from_attribute_text(
                    from, flue_bytes(key, sizeof FLUE_IDENTITY_PREFIX - 1 + label->name.size),
                    label->value)))
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------------- samples */

struct samples {
    struct flue_bytes *heads; /* fields 1 to 3 of each Sample, encoded */
    int64_t *values;          /* type_count for each */
    size_t count;
};

static bool samples_read(struct from_all *all, struct samples *samples)
{
    struct flue_from_pprof *from = &all->from;
    struct flue_pprof_read *read = &from->read;
    struct flue_reader r = flue_reader(read->raw), s, run;
    struct flue_field_value f, g;
    size_t cells;

    samples->count = 0;
    if (__builtin_mul_overflow(read->samples, read->type_count, &cells))
        return false;
    samples->heads = flue_arena_alloc(&all->arena, read->samples * sizeof *samples->heads);
    samples->values = flue_arena_zalloc(&all->arena, cells, sizeof *samples->values);
    if (!samples->heads || !samples->values)
        return false;
    while (flue_read_field(&r, &f) && samples->count < read->samples) {
        int64_t *values = samples->values + samples->count * read->type_count;
        struct flue_bytes labels;
        size_t n = 0;
        uint64_t value;
        uint32_t stack;
        uint8_t *head, *at;

        if (f.number != 2 || f.type != FLUE_LEN)
            continue;
        stack = flue_from_stack(from, f.bytes);
        labels = flue_from_labels(from, f.bytes);
        head = labels.data ? flue_arena_alloc(&all->arena, labels.size + 8) : NULL;
        if (!head)
            return false;
        at = head;
        if (stack) {
            *at++ = 1 << 3;
            at = flue_write_varint(at, stack);
        }
        memcpy(at, labels.data, labels.size);
        samples->heads[samples->count++] = flue_bytes(head, (size_t)(at - head) + labels.size);
        s = flue_reader(f.bytes);
        while (flue_read_field(&s, &g)) {
            if (g.number != 2)
                continue;
            run = flue_reader(g.bytes);
            if (g.type == FLUE_VARINT && n < read->type_count)
                values[n++] = (int64_t)g.varint;
            else if (g.type == FLUE_LEN)
                while (n < read->type_count && flue_read_varint(&run, &value))
                    values[n++] = (int64_t)value;
        }
    }
    return true;
}

static void sample_write(struct flue_out *body, struct flue_bytes head, int64_t value)
{
    size_t value_size = flue_varint_size((uint64_t)value);
    size_t size = head.size + 2 + value_size;
    uint8_t *at = flue_out_room(body, size + 16);

    if (!at)
        return;
    at = flue_write_len_head(at, 2, size);
    memcpy(at, head.data, head.size);
    at += head.size;
    *at++ = 4 << 3 | FLUE_LEN;
    *at++ = (uint8_t)value_size;
    flue_out_end(body, flue_write_varint(at, (uint64_t)value));
}

static void type_write(struct from_all *all, uint32_t field, struct flue_profile_type_rows type)
{
    uint32_t name = flue_from_string(&all->from, type.type);
    uint32_t unit = flue_from_string(&all->from, type.unit);
    size_t mark = flue_out_open(&all->body, field);

    flue_out_number(&all->body, 1, name);
    flue_out_number(&all->body, 2, unit);
    flue_out_close(&all->body, mark);
}

/* "8-4-4-4-12" or 32 hex digits: 16 bytes. Other ids are for logs and stay behind. */
static bool id_read(struct flue_bytes id, uint8_t out[16])
{
    uint8_t digits[32];
    size_t n = 0;

    for (size_t i = 0; i < id.size; i++) {
        if (id.data[i] == '-')
            continue;
        if (n == sizeof digits)
            return false;
        digits[n++] = id.data[i];
    }
    return n == sizeof digits && flue_unhex(flue_bytes(digits, n), out, 16);
}

static void profile_write(struct from_all *all, struct flue_profile_type_rows type, size_t column,
                          const struct samples *samples, const uint32_t *attributes,
                          size_t attribute_count, struct flue_bytes id)
{
    const struct flue_pprof_read *read = &all->from.read;
    struct flue_out *body = &all->body;
    size_t profile = flue_out_open(body, 2), packed;
    uint8_t profile_id[16];

    type_write(all, 1, type);
    for (size_t i = 0; i < samples->count && column < read->type_count; i++)
        sample_write(body, samples->heads[i], samples->values[i * read->type_count + column]);
    flue_out_fixed64(body, 3, read->time_nanos);
    flue_out_number(body, 4, read->duration_nanos);
    if (read->period_type.type || read->period_type.unit)
        type_write(all, 5, read->period_type);
    flue_out_number(body, 6, read->period);
    if (column == 0 && id_read(id, profile_id)) /* it is one profile's: the first's */
        flue_out_field(body, 7, flue_bytes(profile_id, sizeof profile_id));
    if (attribute_count) {
        packed = flue_out_open(body, 11);
        for (size_t i = 0; i < attribute_count; i++)
            flue_out_varint(body, attributes[i]);
        flue_out_close(body, packed);
    }
    flue_out_close(body, profile);
}

/* ------------------------------------------------------------------------ whole */

static enum flue_code pprof_convert(struct from_all *all, const struct flue_pprof_series *series,
                                    const struct series_attributes *attributes,
                                    struct flue_bytes raw, struct flue_bytes id)
{
    static const struct flue_profile_type_rows no_type;
    struct flue_from_pprof *from = &all->from;
    struct samples samples;
    uint32_t *rows;
    size_t row_count, scope;
    bool broken;

    memset(from, 0, sizeof *from);
    from->tables = &all->tables;
    from->arena = &all->arena;
    if (!flue_pprof_read(&from->read, &all->arena, raw, &broken))
        return broken ? flue_fail(all->error, FLUE_INVALID,
                                  "pprof profile of %zu bytes: broken protobuf", raw.size)
                      : no_memory(all);
    if (!flue_table_init(&from->memo_table, &all->arena, 64) ||
        !flue_out_init(&from->packed, 256, all->work.budget))
        return no_memory(all);
    for (size_t i = 0; i < from->read.mappings.count; i++) /* the first is the main binary */
        flue_from_mapping(from, &from->read.mappings.items[i]);
    if (!samples_read(all, &samples) || !profile_attributes(all, series, &rows, &row_count)) {
        flue_out_destroy(&from->packed);
        return no_memory(all);
    }
    scope = flue_out_open(&all->body, 2);
    scope_write(all, attributes);
    for (size_t i = 0; i < from->read.type_count; i++)
        profile_write(all, from->read.types[i], i, &samples, rows, row_count, id);
    if (from->read.type_count == 0)
        profile_write(all, no_type, 0, &samples, rows, row_count, id);
    flue_out_close(&all->body, scope);
    flue_out_destroy(&from->packed);
    if (all->body.failed || all->tables.failed || all->tables.scratch.failed)
        return no_memory(all);
    return FLUE_OK;
}

static enum flue_code profile_convert(struct from_all *all, const struct flue_pprof_series *series,
                                      const struct series_attributes *attributes,
                                      const struct flue_pprof_profile *profile)
{
    size_t limit = profile->facts.inflated_size ? profile->facts.inflated_size : MOST_INFLATED;
    bool gzip =
        profile->bytes.size > 2 && profile->bytes.data[0] == 0x1f && profile->bytes.data[1] == 0x8b;
    struct flue_block *inflated = NULL;
    struct flue_bytes raw = profile->bytes;
    enum flue_code code = FLUE_OK;

    if (gzip) {
        code = flue_inflate(FLUE_GZIP, profile->bytes, limit, FLUE_RATIO_LIMIT, NULL, &inflated,
                            all->error);
        if (code != FLUE_OK)
            return code;
        raw = flue_block_bytes(inflated);
    }
    code = pprof_convert(all, series, attributes, raw, profile->id);
    flue_work_charge(&all->work, all->arena.used + flue_out_size(&all->body) +
                                     flue_otlp_tables_size(&all->tables) +
                                     (inflated ? inflated->size : 0));
    flue_block_unref(inflated);
    flue_arena_reset(&all->arena);
    return code;
}

static enum flue_code series_convert(struct from_all *all, const struct flue_payload *payload,
                                     size_t number)
{
    const struct flue_pprof_series *series = flue_pprof_series_at(payload, number);
    struct series_attributes attributes = {.body = &all->body};
    size_t outer, resource;
    enum flue_code code = FLUE_OK;

    outer = flue_out_open(&all->body, 1);
    resource = flue_out_open(&all->body, 1);
    payload->ops->attribute_each(payload, number, series_attribute, &attributes);
    flue_out_close(&all->body, resource);
    for (size_t i = 0; i < series->profile_count && code == FLUE_OK; i++)
        code = profile_convert(all, series, &attributes, &series->profiles[i]);
    flue_out_close(&all->body, outer);
    return code;
}

enum flue_code flue_pprof_to_otlp(const struct flue_payload *payload, struct flue_account *account,
                                  struct flue_payload **out, struct flue_error *error)
{
    struct from_all all = {.error = error};
    enum flue_code code = FLUE_OK;
    size_t inflated = 0;

    *out = NULL;
    for (size_t i = 0; i < flue_pprof_series_count(payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(payload, i);

        for (size_t j = 0; j < series->profile_count; j++)
            inflated += series->profiles[j].facts.inflated_size
                            ? series->profiles[j].facts.inflated_size
                            : series->profiles[j].bytes.size * 4;
    }
    flue_work_begin(&all.work, account, inflated);
    flue_arena_init(&all.arena, all.work.budget, 0);
    flue_otlp_tables_init(&all.tables, &all.work, true, inflated);
    flue_out_init(&all.body, inflated + 1024, all.work.budget);
    if (all.tables.failed || all.body.failed)
        code = no_memory(&all);
    for (size_t i = 0; i < flue_pprof_series_count(payload) && code == FLUE_OK; i++)
        code = series_convert(&all, payload, i);
    if (code == FLUE_OK)
        code = flue_otlp_copy_finish(&all.body, &all.tables, &all.work, out, error);
    if (code == FLUE_OK && !*out)
        code = flue_fail(error, FLUE_INVALID, "%zu series hold no profile",
                         flue_pprof_series_count(payload));
    flue_out_destroy(&all.body);
    flue_otlp_tables_destroy(&all.tables);
    flue_arena_destroy(&all.arena);
    flue_work_end(&all.work);
    return code;
}
