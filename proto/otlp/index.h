/* index.h: the inside of an OTLP payload, for the code of proto/ that must read or change more than
 * attributes: merging, splitting, converting, linking, symbolizing, JSON.
 *
 * flue_otlp_read leaves a body in the 1.10 layout that is checked in full (structure, UTF-8, every
 * index against its table, values and timestamps of every sample), with at most one dictionary
 * message, at most one Resource in a ResourceProfiles and one Scope in a ScopeProfiles, and plain
 * strings in their attributes. Code that walks it may rely on that, and still reads with bounds.
 *
 * Positions are offsets into the body. A *place* is a message that the index knows; its content may
 * be edited in whole fields. Everything named "as edited" walks the original fields with the edits
 * put in; what it hands out is borrowed from the payload until its next edit.
 *
 * Rule of indices everywhere: index < max(1, rows). Index 0 of an empty table is "not set".
 * Field numbers: opentelemetry-proto 1.10, profiles/v1development/profiles.proto.
 */
#ifndef PROTO_OTLP_INDEX_H
#define PROTO_OTLP_INDEX_H

#include "collector/base/arena.h"
#include "collector/base/payload.h"
#include "proto/wire/reader.h"

/* By field number within ProfilesDictionary. */
enum flue_otlp_table {
    FLUE_OTLP_MAPPING = 1,
    FLUE_OTLP_LOCATION,
    FLUE_OTLP_FUNCTION,
    FLUE_OTLP_LINK,
    FLUE_OTLP_STRING,
    FLUE_OTLP_ATTRIBUTE,
    FLUE_OTLP_STACK,
    FLUE_OTLP_TABLES /* one more than the last; entry 0 of arrays of this size is unused */
};

/* ------------------------------------------------------------------ places */

/* A length-delimited field: its tag, its content. end == 0: not there. */
struct flue_otlp_span {
    uint32_t tag, start, end;
};

struct flue_otlp_resource_index {
    struct flue_otlp_span at;       /* ResourceProfiles */
    struct flue_otlp_span resource; /* its Resource */
    uint64_t keys;                  /* flue_attribute_bit of every attribute's key */
    uint32_t first_scope, scopes;
};
struct flue_otlp_scope_index {
    struct flue_otlp_span at;    /* ScopeProfiles */
    struct flue_otlp_span scope; /* its InstrumentationScope */
    uint32_t resource;           /* which it belongs to */
    uint32_t first_profile, profiles;
};
struct flue_otlp_profile_index {
    struct flue_otlp_span at;
    uint32_t scope;
    uint32_t samples;
};

/* Immutable and shared by all clones. */
struct flue_otlp_index {
    _Atomic uint32_t refs;
    struct flue_block *body;
    struct flue_otlp_span dictionary;
    uint32_t rows[FLUE_OTLP_TABLES];
    uint32_t resource_count, scope_count, profile_count;
    struct flue_otlp_resource_index *resources;
    struct flue_otlp_scope_index *scopes;
    struct flue_otlp_profile_index *profiles;
    uint64_t samples;
    size_t bytes;                 /* that the arrays take */
    struct flue_account *account; /* charged for them; NULL: none */
};

const struct flue_otlp_index *flue_otlp_index_of(const struct flue_payload *payload);

enum flue_otlp_place_kind {
    FLUE_OTLP_IN_REQUEST,           /* number 0; fields of the request itself */
    FLUE_OTLP_IN_DICTIONARY,        /* number 0 */
    FLUE_OTLP_IN_RESOURCE_PROFILES, /* number: resource */
    FLUE_OTLP_IN_RESOURCE,          /* number: resource; its Resource message, made if missing */
    FLUE_OTLP_IN_SCOPE_PROFILES,    /* number: scope (index over all resources) */
    FLUE_OTLP_IN_SCOPE,             /* number: scope; its Scope message, made if missing */
    FLUE_OTLP_IN_PROFILE,           /* number: profile (index over all scopes) */
    FLUE_OTLP_PLACE_KINDS
};
struct flue_otlp_place {
    enum flue_otlp_place_kind kind;
    uint32_t number;
};

/* -------------------------------------------------- reading fields as edited */

/* for (struct flue_otlp_fields it = flue_otlp_fields(p, place); flue_otlp_fields_next(&it, &f);)
 * yields every field of the place as edited, in order. f.tag_at .. it.at is the whole field. */
struct flue_otlp_fields {
    struct flue_reader run;             /* what is being walked */
    const uint8_t *resume, *end;        /* of the original, while an edit is walked */
    const struct flue_otlp_edit *edits; /* not reached yet */
    const uint8_t *base;                /* of the body */
};
struct flue_otlp_fields flue_otlp_fields(const struct flue_payload *payload,
                                         struct flue_otlp_place place);
bool flue_otlp_fields_next(struct flue_otlp_fields *it, struct flue_field_value *f);

