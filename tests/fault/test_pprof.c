/* pprof without memory: requests to push, profiles, merging, splitting, folded stacks, conversion.
 */
#include "collector/base/codec.h"
#include "proto/convert/convert.h"
#include "proto/foreign/folded.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/document.h"
#include "proto/pprof/merge.h"
#include "proto/pprof/pprof.h"
#include "proto/pprof/repair.h"
#include "tests/fault/fault.h"

static const struct flue_pprof_limits limits = {(size_t)16 << 20, FLUE_RATIO_LIMIT};
static struct flue_block *profile_body, *push_body, *json_body;

static struct flue_payload *read_push(void)
{
    struct flue_error error = {0};
    struct flue_push_report report;
    struct flue_payload *payload = NULL;
    struct flue_block *body = flue_block_copy(&fault_account, flue_block_bytes(push_body));

    if (!body) {
        assert_true(fault_fired);
        return NULL;
    }
    enum flue_code code = flue_push_read(body, &limits, false, &payload, &report, &error);
    flue_block_unref(body);
    if (!fault_ok(code, &error)) {
        assert_null(payload);
        return NULL;
    }
    assert_int_equal(report.rejected_profiles, 0);
    return payload;
}

static void push_edit_write(void *arg)
{
    const struct flue_attribute item = {FLUE_BYTES("team.cost-center"),
                                        {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("video")}};
    struct flue_payload *payload = read_push(), *clone;
    struct flue_attribute_set set;
    struct flue_error error = {0};
    struct flue_value value;
    struct flue_arena arena;

    if (!payload)
        return;
    flue_arena_init(&arena, 1u << 20, 0);
    if (fault_ok(flue_otlp_attribute_set(&arena, &item, 1, &set, &error), &error)) {
        if (fault_ok(payload->ops->attributes_set(payload, 0, &set, FLUE_SET_UPSERT, NULL, &error),
                     &error))
            assert_true(payload->ops->attribute_get(payload, 0, item.key, &value));
        else
            assert_false(payload->ops->attribute_get(payload, 0, item.key, &value));
    }
    clone = payload->ops->clone(payload, &error);
    if (clone) {
        fault_ok(clone->ops->attribute_remove(clone, 0, FLUE_BYTES("service.name"), &error),
                 &error);
        flue_block_unref(fault_written(clone));
        flue_payload_unref(clone);
    } else {
        assert_false(fault_ok(error.code, &error));
    }
    flue_block_unref(fault_written(payload));
    flue_payload_unref(payload);
    flue_arena_destroy(&arena);
}

static void push_merge_split(void *arg)
{
    struct flue_payload *payload = read_push(), *out = NULL;
    const struct flue_counts total = {2, 77, 5000};
    struct flue_error error = {0};

    if (!payload)
        return;
    struct flue_payload *twice[2] = {payload, payload};
    if (!fault_ok(payload->ops->merge(twice, 2, &fault_account, &out, &error), &error))
        assert_null(out);
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        struct flue_counts sum = {0};
        if (fault_ok(payload->ops->split(payload, by_bytes ? 900 : 3, by_bytes, &total,
                                         &fault_account, fault_part, &sum, &error),
                     &error))
            assert_memory_equal(&sum, &total, sizeof sum);
    }
    flue_payload_unref(out);
    flue_payload_unref(payload);
}

static void push_json(void *arg)
{
    struct flue_error error = {0};
    struct flue_block *body = NULL;
    if (!fault_ok(flue_push_json_read(flue_block_bytes(json_body), (size_t)16 << 20, &fault_account,
                                      &body, &error),
                  &error))
        assert_null(body);
    flue_block_unref(body);
}

