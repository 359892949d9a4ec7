/* Conversion both ways, compared value by value with protobuf-c's reading of the same bytes: on
 * every recorded request and on random ones. */
#include "tests/unit/proto/convert/expect.h"

#include <unistd.h>
#include "proto/convert/convert.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/writer.h"
#include "tests/unit/proto/convert/random_otlp.h"
#include "tests/unit/proto/convert/random_pprof.h"
#include "tests/unit/proto/pprof/corpus.h"

/* ------------------------------------------------------------------------ help */

static struct flue_payload *otlp_payload(struct flue_block *block)
{
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    if (flue_otlp_read(block, &payload, &report, &error) != FLUE_OK)
        fail_msg("read: %s", error.text);
    assert_non_null(payload);
    if (report.rejected_profiles)
        fail_msg("rejected: %s", report.rejected_reason);
    return payload;
}

static struct flue_block *encoded(const struct flue_payload *payload)
{
    struct flue_arena arena;
    struct flue_slices slices = {0};
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, NULL), FLUE_OK);
    struct flue_block *block = flue_block_new(NULL, slices.total);
    flue_slices_copy(&slices, block->data);
    block->size = slices.total;
    flue_block_finish(block);
    flue_arena_destroy(&arena);
    return block;
}

static struct flue_payload *pprof_payload(struct flue_bytes profile)
{
    static const char *const labels[][2] = {
        {"__name__", "some_name"},
        {"__session_id__", "0123456789abcdef"},
        {"service_name", "encoder"},
        {"region", "eu-west"},
        {"otel_scope_name", "com.grafana.pyroscope/go"},
    };
    struct flue_pprof_builder *builder = flue_pprof_builder_new(NULL);
    struct flue_pprof_profile p = {.id = FLUE_BYTES("8d3e7b7c-3a9f-4d2e-9b1a-5c6d7e8f9a0b")};
    struct flue_block *block = flue_block_copy(NULL, profile);
    struct flue_payload *payload;
    struct flue_counts counts;
    struct flue_error error;
    p.bytes = flue_block_bytes(block);
    if (flue_pprof_check(p.bytes, &test_limits, &p.facts, &error) != FLUE_OK)
        fail_msg("check: %s", error.text);
    flue_pprof_builder_keep(builder, block);
    flue_block_unref(block);
    flue_pprof_builder_series(builder);
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        flue_pprof_builder_label(builder, flue_bytes_of(labels[i][0]), flue_bytes_of(labels[i][1]));
    flue_pprof_builder_profile(builder, &p);
    assert_int_equal(flue_pprof_builder_finish(builder, &payload, &counts, &error), FLUE_OK);
    return payload;
}

static struct flue_payload *converted(struct flue_payload *payload, enum flue_form form)
{
    struct flue_payload *out;
    struct flue_error error;
    if (flue_convert(payload, form, NULL, &out, &error) != FLUE_OK)
        fail_msg("convert: %s", error.text);
    return out;
}

struct results {
    struct lines lines;
    struct flue_counts counts;
    size_t count;
    char names[400];
    bool with_head, with_flags;
};

static void result(void *arg, const struct flue_to_pprof_result *r)
{
    struct results *results = arg;
    struct flue_pprof_facts facts;
    struct flue_error error;
    char prefix[32];

    results->count++;
    results->counts.profiles += r->counts.profiles;
    results->counts.samples += r->counts.samples;
    results->counts.bytes += r->counts.bytes;
    size_t used = strlen(results->names);
    snprintf(results->names + used, sizeof results->names - used, "%.*s ", FLUE_PRI(r->name));
    snprintf(prefix, sizeof prefix, "%zu", r->resource);
    resolve_pprof(prefix, r->pprof, results->with_flags, results->with_head, &results->lines);
    if (flue_pprof_check(r->pprof, &test_limits, &facts, &error) != FLUE_OK)
        fail_msg("a pprof made here does not pass the check: %s", error.text);
    assert_int_equal(facts.samples, r->facts.samples);
    assert_int_equal(facts.sample_types, r->facts.sample_types);
    assert_int_equal(facts.locations, r->facts.locations);
    assert_int_equal(facts.functions, r->facts.functions);
    assert_int_equal(facts.mappings, r->facts.mappings);
    assert_int_equal(facts.strings, r->facts.strings);
    assert_int_equal(facts.time_nanos, r->time_nanos);
    assert_int_equal(facts.inflated_size, r->pprof.size);
    assert_int_equal(facts.dash_in_sample_type, r->facts.dash_in_sample_type);
}

