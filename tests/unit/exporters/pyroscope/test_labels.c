/* Labels of a series: naming, limits and their order, and times that no series uses twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include "exporters/pyroscope/labels.h"
#include "exporters/pyroscope/moments.h"

static const char *const drop[] = {"process.pid"};
static const char *const priority[] = {"cdn_region", "k8s_pod_name"};
static const struct flue_map_entry mapping[] = {{"k8s.namespace.name", "namespace"},
                                                {"secret", ""}};
static const struct flue_labels_config config = {
    .mapping = {mapping, 2}, .drop = {(void *)drop, 1}, .priority = {(void *)priority, 2}};

static const struct flue_label_limits limits = {30, 1024, 2048};

static void add(struct flue_series_labels *labels, struct flue_arena *arena, const char *key,
                const char *value)
{
    struct flue_attribute attribute = {flue_bytes_of(key),
                                       {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(value)}};
    assert_true(flue_labels_add_attribute(labels, &config, arena, &attribute));
}

static const char *get(const struct flue_series_labels *labels, const char *name)
{
    static char value[4096];
    for (size_t i = 0; i < labels->count; i++)
        if (flue_bytes_is(labels->items[i].name, name)) {
            snprintf(value, sizeof value, "%.*s", FLUE_PRI(labels->items[i].value));
            return value;
        }
    return NULL;
}

static void names_and_drops(void **state)
{
    struct flue_arena arena;
    struct flue_series_labels labels = {0};
    flue_arena_init(&arena, 1 << 20, 0);
    add(&labels, &arena, "service.name", "encoder");
    add(&labels, &arena, "cdn.region", "eu-west");
    add(&labels, &arena, "process.pid", "12");
    add(&labels, &arena, "k8s.namespace.name", "live");
    add(&labels, &arena, "secret", "x");
    add(&labels, &arena, "empty", "");
    add(&labels, &arena, "cdn.region", "second");
    assert_true(flue_labels_finish(&labels, &config, &limits, &arena));
    assert_int_equal(labels.count, 3);
    assert_string_equal(get(&labels, "service_name"), "encoder");
    assert_string_equal(get(&labels, "cdn_region"), "eu-west");
    assert_string_equal(get(&labels, "namespace"), "live");
    for (size_t i = 1; i < labels.count; i++)
        assert_true(flue_bytes_compare(labels.items[i - 1].name, labels.items[i].name) < 0);
    assert_int_equal(labels.trimmed, 0);
    flue_arena_destroy(&arena);
}

static void a_service_is_always_named(void **state)
{
    struct flue_arena arena;
    struct flue_series_labels labels = {0}, bare = {0};
    flue_arena_init(&arena, 1 << 20, 0);
    add(&labels, &arena, "process.executable.name", "x264");
    assert_true(flue_labels_finish(&labels, &config, &limits, &arena));
    assert_string_equal(get(&labels, "service_name"), "unknown_service:x264");
    assert_true(flue_labels_finish(&bare, &config, &limits, &arena));
    assert_string_equal(get(&bare, "service_name"), "unknown_service");
    flue_arena_destroy(&arena);
}

static void thirty_at_most_in_order(void **state)
{
    struct flue_arena arena;
    struct flue_series_labels labels = {0};
    char name[16];
    flue_arena_init(&arena, 1 << 20, 0);
    assert_true(
        flue_labels_add(&labels, &arena, FLUE_BYTES("__name__"), FLUE_BYTES("process_cpu")));
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "a%02d", i);
        add(&labels, &arena, flue_arena_string(&arena, flue_bytes_of(name)), "v");
    }
    add(&labels, &arena, "service.name", "encoder");
    add(&labels, &arena, "k8s.pod.name", "pod");
    add(&labels, &arena, "cdn.region", "eu");
    assert_true(flue_labels_finish(&labels, &config, &limits, &arena));
    assert_int_equal(labels.count, 30);
    assert_int_equal(labels.trimmed, 14);
    assert_non_null(get(&labels, "__name__"));
    assert_non_null(get(&labels, "service_name"));
    assert_non_null(get(&labels, "k8s_pod_name"));
    assert_non_null(get(&labels, "cdn_region"));
    assert_non_null(get(&labels, "a25"));
    assert_null(get(&labels, "a26"));
    flue_arena_destroy(&arena);
}

static void long_values_are_cut_between_characters(void **state)
{
    struct flue_arena arena;
    struct flue_series_labels labels = {0};
    char value[3001];
    flue_arena_init(&arena, 1 << 20, 0);
    for (int i = 0; i < 1500; i++)
        memcpy(value + 2 * i, "\xc3\xa9", 2);
    value[3000] = 0;
    add(&labels, &arena, "x", value + 1 - 1);
    add(&labels, &arena, "service.name", "s");
    memmove(value + 1, value, 2999);
    value[0] = 'a';
    add(&labels, &arena, "y", value);
    assert_true(flue_labels_finish(&labels, &config, &limits, &arena));
    assert_int_equal(strlen(get(&labels, "x")), 2048);
    assert_int_equal(strlen(get(&labels, "y")), 2047);
    assert_int_equal(labels.trimmed, 2);
    flue_arena_destroy(&arena);
}

/* Of `names` labels in all, with a limit of 30: how many stay, and how many went. */
static void count_to_the_limit(size_t names, size_t stay, size_t gone)
{
    struct flue_arena arena;
    struct flue_series_labels labels = {0};
    char name[16];
    flue_arena_init(&arena, 1 << 20, 0);
    add(&labels, &arena, "service.name", "s");
    for (size_t i = 1; i < names; i++) {
        snprintf(name, sizeof name, "n%02zu", i);
        add(&labels, &arena, flue_arena_string(&arena, flue_bytes_of(name)), "v");
    }
    assert_true(flue_labels_finish(&labels, &config, &limits, &arena));
    assert_int_equal(labels.count, stay);
    assert_int_equal(labels.trimmed, gone);
    flue_arena_destroy(&arena);
}

