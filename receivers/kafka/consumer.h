/* consumer.h: a member of a consumer group: takes records, pushes them in order, commits what was
 * taken.
 *
 * Everything here belongs to one loop, the home loop, but for a record that is on its way: its
 * partition's loop decodes and pushes it, and gives it back with the outcome. A partition has up to
 * max_in_flight_messages and max_in_flight_bytes of records; beyond that it is paused. The offset
 * that is committed is the first that was not yet taken, whatever was taken behind it.
 *
 * A record that a pipeline cannot take now stops its partition, which goes on with that record and
 * those behind it that failed, in order, after a backoff. One that will never be taken is counted,
 * logged, and set past.
 *
 * Before partitions are given up their open records are waited for, until revoke_timeout.
 *
 * Memory: a record is charged from when it is taken on. What the library reads ahead cannot be
 * measured, so max_prefetch_bytes are charged from start to end, used or not; the library may pass
 * them by one answer (max_fetch_size) of each broker.
 */
#ifndef RECEIVERS_KAFKA_CONSUMER_H
#define RECEIVERS_KAFKA_CONSUMER_H

#include "collector/component.h"
#include "collector/kafka/client.h"
#include "receivers/kafka/decode.h"

struct kafka_consumer_settings {
    const char *id;
    struct kafka_decoding decoding;
    struct flue_list topics;
    bool autocommit;     /* by librdkafka at its interval; else after every turn */
    bool mark_after;     /* false: an offset counts when its record is begun */
    bool past_errors;    /* message_marking.on_error */
    bool past_permanent; /* message_marking.on_permanent_error */
    bool backoff_grows;
    int64_t backoff_initial, backoff_max, backoff_elapsed; /* ns; elapsed 0: for ever */
    double backoff_multiplier, backoff_randomization;
    int64_t max_in_flight_messages, max_in_flight_bytes, max_prefetch_bytes, revoke_timeout;
    bool delay_metric;
    const char *login_hint;
};

struct kafka_consumer;
/* `settings`, `create` and what they point to outlive it. Main thread. */
struct kafka_consumer *kafka_consumer_new(const struct kafka_consumer_settings *settings,
                                          const struct flue_create *create);
/* Takes `conf`, also on failure. Main thread, before the loops run. */
enum flue_code kafka_consumer_start(struct kafka_consumer *consumer,
                                    const struct flue_kafka *library, rd_kafka_conf_t *conf,
                                    struct flue_error *error);
/* Main thread: takes no more, waits for what is open, commits and leaves the group. */
void kafka_consumer_stop(struct kafka_consumer *consumer, uint64_t deadline_ns);
bool kafka_consumer_stopped(const struct kafka_consumer *consumer);
/* Loops stopped. NULL is fine. */
void kafka_consumer_destroy(struct kafka_consumer *consumer);

#endif