static void to_pprof(const struct flue_payload *payload,
                     const struct flue_to_pprof_options *options, struct results *results)
{
    struct flue_arena arena;
    struct flue_error error;
    flue_arena_init(&arena, 1u << 30, 0);
    if (flue_otlp_to_pprof(payload, options, &arena, result, results, &error) != FLUE_OK)
        fail_msg("to pprof: %s", error.text);
    assert_int_equal(results->counts.profiles, flue_otlp_index_of(payload)->profile_count);
    assert_int_equal(results->counts.samples, flue_otlp_index_of(payload)->samples);
    assert_int_equal(results->counts.bytes, payload->ops->encoded_size(payload));
    flue_arena_destroy(&arena);
}

/* -------------------------------------------------------------- pprof and back */

/* A pprof through OTLP, written and read again, and back: nothing may be lost. */
static void round_trip(const char *name, struct flue_bytes profile, void *arg)
{
    struct flue_payload *payload = pprof_payload(profile);
    struct flue_payload *otlp = converted(payload, FLUE_FORM_OTLP);
    struct flue_block *body = encoded(otlp), *raw = raw_of(profile);
    struct lines wanted = {0}, got = {0};
    (void)arg;

    resolve_pprof("0", flue_block_bytes(raw), false, false, &wanted);
    expect_pprof(flue_block_bytes(body), NULL, &got);
    lines_equal(name, &got, &wanted);
    lines_free(&got);
    lines_free(&wanted);

    struct flue_payload *again = otlp_payload(body);
    struct flue_payload *back = converted(again, FLUE_FORM_PPROF);
    assert_int_equal(flue_pprof_series_count(back), 1);
    const struct flue_pprof_series *series = flue_pprof_series_at(back, 0);
    assert_int_equal(series->profile_count, 1);
    resolve_pprof("0", flue_block_bytes(raw), true, true, &wanted);
    resolve_pprof("0", series->profiles[0].bytes, true, true, &got);
    lines_equal(name, &got, &wanted);
    assert_int_equal(series->profiles[0].id.size, 36);
    assert_memory_equal(series->profiles[0].id.data, "8d3e7b7c-3a9f-4d2e-9b1a-5c6d7e8f9a0b", 36);

    struct lines labels = {0};
    for (size_t i = 0; i < series->label_count; i++) {
        struct text t = {0};
        say(&t, "%.*s=%.*s", FLUE_PRI(series->labels[i].name), FLUE_PRI(series->labels[i].value));
        line_add(&labels, take(&t));
    }
    char *all = lines_join(&labels);
    assert_string_equal(all, "__name__=some_name;__session_id__=0123456789abcdef;"
                             "otel_scope_name=com.grafana.pyroscope/go;region=eu-west;"
                             "service_name=encoder;");
    free(all);
    lines_free(&got);
    lines_free(&wanted);
    flue_block_unref(raw);
    flue_payload_unref(back);
    flue_payload_unref(again);
    flue_payload_unref(otlp);
    flue_payload_unref(payload);
}

static void pprof_captures_come_back(void **state)
{
    (void)state;
    every_profile(round_trip, NULL);
}

static void pprof_random_come_back(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct flue_block *raw = random_pprof(seed);
        char name[32];
        snprintf(name, sizeof name, "seed %" PRIu64, seed);
        round_trip(name, flue_block_bytes(raw), NULL);
        flue_block_unref(raw);
    }
}

static void pprof_elsewhere_come_back(void **state)
{
    static const char *const names[] = {
        "pprof/alloc_objects.pb.gz",
        "pprof/wordpress-php-datadog.pprof",
        "pprof/large.cpu.pb.gz",
        "labels/profile-with-labels.pb.gz",
        "delta/heap.before.pprof",
        "delta/heap.after.pprof",
        "delta/stress-failure.before.pprof",
    };
    size_t found = 0;
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/../shared/corpus/%s", FLUE_SOURCE_DIR, names[i]);
        struct flue_block *block = read_path(path);
        if (!block)
            continue;
        found++;
        round_trip(names[i], flue_block_bytes(block), NULL);
        flue_block_unref(block);
    }
    if (!found)
        print_message("profiles from elsewhere are not here: skipped\n");
}

/* ------------------------------------------------------------------ OTLP to pprof */

