/* moments.c: see moments.h. */
#include "exporters/pyroscope/moments.h"
#include "collector/base/clock.h"
#include "collector/base/hash.h"

/* A sender that repeats one time for ever must not make us try every nanosecond before. */
#define NEIGHBOURS 16
#define JUMP_NS    1000000

/* True when the key was not there and now is. Two threads that put in the same key at once both
 * look again afterwards; of two equal entries the one in the lower way counts. */
static bool take(struct flue_moments *moments, uint64_t key)
{
    _Atomic uint64_t *set = moments->slots[key % FLUE_MOMENT_SETS];
    unsigned way = FLUE_MOMENT_WAYS;

    for (unsigned i = 0; i < FLUE_MOMENT_WAYS; i++)
        if (atomic_load(&set[i]) == key)
            return false;
    for (unsigned i = 0; i < FLUE_MOMENT_WAYS && way == FLUE_MOMENT_WAYS; i++) {
        uint64_t empty = 0;
        if (atomic_compare_exchange_strong(&set[i], &empty, key))
            way = i;
    }
    if (way == FLUE_MOMENT_WAYS) {
        way = (unsigned)(key >> 32) % FLUE_MOMENT_WAYS;
        atomic_store(&set[way], key);
    }
    for (unsigned i = 0; i < way; i++)
        if (atomic_load(&set[i]) == key)
            return false;
    return true;
}

int64_t flue_moment_take(struct flue_moments *moments, uint64_t series, int64_t time_ns)
{
    for (unsigned tries = 0;; tries++) {
        uint64_t key = flue_hash_join(series, (uint64_t)time_ns);
        if (take(moments, key ? key : 1))
            return time_ns;
        time_ns += tries < NEIGHBOURS ? 1 : (int64_t)(flue_random_u64() % JUMP_NS) + 1;
    }
}
