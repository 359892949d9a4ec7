/* Measures archives, asserts nothing.
 *
 *   size   layout otlp rolled up against its profiles gzip'd one by one, for a fleet of services
 *          that repeat their stacks every 15 s, and for profiles that have nothing in common
 *   cost   CPU seconds per GB of OTLP that goes into an object
 *   pprof  layout pprof over plain HTTP into S3's protocol: MB of profiles per second and core of
 *          flue's own threads (names, hashes, manifests, signatures, sockets; queue excluded)
 *
 * flue_bench_archive [services [rounds]] */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "archive/layout/otlp.h"
#include "archive/layout/pprof.h"
#include "archive/object/s3.h"
#include "archive/writer/put.h"
#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "proto/convert/convert.h"
#include "proto/otlp/dictionary_out.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/pprof.h"

#define FUNCTIONS 500
#define STACKS    600
#define SAMPLES   220
#define MINUTE    60000000000ull

static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

static double cpu(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "failed: %s\n", what);
        exit(1);
    }
}

/* ---- profiles -------------------------------------------------------------------------------- */

static void text(struct flue_out *out, const char *s)
{
    flue_out_field(out, 6, flue_bytes_of(s));
}

static void value_type(struct flue_out *out, uint32_t field, uint64_t type, uint64_t unit)
{
    size_t mark = flue_out_open(out, field);
    flue_out_number(out, 1, type);
    flue_out_number(out, 2, unit);
    flue_out_close(out, mark);
}

/* A CPU profile of a service: some of its stacks, with values of this round. `program` tells names
 * and stacks, so equal programs have them in common. */
static struct flue_block *profile(uint64_t program, uint64_t round, uint64_t time_ns)
{
    static const char *const words[] = {"encode",  "frame",  "motion", "scale", "mux",    "segment",
                                        "cache",   "router", "http",   "read",  "write",  "filter",
                                        "entropy", "slice",  "buffer", "queue", "packet", "index"};
    struct flue_out out;
    char name[200];

    must(flue_out_init(&out, 64 << 10, 64 << 20), "memory");
    value_type(&out, 1, 1, 2);
    value_type(&out, 1, 3, 4);
    for (unsigned s = 0; s < SAMPLES; s++) {
        uint64_t draw = mix(program * 77 + round * 1000003 + s * 7919);
        uint64_t stack = draw % STACKS, hits = 1 + mix(draw) % 40;
        unsigned depth = 12 + (unsigned)(mix(program + stack * 31) % 28);
        size_t sample = flue_out_open(&out, 2), packed = flue_out_open(&out, 1);
        for (unsigned d = 0; d < depth; d++) { /* the nearer to the root, the more in common */
            uint64_t shared = depth - d < 6 ? depth - d : stack >> (depth - d > 14 ? 0 : 4);
            flue_out_varint(&out, 1 + mix(program * 13 + shared * 131 + (depth - d)) % FUNCTIONS);
        }
        flue_out_close(&out, packed);
        packed = flue_out_open(&out, 2);
        flue_out_varint(&out, hits);
        flue_out_varint(&out, hits * 10000000);
        flue_out_close(&out, packed);
        flue_out_close(&out, sample);
    }
    size_t mapping = flue_out_open(&out, 3);
    flue_out_number(&out, 1, 1);
    flue_out_number(&out, 2, 0x400000);
    flue_out_number(&out, 3, 0x4000000);
    flue_out_number(&out, 5, 5);
    flue_out_close(&out, mapping);
    for (unsigned f = 1; f <= FUNCTIONS; f++) {
        size_t location = flue_out_open(&out, 4);
        flue_out_number(&out, 1, f);
        flue_out_number(&out, 2, 1);
        flue_out_number(&out, 3, 0x400000 + mix(program * 17 + f) % 0x3000000);
        size_t line = flue_out_open(&out, 4);
        flue_out_number(&out, 1, f);
        flue_out_number(&out, 2, 10 + f % 900);
        flue_out_close(&out, line);
        flue_out_close(&out, location);
        size_t function = flue_out_open(&out, 5);
        flue_out_number(&out, 1, f);
        flue_out_number(&out, 2, 5 + 2 * f - 1);
        flue_out_number(&out, 3, 5 + 2 * f - 1);
        flue_out_number(&out, 4, 5 + 2 * f);
        flue_out_close(&out, function);
    }
    text(&out, "");
    text(&out, "samples");
    text(&out, "count");
    text(&out, "cpu");
    text(&out, "nanoseconds");
    snprintf(name, sizeof name, "/opt/media/bin/service-%016llx", (unsigned long long)mix(program));
    text(&out, name);
    for (unsigned f = 1; f <= FUNCTIONS; f++) {
        uint64_t r = mix(program * 1000 + f);
        snprintf(name, sizeof name, "media::%s::%s_%s<%s>::run_%u", words[r % 18],
                 words[(r >> 8) % 18], words[(r >> 16) % 18], words[(r >> 24) % 18],
                 (unsigned)(r >> 32) % 1000);
        text(&out, name);
        snprintf(name, sizeof name, "/src/media/%s/%s_%u.cc", words[(r >> 40) % 18],
                 words[(r >> 48) % 18], (unsigned)(r >> 56) % 50);
        text(&out, name);
    }
    flue_out_number(&out, 9, time_ns);
    flue_out_number(&out, 10, 15000000000ull);
    value_type(&out, 11, 3, 4);
    flue_out_number(&out, 12, 10000000);
    must(!out.failed, "a profile");
    flue_block_finish(out.block);
    return out.block;
}

