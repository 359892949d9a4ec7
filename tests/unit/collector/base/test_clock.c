/* Durations as Go reads and prints them, times, and clocks that a test can move. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "collector/base/bytes.h"
#include "collector/base/clock.h"

static void duration(const char *text, int64_t ns, const char *canonical)
{
    int64_t out = 1;
    char back[32];

    assert_true(flue_parse_duration(flue_bytes_of(text), &out));
    assert_true(out == ns);
    flue_format_duration(out, back);
    assert_string_equal(back, canonical);
}

static void durations(void **state)
{
    static const char *const wrong[] = {
        "",    "1",   "s",     "1x",   "-",    ".s",       "1.",
        "1 s", "1s ", "1s-1s", "1e3s", "+-1s", "3000000h", "9223372036854775808ns",
        "1d"};
    int64_t out;

    duration("0", 0, "0s");
    duration("-0", 0, "0s");
    duration("300ms", 300000000, "300ms");
    duration("1.5h", 5400000000000, "1h30m0s");
    duration("1h30m", 5400000000000, "1h30m0s");
    duration("90s", 90000000000, "1m30s");
    duration("1.5us", 1500, "1.5\xC2\xB5s");
    duration("1\xC2\xB5s", 1000, "1\xC2\xB5s");
    duration("1\xCE\xBCs", 1000, "1\xC2\xB5s");
    duration(".5s", 500000000, "500ms");
    duration("1.s", 1000000000, "1s");
    duration("-2m0.25s", -120250000000, "-2m0.25s");
    duration("+5s", 5000000000, "5s");
    duration("0.3333333333333333333h", 1200000000000 - 1, "19m59.999999999s");
    duration("9223372036854775807ns", INT64_MAX, "2562047h47m16.854775807s");
    duration("-9223372036854775808ns", INT64_MIN, "-2562047h47m16.854775808s");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (flue_parse_duration(flue_bytes_of(wrong[i]), &out))
            fail_msg("'%s' was taken", wrong[i]);
}

static void times(void **state)
{
    char out[25];
    uint64_t before = flue_monotonic_ns(), wall = flue_wall_ns();

    flue_format_time(UINT64_C(1795248000123456789), out);
    assert_string_equal(out, "2026-11-21T08:00:00.123Z");
    flue_format_time(0, out);
    assert_string_equal(out, "1970-01-01T00:00:00.000Z");
    flue_clock_move(3600000000000);
    assert_true(flue_monotonic_ns() - before >= 3600000000000u);
    assert_true(flue_wall_ns() - wall >= 3600000000000u);
    flue_clock_move(-3600000000000);
    flue_clock_move_wall(-3600000000000);
    assert_true(flue_monotonic_ns() - before < 3600000000000u);
    assert_true(flue_wall_ns() < wall);
    flue_clock_move_wall(3600000000000);
}

static void random_numbers(void **state)
{
    uint64_t all = 0, any = UINT64_MAX;

    for (unsigned i = 0; i < 200; i++) {
        uint64_t r = flue_random_u64();

        all |= r;
        any &= r;
    }
    assert_true(all == UINT64_MAX && any == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(durations), cmocka_unit_test(times),
                                       cmocka_unit_test(random_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
