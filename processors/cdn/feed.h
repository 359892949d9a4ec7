/* feed.h: a file that says where networks stand, read into prefixes and places, whichever form it
 * has: flue's native one (the ipfeed form of 2026: a header, extension columns, `\N` for
 * "retracted"), RFC 8805 geofeed, NetBox's CSV, the range files of AWS, Google, Azure, Fastly and
 * Cloudflare, Apache Traffic Control's coverage zones and CRConfig, CDNI footprints, plain lists of
 * prefixes, and MaxMind-format databases. The form is told by the content, never by the name.
 *
 * One bad line costs that line, with a warning; a file in which nothing is right is refused. One
 * thread; the content is borrowed while it is read.
 */
#ifndef FLUE_CDN_FEED_H
#define FLUE_CDN_FEED_H

#include "processors/cdn/place.h"
#include "processors/cdn/prefixes.h"

struct flue_feed {
    struct flue_places places;
    struct flue_prefix *items; /* malloc */
    size_t count, room, max;
    const struct flue_place_default { /* what every entry has that does not say otherwise */
        enum flue_place_attribute attribute;
        struct flue_bytes value;
    } * defaults;
    size_t default_count;
    const char *netbox_vrf; /* NetBox lists the same prefix once per VRF: the one that counts */
    void (*warn)(void *arg, unsigned line, const char *text); /* may be NULL */
    void *arg;
    const char *form; /* what it was: "ipfeed", "geofeed", "netbox", "aws", ..., "mmdb" */
    unsigned warnings, skipped;
};

/* `max_prefixes` and, with it, a budget for the places. */
enum flue_code flue_feed_init(struct flue_feed *feed, size_t max_prefixes,
                              struct flue_error *error);
void flue_feed_destroy(struct flue_feed *feed);
enum flue_code flue_feed_read(struct flue_feed *feed, struct flue_bytes content,
                              struct flue_error *error);

/* ---- for the readers ------------------------------------------------------------------------- */

/* One entry while it is put together. */
struct flue_feed_entry {
    struct flue_place place;
    bool failed; /* over the budget */
};
void flue_feed_begin(struct flue_feed *feed, struct flue_feed_entry *entry);
/* Empty values change nothing; one that cannot be is left out with a warning. */
void flue_feed_set(struct flue_feed *feed, struct flue_feed_entry *entry, unsigned line,
                   enum flue_place_attribute attribute, struct flue_bytes value);
void flue_feed_retract(struct flue_feed_entry *entry, enum flue_place_attribute attribute);
/* False: the maximum or the budget is reached, which ends the reading (*error). */
bool flue_feed_add(struct flue_feed *feed, struct flue_feed_entry *entry,
                   struct flue_bytes prefix, unsigned line, struct flue_error *error);
bool flue_feed_add_prefix(struct flue_feed *feed, struct flue_feed_entry *entry,
                          const struct flue_prefix *prefix, struct flue_error *error);
void flue_feed_warn(struct flue_feed *feed, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum flue_code flue_feed_read_csv(struct flue_feed *feed, struct flue_bytes content,
                                  struct flue_error *error);
enum flue_code flue_feed_read_json(struct flue_feed *feed, struct flue_bytes content,
                                   struct flue_error *error);
enum flue_code flue_feed_read_mmdb(struct flue_feed *feed, struct flue_bytes content,
                                   struct flue_error *error);

/* A line of CSV (RFC 4180 quotes) into at most `max` cells, written over in `line`; the number of
 * cells, SIZE_MAX: a quote that does not end or too many. */
size_t flue_csv_cells(uint8_t *line, size_t size, struct flue_bytes *cells, size_t max);

#endif