static bool known(const char **type, const char **unit, const char **ptype, const char **punit)
{
    bool count = strcmp(*unit, "count") == 0;
    if (strcmp(*ptype, "cpu") == 0 || strcmp(*ptype, "itimer") == 0) {
        *ptype = *type = "cpu";
        *punit = *unit = "nanoseconds";
    } else if (strcmp(*ptype, "wall") == 0) {
        *ptype = *type = "wall";
        *punit = *unit = "nanoseconds";
    } else if (strcmp(*ptype, "object_sampler") == 0) {
        *ptype = "space";
        *type = "alloc_space";
        *punit = *unit = "bytes";
    }
    return count;
}

static struct flue_block *otlp_file(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/otlp/%s.otlp", FLUE_TEST_DATA, name);
    struct flue_block *block = read_path(path);
    assert_non_null(block);
    return block;
}

static void otlp_captures_become_pprof(void **state)
{
    static const struct {
        const char *name, *called;
    } files[] = {
        {"ebpf-v1.11-pdata-order-1", NULL},  {"ebpf-v1.11-pdata-order-2", NULL},
        {"ebpf-v1.11-pdata-order-3", NULL},  {"ebpf-v1.11-ascending", NULL},
        {"async-profiler-alloc", "memory "}, {"async-profiler-cpu-threads", "process_cpu "},
        {"async-profiler-wall", "wall "},    {"pyroscope-java-cpu", "process_cpu "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct flue_block *body = otlp_file(files[i].name);
        struct lines wanted = {0};
        struct results results = {.with_head = false};
        expect_pprof(flue_block_bytes(body), known, &wanted);
        struct flue_payload *payload = otlp_payload(body);
        to_pprof(payload, NULL, &results);
        lines_equal(files[i].name, &results.lines, &wanted);
        if (files[i].called)
            assert_string_equal(results.names, files[i].called);
        else
            assert_null(strstr(results.names, "samples"));
        lines_free(&wanted);
        lines_free(&results.lines);
        flue_payload_unref(payload);
    }
}

/* Scopes that say they were pprof: types stay as they are, which keeps the expectation simple. */
static struct flue_block *random_was_pprof(uint64_t seed)
{
    struct flue_block *block = random_otlp(seed);
    Otlp__ExportProfilesServiceRequest *q =
        otlp__export_profiles_service_request__unpack(NULL, block->size, block->data);
    for (size_t r = 0; r < q->n_resource_profiles; r++)
        for (size_t s = 0; s < q->resource_profiles[r]->n_scope_profiles; s++) {
            Otlp__ScopeProfiles *sp = q->resource_profiles[r]->scope_profiles[s];
            if (!sp->scope)
                sp->scope = NEW(Otlp__InstrumentationScope, OTLP__INSTRUMENTATION_SCOPE__INIT);
            MANY(sp->scope->attributes, sp->scope->n_attributes, 1);
            Otlp__KeyValue *kv = NEW(Otlp__KeyValue, OTLP__KEY_VALUE__INIT);
            kv->key = strdup("pprof.scope.default_sample_type");
            kv->value = NEW(Otlp__AnyValue, OTLP__ANY_VALUE__INIT);
            kv->value->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
            kv->value->string_value = strdup("cpu");
            sp->scope->attributes[0] = kv;
        }
    flue_block_unref(block);
    block = flue_block_new(NULL, otlp__export_profiles_service_request__get_packed_size(q));
    block->size = otlp__export_profiles_service_request__pack(q, block->data);
    flue_block_finish(block);
    otlp__export_profiles_service_request__free_unpacked(q, NULL);
    return block;
}

static void otlp_random_becomes_pprof(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct flue_block *body = random_was_pprof(seed);
        struct lines wanted = {0};
        struct results results = {.with_head = false};
        char name[32];
        snprintf(name, sizeof name, "seed %" PRIu64, seed);
        expect_pprof(flue_block_bytes(body), NULL, &wanted);
        struct flue_payload *payload = otlp_payload(body);
        to_pprof(payload, NULL, &results);
        lines_equal(name, &results.lines, &wanted);
        lines_free(&wanted);
        lines_free(&results.lines);
        flue_payload_unref(payload);
    }
}

