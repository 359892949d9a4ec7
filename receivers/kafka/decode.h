/* decode.h: one record of Kafka as a payload with an origin.
 *
 * The origin is made where the record is taken from librdkafka, the payload on the loop that pushes
 * it. Headers of the record become headers of the origin (names in lower case), the tenant's its
 * tenant; both are bounded (collector/kafka/record.h), what is over is left out.
 */
#ifndef RECEIVERS_KAFKA_DECODE_H
#define RECEIVERS_KAFKA_DECODE_H

#include "collector/base/arena.h"
#include "collector/kafka/record.h"
#include "collector/pipeline/batch.h"
#include "proto/pprof/pprof.h"

#define KAFKA_BODY_MAX ((size_t)64 << 20) /* of a profile without its compression, too */

/* What came with a record; borrowed but for the call. */
struct kafka_arrival {
    const char *receiver, *topic;
    int32_t partition;
    int64_t offset;
    int64_t time_ms; /* of the record; 0: none */
    const struct flue_kafka_header *headers;
    size_t header_count;
};
/* What is kept of it besides the body. */
struct kafka_context {
    struct flue_origin *origin;
    struct flue_pprof_label *labels; /* encoding pprof; in `arena` */
    size_t label_count, left_out;
    int64_t time_ms;
    struct flue_arena arena;
};

/* FLUE_INVALID: the tenant is none. The context is to be released in any case. */
enum flue_code kafka_context_make(const struct kafka_arrival *record, bool labels,
                                  struct kafka_context *context, struct flue_error *error);
void kafka_context_release(struct kafka_context *context);

struct kafka_decoding {
    int encoding;               /* enum flue_kafka_encoding; of JSON the body is protobuf by now */
    const char *const *extract; /* headers to become attributes kafka.header.NAME */
    size_t extract_count;
};
struct kafka_decoded {
    struct flue_payload *payload; /* NULL with FLUE_OK: nothing in it */
    struct flue_counts counts;
    uint64_t rejected_profiles, rejected_samples, repaired;
};
/* Takes a reference of `body` of its own. FLUE_INVALID and the like will stay so. */
enum flue_code kafka_decode(const struct kafka_decoding *decoding,
                            const struct kafka_context *context, struct flue_block *body,
                            struct flue_account *account, struct kafka_decoded *out,
                            struct flue_error *error);

#endif
