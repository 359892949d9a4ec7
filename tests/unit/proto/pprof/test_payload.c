/* Series as a payload: the view in OpenTelemetry's names, edits, clones, merging, splitting, and
 * push.v1 in and out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "corpus.h"

#include "collector/base/base64.h"
#include "pprof.pb-c.h"
#include "proto/pprof/document.h"
#include "proto/pprof/names.h"
#include "proto/pprof/repair.h"
#include "proto/wire/json_budget.h"
#include "proto/wire/writer.h"

#define B(literal) FLUE_BYTES(literal)

static struct flue_block *push_body(const char *name)
{
    struct flue_block *gzip = capture(name), *body;
    struct flue_error error;
    assert_int_equal(
        flue_inflate(FLUE_GZIP, flue_block_bytes(gzip), 64u << 20, 200, NULL, &body, &error),
        FLUE_OK);
    flue_block_unref(gzip);
    return body;
}

static struct flue_payload *read_push(struct flue_block *body, struct flue_push_report *report)
{
    struct flue_payload *payload;
    struct flue_error error = {0};
    if (flue_push_read(body, &test_limits, false, &payload, report, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    return payload;
}

static struct flue_block *written(const struct flue_payload *payload)
{
    struct flue_arena arena;
    struct flue_slices slices = {0};
    struct flue_error error;
    flue_arena_init(&arena, 64u << 20, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, &error), FLUE_OK);
    assert_int_equal(slices.total, payload->ops->encoded_size(payload));
    struct flue_block *block = flue_block_new(NULL, slices.total);
    flue_slices_copy(&slices, block->data);
    block->size = slices.total;
    flue_block_finish(block);
    flue_arena_destroy(&arena);
    return block;
}

static const char *label_of(const struct flue_payload *payload, size_t i, const char *name)
{
    static char text[200];
    const struct flue_pprof_series *series = flue_pprof_series_at(payload, i);
    for (size_t j = 0; j < series->label_count; j++)
        if (flue_bytes_is(series->labels[j].name, name)) {
            snprintf(text, sizeof text, "%.*s", FLUE_PRI(series->labels[j].value));
            return text;
        }
    return NULL;
}

static const char *attribute_of(const struct flue_payload *payload, size_t i, const char *key)
{
    static char text[200];
    struct flue_value value;
    if (!payload->ops->attribute_get(payload, i, flue_bytes_of(key), &value))
        return NULL;
    snprintf(text, sizeof text, "%.*s", FLUE_PRI(value.text));
    return text;
}

static void set_text(struct flue_payload *payload, size_t i, const char *key, const char *value,
                     enum flue_set_mode mode)
{
    struct flue_attribute item = {flue_bytes_of(key),
                                  {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(value)}};
    struct flue_attribute_set set = {.items = &item, .count = 1};
    struct flue_error error = {0};
    assert_int_equal(payload->ops->attributes_set(payload, i, &set, mode, NULL, &error), FLUE_OK);
}

/* ---- push ----------------------------------------------------------------------------------- */

static void captures_come_back_byte_for_byte(void **state)
{
    for (size_t i = 0; i < sizeof pushes / sizeof *pushes; i++) {
        struct flue_block *body = push_body(pushes[i]);
        struct flue_push_report report;
        struct flue_payload *payload = read_push(body, &report);
        assert_int_equal(report.rejected_profiles, 0);
        struct flue_block *again = written(payload);
        assert_int_equal(again->size, body->size);
        assert_memory_equal(again->data, body->data, body->size);
        assert_int_equal(report.counts.bytes, body->size);
        assert_string_equal(attribute_of(payload, 0, "service.name"),
                            label_of(payload, 0, "service_name"));
        assert_null(attribute_of(payload, 0, "__name__"));
        flue_block_unref(again);
        flue_payload_unref(payload);
        flue_block_unref(body);
    }
}

