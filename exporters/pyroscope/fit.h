/* fit.h: a profile as profiles that the server takes: cut between samples until each is small
 * enough, samples without too many labels, stacks not too deep.
 *
 * The sum of the parts is the whole, value by value. The order is the profile's, and what comes out
 * depends on the profile and the limits alone: a second time it is the same, bit for bit.
 */
#ifndef EXPORTERS_PYROSCOPE_FIT_H
#define EXPORTERS_PYROSCOPE_FIT_H

#include "exporters/pyroscope/labels.h"

struct flue_fit_limits {
    size_t bytes; /* inflated, of one part */
    uint64_t samples;
    uint64_t sample_labels; /* of one sample, numeric ones too */
    uint64_t text_labels;   /* of one sample with text, but for span_id and trace_id */
    uint64_t depth;
    const struct flue_labels_config *order; /* which labels of samples stay first */
};

/* Does it pass as it is? */
bool flue_fits(const struct flue_pprof_facts *facts, const struct flue_fit_limits *limits);

/* Every part raw, in a block whose reference `emit` takes; false ends it (FLUE_NO_MEMORY). The
 * profile (gzip or raw) must have been checked. A single sample over limits->bytes is
 * FLUE_TOO_LARGE, possibly after some parts. *cut counts labels and stacks that lost something. */
enum flue_code flue_fit(struct flue_bytes profile, const struct flue_pprof_limits *inflating,
                        const struct flue_fit_limits *limits, struct flue_account *account,
                        bool (*emit)(void *arg, struct flue_block *part, uint64_t samples),
                        void *arg, size_t *cut, struct flue_error *error);

#endif
