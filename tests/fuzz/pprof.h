/* pprof.h: what must hold of every payload of form pprof. */
#ifndef TESTS_FUZZ_PPROF_H
#define TESTS_FUZZ_PPROF_H

#include "proto/pprof/pprof.h"
#include "tests/fuzz/fuzz.h"

static const struct flue_pprof_limits fuzz_limits = {(size_t)4 << 20, 200};

/* What leaves is a request that is accepted whole, with the same counts. */
static inline void fuzz_pprof_leaves(const struct flue_payload *payload, bool trusted,
                                     const struct flue_counts *counts)
{
    struct flue_error error = {0};
    struct flue_push_report report;
    struct flue_payload *again = NULL;

    struct flue_block *written = fuzz_written(payload);
    enum flue_code code = flue_push_read(written, &fuzz_limits, trusted, &again, &report, &error);
    flue_block_unref(written);
    FUZZ_CHECK(code == FLUE_OK && again, error.text);
    FUZZ_CHECK(report.rejected_profiles == 0, report.rejected_reason);
    FUZZ_CHECK(report.repaired_profiles == 0, "repaired twice");
    FUZZ_CHECK(report.counts.profiles == counts->profiles, "other profiles");
    FUZZ_CHECK(report.counts.samples == counts->samples, "other samples");
    flue_payload_unref(again);
}

/* Every profile of it passes the check, which finds what its facts say. */
static inline void fuzz_pprof_facts(const struct flue_payload *payload)
{
    for (size_t i = 0; i < flue_pprof_series_count(payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(payload, i);
        for (size_t k = 0; k < series->profile_count; k++) {
            const struct flue_pprof_facts *facts = &series->profiles[k].facts;
            struct flue_pprof_limits limits = {(size_t)64 << 20, 200};
            struct flue_pprof_facts found;
            struct flue_error error = {0};
            FUZZ_CHECK(flue_pprof_check(series->profiles[k].bytes, &limits, &found, &error) ==
                           FLUE_OK,
                       error.text);
            FUZZ_CHECK(found.samples == facts->samples, "samples");
            FUZZ_CHECK(found.sample_types == facts->sample_types, "sample types");
            FUZZ_CHECK(found.inflated_size == facts->inflated_size, "size");
            FUZZ_CHECK(found.time_nanos == facts->time_nanos, "time");
            FUZZ_CHECK(found.invalid_utf8 == facts->invalid_utf8, "UTF-8");
        }
    }
}

#endif
