/* process.h: process_cpu_seconds, process_memory_rss, process_uptime, from getrusage and
 * /proc/self. */
#ifndef FLUE_TELEMETRY_PROCESS_H
#define FLUE_TELEMETRY_PROCESS_H

#include "collector/base/metrics.h"

/* Uptime counts from the first call. */
void flue_process_metrics_add(struct flue_metrics *metrics);

#endif
