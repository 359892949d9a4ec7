/* kafka.c: batches to Apache Kafka, as records keyed by service.
 *
 * A batch is acknowledged when the brokers have acknowledged all of its records; what of it they
 * have taken is not sent again. The memory of records is not copied: it stays the item's until the
 * delivery report, and is charged to the pipeline's account.
 *
 * Order: of the items of one loop that share a key only one is with librdkafka at a time, in the
 * order in which they came: the library gives up each record by its own clock, so that one behind
 * could arrive when the one before it has failed. An item that failed and waits to be sent again
 * holds up those behind it that share a key, and no others. Keys are told apart by a filter of 256
 * lanes; records without a key have no order. A key so moves one batch per round trip and linger.
 *
 * Keys: opentelemetry-collector-contrib, exporter/kafkaexporter and pkg/kafka/configkafka.
 * Other defaults: required_acks is `all` (an idempotent producer), profiles are keyed by service.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "collector/base/log.h"
#include "collector/component.h"
#include "collector/pipeline/exporter.h"
#include "collector/pipeline/ledger.h"
#include "exporters/kafka/producer.h"
#include "proto/convert/convert.h"

#define IN_LINE      (64u * 1024) /* larger batches are made into records on the pool */
#define RECORD_COST  1024         /* of librdkafka and headers, charged for each */
#define ARENA_MOST   (256u << 20) /* of an item's keys, headers and cuts */
#define FULL_WAIT_NS 20000000u
#define MS           INT64_C(1000000)
#define LANE_WORDS   4

/* ---- configuration ----------------------------------------------------------------------------
 */

struct kafka_exporter_profiles {
    const char *topic, *topic_from_metadata_key, *message_key_from_metadata_key,
        *message_key_from_attribute;
    int encoding;
};
struct kafka_compression_config {
    int64_t level;
};
struct kafka_producer_config {
    int64_t max_message_bytes, flush_max_messages, linger;
    struct flue_value required_acks;
    int compression;
    struct kafka_compression_config compression_params;
    bool allow_auto_topic_creation;
};
struct kafka_sticky_config {
    int hasher;
};
struct kafka_empty_config {
    bool enabled;
};
struct kafka_partitioner_config {
    struct kafka_sticky_config sticky_key;
    const struct kafka_empty_config *round_robin, *least_backup;
    const char *extension;
};
struct kafka_exporter_config {
    struct flue_kafka_client_config client; /* squashed */
    struct kafka_exporter_profiles profiles;
    struct kafka_producer_config producer;
    struct kafka_partitioner_config record_partitioner;
    const char *topic, *encoding, *topic_from_attribute;
    struct flue_list include_metadata_keys, headers_from_attributes;
    struct flue_map record_headers;
    int64_t timeout;
};

static const char *const compressions[] = {"none", "gzip", "snappy", "lz4", "zstd", NULL};
static const char *const hashers[] = {"sarama_compat", "murmur2", NULL};

static const struct flue_field profiles_fields[] = {
    FLUE_STRING(struct kafka_exporter_profiles, topic, .def = "otlp_profiles",
                .help = "the topic of profiles"),
    FLUE_ENUM(struct kafka_exporter_profiles, encoding, .choices = flue_kafka_encodings,
              .help = "of a record: OTLP, OTLP's JSON, or one pprof profile with the labels of its "
                      "series as headers flue.label.NAME"),
    FLUE_STRING(struct kafka_exporter_profiles, topic_from_metadata_key,
                .help = "request header that names the topic; needs include_metadata at the "
                        "receiver. What is no topic's name, or one over 256, goes to `topic`"),
    FLUE_STRING(struct kafka_exporter_profiles, message_key_from_attribute, .def = "service.name",
                .help = "resource attribute that is the record's key: what has the same key stays "
                        "in order; empty: no keys"),
    FLUE_STRING(struct kafka_exporter_profiles, message_key_from_metadata_key,
                .help = "request header that is the record's key, instead"),
    FLUE_FIELDS_END};
static const struct flue_field compression_fields[] = {
    FLUE_INT(struct kafka_compression_config, level, .def = "-1", .minimum = -1, .maximum = 12,
             .help = "gzip 0 to 9, lz4 0 to 12, zstd 1 to 12; -1: the codec's own"),
    FLUE_FIELDS_END};
static const struct flue_field producer_fields[] = {
    FLUE_SIZE(struct kafka_producer_config, max_message_bytes, .def = "1000000", .minimum = 4096,
              .maximum = 1000000000, .unit = "bytes",
              .help =
                  "of a record with key and headers, before compression; a larger batch is cut. "
                  "No more than max.message.bytes of broker and topic"),
    FLUE_VALUE(struct kafka_producer_config, required_acks, .def = "all",
               .help = "all (or -1): every replica in sync, and an idempotent producer; 1: the "
                       "leader alone, which may lose what was acknowledged"),
    FLUE_ENUM(struct kafka_producer_config, compression, .choices = compressions,
              .help = "of batches of records"),
    FLUE_BLOCK(struct kafka_producer_config, compression_params, struct kafka_compression_config,
               compression_fields, .help = "how hard to compress"),
    FLUE_INT(struct kafka_producer_config, flush_max_messages, .def = "10000", .minimum = 0,
             .maximum = 1000000, .help = "records of one request; 0: the most there can be"),
    FLUE_DURATION(struct kafka_producer_config, linger, .def = "10ms", .minimum = 0,
                  .maximum = 900000 * MS, .help = "wait for more records of a partition"),
    FLUE_BOOL(struct kafka_producer_config, allow_auto_topic_creation, .def = "true",
              .help = "false is refused: forbid it at the broker (auto.create.topics.enable)"),
    FLUE_IGNORED("max_broker_write_bytes", "a request has one batch of at most max_message_bytes"),
    FLUE_FIELDS_END};
