/* A whole file to a graph: every mistake at once, each with its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/log.h"
#include "collector/service/configuration.h"
#include "config/print.h"

struct thing {
    const char *endpoint;
    const char *token;
};
static const struct flue_field thing_fields[] = {
    FLUE_ENDPOINT(struct thing, endpoint, .def = "localhost:1"), FLUE_SECRET(struct thing, token),
    FLUE_FIELDS_END};

static void thing_check(const void *config, struct flue_check *check)
{
    const struct thing *thing = config;
    if (strcmp(thing->endpoint, "localhost:13") == 0)
        flue_check_fail(check, "endpoint", "13 brings bad luck");
}

#define COMPONENT(k, n, s, ...)                                                                    \
    {                                                                                              \
        .kind = k, .name = n, .signals = s, .stability = FLUE_BETA, .summary = "a test",           \
        .config_size = sizeof(struct thing), .fields = thing_fields, .check = thing_check,         \
        __VA_ARGS__                                                                                \
    }
static const struct flue_component receiver = COMPONENT(FLUE_RECEIVER, "otlp", FLUE_PROFILES);
static const struct flue_component processor = COMPONENT(FLUE_PROCESSOR, "resource", FLUE_PROFILES);
static const struct flue_component tracer = COMPONENT(FLUE_PROCESSOR, "spans", FLUE_TRACES);
static const struct flue_component queued =
    COMPONENT(FLUE_EXPORTER, "otlp_grpc", FLUE_PROFILES, .alias = "otlp",
              .timeout_def = INT64_C(30000000000));
static const struct flue_component direct =
    COMPONENT(FLUE_EXPORTER, "debug", FLUE_PROFILES, .no_queue = true);
static const struct flue_component extension = COMPONENT(FLUE_EXTENSION, "health_check", 0);
static const struct flue_component *const registry[] = {&receiver, &processor, &tracer, &queued,
                                                        &direct,   &extension, NULL};

static char text[16384];

static struct flue_configuration *load(const char *yaml)
{
    struct flue_configuration *c;
    char *source = malloc(strlen(yaml) + 6);
    assert_non_null(source);
    snprintf(source, strlen(yaml) + 6, "yaml:%s", yaml);
    const char *configs[] = {source};
    struct flue_sources sources = {.configs = configs, .config_count = 1};
    assert_int_equal(flue_configuration_load(&sources, registry, &c, NULL), FLUE_OK);
    struct flue_buffer said;
    flue_buffer_init(&said, sizeof text);
    flue_check_print(&c->check, &said);
    /* "--config yaml:" before every line says nothing here. */
    text[0] = 0;
    size_t used = 0;
    for (const char *at = said.data ? said.data : ""; *at;) {
        const char *end = strchr(at, '\n') + 1;
        if (strncmp(at, "--config yaml::", 15) == 0)
            at += 15;
        used += (size_t)snprintf(text + used, sizeof text - used, "%.*s", (int)(end - at), at);
        at = end;
    }
    flue_buffer_destroy(&said);
    free(source);
    return c;
}

static void says(const char *yaml, const char *expected)
{
    struct flue_configuration *c = load(yaml);
    assert_string_equal(text, expected);
    flue_configuration_destroy(c);
}

#define GOOD_TAIL "service: {pipelines: {profiles: {receivers: [otlp], exporters: [debug]}}}\n"

