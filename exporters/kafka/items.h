/* items.h: batches on their way, and the order in which their records go. See items.c. */
#ifndef FLUE_EXPORTERS_KAFKA_ITEMS_H
#define FLUE_EXPORTERS_KAFKA_ITEMS_H

#include "collector/pipeline/exporter.h"
#include "exporters/kafka/config.h"
#include "exporters/kafka/producer.h"

#define KAFKA_LANE_WORDS 4

struct kafka_lane;
struct kafka_item { /* the state of a flue_send */
    struct flue_send *send;
    struct kafka_lane *at;
    struct flue_arena arena;
    struct kafka_records records;
    uint64_t keys[KAFKA_LANE_WORDS]; /* lanes of its records */
    uint64_t sequence;
    struct kafka_item *next_in_line, *next_troubled;
    bool in_line, troubled, made, making, cancelled, gone;
    bool busy;    /* its keys are in the lane's `busy` */
    bool attempt; /* the engine waits for a verdict */
    bool orphan;  /* the engine has ended it, while its records are under way */
    enum flue_code made_code;
    struct flue_error error; /* of making, then the first of an attempt */
    struct flue_payload *payload;
    struct flue_job job;
    struct flue_task task;
    struct kafka_producer *producer; /* of this attempt */
    struct kafka_record *next_record;
    size_t awaits;         /* a limit of batches below this one; 0: none */
    _Atomic unsigned open; /* records under way, and one while there are more to hand over */
    struct flue_account *account;
    size_t charged;
};

struct kafka_lane { /* of one loop */
    struct kafka_exporter *kafka;
    struct flue_loop *loop;
    struct kafka_item *line;         /* to be handed over, by sequence */
    struct kafka_item *troubled;     /* failed, not yet ended */
    uint64_t busy[KAFKA_LANE_WORDS]; /* keys of the items that librdkafka has; no two share one */
    uint64_t sequence;
    struct flue_timer timer;
    bool pumping, again;
};

struct kafka_exporter {
    const char *id;
    const struct kafka_exporter_config *config;
    struct flue_loops *loops;
    struct kafka_record_rules rules;
    struct kafka_topics topics;
    bool has_topics;
    struct kafka_producers producers;
    struct kafka_lane *lanes;
    struct flue_metric *records, *bytes, *left_out, *cut;
    _Atomic unsigned under_way, given_up; /* items with records under way; those cancelled */
    struct flue_task stop;
    _Atomic bool stopping, stopped;
};

void kafka_lane_init(struct kafka_lane *lane, struct kafka_exporter *kafka, struct flue_loop *loop);
void kafka_item_send(void *instance, struct flue_send *send);
/* The loops have stopped: waits for what is being made into records, which reads the item. */
void kafka_items_settle(struct kafka_exporter *kafka);
/* A record is back. On the home loop of the producers. */
void kafka_record_delivered(struct kafka_record *record);

#endif
