/* settings.h: the `service` section but for its pipelines: telemetry, and what is flue's own.
 *
 * service::telemetry is the Collector's; service::flue is ours:
 *
 *   service:
 *     flue:
 *       loops: 0                  event loops; 0: one per CPU that the process may use
 *       drain_timeout: 10s        after SIGTERM, then what is left is given up and counted
 *       metrics_prefix: otelcol_  before every name on the metrics page
 *       memory: {limit_mib: 0}    of what is in flight and queued; 0: by the cgroup or RAM
 */
#ifndef FLUE_SERVICE_SETTINGS_H
#define FLUE_SERVICE_SETTINGS_H

#include "config/check.h"

struct flue_prometheus_settings {
    const char *host;
    int64_t port;
};
struct flue_reader_exporter_settings {
    const struct flue_prometheus_settings *prometheus;
};
struct flue_pull_settings {
    struct flue_reader_exporter_settings exporter;
};
struct flue_reader_settings {
    const struct flue_pull_settings *pull;
};
enum flue_metrics_level { FLUE_LEVEL_NONE };
struct flue_telemetry_metrics_settings {
    int level;                /* FLUE_LEVEL_NONE turns the page off; the others are one */
    struct flue_list readers; /* struct flue_reader_settings */
};
struct flue_telemetry_logs_settings {
    int level;    /* enum flue_log_level */
    int encoding; /* 0 console, 1 json */
    struct flue_list output_paths;
};
struct flue_telemetry_settings {
    struct flue_telemetry_logs_settings logs;
    struct flue_telemetry_metrics_settings metrics;
};
struct flue_memory_settings {
    int64_t limit_mib;
};
struct flue_engine_settings {
    int64_t loops;
    int64_t drain_timeout; /* ns */
    const char *metrics_prefix;
    struct flue_memory_settings memory;
};
struct flue_service_settings {
    struct flue_list extensions; /* const char * ids */
    struct flue_telemetry_settings telemetry;
    struct flue_engine_settings flue;
};

extern const struct flue_field flue_service_fields[];
/* Paths are relative to `service`. */
void flue_service_settings_check(const struct flue_service_settings *settings,
                                 struct flue_check *check);

#endif
