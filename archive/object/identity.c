/* identity.c: see identity.h. */
#include "archive/object/identity.h"
#include "archive/object/date.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"

#include <openssl/crypto.h>
#include <stdlib.h>

#define SECOND    UINT64_C(1000000000)
#define ADVISED   900u /* seconds before the end */
#define MANDATORY 600u
#define AGAIN_NS  (5 * SECOND) /* between two renewals that are not forced */
#define FAILED_NS (1 * SECOND) /* a failure is everybody's answer for so long */
#define STALE_S   600u
#define SKEW_S    240 /* not worth a correction */

uint64_t object_identity_now(const struct object_identity *identity)
{
    return flue_wall_ns() / SECOND + (uint64_t)identity->skew;
}

void object_identity_set_clock(struct object_identity *identity, uint64_t theirs, const char *whose)
{
    identity->skew += (int64_t)theirs - (int64_t)object_identity_now(identity);
    flue_log(FLUE_WARN, "object store", "the clocks differ; the store's is used for signatures",
             FLUE_S("store", whose), FLUE_I("store_is_ahead_s", identity->skew), FLUE_LOG_END);
}

bool object_identity_take_date(struct object_identity *identity, struct flue_bytes date,
                               const char *whose)
{
    uint64_t theirs;
    if (!object_http_date(date, &theirs))
        return false;
    int64_t apart = (int64_t)theirs - (int64_t)object_identity_now(identity);
    if (apart < SKEW_S && apart > -SKEW_S)
        return false;
    object_identity_set_clock(identity, theirs, whose);
    return true;
}

void object_identity_init(struct object_identity *identity, struct flue_loop *loop)
{
    *identity = (struct object_identity){.loop = loop};
    flue_arena_init(&identity->arena, 256 * 1024, 1024);
    identity->last = &identity->first;
}

static void wipe(const char *text)
{
    if (text)
        OPENSSL_cleanse((void *)(uintptr_t)text, strlen(text));
}

static void forget(struct object_identity *identity)
{
    wipe(identity->secret.secret);
    wipe(identity->secret.token);
    identity->secret = (struct object_secret){0};
    identity->have = false;
    flue_arena_reset(&identity->arena);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void renew(struct object_identity *identity)
{
    if (identity->renewing)
        return;
    identity->renewing = true;
    identity->renew(identity);
}

enum object_identity_state object_identity_get(struct object_identity *identity,
                                               struct object_waiter *waiter,
                                               struct flue_error *error)
{
    uint64_t now = object_identity_now(identity), ticks = flue_monotonic_ns();
    bool must = !identity->have || identity->dropped, may = false;
    if (!identity->renew)
        return OBJECT_IDENTITY_READY;
    if (!must && identity->secret.ends) {
        uint64_t ends = identity->secret.ends;
        uint64_t life = ends > identity->obtained ? ends - identity->obtained : 0;
        uint64_t left = ends > now ? ends - now : 0;
        may = left <= least(ADVISED, life / 2);
        must = left <= least(MANDATORY, life / 4);
    }
    if (!must) {
        if (may && ticks >= identity->not_before_ns)
            renew(identity);
        return OBJECT_IDENTITY_READY;
    }
    if (!identity->renewing && ticks < identity->not_before_ns && identity->error.code) {
        if (error)
            *error = identity->error;
        return OBJECT_IDENTITY_FAILED;
    }
    waiter->next = NULL;
    waiter->queued = true;
    *identity->last = waiter;
    identity->last = &waiter->next;
    renew(identity);
    return OBJECT_IDENTITY_WAIT;
}

void object_identity_leave(struct object_identity *identity, struct object_waiter *waiter)
{
    if (!waiter->queued)
        return;
    waiter->queued = false;
    for (struct object_waiter **at = &identity->first; *at; at = &(*at)->next)
        if (*at == waiter) {
            *at = waiter->next;
            break;
        }
    identity->last = &identity->first;
    while (*identity->last)
        identity->last = &(*identity->last)->next;
}

void object_identity_drop(struct object_identity *identity, uint64_t version)
{
    if (identity->version == version)
        identity->dropped = true;
}

static const char *keep(struct object_identity *identity, const char *text, bool *good)
{
    char *copy = text ? flue_arena_string(&identity->arena, flue_bytes_of(text)) : NULL;
    *good &= !text || copy;
    return copy;
}

void object_identity_renewed(struct object_identity *identity, const struct object_secret *secret,
                             const struct flue_error *error)
{
    uint64_t now = object_identity_now(identity);
    bool good = secret != NULL;
    identity->renewing = false;
    identity->error = error && !secret ? *error : (struct flue_error){0};
    if (secret) {
        forget(identity);
        identity->secret = (struct object_secret){.id = keep(identity, secret->id, &good),
                                                  .secret = keep(identity, secret->secret, &good),
                                                  .token = keep(identity, secret->token, &good),
                                                  .ends = secret->ends};
        identity->have = good;
        identity->version++;
        identity->dropped = false;
        identity->obtained = now;
        identity->not_before_ns = flue_monotonic_ns() + AGAIN_NS;
        if (!good)
            flue_fail(&identity->error, FLUE_NO_MEMORY, "no memory for credentials");
        if (secret->ends &&
            secret->ends <= now) { /* used all the same, and asked for again later */
            flue_log(FLUE_WARN, "object store",
                     "the credentials that were handed out have ended already; using them",
                     FLUE_LOG_END);
            identity->secret.ends = now + STALE_S + flue_random_u64() % 120;
        }
    }
    if (identity->error.code) {
        identity->not_before_ns = flue_monotonic_ns() + FAILED_NS;
        if (identity->error.retry_after_ms == 0)
            identity->error.retry_after_ms = 1000;
        flue_log(FLUE_WARN, "object store", "credentials could not be renewed",
                 FLUE_S("error", identity->error.text), FLUE_LOG_END);
        /* What lasts is used to its end, unless the vendor has refused it. */
        if (identity->have && !identity->dropped &&
            (identity->secret.ends == 0 || identity->secret.ends > now))
            good = true;
    }
    struct object_waiter *waiter = identity->first;
    identity->first = NULL;
    identity->last = &identity->first;
    while (waiter) {
        struct object_waiter *next = waiter->next;
        waiter->queued = false;
        waiter->ready(waiter, good ? NULL : &identity->error);
        waiter = next;
    }
}

void object_identity_destroy(struct object_identity *identity)
{
    if (identity->renewing && identity->stop)
        identity->stop(identity);
    identity->renewing = false;
    forget(identity);
    flue_arena_destroy(&identity->arena);
}

const char *object_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}
