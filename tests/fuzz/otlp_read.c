/* OTLP bodies: read, edited, cloned, merged, split, pruned; whatever leaves is accepted again. */
#include "proto/otlp/dictionary.h"
#include "tests/fuzz/otlp.h"
#include "tests/fuzz/wire.h"

static const char *const names[] = {"service.name",       "host.name",  "k", "",
                                    "a.rather.long.name", "process.pid"};

static struct flue_bytes some_name(void)
{
    return flue_bytes_of(names[dice(sizeof names / sizeof *names)]);
}

static struct flue_value some_value(void)
{
    switch (dice(6)) {
    case 0:
        return (struct flue_value){.type = FLUE_VALUE_INT, .integer = (int64_t)dice(1u << 31) - 5};
    case 1:
        return (struct flue_value){.type = FLUE_VALUE_BOOL, .boolean = dice(2)};
    case 2:
        return (struct flue_value){.type = FLUE_VALUE_DOUBLE, .number = dice(100) / 7.0};
    case 3:
        return (struct flue_value){.type = FLUE_VALUE_BYTES, .text = FLUE_BYTES("\xff\x00\x01")};
    case 4:
        return (struct flue_value){.type = FLUE_VALUE_EMPTY};
    default:
        return (struct flue_value){.type = FLUE_VALUE_STRING, .text = some_name()};
    }
}

static void must(enum flue_code code, const struct flue_error *error)
{
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_TOO_LARGE, error->text);
}

static void set_attributes(struct flue_payload *payload, bool scope, uint32_t number,
                           struct flue_arena *arena)
{
    struct flue_error error = {0};
    struct flue_attribute items[3];
    struct flue_attribute_set set;
    size_t count = 1 + dice(3);
    enum flue_set_mode mode = (enum flue_set_mode)(FLUE_SET_INSERT + dice(3));

    for (size_t i = 0; i < count; i++) /* names of one set are different */
        items[i] = (struct flue_attribute){flue_bytes_of(names[i * 2 + dice(2)]), some_value()};
    FUZZ_CHECK(flue_otlp_attribute_set(arena, items, count, &set, &error) == FLUE_OK, error.text);
    if (scope) {
        must(flue_otlp_scope_set(payload, number, &set, mode, NULL, &error), &error);
        return;
    }
    enum flue_code code = payload->ops->attributes_set(payload, number, &set, mode, NULL, &error);
    must(code, &error);
    struct flue_value value;
    for (size_t i = 0; code == FLUE_OK && mode == FLUE_SET_UPSERT && i < count; i++) {
        FUZZ_CHECK(payload->ops->attribute_get(payload, number, items[i].key, &value),
                   "an attribute that was set is not there");
        FUZZ_CHECK(value.type == items[i].value.type, "an attribute that was set is another");
    }
}

/* `removed`: resources by their number's last bits; an edit of what was removed is a mistake of the
 * caller. */
static void edit(struct flue_payload *payload, struct flue_arena *arena, bool removed[64])
{
    const struct flue_otlp_index *index = flue_otlp_index_of(payload);
    struct flue_error error = {0};
    struct flue_value value;
    uint32_t number;

    for (unsigned i = 0; i < 6; i++) {
        uint32_t resource = dice(index->resource_count), profile = dice(index->profile_count);
        switch (dice(6)) {
        case 0:
        case 1:
            if (!removed[resource % 64])
                set_attributes(payload, false, resource, arena);
            break;
        case 2: {
            struct flue_bytes name = some_name();
            if (removed[resource % 64])
                break;
            must(payload->ops->attribute_remove(payload, resource, name, &error), &error);
            FUZZ_CHECK(!payload->ops->attribute_get(payload, resource, name, &value),
                       "an attribute that was removed is there");
            break;
        }
        case 3:
            number = index->scope_count ? dice(index->scope_count) : 0;
            if (index->scope_count && !removed[index->scopes[number].resource % 64])
                set_attributes(payload, true, number, arena);
            break;
        case 4:
            if (dice(3) == 0)
                must(flue_otlp_dictionary_append(payload, FLUE_OTLP_STRING, some_name(), &number,
                                                 &error),
                     &error);
            else if (!flue_otlp_profile_removed(payload, profile) && dice(2))
                must(flue_otlp_profile_remove(payload, profile, &error), &error);
            break;
        case 5:
            if (dice(4) == 0 && !removed[resource % 64]) {
                must(flue_otlp_resource_remove(payload, resource, &error), &error);
                removed[resource % 64] = true;
            }
            break;
        }
    }
}

