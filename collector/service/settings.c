/* settings.c: the table of the `service` section. */
#include "collector/service/settings.h"

#include <stdio.h>

#include "collector/base/log.h"

static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const encodings[] = {"console", "json", NULL};
static const char *const metric_levels[] = {"none", "basic", "normal", "detailed", NULL};

static const struct flue_field prometheus_fields[] = {
    FLUE_STRING(struct flue_prometheus_settings, host, .def = "localhost",
                .help = "address of the metrics page"),
    FLUE_INT(struct flue_prometheus_settings, port, .def = "8888", .minimum = 0, .maximum = 65535,
             .help = "port of the metrics page; 0: any that is free"),
    FLUE_IGNORED("without_scope_info", "names are fixed"),
    FLUE_IGNORED("without_type_suffix", "names are fixed"),
    FLUE_IGNORED("without_units", "names are fixed"),
    FLUE_IGNORED("translation_strategy", "names are fixed"),
    FLUE_IGNORED("with_resource_constant_labels", "there is no resource"),
    FLUE_FIELDS_END};

static const struct flue_field reader_exporter_fields[] = {
    FLUE_OPTIONAL(struct flue_reader_exporter_settings, prometheus, struct flue_prometheus_settings,
                  prometheus_fields, .help = "GET /metrics"),
    FLUE_FIELDS_END};

static const struct flue_field pull_fields[] = {
    FLUE_BLOCK(struct flue_pull_settings, exporter, struct flue_reader_exporter_settings,
               reader_exporter_fields),
    FLUE_IGNORED("cardinality_limits", "every family is limited to 2,000 series"), FLUE_FIELDS_END};

static const struct flue_field reader_fields[] = {
    FLUE_OPTIONAL(struct flue_reader_settings, pull, struct flue_pull_settings, pull_fields,
                  .help = "a page that is read"),
    FLUE_IGNORED("periodic", "metrics are not pushed; let Prometheus or a Collector read the page"),
    FLUE_FIELDS_END};

static const struct flue_field metrics_fields[] = {
    FLUE_ENUM(struct flue_telemetry_metrics_settings, level, .def = "normal",
              .choices = metric_levels, .help = "none: no page; the others are the same"),
    FLUE_LIST(struct flue_telemetry_metrics_settings, readers, struct flue_reader_settings,
              reader_fields, .def = "[{pull: {exporter: {prometheus: {}}}}]",
              .help = "[]: no page"),
    FLUE_IGNORED("address", "an old name of readers"), FLUE_IGNORED("views", "not supported"),
    FLUE_FIELDS_END};

static const struct flue_field logs_fields[] = {
    FLUE_ENUM(struct flue_telemetry_logs_settings, level, .def = "info", .choices = log_levels,
              .help = "the least that is written"),
    FLUE_ENUM(struct flue_telemetry_logs_settings, encoding, .def = "console", .choices = encodings,
              .help = "text for people, or one JSON object a line"),
    FLUE_STRINGS(struct flue_telemetry_logs_settings, output_paths, .def = "[stderr]",
                 .help = "stderr, stdout or a file that is appended to; one of them"),
    FLUE_IGNORED("development", "no such mode"),
    FLUE_IGNORED("disable_caller", "lines do not name their caller"),
    FLUE_IGNORED("disable_stacktrace", "lines have no stack traces"),
    FLUE_IGNORED("disable_zap_resource", "lines do not repeat the resource"),
    FLUE_IGNORED("sampling", "each kind of line is limited to 20, then one a second"),
    FLUE_IGNORED("error_output_paths", "there is one output"),
    FLUE_IGNORED("initial_fields", "not supported"),
    FLUE_IGNORED("processors", "logs are not exported"),
    FLUE_FIELDS_END};

static const struct flue_field telemetry_fields[] = {
    FLUE_BLOCK(struct flue_telemetry_settings, logs, struct flue_telemetry_logs_settings,
               logs_fields, .help = "flue's own log"),
    FLUE_BLOCK(struct flue_telemetry_settings, metrics, struct flue_telemetry_metrics_settings,
               metrics_fields, .help = "flue's own metrics"),
    FLUE_IGNORED("traces", "flue does not trace itself"),
    FLUE_IGNORED("resource", "flue's own metrics carry no resource"), FLUE_FIELDS_END};

static const struct flue_field memory_fields[] = {
    FLUE_INT(struct flue_memory_settings, limit_mib, .def = "0", .minimum = 0,
             .maximum = INT64_C(1) << 24, .unit = "MiB",
             .help = "of what is in flight and queued; 0: 80 % of the cgroup's limit, else 25 % of "
                     "RAM up to 1 GiB"),
    FLUE_FIELDS_END};

static const struct flue_field engine_fields[] = {
    FLUE_INT(struct flue_engine_settings, loops, .def = "0", .minimum = 0, .maximum = 64,
             .help = "event loops; 0: one per CPU that the process may use"),
    FLUE_DURATION(struct flue_engine_settings, drain_timeout, .def = "10s", .minimum = 0,
                  .maximum = INT64_C(3600000000000),
                  .help = "after SIGTERM; then what is left is given up, counted and logged"),
    FLUE_STRING(struct flue_engine_settings, metrics_prefix, .def = "otelcol_",
                .help = "before every name on the metrics page"),
    FLUE_BLOCK(struct flue_engine_settings, memory, struct flue_memory_settings, memory_fields),
    FLUE_FIELDS_END};

const struct flue_field flue_service_fields[] = {
    FLUE_STRINGS(struct flue_service_settings, extensions,
                 .help = "ids of the extensions that run, in this order"),
    FLUE_BLOCK(struct flue_service_settings, telemetry, struct flue_telemetry_settings,
               telemetry_fields),
    FLUE_BLOCK(struct flue_service_settings, flue, struct flue_engine_settings, engine_fields,
               .help = "what the Collector does not have"),
    FLUE_FIELDS_END};

void flue_service_settings_check(const struct flue_service_settings *settings,
                                 struct flue_check *check)
{
    const char *prefix = settings->flue.metrics_prefix;
    const struct flue_list *readers = &settings->telemetry.metrics.readers;
    for (const char *c = prefix ? prefix : ""; *c; c++) {
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_' ||
                      *c == ':' || (*c >= '0' && *c <= '9' && c > prefix);
        if (!letter) {
            flue_check_fail(
                check, "flue.metrics_prefix",
                "\"%s\" cannot begin a metric's name: letters, digits, _ and :", prefix);
            break;
        }
    }
    for (size_t i = 0; i < readers->count; i++) {
        const struct flue_reader_settings *reader =
            (const struct flue_reader_settings *)readers->items + i;
        char path[64];
        snprintf(path, sizeof path, "telemetry.metrics.readers[%zu]", i);
        if (!reader->pull || !reader->pull->exporter.prometheus)
            flue_check_warn(check, path, "only pull.exporter.prometheus has an effect");
    }
    if (settings->telemetry.logs.output_paths.count != 1)
        flue_check_fail(check, "telemetry.logs.output_paths",
                        "must name one output: stderr, stdout or a file");
}
