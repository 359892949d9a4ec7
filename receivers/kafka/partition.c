/* partition.c: the order of a partition's records, what of them is committed, and back-pressure. */
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "collector/base/log.h"
#include "receivers/kafka/consumer_inside.h"

#define NO_MEMORY_WAIT_NS 100000000u

static uint64_t hash_of(const char *topic, int32_t number)
{
    return flue_hash_join(flue_hash(flue_bytes_of(topic)), (uint64_t)(uint32_t)number);
}

struct kafka_partition *kafka_partition_find(struct kafka_consumer *consumer, const char *topic,
                                             int32_t number)
{
    struct kafka_partition *at = consumer->buckets[hash_of(topic, number) % KAFKA_BUCKETS];

    while (at && !(at->number == number && strcmp(at->topic, topic) == 0))
        at = at->next;
    return at;
}

struct kafka_partition *kafka_partition_new(struct kafka_consumer *consumer, const char *topic,
                                            int32_t number)
{
    struct kafka_partition *partition = calloc(1, sizeof *partition);
    uint64_t hash = hash_of(topic, number);

    if (!partition || !(partition->topic = strdup(topic))) {
        free(partition);
        return NULL;
    }
    partition->consumer = consumer;
    partition->number = number;
    /* Neighbours on different loops, whatever the hash of the name. */
    partition->loop =
        consumer->loops
            ->items[(flue_hash(flue_bytes_of(topic)) + (uint64_t)number) % consumer->loops->count];
    partition->last = &partition->first;
    partition->stored = partition->to_store = -1;
    partition->next = consumer->buckets[hash % KAFKA_BUCKETS];
    consumer->buckets[hash % KAFKA_BUCKETS] = partition;
    flue_metric_set(consumer->assigned, (int64_t)++consumer->partition_count);
    return partition;
}

static void free_if_over(struct kafka_partition *partition)
{
    if (!partition->gone || partition->pushed)
        return;
    while (partition->first) {
        struct kafka_message *message = partition->first;
        partition->first = message->next;
        kafka_message_free(message);
    }
    free(partition->topic);
    free(partition);
}

void kafka_partition_leave(struct kafka_partition *partition)
{
    struct kafka_consumer *consumer = partition->consumer;
    struct kafka_partition **at =
        &consumer->buckets[hash_of(partition->topic, partition->number) % KAFKA_BUCKETS];

    while (*at != partition)
        at = &(*at)->next;
    *at = partition->next;
    flue_metric_set(consumer->assigned, (int64_t)--consumer->partition_count);
    kafka_partition_forget(partition);
    partition->gone = true;
    free_if_over(partition);
}

static bool away(const struct kafka_message *message)
{
    return message->state == KAFKA_PUSHED || message->state == KAFKA_READING;
}

void kafka_partition_forget(struct kafka_partition *partition)
{
    struct kafka_message **at = &partition->first;
    bool dropped = false;

    partition->revoking = true;
    while (*at) {
        struct kafka_message *message = *at;
        if (away(message) || message->state == KAFKA_DONE) {
            if (dropped) /* nothing behind what was dropped may be committed */
                message->offset = -1;
            at = &message->next;
            continue;
        }
        dropped = true;
        *at = message->next;
        partition->count--;
        partition->bytes -= message->size;
        kafka_message_free(message);
    }
    partition->last = at;
    partition->held = 0;
    partition->retry_ns = 0;
}

/* ---- back-pressure -----------------------------------------------------------------------------
 */

static void pause_or_resume(struct kafka_partition *partition)
{
    struct kafka_consumer *consumer = partition->consumer;
    const struct kafka_consumer_settings *settings = consumer->settings;
    const struct flue_kafka *library = consumer->library;
    size_t messages = (size_t)settings->max_in_flight_messages;
    size_t bytes = (size_t)settings->max_in_flight_bytes;
    bool full = partition->count >= messages || partition->bytes >= bytes || partition->held;
    bool low =
        partition->count <= messages / 2 && partition->bytes <= bytes / 2 && !partition->held;

    if (partition->revoking || (partition->paused ? !low : !full))
        return;
    rd_kafka_topic_partition_list_t *list = library->rd_kafka_topic_partition_list_new(1);
    library->rd_kafka_topic_partition_list_add(list, partition->topic, partition->number);
    if (partition->paused)
        library->rd_kafka_resume_partitions(consumer->rk, list);
    else
        library->rd_kafka_pause_partitions(consumer->rk, list);
    library->rd_kafka_topic_partition_list_destroy(list);
    partition->paused = !partition->paused;
}

