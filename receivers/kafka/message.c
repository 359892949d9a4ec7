/* message.c: one record from librdkafka's memory through the pipelines and back. */
#include <stdlib.h>
#include "collector/base/clock.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/json_budget.h"
#include "receivers/kafka/consumer_inside.h"

/* ---- memory -----------------------------------------------------------------------------------
 */

struct kafka_message *kafka_message_new(struct kafka_partition *partition,
                                        rd_kafka_message_t *record)
{
    struct kafka_message *message = calloc(1, sizeof *message);

    if (!message)
        return NULL;
    message->partition = partition;
    message->offset = record->offset;
    message->size = record->len;
    message->held = record;
    message->state = KAFKA_HELD;
    return message;
}

static void release_record(struct kafka_message *message)
{
    if (message->held)
        message->partition->consumer->library->rd_kafka_message_destroy(message->held);
    message->held = NULL;
}

void kafka_message_free(struct kafka_message *message)
{
    release_record(message);
    flue_block_unref(message->body);
    kafka_context_release(&message->context);
    free(message);
}

static void observe_delay(struct kafka_consumer *consumer, int64_t time_ms)
{
    if (consumer->settings->delay_metric && time_ms > 0)
        flue_histogram_observe(consumer->delay,
                               ((double)flue_wall_ns() - (double)time_ms * 1e6) / 1e9);
}

static enum flue_code take_context(struct kafka_message *message, struct flue_error *error)
{
    struct kafka_consumer *consumer = message->partition->consumer;
    const struct flue_kafka *library = consumer->library;
    struct flue_kafka_header headers[4 * FLUE_KAFKA_HEADERS_MAX];
    rd_kafka_headers_t *all = NULL;
    rd_kafka_timestamp_type_t type;
    struct kafka_arrival arrival = {
        .receiver = consumer->settings->id,
        .topic = message->partition->topic,
        .partition = message->partition->number,
        .offset = message->offset,
        .headers = headers,
    };

    arrival.time_ms = library->rd_kafka_message_timestamp(message->held, &type);
    if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
        arrival.time_ms = 0;
    observe_delay(consumer, arrival.time_ms);
    if (library->rd_kafka_message_headers(message->held, &all) == RD_KAFKA_RESP_ERR_NO_ERROR)
        while (arrival.header_count < sizeof headers / sizeof headers[0]) {
            const char *name;
            const void *value;
            size_t size;
            if (library->rd_kafka_header_get_all(all, arrival.header_count, &name, &value, &size))
                break;
            headers[arrival.header_count++] = (struct flue_kafka_header){
                flue_bytes_of(name), flue_bytes(value, value ? size : 0)};
        }
    enum flue_code code =
        kafka_context_make(&arrival, consumer->settings->decoding.encoding == FLUE_KAFKA_PPROF,
                           &message->context, error);
    flue_metric_add(consumer->left_out, (int64_t)message->context.left_out);
    return code;
}

bool kafka_message_admit(struct kafka_message *message)
{
    struct kafka_consumer *consumer = message->partition->consumer;
    struct flue_bytes value = flue_bytes(message->held->payload, message->held->len);
    struct flue_error error;

    if (value.size > KAFKA_BODY_MAX) {
        flue_fail(&message->error, FLUE_TOO_LARGE, "a record of %zu bytes, limit %zu", value.size,
                  KAFKA_BODY_MAX);
    } else {
        if (flue_account_admit(consumer->account, value.size, &error))
            return false;
        message->body = flue_block_copy(consumer->account, value);
        if (!message->body)
            return false;
        if (take_context(message, &message->error) == FLUE_NO_MEMORY) {
            flue_block_unref(message->body);
            message->body = NULL;
            kafka_context_release(&message->context);
            message->error.code = FLUE_OK;
            return false;
        }
    }
    release_record(message);
    message->bad = message->error.code != FLUE_OK;
    message->raw = consumer->settings->decoding.encoding == FLUE_KAFKA_OTLP_JSON && !message->bad;
    message->state = message->raw ? KAFKA_RAW : KAFKA_READY;
    flue_metric_add(consumer->messages, 1);
    return true;
}

/* ---- JSON, on the pool -------------------------------------------------------------------------
 */

static struct kafka_message *of_job(struct flue_job *job)
{
    return (struct kafka_message *)((char *)job - offsetof(struct kafka_message, job));
}

