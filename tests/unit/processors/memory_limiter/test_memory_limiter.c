/* Refuses above the soft limit, by the pipelines' bytes or the resident size, and lets pass below.
 */
#include "tests/unit/processors/resource/actions_test.h"
#include "collector/base/clock.h"
#include <time.h>

extern const struct flue_component flue_processor_memory_limiter;

static void by_the_bytes_of_pipelines(void **state)
{
    struct bench bench;
    bench_start(&bench, &flue_processor_memory_limiter,
                "{check_interval: 2s, limit_mib: 900, spike_limit_mib: 100, "
                "min_gc_interval_when_soft_limited: 5s}");
    assert_int_equal(bench.budget.hard, INT64_C(900) << 20);
    flue_account_charge_always(&bench.account, (size_t)790 << 20);
    bench_push(&bench, otlp_with(&bench.account, ATTRIBUTE("a", "b")), NULL);
    assert_int_equal(bench.outcome.error.code, FLUE_OK);
    assert_string_equal(bench.attributes, "a=b\n");
    flue_account_charge_always(&bench.account, (size_t)11 << 20);
    bench_push(&bench, otlp_with(&bench.account, ATTRIBUTE("a", "b")), NULL);
    assert_int_equal(bench.outcome.error.code, FLUE_OVERLOADED);
    assert_int_equal(bench.outcome.error.retry_after_ms, 2000);
    assert_non_null(strstr(bench.outcome.error.text, "800 MiB"));
    assert_string_equal(bench.attributes, "");
    flue_account_release(&bench.account, (size_t)801 << 20);
    bench_push(&bench, otlp_with(&bench.account, ATTRIBUTE("a", "b")), NULL);
    assert_int_equal(bench.outcome.error.code, FLUE_OK);
    bench_stop(&bench);
}

static void by_the_resident_size(void **state)
{
    struct bench bench;
    struct flue_error error;
    uint64_t deadline = flue_monotonic_ns() + UINT64_C(20000000000);
    /* This process is surely above 1 MiB. */
    bench_start(&bench, &flue_processor_memory_limiter,
                "{check_interval: 10ms, limit_mib: 2, spike_limit_mib: 1}");
    assert_int_equal(flue_loops_run(bench.loops, &error), FLUE_OK);
    flue_loops_stop(bench.loops);
    bench_push(&bench, otlp_with(NULL, ""), NULL);
    assert_int_equal(bench.outcome.error.code, FLUE_OVERLOADED);
    assert_non_null(strstr(bench.outcome.error.text, "resident"));
    assert_true(flue_monotonic_ns() < deadline);
    bench_stop(&bench);
}

static void a_percentage_of_what_there_is(void **state)
{
    struct bench bench;
    bench_start(&bench, &flue_processor_memory_limiter,
                "{check_interval: 1s, limit_percentage: 1, spike_limit_percentage: 0}");
    assert_true(bench.budget.hard > 0);
    assert_true(bench.budget.hard <= INT64_C(1) << 30);
    bench_stop(&bench);
}

static void mistakes_are_named(void **state)
{
    const struct flue_component *c = &flue_processor_memory_limiter;
    assert_true(mistakes_of(c, "{limit_mib: 10}", "greater than zero") > 0);
    assert_true(mistakes_of(c, "{check_interval: 1s}", "limit_mib") > 0);
    assert_true(mistakes_of(c, "{check_interval: 1s, limit_mib: 10, spike_limit_mib: 10}",
                            "smaller than limit_mib") > 0);
    assert_true(mistakes_of(c, "{check_interval: 1s, limit_percentage: 101}", "100") > 0);
    assert_int_equal(mistakes_of(c, "{check_interval: 1s, limit_mib: 10}", NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_the_bytes_of_pipelines),
        cmocka_unit_test(by_the_resident_size),
        cmocka_unit_test(a_percentage_of_what_there_is),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
