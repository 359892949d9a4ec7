/* Traces as a payload: what SDKs send is taken as it is, edited in place, joined, cut, written as
 * JSON; what is broken is refused by its path, span by span where only an id is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "collector/base/buffer.h"
#include "proto/otlp/otlp.h"
#include "proto/otlp/trace.h"
#include "tests/unit/proto/otlp/bodies.h"

static const char *const captures[] = {"go", "java", "python"};

static struct flue_block *capture(const char *name)
{
    char path[512];
    static uint8_t bytes[65536];
    snprintf(path, sizeof path, "%s/captures/otel-traces/%s.body", FLUE_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    return block_of(bytes, size);
}

static struct flue_payload *must_read(struct flue_block *body, struct flue_trace_report *report)
{
    struct flue_payload *payload = NULL;
    struct flue_error error = {0};
    if (flue_trace_read(body, &payload, report, &error))
        fail_msg("%s", error.text);
    assert_non_null(payload);
    return payload;
}

static void written(const struct flue_payload *payload, struct out *out)
{
    struct flue_arena arena;
    struct flue_slices slices = {0};
    struct flue_error error;
    flue_arena_init(&arena, 1 << 24, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, &error), FLUE_OK);
    assert_int_equal(payload->ops->encoded_size(payload), slices.total);
    out->size = 0;
    for (size_t i = 0; i < slices.count; i++)
        out_bytes(out, slices.items[i].data, slices.items[i].size);
    flue_arena_destroy(&arena);
}

static void captures_pass_as_they_are(void **state)
{
    for (size_t i = 0; i < 3; i++) {
        struct flue_trace_report report;
        struct flue_block *body = flue_block_ref(capture(captures[i]));
        struct flue_payload *payload = must_read(body, &report);
        struct out out = {0};
        written(payload, &out);
        assert_int_equal(out.size, body->size);
        assert_memory_equal(out.data, body->data, out.size);
        assert_true(report.counts.samples > 0);
        assert_int_equal(report.rejected_spans + report.repaired_strings, 0);
        assert_int_equal(payload->signal, FLUE_TRACES);
        out_free(&out);
        flue_payload_unref(payload);
        flue_block_unref(body);
    }
}

/* A span by its name under `scope`; ids of the given sizes. */
static void put_span(struct out *scope, const char *name, size_t trace_size, size_t span_size)
{
    uint8_t id[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    struct out span = {0};
    out_field(&span, 1, id, trace_size);
    out_field(&span, 2, id, span_size);
    out_text(&span, 5, name);
    out_number(&span, 6, 2);
    out_fixed(&span, 7, 1000);
    out_fixed(&span, 8, 2000);
    out_key_value(&span, 9, "http.route", "/live");
    out_text(&span, 900, "a field of the future");
    out_message(scope, 2, &span);
    out_free(&span);
}

static void put_resource(struct out *request, const char *service, unsigned scopes, unsigned spans)
{
    struct out resource_spans = {0}, resource = {0}, scope_spans = {0}, scope = {0};
    out_key_value(&resource, 1, "service.name", service);
    out_message(&resource_spans, 1, &resource);
    for (unsigned s = 0; s < scopes; s++) {
        out_text(&scope, 1, "tracer");
        out_message(&scope_spans, 1, &scope);
        for (unsigned i = 0; i < spans; i++) {
            char name[32];
            snprintf(name, sizeof name, "%s-%u-%u", service, s, i);
            put_span(&scope_spans, name, 16, 8);
        }
        out_text(&scope_spans, 3, "https://schema");
        out_message(&resource_spans, 2, &scope_spans);
    }
    out_text(&resource_spans, 3, "https://schema");
    out_text(&resource_spans, 1000, "another field of the future");
    out_message(request, 1, &resource_spans);
    out_free(&resource_spans);
    out_free(&resource);
    out_free(&scope_spans);
    out_free(&scope);
}

static bool contains(const struct out *out, const char *text)
{
    return memmem(out->data, out->size, text, strlen(text)) != NULL;
}

static void edits_are_spliced(void **state)
{
    struct out request = {0}, out = {0};
    struct flue_trace_report report;
    struct flue_error error;
    struct flue_arena arena;
    struct flue_attribute_set set;
    struct flue_value value;
    struct flue_trace_span span;
    flue_arena_init(&arena, 1 << 20, 0);
    put_resource(&request, "edge", 2, 3);
    put_resource(&request, "origin", 1, 1);
    struct flue_payload *payload = must_read(block_of(request.data, request.size), &report);
    assert_int_equal(report.counts.samples, 7);
    assert_int_equal(report.counts.profiles, 7);
    struct flue_payload *copy = payload->ops->clone(payload, &error);

    const struct flue_attribute pod = {FLUE_BYTES("k8s.pod.name"),
                                       {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("edge-0")}};
    assert_int_equal(flue_otlp_attribute_set(&arena, &pod, 1, &set, &error), FLUE_OK);
    assert_int_equal(payload->ops->attributes_set(payload, 1, &set, FLUE_SET_UPSERT, NULL, &error),
                     FLUE_OK);
    const struct flue_attribute mark = {
        FLUE_BYTES("pyroscope.profile.id"),
        {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("0102030405060708")}};
    flue_trace_span_read(payload, 4, mark.key, &span);
    assert_false(span.has_attribute);
    assert_int_equal(span.trace_id.size, 16);
    assert_int_equal(span.span_id.size, 8);
    assert_int_equal(flue_trace_span_add(payload, 4, &mark, &error), FLUE_OK);
    flue_trace_span_read(payload, 4, mark.key, &span);
    assert_true(span.has_attribute);
    assert_int_equal(flue_otlp_profile_remove(payload, 0, &error), FLUE_OK);

    written(payload, &out);
    assert_false(contains(&out, "edge-0-0"));
    assert_true(contains(&out, "a field of the future"));
    assert_true(contains(&out, "another field of the future"));
    struct flue_payload *again = must_read(block_of(out.data, out.size), &report);
    assert_int_equal(report.counts.samples, 6);
    assert_true(again->ops->attribute_get(again, 1, FLUE_BYTES("k8s.pod.name"), &value));
    assert_false(again->ops->attribute_get(again, 0, FLUE_BYTES("k8s.pod.name"), &value));
    for (uint32_t i = 0; i < 6; i++) {
        flue_trace_span_read(again, i, mark.key, &span);
        assert_int_equal(span.has_attribute, i == 3); /* one before it is gone */
    }
    written(copy, &out); /* the original is as it was */
    assert_int_equal(out.size, request.size);
    assert_memory_equal(out.data, request.data, out.size);
    flue_payload_unref(again);
    flue_payload_unref(copy);
    flue_payload_unref(payload);
    out_free(&request);
    out_free(&out);
    flue_arena_destroy(&arena);
}

struct parts {
    struct flue_payload *items[64];
    struct flue_counts counts[64];
    size_t count;
};

static void keep(void *arg, struct flue_payload *part, const struct flue_counts *counts)
{
    struct parts *parts = arg;
    assert_true(parts->count < 64);
    parts->counts[parts->count] = *counts;
    parts->items[parts->count++] = part;
}

static void cut_and_joined(void **state)
{
    struct out request = {0}, whole = {0}, out = {0};
    struct flue_trace_report report;
    struct flue_error error;
    struct flue_account account;
    struct flue_budget budget;
    flue_budget_init(&budget, 1 << 30);
    flue_account_init(&account, &budget, "test", 0);
    put_resource(&request, "edge", 3, 5);
    put_resource(&request, "empty", 0, 0);
    put_resource(&request, "origin", 1, 4);
    out_text(&request, 77, "unknown in the request");
    struct flue_payload *payload = must_read(block_of(request.data, request.size), &report);
    const struct flue_counts total = {19, 19, 1000};

    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        for (uint64_t max = by_bytes ? 100 : 1; max < (by_bytes ? 2600 : 21);
             max += by_bytes ? 331 : 3) {
            struct parts parts = {0};
            uint64_t spans = 0, samples = 0, bytes = 0;
            assert_int_equal(
                flue_trace_split(payload, max, by_bytes, &total, &account, keep, &parts, &error),
                FLUE_OK);
            for (size_t i = 0; i < parts.count; i++) {
                uint32_t here = flue_otlp_index_of(parts.items[i])->profile_count;
                assert_true(here > 0);
                assert_true(here == 1 || (by_bytes ? parts.items[i]->ops->encoded_size(
                                                         parts.items[i]) <= max + 30
                                                   : here <= max));
                spans += here;
                samples += parts.counts[i].samples;
                bytes += parts.counts[i].bytes;
                written(parts.items[i], &out);
                assert_int_equal(contains(&out, "unknown in the request"), i == 0);
            }
            assert_int_equal(spans, 19);
            assert_int_equal(samples, 19);
            assert_int_equal(bytes, 1000);
            struct flue_payload *joined = NULL;
            assert_int_equal(flue_trace_merge(parts.items, parts.count, &account, &joined, &error),
                             FLUE_OK);
            assert_int_equal(flue_otlp_index_of(joined)->profile_count, 19);
            written(joined, &whole);
            for (unsigned s = 0; s < 3; s++)
                for (unsigned i = 0; i < 5; i++) {
                    char name[32];
                    snprintf(name, sizeof name, "edge-%u-%u", s, i);
                    assert_true(contains(&whole, name));
                }
            flue_payload_unref(joined);
            for (size_t i = 0; i < parts.count; i++)
                flue_payload_unref(parts.items[i]);
        }
    }
    flue_payload_unref(payload);
    assert_int_equal(atomic_load(&budget.used), 0);
    out_free(&request);
    out_free(&whole);
    out_free(&out);
}

