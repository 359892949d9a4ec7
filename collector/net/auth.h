/* auth.h: authenticators: extensions that say who may send to a listener, or that give our own
 * requests their credentials.
 *
 * The instance of such an extension begins with a struct flue_auth; flue_auth_find tells it from
 * other extensions by its first member. Source of the keys and of what they mean: OpenTelemetry
 * Collector, configauth (`auth: {authenticator: ID}` of a receiver or exporter).
 *
 * On a listener the credentials are looked at when the headers of a request are complete, before
 * the receiver sees it; a preflight of CORS carries none and passes. What takes long (bcrypt) is
 * compared on the pool while the body is held back. A refusal is the route's own answer (401 with
 * WWW-Authenticate, gRPC UNAUTHENTICATED).
 */
#ifndef FLUE_NET_AUTH_H
#define FLUE_NET_AUTH_H

#include "collector/base/block.h"
#include "collector/component.h"

enum flue_auth_answer {
    FLUE_AUTH_YES,
    FLUE_AUTH_NO,   /* *error says why, without what was sent */
    FLUE_AUTH_LATER /* look: only `verify` can say */
};

struct flue_auth {
    const char *tag;       /* flue_auth_tag */
    const char *header;    /* lower-case: where the credentials stand */
    const char *challenge; /* WWW-Authenticate of a refusal */
    /* For listeners; NULL: it guards none. `credentials` is the header's value, NULL data where
     * there is none. On any loop, at once. */
    enum flue_auth_answer (*look)(struct flue_auth *auth, struct flue_bytes credentials,
                                  struct flue_error *error);
    /* On the pool, after look said LATER. Every LATER is followed by one verify. */
    enum flue_auth_answer (*verify)(struct flue_auth *auth, struct flue_bytes credentials,
                                    struct flue_error *error);
    /* For clients; NULL: it has none to send. The header's value as it is now, referenced. Any
     * thread, at once. NULL: there is none, *error says why. */
    struct flue_block *(*credentials)(struct flue_auth *auth, struct flue_error *error);
};

extern const char flue_auth_tag[];

/* In a component's create. FLUE_INVALID: service.extensions does not name it, or it is no
 * authenticator. */
enum flue_code flue_auth_find(const struct flue_create *create, const char *id,
                              struct flue_auth **out, struct flue_error *error);

/* Equal bytes? The time it takes depends on the sizes alone. */
bool flue_auth_equal(struct flue_bytes a, struct flue_bytes b);

#endif
