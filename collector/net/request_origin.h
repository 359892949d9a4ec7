/* request_origin.h: who sent a request: the origin of its batches, and the tenant that it names. */
#ifndef FLUE_NET_REQUEST_ORIGIN_H
#define FLUE_NET_REQUEST_ORIGIN_H

#include "collector/net/server.h"
#include "collector/pipeline/origin.h"

/* The host of "10.1.2.3:41544" or "[::1]:9"; empty for "unix". */
struct flue_bytes flue_peer_address(const char *peer);

/* X-Scope-OrgID: at most 150 of [a-zA-Z0-9!-_.*'()], not "." or "..", else FLUE_INVALID. Empty is
 * good (no tenant). Source: Grafana dskit, tenant.ValidTenantID. */
enum flue_code flue_tenant_check(struct flue_bytes tenant, struct flue_error *error);

/* Peer, tenant, TLS subject, and all headers but secret ones where the listener has
 * include_metadata. NULL without memory. `receiver` is the component's id, `transport` as in
 * struct flue_origin; both are copied. */
struct flue_origin *flue_request_origin(struct flue_request *request, const char *receiver,
                                        const char *transport);

#endif