static const struct flue_field sticky_fields[] = {
    FLUE_ENUM(struct kafka_sticky_config, hasher, .choices = hashers,
              .help = "of keys: sarama_compat is FNV-1a, murmur2 is that of Java clients"),
    FLUE_FIELDS_END};
static const struct flue_field empty_fields[] = {
    FLUE_BOOL(struct kafka_empty_config, enabled, .def = "true", .help = "refused"),
    FLUE_FIELDS_END};
static const struct flue_field partitioner_fields[] = {
    FLUE_BLOCK(struct kafka_partitioner_config, sticky_key, struct kafka_sticky_config,
               sticky_fields, .help = "by key; records without one go where the next batch goes"),
    FLUE_OPTIONAL(struct kafka_partitioner_config, round_robin, struct kafka_empty_config,
                  empty_fields, .help = "refused: it breaks the order of keys"),
    FLUE_OPTIONAL(struct kafka_partitioner_config, least_backup, struct kafka_empty_config,
                  empty_fields, .help = "refused: it breaks the order of keys"),
    FLUE_STRING(struct kafka_partitioner_config, extension,
                .help = "refused: there are no partitioner extensions"),
    FLUE_FIELDS_END};
static const struct flue_field kafka_fields[] = {
    FLUE_SQUASH(struct kafka_exporter_config, client, struct flue_kafka_client_config,
                flue_kafka_client_fields),
    FLUE_BLOCK(struct kafka_exporter_config, profiles, struct kafka_exporter_profiles,
               profiles_fields, .help = "how profiles are written"),
    FLUE_BLOCK(struct kafka_exporter_config, producer, struct kafka_producer_config,
               producer_fields, .help = "how records are sent"),
    FLUE_BLOCK(struct kafka_exporter_config, record_partitioner, struct kafka_partitioner_config,
               partitioner_fields, .help = "which partition a record goes to"),
    FLUE_STRING(struct kafka_exporter_config, topic, .help = "deprecated: profiles.topic"),
    FLUE_STRING(struct kafka_exporter_config, encoding, .help = "deprecated: profiles.encoding"),
    FLUE_STRING(struct kafka_exporter_config, topic_from_attribute,
                .help = "resource attribute that names the topic"),
    FLUE_STRINGS(struct kafka_exporter_config, include_metadata_keys,
                 .help = "request headers that become headers of the record; with "
                         "sending_queue.batch name them in batch.partition.metadata_keys too. "
                         "The tenant is always there, as X-Scope-OrgID"),
    FLUE_STRINGS(struct kafka_exporter_config, headers_from_attributes, .def = "[service.name]",
                 .help = "resource attributes that become headers of the record where all its "
                         "resources agree; percent-encoded"),
    FLUE_SECRETS(struct kafka_exporter_config, record_headers,
                 .help = "constant headers of every record"),
    FLUE_DURATION(struct kafka_exporter_config, timeout, .def = "5s", .minimum = 0,
                  .maximum = 2147483647 * MS,
                  .help = "of one attempt to have a record acknowledged; 0: none"),
    FLUE_IGNORED("traces", "traces are not sent"),
    FLUE_IGNORED("metrics", "metrics are not sent"),
    FLUE_IGNORED("logs", "logs are not sent"),
    FLUE_IGNORED("partition_traces_by_id", "traces are not sent"),
    FLUE_IGNORED("partition_metrics_by_resource_attributes", "metrics are not sent"),
    FLUE_IGNORED("partition_logs_by_resource_attributes", "logs are not sent"),
    FLUE_IGNORED("partition_logs_by_trace_id", "logs are not sent"),
    FLUE_FIELDS_END};

static bool given(const char *text)
{
    return text && *text;
}

/* -1: all, 1; else no value. */
static int acks_of(const struct flue_value *value)
{
    if (value->type == FLUE_VALUE_STRING && flue_bytes_is(value->text, "all"))
        return -1;
    return value->type == FLUE_VALUE_INT && value->integer >= -1 && value->integer <= 1
               ? (int)value->integer
               : -2;
}

static const char *topic_of(const struct kafka_exporter_config *config)
{
    /* The deprecated key counts where the other is as it was born. */
    return given(config->topic) && strcmp(config->profiles.topic, "otlp_profiles") == 0
               ? config->topic
               : config->profiles.topic;
}

static int encoding_of(const struct kafka_exporter_config *config)
{
    if (given(config->encoding) && config->profiles.encoding == FLUE_KAFKA_OTLP_PROTO)
        for (int i = 0; flue_kafka_encodings[i]; i++)
            if (strcmp(config->encoding, flue_kafka_encodings[i]) == 0)
                return i;
    return config->profiles.encoding;
}