/* The profile as a batch that came as pprof; takes its reference. */
static struct flue_payload *payload_of(struct flue_block *block, const char *service)
{
    static const struct flue_pprof_limits limits = {256u << 20, 1000};
    struct flue_pprof_builder *builder = flue_pprof_builder_new(NULL);
    struct flue_pprof_profile one = {.bytes = flue_block_bytes(block)};
    struct flue_payload *payload = NULL;
    struct flue_counts counts;
    struct flue_error error;

    must(flue_pprof_check(one.bytes, &limits, &one.facts, &error) == FLUE_OK, error.text);
    must(
        flue_pprof_builder_keep(builder, block) && flue_pprof_builder_series(builder) &&
            flue_pprof_builder_label(builder, FLUE_BYTES("__name__"), FLUE_BYTES("process_cpu")) &&
            flue_pprof_builder_label(builder, FLUE_BYTES("service_name"), flue_bytes_of(service)) &&
            flue_pprof_builder_profile(builder, &one) &&
            flue_pprof_builder_finish(builder, &payload, &counts, &error) == FLUE_OK,
        "a payload");
    flue_block_unref(block);
    return payload;
}

static size_t gzipped(struct flue_bytes raw, int level)
{
    struct flue_slices one = {.items = &raw, .count = 1, .room = 1, .total = raw.size};
    struct flue_block *packed = NULL;
    must(flue_deflate(FLUE_GZIP, level, &one, &packed, NULL) == FLUE_OK, "gzip");
    size_t size = packed->size;
    flue_block_unref(packed);
    return size;
}

/* ---- size and cost --------------------------------------------------------------------------- */

static bool every(void *arg, const struct flue_payload *payload,
                  const struct flue_otlp_profile *one, uint64_t time_ns)
{
    return true;
}

static void roll_up(const char *what, unsigned services, unsigned rounds, bool related, int level)
{
    struct flue_otlp_object *object = flue_otlp_object_new(NULL, level);
    uint64_t encoded = 0, gzip_pprof = 0, gzip_otlp = 0, fast = 0;
    double seconds = 0, finish;
    struct flue_otlp_made made;
    struct flue_error error;

    for (unsigned round = 0; round < rounds; round++)
        for (unsigned s = 0; s < services; s++) {
            char service[32];
            uint64_t program = related ? s : 1000000 + round * services + s;
            struct flue_block *raw =
                profile(program, round, 1795000000000000000ull + round * MINUTE / 4 + s);
            gzip_pprof += gzipped(flue_block_bytes(raw), 6);
            fast += gzipped(flue_block_bytes(raw), FLUE_LEVEL_DEFAULT);
            snprintf(service, sizeof service, "service-%u", s);
            struct flue_payload *pprof = payload_of(raw, service), *otlp;
            must(flue_convert(pprof, FLUE_FORM_OTLP, NULL, &otlp, &error) == FLUE_OK, error.text);
            struct flue_arena arena;
            struct flue_slices slices = {0};
            flue_arena_init(&arena, 64u << 20, 0);
            otlp->ops->slices(otlp, &arena, &slices, NULL);
            struct flue_block *whole = flue_block_new(NULL, slices.total);
            flue_slices_copy(&slices, whole->data);
            whole->size = slices.total;
            gzip_otlp += gzipped(flue_block_bytes(whole), 6);
            encoded += slices.total;
            flue_block_unref(whole);
            flue_arena_destroy(&arena);
            double start = cpu(CLOCK_THREAD_CPUTIME_ID);
            must(flue_otlp_object_add(object, otlp, 1, every, NULL, &error) == FLUE_OK, error.text);
            seconds += cpu(CLOCK_THREAD_CPUTIME_ID) - start;
            flue_payload_unref(otlp);
            flue_payload_unref(pprof);
        }
    finish = cpu(CLOCK_THREAD_CPUTIME_ID);
    must(flue_otlp_object_finish(object, &made, &error) == FLUE_OK, error.text);
    seconds += cpu(CLOCK_THREAD_CPUTIME_ID) - finish;
    uint64_t best = gzip_pprof < gzip_otlp ? gzip_pprof : gzip_otlp;
    printf("%-10s %u profiles, %.1f MB OTLP; gzip one by one: pprof %.2f MB (level 6), %.2f MB "
           "(default), OTLP %.2f MB; rolled up (zstd %d): %.2f MB = %.1f %% of the smallest; "
           "%.2f CPU s/GB\n",
           what, services * rounds, (double)encoded / 1e6, (double)gzip_pprof / 1e6,
           (double)fast / 1e6, (double)gzip_otlp / 1e6, level, (double)made.body.total / 1e6,
           100.0 * (double)made.body.total / (double)best, seconds / ((double)encoded / 1e9));
    flue_otlp_object_destroy(object);
}