/* Types as they come: nothing to compare with, but it must hold together. */
static void otlp_random_types_hold(void **state)
{
    (void)state;
    for (uint64_t seed = 1000; seed <= 1100; seed++) {
        struct flue_payload *payload = otlp_payload(random_otlp(seed));
        struct flue_payload *series = converted(payload, FLUE_FORM_PPROF);
        struct flue_payload *cached = converted(payload, FLUE_FORM_PPROF);
        assert_ptr_equal(series, cached);
        for (size_t i = 0; i < flue_pprof_series_count(series); i++) {
            const struct flue_pprof_series *s = flue_pprof_series_at(series, i);
            assert_true(s->label_count > 0 && s->profile_count > 0);
            assert_true(flue_bytes_is(s->labels[0].name, "__name__"));
            assert_true(s->labels[0].value.size > 0);
        }
        flue_payload_unref(cached);
        flue_payload_unref(series);
        flue_payload_unref(payload);
    }
}

static const char *const thread_keys[] = {"thread.name", "thread.id", "cpu.logical_number"};

static int64_t total_of(const struct lines *lines)
{
    int64_t total = 0;
    for (size_t i = 0; i < lines->count; i++)
        total += strtoll(strrchr(lines->items[i], '|') + 1, NULL, 10);
    return total;
}

/* Without their thread and CPU, samples with equal stacks are one; what they count stays. */
static void dropped_attributes_fold_samples(void **state)
{
    struct flue_payload *payload = otlp_payload(otlp_file("ebpf-v1.11-pdata-order-1"));
    struct flue_bytes keep = flue_bytes_of(thread_keys[0]);
    struct flue_to_pprof_options none = {.drop_other_attributes = true};
    struct flue_to_pprof_options one = {
        .keep_attributes = &keep, .keep_count = 1, .drop_other_attributes = true};
    struct results all = {0}, folded = {0}, kept = {0};
    (void)state;
    to_pprof(payload, NULL, &all);
    to_pprof(payload, &none, &folded);
    to_pprof(payload, &one, &kept);
    assert_true(folded.lines.count <= kept.lines.count && kept.lines.count < all.lines.count);
    assert_int_equal(total_of(&all.lines), total_of(&folded.lines));
    assert_int_equal(total_of(&all.lines), total_of(&kept.lines));
    for (size_t i = 0; i < folded.lines.count; i++)
        assert_null(strstr(folded.lines.items[i], "thread."));
    for (size_t i = 0; i < kept.lines.count; i++) {
        assert_non_null(strstr(kept.lines.items[i], "thread.name="));
        assert_null(strstr(kept.lines.items[i], "thread.id="));
    }
    lines_sort(&folded.lines);
    for (size_t i = 1; i < folded.lines.count; i++) { /* no two differ in the value alone */
        const char *a = folded.lines.items[i - 1], *b = folded.lines.items[i];
        size_t n = (size_t)(strrchr(a, '|') - a);
        assert_true((size_t)(strrchr(b, '|') - b) != n || strncmp(a, b, n) != 0);
    }
    lines_free(&all.lines);
    lines_free(&folded.lines);
    lines_free(&kept.lines);
    flue_payload_unref(payload);
}

static void numbers_can_be_text(void **state)
{
    struct flue_payload *payload = otlp_payload(otlp_file("ebpf-v1.11-pdata-order-1"));
    struct flue_to_pprof_options options = {.numbers_as_text = true};
    struct results results = {0};
    (void)state;
    to_pprof(payload, &options, &results);
    for (size_t i = 0; i < results.lines.count; i++)
        assert_non_null(strstr(results.lines.items[i], "thread.id='"));
    lines_free(&results.lines);
    flue_payload_unref(payload);
}

/* ---------------------------------------------------------- single rules, by hand */

/* strings: 0 "", 1 cpu, 2 nanoseconds, 3 samples, 4 count, 5 lib.so, 6 build id's key, 7 main, 8
 * main.c, 9 alloc-space, 10 bytes */
static const char *const few_strings[] = {"",
                                          "cpu",
                                          "nanoseconds",
                                          "samples",
                                          "count",
                                          "lib.so",
                                          "process.executable.build_id.htlhash",
                                          "main",
                                          "main.c",
                                          "alloc-space",
                                          "bytes"};

struct few {
    Otlp__ExportProfilesServiceRequest *q;
    Otlp__ProfilesDictionary *d;
    Otlp__ScopeProfiles *scope;
};

