#include "collector/net/rpc.h"

#include "collector/base/clock.h"
#include "collector/net/status.h"
#include "collector/net/unpack.h"

#define PREFIX 5u /* compressed flag, length */

/* What gRPC can name in grpc-encoding. */
#define GRPC_CODINGS                                                                               \
    (1u << FLUE_IDENTITY | 1u << FLUE_GZIP | 1u << FLUE_DEFLATE | 1u << FLUE_SNAPPY |              \
     1u << FLUE_SNAPPY_FRAMED | 1u << FLUE_ZSTD)

struct rpc {
    struct flue_rpc_call call; /* first */
    const struct flue_rpc_service *service;
    enum flue_coding coding;
    bool delivered; /* the service has it */
    struct flue_unpack unpack;
};

/* ---- what is asked for ---------------------------------------------------------------------- */

struct media {
    bool known;
    enum flue_rpc_protocol protocol;
    enum flue_rpc_encoding encoding;
    const char *type; /* of the answer */
};

static struct media media_of(const struct flue_rpc_service *service,
                             const struct flue_request *request)
{
    static const struct {
        const char *name;
        enum flue_rpc_protocol protocol;
        enum flue_rpc_encoding encoding;
    } types[] = {
        {"application/grpc", FLUE_RPC_GRPC, FLUE_RPC_PROTO},
        {"application/grpc+proto", FLUE_RPC_GRPC, FLUE_RPC_PROTO},
        {"application/proto", FLUE_RPC_CONNECT, FLUE_RPC_PROTO},
        {"application/json", FLUE_RPC_CONNECT, FLUE_RPC_JSON},
        {"application/x-protobuf", FLUE_RPC_HTTP, FLUE_RPC_PROTO},
        {"application/protobuf", FLUE_RPC_HTTP, FLUE_RPC_PROTO},
        {"application/json", FLUE_RPC_HTTP, FLUE_RPC_JSON},
    };
    struct flue_bytes value = flue_request_header(request, "content-type");
    struct flue_bytes name = flue_bytes_trim(flue_bytes_first(value, flue_bytes_find(value, ';')));
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        enum flue_rpc_protocol protocol = types[i].protocol;
        bool served = protocol == FLUE_RPC_GRPC      ? service->grpc
                      : protocol == FLUE_RPC_CONNECT ? service->connect
                                                     : service->http;
        if (served && flue_bytes_equal_nocase(name, flue_bytes_of(types[i].name)))
            return (struct media){true, protocol, types[i].encoding, types[i].name};
    }
    /* Not served here; an answer must be given all the same, in the likeliest words. */
    struct media guess = {.type = "application/x-protobuf"};
    bool json = flue_bytes_equal_nocase(name, FLUE_BYTES("application/json"));
    if (flue_bytes_starts_with(name, FLUE_BYTES("application/grpc")))
        guess.protocol = FLUE_RPC_GRPC;
    else if (service->connect)
        guess.protocol = FLUE_RPC_CONNECT;
    else
        guess.protocol = FLUE_RPC_HTTP;
    if (json) {
        guess.encoding = FLUE_RPC_JSON;
        guess.type = "application/json";
    }
    return guess;
}

static unsigned codings_of(const struct flue_rpc_service *service,
                           const struct flue_request *request, enum flue_rpc_protocol protocol)
{
    unsigned codings = service->codings & flue_server_codings(request->config);
    if (protocol == FLUE_RPC_GRPC)
        codings &= GRPC_CODINGS;
    return codings | 1u << FLUE_IDENTITY;
}