/* ---- layout pprof over HTTP ------------------------------------------------------------------ */

static int listening;
static double sink_cpu;
static uint64_t sink_requests;

/* Takes every body and says 200; one connection after the other on threads of their own. */
static void *sink(void *arg)
{
    int fd = (int)(intptr_t)arg;
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    char *buffer = malloc(1 << 20);
    size_t have = 0, body = 0;

    for (;;) {
        ssize_t n = read(fd, buffer + have, (1 << 20) - 1 - have);
        if (n <= 0)
            break;
        have += (size_t)n;
        while (have) {
            if (body) {
                size_t part = have < body ? have : body;
                body -= part;
                memmove(buffer, buffer + part, have -= part);
                if (body)
                    break;
                must(write(fd, answer, sizeof answer - 1) > 0, "answer");
                continue;
            }
            buffer[have] = 0;
            char *end = memmem(buffer, have, "\r\n\r\n", 4), *length;
            if (!end)
                break;
            length = strcasestr(buffer, "content-length:");
            must(length && length < end, "a length");
            body = strtoul(length + 15, NULL, 10);
            size_t head = (size_t)(end + 4 - buffer);
            memmove(buffer, buffer + head, have -= head);
            __atomic_fetch_add(&sink_requests, 1, __ATOMIC_RELAXED);
        }
    }
    free(buffer);
    close(fd);
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    sink_cpu += cpu(CLOCK_THREAD_CPUTIME_ID);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static pthread_t sinks[64];
static unsigned sink_count;

static void *accept_all(void *arg)
{
    for (;;) {
        int fd = accept(listening, NULL, NULL);
        if (fd < 0)
            return NULL;
        if (sink_count < 64)
            pthread_create(&sinks[sink_count++], NULL, sink, (void *)(intptr_t)fd);
    }
}

#define LANES 8
struct lane {
    struct driver *driver;
    struct flue_put put;
    struct flue_pprof_plan plan;
    struct flue_batch batch;
    struct flue_bytes content;
    struct flue_slices body;
    char key[FLUE_OBJECT_KEY_LIMIT];
    bool manifest;
};
struct driver {
    struct flue_loop *loop;
    struct flue_object_store *store;
    struct flue_payload *payload;
    struct flue_origin *origin;
    struct lane lanes[LANES];
    uint64_t left, bytes;
    unsigned open;
    uv_sem_t done;
};

static void next_profile(struct lane *lane);

static void start(struct lane *lane, const char *extension, struct flue_bytes content,
                  const uint8_t *sha256)
{
    snprintf(lane->key, sizeof lane->key, "%s%s", lane->plan.objects[0].key, extension);
    lane->content = content;
    lane->body =
        (struct flue_slices){.items = &lane->content, .count = 1, .room = 1, .total = content.size};
    lane->put.key = flue_bytes_of(lane->key);
    lane->put.body = &lane->body;
    lane->put.sha256 = sha256;
    flue_put_start(&lane->put);
}

static void put_done(struct flue_put *put)
{
    struct lane *lane = put->user;

    must(put->error.code == FLUE_OK, put->error.text);
    if (lane->manifest) {
        lane->manifest = false;
        start(lane, ".pb.gz", lane->plan.objects[0].pprof, lane->plan.objects[0].sha256);
        return;
    }
    lane->driver->bytes += lane->plan.objects[0].pprof.size;
    flue_pprof_plan_destroy(&lane->plan);
    next_profile(lane);
}

static void next_profile(struct lane *lane)
{
    struct driver *driver = lane->driver;
    struct flue_error error;

    if (driver->left == 0) {
        if (--driver->open == 0)
            uv_sem_post(&driver->done);
        return;
    }
    driver->left--;
    lane->batch = (struct flue_batch){.payload = driver->payload, .origin = driver->origin};
    must(flue_pprof_plan_open(&lane->batch, &lane->plan, &error) == FLUE_OK &&
             flue_pprof_plan_name(&lane->batch, &lane->plan, &error) == FLUE_OK,
         "a plan");
    lane->manifest = true;
    start(lane, ".json",
          flue_bytes(lane->plan.objects[0].manifest, lane->plan.objects[0].manifest_size), NULL);
}

static void begin(struct flue_loop *loop, void *arg)
{
    struct driver *driver = arg;

    driver->open = LANES;
    for (unsigned i = 0; i < LANES; i++) {
        struct lane *lane = &driver->lanes[i];
        lane->driver = driver;
        lane->put = (struct flue_put){.store = driver->store,
                                      .loop = loop,
                                      .content_type = "application/gzip",
                                      .attempts = 1,
                                      .who = "bench",
                                      .done = put_done,
                                      .user = lane};
        next_profile(lane);
    }
}

static void end(struct flue_loop *loop, void *arg)
{
    flue_object_store_destroy(((struct driver *)arg)->store);
}

/* Noise of a size, gzip'd: what a large profile is to everybody on its way. */
static struct flue_block *large(size_t size)
{
    struct flue_block *raw = profile(7, 7, 1795000000000000000ull);
    size_t padding = size > raw->size ? size - raw->size : 0;
    struct flue_out out;

    must(flue_out_init(&out, size * 2, 64u << 20), "memory");
    flue_out_bytes(&out, flue_block_bytes(raw));
    flue_block_unref(raw);
    for (size_t i = 0; i < padding; i += 64) { /* strings that nothing refers to */
        char hex[64];
        for (unsigned k = 0; k < 4; k++)
            snprintf(hex + 15 * k, 17, "%016llx", (unsigned long long)mix(i * 4 + k));
        flue_out_field(&out, 6, flue_bytes(hex, 60));
    }
    flue_block_finish(out.block);
    struct flue_bytes bytes = flue_block_bytes(out.block);
    struct flue_slices one = {.items = &bytes, .count = 1, .room = 1, .total = bytes.size};
    struct flue_block *packed;
    must(flue_deflate(FLUE_GZIP, 6, &one, &packed, NULL) == FLUE_OK, "gzip");
    flue_block_unref(out.block);
    return packed;
}

static void over_http(size_t size, double seconds_wanted)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char endpoint[64];
    pthread_t acceptor;
    struct flue_loops *loops;
    struct driver driver = {0};
    struct flue_error error;
    struct flue_block *block = large(size);
    size_t stored = block->size;

    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(listening, (struct sockaddr *)&address, sizeof address) == 0 &&
             listen(listening, 64) == 0 &&
             getsockname(listening, (struct sockaddr *)&address, &length) == 0,
         "a socket");
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%u", ntohs(address.sin_port));
    sink_cpu = 0;
    sink_count = 0;
    pthread_create(&acceptor, NULL, accept_all, NULL);
    struct flue_s3_config config = {.region = "us-east-1",
                                    .s3_bucket = "bucket",
                                    .endpoint = endpoint,
                                    .s3_force_path_style = true};
    struct flue_origin origin = {.received_ns = flue_wall_ns()};
    driver.payload = payload_of(block, "encoder");
    driver.origin = flue_origin_new(&origin);
    driver.left = (uint64_t)(seconds_wanted * 400e6 / (double)stored) + LANES;
    uv_sem_init(&driver.done, 0);
    must(flue_loops_new(1, &loops, &error) == FLUE_OK, "loops");
    must(flue_object_s3.open(&config, loops->items[0], NULL, &driver.store, &error) == FLUE_OK,
         error.text);
    must(flue_loops_run(loops, &error) == FLUE_OK, "loops");
    double before = cpu(CLOCK_PROCESS_CPUTIME_ID);
    flue_loop_call(loops->items[0], begin, &driver);
    uv_sem_wait(&driver.done);
    flue_loop_call(loops->items[0], end, &driver);
    shutdown(listening, SHUT_RDWR);
    close(listening);
    pthread_join(acceptor, NULL);
    for (unsigned i = 0; i < sink_count; i++)
        pthread_join(sinks[i], NULL);
    double own = cpu(CLOCK_PROCESS_CPUTIME_ID) - before - sink_cpu;
    printf("pprof      profiles of %zu KB: %.0f MB/s per core (%.2f CPU s/GB, sink %.2f s apart)\n",
           stored / 1000, (double)driver.bytes / 1e6 / own, own / ((double)driver.bytes / 1e9),
           sink_cpu);
    flue_loops_stop(loops);
    flue_loops_destroy(loops);
    flue_payload_unref(driver.payload);
    flue_origin_unref(driver.origin);
}

int main(int argc, char **argv)
{
    unsigned services = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 200;
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 20;

    setenv("AWS_ACCESS_KEY_ID", "key", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    roll_up("fleet", services, rounds, true, 3);
    roll_up("unrelated", services, rounds / 4 + 1, false, 3);
    over_http(64 << 10, 1);
    over_http(512 << 10, 2);
    over_http(4 << 20, 2);
    return 0;
}