struct parts {
    struct flue_counts counts, seen;
};
static void on_part(void *arg, struct flue_payload *part, const struct flue_counts *counts)
{
    struct parts *parts = arg;
    struct flue_counts seen = fuzz_counts(part);
    parts->counts.profiles += counts->profiles;
    parts->counts.samples += counts->samples;
    parts->counts.bytes += counts->bytes;
    parts->seen.samples += seen.samples;
    fuzz_otlp_leaves(part, &seen);
    flue_payload_unref(part);
}

static void cut(const struct flue_payload *payload)
{
    struct flue_counts total = fuzz_counts(payload), before = total;
    struct flue_error error = {0};
    struct parts parts = {0};
    bool by_bytes = dice(2);
    total.bytes = payload->ops->encoded_size(payload) + dice(100);
    uint64_t max = by_bytes ? 1 + total.bytes / (1 + dice(4)) : 1 + dice(4);

    enum flue_code code =
        payload->ops->split(payload, max, by_bytes, &total, &fuzz_account, on_part, &parts, &error);
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_NO_MEMORY, error.text);
    if (code != FLUE_OK)
        return;
    FUZZ_CHECK(parts.counts.profiles == total.profiles, "profiles do not add up");
    FUZZ_CHECK(parts.counts.samples == total.samples, "samples do not add up");
    FUZZ_CHECK(parts.counts.bytes == total.bytes, "bytes do not add up");
    FUZZ_CHECK(parts.seen.samples == before.samples, "samples were lost");
}

static void join(struct flue_payload *a, struct flue_payload *b)
{
    struct flue_payload *both[2] = {a, b}, *out = NULL;
    struct flue_counts left = fuzz_counts(a), right = fuzz_counts(b);
    struct flue_error error = {0};

    enum flue_code code = a->ops->merge(both, 2, &fuzz_account, &out, &error);
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_NO_MEMORY, error.text);
    left.profiles += right.profiles;
    left.samples += right.samples;
    if (code == FLUE_OK) {
        FUZZ_CHECK((out != NULL) == (left.profiles != 0), "merged to something else");
        if (out)
            fuzz_otlp_leaves(out, &left);
    }
    flue_payload_unref(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_error error = {0};
    struct flue_otlp_report report;
    struct flue_payload *payload = NULL, *pruned = NULL;
    struct flue_arena arena;
    bool removed[64] = {false};

    fuzz_begin(data, size);
    enum flue_code code =
        flue_otlp_read(fuzz_block(flue_bytes(data, size)), &payload, &report, &error);
    if (code != FLUE_OK) {
        fuzz_refused(code, &error);
        FUZZ_CHECK(!payload, "refused, and a payload");
        return fuzz_end();
    }
    if (!payload)
        return fuzz_end();
    flue_arena_init(&arena, (size_t)64 << 20, 0);
    FUZZ_CHECK(report.counts.profiles > 0, "a payload without profiles");
    fuzz_otlp_leaves(payload, &report.counts);
    struct flue_block *before = fuzz_written(payload);

    struct flue_payload *clone = payload->ops->clone(payload, &error);
    FUZZ_CHECK(clone, error.text);
    edit(clone, &arena, removed);
    struct flue_counts counts = fuzz_counts(clone);
    fuzz_otlp_leaves(clone, &counts);
    struct flue_payload *second = clone->ops->clone(clone, &error);
    FUZZ_CHECK(second, error.text);
    edit(second, &arena, removed);
    counts = fuzz_counts(second);
    fuzz_otlp_leaves(second, &counts);

    cut(second);
    join(payload, clone);
    code = flue_otlp_prune(payload, &fuzz_account, &pruned, &error);
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_NO_MEMORY, error.text);
    if (pruned)
        fuzz_otlp_leaves(pruned, &report.counts);

    struct flue_block *after = fuzz_written(payload);
    FUZZ_CHECK(flue_bytes_equal(flue_block_bytes(before), flue_block_bytes(after)),
               "an edit of a clone reached its origin");
    flue_block_unref(before);
    flue_block_unref(after);
    flue_payload_unref(payload);
    flue_payload_unref(clone);
    flue_payload_unref(second);
    flue_payload_unref(pruned);
    flue_arena_destroy(&arena);
    return fuzz_end();
}
