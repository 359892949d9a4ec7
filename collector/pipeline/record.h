/* record.h: the head of a record in the log of a durable queue: what a batch is besides its bytes.
 *
 * Version 1, little-endian. Numbers are 64 bits, a text is its length in 32 bits and its bytes:
 *
 *   version (8 bits), form (8 bits), signal (8 bits)
 *   profiles, samples, bytes (as received), time of receipt (wall clock, ns)
 *   texts: receiver, transport, peer, peer without port, tenant, TLS subject
 *   count of headers (32 bits), then name and value of each
 *   count of routes (32 bits), then exporter and pipeline of each: which branch owes the record
 *
 * The body is the batch's encoded form. Whoever reads checks every length: a head comes from a
 * disk.
 */
#ifndef FLUE_PIPELINE_RECORD_H
#define FLUE_PIPELINE_RECORD_H

#include "collector/base/arena.h"
#include "collector/base/buffer.h"
#include "collector/pipeline/batch.h"

#define FLUE_RECORD_HEAD_MAX 65536 /* bytes */
#define FLUE_RECORD_ROUTES   64

struct flue_record_route {
    struct flue_bytes exporter, pipeline;
};
struct flue_record_head {
    enum flue_form form;
    enum flue_signal signal;
    struct flue_counts counts;
    struct flue_origin origin; /* refs unused; borrowed */
    struct flue_record_route routes[FLUE_RECORD_ROUTES];
    size_t route_count;
};

/* `out` is initialised with FLUE_RECORD_HEAD_MAX as its maximum or more. A batch without an origin
 * has an empty one. FLUE_TOO_LARGE, FLUE_NO_MEMORY. */
enum flue_code flue_record_write(const struct flue_batch *batch, uint64_t time_ns,
                                 const struct flue_record_route *routes, size_t route_count,
                                 struct flue_buffer *out, struct flue_error *error);
/* Everything in *out borrows from `bytes`; the headers lie in `arena`. FLUE_INVALID. */
enum flue_code flue_record_read(struct flue_bytes bytes, struct flue_arena *arena,
                                struct flue_record_head *out, struct flue_error *error);

#endif
