/* record.h: the inside of the store; for the files of this folder only. */
#ifndef FLUE_KUBERNETES_RECORD_H
#define FLUE_KUBERNETES_RECORD_H

#include "kubernetes/table.h"

#define FLUE_KUBE_KEY_MAX 250 /* a key's size is one byte; names have at most 63 and 253 */

struct flue_kube_list {
    struct flue_kube_record *first, *last;
    size_t count;
};

struct flue_kube_store {
    struct flue_kube_epochs epochs;
    struct flue_kube_store_spec spec;
    struct flue_kube_table table;
    struct flue_kube_strings strings;
    struct flue_kube_list live[FLUE_KUBE_KINDS], waiting;
    uint64_t list[FLUE_KUBE_KINDS]; /* number of the list that is being read */
    uint64_t serial;
    size_t record_bytes;
    struct flue_kube_extract extract;
    struct draft *draft; /* record.c's */
    _Atomic uint64_t current_ns;
    _Atomic bool asked;
    _Atomic uint32_t generations[FLUE_KUBE_GENERATIONS];
    struct flue_kube_store_stats stats;
};

/* "namespace/name" in `out` (FLUE_KUBE_KEY_MAX bytes); empty if it is longer. */
struct flue_bytes flue_kube_object_key(struct flue_bytes namespace, struct flue_bytes name,
                                       char *out);

/* Not linked anywhere; NULL without memory. */
struct flue_kube_record *flue_kube_record_make(struct flue_kube_store *store,
                                               enum flue_kube_kind kind,
                                               const struct flue_kube_object *object);
bool flue_kube_record_same(const struct flue_kube_record *a, const struct flue_kube_record *b);
void flue_kube_record_drop_strings(struct flue_kube_store *store,
                                   const struct flue_kube_record *record);
void flue_kube_record_free(struct flue_kube_store *store, struct flue_kube_record *record);

#endif
