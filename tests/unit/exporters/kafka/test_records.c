/* Records of a batch: groups by key, cuts by size, headers within their bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "exporters/kafka/records.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/pprof.h"

static struct flue_budget budget;
static struct flue_account account;

struct made {
    struct flue_batch *batch;
    struct flue_payload *payload; /* in the form of the encoding */
    struct flue_arena arena;
    struct kafka_topics topics;
    struct kafka_records records;
    struct flue_error error;
    enum flue_code code;
};

static struct flue_block *file(const char *name)
{
    struct flue_block *block = flue_block_new(NULL, 4u << 20);
    FILE *in = fopen(name, "rb");

    assert_non_null(block);
    assert_non_null(in);
    block->size = fread(block->data, 1, block->capacity, in);
    fclose(in);
    flue_block_finish(block);
    return block;
}

/* Real data; `services` resources of it, by merging it with itself under other names. */
static struct flue_payload *payload_of(unsigned services)
{
    struct flue_payload *parts[16], *out = NULL;
    struct flue_error error = {0};
    struct flue_arena arena;

    flue_arena_init(&arena, 0, 0);
    for (unsigned i = 0; i < services; i++) {
        struct flue_otlp_report report;
        char name[32];
        struct flue_attribute_set set;
        if (flue_otlp_read(file(FLUE_TEST_DATA "/otlp/ebpf-v1.11-ascending.otlp"), &parts[i],
                           &report, &error))
            fail_msg("%s", error.text);
        snprintf(name, sizeof name, "service-%u", i);
        struct flue_attribute item = {
            FLUE_BYTES("service.name"),
            {.type = FLUE_VALUE_STRING, .text = flue_arena_copy(&arena, flue_bytes_of(name))}};
        assert_int_equal(flue_otlp_attribute_set(&arena, &item, 1, &set, &error), FLUE_OK);
        for (size_t r = 0; r < parts[i]->ops->resource_count(parts[i]); r++)
            assert_int_equal(
                parts[i]->ops->attributes_set(parts[i], r, &set, FLUE_SET_UPSERT, NULL, &error),
                FLUE_OK);
    }
    if (parts[0]->ops->merge(parts, services, &account, &out, &error))
        fail_msg("%s", error.text);
    for (unsigned i = 0; i < services; i++)
        flue_payload_unref(parts[i]);
    flue_arena_destroy(&arena);
    return out;
}

static const struct flue_bytes service_name[] = {FLUE_BYTES_INIT("service.name")};

static struct kafka_record_rules rules_of(int encoding)
{
    return (struct kafka_record_rules){
        .encoding = encoding,
        .max_bytes = 1000000,
        .topic = "otlp_profiles",
        .key_attribute = FLUE_BYTES("service.name"),
        .attributes = service_name,
        .attribute_count = 1,
    };
}

static void make(struct made *made, struct kafka_record_rules *rules, unsigned services,
                 const struct flue_origin *from)
{
    struct flue_origin *origin = flue_origin_new(from);
    struct flue_counts counts = {100, 10000, 1000000};

    memset(made, 0, sizeof *made);
    flue_arena_init(&made->arena, 0, 0);
    assert_true(kafka_topics_init(&made->topics));
    rules->topics = &made->topics;
    made->batch = flue_batch_new(payload_of(services), origin, counts, &account);
    flue_origin_unref(origin);
    assert_non_null(made->batch);
    enum flue_form form = rules->encoding == FLUE_KAFKA_PPROF ? FLUE_FORM_PPROF : FLUE_FORM_OTLP;
    assert_int_equal(
        flue_convert(made->batch->payload, form, &account, &made->payload, &made->error), FLUE_OK);
    made->code = kafka_records_make(rules, made->batch, made->payload, &made->arena, &made->records,
                                    &made->error);
}

static void release(struct made *made)
{
    for (struct kafka_record *record = made->records.first; record; record = record->next)
        kafka_record_release(record);
    flue_payload_unref(made->payload);
    flue_batch_unref(made->batch);
    kafka_topics_destroy(&made->topics);
    flue_arena_destroy(&made->arena);
    assert_int_equal(atomic_load(&account.used), 0);
}

static uint64_t samples_of(const struct kafka_record *record)
{
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report = {0};
    struct flue_error error = {0};

    if (flue_otlp_read(flue_block_copy(NULL, record->value), &payload, &report, &error))
        fail_msg("%s", error.text);
    flue_payload_unref(payload);
    return report.counts.samples;
}

static uint64_t all_samples(const struct flue_payload *payload)
{
    struct flue_arena arena;
    struct flue_slices slices = {0};
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, NULL), FLUE_OK);
    struct flue_block *block = flue_block_new(NULL, slices.total);
    flue_slices_copy(&slices, block->data);
    block->size = slices.total;
    flue_block_finish(block);
    struct kafka_record record = {.value = flue_block_bytes(block)};
    uint64_t samples = samples_of(&record);
    flue_block_unref(block);
    flue_arena_destroy(&arena);
    return samples;
}