static void good(void **state)
{
    struct flue_configuration *c = load(
        "receivers: {otlp: , otlp/edge: {endpoint: \":9\"}}\n"
        "processors: {resource: {}}\n"
        "exporters: {otlp_grpc: {sending_queue: {queue_size: 7}}, debug: {token: s}}\n"
        "extensions: {health_check: }\n"
        "service:\n"
        "  extensions: [health_check]\n"
        "  telemetry: {metrics: {level: none, readers: []}, logs: {level: warn, sampling: {x: 1}}, "
        "traces: {}, resource: {a: b}}\n"
        "  flue: {drain_timeout: 3s, loops: 2, memory: {limit_mib: 64}, metrics_prefix: flue_}\n"
        "  pipelines:\n"
        "    profiles: {receivers: [otlp], processors: [resource], exporters: [otlp_grpc, debug]}\n"
        "    profiles/team-a: {receivers: [otlp, otlp/edge], processors: [], exporters: "
        "[debug]}\n");
    assert_string_equal(text, "");
    assert_int_equal(c->pipeline_count, 2);
    assert_string_equal(c->pipelines[1].id, "profiles/team-a");
    assert_int_equal(c->pipelines[1].signal, FLUE_PROFILES);
    assert_int_equal(c->pipelines[1].receivers.count, 2);
    assert_ptr_equal(c->pipelines[0].receivers.items[0], c->pipelines[1].receivers.items[0]);
    const struct flue_part *grpc = c->pipelines[0].exporters.items[0];
    assert_string_equal(grpc->id, "otlp_grpc");
    assert_int_equal(grpc->settings->sending_queue.queue_size, 7);
    assert_int_equal(grpc->settings->sending_queue.num_consumers, 10);
    assert_int_equal(grpc->settings->timeout, INT64_C(30000000000));
    assert_null(c->pipelines[0].exporters.items[1]->settings);
    assert_int_equal(c->extensions.count, 1);
    assert_int_equal(c->service.telemetry.metrics.level, FLUE_LEVEL_NONE);
    assert_int_equal(c->service.telemetry.metrics.readers.count, 0);
    assert_int_equal(c->service.telemetry.logs.level, FLUE_WARN);
    assert_int_equal(c->service.flue.loops, 2);
    assert_int_equal(c->service.flue.drain_timeout, INT64_C(3000000000));
    assert_int_equal(c->service.flue.memory.limit_mib, 64);
    assert_string_equal(c->service.flue.metrics_prefix, "flue_");
    /* Secrets by the type of their field. */
    struct flue_buffer out;
    flue_buffer_init(&out, 65536);
    flue_node_print_yaml(c->root, true, &out);
    assert_non_null(strstr(out.data, "token: \"[REDACTED]\"\n"));
    flue_buffer_destroy(&out);
    flue_configuration_destroy(c);
}

static void telemetry_defaults(void **state)
{
    struct flue_configuration *c = load("receivers: {otlp: }\nexporters: {debug: }\n" GOOD_TAIL);
    assert_string_equal(text, "");
    const struct flue_list *readers = &c->service.telemetry.metrics.readers;
    assert_int_equal(readers->count, 1);
    const struct flue_prometheus_settings *page =
        ((const struct flue_reader_settings *)readers->items)->pull->exporter.prometheus;
    assert_string_equal(page->host, "localhost");
    assert_int_equal(page->port, 8888);
    assert_string_equal(((const char **)c->service.telemetry.logs.output_paths.items)[0], "stderr");
    assert_int_equal(c->service.telemetry.logs.level, FLUE_INFO);
    assert_string_equal(c->service.flue.metrics_prefix, "otelcol_");
    assert_int_equal(c->service.flue.drain_timeout, INT64_C(10000000000));
    flue_configuration_destroy(c);
}

static void sections(void **state)
{
    says("recievers: {}\nwhatever: 1\n",
         "1:1: unknown key \"recievers\" (did you mean \"receivers\"?)\n"
         "1:1: service.pipelines: at least one pipeline is needed, as in profiles: {receivers: "
         "[otlp], exporters: [debug]}\n"
         "2:1: unknown key \"whatever\"\n");
    says(
        "receivers: [otlp]\nexporters: {debug: }\n" GOOD_TAIL,
        "1:1: receivers: must be a map, not a list\n"
        "3:46: service.pipelines.profiles: the receiver \"otlp\" is not defined under receivers\n");
    says("receivers: {otlp: }\nexporters: {debug: }\nservice: 5\n",
         "1:13: warning: receivers.otlp is defined, but no pipeline names it\n"
         "2:13: warning: exporters.debug is defined, but no pipeline names it\n"
         "3:1: service: must be a map, not a number\n"
         "3:1: service.pipelines: at least one pipeline is needed, as in profiles: {receivers: "
         "[otlp], exporters: [debug]}\n");
    says("receivers: {otlp: }\nexporters: {debug: }\nservice: {pipeline: {}, pipelines: [a]}\n",
         "1:13: warning: receivers.otlp is defined, but no pipeline names it\n"
         "2:13: warning: exporters.debug is defined, but no pipeline names it\n"
         "3:11: service: unknown key \"pipeline\" (did you mean \"pipelines\"?)\n"
         "3:25: service.pipelines: must be a map, not a list\n");
}