/* Every Profile as edited (removed ones left out; whole Profiles put in by flue_otlp_replace are
 * not seen), in order of the body. */
struct flue_otlp_profile {
    uint32_t profile, scope, resource; /* numbers in the index */
    uint32_t samples;                  /* as edited */
    struct flue_bytes bytes;           /* content as received: without edits */
    bool edited;                       /* fields_next over FLUE_OTLP_IN_PROFILE sees the edits */
};
/* False from `visit` stops; returns what the last visit returned (true when there was none). */
bool flue_otlp_each_profile(const struct flue_payload *payload,
                            bool (*visit)(void *arg, const struct flue_otlp_profile *profile),
                            void *arg);
bool flue_otlp_profile_removed(const struct flue_payload *payload, uint32_t profile);

/* The Samples of one Profile as edited: `sample` is the content of each. */
struct flue_otlp_samples {
    struct flue_otlp_fields fields;
};
struct flue_otlp_samples flue_otlp_samples(const struct flue_payload *payload, uint32_t profile);
bool flue_otlp_samples_next(struct flue_otlp_samples *it, struct flue_bytes *sample);

/* Repeated integers, packed or not, in one run or several. */
struct flue_otlp_numbers {
    struct flue_reader run;  /* of varints or of fixed64 */
    struct flue_reader rest; /* fields of the message where more may come */
    uint32_t field;
    bool fixed; /* fixed64 */
};
bool flue_otlp_numbers_next(struct flue_otlp_numbers *it, uint64_t *value);
size_t flue_otlp_numbers_count(struct flue_otlp_numbers it);

struct flue_otlp_sample {
    uint32_t stack_index, link_index;
    struct flue_otlp_numbers attribute_indices;
    struct flue_otlp_numbers values;     /* int64 */
    struct flue_otlp_numbers timestamps; /* nanoseconds */
};
void flue_otlp_sample_read(struct flue_bytes sample, struct flue_otlp_sample *out);

struct flue_otlp_profile_fields {
    uint32_t sample_type, sample_unit; /* string indices */
    uint32_t period_type, period_unit;
    uint64_t time_unix_nano, duration_nano;
    int64_t period;
    struct flue_bytes profile_id;
    uint32_t dropped_attributes_count;
    struct flue_bytes original_payload_format, original_payload;
};
/* As edited; attribute indices by flue_otlp_profile_attributes. */
void flue_otlp_profile_read(const struct flue_payload *payload, uint32_t profile,
                            struct flue_otlp_profile_fields *out);
/* One index after the other, as edited. */
void flue_otlp_profile_attributes(const struct flue_payload *payload, uint32_t profile,
                                  void (*visit)(void *arg, uint32_t attribute), void *arg);

struct flue_otlp_scope_fields {
    struct flue_bytes name, version, schema_url;
    uint32_t dropped_attributes_count;
};
void flue_otlp_scope_read(const struct flue_payload *payload, uint32_t scope,
                          struct flue_otlp_scope_fields *out);
/* Attributes of a scope as edited (those of a resource: ops->attribute_each). */
void flue_otlp_scope_attributes(const struct flue_payload *payload, uint32_t scope,
                                flue_attribute_visit visit, void *arg);
/* schema_url of a ResourceProfiles and dropped_attributes_count of its Resource, as edited. */
void flue_otlp_resource_read(const struct flue_payload *payload, uint32_t resource,
                             struct flue_bytes *schema_url, uint32_t *dropped_attributes_count);

/* ------------------------------------------------------------- the dictionary */

/* Every row of every table as edited (rows appended included), as slices of its content. Made by
 * one walk; arrays in the arena, rows borrowed from the payload until its next edit. */
struct flue_otlp_dictionary {
    const struct flue_bytes *rows[FLUE_OTLP_TABLES];
    uint32_t counts[FLUE_OTLP_TABLES];
};
enum flue_code flue_otlp_dictionary_open(const struct flue_payload *payload,
                                         struct flue_arena *arena, struct flue_otlp_dictionary *out,
                                         struct flue_error *error);
/* An empty slice where the table has no such row. */
static inline struct flue_bytes flue_otlp_row(const struct flue_otlp_dictionary *d,
                                              enum flue_otlp_table table, uint32_t index)
{
    return index < d->counts[table] ? d->rows[table][index] : flue_bytes(NULL, 0);
}
static inline struct flue_bytes flue_otlp_string(const struct flue_otlp_dictionary *d, uint32_t i)
{
    return flue_otlp_row(d, FLUE_OTLP_STRING, i);
}

