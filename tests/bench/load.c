/* load.c: keeps N requests in flight over C connections and checks every answer.
 *
 *   flue_bench_load URL BODY_FILE [--push | --otlp] [--connections C] [--in-flight N] [--seconds S]
 *                   [--requests R] [--rate PER_SECOND] [--gzip]
 *
 * --otlp (the default) sends gRPC Export; --push sends a PushRequest around a pprof file, each with
 * a label of its own, as distinct pods would. With --rate the requests begin at fixed times (open
 * loop) and latency counts from when a request was due. Prints one line of JSON.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "collector/net/client.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/pprof.h"

#define EXPORT      "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
#define PUSH        "/push.v1.PusherService/Push"
#define SLOTS       4096
#define POD_SIZE    16
#define LATENCY_MAX (1u << 24)

struct slot {
    struct flue_call call;
    struct flue_task task;
    struct flue_timer timer;
    struct flue_slices body;
    struct flue_bytes parts[8];
    struct flue_arena arena;
    char *pod; /* in the body; POD_SIZE bytes */
    uint8_t prefix[5];
    uint64_t due;
};

static struct {
    const char *url;
    bool push, gzip;
    unsigned connections, in_flight;
    double seconds, rate;
    uint64_t limit;
    struct flue_bytes body;
    struct flue_client *clients[64];
    struct flue_loop *loop;
    struct slot *slots;
    uint32_t run; /* no two runs push the same series at the same time */
    uint64_t started, begun, finished, failed, partial, end, next_due;
    unsigned running;
    uint32_t *latencies; /* in 100 ns */
    uint64_t latency_count;
    char first_failure[256];
    bool stop;
} load;

static const struct flue_header otlp_headers[] = {
    {FLUE_BYTES_INIT("content-type"), FLUE_BYTES_INIT("application/grpc")},
    {FLUE_BYTES_INIT("te"), FLUE_BYTES_INIT("trailers")},
    {FLUE_BYTES_INIT("grpc-encoding"), FLUE_BYTES_INIT("gzip")},
};
static const struct flue_header push_headers[] = {
    {FLUE_BYTES_INIT("content-type"), FLUE_BYTES_INIT("application/proto")},
};

static void begin(struct slot *slot);

static bool finished(void)
{
    return load.stop || (load.limit && load.begun >= load.limit) || flue_monotonic_ns() >= load.end;
}

static void next(struct slot *slot)
{
    uint64_t now = flue_monotonic_ns();

    if (finished()) {
        if (--load.running == 0)
            kill(getpid(), SIGTERM);
        return;
    }
    if (load.rate <= 0) {
        slot->due = now;
        begin(slot);
        return;
    }
    slot->due = load.next_due;
    load.next_due += (uint64_t)(1e9 / load.rate);
    if (slot->due <= now)
        begin(slot);
    else
        flue_timer_arm(load.loop, &slot->timer, slot->due);
}

static void fire(struct flue_timer *timer)
{
    begin((struct slot *)((char *)timer - offsetof(struct slot, timer)));
}

static void check(struct flue_call *call, struct flue_error *error)
{
    struct slot *slot = call->user;
    struct flue_bytes message;
    uint64_t rejected = 0;
    char text[128];

    if (load.push) {
        *error = call->error;
        if (!error->code && call->status != 200)
            flue_fail(error, FLUE_REFUSED, "status %u: %.*s", call->status,
                      (int)(call->response.size < 150 ? call->response.size : 150),
                      (const char *)call->response.data);
        return;
    }
    flue_arena_reset(&slot->arena);
    if (flue_call_grpc_result(call, &slot->arena, &message, error))
        return;
    if (message.size &&
        flue_otlp_response_read(message, false, &rejected, text, sizeof text, error) == 0 &&
        rejected)
        load.partial++;
}

static void done(struct flue_call *call)
{
    struct slot *slot = call->user;
    struct flue_error error = {0};
    uint64_t taken = (flue_monotonic_ns() - slot->due) / 100;

    check(call, &error);
    load.finished++;
    if (error.code) {
        if (!load.failed++)
            snprintf(load.first_failure, sizeof load.first_failure, "%.200s", error.text);
    } else if (load.latency_count < LATENCY_MAX) {
        load.latencies[load.latency_count++] = taken > UINT32_MAX ? UINT32_MAX : (uint32_t)taken;
    }
    next(slot);
}

static void begin(struct slot *slot)
{
    if (load.push) {
        char pod[POD_SIZE + 1];
        snprintf(pod, sizeof pod, "%08" PRIx32 "%08" PRIx32, load.run, (uint32_t)load.begun);
        memcpy(slot->pod, pod, POD_SIZE);
    }
    load.begun++;
    slot->call.done = done;
    flue_call_send(&slot->call);
}

