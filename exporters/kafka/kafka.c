/* kafka.c: batches to Apache Kafka, as records keyed by service (config.h: the keys, items.h: what
 * is on its way, records.h: what a record is, producer.h: librdkafka). */
#include <ctype.h>
#include <stdio.h>
#include "collector/base/hash.h"
#include "collector/component.h"
#include "exporters/kafka/items.h"

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
        kafka_lane_init(&kafka->lanes[i], kafka, create->loops->items[i]);
    kafka->rules = (struct kafka_record_rules){
        .encoding = kafka_exporter_encoding(config),
        .max_bytes = (size_t)config->producer.max_message_bytes,
        .topic = kafka_exporter_topic(config),
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
    if (kafka_exporter_set(library, conf, kafka->config, error)) {
        library->rd_kafka_conf_destroy(conf);
        return error->code;
    }
    kafka->producers.kafka = library;
    kafka->producers.id = kafka->id;
    kafka->producers.home =
        kafka->loops->items[flue_hash(flue_bytes_of(kafka->id)) % kafka->loops->count];
    kafka->producers.done = kafka_record_delivered;
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
    kafka_items_settle(kafka);
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
    .fields = kafka_exporter_fields,
    .no_timeout = true,
    .single_loop = true,
    .in_order = true,
    .check = kafka_exporter_check,
    .create = kafka_create,
    .start = kafka_start,
    .send = kafka_item_send,
    .stop = kafka_stop,
    .stopped = kafka_stopped,
    .destroy = kafka_destroy,
};
