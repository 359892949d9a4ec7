/* Folded stacks: what is read is a profile that passes the check. */
#include "proto/foreign/folded.h"
#include "proto/pprof/pprof.h"
#include "tests/fuzz/fuzz.h"

static void read_as(struct flue_bytes text, enum flue_folded_form form)
{
    struct flue_folded_meaning meaning = {.type = FLUE_BYTES("samples"),
                                          .unit = FLUE_BYTES("count"),
                                          .period_type = FLUE_BYTES("cpu"),
                                          .period_unit = FLUE_BYTES("nanoseconds"),
                                          .period = 10000000,
                                          .scale = 1 + dice(3) * 10000000};
    struct flue_pprof_limits limits = {(size_t)64 << 20, 200};
    struct flue_folded_facts facts;
    struct flue_pprof_facts found;
    struct flue_block *out = NULL;
    struct flue_error error = {0};

    enum flue_code code = flue_folded_to_pprof(text, form, &meaning, (size_t)16 << 20,
                                               &fuzz_account, &out, &facts, &error);
    if (code != FLUE_OK) {
        fuzz_refused(code, &error);
        FUZZ_CHECK(!out, "refused, and a profile");
        return;
    }
    FUZZ_CHECK(flue_pprof_check(flue_block_bytes(out), &limits, &found, &error) == FLUE_OK,
               error.text);
    FUZZ_CHECK(found.samples == facts.samples, "samples");
    FUZZ_CHECK(!found.invalid_utf8, "not repaired");
    FUZZ_CHECK(facts.repaired == !flue_utf8_valid(text), "repaired what was right");
    flue_block_unref(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(data, size);
    read_as(flue_bytes(data, size), FLUE_FOLDED_GROUPS);
    read_as(flue_bytes(data, size), FLUE_FOLDED_LINES);
    return fuzz_end();
}
