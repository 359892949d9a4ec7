/* One record as a payload: what of its headers becomes origin, label or attribute, and what a body
 * that is none comes to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "collector/base/codec.h"
#include "proto/otlp/dictionary_out.h"
#include "proto/otlp/index.h"
#include "proto/pprof/pprof.h"
#include "receivers/kafka/decode.h"

#define H(name, value)                                                                             \
    {                                                                                              \
        FLUE_BYTES_INIT(name), FLUE_BYTES_INIT(value)                                              \
    }

static struct kafka_context context;
static struct flue_error error;

static enum flue_code take(const struct flue_kafka_header *headers, size_t count, bool labels)
{
    const struct kafka_arrival record = {.receiver = "kafka/in",
                                         .topic = "profiles",
                                         .partition = 3,
                                         .offset = 1234567890123,
                                         .time_ms = 1700000000123,
                                         .headers = headers,
                                         .header_count = count};
    memset(&error, 0, sizeof error);
    return kafka_context_make(&record, labels, &context, &error);
}

static bool has(const char *name, const char *value)
{
    return flue_bytes_is(flue_origin_header(context.origin, flue_bytes_of(name)), value);
}

/* ---- the origin ------------------------------------------------------------------------------ */

static void headers_become_those_of_the_origin(void **state)
{
    static const struct flue_kafka_header headers[] = {
        H("X-Region", "eu"),   H("X-Scope-OrgID", "media"),   H("Authorization", "Bearer secret"),
        H("Cookie", "secret"), H("flue.label.a", "not here"), H("Proxy-Authorization", "secret")};

    assert_int_equal(take(headers, 6, false), FLUE_OK);
    assert_true(has("x-region", "eu") && has("flue.label.a", "not here"));
    assert_true(has("kafka.topic", "profiles") && has("kafka.partition", "3"));
    assert_true(has("kafka.offset", "1234567890123"));
    assert_true(flue_bytes_is(context.origin->tenant, "media"));
    assert_true(flue_bytes_is(context.origin->receiver, "kafka/in"));
    for (size_t i = 0; i < context.origin->header_count; i++)
        assert_false(context.origin->headers[i].value.text.size &&
                     memmem(context.origin->headers[i].value.text.data,
                            context.origin->headers[i].value.text.size, "secret", 6));
    assert_int_equal(context.label_count, 0);
    kafka_context_release(&context);
}

static void a_tenant_that_is_none_is_refused(void **state)
{
    static const struct flue_kafka_header header = H("x-scope-orgid", "a/../b");

    assert_int_equal(take(&header, 1, false), FLUE_INVALID);
    kafka_context_release(&context);
}

static void what_is_over_the_limits_is_left_out(void **state)
{
    struct flue_kafka_header headers[FLUE_KAFKA_HEADERS_MAX + 6];
    static char large[3 * FLUE_KAFKA_HEADER_VALUE_MAX + 1];
    char names[FLUE_KAFKA_HEADERS_MAX + 6][8];

    for (size_t i = 0; i < FLUE_KAFKA_HEADERS_MAX + 6; i++) {
        snprintf(names[i], sizeof names[i], "n%zu", i);
        headers[i] = (struct flue_kafka_header){flue_bytes_of(names[i]), FLUE_BYTES("v")};
    }
    assert_int_equal(take(headers, FLUE_KAFKA_HEADERS_MAX, false), FLUE_OK);
    assert_int_equal(context.left_out, 0);
    kafka_context_release(&context);
    assert_int_equal(take(headers, FLUE_KAFKA_HEADERS_MAX + 6, false), FLUE_OK);
    assert_int_equal(context.left_out, 6);
    assert_int_equal(context.origin->header_count, FLUE_KAFKA_HEADERS_MAX + 3);
    kafka_context_release(&context);
    memset(large, 'x', sizeof large);
    headers[0].value = flue_bytes(large, sizeof large - 1);
    headers[1].value = flue_bytes(large, sizeof large); /* one over */
    assert_int_equal(take(headers, 3, false), FLUE_OK);
    assert_int_equal(context.left_out, 1);
    kafka_context_release(&context);
    for (size_t i = 0; i < 10; i++) /* each fits, together they do not */
        headers[i].value = flue_bytes(large, sizeof large - 1);
    assert_int_equal(take(headers, 10, false), FLUE_OK);
    assert_int_equal(context.left_out, 5);
    kafka_context_release(&context);
}

/* ---- OTLP ------------------------------------------------------------------------------------ */

