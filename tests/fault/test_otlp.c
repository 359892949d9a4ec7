/* OTLP without memory: reading, edits, clones, writing, merging, splitting, JSON, conversion. */
#include "collector/base/buffer.h"
#include "proto/convert/convert.h"
#include "proto/otlp/dictionary.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "tests/fault/fault.h"

/* Bodies as received: NAMES, and one with strings that need repair and one with a bad profile. */
struct given {
    struct flue_block *body;
    uint64_t profiles, rejected, repaired;
};

static struct flue_payload *read_body(const struct given *given)
{
    struct flue_error error = {0};
    struct flue_otlp_report report;
    struct flue_payload *payload = NULL;
    struct flue_block *body = flue_block_copy(&fault_account, flue_block_bytes(given->body));

    if (!body) {
        assert_true(fault_fired);
        return NULL;
    }
    if (!fault_ok(flue_otlp_read(body, &payload, &report, &error), &error)) {
        assert_null(payload);
        return NULL;
    }
    assert_non_null(payload);
    assert_int_equal(report.counts.profiles, given->profiles);
    assert_int_equal(report.rejected_profiles, given->rejected);
    assert_int_equal(report.repaired_strings, given->repaired);
    return payload;
}

static void read_only(void *arg)
{
    flue_payload_unref(read_body(arg));
}

static void edit(struct flue_payload *payload, struct flue_arena *arena)
{
    const struct flue_attribute items[] = {
        {FLUE_BYTES("service.name"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("encoder")}},
        {FLUE_BYTES("a.number"), {.type = FLUE_VALUE_INT, .integer = 7}},
        {FLUE_BYTES("b.bool"), {.type = FLUE_VALUE_BOOL, .boolean = true}},
    };
    struct flue_attribute_set set;
    struct flue_error error = {0};
    struct flue_value value;
    uint32_t row;

    if (!fault_ok(flue_otlp_attribute_set(arena, items, 3, &set, &error), &error))
        return;
    if (fault_ok(payload->ops->attributes_set(payload, 0, &set, FLUE_SET_UPSERT, NULL, &error),
                 &error)) {
        assert_true(payload->ops->attribute_get(payload, 0, items[1].key, &value));
        assert_int_equal(value.integer, 7);
    }
    if (fault_ok(payload->ops->attribute_remove(payload, 0, items[2].key, &error), &error))
        assert_false(payload->ops->attribute_get(payload, 0, items[2].key, &value));
    fault_ok(flue_otlp_scope_set(payload, 0, &set, FLUE_SET_INSERT, NULL, &error), &error);
    fault_ok(flue_otlp_scope_attribute_remove(payload, 0, items[0].key, &error), &error);
    fault_ok(flue_otlp_dictionary_append(payload, FLUE_OTLP_STRING, FLUE_BYTES("appended"), &row,
                                         &error),
             &error);
}

static void read_edit_write(void *arg)
{
    struct flue_payload *payload = read_body(arg), *clone = NULL;
    struct flue_error error = {0};
    struct flue_arena arena;

    if (!payload)
        return;
    flue_arena_init(&arena, 1u << 20, 0);
    edit(payload, &arena);
    flue_block_unref(fault_written(payload));
    clone = payload->ops->clone(payload, &error);
    if (clone) {
        edit(clone, &arena);
        fault_ok(flue_otlp_profile_remove(clone, 0, &error), &error);
        fault_ok(flue_otlp_resource_remove(clone, 0, &error), &error);
        struct flue_block *written = fault_written(clone);
        assert_true(!written || written->size == clone->ops->encoded_size(clone));
        flue_block_unref(written);
    } else {
        assert_true(fault_ok(error.code, &error) == false);
    }
    flue_payload_unref(payload);
    flue_payload_unref(clone);
    flue_arena_destroy(&arena);
}

static void merge_and_split(void *arg)
{
    struct flue_payload *payload = read_body(arg), *out = NULL, *pruned = NULL;
    struct flue_error error = {0};
    const struct flue_counts total = {3, 1000, 5000};

    if (!payload)
        return;
    struct flue_payload *twice[2] = {payload, payload};
    if (!fault_ok(flue_otlp_merge(twice, 2, &fault_account, &out, &error), &error))
        assert_null(out);
    if (!fault_ok(flue_otlp_prune(payload, &fault_account, &pruned, &error), &error))
        assert_null(pruned);
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        struct flue_counts sum = {0};
        if (fault_ok(flue_otlp_split(payload, by_bytes ? 700 : 3, by_bytes, &total, &fault_account,
                                     fault_part, &sum, &error),
                     &error))
            assert_memory_equal(&sum, &total, sizeof sum);
        else
            assert_int_equal(sum.profiles + sum.samples + sum.bytes, 0);
    }
    flue_payload_unref(out);
    flue_payload_unref(pruned);
    flue_payload_unref(payload);
}

