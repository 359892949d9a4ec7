/* Buffers: the maximum, the failed flag, JSON strings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "collector/base/buffer.h"

static void grows_to_its_maximum(void **state)
{
    struct flue_buffer b;

    flue_buffer_init(&b, 1000);
    assert_null(b.data);
    for (unsigned i = 0; i < 1000; i++)
        flue_buffer_byte(&b, (uint8_t)('a' + i % 26));
    assert_false(b.failed);
    assert_int_equal(b.size, 1000);
    assert_int_equal(b.data[1000], 0);
    flue_buffer_byte(&b, 'x');
    assert_true(b.failed);
    assert_int_equal(b.size, 1000);
    flue_buffer_clear(&b);
    assert_false(b.failed);
    flue_buffer_printf(&b, "%s %d", "x", 7);
    assert_string_equal(b.data, "x 7");
    flue_buffer_printf(&b, "%1000d", 7);
    assert_true(b.failed);
    flue_buffer_text(&b, "more");
    assert_string_equal(b.data, "x 7");
    flue_buffer_destroy(&b);
    flue_buffer_init(&b, SIZE_MAX);
    flue_buffer_add(&b, flue_bytes(NULL, 0));
    assert_string_equal(b.data, "");
    flue_buffer_destroy(&b);
}

static void json_is(struct flue_bytes text, const char *expected)
{
    struct flue_buffer b;

    flue_buffer_init(&b, 1000);
    flue_buffer_json(&b, text);
    assert_false(b.failed);
    assert_string_equal(b.data, expected);
    flue_buffer_destroy(&b);
}

static void json(void **state)
{
    struct flue_buffer b;

    json_is(FLUE_BYTES("plain \xE2\x82\xAC"), "\"plain \xE2\x82\xAC\"");
    json_is(FLUE_BYTES("\"\\\n\r\t\b\f/"), "\"\\\"\\\\\\n\\r\\t\\b\\f/\"");
    json_is(flue_bytes("\0\x1b\x7f", 3), "\"\\u0000\\u001b\\u007f\"");
    json_is(FLUE_BYTES("a\xC2\x9B"
                       "31mb\xC2\xA0"),
            "\"a\\u009b31mb\xC2\xA0\"");
    json_is(FLUE_BYTES("a\xFFz\xE2\x82"), "\"a\xEF\xBF\xBDz\xEF\xBF\xBD\"");
    json_is(flue_bytes(NULL, 0), "\"\"");
    flue_buffer_init(&b, 8);
    flue_buffer_json(&b, FLUE_BYTES("\xFF\xFF\xFF"));
    assert_true(b.failed);
    flue_buffer_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(grows_to_its_maximum),
                                       cmocka_unit_test(json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