/* grpc-accept-encoding: the same few lists, so that HPACK has them in its table. */
static struct flue_bytes accepted_codings(unsigned codings)
{
    static const char *const lists[16] = {
        "identity",
        "identity,gzip",
        "identity,deflate",
        "identity,gzip,deflate",
        "identity,snappy",
        "identity,gzip,snappy",
        "identity,deflate,snappy",
        "identity,gzip,deflate,snappy",
        "identity,zstd",
        "identity,gzip,zstd",
        "identity,deflate,zstd",
        "identity,gzip,deflate,zstd",
        "identity,snappy,zstd",
        "identity,gzip,snappy,zstd",
        "identity,deflate,snappy,zstd",
        "identity,gzip,deflate,snappy,zstd",
    };
    unsigned index = 0;
    index |= codings & 1u << FLUE_GZIP ? 1 : 0;
    index |= codings & 1u << FLUE_DEFLATE ? 2 : 0;
    index |= codings & 1u << FLUE_SNAPPY ? 4 : 0;
    index |= codings & 1u << FLUE_ZSTD ? 8 : 0;
    return flue_bytes_of(lists[index]);
}

/* ---- answers -------------------------------------------------------------------------------- */

static void respond_error(struct flue_request *request, const struct flue_rpc_service *service,
                          const struct media *media, const struct flue_error *error)
{
    if (media->protocol == FLUE_RPC_GRPC) {
        unsigned codings = codings_of(service, request, FLUE_RPC_GRPC);
        flue_status_grpc(request, error, accepted_codings(codings));
        return;
    }
    const struct flue_code_facts *facts = flue_code_facts(error->code);
    bool connect = media->protocol == FLUE_RPC_CONNECT;
    unsigned status = connect ? facts->connect_http : facts->http;
    struct flue_buffer body;
    flue_buffer_init(&body, FLUE_STATUS_MAX);
    if (connect)
        flue_status_connect(error, &body);
    else if (media->encoding == FLUE_RPC_JSON)
        flue_status_json(error, &body);
    else
        flue_status_proto(error, &body);
    struct flue_header headers[3] = {
        {FLUE_BYTES("content-type"),
         connect ? FLUE_BYTES("application/json") : flue_bytes_of(media->type)},
        {FLUE_BYTES("x-content-type-options"), FLUE_BYTES("nosniff")}};
    size_t count = 2 + flue_status_retry_after(request, error, status, &headers[2]);
    const struct flue_response response = {.status = status,
                                           .headers = headers,
                                           .header_count = count,
                                           .body = body.failed ? FLUE_BYTES("")
                                                               : flue_buffer_bytes(&body)};
    flue_respond(request, &response);
    flue_buffer_destroy(&body);
}

static void refuse(struct flue_request *request, void *arg, const struct flue_error *error)
{
    const struct flue_rpc_service *service = arg;
    struct media media = media_of(service, request);
    if (service->refused)
        service->refused(service->arg, error);
    respond_error(request, service, &media, error);
}

static void release(struct flue_rpc_call *call)
{
    flue_block_unref(call->message);
    call->message = NULL;
}

void flue_rpc_fail(struct flue_rpc_call *call, const struct flue_error *error)
{
    struct rpc *rpc = (struct rpc *)(void *)call;
    release(call);
    refuse(call->request, (void *)(uintptr_t)rpc->service, error);
}

static void answer_grpc(struct flue_rpc_call *call, struct flue_bytes message)
{
    struct rpc *rpc = (struct rpc *)(void *)call;
    struct flue_request *request = call->request;
    uint8_t *body = flue_arena_alloc(&request->arena, PREFIX + message.size);
    if (!body) {
        struct flue_error error;
        flue_fail(&error, FLUE_NO_MEMORY, "no memory for the answer");
        flue_rpc_fail(call, &error);
        return;
    }
    body[0] = 0;
    for (unsigned i = 0; i < 4; i++)
        body[1 + i] = (uint8_t)(message.size >> (24 - 8 * i));
    if (message.size)
        memcpy(body + PREFIX, message.data, message.size);
    const struct flue_header headers[] = {
        {FLUE_BYTES("content-type"), FLUE_BYTES("application/grpc")},
        {FLUE_BYTES("grpc-accept-encoding"),
         accepted_codings(codings_of(rpc->service, request, FLUE_RPC_GRPC))}};
    const struct flue_header trailer = {FLUE_BYTES("grpc-status"), FLUE_BYTES("0")};
    const struct flue_response response = {.status = 200,
                                           .headers = headers,
                                           .header_count = 2,
                                           .body = flue_bytes(body, PREFIX + message.size),
                                           .trailers = &trailer,
                                           .trailer_count = 1};
    release(call); /* the answer is a copy */
    flue_respond(request, &response);
}