/* One mapping with a symbolized frame, a bare one, and one with nothing at all. */
static struct few few_begin(void)
{
    struct few few = {
        NEW(Otlp__ExportProfilesServiceRequest, OTLP__EXPORT_PROFILES_SERVICE_REQUEST__INIT),
        NEW(Otlp__ProfilesDictionary, OTLP__PROFILES_DICTIONARY__INIT),
        NEW(Otlp__ScopeProfiles, OTLP__SCOPE_PROFILES__INIT)};
    Otlp__ProfilesDictionary *d = few.q->dictionary = few.d;
    MANY(few.q->resource_profiles, few.q->n_resource_profiles, 1);
    few.q->resource_profiles[0] = NEW(Otlp__ResourceProfiles, OTLP__RESOURCE_PROFILES__INIT);
    MANY(few.q->resource_profiles[0]->scope_profiles, few.q->resource_profiles[0]->n_scope_profiles,
         1);
    few.q->resource_profiles[0]->scope_profiles[0] = few.scope;
    MANY(few.scope->profiles, few.scope->n_profiles, 0);
    few.scope->profiles = realloc(few.scope->profiles, 8 * sizeof *few.scope->profiles);
    MANY(d->string_table, d->n_string_table, 11);
    for (size_t i = 0; i < 11; i++)
        d->string_table[i] = strdup(few_strings[i]);
    MANY(d->attribute_table, d->n_attribute_table, 2);
    for (size_t i = 0; i < 2; i++)
        d->attribute_table[i] = NEW(Otlp__KeyValueAndUnit, OTLP__KEY_VALUE_AND_UNIT__INIT);
    d->attribute_table[1]->key_strindex = 6;
    d->attribute_table[1]->value = NEW(Otlp__AnyValue, OTLP__ANY_VALUE__INIT);
    d->attribute_table[1]->value->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
    d->attribute_table[1]->value->string_value = strdup("abcd");
    MANY(d->mapping_table, d->n_mapping_table, 2);
    for (size_t i = 0; i < 2; i++)
        d->mapping_table[i] = NEW(Otlp__Mapping, OTLP__MAPPING__INIT);
    d->mapping_table[1]->memory_start = 4096;
    d->mapping_table[1]->memory_limit = 8192;
    d->mapping_table[1]->filename_strindex = 5;
    MANY(d->mapping_table[1]->attribute_indices, d->mapping_table[1]->n_attribute_indices, 1);
    d->mapping_table[1]->attribute_indices[0] = 1;
    MANY(d->function_table, d->n_function_table, 2);
    for (size_t i = 0; i < 2; i++)
        d->function_table[i] = NEW(Otlp__Function, OTLP__FUNCTION__INIT);
    d->function_table[1]->name_strindex = 7;
    d->function_table[1]->filename_strindex = 8;
    MANY(d->location_table, d->n_location_table, 4);
    for (size_t i = 0; i < 4; i++) {
        d->location_table[i] = NEW(Otlp__Location, OTLP__LOCATION__INIT);
        d->location_table[i]->mapping_index = i > 0;
    }
    MANY(d->location_table[1]->lines, d->location_table[1]->n_lines, 1);
    d->location_table[1]->lines[0] = NEW(Otlp__Line, OTLP__LINE__INIT);
    d->location_table[1]->lines[0]->function_index = 1;
    d->location_table[1]->lines[0]->line = 12;
    d->location_table[1]->address = 5000;
    d->location_table[2]->address = 6000;
    MANY(d->stack_table, d->n_stack_table, 2);
    for (size_t i = 0; i < 2; i++)
        d->stack_table[i] = NEW(Otlp__Stack, OTLP__STACK__INIT);
    MANY(d->stack_table[1]->location_indices, d->stack_table[1]->n_location_indices, 4);
    for (size_t i = 0; i < 4; i++)
        d->stack_table[1]->location_indices[i] = (int32_t)i;
    MANY(d->link_table, d->n_link_table, 1);
    d->link_table[0] = NEW(Otlp__Link, OTLP__LINK__INIT);
    return few;
}