static void check_producer(const struct kafka_producer_config *producer, struct flue_check *check)
{
    int acks = acks_of(&producer->required_acks);

    if (acks == -2)
        flue_check_fail(check, "producer.required_acks", "is none of all, -1, 1");
    else if (acks == 0)
        flue_check_fail(check, "producer.required_acks",
                        "0 means that no broker acknowledges, and flue acknowledges only what was: "
                        "use all");
    else if (acks == 1)
        flue_check_warn(check, "producer.required_acks",
                        "1: what the leader alone has is acknowledged, and lost with it");
    if (!producer->allow_auto_topic_creation)
        flue_check_fail(check, "producer.allow_auto_topic_creation",
                        "false is nothing that librdkafka's producer can ask for: set "
                        "auto.create.topics.enable=false at the broker");
    if (producer->compression == 1 && producer->compression_params.level > 9)
        flue_check_fail(check, "producer.compression_params.level", "of gzip is at most 9");
}

static void kafka_check(const void *bound, struct flue_check *check)
{
    const struct kafka_exporter_config *config = bound;
    const struct kafka_partitioner_config *partitioner = &config->record_partitioner;

    flue_kafka_client_check(&config->client, check);
    check_producer(&config->producer, check);
    if (!flue_kafka_topic_valid(flue_bytes_of(config->profiles.topic)))
        flue_check_fail(check, "profiles.topic",
                        "\"%.64s\" is no topic: 1 to 249 of letters, digits and ._-",
                        config->profiles.topic ? config->profiles.topic : "");
    if (given(config->topic) && !flue_kafka_topic_valid(flue_bytes_of(config->topic)))
        flue_check_fail(check, "topic",
                        "\"%.64s\" is no topic: 1 to 249 of letters, digits and ._-",
                        config->topic);
    if (given(config->encoding)) {
        bool known = false;
        for (int i = 0; flue_kafka_encodings[i]; i++)
            known |= strcmp(config->encoding, flue_kafka_encodings[i]) == 0;
        if (!known)
            flue_check_fail(check, "encoding", "\"%.64s\" is none of otlp_proto, otlp_json, pprof",
                            config->encoding);
    }
    if (partitioner->round_robin)
        flue_check_fail(check, "record_partitioner.round_robin",
                        "would break the order of keys: use sticky_key, with "
                        "profiles.message_key_from_attribute \"\" to spread records");
    if (partitioner->least_backup)
        flue_check_fail(check, "record_partitioner.least_backup",
                        "would break the order of keys: use sticky_key");
    if (given(partitioner->extension))
        flue_check_fail(check, "record_partitioner.extension",
                        "there are no partitioner extensions: use sticky_key");
    size_t headers = config->include_metadata_keys.count + config->headers_from_attributes.count +
                     config->record_headers.count;
    if (headers > FLUE_KAFKA_HEADERS_MAX - 8)
        flue_check_fail(check, "record_headers",
                        "with include_metadata_keys and headers_from_attributes %zu headers, at "
                        "most %d",
                        headers, FLUE_KAFKA_HEADERS_MAX - 8);
}

/* ---- items ------------------------------------------------------------------------------------
 */

enum { RECORD_WAITS = -1, RECORD_SENT = 0 }; /* else an error of librdkafka, or under way */
#define RECORD_UNDER_WAY (-2)

