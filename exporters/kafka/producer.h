/* producer.h: one librdkafka producer for all loops of an exporter, and its next one after a fatal
 * error.
 *
 * Records are handed over without a copy: their memory stays the caller's until the delivery report
 * (done), which comes on the home loop for every record that kafka_producer_send took. An
 * idempotent producer that met a fatal error takes nothing more; the next is made in its place and
 * the old one ends when its last reference goes.
 */
#ifndef EXPORTERS_KAFKA_PRODUCER_H
#define EXPORTERS_KAFKA_PRODUCER_H

#include "collector/kafka/client.h"
#include "exporters/kafka/records.h"

struct kafka_producers {
    const struct flue_kafka *kafka;
    const char *id;
    rd_kafka_conf_t *conf; /* duplicated for each */
    struct flue_loop *home;
    /* On the home loop: `status` of the record is set (enum rd_kafka_resp_err_t). */
    void (*done)(struct kafka_record *record);
    struct flue_metric *errors;
    /* Of a batch of records: what a broker refuses as too large is a batch, so a smaller limit
     * needs another producer. Begins at max_message_bytes. */
    _Atomic size_t limit;
    const char *login_hint;
    uv_mutex_t lock; /* of what follows */
    struct kafka_producer *current;
    char said[200]; /* the last error of the connection, for messages */
    uint64_t said_ns;
    _Atomic unsigned living;
    bool made;
    struct flue_task shrink;
    _Atomic size_t shrink_from; /* 0: not asked for */
};
struct kafka_producer;
#define KAFKA_LIMIT_LEAST 4096u

/* Takes `conf`, also on failure. Main thread, before the loops run. */
enum flue_code kafka_producers_start(struct kafka_producers *producers, rd_kafka_conf_t *conf,
                                     struct flue_error *error);
/* A reference of the current one, NULL when there is none (stopped). Any thread. */
struct kafka_producer *kafka_producer_get(struct kafka_producers *producers);
void kafka_producer_put(struct kafka_producer *producer); /* NULL is fine; any thread */
/* Any thread. RD_KAFKA_RESP_ERR_NO_ERROR: taken, `done` will come. __QUEUE_FULL: later. */
rd_kafka_resp_err_t kafka_producer_send(struct kafka_producer *producer,
                                        struct kafka_record *record);
/* Ends what waits and what is on its way; every record's `done` comes soon. Any thread. */
void kafka_producer_purge(struct kafka_producer *producer);
size_t kafka_producer_limit(const struct kafka_producer *producer);
/* A broker refused a batch under this limit: soon it is half, unless it is less already. Any
 * thread.
 */
void kafka_producers_shrink(struct kafka_producers *producers, size_t from);
/* What the connection said within the last minute, or "". */
void kafka_producers_said(struct kafka_producers *producers, char *out, size_t size);

/* On the home loop, when no record is under way. */
void kafka_producers_stop(struct kafka_producers *producers);
bool kafka_producers_stopped(const struct kafka_producers *producers);
/* Loops stopped. */
void kafka_producers_destroy(struct kafka_producers *producers);

#endif