/* A profile of one sample. */
static Otlp__Profile *few_profile(struct few *few, int type, int unit, int ptype, int punit,
                                  int64_t period, int64_t value)
{
    Otlp__Profile *p = NEW(Otlp__Profile, OTLP__PROFILE__INIT);
    p->sample_type = NEW(Otlp__ValueType, OTLP__VALUE_TYPE__INIT);
    p->sample_type->type_strindex = type;
    p->sample_type->unit_strindex = unit;
    if (ptype) {
        p->period_type = NEW(Otlp__ValueType, OTLP__VALUE_TYPE__INIT);
        p->period_type->type_strindex = ptype;
        p->period_type->unit_strindex = punit;
    }
    p->period = period;
    p->time_unix_nano = 1700000000000000000u;
    MANY(p->samples, p->n_samples, 1);
    p->samples[0] = NEW(Otlp__Sample, OTLP__SAMPLE__INIT);
    p->samples[0]->stack_index = 1;
    MANY(p->samples[0]->values, p->samples[0]->n_values, 1);
    p->samples[0]->values[0] = value;
    few->scope->profiles[few->scope->n_profiles++] = p;
    return p;
}

static struct flue_payload *few_payload(struct few *few)
{
    struct flue_block *block =
        flue_block_new(NULL, otlp__export_profiles_service_request__get_packed_size(few->q));
    block->size = otlp__export_profiles_service_request__pack(few->q, block->data);
    flue_block_finish(block);
    otlp__export_profiles_service_request__free_unpacked(few->q, NULL);
    return otlp_payload(block);
}

#define FRAMES                                                                                     \
    "<0 [unknown]//:0:0:0>"                                                                        \
    "<1388 in 1000-2000+0 lib.so #abcd1110 main//main.c:0:12:0>"                                   \
    "<1770 in 1000-2000+0 lib.so #abcd0000>"                                                       \
    "<0 in 1000-2000+0 lib.so #abcd1110 [unknown]//:0:0:0>"

static void mapping_of_two_kinds_is_split(void **state)
{
    struct few few = few_begin();
    struct results results = {.with_flags = true};
    (void)state;
    few_profile(&few, 3, 4, 1, 2, 10000000, 3);
    struct flue_payload *payload = few_payload(&few);
    to_pprof(payload, NULL, &results);
    assert_int_equal(results.count, 1);
    assert_string_equal(
        results.lines.items[0],
        "0 1700000000000000000+0 per 10000000 cpu/nanoseconds | cpu/nanoseconds | " FRAMES
        " | {} | 30000000");
    assert_string_equal(results.names, "process_cpu ");
    lines_free(&results.lines);
    flue_payload_unref(payload);
}

/* samples and cpu of one Go profile: one pprof with both, neither multiplied. */
static void types_are_recombined(void **state)
{
    struct few few = few_begin();
    struct results results = {.with_head = true};
    (void)state;
    few_profile(&few, 3, 4, 1, 2, 10000000, 3);
    few_profile(&few, 1, 2, 1, 2, 10000000, 31);
    few_profile(&few, 1, 2, 1, 2, 10000000, 32); /* the same type again: another pprof */
    few_profile(&few, 9, 10, 0, 0, 0, 33);       /* another period */
    struct flue_payload *payload = few_payload(&few);
    to_pprof(payload, NULL, &results);
    assert_int_equal(results.count, 3);
    assert_string_equal(results.names, "process_cpu process_cpu memory ");
    size_t both = 0, alone = 0;
    for (size_t i = 0; i < results.lines.count; i++) {
        both += strstr(results.lines.items[i], "doc  samples/count cpu/nanoseconds") != NULL;
        alone += strstr(results.lines.items[i], "doc  cpu/nanoseconds") != NULL;
    }
    assert_true(both == 1 && alone == 1);
    lines_free(&results.lines);
    flue_payload_unref(payload);
}

static void dashes_become_underscores_when_asked(void **state)
{
    struct flue_to_pprof_options options = {.underscore_sample_types = true};
    struct results as_is = {0}, changed = {0};
    struct few few = few_begin();
    (void)state;
    few_profile(&few, 9, 10, 0, 0, 0, 33);
    struct flue_payload *payload = few_payload(&few);
    to_pprof(payload, NULL, &as_is);
    to_pprof(payload, &options, &changed);
    assert_non_null(strstr(as_is.lines.items[0], "| alloc-space/bytes |"));
    assert_non_null(strstr(changed.lines.items[0], "| alloc_space/bytes |"));
    assert_non_null(strstr(changed.lines.items[0], "space/bytes | alloc_space"));
    lines_free(&as_is.lines);
    lines_free(&changed.lines);
    flue_payload_unref(payload);
}

