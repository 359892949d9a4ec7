/* metric_payload.h: sums as a payload of signal FLUE_METRICS: what flue sends, never what it gets.
 *
 * A payload is one encoded ExportMetricsServiceRequest (opentelemetry-proto 1.11,
 * metrics/v1/metrics.proto) in a block; its resources are the ResourceMetrics. It is not edited. It
 * is cut between ResourceMetrics only, so a writer begins a new resource before one grows large.
 * In its counts a profile is a metric and a sample a data point.
 */
#ifndef PROTO_OTLP_METRIC_PAYLOAD_H
#define PROTO_OTLP_METRIC_PAYLOAD_H

#include "collector/base/buffer.h"
#include "collector/base/payload.h"

/* Counts are of what is in it. Takes the block's reference, also on failure. FLUE_INVALID: that is
 * no request. *out NULL with FLUE_OK: nothing is in it. */
enum flue_code flue_metric_payload_read(struct flue_block *body, struct flue_payload **out,
                                        struct flue_counts *counts, struct flue_error *error);

/* Resource after resource, metric after metric, point after point; finish says what failed. */
struct flue_metric_writer {
    struct flue_buffer resource, metrics, points, point; /* what is open, outermost first */
    struct flue_buffer out;
    struct flue_bytes name, unit, description; /* of the open metric; borrowed until it ends */
    bool in_resource, in_metric;
};
void flue_metric_writer_init(struct flue_metric_writer *writer, size_t maximum);
/* Texts as attributes of a Resource. */
void flue_metric_writer_resource(struct flue_metric_writer *writer,
                                 const struct flue_attribute *attributes, size_t count);
/* A monotonic, cumulative Sum. */
void flue_metric_writer_sum(struct flue_metric_writer *writer, struct flue_bytes name,
                            struct flue_bytes unit, struct flue_bytes description);
/* Times in nanoseconds since 1970. */
void flue_metric_writer_point(struct flue_metric_writer *writer,
                              const struct flue_attribute *attributes, size_t count,
                              uint64_t start_ns, uint64_t time_ns, double value);
/* Ends the writer, also on failure. *out NULL: nothing was written. */
enum flue_code flue_metric_writer_finish(struct flue_metric_writer *writer,
                                         struct flue_account *account, struct flue_payload **out,
                                         struct flue_counts *counts, struct flue_error *error);

#endif
