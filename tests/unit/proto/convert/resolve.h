/* resolve.h: profiles as sorted lines of text with every reference resolved, by protobuf-c's
 * decoder: the oracle that conversions, merges and splits are compared with. */
#ifndef TESTS_CONVERT_RESOLVE_H
#define TESTS_CONVERT_RESOLVE_H

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

#include "collector/base/bytes.h"
#include "schema/pprof.pb-c.h"
#include "schema/profiles_service.pb-c.h"

struct lines {
    char **items;
    size_t count, room;
};

struct text {
    char *data;
    size_t size, room;
};

static inline void __attribute__((format(printf, 2, 3)))
say(struct text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t need = (size_t)vsnprintf(NULL, 0, format, args);
    while (t->size + need + 1 > t->room) {
        t->room = t->room ? t->room * 2 : 256;
        t->data = realloc(t->data, t->room);
    }
    vsnprintf(t->data + t->size, need + 1, format, again);
    t->size += need;
    va_end(again);
    va_end(args);
}

static inline char *take(struct text *t)
{
    char *data = t->data ? t->data : calloc(1, 1);
    memset(t, 0, sizeof *t);
    return data;
}

static inline void line_add(struct lines *lines, char *line)
{
    if (lines->count == lines->room) {
        lines->room = lines->room ? lines->room * 2 : 64;
        lines->items = realloc(lines->items, lines->room * sizeof *lines->items);
    }
    lines->items[lines->count++] = line;
}

static inline void lines_free(struct lines *lines)
{
    for (size_t i = 0; i < lines->count; i++)
        free(lines->items[i]);
    free(lines->items);
    memset(lines, 0, sizeof *lines);
}

static inline int line_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline void lines_sort(struct lines *lines)
{
    if (lines->count)
        qsort(lines->items, lines->count, sizeof *lines->items, line_order);
}

/* Equal as multisets; both are sorted on the way. */
static inline void lines_equal(const char *what, struct lines *got, struct lines *wanted)
{
    lines_sort(got);
    lines_sort(wanted);
    for (size_t i = 0; i < got->count && i < wanted->count; i++) {
        size_t same = 0;
        while (got->items[i][same] && got->items[i][same] == wanted->items[i][same])
            same++;
        if (strcmp(got->items[i], wanted->items[i]) != 0) {
            same = same > 200 ? same - 200 : 0; /* where they part */
            fail_msg("%s: line %zu, from %zu\n got    %.500s\n wanted %.500s", what, i, same,
                     got->items[i] + same, wanted->items[i] + same);
        }
    }
    if (got->count != wanted->count)
        fail_msg("%s: %zu lines, wanted %zu; the first more is %s", what, got->count, wanted->count,
                 got->count > wanted->count ? got->items[wanted->count]
                                            : wanted->items[got->count]);
}

/* Sorted and joined; empties `lines`. */
static inline char *lines_join(struct lines *lines)
{
    struct text t = {0};
    lines_sort(lines);
    for (size_t i = 0; i < lines->count; i++)
        say(&t, "%s;", lines->items[i]);
    lines_free(lines);
    return take(&t);
}

static inline void say_hex(struct text *t, ProtobufCBinaryData b)
{
    for (size_t i = 0; i < b.len; i++)
        say(t, "%02x", b.data[i]);
}

/* -------------------------------------------------------------------------- OTLP */

typedef Otlp__ProfilesDictionary Dictionary;

static inline const char *d_string(const Dictionary *d, int32_t i)
{
    return i > 0 && (size_t)i < d->n_string_table ? d->string_table[i] : "";
}

