/* A request cut by key: nothing is lost, nothing is twice, and broken bytes are an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "exporters/loadbalancing/split.h"
#include "proto/otlp/otlp.h"
#include "proto/otlp/trace.h"
#include "proto/wire/writer.h"

static struct flue_bytes read_file(void)
{
    FILE *file = fopen(FLUE_TEST_DATA "/otlp/ebpf-v1.11-ascending.otlp", "rb");
    assert_non_null(file);
    uint8_t *data = malloc(1 << 22);
    size_t size = fread(data, 1, 1 << 22, file);
    fclose(file);
    return flue_bytes(data, size);
}

static unsigned modulo(void *arg, uint64_t key)
{
    return (unsigned)(key % *(unsigned *)arg);
}

/* What a receiver would count. */
static struct flue_counts counts_of(const struct flue_slices *slices)
{
    struct flue_block *block = flue_block_new(NULL, slices->total);
    flue_slices_copy(slices, block->data);
    block->size = slices->total;
    flue_block_finish(block);
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report;
    struct flue_error error;
    if (flue_otlp_read(block, &payload, &report, &error))
        fail_msg("%s", error.text);
    assert_int_equal(report.rejected_profiles, 0);
    flue_payload_unref(payload);
    return report.counts;
}

static void the_parts_are_the_whole(void **state)
{
    struct flue_bytes request = read_file();
    struct flue_slices whole = {&request, 1, 1, request.size};
    struct flue_counts all = counts_of(&whole);
    const struct flue_bytes zone = FLUE_BYTES("process.executable.name");
    assert_int_equal(flue_balance_samples(&whole, FLUE_PROFILES), all.samples);
    for (unsigned nodes = 1; nodes <= 9; nodes += 4) {
        for (int by = FLUE_BALANCE_SERVICE; by <= FLUE_BALANCE_TENANT; by++) {
            struct flue_balance_rule rule = {FLUE_PROFILES, (enum flue_balance_by)by, &zone, 1,
                                             FLUE_BYTES("team-a")};
            struct flue_arena arena;
            struct flue_balance_part *parts;
            struct flue_error error;
            size_t count;
            bool seen[9] = {0};
            struct flue_counts sum = {0};
            flue_arena_init(&arena, 0, 0);
            if (flue_balance_split(request, &rule, nodes, modulo, &nodes, &arena, &parts, &count,
                                   &error))
                fail_msg("%s", error.text);
            assert_in_range(count, 1, nodes);
            if (by == FLUE_BALANCE_TENANT)
                assert_int_equal(count, 1);
            if (by == FLUE_BALANCE_RESOURCE && nodes > 1)
                assert_true(count > 1);
            for (size_t i = 0; i < count; i++) {
                struct flue_counts part = counts_of(&parts[i].body);
                assert_false(seen[parts[i].node]);
                seen[parts[i].node] = true;
                assert_int_equal(flue_balance_samples(&parts[i].body, FLUE_PROFILES), part.samples);
                sum.profiles += part.profiles;
                sum.samples += part.samples;
            }
            assert_int_equal(sum.samples, all.samples);
            assert_int_equal(sum.profiles, all.profiles);
            flue_arena_destroy(&arena);
        }
    }
    free((void *)(uintptr_t)request.data);
}

static void no_resources_are_no_parts(void **state)
{
    unsigned nodes = 3;
    struct flue_balance_rule rule = {.signal = FLUE_PROFILES, .by = FLUE_BALANCE_SERVICE};
    struct flue_arena arena;
    struct flue_balance_part *parts;
    size_t count = 7;
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(flue_balance_split(flue_bytes(NULL, 0), &rule, nodes, modulo, &nodes, &arena,
                                        &parts, &count, NULL),
                     FLUE_OK);
    assert_int_equal(count, 0);
    flue_arena_destroy(&arena);
}

