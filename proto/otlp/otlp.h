/* otlp.h: OTLP profiles (ExportProfilesServiceRequest, layout of opentelemetry-proto 1.10/1.11) as
 * a payload: the door of this folder.
 *
 * flue_otlp_read takes a body in any accepted layout (1.8, 1.9, 1.10/1.11; 1.3-1.7 are refused by
 * name), checks all of it (structure, wire types, every index against its table, UTF-8) and indexes
 * it. What is broken in structure refuses the body; a bad index, length or attribute refuses the
 * Profile that it reaches; invalid UTF-8 is repaired. The resulting payload always writes 1.10.
 */
#ifndef PROTO_OTLP_OTLP_H
#define PROTO_OTLP_OTLP_H

#include "collector/base/payload.h"

enum flue_otlp_layout { FLUE_OTLP_1_8, FLUE_OTLP_1_9, FLUE_OTLP_1_10 };

struct flue_otlp_report {
    enum flue_otlp_layout layout;
    struct flue_counts counts;  /* of what was accepted; bytes is the body's size */
    uint64_t rejected_profiles; /* Profiles taken out */
    uint64_t rejected_samples;
    char rejected_reason[400]; /* the first: path of the field, value, limit */
    uint64_t repaired_strings; /* invalid UTF-8 replaced */
};

/* Limits of decoding (design.md, "Limits by default"). */
#define FLUE_OTLP_MAX_DEPTH 32
/* Attributes of one Resource or Scope (SDKs stop at 128): their view is a walk. FLUE_TOO_LARGE. */
#define FLUE_OTLP_MAX_ATTRIBUTES 1024

/* Takes the caller's reference of `body` (finished, slack behind it), also on failure. *out is NULL
 * with FLUE_OK when the request holds no profile at all (an empty request is a success). If every
 * profile was rejected: FLUE_INVALID. The payload keeps `body` (or a rewritten one) and charges
 * what it allocates to the body's account. */
enum flue_code flue_otlp_read(struct flue_block *body, struct flue_payload **out,
                              struct flue_otlp_report *report, struct flue_error *error);

/* OTLP/JSON both ways. Reading yields the protobuf body (to be given to flue_otlp_read); `budget`
 * is the limit in bytes for everything jansson allocates. Writing is of the payload as edited. */
enum flue_code flue_otlp_json_read(struct flue_bytes json, size_t budget,
                                   struct flue_account *account, struct flue_block **body,
                                   struct flue_error *error);
struct flue_buffer;
enum flue_code flue_otlp_json_write(const struct flue_payload *payload, struct flue_buffer *out,
                                    struct flue_error *error);

/* Prepares a set for attributes_set: encodes every item, in `arena`, which must outlive all use (or
 * lie in the block that is its set_owner). */
enum flue_code flue_otlp_attribute_set(struct flue_arena *arena, const struct flue_attribute *items,
                                       size_t count, struct flue_attribute_set *out,
                                       struct flue_error *error);

/* Messages of the service around it: partial success (empty when both are zero), and its reading.
 */
void flue_otlp_response_write(uint64_t rejected_profiles, struct flue_bytes message, bool json,
                              struct flue_buffer *out);
enum flue_code flue_otlp_response_read(struct flue_bytes response, bool json,
                                       uint64_t *rejected_profiles, char *message,
                                       size_t message_size, struct flue_error *error);

#endif
