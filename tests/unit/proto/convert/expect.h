/* expect.h: what an OTLP request is as pprof, by the rules of docs/conversion.md, written down a
 * second time over protobuf-c's objects: the lines that resolve_pprof gives for a right conversion.
 */
#ifndef TESTS_CONVERT_EXPECT_H
#define TESTS_CONVERT_EXPECT_H

#include <math.h>
#include <strings.h>
#include "collector/base/arena.h"
#include "collector/base/attribute.h"
#include "proto/pprof/names.h"
#include "tests/unit/proto/convert/resolve.h"

static inline const char *build_id_of(const Dictionary *d, const Otlp__Mapping *m)
{
    static const char *const keys[] = {"process.executable.build_id.gnu",
                                       "process.executable.build_id.go",
                                       "process.executable.build_id.htlhash"};
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < m->n_attribute_indices; i++) {
            const Otlp__KeyValueAndUnit *a = d->attribute_table[m->attribute_indices[i]];
            if (!a->value || strcmp(d_string(d, a->key_strindex), keys[k]) != 0)
                continue;
            const char *text =
                a->value->value_case == OTLP__ANY_VALUE__VALUE_STRING_VALUE ? a->value->string_value
                : a->value->value_case == OTLP__ANY_VALUE__VALUE_STRING_VALUE_STRINDEX
                    ? d_string(d, a->value->string_value_strindex)
                    : "";
            if (text[0])
                return text;
        }
    return "";
}

static inline void expect_frame(struct text *t, const Dictionary *d, int32_t index)
{
    static Otlp__Location nowhere = OTLP__LOCATION__INIT;
    const Otlp__Location *l = index > 0 ? d->location_table[index] : &nowhere;
    size_t lines = l->n_lines;
    bool folded = false;

    if (lines == 1 && l->lines[0]->function_index == 0 && l->lines[0]->line == 0 &&
        l->lines[0]->column == 0)
        lines = 0;
    say(t, "<%" PRIx64, l->address);
    if (l->mapping_index > 0) {
        const Otlp__Mapping *m = d->mapping_table[l->mapping_index];
        say(t, " in %" PRIx64 "-%" PRIx64 "+%" PRIx64 " %s #%s", m->memory_start, m->memory_limit,
            m->file_offset, d_string(d, m->filename_strindex), build_id_of(d, m));
    }
    for (size_t i = 0; i < lines; i++) {
        const Otlp__Line *line = l->lines[i];
        if (line->function_index > 0) {
            const Otlp__Function *f = d->function_table[line->function_index];
            say(t, " %s/%s/%s:%" PRId64, d_string(d, f->name_strindex),
                d_string(d, f->system_name_strindex), d_string(d, f->filename_strindex),
                f->start_line);
        } else {
            say(t, " [unknown]//:0");
        }
        say(t, ":%" PRId64 ":%" PRId64, line->line, line->column);
    }
    if (lines == 0 && l->address == 0)
        say(t, NOTHING);
    for (size_t i = 0; i < l->n_attribute_indices; i++) {
        const Otlp__KeyValueAndUnit *a = d->attribute_table[l->attribute_indices[i]];
        folded = folded || (strcmp(d_string(d, a->key_strindex), "pprof.location.is_folded") == 0 &&
                            a->value && a->value->bool_value);
    }
    say(t, "%s>", folded ? " folded" : "");
}

/* References to strings replaced by the strings. */
static inline void resolve_references(const Dictionary *d, Otlp__AnyValue *v)
{
    if (v->value_case == OTLP__ANY_VALUE__VALUE_STRING_VALUE_STRINDEX) {
        int32_t row = v->string_value_strindex;
        v->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
        v->string_value = strdup(d_string(d, row));
    }
    if (v->value_case == OTLP__ANY_VALUE__VALUE_ARRAY_VALUE)
        for (size_t i = 0; i < v->array_value->n_values; i++)
            resolve_references(d, v->array_value->values[i]);
    if (v->value_case == OTLP__ANY_VALUE__VALUE_KVLIST_VALUE)
        for (size_t i = 0; i < v->kvlist_value->n_values; i++) {
            Otlp__KeyValue *kv = v->kvlist_value->values[i];
            if (kv->key_strindex)
                kv->key = strdup(d_string(d, kv->key_strindex));
            kv->key_strindex = 0;
            if (kv->value)
                resolve_references(d, kv->value);
        }
}