static struct flue_block *file(const char *name)
{
    char path[300];
    struct flue_block *block = flue_block_new(NULL, 1u << 20);

    snprintf(path, sizeof path, FLUE_TEST_DATA "/%s", name);
    FILE *from = fopen(path, "rb");
    assert_non_null(from);
    block->size = fread(block->data, 1, 1u << 20, from);
    fclose(from);
    flue_block_finish(block);
    return block;
}

static enum flue_code decode(int encoding, struct flue_block *body, struct kafka_decoded *out)
{
    static const char *const extract[] = {"Region", "Absent"};
    const struct kafka_decoding decoding = {
        .encoding = encoding, .extract = extract, .extract_count = 2};

    memset(&error, 0, sizeof error);
    return kafka_decode(&decoding, &context, body, NULL, out, &error);
}

static void otlp_has_its_counts_and_the_headers_asked_for(void **state)
{
    static const struct flue_kafka_header header = H("Region", "eu\xff");
    struct flue_block *body = file("otlp/ebpf-v1.11-pdata-order-1.otlp");
    struct kafka_decoded out;
    struct flue_value value;

    assert_int_equal(take(&header, 1, false), FLUE_OK);
    assert_int_equal(decode(FLUE_KAFKA_OTLP_PROTO, body, &out), FLUE_OK);
    assert_int_equal(out.counts.samples, flue_otlp_index_of(out.payload)->samples);
    assert_true(out.counts.profiles > 0 && out.counts.bytes == body->size);
    assert_int_equal(out.rejected_profiles, 0);
    const struct flue_payload_ops *ops = out.payload->ops;
    for (size_t i = 0; i < ops->resource_count(out.payload); i++) {
        assert_true(ops->attribute_get(out.payload, i, FLUE_BYTES("kafka.header.Region"), &value));
        assert_true(flue_bytes_is(value.text, "eu\xef\xbf\xbd")); /* repaired */
        assert_false(ops->attribute_get(out.payload, i, FLUE_BYTES("kafka.header.Absent"), &value));
    }
    flue_payload_unref(out.payload);
    kafka_context_release(&context);
    flue_block_unref(body);
}

static void otlp_may_end_anywhere(void **state)
{
    struct flue_block *body = file("otlp/ebpf-v1.11-pdata-order-1.otlp");

    assert_int_equal(take(NULL, 0, false), FLUE_OK);
    for (size_t size = 0; size < body->size; size += 1 + size / 200) {
        struct flue_block *part = flue_block_copy(NULL, flue_bytes(body->data, size));
        struct kafka_decoded out;
        flue_block_finish(part);
        enum flue_code code = decode(FLUE_KAFKA_OTLP_PROTO, part, &out);
        if (size > 0 && !code)
            assert_true(out.rejected_profiles || out.counts.samples); /* it ended between fields */
        if (code) {
            assert_null(out.payload);
            assert_false(flue_code_facts(code)->retryable);
        }
        flue_payload_unref(out.payload);
        flue_block_unref(part);
    }
    kafka_context_release(&context);
    flue_block_unref(body);
}

/* ---- pprof ----------------------------------------------------------------------------------- */

static void text(struct flue_out *out, const char *s)
{
    flue_out_field(out, 6, flue_bytes_of(s));
}

/* CPU time of one stack; `samples` 0: nothing in it. */
static struct flue_block *profile(unsigned samples, uint64_t time_ns)
{
    struct flue_out out;

    assert_true(flue_out_init(&out, 4096, 1 << 20));
    size_t mark = flue_out_open(&out, 1);
    flue_out_number(&out, 1, 1);
    flue_out_number(&out, 2, 2);
    flue_out_close(&out, mark);
    for (unsigned i = 0; i < samples; i++) {
        mark = flue_out_open(&out, 2);
        flue_out_number(&out, 1, 1);
        flue_out_number(&out, 2, 7 + i);
        flue_out_close(&out, mark);
    }
    mark = flue_out_open(&out, 4);
    flue_out_number(&out, 1, 1);
    flue_out_number(&out, 3, 0x400000);
    flue_out_close(&out, mark);
    text(&out, "");
    text(&out, "cpu");
    text(&out, "nanoseconds");
    if (time_ns)
        flue_out_number(&out, 9, time_ns);
    assert_false(out.failed);
    flue_block_finish(out.block);
    return out.block;
}

