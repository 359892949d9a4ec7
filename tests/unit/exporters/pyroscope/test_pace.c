/* Pacing: bytes against time, what a refusal says, and how a rate comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include "exporters/pyroscope/pace.h"

#define S 1000000000ull

static struct flue_pace *make(int64_t rate, int64_t burst, bool learn)
{
    struct flue_pacing_config config = {rate, burst, learn};
    struct flue_pace *pace = flue_pace_new(&config);
    assert_non_null(pace);
    return pace;
}

static void burst_then_rate(void **state)
{
    struct flue_pace *pace = make(1000, 2000, false);
    struct flue_pace_bucket *b = flue_pace_of(pace, 7);
    uint64_t now = 100 * S, sent = 0;
    assert_ptr_equal(b, flue_pace_of(pace, 7));
    assert_ptr_not_equal(b, flue_pace_of(pace, 8));
    assert_int_equal(flue_pace_take(pace, b, 1999, now), 0);
    assert_int_equal(flue_pace_take(pace, b, 1, now), 0);
    assert_int_equal(flue_pace_take(pace, b, 1, now), S / 1000);
    assert_int_equal(flue_pace_take(pace, flue_pace_of(pace, 8), 2000, now), 0);
    for (int i = 0; i < 100; i++, now += S / 10)
        while (flue_pace_take(pace, b, 10, now) == 0)
            sent += 10;
    assert_in_range(sent, 9890, 9910); /* what ten seconds hold, less the first step's */
    flue_pace_free(pace);
}

static void more_than_the_burst_goes_when_it_is_full(void **state)
{
    struct flue_pace *pace = make(1000, 2000, false);
    struct flue_pace_bucket *b = flue_pace_of(pace, 7);
    uint64_t now = 100 * S;
    assert_int_equal(flue_pace_take(pace, b, 5000, now), 0);
    assert_int_equal(flue_pace_take(pace, b, 5000, now + 4 * S), S);
    assert_int_equal(flue_pace_take(pace, b, 5000, now + 5 * S), 0);
    flue_pace_free(pace);
}

static void what_refusals_say(void **state)
{
    static const struct {
        const char *text;
        int64_t rate;
    } cases[] = {
        {"the server answered 429 resource_exhausted: push rate limit (4.0 MiB) exceeded while "
         "adding 3.1 MiB",
         4194304},
        {"push rate limit (512 KiB) exceeded", 524288},
        {"push rate limit (1.5 MB) exceeded", 1500000},
        {"push rate limit (", 0},
        {"push rate limit (x MiB) exceeded", 0},
        {"push rate limit (-1 MiB) exceeded", 0},
        {"push rate limit (4.0 furlongs)", 0},
        {"told to fail", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(flue_pace_said(flue_bytes_of(cases[i].text)), cases[i].rate);
}

static void a_rate_is_learnt_and_grows_back(void **state)
{
    struct flue_pace *pace = make(0, 2000000, true);
    struct flue_pace_bucket *b = flue_pace_of(pace, 7);
    uint64_t now = 100 * S;
    assert_int_equal(flue_pace_take(pace, b, 1u << 30, now), 0); /* none yet */
    flue_pace_refused(pace, b, FLUE_BYTES("push rate limit (4.0 MiB) exceeded"), now);
    assert_int_equal(b->rate, 4194304);
    assert_true(flue_pace_take(pace, b, 100000, now) > 0);
    flue_pace_refused(pace, b, FLUE_BYTES("push rate limit (4.0 MiB) exceeded"), now + S / 2);
    assert_int_equal(b->rate, 4194304); /* an answer to what was sent before */
    flue_pace_refused(pace, b, FLUE_BYTES("push rate limit (4.0 MiB) exceeded"), now + 2 * S);
    assert_int_equal(b->rate, 4194304 * 3 / 4);
    for (int i = 0; i < 100; i++)
        flue_pace_take(pace, b, 1, now + (uint64_t)(20 + 11 * i) * S);
    assert_int_equal(b->rate, 4194304); /* and no further than was said */
    flue_pace_free(pace);
}

static void without_a_number_half_of_what_was_sent(void **state)
{
    struct flue_pace *pace = make(0, 2000000, true);
    struct flue_pace_bucket *b = flue_pace_of(pace, 7);
    uint64_t now = 100 * S;
    for (int i = 0; i < 20; i++)
        assert_int_equal(flue_pace_take(pace, b, 100000, now + (uint64_t)i * S / 10), 0);
    flue_pace_refused(pace, b, FLUE_BYTES("too many"), now + 2 * S);
    assert_in_range(b->rate, 450000, 550000);
    flue_pace_free(pace);
}

static void what_is_configured_bounds_what_is_learnt(void **state)
{
    struct flue_pace *pace = make(1000000, 2000000, true);
    struct flue_pace_bucket *b = flue_pace_of(pace, 7);
    flue_pace_refused(pace, b, FLUE_BYTES("push rate limit (4.0 MiB) exceeded"), 100 * S);
    assert_int_equal(b->rate, 750000);
    for (int i = 0; i < 100; i++)
        flue_pace_take(pace, b, 1, (uint64_t)(120 + 11 * i) * S);
    assert_int_equal(b->rate, 1000000);
    flue_pace_free(pace);
}

static void very_many_tenants_share_one(void **state)
{
    struct flue_pace *pace = make(1000, 2000, false);
    size_t shared = 0;
    for (uint64_t i = 1; i <= 3 * FLUE_PACE_TENANTS; i++)
        shared += flue_pace_of(pace, i * 0x9e3779b97f4a7c15u) == &pace->others;
    assert_in_range(shared, 2 * FLUE_PACE_TENANTS, 3 * FLUE_PACE_TENANTS - 1);
    flue_pace_free(pace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst_then_rate),
        cmocka_unit_test(more_than_the_burst_goes_when_it_is_full),
        cmocka_unit_test(what_refusals_say),
        cmocka_unit_test(a_rate_is_learnt_and_grows_back),
        cmocka_unit_test(without_a_number_half_of_what_was_sent),
        cmocka_unit_test(what_is_configured_bounds_what_is_learnt),
        cmocka_unit_test(very_many_tenants_share_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
