/* The guard on label values: the limit, the moment from which it holds, its window. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include "collector/base/clock.h"
#include "exporters/pyroscope/guard.h"
#include "exporters/pyroscope/label_cache.h"

#define NAME FLUE_BYTES("pod")

static bool count(struct flue_guard *guard, struct flue_bytes name, int value, uint64_t received)
{
    char text[16];
    snprintf(text, sizeof text, "v%d", value);
    return flue_guard_count(guard, name, flue_bytes_of(text), received);
}

static struct flue_guard *make(int64_t limit, struct flue_metrics *metrics, bool exact)
{
    struct flue_guard_config config = {limit, 3600000000000, FLUE_GUARD_DROP};
    struct flue_guard *guard = flue_guard_new(&config, "pyroscope", metrics, exact);
    assert_non_null(guard);
    return guard;
}

static void holds_above_the_limit(void **state)
{
    struct flue_metrics *metrics = flue_metrics_new("otelcol_");
    struct flue_guard *guard = make(100, metrics, false);
    uint64_t received = flue_wall_ns() - 5;
    uint64_t generation = flue_guard_generation(guard, received);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 100; i++)
            assert_false(count(guard, NAME, i, received)); /* counted once each */
    assert_false(flue_guard_holds(guard, NAME, received));
    assert_int_equal(flue_guard_generation(guard, received), generation);
    /* Two values in 100 fall on one bit now and then (the hash is another in every process), hardly
     * ever four. */
    int passed = 100;
    while (passed < 104 && !count(guard, NAME, passed, received))
        passed++;
    assert_true(passed < 104);
    assert_true(flue_guard_holds(guard, NAME, received));
    assert_false(flue_guard_holds(guard, NAME, received - 1));
    assert_false(flue_guard_holds(guard, FLUE_BYTES("other"), received));
    assert_int_not_equal(flue_guard_generation(guard, received), generation);
    flue_guard_destroy(guard);
    flue_metrics_destroy(metrics);
}

/* What was received before the decision may have been sent: it keeps its labels. */
static void exact_holds_from_the_decision_on(void **state)
{
    struct flue_metrics *metrics = flue_metrics_new("otelcol_");
    struct flue_guard *guard = make(3, metrics, true), *after = make(3, metrics, true);
    uint64_t received = flue_wall_ns() - 5;
    struct flue_guard_span span;
    for (int i = 0; i < 4; i++)
        count(guard, NAME, i, received);
    assert_false(flue_guard_holds(guard, NAME, received));
    assert_true(flue_guard_holds(guard, NAME, flue_wall_ns() + 1));
    assert_true(flue_guard_span_of(guard, NAME, &span));
    assert_true(flue_guard_restore(after, NAME, &span));
    for (int64_t at = -2; at <= 2; at++)
        assert_int_equal(flue_guard_holds(after, NAME, span.from_ns + (uint64_t)at), at >= 0);
    assert_true(flue_guard_holds(after, NAME, span.until_ns - 1));
    assert_false(flue_guard_holds(after, NAME, span.until_ns));
    flue_guard_destroy(guard);
    flue_guard_destroy(after);
    flue_metrics_destroy(metrics);
}

static void a_window_ends(void **state)
{
    struct flue_metrics *metrics = flue_metrics_new("otelcol_");
    struct flue_guard *guard = make(3, metrics, false);
    for (int i = 0; i < 4; i++)
        count(guard, NAME, i, flue_wall_ns());
    assert_true(flue_guard_holds(guard, NAME, flue_wall_ns()));
    flue_clock_move(3601000000000);
    assert_false(flue_guard_holds(guard, NAME, flue_wall_ns()));
    for (int i = 10; i < 13; i++)
        assert_false(count(guard, NAME, i, flue_wall_ns()));
    assert_true(count(guard, NAME, 13, flue_wall_ns()));
    flue_clock_move(-3601000000000);
    flue_guard_destroy(guard);
    flue_metrics_destroy(metrics);
}

