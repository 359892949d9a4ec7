/* Unary calls in every protocol, without sockets: this file stands in for the server. The first
 * line of the input is the content type, the second the content coding, the rest the body. Every
 * request is answered exactly once. */
#include "collector/net/rpc.h"
#include "tests/fuzz/fuzz.h"

static struct flue_header given[4];
static unsigned answers, delivered;
static struct flue_server_config server_config = {.max_request_body_size = 1 << 20};

struct flue_bytes flue_request_header(const struct flue_request *request, const char *name)
{
    for (size_t i = 0; i < request->header_count; i++)
        if (flue_bytes_is(request->headers[i].name, name))
            return request->headers[i].value;
    return flue_bytes(NULL, 0);
}

bool flue_request_admit(struct flue_request *request, struct flue_account *account, size_t limit)
{
    return true;
}

void flue_respond(struct flue_request *request, const struct flue_response *response)
{
    answers++;
    FUZZ_CHECK(response->status >= 200 && response->status < 600, "a status");
    for (size_t i = 0; i < response->header_count + response->trailer_count; i++) {
        const struct flue_header *header = i < response->header_count
                                               ? &response->headers[i]
                                               : &response->trailers[i - response->header_count];
        for (size_t k = 0; k < header->value.size; k++)
            FUZZ_CHECK(header->value.data[k] >= ' ' && header->value.data[k] < 0x7f,
                       "a header that was not escaped");
    }
}

unsigned flue_server_codings(const struct flue_server_config *config)
{
    return (1u << FLUE_CODINGS) - 1;
}

static struct flue_account *admit(struct flue_request *request, void *arg, struct flue_error *error)
{
    return &fuzz_account;
}

static void call(struct flue_rpc_call *rpc, void *arg)
{
    struct flue_error error = {0};
    delivered++;
    FUZZ_CHECK(rpc->message && rpc->message->size <= 1u << 20, "a message within its limit");
    if (dice(2)) {
        flue_rpc_answer(rpc, dice(2) ? flue_block_bytes(rpc->message) : FLUE_BYTES("{}"));
        return;
    }
    char shown[200];
    flue_fail(&error, (enum flue_code)(1 + dice(FLUE_CODES - 1)), "no: %s",
              flue_printable(flue_block_bytes(rpc->message), shown, sizeof shown));
    error.retry_after_ms = dice(3000);
    flue_rpc_fail(rpc, &error);
}

static struct flue_bytes line_of(struct flue_bytes *in)
{
    size_t end = flue_bytes_find(*in, '\n');
    struct flue_bytes line = flue_bytes_first(*in, end);
    *in = end == SIZE_MAX ? flue_bytes_from(*in, in->size) : flue_bytes_from(*in, end + 1);
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_bytes in = flue_bytes(data, size);
    struct flue_route route;

    fuzz_begin(data, size);
    struct flue_bytes type = line_of(&in), coding = line_of(&in);
    const struct flue_rpc_service service = {.path = "/x",
                                             .grpc = dice(4) != 0,
                                             .connect = dice(2),
                                             .http = true,
                                             .codings = (1u << FLUE_CODINGS) - 1,
                                             .empty_ok = dice(2),
                                             .admit = admit,
                                             .call = call};
    given[0] = (struct flue_header){FLUE_BYTES("content-type"), type};
    given[1] = (struct flue_header){FLUE_BYTES("grpc-encoding"), coding};
    given[2] = (struct flue_header){FLUE_BYTES("content-encoding"), coding};
    struct flue_request request = {.config = &server_config,
                                   .protocol = dice(8) ? FLUE_HTTP2 : FLUE_HTTP1,
                                   .method = FLUE_BYTES("POST"),
                                   .path = FLUE_BYTES("/x"),
                                   .headers = given,
                                   .header_count = 3,
                                   .content_length = -1,
                                   .peer = "127.0.0.1:1"};
    flue_arena_init(&request.arena, 4u << 20, 0);
    answers = delivered = 0;
    flue_rpc_route(&service, &route);
    route.head(&request, route.arg);
    if (answers == 0) {
        request.body = fuzz_block(in);
        route.body(&request, route.arg);
    }
    FUZZ_CHECK(answers == 1, "not answered exactly once");
    FUZZ_CHECK(delivered <= 1, "delivered twice");
    flue_block_unref(request.body);
    flue_arena_destroy(&request.arena);
    return fuzz_end();
}
