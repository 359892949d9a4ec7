/* prefixes.h: the longest prefix that holds an address, among a million, in under 64 MB.
 *
 * The prefixes cut the address space into elementary intervals; each has the place of its longest
 * prefix, and intervals.h finds it: by the first 64 bits, of which an IPv4 address is the upper
 * half; a /64 that holds longer prefixes has intervals of its own.
 *
 * Built by one thread, then immutable: any thread may look up.
 */
#ifndef FLUE_CDN_PREFIXES_H
#define FLUE_CDN_PREFIXES_H

#include "collector/base/bytes.h"
#include "collector/base/error.h"

/* An address in network order; IPv4 in the first four bytes, the rest 0. IPv4 mapped into IPv6 is
 * read as IPv4. */
struct flue_address {
    bool v6;
    uint8_t bytes[16];
};
/* "10.0.0.1", "2001:db8::1", "[::1]". False: none of them. */
bool flue_address_parse(struct flue_bytes text, struct flue_address *out);

/* Its text; `out` holds 46 bytes. */
bool flue_address_text(const struct flue_address *address, char *out, size_t size);

struct flue_prefix {
    struct flue_address address; /* bits behind `length` are cleared */
    uint8_t length;              /* 0..32 or 0..128 */
    uint32_t place, line;        /* what it means, and where the table says so */
};
/* "10.0.0.0/8", or an address alone; `masked`: host bits were set, and are cleared. False: no
 * prefix. */
bool flue_prefix_parse(struct flue_bytes text, struct flue_prefix *out, bool *masked);
bool flue_prefix_holds(const struct flue_prefix *prefix, const struct flue_address *address);

struct flue_prefixes;

/* Sorts `items` in place. Of equal prefixes with one place one counts; with different places none
 * does (`disputed` is their place then, and `dispute` is told of each, with both lines). */
enum flue_code flue_prefixes_build(struct flue_prefix *items, size_t count, uint32_t disputed,
                                   void (*dispute)(void *arg, const struct flue_prefix *one,
                                                   const struct flue_prefix *other),
                                   void *arg, struct flue_prefixes **out,
                                   struct flue_error *error);
void flue_prefixes_destroy(struct flue_prefixes *prefixes); /* NULL: fine */
/* The place of the longest prefix, 0: none. */
uint32_t flue_prefixes_find(const struct flue_prefixes *prefixes,
                            const struct flue_address *address);
size_t flue_prefixes_count(const struct flue_prefixes *prefixes);
size_t flue_prefixes_bytes(const struct flue_prefixes *prefixes); /* of memory */

#endif
