/* ask.h: one HTTP request to an endpoint of its own: metadata services, token endpoints.
 *
 * A connection of its own, closed afterwards, no proxy. Retried a few times when the endpoint
 * cannot be reached or answers 5xx or 429 (and other statuses that the caller names). On the loop.
 */
#ifndef FLUE_ARCHIVE_ASK_H
#define FLUE_ARCHIVE_ASK_H

#include "collector/net/client.h"

#define OBJECT_ASK_FIELDS 12

struct object_ask {
    struct flue_loop *loop;
    /* Set by the caller; all of it lives until done. */
    const char *endpoint; /* "http://169.254.169.254" */
    const char *method;
    struct flue_bytes path; /* with query, escaped; "" is "/" */
    struct flue_header fields[OBJECT_ASK_FIELDS];
    size_t field_count;
    struct flue_bytes body;
    const struct flue_tls_client_config *tls; /* NULL: system's authorities */
    unsigned timeout_ms, tries, wait_ms;
    bool (*again)(const struct object_ask *ask); /* is this answer worth another try? may be NULL */
    void (*done)(struct object_ask *ask);
    void *user;
    /* The result: error.code FLUE_OK when there is an answer. Valid in done. */
    struct flue_error error;
    unsigned status;
    struct flue_bytes response;
    struct flue_call call;
    /* its own */
    struct object_ask_state *state;
    struct flue_timer starved;
};

/* done follows, never from within. */
void object_ask(struct object_ask *ask);
/* Gives it up: no done follows. Fine when none runs. */
void object_ask_stop(struct object_ask *ask);
/* A header; `value` is borrowed. */
void object_ask_field(struct object_ask *ask, const char *name, struct flue_bytes value);

#endif