static void json_there_and_back(void **state)
{
    for (size_t i = 0; i < 3; i++) {
        struct flue_trace_report report, second;
        struct flue_payload *payload = must_read(capture(captures[i]), &report), *again;
        struct flue_buffer json, repeated;
        struct flue_block *body;
        struct flue_error error;
        flue_buffer_init(&json, 1 << 24);
        flue_buffer_init(&repeated, 1 << 24);
        assert_int_equal(flue_otlp_json_write(payload, &json, &error), FLUE_OK);
        assert_non_null(strstr(json.data, "\"resourceSpans\":["));
        assert_non_null(strstr(json.data, "\"startTimeUnixNano\":\"1"));
        assert_int_equal(
            flue_trace_json_read(flue_buffer_bytes(&json), 64u << 20, NULL, &body, &error),
            FLUE_OK);
        again = must_read(body, &second);
        assert_int_equal(second.counts.samples, report.counts.samples);
        assert_int_equal(flue_otlp_json_write(again, &repeated, &error), FLUE_OK);
        assert_string_equal(json.data, repeated.data);
        flue_buffer_destroy(&json);
        flue_buffer_destroy(&repeated);
        flue_payload_unref(payload);
        flue_payload_unref(again);
    }
}

static void one_bad_id_costs_one_span(void **state)
{
    struct out request = {0}, resource = {0}, scope = {0}, out = {0};
    struct flue_trace_report report;
    struct flue_error error;
    struct flue_payload *payload = NULL;
    put_span(&scope, "good", 16, 8);
    put_span(&scope, "bad", 16, 7);
    put_span(&scope, "unset", 0, 0);
    out_message(&resource, 2, &scope);
    out_message(&request, 1, &resource);
    payload = must_read(block_of(request.data, request.size), &report);
    assert_int_equal(report.rejected_spans, 1);
    assert_int_equal(report.counts.samples, 2);
    assert_string_equal(report.rejected_reason,
                        "resource_spans[0].scope_spans[0].spans[1].span_id: an id of 7 bytes; a "
                        "trace id has 16, a span id 8");
    written(payload, &out);
    assert_true(contains(&out, "good") && contains(&out, "unset") && !contains(&out, "bad"));
    flue_payload_unref(payload);

    request.size = 0;
    put_span(&scope, "bad", 15, 8);
    out_message(&resource, 2, &scope);
    out_message(&request, 1, &resource);
    assert_int_equal(
        flue_trace_read(block_of(request.data, request.size), &payload, &report, &error),
        FLUE_INVALID);
    out_free(&request);
    out_free(&resource);
    out_free(&scope);
    out_free(&out);
}