static void two_series_are_counted(void **state)
{
    struct flue_block *body = push_body("pyroscope-python/cpu-and-memory.body");
    struct flue_push_report report;
    struct flue_payload *payload = read_push(body, &report);
    assert_int_equal(flue_pprof_series_count(payload), 2);
    assert_int_equal(report.counts.profiles, 2);
    assert_string_equal(label_of(payload, 0, "__name__"), "memory");
    assert_string_equal(label_of(payload, 1, "__name__"), "process_cpu");
    assert_int_equal(report.counts.samples,
                     flue_pprof_series_at(payload, 0)->profiles[0].facts.samples +
                         flue_pprof_series_at(payload, 1)->profiles[0].facts.samples);
    flue_payload_unref(payload);
    flue_block_unref(body);
}

struct text {
    uint8_t data[70000];
    size_t size;
};
static void add(struct text *t, uint32_t number, struct flue_bytes b)
{
    t->size = (size_t)(flue_write_len_field(t->data + t->size, number, b) - t->data);
}
static void add_label(struct text *series, const char *name, const char *value)
{
    struct text *label = calloc(1, sizeof *label);
    add(label, 1, flue_bytes_of(name));
    add(label, 2, flue_bytes_of(value));
    add(series, 1, flue_bytes(label->data, label->size));
    free(label);
}
static void add_sample(struct text *series, struct flue_bytes profile)
{
    struct text *sample = calloc(1, sizeof *sample);
    add(sample, 1, profile);
    add(series, 2, flue_bytes(sample->data, sample->size));
    free(sample);
}
static void add_series(struct text *request, struct text *series)
{
    add(request, 1, flue_bytes(series->data, series->size));
    series->size = 0;
}

static enum flue_code read_text(const struct text *t, bool trusted, struct flue_payload **payload,
                                struct flue_push_report *report, struct flue_error *error)
{
    struct flue_block *body = flue_block_copy(NULL, flue_bytes(t->data, t->size));
    enum flue_code code = flue_push_read(body, &test_limits, trusted, payload, report, error);
    flue_block_unref(body);
    return code;
}

