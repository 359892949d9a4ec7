/* pprof to OTLP: what comes out is accepted whole; and back again it passes the check. */
#include "proto/convert/convert.h"
#include "tests/fuzz/otlp.h"
#include "tests/fuzz/pprof.h"
#include "tests/fuzz/wire.h"

/* One series with this profile, labelled as a sender would. */
static struct flue_payload *payload_of(struct flue_bytes in)
{
    static const char *const names[] = {"process_cpu", "memory", "wall", "x"};
    struct flue_pprof_profile profile = {0};
    struct flue_payload *payload = NULL;
    struct flue_counts counts;
    struct flue_error error = {0};

    if (flue_pprof_check(in, &fuzz_limits, &profile.facts, &error) != FLUE_OK ||
        profile.facts.invalid_utf8)
        return NULL;
    struct flue_block *block = fuzz_block(in);
    struct flue_pprof_builder *builder = flue_pprof_builder_new(&fuzz_account);
    FUZZ_CHECK(builder, "memory");
    profile.bytes = flue_block_bytes(block);
    flue_pprof_builder_keep(builder, block);
    flue_pprof_builder_series(builder);
    flue_pprof_builder_label(builder, FLUE_BYTES("__name__"), flue_bytes_of(names[dice(4)]));
    flue_pprof_builder_label(builder, FLUE_BYTES("service_name"), FLUE_BYTES("encoder"));
    if (dice(2))
        flue_pprof_builder_label(builder, FLUE_BYTES("__session_id__"), FLUE_BYTES("1f"));
    flue_pprof_builder_profile(builder, &profile);
    if (dice(3) == 0)
        flue_pprof_builder_profile(builder, &profile);
    FUZZ_CHECK(flue_pprof_builder_finish(builder, &payload, &counts, &error) == FLUE_OK,
               error.text);
    flue_block_unref(block);
    return payload;
}

static bool tolerable(enum flue_code code)
{
    return code == FLUE_OK || code == FLUE_NO_MEMORY || code == FLUE_TOO_LARGE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_payload *other = NULL, *back = NULL;
    struct flue_error error = {0};

    fuzz_begin(data, size);
    struct flue_payload *payload = payload_of(flue_bytes(data, size));
    if (!payload)
        return fuzz_end();
    enum flue_code code = flue_convert(payload, FLUE_FORM_OTLP, &fuzz_account, &other, &error);
    FUZZ_CHECK(tolerable(code), error.text);
    if (code == FLUE_OK) {
        struct flue_counts counts = fuzz_counts(other);
        fuzz_otlp_leaves(other, &counts);
        code = flue_convert(other, FLUE_FORM_PPROF, &fuzz_account, &back, &error);
        FUZZ_CHECK(tolerable(code), error.text);
        if (code == FLUE_OK) {
            fuzz_pprof_facts(back);
            flue_block_unref(fuzz_written(back));
        }
        flue_payload_unref(back);
        flue_payload_unref(other);
    }
    flue_payload_unref(payload);
    return fuzz_end();
}