struct kafka_lane;
struct kafka_item { /* the state of a flue_send */
    struct flue_send *send;
    struct kafka_lane *at;
    struct flue_arena arena;
    struct kafka_records records;
    uint64_t keys[LANE_WORDS]; /* lanes of its records */
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
    struct kafka_item *line;     /* to be handed over, by sequence */
    struct kafka_item *troubled; /* failed, not yet ended */
    uint64_t busy[LANE_WORDS];   /* keys of the items that librdkafka has; no two share one */
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

static void pump(struct kafka_lane *lane);

static void insert(struct kafka_lane *lane, struct kafka_item *item)
{
    struct kafka_item **at = &lane->line;

    while (*at && (*at)->sequence < item->sequence)
        at = &(*at)->next_in_line;
    item->next_in_line = *at;
    *at = item;
    item->in_line = true;
}

static void leave_line(struct kafka_item *item)
{
    struct kafka_item **at = &item->at->line;

    if (!item->in_line)
        return;
    while (*at != item)
        at = &(*at)->next_in_line;
    *at = item->next_in_line;
    item->in_line = false;
}

static void be_troubled(struct kafka_item *item, bool troubled)
{
    struct kafka_item **at = &item->at->troubled;

    if (item->troubled == troubled)
        return;
    item->troubled = troubled;
    if (troubled) {
        item->next_troubled = *at;
        *at = item;
        return;
    }
    while (*at != item)
        at = &(*at)->next_troubled;
    *at = item->next_troubled;
}

static bool share(const uint64_t *a, const uint64_t *b)
{
    uint64_t both = 0;
    for (unsigned i = 0; i < LANE_WORDS; i++)
        both |= a[i] & b[i];
    return both != 0;
}

static void add_keys(uint64_t *to, const uint64_t *keys)
{
    for (unsigned i = 0; i < LANE_WORDS; i++)
        to[i] |= keys[i];
}

static void take_keys(uint64_t *from, const uint64_t *keys)
{
    for (unsigned i = 0; i < LANE_WORDS; i++)
        from[i] &= ~keys[i];
}

static void charge(struct kafka_item *item)
{
    size_t now = item->records.bytes + item->records.count * RECORD_COST;

    if (now <= item->charged)
        return;
    flue_account_charge_always(item->account, now - item->charged);
    item->charged = now;
}

static void one_back(struct kafka_item *item);

/* The library takes nothing back of one item alone: when nobody waits for anything, of all. */
static void give_up(struct kafka_item *item)
{
    struct kafka_exporter *kafka = item->at->kafka;

    item->gone = true;
    if (atomic_fetch_add(&kafka->given_up, 1) + 1 >= atomic_load(&kafka->under_way) &&
        item->producer)
        kafka_producer_purge(item->producer);
}

static void free_item(void *state)
{
    struct kafka_item *item = state;
    struct kafka_lane *lane = item->at;

    bool more = item->in_line && item->busy;
    leave_line(item);
    be_troubled(item, false);
    if (item->busy) { /* it went for another's sake, see help; freed when all is back */
        item->orphan = true;
        give_up(item);
        if (more) {
            item->next_record = NULL;
            one_back(item);
        }
        return;
    }
    for (struct kafka_record *record = item->records.first; record; record = record->next)
        kafka_record_release(record);
    flue_payload_unref(item->payload);
    flue_account_release(item->account, item->charged);
    flue_arena_destroy(&item->arena);
    free(item);
    if (lane->line && !atomic_load(&lane->kafka->stopping))
        flue_timer_arm(lane->loop, &lane->timer, flue_monotonic_ns()); /* who waited for it */
}

/* ---- the end of an attempt --------------------------------------------------------------------
 */

static bool for_good(int status)
{
    switch (status) {
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
        return true;
    default:
        return false;
    }
}

static bool too_large(int status)
{
    return status == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
           status == RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE;
}

static void note(struct kafka_item *item, const struct kafka_record *record, enum flue_code code)
{
    char said[200];

    if (item->error.code)
        return;
    kafka_producers_said(&item->at->kafka->producers, said, sizeof said);
    flue_fail(
        &item->error, code, "kafka: %s (topic %s)%s%s",
        item->at->kafka->producers.kafka->rd_kafka_err2str((rd_kafka_resp_err_t)record->status),
        record->topic, said[0] ? "; " : "", said);
}

/* A record over the limit: the same data in smaller ones, in its place. False: as it was, it cannot
 * be cut. */
static bool cut(struct kafka_item *item, struct kafka_record **place, size_t limit)
{
    struct kafka_record *record = *place;
    struct kafka_records parts = {.count = 0};
    struct flue_error error = {0};

    if (kafka_records_cut(&item->at->kafka->rules, record, limit, item->account, &item->arena,
                          &parts, &error) ||
        !parts.first || parts.first->value.size >= record->value.size) {
        for (struct kafka_record *part = parts.first; part; part = part->next)
            kafka_record_release(part);
        return false;
    }
    for (struct kafka_record *part = parts.first; part; part = part->next) {
        part->item = item;
        part->status = RECORD_WAITS;
    }
    flue_counts_add(&item->records.rejected, &parts.rejected);
    if (!item->records.reason.code)
        item->records.reason = parts.reason;
    item->records.bytes += parts.bytes;
    item->records.count += parts.count;
    *parts.last = record->next;
    *place = parts.first;
    kafka_record_release(record);
    charge(item);
    return true;
}

/* A record that will never be taken leaves the item. */
static void reject(struct kafka_item *item, struct kafka_record **place, enum flue_code code)
{
    struct kafka_record *record = *place;
    struct flue_error *reason = &item->records.reason;

    if (!reason->code && code == FLUE_TOO_LARGE)
        flue_fail(reason, code,
                  "topic %s does not take a record of %zu bytes, and it cannot be cut",
                  record->topic, record->value.size);
    else if (!reason->code)
        flue_fail(
            reason, code, "kafka: %s (topic %s)",
            item->at->kafka->producers.kafka->rd_kafka_err2str((rd_kafka_resp_err_t)record->status),
            record->topic);
    flue_counts_add(&item->records.rejected, &record->counts);
    *place = record->next;
    kafka_record_release(record);
}

/* There is a smaller limit than that under which some records were refused. */
static void fit(struct kafka_item *item, size_t limit)
{
    for (struct kafka_record **at = &item->records.first; *at;) {
        struct kafka_record *record = *at;
        size_t size = record->value.size + record->key.size + record->header_bytes;
        bool over = size > limit || limit <= KAFKA_LIMIT_LEAST;
        bool alone = record->refused && record->refused <= size; /* in the batch refused */
        if (record->status == RECORD_WAITS && record->refused && over && !cut(item, at, limit) &&
            (alone || limit <= KAFKA_LIMIT_LEAST)) {
            reject(item, at, FLUE_TOO_LARGE);
            continue;
        }
        at = &(*at)->next;
    }
    item->next_record = item->records.first;
    item->awaits = 0;
}

static void conclude(struct kafka_item *item)
{
    struct flue_send *send = item->send;
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    struct kafka_lane *lane = item->at;

    send->cancel = NULL;
    item->attempt = false;
    if (item->error.code && !item->cancelled) {
        be_troubled(item, flue_code_facts(item->error.code)->retryable);
        flue_send_fail(send, &item->error);
    } else if (item->cancelled && item->error.code) {
        flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
        be_troubled(item, false);
        flue_send_fail(send, &item->error);
    } else {
        be_troubled(item, false);
        verdict.rejected = item->records.rejected;
        verdict.error = item->records.reason;
        if (item->records.reason.code && !item->records.first)
            verdict.kind = FLUE_DROP;
        flue_send_done(send, &verdict);
    }
    pump(lane);
}

/* Records went without an attempt of their own, for the sake of one behind: see help. */
static void helped(struct kafka_item *item)
{
    struct kafka_lane *lane = item->at;
    struct flue_error error = item->error;
    uint64_t keys[LANE_WORDS], sequence = item->sequence;
    struct kafka_item *behind;

    memcpy(keys, item->keys, sizeof keys);
    if (!error.code) { /* its own attempt will find nothing left to do */
        be_troubled(item, false);
        pump(lane);
        return;
    }
    for (behind = lane->line; behind;) { /* they would fare the same */
        if (behind->sequence > sequence && behind->attempt && behind->made && !behind->busy &&
            share(keys, behind->keys)) {
            behind->error = error;
            leave_line(behind);
            conclude(behind);
            behind = lane->line;
            continue;
        }
        behind = behind->next_in_line;
    }
    pump(lane);
}

/* All records of an attempt are back. */
static void returned(struct flue_task *task)
{
    struct kafka_item *item =
        (struct kafka_item *)((char *)task - offsetof(struct kafka_item, task));
    struct kafka_exporter *kafka = item->at->kafka;
    size_t limit = item->producer ? kafka_producer_limit(item->producer) : 0;

    kafka_producer_put(item->producer);
    item->producer = NULL;
    item->busy = false;
    take_keys(item->at->busy, item->keys);
    atomic_fetch_sub(&kafka->under_way, 1);
    if (item->gone) {
        atomic_fetch_sub(&kafka->given_up, 1);
        item->gone = false;
    }
    for (struct kafka_record **at = &item->records.first; *at;) {
        struct kafka_record *record = *at;
        if (for_good(record->status)) {
            reject(item, at, FLUE_REFUSED);
            continue;
        }
        if (too_large(record->status)) {
            flue_metric_add(kafka->cut, 1);
            record->refused = limit;
            item->awaits = limit;
            record->status = RECORD_WAITS;
        } else if (record->status == RECORD_WAITS) { /* cancelled before it was handed over */
            if (!item->error.code)
                flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
        } else if (record->status != RECORD_SENT) {
            note(item, record, FLUE_UNAVAILABLE);
            record->status = RECORD_WAITS;
        }
        at = &record->next;
    }
    if (item->orphan) {
        free_item(item);
        return;
    }
    if (item->awaits && !item->error.code && !item->cancelled) {
        insert(item->at, item);
        pump(item->at);
        return;
    }
    if (item->awaits && !item->error.code)
        flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
    if (item->attempt)
        conclude(item);
    else
        helped(item);
}

static void one_back(struct kafka_item *item)
{
    if (atomic_fetch_sub_explicit(&item->open, 1, memory_order_acq_rel) == 1) {
        item->task.run = returned;
        flue_loop_post(item->at->loop, &item->task);
    }
}

/* On the home loop of the producers. */
static void delivered(struct kafka_record *record)
{
    struct kafka_item *item = record->item;
    struct kafka_exporter *kafka = item->at->kafka;

    if (record->status == RECORD_SENT) {
        flue_metric_add(kafka->records, 1);
        flue_metric_add(kafka->bytes, (int64_t)record->value.size);
    }
    one_back(item);
}

/* ---- handing over ------------------------------------------------------------------------------
 */

/* False: librdkafka's queue is full, go on later. */
static bool hand_over(struct kafka_item *item)
{
    struct kafka_exporter *kafka = item->at->kafka;

    if (!item->busy) { /* begins an attempt */
        item->busy = true;
        add_keys(item->at->busy, item->keys);
        item->producer = kafka_producer_get(&kafka->producers);
        item->error = (struct flue_error){0};
        atomic_store_explicit(&item->open, 1, memory_order_release);
        atomic_fetch_add(&kafka->under_way, 1);
    }
    for (; item->next_record; item->next_record = item->next_record->next) {
        struct kafka_record *record = item->next_record;
        if (record->status != RECORD_WAITS)
            continue;
        rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__DESTROY;
        record->status = RECORD_UNDER_WAY;
        atomic_fetch_add_explicit(&item->open, 1, memory_order_acq_rel);
        if (item->producer)
            code = kafka_producer_send(item->producer, record);
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        atomic_fetch_sub_explicit(&item->open, 1, memory_order_acq_rel); /* ours keeps it up */
        record->status = code == RD_KAFKA_RESP_ERR__QUEUE_FULL ? RECORD_WAITS : (int)code;
        if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
            return false;
    }
    leave_line(item);
    one_back(item);
    return true;
}

/* The first of those that failed before and that the item must not overtake, or NULL. */
static struct kafka_item *held_up_by(const struct kafka_lane *lane, const struct kafka_item *item)
{
    struct kafka_item *first = NULL;

