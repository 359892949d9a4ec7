/* Measures subsystem: profiles whose dictionary is most of them, OTLP and pprof, with and without a
 * mark on every sample. With files (OTLP, or pprof ending in .pb, .pb.gz or .pprof) it says which
 * share of them each subsystem has under the built-in rules. Prints; asserts nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "processors/subsystem/classify.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"

#define FUNCTIONS 40000u
#define STACKS    20000u
#define SAMPLES   20000u
#define ROUNDS    40 /* the best of them: neighbours only ever take */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double shares[FLUE_QUANTITIES][SUBSYSTEMS_MAX];
static struct subsystem_rules *rules;

static void report(void *arg, size_t resource, const struct flue_quantity_type *type,
                   const uint64_t *sums)
{
    for (size_t i = 0; i < subsystem_count(rules); i++)
        shares[type->quantity][i] += (double)sums[i];
}

static void fail(const struct flue_error *error)
{
    fprintf(stderr, "%s\n", error->text);
    exit(1);
}

/* ---- a dictionary-heavy request -------------------------------------------------------------- */

static void number(struct flue_block *b, uint32_t field, uint64_t value)
{
    uint8_t bytes[12], *at = bytes;
    *at++ = (uint8_t)(field << 3);
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    flue_block_append(b, flue_bytes(bytes, (size_t)(at - bytes)), SIZE_MAX, NULL);
}

static void message(struct flue_block *b, uint32_t field, struct flue_bytes content)
{
    uint8_t bytes[12], *at = bytes;
    uint64_t size = content.size;
    *at++ = (uint8_t)(field << 3 | 2);
    for (; size >= 0x80; size >>= 7)
        *at++ = (uint8_t)(size | 0x80);
    *at++ = (uint8_t)size;
    flue_block_append(b, flue_bytes(bytes, (size_t)(at - bytes)), SIZE_MAX, NULL);
    flue_block_append(b, content, SIZE_MAX, NULL);
}

static struct flue_block *fresh(struct flue_block *b)
{
    b->size = 0;
    return b;
}

static const char *const packages[] = {
    "net/http.(*conn).handleRequest",    "com/example/playback/SegmentIndexBuilder.lambda$build",
    "example.com/edge/cache.(*Store)",   "std::_Hashtable<std::string, Chunk>::_M_find_before_node",
    "crypto/tls.(*Conn).readRecordOr",   "encoding/json.(*decodeState).valueOf",
    "example.com/manifest.(*Tree).walk", "boost::intrusive::list_impl<Node>::splice_range",
    "x264_8_macroblock_analyse_part",    "video::pipeline::stage::Filter::processPlane"};

static struct flue_block *make_otlp(void)
{
    struct flue_block *body = flue_block_new(NULL, 1 << 20), *d = flue_block_new(NULL, 1 << 20),
                      *row = flue_block_new(NULL, 4096), *inner = flue_block_new(NULL, 4096),
                      *profile = flue_block_new(NULL, 1 << 20);
    char name[160];
    message(d, 1, FLUE_BYTES(""));
    number(fresh(row), 4, 3);
    message(d, 1, flue_block_bytes(row));
    message(d, 2, FLUE_BYTES(""));
    message(d, 3, FLUE_BYTES(""));
    message(d, 4, FLUE_BYTES(""));
    message(d, 5, FLUE_BYTES(""));
    message(d, 5, FLUE_BYTES("cpu"));
    message(d, 5, FLUE_BYTES("nanoseconds"));
    message(d, 5, FLUE_BYTES("/srv/stream/bin/edge"));
    for (unsigned i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "/srv/build/src/github.example/stream/pkg%03u/file_%u.go", i,
                 i);
        message(d, 5, flue_bytes_of(name));
    }
    message(d, 6, FLUE_BYTES(""));
    message(d, 7, FLUE_BYTES(""));
    for (unsigned i = 1; i < FUNCTIONS; i++) {
        snprintf(name, sizeof name, "%s%05u", packages[i % 10], i);
        message(d, 5, flue_bytes_of(name));
        number(fresh(row), 1, 403 + i);
        number(row, 3, 4 + i % 400);
        number(row, 4, i);
        message(d, 3, flue_block_bytes(row));
        number(fresh(inner), 1, i);
        number(inner, 2, i % 900);
        number(fresh(row), 1, 1);
        number(row, 2, 0x400000 + i * 64);
        message(row, 3, flue_block_bytes(inner));
        message(d, 2, flue_block_bytes(row));
    }
    for (unsigned i = 1; i < STACKS; i++) {
        fresh(row);
        for (unsigned k = 0; k < 24; k++) {
            uint32_t at = 1 + (i * 31 + k * 977) % (FUNCTIONS - 1);
            uint8_t run[5], *end = run;
            for (; at >= 0x80; at >>= 7)
                *end++ = (uint8_t)(at | 0x80);
            *end++ = (uint8_t)at;
            flue_block_append(row, flue_bytes(run, (size_t)(end - run)), SIZE_MAX, NULL);
        }
        message(fresh(inner), 1, flue_block_bytes(row));
        message(d, 7, flue_block_bytes(inner));
    }
    number(fresh(row), 1, 1);
    number(row, 2, 2);
    message(profile, 1, flue_block_bytes(row));
    for (unsigned i = 0; i < SAMPLES; i++) {
        number(fresh(row), 1, 1 + i % (STACKS - 1));
        number(row, 4, 10000000);
        message(profile, 2, flue_block_bytes(row));
    }
    struct flue_block *scope = flue_block_new(NULL, 1 << 20), *r = flue_block_new(NULL, 1 << 20);
    message(scope, 2, flue_block_bytes(profile));
    message(r, 2, flue_block_bytes(scope));
    message(body, 1, flue_block_bytes(r));
    message(body, 2, flue_block_bytes(d));
    struct flue_block *made[] = {d, row, inner, profile, scope, r};
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
        flue_block_unref(made[i]);
    flue_block_finish(body);
    return body;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void classify(struct flue_payload *payload, const char *mark)
{
    struct flue_error error;
    struct flue_arena arena;
    struct flue_payload *edited = payload, *out = NULL;
    struct subsystem_work work = {
        .rules = rules, .mark = flue_bytes_of(mark), .report = report, .arena = &arena};
    flue_arena_init(&arena, (size_t)2 << 30, 65536);
    if (payload->ops->form == FLUE_FORM_PPROF) {
        if (subsystem_pprof(&work, payload, NULL, &out, &error))
            fail(&error);
        flue_payload_unref(out);
    } else {
        if (mark)
            edited = payload->ops->clone(payload, &error);
        if (subsystem_otlp(&work, edited, &error))
            fail(&error);
        if (mark)
            flue_payload_unref(edited);
    }
    flue_arena_destroy(&arena);
}

