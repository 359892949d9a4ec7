/* Names and types of profiles: the tables of docs/conversion.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "proto/convert/profile_name.h"

static struct flue_profile_type type(const char *text, const char *unit)
{
    return (struct flue_profile_type){flue_bytes_of(text), flue_bytes_of(unit)};
}

static void names(void **state)
{
    static const struct {
        const char *first, *second, *period, *name;
    } cases[] = {
        {"samples", "cpu", "cpu", "process_cpu"},
        {"samples", "", "cpu", "process_cpu"},
        {"itimer", "", "itimer", "process_cpu"},
        {"cpu-time", "", "", "process_cpu"},
        {"samples", "wall", "wall", "wall"},
        {"wall-time", "", "", "wall"},
        {"alloc_objects", "alloc_space", "space", "memory"},
        {"inuse_objects", "inuse_space", "inuse_space", "memory"},
        {"alloc-space", "", "", "memory"},
        {"object_sampler", "", "object_sampler", "memory"},
        {"contentions", "delay", "contentions", "mutex"},
        {"contentions", "block_delay", "contentions", "block"},
        {"lock_count", "", "", "mutex"},
        {"goroutine", "", "goroutine", "goroutine"},
        {"off_cpu", "", "", "off_cpu"},
        {"off-cpu", "", "", "off_cpu"},
        {"threadcreate", "", "threadcreate", "threadcreate"},
        {"events", "", "", "events"},
        {"x", "", "cpu-cycles", "cpu_cycles"},
        {"9 lives", "", "", "_9_lives"},
        {"", "", "", "profile"},
    };
    struct flue_arena arena;
    (void)state;
    flue_arena_init(&arena, 4096, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct flue_profile_type types[2] = {type(cases[i].first, "count"),
                                             type(cases[i].second, "count")};
        struct flue_bytes name =
            flue_profile_name(types, cases[i].second[0] ? 2 : 1, type(cases[i].period, ""), &arena);
        if (!flue_bytes_is(name, cases[i].name))
            fail_msg("%s %s per %s: got %.*s, wanted %s", cases[i].first, cases[i].second,
                     cases[i].period, FLUE_PRI(name), cases[i].name);
    }
    assert_true(flue_bytes_is(flue_profile_name(NULL, 0, type("", ""), &arena), "profile"));
    flue_arena_destroy(&arena);
}

static void well_known_types(void **state)
{
    static const struct {
        const char *type, *unit, *period, *period_unit;
        int64_t value;
        const char *to, *to_unit, *to_period, *to_period_unit;
        bool times;
    } cases[] = {
        {"samples", "count", "cpu", "nanoseconds", 50, "cpu", "nanoseconds", "cpu", "nanoseconds",
         true},
        {"samples", "count", "cpu", "nanoseconds", 0, "samples", "count", "cpu", "nanoseconds",
         false},
        {"itimer", "ns", "itimer", "ns", 50, "cpu", "nanoseconds", "cpu", "nanoseconds", false},
        {"itimer", "count", "itimer", "ns", 50, "cpu", "nanoseconds", "cpu", "nanoseconds", true},
        {"wall", "count", "wall", "ns", 50, "wall", "nanoseconds", "wall", "nanoseconds", true},
        {"cpu", "nanoseconds", "", "", 0, "cpu", "nanoseconds", "cpu", "nanoseconds", false},
        {"object_sampler", "count", "object_sampler", "bytes", 512, "alloc_space", "bytes", "space",
         "bytes", true},
        {"inuse_space", "bytes", "", "", 0, "inuse_space", "bytes", "space", "bytes", false},
        {"contentions", "count", "", "", 0, "contentions", "count", "contentions", "count", false},
        {"off_cpu", "nanoseconds", "", "", 0, "off_cpu", "nanoseconds", "", "", false},
        {"cycles", "count", "cycles", "count", 9, "cycles", "count", "cycles", "count", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct flue_profile_type t = type(cases[i].type, cases[i].unit);
        struct flue_profile_type p = type(cases[i].period, cases[i].period_unit);
        bool times;
        flue_profile_types_known(&t, 1, &times, &p, cases[i].value);
        if (!flue_bytes_is(t.type, cases[i].to) || !flue_bytes_is(t.unit, cases[i].to_unit) ||
            !flue_bytes_is(p.type, cases[i].to_period) ||
            !flue_bytes_is(p.unit, cases[i].to_period_unit) || times != cases[i].times)
            fail_msg("case %zu: got %.*s/%.*s per %.*s/%.*s %d", i, FLUE_PRI(t.type),
                     FLUE_PRI(t.unit), FLUE_PRI(p.type), FLUE_PRI(p.unit), times);
    }
}

/* With the time beside it, the count stays one: no two types become the same. */
static void counts_beside_times_stay(void **state)
{
    struct flue_profile_type types[2] = {type("samples", "count"), type("cpu", "nanoseconds")};
    struct flue_profile_type period = type("cpu", "nanoseconds");
    bool times[2];
    (void)state;
    flue_profile_types_known(types, 2, times, &period, 10000000);
    assert_true(flue_bytes_is(types[0].type, "samples") && flue_bytes_is(types[1].type, "cpu"));
    assert_false(times[0] || times[1]);
    struct flue_profile_type both[2] = {type("samples", "count"), type("itimer", "count")};
    flue_profile_types_known(both, 2, times, &period, 10000000);
    assert_true(times[0] && !times[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(well_known_types),
        cmocka_unit_test(counts_beside_times_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