bool kafka_partition_take(struct kafka_partition *partition, rd_kafka_message_t *record)
{
    struct kafka_message *message = kafka_message_new(partition, record);

    if (!message)
        return false;
    *partition->last = message;
    partition->last = &message->next;
    partition->count++;
    partition->bytes += message->size;
    partition->held++;
    return true;
}

/* ---- outcomes ----------------------------------------------------------------------------------
 */

/* The first offset that is not taken goes into the books when it moved. */
static void advance(struct kafka_partition *partition)
{
    struct kafka_message *message;

    while ((message = partition->first) && message->state == KAFKA_DONE) {
        if (message->offset >= 0 && message->offset + 1 > partition->to_store)
            partition->to_store = message->offset + 1;
        partition->first = message->next;
        if (!partition->first)
            partition->last = &partition->first;
        partition->count--;
        partition->bytes -= message->size;
        kafka_message_free(message);
    }
    if (partition->to_store > partition->stored)
        partition->consumer->dirty = true;
}

static void set_past(struct kafka_message *message, struct flue_metric *metric, const char *what)
{
    struct kafka_partition *partition = message->partition;
    const char *id = partition->consumer->settings->id;

    flue_metric_add(metric, 1);
    flue_log(FLUE_ERROR, "receiver", what, FLUE_S("receiver", id),
             FLUE_S("topic", partition->topic), FLUE_I("partition", partition->number),
             FLUE_I("offset", message->offset), FLUE_U("bytes", message->size),
             FLUE_S("reason", flue_code_facts(message->error.code)->name),
             FLUE_S("error", message->error.text));
    message->state = KAFKA_DONE;
}

static uint64_t next_wait(struct kafka_partition *partition)
{
    const struct kafka_consumer_settings *settings = partition->consumer->settings;
    double interval =
        (double)(partition->interval_ns ? partition->interval_ns : settings->backoff_initial);
    double unit = (double)(flue_random_u64() >> 11) * 0x1p-53;
    double wait = interval * (1 - settings->backoff_randomization +
                              2 * settings->backoff_randomization * unit);
    double grown = settings->backoff_grows ? interval * settings->backoff_multiplier : interval;

    partition->interval_ns =
        (int64_t)(grown > (double)settings->backoff_max ? (double)settings->backoff_max : grown);
    return (uint64_t)wait;
}

static void fail(struct kafka_message *message)
{
    struct kafka_partition *partition = message->partition;
    struct kafka_consumer *consumer = partition->consumer;
    const struct kafka_consumer_settings *settings = consumer->settings;
    uint64_t now = flue_monotonic_ns();
    bool permanent = !flue_code_facts(message->error.code)->retryable;

    if (!message->failed_ns)
        message->failed_ns = now;
    uint64_t tried = now - message->failed_ns;
    bool enough = settings->backoff_elapsed && tried >= (uint64_t)settings->backoff_elapsed;
    if (permanent && settings->past_permanent) {
        set_past(message, consumer->poison, "set past a record that can never be taken");
        return;
    }
    if (!permanent && settings->past_errors && (enough || !settings->backoff_grows)) {
        set_past(message, consumer->lost, "set past a record that was not taken");
        return;
    }
    message->state = KAFKA_FAILED;
    flue_metric_add(consumer->retried, 1);
    if (partition->retry_ns)
        return;
    uint64_t stated = (uint64_t)message->error.retry_after_ms * 1000000u,
             wait = next_wait(partition);
    partition->retry_ns = now + (wait > stated ? wait : stated);
    flue_log(FLUE_WARN, "receiver", "a partition waits: its record was not taken",
             FLUE_S("receiver", settings->id), FLUE_S("topic", partition->topic),
             FLUE_I("partition", partition->number), FLUE_I("offset", message->offset),
             FLUE_U("after_ms", (partition->retry_ns - now) / 1000000),
             FLUE_S("error", message->error.text));
}