static struct flue_bytes header(const struct kafka_record *record, const char *name)
{
    for (size_t i = 0; i < record->header_count; i++)
        if (flue_bytes_is(record->headers[i].name, name))
            return record->headers[i].value;
    return flue_bytes(NULL, 0);
}

static void every_service_has_its_record(void **state)
{
    const struct flue_origin origin = {.tenant = FLUE_BYTES("media")};
    struct kafka_record_rules rules = rules_of(FLUE_KAFKA_OTLP_PROTO);
    struct made made;
    uint64_t samples = 0;

    make(&made, &rules, 5, &origin);
    assert_int_equal(made.code, FLUE_OK);
    assert_int_equal(made.records.count, 5);
    for (struct kafka_record *record = made.records.first; record; record = record->next) {
        assert_true(flue_bytes_equal(record->key, header(record, "service.name")));
        assert_true(flue_bytes_is(header(record, "X-Scope-OrgID"), "media"));
        assert_string_equal(record->topic, "otlp_profiles");
        samples += samples_of(record);
    }
    assert_int_equal(samples, all_samples(made.batch->payload));
    release(&made);
}

/* One key, whatever the services: one record; and none at all. */
static void keys_by_metadata_and_none(void **state)
{
    const struct flue_attribute headers[] = {
        {FLUE_BYTES("x-shard"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("s7")}}};
    const struct flue_origin origin = {.headers = headers, .header_count = 1};
    struct kafka_record_rules rules = rules_of(FLUE_KAFKA_OTLP_PROTO);
    struct made made;

    rules.key_metadata = FLUE_BYTES("x-shard");
    make(&made, &rules, 3, &origin);
    assert_int_equal(made.records.count, 1);
    assert_true(flue_bytes_is(made.records.first->key, "s7"));
    assert_null(header(made.records.first, "service.name").data); /* they differ */
    release(&made);
    rules = rules_of(FLUE_KAFKA_OTLP_PROTO);
    rules.key_attribute = flue_bytes(NULL, 0);
    make(&made, &rules, 3, &origin);
    assert_int_equal(made.records.count, 1);
    assert_null(made.records.first->key.data);
    release(&made);
}

static void topics_from_data_are_valid_and_few(void **state)
{
    struct kafka_record_rules rules = rules_of(FLUE_KAFKA_OTLP_PROTO);
    const struct flue_origin none = {.transport = FLUE_BYTES("grpc")};
    struct made made;

    rules.topic_attribute = FLUE_BYTES("service.name");
    make(&made, &rules, 2, &none);
    assert_int_equal(made.records.count, 2);
    assert_string_equal(made.records.first->topic, "service-0");
    assert_string_equal(made.records.first->next->topic, "service-1");
    release(&made);
    static const char *const bad[] = {"../../etc", "a b", "..", "x\n", ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct flue_attribute headers[] = {
            {FLUE_BYTES("x-topic"), {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(bad[i])}}};
        const struct flue_origin origin = {.headers = headers, .header_count = 1};
        rules = rules_of(FLUE_KAFKA_OTLP_PROTO);
        rules.topic_metadata = FLUE_BYTES("x-topic");
        make(&made, &rules, 1, &origin);
        assert_string_equal(made.records.first->topic, "otlp_profiles");
        assert_true(*bad[i] ? made.records.left_out > 0 : made.records.left_out == 0);
        release(&made);
    }
}

static void what_is_large_is_cut_and_nothing_is_lost(void **state)
{
    const struct flue_origin origin = {.tenant = FLUE_BYTES("media")};
    static const int encodings[] = {FLUE_KAFKA_OTLP_PROTO, FLUE_KAFKA_OTLP_JSON, FLUE_KAFKA_PPROF};

    for (size_t e = 0; e < 3; e++) {
        size_t whole = 0;
        for (size_t divide = 1; divide <= 4; divide *= 2) {
            struct kafka_record_rules rules = rules_of(encodings[e]);
            struct made made;
            uint64_t samples = 0;
            if (divide > 1)
                rules.max_bytes = whole / divide + 1024;
            make(&made, &rules, 1, &origin);
            if (made.code)
                fail_msg("%s", made.error.text);
            for (struct kafka_record *record = made.records.first; record; record = record->next) {
                assert_true(record->value.size + record->key.size + record->header_bytes <=
                            rules.max_bytes);
                if (divide == 1 && record->value.size > whole)
                    whole = record->value.size;
                if (encodings[e] == FLUE_KAFKA_OTLP_PROTO)
                    samples += samples_of(record);
            }
            assert_int_equal(made.records.reason.code, FLUE_OK);
            if (divide > 2)
                assert_true(made.records.count > 1);
            if (encodings[e] == FLUE_KAFKA_OTLP_PROTO)
                assert_int_equal(samples, all_samples(made.batch->payload));
            release(&made);
        }
    }
}

