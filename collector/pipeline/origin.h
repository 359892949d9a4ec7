/* origin.h: where a batch came from; refcounted, immutable once made.
 *
 * One per request, shared by every batch of it. Later also by the records of a durable queue, so it
 * holds copies, no pointers into a connection.
 */
#ifndef FLUE_PIPELINE_ORIGIN_H
#define FLUE_PIPELINE_ORIGIN_H

#include <stdatomic.h>
#include "collector/base/attribute.h"
#include "collector/base/error.h"

struct flue_origin {
    _Atomic uint32_t refs;
    uint64_t received_ns;           /* wall clock */
    struct flue_bytes receiver;     /* component id, "otlp/edge" */
    struct flue_bytes transport;    /* "grpc", "http", "connect" */
    struct flue_bytes peer;         /* "10.1.2.3:41544", "[::1]:9", "unix" */
    struct flue_bytes peer_address; /* without port; empty for a Unix socket */
    struct flue_bytes tenant;       /* X-Scope-OrgID as received, or empty */
    struct flue_bytes tls_subject;  /* client certificate, RFC 2253, or empty */
    bool relayed; /* the request says that it was passed on: Via, Forwarded, X-Forwarded-For, or the
                   * User-Agent of a collector. Known with and without include_metadata */
    /* Request headers, names lower-case, when the receiver has include_metadata: true; else only
     * those that the configuration names. Never authorization or cookie. */
    const struct flue_attribute *headers;
    size_t header_count;
};

/* Copies everything (one allocation). NULL without memory. */
struct flue_origin *flue_origin_new(const struct flue_origin *from);
struct flue_origin *flue_origin_ref(struct flue_origin *origin);
void flue_origin_unref(struct flue_origin *origin);
/* First value of a header (lower-case name), or empty with NULL data. */
struct flue_bytes flue_origin_header(const struct flue_origin *origin, struct flue_bytes name);

#endif
