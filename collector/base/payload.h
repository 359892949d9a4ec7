/* payload.h: what a batch carries, seen without knowing its format.
 *
 * The engine and most processors know a payload only by these operations; proto/otlp and
 * proto/pprof implement them. A payload is the bytes as received (checked and indexed) plus an
 * overlay of edits. It is immutable while its reference count is above 1; who holds the only
 * reference may edit. clone() makes an own overlay over the same bytes and index, which is how a
 * shared payload becomes editable (copy on write); sample bytes are never copied.
 *
 * "Resource" means a ResourceProfiles of OTLP or a series of pprof. Attribute names are
 * OpenTelemetry's in both ("service.name" for a series' service_name); labels that begin with "__"
 * are identity and not visible here.
 *
 * Threads: a payload is edited on one loop; the last reference may be dropped anywhere.
 */
#ifndef FLUE_BASE_PAYLOAD_H
#define FLUE_BASE_PAYLOAD_H

#include <stdatomic.h>
#include "collector/base/attribute.h"
#include "collector/base/block.h"
#include "collector/base/error.h"

enum flue_signal { FLUE_PROFILES = 1, FLUE_TRACES = 2, FLUE_METRICS = 4 };
enum flue_form { FLUE_FORM_OTLP = 1, FLUE_FORM_PPROF = 2 };

/* In units as received; they stay with the data however its form changes. */
struct flue_counts {
    uint64_t profiles, samples, bytes;
};

enum flue_set_mode { FLUE_SET_INSERT = 1, FLUE_SET_UPDATE, FLUE_SET_UPSERT };

struct flue_payload {
    const struct flue_payload_ops *ops;
    _Atomic uint32_t refs;
    enum flue_signal signal;
    /* The same content in the other form, made at most once by flue_convert (proto/convert) and
     * owned by this payload. Same loop only. An edit drops it. */
    struct flue_payload *other_form;
};

/* Called for every attribute; false stops. The attribute is valid during the call. */
typedef bool (*flue_attribute_visit)(void *arg, const struct flue_attribute *attribute);

struct flue_payload_ops {
    enum flue_form form;
    const char *name;
    void (*destroy)(struct flue_payload *payload);
    struct flue_payload *(*clone)(const struct flue_payload *payload, struct flue_error *error);
    /* Bytes when written with its edits. */
    size_t (*encoded_size)(const struct flue_payload *payload);
    /* Bytes of memory that it keeps alive. */
    size_t (*held_size)(const struct flue_payload *payload);
    /* The encoded form, as slices in `arena` that borrow from the payload. */
    enum flue_code (*slices)(const struct flue_payload *payload, struct flue_arena *arena,
                             struct flue_slices *out, struct flue_error *error);
    size_t (*resource_count)(const struct flue_payload *payload);
    /* The value as edited; strings are borrowed until the next edit. False: not there. */
    bool (*attribute_get)(const struct flue_payload *payload, size_t resource,
                          struct flue_bytes key, struct flue_value *out);
    void (*attribute_each)(const struct flue_payload *payload, size_t resource,
                           flue_attribute_visit visit, void *arg);
    /* insert: keys that are not there; update: keys that are there; upsert: both. The set must
     * outlive the payload or `set_owner` keeps it alive (a block, referenced by the payload). After
     * a failure (memory) some may be set and some not: give the payload up with the error. */
    enum flue_code (*attributes_set)(struct flue_payload *payload, size_t resource,
                                     const struct flue_attribute_set *set, enum flue_set_mode mode,
                                     struct flue_block *set_owner, struct flue_error *error);
    enum flue_code (*attribute_remove)(struct flue_payload *payload, size_t resource,
                                       struct flue_bytes key, struct flue_error *error);
    /* Joins `count` payloads of this form into a new one: every table re-indexed, unreferenced rows
     * left out. `counts` are the sum's (as received). */
    enum flue_code (*merge)(struct flue_payload *const *payloads, size_t count,
                            struct flue_account *account, struct flue_payload **out,
                            struct flue_error *error);
    /* Cuts into parts of at most `max` (samples, or encoded bytes when by_bytes), each with its own
     * pruned dictionary; a profile is cut between samples where it must be. `emit` takes the
     * reference of each part; `counts` is the share of `total` (the whole's counts as received):
     * the shares' sum is exactly `total`. A single sample over `max` bytes becomes a part alone. */
    enum flue_code (*split)(const struct flue_payload *payload, uint64_t max, bool by_bytes,
                            const struct flue_counts *total, struct flue_account *account,
                            void (*emit)(void *arg, struct flue_payload *part,
                                         const struct flue_counts *counts),
                            void *arg, struct flue_error *error);
};

/* A payload again from its encoded form (what `slices` gave): how a durable queue comes back to
 * what it wrote down. proto/ implements it (proto/convert/decode.h), whoever starts the process
 * gives it here once, before the loops run. Takes the reference of `body`, also on failure. *out
 * NULL with FLUE_OK: nothing is in it. FLUE_INVALID: it is not what was written. Any thread. */
typedef enum flue_code (*flue_payload_decode)(enum flue_form form, enum flue_signal signal,
                                              struct flue_block *body, struct flue_payload **out,
                                              struct flue_error *error);
void flue_payload_decoder(flue_payload_decode decoder);
enum flue_code flue_payload_read(enum flue_form form, enum flue_signal signal,
                                 struct flue_block *body, struct flue_payload **out,
                                 struct flue_error *error);

static inline struct flue_payload *flue_payload_ref(struct flue_payload *payload)
{
    atomic_fetch_add_explicit(&payload->refs, 1, memory_order_relaxed);
    return payload;
}
static inline void flue_payload_unref(struct flue_payload *payload)
{
    if (payload && atomic_fetch_sub_explicit(&payload->refs, 1, memory_order_acq_rel) == 1)
        payload->ops->destroy(payload);
}
static inline bool flue_payload_shared(const struct flue_payload *payload)
{
    return atomic_load_explicit(&((struct flue_payload *)payload)->refs, memory_order_acquire) > 1;
}

#endif
