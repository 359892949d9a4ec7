/* sample_groups.h: the profiles of one OTLP scope as lists of samples, and which of them are one
 * pprof.
 *
 * OTLP has one sample type in a Profile; a pprof with several types is several Profiles there, with
 * the same samples in the same order. Profiles are recombined when time, duration, period, period
 * type, profile attributes and the list of (stack, attributes, link) are equal and their types
 * differ; the nth of equal types goes to the nth pprof.
 */
#ifndef PROTO_CONVERT_SAMPLE_GROUPS_H
#define PROTO_CONVERT_SAMPLE_GROUPS_H

#include "proto/convert/label_sets.h"

struct flue_sample_row {
    uint32_t stack, labels; /* row; set */
};
struct flue_sample_list {
    uint32_t profile; /* in the index */
    size_t encoded_size;
    struct flue_otlp_profile_fields fields;
    uint32_t *attributes; /* of the profile */
    size_t attribute_count, attribute_room;
    struct flue_sample_row *rows;
    int64_t *values; /* sum of values, or count of timestamps; saturating */
    size_t count;
    uint64_t hash;
    uint32_t next; /* of the same group, UINT32_MAX at the end */
};
struct flue_sample_group {
    uint32_t first, last; /* lists */
    size_t types;
    uint32_t next_same; /* the next group that is equal but for its types */
};
/* All of it lives in `arena`, for one scope. */
struct flue_sample_groups {
    const struct flue_payload *payload;
    const struct flue_otlp_dictionary *dictionary;
    struct flue_label_sets *sets;
    struct flue_arena *arena;
    struct flue_sample_list *lists;
    size_t list_count, list_room;
    struct flue_sample_group *groups;
    size_t count, room;
    uint32_t *indices; /* attribute indices of a sample, reused */
    size_t index_room;
    struct {
        struct flue_table table;
        struct flue_same {
            uint32_t list, group;
        } * items;
        size_t count, room;
    } alike, same_type; /* first group of equals; last group that has a type */
};

bool flue_sample_groups_begin(struct flue_sample_groups *groups, struct flue_arena *arena,
                              const struct flue_payload *payload,
                              const struct flue_otlp_dictionary *dictionary,
                              struct flue_label_sets *sets);
/* Reads one more profile of the scope. False without memory. */
bool flue_sample_groups_add(struct flue_sample_groups *groups,
                            const struct flue_otlp_profile *profile);
/* Adds up equal samples of a group (equal because attributes were dropped), in place. */
bool flue_sample_group_fold(struct flue_sample_groups *groups,
                            const struct flue_sample_group *group);

#endif
