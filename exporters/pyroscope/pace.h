/* pace.h: how fast each tenant may be sent to.
 *
 * A token bucket a tenant, shared by all loops without a lock (the moment at which the bucket will
 * be full again is one atomic number). The rate is the configured one, or what the server's 429
 * said
 * ("push rate limit (4.0 MiB) exceeded"), or half of what went out in the second before it; it then
 * grows by a twentieth every ten seconds without another 429, up to what is configured or said. At
 * most FLUE_PACE_TENANTS have a bucket of their own, the others share one.
 */
#ifndef EXPORTERS_PYROSCOPE_PACE_H
#define EXPORTERS_PYROSCOPE_PACE_H

#include <stdatomic.h>
#include "collector/base/bytes.h"
#include "exporters/pyroscope/settings.h"

#define FLUE_PACE_TENANTS 1024 /* a power of two */

struct flue_pace_bucket {
    _Atomic uint64_t tenant;  /* hash; 0: free */
    _Atomic uint64_t full_ns; /* monotonic: when nothing of it is in use */
    _Atomic int64_t rate;     /* bytes a second; 0: no pacing */
    _Atomic int64_t ceiling;  /* said by the server; 0: it did not */
    _Atomic uint64_t changed_ns;
    _Atomic uint64_t second_ns; /* the second whose bytes are counted */
    _Atomic int64_t sent, sent_before;
};
struct flue_pace {
    struct flue_pacing_config config;
    struct flue_pace_bucket others, tenants[FLUE_PACE_TENANTS];
};

struct flue_pace *flue_pace_new(const struct flue_pacing_config *config); /* NULL without memory */
void flue_pace_free(struct flue_pace *pace);
/* The bucket of a tenant (by its hash), for good. */
struct flue_pace_bucket *flue_pace_of(struct flue_pace *pace, uint64_t tenant);
/* 0: `bytes` may go now and are counted. Else nanoseconds to wait before asking again. What is more
 * than the burst goes when the bucket is full. */
uint64_t flue_pace_take(const struct flue_pace *pace, struct flue_pace_bucket *bucket,
                        uint64_t bytes, uint64_t now_ns);
/* A 429 came, with that text. */
void flue_pace_refused(const struct flue_pace *pace, struct flue_pace_bucket *bucket,
                       struct flue_bytes text, uint64_t now_ns);
/* Bytes a second that a refusal names, or 0: "push rate limit (4.0 MiB) exceeded". */
int64_t flue_pace_said(struct flue_bytes text);

#endif
