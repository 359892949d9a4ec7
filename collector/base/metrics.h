/* metrics.h: flue's own counters, gauges and histograms, printed as Prometheus text.
 *
 * A metric is made once (start, or first use of a label set, never per request on the data path)
 * and then changed with relaxed atomics from any thread. Asking again for the same name and labels
 * gives the same metric. A family whose label sets pass `FLUE_METRIC_MAX_SERIES` (2,000) gives one
 * shared overflow series with every label value "other", so that cardinality is bounded.
 * Names are written without prefix ("receiver_accepted_profile_samples"); the registry adds it
 * ("otelcol_" by default). Counters get "_total" when printed.
 */
#ifndef FLUE_BASE_METRICS_H
#define FLUE_BASE_METRICS_H

#include <stdatomic.h>
#include "collector/base/buffer.h"

#define FLUE_METRIC_MAX_SERIES 2000

struct flue_metrics; /* a registry */
struct flue_metric {
    _Atomic int64_t value;
};
struct flue_label {
    const char *name, *value; /* copied */
};
enum flue_metric_type { FLUE_COUNTER, FLUE_GAUGE };

struct flue_metrics *flue_metrics_new(const char *prefix);
void flue_metrics_destroy(struct flue_metrics *metrics);
/* Never NULL: without memory a metric that is not printed. `labels` ends with a NULL name; NULL:
 * none.
 */
struct flue_metric *flue_metric(struct flue_metrics *metrics, enum flue_metric_type type,
                                const char *name, const char *help,
                                const struct flue_label *labels);
/* A gauge or counter that is read when the page is printed, on the thread that prints; `read` must
 * not call the registry. Given again for the same labels it replaces the one before; NULL `read`
 * ends it. */
void flue_metric_callback(struct flue_metrics *metrics, enum flue_metric_type type,
                          const char *name, const char *help, const struct flue_label *labels,
                          double (*read)(void *), void *arg);
/* A histogram with the given upper bounds, ascending; those of the first call hold for the family.
 * NULL without memory, which flue_histogram_observe takes. */
struct flue_histogram;
struct flue_histogram *flue_histogram(struct flue_metrics *metrics, const char *name,
                                      const char *help, const struct flue_label *labels,
                                      const double *bounds, size_t count);
void flue_histogram_observe(struct flue_histogram *histogram, double value);
void flue_metrics_print(struct flue_metrics *metrics, struct flue_buffer *out);

static inline void flue_metric_add(struct flue_metric *metric, int64_t n)
{
    atomic_fetch_add_explicit(&metric->value, n, memory_order_relaxed);
}
static inline void flue_metric_set(struct flue_metric *metric, int64_t n)
{
    atomic_store_explicit(&metric->value, n, memory_order_relaxed);
}
static inline int64_t flue_metric_get(const struct flue_metric *metric)
{
    return atomic_load_explicit(&((struct flue_metric *)metric)->value, memory_order_relaxed);
}

#endif