static void prepare(struct slot *slot, unsigned number)
{
    flue_arena_init(&slot->arena, 1 << 20, 0);
    slot->timer.fire = fire;
    slot->call = (struct flue_call){.client = load.clients[number % load.connections],
                                    .method = FLUE_BYTES("POST"),
                                    .user = slot};
    if (load.push) {
        static const char pod[] = "pod-is-set-later";
        const struct flue_pprof_label labels[] = {
            {FLUE_BYTES("__name__"), FLUE_BYTES("process_cpu")},
            {FLUE_BYTES("pod"), flue_bytes(pod, POD_SIZE)},
            {FLUE_BYTES("service_name"), FLUE_BYTES("encoder")},
        };
        struct flue_slices slices = {0};
        struct flue_error error;
        if (flue_push_write(&slot->arena, labels, 3, load.body, flue_bytes(NULL, 0), &slices,
                            &error))
            exit(1);
        for (size_t i = 0; i < slices.count && !slot->pod; i++)
            slot->pod = memmem(slices.items[i].data, slices.items[i].size, pod, POD_SIZE);
        slot->body = slices;
        slot->call.path = FLUE_BYTES(PUSH);
        slot->call.headers = push_headers;
        slot->call.header_count = 1;
    } else {
        slot->prefix[0] = load.gzip;
        for (int i = 0; i < 4; i++)
            slot->prefix[1 + i] = (uint8_t)(load.body.size >> (24 - 8 * i));
        slot->parts[0] = flue_bytes(slot->prefix, 5);
        slot->parts[1] = load.body;
        slot->body = (struct flue_slices){slot->parts, 2, 8, load.body.size + 5};
        slot->call.path = FLUE_BYTES(EXPORT);
        slot->call.headers = otlp_headers;
        slot->call.header_count = load.gzip ? 3 : 2;
    }
    slot->call.body = &slot->body;
}

static void start(struct flue_loop *loop, void *arg)
{
    load.started = flue_monotonic_ns();
    load.end = load.started + (uint64_t)(load.seconds * 1e9);
    load.next_due = load.started;
    load.running = load.in_flight;
    for (unsigned i = 0; i < load.in_flight; i++) {
        prepare(&load.slots[i], i);
        next(&load.slots[i]);
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double p)
{
    if (!load.latency_count)
        return 0;
    return load.latencies[(uint64_t)(p * (double)(load.latency_count - 1))] / 1e4;
}

static struct flue_bytes read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    long size;
    uint8_t *data;

    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET)) {
        perror(path);
        exit(1);
    }
    data = malloc((size_t)size + 1);
    if (!data || fread(data, 1, (size_t)size, file) != (size_t)size)
        exit(1);
    fclose(file);
    return flue_bytes(data, (size_t)size);
}

static void arguments(int argc, char **argv)
{
    load.connections = 4;
    load.in_flight = 32;
    load.seconds = 3;
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--push") == 0)
            load.push = true;
        else if (strcmp(argv[i], "--gzip") == 0)
            load.gzip = true;
        else if (strcmp(argv[i], "--otlp") == 0)
            load.push = false;
        else if (i + 1 >= argc)
            exit(2);
        else if (strcmp(argv[i], "--connections") == 0)
            load.connections = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--in-flight") == 0)
            load.in_flight = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            load.seconds = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--requests") == 0)
            load.limit = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--rate") == 0)
            load.rate = strtod(argv[++i], NULL);
        else
            exit(2);
    }
    if (load.connections < 1 || load.connections > 64 || load.in_flight < 1 ||
        load.in_flight > SLOTS)
        exit(2);
}

int main(int argc, char **argv)
{
    struct flue_error error = {0};
    struct flue_loops *loops;
    struct flue_block *packed = NULL;
    sigset_t signals;
    int got;

    if (argc < 3) {
        fprintf(stderr, "load URL BODY [options]; see the top of load.c\n");
        return 2;
    }
    arguments(argc, argv);
    load.url = argv[1];
    load.body = read_file(argv[2]);
    size_t raw = load.body.size;
    if (load.gzip && !load.push) {
        struct flue_slices one = {&load.body, 1, 1, load.body.size};
        if (flue_deflate(FLUE_GZIP, 6, &one, &packed, &error) &&
            flue_deflate(FLUE_GZIP, FLUE_LEVEL_DENSE, &one, &packed, &error))
            goto failed;
        load.body = flue_block_bytes(packed);
    }
    load.slots = calloc(load.in_flight, sizeof *load.slots);
    load.latencies = malloc(LATENCY_MAX * sizeof *load.latencies);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (!load.slots || !load.latencies || flue_loops_new(1, &loops, &error))
        goto failed;
    load.run = (uint32_t)flue_random_u64();
    load.loop = loops->items[0];
    struct flue_client_config config = {.endpoint = load.url,
                                        .protocol = FLUE_CLIENT_HTTP2,
                                        .tls_by_scheme = true,
                                        .tls = {.insecure = true},
                                        .max_connections = 1,
                                        .response_limit = 1 << 20};
    for (unsigned i = 0; i < load.connections; i++)
        if (flue_client_new(load.loop, &config, NULL, &load.clients[i], &error))
            goto failed;
    if (flue_loops_run(loops, &error))
        goto failed;
    flue_loop_call(load.loop, start, NULL);
    sigwait(&signals, &got);
    double seconds = (double)(flue_monotonic_ns() - load.started) / 1e9;
    flue_loops_stop(loops);
    qsort(load.latencies, load.latency_count, sizeof *load.latencies, compare);
    printf("{\"requests\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"partial\": %" PRIu64
           ", \"seconds\": %.3f, \"per_s\": %.0f, \"raw_bytes\": %" PRIu64
           ", \"wire_bytes\": %" PRIu64
           ", \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"first_failure\": \"%s\"}\n",
           load.finished, load.failed, load.partial, seconds, (double)load.finished / seconds,
           (uint64_t)raw * load.finished, (uint64_t)load.body.size * load.finished, percentile(0.5),
           percentile(0.99), percentile(0.999), load.first_failure);
    for (unsigned i = 0; i < load.connections; i++)
        flue_client_destroy(load.clients[i]);
    return load.failed != 0;
failed:
    fprintf(stderr, "%s\n", error.text);
    return 1;
}