static void text_is_repaired(void **state)
{
    struct out request = {0}, resource = {0}, scope = {0}, span = {0}, out = {0};
    struct flue_trace_report report;
    out_text(&span, 5, "caf\xc3");
    out_text(&span, 800, "\xff");
    out_message(&scope, 2, &span);
    out_message(&resource, 2, &scope);
    out_text(&resource, 3, "\xe2\x82");
    out_message(&request, 1, &resource);
    struct flue_payload *payload = must_read(block_of(request.data, request.size), &report);
    assert_int_equal(report.repaired_strings, 2);
    written(payload, &out);
    assert_true(contains(&out, "caf\xef\xbf\xbd"));
    assert_true(contains(&out, "\x01\xff")); /* not known: as it was */
    flue_payload_unref(payload);
    out_free(&request);
    out_free(&resource);
    out_free(&scope);
    out_free(&span);
    out_free(&out);
}

/* Protobuf merges a message that comes twice; so does the index. */
static void a_resource_in_two_parts(void **state)
{
    struct out request = {0}, resource_spans = {0}, resource = {0}, scope = {0};
    struct flue_trace_report report;
    struct flue_value value;
    out_key_value(&resource, 1, "service.name", "edge");
    out_message(&resource_spans, 1, &resource);
    put_span(&scope, "x", 16, 8);
    out_message(&resource_spans, 2, &scope);
    out_key_value(&resource, 1, "host.name", "h");
    out_message(&resource_spans, 1, &resource);
    out_message(&request, 1, &resource_spans);
    struct flue_payload *payload = must_read(block_of(request.data, request.size), &report);
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("service.name"), &value));
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("host.name"), &value));
    flue_payload_unref(payload);
    out_free(&request);
    out_free(&resource_spans);
    out_free(&resource);
    out_free(&scope);
}

