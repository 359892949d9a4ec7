/* profile.h: the profile of one /ingest request as a payload with the labels that Pyroscope gives
 * it.
 *
 * Source: Pyroscope, pkg/og/convert/pprof/profile.go and pkg/ingester/pyroscope/ingest_adapter.go.
 * Pure functions; no request, no configuration.
 */
#ifndef RECEIVERS_PYROSCOPE_PROFILE_H
#define RECEIVERS_PYROSCOPE_PROFILE_H

#include "proto/foreign/folded.h"
#include "proto/pprof/pprof.h"
#include "receivers/pyroscope/query.h"

struct flue_ingest {
    struct flue_ingest_name name;
    uint64_t from_ns, until_ns;
    uint64_t sample_rate;
    struct flue_bytes spy; /* empty: unknown */
    struct flue_pprof_limits limits;
    struct flue_account *account;
};

struct flue_ingest_result {
    struct flue_payload *payload; /* NULL: the profile has no samples, there is nothing to store */
    struct flue_counts counts;
    bool repaired; /* some string was not UTF-8 */
};

/* `profile` lies in `holder`. `config` is the form's sample_type_config (JSON), or empty. It goes
 * on byte for byte, unless its time is 0 or in 1970 (then it is `from`), a string is not UTF-8, or
 * the spy is one whose function names or sample types Pyroscope rewrites. */
enum flue_code flue_ingest_profile(const struct flue_ingest *ingest, struct flue_bytes profile,
                                   struct flue_bytes config, struct flue_block *holder,
                                   struct flue_ingest_result *out, struct flue_error *error);
enum flue_code flue_ingest_folded(const struct flue_ingest *ingest, struct flue_bytes text,
                                  enum flue_folded_form form, struct flue_ingest_result *out,
                                  struct flue_error *error);

#endif
