/* Base64 of every length, padded and not, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "collector/base/base64.h"

static void base64_both_ways(void **state)
{
    uint8_t data[64], out[100];
    char text[100];
    size_t size;
    for (size_t n = 0; n < sizeof data; n++) {
        for (size_t i = 0; i < n; i++)
            data[i] = (uint8_t)(i * 37 + n);
        flue_base64_encode(flue_bytes(data, n), text);
        size_t length = (n + 2) / 3 * 4;
        assert_true(flue_base64_decode(flue_bytes(text, length), out, &size));
        assert_int_equal(size, n);
        assert_int_equal(memcmp(out, data, n), 0);
        while (length > 0 && text[length - 1] == '=')
            length--;
        assert_true(flue_base64_decode(flue_bytes(text, length), out, &size));
        assert_int_equal(size, n);
    }
    assert_true(flue_base64_decode(FLUE_BYTES("-_-_"), out, &size));
    assert_false(flue_base64_decode(FLUE_BYTES("===="), out, &size));
    assert_false(flue_base64_decode(FLUE_BYTES("ab=c"), out, &size));
    assert_false(flue_base64_decode(FLUE_BYTES("abcde"), out, &size));
}

static void it_is_that_of_the_standard(void **state)
{
    static const char *const rows[][2] = {/* RFC 4648, 10 */
                                          {"", ""},
                                          {"f", "Zg=="},
                                          {"fo", "Zm8="},
                                          {"foo", "Zm9v"},
                                          {"foob", "Zm9vYg=="},
                                          {"fooba", "Zm9vYmE="},
                                          {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[16] = "";
        flue_base64_encode(flue_bytes_of(rows[i][0]), text);
        assert_string_equal(text, rows[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_both_ways),
        cmocka_unit_test(it_is_that_of_the_standard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
