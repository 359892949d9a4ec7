/* status.h: one error in the words of each protocol: google.rpc.Status, gRPC trailers, Connect
 * JSON.
 *
 * Private to net/. Written by hand, because net/ stands beside proto/ and may not use it: the three
 * messages are google/rpc/status.proto (1 code, 2 message, 3 details), error_details.proto's
 * RetryInfo (1 retry_delay) and BadRequest (1 field_violations: 1 field, 2 description).
 */
#ifndef FLUE_NET_STATUS_H
#define FLUE_NET_STATUS_H

#include "collector/base/buffer.h"
#include "collector/net/server.h"

#define FLUE_STATUS_MAX 8192u /* bytes of any of these */

/* google.rpc.Status, with RetryInfo where retry_after_ms is set and BadRequest for INVALID. */
void flue_status_proto(const struct flue_error *error, struct flue_buffer *out);
void flue_status_json(const struct flue_error *error, struct flue_buffer *out);
/* {"code":"invalid_argument","message":"..."} */
void flue_status_connect(const struct flue_error *error, struct flue_buffer *out);

/* A trailers-only gRPC answer. `accept_encoding` (may be empty) is what the service takes. */
void flue_status_grpc(struct flue_request *request, const struct flue_error *error,
                      struct flue_bytes accept_encoding);
/* Without a route of its own: gRPC by content type, else text/plain. */
void flue_status_refuse(struct flue_request *request, const struct flue_error *error);
/* "retry-after" in seconds where the status is 429 or 503 and a time is stated; its value lives in
 * the request's arena. False: none. */
bool flue_status_retry_after(struct flue_request *request, const struct flue_error *error,
                             unsigned status, struct flue_header *out);

#endif
