/* push.v1.PushRequest, protobuf or JSON (what begins with '{'): read, edited, split, merged;
 * whatever leaves is accepted again. */
#include "proto/otlp/otlp.h"
#include "tests/fuzz/pprof.h"
#include "tests/fuzz/wire.h"

static void edit(struct flue_payload *payload, struct flue_arena *arena)
{
    static const char *const names[] = {"service.name", "k8s.pod.name", "region", "a-b", "9", "x"};
    struct flue_error error = {0};

    for (unsigned i = 0; i < 4; i++) {
        size_t count = payload->ops->resource_count(payload);
        size_t resource = dice((uint32_t)count);
        struct flue_bytes name = flue_bytes_of(names[dice(6)]);
        struct flue_attribute item = {
            name, {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(names[dice(6)])}};
        struct flue_attribute_set set;
        struct flue_value value;
        enum flue_code code;
        if (dice(3) == 0) {
            code = payload->ops->attribute_remove(payload, resource, name, &error);
            FUZZ_CHECK(code == FLUE_OK, error.text);
            FUZZ_CHECK(!payload->ops->attribute_get(payload, resource, name, &value),
                       "a label that was removed is there");
            continue;
        }
        FUZZ_CHECK(flue_otlp_attribute_set(arena, &item, 1, &set, &error) == FLUE_OK, error.text);
        code = payload->ops->attributes_set(payload, resource, &set, FLUE_SET_UPSERT, NULL, &error);
        FUZZ_CHECK(code == FLUE_OK || code == FLUE_TOO_LARGE, error.text);
        if (code == FLUE_OK) {
            FUZZ_CHECK(payload->ops->attribute_get(payload, resource, name, &value),
                       "a label that was set is not there");
            FUZZ_CHECK(flue_bytes_equal(value.text, item.value.text), "a label is another");
        }
    }
}

struct parts {
    struct flue_counts counts;
    bool trusted;
};
static void on_part(void *arg, struct flue_payload *part, const struct flue_counts *counts)
{
    struct parts *parts = arg;
    parts->counts.profiles += counts->profiles;
    parts->counts.samples += counts->samples;
    parts->counts.bytes += counts->bytes;
    flue_block_unref(fuzz_written(part));
    if (!parts->trusted)
        fuzz_pprof_facts(part);
    flue_payload_unref(part);
}

static void cut_and_join(struct flue_payload *payload, struct flue_payload *other, bool trusted,
                         const struct flue_counts *counts)
{
    struct flue_payload *both[2] = {payload, other}, *out = NULL;
    struct flue_error error = {0};
    struct parts parts = {.trusted = trusted};
    bool by_bytes = dice(2);
    uint64_t max = by_bytes ? 1 + dice(2000) : 1 + dice(5);

    enum flue_code code =
        payload->ops->split(payload, max, by_bytes, counts, &fuzz_account, on_part, &parts, &error);
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_NO_MEMORY || trusted, error.text);
    if (code == FLUE_OK) {
        FUZZ_CHECK(parts.counts.profiles == counts->profiles, "profiles do not add up");
        FUZZ_CHECK(parts.counts.samples == counts->samples, "samples do not add up");
        FUZZ_CHECK(parts.counts.bytes == counts->bytes, "bytes do not add up");
    }
    code = payload->ops->merge(both, 2, &fuzz_account, &out, &error);
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_NO_MEMORY, error.text);
    if (out)
        flue_block_unref(fuzz_written(out));
    flue_payload_unref(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_bytes in = flue_bytes(data, size);
    struct flue_error error = {0};
    struct flue_push_report report;
    struct flue_payload *payload = NULL;
    struct flue_block *body = NULL;
    struct flue_arena arena;
    enum flue_code code;

    fuzz_begin(data, size);
    bool trusted = dice(4) == 0;
    if (size && data[0] == '{') {
        code = flue_push_json_read(in, (size_t)16 << 20, &fuzz_account, &body, &error);
        if (code != FLUE_OK) {
            fuzz_refused(code, &error);
            FUZZ_CHECK(!body, "refused, and a body");
            return fuzz_end();
        }
    } else {
        body = fuzz_block(in);
    }
    code = flue_push_read(body, &fuzz_limits, trusted, &payload, &report, &error);
    flue_block_unref(body);
    if (code != FLUE_OK) {
        fuzz_refused(code, &error);
        FUZZ_CHECK(!payload, "refused, and a payload");
        return fuzz_end();
    }
    FUZZ_CHECK(payload && report.counts.profiles > 0, "accepted, and nothing in it");
    flue_arena_init(&arena, (size_t)64 << 20, 0);
    fuzz_pprof_leaves(payload, trusted, &report.counts);
    if (!trusted)
        fuzz_pprof_facts(payload);
    struct flue_block *before = fuzz_written(payload);
    struct flue_payload *clone = payload->ops->clone(payload, &error);
    FUZZ_CHECK(clone, error.text);
    edit(clone, &arena);
    fuzz_pprof_leaves(clone, trusted, &report.counts);
    cut_and_join(clone, payload, trusted, &report.counts);
    struct flue_block *after = fuzz_written(payload);
    FUZZ_CHECK(flue_bytes_equal(flue_block_bytes(before), flue_block_bytes(after)),
               "an edit of a clone reached its origin");
    flue_block_unref(before);
    flue_block_unref(after);
    flue_payload_unref(clone);
    flue_payload_unref(payload);
    flue_arena_destroy(&arena);
    return fuzz_end();
}
