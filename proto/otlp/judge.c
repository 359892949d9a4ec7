/* judge.c: two kinds of walk over the table of the schema: of structure, and of indices. */
#include "proto/otlp/judge.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* request, ResourceProfiles, Resource, KeyValue, and three messages for each level of nesting */
#define MAX_PATH (8 + 3 * FLUE_OTLP_MAX_DEPTH)

struct step {
    const char *name;
    int64_t number; /* -1: not repeated */
};

struct judge {
    struct flue_otlp_verdict *verdict;
    struct flue_bytes body;
    struct step path[MAX_PATH];
    unsigned depth, values; /* of the path; of AnyValues */
    bool indices;           /* the second kind of walk */
    bool quiet;             /* only the first reason is told: telling costs a walk */
    char reason[400];       /* why the walk failed */
    size_t written;
};

static void add(struct judge *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct judge *j, const char *format, ...)
{
    va_list args;
    int n;
    if (j->quiet || j->written >= sizeof j->reason - 1)
        return;
    va_start(args, format);
    n = vsnprintf(j->reason + j->written, sizeof j->reason - j->written, format, args);
    va_end(args);
    if (n > 0)
        j->written += (size_t)n;
}

/* Begins what is said about the field that the path ends in. */
static void add_path(struct judge *j)
{
    for (unsigned i = 0; i < j->depth; i++) {
        if (i == 6 && j->depth > 12) { /* nested values: the ends tell enough */
            add(j, "...");
            i = j->depth - 4;
        }
        add(j, "%s%s", i ? "." : "", j->path[i].name);
        if (j->path[i].number >= 0)
            add(j, "[%" PRId64 "]", j->path[i].number);
    }
    add(j, "%s", j->depth ? ": " : "request: ");
}

static bool walk(struct judge *j, enum flue_otlp_message message, struct flue_bytes content);

/* The row's own fault, said behind that of the field which refers to it. */
static void explain_row(struct judge *j, uint32_t table, uint64_t wanted)
{
    struct flue_reader request = flue_reader(j->body);
    struct flue_field_value field;
    struct step path[MAX_PATH];
    unsigned depth = j->depth;
    uint64_t row = 0;

    if (j->quiet)
        return;
    while (flue_read_field(&request, &field)) {
        struct flue_reader rows;
        if (field.number != 2)
            continue;
        rows = flue_reader(field.bytes);
        while (flue_read_field(&rows, &field)) {
            if (field.number != table || row++ != wanted)
                continue;
            memcpy(path, j->path, sizeof path);
            j->path[0] = (struct step){"dictionary", -1};
            j->path[1] = (struct step){flue_otlp_table_names[table], (int64_t)wanted};
            j->depth = 2;
            walk(j, flue_otlp_row_messages[table], field.bytes);
            memcpy(j->path, path, sizeof path);
            j->depth = depth;
            return;
        }
    }
}

static bool index_good(struct judge *j, uint32_t table, uint64_t value)
{
    uint32_t rows = j->verdict->rows[table];
    if (value >= (rows ? rows : 1)) {
        add_path(j);
        add(j, "%" PRId64 ", but %s has %" PRIu32 " row%s", (int64_t)value,
            flue_otlp_table_names[table], rows, rows == 1 ? "" : "s");
        return false;
    }
    if (flue_otlp_row_bad(j->verdict, table, value)) {
        add_path(j);
        add(j, "%" PRIu64 ", a bad row: ", value);
        explain_row(j, table, value);
        return false;
    }
    return true;
}

static bool structure_fault(struct judge *j, const char *what)
{
    add_path(j);
    add(j, "%s", what);
    return false;
}

static bool wire_type(struct judge *j, const struct flue_field_value *field,
                      enum flue_wire_type wanted)
{
    if (field->type == wanted)
        return true;
    add_path(j);
    add(j, "wire type %d, but the field has %d", (int)field->type, (int)wanted);
    return false;
}

static bool packed(struct judge *j, const struct flue_otlp_field *known, struct flue_bytes run,
                   uint64_t *count)
{
    struct flue_reader reader = flue_reader(run);
    uint64_t value, at = 0;

    while (!flue_reader_done(&reader)) {
        if (!flue_read_varint(&reader, &value))
            return structure_fault(
                j, "a packed run that ends within a number, or one of over 64 bits");
        if (j->indices && known->kind == FLUE_OTLP_F_INDICES) {
            j->path[j->depth - 1].number = (int64_t)at;
            if (!index_good(j, known->to, value))
                return false;
        }
        at++;
    }
    *count += at;
    return true;
}

