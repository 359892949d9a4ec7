/* folded.h: folded stacks ("collapsed" text) to pprof.
 *
 *   groups:  frame;frame;frame COUNT     root first; the last blank splits; equal stacks add up
 *   lines:   frame;frame;frame           every line counts 1
 *
 * Lines end with LF or CRLF; empty ones are passed over; there is no limit on the length of a line
 * but the body's. Text that is not UTF-8 is repaired (U+FFFD). What cannot be read refuses the
 * whole text with its line number: a line without a count, a count that is not a decimal number of
 * 0 to 2^63-1, a total over 2^63-1, UTF-16. Sources: Brendan Gregg's FlameGraph, Pyroscope /ingest
 * (groups, lines), py-spy -f raw.
 */
#ifndef PROTO_FOREIGN_FOLDED_H
#define PROTO_FOREIGN_FOLDED_H

#include "collector/base/block.h"

enum flue_folded_form { FLUE_FOLDED_GROUPS, FLUE_FOLDED_LINES };

/* What the numbers are. Strings are borrowed. */
struct flue_folded_meaning {
    struct flue_bytes type, unit;
    struct flue_bytes period_type, period_unit; /* empty: none */
    int64_t period;
    int64_t scale; /* every count times this; at least 1 */
    int64_t time_nanos, duration_nanos;
};
struct flue_folded_facts {
    uint64_t samples; /* different stacks */
    bool repaired;
};

/* To a new, raw pprof of one sample type. `budget`: bytes that reading may use. An empty text gives
 * a profile without samples. */
enum flue_code flue_folded_to_pprof(struct flue_bytes text, enum flue_folded_form form,
                                    const struct flue_folded_meaning *meaning, size_t budget,
                                    struct flue_account *account, struct flue_block **out,
                                    struct flue_folded_facts *facts, struct flue_error *error);

/* What Pyroscope makes of an application name whose last part, behind a dot, says what was measured
 * ("encoder.wall", "encoder.alloc_space", "encoder"): the profile's name, and the meaning of its
 * numbers (times are left alone). `app`: the name without that part. FLUE_INVALID: "unknown profile
 * type: X". Strings are static. */
enum flue_code flue_folded_pyroscope(struct flue_bytes name, uint64_t sample_rate,
                                     struct flue_bytes *app, struct flue_bytes *profile_name,
                                     struct flue_folded_meaning *meaning, struct flue_error *error);

#endif
