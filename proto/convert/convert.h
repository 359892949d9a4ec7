/* convert.h: OTLP to pprof and back, at the edge that needs the other form.
 *
 * What each form cannot carry is listed in docs/conversion.md. Both directions index tables once and
 * hash what they intern.
 */
#ifndef PROTO_CONVERT_CONVERT_H
#define PROTO_CONVERT_CONVERT_H

#include "collector/base/payload.h"

/* The payload in the form asked for: itself (referenced), the cached other form, or a new
 * conversion, cached in `payload` (same loop only). The result is referenced. */
enum flue_code flue_convert(struct flue_payload *payload, enum flue_form form,
                            struct flue_account *account, struct flue_payload **out,
                            struct flue_error *error);

/* How OTLP samples become pprof samples, for exporters that need less than everything. */
struct flue_to_pprof_options {
    /* NULL: every sample attribute becomes a label. Else only these keys do; samples that are equal
     * without the others are added up. span_id and trace_id of the link table are always kept. */
    const struct flue_bytes *keep_attributes;
    size_t keep_count;
    bool drop_other_attributes; /* keep_attributes counts */
    bool underscore_sample_types; /* "-" in a sample type becomes "_" */
    uint64_t received_ns; /* for a Profile whose time is 0 */
};

/* One pprof of a resource: sample types that share stacks are recombined into one. */
struct flue_to_pprof_result {
    size_t resource;        /* of the payload: its attributes are the series' */
    struct flue_bytes name; /* Pyroscope's profile name: "process_cpu", "memory", ... */
    struct flue_bytes pprof; /* raw, uncompressed */
    struct flue_counts counts; /* share of the payload's */
    struct flue_bytes scope_name, scope_version;
    int64_t time_nanos;
};
enum flue_code flue_otlp_to_pprof(const struct flue_payload *payload,
                                  const struct flue_to_pprof_options *options,
                                  struct flue_arena *arena,
                                  void (*emit)(void *arg, const struct flue_to_pprof_result *result),
                                  void *arg, struct flue_error *error);

#endif
