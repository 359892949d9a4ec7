/* hash.c: see hash.h. */
#include "collector/base/hash.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Hash and row in eight bytes, so that a probe touches one cache line; the low half of the hash is
 * enough to place a row again when the table grows. */
struct flue_table_slot {
    uint32_t row;
    uint32_t tag;
};

#define MOST_ROWS ((size_t)1 << 31)

static uint64_t seed;

__attribute__((constructor)) static void draw_seed(void)
{
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        seed = (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^ (uintptr_t)&now;
    }
}

uint64_t flue_hash(struct flue_bytes b)
{
    return XXH3_64bits_withSeed(b.size ? b.data : (const uint8_t *)"", b.size, seed);
}

/* Product of both halves folded: every bit of either depends on all. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t flue_hash_u64(uint64_t value)
{
    return fold(fold(value ^ seed, 0x9E3779B185EBCA87u) ^ value, 0xC2B2AE3D27D4EB4Fu ^ seed);
}

uint64_t flue_hash_join(uint64_t a, uint64_t b)
{
    return flue_hash_u64(a * 0x9FB21C651E98DF25u + (b << 23 | b >> 41));
}

static bool slots_new(struct flue_table *table, size_t slots)
{
    struct flue_table_slot *fresh;

    if (slots > SIZE_MAX / sizeof *fresh)
        return false;
    fresh = table->arena ? flue_arena_alloc(table->arena, slots * sizeof *fresh)
                         : malloc(slots * sizeof *fresh);
    if (!fresh)
        return false;
    memset(fresh, 0xFF, slots * sizeof *fresh); /* FLUE_TABLE_NONE everywhere */
    table->slots = fresh;
    table->mask = slots - 1;
    return true;
}

bool flue_table_init(struct flue_table *table, struct flue_arena *arena, size_t expected)
{
    size_t slots = 16;

    table->slots = NULL;
    table->mask = table->count = 0;
    table->arena = arena;
    if (expected > MOST_ROWS)
        return false;
    while (slots / 4 * 3 < expected)
        slots *= 2;
    return slots_new(table, slots);
}

uint32_t flue_table_find(const struct flue_table *table, uint64_t hash, flue_table_equal equal,
                         const void *rows, const void *key)
{
    uint32_t tag = (uint32_t)hash;

    if (!table->slots)
        return FLUE_TABLE_NONE;
    for (size_t i = tag & table->mask;; i = (i + 1) & table->mask) {
        const struct flue_table_slot *slot = &table->slots[i];

        if (slot->row == FLUE_TABLE_NONE)
            return FLUE_TABLE_NONE;
        if (slot->tag == tag && equal(rows, slot->row, key))
            return slot->row;
    }
}

static void place(struct flue_table *table, uint32_t tag, uint32_t row)
{
    size_t i = tag & table->mask;

    while (table->slots[i].row != FLUE_TABLE_NONE)
        i = (i + 1) & table->mask;
    table->slots[i] = (struct flue_table_slot){row, tag};
}

static bool grow(struct flue_table *table)
{
    struct flue_table_slot *old = table->slots;
    size_t slots = old ? table->mask + 1 : 0;

    if (table->count >= MOST_ROWS || !slots_new(table, slots ? slots * 2 : 16))
        return false;
    for (size_t i = 0; i < slots; i++)
        if (old[i].row != FLUE_TABLE_NONE)
            place(table, old[i].tag, old[i].row);
    if (!table->arena)
        free(old);
    return true;
}

bool flue_table_insert(struct flue_table *table, uint64_t hash, uint32_t row)
{
    if ((!table->slots || table->count >= (table->mask + 1) / 4 * 3) && !grow(table))
        return false;
    place(table, (uint32_t)hash, row);
    table->count++;
    return true;
}

void flue_table_clear(struct flue_table *table)
{
    if (table->slots)
        memset(table->slots, 0xFF, (table->mask + 1) * sizeof *table->slots);
    table->count = 0;
}

void flue_table_destroy(struct flue_table *table)
{
    if (!table->arena)
        free(table->slots);
    table->slots = NULL;
    table->mask = table->count = 0;
}
