/* consumer_inside.h: what consumer.c (the group), partition.c (order and offsets) and message.c
 * (decoding and pushing) share. */
#ifndef RECEIVERS_KAFKA_CONSUMER_INSIDE_H
#define RECEIVERS_KAFKA_CONSUMER_INSIDE_H

#include "collector/kafka/wakeup.h"
#include "receivers/kafka/consumer.h"

enum kafka_message_state {
    KAFKA_HELD,    /* in librdkafka's memory: there was none of ours */
    KAFKA_RAW,     /* JSON, not yet protobuf */
    KAFKA_READING, /* on the pool */
    KAFKA_READY,   /* to be pushed */
    KAFKA_PUSHED,  /* its partition's loop has it */
    KAFKA_FAILED,  /* to be pushed again after the partition's backoff */
    KAFKA_DONE
};

struct kafka_message {
    struct flue_task task; /* first */
    struct flue_job job;
    struct kafka_partition *partition;
    struct kafka_message *next;            /* by offset */
    struct kafka_message *after, **before; /* pushed, on its loop */
    int64_t offset;
    size_t size;
    enum kafka_message_state state;
    bool raw; /* `body` is JSON */
    bool bad; /* never to be pushed, `error` says why */
    rd_kafka_message_t *held;
    struct flue_block *body;
    struct kafka_context context;
    struct flue_delivery *delivery;
    struct flue_error error; /* the outcome */
    struct flue_counts counts;
    uint64_t rejected_samples;
    uint64_t failed_ns; /* first failure */
    size_t json_charged;
};

struct kafka_partition {
    struct kafka_consumer *consumer;
    char *topic;
    int32_t number;
    struct flue_loop *loop;
    struct kafka_partition *next; /* of its bucket */
    struct kafka_message *first, **last;
    size_t count, bytes, pushed, held;
    int64_t stored, to_store; /* offsets; -1: none */
    uint64_t retry_ns;        /* 0: no backoff */
    int64_t interval_ns;
    bool paused, revoking, gone;
};

#define KAFKA_BUCKETS 256
struct kafka_loop { /* of one loop: what is pushed there */
    struct kafka_consumer *consumer;
    struct flue_loop *loop;
    struct kafka_message *pushed;
    struct flue_task cancel;
};
struct kafka_consumer {
    const struct kafka_consumer_settings *settings;
    const struct flue_kafka *library;
    struct flue_consumer *pipelines;
    struct flue_account *account;
    struct flue_loops *loops;
    struct flue_loop *home;
    struct kafka_loop *per_loop;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    struct flue_kafka_wakeup wakeup;
    bool polled;
    size_t prefetch;            /* charged for what the library reads ahead */
    rd_kafka_message_t *parked; /* for want of memory */
    struct kafka_partition *buckets[KAFKA_BUCKETS];
    size_t partition_count, open; /* records that are pushed or on the pool */
    struct flue_timer timer;
    rd_kafka_topic_partition_list_t *revoking; /* to be given up */
    uint64_t revoke_ns;
    bool dirty; /* some to_store is new */
    bool stopping, cancelled, closing;
    uint64_t deadline_ns;
    struct flue_task stop;
    struct flue_job close;
    _Atomic bool stopped, close_pending;
    struct flue_metric *accepted, *refused, *failed, *messages, *poison, *lost, *left_out,
        *assigned, *rejected, *repaired, *errors, *retried;
    struct flue_histogram *delay;
};

/* message.c */
struct kafka_message *kafka_message_new(struct kafka_partition *partition,
                                        rd_kafka_message_t *record);
void kafka_message_free(struct kafka_message *message);
/* Memory for it, from the account: its body and context; false: not now. What is wrong with it for
 * good is in message->error. */
bool kafka_message_admit(struct kafka_message *message);
bool kafka_message_read(struct kafka_message *message); /* JSON; false: no memory for it now */
void kafka_message_push(struct kafka_message *message); /* to its loop */
void kafka_messages_cancel(struct flue_task *task);     /* of a struct kafka_loop, on its loop */

/* partition.c, on the home loop */
struct kafka_partition *kafka_partition_new(struct kafka_consumer *consumer, const char *topic,
                                            int32_t number);
struct kafka_partition *kafka_partition_find(struct kafka_consumer *consumer, const char *topic,
                                             int32_t number);
/* Leaves the consumer; freed when its last pushed record is back. */
void kafka_partition_leave(struct kafka_partition *partition);
/* Takes the record; false: no memory, the record is still the caller's. */
bool kafka_partition_take(struct kafka_partition *partition, rd_kafka_message_t *record);
void kafka_partition_go_on(struct kafka_partition *partition);
/* Drops what is not on its way. */
void kafka_partition_forget(struct kafka_partition *partition);
void kafka_message_back(struct kafka_message *message); /* pushed, or read */

/* consumer.c, on the home loop */
void kafka_consumer_look(struct kafka_consumer *consumer); /* something ended: revoke, stop? */
void kafka_consumer_wake_at(struct kafka_consumer *consumer, uint64_t due_ns);

#endif
