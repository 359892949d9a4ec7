/* ids.h: a bounded map from pprof's ids (any non-zero 64-bit number) to a row or a mark.
 *
 * pprof ids may be sparse or look like addresses, so they are hashed, never used as an index.
 * Memory is malloc'ed and bounded by FLUE_IDS_MAX entries (24 MiB); freed by flue_ids_destroy.
 */
#ifndef PROTO_PPROF_IDS_H
#define PROTO_PPROF_IDS_H

#include "collector/base/hash.h"

#define FLUE_IDS_MAX (1u << 20)

struct flue_ids {
    uint64_t *keys; /* 0: empty */
    uint32_t *rows;
    size_t mask, count;
};

/* The row of `id`, made (as `row`) when it is not there; NULL without memory or when full. */
uint32_t *flue_ids_put(struct flue_ids *ids, uint64_t id, uint32_t row, bool *made);
/* NULL: not there. */
uint32_t *flue_ids_find(const struct flue_ids *ids, uint64_t id);
void flue_ids_destroy(struct flue_ids *ids);

#endif
