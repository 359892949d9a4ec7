/* label_cache.h: finished labels of series, encoded as a push has them, found again by what they
 * were made from.
 *
 * A node agent sends the same few hundred resources every few seconds, and making thirty labels of
 * one costs more than its profile. What labels are made from (attributes, name, identity labels,
 * the limit) is written into one key; equal keys have equal labels. One cache a loop, at most
 * FLUE_LABEL_CACHE_BYTES; a set is kept by whoever holds a reference. One thread.
 */
#ifndef EXPORTERS_PYROSCOPE_LABEL_CACHE_H
#define EXPORTERS_PYROSCOPE_LABEL_CACHE_H

#include "collector/base/attribute.h"
#include "proto/pprof/pprof.h"

#define FLUE_LABEL_CACHE_SLOTS 4096
#define FLUE_LABEL_CACHE_BYTES ((size_t)8 << 20)

struct flue_label_set {
    unsigned refs;
    size_t size;         /* of all of it */
    uint64_t hash;       /* of tenant and labels; equal exactly when those are, but for luck */
    uint64_t generation; /* of the guard that decided */
    struct flue_bytes encoded; /* LabelPairs, as flue_push_labels_write has them */
    struct flue_bytes tenant;
    struct flue_bytes key;
    size_t count;   /* labels */
    size_t fixed;   /* of those, the ones that nothing leaves out */
    size_t trimmed; /* left out or cut when they were made */
};

struct flue_label_cache {
    struct flue_label_set **slots; /* made with the first set */
    size_t bytes;
    uint8_t *key; /* that is being written */
    size_t key_size, key_room;
    bool key_failed;
};
void flue_label_cache_clear(struct flue_label_cache *cache); /* gives everything back */

void flue_label_key_begin(struct flue_label_cache *cache);
void flue_label_key_add(struct flue_label_cache *cache, struct flue_bytes part);
void flue_label_key_number(struct flue_label_cache *cache, uint64_t number);
void flue_label_key_attribute(struct flue_label_cache *cache,
                              const struct flue_attribute *attribute);
/* The set of the key just written and of that generation, with a reference; NULL: not there. */
struct flue_label_set *flue_label_cache_find(const struct flue_label_cache *cache,
                                             uint64_t generation);
/* Makes the set of the key just written and remembers it. The caller gets a reference; NULL without
 * memory. */
struct flue_label_set *flue_label_cache_put(struct flue_label_cache *cache, uint64_t generation,
                                            const struct flue_pprof_label *labels, size_t count,
                                            size_t fixed, size_t trimmed, struct flue_bytes tenant);

static inline struct flue_label_set *flue_label_set_ref(struct flue_label_set *set)
{
    set->refs++;
    return set;
}
void flue_label_set_unref(struct flue_label_set *set); /* NULL: fine */
bool flue_label_set_equal(const struct flue_label_set *a, const struct flue_label_set *b);

#endif
