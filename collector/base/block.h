/* block.h: a refcounted run of bytes that travels from a socket to every destination uncopied.
 *
 * A block is written by one thread while its reference count is 1 and read-only from the moment it
 * is shared. Reference counts are atomic: any thread may drop the last one. Sizes over 1 MiB come
 * from mmap, so untouched pages cost nothing; freed blocks are kept in a bounded cache per process
 * (16 MiB, or up to 64 MiB as long as that and what is in use stay under the most that was in use;
 * and 256 KiB of small ones a thread), given back to the system by flue_block_trim() when idle:
 * that of the process and of the calling thread.
 *
 * A block is charged to its account as bytes arrive in it (flue_block_charge), not for its
 * capacity: a length prefix that lies costs address space only.
 */
#ifndef FLUE_BASE_BLOCK_H
#define FLUE_BASE_BLOCK_H

#include "collector/base/bytes.h"
#include "collector/base/error.h"
#include "collector/base/memory.h"

/* Readable and zero beyond capacity, so that a wide load at the end of a body is no overflow. */
#define FLUE_BLOCK_SLACK 64

struct flue_block {
    _Atomic uint32_t refs;
    uint32_t size_class;
    struct flue_account *account; /* may be NULL: not charged */
    size_t charged;
    size_t size;     /* bytes written so far */
    size_t capacity; /* from data on */
    uint8_t *data;
    uint8_t *base;           /* of the allocation; data may have moved forward from it */
    struct flue_block *next; /* in the cache of freed blocks */
};

struct flue_block *flue_block_new(struct flue_account *account, size_t capacity);
/* NULL account: not charged. Copies `b`, charged in full. */
struct flue_block *flue_block_copy(struct flue_account *account, struct flue_bytes b);
/* Makes room for `more` bytes behind size, at most `maximum` in all; may move `data`; only while
 * refs is 1. The slack behind `size` is zeroed by whoever finishes the block:
 * flue_block_finish(). */
enum flue_code flue_block_reserve(struct flue_block *block, size_t more, size_t maximum,
                                  struct flue_error *error);
enum flue_code flue_block_append(struct flue_block *block, struct flue_bytes b, size_t maximum,
                                 struct flue_error *error);
/* Drops `count` bytes from the front (a frame prefix): data moves forward, nothing is copied. */
void flue_block_skip(struct flue_block *block, size_t count);
/* Brings the charge up to `size`; false over the hard limit. */
bool flue_block_charge(struct flue_block *block);
void flue_block_finish(struct flue_block *block);
/* Moves the charge to another account (the pipeline's, once it is known). */
void flue_block_recharge(struct flue_block *block, struct flue_account *account);
struct flue_block *flue_block_ref(struct flue_block *block);
void flue_block_unref(struct flue_block *block); /* NULL is fine */
void flue_block_trim(void);
/* Since the calling thread's last call no thread took a block. Between two of its calls a thread
 * that asks as often is seen at least once if it takes any all the time. */
bool flue_block_idle(void);

static inline struct flue_bytes flue_block_bytes(const struct flue_block *block)
{
    return flue_bytes(block->data, block->size);
}

/* A list of slices: what is written to a socket or file. It borrows: the payload that made it must
 * outlive it. */
struct flue_slices {
    struct flue_bytes *items;
    size_t count, room;
    size_t total; /* bytes */
};
struct flue_arena;
/* Appends (skipping empty ones); grows in `arena`; false when its budget is used up. */
bool flue_slices_add(struct flue_slices *slices, struct flue_arena *arena, struct flue_bytes b);
/* Copies all to `out` (room for total). */
void flue_slices_copy(const struct flue_slices *slices, uint8_t *out);

#endif