static void exactly_thirty_stay(void **state)
{
    count_to_the_limit(29, 29, 0);
    count_to_the_limit(30, 30, 0);
    count_to_the_limit(31, 30, 1);
}

static void cut_at_the_very_limit(void **state)
{
    struct flue_arena arena;
    char text[2050], name[1030];
    flue_arena_init(&arena, 1 << 20, 0);
    for (int over = -1; over <= 1; over++) {
        struct flue_series_labels labels = {0};
        memset(text, 'v', sizeof text);
        text[2048 + over] = 0;
        memset(name, 'n', sizeof name);
        name[1024 + over] = 0;
        add(&labels, &arena, "service.name", "s");
        add(&labels, &arena, "x", text);
        add(&labels, &arena, name, "v");
        assert_true(flue_labels_finish(&labels, &config, &limits, &arena));
        assert_int_equal(labels.trimmed, over > 0 ? 2 : 0);
        assert_int_equal(strlen(get(&labels, "x")), over < 0 ? 2047 : 2048);
        name[over < 0 ? 1023 : 1024] = 0;
        assert_non_null(get(&labels, name));
    }
    flue_arena_destroy(&arena);
}

static void names_that_became_equal_are_one(void **state)
{
    struct flue_arena arena;
    struct flue_series_labels labels = {0};
    char name[1030];
    flue_arena_init(&arena, 1 << 20, 0);
    memset(name, 'n', sizeof name);
    name[1025] = 0;
    name[1024] = 'a';
    add(&labels, &arena, name, "1");
    name[1024] = 'b';
    add(&labels, &arena, name, "2");
    assert_true(flue_labels_finish(&labels, &config, &limits, &arena));
    assert_int_equal(labels.count, 2); /* and service_name */
    flue_arena_destroy(&arena);
}

static void only_what_is_to_be_kept(void **state)
{
    static const char *const keep[] = {"team"};
    struct flue_labels_config only = config;
    struct flue_arena arena;
    struct flue_series_labels labels = {0};
    only.keep = (struct flue_list){(void *)keep, 1};
    flue_arena_init(&arena, 1 << 20, 0);
    static const char *const all[] = {"team", "service.name", "cdn.region"};
    for (int i = 0; i < 3; i++) {
        struct flue_attribute a = {flue_bytes_of(all[i]),
                                   {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("v")}};
        assert_true(flue_labels_add_attribute(&labels, &only, &arena, &a));
    }
    assert_int_equal(labels.count, 2);
    assert_non_null(get(&labels, "team"));
    assert_non_null(get(&labels, "service_name"));
    flue_arena_destroy(&arena);
}

static void a_moment_is_used_once(void **state)
{
    struct flue_moments *moments = calloc(1, sizeof *moments);
    assert_int_equal(flue_moment_take(moments, 1, 1000), 1000);
    assert_int_equal(flue_moment_take(moments, 1, 1000), 1001);
    assert_int_equal(flue_moment_take(moments, 2, 1000), 1000);
    assert_int_equal(flue_moment_take(moments, 1, 1001), 1002);
    /* the hundredth repetition is neither slow nor far away */
    int64_t seen[200];
    for (int i = 0; i < 200; i++) {
        seen[i] = flue_moment_take(moments, 3, 5000);
        assert_in_range(seen[i], 5000, 5000 + 2000000000);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(seen[k], seen[i]);
    }
    free(moments);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_drops),
        cmocka_unit_test(a_service_is_always_named),
        cmocka_unit_test(thirty_at_most_in_order),
        cmocka_unit_test(long_values_are_cut_between_characters),
        cmocka_unit_test(exactly_thirty_stay),
        cmocka_unit_test(cut_at_the_very_limit),
        cmocka_unit_test(names_that_became_equal_are_one),
        cmocka_unit_test(only_what_is_to_be_kept),
        cmocka_unit_test(a_moment_is_used_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
