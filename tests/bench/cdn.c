/* Look-ups among a million prefixes: nanoseconds each, one after the other (each address follows
 * from the answer before, so that none overlaps another) and as they come; memory; time to read the
 * file, to build, and to swap. For comparison, in turn with it: one read from a random cache line
 * of as much memory, which is what a look-up cannot do without where caches are cold, and a binary
 * search over the same intervals. Usage: flue_bench_cdn [ROUNDS]
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "processors/cdn/tables.h"

#define PREFIXES 1000000u
#define QUERIES  (1u << 18)
#define ROUNDS   15

static uint64_t seed;
static uint64_t draw(void) /* splitmix64 */
{
    uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* CPU time: what another process takes meanwhile is not ours, what it takes from the caches is. */
static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- prefixes -------------------------------------------------------------------------------- */

static void put_u64(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> (56 - 8 * i));
}

/* IPv4 as in a routing table: most are /24, in runs, within blocks of /12 to /20 listed as well. */
static void four(struct flue_prefix *to)
{
    static uint32_t block, next;
    static const uint8_t lengths[16] = {24, 24, 24, 24, 24, 24, 24, 24, 24, 23, 22, 22, 21, 20, 19, 18};
    if (draw() % 64 == 0 || !next)
        next = block = (uint32_t)(draw() % (223u << 24)) + (1u << 24);
    unsigned length = draw() % 200 == 0 ? 12 + draw() % 8 : lengths[draw() % 16];
    uint32_t mask = ~(uint32_t)0 << (32 - length), base = next & mask;
    next += (1u + (uint32_t)(draw() % 3)) << (32 - length);
    put_u64(to->address.bytes, (uint64_t)base << 32);
    to->length = (uint8_t)length;
}

/* IPv6 as it is handed out: /29 and /32 of a few registries, their /40, /44, /48 and /56 in runs. */
static void six(struct flue_prefix *to)
{
    static uint64_t next;
    static const uint16_t registries[8] = {0x2001, 0x2400, 0x2404, 0x2600, 0x2604, 0x2a00, 0x2a02, 0x2c0f};
    static const uint8_t lengths[8] = {48, 48, 48, 48, 44, 40, 56, 36};
    if (draw() % 128 == 0 || !next)
        next = (uint64_t)registries[draw() % 8] << 48 | (draw() & UINT64_C(0x3ffffff) << 22);
    unsigned length = draw() % 100 == 0 ? 29 + draw() % 4 : lengths[draw() % 8];
    put_u64(to->address.bytes, next & UINT64_MAX << (64 - length));
    to->length = (uint8_t)length;
    to->address.v6 = true;
    next += (1 + draw() % 3) << (64 - length);
}

static void random_four(struct flue_prefix *to)
{
    put_u64(to->address.bytes, (draw() & UINT64_C(0xfffffff0)) << 32);
    to->length = 28;
}

static void random_six(struct flue_prefix *to)
{
    put_u64(to->address.bytes, draw() & ~UINT64_C(0xffff));
    to->length = 48;
    to->address.v6 = true;
}

static const struct set {
    const char *name;
    void (*four)(struct flue_prefix *), (*six)(struct flue_prefix *);
    unsigned sixes; /* of 10 */
} sets[] = {{"as routed, 800 k IPv4 and 200 k IPv6", four, six, 2},
            {"as routed, half and half", four, six, 5},
            {"IPv6 as handed out", four, six, 10},
            {"IPv4 at random", random_four, random_six, 0},
            {"IPv6 at random", random_four, random_six, 10}};

static struct flue_prefix *make(const struct set *set)
{
    struct flue_prefix *items = calloc(PREFIXES, sizeof *items);
    for (size_t i = 0; items && i < PREFIXES; i++) {
        if (i % 10 < set->sixes)
            set->six(&items[i]);
        else
            set->four(&items[i]);
        items[i].place = 2 + (uint32_t)(draw() % 4000);
    }
    return items;
}

/* ---- one measurement ------------------------------------------------------------------------- */

/* An address in a prefix of the table, or near it. */
static struct flue_address query(const struct flue_prefix *items, size_t count)
{
    struct flue_address address = items[draw() % count].address;
    uint64_t noise = draw();
    for (unsigned i = address.v6 ? 5 : 2; i < (address.v6 ? 16u : 4u); i++)
        address.bytes[i] ^= (uint8_t)(noise >> (8 * (i % 8)));
    return address;
}

struct reference { /* binary search */
    uint64_t *keys;
    size_t count;
};

static int by_key(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t reference_find(const struct reference *r, const struct flue_address *address)
{
    uint64_t key = 0;
    for (int i = 0; i < 8; i++)
        key = key << 8 | address->bytes[i];
    size_t below = 0, above = r->count;
    while (above - below > 1) {
        size_t middle = below + (above - below) / 2;
        if (r->keys[middle] <= key)
            below = middle;
        else
            above = middle;
    }
    return (uint32_t)below;
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_double);
    return values[count / 2];
}

enum { CHAIN, STREAM, MISS, BINARY, KINDS };
static uint32_t sink;

