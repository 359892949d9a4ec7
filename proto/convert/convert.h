/* convert.h: OTLP to pprof and back, at the edge that needs the other form.
 *
 * What each form cannot carry is listed in docs/conversion.md. Both directions index tables once
 * and hash what they intern. What is converted is data already taken, so its memory is charged even
 * over the hard limit (proto/otlp/dictionary.h says why).
 */
#ifndef PROTO_CONVERT_CONVERT_H
#define PROTO_CONVERT_CONVERT_H

#include "collector/base/arena.h"
#include "collector/base/payload.h"
#include "proto/pprof/pprof.h"

/* The payload in the form asked for: itself (referenced), the cached other form, or a new
 * conversion, cached in `payload` (same loop only). The result is referenced; one that is shared is
 * read-only, as any payload. To PPROF: a series for every resource, scope and name, labels from the
 * resource's attributes (proto/pprof/names.h), "otel.scope.name" and "otel.scope.version" from the
 * scope. To OTLP: a ResourceProfiles for every series, in it a ScopeProfiles for every profile. */
enum flue_code flue_convert(struct flue_payload *payload, enum flue_form form,
                            struct flue_account *account, struct flue_payload **out,
                            struct flue_error *error);

/* How OTLP samples become pprof samples, for exporters that need less than everything. */
struct flue_to_pprof_options {
    /* NULL: every sample attribute becomes a label. Else only these keys do; samples that are equal
     * without the others are added up. span_id and trace_id of the link table are always kept. */
    const struct flue_bytes *keep_attributes;
    size_t keep_count;
    bool drop_other_attributes;   /* keep_attributes counts */
    bool underscore_sample_types; /* "-" in a sample type becomes "_" */
    bool numbers_as_text; /* numeric attributes become string labels (Pyroscope has no others) */
    uint64_t received_ns; /* for a Profile whose time is 0 */
    /* Of one pprof; what is over is cut between samples (a single sample may be larger); 0: any. */
    uint64_t most_samples;
    size_t most_bytes;
    size_t own_block_from; /* bytes from which a pprof comes in a block of its own; 0: never */
};

/* One pprof of a resource: sample types that share stacks are recombined into one. */
struct flue_to_pprof_result {
    size_t resource;               /* of the payload: its attributes are the series' */
    struct flue_bytes name;        /* Pyroscope's profile name: "process_cpu", "memory", ... */
    struct flue_bytes pprof;       /* raw, uncompressed */
    struct flue_block *block;      /* it lies there, not in the arena: the receiver's reference */
    size_t time_at;                /* of the varint time_nanos in it; 0: nowhere */
    struct flue_counts counts;     /* share of the payload's */
    unsigned part;                 /* of those that one was cut into, from 0 */
    struct flue_pprof_facts facts; /* of `pprof`, as a check would find them */
    struct flue_bytes scope_name, scope_version;
    int64_t time_nanos;
    struct flue_bytes profile_id; /* 16 bytes, or empty */
    /* Labels of the series that a pprof came with and that are no attributes ("__session_id__"),
     * without "__name__", which is `name`. */
    const struct flue_pprof_label *identity;
    size_t identity_count;
};
/* In order of the payload. `emit` is called between two profiles' work; what it gets lies in
 * `arena` or in the payload, so it may be kept as long as both. A Profile without samples is
 * emitted too. The bytes of the counts add up to the payload's encoded size. On failure some may
 * have been emitted. Memory on the way: `arena`, and a budget as of merging
 * (proto/otlp/dictionary.h). */
enum flue_code
flue_otlp_to_pprof(const struct flue_payload *payload, const struct flue_to_pprof_options *options,
                   struct flue_arena *arena,
                   void (*emit)(void *arg, const struct flue_to_pprof_result *result), void *arg,
                   struct flue_error *error);

#endif