    for (struct kafka_item *before = lane->troubled; before; before = before->next_troubled)
        if (before != item && before->sequence < item->sequence &&
            share(before->keys, item->keys) && (!first || before->sequence < first->sequence))
            first = before;
    return first;
}

/* The engine may have chosen one to try the destination, and holds back the one that must go first:
 * its records go now, in front. */
static void help(struct kafka_lane *lane, struct kafka_item *first)
{
    if (first->attempt || first->in_line || first->busy || !first->made || first->made_code)
        return;
    first->cancelled = false;
    first->awaits = 0;
    first->next_record = first->records.first;
    insert(lane, first);
    lane->again = true;
}

/* Is there a limit that the item's records may pass? Then they are cut to it. */
static bool smaller(struct kafka_lane *lane, struct kafka_item *item)
{
    struct kafka_producers *producers = &lane->kafka->producers;
    size_t limit = atomic_load(&producers->limit);

    if (limit >= item->awaits && limit > KAFKA_LIMIT_LEAST) {
        kafka_producers_shrink(producers, limit);
        flue_timer_arm(lane->loop, &lane->timer, flue_monotonic_ns() + FULL_WAIT_NS);
        return false;
    }
    fit(item, limit);
    return true;
}

static void pump(struct kafka_lane *lane)
{
    uint64_t blocked[LANE_WORDS] = {0};
    struct kafka_item *item, *next;

    if (lane->pumping) {
        lane->again = true;
        return;
    }
    lane->pumping = true;
    do {
        lane->again = false;
        memcpy(blocked, lane->busy, sizeof blocked);
        for (item = lane->line; item; item = next) {
            next = item->next_in_line;
            if (!item->made) /* its keys are not known yet */
                break;
            if (!item->busy) {
                struct kafka_item *first = held_up_by(lane, item);
                if (first || share(blocked, item->keys)) {
                    if (first && item->attempt)
                        help(lane, first);
                    add_keys(blocked, item->keys);
                    continue;
                }
                if (item->made_code) {
                    leave_line(item);
                    conclude(item);
                    break; /* the line may be another now */
                }
                if (item->awaits && !smaller(lane, item)) {
                    add_keys(blocked, item->keys);
                    continue;
                }
            }
            add_keys(blocked, item->keys);
            if (!hand_over(item)) {
                flue_timer_arm(lane->loop, &lane->timer, flue_monotonic_ns() + FULL_WAIT_NS);
                break;
            }
        }
    } while (lane->again);
    lane->pumping = false;
}

static void on_timer(struct flue_timer *timer)
{
    pump((struct kafka_lane *)((char *)timer - offsetof(struct kafka_lane, timer)));
}

/* ---- making records ----------------------------------------------------------------------------
 */

static void make(struct kafka_item *item)
{
    struct kafka_record_rules rules = item->at->kafka->rules;
    size_t limit = atomic_load(&item->at->kafka->producers.limit);

    if (limit < rules.max_bytes)
        rules.max_bytes = limit;
    item->made_code = kafka_records_make(&rules, item->send->batch, item->payload, &item->arena,
                                         &item->records, &item->error);
}

static void made(struct kafka_item *item)
{
    struct kafka_exporter *kafka = item->at->kafka;

    item->made = true;
    item->making = false;
    flue_payload_unref(item->payload);
    item->payload = NULL;
    for (struct kafka_record *record = item->records.first; record; record = record->next) {
        record->item = item;
        record->status = RECORD_WAITS;
        if (record->key.data)
            item->keys[record->lane >> 6] |= (uint64_t)1 << (record->lane & 63);
    }
    item->next_record = item->records.first;
    flue_metric_add(kafka->left_out, (int64_t)item->records.left_out);
    charge(item);
    if (item->cancelled && !item->made_code)
        item->made_code = flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
    pump(item->at);
}

static struct kafka_item *of_job(struct flue_job *job)
{
    return (struct kafka_item *)((char *)job - offsetof(struct kafka_item, job));
}

static void make_work(struct flue_job *job)
{
    make(of_job(job));
}

static void make_done(struct flue_job *job)
{
    made(of_job(job));
}

static void cancel(struct flue_send *send)
{
    struct kafka_item *item = send->state;

    if (item->cancelled)
        return;
    item->cancelled = true;
    if (item->making)
        return;
    if (item->in_line && !item->busy) { /* nothing of it is under way */
        flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
        item->made_code = FLUE_CANCELLED;
        leave_line(item);
        conclude(item);
        return;
    }
    give_up(item);
    if (item->in_line) { /* the rest of it need not be handed over */
        leave_line(item);
        item->next_record = NULL;
        one_back(item);
    }
}

/* A new item's records: the form on this loop, the rest on the pool where it is long. */
static void begin(struct kafka_item *item)
{
    struct kafka_exporter *kafka = item->at->kafka;
    const struct flue_batch *batch = item->send->batch;
    enum flue_form form =
        kafka->rules.encoding == FLUE_KAFKA_PPROF ? FLUE_FORM_PPROF : FLUE_FORM_OTLP;

    item->sequence = ++item->at->sequence;
    insert(item->at, item);
    item->made_code =
        flue_convert(batch->payload, form, batch->account, &item->payload, &item->error);
    if (item->made_code) {
        item->payload = NULL;
        made(item);
    } else if (item->payload->ops->encoded_size(item->payload) <= IN_LINE) {
        make(item);
        made(item);
    } else {
        item->making = true;
        item->job = (struct flue_job){.work = make_work, .done = make_done};
        flue_pool_submit(item->at->loop, &item->job);
    }
}

static void kafka_send(void *instance, struct flue_send *send)
{
    struct kafka_exporter *kafka = instance;
    struct kafka_lane *lane = &kafka->lanes[send->loop->index];
    struct kafka_item *item = send->state;
    struct flue_error error = {0};

    if (item && item->made && !item->made_code) { /* again */
        send->cancel = cancel;
        item->cancelled = false;
        item->attempt = true;
        if (item->in_line || item->busy) /* under way already */
            return;
        item->awaits = 0;
        item->next_record = item->records.first;
        insert(lane, item);
        pump(lane);
        return;
    }
    if (item) { /* its records could not be made */
        free_item(item);
        send->state = NULL;
    }
    item = calloc(1, sizeof *item);
    if (!item) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory to send a batch");
        flue_send_fail(send, &error);
        return;
    }
    item->send = send;
    item->attempt = true;
    item->at = lane;
    item->account = send->batch->account;
    flue_arena_init(&item->arena, ARENA_MOST, 0);
    send->state = item;
    send->free_state = free_item;
    send->cancel = cancel;
    begin(item);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static struct flue_bytes lower(struct flue_arena *arena, const char *text)
{
    char *copy = flue_arena_string(arena, flue_bytes_of(text ? text : ""));
    for (char *at = copy; at && *at; at++)
        *at = (char)tolower((unsigned char)*at);
    return flue_bytes_of(copy);
}

static bool make_headers(struct kafka_exporter *kafka, struct flue_arena *arena)
{
    const struct kafka_exporter_config *config = kafka->config;
    struct kafka_record_rules *rules = &kafka->rules;
    const char *const *names = config->include_metadata_keys.items;
    const char *const *attributes = config->headers_from_attributes.items;
    struct flue_kafka_header *constant =
        flue_arena_zalloc(arena, config->record_headers.count + 1, sizeof *constant);
    struct flue_kafka_header *metadata =
        flue_arena_zalloc(arena, config->include_metadata_keys.count + 1, sizeof *metadata);
    struct flue_bytes *resource =
        flue_arena_zalloc(arena, config->headers_from_attributes.count + 1, sizeof *resource);

    if (!constant || !metadata || !resource)
        return false;
    for (size_t i = 0; i < config->record_headers.count; i++)
        constant[rules->header_count++] =
            (struct flue_kafka_header){flue_bytes_of(config->record_headers.items[i].key),
                                       flue_bytes_of(config->record_headers.items[i].value)};
    for (size_t i = 0; i < config->include_metadata_keys.count; i++)
        metadata[rules->metadata_count++] =
            (struct flue_kafka_header){flue_bytes_of(names[i]), lower(arena, names[i])};
    for (size_t i = 0; i < config->headers_from_attributes.count; i++)
        if (*attributes[i])
            resource[rules->attribute_count++] = flue_bytes_of(attributes[i]);
    rules->headers = constant;
    rules->metadata = metadata;
    rules->attributes = resource;
    return true;
}

static void make_metrics(struct kafka_exporter *kafka, const struct flue_create *create)
{
    const struct flue_label own[] = {{"exporter", create->id}, {NULL, NULL}};

    kafka->records = flue_metric(create->metrics, FLUE_COUNTER, "kafka_exporter_messages",
                                 "records that brokers have acknowledged", own);
    kafka->bytes = flue_metric(create->metrics, FLUE_COUNTER, "kafka_exporter_bytes",
                               "their values before compression", own);
    kafka->left_out =
        flue_metric(create->metrics, FLUE_COUNTER, "kafka_exporter_left_out",
                    "headers over their limits, and names of topics that are none", own);
    kafka->cut = flue_metric(
        create->metrics, FLUE_COUNTER, "kafka_exporter_oversized_messages",
        "records refused as too large by a topic, alone or with others, and sent again", own);
    kafka->producers.errors =
        flue_metric(create->metrics, FLUE_COUNTER, "kafka_exporter_broker_errors",
                    "errors of the connection to the brokers", own);
}

static enum flue_code kafka_create(const struct flue_create *create, void **instance,
                                   struct flue_error *error)
{
    const struct kafka_exporter_config *config = create->config;
    struct kafka_exporter *kafka = flue_arena_zalloc(create->arena, 1, sizeof *kafka);