static double measure(int kind, const struct flue_prefixes *p, const struct reference *r,
                      const struct flue_address *queries, const uint32_t *memory, size_t words)
{
    uint32_t last = 0;
    double start = cpu_ns();
    for (size_t i = 0; i < QUERIES; i++) {
        /* 0 or 1 more, which nobody knows before the answer is there */
        size_t at = (i + (kind == STREAM ? 0 : last & 1)) % QUERIES;
        switch (kind) {
        case MISS:
            last = memory[(last + i * 2654435761u) % words / 16 * 16];
            break;
        case BINARY:
            last = reference_find(r, &queries[at]);
            break;
        case CHAIN:
            last = flue_prefixes_find(p, &queries[at]);
            break;
        default:
            last += flue_prefixes_find(p, &queries[at]);
        }
    }
    sink += last;
    return (cpu_ns() - start) / QUERIES;
}

static bool run(const struct set *set, unsigned rounds)
{
    struct flue_prefix *items = make(set);
    struct flue_address *queries = calloc(QUERIES, sizeof *queries);
    struct flue_prefixes *p = NULL;
    struct reference reference = {calloc(PREFIXES, sizeof(uint64_t)), PREFIXES};
    struct flue_error error;
    double times[KINDS][64];

    if (!items || !queries || !reference.keys)
        return false;
    for (size_t i = 0; i < QUERIES; i++)
        queries[i] = query(items, PREFIXES);
    for (size_t i = 0; i < PREFIXES; i++)
        for (int b = 0; b < 8; b++)
            reference.keys[i] = reference.keys[i] << 8 | items[i].address.bytes[b];
    qsort(reference.keys, PREFIXES, sizeof *reference.keys, by_key);
    double start = cpu_ns();
    if (flue_prefixes_build(items, PREFIXES, 1, NULL, NULL, &p, &error) != FLUE_OK)
        return false;
    double build = cpu_ns() - start;
    size_t words = flue_prefixes_bytes(p) / sizeof(uint32_t);
    uint32_t *memory = malloc(words * sizeof *memory);
    for (size_t i = 0; memory && i < words; i++)
        memory[i] = (uint32_t)draw();
    for (unsigned round = 0; memory && round < rounds; round++)
        for (int kind = 0; kind < KINDS; kind++)
            times[kind][round] = measure(kind, p, &reference, queries, memory, words);
    printf("%-38s %7zu prefixes %5.1f MB  build %4.0f ms   one after another %3.0f ns, as they come "
           "%3.0f ns   (a random read %3.0f ns, binary search %3.0f ns)\n",
           set->name, flue_prefixes_count(p), (double)flue_prefixes_bytes(p) / 1e6, build / 1e6,
           median(times[CHAIN], rounds), median(times[STREAM], rounds),
           median(times[MISS], rounds), median(times[BINARY], rounds));
    flue_prefixes_destroy(p);
    free(memory);
    free(reference.keys);
    free(queries);
    free(items);
    return true;
}

/* ---- the file -------------------------------------------------------------------------------- */

static bool write_file(const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return false;
    struct flue_prefix *items = make(&sets[0]);
    fputs("network,cdn_provider,cdn_region,cdn_pop,cdn_tier,country,city\n", file);
    for (size_t i = 0; items && i < PREFIXES; i++) {
        char text[64];
        uint32_t place = items[i].place;
        (void)flue_address_text(&items[i].address, text, sizeof text);
        fprintf(file, "%s/%u,acme,region-%u,pop-%u,%s,NL,City %u\n", text, items[i].length, place % 40,
                place % 400, place % 7 ? "edge" : "shield", place);
    }
    free(items);
    return fclose(file) == 0;
}

static bool file_times(void)
{
    char path[] = "/tmp/flue-bench-cdn-XXXXXX";
    int fd = mkstemp(path);
    struct flue_cdn_file file = {.path = path};
    struct flue_cdn_config config = {.max_prefixes = 1 << 20, .max_file_size = 256 << 20};
    struct flue_cdn_table *table = NULL;
    struct flue_error error = {0};

    if (fd < 0 || close(fd) < 0 || !write_file(path))
        return false;
    double start = now_ns(), cpu = cpu_ns();
    enum flue_code code = flue_cdn_table_read(&file, &config, false, NULL, NULL, &table, &error);
    double read = now_ns() - start;
    cpu = cpu_ns() - cpu;
    (void)unlink(path);
    if (code != FLUE_OK) {
        fprintf(stderr, "%s\n", error.text);
        return false;
    }
    size_t bytes = flue_cdn_table_bytes(table);
    _Atomic(struct flue_cdn_table *) current = NULL;
    start = now_ns();
    struct flue_cdn_table *old = atomic_exchange(&current, table);
    double swap = now_ns() - start;
    flue_cdn_table_unref(old);
    start = now_ns();
    flue_cdn_table_unref(atomic_exchange(&current, NULL));
    printf("a file of %u lines: read, checked and built in %.0f ms (%.0f ms of CPU), %.1f MB with its "
           "places; swapped in %.1f us, the old one given back in %.1f ms\n",
           PREFIXES, read / 1e6, cpu / 1e6, (double)bytes / 1e6, swap / 1e3,
           (now_ns() - start) / 1e6);
    return true;
}

int main(int count, char **arguments)
{
    unsigned rounds = count > 1 ? (unsigned)strtoul(arguments[1], NULL, 10) : ROUNDS;
    bool ok = rounds >= 1 && rounds <= 64;
    for (size_t i = 0; ok && i < sizeof sets / sizeof sets[0]; i++)
        ok = run(&sets[i], rounds);
    ok = ok && file_times();
    if (!ok)
        fprintf(stderr, "flue_bench_cdn: it cannot be measured (ROUNDS: 1 to 64)\n");
    return ok ? 0 : 1;
}
