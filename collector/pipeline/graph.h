/* graph.h: how the service puts pipelines together, starts them, drains them and takes them down.
 *
 * Order of making: exporters, then processors, pipelines, consumers (one per receiver and signal),
 * then receivers, which get the consumer in flue_create. Order of starting: exporters, pipelines
 * (their processors), receivers. Order of stopping, while the loops run: receivers, then pipelines,
 * then exporters, each polled until it is stopped or the deadline has passed; then the loops are
 * stopped; then destroy: exporters first (what senders still wait for is answered while their
 * receiver exists), receivers, consumers, pipelines.
 *
 * Everything here is called on the main thread. Configuration, loops and metrics outlive the graph.
 * The metrics registry must not be printed once an exporter or pipeline of it is destroyed: queue
 * sizes and counts are read from there.
 */
#ifndef FLUE_PIPELINE_GRAPH_H
#define FLUE_PIPELINE_GRAPH_H

#include "collector/component.h"
#include "collector/pipeline/settings.h"

/* ---- exporters ------------------------------------------------------------------------------- */

struct flue_exporter;

struct flue_exporter_spec {
    const struct flue_component *component;
    void *instance; /* what component->create gave; the exporter's from here on, also on failure */
    const char *id; /* "otlp_grpc/edge"; copied */
    /* As bound and checked; not read for a component with no_queue (may be NULL then). */
    const struct flue_exporter_settings *settings;
    unsigned signals; /* enum flue_signal, or'ed: which families of metrics it has; 0: profiles */
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    /* With sending_queue.storage, else NULL: both outlive the exporter, whose start starts the log.
     * Data that the destination will never take is set aside in `dead_letters` (a folder, made when
     * it is needed; NULL: only counted). */
    struct flue_storage *storage;
    struct flue_storage_queue *log;
    const char *dead_letters;
};

enum flue_code flue_exporter_new(const struct flue_exporter_spec *spec, struct flue_exporter **out,
                                 struct flue_error *error);
const char *flue_exporter_id(const struct flue_exporter *exporter);
/* component->start; opens the log and counts what it owes. After the pipelines are made. */
enum flue_code flue_exporter_start(struct flue_exporter *exporter, struct flue_error *error);
/* Takes nothing more. What waits is sent until the deadline (monotonic ns); then what is in flight
 * is cancelled and the rest dropped with reason "shutdown", or left on disk. Returns at once; the
 * loops run. */
void flue_exporter_stop(struct flue_exporter *exporter, uint64_t deadline_ns);
/* Poll it: once nothing is left it stops the component too, and is true when that has stopped. */
bool flue_exporter_stopped(struct flue_exporter *exporter);

/* What is there now, and what a shutdown left behind. Exact when the loops are quiet or stopped. */
struct flue_exporter_state {
    struct flue_counts received, recovered, sent, dropped, queued, in_flight;
    bool durable; /* what is queued is on disk */
    uint64_t queued_items, in_flight_items;
    struct flue_counts lost; /* dropped with reason "shutdown" */
    uint64_t lost_items;
};
void flue_exporter_state(const struct flue_exporter *exporter, struct flue_exporter_state *out);
/* component->destroy, then what is still held (counted as lost). The loops are stopped. NULL: fine.
 */
void flue_exporter_destroy(struct flue_exporter *exporter);

/* ---- pipelines ------------------------------------------------------------------------------- */

struct flue_pipeline;

struct flue_stage_spec {
    const struct flue_component *component;
    void *instance; /* the pipeline's from flue_pipeline_new on, also on failure */
    const char *id; /* copied */
};
struct flue_pipeline_spec {
    const char *id; /* "profiles/team-a"; copied */
    enum flue_signal signal;
    const struct flue_stage_spec *stages; /* processors in order */
    size_t stage_count;
    struct flue_exporter *const *exporters; /* at least one; may be shared with other pipelines */
    size_t exporter_count;
    struct flue_account *account; /* outlives the pipeline */
    struct flue_loops *loops;
    struct flue_metrics *metrics;
};

enum flue_code flue_pipeline_new(const struct flue_pipeline_spec *spec, struct flue_pipeline **out,
                                 struct flue_error *error);
const char *flue_pipeline_id(const struct flue_pipeline *pipeline);
/* start, stop, stopped of every processor. */
enum flue_code flue_pipeline_start(struct flue_pipeline *pipeline, struct flue_error *error);
void flue_pipeline_stop(struct flue_pipeline *pipeline, uint64_t deadline_ns);
bool flue_pipeline_stopped(struct flue_pipeline *pipeline);
void flue_pipeline_destroy(struct flue_pipeline *pipeline); /* NULL: fine */

/* All pipelines of one signal that name a receiver, in the order of the configuration. A request's
 * bytes exist once however many pipelines share them, so they are charged once: to the account of
 * the first. NULL without memory. */
struct flue_consumer *flue_consumer_new(struct flue_pipeline *const *pipelines, size_t count);
void flue_consumer_destroy(struct flue_consumer *consumer); /* NULL: fine */

#endif