static inline void expect_label(struct lines *labels, const Dictionary *d, const char *key,
                                const char *unit, Otlp__AnyValue *v)
{
    struct text t = {0};
    struct flue_value value = {.type = FLUE_VALUE_EMPTY};
    uint8_t *packed = NULL;

    if (!v || v->value_case == OTLP__ANY_VALUE__VALUE__NOT_SET)
        return;
    resolve_references(d, v);
    if (v->value_case == OTLP__ANY_VALUE__VALUE_ARRAY_VALUE) {
        bool scalars = true;
        for (size_t i = 0; i < v->array_value->n_values; i++) {
            unsigned kind = v->array_value->values[i]->value_case;
            scalars = scalars && kind != OTLP__ANY_VALUE__VALUE_ARRAY_VALUE &&
                      kind != OTLP__ANY_VALUE__VALUE_KVLIST_VALUE;
        }
        for (size_t i = 0; scalars && i < v->array_value->n_values; i++)
            expect_label(labels, d, key, unit, v->array_value->values[i]);
        if (scalars)
            return;
    }
    say(&t, "%s=", key);
    switch (v->value_case) {
    case OTLP__ANY_VALUE__VALUE_STRING_VALUE:
        say(&t, "'%s'", v->string_value);
        break;
    case OTLP__ANY_VALUE__VALUE_INT_VALUE:
        say(&t, "%" PRId64 "(%s)", v->int_value, unit);
        break;
    case OTLP__ANY_VALUE__VALUE_BOOL_VALUE:
        say(&t, "%d(%s)", v->bool_value, unit);
        break;
    case OTLP__ANY_VALUE__VALUE_DOUBLE_VALUE:
        if (v->double_value == floor(v->double_value) && fabs(v->double_value) < 9e18) {
            say(&t, "%.0f(%s)", v->double_value == 0 ? 0 : v->double_value, unit);
            break;
        }
        value.type = FLUE_VALUE_DOUBLE;
        value.number = v->double_value;
        break;
    case OTLP__ANY_VALUE__VALUE_BYTES_VALUE:
        value.type = FLUE_VALUE_BYTES;
        value.text = flue_bytes(v->bytes_value.data, v->bytes_value.len);
        break;
    default: {
        size_t size = otlp__any_value__get_packed_size(v);
        packed = malloc(size + 1);
        value.type = FLUE_VALUE_COMPLEX;
        value.text = flue_bytes(packed, otlp__any_value__pack(v, packed));
        break;
    }
    }
    if (value.type != FLUE_VALUE_EMPTY) {
        struct flue_arena arena;
        flue_arena_init(&arena, 1 << 20, 0);
        struct flue_bytes text = flue_label_text(&value, &arena);
        say(&t, "'%.*s'", FLUE_PRI(text));
        flue_arena_destroy(&arena);
    }
    free(packed);
    line_add(labels, take(&t));
}

/* Does a label say which span it was? */
static inline bool starts(const char *line, const char *with)
{
    return strncmp(line, with, strlen(with)) == 0;
}