static void measure(const char *what, struct flue_payload *payload, const char *mark)
{
    size_t bytes = payload->ops->encoded_size(payload);
    double best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        double start = now();
        classify(payload, mark);
        best = now() - start < best ? now() - start : best;
    }
    printf("%-24s %7.2f MB  %7.2f ms  %6.2f GB/s\n", what, (double)bytes / 1e6, best * 1e3,
           (double)bytes / 1e9 / best);
}

static struct flue_payload *load(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct flue_block *block = flue_block_new(NULL, (size_t)64 << 20);
    struct flue_payload *payload = NULL;
    struct flue_otlp_report otlp;
    struct flue_error error;
    const char *dot = strrchr(path, '.');
    if (!file) {
        perror(path);
        exit(1);
    }
    block->size = fread(block->data, 1, (size_t)64 << 20, file);
    fclose(file);
    flue_block_finish(block);
    if (dot && strcmp(dot, ".otlp") == 0) {
        if (flue_otlp_read(block, &payload, &otlp, &error))
            fail(&error);
        return payload;
    }
    const struct flue_pprof_limits limits = {(size_t)64 << 20, 1000};
    struct flue_pprof_profile profile = {.bytes = flue_block_bytes(block)};
    struct flue_pprof_builder *builder = flue_pprof_builder_new(NULL);
    if (flue_pprof_check(profile.bytes, &limits, &profile.facts, &error))
        fail(&error);
    flue_pprof_builder_keep(builder, block);
    flue_block_unref(block);
    flue_pprof_builder_series(builder);
    flue_pprof_builder_label(builder, FLUE_BYTES("__name__"), FLUE_BYTES("process_cpu"));
    flue_pprof_builder_profile(builder, &profile);
    if (flue_pprof_builder_finish(builder, &payload, NULL, &error))
        fail(&error);
    return payload;
}

static void tell(const char *path)
{
    static const char *const names[] = {"", "time", "bytes", "count"};
    memset(shares, 0, sizeof shares);
    struct flue_payload *payload = load(path);
    classify(payload, NULL);
    flue_payload_unref(payload);
    printf("%s\n", path);
    for (int q = FLUE_QUANTITY_TIME; q < FLUE_QUANTITIES; q++) {
        double sum = 0;
        for (size_t i = 0; i < subsystem_count(rules); i++)
            sum += shares[q][i];
        if (sum <= 0)
            continue;
        printf("  %-5s", names[q]);
        for (size_t i = 0; i < subsystem_count(rules); i++)
            if (shares[q][i] > 0)
                printf(" %s %.1f%%", subsystem_name(rules, i), shares[q][i] / sum * 100);
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    struct flue_list none = {0};
    struct flue_arena arena;
    struct flue_error error;
    flue_arena_init(&arena, 0, 0);
    if (subsystem_rules_new(&none, true, false, &arena, &rules, &error))
        fail(&error);
    for (int i = 1; i < argc; i++)
        tell(argv[i]);
    if (argc == 1) {
        struct flue_otlp_report facts;
        struct flue_payload *payload, *pprof = NULL;
        if (flue_otlp_read(make_otlp(), &payload, &facts, &error) ||
            flue_convert(payload, FLUE_FORM_PPROF, NULL, &pprof, &error))
            fail(&error);
        measure("OTLP, counted", payload, NULL);
        measure("OTLP, marked", payload, "subsystem");
        measure("pprof, counted", pprof, NULL);
        measure("pprof, marked", pprof, "subsystem");
        flue_payload_unref(pprof);
        flue_payload_unref(payload);
    }
    flue_arena_destroy(&arena);
    return 0;
}