static void what_is_broken_is_refused(void **state)
{
    struct out request = {0}, inner = {0};
    struct flue_trace_report report;
    struct flue_payload *payload;
    struct flue_error error;

    for (size_t i = 0; i < 3; i++) { /* cut anywhere, one bit turned anywhere */
        struct flue_block *body = capture(captures[i]);
        for (size_t at = 0; at < body->size; at++) {
            if (flue_trace_read(block_of(body->data, at), &payload, &report, &error) == FLUE_OK)
                flue_payload_unref(payload);
            uint8_t *copy = malloc(body->size);
            memcpy(copy, body->data, body->size);
            copy[at] ^= (uint8_t)(1u << at % 8);
            if (flue_trace_read(block_of(copy, body->size), &payload, &report, &error) == FLUE_OK) {
                struct out out = {0};
                if (payload)
                    written(payload, &out);
                out_free(&out);
                flue_payload_unref(payload);
            }
            free(copy);
        }
        flue_block_unref(body);
    }
    out_number(&inner, 2, 5); /* scope_spans as a number */
    out_message(&request, 1, &inner);
    assert_int_equal(
        flue_trace_read(block_of(request.data, request.size), &payload, &report, &error),
        FLUE_INVALID);
    assert_non_null(strstr(error.text, "resource_spans[0].scope_spans[0]: another wire type"));
    request.size = 0; /* values in values in values */
    for (unsigned depth = 0; depth < 60; depth++) {
        struct out list = {0};
        out_field(&list, 1, inner.data, depth ? inner.size : 0);
        inner.size = 0;
        out_field(&inner, 5, list.data, list.size);
        out_free(&list);
    }
    struct out kv = {0}, resource = {0}, rs = {0};
    out_field(&kv, 2, inner.data, inner.size);
    out_message(&resource, 1, &kv);
    out_message(&rs, 1, &resource);
    out_message(&request, 1, &rs);
    assert_int_equal(
        flue_trace_read(block_of(request.data, request.size), &payload, &report, &error),
        FLUE_TOO_LARGE);
    assert_int_equal(flue_trace_read(block_of("", 0), &payload, &report, &error), FLUE_OK);
    assert_null(payload);
    out_free(&kv);
    out_free(&resource);
    out_free(&rs);
    out_free(&request);
    out_free(&inner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captures_pass_as_they_are),
        cmocka_unit_test(edits_are_spliced),
        cmocka_unit_test(cut_and_joined),
        cmocka_unit_test(json_there_and_back),
        cmocka_unit_test(one_bad_id_costs_one_span),
        cmocka_unit_test(text_is_repaired),
        cmocka_unit_test(a_resource_in_two_parts),
        cmocka_unit_test(what_is_broken_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
