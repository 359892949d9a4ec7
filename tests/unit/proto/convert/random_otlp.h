/* random_otlp.h: valid OTLP requests by a seed, with everything the schema allows at odd places. */
#ifndef TESTS_CONVERT_RANDOM_OTLP_H
#define TESTS_CONVERT_RANDOM_OTLP_H

#include "collector/base/block.h"
#include "schema/profiles_service.pb-c.h"

struct dice {
    uint64_t state;
};
static inline uint64_t roll(struct dice *d)
{
    uint64_t z = d->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
/* 0 .. limit - 1 */
static inline uint32_t pick(struct dice *d, uint32_t limit)
{
    return (uint32_t)(roll(d) % limit);
}
static inline uint64_t odd_number(struct dice *d)
{
    static const uint64_t numbers[] = {0,       1,          127,       128,        16384,
                                       4194304, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ull << 63};
    return pick(d, 2) ? numbers[pick(d, 10)] : roll(d) >> pick(d, 64);
}

/* Rows that a value refers to. */
static inline void mark_strings(const Otlp__AnyValue *v, uint8_t *strings)
{
    if (v->value_case == OTLP__ANY_VALUE__VALUE_STRING_VALUE_STRINDEX)
        strings[v->string_value_strindex] = 1;
    if (v->value_case == OTLP__ANY_VALUE__VALUE_ARRAY_VALUE)
        for (size_t i = 0; i < v->array_value->n_values; i++)
            mark_strings(v->array_value->values[i], strings);
    if (v->value_case == OTLP__ANY_VALUE__VALUE_KVLIST_VALUE)
        for (size_t i = 0; i < v->kvlist_value->n_values; i++) {
            strings[v->kvlist_value->values[i]->key_strindex] = 1;
            if (v->kvlist_value->values[i]->value)
                mark_strings(v->kvlist_value->values[i]->value, strings);
        }
}

#define NEW(type, init)                                                                            \
    ({                                                                                             \
        type *new_ = malloc(sizeof *new_);                                                         \
        *new_ = (type)init;                                                                        \
        new_;                                                                                      \
    })
#define MANY(array, n, count) ((n) = (count), (array) = calloc((n) + 1, sizeof *(array)))

static inline Otlp__AnyValue *random_value(struct dice *d, uint32_t strings, unsigned depth)
{
    Otlp__AnyValue *v = NEW(Otlp__AnyValue, OTLP__ANY_VALUE__INIT);
    char text[32];
    switch (pick(d, depth ? 9 : 6)) {
    case 0:
    case 1:
        v->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
        snprintf(text, sizeof text, "text-%u", pick(d, 9));
        v->string_value = strdup(pick(d, 9) ? text : "");
        break;
    case 2:
        v->value_case = OTLP__ANY_VALUE__VALUE_INT_VALUE;
        v->int_value = (int64_t)odd_number(d);
        break;
    case 3:
        v->value_case = OTLP__ANY_VALUE__VALUE_BOOL_VALUE;
        v->bool_value = pick(d, 2);
        break;
    case 4:
        v->value_case = OTLP__ANY_VALUE__VALUE_DOUBLE_VALUE;
        v->double_value = (double)(int32_t)roll(d) / (pick(d, 2) ? 1 : 8);
        break;
    case 5:
    case 6:
        v->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE_STRINDEX;
        v->string_value_strindex = (int32_t)pick(d, strings);
        break;
    case 7:
        v->value_case = OTLP__ANY_VALUE__VALUE_ARRAY_VALUE;
        v->array_value = NEW(Otlp__ArrayValue, OTLP__ARRAY_VALUE__INIT);
        MANY(v->array_value->values, v->array_value->n_values, pick(d, 4));
        for (size_t i = 0; i < v->array_value->n_values; i++)
            v->array_value->values[i] = random_value(d, strings, depth - 1);
        break;
    default:
        v->value_case = OTLP__ANY_VALUE__VALUE_KVLIST_VALUE;
        v->kvlist_value = NEW(Otlp__KeyValueList, OTLP__KEY_VALUE_LIST__INIT);
        MANY(v->kvlist_value->values, v->kvlist_value->n_values, pick(d, 3));
        for (size_t i = 0; i < v->kvlist_value->n_values; i++) {
            Otlp__KeyValue *kv = NEW(Otlp__KeyValue, OTLP__KEY_VALUE__INIT);
            if (pick(d, 2))
                kv->key_strindex = 1 + (int32_t)pick(d, strings - 1);
            else
                kv->key = strdup("inline");
            kv->value = random_value(d, strings, depth - 1);
            v->kvlist_value->values[i] = kv;
        }
        break;
    }
    return v;
}

static inline void random_dictionary(struct dice *d, Otlp__ProfilesDictionary *dict)
{
    char text[64];
    MANY(dict->string_table, dict->n_string_table, 2 + pick(d, 60));
    for (size_t i = 0; i < dict->n_string_table; i++) {
        static const char *const known[] = {
            "cpu", "nanoseconds", "samples", "count", "span_id", "process.executable.build_id.gnu",
            "ns",  "wall"};
        if (i % 4 == 1)
            snprintf(text, sizeof text, "%s", known[pick(d, 8)]);
        else /* sometimes the same twice */
            snprintf(text, sizeof text, "s%u", pick(d, 80));
        dict->string_table[i] = strdup(i ? text : "");
    }
    uint32_t strings = (uint32_t)dict->n_string_table;
    MANY(dict->attribute_table, dict->n_attribute_table, 1 + pick(d, 20));
    for (size_t i = 0; i < dict->n_attribute_table; i++) {
        Otlp__KeyValueAndUnit *a = NEW(Otlp__KeyValueAndUnit, OTLP__KEY_VALUE_AND_UNIT__INIT);
        if (i) { /* keys stay different from each other: they must be within one sample */
            a->key_strindex = 1 + (int32_t)(i % (strings - 1));
            a->unit_strindex = pick(d, 3) ? 0 : (int32_t)pick(d, strings);
            a->value = random_value(d, strings, 3);
        }
        dict->attribute_table[i] = a;
    }
    MANY(dict->mapping_table, dict->n_mapping_table, 1 + pick(d, 5));
    for (size_t i = 0; i < dict->n_mapping_table; i++) {
        Otlp__Mapping *m = NEW(Otlp__Mapping, OTLP__MAPPING__INIT);
        if (i) {
            m->memory_start = pick(d, 3) ? roll(d) >> 20 : 0;
            m->memory_limit = m->memory_start + (m->memory_start ? 4096 : 0);
            m->file_offset = odd_number(d);
            m->filename_strindex = (int32_t)pick(d, strings);
            MANY(m->attribute_indices, m->n_attribute_indices,
                 dict->n_attribute_table > 1 ? pick(d, 2) : 0);
            for (size_t j = 0; j < m->n_attribute_indices; j++)
                m->attribute_indices[j] =
                    1 + (int32_t)pick(d, (uint32_t)dict->n_attribute_table - 1);
        }
        dict->mapping_table[i] = m;
    }
    MANY(dict->function_table, dict->n_function_table, 1 + pick(d, 12));
    for (size_t i = 0; i < dict->n_function_table; i++) {
        Otlp__Function *f = NEW(Otlp__Function, OTLP__FUNCTION__INIT);
        if (i) {
            f->name_strindex = (int32_t)pick(d, strings);
            f->system_name_strindex = (int32_t)pick(d, strings);
            f->filename_strindex = (int32_t)pick(d, strings);
            f->start_line = pick(d, 300);
        }
        dict->function_table[i] = f;
    }
    MANY(dict->location_table, dict->n_location_table, 1 + pick(d, 30));
    for (size_t i = 0; i < dict->n_location_table; i++) {
        Otlp__Location *l = NEW(Otlp__Location, OTLP__LOCATION__INIT);
        if (i) {
            l->mapping_index = (int32_t)pick(d, (uint32_t)dict->n_mapping_table);
            l->address = pick(d, 3) ? odd_number(d) : 0;
            MANY(l->lines, l->n_lines, pick(d, 4));
            for (size_t j = 0; j < l->n_lines; j++) {
                l->lines[j] = NEW(Otlp__Line, OTLP__LINE__INIT);
                l->lines[j]->function_index = (int32_t)pick(d, (uint32_t)dict->n_function_table);
                l->lines[j]->line = pick(d, 2) ? (int64_t)(odd_number(d) >> 1) : 0;
                l->lines[j]->column = pick(d, 4) ? 0 : 7;
            }
        }
        dict->location_table[i] = l;
    }
    MANY(dict->stack_table, dict->n_stack_table, 1 + pick(d, 25));
    for (size_t i = 0; i < dict->n_stack_table; i++) {
        Otlp__Stack *s = NEW(Otlp__Stack, OTLP__STACK__INIT);
        MANY(s->location_indices, s->n_location_indices, i ? pick(d, 200) : 0);
        for (size_t j = 0; j < s->n_location_indices; j++)
            s->location_indices[j] = (int32_t)pick(d, (uint32_t)dict->n_location_table);
        dict->stack_table[i] = s;
    }
    MANY(dict->link_table, dict->n_link_table, 1 + pick(d, 6));
    for (size_t i = 0; i < dict->n_link_table; i++) {
        Otlp__Link *l = NEW(Otlp__Link, OTLP__LINK__INIT);
        if (i) {
            l->trace_id.len = 16;
            l->trace_id.data = calloc(1, 16);
            l->span_id.len = 8;
            l->span_id.data = calloc(1, 8);
            for (size_t j = 0; pick(d, 5) && j < 16; j++)
                l->trace_id.data[j] = (uint8_t)roll(d);
            l->span_id.data[7] = (uint8_t)i;
        }
        dict->link_table[i] = l;
    }
}

static inline Otlp__Profile *random_profile(struct dice *d, const Otlp__ProfilesDictionary *dict)
{
    Otlp__Profile *p = NEW(Otlp__Profile, OTLP__PROFILE__INIT);
    unsigned shape = pick(d, 3);
    uint32_t attributes = (uint32_t)dict->n_attribute_table;
    p->time_unix_nano = pick(d, 4) ? 1700000000000000000u + pick(d, 1000) : 0;
    p->duration_nano = 1000000000000u;
    p->period = (int64_t)pick(d, 3) * 10000;
    if (pick(d, 5)) {
        p->sample_type = NEW(Otlp__ValueType, OTLP__VALUE_TYPE__INIT);
        p->sample_type->type_strindex = (int32_t)pick(d, (uint32_t)dict->n_string_table);
        p->sample_type->unit_strindex = (int32_t)pick(d, (uint32_t)dict->n_string_table);
    }
    if (pick(d, 2)) {
        p->period_type = NEW(Otlp__ValueType, OTLP__VALUE_TYPE__INIT);
        p->period_type->type_strindex = (int32_t)pick(d, (uint32_t)dict->n_string_table);
        p->period_type->unit_strindex = (int32_t)pick(d, (uint32_t)dict->n_string_table);
    }
    if (pick(d, 3) == 0) {
        p->profile_id.len = 16;
        p->profile_id.data = calloc(1, 16);
        p->profile_id.data[3] = (uint8_t)roll(d);
    }
    if (attributes > 1 && pick(d, 3) == 0) {
        MANY(p->attribute_indices, p->n_attribute_indices, 1);
        p->attribute_indices[0] = 1 + (int32_t)pick(d, attributes - 1);
    }
    MANY(p->samples, p->n_samples, pick(d, 8) ? pick(d, 20) : 0);
    for (size_t i = 0; i < p->n_samples; i++) {
        Otlp__Sample *s = NEW(Otlp__Sample, OTLP__SAMPLE__INIT);
        uint32_t first = attributes > 1 ? 1 + pick(d, attributes - 1) : 1;
        uint32_t different = (uint32_t)dict->n_string_table - 1;
        s->stack_index = (int32_t)pick(d, (uint32_t)dict->n_stack_table);
        s->link_index = (int32_t)pick(d, (uint32_t)dict->n_link_table);
        s->attribute_indices = calloc(8, sizeof *s->attribute_indices);
        for (uint32_t a = first; a < attributes && a < first + pick(d, 5) && a < first + different;
             a++)
            s->attribute_indices[s->n_attribute_indices++] = (int32_t)a;
        unsigned many = shape == 0 ? 1 : 1 + pick(d, 3);
        if (shape != 1) {
            MANY(s->values, s->n_values, many);
            for (size_t v = 0; v < many; v++)
                s->values[v] = (int64_t)roll(d) >> (8 + pick(d, 50));
        }
        if (shape != 0) {
            MANY(s->timestamps_unix_nano, s->n_timestamps_unix_nano, many);
            for (size_t v = 0; v < many; v++)
                s->timestamps_unix_nano[v] = (p->time_unix_nano ? p->time_unix_nano : 5) + v;
        }
        p->samples[i] = s;
    }
    return p;
}

static inline struct flue_block *random_otlp(uint64_t seed)
{
    struct dice d = {seed * 7919};
    Otlp__ExportProfilesServiceRequest q = OTLP__EXPORT_PROFILES_SERVICE_REQUEST__INIT;
    char text[32];
    q.dictionary = NEW(Otlp__ProfilesDictionary, OTLP__PROFILES_DICTIONARY__INIT);
    random_dictionary(&d, q.dictionary);
    MANY(q.resource_profiles, q.n_resource_profiles, 1 + pick(&d, 3));
    for (size_t r = 0; r < q.n_resource_profiles; r++) {
        Otlp__ResourceProfiles *rp = NEW(Otlp__ResourceProfiles, OTLP__RESOURCE_PROFILES__INIT);
        q.resource_profiles[r] = rp;
        if (pick(&d, 4)) {
            rp->resource = NEW(Otlp__Resource, OTLP__RESOURCE__INIT);
            MANY(rp->resource->attributes, rp->resource->n_attributes, pick(&d, 4));
            for (size_t i = 0; i < rp->resource->n_attributes; i++) {
                Otlp__KeyValue *kv = NEW(Otlp__KeyValue, OTLP__KEY_VALUE__INIT);
                snprintf(text, sizeof text, "key.%zu", i);
                kv->key = strdup(text);
                kv->value = NEW(Otlp__AnyValue, OTLP__ANY_VALUE__INIT);
                kv->value->value_case = OTLP__ANY_VALUE__VALUE_INT_VALUE;
                kv->value->int_value = (int64_t)roll(&d);
                rp->resource->attributes[i] = kv;
            }
        }
        rp->schema_url = strdup(pick(&d, 2) ? "https://schema" : "");
        MANY(rp->scope_profiles, rp->n_scope_profiles, 1 + pick(&d, 2));
        for (size_t s = 0; s < rp->n_scope_profiles; s++) {
            Otlp__ScopeProfiles *sp = NEW(Otlp__ScopeProfiles, OTLP__SCOPE_PROFILES__INIT);
            rp->scope_profiles[s] = sp;
            if (pick(&d, 2)) {
                sp->scope = NEW(Otlp__InstrumentationScope, OTLP__INSTRUMENTATION_SCOPE__INIT);
                sp->scope->name = strdup("scope");
            }
            MANY(sp->profiles, sp->n_profiles, 1 + pick(&d, 3));
            for (size_t p = 0; p < sp->n_profiles; p++)
                sp->profiles[p] = random_profile(&d, q.dictionary);
        }
    }
    struct flue_block *block =
        flue_block_new(NULL, otlp__export_profiles_service_request__get_packed_size(&q));
    block->size = otlp__export_profiles_service_request__pack(&q, block->data);
    flue_block_finish(block);
    /* What was made lies on the heap piece by piece, as the decoder leaves it: freed by it. */
    Otlp__ExportProfilesServiceRequest *whole =
        NEW(Otlp__ExportProfilesServiceRequest, OTLP__EXPORT_PROFILES_SERVICE_REQUEST__INIT);
    *whole = q;
    otlp__export_profiles_service_request__free_unpacked(whole, NULL);
    return block;
}

#endif
