/* client_grpc.h: the configgrpc client keys, and what they mean for a call.
 *
 * For exporters that speak gRPC: all keys but `endpoint`, which not every one of them has. Names,
 * units and defaults are the Collector's, but for what it has no keys for (max_connections,
 * max_request_size, compression_params).
 */
#ifndef FLUE_NET_CLIENT_GRPC_H
#define FLUE_NET_CLIENT_GRPC_H

#include "collector/base/payload.h"
#include "collector/net/client_keys.h"

struct flue_client_keepalive_config {
    int64_t time, timeout;
    bool permit_without_stream;
};
struct flue_client_grpc_config {
    struct flue_tls_client_config tls;
    int compression;
    struct flue_client_compression compression_params;
    struct flue_map headers;
    const struct flue_client_keepalive_config *keepalive;
    bool wait_for_ready;
    int balancer_name;
    const char *user_agent, *authority;
    const struct flue_client_auth *auth;
    int64_t max_connections, max_request_size;
};
extern const struct flue_field flue_client_grpc_fields[];

/* `path`: of the block, with its last dot ("protocol.otlp."), or "". The endpoint's own warning is
 * flue_client_grpc_secrecy_check, once for every endpoint. */
void flue_client_grpc_check(const struct flue_client_grpc_config *config, const char *path,
                            struct flue_check *check);

void flue_client_grpc_secrecy_check(const struct flue_client_grpc_config *config,
                                    const char *endpoint, const char *path,
                                    struct flue_check *check);

enum flue_coding flue_client_grpc_coding(const struct flue_client_grpc_config *config);
int flue_client_grpc_level(const struct flue_client_grpc_config *config);
/* What the keys say about the transport; the endpoint is the caller's. */
struct flue_client_config flue_client_grpc_settings(const struct flue_client_grpc_config *config);
/* The headers of every call but grpc-timeout; in `arena`. */
enum flue_code flue_client_grpc_headers(const struct flue_client_grpc_config *config,
                                        struct flue_arena *arena, const struct flue_header **out,
                                        size_t *count, struct flue_error *error);

/* The path of OTLP's Export of a signal (OTLP specification 1.11). */
struct flue_bytes flue_client_grpc_export(enum flue_signal signal);

/* Headers of one call: those of every call, and grpc-timeout. */
struct flue_client_grpc_request {
    struct flue_header headers[FLUE_CLIENT_OWN_HEADERS + FLUE_CLIENT_CONFIG_HEADERS];
    char timeout[24];
};
/* The time that is left goes along; nothing happens without a deadline. `request` must live as long
 * as the call. */
void flue_client_grpc_deadline(struct flue_call *call, struct flue_client_grpc_request *request);

#endif
