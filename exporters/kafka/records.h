/* records.h: a batch as records of Kafka: who goes under which key, into which topic, how large.
 *
 * Resources of one key (by default one service) share a record, in their order; different keys do
 * not, so that the order of a key is the order of a partition. What is over the limit of a record
 * is cut by the payload's own split. With encoding pprof every profile is a record and the labels
 * of its series are headers.
 *
 * Made on any thread from a payload that nobody edits. Records, their keys and headers lie in the
 * arena; their values borrow from `part` or from `block`.
 */
#ifndef EXPORTERS_KAFKA_RECORDS_H
#define EXPORTERS_KAFKA_RECORDS_H

#include "collector/base/arena.h"
#include "collector/base/loop.h"
#include "collector/kafka/record.h"
#include "collector/pipeline/batch.h"

/* The topics that data has named: so many, since the library keeps what it knows of each. */
#define KAFKA_TOPICS_MAX 256
struct kafka_topics {
    uv_mutex_t lock;
    struct flue_arena arena;
    const char *names[KAFKA_TOPICS_MAX];
    size_t count;
};
bool kafka_topics_init(struct kafka_topics *topics);
void kafka_topics_destroy(struct kafka_topics *topics);

struct kafka_record_rules {
    int encoding;     /* enum flue_kafka_encoding */
    size_t max_bytes; /* of a record with key, headers and framing */
    const char *topic;
    struct kafka_topics *topics;                       /* where one of the next two is used */
    struct flue_bytes topic_attribute, topic_metadata; /* empty: not used; metadata in lower case */
    struct flue_bytes key_attribute, key_metadata;
    const struct flue_kafka_header *headers; /* on every record; names end with a NUL */
    size_t header_count;
    const struct flue_kafka_header *metadata; /* header name, origin's name (lower case) as value */
    size_t metadata_count;
    const struct flue_bytes *attributes; /* of the resource, as headers; end with a NUL */
    size_t attribute_count;
};

struct kafka_record {
    struct kafka_record *next;
    struct kafka_item *item; /* the exporter's */
    const char *topic;
    struct flue_bytes key; /* NULL data: none */
    const struct flue_kafka_header *headers;
    size_t header_count, header_bytes;
    struct flue_payload *part; /* owned reference */
    size_t series, profile;    /* of `part`, with encoding pprof */
    struct flue_block *block;  /* owned, or NULL */
    struct flue_bytes value;
    struct flue_counts counts; /* its share */
    uint8_t lane;              /* by key and topic */
    int status;                /* the exporter's */
    size_t refused;            /* the limit of batches under which it was too large; 0: never */
};
struct kafka_records {
    struct kafka_record *first, **last;
    size_t count, bytes;         /* bytes: of blocks made for them */
    struct flue_counts rejected; /* too large even when cut as far as can be */
    struct flue_error reason;
    uint64_t left_out; /* headers over the limits, bad names of topics */
};

/* `payload` in the form of the encoding. On failure the records made so far are in `out`. */
enum flue_code kafka_records_make(const struct kafka_record_rules *rules,
                                  const struct flue_batch *batch, struct flue_payload *payload,
                                  struct flue_arena *arena, struct kafka_records *out,
                                  struct flue_error *error);
/* The same data as `record` in records of at most `max_bytes`, with its key, topic and headers. */
enum flue_code kafka_records_cut(const struct kafka_record_rules *rules,
                                 const struct kafka_record *record, size_t max_bytes,
                                 struct flue_account *account, struct flue_arena *arena,
                                 struct kafka_records *out, struct flue_error *error);
void kafka_record_release(struct kafka_record *record); /* its block and part */

#endif