static void counts_many_to_a_percent(void **state)
{
    struct flue_metrics *metrics = flue_metrics_new("otelcol_");
    struct flue_guard *guard = make(100000, metrics, false);
    int tripped = 0;
    for (int i = 0; i < 110000 && !tripped; i++)
        if (count(guard, NAME, i, flue_wall_ns()))
            tripped = i;
    assert_in_range(tripped, 98000, 102000);
    flue_guard_destroy(guard);
    flue_metrics_destroy(metrics);
}

static void zero_guards_nothing(void **state)
{
    struct flue_metrics *metrics = flue_metrics_new("otelcol_");
    struct flue_guard *guard = make(0, metrics, false);
    for (int i = 0; i < 1000; i++)
        assert_false(count(guard, NAME, i, 1));
    assert_false(flue_guard_active(guard));
    flue_guard_destroy(guard);
    flue_metrics_destroy(metrics);
}

/* ---- labels found again --------------------------------------------------------------------- */

static void key(struct flue_label_cache *cache, const char *name, enum flue_value_type type,
                const char *text, int64_t integer)
{
    struct flue_attribute a = {flue_bytes_of(name), {.type = type, .text = flue_bytes_of(text)}};
    if (type == FLUE_VALUE_INT)
        a.value.integer = integer;
    flue_label_key_begin(cache);
    flue_label_key_attribute(cache, &a);
}

static void labels_are_found_by_what_made_them(void **state)
{
    struct flue_label_cache cache = {0};
    struct flue_pprof_label label = {FLUE_BYTES("a"), FLUE_BYTES("b")};
    struct flue_label_set *set, *again, *other;
    key(&cache, "a", FLUE_VALUE_STRING, "b", 0);
    assert_null(flue_label_cache_find(&cache, 1));
    set = flue_label_cache_put(&cache, 1, &label, 1, 0, 0, FLUE_BYTES("t"));
    again = flue_label_cache_find(&cache, 1);
    assert_ptr_equal(set, again);
    assert_int_equal(set->refs, 3);
    assert_null(flue_label_cache_find(&cache, 2)); /* the guard has decided otherwise */
    key(&cache, "ab", FLUE_VALUE_STRING, "", 0);
    assert_null(flue_label_cache_find(&cache, 1));
    key(&cache, "a", FLUE_VALUE_INT, NULL, 'b');
    assert_null(flue_label_cache_find(&cache, 1));
    other = flue_label_cache_put(&cache, 1, &label, 1, 0, 0, FLUE_BYTES("u"));
    assert_false(flue_label_set_equal(set, other)); /* another tenant */
    assert_true(set->hash != other->hash);
    flue_label_set_unref(other);
    flue_label_set_unref(again);
    flue_label_cache_clear(&cache);
    assert_int_equal(set->refs, 1);
    flue_label_set_unref(set);
}

static void the_cache_stays_in_its_bound(void **state)
{
    struct flue_label_cache cache = {0};
    char text[3000], value[2000];
    struct flue_pprof_label label = {FLUE_BYTES("a"), flue_bytes(value, sizeof value)};
    memset(text, 'x', sizeof text - 1);
    memset(value, 'y', sizeof value);
    text[sizeof text - 1] = 0;
    for (int64_t i = 0; i < 5000; i++) {
        snprintf(text, 10, "%08d", (int)i);
        text[8] = 'x';
        key(&cache, "a", FLUE_VALUE_STRING, text, 0);
        flue_label_set_unref(flue_label_cache_put(&cache, 1, &label, 1, 0, 0, flue_bytes("", 0)));
        assert_true(cache.bytes <= FLUE_LABEL_CACHE_BYTES);
    }
    assert_true(cache.bytes > FLUE_LABEL_CACHE_BYTES / 2);
    flue_label_cache_clear(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_above_the_limit),
        cmocka_unit_test(exact_holds_from_the_decision_on),
        cmocka_unit_test(a_window_ends),
        cmocka_unit_test(counts_many_to_a_percent),
        cmocka_unit_test(zero_guards_nothing),
        cmocka_unit_test(labels_are_found_by_what_made_them),
        cmocka_unit_test(the_cache_stays_in_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