static void json(void *arg)
{
    struct flue_payload *payload = read_body(arg);
    struct flue_error error = {0};
    struct flue_block *body = NULL;
    struct flue_buffer text;

    if (!payload)
        return;
    flue_buffer_init(&text, 4u << 20);
    if (fault_ok(flue_otlp_json_write(payload, &text, &error), &error)) {
        if (text.failed)
            assert_true(fault_fired);
        else if (!fault_ok(flue_otlp_json_read(flue_buffer_bytes(&text), (size_t)16 << 20,
                                               &fault_account, &body, &error),
                           &error))
            assert_null(body);
    }
    flue_block_unref(body);
    flue_buffer_destroy(&text);
    flue_payload_unref(payload);
}

static void convert(void *arg)
{
    struct flue_payload *payload = read_body(arg), *other = NULL, *back = NULL;
    struct flue_error error = {0};

    if (!payload)
        return;
    if (fault_ok(flue_convert(payload, FLUE_FORM_PPROF, &fault_account, &other, &error), &error) &&
        fault_ok(flue_convert(other, FLUE_FORM_OTLP, &fault_account, &back, &error), &error))
        flue_block_unref(fault_written(back));
    flue_payload_unref(back);
    flue_payload_unref(other);
    flue_payload_unref(payload);
}

static void responses(void *arg)
{
    for (int as_json = 0; as_json < 2; as_json++) {
        struct flue_buffer out;
        struct flue_error error = {0};
        uint64_t rejected;
        char message[64];
        flue_buffer_init(&out, 4096);
        flue_otlp_response_write(3, FLUE_BYTES("three are bad"), as_json, &out);
        if (out.failed)
            assert_true(fault_fired);
        else if (fault_ok(flue_otlp_response_read(flue_buffer_bytes(&out), as_json, &rejected,
                                                  message, sizeof message, &error),
                          &error))
            assert_int_equal(rejected, 3);
        flue_buffer_destroy(&out);
    }
}

static struct given plain, damaged;

static void reading(void **state)
{
    fault_sweep(read_only, &plain, 2);
    fault_sweep(read_only, &damaged, 5);
}
static void editing(void **state)
{
    fault_sweep(read_edit_write, &plain, 10);
}
static void joining(void **state)
{
    fault_sweep(merge_and_split, &plain, 10);
}
static void as_json(void **state)
{
    fault_sweep(json, &plain, 10);
    fault_sweep(responses, NULL, 2);
}
static void converting(void **state)
{
    fault_sweep(convert, &plain, 10);
}

static int begin(void **state)
{
    plain = (struct given){fault_file("otlp/async-profiler-alloc.otlp"), 0, 0, 0};
    struct flue_block *copy = flue_block_copy(NULL, flue_block_bytes(plain.body));
    struct flue_otlp_report report;
    struct flue_payload *payload;
    struct flue_error error;
    flue_budget_init(&fault_budget, (int64_t)1 << 30);
    flue_account_init(&fault_account, &fault_budget, "fault", 0);
    assert_int_equal(flue_otlp_read(flue_block_ref(plain.body), &payload, &report, &error),
                     FLUE_OK);
    plain.profiles = report.counts.profiles;
    flue_payload_unref(payload);
    /* A string that is not UTF-8. */
    uint8_t *text = memmem(copy->data, copy->size, "java", 4);
    assert_non_null(text);
    text[0] = 0xff;
    damaged = (struct given){copy, plain.profiles, 0, 1};
    return 0;
}
static int end(void **state)
{
    flue_block_unref(plain.body);
    flue_block_unref(damaged.body);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reading), cmocka_unit_test(editing),
                                       cmocka_unit_test(joining), cmocka_unit_test(as_json),
                                       cmocka_unit_test(converting)};
    return cmocka_run_group_tests(tests, begin, end);
}
