/* The extension: its keys, its mistakes, and that nothing is touched before start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "collector/base/log.h"
#include "collector/component.h"
#include "collector/storage/storage.h"
#include "config/bind.h"
#include "config/check.h"

extern const struct flue_component flue_extension_file_storage;
static const struct flue_component *const component = &flue_extension_file_storage;
static struct flue_arena arena;
static struct flue_check check;

static const void *bound(const char *yaml)
{
    flue_arena_init(&arena, 0, 0);
    flue_check_init(&check, &arena);
    const void *config = flue_bind_yaml(&check, yaml, component->fields, component->config_size);
    if (config)
        component->check(config, &check);
    return config;
}

static void mistakes_are_said(void **state)
{
    static const char *const wrong[][2] = {
        {"{directory: ''}", "name the folder"},
        {"{directory: /a, directory_permissions: '0999'}", "no octal mode"},
        {"{directory: /a, directory_permissions: '01777'}", "no octal mode"},
        {"{directory: /a, directory_permissions: ''}", "no octal mode"},
        {"{directory: /a, create_directory: true, directory_permissions: '0550'}", "must be 7"},
        {"{directory: /a, fsync: false}", "a power cut loses"},
        {"{directory: /a, timeout: -1s}", ""},
        {"{directory: /a, compaction: {on_strat: true}}", "on_start"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        bound(wrong[i][0]);
        assert_int_equal(check.count, 1);
        assert_non_null(strstr(check.items[0].text, wrong[i][1]));
        flue_arena_destroy(&arena);
    }
    assert_non_null(bound("{directory: /a, fsync: true, recreate: true, timeout: 5s, compaction: "
                         "{on_start: true, directory: /tmp, on_rebound: true}}"));
    assert_int_equal(check.count, 0);
    flue_arena_destroy(&arena);
}

static void create_touches_nothing_and_start_opens(void **state)
{
    char path[] = "/tmp/flue-file-storage-XXXXXX", yaml[200], file[100];
    struct flue_error error;
    struct flue_loops *loops;
    void *instance, *second;
    flue_log_configure(FLUE_ERROR + 1, false, 2);
    assert_non_null(mkdtemp(path));
    snprintf(yaml, sizeof yaml, "{directory: %s/log, create_directory: true}", path);
    struct flue_create create = {.id = "file_storage/x", .config = bound(yaml)};
    assert_int_equal(flue_loops_new(1, &loops, &error), FLUE_OK);
    create.loops = loops;
    create.metrics = flue_metrics_new("otelcol_");
    assert_int_equal(component->create(&create, &instance, &error), FLUE_OK);
    assert_string_equal(flue_storage_id(instance), "file_storage/x");
    snprintf(file, sizeof file, "%s/log", path);
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(component->start(instance, &error), FLUE_OK);
    assert_int_equal(component->start(instance, &error), FLUE_OK); /* an exporter was first */
    assert_int_equal(access(file, F_OK), 0);
    /* What flue validate does beside it. */
    assert_int_equal(component->create(&create, &second, &error), FLUE_OK);
    component->destroy(second);
    component->destroy(instance);
    const char *const left[] = {"/log/lock", "/log/finished", "/log", ""};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        snprintf(file, sizeof file, "%s%s", path, left[i]);
        assert_int_equal(remove(file), 0);
    }
    flue_loops_destroy(loops);
    flue_metrics_destroy(create.metrics);
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_said),
        cmocka_unit_test(create_touches_nothing_and_start_opens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