static void time_of_receipt_stands_in(void **state)
{
    struct flue_to_pprof_options options = {.received_ns = 1711111111111111111};
    struct results results = {0};
    struct few few = few_begin();
    (void)state;
    few_profile(&few, 3, 4, 1, 2, 1, 3)->time_unix_nano = 0;
    struct flue_payload *payload = few_payload(&few);
    to_pprof(payload, &options, &results);
    assert_non_null(strstr(results.lines.items[0], "1711111111111111111+0"));
    lines_free(&results.lines);
    flue_payload_unref(payload);
}

static void products_saturate(void **state)
{
    struct results results = {0};
    struct few few = few_begin();
    (void)state;
    few_profile(&few, 3, 4, 1, 2, INT64_MAX, 3);
    struct flue_payload *payload = few_payload(&few);
    to_pprof(payload, NULL, &results);
    assert_non_null(strstr(results.lines.items[0], "| 9223372036854775807"));
    lines_free(&results.lines);
    flue_payload_unref(payload);
}

/* ------------------------------------------------------------------------ links */

static void links_of(const char *const labels[][2], size_t count, const char *link,
                     const char *attributes)
{
    struct flue_block *raw = labelled_pprof(labels, count);
    struct flue_payload *payload = pprof_payload(flue_block_bytes(raw));
    struct flue_payload *otlp = converted(payload, FLUE_FORM_OTLP);
    struct flue_block *body = encoded(otlp);
    struct lines lines = {0};
    resolve_otlp(flue_block_bytes(body), &lines);
    assert_int_equal(lines.count, 1);
    char *at = strstr(lines.items[0], " | ");
    at = strstr(at + 3, " | ") + 3;
    char wanted[300];
    snprintf(wanted, sizeof wanted, "%s%s%s | 5 |", attributes, *link ? " link " : "", link);
    assert_string_equal(at, wanted);
    lines_free(&lines);
    flue_block_unref(body);
    round_trip("labels", flue_block_bytes(raw), NULL);
    flue_payload_unref(otlp);
    flue_payload_unref(payload);
    flue_block_unref(raw);
}

static void span_labels_become_links(void **state)
{
    static const char *const both[][2] = {{"span_id", "00a1b2c3d4e5f607"},
                                          {"trace_id", "0102030405060708090a0b0c0d0e0f10"}};
    static const char *const upper[][2] = {{"span_id", "00A1B2C3D4E5F607"}};
    static const char *const old[][2] = {{"profile_id", "00a1b2c3d4e5f607"}};
    static const char *const both_forms[][2] = {{"profile_id", "00a1b2c3d4e5f607"},
                                                {"span_id", "00a1b2c3d4e5f607"}};
    static const char *const number[][2] = {{"span id", "#-2"}, {"local root span id", "#9"}};
    static const char *const decimal[][2] = {{"span id", "258"}};
    static const char *const root[][2] = {{"local root span id", "258"}, {"span id", "#0"}};
    static const char *const none[][2] = {{"span_id", "0000000000000000"}, {"trace_id", "xyz"}};
    static const char *const twice[][2] = {{"span_id", "00a1b2c3d4e5f607"},
                                           {"span_id", "10a1b2c3d4e5f607"}};
    (void)state;
    links_of(both, 2, "0102030405060708090a0b0c0d0e0f10/00a1b2c3d4e5f607", "{}");
    links_of(upper, 1, "00000000000000000000000000000000/00a1b2c3d4e5f607",
             "{span_id='00A1B2C3D4E5F607'();}");
    links_of(old, 1, "00000000000000000000000000000000/00a1b2c3d4e5f607",
             "{profile_id='00a1b2c3d4e5f607'();}");
    links_of(both_forms, 2, "00000000000000000000000000000000/00a1b2c3d4e5f607",
             "{profile_id='00a1b2c3d4e5f607'();span_id='00a1b2c3d4e5f607'();}");
    links_of(number, 2, "00000000000000000000000000000000/fffffffffffffffe",
             "{local root span id=9();span id=-2();}");
    links_of(decimal, 1, "00000000000000000000000000000000/0000000000000102", "{span id='258'();}");
    links_of(root, 2, "00000000000000000000000000000000/0000000000000102",
             "{local root span id='258'();span id=0();}");
    links_of(none, 2, "", "{span_id='0000000000000000'();trace_id='xyz'();}");
    links_of(twice, 2, "00000000000000000000000000000000/00a1b2c3d4e5f607",
             "{span_id=['00a1b2c3d4e5f607','10a1b2c3d4e5f607',]();}");
}