static bool one_field(struct judge *j, const struct flue_otlp_field *known,
                      const struct flue_field_value *field, uint64_t *values, uint64_t *times)
{
    uint64_t unused = 0;
    switch (known->kind) {
    case FLUE_OTLP_F_NUMBER:
        return wire_type(j, field, FLUE_VARINT);
    case FLUE_OTLP_F_FIXED64:
        return wire_type(j, field, FLUE_FIXED64);
    case FLUE_OTLP_F_STRING:
    case FLUE_OTLP_F_BYTES:
        return wire_type(j, field, FLUE_LEN);
    case FLUE_OTLP_F_ID:
        if (!wire_type(j, field, FLUE_LEN))
            return false;
        if (j->indices && field->bytes.size != 0 && field->bytes.size != known->to) {
            add_path(j);
            add(j, "%zu bytes, but the id has %u", field->bytes.size, known->to);
            return false;
        }
        return true;
    case FLUE_OTLP_F_INDEX:
    case FLUE_OTLP_F_REFERENCE:
        return wire_type(j, field, FLUE_VARINT) &&
               (!j->indices || index_good(j, known->to, field->varint));
    case FLUE_OTLP_F_INDICES:
        if (field->type == FLUE_VARINT)
            return !j->indices || index_good(j, known->to, field->varint);
        return wire_type(j, field, FLUE_LEN) && packed(j, known, field->bytes, &unused);
    case FLUE_OTLP_F_NUMBERS:
        if (field->type == FLUE_VARINT) {
            ++*values;
            return true;
        }
        return wire_type(j, field, FLUE_LEN) && packed(j, known, field->bytes, values);
    case FLUE_OTLP_F_TIMES:
        if (field->type == FLUE_FIXED64) {
            ++*times;
            return true;
        }
        if (!wire_type(j, field, FLUE_LEN))
            return false;
        if (field->bytes.size % 8)
            return structure_fault(j, "a packed run of fixed64 whose length is no multiple of 8");
        *times += field->bytes.size / 8;
        return true;
    case FLUE_OTLP_F_MESSAGE: {
        bool good;
        if (!wire_type(j, field, FLUE_LEN))
            return false;
        if (known->to == FLUE_OTLP_M_ANY_VALUE && ++j->values > FLUE_OTLP_MAX_DEPTH)
            return structure_fault(j, "values nested deeper than 32, the limit");
        good = walk(j, known->to, field->bytes);
        j->values -= known->to == FLUE_OTLP_M_ANY_VALUE;
        return good;
    }
    default:
        return true;
    }
}

