/* locate.h: the question "where does this machine stand?", asked of every source in order.
 *
 * For each attribute apart the first source that knows wins; a source that retracts ends the search
 * for that attribute. All sources are asked all the same, so that a disagreement is seen. Doubt
 * gives nothing: a network that two lines place differently, a host that two patterns read
 * differently, addresses of one machine that stand in different places, an anycast address.
 *
 * The sender's address speaks for the machine only where nobody stands between: not for a peer in
 * `relays`, not with several machines in one batch, and not with X-Forwarded-For, Forwarded or Via
 * in the request, unless every hop is a trusted peer and `forwarded_for` is set.
 *
 * A locator is immutable: any thread.
 */
#ifndef FLUE_CDN_LOCATE_H
#define FLUE_CDN_LOCATE_H

#include "processors/cdn/tables.h"

struct flue_cdn_locator;

/* `arena` must outlive it. */
enum flue_code flue_cdn_locator_new(const struct flue_cdn_config *config, struct flue_arena *arena,
                                    struct flue_cdn_locator **out, struct flue_error *error);

struct flue_cdn_question {
    const struct flue_cdn_tables *tables;
    /* The attribute of the resource as text, borrowed until the next call; empty: it has none. The
     * strings of an array have a line each; what is no text at all is a line feed. */
    struct flue_bytes (*attribute)(void *arg, struct flue_bytes key);
    struct flue_bytes (*header)(void *arg, struct flue_bytes lower_case_name);
    void *arg;
    struct flue_bytes peer; /* address of the sender; empty: none */
    bool relayed;           /* the sender passes on what others sent: it says nothing */
    /* Called for all that a source said, in order; NULL: nobody asks why. `value` is empty where
     * the source only has something to say. */
    void (*explain)(void *arg, enum flue_cdn_source source, const char *attribute,
                    struct flue_bytes value, const char *why);
};

#define FLUE_CDN_NOBODY FLUE_CDN_SOURCES
struct flue_cdn_answer {
    /* Empty: not known. Borrowed from the resource, headers, tables, locator, or `scratch`. */
    struct flue_bytes values[FLUE_PLACE_ATTRIBUTES];
    uint8_t winner[FLUE_PLACE_ATTRIBUTES]; /* enum flue_cdn_source, or FLUE_CDN_NOBODY */
    uint8_t loser[FLUE_PLACE_ATTRIBUTES];  /* the first that said otherwise, or NOBODY */
    bool remove[FLUE_PLACE_ATTRIBUTES];    /* locked, there, and nobody who counts knows it */
    char scratch[5 * FLUE_PLACE_ATTRIBUTES * FLUE_PLACE_VALUE_MAX]; /* 5 sources read texts */
    size_t scratch_used;
};
void flue_cdn_locate(const struct flue_cdn_locator *locator,
                     const struct flue_cdn_question *question, struct flue_cdn_answer *answer);

#endif
