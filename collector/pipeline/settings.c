/* settings.c: field tables and checks of sending_queue, retry_on_failure and timeout. */
#include "collector/pipeline/settings.h"
#include "collector/base/clock.h"

#define SECOND INT64_C(1000000000)
#define DAY    (24 * 3600 * SECOND)

static const char *const queue_sizers[] = {"requests", "items", "bytes", NULL};
static const char *const batch_sizers[] = {"items", "bytes", NULL};
static const char *const overflow_choices[] = {"refuse", "drop", NULL};

static const struct flue_field partition_fields[] = {
    FLUE_STRINGS(struct flue_partition_config, metadata_keys,
                 .help = "request headers whose values keep batches apart (needs include_metadata "
                         "in the receiver)"),
    FLUE_FIELDS_END};

static const struct flue_field batch_fields[] = {
    FLUE_DURATION(struct flue_batcher_config, flush_timeout, .def = "200ms", .minimum = 0,
                  .maximum = DAY, .help = "send what there is after this time"),
    FLUE_INT(struct flue_batcher_config, min_size, .def = "8192", .minimum = 0,
             .maximum = INT64_MAX, .help = "send when this much has come together"),
    FLUE_INT(struct flue_batcher_config, max_size, .def = "0", .minimum = 0, .maximum = INT64_MAX,
             .help = "cut what is larger; 0: never"),
    FLUE_ENUM(struct flue_batcher_config, sizer, .def = "items", .choices = batch_sizers,
              .help = "unit of min_size and max_size: samples or encoded bytes"),
    FLUE_BLOCK(struct flue_batcher_config, partition, struct flue_partition_config,
               partition_fields, .help = "what is never put into one batch"),
    FLUE_FIELDS_END};

const struct flue_field flue_queue_fields[] = {
    FLUE_BOOL(struct flue_queue_config, enabled, .def = "true",
              .help = "false: the sender waits for the destination's answer"),
    FLUE_INT(struct flue_queue_config, num_consumers, .def = "10", .minimum = 1, .maximum = 65536,
             .help = "how many requests are sent at a time, over all cores"),
    FLUE_BOOL(struct flue_queue_config, wait_for_result, .def = "false",
              .help = "answer the sender when the destination has answered"),
    FLUE_BOOL(struct flue_queue_config, block_on_overflow, .def = "false",
              .help = "let the sender wait for room instead of refusing"),
    FLUE_ENUM(struct flue_queue_config, sizer, .def = "requests", .choices = queue_sizers,
              .help = "unit of queue_size: requests, items (samples) or bytes"),
    FLUE_INT(struct flue_queue_config, queue_size, .def = "1000", .minimum = 1,
             .maximum = INT64_MAX, .help = "what may wait or be in flight, in units of sizer"),
    FLUE_INT(struct flue_queue_config, max_bytes, .def = "268435456", .minimum = 4096,
             .maximum = INT64_MAX, .unit = "bytes",
             .help = "memory held by what waits or is in flight, whatever the sizer"),
    FLUE_ENUM(struct flue_queue_config, on_overflow, .def = "refuse", .choices = overflow_choices,
              .help = "refuse: the sender is told to come again, and no destination takes the "
                      "data; drop: this destination loses it (counted; with storage the oldest "
                      "goes instead), the others take it"),
    FLUE_STRING(struct flue_queue_config, storage,
                .help =
                    "extension (file_storage) that keeps the queue on disk: what was acknowledged "
                    "survives a kill and a power cut; queue_size then limits what is on disk"),
    FLUE_OPTIONAL(struct flue_queue_config, batch, struct flue_batcher_config, batch_fields,
                  .help = "join small requests, cut large ones"),
    FLUE_FIELDS_END};

const struct flue_field flue_retry_fields[] = {
    FLUE_BOOL(struct flue_retry_config, enabled, .def = "true",
              .help = "false: what fails once is dropped"),
    FLUE_DURATION(struct flue_retry_config, initial_interval, .def = "5s", .minimum = 0,
                  .maximum = DAY, .help = "wait after the first failure"),
    FLUE_FLOAT(struct flue_retry_config, randomization_factor, .def = "0.5",
               .help = "a wait of t becomes a random one of t*(1-f) to t*(1+f); 0 to 1"),
    FLUE_FLOAT(struct flue_retry_config, multiplier, .def = "1.5",
               .help = "each wait is this times the one before"),
    FLUE_DURATION(struct flue_retry_config, max_interval, .def = "30s", .minimum = 0,
                  .maximum = DAY,
                  .help = "the longest wait; the destination's own is obeyed above it"),
    FLUE_DURATION(struct flue_retry_config, max_elapsed_time, .def = "300s", .minimum = 0,
                  .maximum = 365 * DAY, .help = "give up after this time; 0: never"),
    FLUE_FIELDS_END};

