/* payload.h: how an OTLP payload is kept; for this folder alone.
 *
 * An overlay is, for each place, a list of edits in order of position. Its memory (edits and what
 * they put in) is counted by itself: a clone has its own lists, but shares the bytes put in before
 * it was made, so it holds the memory of the payload it was cloned from.
 */
#ifndef PROTO_OTLP_PAYLOAD_H
#define PROTO_OTLP_PAYLOAD_H

#include "proto/otlp/index.h"
#include "proto/wire/splice.h"

struct flue_otlp_edit {
    struct flue_otlp_edit *next;
    uint32_t from, to; /* of the body; insertions stand before a removal that begins there */
    struct flue_bytes with;
};
struct flue_otlp_edits {
    struct flue_otlp_edit *first, *last;
};

struct flue_otlp_owner {
    struct flue_otlp_owner *next;
    struct flue_block *block;
};
struct flue_otlp_memory {
    _Atomic uint32_t refs;
    struct flue_otlp_memory *parent; /* of the payload cloned from; NULL */
    struct flue_otlp_owner *owners;
    struct flue_account *account;
    size_t charged;
    struct flue_arena arena;
};

struct flue_otlp_payload {
    struct flue_payload base;
    struct flue_otlp_index *index;
    struct flue_otlp_memory *memory;                      /* NULL until the first edit */
    struct flue_otlp_edits *edits[FLUE_OTLP_PLACE_KINDS]; /* by number; NULL until needed */
    uint64_t *keys; /* per resource, with the edits; NULL: those of the index */
    uint32_t edit_count;
    uint32_t appended[FLUE_OTLP_TABLES];
    uint8_t *append_at, *append_end; /* room behind the last edit of the dictionary */
    _Atomic size_t size;             /* when written; 0: not known */
};

static inline struct flue_otlp_payload *flue_otlp_payload(const struct flue_payload *payload)
{
    return (struct flue_otlp_payload *)payload;
}

/* Takes over `index` (its reference) on success. */
struct flue_payload *flue_otlp_payload_new(struct flue_otlp_index *index);
void flue_otlp_index_unref(struct flue_otlp_index *index);

/* Content of the place as received; start == end == 0 where the message is missing. */
struct flue_otlp_span flue_otlp_span(const struct flue_otlp_payload *payload,
                                     struct flue_otlp_place place);
static inline struct flue_otlp_edit *flue_otlp_edits(const struct flue_otlp_payload *payload,
                                                     struct flue_otlp_place place)
{
    struct flue_otlp_edits *edits = payload->edits[place.kind];
    return edits ? edits[place.number].first : NULL;
}

/* To be called first by every edit: refuses a shared payload, drops what was derived, makes the
 * memory. */
enum flue_code flue_otlp_edit_begin(struct flue_otlp_payload *payload, struct flue_error *error);
/* After it: charges what was allocated. */
void flue_otlp_edit_end(struct flue_otlp_payload *payload);
/* `with` is not copied. */
enum flue_code flue_otlp_edit_add(struct flue_otlp_payload *payload, struct flue_otlp_place place,
                                  uint32_t from, uint32_t to, struct flue_bytes with,
                                  struct flue_error *error);
enum flue_code flue_otlp_edit_own(struct flue_otlp_payload *payload, struct flue_block *owner,
                                  struct flue_error *error);
enum flue_code flue_otlp_no_room(struct flue_otlp_payload *payload, struct flue_error *error);

/* The steps of the splice, measured; *size is that of the whole. */
enum flue_code flue_otlp_steps(const struct flue_otlp_payload *payload, struct flue_arena *arena,
                               struct flue_splice_step **steps, size_t *count, size_t *size,
                               struct flue_error *error);

/* Attributes of a resource (field 1) or scope (field 3). */
static inline uint32_t flue_otlp_attribute_field(struct flue_otlp_place place)
{
    return place.kind == FLUE_OTLP_IN_SCOPE ? 3 : 1;
}
bool flue_otlp_attribute_get(const struct flue_payload *payload, size_t resource,
                             struct flue_bytes key, struct flue_value *out);
void flue_otlp_attribute_each(const struct flue_payload *payload, size_t resource,
                              flue_attribute_visit visit, void *arg);
enum flue_code flue_otlp_attributes_set(struct flue_payload *payload, size_t resource,
                                        const struct flue_attribute_set *set,
                                        enum flue_set_mode mode, struct flue_block *set_owner,
                                        struct flue_error *error);
enum flue_code flue_otlp_attribute_remove(struct flue_payload *payload, size_t resource,
                                          struct flue_bytes key, struct flue_error *error);

#endif
