/* dictionary_copy.h: profiles of a payload copied into a new body, one sample at a time.
 *
 * The messages around a sample (ResourceProfiles, ScopeProfiles, Profile) are opened when the first
 * sample or profile needs them and closed when the next one lies elsewhere. Their other fields are
 * copied as edited; dictionary references go through the map. */
#ifndef PROTO_OTLP_DICTIONARY_COPY_H
#define PROTO_OTLP_DICTIONARY_COPY_H

#include "proto/otlp/dictionary_tables.h"

struct flue_otlp_copy {
    const struct flue_payload *payload;
    struct flue_otlp_map *map;
    struct flue_out *body;
    /* What is open: number in the index, FLUE_OTLP_NO_ROW for nothing; where its content begins. */
    uint32_t resource, scope, profile;
    size_t resource_mark, scope_mark, profile_mark;
};

void flue_otlp_copy_begin(struct flue_otlp_copy *copy, const struct flue_payload *payload,
                          struct flue_otlp_map *map, struct flue_out *body);
/* Closes what does not surround `profile`; NULL: everything. */
void flue_otlp_copy_close(struct flue_otlp_copy *copy, const struct flue_otlp_profile *profile);
/* Opens what is missing around `profile` and the profile itself. */
void flue_otlp_copy_open(struct flue_otlp_copy *copy, const struct flue_otlp_profile *profile);
/* Into the open profile. */
void flue_otlp_copy_sample(struct flue_otlp_copy *copy, struct flue_bytes sample);

/* The finished body: dictionary written behind, slack, account; then checked and indexed. Takes the
 * body's block. *out is NULL when there is no profile in it. */
enum flue_code flue_otlp_copy_finish(struct flue_out *body, const struct flue_otlp_tables *tables,
                                     struct flue_work *work, struct flue_payload **out,
                                     struct flue_error *error);

#endif
