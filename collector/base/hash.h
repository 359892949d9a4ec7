/* hash.h: hashing, and one open-addressing table of indices.
 *
 * The table maps a hash to a caller's row number and asks the caller whether a row is the one
 * sought, so rows stay where the caller has them. Never a linear scan over a dictionary. Hashes are
 * XXH3-64 with a seed drawn at process start, so that a sender cannot choose collisions.
 */
#ifndef FLUE_BASE_HASH_H
#define FLUE_BASE_HASH_H

#include "collector/base/arena.h"

uint64_t flue_hash(struct flue_bytes b);
uint64_t flue_hash_u64(uint64_t value);
uint64_t flue_hash_join(uint64_t a, uint64_t b);

#define FLUE_TABLE_NONE UINT32_MAX

struct flue_table {
    struct flue_table_slot *slots; /* power of two; row FLUE_TABLE_NONE is empty */
    size_t mask, count;
    struct flue_arena *arena; /* grows here; NULL: malloc, freed by flue_table_destroy */
};

typedef bool (*flue_table_equal)(const void *rows, uint32_t row, const void *key);

/* `expected` rows; false without memory. */
bool flue_table_init(struct flue_table *table, struct flue_arena *arena, size_t expected);
/* The row whose key equals, or FLUE_TABLE_NONE. */
uint32_t flue_table_find(const struct flue_table *table, uint64_t hash, flue_table_equal equal,
                         const void *rows, const void *key);
/* The caller has looked and not found. False without memory. */
bool flue_table_insert(struct flue_table *table, uint64_t hash, uint32_t row);
void flue_table_clear(struct flue_table *table);
void flue_table_destroy(struct flue_table *table);

#endif