/* Whatever the bytes are: an error or parts, and no byte outside is read. */
static void broken_bytes_are_an_error(void **state)
{
    struct flue_bytes request = read_file();
    unsigned nodes = 3, failed = 0;
    srand(7);
    for (unsigned round = 0; round < 400; round++) {
        size_t size = round < 200 ? (size_t)rand() % request.size : request.size;
        uint8_t *copy = malloc(size ? size : 1);
        memcpy(copy, request.data, size);
        if (round >= 200 && size)
            copy[(size_t)rand() % size] ^= (uint8_t)(1 << rand() % 8);
        struct flue_balance_rule rule = {
            .signal = round % 4 < 2 ? FLUE_PROFILES : FLUE_TRACES,
            .by = round % 2 ? FLUE_BALANCE_TRACE : FLUE_BALANCE_RESOURCE};
        struct flue_arena arena;
        struct flue_balance_part *parts;
        size_t count;
        flue_arena_init(&arena, 0, 0);
        failed += flue_balance_split(flue_bytes(copy, size), &rule, nodes, modulo, &nodes, &arena,
                                     &parts, &count, NULL) != FLUE_OK;
        flue_arena_destroy(&arena);
        free(copy);
    }
    assert_true(failed > 150);
    free((void *)(uintptr_t)request.data);
}

static void memory_may_be_short(void **state)
{
    struct flue_bytes request = read_file();
    unsigned nodes = 3;
    for (size_t budget = 1; budget < 4096; budget *= 2) {
        struct flue_balance_rule rule = {.signal = FLUE_PROFILES, .by = FLUE_BALANCE_RESOURCE};
        struct flue_arena arena;
        struct flue_balance_part *parts;
        size_t count;
        flue_arena_init(&arena, budget, 0);
        enum flue_code code = flue_balance_split(request, &rule, nodes, modulo, &nodes, &arena,
                                                 &parts, &count, NULL);
        assert_true(code == FLUE_OK || code == FLUE_NO_MEMORY);
        if (budget < 16)
            assert_int_equal(code, FLUE_NO_MEMORY);
        flue_arena_destroy(&arena);
    }
    free((void *)(uintptr_t)request.data);
}

/* ---- traces --------------------------------------------------------------------------------- */

#define SERVICES 9
#define SPANS    6 /* of each of two scopes */
#define TRACES   5

struct message {
    uint8_t bytes[4096];
    size_t size;
};

static void put(struct message *to, uint32_t field, const void *data, size_t size)
{
    assert_true(to->size + size + 16 < sizeof to->bytes);
    uint8_t *at = to->bytes + to->size;
    to->size =
        (size_t)(flue_write_len_field(at, field, flue_bytes(data, size)) - to->bytes);
}

static struct message resource(unsigned service)
{
    struct message value = {.size = 0}, attribute = {.size = 0}, out = {.size = 0};
    char name[32];
    put(&value, 1, name, (size_t)snprintf(name, sizeof name, "service-%u", service));
    put(&attribute, 1, "service.name", 12);
    put(&attribute, 2, value.bytes, value.size);
    put(&out, 1, attribute.bytes, attribute.size);
    return out;
}

/* Spans of TRACES traces, mixed over services; every seventh has none, which flue_trace_read lets
 * pass. */
static struct flue_bytes make_traces(void)
{
    uint8_t *request = malloc(SERVICES * 4096), *at = request;
    for (unsigned service = 0; service < SERVICES; service++) {
        struct message spans = {.size = 0}, of = resource(service);
        put(&spans, 1, of.bytes, of.size);
        for (unsigned scope = 0; scope < 2; scope++) {
            struct message scope_spans = {.size = 0};
            for (unsigned i = 0; i < SPANS; i++) {
                struct message span = {.size = 0};
                uint8_t trace[16], id[8];
                memset(trace, (int)((service + scope + i) % TRACES) + 1, sizeof trace);
                memset(id, (int)(service * 16 + scope * 8 + i) + 1, sizeof id);
                if ((service + i) % 7 != 0)
                    put(&span, 1, trace, sizeof trace);
                put(&span, 2, id, sizeof id);
                put(&span, 5, "work", 4);
                put(&scope_spans, 2, span.bytes, span.size);
            }
            put(&scope_spans, 3, "url", 3);
            put(&spans, 2, scope_spans.bytes, scope_spans.size);
        }
        at = flue_write_len_field(at, 1, flue_bytes(spans.bytes, spans.size));
    }
    return flue_bytes(request, (size_t)(at - request));
}

struct homes {
    int trace[TRACES + 1]; /* the node of a trace; -1: not seen */
    unsigned spans;
};