/* ---------------------------------------------------------------------- bad ends */

static void nothing(void *arg, const struct flue_to_pprof_result *r)
{
    (void)arg;
    (void)r;
}

static void small_budgets_end_cleanly(void **state)
{
    struct flue_payload *payload = otlp_payload(otlp_file("ebpf-v1.11-pdata-order-1"));
    size_t failures = 0, successes = 0;
    (void)state;
    for (size_t budget = 16; budget < 400000; budget = budget * 5 / 4 + 16) {
        struct flue_arena arena;
        struct flue_error error;
        flue_arena_init(&arena, budget, 0);
        enum flue_code code = flue_otlp_to_pprof(payload, NULL, &arena, nothing, NULL, &error);
        assert_true(code == FLUE_OK || code == FLUE_NO_MEMORY || code == FLUE_TOO_LARGE);
        failures += code != FLUE_OK;
        successes += code == FLUE_OK;
        flue_arena_destroy(&arena);
    }
    assert_true(failures > 5 && successes > 2);
    flue_payload_unref(payload);
}

/* A profile that a trusted hop sent unchecked: anything may be in it. */
static void unchecked_profiles_do_no_harm(void **state)
{
    struct dice dice = {42};
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct flue_block *raw = random_pprof(seed % 10);
        for (unsigned i = 0; i < 1 + seed % 4; i++)
            raw->data[pick(&dice, (uint32_t)raw->size)] ^= (uint8_t)(1u << pick(&dice, 8));
        if (seed % 3 == 0)
            raw->size = pick(&dice, (uint32_t)raw->size);
        struct flue_pprof_builder *builder = flue_pprof_builder_new(NULL);
        struct flue_pprof_profile p = {.bytes = flue_block_bytes(raw)};
        struct flue_payload *payload, *otlp;
        struct flue_counts counts;
        struct flue_error error;
        flue_pprof_builder_keep(builder, raw);
        flue_pprof_builder_series(builder);
        flue_pprof_builder_label(builder, FLUE_BYTES("service_name"), FLUE_BYTES("x"));
        flue_pprof_builder_profile(builder, &p);
        assert_int_equal(flue_pprof_builder_finish(builder, &payload, &counts, &error), FLUE_OK);
        if (flue_convert(payload, FLUE_FORM_OTLP, NULL, &otlp, &error) == FLUE_OK)
            flue_payload_unref(otlp);
        else
            assert_true(error.text[0]);
        flue_payload_unref(payload);
        flue_block_unref(raw);
    }
}

static void accounts_balance(void **state)
{
    struct flue_budget budget;
    struct flue_account account;
    struct flue_payload *payload = otlp_payload(otlp_file("ebpf-v1.11-pdata-order-1"));
    struct flue_payload *series, *again;
    (void)state;
    flue_budget_init(&budget, 1000); /* less than is needed: what is here must be able to leave */
    flue_account_init(&account, &budget, "test", 0);
    assert_int_equal(flue_convert(payload, FLUE_FORM_PPROF, &account, &series, NULL), FLUE_OK);
    assert_true(account.used > 1000);
    assert_int_equal(flue_convert(series, FLUE_FORM_OTLP, &account, &again, NULL), FLUE_OK);
    flue_payload_unref(again);
    flue_payload_unref(series);
    flue_payload_unref(payload);
    assert_int_equal(account.used, 0);
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pprof_captures_come_back),
        cmocka_unit_test(pprof_random_come_back),
        cmocka_unit_test(pprof_elsewhere_come_back),
        cmocka_unit_test(otlp_captures_become_pprof),
        cmocka_unit_test(otlp_random_becomes_pprof),
        cmocka_unit_test(otlp_random_types_hold),
        cmocka_unit_test(dropped_attributes_fold_samples),
        cmocka_unit_test(numbers_can_be_text),
        cmocka_unit_test(mapping_of_two_kinds_is_split),
        cmocka_unit_test(types_are_recombined),
        cmocka_unit_test(dashes_become_underscores_when_asked),
        cmocka_unit_test(time_of_receipt_stands_in),
        cmocka_unit_test(products_saturate),
        cmocka_unit_test(span_labels_become_links),
        cmocka_unit_test(small_budgets_end_cleanly),
        cmocka_unit_test(unchecked_profiles_do_no_harm),
        cmocka_unit_test(accounts_balance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
