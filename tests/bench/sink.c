/* sink.c: the next hop of the benchmarks: takes OTLP/gRPC and Pyroscope pushes and counts them.
 *
 *   flue_bench_sink HOST:PORT [nothing]      "nothing": answers without looking (the bar of small
 * bodies)
 *
 * GET /counts on the same port prints requests, bytes, resources, resource attributes, profiles,
 * samples as JSON. Gzip'd requests are inflated to be counted. Runs until it is killed.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "collector/base/codec.h"
#include "collector/net/rpc.h"
#include "proto/wire/reader.h"

#define EXPORT "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
#define PUSH   "/push.v1.PusherService/Push"

static struct {
    _Atomic uint64_t requests, bytes, wire_bytes, resources, attributes, profiles, samples, errors;
} counts;
static bool look = true;
static struct flue_budget budget;
static struct flue_account account;

/* Counts the fields `number` of a message and visits each. */
static uint64_t each(struct flue_bytes message, uint32_t number, void (*visit)(struct flue_bytes))
{
    struct flue_reader in = flue_reader(message);
    struct flue_field_value f;
    uint64_t count = 0;

    while (flue_read_field(&in, &f))
        if (f.number == number && f.type == FLUE_LEN) {
            count++;
            if (visit)
                visit(f.bytes);
        }
    if (!flue_reader_done(&in))
        counts.errors++;
    return count;
}

static void count_profile(struct flue_bytes b)
{
    counts.profiles++;
    counts.samples += each(b, 2, NULL);
}
static void count_scope(struct flue_bytes b)
{
    each(b, 2, count_profile);
}
static void count_resource(struct flue_bytes b)
{
    counts.attributes += each(b, 1, NULL);
}
static void count_resource_profiles(struct flue_bytes b)
{
    counts.resources++;
    each(b, 1, count_resource);
    each(b, 2, count_scope);
}

static void count_series(struct flue_bytes b)
{
    counts.resources++;
    counts.attributes += each(b, 1, NULL);
    counts.profiles += each(b, 2, NULL);
}

static struct flue_account *admit(struct flue_request *request, void *arg, struct flue_error *error)
{
    return &account;
}

static void call(struct flue_rpc_call *call_, void *arg)
{
    struct flue_bytes message = flue_block_bytes(call_->message);

    counts.requests++;
    counts.wire_bytes += call_->wire_size;
    counts.bytes += message.size;
    if (look && arg)
        each(message, 1, count_series);
    else if (look)
        each(message, 1, count_resource_profiles);
    flue_rpc_answer(call_,
                    call_->encoding == FLUE_RPC_JSON ? FLUE_BYTES("{}") : flue_bytes(NULL, 0));
}

static void show_head(struct flue_request *request, void *arg)
{
    char text[512];
    int size =
        snprintf(text, sizeof text,
                 "{\"requests\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"wire_bytes\": %" PRIu64
                 ", \"resources\": %" PRIu64 ", \"attributes\": %" PRIu64 ", \"profiles\": %" PRIu64
                 ", \"samples\": %" PRIu64 ", \"errors\": %" PRIu64 "}\n",
                 counts.requests, counts.bytes, counts.wire_bytes, counts.resources,
                 counts.attributes, counts.profiles, counts.samples, counts.errors);
    flue_respond(request,
                 &(struct flue_response){.status = 200, .body = flue_bytes(text, (size_t)size)});
}

int main(int argc, char **argv)
{
    static struct flue_server_config config = {.max_request_body_size = 256 << 20,
                                               .keep_alives_enabled = true,
                                               .max_concurrent_streams = 1000,
                                               .read_header_timeout = 10000000000,
                                               .idle_timeout = 300000000000};
    static const struct flue_rpc_service services[2] = {
        {.path = EXPORT,
         .grpc = true,
         .codings = ~0u,
         .empty_ok = true,
         .admit = admit,
         .call = call},
        {.path = PUSH,
         .grpc = true,
         .connect = true,
         .codings = ~0u,
         .arg = &counts,
         .admit = admit,
         .call = call},
    };
    static struct flue_route routes[3] = {
        {0}, {0}, {.method = "GET", .path = "/counts", .head = show_head}};
    struct flue_error error = {0};
    struct flue_loops *loops;
    sigset_t signals;
    int got;

    if (argc < 2)
        return 2;
    look = argc < 3;
    config.endpoint = argv[1];
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    flue_budget_init(&budget, 8ll << 30);
    flue_account_init(&account, &budget, "sink", 0);
    struct flue_metrics *metrics = flue_metrics_new("sink_");
    if (flue_loops_new(1, &loops, &error))
        goto failed;
    struct flue_server_set *servers = flue_server_set_new(loops, metrics, &budget);
    for (int i = 0; i < 2; i++)
        flue_rpc_route(&services[i], &routes[i]);
    if (flue_server_add(servers, "sink", &config, routes, 3, &error) ||
        flue_server_set_listen(servers, &error) || flue_loops_run(loops, &error))
        goto failed;
    printf("%s\n", flue_server_address(servers, argv[1]));
    fflush(stdout);
    sigwait(&signals, &got);
    flue_server_set_drain(servers);
    flue_loops_stop(loops);
    flue_server_set_destroy(servers);
    flue_loops_destroy(loops);
    return 0;
failed:
    fprintf(stderr, "%s\n", error.text);
    return 1;
}
