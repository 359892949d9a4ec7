/* Reading a configuration without memory: a mistake is told, or the whole is refused. */
#include "collector/base/buffer.h"
#include "collector/service/configuration.h"
#include "config/print.h"
#include "tests/fault/fault.h"

static char *source;

static void load(void *arg)
{
    const char *const configs[] = {source};
    const struct flue_sources sources = {.configs = configs, .config_count = 1};
    struct flue_configuration *configuration = NULL;
    struct flue_error error = {0};
    struct flue_buffer text;

    if (!fault_ok(flue_configuration_load(&sources, flue_components, &configuration, &error),
                  &error)) {
        assert_null(configuration);
        return;
    }
    bool complete = configuration->check.mistakes == 0 && configuration->root;
    if (!complete && !fault_fired) {
        flue_buffer_init(&text, 1u << 20);
        flue_check_print(&configuration->check, &text);
        fail_msg("%s", text.data);
    }
    if (complete) { /* nothing is missing that was not told */
        assert_int_equal(configuration->pipeline_count, 1);
        assert_int_equal(configuration->part_count, 3);
        for (size_t i = 0; i < configuration->part_count; i++)
            assert_non_null(configuration->parts[i].config);
    }
    flue_buffer_init(&text, 1u << 20);
    flue_check_print(&configuration->check, &text);
    if (configuration->root)
        flue_node_print_yaml(configuration->root, true, &text);
    flue_buffer_destroy(&text);
    flue_configuration_destroy(configuration);
}

static void loading(void **state)
{
    fault_sweep(load, NULL, 10);
}

static int begin(void **state)
{
    static const char yaml[] =
        "yaml:receivers: {otlp: {protocols: {http: {endpoint: '127.0.0.1:0',\n"
        "  cors: {allowed_origins: [a, b]}}}}}\n"
        "processors:\n"
        "  resource:\n"
        "    attributes: &list\n"
        "      - {key: a, value: '${env:FLUE_NOT_SET:-x}', action: insert}\n"
        "exporters:\n"
        "  otlp_http: {endpoint: 'http://127.0.0.1:1', headers: {x: y}, sending_queue: "
        "{queue_size: 5}}\n"
        "service:\n"
        "  pipelines:\n"
        "    profiles: {receivers: [otlp], processors: [resource], exporters: [otlp_http]}\n";
    source = strdup(yaml);
    return source ? 0 : 1;
}
static int end(void **state)
{
    free(source);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(loading)};
    return cmocka_run_group_tests(tests, begin, end);
}
