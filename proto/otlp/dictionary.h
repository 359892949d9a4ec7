/* dictionary.h: joining and cutting OTLP payloads, each result with a dictionary of its own.
 *
 * A result is a complete body of the 1.10 layout in a new block, checked and indexed as any other
 * (flue_otlp_read). Rows that nothing refers to are left out; row 0 of every table is the zero row;
 * unknown fields of dictionary rows and samples are not carried, everything else is. Resources stay
 * apart even when they are equal. Payloads are taken as edited.
 *
 * Memory: what is allocated on the way and the result are charged to `account` even over its hard
 * limit, since this is data already taken and must be able to leave; the work itself is bounded by
 * a budget of FLUE_OTLP_WORK_FACTOR times the encoded input (FLUE_NO_MEMORY beyond it). Any loop;
 * the payloads are only read.
 */
#ifndef PROTO_OTLP_DICTIONARY_H
#define PROTO_OTLP_DICTIONARY_H

#include "collector/base/payload.h"

/* The part of `total` that falls to `own`, when `before` of `all` weights have been dealt out: the
 * parts' sum is exactly `total`. */
static inline uint64_t flue_share(uint64_t total, uint64_t before, uint64_t own, uint64_t all)
{
    if (all == 0)
        return 0;
    return (uint64_t)((unsigned __int128)total * (before + own) / all) -
           (uint64_t)((unsigned __int128)total * before / all);
}

#define FLUE_OTLP_WORK_FACTOR 24
#define FLUE_OTLP_WORK_FLOOR  (4u << 20)

/* payload.h, merge. Rows of equal content become one (hashed, never searched). *out is NULL with
 * FLUE_OK if no payload has a profile left after its edits. */
enum flue_code flue_otlp_merge(struct flue_payload *const *payloads, size_t count,
                               struct flue_account *account, struct flue_payload **out,
                               struct flue_error *error);

/* payload.h, split. All parts are made before the first is emitted: on failure none is. A payload
 * within `max` is emitted as it is. A profile without samples counts as no sample. */
enum flue_code flue_otlp_split(const struct flue_payload *payload, uint64_t max, bool by_bytes,
                               const struct flue_counts *total, struct flue_account *account,
                               void (*emit)(void *arg, struct flue_payload *part,
                                            const struct flue_counts *counts),
                               void *arg, struct flue_error *error);

/* The same payload without the rows that nothing refers to. */
enum flue_code flue_otlp_prune(const struct flue_payload *payload, struct flue_account *account,
                               struct flue_payload **out, struct flue_error *error);

#endif
