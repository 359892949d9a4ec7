/* ids.c: see ids.h. */
#include "proto/pprof/ids.h"

#include <stdlib.h>

static bool grow(struct flue_ids *ids)
{
    size_t room = ids->keys ? (ids->mask + 1) * 2 : 256;
    uint64_t *keys = calloc(room, sizeof *keys);
    uint32_t *rows = malloc(room * sizeof *rows);
    if (!keys || !rows) {
        free(keys);
        free(rows);
        return false;
    }
    for (size_t i = 0; ids->keys && i <= ids->mask; i++) {
        if (ids->keys[i] == 0)
            continue;
        size_t at = flue_hash_u64(ids->keys[i]) & (room - 1);
        while (keys[at] != 0)
            at = (at + 1) & (room - 1);
        keys[at] = ids->keys[i];
        rows[at] = ids->rows[i];
    }
    free(ids->keys);
    free(ids->rows);
    ids->keys = keys;
    ids->rows = rows;
    ids->mask = room - 1;
    return true;
}

uint32_t *flue_ids_put(struct flue_ids *ids, uint64_t id, uint32_t row, bool *made)
{
    *made = false;
    if (ids->count >= FLUE_IDS_MAX) {
        uint32_t *found = flue_ids_find(ids, id);
        if (found)
            return found;
        return NULL;
    }
    if ((!ids->keys || ids->count * 2 > ids->mask) && !grow(ids))
        return NULL;
    size_t at = flue_hash_u64(id) & ids->mask;
    while (ids->keys[at] != 0) {
        if (ids->keys[at] == id)
            return &ids->rows[at];
        at = (at + 1) & ids->mask;
    }
    ids->keys[at] = id;
    ids->rows[at] = row;
    ids->count++;
    *made = true;
    return &ids->rows[at];
}

uint32_t *flue_ids_find(const struct flue_ids *ids, uint64_t id)
{
    if (!ids->keys)
        return NULL;
    for (size_t at = flue_hash_u64(id) & ids->mask; ids->keys[at] != 0; at = (at + 1) & ids->mask)
        if (ids->keys[at] == id)
            return &ids->rows[at];
    return NULL;
}

void flue_ids_destroy(struct flue_ids *ids)
{
    free(ids->keys);
    free(ids->rows);
    *ids = (struct flue_ids){0};
}
