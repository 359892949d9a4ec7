/* OTLP/JSON: what real requests say survives the way to JSON and back, and bad JSON is refused by
 * its path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/buffer.h"
#include "proto/otlp/otlp.h"

static struct flue_budget budget;
static struct flue_account account;

static struct flue_block *load(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", FLUE_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    struct flue_block *block = flue_block_new(&account, size);
    assert_int_equal(fread(block->data, 1, size, file), size);
    block->size = size;
    flue_block_finish(block);
    fclose(file);
    return block;
}

static struct flue_payload *read_body(struct flue_block *body)
{
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report = {0};
    struct flue_error error = {0};
    if (flue_otlp_read(body, &payload, &report, &error))
        fail_msg("%s", error.text);
    assert_int_equal(report.rejected_profiles, 0);
    return payload;
}

static void to_json(const struct flue_payload *payload, struct flue_buffer *out)
{
    struct flue_error error = {0};
    flue_buffer_init(out, 64u << 20);
    if (flue_otlp_json_write(payload, out, &error))
        fail_msg("%s", error.text);
}

static void there_and_back(const char *name)
{
    struct flue_payload *first = read_body(load(name));
    struct flue_buffer json, again;
    struct flue_block *body = NULL;
    struct flue_error error = {0};

    to_json(first, &json);
    if (flue_otlp_json_read(flue_buffer_bytes(&json), 256u << 20, &account, &body, &error))
        fail_msg("%s", error.text);
    struct flue_payload *second = read_body(body);
    to_json(second, &again);
    assert_int_equal(json.size, again.size);
    assert_memory_equal(json.data, again.data, json.size);
    assert_true(json.size > 10000);
    flue_buffer_destroy(&json);
    flue_buffer_destroy(&again);
    flue_payload_unref(first);
    flue_payload_unref(second);
    assert_int_equal(account.used, 0);
}

static void captures_survive(void **state)
{
    there_and_back("otlp/ebpf-v1.11-ascending.otlp");
    there_and_back("otlp/ebpf-v1.11-pdata-order-1.otlp");
}

static const char *refused(const char *json, char *text)
{
    struct flue_block *body = NULL;
    struct flue_error error = {0};
    assert_int_equal(flue_otlp_json_read(flue_bytes_of(json), 1 << 20, &account, &body, &error),
                     FLUE_INVALID);
    assert_null(body);
    snprintf(text, 500, "%s", error.text);
    return text;
}

static void mistakes_are_named_by_path(void **state)
{
    char text[500];
    assert_string_equal(refused("{\"resourceProfiles\":{}}", text),
                        "resourceProfiles: expected an array, got an object");
    assert_string_equal(
        refused("{\"resourceProfiles\":[{\"scopeProfiles\":[{\"profiles\":[7]}]}]}", text),
        "resourceProfiles[0].scopeProfiles[0].profiles[0]: expected an object, got a number");
    assert_string_equal(refused("{\"dictionary\":{\"linkTable\":[{},{\"traceId\":\"zz\"}]}}", text),
                        "dictionary.linkTable[1].traceId: expected an id in hex, got a string");
    assert_string_equal(refused("{\"dictionary\":{\"stringTable\":[\"\",3]}}", text),
                        "dictionary.stringTable[1]: expected a string, got a number");
    assert_string_equal(
        refused("{\"dictionary\":{\"stackTable\":[{\"locationIndices\":[4294967296]}]}}", text),
        "dictionary.stackTable[0].locationIndices[0]: expected a 32-bit integer, got a number");
    assert_string_equal(refused("[]", text), "body: expected an object, got an array");
    refused("", text);
    refused("{\"a\":", text);
    assert_int_equal(account.used, 0);
}

static struct flue_block *accepted(const char *json)
{
    struct flue_block *body = NULL;
    struct flue_error error = {0};
    if (flue_otlp_json_read(flue_bytes_of(json), 1 << 20, &account, &body, &error))
        fail_msg("%s", error.text);
    return body;
}

static void expect_equal(const char *a, const char *b)
{
    struct flue_block *x = accepted(a), *y = accepted(b);
    assert_int_equal(x->size, y->size);
    assert_memory_equal(x->data, y->data, x->size);
    flue_block_unref(x);
    flue_block_unref(y);
}

static void forms_that_senders_use_are_equal(void **state)
{
    /* numbers and decimal strings; original names; unknown keys; null; hex in both cases */
    expect_equal("{\"resourceProfiles\":[{\"scopeProfiles\":[{\"profiles\":[{\"timeUnixNano\":"
                 "\"12\",\"period\":3}]}]}]}",
                 "{\"resource_profiles\":[{\"scope_profiles\":[{\"profiles\":[{\"time_unix_nano\":"
                 "12,\"period\":\"3\",\"x\":[1]}],\"scope\":null}]}]}");
    expect_equal("{\"dictionary\":{\"linkTable\":[{\"traceId\":"
                 "\"0AF7651916CD43DD8448EB211C80319C\",\"spanId\":\"b7ad6b7169203331\"}]}}",
                 "{\"dictionary\":{\"linkTable\":[{\"traceId\":\"CvdlGRbNQ92ESOshHIAxnA==\","
                 "\"spanId\":\"B7AD6B7169203331\"}]}}");
    struct flue_block *empty = accepted("{}");
    assert_int_equal(empty->size, 0);
    flue_block_unref(empty);
    /* a zero in a oneof is there, and an empty row is a row */
    struct flue_block *zero =
        accepted("{\"dictionary\":{\"attributeTable\":[{},{\"value\":{\"intValue\":\"0\"}}]}}");
    static const uint8_t expected[] = {0x12, 8, 0x32, 0, 0x32, 4, 0x12, 2, 0x18, 0};
    assert_int_equal(zero->size, sizeof expected);
    assert_memory_equal(zero->data, expected, sizeof expected);
    flue_block_unref(zero);
    assert_int_equal(account.used, 0);
}

static void a_budget_ends_it(void **state)
{
    struct flue_payload *payload = read_body(load("otlp/ebpf-v1.11-ascending.otlp"));
    struct flue_buffer json;
    struct flue_block *body = NULL;
    struct flue_error error = {0};
    to_json(payload, &json);
    assert_int_equal(flue_otlp_json_read(flue_buffer_bytes(&json), 100000, &account, &body, &error),
                     FLUE_TOO_LARGE);
    for (size_t size = 0; size < json.size; size += 997) {
        enum flue_code code =
            flue_otlp_json_read(flue_bytes(json.data, size), 64u << 20, &account, &body, &error);
        assert_int_equal(code, FLUE_INVALID);
    }
    struct flue_buffer small;
    flue_buffer_init(&small, 1000);
    assert_int_equal(flue_otlp_json_write(payload, &small, &error), FLUE_TOO_LARGE);
    flue_buffer_destroy(&small);
    flue_buffer_destroy(&json);
    flue_payload_unref(payload);
    assert_int_equal(account.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captures_survive),
        cmocka_unit_test(mistakes_are_named_by_path),
        cmocka_unit_test(forms_that_senders_use_are_equal),
        cmocka_unit_test(a_budget_ends_it),
    };
    flue_budget_init(&budget, 1ll << 30);
    flue_account_init(&account, &budget, "test", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
