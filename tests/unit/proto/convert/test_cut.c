/* Conversion in parts: each within its limits, all of them together the whole, sample by sample. */
#include "tests/unit/proto/convert/resolve.h"

#include "proto/convert/convert.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "tests/unit/proto/convert/random_otlp.h"
#include "tests/unit/proto/pprof/corpus.h"

struct parts {
    const struct flue_to_pprof_options *options;
    struct lines lines;
    struct flue_counts counts;
    size_t count, cut;
    /* of the last one */
    unsigned part;
    size_t resource;
    int64_t time_nanos;
    char name[200];
};

static void take_part(void *arg, const struct flue_to_pprof_result *r)
{
    struct parts *parts = arg;
    struct flue_pprof_facts facts;
    struct flue_error error;
    char prefix[32];

    if (flue_pprof_check(r->pprof, &test_limits, &facts, &error) != FLUE_OK)
        fail_msg("a part does not pass the check: %s", error.text);
    assert_int_equal(facts.samples, r->facts.samples);
    assert_int_equal(facts.time_nanos, r->time_nanos);
    if (parts->options->most_samples)
        assert_true(facts.samples <= parts->options->most_samples);
    if (parts->options->most_bytes && facts.samples > 1)
        assert_true(r->pprof.size <= parts->options->most_bytes);
    /* The number is what keeps the times of one profile's parts apart: 0, 1, 2, ... */
    if (r->part) {
        assert_int_equal(r->part, parts->part + 1);
        assert_int_equal(r->resource, parts->resource);
        assert_int_equal(r->time_nanos, parts->time_nanos);
        assert_true(flue_bytes_is(r->name, parts->name));
        assert_int_equal(r->counts.profiles, 0);
        assert_true(facts.samples > 0);
        parts->cut++;
    }
    parts->part = r->part;
    parts->resource = r->resource;
    parts->time_nanos = r->time_nanos;
    snprintf(parts->name, sizeof parts->name, "%.*s", FLUE_PRI(r->name));
    parts->count++;
    parts->counts.profiles += r->counts.profiles;
    parts->counts.samples += r->counts.samples;
    parts->counts.bytes += r->counts.bytes;
    snprintf(prefix, sizeof prefix, "%zu", r->resource);
    resolve_pprof(prefix, r->pprof, false, false, &parts->lines);
    flue_block_unref(r->block);
}

static void convert(const struct flue_payload *payload, const struct flue_to_pprof_options *options,
                    struct parts *parts)
{
    struct flue_arena arena;
    struct flue_error error;

    parts->options = options;
    flue_arena_init(&arena, 1u << 30, 0);
    if (flue_otlp_to_pprof(payload, options, &arena, take_part, parts, &error) != FLUE_OK)
        fail_msg("to pprof: %s", error.text);
    assert_int_equal(parts->counts.profiles, flue_otlp_index_of(payload)->profile_count);
    assert_int_equal(parts->counts.samples, flue_otlp_index_of(payload)->samples);
    assert_int_equal(parts->counts.bytes, payload->ops->encoded_size(payload));
    flue_arena_destroy(&arena);
}

/* Returns how many parts there are besides the first ones. */
static size_t cut_and_compare(const char *what, struct flue_block *body)
{
    static const struct flue_to_pprof_options limits[] = {
        {.most_samples = 1},
        {.most_samples = 2},
        {.most_samples = 7},
        {.most_bytes = 1},
        {.most_bytes = 700},
        {.most_bytes = 4096},
        {.most_samples = 3, .most_bytes = 900, .own_block_from = 1},
        {.most_samples = 5, .drop_other_attributes = true},
    };
    struct flue_otlp_report report;
    struct flue_payload *payload;
    struct flue_error error;
    size_t cut = 0;

    if (flue_otlp_read(body, &payload, &report, &error) != FLUE_OK)
        fail_msg("%s: %s", what, error.text);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct flue_to_pprof_options no_limit = limits[i];
        struct parts whole = {0}, parts = {0};
        no_limit.most_samples = no_limit.most_bytes = 0;
        convert(payload, &no_limit, &whole);
        assert_int_equal(whole.cut, 0);
        convert(payload, &limits[i], &parts);
        assert_int_equal(parts.count - parts.cut, whole.count);
        lines_equal(what, &parts.lines, &whole.lines);
        cut += parts.cut;
        lines_free(&whole.lines);
        lines_free(&parts.lines);
    }
    flue_payload_unref(payload);
    return cut;
}

static void random_requests_in_parts(void **state)
{
    size_t cut = 0;

    for (uint64_t seed = 1; seed <= 15; seed++) {
        char what[32];
        snprintf(what, sizeof what, "seed %" PRIu64, seed);
        cut += cut_and_compare(what, random_otlp(seed));
    }
    assert_true(cut > 100);
}

static void captures_in_parts(void **state)
{
    static const char *const names[] = {"ebpf-v1.11-pdata-order-1", "async-profiler-cpu-threads",
                                        "pyroscope-java-cpu"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/otlp/%s.otlp", FLUE_TEST_DATA, names[i]);
        struct flue_block *body = read_path(path);
        assert_non_null(body);
        assert_true(cut_and_compare(names[i], body) > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests_in_parts),
        cmocka_unit_test(captures_in_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
