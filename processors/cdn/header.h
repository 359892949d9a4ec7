/* header.h: what an upload's headers say, when they come from a peer that is trusted.
 *
 * Formats are read by their own grammar, each in its own direction: Fastly's X-Forwarded-Server
 * names the edge first, X-Served-By the edge last. A shield is told only from two different PoPs.
 */
#ifndef FLUE_CDN_HEADER_H
#define FLUE_CDN_HEADER_H

#include "processors/cdn/place.h"
#include "processors/cdn/prefixes.h"

enum flue_header_format {
    FLUE_HEADER_VALUE,            /* the whole value is the attribute */
    FLUE_HEADER_CF_RAY,           /* Cloudflare: 16 hex digits, -, IATA code */
    FLUE_HEADER_FORWARDED_SERVER, /* Fastly's request header */
    FLUE_HEADER_SERVED_BY,        /* Fastly's answer header, copied into an upload */
    FLUE_HEADER_AMZ_CF_POP,       /* CloudFront: AMS54-C1 */
    FLUE_HEADER_BUNNY_SERVER      /* BunnyCDN-DE1-723 */
};
extern const char *const flue_header_formats[];

/* Sets what the value says (borrowed from it, or constant); false: it is not of that grammar, and
 * nothing is set. */
bool flue_header_place(enum flue_header_format format, enum flue_place_attribute attribute,
                       struct flue_bytes value, struct flue_bytes found[FLUE_PLACE_ATTRIBUTES]);

/* The address of the sender behind trusted proxies: from the right of X-Forwarded-For, at most 32
 * entries, each taken only while what handed it over is trusted; what cannot be read ends it. */
struct flue_address flue_header_sender(struct flue_address peer, struct flue_bytes forwarded_for,
                                       bool (*trusted)(const void *arg,
                                                       const struct flue_address *address),
                                       const void *arg);

#endif
