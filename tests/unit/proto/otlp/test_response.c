/* The answer of the service, both forms, both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "collector/base/buffer.h"
#include "proto/otlp/otlp.h"
#include "schema/profiles_service.pb-c.h"

static void empty_when_all_is_well(void **state)
{
    struct flue_buffer b;
    flue_buffer_init(&b, 4096);
    flue_otlp_response_write(0, FLUE_BYTES(""), false, &b);
    assert_int_equal(b.size, 0);
    flue_otlp_response_write(0, FLUE_BYTES(""), true, &b);
    assert_string_equal(b.data, "{}");
    flue_buffer_destroy(&b);
}

static void there_and_back(void **state)
{
    for (int json = 0; json < 2; json++) {
        struct flue_buffer b;
        struct flue_error error;
        uint64_t rejected = 0;
        char message[64];
        flue_buffer_init(&b, 4096);
        flue_otlp_response_write(300, FLUE_BYTES("samples[7]: \"bad\""), json, &b);
        assert_false(b.failed);
        assert_int_equal(flue_otlp_response_read(flue_buffer_bytes(&b), json, &rejected, message,
                                                 sizeof message, &error),
                         FLUE_OK);
        assert_int_equal(rejected, 300);
        assert_string_equal(message, "samples[7]: \"bad\"");
        if (!json) {
            Otlp__ExportProfilesServiceResponse *r = otlp__export_profiles_service_response__unpack(
                NULL, b.size, (const uint8_t *)b.data);
            assert_non_null(r);
            assert_int_equal(r->partial_success->rejected_profiles, 300);
            otlp__export_profiles_service_response__free_unpacked(r, NULL);
        } else {
            assert_string_equal(b.data, "{\"partialSuccess\":{\"rejectedProfiles\":\"300\","
                                        "\"errorMessage\":\"samples[7]: \\\"bad\\\"\"}}");
        }
        flue_buffer_destroy(&b);
    }
}

static void hostile_answers(void **state)
{
    static const char *const broken[] = {"\x0a\x05\x08", "\x0a\x02\x12\x09", "\xff"};
    uint64_t rejected;
    char message[16];
    struct flue_error error;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(flue_otlp_response_read(flue_bytes_of(broken[i]), false, &rejected,
                                                 message, sizeof message, &error),
                         FLUE_INVALID);
    assert_int_equal(flue_otlp_response_read(FLUE_BYTES("<html>"), true, &rejected, message,
                                             sizeof message, &error),
                     FLUE_INVALID);
    assert_int_equal(flue_otlp_response_read(FLUE_BYTES("[1]"), true, &rejected, message,
                                             sizeof message, &error),
                     FLUE_OK);
    /* A message longer than the room, with bytes that must not reach a log as they are. */
    assert_int_equal(flue_otlp_response_read(FLUE_BYTES("\x0a\x14\x12\x12\n\nlong long longer"),
                                             false, &rejected, message, sizeof message, &error),
                     FLUE_OK);
    assert_true(strlen(message) < sizeof message);
    assert_null(strchr(message, '\n'));
    /* int64 below zero is nobody's count. */
    assert_int_equal(
        flue_otlp_response_read(FLUE_BYTES("\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
                                false, &rejected, message, sizeof message, &error),
        FLUE_OK);
    assert_int_equal(rejected, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_when_all_is_well),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(hostile_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
