/* rpc.h: unary calls as receivers write them, whatever the protocol: gRPC, Connect, OTLP/HTTP.
 *
 * A receiver describes a call once; this file turns a request of any of the protocols into "here is
 * the message, decompressed", and an outcome into that protocol's exact answer (gRPC status with
 * details, google.rpc.Status body, Connect error JSON). Content types decide the protocol:
 *   application/grpc[+proto]           gRPC (5-byte frame; grpc-encoding)
 *   application/proto, application/json on a path with .connect    Connect unary
 *   application/x-protobuf, application/protobuf, application/json otherwise     OTLP/HTTP
 */
#ifndef FLUE_NET_RPC_H
#define FLUE_NET_RPC_H

#include "collector/base/codec.h"
#include "collector/net/server.h"

enum flue_rpc_protocol { FLUE_RPC_GRPC, FLUE_RPC_CONNECT, FLUE_RPC_HTTP };
enum flue_rpc_encoding { FLUE_RPC_PROTO, FLUE_RPC_JSON };

struct flue_rpc_call {
    struct flue_request *request;
    enum flue_rpc_protocol protocol;
    enum flue_rpc_encoding encoding;
    struct flue_account *account;
    struct flue_block
        *message;     /* decompressed, finished; owned by the call, take by setting NULL */
    size_t wire_size; /* as it arrived */
    void *user;
};

struct flue_rpc_service {
    const char *path;
    bool grpc, connect, http; /* protocols served on this path */
    /* Bits 1 << enum flue_coding that are taken (the Collector's compression_algorithms). */
    unsigned codings;
    bool empty_ok; /* an empty body is an empty message (protobuf OTLP); else FLUE_INVALID */
    void *arg;
    /* Headers are known: name the account, or fill *error to refuse. */
    struct flue_account *(*admit)(struct flue_request *request, void *arg,
                                  struct flue_error *error);
    /* The message is complete: answer with flue_rpc_answer or flue_rpc_fail, now or later. */
    void (*call)(struct flue_rpc_call *call, void *arg);
    void (*gone)(struct flue_rpc_call *call, void *arg); /* the client went away; still answer */
    /* Counted for every refusal, by reason, also those that never reach call(). */
    void (*refused)(void *arg, const struct flue_error *error);
};

/* Fills a route for flue_server_add; `service` lives as long as the server. */
void flue_rpc_route(const struct flue_rpc_service *service, struct flue_route *route);
/* `message`: the response message in the call's encoding (may be empty for protobuf; JSON: "{}").
 */
void flue_rpc_answer(struct flue_rpc_call *call, struct flue_bytes message);
void flue_rpc_fail(struct flue_rpc_call *call, const struct flue_error *error);

#endif
