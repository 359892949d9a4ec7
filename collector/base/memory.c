/* memory.c: see memory.h. */
#include "collector/base/memory.h"

#include <inttypes.h>
#include <unistd.h>
#include "collector/base/limits.h"

#define MIB ((int64_t)1 << 20)

int64_t flue_budget_default_bytes(void)
{
    struct flue_limits limits;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    int64_t memory = pages > 0 && page > 0 ? (int64_t)pages * page : 1024 * MIB;

    flue_limits_read("", &limits);
    if (limits.memory < memory)
        return limits.memory / 5 * 4;
    return memory / 4 < 1024 * MIB ? memory / 4 : 1024 * MIB;
}

void flue_budget_init(struct flue_budget *budget, int64_t hard)
{
    atomic_init(&budget->used, 0);
    atomic_init(&budget->hard, hard);
}

void flue_account_init(struct flue_account *account, struct flue_budget *budget, const char *name,
                       int64_t soft)
{
    account->budget = budget;
    account->name = name;
    atomic_init(&account->used, 0);
    atomic_init(&account->soft, soft);
}

static int64_t load(_Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static int64_t clamp(size_t bytes)
{
    return bytes > INT64_MAX / 4 ? INT64_MAX / 4 : (int64_t)bytes;
}

enum flue_code flue_account_admit(struct flue_account *account, size_t bytes,
                                  struct flue_error *error)
{
    int64_t soft = load(&account->soft), used = load(&account->used);
    int64_t hard = load(&account->budget->hard), all = load(&account->budget->used);

    if (soft > 0 && used + clamp(bytes) > soft)
        return flue_fail(error, FLUE_OVERLOADED,
                         "memory: %s holds %" PRId64 " bytes and a request of %zu would pass its "
                         "limit of %" PRId64 "; send again later",
                         account->name, used, bytes, soft);
    if (all + clamp(bytes) > hard)
        return flue_fail(error, FLUE_OVERLOADED,
                         "memory: %" PRId64 " bytes are in use and a request of %zu for %s would "
                         "pass the limit of %" PRId64 "; send again later",
                         all, bytes, account->name, hard);
    return FLUE_OK;
}

bool flue_account_charge(struct flue_account *account, size_t bytes)
{
    struct flue_budget *budget = account->budget;
    int64_t before = atomic_fetch_add_explicit(&budget->used, clamp(bytes), memory_order_relaxed);

    if (before + clamp(bytes) > load(&budget->hard)) {
        atomic_fetch_sub_explicit(&budget->used, clamp(bytes), memory_order_relaxed);
        return false;
    }
    atomic_fetch_add_explicit(&account->used, clamp(bytes), memory_order_relaxed);
    return true;
}

void flue_account_charge_always(struct flue_account *account, size_t bytes)
{
    atomic_fetch_add_explicit(&account->budget->used, clamp(bytes), memory_order_relaxed);
    atomic_fetch_add_explicit(&account->used, clamp(bytes), memory_order_relaxed);
}

void flue_account_release(struct flue_account *account, size_t bytes)
{
    atomic_fetch_sub_explicit(&account->used, clamp(bytes), memory_order_relaxed);
    atomic_fetch_sub_explicit(&account->budget->used, clamp(bytes), memory_order_relaxed);
}
