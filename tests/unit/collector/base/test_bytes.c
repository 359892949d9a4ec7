/* Bytes: comparison, numbers, hex, UTF-8 against an independent decoder, and printing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "collector/base/bytes.h"

static void compares(void **state)
{
    assert_int_equal(flue_bytes_compare(FLUE_BYTES("a"), FLUE_BYTES("b")), -1);
    assert_int_equal(flue_bytes_compare(FLUE_BYTES("b"), FLUE_BYTES("a\xff")), 1);
    assert_int_equal(flue_bytes_compare(FLUE_BYTES("a"), FLUE_BYTES("ab")), -1);
    assert_int_equal(flue_bytes_compare(FLUE_BYTES("a\xff"), FLUE_BYTES("ab")), 1);
    assert_int_equal(flue_bytes_compare(FLUE_BYTES("ab"), FLUE_BYTES("ab")), 0);
    assert_int_equal(flue_bytes_compare(flue_bytes(NULL, 0), flue_bytes(NULL, 0)), 0);
    assert_true(flue_bytes_equal_nocase(FLUE_BYTES("Content-TYPE"), FLUE_BYTES("content-type")));
    assert_false(flue_bytes_equal_nocase(FLUE_BYTES("[@"), FLUE_BYTES("{`")));
    assert_true(flue_bytes_starts_with(FLUE_BYTES("abc"), FLUE_BYTES("ab")));
    assert_false(flue_bytes_starts_with(FLUE_BYTES("a"), FLUE_BYTES("ab")));
    assert_true(flue_bytes_ends_with(FLUE_BYTES("abc"), FLUE_BYTES("bc")));
    assert_false(flue_bytes_ends_with(FLUE_BYTES("abc"), FLUE_BYTES("ab")));
    assert_int_equal(flue_bytes_find(FLUE_BYTES("abc"), 'c'), 2);
    assert_true(flue_bytes_find(FLUE_BYTES("abc"), 'x') == SIZE_MAX);
    assert_true(flue_bytes_find(flue_bytes(NULL, 0), 'x') == SIZE_MAX);
    assert_true(flue_bytes_is(flue_bytes_trim(FLUE_BYTES(" \t a b\t")), "a b"));
    assert_int_equal(flue_bytes_trim(FLUE_BYTES(" \t ")).size, 0);
}

static void parses_numbers(void **state)
{
    uint64_t u = 7;
    int64_t i = 7;

    assert_true(flue_parse_u64(FLUE_BYTES("18446744073709551615"), &u));
    assert_true(u == UINT64_MAX);
    assert_false(flue_parse_u64(FLUE_BYTES("18446744073709551616"), &u));
    assert_false(flue_parse_u64(FLUE_BYTES("99999999999999999999"), &u));
    assert_false(flue_parse_u64(FLUE_BYTES(""), &u));
    assert_false(flue_parse_u64(FLUE_BYTES("+1"), &u));
    assert_false(flue_parse_u64(FLUE_BYTES("1 "), &u));
    assert_false(flue_parse_u64(FLUE_BYTES("0x1"), &u));
    assert_true(flue_parse_i64(FLUE_BYTES("-9223372036854775808"), &i));
    assert_true(i == INT64_MIN);
    assert_false(flue_parse_i64(FLUE_BYTES("-9223372036854775809"), &i));
    assert_true(flue_parse_i64(FLUE_BYTES("9223372036854775807"), &i));
    assert_true(i == INT64_MAX);
    assert_false(flue_parse_i64(FLUE_BYTES("9223372036854775808"), &i));
    assert_false(flue_parse_i64(FLUE_BYTES("-"), &i));
    assert_false(flue_parse_i64(FLUE_BYTES("--1"), &i));
}

static void hexes(void **state)
{
    uint8_t out[3] = {0};
    char text[6];

    flue_hex(flue_bytes("\x00\xab\xff", 3), text);
    assert_memory_equal(text, "00abff", 6);
    assert_true(flue_unhex(FLUE_BYTES("00ABfF"), out, 3));
    assert_memory_equal(out, "\x00\xab\xff", 3);
    assert_false(flue_unhex(FLUE_BYTES("00ABf"), out, 3));
    assert_false(flue_unhex(FLUE_BYTES("00ABf"), out, 2));
    assert_false(flue_unhex(FLUE_BYTES("00ABfg"), out, 3));
    assert_false(flue_unhex(FLUE_BYTES("00ABff00"), out, 3));
}

/* Decodes the slow way, by code point, and checks what the table says of it. */
static bool slow_valid(const uint8_t *p, size_t size)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

    for (size_t i = 0; i < size;) {
        unsigned n = p[i] < 0x80       ? 1
                     : p[i] >> 5 == 6  ? 2
                     : p[i] >> 4 == 14 ? 3
                     : p[i] >> 3 == 30 ? 4
                                       : 0;
        uint32_t point = n == 1 ? p[i] : p[i] & (0xFFu >> (n + 1));

        if (n == 0 || size - i < n)
            return false;
        for (unsigned k = 1; k < n; k++) {
            if (p[i + k] >> 6 != 2)
                return false;
            point = point << 6 | (p[i + k] & 0x3F);
        }
        if (point < least[n] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
            return false;
        i += n;
    }
    return true;
}