/* JSON became protobuf, or never will, or there was no memory for it. */
static void read_back(struct kafka_message *message)
{
    bool again = message->error.code && flue_code_facts(message->error.code)->retryable;

    message->state = KAFKA_READY;
    message->bad = message->error.code && !again;
    if (again && message->partition->revoking)
        message->state = KAFKA_FAILED;
    else if (again)
        fail(message);
    else
        message->raw = false;
}

void kafka_message_back(struct kafka_message *message)
{
    struct kafka_partition *partition = message->partition;
    struct kafka_consumer *consumer = partition->consumer;

    consumer->open--;
    partition->pushed--;
    if (message->state == KAFKA_READING) {
        read_back(message);
    } else if (message->error.code == FLUE_OK) {
        message->state = KAFKA_DONE;
        partition->interval_ns = 0;
    } else if (partition->revoking) {
        message->state = KAFKA_FAILED; /* another will have it */
    } else {
        fail(message);
    }
    if (partition->gone) {
        free_if_over(partition);
    } else {
        if (partition->revoking && message->state != KAFKA_DONE)
            kafka_partition_forget(partition);
        advance(partition);
        kafka_partition_go_on(partition);
    }
    kafka_consumer_look(consumer);
}

/* ---- what is next ------------------------------------------------------------------------------
 */

static void away_with(struct kafka_partition *partition)
{
    partition->pushed++;
    partition->consumer->open++;
}

static bool backs_off(struct kafka_partition *partition)
{
    struct kafka_message *message;

    if (!partition->retry_ns)
        return false;
    if (flue_monotonic_ns() < partition->retry_ns || partition->pushed) {
        /* What is on its way comes back first: the failed go again in order. */
        kafka_consumer_wake_at(partition->consumer, partition->retry_ns);
        return true;
    }
    partition->retry_ns = 0;
    for (message = partition->first; message; message = message->next)
        if (message->state == KAFKA_FAILED)
            message->state = message->raw && !message->bad ? KAFKA_RAW : KAFKA_READY;
    return false;
}

void kafka_partition_go_on(struct kafka_partition *partition)
{
    struct kafka_consumer *consumer = partition->consumer;
    bool blocked = false;

    if (partition->revoking || partition->gone || consumer->stopping || backs_off(partition))
        return;
    for (struct kafka_message *message = partition->first; message; message = message->next) {
        if (message->state < KAFKA_PUSHED &&
            partition->pushed >= (size_t)consumer->settings->max_in_flight_messages)
            break; /* what came before the pause took effect */
        if (message->state == KAFKA_HELD) {
            if (!kafka_message_admit(message)) {
                kafka_consumer_wake_at(consumer, flue_monotonic_ns() + NO_MEMORY_WAIT_NS);
                break;
            }
            partition->held--;
        }
        if (message->state == KAFKA_RAW) {
            if (!kafka_message_read(message)) {
                kafka_consumer_wake_at(consumer, flue_monotonic_ns() + NO_MEMORY_WAIT_NS);
                break;
            }
            if (message->state == KAFKA_READING)
                away_with(partition);
        }
        blocked |= message->state == KAFKA_READING || message->state == KAFKA_FAILED;
        if (message->state != KAFKA_READY || blocked)
            continue;
        if (message->bad) { /* it was found wrong before it could be pushed */
            fail(message);
            blocked |= message->state == KAFKA_FAILED;
            continue;
        }
        if (!consumer->settings->mark_after && message->offset + 1 > partition->to_store) {
            partition->to_store = message->offset + 1;
            consumer->dirty = true;
        }
        away_with(partition);
        kafka_message_push(message);
    }
    advance(partition);
    pause_or_resume(partition);
    if (partition->retry_ns)
        kafka_consumer_wake_at(consumer, partition->retry_ns);
}
