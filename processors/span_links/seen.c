/* seen.c: see seen.h. */
#include "processors/span_links/seen.h"

#include <stdlib.h>
#include "collector/base/hash.h"

static struct seen *all; /* main thread only */

struct seen *seen_get(const void *service, const void *config)
{
    struct seen *seen = all;

    while (seen && (seen->service != service || seen->config != config))
        seen = seen->next;
    if (!seen) {
        seen = calloc(1, sizeof *seen);
        if (!seen)
            return NULL;
        seen->service = service;
        seen->config = config;
        seen->next = all;
        all = seen;
    }
    seen->refs++;
    seen_use(seen);
    return seen;
}

bool seen_wanted(struct seen *seen, uint64_t spans, uint64_t lifetime_ns)
{
    uint64_t buckets = 1;

    if (seen_asked(seen))
        return true;
    while (buckets * SEEN_WAYS < spans)
        buckets *= 2;
    struct seen_entry *entries = calloc(buckets * SEEN_WAYS, sizeof *entries);
    if (!entries)
        return false;
    seen->mask = buckets - 1;
    seen->lifetime_s = lifetime_ns / 1000000000u;
    atomic_store_explicit(&seen->entries, entries, memory_order_release);
    return true;
}

void seen_use(struct seen *seen)
{
    atomic_fetch_add_explicit(&seen->users, 1, memory_order_relaxed);
}

void seen_leave(struct seen *seen)
{
    if (atomic_fetch_sub_explicit(&seen->users, 1, memory_order_acq_rel) != 1)
        return;
    free(atomic_load(&seen->entries));
    free(seen);
}

void seen_drop(struct seen *seen)
{
    struct seen **link = &all;

    if (!seen)
        return;
    if (--seen->refs == 0) {
        while (*link != seen)
            link = &(*link)->next;
        *link = seen->next;
    }
    seen_leave(seen);
}

/* Never 0 where the trace is known. */
static uint32_t trace_bits(struct flue_bytes trace)
{
    uint64_t a, b;

    if (trace.size != 16)
        return 0;
    memcpy(&a, trace.data, 8);
    memcpy(&b, trace.data + 8, 8);
    return a | b ? (uint32_t)flue_hash_join(a, b) | 1 : 0;
}

static struct seen_entry *bucket(const struct seen *seen, uint64_t span)
{
    struct seen_entry *entries =
        atomic_load_explicit(&((struct seen *)seen)->entries, memory_order_acquire);
    return entries + (flue_hash_u64(span) & seen->mask) * SEEN_WAYS;
}

void seen_add(struct seen *seen, uint64_t span, struct flue_bytes trace, uint64_t now_s)
{
    struct seen_entry *entry = bucket(seen, span), *oldest = entry;
    uint64_t when = (uint64_t)trace_bits(trace) << 32 | (uint32_t)now_s;
    uint32_t least = UINT32_MAX;

    for (unsigned i = 0; i < SEEN_WAYS; i++) {
        uint64_t there = atomic_load_explicit(&entry[i].span, memory_order_relaxed);
        uint32_t second = (uint32_t)atomic_load_explicit(&entry[i].when, memory_order_relaxed);
        if (there == span) {
            oldest = &entry[i];
            break;
        }
        if (there == 0)
            second = 0;
        if (second < least) {
            least = second;
            oldest = &entry[i];
        }
    }
    atomic_store_explicit(&oldest->when, when, memory_order_relaxed);
    atomic_store_explicit(&oldest->span, span, memory_order_relaxed);
}

bool seen_has(const struct seen *seen, uint64_t span, struct flue_bytes trace, uint64_t now_s)
{
    const struct seen_entry *entry = bucket(seen, span);
    uint32_t own = trace_bits(trace);

    for (unsigned i = 0; i < SEEN_WAYS; i++) {
        struct seen_entry *e = (struct seen_entry *)&entry[i];
        if (atomic_load_explicit(&e->span, memory_order_relaxed) != span)
            continue;
        uint64_t when = atomic_load_explicit(&e->when, memory_order_relaxed);
        uint32_t trace_of_profile = (uint32_t)(when >> 32);
        if (own && trace_of_profile && own != trace_of_profile)
            continue;
        return (uint32_t)now_s - (uint32_t)when <= seen->lifetime_s;
    }
    return false;
}