static void profile(void *arg)
{
    struct flue_bytes in = flue_block_bytes(profile_body), raw;
    struct flue_pprof_facts facts;
    struct flue_pprof_type_name *names;
    struct flue_pprof_document document;
    struct flue_block *inflated = NULL, *out;
    struct flue_error error = {0};
    struct flue_arena arena, scratch;

    flue_arena_init(&arena, (size_t)16 << 20, 0);
    flue_arena_init(&scratch, (size_t)16 << 20, 0);
    fault_ok(flue_pprof_check(in, &limits, &facts, &error), &error);
    fault_ok(flue_pprof_check_types(in, &limits, &facts, &arena, &names, &error), &error);
    if (fault_ok(flue_pprof_raw(in, &limits, &fault_account, &inflated, &raw, &error), &error) &&
        fault_ok(flue_pprof_decode(raw, &arena, &document, &error), &error) &&
        fault_ok(flue_pprof_encode(&document, 0, document.sample_count, &scratch, &fault_account,
                                   &out, &error),
                 &error))
        flue_block_unref(out);
    flue_block_unref(inflated);
    flue_arena_destroy(&arena);
    flue_arena_destroy(&scratch);
    struct flue_bytes twice[2] = {in, in};
    if (fault_ok(flue_pprof_merge(twice, 2, &limits, &fault_account, &out, &error), &error))
        flue_block_unref(out);
    if (fault_ok(flue_pprof_repair(in, &limits, &fault_account, &out, &error), &error))
        flue_block_unref(out);
    if (fault_ok(flue_pprof_set_time(in, 7, &limits, &fault_account, &out, &error), &error))
        flue_block_unref(out);
}

static void convert(void *arg)
{
    struct flue_payload *payload = read_push(), *other = NULL, *back = NULL;
    struct flue_error error = {0};

    if (!payload)
        return;
    if (fault_ok(flue_convert(payload, FLUE_FORM_OTLP, &fault_account, &other, &error), &error) &&
        fault_ok(flue_convert(other, FLUE_FORM_PPROF, &fault_account, &back, &error), &error))
        flue_block_unref(fault_written(back));
    flue_payload_unref(back);
    flue_payload_unref(other);
    flue_payload_unref(payload);
}

static void folded(void *arg)
{
    const struct flue_folded_meaning meaning = {
        .type = FLUE_BYTES("cpu"), .unit = FLUE_BYTES("nanoseconds"), .scale = 1};
    struct flue_folded_facts facts;
    struct flue_block *out = NULL;
    struct flue_error error = {0};
    if (!fault_ok(flue_folded_to_pprof(FLUE_BYTES("a;b;c 3\na;\xff 4\na;b;c 5\n"),
                                       FLUE_FOLDED_GROUPS, &meaning, 1u << 20, &fault_account, &out,
                                       &facts, &error),
                  &error))
        assert_null(out);
    flue_block_unref(out);
}

static void pushing(void **state)
{
    fault_sweep(push_edit_write, NULL, 10);
    fault_sweep(push_json, NULL, 10);
}
static void joining(void **state)
{
    fault_sweep(push_merge_split, NULL, 10);
}
static void profiles(void **state)
{
    fault_sweep(profile, NULL, 10);
}
static void converting(void **state)
{
    fault_sweep(convert, NULL, 10);
}
static void folding(void **state)
{
    fault_sweep(folded, NULL, 5);
}

static int begin(void **state)
{
    struct flue_pprof_label labels[] = {{FLUE_BYTES("__name__"), FLUE_BYTES("process_cpu")},
                                        {FLUE_BYTES("service_name"), FLUE_BYTES("encoder")}};
    struct flue_slices slices = {0};
    struct flue_error error;
    struct flue_arena arena;

    profile_body = fault_file("captures/go-net-http-pprof/threadcreate.body");
    flue_arena_init(&arena, 1u << 20, 0);
    struct flue_bytes bytes = flue_block_bytes(profile_body);
    for (int i = 0; i < 2; i++) {
        labels[1].value = i ? FLUE_BYTES("encoder") : FLUE_BYTES("packager");
        assert_int_equal(
            flue_push_write(&arena, labels, 2, bytes, FLUE_BYTES("id"), &slices, &error), FLUE_OK);
    }
    push_body = flue_block_new(NULL, slices.total);
    flue_slices_copy(&slices, push_body->data);
    push_body->size = slices.total;
    flue_block_finish(push_body);
    flue_arena_destroy(&arena);
    json_body = flue_block_copy(
        NULL, FLUE_BYTES("{\"series\":[{\"labels\":[{\"name\":\"__name__\",\"value\":\"a long "
                         "value, longer than the scanner's first buffer is\"}],"
                         "\"samples\":[{\"rawProfile\":\"AQIDBAUGBwg=\",\"ID\":\"x\"}]}]}"));
    return 0;
}
static int end(void **state)
{
    flue_block_unref(profile_body);
    flue_block_unref(push_body);
    flue_block_unref(json_body);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pushing), cmocka_unit_test(joining),
                                       cmocka_unit_test(profiles), cmocka_unit_test(converting),
                                       cmocka_unit_test(folding)};
    return cmocka_run_group_tests(tests, begin, end);
}
