/* attributes.h: the attributes of a container or pod, encoded once and kept while they hold.
 *
 * One cache per loop, so nothing is shared and nothing locks: keyed by the serial number of the
 * pod's record (never given twice) and the container; an entry holds as long as the namespace, node
 * and workload that it was made from have not changed (flue_kube_generation). Blocks are immutable
 * and counted: payloads keep those that they use. */
#ifndef PROCESSORS_K8SATTRIBUTES_ATTRIBUTES_H
#define PROCESSORS_K8SATTRIBUTES_ATTRIBUTES_H

#include "processors/k8sattributes/config.h"
#include "kubernetes/store.h"

#define K8S_CACHE_MAX 8192 /* entries of one loop */

struct k8s_cached {
    uint64_t serial; /* 0: empty */
    int container;
    uint32_t sum; /* of the generations */
    unsigned depends_count;
    const _Atomic uint32_t *depends[8];
    struct flue_attribute_set set;
    struct flue_block *block; /* NULL: nothing to set */
};

struct k8s_cache {
    struct k8s_cached *entries;
    size_t room; /* power of two */
    unsigned turn;
    struct flue_arena arena;
};

bool k8s_cache_init(struct k8s_cache *cache);
void k8s_cache_destroy(struct k8s_cache *cache);

/* The set for this record (which the caller may read: flue_kube_enter) and container (-1: none is
 * known). Borrowed until the next call; NULL without memory. */
const struct k8s_cached *k8s_attributes(struct k8s_cache *cache, struct flue_kube_store *store,
                                        const struct k8s_config *config, uint64_t wanted,
                                        const struct flue_kube_record *record, int container,
                                        struct flue_error *error);

#endif