static inline char *expect_labels(const Dictionary *d, const Otlp__Sample *s)
{
    struct lines labels = {0};
    for (size_t i = 0; i < s->n_attribute_indices; i++) {
        const Otlp__KeyValueAndUnit *a = d->attribute_table[s->attribute_indices[i]];
        expect_label(&labels, d, d_string(d, a->key_strindex), d_string(d, a->unit_strindex),
                     a->value);
    }
    if (s->link_index > 0) {
        const Otlp__Link *link = d->link_table[s->link_index];
        struct text span = {0}, trace = {0};
        char exact[100], number[100];
        uint64_t id = 0;
        bool tell_span = false, tell_trace = false;
        for (size_t i = 0; i < link->span_id.len; i++) {
            id = id << 8 | link->span_id.data[i];
            tell_span = tell_span || link->span_id.data[i];
        }
        for (size_t i = 0; i < link->trace_id.len; i++)
            tell_trace = tell_trace || link->trace_id.data[i];
        say(&span, "span_id='");
        say_hex(&span, link->span_id);
        say(&span, "'");
        say(&trace, "trace_id='");
        say_hex(&trace, link->trace_id);
        say(&trace, "'");
        snprintf(exact, sizeof exact, "profile_id='%.16s'", span.data + 9);
        for (size_t i = 0; i < labels.count; i++) {
            const char *line = labels.items[i];
            for (unsigned root = 0; root < 2; root++) {
                const char *key = root ? "local root span id" : "span id";
                snprintf(number, sizeof number, "%s=%" PRId64 "(", key, (int64_t)id);
                if (starts(line, number))
                    tell_span = false;
                char *end;
                snprintf(number, sizeof number, "%s='", key);
                if (starts(line, number) && line[strlen(number)] != '-' &&
                    line[strlen(number)] != ' ' &&
                    strtoull(line + strlen(number), &end, 10) == id && strcmp(end, "'") == 0)
                    tell_span = false;
            }
            if (starts(line, "span_id=") || strcasecmp(line, exact) == 0)
                tell_span = false;
            if (starts(line, "trace_id="))
                tell_trace = false;
        }
        if (tell_span)
            line_add(&labels, take(&span));
        if (tell_trace)
            line_add(&labels, take(&trace));
        free(span.data);
        free(trace.data);
    }
    struct text t = {0};
    char *joined = lines_join(&labels);
    say(&t, "{%s}", joined);
    free(joined);
    return take(&t);
}

/* `known`: what a type becomes, for requests that were not pprof; may be NULL. */
typedef bool (*known_type)(const char **type, const char **unit, const char **period_type,
                           const char **period_unit);

static inline void expect_pprof(struct flue_bytes body, known_type known, struct lines *out)
{
    Otlp__ExportProfilesServiceRequest *q =
        otlp__export_profiles_service_request__unpack(NULL, body.size, body.data);
    assert_non_null(q);
    const Dictionary *d = q->dictionary;
    for (size_t r = 0; r < q->n_resource_profiles; r++)
        for (size_t s = 0; s < q->resource_profiles[r]->n_scope_profiles; s++) {
            const Otlp__ScopeProfiles *sp = q->resource_profiles[r]->scope_profiles[s];
            for (size_t p = 0; p < sp->n_profiles; p++) {
                const Otlp__Profile *profile = sp->profiles[p];
                const Otlp__ValueType *st = profile->sample_type, *pt = profile->period_type;
                const char *type = st ? d_string(d, st->type_strindex) : "";
                const char *unit = st ? d_string(d, st->unit_strindex) : "";
                const char *ptype = pt ? d_string(d, pt->type_strindex) : "";
                const char *punit = pt ? d_string(d, pt->unit_strindex) : "";
                bool times = known && known(&type, &unit, &ptype, &punit);
                for (size_t i = 0; i < profile->n_samples; i++) {
                    const Otlp__Sample *sample = profile->samples[i];
                    struct text line = {0};
                    int64_t value = 0;
                    say(&line, "%zu %" PRId64 "+%" PRId64 " per %" PRId64 " %s/%s | %s/%s | ", r,
                        (int64_t)profile->time_unix_nano, (int64_t)profile->duration_nano,
                        profile->period, ptype, punit, type, unit);
                    if (sample->stack_index > 0) {
                        const Otlp__Stack *stack = d->stack_table[sample->stack_index];
                        for (size_t j = 0; j < stack->n_location_indices; j++)
                            expect_frame(&line, d, stack->location_indices[j]);
                    }
                    char *labels = expect_labels(d, sample);
                    for (size_t v = 0; v < sample->n_values; v++)
                        value += sample->values[v];
                    if (sample->n_values == 0)
                        value = (int64_t)sample->n_timestamps_unix_nano;
                    say(&line, " | %s | %" PRId64, labels, times ? value * profile->period : value);
                    free(labels);
                    line_add(out, take(&line));
                }
            }
        }
    otlp__export_profiles_service_request__free_unpacked(q, NULL);
}

#endif