static void ids(void **state)
{
    says(
        "receivers: {otlp: , otpl: , /x: , otlp/: , 9a: , \"otlp/a b\": , resource: , "
        "\"ot-lp\": , kafka: }\nexporters: {debug: }\n" GOOD_TAIL,
        "1:21: receivers: there is no receiver \"otpl\" (did you mean \"otlp\"?)\n"
        "1:29: receivers: the id \"/x\" has no type before its name\n"
        "1:35: receivers: the id \"otlp/\" has nothing behind its \"/\"\n"
        "1:44: receivers: the id \"9a\" has a type that is not made of letters, digits and _\n"
        "1:50: receivers: the id \"otlp/a b\" has a blank or control character in its name\n"
        "1:64: receivers: there is no receiver \"resource\"; it is a kind of processor, which "
        "stand under processors\n"
        "1:76: receivers: the id \"ot-lp\" has a type that is not made of letters, digits and _\n"
        "1:87: receivers: there is no receiver \"kafka\"; `flue components` lists what there is\n");
    says("receivers: {otlp: }\nexporters: {debug: , otlp: }\nservice: {pipelines: {profiles: "
         "{receivers: [otlp], exporters: [debug, otlp]}}}\n",
         "2:22: warning: exporters.otlp: the type \"otlp\" is deprecated: it is now called "
         "\"otlp_grpc\"\n");
}

static void graph(void **state)
{
    says("receivers: {otlp: , otlp/b: }\nprocessors: {spans: }\nexporters: {debug: }\n"
         "extensions: {health_check: , health_check/2: }\n"
         "service:\n"
         "  extensions: [health_chek, health_check, health_check]\n"
         "  pipelines:\n"
         "    profiles: {receivers: [otlpp, otlp, otlp], processors: [spans, nope], exporters: }\n"
         "    profiles/b: {receivers: [], exporters: [debug], processsors: []}\n"
         "    logs: {receivers: [otlp], exporters: [debug]}\n"
         "    profile/x: {receivers: [otlp], exporters: [debug]}\n"
         "    profiles/: {receivers: [otlp], exporters: [debug]}\n",
         "1:21: warning: receivers.otlp/b is defined, but no pipeline names it\n"
         "4:30: warning: extensions.health_check/2 is defined, but service.extensions does not "
         "name it\n"
         "6:16: service.extensions: the extension \"health_chek\" is not defined under extensions "
         "(did you mean \"health_check\"?)\n"
         "6:43: service.extensions: the extension \"health_check\" stands in the list twice\n"
         "8:28: service.pipelines.profiles: the receiver \"otlpp\" is not defined under receivers "
         "(did you mean \"otlp\"?)\n"
         "8:41: service.pipelines.profiles: the receiver \"otlp\" stands in the list twice\n"
         "8:61: service.pipelines.profiles: the processor \"spans\" does not take profiles, only "
         "traces\n"
         "8:68: service.pipelines.profiles: the processor \"nope\" is not defined under "
         "processors\n"
         "8:75: service.pipelines.profiles.exporters: is empty: a pipeline needs an exporter\n"
         "9:53: service.pipelines.profiles/b: unknown key \"processsors\" (did you mean "
         "\"processors\"?)\n"
         "10:5: service.pipelines: \"logs\": profiles, traces and metrics of connectors are "
         "carried, not logs\n"
         "11:5: service.pipelines: \"profile/x\" is no pipeline: write profiles, traces, "
         "profiles/NAME or traces/NAME (did you mean \"profiles\"?)\n"
         "12:5: service.pipelines: \"profiles/\" is no pipeline: write profiles, traces, "
         "profiles/NAME or traces/NAME (did you mean \"profiles\"?)\n");
    says("receivers: {otlp: }\nexporters: {debug: }\n"
         "service: {pipelines: {profiles: {receivers: [], exporters: [debug]}, profiles/b: "
         "{receivers: [otlp], exporters: []}, profiles/c: }}\n",
         "3:34: service.pipelines.profiles.receivers: is empty: a pipeline needs a receiver\n"
         "3:102: service.pipelines.profiles/b.exporters: is empty: a pipeline needs an exporter\n"
         "3:118: service.pipelines.profiles/c.receivers: is empty: a pipeline needs a receiver\n"
         "3:118: service.pipelines.profiles/c.exporters: is empty: a pipeline needs an exporter\n");
}