static const char *label(const struct flue_payload *payload, const char *name, char *out)
{
    const struct flue_pprof_series *series = flue_pprof_series_at(payload, 0);

    for (size_t i = 0; i < series->label_count; i++)
        if (flue_bytes_is(series->labels[i].name, name)) {
            snprintf(out, 200, "%.*s", FLUE_PRI(series->labels[i].value));
            return out;
        }
    return "";
}

static void pprof_is_a_series_of_the_records_labels(void **state)
{
    static const struct flue_kafka_header headers[] = {
        H("flue.label.service_name", "encoder%20one"), H("flue.label.span%2Fid", "x%2"),
        H("flue.label.__name__", "process_cpu"), H("service.name", "not this")};
    struct flue_block *body = profile(2, 5000000000);
    struct kafka_decoded out;
    char value[200];

    assert_int_equal(take(headers, 4, true), FLUE_OK);
    assert_int_equal(context.label_count, 3);
    assert_int_equal(decode(FLUE_KAFKA_PPROF, body, &out), FLUE_OK);
    assert_int_equal(out.counts.samples, 2);
    assert_int_equal(flue_pprof_series_count(out.payload), 1);
    assert_string_equal(label(out.payload, "service_name", value), "encoder one");
    assert_string_equal(label(out.payload, "span/id", value), "x%2");
    assert_string_equal(label(out.payload, "__name__", value), "process_cpu");
    assert_int_equal(flue_pprof_series_at(out.payload, 0)->profiles[0].facts.time_nanos,
                     5000000000);
    flue_payload_unref(out.payload);
    kafka_context_release(&context);
    flue_block_unref(body);
}

/* The same record is the same profile whenever it is read: dated as it is. */
static void pprof_without_name_or_time_gets_them(void **state)
{
    static const struct flue_kafka_header service = H("service.name", "pack%C3%A4ger");
    struct flue_block *body = profile(1, 0);
    struct kafka_decoded out;
    char value[200];

    for (int named = 0; named < 2; named++) {
        assert_int_equal(take(&service, (size_t)named, true), FLUE_OK);
        assert_int_equal(decode(FLUE_KAFKA_PPROF, body, &out), FLUE_OK);
        assert_string_equal(label(out.payload, "service_name", value),
                            named ? "pack\xc3\xa4ger" : "unknown_service");
        assert_string_equal(label(out.payload, "__name__", value), "process_cpu");
        assert_int_equal(flue_pprof_series_at(out.payload, 0)->profiles[0].facts.time_nanos,
                         1700000000123 * 1000000);
        flue_payload_unref(out.payload);
        kafka_context_release(&context);
    }
    flue_block_unref(body);
}

static void pprof_of_nothing_is_nothing(void **state)
{
    struct flue_block *body = profile(0, 5);
    struct kafka_decoded out;

    assert_int_equal(take(NULL, 0, true), FLUE_OK);
    assert_int_equal(decode(FLUE_KAFKA_PPROF, body, &out), FLUE_OK);
    assert_null(out.payload);
    kafka_context_release(&context);
    flue_block_unref(body);
}

static void pprof_may_end_anywhere_and_hold_anything(void **state)
{
    struct flue_block *body = profile(3, 5);

    assert_int_equal(take(NULL, 0, true), FLUE_OK);
    for (size_t size = 0; size < body->size; size++)
        for (unsigned bit = 0; bit < 9; bit++) { /* cut, or one bit turned */
            struct flue_block *part =
                flue_block_copy(NULL, flue_bytes(body->data, bit < 8 ? body->size : size));
            struct kafka_decoded out;
            if (bit < 8)
                part->data[size] ^= (uint8_t)(1u << bit);
            flue_block_finish(part);
            enum flue_code code = decode(FLUE_KAFKA_PPROF, part, &out);
            assert_true(code == FLUE_OK || !out.payload);
            assert_true(code == FLUE_OK || !flue_code_facts(code)->retryable);
            flue_payload_unref(out.payload);
            flue_block_unref(part);
        }
    kafka_context_release(&context);
    flue_block_unref(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_become_those_of_the_origin),
        cmocka_unit_test(a_tenant_that_is_none_is_refused),
        cmocka_unit_test(what_is_over_the_limits_is_left_out),
        cmocka_unit_test(otlp_has_its_counts_and_the_headers_asked_for),
        cmocka_unit_test(otlp_may_end_anywhere),
        cmocka_unit_test(pprof_is_a_series_of_the_records_labels),
        cmocka_unit_test(pprof_without_name_or_time_gets_them),
        cmocka_unit_test(pprof_of_nothing_is_nothing),
        cmocka_unit_test(pprof_may_end_anywhere_and_hold_anything),
    };
    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
