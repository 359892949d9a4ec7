/* table.c: see table.h. */
#include "kubernetes/table.h"
#include <stdlib.h>
#include "collector/base/hash.h"

static struct flue_kube_entry removed; /* only its address is used */

uint64_t flue_kube_key_hash(unsigned type, struct flue_bytes key)
{
    return flue_hash_join(flue_hash(key), type);
}

static struct flue_kube_slots *slots_new(size_t count)
{
    struct flue_kube_slots *slots =
        calloc(1, sizeof *slots + count * (sizeof slots->at[0] + sizeof slots->tags[0]));
    if (slots) {
        slots->mask = count - 1;
        slots->tags = (_Atomic uint8_t *)&slots->at[count];
    }
    return slots;
}

static void release_slots(struct flue_kube_retired *retired, void *arg)
{
    free(retired);
}

bool flue_kube_table_init(struct flue_kube_table *table)
{
    struct flue_kube_slots *slots = slots_new(1024);
    atomic_init(&table->slots, slots);
    table->linked = table->used = 0;
    return slots != NULL;
}

void flue_kube_table_destroy(struct flue_kube_table *table)
{
    free(atomic_load(&table->slots));
}

size_t flue_kube_table_bytes(const struct flue_kube_table *table)
{
    return (atomic_load(&((struct flue_kube_table *)(uintptr_t)table)->slots)->mask + 1) *
           (sizeof(void *) + 1);
}

static uint8_t tag_of(uint64_t hash)
{
    uint8_t tag = (uint8_t)(hash >> 56);
    return tag ? tag : 1;
}

static void put(struct flue_kube_slots *slots, struct flue_kube_entry *entry)
{
    size_t i = entry->hash & slots->mask;
    while (atomic_load_explicit(&slots->tags[i], memory_order_relaxed))
        i = (i + 1) & slots->mask;
    atomic_store(&slots->at[i], entry);
    atomic_store(&slots->tags[i], tag_of(entry->hash));
}

bool flue_kube_table_reserve(struct flue_kube_table *table, size_t more,
                             struct flue_kube_epochs *epochs, void *arg)
{
    struct flue_kube_slots *old = atomic_load(&table->slots);
    size_t room = old->mask + 1;

    if ((table->used + more) * 4 <= room * 3)
        return true;
    while ((table->linked + more) * 2 > room)
        room *= 2;
    struct flue_kube_slots *slots = slots_new(room);
    if (!slots)
        return false;
    for (size_t i = 0; i <= old->mask; i++) {
        struct flue_kube_entry *entry = atomic_load_explicit(&old->at[i], memory_order_relaxed);
        if (entry && entry != &removed)
            put(slots, entry);
    }
    atomic_store(&table->slots, slots);
    table->used = table->linked;
    old->retired.release = release_slots;
    flue_kube_retire(epochs, &old->retired);
    return true;
}

void flue_kube_table_link(struct flue_kube_table *table, struct flue_kube_entry *entry)
{
    struct flue_kube_entry *first = NULL;

    entry->linked = true;
    if (entry->type == FLUE_KUBE_BY_ADDRESS) {
        struct flue_kube_walk walk =
            flue_kube_walk(table, FLUE_KUBE_BY_ADDRESS, flue_kube_entry_key(entry));
        first = flue_kube_walk_next(&walk);
    }
    if (first) {
        atomic_store(&entry->same, atomic_load(&first->same));
        atomic_store(&first->same, entry);
        return;
    }
    put(atomic_load(&table->slots), entry);
    table->linked++;
    table->used++;
}

/* A reader that stands on the removed entry goes on from it: its own link is left as it is. */
void flue_kube_table_unlink(struct flue_kube_table *table, struct flue_kube_entry *entry)
{
    struct flue_kube_slots *slots = atomic_load(&table->slots);
    struct flue_kube_entry *at, *after = atomic_load(&entry->same);
    size_t i = entry->hash & slots->mask;

    if (!entry->linked)
        return;
    entry->linked = false;
    if (entry->type == FLUE_KUBE_BY_ADDRESS) {
        struct flue_kube_walk walk =
            flue_kube_walk(table, FLUE_KUBE_BY_ADDRESS, flue_kube_entry_key(entry));
        at = flue_kube_walk_next(&walk);
        if (at != entry) {
            while (atomic_load(&at->same) != entry)
                at = atomic_load(&at->same);
            atomic_store(&at->same, after);
            return;
        }
    }
    while (atomic_load_explicit(&slots->at[i], memory_order_relaxed) != entry)
        i = (i + 1) & slots->mask;
    atomic_store(&slots->at[i], after ? after : &removed);
    table->linked -= !after;
}

struct flue_kube_walk flue_kube_walk(struct flue_kube_table *table, unsigned type,
                                     struct flue_bytes key)
{
    const struct flue_kube_slots *slots = atomic_load(&table->slots);
    uint64_t hash = flue_kube_key_hash(type, key);
    return (struct flue_kube_walk){slots, NULL, hash & slots->mask, hash, type, key};
}

struct flue_kube_entry *flue_kube_walk_next(struct flue_kube_walk *walk)
{
    if (walk->same) {
        struct flue_kube_entry *entry = walk->same;
        walk->same = atomic_load(&entry->same);
        return entry;
    }
    uint8_t wanted = tag_of(walk->hash), tag;
    while ((tag = atomic_load(&walk->slots->tags[walk->i]))) {
        size_t i = walk->i;
        walk->i = (i + 1) & walk->slots->mask;
        if (tag != wanted)
            continue;
        struct flue_kube_entry *entry =
            atomic_load(&((struct flue_kube_slots *)(uintptr_t)walk->slots)->at[i]);
        if (entry != &removed && entry->hash == walk->hash && entry->type == walk->type &&
            flue_bytes_equal(flue_kube_entry_key(entry), walk->key)) {
            walk->same = atomic_load(&entry->same);
            return entry;
        }
    }
    return NULL;
}
