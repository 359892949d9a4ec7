/* split.h: an OTLP request cut by key into one request for each node.
 *
 * Pure functions over bytes that were written by flue itself (layout 1.10: resource_profiles or
 * resource_spans = 1, dictionary = 2, attributes of resources as plain strings). Whole resources are
 * not copied: a part is a list of slices of the request. Each part carries the whole dictionary, so
 * that nothing is decoded; samples and spans are only cut (and then copied) for FLUE_BALANCE_TRACE.
 *
 * A key is the same for both signals: the profiles and the spans of a service, resource, tenant or
 * trace have one node.
 */
#ifndef FLUE_LOADBALANCING_SPLIT_H
#define FLUE_LOADBALANCING_SPLIT_H

#include "collector/base/arena.h"
#include "collector/base/block.h"
#include "collector/base/error.h"
#include "collector/base/payload.h"

enum flue_balance_by {
    FLUE_BALANCE_SERVICE,    /* service.name, or nothing */
    FLUE_BALANCE_RESOURCE,   /* all attributes of the resource, in any order */
    FLUE_BALANCE_ATTRIBUTES, /* "name=value|" of the listed ones, in their order */
    FLUE_BALANCE_TRACE,      /* the trace of each sample's link, of each span; without one: as
                              * SERVICE */
    FLUE_BALANCE_TENANT      /* `tenant`: the request stays whole */
};
struct flue_balance_rule {
    enum flue_signal signal; /* of the request: profiles or traces */
    enum flue_balance_by by;
    const struct flue_bytes *attributes; /* ATTRIBUTES */
    size_t attribute_count;
    struct flue_bytes tenant; /* TENANT */
};

struct flue_balance_part {
    unsigned node;
    struct flue_slices body; /* of the request, and of the arena */
};

/* A key's hash: the same in every process and version. */
uint64_t flue_balance_hash(struct flue_bytes key);

/* `pick`: the node of a key, below node_count. Parts (at most node_count, each with something in
 * it) and what they point to lie in `arena`. */
enum flue_code flue_balance_split(struct flue_bytes request, const struct flue_balance_rule *rule,
                                  unsigned node_count, unsigned (*pick)(void *arg, uint64_t key),
                                  void *arg, struct flue_arena *arena,
                                  struct flue_balance_part **parts, size_t *part_count,
                                  struct flue_error *error);

/* The samples or spans of a request. */
uint64_t flue_balance_samples(const struct flue_slices *request, enum flue_signal signal);

#endif
