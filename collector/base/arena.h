/* arena.h: memory that is given back all at once, with a budget.
 *
 * For everything that lives as long as one request, one batch or one configuration. Allocation is
 * a pointer bump; there is no free, only reset and destroy. A budget is a hard limit in bytes:
 * beyond it, and when malloc fails, allocation returns NULL, an ordinary error (FLUE_NO_MEMORY).
 * One thread at a time. Memory is 16-byte aligned and NOT zeroed unless said.
 *
 * Compiled with FLUE_ARENA_EMULATED (the AddressSanitizer build) every allocation is a malloc of
 * its own, so that an overflow is seen.
 */
#ifndef FLUE_BASE_ARENA_H
#define FLUE_BASE_ARENA_H

#include "collector/base/bytes.h"

struct flue_arena {
    struct flue_arena_chunk *chunks;
    uint8_t *at, *end;
    size_t used, budget, chunk_size, first_size;
    /* Why an allocation failed: `full`, the budget is used up; `starved`, the system has no memory.
     */
    bool full, starved;
};

/* `chunk_size` is the first chunk's (0: 4 KiB), doubling up to 1 MiB. `budget` 0: SIZE_MAX, for
 * start-up only. */
void flue_arena_init(struct flue_arena *arena, size_t budget, size_t chunk_size);
void *flue_arena_alloc(struct flue_arena *arena, size_t size);
void *flue_arena_zalloc(struct flue_arena *arena, size_t count, size_t size); /* checks overflow */
/* Copies; the copies are NUL-terminated behind their size. NULL data on failure. */
struct flue_bytes flue_arena_copy(struct flue_arena *arena, struct flue_bytes b);
char *flue_arena_string(struct flue_arena *arena, struct flue_bytes b);
char *flue_arena_printf(struct flue_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Forgets all; keeps the largest chunk of up to 256 KiB for the next use. */
void flue_arena_reset(struct flue_arena *arena);
void flue_arena_destroy(struct flue_arena *arena);

/* A growable array in an arena: doubles, leaves the old one behind. `items` is T *, count and room
 * are size_t. False when the budget is used up. */
#define FLUE_ARENA_PUSH(arena, items, count, room, value)                                          \
    (((count) < (room) || flue_arena_grow((arena), (void **)&(items), &(room), sizeof *(items)))   \
         ? ((items)[(count)++] = (value), true)                                                    \
         : false)
bool flue_arena_grow(struct flue_arena *arena, void **items, size_t *room, size_t item_size);

#endif
