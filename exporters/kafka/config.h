/* config.h: the keys of the exporter, and what librdkafka is told of them. */
#ifndef FLUE_EXPORTERS_KAFKA_CONFIG_H
#define FLUE_EXPORTERS_KAFKA_CONFIG_H

#include "collector/kafka/client.h"
#include "config/field.h"

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

extern const struct flue_field kafka_exporter_fields[];
void kafka_exporter_check(const void *bound, struct flue_check *check);
/* With the deprecated keys, where those of now are as they were born. */
const char *kafka_exporter_topic(const struct kafka_exporter_config *config);
int kafka_exporter_encoding(const struct kafka_exporter_config *config);
/* The keys of a producer. Other than FLUE_OK: the library does not take one. */
enum flue_code kafka_exporter_set(const struct flue_kafka *library, rd_kafka_conf_t *conf,
                                  const struct kafka_exporter_config *config,
                                  struct flue_error *error);

#endif