    if (!kafka || !(kafka->lanes = flue_arena_zalloc(create->arena, create->loops->count,
                                                     sizeof *kafka->lanes)))
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", create->id);
    kafka->id = create->id;
    kafka->config = config;
    kafka->loops = create->loops;
    for (unsigned i = 0; i < create->loops->count; i++)
        kafka->lanes[i] = (struct kafka_lane){
            .kafka = kafka, .loop = create->loops->items[i], .timer = {.fire = on_timer}};
    kafka->rules = (struct kafka_record_rules){
        .encoding = encoding_of(config),
        .max_bytes = (size_t)config->producer.max_message_bytes,
        .topic = topic_of(config),
        .topic_attribute = flue_bytes_of(config->topic_from_attribute),
        .topic_metadata = lower(create->arena, config->profiles.topic_from_metadata_key),
        .key_attribute = flue_bytes_of(config->profiles.message_key_from_attribute),
        .key_metadata = lower(create->arena, config->profiles.message_key_from_metadata_key),
    };
    if (!make_headers(kafka, create->arena) || !kafka_topics_init(&kafka->topics))
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", create->id);
    kafka->has_topics = true;
    kafka->rules.topics = &kafka->topics;
    make_metrics(kafka, create);
    *instance = kafka;
    return FLUE_OK;
}

static enum flue_code set_producer(const struct flue_kafka *library, rd_kafka_conf_t *conf,
                                   const struct kafka_exporter_config *config,
                                   struct flue_error *error)
{
    const struct kafka_producer_config *producer = &config->producer;
    bool all = acks_of(&producer->required_acks) == -1;
    int64_t most = producer->flush_max_messages ? producer->flush_max_messages : 1000000;
    enum flue_code code = flue_kafka_set(library, conf, "acks", all ? "all" : "1",
                                         "producer.required_acks", false, error);
    if (!code)
        code = flue_kafka_set(library, conf, "enable.idempotence", all ? "true" : "false",
                              "producer.required_acks", false, error);
    if (!code && !all) /* what is sent again must not be overtaken */
        code = flue_kafka_set(library, conf, "max.in.flight.requests.per.connection", "1",
                              "producer.required_acks", false, error);
    if (!code)
        code = flue_kafka_set_int(library, conf, "message.max.bytes", producer->max_message_bytes,
                                  "producer.max_message_bytes", error);
    if (!code)
        code =
            flue_kafka_set(library, conf, "compression.codec", compressions[producer->compression],
                           "producer.compression", false, error);
    if (!code)
        code = flue_kafka_set_int(library, conf, "compression.level",
                                  producer->compression_params.level,
                                  "producer.compression_params.level", error);
    if (!code)
        code = flue_kafka_set_int(library, conf, "batch.num.messages", most,
                                  "producer.flush_max_messages", error);
    if (!code)
        code = flue_kafka_set_int(library, conf, "linger.ms", producer->linger / MS,
                                  "producer.linger", error);
    if (!code)
        code = flue_kafka_set_int(
            library, conf, "message.timeout.ms",
            config->timeout && config->timeout < MS ? 1 : config->timeout / MS, "timeout", error);
    if (!code)
        code = flue_kafka_set(library, conf, "partitioner",
                              config->record_partitioner.sticky_key.hasher ? "murmur2_random"
                                                                           : "fnv1a_random",
                              "record_partitioner.sticky_key.hasher", false, error);
    if (!code) /* the library's consumer has no such wait */
        code = flue_kafka_set_ms(library, conf, "retry.backoff.ms",
                                 config->client.metadata.retry.backoff, "metadata.retry.backoff",
                                 error);
    if (!code) /* a second bound: what it holds is ours, and charged; more waits with us */
        code = flue_kafka_set(library, conf, "queue.buffering.max.kbytes", "1048576", "producer",
                              false, error);
    return code;
}

static enum flue_code kafka_start(void *instance, struct flue_error *error)
{
    struct kafka_exporter *kafka = instance;
    const struct flue_kafka *library = flue_kafka_load(error);