static void components_check(void **state)
{
    says("receivers: {otlp: {endpoint: \"localhost:13\"}, otlp/b: {endpoint: x, tokn: y}}\n"
         "exporters:\n  otlp_grpc:\n    sending_queue: {queue_size: 0, num_consumer: 3}\n"
         "    retry_on_failure: {multiplier: 5000}\n  debug: {sending_queue: {}}\n" GOOD_TAIL,
         "1:30: receivers.otlp.endpoint: 13 brings bad luck\n"
         "1:47: warning: receivers.otlp/b is defined, but no pipeline names it\n"
         "1:66: receivers.otlp/b.endpoint: \"x\" has no port: write host:port (\"localhost:4317\", "
         "\"[::1]:4317\", \":4317\" for all addresses)\n"
         "1:69: receivers.otlp/b: unknown key \"tokn\" (did you mean \"token\"?)\n"
         "3:3: warning: exporters.otlp_grpc is defined, but no pipeline names it\n"
         "4:33: exporters.otlp_grpc.sending_queue.queue_size: 0 is below the minimum of 1\n"
         "4:36: exporters.otlp_grpc.sending_queue: unknown key \"num_consumer\" (did you mean "
         "\"num_consumers\"?)\n"
         "6:11: exporters.debug: unknown key \"sending_queue\"\n");
    says("receivers: {otlp: }\nexporters:\n  debug:\n  otlp_grpc: {retry_on_failure: {multiplier: "
         "5000}}\nservice: {pipelines: {profiles: {receivers: [otlp], exporters: [debug, "
         "otlp_grpc]}}}\n",
         "4:46: exporters.otlp_grpc.retry_on_failure.multiplier: 5000 is not within 0 to 1000\n");
}

static void service_keys(void **state)
{
    says("receivers: {otlp: }\nexporters: {debug: }\nservice:\n"
         "  flue: {loops: 65, drain_timeout: 2h, metrics_prefix: \"a-b\", loop: 1}\n"
         "  telemetry: {logs: {level: trace, encoding: jsn, output_paths: []}, metrics: {level: "
         "nothing}}\n"
         "  pipelines: {profiles: {receivers: [otlp], exporters: [debug]}}\n",
         "4:17: service.flue.loops: 65 is above the maximum of 64\n"
         "4:36: service.flue.drain_timeout: 2h0m0s is above the maximum of 1h0m0s\n"
         "4:63: service.flue: unknown key \"loop\" (did you mean \"loops\"?)\n"
         "5:29: service.telemetry.logs.level: \"trace\" is not one of debug, info, warn, error\n"
         "5:46: service.telemetry.logs.encoding: \"jsn\" is not one of console, json (did you mean "
         "\"json\"?)\n"
         "5:87: service.telemetry.metrics.level: \"nothing\" is not one of none, basic, normal, "
         "detailed\n");
    says(
        "receivers: {otlp: }\nexporters: {debug: }\nservice:\n"
        "  flue: {metrics_prefix: \"a-b\"}\n"
        "  telemetry: {logs: {output_paths: [stderr, stdout]}, metrics: {readers: [{periodic: "
        "{interval: 1}}]}}\n"
        "  pipelines: {profiles: {receivers: [otlp], exporters: [debug]}}\n",
        "4:26: service.flue.metrics_prefix: \"a-b\" cannot begin a metric's name: letters, digits, "
        "_ and :\n"
        "5:22: service.telemetry.logs.output_paths: must name one output: stderr, stdout or a "
        "file\n"
        "5:75: warning: service.telemetry.metrics.readers[0]: only pull.exporter.prometheus has an "
        "effect\n");
}

static void unreadable(void **state)
{
    struct flue_configuration *c = load("a: [");
    assert_null(c->root);
    assert_int_equal(c->check.mistakes, 1);
    flue_configuration_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),         cmocka_unit_test(telemetry_defaults),
        cmocka_unit_test(sections),     cmocka_unit_test(ids),
        cmocka_unit_test(graph),        cmocka_unit_test(components_check),
        cmocka_unit_test(service_keys), cmocka_unit_test(unreadable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
