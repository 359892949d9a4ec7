/* pprof: a profile that passes the check survives decoding, encoding, repair and merging. */
#include "proto/pprof/document.h"
#include "proto/pprof/merge.h"
#include "proto/pprof/repair.h"
#include "tests/fuzz/pprof.h"
#include "tests/fuzz/wire.h"

/* Checks what a step made and gives it back. */
static struct flue_pprof_facts made(struct flue_block *block)
{
    struct flue_pprof_limits limits = {(size_t)64 << 20, 200};
    struct flue_pprof_facts facts;
    struct flue_error error = {0};
    FUZZ_CHECK(flue_pprof_check(flue_block_bytes(block), &limits, &facts, &error) == FLUE_OK,
               error.text);
    flue_block_unref(block);
    return facts;
}

static void decode(struct flue_bytes raw, const struct flue_pprof_facts *facts)
{
    struct flue_pprof_document document;
    struct flue_error error = {0};
    struct flue_arena arena, scratch;
    struct flue_block *out = NULL;

    flue_arena_init(&arena, (size_t)128 << 20, 0);
    flue_arena_init(&scratch, (size_t)128 << 20, 0);
    FUZZ_CHECK(flue_pprof_decode(raw, &arena, &document, &error) == FLUE_OK, error.text);
    FUZZ_CHECK(document.sample_count == facts->samples, "samples");
    FUZZ_CHECK(document.type_count == facts->sample_types, "sample types");
    FUZZ_CHECK(document.location_count == facts->locations, "locations");
    FUZZ_CHECK(document.function_count == facts->functions, "functions");
    FUZZ_CHECK(document.mapping_count == facts->mappings, "mappings");
    uint32_t first = 0, count = document.sample_count;
    if (count > 1 && dice(2)) {
        first = dice(count);
        count = dice(count - first + 1);
    }
    FUZZ_CHECK(flue_pprof_encode(&document, first, count, &scratch, &fuzz_account, &out, &error) ==
                   FLUE_OK,
               error.text);
    struct flue_pprof_facts again = made(out);
    FUZZ_CHECK(again.samples == count, "samples");
    FUZZ_CHECK(again.sample_types == facts->sample_types, "sample types");
    FUZZ_CHECK(again.time_nanos == facts->time_nanos, "time");
    flue_arena_destroy(&scratch);
    flue_arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_bytes profile = flue_bytes(data, size), raw = {0};
    struct flue_pprof_facts facts, other;
    struct flue_pprof_type_name *names = NULL;
    struct flue_block *inflated = NULL, *out = NULL;
    struct flue_error error = {0};
    struct flue_arena arena;

    fuzz_begin(data, size);
    flue_arena_init(&arena, (size_t)16 << 20, 0);
    enum flue_code code = flue_pprof_check(profile, &fuzz_limits, &facts, &error);
    enum flue_code types =
        flue_pprof_check_types(profile, &fuzz_limits, &other, &arena, &names, NULL);
    FUZZ_CHECK(code == types, "with and without names, two opinions");
    flue_arena_destroy(&arena);
    if (code != FLUE_OK) {
        fuzz_refused(code, &error);
        return fuzz_end();
    }
    code = flue_pprof_raw(profile, &fuzz_limits, &fuzz_account, &inflated, &raw, &error);
    FUZZ_CHECK(code == FLUE_OK, error.text);
    FUZZ_CHECK(raw.size == facts.inflated_size, "inflated size");
    decode(raw, &facts);

    code = flue_pprof_repair(profile, &fuzz_limits, &fuzz_account, &out, &error);
    FUZZ_CHECK(code == FLUE_OK, error.text);
    FUZZ_CHECK(!made(out).invalid_utf8, "not repaired");
    code = flue_pprof_set_time(profile, 1700000000, &fuzz_limits, &fuzz_account, &out, &error);
    FUZZ_CHECK(code == FLUE_OK, error.text);
    FUZZ_CHECK(made(out).time_nanos == 1700000000, "time not set");

    struct flue_bytes both[2] = {profile, raw};
    code = flue_pprof_merge(both, 2, &fuzz_limits, &fuzz_account, &out, &error);
    if (code == FLUE_OK)
        FUZZ_CHECK(made(out).sample_types == facts.sample_types, "merged to other types");
    else
        FUZZ_CHECK(code == FLUE_UNPROCESSABLE || code == FLUE_TOO_LARGE || code == FLUE_NO_MEMORY,
                   error.text);
    flue_block_unref(inflated);
    return fuzz_end();
}