    if (!library)
        return error->code;
    rd_kafka_conf_t *conf =
        flue_kafka_client_conf(library, kafka->id, &kafka->config->client, error);
    if (!conf)
        return error->code;
    if (set_producer(library, conf, kafka->config, error)) {
        library->rd_kafka_conf_destroy(conf);
        return error->code;
    }
    kafka->producers.kafka = library;
    kafka->producers.id = kafka->id;
    kafka->producers.home =
        kafka->loops->items[flue_hash(flue_bytes_of(kafka->id)) % kafka->loops->count];
    kafka->producers.done = delivered;
    atomic_store(&kafka->producers.limit, kafka->rules.max_bytes);
    kafka->producers.login_hint = flue_kafka_login_hint(library, &kafka->config->client);
    return kafka_producers_start(&kafka->producers, conf, error);
}

static void stop_at_home(struct flue_task *task)
{
    struct kafka_exporter *kafka =
        (struct kafka_exporter *)((char *)task - offsetof(struct kafka_exporter, stop));
    kafka_producers_stop(&kafka->producers);
    atomic_store(&kafka->stopped, true);
}

static void kafka_stop(void *instance, uint64_t deadline_ns)
{
    struct kafka_exporter *kafka = instance;

    atomic_store(&kafka->stopping, true);
    if (!kafka->producers.made) {
        atomic_store(&kafka->stopped, true);
        return;
    }
    kafka->stop.run = stop_at_home;
    flue_loop_post(kafka->producers.home, &kafka->stop);
}

static bool kafka_stopped(void *instance)
{
    struct kafka_exporter *kafka = instance;
    return atomic_load(&kafka->stopped) && kafka_producers_stopped(&kafka->producers);
}

static void kafka_destroy(void *instance)
{
    struct kafka_exporter *kafka = instance;
    kafka_producers_destroy(&kafka->producers);
    if (kafka->has_topics)
        kafka_topics_destroy(&kafka->topics);
}

const struct flue_component flue_exporter_kafka = {
    .kind = FLUE_EXPORTER,
    .name = "kafka",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "writes to Apache Kafka, in order for each service; needs librdkafka",
    .config_size = sizeof(struct kafka_exporter_config),
    .fields = kafka_fields,
    .no_timeout = true,
    .single_loop = true,
    .in_order = true,
    .check = kafka_check,
    .create = kafka_create,
    .start = kafka_start,
    .send = kafka_send,
    .stop = kafka_stop,
    .stopped = kafka_stopped,
    .destroy = kafka_destroy,
};