static inline void say_value(struct text *t, const Dictionary *d, const Otlp__AnyValue *v)
{
    if (!v)
        return;
    switch (v->value_case) {
    case OTLP__ANY_VALUE__VALUE_STRING_VALUE:
        say(t, "'%s'", v->string_value);
        break;
    case OTLP__ANY_VALUE__VALUE_STRING_VALUE_STRINDEX:
        say(t, "'%s'", d_string(d, v->string_value_strindex));
        break;
    case OTLP__ANY_VALUE__VALUE_BOOL_VALUE:
        say(t, v->bool_value ? "true" : "false");
        break;
    case OTLP__ANY_VALUE__VALUE_INT_VALUE:
        say(t, "%" PRId64, v->int_value);
        break;
    case OTLP__ANY_VALUE__VALUE_DOUBLE_VALUE:
        say(t, "%.17gd", v->double_value);
        break;
    case OTLP__ANY_VALUE__VALUE_BYTES_VALUE:
        say(t, "0x");
        say_hex(t, v->bytes_value);
        break;
    case OTLP__ANY_VALUE__VALUE_ARRAY_VALUE:
        say(t, "[");
        for (size_t i = 0; i < v->array_value->n_values; i++) {
            say_value(t, d, v->array_value->values[i]);
            say(t, ",");
        }
        say(t, "]");
        break;
    case OTLP__ANY_VALUE__VALUE_KVLIST_VALUE:
        say(t, "{");
        for (size_t i = 0; i < v->kvlist_value->n_values; i++) {
            const Otlp__KeyValue *kv = v->kvlist_value->values[i];
            say(t, "%s:", kv->key[0] ? kv->key : d_string(d, kv->key_strindex));
            say_value(t, d, kv->value);
            say(t, ",");
        }
        say(t, "}");
        break;
    default:
        say(t, "none");
        break;
    }
}

static inline void say_attributes(struct text *t, const Dictionary *d, size_t count,
                                  const int32_t *indices)
{
    struct lines all = {0};
    for (size_t i = 0; i < count; i++) {
        struct text one = {0};
        assert_true((size_t)indices[i] < (d->n_attribute_table ? d->n_attribute_table : 1));
        if ((size_t)indices[i] < d->n_attribute_table) {
            const Otlp__KeyValueAndUnit *a = d->attribute_table[indices[i]];
            say(&one, "%s=", d_string(d, a->key_strindex));
            say_value(&one, d, a->value);
            say(&one, "(%s)", d_string(d, a->unit_strindex));
        }
        line_add(&all, take(&one));
    }
    char *joined = lines_join(&all);
    say(t, "{%s}", joined);
    free(joined);
}

static inline void say_key_values(struct text *t, size_t count, Otlp__KeyValue **kvs)
{
    struct lines all = {0};
    for (size_t i = 0; i < count; i++) {
        struct text one = {0};
        say(&one, "%s=", kvs[i]->key);
        say_value(&one, NULL, kvs[i]->value);
        line_add(&all, take(&one));
    }
    char *joined = lines_join(&all);
    say(t, "{%s}", joined);
    free(joined);
}

static inline void say_stack(struct text *t, const Dictionary *d, int32_t index)
{
    if ((size_t)index >= d->n_stack_table)
        return;
    const Otlp__Stack *stack = d->stack_table[index];
    for (size_t i = 0; i < stack->n_location_indices; i++) {
        int32_t l = stack->location_indices[i];
        assert_true((size_t)l < (d->n_location_table ? d->n_location_table : 1));
        if ((size_t)l >= d->n_location_table)
            continue;
        const Otlp__Location *location = d->location_table[l];
        say(t, "<%" PRIx64, location->address);
        if (location->mapping_index > 0) {
            const Otlp__Mapping *m = d->mapping_table[location->mapping_index];
            say(t, " in %" PRIx64 "-%" PRIx64 "+%" PRIx64 " %s", m->memory_start, m->memory_limit,
                m->file_offset, d_string(d, m->filename_strindex));
            say_attributes(t, d, m->n_attribute_indices, m->attribute_indices);
        }
        for (size_t j = 0; j < location->n_lines; j++) {
            const Otlp__Line *line = location->lines[j];
            if (line->function_index > 0) {
                const Otlp__Function *f = d->function_table[line->function_index];
                say(t, " %s/%s/%s:%" PRId64, d_string(d, f->name_strindex),
                    d_string(d, f->system_name_strindex), d_string(d, f->filename_strindex),
                    f->start_line);
            } else {
                say(t, " -");
            }
            say(t, ":%" PRId64 ":%" PRId64, line->line, line->column);
        }
        say_attributes(t, d, location->n_attribute_indices, location->attribute_indices);
        say(t, ">");
    }
}

static inline void say_type(struct text *t, const Dictionary *d, const Otlp__ValueType *v)
{
    say(t, "%s/%s", v ? d_string(d, v->type_strindex) : "", v ? d_string(d, v->unit_strindex) : "");
}

