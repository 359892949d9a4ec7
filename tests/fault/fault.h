/* fault.h: allocations that fail on demand, and sweeps over all of them.
 *
 * The linker puts these functions in the place of malloc and its kin in everything that is linked
 * statically (tests/CMakeLists.txt, --wrap): flue's own code, and jansson through its hooks. Only
 * the thread that armed the fault is hit. */
#ifndef TESTS_FAULT_H
#define TESTS_FAULT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "collector/base/arena.h"
#include "collector/base/block.h"
#include "collector/base/payload.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#define FAULT_LEAKS() __lsan_do_recoverable_leak_check()
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/lsan_interface.h>
#define FAULT_LEAKS() __lsan_do_recoverable_leak_check()
#endif
#endif
#ifndef FAULT_LEAKS
#define FAULT_LEAKS() 0
#endif

static _Thread_local long fault_left =
    -1;                                   /* allocations before the one that fails; -1: none does */
static _Thread_local bool fault_for_good; /* and all that follow */
static _Thread_local bool fault_fired;
static _Thread_local long fault_live; /* allocated and not freed */

static bool fault_now(void)
{
    if (fault_left < 0)
        return false;
    if (fault_left > 0) {
        fault_left--;
        return false;
    }
    fault_fired = true;
    if (!fault_for_good)
        fault_left = -1;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__real_mremap(void *old, size_t size, size_t fresh, int flags);
void __real_free(void *memory);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mremap(void *old, size_t size, size_t fresh, int flags);
void __wrap_free(void *memory);

static void *fault_counted(void *memory)
{
    fault_live += memory != NULL;
    return memory;
}
void *__wrap_malloc(size_t size)
{
    return fault_now() ? NULL : fault_counted(__real_malloc(size));
}
void *__wrap_calloc(size_t count, size_t size)
{
    return fault_now() ? NULL : fault_counted(__real_calloc(count, size));
}
void *__wrap_realloc(void *old, size_t size)
{
    if (fault_now())
        return NULL;
    fault_live -= old != NULL;
    return fault_counted(__real_realloc(old, size));
}
char *__wrap_strdup(const char *text)
{
    return fault_now() ? NULL : fault_counted(__real_strdup(text));
}
char *__wrap_strndup(const char *text, size_t size)
{
    return fault_now() ? NULL : fault_counted(__real_strndup(text, size));
}
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fault_now() ? NULL : fault_counted(__real_aligned_alloc(alignment, size));
}
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fault_now() ? MAP_FAILED : __real_mmap(at, size, protection, flags, fd, offset);
}
void *__wrap_mremap(void *old, size_t size, size_t fresh, int flags)
{
    return fault_now() ? MAP_FAILED : __real_mremap(old, size, fresh, flags);
}
void __wrap_free(void *memory)
{
    fault_live -= memory != NULL;
    __real_free(memory);
}

static inline void fault_arm(long left, bool for_good)
{
    fault_fired = false;
    fault_for_good = for_good;
    fault_left = left;
}
static inline void fault_disarm(void)
{
    fault_left = -1;
}

static struct flue_budget fault_budget;
static struct flue_account fault_account;

/* Memory is the one thing that may have gone wrong, and only if it did. A loss of memory that is
 * told as bad data would make a sender throw the data away. */
static inline bool fault_ok(enum flue_code code, const struct flue_error *error)
{
    if (code == FLUE_OK)
        return true;
    if (!fault_fired || code != FLUE_NO_MEMORY || error->code != code || !error->text[0])
        fail_msg("%s: %s%s", flue_code_facts(code)->name, error->text,
                 fault_fired ? "" : " (no allocation failed)");
    return false;
}

/* Runs `work` with the first, second, ... allocation failing, alone and with all that follow, until
 * none is left to fail; many are passed over once they are very many. `work` ends with fault_ok for
 * everything that it tried, and frees everything. */
static inline void fault_sweep(void (*work)(void *arg), void *arg, unsigned least)
{
    flue_budget_init(&fault_budget, (int64_t)1 << 30);
    flue_account_init(&fault_account, &fault_budget, "fault", 0);
    for (int for_good = 0; for_good < 2; for_good++) {
        unsigned failures = 0;
        for (long n = 0;; n += 1 + n / 100) {
            flue_block_trim();
            long before = fault_live;
            fault_arm(n, for_good);
            work(arg);
            bool fired = fault_fired;
            fault_disarm();
            flue_block_trim();
            if (atomic_load(&fault_account.used) || atomic_load(&fault_budget.used))
                fail_msg("allocation %ld failed: %lld bytes are still charged", n,
                         (long long)atomic_load(&fault_account.used));
            if (fault_live != before && FAULT_LEAKS())
                fail_msg("allocation %ld failed: %ld allocations are lost", n, fault_live - before);
            if (!fired)
                break;
            failures++;
        }
        if (failures < least)
            fail_msg("only %u allocations failed", failures);
    }
}

/* Before any fault is armed. */
static inline struct flue_block *fault_file(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", FLUE_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s is missing", path);
    struct flue_block *block = flue_block_new(NULL, 1u << 20);
    block->size = fread(block->data, 1, block->capacity, file);
    fclose(file);
    flue_block_finish(block);
    return block;
}

/* For a split: adds the parts up. */
static inline void fault_part(void *arg, struct flue_payload *part,
                              const struct flue_counts *counts)
{
    struct flue_counts *sum = arg;
    sum->profiles += counts->profiles;
    sum->samples += counts->samples;
    sum->bytes += counts->bytes;
    flue_payload_unref(part);
}

/* The encoded payload, charged; NULL when memory failed. */
static inline struct flue_block *fault_written(const struct flue_payload *payload)
{
    struct flue_error error = {0};
    struct flue_slices slices = {0};
    struct flue_block *block = NULL;
    struct flue_arena arena;

    flue_arena_init(&arena, (size_t)64 << 20, 0);
    if (fault_ok(payload->ops->slices(payload, &arena, &slices, &error), &error)) {
        block = flue_block_new(&fault_account, slices.total);
        if (block) {
            flue_slices_copy(&slices, block->data);
            block->size = slices.total;
            flue_block_finish(block);
        } else {
            assert_true(fault_fired);
        }
    }
    flue_arena_destroy(&arena);
    return block;
}

#endif
