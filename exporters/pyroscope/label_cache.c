/* label_cache.c: see label_cache.h. */
#include "exporters/pyroscope/label_cache.h"
#include <stdlib.h>
#include "collector/base/hash.h"

#define KEY_MAX ((size_t)1 << 20) /* of a stranger resource nothing is remembered */

static size_t slot_of(const struct flue_label_cache *cache)
{
    return (size_t)flue_hash(flue_bytes(cache->key, cache->key_size)) % FLUE_LABEL_CACHE_SLOTS;
}

void flue_label_set_unref(struct flue_label_set *set)
{
    if (set && --set->refs == 0)
        free(set);
}

static void forget(struct flue_label_cache *cache, size_t slot)
{
    struct flue_label_set *set = cache->slots[slot];

    if (!set)
        return;
    cache->bytes -= set->size;
    cache->slots[slot] = NULL;
    flue_label_set_unref(set);
}

void flue_label_cache_clear(struct flue_label_cache *cache)
{
    for (size_t i = 0; cache->slots && i < FLUE_LABEL_CACHE_SLOTS; i++)
        forget(cache, i);
    free(cache->slots);
    free(cache->key);
    *cache = (struct flue_label_cache){0};
}

void flue_label_key_begin(struct flue_label_cache *cache)
{
    cache->key_size = 0;
    cache->key_failed = false;
}

static uint8_t *key_room(struct flue_label_cache *cache, size_t more)
{
    uint8_t *grown;

    if (cache->key_failed)
        return NULL;
    if (more > cache->key_room - cache->key_size) {
        size_t room = cache->key_room ? cache->key_room : 1024;
        while (room - cache->key_size < more && room < KEY_MAX)
            room *= 2;
        grown = room - cache->key_size < more ? NULL : realloc(cache->key, room);
        if (!grown) {
            cache->key_failed = true;
            return NULL;
        }
        cache->key = grown;
        cache->key_room = room;
    }
    return cache->key + cache->key_size;
}

void flue_label_key_number(struct flue_label_cache *cache, uint64_t number)
{
    uint8_t *at = key_room(cache, sizeof number);

    if (at) {
        memcpy(at, &number, sizeof number);
        cache->key_size += sizeof number;
    }
}

/* With its size before it, and what follows it, so that no two lists of parts are written alike. */
static void key_part(struct flue_label_cache *cache, struct flue_bytes part, unsigned follows)
{
    uint32_t size = (uint32_t)part.size | (uint32_t)follows << 24;
    uint8_t *at = part.size < KEY_MAX ? key_room(cache, sizeof size + part.size) : NULL;

    if (!at) {
        cache->key_failed = true;
        return;
    }
    memcpy(at, &size, sizeof size);
    if (part.size)
        memcpy(at + sizeof size, part.data, part.size);
    cache->key_size += sizeof size + part.size;
}

void flue_label_key_add(struct flue_label_cache *cache, struct flue_bytes part)
{
    key_part(cache, part, 0);
}

void flue_label_key_attribute(struct flue_label_cache *cache,
                              const struct flue_attribute *attribute)
{
    const struct flue_value *value = &attribute->value;

    key_part(cache, attribute->key, 1 + (unsigned)value->type);
    switch (value->type) {
    case FLUE_VALUE_STRING:
    case FLUE_VALUE_BYTES:
    case FLUE_VALUE_COMPLEX:
        key_part(cache, value->text, 0);
        break;
    case FLUE_VALUE_BOOL:
        flue_label_key_number(cache, value->boolean);
        break;
    case FLUE_VALUE_INT:
    case FLUE_VALUE_DOUBLE:
        flue_label_key_number(cache, (uint64_t)value->integer); /* one union: the same bits */
        break;
    case FLUE_VALUE_EMPTY:
        break;
    }
}

struct flue_label_set *flue_label_cache_find(const struct flue_label_cache *cache,
                                             uint64_t generation)
{
    struct flue_label_set *set;

    if (!cache->slots || cache->key_failed)
        return NULL;
    set = cache->slots[slot_of(cache)];
    if (!set || set->generation != generation || set->key.size != cache->key_size ||
        memcmp(set->key.data, cache->key, cache->key_size) != 0)
        return NULL;
    return flue_label_set_ref(set);
}

static void remember(struct flue_label_cache *cache, struct flue_label_set *set)
{
    size_t slot = slot_of(cache);

    if (!cache->slots && !(cache->slots = calloc(FLUE_LABEL_CACHE_SLOTS, sizeof *cache->slots)))
        return;
    forget(cache, slot);
    for (size_t i = 1;
         cache->bytes + set->size > FLUE_LABEL_CACHE_BYTES && i < FLUE_LABEL_CACHE_SLOTS; i++)
        forget(cache, (slot + i) % FLUE_LABEL_CACHE_SLOTS);
    cache->slots[slot] = flue_label_set_ref(set);
    cache->bytes += set->size;
}

struct flue_label_set *flue_label_cache_put(struct flue_label_cache *cache, uint64_t generation,
                                            const struct flue_pprof_label *labels, size_t count,
                                            size_t fixed, size_t trimmed, struct flue_bytes tenant)
{
    size_t encoded = flue_push_labels_size(labels, count);
    size_t key = cache->key_failed ? 0 : cache->key_size;
    struct flue_label_set *set = malloc(sizeof *set + encoded + tenant.size + key);
    uint8_t *at;

    if (!set)
        return NULL;
    at = (uint8_t *)(set + 1);
    *set = (struct flue_label_set){.refs = 1,
                                   .size = sizeof *set + encoded + tenant.size + key,
                                   .generation = generation,
                                   .encoded = flue_bytes(at, encoded),
                                   .tenant = flue_bytes(at + encoded, tenant.size),
                                   .key = flue_bytes(at + encoded + tenant.size, key),
                                   .count = count,
                                   .fixed = fixed,
                                   .trimmed = trimmed};
    at = flue_push_labels_write(at, labels, count);
    if (tenant.size)
        memcpy(at, tenant.data, tenant.size);
    if (key)
        memcpy(at + tenant.size, cache->key, key);
    set->hash = flue_hash_join(flue_hash(set->tenant), flue_hash(set->encoded));
    if (key && set->size < FLUE_LABEL_CACHE_BYTES / 64)
        remember(cache, set);
    return set;
}

bool flue_label_set_equal(const struct flue_label_set *a, const struct flue_label_set *b)
{
    return a == b || (a->hash == b->hash && flue_bytes_equal(a->encoded, b->encoded) &&
                      flue_bytes_equal(a->tenant, b->tenant));
}
