/* pprof.h: pprof profiles and the series around them as a payload: the door of this folder.
 *
 * A payload of form PPROF is a list of series; each has labels and raw profiles, kept as the bytes
 * that came (gzip or not). Labels are Prometheus-style ("__name__", "service_name"); the payload's
 * attribute view shows them in OpenTelemetry names by the table in names.h and translates back.
 */
#ifndef PROTO_PPROF_PPROF_H
#define PROTO_PPROF_PPROF_H

#include "collector/base/arena.h"
#include "collector/base/payload.h"

/* A run of at most this many bytes counts as that many frames: a bound that costs nothing. */
#define FLUE_DEPTH_COUNTED 1000

struct flue_pprof_limits {
    size_t inflated; /* bytes; more is FLUE_TOO_LARGE */
    unsigned ratio;
};

/* What a check found, in one pass. */
struct flue_pprof_facts {
    size_t inflated_size;
    uint64_t samples, sample_types, locations, functions, mappings, strings;
    uint64_t
        sample_labels;   /* most labels with text on one sample: in Pyroscope each is the series' */
    uint64_t all_labels; /* most labels on one sample, numeric ones too */
    uint64_t depth;      /* at least the frames of the deepest sample; exact above 1,000 */
    int64_t time_nanos, duration_nanos;
    bool gzip;
    bool invalid_utf8;        /* some string needs repair (then it cannot go out byte for byte) */
    bool dash_in_sample_type; /* Pyroscope refuses it */
};

/* Checks one profile completely (structure, ids, indices, value counts) in a bounded window: gzip
 * is inflated piece by piece, not held. Legacy formats are not accepted here. An empty body is
 * FLUE_INVALID. */
enum flue_code flue_pprof_check(struct flue_bytes profile, const struct flue_pprof_limits *limits,
                                struct flue_pprof_facts *facts, struct flue_error *error);

/* The same, and the names of the sample types (facts->sample_types of them) copied to `arena`. */
struct flue_pprof_type_name {
    struct flue_bytes type, unit;
};
enum flue_code flue_pprof_check_types(struct flue_bytes profile,
                                      const struct flue_pprof_limits *limits,
                                      struct flue_pprof_facts *facts, struct flue_arena *arena,
                                      struct flue_pprof_type_name **names,
                                      struct flue_error *error);

/* The profile without its compression: *raw is the profile itself and *inflated NULL when it came
 * raw; else *raw lies in *inflated, a new block. */
enum flue_code flue_pprof_raw(struct flue_bytes profile, const struct flue_pprof_limits *limits,
                              struct flue_account *account, struct flue_block **inflated,
                              struct flue_bytes *raw, struct flue_error *error);

struct flue_pprof_label {
    struct flue_bytes name, value;
};
struct flue_pprof_profile {
    struct flue_bytes bytes; /* as it travels, gzip or raw, borrowed from the payload */
    struct flue_pprof_facts facts;
    struct flue_bytes id; /* RawSample.ID, may be empty */
};
struct flue_pprof_series {
    const struct flue_pprof_label *labels; /* as edited, names as in Pyroscope */
    size_t label_count;
    const struct flue_pprof_profile *profiles;
    size_t profile_count;
};

/* Building a payload: begin, then per series labels and profiles, then finish. The builder copies
 * labels; profile bytes must lie in blocks given with flue_pprof_builder_keep. */
struct flue_pprof_builder;
struct flue_pprof_builder *flue_pprof_builder_new(struct flue_account *account);
bool flue_pprof_builder_keep(struct flue_pprof_builder *builder,
                             struct flue_block *block); /* refs */
bool flue_pprof_builder_series(struct flue_pprof_builder *builder);
bool flue_pprof_builder_label(struct flue_pprof_builder *builder, struct flue_bytes name,
                              struct flue_bytes value);
bool flue_pprof_builder_profile(struct flue_pprof_builder *builder,
                                const struct flue_pprof_profile *profile);
/* Consumes the builder, also on failure. */
enum flue_code flue_pprof_builder_finish(struct flue_pprof_builder *builder,
                                         struct flue_payload **out, struct flue_counts *counts,
                                         struct flue_error *error);
void flue_pprof_builder_discard(struct flue_pprof_builder *builder);

size_t flue_pprof_series_count(const struct flue_payload *payload);
/* Valid until the next edit of the payload. */
const struct flue_pprof_series *flue_pprof_series_at(const struct flue_payload *payload, size_t i);

/* push.v1.PushRequest (Pyroscope): reading checks the envelope and every profile; the payload keeps
 * `body`. trusted: only the envelope is checked (facts are then zero but for gzip). A bad profile
 * is left out and reported; a series without __name__, or with a label twice, refuses its profiles.
 * Strings of a profile or label values that are not UTF-8 are repaired and counted.
 * limits->inflated holds for every profile and for the sum of one request. Fails when nothing good
 * is left (an empty request too), or when the envelope itself is broken. */
struct flue_push_report {
    struct flue_counts counts; /* of what is in the payload; bytes: encoded */
    uint64_t rejected_profiles;
    uint64_t repaired_profiles;
    char rejected_reason[400];
};
enum flue_code flue_push_read(struct flue_block *body, const struct flue_pprof_limits *limits,
                              bool trusted, struct flue_payload **out,
                              struct flue_push_report *report, struct flue_error *error);
/* PushRequest as JSON (protobuf's mapping) to the same as protobuf. `budget`: bytes that decoding
 * may use at its peak. */
enum flue_code flue_push_json_read(struct flue_bytes json, size_t budget,
                                   struct flue_account *account, struct flue_block **body,
                                   struct flue_error *error);
/* The parts of a request with one profile, for those who encode labels once and write them often:
 * head, profile, tail. */
struct flue_push_series {
    struct flue_bytes labels; /* as flue_push_labels_write has them */
    struct flue_bytes profile, id;
};
size_t flue_push_labels_size(const struct flue_pprof_label *labels, size_t count);
uint8_t *flue_push_labels_write(uint8_t *at, const struct flue_pprof_label *labels, size_t count);
#define FLUE_PUSH_HEAD_ROOM 40 /* of a head, besides its labels */
uint8_t *flue_push_head_write(uint8_t *at, const struct flue_push_series *series);
uint8_t *flue_push_tail_write(uint8_t *at, const struct flue_push_series *series);
/* One request with one profile: slices in `arena`, borrowing from labels and profile. */
enum flue_code flue_push_write(struct flue_arena *arena, const struct flue_pprof_label *labels,
                               size_t label_count, struct flue_bytes profile, struct flue_bytes id,
                               struct flue_slices *out, struct flue_error *error);

#endif