void flue_rpc_answer(struct flue_rpc_call *call, struct flue_bytes message)
{
    struct rpc *rpc = (struct rpc *)(void *)call;
    if (call->protocol == FLUE_RPC_GRPC) {
        answer_grpc(call, message);
        return;
    }
    struct media media = media_of(rpc->service, call->request);
    const struct flue_header header = {FLUE_BYTES("content-type"), flue_bytes_of(media.type)};
    const struct flue_response response = {
        .status = 200, .headers = &header, .header_count = 1, .body = message};
    struct flue_request *request = call->request;
    struct flue_block *own = call->message; /* `message` may lie in it, the call in the request */
    call->message = NULL;
    flue_respond(request, &response);
    flue_block_unref(own);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void fail(struct rpc *rpc, enum flue_code code, const char *text)
{
    struct flue_error error;
    flue_fail(&error, code, "%s", text);
    flue_rpc_fail(&rpc->call, &error);
}

static void deliver(struct rpc *rpc)
{
    struct flue_rpc_call *call = &rpc->call;
    const struct flue_rpc_service *service = rpc->service;
    if (call->message->size == 0 && (!service->empty_ok || call->encoding == FLUE_RPC_JSON)) {
        fail(rpc, FLUE_INVALID, "the request is empty");
        return;
    }
    if (call->request->deadline_ns && flue_monotonic_ns() >= call->request->deadline_ns) {
        fail(rpc, FLUE_TIMEOUT, "the caller's deadline passed before the request was complete");
        return;
    }
    rpc->delivered = true;
    service->call(call, service->arg);
}

static void unpacked(struct flue_unpack *unpack)
{
    struct rpc *rpc = (struct rpc *)(void *)((char *)unpack - offsetof(struct rpc, unpack));
    rpc->call.message = unpack->block;
    unpack->block = NULL;
    if (rpc->call.message)
        deliver(rpc);
    else
        flue_rpc_fail(&rpc->call, &unpack->error);
}

/* Takes the five bytes off. False: answered. */
static bool unframe(struct rpc *rpc)
{
    struct flue_block *body = rpc->call.message;
    if (body->size == 0) {
        /* gRPC's table of status codes: "request cardinality violation". */
        fail(rpc, FLUE_BAD_METHOD, "a unary call without a message");
        return false;
    }
    if (body->size < PREFIX) {
        fail(rpc, FLUE_INVALID, "the request ends within the gRPC message's prefix");
        return false;
    }
    const uint8_t *at = body->data;
    size_t size = (size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4];
    uint8_t flag = at[0];
    struct flue_error error;
    if (flag > 1 || (flag == 1 && rpc->coding == FLUE_IDENTITY)) {
        flue_fail(&error, FLUE_INVALID,
                  flag > 1 ? "the gRPC message's compressed flag is %u, not 0 or 1"
                           : "the gRPC message's compressed flag is %u without grpc-encoding",
                  (unsigned)flag);
        flue_rpc_fail(&rpc->call, &error);
        return false;
    }
    if (size > body->size - PREFIX) {
        flue_fail(&error, FLUE_INVALID,
                  "the request ends within the gRPC message: %zu bytes of %zu came",
                  body->size - PREFIX, size);
        flue_rpc_fail(&rpc->call, &error);
        return false;
    }
    if (size < body->size - PREFIX) {
        fail(rpc, FLUE_BAD_METHOD, "a unary call with more than one message");
        return false;
    }
    flue_block_skip(body, PREFIX);
    if (flag == 0)
        rpc->coding = FLUE_IDENTITY;
    return true;
}

/* The body is complete: until then there is nobody to tell. */
static void gone(struct flue_request *request)
{
    struct rpc *rpc = request->user;
    rpc->unpack.gone = true;
    if (rpc->delivered && rpc->service->gone)
        rpc->service->gone(&rpc->call, rpc->service->arg);
}

static void body(struct flue_request *request, void *arg)
{
    struct rpc *rpc = request->user;
    struct flue_rpc_call *call = &rpc->call;
    call->message = request->body;
    request->body = NULL;
    call->wire_size = call->message->size;
    if (call->protocol == FLUE_RPC_GRPC && !unframe(rpc))
        return;
    rpc->unpack = (struct flue_unpack){
        .block = call->message,
        .coding = call->message->size ? rpc->coding : FLUE_IDENTITY,
        .limit = (size_t)request->config->max_request_body_size,
        .account = call->account,
        .done = unpacked,
    };
    call->message = NULL;
    request->gone = gone;
    flue_unpack(&rpc->unpack, request->loop);
}

static bool check_coding(const struct flue_rpc_service *service, struct flue_request *request,
                         enum flue_rpc_protocol protocol, enum flue_coding *coding)
{
    const char *header = protocol == FLUE_RPC_GRPC ? "grpc-encoding" : "content-encoding";
    struct flue_bytes name = flue_request_header(request, header);
    unsigned codings = codings_of(service, request, protocol);
    if (flue_coding_by_name(name, coding) && codings & 1u << *coding)
        return true;
    char shown[64];
    struct flue_error error;
    flue_fail(&error, FLUE_BAD_ENCODING, "%s: \"%s\" is not taken here, use one of %.*s", header,
              flue_printable(name, shown, sizeof shown), FLUE_PRI(accepted_codings(codings)));
    refuse(request, (void *)(uintptr_t)service, &error);
    return false;
}

static void head(struct flue_request *request, void *arg)
{
    const struct flue_rpc_service *service = arg;
    struct media media = media_of(service, request);
    struct flue_error error = {0};
    enum flue_coding coding;
    if (!media.known || (media.protocol == FLUE_RPC_GRPC && request->protocol != FLUE_HTTP2)) {
        char shown[96];
        flue_fail(&error, FLUE_BAD_MEDIA, "content-type: \"%s\" is not taken here%s%s%s%s",
                  flue_printable(flue_request_header(request, "content-type"), shown, sizeof shown),
                  service->grpc ? "; application/grpc (over HTTP/2)" : "",
                  service->connect ? "; application/proto" : "",
                  service->http ? "; application/x-protobuf" : "",
                  service->connect || service->http ? "; application/json" : "");
        refuse(request, arg, &error);
        return;
    }
    if (!check_coding(service, request, media.protocol, &coding))
        return;
    struct flue_account *account = service->admit(request, service->arg, &error);
    if (error.code) {
        refuse(request, arg, &error);
        return;
    }
    struct rpc *rpc = flue_arena_zalloc(&request->arena, 1, sizeof *rpc);
    if (!rpc) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory for the call; send again later");
        refuse(request, arg, &error);
        return;
    }
    rpc->service = service;
    rpc->coding = coding;
    rpc->call = (struct flue_rpc_call){.request = request,
                                       .protocol = media.protocol,
                                       .encoding = media.encoding,
                                       .account = account};
    if (!flue_request_admit(request, account, 0))
        return;
    request->user = rpc;
}

void flue_rpc_route(const struct flue_rpc_service *service, struct flue_route *route)
{
    *route = (struct flue_route){.method = "POST",
                                 .path = service->path,
                                 .arg = (void *)(uintptr_t)service,
                                 .head = head,
                                 .body = body,
                                 .refuse = refuse};
}