/* Every lead byte with every second byte and edges of the others, at every place around the widths
 * of the fast paths. */
static void utf8_every_pair(void **state)
{
    static const uint8_t tails[] = {0x7F, 0x80, 0xBF, 0xC0};
    static const size_t places[] = {0, 1, 7, 8, 15, 16, 31, 33, 127, 128, 200};
    uint8_t text[260];

    for (size_t place = 0; place < sizeof places / sizeof *places; place++) {
        memset(text, 'a', sizeof text);
        for (unsigned a = 0x78; a < 256; a++)
            for (unsigned b = 0; b < 256; b += b < 0x78 || b > 0xC4 ? 9 : 1)
                for (unsigned t = 0; t < 16; t++) {
                    uint8_t *at = text + places[place];
                    size_t sizes[] = {places[place] + 1, places[place] + 2, places[place] + 3,
                                      places[place] + 4, places[place] + 50};

                    at[0] = (uint8_t)a;
                    at[1] = (uint8_t)b;
                    at[2] = tails[t / 4];
                    at[3] = tails[t % 4];
                    for (unsigned s = 0; s < 5; s++)
                        if (flue_utf8_valid(flue_bytes(text, sizes[s])) !=
                            slow_valid(text, sizes[s]))
                            fail_msg("place %zu: %02x %02x %02x %02x size %zu", places[place], a, b,
                                     at[2], at[3], sizes[s]);
                }
    }
    assert_true(flue_utf8_valid(flue_bytes(NULL, 0)));
}

/* One bad byte at every place of every short size: no width of load overlooks it. */
static void utf8_every_place(void **state)
{
    uint8_t text[300];

    memset(text, 'a', sizeof text);
    for (size_t size = 0; size < sizeof text; size++) {
        assert_true(flue_utf8_valid(flue_bytes(text, size)));
        for (size_t at = 0; at < size; at++) {
            text[at] = 0x80;
            assert_false(flue_utf8_valid(flue_bytes(text, size)));
            text[at] = 'a';
        }
    }
}

static void repair_is(const char *in, size_t size, const char *expected)
{
    uint8_t out[256];

    assert_int_equal(flue_utf8_repaired_size(flue_bytes(in, size)), strlen(expected));
    flue_utf8_repair(flue_bytes(in, size), out);
    assert_memory_equal(out, expected, strlen(expected));
}

#define BAD "\xEF\xBF\xBD"
static void utf8_repairs_maximal_parts(void **state)
{
    repair_is("plain", 5, "plain");
    repair_is("\xE2\x82\xAC", 3, "\xE2\x82\xAC");
    repair_is("a\xE2\x82", 3, "a" BAD); /* cut in the middle of a character */
    repair_is("\xE2\x82z", 3, BAD "z");
    repair_is("\xC0\xAF", 2, BAD BAD);
    repair_is("\xED\xA0\x80", 3, BAD BAD BAD);
    repair_is("\xF4\x91\x92\x93\xFF"
              "A\x80\xBF"
              "B",
              9, BAD BAD BAD BAD BAD "A" BAD BAD "B"); /* Unicode 15, table 3-9 and 3-10 */
    repair_is("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
              "A",
              9, BAD BAD BAD BAD "A"); /* table 3-11 */
    repair_is("", 0, "");
}

static void printable(void **state)
{
    char out[12];

    assert_string_equal(flue_printable(FLUE_BYTES("ab c"), out, sizeof out), "ab c");
    assert_string_equal(flue_printable(FLUE_BYTES("a\n\x1b\\"), out, sizeof out), "a\\x0a...");
    assert_string_equal(flue_printable(FLUE_BYTES("a\n\x1b"), out, sizeof out), "a\\x0a\\x1b");
    assert_string_equal(flue_printable(FLUE_BYTES("12345678901"), out, sizeof out), "12345678901");
    assert_string_equal(flue_printable(FLUE_BYTES("123456789012"), out, sizeof out), "12345678...");
    assert_string_equal(flue_printable(FLUE_BYTES("abc"), out, 3), "..");
    assert_string_equal(flue_printable(FLUE_BYTES("abc"), out, 1), "");
    assert_string_equal(flue_printable(flue_bytes(NULL, 0), out, 1), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares),
        cmocka_unit_test(parses_numbers),
        cmocka_unit_test(hexes),
        cmocka_unit_test(utf8_every_pair),
        cmocka_unit_test(utf8_every_place),
        cmocka_unit_test(utf8_repairs_maximal_parts),
        cmocka_unit_test(printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