/* Every trace of a part is of this node alone. */
static void look_at(const struct flue_slices *slices, int node, bool by_trace, struct homes *homes)
{
    struct flue_block *block = flue_block_new(NULL, slices->total);
    flue_slices_copy(slices, block->data);
    block->size = slices->total;
    flue_block_finish(block);
    struct flue_payload *payload = NULL;
    struct flue_trace_report report;
    struct flue_error error;
    if (flue_trace_read(block, &payload, &report, &error))
        fail_msg("%s", error.text);
    const struct flue_otlp_index *index = flue_otlp_index_of(payload);
    assert_int_equal(index->profile_count, flue_balance_samples(slices, FLUE_TRACES));
    homes->spans += index->profile_count;
    for (uint32_t i = 0; by_trace && i < index->profile_count; i++) {
        struct flue_trace_span span;
        flue_trace_span_read(payload, i, FLUE_BYTES("x"), &span);
        if (!span.trace_id.size)
            continue;
        int *home = &homes->trace[span.trace_id.data[0]];
        assert_true(*home == -1 || *home == node);
        *home = node;
    }
    flue_payload_unref(payload);
}

static void traces_are_cut_by_every_key(void **state)
{
    struct flue_bytes request = make_traces();
    struct flue_slices whole = {&request, 1, 1, request.size};
    const struct flue_bytes name = FLUE_BYTES("service.name");
    assert_int_equal(flue_balance_samples(&whole, FLUE_TRACES), SERVICES * 2 * SPANS);
    for (unsigned nodes = 1; nodes <= 7; nodes += 3) {
        for (int by = FLUE_BALANCE_SERVICE; by <= FLUE_BALANCE_TENANT; by++) {
            struct flue_balance_rule rule = {FLUE_TRACES, (enum flue_balance_by)by, &name, 1,
                                             FLUE_BYTES("team-a")};
            struct homes homes = {.trace = {-1, -1, -1, -1, -1, -1}};
            struct flue_arena arena;
            struct flue_balance_part *parts;
            struct flue_error error;
            size_t count;
            flue_arena_init(&arena, 0, 0);
            if (flue_balance_split(request, &rule, nodes, modulo, &nodes, &arena, &parts, &count,
                                   &error))
                fail_msg("%s", error.text);
            assert_in_range(count, 1, nodes);
            if (by == FLUE_BALANCE_TENANT)
                assert_int_equal(count, 1);
            else if (nodes > 1)
                assert_true(count > 1);
            for (size_t i = 0; i < count; i++)
                look_at(&parts[i].body, (int)parts[i].node, by == FLUE_BALANCE_TRACE, &homes);
            assert_int_equal(homes.spans, SERVICES * 2 * SPANS);
            for (unsigned i = 1; by == FLUE_BALANCE_TRACE && i <= TRACES; i++)
                assert_true(homes.trace[i] >= 0);
            flue_arena_destroy(&arena);
        }
    }
    free((void *)(uintptr_t)request.data);
}

/* The node of a request of one resource. */
static unsigned home_of(enum flue_signal signal, enum flue_balance_by by, unsigned service)
{
    static const struct flue_bytes name = FLUE_BYTES_INIT("service.name");
    struct flue_balance_rule rule = {signal, by, &name, 1, FLUE_BYTES("team-a")};
    struct message whole = {.size = 0}, around = {.size = 0}, of = resource(service);
    unsigned nodes = 5, node;
    struct flue_arena arena;
    struct flue_balance_part *parts;
    size_t count;
    put(&around, 1, of.bytes, of.size);
    put(&whole, 1, around.bytes, around.size);
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(flue_balance_split(flue_bytes(whole.bytes, whole.size), &rule, nodes, modulo,
                                        &nodes, &arena, &parts, &count, NULL),
                     FLUE_OK);
    assert_int_equal(count, 1);
    node = parts[0].node;
    flue_arena_destroy(&arena);
    return node;
}

static void both_signals_of_a_service_have_one_node(void **state)
{
    for (unsigned service = 0; service < 40; service++)
        for (int by = FLUE_BALANCE_SERVICE; by <= FLUE_BALANCE_TENANT; by++)
            assert_int_equal(home_of(FLUE_TRACES, (enum flue_balance_by)by, service),
                             home_of(FLUE_PROFILES, (enum flue_balance_by)by, service));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts_are_the_whole),
        cmocka_unit_test(no_resources_are_no_parts),
        cmocka_unit_test(broken_bytes_are_an_error),
        cmocka_unit_test(memory_may_be_short),
        cmocka_unit_test(traces_are_cut_by_every_key),
        cmocka_unit_test(both_signals_of_a_service_have_one_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
