/* fuzz.h: what every fuzz target begins with.
 *
 * What a target decides besides its input (which edits, where to cut) comes from `dice`, seeded by
 * the input's own bytes: the same input always does the same, and recorded data can be a seed as it
 * is. At the end of a run everything that was charged must have been given back.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/arena.h"
#include "collector/base/block.h"
#include "collector/base/payload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* Says what was expected; the error's text, where there is one. */
#define FUZZ_CHECK(condition, text)                                                                \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s: %s\n", __FILE__, __LINE__, #condition, text);      \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct flue_budget fuzz_budget;
static struct flue_account fuzz_account;
static uint64_t fuzz_state;

static inline void fuzz_begin(const uint8_t *data, size_t size)
{
    flue_budget_init(&fuzz_budget, (int64_t)512 << 20);
    flue_account_init(&fuzz_account, &fuzz_budget, "fuzz", 0);
    fuzz_state = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        fuzz_state = (fuzz_state ^ data[i]) * UINT64_C(0x100000001b3);
}

static inline int fuzz_end(void)
{
    FUZZ_CHECK(atomic_load(&fuzz_account.used) == 0, "bytes are still charged to the account");
    FUZZ_CHECK(atomic_load(&fuzz_budget.used) == 0, "bytes are still charged to the budget");
    return 0;
}

static inline uint32_t dice(uint32_t sides)
{
    fuzz_state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = fuzz_state;
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((x ^ x >> 31) % sides);
}

static inline struct flue_block *fuzz_block(struct flue_bytes b)
{
    struct flue_block *block = flue_block_copy(&fuzz_account, b);
    FUZZ_CHECK(block, "memory");
    return block;
}

/* A refusal says why, and says the code that it returns. */
static inline void fuzz_refused(enum flue_code code, const struct flue_error *error)
{
    FUZZ_CHECK(code == error->code, flue_code_facts(code)->name);
    FUZZ_CHECK(error->text[0], flue_code_facts(code)->name);
    FUZZ_CHECK(code != FLUE_INTERNAL, error->text);
    FUZZ_CHECK(flue_utf8_valid(flue_bytes_of(error->text)), error->text);
}

/* The payload as it would leave: exactly as long as it says. */
static inline struct flue_block *fuzz_written(const struct flue_payload *payload)
{
    struct flue_error error = {0};
    struct flue_slices slices = {0};
    struct flue_arena arena;

    flue_arena_init(&arena, (size_t)64 << 20, 0);
    enum flue_code code = payload->ops->slices(payload, &arena, &slices, &error);
    FUZZ_CHECK(code == FLUE_OK, error.text);
    FUZZ_CHECK(slices.total == payload->ops->encoded_size(payload), "encoded_size is not so");
    struct flue_block *block = flue_block_new(&fuzz_account, slices.total);
    FUZZ_CHECK(block, "memory");
    flue_slices_copy(&slices, block->data);
    block->size = slices.total;
    flue_block_finish(block);
    FUZZ_CHECK(flue_block_charge(block), "memory");
    flue_arena_destroy(&arena);
    return block;
}

#endif
