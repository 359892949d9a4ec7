/* OTLP to pprof: every profile that comes out passes the check and is what its facts say. */
#include "proto/convert/convert.h"
#include "tests/fuzz/otlp.h"
#include "tests/fuzz/pprof.h"
#include "tests/fuzz/wire.h"

static void on_result(void *arg, const struct flue_to_pprof_result *result)
{
    struct flue_counts *sum = arg;
    struct flue_pprof_limits limits = {(size_t)64 << 20, 200};
    struct flue_pprof_facts facts;
    struct flue_error error = {0};

    FUZZ_CHECK(flue_pprof_check(result->pprof, &limits, &facts, &error) == FLUE_OK, error.text);
    FUZZ_CHECK(facts.samples == result->facts.samples, "samples");
    FUZZ_CHECK(facts.sample_types == result->facts.sample_types, "sample types");
    FUZZ_CHECK(facts.inflated_size == result->pprof.size, "size");
    FUZZ_CHECK(!facts.invalid_utf8, "a string is not UTF-8");
    sum->profiles += result->counts.profiles;
    sum->samples += result->counts.samples;
    sum->bytes += result->counts.bytes;
}

static bool tolerable(enum flue_code code)
{
    return code == FLUE_OK || code == FLUE_NO_MEMORY || code == FLUE_TOO_LARGE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_error error = {0};
    struct flue_otlp_report report;
    struct flue_payload *payload = NULL, *other = NULL, *back = NULL;
    struct flue_arena arena;

    fuzz_begin(data, size);
    if (flue_otlp_read(fuzz_block(flue_bytes(data, size)), &payload, &report, &error) != FLUE_OK ||
        !payload)
        return fuzz_end();

    static const struct flue_bytes keep[] = {FLUE_BYTES_INIT("thread.name"), FLUE_BYTES_INIT("k")};
    size_t keep_count = dice(3);
    struct flue_to_pprof_options options = {.keep_attributes = keep_count ? keep : NULL,
                                            .keep_count = keep_count,
                                            .drop_other_attributes = dice(2),
                                            .underscore_sample_types = dice(2),
                                            .numbers_as_text = dice(2),
                                            .received_ns = 1700000000000000000};
    struct flue_counts sum = {0};
    flue_arena_init(&arena, (size_t)256 << 20, 0);
    enum flue_code code = flue_otlp_to_pprof(payload, &options, &arena, on_result, &sum, &error);
    FUZZ_CHECK(tolerable(code), error.text);
    if (code == FLUE_OK) {
        FUZZ_CHECK(sum.profiles == report.counts.profiles, "profiles do not add up");
        FUZZ_CHECK(sum.samples == report.counts.samples, "samples do not add up");
        FUZZ_CHECK(sum.bytes == payload->ops->encoded_size(payload), "bytes do not add up");
    }
    flue_arena_destroy(&arena);

    code = flue_convert(payload, FLUE_FORM_PPROF, &fuzz_account, &other, &error);
    FUZZ_CHECK(tolerable(code), error.text);
    if (code == FLUE_OK) {
        struct flue_payload *same = NULL;
        fuzz_pprof_facts(other);
        flue_block_unref(fuzz_written(other));
        FUZZ_CHECK(flue_convert(payload, FLUE_FORM_PPROF, &fuzz_account, &same, &error) ==
                           FLUE_OK &&
                       same == other,
                   "converted twice");
        flue_payload_unref(same);
        code = flue_convert(other, FLUE_FORM_OTLP, &fuzz_account, &back, &error);
        FUZZ_CHECK(tolerable(code), error.text);
        if (code == FLUE_OK) {
            struct flue_counts counts = fuzz_counts(back);
            fuzz_otlp_leaves(back, &counts);
        }
        flue_payload_unref(back);
    }
    flue_payload_unref(other);
    flue_payload_unref(payload);
    return fuzz_end();
}
