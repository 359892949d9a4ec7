/* Process metrics, and the server of the metrics page. The page itself: service/test_service.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/telemetry/page.h"
#include "collector/telemetry/process.h"

static double value_of(const char *page, const char *name)
{
    char line[128];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(page, line);
    if (!at)
        fail_msg("%s is not in %s", name, page);
    return strtod(at + strlen(line), NULL);
}

static void process(void **state)
{
    struct flue_metrics *metrics = flue_metrics_new("p_");
    struct flue_buffer page;
    flue_process_metrics_add(metrics);
    flue_buffer_init(&page, 1u << 20);
    flue_metrics_print(metrics, &page);
    double resident = value_of(page.data, "p_process_memory_rss");
    double cpu = value_of(page.data, "p_process_cpu_seconds_total");
    double uptime = value_of(page.data, "p_process_uptime_total");
    assert_true(resident > 100e3 && resident < 100e9);
    assert_true(cpu >= 0 && cpu < 3600);
    assert_true(uptime >= 0 && uptime < 3600);
    /* Both clocks go on. */
    double later = cpu;
    while (later <= cpu) { /* printing takes time enough */
        flue_buffer_clear(&page);
        flue_metrics_print(metrics, &page);
        later = value_of(page.data, "p_process_cpu_seconds_total");
    }
    assert_true(value_of(page.data, "p_process_uptime_total") > uptime);
    flue_buffer_destroy(&page);
    flue_metrics_destroy(metrics);
}

static void plain_server(void **state)
{
    struct flue_arena arena;
    struct flue_error error = {0};
    flue_arena_init(&arena, 1u << 20, 0);
    const struct flue_server_config *config = flue_plain_server(&arena, "localhost:8888", &error);
    assert_non_null(config);
    assert_string_equal(config->endpoint, "localhost:8888");
    assert_true(config->keep_alives_enabled);
    assert_true(config->read_header_timeout > 0);
    assert_null(config->tls);
    assert_null(flue_plain_server(&arena, "localhost", &error));
    assert_int_equal(error.code, FLUE_INVALID);
    assert_non_null(strstr(error.text, "endpoint: \"localhost\" has no port"));
    flue_arena_destroy(&arena);
    flue_arena_init(&arena, 64, 0);
    assert_null(flue_plain_server(&arena, "localhost:8888", &error));
    assert_int_equal(error.code, FLUE_NO_MEMORY);
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(process), cmocka_unit_test(plain_server)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