struct flue_otlp_mapping {
    uint64_t memory_start, memory_limit, file_offset;
    uint32_t filename;
    struct flue_otlp_numbers attribute_indices;
};
struct flue_otlp_location {
    uint32_t mapping;
    uint64_t address;
    struct flue_reader lines; /* flue_otlp_line_next */
    struct flue_otlp_numbers attribute_indices;
};
struct flue_otlp_line {
    uint32_t function;
    int64_t line, column;
};
struct flue_otlp_function {
    uint32_t name, system_name, filename;
    int64_t start_line;
};
struct flue_otlp_link {
    struct flue_bytes trace_id, span_id; /* 16 and 8 bytes, or empty */
};
struct flue_otlp_attribute_row {
    uint32_t key, unit;
    struct flue_bytes value; /* encoded AnyValue; flue_otlp_value_read */
};
void flue_otlp_mapping_read(struct flue_bytes row, struct flue_otlp_mapping *out);
void flue_otlp_location_read(struct flue_bytes row, struct flue_otlp_location *out);
bool flue_otlp_line_next(struct flue_reader *lines, struct flue_otlp_line *out);
void flue_otlp_function_read(struct flue_bytes row, struct flue_otlp_function *out);
void flue_otlp_link_read(struct flue_bytes row, struct flue_otlp_link *out);
void flue_otlp_attribute_row_read(struct flue_bytes row, struct flue_otlp_attribute_row *out);
/* Leaf first. */
struct flue_otlp_numbers flue_otlp_stack_locations(struct flue_bytes row);

/* AnyValue. A string given as string_value_strindex (dictionary attributes only) is looked up in
 * `dictionary` (may be NULL: then it reads as empty). Arrays and lists are FLUE_VALUE_COMPLEX. */
void flue_otlp_value_read(struct flue_bytes any_value,
                          const struct flue_otlp_dictionary *dictionary, struct flue_value *out);
/* Encoded size and bytes of an AnyValue's content; returns the end. */
size_t flue_otlp_value_size(const struct flue_value *value);
uint8_t *flue_otlp_value_write(uint8_t *at, const struct flue_value *value);
/* A KeyValue's content. */
void flue_otlp_attribute_read(struct flue_bytes key_value, struct flue_attribute *out);
/* A whole field of a KeyValue: tag, length, content. `field` is 1 in Resource and KeyValueList, 3
 * in InstrumentationScope. */
size_t flue_otlp_attribute_size(uint32_t field, const struct flue_attribute *attribute);
uint8_t *flue_otlp_attribute_write(uint8_t *at, uint32_t field,
                                   const struct flue_attribute *attribute);

/* ------------------------------------------------------------------- editing */

/* All need the only reference (flue_payload_shared is false); they drop `other_form`. Bytes given
 * are copied into the overlay unless said. On failure nothing has changed, but for attributes: of
 * those some may already be set or gone, so whoever edits gives the payload up with the error. */

/* Appends a row (content of the message, or the string); *index is its number. An empty table gets
 * its zero row first. */
enum flue_code flue_otlp_dictionary_append(struct flue_payload *payload, enum flue_otlp_table table,
                                           struct flue_bytes row, uint32_t *index,
                                           struct flue_error *error);
/* Replaces the content of a row that was received (not one appended, not twice). Steps over the
 * table: for many rows, use flue_otlp_replace with the rows of flue_otlp_dictionary_open. */
enum flue_code flue_otlp_dictionary_replace(struct flue_payload *payload,
                                            enum flue_otlp_table table, uint32_t index,
                                            struct flue_bytes row, struct flue_error *error);
/* Puts `with` (whole fields, tags included) in place of the bytes [from, to) of the body, which are
 * whole fields of the place's content as received and not edited yet; from == to inserts, several
 * insertions at one position stand in the order made. This is how a run
 * of samples is replaced (FLUE_OTLP_IN_PROFILE). */
enum flue_code flue_otlp_replace(struct flue_payload *payload, struct flue_otlp_place place,
                                 uint32_t from, uint32_t to, struct flue_bytes with,
                                 struct flue_error *error);
/* Replaces all samples of a profile, as edited, at the place of the first one, by `encoded` (fields
 * 2 of Profile with tag and length). */
enum flue_code flue_otlp_samples_set(struct flue_payload *payload, uint32_t profile,
                                     struct flue_bytes encoded, struct flue_error *error);
enum flue_code flue_otlp_profile_remove(struct flue_payload *payload, uint32_t profile,
                                        struct flue_error *error);
/* Attributes of a scope: as ops->attributes_set and attribute_remove do for a resource. */
enum flue_code flue_otlp_scope_set(struct flue_payload *payload, uint32_t scope,
                                   const struct flue_attribute_set *set, enum flue_set_mode mode,
                                   struct flue_block *set_owner, struct flue_error *error);
enum flue_code flue_otlp_scope_attribute_remove(struct flue_payload *payload, uint32_t scope,
                                                struct flue_bytes key, struct flue_error *error);
/* Removes the whole ResourceProfiles (its number stays, without profiles and attributes). */
enum flue_code flue_otlp_resource_remove(struct flue_payload *payload, uint32_t resource,
                                         struct flue_error *error);

extern const struct flue_payload_ops flue_otlp_ops;

#endif