static void bad_profiles_are_left_out(void **state)
{
    struct text *request = calloc(1, sizeof *request), *series = calloc(1, sizeof *series);
    struct flue_block *good = capture("go-net-http-pprof/profile.body");
    struct flue_push_report report;
    struct flue_payload *payload;
    struct flue_error error = {0};
    add_label(series, "__name__", "process_cpu");
    add_label(series, "service_name", "a\xff z");
    add_sample(series, flue_block_bytes(good));
    add_sample(series, B("not a profile"));
    add_series(request, series);
    add_label(series, "service_name", "nameless");
    add_sample(series, flue_block_bytes(good));
    add_series(request, series);
    add_label(series, "__name__", "memory");
    add_label(series, "x", "1");
    add_label(series, "x", "2");
    add_sample(series, flue_block_bytes(good));
    add_series(request, series);
    assert_int_equal(read_text(request, false, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.rejected_profiles, 3);
    assert_int_equal(report.counts.profiles, 1);
    assert_int_equal(flue_pprof_series_count(payload), 1);
    assert_non_null(strstr(report.rejected_reason, "series[0].samples[1].raw_profile: "));
    assert_string_equal(label_of(payload, 0, "service_name"), "a\xef\xbf\xbd z");
    flue_payload_unref(payload);

    /* trusted: only the envelope, so "not a profile" passes and labels still count */
    assert_int_equal(read_text(request, true, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.counts.profiles, 2);
    assert_int_equal(report.rejected_profiles, 2);
    flue_payload_unref(payload);

    /* nothing good */
    request->size = series->size = 0;
    add_label(series, "__name__", "process_cpu");
    add_sample(series, B("\x1f\x8b nonsense"));
    add_series(request, series);
    assert_int_equal(read_text(request, false, &payload, &report, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "series[0].samples[0].raw_profile"));
    request->size = 0;
    assert_int_equal(read_text(request, false, &payload, &report, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "no profiles received"));
    flue_block_unref(good);
    free(request);
    free(series);
}

static void truncated_envelopes_are_refused(void **state)
{
    struct flue_block *body = push_body("pyroscope-python/cpu-and-memory.body");
    struct flue_push_report report;
    struct flue_payload *payload;
    struct flue_error error;
    for (size_t size = 0; size < body->size; size++) {
        struct flue_block *cut =
            flue_block_copy(NULL, flue_bytes_first(flue_block_bytes(body), size));
        enum flue_code code = flue_push_read(cut, &test_limits, false, &payload, &report, &error);
        /* Between the two series a cut is a whole request of one. */
        if (code == FLUE_OK) {
            assert_int_equal(report.counts.profiles, 1);
            flue_payload_unref(payload);
        } else {
            assert_int_equal(code, FLUE_INVALID);
        }
        flue_block_unref(cut);
    }
    flue_block_unref(body);
}

static void the_sum_of_a_request_is_limited(void **state)
{
    struct text *request = calloc(1, sizeof *request), *series = calloc(1, sizeof *series);
    struct flue_block *good = capture("go-net-http-pprof/profile.body"), *raw;
    struct flue_push_report report;
    struct flue_payload *payload;
    struct flue_error error = {0};
    raw = raw_of(flue_block_bytes(good));
    add_label(series, "__name__", "process_cpu");
    for (int i = 0; i < 3; i++)
        add_sample(series, flue_block_bytes(good));
    add_series(request, series);
    struct flue_block *body = flue_block_copy(NULL, flue_bytes(request->data, request->size));
    struct flue_pprof_limits limits = {3 * raw->size, 200};
    assert_int_equal(flue_push_read(body, &limits, false, &payload, &report, &error), FLUE_OK);
    flue_payload_unref(payload);
    limits.inflated--;
    assert_int_equal(flue_push_read(body, &limits, false, &payload, &report, &error),
                     FLUE_TOO_LARGE);
    flue_block_unref(body);
    flue_block_unref(raw);
    flue_block_unref(good);
    free(request);
    free(series);
}

static void cut_strings_are_repaired(void **state)
{
    struct text *request = calloc(1, sizeof *request), *series = calloc(1, sizeof *series);
    struct flue_block *good = capture("go-net-http-pprof/profile.body"), *raw;
    struct flue_push_report report;
    struct flue_payload *payload;
    struct flue_error error = {0};
    struct flue_pprof_facts facts;
    raw = raw_of(flue_block_bytes(good));
    assert_int_equal(flue_block_append(raw,
                                       B("\x32\x05"
                                         "caf\xc3!"),
                                       SIZE_MAX, &error),
                     FLUE_OK);
    add_label(series, "__name__", "process_cpu");
    add_sample(series, flue_block_bytes(raw));
    add_series(request, series);
    assert_int_equal(read_text(request, false, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.repaired_profiles, 1);
    struct flue_bytes out = flue_pprof_series_at(payload, 0)->profiles[0].bytes;
    assert_int_equal(flue_pprof_check(out, &test_limits, &facts, &error), FLUE_OK);
    assert_false(facts.invalid_utf8);
    assert_non_null(memmem(out.data, out.size, "caf\xef\xbf\xbd!", 7));
    flue_payload_unref(payload);
    flue_block_unref(raw);
    flue_block_unref(good);
    free(request);
    free(series);
}

static void json_is_the_same_request(void **state)
{
    struct flue_block *good = capture("go-net-http-pprof/profile.body"), *body, *expected;
    struct flue_error error = {0};
    size_t room = (good->size + 2) / 3 * 4;
    char *json = malloc(room + 1000);
    size_t size = (size_t)sprintf(json, "{\"series\":[{\"labels\":[{\"name\":\"__name__\","
                                        "\"value\":\"process_cpu\"},{\"name\":\"service_name\","
                                        "\"value\":\"caf\\u00e9\"}],\"extra\":null,\"samples\":"
                                        "[{\"ID\":\"abc\",\"rawProfile\":\"");
    flue_base64_encode(flue_block_bytes(good), json + size);
    size += room;
    size += (size_t)sprintf(json + size, "\"}]}]}");
    assert_int_equal(flue_push_json_read(flue_bytes(json, size), 1u << 20, NULL, &body, &error),
                     FLUE_OK);
    struct flue_pprof_label labels[] = {{B("__name__"), B("process_cpu")},
                                        {B("service_name"), B("caf\xc3\xa9")}};
    struct flue_arena arena;
    struct flue_slices slices = {0};
    flue_arena_init(&arena, 1u << 20, 0);
    assert_int_equal(
        flue_push_write(&arena, labels, 2, flue_block_bytes(good), B("abc"), &slices, &error),
        FLUE_OK);
    expected = flue_block_new(NULL, slices.total);
    flue_slices_copy(&slices, expected->data);
    assert_int_equal(body->size, slices.total);
    assert_memory_equal(body->data, expected->data, slices.total);
    flue_block_unref(expected);
    flue_block_unref(body);
    flue_arena_destroy(&arena);

    /* truncated at every byte, and other mistakes */
    for (size_t cut = 0; cut < size; cut += cut < 400 || cut > size - 40 ? 1 : 53)
        assert_int_equal(flue_push_json_read(flue_bytes(json, cut), 1u << 20, NULL, &body, &error),
                         FLUE_INVALID);
    assert_int_equal(flue_push_json_read(flue_bytes(json, size), 8192, NULL, &body, &error),
                     FLUE_TOO_LARGE);
    static const char *const bad[] = {
        "[]",
        "{\"series\":{}}",
        "{\"series\":[7]}",
        "{\"series\":[{\"labels\":\"x\"}]}",
        "{\"series\":[{\"labels\":[{\"name\":1}]}]}",
        "{\"series\":[{\"samples\":[[]]}]}",
        "{\"series\":[{\"samples\":[{\"rawProfile\":\"a\"}]}]}",
        "{\"series\":[{\"samples\":[{\"rawProfile\":\"!!!!\"}]}]}",
        "{\"series\":[{\"samples\":[{\"rawProfile\":{}}]}]}",
        "{} x",
        "nul",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (flue_push_json_read(flue_bytes_of(bad[i]), 1u << 20, NULL, &body, &error) !=
            FLUE_INVALID)
            fail_msg("%s is taken", bad[i]);
    char deep[200] = "{\"x\":";
    memset(deep + 5, '[', 40);
    assert_int_equal(flue_push_json_read(flue_bytes(deep, 45), 1u << 20, NULL, &body, &error),
                     FLUE_INVALID);
    assert_non_null(strstr(error.text, "nested deeper"));
    free(json);
    flue_block_unref(good);
}

/* ---- the view ------------------------------------------------------------------------------- */

static struct flue_payload *two_labels(const char *name, const char *value, const char *other,
                                       const char *other_value)
{
    struct flue_pprof_builder *builder = flue_pprof_builder_new(NULL);
    struct flue_block *profile = capture("go-net-http-pprof/profile.body");
    struct flue_pprof_profile one = {.bytes = flue_block_bytes(profile)};
    struct flue_payload *payload;
    struct flue_error error = {0};
    assert_int_equal(flue_pprof_check(one.bytes, &test_limits, &one.facts, &error), FLUE_OK);
    flue_pprof_builder_keep(builder, profile);
    flue_block_unref(profile);
    flue_pprof_builder_series(builder);
    flue_pprof_builder_label(builder, B("__name__"), B("process_cpu"));
    flue_pprof_builder_label(builder, flue_bytes_of(name), flue_bytes_of(value));
    flue_pprof_builder_label(builder, flue_bytes_of(other), flue_bytes_of(other_value));
    flue_pprof_builder_profile(builder, &one);
    assert_int_equal(flue_pprof_builder_finish(builder, &payload, NULL, &error), FLUE_OK);
    return payload;
}

static void names_translate_both_ways(void **state)
{
    struct flue_payload *p = two_labels("service_name", "enc", "region", "eu");
    assert_string_equal(attribute_of(p, 0, "service.name"), "enc");
    assert_string_equal(attribute_of(p, 0, "service_name"), "enc");
    assert_string_equal(attribute_of(p, 0, "region"), "eu");
    set_text(p, 0, "service.name", "other", FLUE_SET_UPSERT);
    set_text(p, 0, "k8s.pod.name", "enc-1", FLUE_SET_UPSERT);
    set_text(p, 0, "team.cost-center", "42", FLUE_SET_INSERT);
    set_text(p, 0, "7up", "x", FLUE_SET_INSERT);
    set_text(p, 0, "region", "us", FLUE_SET_INSERT); /* is there: stays */
    set_text(p, 0, "absent", "x", FLUE_SET_UPDATE);
    set_text(p, 0, "__name__", "memory", FLUE_SET_UPSERT);
    assert_string_equal(label_of(p, 0, "service_name"), "other");
    assert_null(label_of(p, 0, "service.name"));
    assert_string_equal(label_of(p, 0, "k8s_pod_name"), "enc-1");
    assert_string_equal(label_of(p, 0, "team_cost_center"), "42");
    assert_string_equal(attribute_of(p, 0, "team.cost-center"), "42");
    assert_string_equal(label_of(p, 0, "_7up"), "x");
    assert_string_equal(label_of(p, 0, "region"), "eu");
    assert_null(label_of(p, 0, "absent"));
    assert_string_equal(label_of(p, 0, "__name__"), "process_cpu");
    struct flue_error error;
    assert_int_equal(p->ops->attribute_remove(p, 0, B("team.cost-center"), &error), FLUE_OK);
    assert_null(label_of(p, 0, "team_cost_center"));
    assert_int_equal(p->ops->attribute_remove(p, 0, B("__name__"), &error), FLUE_OK);
    assert_non_null(label_of(p, 0, "__name__"));
    flue_payload_unref(p);
}

static void a_received_underscore_label_is_updated_not_doubled(void **state)
{
    struct flue_payload *p = two_labels("my_label", "a", "otel.scope.name", "go");
    set_text(p, 0, "my.label", "b", FLUE_SET_UPSERT);
    assert_string_equal(label_of(p, 0, "my_label"), "b");
    assert_int_equal(flue_pprof_series_at(p, 0)->label_count, 3);
    /* what came with dots keeps its dots */
    assert_string_equal(label_of(p, 0, "otel.scope.name"), "go");
    assert_string_equal(attribute_of(p, 0, "otel.scope.name"), "go");
    flue_payload_unref(p);
    p = two_labels("service.name", "dots", "service_name", "own");
    assert_int_equal(flue_pprof_series_at(p, 0)->label_count, 2);
    assert_string_equal(label_of(p, 0, "service_name"), "own");
    flue_payload_unref(p);
    p = two_labels("service_name", "own", "service.name", "dots");
    assert_int_equal(flue_pprof_series_at(p, 0)->label_count, 2);
    assert_string_equal(label_of(p, 0, "service_name"), "own");
    flue_payload_unref(p);
}

static void values_become_text(void **state)
{
    struct flue_arena arena;
    flue_arena_init(&arena, 1u << 20, 0);
    struct {
        struct flue_value value;
        const char *text;
    } rows[] = {
        {{.type = FLUE_VALUE_BOOL, .boolean = true}, "true"},
        {{.type = FLUE_VALUE_INT, .integer = -7}, "-7"},
        {{.type = FLUE_VALUE_DOUBLE, .number = 0.1}, "0.1"},
        {{.type = FLUE_VALUE_BYTES, .text = B("\x01\x02")}, "AQI="},
        /* array of one string, of two, of a map */
        {{.type = FLUE_VALUE_COMPLEX,
          .text = B("\x2a\x05\x0a\x03\x0a\x01"
                    "a")},
         "a"},
        {{.type = FLUE_VALUE_COMPLEX,
          .text = B("\x2a\x09\x0a\x03\x0a\x01"
                    "a"
                    "\x0a\x02\x18\x05")},
         "[\"a\",5]"},
        {{.type = FLUE_VALUE_COMPLEX,
          .text = B("\x32\x09\x0a\x07\x0a\x01"
                    "k"
                    "\x12\x02\x10\x01")},
         "{\"k\":true}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct flue_bytes text = flue_label_text(&rows[i].value, &arena);
        if (!flue_bytes_is(text, rows[i].text))
            fail_msg("row %zu: \"%.*s\"", i, FLUE_PRI(text));
    }
    struct flue_value broken = {.type = FLUE_VALUE_COMPLEX, .text = B("\x2a\x05\x0a")};
    assert_null(flue_label_text(&broken, &arena).data);
    uint8_t deep[200], *at = deep + sizeof deep;
    size_t size = 0;
    for (int i = 0; i < 40; i++) { /* arrays in arrays */
        uint8_t head[4] = {0x2a, (uint8_t)(size + 2), 0x0a, (uint8_t)size};
        at -= 4;
        memcpy(at, head, 4);
        size += 4;
        if (size > 120)
            break;
    }
    flue_label_text(&(struct flue_value){.type = FLUE_VALUE_COMPLEX, .text = {at, size}}, &arena);
    flue_arena_destroy(&arena);
}

static void clones_do_not_share_edits(void **state)
{
    struct flue_error error;
    struct flue_payload *a = two_labels("service_name", "enc", "region", "eu");
    set_text(a, 0, "region", "us", FLUE_SET_UPSERT);
    struct flue_payload *b = a->ops->clone(a, &error);
    set_text(b, 0, "region", "ap", FLUE_SET_UPSERT);
    set_text(b, 0, "new", "1", FLUE_SET_UPSERT);
    assert_string_equal(label_of(a, 0, "region"), "us");
    assert_null(label_of(a, 0, "new"));
    flue_payload_unref(a); /* b must not lean on a */
    assert_string_equal(label_of(b, 0, "region"), "ap");
    assert_string_equal(label_of(b, 0, "service_name"), "enc");
    struct flue_block *out = written(b);
    struct flue_push_report report;
    struct flue_payload *again = read_push(out, &report);
    assert_string_equal(label_of(again, 0, "region"), "ap");
    flue_payload_unref(again);
    flue_block_unref(out);
    flue_payload_unref(b);
}

/* ---- merge and split ------------------------------------------------------------------------ */

static void equal_series_become_one(void **state)
{
    struct flue_error error;
    struct flue_payload *parts[3] = {two_labels("a", "1", "b", "2"), two_labels("b", "2", "a", "1"),
                                     two_labels("a", "1", "b", "3")},
                        *whole;
    assert_int_equal(parts[0]->ops->merge(parts, 3, NULL, &whole, &error), FLUE_OK);
    for (int i = 0; i < 3; i++)
        flue_payload_unref(parts[i]);
    assert_int_equal(flue_pprof_series_count(whole), 2);
    assert_int_equal(flue_pprof_series_at(whole, 0)->profile_count, 2);
    assert_int_equal(flue_pprof_series_at(whole, 1)->profile_count, 1);
    assert_string_equal(label_of(whole, 1, "b"), "3");
    flue_block_unref(written(whole));
    flue_payload_unref(whole);
}

struct parts {
    struct flue_counts sum;
    uint64_t samples, parts, max_samples;
    size_t max_bytes;
    int64_t totals[32];
};

static void sum_values(struct flue_bytes profile, int64_t *totals, uint64_t *samples)
{
    struct flue_block *raw = raw_of(profile);
    Pprof__Profile *p = pprof__profile__unpack(NULL, raw->size, raw->data);
    assert_non_null(p);
    for (size_t i = 0; i < p->n_sample; i++)
        for (size_t j = 0; j < p->sample[i]->n_value && j < 32; j++)
            totals[j] += p->sample[i]->value[j];
    *samples += p->n_sample;
    pprof__profile__free_unpacked(p, NULL);
    flue_block_unref(raw);
}

static void take_part(void *arg, struct flue_payload *part, const struct flue_counts *counts)
{
    struct parts *parts = arg;
    struct flue_error error = {0};
    uint64_t samples = 0;
    parts->sum.profiles += counts->profiles;
    parts->sum.samples += counts->samples;
    parts->sum.bytes += counts->bytes;
    parts->parts++;
    for (size_t i = 0; i < flue_pprof_series_count(part); i++)
        for (size_t j = 0; j < flue_pprof_series_at(part, i)->profile_count; j++) {
            struct flue_pprof_facts facts;
            struct flue_bytes bytes = flue_pprof_series_at(part, i)->profiles[j].bytes;
            assert_int_equal(flue_pprof_check(bytes, &test_limits, &facts, &error), FLUE_OK);
            const struct flue_pprof_facts *said = &flue_pprof_series_at(part, i)->profiles[j].facts;
            assert_int_equal(facts.samples, said->samples);
            assert_int_equal(facts.inflated_size, said->inflated_size);
            assert_int_equal(facts.locations, said->locations);
            assert_int_equal(facts.strings, said->strings);
            assert_int_equal(facts.gzip, said->gzip);
            sum_values(bytes, parts->totals, &samples);
        }
    parts->samples += samples;
    if (samples > parts->max_samples)
        parts->max_samples = samples;
    if (part->ops->encoded_size(part) > parts->max_bytes)
        parts->max_bytes = part->ops->encoded_size(part);
    flue_payload_unref(part);
}

static void parts_add_up(void **state)
{
    static const char *const names[] = {"go-net-http-pprof/heap.body",
                                        "pyroscope-nodejs/wall-cpu-labels.body",
                                        "go-net-http-pprof/allocs.body"};
    struct flue_payload *singles[3], *whole;
    struct flue_error error = {0};
    struct parts expected = {0};
    for (int i = 0; i < 3; i++) {
        struct flue_pprof_builder *builder = flue_pprof_builder_new(NULL);
        struct flue_block *profile = capture(names[i]);
        struct flue_pprof_profile one = {.bytes = flue_block_bytes(profile)};
        assert_int_equal(flue_pprof_check(one.bytes, &test_limits, &one.facts, &error), FLUE_OK);
        sum_values(one.bytes, expected.totals, &expected.samples);
        flue_pprof_builder_keep(builder, profile);
        flue_block_unref(profile);
        flue_pprof_builder_series(builder);
        flue_pprof_builder_label(builder, B("__name__"), flue_bytes_of(names[i]));
        flue_pprof_builder_profile(builder, &one);
        assert_int_equal(flue_pprof_builder_finish(builder, &singles[i], NULL, &error), FLUE_OK);
    }
    assert_int_equal(singles[0]->ops->merge(singles, 3, NULL, &whole, &error), FLUE_OK);
    for (int i = 0; i < 3; i++)
        flue_payload_unref(singles[i]);
    const struct flue_counts total = {3, expected.samples, 100003};
    for (uint64_t max = 1; max < 200; max += max < 4 ? 1 : 41) {
        struct parts parts = {0};
        assert_int_equal(
            whole->ops->split(whole, max, false, &total, NULL, take_part, &parts, &error), FLUE_OK);
        assert_true(parts.max_samples <= max);
        assert_int_equal(parts.samples, expected.samples);
        assert_memory_equal(parts.totals, expected.totals, sizeof parts.totals);
        assert_memory_equal(&parts.sum, &total, sizeof total);
    }
    for (size_t max = 600; max < 20000; max += 1500) {
        struct parts parts = {0};
        assert_int_equal(
            whole->ops->split(whole, max, true, &total, NULL, take_part, &parts, &error), FLUE_OK);
        assert_int_equal(parts.samples, expected.samples);
        assert_memory_equal(parts.totals, expected.totals, sizeof parts.totals);
        assert_memory_equal(&parts.sum, &total, sizeof total);
        if (max > 3000)
            assert_true(parts.max_bytes <= max);
    }
    flue_payload_unref(whole);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void encode_is_the_inverse(const char *name, struct flue_bytes profile, void *arg)
{
    struct flue_block *raw = raw_of(profile), *out;
    struct flue_arena arena, scratch;
    struct flue_pprof_document document, again;
    struct flue_pprof_facts facts;
    struct flue_error error = {0};
    flue_arena_init(&arena, 64u << 20, 0);
    flue_arena_init(&scratch, 64u << 20, 0);
    if (flue_pprof_decode(flue_block_bytes(raw), &arena, &document, &error) != FLUE_OK)
        fail_msg("%s: %s", name, error.text);
    assert_int_equal(
        flue_pprof_encode(&document, 0, document.sample_count, &scratch, NULL, &out, &error),
        FLUE_OK);
    assert_int_equal(flue_pprof_check(flue_block_bytes(out), &test_limits, &facts, &error),
                     FLUE_OK);
    assert_int_equal(flue_pprof_decode(flue_block_bytes(out), &arena, &again, &error), FLUE_OK);
    assert_int_equal(again.sample_count, document.sample_count);
    assert_int_equal(again.time_nanos, document.time_nanos);
    assert_int_equal(again.period, document.period);
    assert_int_equal(again.stack_count, document.stack_count);
    for (uint32_t i = 0; i < document.sample_count; i++) {
        const struct flue_pprof_sample *a = &document.samples[i], *b = &again.samples[i];
        assert_int_equal(a->location_count, b->location_count);
        assert_int_equal(a->label_count, b->label_count);
        assert_memory_equal(document.values + (size_t)i * document.type_count,
                            again.values + (size_t)i * again.type_count, 8u * again.type_count);
        for (uint32_t j = 0; j < a->location_count; j++) {
            const struct flue_pprof_location *la =
                &document.locations[document.stack[a->first_location + j]];
            const struct flue_pprof_location *lb =
                &again.locations[again.stack[b->first_location + j]];
            assert_int_equal(la->address, lb->address);
            assert_int_equal(la->line_count, lb->line_count);
            for (uint32_t k = 0; k < la->line_count; k++) {
                const struct flue_pprof_line *xa = &document.lines[la->first_line + k];
                const struct flue_pprof_line *xb = &again.lines[lb->first_line + k];
                assert_int_equal(xa->line, xb->line);
                assert_true(
                    flue_bytes_equal(document.strings[document.functions[xa->function].name],
                                     again.strings[again.functions[xb->function].name]));
            }
        }
        for (uint32_t j = 0; j < a->label_count; j++) {
            const struct flue_pprof_sample_label *la = &document.labels[a->first_label + j];
            const struct flue_pprof_sample_label *lb = &again.labels[b->first_label + j];
            assert_int_equal(la->num, lb->num);
            assert_true(flue_bytes_equal(document.strings[la->str], again.strings[lb->str]));
            assert_true(flue_bytes_equal(document.strings[la->key], again.strings[lb->key]));
        }
    }
    flue_block_unref(out);
    flue_block_unref(raw);
    flue_arena_destroy(&arena);
    flue_arena_destroy(&scratch);
}

static void every_capture_decodes_and_encodes(void **state)
{
    every_profile(encode_is_the_inverse, NULL);
}

static void decoding_stays_within_its_budget(void **state)
{
    struct flue_block *body = capture("go-net-http-pprof/heap.body"), *raw;
    struct flue_pprof_document document;
    struct flue_error error;
    raw = raw_of(flue_block_bytes(body));
    for (size_t budget = 64; budget < 65536; budget *= 2) {
        struct flue_arena arena;
        flue_arena_init(&arena, budget, 0);
        enum flue_code code = flue_pprof_decode(flue_block_bytes(raw), &arena, &document, &error);
        assert_true(code == FLUE_OK || code == FLUE_NO_MEMORY);
        flue_arena_destroy(&arena);
    }
    flue_block_unref(raw);
    flue_block_unref(body);
}

static void time_is_set_and_nothing_else(void **state)
{
    struct flue_block *body = capture("pyroscope-nodejs/heap.body"), *out;
    struct flue_pprof_facts before, after;
    struct flue_error error = {0};
    assert_int_equal(flue_pprof_check(flue_block_bytes(body), &test_limits, &before, &error),
                     FLUE_OK);
    assert_int_equal(flue_pprof_set_time(flue_block_bytes(body), 1234567890123456789, &test_limits,
                                         NULL, &out, &error),
                     FLUE_OK);
    assert_int_equal(flue_pprof_check(flue_block_bytes(out), &test_limits, &after, &error),
                     FLUE_OK);
    assert_int_equal(after.time_nanos, 1234567890123456789);
    assert_int_equal(after.samples, before.samples);
    assert_int_equal(after.strings, before.strings);
    assert_false(after.gzip);
    flue_block_unref(out);
    flue_block_unref(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captures_come_back_byte_for_byte),
        cmocka_unit_test(two_series_are_counted),
        cmocka_unit_test(bad_profiles_are_left_out),
        cmocka_unit_test(truncated_envelopes_are_refused),
        cmocka_unit_test(the_sum_of_a_request_is_limited),
        cmocka_unit_test(cut_strings_are_repaired),
        cmocka_unit_test(json_is_the_same_request),
        cmocka_unit_test(names_translate_both_ways),
        cmocka_unit_test(a_received_underscore_label_is_updated_not_doubled),
        cmocka_unit_test(values_become_text),
        cmocka_unit_test(clones_do_not_share_edits),
        cmocka_unit_test(equal_series_become_one),
        cmocka_unit_test(parts_add_up),
        cmocka_unit_test(every_capture_decodes_and_encodes),
        cmocka_unit_test(decoding_stays_within_its_budget),
        cmocka_unit_test(time_is_set_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
