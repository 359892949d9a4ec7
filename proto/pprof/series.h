/* series.h: how a pprof payload lies in memory; for the files of this folder only.
 *
 * A core is what was received: series, labels, profiles, and the blocks that hold their bytes. It
 * never changes and is shared by a payload and its clones. A payload is a core and, for every
 * series, the labels as they are now: those of the core, or an edited copy in the payload's own
 * arena.
 */
#ifndef PROTO_PPROF_SERIES_H
#define PROTO_PPROF_SERIES_H

#include "collector/base/arena.h"
#include "proto/pprof/pprof.h"

#define FLUE_PPROF_MAX_LABELS 128

struct flue_pprof_state {
    struct flue_pprof_series series;
    const struct flue_bytes *keys; /* attribute name of every label, parallel to series.labels */
    size_t room;                   /* of an edited copy; 0: labels and keys are the core's */
};

struct flue_pprof_core {
    _Atomic uint32_t refs;
    struct flue_arena arena;
    struct flue_block **blocks;
    size_t block_count, block_room, block_bytes;
    struct flue_pprof_state *series; /* unedited */
    size_t count;
    uint64_t profiles, samples;
};

struct flue_pprof_payload {
    struct flue_payload base;
    struct flue_pprof_core *core;
    struct flue_arena edits;
    struct flue_pprof_state *series;
    struct flue_block **owners; /* of attribute sets whose bytes are used here */
    size_t owner_count, owner_room;
};

extern const struct flue_payload_ops flue_pprof_ops;

static inline const struct flue_pprof_payload *flue_pprof_of(const struct flue_payload *payload)
{
    return (const struct flue_pprof_payload *)payload;
}

/* Takes the core's reference, also on failure. */
struct flue_payload *flue_pprof_payload_new(struct flue_pprof_core *core, struct flue_error *error);
void flue_pprof_core_unref(struct flue_pprof_core *core);

/* A builder whose own memory (labels, tables; not the profiles' bytes) may not pass `budget`. */
struct flue_pprof_builder *flue_pprof_builder_new_within(struct flue_account *account,
                                                         size_t budget);
struct flue_account *flue_pprof_builder_account(const struct flue_pprof_builder *builder);

/* Encoded size of one RawProfileSeries without its own tag and length: labels alone, one profile
 * with tag and length. */
size_t flue_pprof_labels_size(const struct flue_pprof_label *labels, size_t count);
size_t flue_pprof_profile_size(const struct flue_pprof_profile *profile);

enum flue_code flue_pprof_payload_merge(struct flue_payload *const *payloads, size_t count,
                                        struct flue_account *account, struct flue_payload **out,
                                        struct flue_error *error);
enum flue_code flue_pprof_payload_split(const struct flue_payload *payload, uint64_t max,
                                        bool by_bytes, const struct flue_counts *total,
                                        struct flue_account *account,
                                        void (*emit)(void *arg, struct flue_payload *part,
                                                     const struct flue_counts *counts),
                                        void *arg, struct flue_error *error);
enum flue_code flue_pprof_payload_slices(const struct flue_payload *payload,
                                         struct flue_arena *arena, struct flue_slices *out,
                                         struct flue_error *error);

#endif