/* Every sample of a request, complete; a profile without samples is a line too. */
static inline void resolve_otlp(struct flue_bytes body, struct lines *out)
{
    Otlp__ExportProfilesServiceRequest *request =
        otlp__export_profiles_service_request__unpack(NULL, body.size, body.data);
    assert_non_null(request);
    static Dictionary none = OTLP__PROFILES_DICTIONARY__INIT;
    const Dictionary *d = request->dictionary ? request->dictionary : &none;
    for (size_t r = 0; r < request->n_resource_profiles; r++) {
        const Otlp__ResourceProfiles *rp = request->resource_profiles[r];
        for (size_t s = 0; s < rp->n_scope_profiles; s++) {
            const Otlp__ScopeProfiles *sp = rp->scope_profiles[s];
            for (size_t p = 0; p < sp->n_profiles; p++) {
                const Otlp__Profile *profile = sp->profiles[p];
                struct text head = {0};
                say(&head, "%s %s ", rp->schema_url, sp->schema_url);
                /* an empty message and none say the same */
                static Otlp__Resource no_resource = OTLP__RESOURCE__INIT;
                static Otlp__InstrumentationScope no_scope = OTLP__INSTRUMENTATION_SCOPE__INIT;
                const Otlp__Resource *resource = rp->resource ? rp->resource : &no_resource;
                const Otlp__InstrumentationScope *scope = sp->scope ? sp->scope : &no_scope;
                say_key_values(&head, resource->n_attributes, resource->attributes);
                say(&head, "%u", resource->dropped_attributes_count);
                say(&head, "%s@%s", scope->name, scope->version);
                say_key_values(&head, scope->n_attributes, scope->attributes);
                say_type(&head, d, profile->sample_type);
                say(&head, " %" PRIu64 "+%" PRIu64 " per %" PRId64 " ", profile->time_unix_nano,
                    profile->duration_nano, profile->period);
                say_type(&head, d, profile->period_type);
                say(&head, " id ");
                say_hex(&head, profile->profile_id);
                say(&head, " %u %s %zu ", profile->dropped_attributes_count,
                    profile->original_payload_format, profile->original_payload.len);
                say_attributes(&head, d, profile->n_attribute_indices, profile->attribute_indices);
                for (size_t i = 0; i < profile->n_samples; i++) {
                    const Otlp__Sample *sample = profile->samples[i];
                    struct text line = {0};
                    say(&line, "%s | ", head.data);
                    say_stack(&line, d, sample->stack_index);
                    say(&line, " | ");
                    say_attributes(&line, d, sample->n_attribute_indices,
                                   sample->attribute_indices);
                    if (sample->link_index > 0) {
                        const Otlp__Link *link = d->link_table[sample->link_index];
                        say(&line, " link ");
                        say_hex(&line, link->trace_id);
                        say(&line, "/");
                        say_hex(&line, link->span_id);
                    }
                    say(&line, " |");
                    for (size_t v = 0; v < sample->n_values; v++)
                        say(&line, " %" PRId64, sample->values[v]);
                    say(&line, " |");
                    for (size_t v = 0; v < sample->n_timestamps_unix_nano; v++)
                        say(&line, " %" PRIu64, sample->timestamps_unix_nano[v]);
                    line_add(out, take(&line));
                }
                if (profile->n_samples == 0)
                    line_add(out, strdup(head.data));
                free(head.data);
            }
        }
    }
    otlp__export_profiles_service_request__free_unpacked(request, NULL);
}

/* ------------------------------------------------------------------------- pprof */

static inline const char *p_string(const Pprof__Profile *p, int64_t i)
{
    return i > 0 && (size_t)i < p->n_string_table ? p->string_table[i] : "";
}

/* What a frame with nothing in it is written as. */
#define NOTHING " [unknown]//:0:0:0"

static inline void say_frame(struct text *t, const Pprof__Profile *p, const Pprof__Location *l,
                             bool with_flags)
{
    say(t, "<%" PRIx64, l->address);
    for (size_t m = 0; m < p->n_mapping; m++) {
        const Pprof__Mapping *mapping = p->mapping[m];
        if (l->mapping_id == 0 || mapping->id != l->mapping_id)
            continue;
        say(t, " in %" PRIx64 "-%" PRIx64 "+%" PRIx64 " %s #%s", mapping->memory_start,
            mapping->memory_limit, mapping->file_offset, p_string(p, mapping->filename),
            p_string(p, mapping->build_id));
        if (with_flags)
            say(t, "%d%d%d%d", mapping->has_functions, mapping->has_filenames,
                mapping->has_line_numbers, mapping->has_inline_frames);
        break;
    }
    for (size_t i = 0; i < l->n_line; i++) {
        size_t f = 0;
        /* ids mostly stand in order: try that first */
        if (l->line[i]->function_id - 1 < p->n_function &&
            p->function[l->line[i]->function_id - 1]->id == l->line[i]->function_id)
            f = (size_t)l->line[i]->function_id - 1;
        while (f < p->n_function && p->function[f]->id != l->line[i]->function_id)
            f++;
        assert_true(f < p->n_function);
        say(t, " %s/%s/%s:%" PRId64 ":%" PRId64 ":%" PRId64, p_string(p, p->function[f]->name),
            p_string(p, p->function[f]->system_name), p_string(p, p->function[f]->filename),
            p->function[f]->start_line, l->line[i]->line, l->line[i]->column);
    }
    if (l->n_line == 0 && l->address == 0)
        say(t, NOTHING);
    say(t, "%s>", l->is_folded ? " folded" : "");
}

