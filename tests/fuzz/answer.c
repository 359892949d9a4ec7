/* What the next hop answers: lines "name: value" (":status" too), an empty line, the body. Read as
 * gRPC, as Retry-After, as an OTLP response; and the first line as an endpoint. */
#include "collector/net/client.h"
#include "proto/otlp/otlp.h"
#include "tests/fuzz/fuzz.h"

static void endpoint(struct flue_bytes line)
{
    struct flue_error error = {0};
    char *text = malloc(line.size + 1);
    FUZZ_CHECK(text, "memory");
    if (line.size)
        memcpy(text, line.data, line.size);
    text[line.size] = 0;
    for (int url = 0; url < 2; url++) {
        enum flue_code code = flue_client_endpoint_check(text, url, &error);
        FUZZ_CHECK(code == FLUE_OK || (code == FLUE_INVALID && error.text[0]), error.text);
    }
    (void)flue_client_endpoint_path(text);
    free(text);
}

static void otlp_response(struct flue_bytes body, bool json)
{
    char message[64];
    uint64_t rejected = 0;
    struct flue_error error = {0};
    enum flue_code code =
        flue_otlp_response_read(body, json, &rejected, message, sizeof message, &error);
    if (code != FLUE_OK)
        fuzz_refused(code, &error);
    else
        FUZZ_CHECK(memchr(message, 0, sizeof message), "not terminated");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_bytes in = flue_bytes(data, size), message = {0};
    struct flue_header headers[16];
    struct flue_call call = {.status = 200, .response_headers = headers, .trailers = headers};
    struct flue_error error = {0};
    struct flue_arena arena;
    size_t count = 0;

    fuzz_begin(data, size);
    endpoint(flue_bytes_first(in, flue_bytes_find(in, '\n')));
    while (in.size) {
        size_t end = flue_bytes_find(in, '\n');
        struct flue_bytes line = flue_bytes_first(in, end);
        in = end == SIZE_MAX ? flue_bytes_from(in, in.size) : flue_bytes_from(in, end + 1);
        if (line.size == 0)
            break;
        size_t colon = flue_bytes_find(line, ':');
        uint64_t status;
        if (colon == 0 && line.size > 8 &&
            flue_parse_u64(flue_bytes_trim(flue_bytes_from(line, 8)), &status))
            call.status = (unsigned)(status % 1000);
        if (colon && colon != SIZE_MAX && count < 16)
            headers[count++] = (struct flue_header){
                flue_bytes_first(line, colon), flue_bytes_trim(flue_bytes_from(line, colon + 1))};
    }
    call.response_header_count = count;
    call.trailer_count = dice(3) ? count : 0;
    call.response = in;
    flue_arena_init(&arena, (size_t)16 << 20, 0);
    enum flue_code code = flue_call_grpc_result(&call, &arena, &message, &error);
    FUZZ_CHECK(code == error.code, "two opinions");
    if (code != FLUE_OK)
        fuzz_refused(code, &error);
    FUZZ_CHECK(flue_call_retry_after_ms(&call) <= 3600u * 1000, "over an hour");
    flue_arena_destroy(&arena);
    otlp_response(in, false);
    otlp_response(in, true);
    return fuzz_end();
}
