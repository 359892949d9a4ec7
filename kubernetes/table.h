/* table.h: the store's one table of links from keys to entries; for the files of this folder only.
 *
 * Open addressing over pointers, with a byte of the hash beside each, so that only what may be
 * wanted is looked at; a removed link leaves a mark that is walked over. Addresses, which many pods
 * may have had, are one link and a list behind it. One writer, who fills a new table when this one
 * is three quarters full, and readers who walk it meanwhile. */
#ifndef FLUE_KUBERNETES_TABLE_H
#define FLUE_KUBERNETES_TABLE_H

#include "kubernetes/store.h"

struct flue_kube_slots {
    struct flue_kube_retired retired;
    size_t mask;
    _Atomic uint8_t *tags; /* 0: free; set once, after its link, and never changed */
    _Atomic(struct flue_kube_entry *) at[];
};

struct flue_kube_table {
    _Atomic(struct flue_kube_slots *) slots;
    size_t linked, used; /* used: with the marks of removed ones */
};

bool flue_kube_table_init(struct flue_kube_table *table);
/* Makes room for `more` links; false without memory. */
bool flue_kube_table_reserve(struct flue_kube_table *table, size_t more,
                             struct flue_kube_epochs *epochs, void *arg);
void flue_kube_table_link(struct flue_kube_table *table, struct flue_kube_entry *entry);
void flue_kube_table_unlink(struct flue_kube_table *table, struct flue_kube_entry *entry);
void flue_kube_table_destroy(struct flue_kube_table *table);
size_t flue_kube_table_bytes(const struct flue_kube_table *table);

uint64_t flue_kube_key_hash(unsigned type, struct flue_bytes key);
/* for (at = walk(...); (entry = next(&at)); ) every entry of this key, in no order. */
struct flue_kube_walk {
    const struct flue_kube_slots *slots;
    struct flue_kube_entry *same; /* of a list: the next one */
    size_t i;
    uint64_t hash;
    unsigned type;
    struct flue_bytes key;
};
struct flue_kube_walk flue_kube_walk(struct flue_kube_table *table, unsigned type,
                                     struct flue_bytes key);
struct flue_kube_entry *flue_kube_walk_next(struct flue_kube_walk *walk);

static inline struct flue_kube_record *flue_kube_record_of(const struct flue_kube_entry *entry)
{
    return (struct flue_kube_record *)(void *)((uintptr_t)entry - entry->record);
}
static inline struct flue_bytes flue_kube_entry_key(const struct flue_kube_entry *entry)
{
    return flue_bytes(flue_kube_record_of(entry)->text + entry->key, entry->key_size);
}

#endif
