/* put.h: one object written, tried again until it is there or the caller's patience ends.
 *
 * Every try is the same bytes under the same key, so that what arrived twice is there once. One
 * loop; `done` once, never from within.
 */
#ifndef FLUE_ARCHIVE_PUT_H
#define FLUE_ARCHIVE_PUT_H

#include "archive/object/object.h"

struct flue_put {
    /* The caller's, until done. */
    struct flue_object_store *store;
    struct flue_loop *loop;
    struct flue_bytes key;
    const struct flue_slices *body;
    const char *content_type, *content_encoding;
    const uint8_t *sha256; /* of the body, if known; see object.h */
    unsigned attempts;     /* 0: for ever, also after an error that says it is of no use */
    uint64_t max_wait_ns;  /* between two tries */
    uint64_t deadline_ns;  /* monotonic, of all; 0: none */
    const char *who;       /* exporter's id, for the log */
    void (*done)(struct flue_put *put);
    void *user;
    struct flue_error error; /* valid in done */
    /* Its own. */
    struct flue_object_request request;
    struct flue_timer timer;
    unsigned tried;
    bool cancelled;
};
void flue_put_start(struct flue_put *put);
/* done follows, with FLUE_CANCELLED unless it is there by then. */
void flue_put_cancel(struct flue_put *put);

#endif
