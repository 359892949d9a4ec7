/* config.c: see config.h.
 *
 * Keys: opentelemetry-collector-contrib, exporter/kafkaexporter and pkg/kafka/configkafka.
 * Other defaults: required_acks is `all` (an idempotent producer), profiles are keyed by service.
 */
#include "exporters/kafka/config.h"
#include <stdio.h>
#include "collector/kafka/record.h"

#define MS INT64_C(1000000)

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
const struct flue_field kafka_exporter_fields[] = {
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

const char *kafka_exporter_topic(const struct kafka_exporter_config *config)
{
    /* The deprecated key counts where the other is as it was born. */
    return given(config->topic) && strcmp(config->profiles.topic, "otlp_profiles") == 0
               ? config->topic
               : config->profiles.topic;
}

int kafka_exporter_encoding(const struct kafka_exporter_config *config)
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

void kafka_exporter_check(const void *bound, struct flue_check *check)
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

enum flue_code kafka_exporter_set(const struct flue_kafka *library, rd_kafka_conf_t *conf,
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
