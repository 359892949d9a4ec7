/* seen.h: which spans a profile was really seen for: written by the profiles' side of a span_links,
 * read by its traces' side.
 *
 * One table for all instances of one id, made when the first of traces is made (a configuration
 * without traces pays nothing), bounded: 8 entries to a bucket, the oldest makes room. An entry is
 * two words: the span id, and 32 bits of the trace id with the second it was seen in. Any loop
 * writes and reads without locks; an entry that two loops write at once may pair one span with the
 * other's trace, which at worst hides it until it is seen again: where both sides know the trace,
 * it must be the same.
 */
#ifndef PROCESSORS_SPAN_LINKS_SEEN_H
#define PROCESSORS_SPAN_LINKS_SEEN_H

#include <stdatomic.h>
#include "collector/base/bytes.h"

#define SEEN_WAYS 8

struct seen_entry {
    _Atomic uint64_t span, when; /* when: trace << 32 | second */
};
struct seen {
    unsigned refs;                /* processors; main thread */
    _Atomic unsigned users;       /* those, and batches that wait: they may outlive the pipelines */
    const void *service, *config; /* whose */
    struct seen *next;
    uint64_t lifetime_s;
    _Atomic(struct seen_entry *) entries; /* NULL: nobody asks */
    uint64_t mask;                        /* of buckets */
    _Atomic int64_t held;                 /* bytes of spans that wait */
};

/* Main thread. The one of this configuration, made if it is the first; NULL without memory. */
struct seen *seen_get(const void *service, const void *config);
/* `spans`: at most so many are remembered, for `lifetime_ns`. */
bool seen_wanted(struct seen *seen, uint64_t spans, uint64_t lifetime_ns);
void seen_drop(struct seen *seen);
/* Any thread: for what waits. */
void seen_use(struct seen *seen);
void seen_leave(struct seen *seen);

/* Any loop. `trace`: 16 bytes, or anything else where it is not known. `now_s`: monotonic. */
void seen_add(struct seen *seen, uint64_t span, struct flue_bytes trace, uint64_t now_s);
bool seen_has(const struct seen *seen, uint64_t span, struct flue_bytes trace, uint64_t now_s);

static inline bool seen_asked(const struct seen *seen)
{
    return atomic_load_explicit(&((struct seen *)seen)->entries, memory_order_acquire) != NULL;
}
/* A span id as a number, big-endian; 0: not set, or no id. */
static inline uint64_t span_number(struct flue_bytes id)
{
    uint64_t number = 0;
    if (id.size != 8)
        return 0;
    for (unsigned i = 0; i < 8; i++)
        number = number << 8 | id.data[i];
    return number;
}

#endif