/* False: at fault, and why is written. The path is left as it was. */
static bool walk(struct judge *j, enum flue_otlp_message message, struct flue_bytes content)
{
    struct flue_reader reader = flue_reader(content);
    struct flue_field_value field;
    int64_t counts[FLUE_OTLP_FIELDS] = {0};
    uint64_t values = 0, times = 0;
    unsigned depth = j->depth;

    if (depth >= MAX_PATH)
        return structure_fault(j, "messages nested too deep");
    while (flue_read_field(&reader, &field)) {
        const struct flue_otlp_field *known = flue_otlp_known(message, field.number);
        bool good;
        if (known->kind == FLUE_OTLP_F_UNKNOWN)
            continue;
        j->path[depth].name = known->name;
        j->path[depth].number = known->repeated ? counts[field.number]++ : -1;
        j->depth = depth + 1;
        good = one_field(j, known, &field, &values, &times);
        j->depth = depth;
        if (!good)
            return false;
    }
    if (!flue_reader_done(&reader)) {
        add_path(j);
        add(j, "broken at byte %zu of the body (a tag, a length or a number that does not end)",
            (size_t)(reader.at - j->body.data));
        return false;
    }
    if (j->indices && message == FLUE_OTLP_M_SAMPLE) {
        if (!values && !times)
            return structure_fault(j, "neither values nor timestamps");
        if (values && times && values != times) {
            add_path(j);
            add(j, "%" PRIu64 " values, but %" PRIu64 " timestamps", values, times);
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------- dictionary */

static bool mark_row(struct flue_otlp_verdict *v, uint32_t table, uint64_t row)
{
    if (!v->bad_rows[table]) {
        v->bad_rows[table] = calloc((v->rows[table] + 7) / 8, 1);
        if (!v->bad_rows[table])
            return false;
    }
    v->bad_rows[table][row >> 3] |= (uint8_t)(1 << (row & 7));
    return true;
}

/* Judges the rows of some tables (a bit each); what they refer to has been judged. */
static bool judge_rows(struct judge *j, uint32_t tables)
{
    struct flue_reader request = flue_reader(j->body);
    struct flue_field_value field;
    uint32_t at[FLUE_OTLP_TABLES] = {0};

    while (flue_read_field(&request, &field)) {
        struct flue_reader rows;
        if (field.number != 2)
            continue;
        rows = flue_reader(field.bytes);
        while (flue_read_field(&rows, &field)) {
            uint32_t table = field.number, row;
            if (table >= FLUE_OTLP_TABLES)
                continue;
            row = at[table]++;
            if (!(tables >> table & 1))
                continue;
            j->depth = 0;
            if (!walk(j, flue_otlp_row_messages[table], field.bytes) &&
                !mark_row(j->verdict, table, row))
                return false;
        }
    }
    return true;
}

static void count_rows(struct judge *j)
{
    struct flue_reader request = flue_reader(j->body);
    struct flue_field_value field;

    while (flue_read_field(&request, &field)) {
        struct flue_reader rows;
        if (field.number != 2)
            continue;
        rows = flue_reader(field.bytes);
        while (flue_read_field(&rows, &field))
            if (field.number < FLUE_OTLP_TABLES)
                j->verdict->rows[field.number]++;
    }
}

/* --------------------------------------------------------------- profiles */

static bool reject(struct judge *j, const struct flue_field_value *profile)
{
    struct flue_otlp_verdict *v = j->verdict;
    struct flue_reader reader = flue_reader(profile->bytes);
    struct flue_field_value field;

    if (!v->bad_count)
        memcpy(v->reason, j->reason, sizeof v->reason);
    j->quiet = true;
    if (v->bad_count == v->bad_room) {
        size_t room = v->bad_room ? v->bad_room * 2 : 16;
        uint32_t *grown = realloc(v->bad_profiles, room * sizeof *grown);
        if (!grown)
            return false;
        v->bad_profiles = grown;
        v->bad_room = room;
    }
    v->bad_profiles[v->bad_count++] = (uint32_t)(profile->tag_at - j->body.data);
    while (flue_read_field(&reader, &field))
        v->bad_samples += field.number == 2;
    return true;
}

/* Is the Resource (or Scope) of this message good? It is judged before what stands under it, since
 * it may come behind. */
static bool head_good(struct judge *j, enum flue_otlp_message message, struct flue_bytes content,
                      const char *name)
{
    struct flue_reader reader = flue_reader(content);
    struct flue_field_value field;
    unsigned depth = j->depth;
    bool good = true;

    while (good && flue_read_field(&reader, &field)) {
        if (field.number != 1)
            continue;
        j->path[depth] = (struct step){name, -1};
        j->depth = depth + 1;
        j->written = 0;
        good = walk(j, message, field.bytes);
        j->depth = depth;
    }
    return good;
}

static bool judge_scope(struct judge *j, struct flue_bytes content, bool good)
{
    struct flue_reader reader = flue_reader(content);
    struct flue_field_value field;
    int64_t number = 0;

    if (good)
        good = head_good(j, FLUE_OTLP_M_SCOPE, content, "scope");
    while (flue_read_field(&reader, &field)) {
        bool profile_good = good;
        if (field.number != 2)
            continue;
        j->verdict->profiles++;
        if (good) {
            j->path[2] = (struct step){"profiles", number};
            j->depth = 3;
            j->written = 0;
            profile_good = walk(j, FLUE_OTLP_M_PROFILE, field.bytes);
            j->depth = 2;
        }
        number++;
        if (!profile_good && !reject(j, &field))
            return false;
    }
    return true;
}

static bool judge_profiles(struct judge *j)
{
    struct flue_reader request = flue_reader(j->body);
    struct flue_field_value field;
    int64_t number = 0;

    while (flue_read_field(&request, &field)) {
        struct flue_reader resource;
        int64_t scope = 0;
        bool good;
        if (field.number != 1)
            continue;
        resource = flue_reader(field.bytes);
        j->path[0] = (struct step){"resource_profiles", number++};
        j->depth = 1;
        good = head_good(j, FLUE_OTLP_M_RESOURCE, field.bytes, "resource");
        while (flue_read_field(&resource, &field)) {
            if (field.number != 2)
                continue;
            j->path[1] = (struct step){"scope_profiles", scope++};
            j->depth = 2;
            if (!judge_scope(j, field.bytes, good))
                return false;
            j->depth = 1;
        }
    }
    return true;
}

enum flue_code flue_otlp_judge(struct flue_bytes body, struct flue_otlp_verdict *verdict,
                               struct flue_error *error)
{
    struct judge j = {.verdict = verdict, .body = body};

    memset(verdict, 0, sizeof *verdict);
    if (!walk(&j, FLUE_OTLP_M_REQUEST, body))
        return flue_fail(error, FLUE_INVALID, "%s", j.reason);
    count_rows(&j);
    j.indices = true;
    j.quiet = true;
    if (!judge_rows(&j,
                    1u << FLUE_OTLP_ATTRIBUTE | 1u << FLUE_OTLP_FUNCTION | 1u << FLUE_OTLP_LINK) ||
        !judge_rows(&j, 1u << FLUE_OTLP_MAPPING) || !judge_rows(&j, 1u << FLUE_OTLP_LOCATION) ||
        !judge_rows(&j, 1u << FLUE_OTLP_STACK))
        goto memory;
    j.quiet = false;
    if (judge_profiles(&j))
        return FLUE_OK;
memory:
    return flue_fail(error, FLUE_NO_MEMORY, "out of memory for the verdict over a request");
}

void flue_otlp_verdict_clear(struct flue_otlp_verdict *verdict)
{
    for (unsigned t = 0; t < FLUE_OTLP_TABLES; t++)
        free(verdict->bad_rows[t]);
    free(verdict->bad_profiles);
    memset(verdict, 0, sizeof *verdict);
}