void flue_exporter_fields(const struct flue_component *component, struct flue_exporter_fields *out)
{
    size_t count = 0;
    memset(out, 0, sizeof *out);
    if (component->no_queue)
        return;
    out->fields[count++] = (struct flue_field)FLUE_BLOCK(
        struct flue_exporter_settings, sending_queue, struct flue_queue_config, flue_queue_fields,
        .help = "the queue before this destination");
    out->fields[count++] = (struct flue_field)FLUE_BLOCK(
        struct flue_exporter_settings, retry_on_failure, struct flue_retry_config,
        flue_retry_fields, .help = "when and how often a failed request is sent again");
    if (!component->no_timeout) {
        flue_format_duration(component->timeout_def ? component->timeout_def : 5 * SECOND,
                             out->timeout_def);
        out->fields[count++] = (struct flue_field)FLUE_DURATION(
            struct flue_exporter_settings, timeout, .def = out->timeout_def, .minimum = 0,
            .maximum = DAY, .help = "of one attempt; 0: none");
    }
}

static void check_queue(const struct flue_queue_config *queue, struct flue_check *check)
{
    const struct flue_batcher_config *batch = queue->batch;

    if (!queue->enabled)
        return;
    if (queue->storage && queue->wait_for_result)
        flue_check_fail(
            check, "sending_queue.wait_for_result",
            "`true` makes the sender wait for the destination, and `storage` answers it "
            "once the data is on disk: choose one");
    if (queue->block_on_overflow && queue->on_overflow == FLUE_OVERFLOW_DROP)
        flue_check_fail(check, "sending_queue.on_overflow",
                        "`drop` and `block_on_overflow: true` exclude each other: choose one");
    if (queue->wait_for_result && queue->on_overflow == FLUE_OVERFLOW_DROP)
        flue_check_warn(
            check, "sending_queue.on_overflow",
            "with `wait_for_result: true` a sender is told success for what is dropped");
    if (!batch)
        return;
    if (batch->flush_timeout <= 0)
        flue_check_fail(check, "sending_queue.batch.flush_timeout",
                        "must be above 0, for example 200ms");
    if (batch->max_size && batch->max_size < batch->min_size)
        flue_check_fail(check, "sending_queue.batch.max_size",
                        "%lld is below min_size %lld: raise it, or 0 for no bound",
                        (long long)batch->max_size, (long long)batch->min_size);
    bool same = (queue->sizer == FLUE_SIZER_ITEMS && batch->sizer == 0) ||
                (queue->sizer == FLUE_SIZER_BYTES && batch->sizer == 1);
    if (same && batch->min_size > queue->queue_size)
        flue_check_fail(check, "sending_queue.batch.min_size",
                        "%lld can never come together in a queue_size of %lld: lower it",
                        (long long)batch->min_size, (long long)queue->queue_size);
}

void flue_exporter_settings_check(const struct flue_exporter_settings *settings,
                                  struct flue_check *check)
{
    const struct flue_retry_config *retry = &settings->retry_on_failure;

    check_queue(&settings->sending_queue, check);
    if (!retry->enabled)
        return;
    if (!(retry->randomization_factor >= 0 && retry->randomization_factor <= 1))
        flue_check_fail(check, "retry_on_failure.randomization_factor", "%g is not within 0 to 1",
                        retry->randomization_factor);
    if (!(retry->multiplier >= 0 && retry->multiplier <= 1000))
        flue_check_fail(check, "retry_on_failure.multiplier", "%g is not within 0 to 1000",
                        retry->multiplier);
    if (retry->max_elapsed_time && retry->max_elapsed_time < retry->initial_interval)
        flue_check_fail(check, "retry_on_failure.max_elapsed_time",
                        "is shorter than initial_interval: nothing would ever be retried");
}