/* One sample that is over the limit alone is counted, and the rest goes. */
static void what_cannot_be_cut_is_rejected(void **state)
{
    const struct flue_origin origin = {.tenant = FLUE_BYTES("media")};
    struct kafka_record_rules rules = rules_of(FLUE_KAFKA_OTLP_PROTO);
    struct made made;

    rules.max_bytes = 600;
    make(&made, &rules, 1, &origin);
    assert_int_equal(made.code, FLUE_OK);
    assert_int_equal(made.records.reason.code, FLUE_TOO_LARGE);
    assert_true(made.records.rejected.samples > 0);
    assert_true(made.records.rejected.samples <= 10000);
    release(&made);
}

/* A topic's own limit: the record in smaller ones under the same key. */
static void a_record_is_cut_again(void **state)
{
    const struct flue_origin origin = {.tenant = FLUE_BYTES("media")};
    struct kafka_record_rules rules = rules_of(FLUE_KAFKA_OTLP_PROTO);
    struct made made;
    struct kafka_records parts = {.count = 0};
    uint64_t samples = 0;

    make(&made, &rules, 1, &origin);
    struct kafka_record *whole = made.records.first;
    assert_int_equal(kafka_records_cut(&rules, whole, whole->value.size / 2 + 512, &account,
                                       &made.arena, &parts, &made.error),
                     FLUE_OK);
    assert_true(parts.count > 1);
    struct flue_counts sum = {0};
    for (struct kafka_record *part = parts.first; part; part = part->next) {
        assert_true(part->value.size <= whole->value.size / 2 + 512);
        assert_true(flue_bytes_equal(part->key, whole->key));
        assert_int_equal(part->header_count, whole->header_count);
        sum.samples += part->counts.samples;
        samples += samples_of(part);
        kafka_record_release(part);
    }
    assert_int_equal(samples, samples_of(whole));
    assert_int_equal(sum.samples, whole->counts.samples);
    release(&made);
}

static void headers_have_bounds(void **state)
{
    enum { MANY = 100 };
    static struct flue_attribute headers[MANY];
    static struct flue_kafka_header names[MANY];
    static char text[MANY][16], large[FLUE_KAFKA_HEADER_VALUE_MAX + 1];
    struct kafka_record_rules rules = rules_of(FLUE_KAFKA_OTLP_PROTO);
    struct made made;

    memset(large, 'x', sizeof large);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(text[i], sizeof text[i], "h%u", i);
        headers[i].key = names[i].name = names[i].value = flue_bytes_of(text[i]);
        headers[i].value.text = FLUE_BYTES("v");
    }
    headers[0].value.text = flue_bytes(large, sizeof large);
    headers[1].value.text = FLUE_BYTES("two\r\nlines");
    const struct flue_origin origin = {.headers = headers, .header_count = MANY};
    rules.metadata = names;
    rules.metadata_count = MANY;
    make(&made, &rules, 1, &origin);
    assert_int_equal(made.records.first->header_count, FLUE_KAFKA_HEADERS_MAX);
    assert_null(header(made.records.first, "h0").data);
    assert_null(header(made.records.first, "h1").data);
    assert_true(flue_bytes_is(header(made.records.first, "h2"), "v"));
    assert_int_equal(made.records.left_out, MANY - FLUE_KAFKA_HEADERS_MAX + 1 /* service.name */);
    release(&made);
}

static void pprof_has_its_labels_as_headers(void **state)
{
    const struct flue_origin origin = {.tenant = FLUE_BYTES("media")};
    struct kafka_record_rules rules = rules_of(FLUE_KAFKA_PPROF);
    struct made made;

    make(&made, &rules, 2, &origin);
    if (made.code)
        fail_msg("%s", made.error.text);
    assert_true(made.records.count >= 2);
    for (struct kafka_record *record = made.records.first; record; record = record->next) {
        struct flue_pprof_limits limits = {64u << 20, 200};
        struct flue_pprof_facts facts;
        assert_int_equal(flue_pprof_check(record->value, &limits, &facts, NULL), FLUE_OK);
        assert_true(flue_bytes_equal(record->key, header(record, "flue.label.service_name")));
        assert_true(header(record, "flue.label.__name__").size > 0);
    }
    release(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_service_has_its_record),
        cmocka_unit_test(keys_by_metadata_and_none),
        cmocka_unit_test(topics_from_data_are_valid_and_few),
        cmocka_unit_test(what_is_large_is_cut_and_nothing_is_lost),
        cmocka_unit_test(what_cannot_be_cut_is_rejected),
        cmocka_unit_test(a_record_is_cut_again),
        cmocka_unit_test(headers_have_bounds),
        cmocka_unit_test(pprof_has_its_labels_as_headers),
    };
    flue_budget_init(&budget, INT64_MAX);
    flue_account_init(&account, &budget, "test", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