static void read_work(struct flue_job *job)
{
    struct kafka_message *message = of_job(job);
    struct flue_block *text = message->body;

    message->body = NULL;
    message->error.code = FLUE_OK;
    if (flue_otlp_json_read(flue_block_bytes(text), message->json_charged,
                            message->partition->consumer->account, &message->body, &message->error))
        message->body = text; /* it may be read again */
    else
        flue_block_unref(text);
}

static void read_done(struct flue_job *job)
{
    struct kafka_message *message = of_job(job);

    flue_account_release(message->partition->consumer->account, message->json_charged);
    kafka_message_back(message);
}

bool kafka_message_read(struct kafka_message *message)
{
    struct kafka_consumer *consumer = message->partition->consumer;

    message->json_charged = flue_json_bound(flue_block_bytes(message->body));
    if ((int64_t)message->json_charged > atomic_load(&consumer->account->budget->hard)) {
        flue_fail(&message->error, FLUE_TOO_LARGE,
                  "reading %zu bytes of JSON may need %zu bytes of memory, more than there is",
                  message->body->size, message->json_charged);
        message->state = KAFKA_READY;
        message->bad = true;
        return true;
    }
    if (!flue_account_charge(consumer->account, message->json_charged))
        return false;
    message->state = KAFKA_READING;
    message->job = (struct flue_job){.work = read_work, .done = read_done};
    flue_pool_submit(consumer->home, &message->job);
    return true;
}

/* ---- pushing, on the partition's loop -----------------------------------------------------------
 */

static struct kafka_loop *loop_of(const struct kafka_message *message)
{
    return &message->partition->consumer->per_loop[message->partition->loop->index];
}

static void back(struct flue_task *task)
{
    kafka_message_back((struct kafka_message *)task);
}

static void go_home(struct kafka_message *message)
{
    if (message->before) {
        *message->before = message->after;
        if (message->after)
            message->after->before = message->before;
        message->before = NULL;
    }
    message->task.run = back;
    flue_loop_post(message->partition->consumer->home, &message->task);
}

static void delivered(void *arg, const struct flue_outcome *outcome)
{
    struct kafka_message *message = arg;
    struct kafka_consumer *consumer = message->partition->consumer;
    enum flue_code code = outcome->error.code;
    struct flue_metric *metric = code == FLUE_OK ? consumer->accepted
                                 : code == FLUE_INTERNAL || code == FLUE_NO_MEMORY
                                     ? consumer->failed
                                     : consumer->refused;

    message->delivery = NULL;
    message->error = outcome->error;
    flue_metric_add(metric, (int64_t)message->counts.samples);
    go_home(message);
}

static void push(struct flue_task *task)
{
    struct kafka_message *message = (struct kafka_message *)task;
    struct kafka_consumer *consumer = message->partition->consumer;
    struct kafka_loop *at = loop_of(message);
    struct kafka_decoded decoded;
    struct flue_batch *batch;

    message->error.code = FLUE_OK;
    message->after = at->pushed;
    message->before = &at->pushed;
    if (at->pushed)
        at->pushed->before = &message->after;
    at->pushed = message;
    enum flue_code code = kafka_decode(&consumer->settings->decoding, &message->context,
                                       message->body, consumer->account, &decoded, &message->error);
    message->counts = decoded.counts;
    flue_metric_add(consumer->repaired, (int64_t)decoded.repaired);
    flue_metric_add(consumer->rejected, (int64_t)decoded.rejected_profiles);
    if (code || !decoded.payload) {
        go_home(message);
        return;
    }
    batch =
        flue_batch_new(decoded.payload, message->context.origin, decoded.counts, consumer->account);
    message->delivery = batch ? flue_delivery_begin(at->loop, 0, delivered, message) : NULL;
    if (!message->delivery) {
        flue_batch_unref(batch);
        flue_fail(&message->error, FLUE_NO_MEMORY, "no memory to push a record");
        go_home(message);
        return;
    }
    struct flue_delivery *delivery = message->delivery;
    flue_consumer_push(consumer->pipelines, batch, delivery);
    flue_delivery_end(delivery); /* `message` may be at home by now */
}

void kafka_message_push(struct kafka_message *message)
{
    message->state = KAFKA_PUSHED;
    message->task.run = push;
    flue_loop_post(message->partition->loop, &message->task);
}

void kafka_messages_cancel(struct flue_task *task)
{
    struct kafka_loop *at =
        (struct kafka_loop *)((char *)task - offsetof(struct kafka_loop, cancel));
    struct kafka_message *next;

    for (struct kafka_message *message = at->pushed; message; message = next) {
        next = message->after;
        if (message->delivery)
            flue_delivery_cancel(message->delivery);
    }
}
