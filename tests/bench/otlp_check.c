/* Measures the door of OTLP: check and index in one pass, and what it costs to set ten attributes
 * on every resource and make the slices. Prints CPU seconds per GB, GB/s and microseconds; asserts
 * nothing. Further bodies may be named as arguments. */
#include <time.h>

#include "../unit/proto/otlp/bodies.h"
#include "proto/otlp/check.h"
#include "proto/otlp/otlp.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef uint32_t check_function(struct flue_bytes body, size_t max_index,
                                struct flue_otlp_index *index);

static double seconds_of_check(check_function *check, struct flue_bytes body, uint32_t *alarms)
{
    double best = 1e9;
    unsigned rounds = (unsigned)((32u << 20) / (body.size + 1)) + 1;
    for (unsigned run = 0; run < 7; run++) {
        double start = now();
        for (unsigned i = 0; i < rounds; i++) {
            struct flue_otlp_index index;
            *alarms = check(body, 64u << 20, &index);
            flue_otlp_index_clear(&index);
        }
        start = (now() - start) / rounds;
        best = start < best ? start : best;
    }
    return best;
}

static double seconds_of_read(struct flue_block *block)
{
    double best = 1e9;
    unsigned rounds = (unsigned)((32u << 20) / (block->size + 1)) + 1;
    for (unsigned run = 0; run < 7; run++) {
        double start = now();
        for (unsigned i = 0; i < rounds; i++) {
            struct flue_payload *payload;
            struct flue_otlp_report report;
            flue_otlp_read(flue_block_ref(block), &payload, &report, NULL);
            flue_payload_unref(payload);
        }
        start = (now() - start) / rounds;
        best = start < best ? start : best;
    }
    return best;
}

static double seconds_of_edit(struct flue_block *block, const struct flue_attribute_set *set,
                              size_t *resources)
{
    double best = 1e9;
    struct flue_payload *payload;
    struct flue_otlp_report report;
    if (flue_otlp_read(flue_block_ref(block), &payload, &report, NULL) != FLUE_OK)
        return 0;
    *resources = payload->ops->resource_count(payload);
    for (unsigned run = 0; run < 200; run++) {
        struct flue_payload *own;
        struct flue_slices slices = {0};
        struct flue_arena arena;
        double start = now();
        own = payload->ops->clone(payload, NULL);
        flue_arena_init(&arena, 64u << 20, 16384);
        for (size_t i = 0; i < *resources; i++)
            own->ops->attributes_set(own, i, set, FLUE_SET_UPSERT, NULL, NULL);
        own->ops->slices(own, &arena, &slices, NULL);
        flue_arena_destroy(&arena);
        flue_payload_unref(own);
        start = now() - start;
        best = start < best ? start : best;
    }
    flue_payload_unref(payload);
    return best;
}

static void measure(const char *name, const struct out *o, const struct flue_attribute_set *set)
{
    struct flue_block *block = block_of(o->data, o->size);
    struct flue_bytes body = flue_block_bytes(block);
    uint32_t alarms;
    size_t resources = 0;
    double fast = seconds_of_check(flue_otlp_check, body, &alarms);
    double slow = seconds_of_check(flue_otlp_check_portable, body, &alarms);
    double whole = seconds_of_read(block);
    double edit = seconds_of_edit(block, set, &resources);
    double gb = (double)o->size / 1e9;
    printf("%-32s %9zu B  %.3f CPU-s/GB %5.2f GB/s | portable %.3f %5.2f | read %.3f %5.2f | "
           "10 attributes x %zu: %.2f us%s\n",
           name, o->size, fast / gb, gb / fast, slow / gb, gb / slow, whole / gb, gb / whole,
           resources, edit * 1e6, alarms ? "  (alarms)" : "");
    flue_block_unref(block);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        struct made made;
    } shapes[] = {
        {"made 100k, ascending", {1, 1500, 900, 30, 1500, 900, false, false}},
        {"made 100k, pdata order", {1, 1500, 900, 30, 1500, 900, true, false}},
        {"made 1m, ascending", {1, 9000, 8000, 45, 9000, 3000, false, false}},
        {"made 1m, pdata order", {1, 9000, 8000, 45, 9000, 3000, true, false}},
        {"made 4m, ascending", {1, 30000, 28000, 50, 30000, 9000, false, false}},
        {"made 4m, pdata order", {1, 30000, 28000, 50, 30000, 9000, true, false}},
        {"made eBPF, 77 resources", {77, 4, 200, 25, 900, 500, false, true}},
        {"made eBPF, 77, pdata order", {77, 4, 200, 25, 900, 500, true, true}},
        {"made eBPF, 77 busy resources", {77, 60, 900, 25, 1500, 900, false, true}},
    };
    static const char *const keys[] = {"k8s.pod.name",
                                       "k8s.pod.uid",
                                       "k8s.namespace.name",
                                       "k8s.node.name",
                                       "k8s.deployment.name",
                                       "k8s.container.name",
                                       "cdn.region",
                                       "cdn.pop",
                                       "team",
                                       "deployment.environment.name"};
    struct flue_attribute items[10];
    struct flue_attribute_set set;
    struct flue_arena arena;

    flue_arena_init(&arena, 1u << 20, 0);
    for (size_t i = 0; i < 10; i++)
        items[i] = (struct flue_attribute){
            flue_bytes_of(keys[i]),
            {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("packager-6f7c9d-x2x8b")}};
    flue_otlp_attribute_set(&arena, items, 10, &set, NULL);
    for (size_t i = 0; i < BODIES_OURS; i++) {
        struct out *o = load_ours(i);
        measure(bodies_ours[i], o, &set);
        out_free(o);
        free(o);
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct out o = make_body(&shapes[i].made);
        measure(shapes[i].name, &o, &set);
        out_free(&o);
    }
    for (int i = 1; i < argc; i++) {
        struct out *o = load_file(argv[i]);
        if (!o)
            continue;
        measure(argv[i], o, &set);
        out_free(o);
        free(o);
    }
    flue_arena_destroy(&arena);
    return 0;
}