static inline void say_labels(struct text *t, const Pprof__Profile *p, const Pprof__Sample *s)
{
    struct lines all = {0};
    for (size_t i = 0; i < s->n_label; i++) {
        const Pprof__Label *label = s->label[i];
        struct text one = {0};
        say(&one, "%s=", p_string(p, label->key));
        if (label->str)
            say(&one, "'%s'", p_string(p, label->str));
        else
            say(&one, "%" PRId64 "(%s)", label->num, p_string(p, label->num_unit));
        line_add(&all, take(&one));
    }
    char *joined = lines_join(&all);
    say(t, "{%s}", joined);
    free(joined);
}

/* One line about the profile, one for every sample and type: "prefix | type | stack | labels |
 * value". with_flags: has_* of mappings too. */
static inline void resolve_pprof(const char *prefix, struct flue_bytes raw, bool with_flags,
                                 bool with_head, struct lines *out)
{
    Pprof__Profile *p = pprof__profile__unpack(NULL, raw.size, raw.data);
    assert_non_null(p);
    char **frames = calloc(p->n_location + 1, sizeof *frames);
    struct text head = {0}, when = {0};

    assert_true(p->n_string_table == 0 || p->string_table[0][0] == 0);
    say(&when, "%s %" PRId64 "+%" PRId64 " per %" PRId64 " %s/%s", prefix, p->time_nanos,
        p->duration_nanos, p->period, p->period_type ? p_string(p, p->period_type->type) : "",
        p->period_type ? p_string(p, p->period_type->unit) : "");
    if (with_head) {
        say(&head, "%s drop %s keep %s default %s doc %s", when.data, p_string(p, p->drop_frames),
            p_string(p, p->keep_frames), p_string(p, p->default_sample_type),
            p_string(p, p->doc_url));
        for (size_t i = 0; i < p->n_sample_type; i++)
            say(&head, " %s/%s", p_string(p, p->sample_type[i]->type),
                p_string(p, p->sample_type[i]->unit));
        for (size_t i = 0; i < p->n_comment; i++)
            say(&head, " #%s", p_string(p, p->comment[i]));
        line_add(out, take(&head));
    }
    for (size_t i = 0; i < p->n_location; i++) {
        struct text frame = {0};
        say_frame(&frame, p, p->location[i], with_flags);
        frames[i] = take(&frame);
    }
    for (size_t i = 0; i < p->n_sample; i++) {
        const Pprof__Sample *s = p->sample[i];
        struct text stack = {0}, labels = {0};
        say(&stack, "%s", "");
        for (size_t j = 0; j < s->n_location_id; j++) {
            size_t l = 0;
            if (s->location_id[j] - 1 < p->n_location &&
                p->location[s->location_id[j] - 1]->id == s->location_id[j])
                l = (size_t)s->location_id[j] - 1;
            while (l < p->n_location && p->location[l]->id != s->location_id[j])
                l++;
            assert_true(l < p->n_location);
            say(&stack, "%s", frames[l]);
        }
        say_labels(&labels, p, s);
        assert_int_equal(s->n_value, p->n_sample_type);
        for (size_t v = 0; v < s->n_value; v++) {
            struct text line = {0};
            say(&line, "%s | %s/%s | %s | %s | %" PRId64, when.data,
                p_string(p, p->sample_type[v]->type), p_string(p, p->sample_type[v]->unit),
                stack.data, labels.data, s->value[v]);
            line_add(out, take(&line));
        }
        free(stack.data);
        free(labels.data);
    }
    for (size_t i = 0; i < p->n_location; i++)
        free(frames[i]);
    free(frames);
    free(when.data);
    pprof__profile__free_unpacked(p, NULL);
}

#endif
