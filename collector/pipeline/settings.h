/* settings.h: the keys that the engine gives to every exporter: sending_queue, retry_on_failure,
 * timeout. Names, units and defaults are the Collector's (exporterhelper, configretry), and two
 * keys are ours: sending_queue.max_bytes (every queue is bounded in bytes too) and
 * sending_queue.on_overflow.
 *
 * The service binds struct flue_exporter_settings beside an exporter's own struct, from the same
 * YAML block, by the table that flue_exporter_fields makes for the component.
 */
#ifndef FLUE_PIPELINE_SETTINGS_H
#define FLUE_PIPELINE_SETTINGS_H

#include "collector/component.h"
#include "config/field.h"

enum flue_sizer { FLUE_SIZER_REQUESTS, FLUE_SIZER_ITEMS, FLUE_SIZER_BYTES };
enum flue_on_overflow { FLUE_OVERFLOW_REFUSE, FLUE_OVERFLOW_DROP };

struct flue_partition_config {
    struct flue_list metadata_keys; /* const char *, matched without case */
};
struct flue_batcher_config {
    int64_t flush_timeout;
    int64_t min_size, max_size; /* in `sizer` units; max_size 0: no bound */
    int sizer;                  /* 0 items (samples), 1 bytes (encoded) */
    struct flue_partition_config partition;
};
struct flue_queue_config {
    bool enabled;
    int64_t num_consumers;
    bool wait_for_result, block_on_overflow;
    int sizer; /* enum flue_sizer */
    int64_t queue_size;
    int64_t max_bytes; /* of memory held by what waits or is in flight */
    int on_overflow;   /* enum flue_on_overflow */
    const char *storage;
    const struct flue_batcher_config *batch; /* NULL: no batching */
};
struct flue_retry_config {
    bool enabled;
    int64_t initial_interval, max_interval, max_elapsed_time; /* ns; max_elapsed_time 0: for ever */
    double randomization_factor, multiplier;
};
struct flue_exporter_settings {
    struct flue_queue_config sending_queue;
    struct flue_retry_config retry_on_failure;
    int64_t timeout; /* ns, of one attempt; 0: none */
};

extern const struct flue_field flue_queue_fields[];
extern const struct flue_field flue_retry_fields[];

/* The table of struct flue_exporter_settings for one component: empty with no_queue, without
 * `timeout` with no_timeout, and with the component's own default of it. Holds its texts, so it
 * must not move while `fields` is in use. */
struct flue_exporter_fields {
    struct flue_field fields[4];
    char timeout_def[32];
};
void flue_exporter_fields(const struct flue_component *component, struct flue_exporter_fields *out);
/* Paths are relative to the exporter's block ("sending_queue.queue_size"). */
void flue_exporter_settings_check(const struct flue_exporter_settings *settings,
                                  struct flue_check *check);

#endif
