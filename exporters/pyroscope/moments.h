/* moments.h: which (series, time) pairs have been used, so that no two different profiles carry the
 * same.
 *
 * The store keeps one profile of equal labels and equal time (pyroscope.md: de-duplication at
 * compaction), so a second one would be lost. A bounded set of the pairs last seen, shared by all
 * loops without a lock: 65,536 hashes in sets of eight, the newest pushing out an older one of its
 * set. A pair that was pushed out is forgotten, which matters only for senders that repeat a time
 * much later; a hash that is taken for another (2^-64) moves a time by a nanosecond, which is
 * harmless.
 */
#ifndef EXPORTERS_PYROSCOPE_MOMENTS_H
#define EXPORTERS_PYROSCOPE_MOMENTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FLUE_MOMENT_SETS 8192
#define FLUE_MOMENT_WAYS 8

struct flue_moments {
    _Atomic uint64_t slots[FLUE_MOMENT_SETS][FLUE_MOMENT_WAYS]; /* 0: free */
};

/* `series` is a hash of tenant and labels. Returns `time_ns`, or where this series has used
 * it one of the next 16 nanoseconds, or where those are used too a later one within about a
 * millisecond, and notes it as used. Any thread. */
int64_t flue_moment_take(struct flue_moments *moments, uint64_t series, int64_t time_ns);

#endif
