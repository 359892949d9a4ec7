/* check.h: the fast walk over a request: checks and indexes in one pass, in any order of fields.
 *
 * It does not decode indices but keeps, for each table, the greatest encoding met (read as a
 * little-endian number, which for minimal varints grows with the value) and compares it with the
 * number of rows once, at the end. A non-minimal encoding only looks larger, so nothing bad is
 * accepted. What it cannot vouch for is an alarm; without alarms the body is good in every respect.
 * With alarms the slow path (judge.h) decides; the index is right unless FLUE_OTLP_BROKEN.
 */
#ifndef PROTO_OTLP_CHECK_H
#define PROTO_OTLP_CHECK_H

#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"

enum flue_otlp_alarm {
    FLUE_OTLP_BROKEN = 1,       /* structure or wire type is wrong; the walk stopped */
    FLUE_OTLP_RANGE = 2,        /* some index is perhaps beyond its table */
    FLUE_OTLP_SHAPE = 4,        /* a sample's values and timestamps, or a link's ids */
    FLUE_OTLP_UTF8 = 8,         /* some string is not UTF-8 */
    FLUE_OTLP_TWICE = 16,       /* several dictionaries, Resources or Scopes to be merged */
    FLUE_OTLP_REFERENCE = 32,   /* key_strindex or string_value_strindex is used */
    FLUE_OTLP_ODD = 64,         /* a known field under a non-minimal tag */
    FLUE_OTLP_DEPTH = 128,      /* AnyValue nested too deep; the walk stopped */
    FLUE_OTLP_MEMORY = 256,     /* the index could not be allocated; the walk stopped */
    FLUE_OTLP_INDEX_SIZE = 512, /* the index would be out of proportion; the walk stopped */
    FLUE_OTLP_CROWDED = 1024,   /* over FLUE_OTLP_MAX_ATTRIBUTES; the walk stopped */
};

/* One pass. `index` is filled (arrays from malloc, to be released with flue_otlp_index_clear) but
 * for refs and body. `max_index` limits the bytes of the arrays. The body has FLUE_BLOCK_SLACK
 * readable bytes behind it. */
struct flue_otlp_check {
    const uint8_t *base;
    struct flue_otlp_index *index;
    uint32_t resource_room, scope_room, profile_room;
    size_t max_index;
    uint32_t alarms;
    uint64_t max[FLUE_OTLP_TABLES];
    uint64_t rows[FLUE_OTLP_TABLES];
};
uint32_t flue_otlp_check(struct flue_bytes body, size_t max_index, struct flue_otlp_index *index);
/* The same by the portable walk, whatever the machine has. */
uint32_t flue_otlp_check_portable(struct flue_bytes body, size_t max_index,
                                  struct flue_otlp_index *index);
void flue_otlp_index_clear(struct flue_otlp_index *index);

/* For the walks (check_walk.h): slow parts shared by both. */
void flue_otlp_walk_portable(struct flue_otlp_check *check, struct flue_bytes body);
#if defined(__x86_64__)
void flue_otlp_walk_avx2(struct flue_otlp_check *check, struct flue_bytes body);
#endif
struct flue_otlp_resource_index *flue_otlp_add_resource(struct flue_otlp_check *check);
struct flue_otlp_scope_index *flue_otlp_add_scope(struct flue_otlp_check *check);
struct flue_otlp_profile_index *flue_otlp_add_profile(struct flue_otlp_check *check);
/* One field by the exact reader; `known` has bit n for every field n of the message. Returns its
 * end, NULL when broken. */
const uint8_t *flue_otlp_odd_field(struct flue_otlp_check *check, const uint8_t *at,
                                   const uint8_t *end, uint32_t known);
/* Is this run whole varints of at most 64 bits? Exact. */
bool flue_otlp_exact_run(const uint8_t *at, const uint8_t *end, uint64_t *count);

#endif
