/* otlp.h: what must hold of every OTLP payload that was accepted. */
#ifndef TESTS_FUZZ_OTLP_H
#define TESTS_FUZZ_OTLP_H

#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "tests/fuzz/fuzz.h"

static inline bool fuzz_count_profile(void *arg, const struct flue_otlp_profile *profile)
{
    struct flue_counts *counts = arg;
    counts->profiles++;
    counts->samples += profile->samples;
    return true;
}

/* As the payload's own walk sees it: samples by their index entries, but those that were edited. */
static inline struct flue_counts fuzz_counts(const struct flue_payload *payload)
{
    struct flue_counts counts = {0};
    (void)flue_otlp_each_profile(payload, fuzz_count_profile, &counts);
    return counts;
}

/* What leaves is accepted again, whole: nothing rejected, nothing repaired, equal counts, and the
 * same bytes when it leaves once more. */
static inline void fuzz_otlp_leaves(const struct flue_payload *payload,
                                    const struct flue_counts *counts)
{
    struct flue_error error = {0};
    struct flue_otlp_report report;
    struct flue_payload *again = NULL;
    struct flue_block *written = fuzz_written(payload);

    enum flue_code code = flue_otlp_read(flue_block_ref(written), &again, &report, &error);
    FUZZ_CHECK(code == FLUE_OK, error.text);
    FUZZ_CHECK(report.rejected_profiles == 0, report.rejected_reason);
    FUZZ_CHECK(report.repaired_strings == 0, "a string was repaired twice");
    FUZZ_CHECK((again != NULL) == (counts->profiles != 0), "profiles from nowhere, or none left");
    if (again) {
        FUZZ_CHECK(report.layout == FLUE_OTLP_1_10, "not written as 1.10");
        FUZZ_CHECK(report.counts.profiles == counts->profiles, "other profiles");
        FUZZ_CHECK(report.counts.samples == counts->samples, "other samples");
        struct flue_block *twice = fuzz_written(again);
        FUZZ_CHECK(flue_bytes_equal(flue_block_bytes(twice), flue_block_bytes(written)),
                   "written otherwise");
        flue_block_unref(twice);
    }
    flue_payload_unref(again);
    flue_block_unref(written);
}

#endif
