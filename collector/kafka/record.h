/* record.h: what exporter and receiver agree on about a record: names of headers, their escaping,
 * encodings, and what may be a topic's name.
 *
 * Values that come from the network are percent-encoded (RFC 3986): bytes outside printable ASCII
 * and '%' itself, so that a header is one line of text whatever was in it, and decodes to the same.
 */
#ifndef FLUE_KAFKA_RECORD_H
#define FLUE_KAFKA_RECORD_H

#include "collector/base/bytes.h"

enum flue_kafka_encoding { FLUE_KAFKA_OTLP_PROTO, FLUE_KAFKA_OTLP_JSON, FLUE_KAFKA_PPROF };
extern const char *const flue_kafka_encodings[];

#define FLUE_KAFKA_TENANT_HEADER "X-Scope-OrgID"
/* Encoding pprof: a label of the profile's series, FLUE_KAFKA_LABEL_PREFIX "service_name". */
#define FLUE_KAFKA_LABEL_PREFIX "flue.label."

struct flue_kafka_header {
    struct flue_bytes name, value;
};

/* Of one record. What is over them is left out, and counted. */
#define FLUE_KAFKA_HEADERS_MAX      64
#define FLUE_KAFKA_HEADER_NAME_MAX  256
#define FLUE_KAFKA_HEADER_VALUE_MAX 4096 /* as decoded */
#define FLUE_KAFKA_HEADERS_BYTES    (32u * 1024)
#define FLUE_KAFKA_KEY_MAX          1024

/* Bytes of `value` when escaped; into `out` (that many), no NUL. */
size_t flue_kafka_escaped_size(struct flue_bytes value);
void flue_kafka_escape(struct flue_bytes value, uint8_t *out);
/* Into `out` (value.size bytes); the size. A '%' that begins no escape stands for itself. */
size_t flue_kafka_unescape(struct flue_bytes value, uint8_t *out);

/* 1 to 249 of [a-zA-Z0-9._-], not "." or "..". Source: Kafka, Topic.validate. */
bool flue_kafka_topic_valid(struct flue_bytes topic);

#endif
