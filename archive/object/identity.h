/* identity.h: credentials that end, of one store on one loop.
 *
 * Renewed in the background before they end (failure tolerated while they last), waited for when
 * they are about to; one renewal runs at a time however many calls want one. Secrets are wiped when
 * they are replaced.
 *
 * Source of the windows: botocore credentials.py (15 and 10 minutes); for short-lived ones a half
 * and a quarter of their life. A source that hands out what has ended already is believed for 10 to
 * 12 minutes, as botocore does with an instance metadata service in trouble.
 */
#ifndef FLUE_ARCHIVE_IDENTITY_H
#define FLUE_ARCHIVE_IDENTITY_H

#include "collector/base/arena.h"
#include "collector/base/error.h"
#include "collector/base/loop.h"

struct object_identity;
struct object_waiter {
    struct object_waiter *next;
    /* From the loop, never from within object_identity_get. */
    void (*ready)(struct object_waiter *waiter, const struct flue_error *error);
    bool queued;
};

struct object_secret {
    const char *id, *secret, *token; /* any may be NULL; in `arena` */
    uint64_t ends;                   /* vendor's clock, seconds; 0: never */
};

struct object_identity {
    struct flue_loop *loop;
    /* Begins a renewal that ends in object_identity_renewed, once, never from within. */
    void (*renew)(struct object_identity *identity);
    void (*stop)(struct object_identity *identity); /* a renewal that runs is given up */
    void *user;

    int64_t skew; /* seconds that the vendor's clock is ahead of ours, as far as is known */
    bool have;
    struct object_secret secret;
    uint64_t version;        /* counts up with every change */
    struct flue_arena arena; /* of `secret` */
    bool renewing, dropped;
    uint64_t obtained;       /* vendor's clock, seconds */
    uint64_t not_before_ns;  /* monotonic: no other renewal until then */
    struct flue_error error; /* of the last renewal */
    struct object_waiter *first, **last;
};

enum object_identity_state { OBJECT_IDENTITY_READY, OBJECT_IDENTITY_WAIT, OBJECT_IDENTITY_FAILED };

void object_identity_init(struct object_identity *identity, struct flue_loop *loop);
/* READY: `secret` may be used now, on this turn. WAIT: `waiter` is told. FAILED: *error. */
enum object_identity_state object_identity_get(struct object_identity *identity,
                                               struct object_waiter *waiter,
                                               struct flue_error *error);
void object_identity_leave(struct object_identity *identity, struct object_waiter *waiter);
/* The vendor refused those of `version`: the next get renews, unless that has happened since. */
void object_identity_drop(struct object_identity *identity, uint64_t version);
/* NULL secret: *error says why. The strings are copied. */
void object_identity_renewed(struct object_identity *identity, const struct object_secret *secret,
                             const struct flue_error *error);
void object_identity_destroy(struct object_identity *identity);

/* Seconds since 1970 by the vendor's clock: what is signed says when, and who is asked for
 * credentials has the clock of the store. */
uint64_t object_identity_now(const struct object_identity *identity);
/* `theirs` is their clock right now; `whose`, for the log. */
void object_identity_set_clock(struct object_identity *identity, uint64_t theirs,
                               const char *whose);
/* An answer that refuses a signature has this Date: is it believed (over 4 minutes from
 * object_identity_now), so that another signature may do better? */
bool object_identity_take_date(struct object_identity *identity, struct flue_bytes date,
                               const char *whose);
/* A variable of the environment; NULL: not set, or empty. */
const char *object_environment(const char *name);

#endif
