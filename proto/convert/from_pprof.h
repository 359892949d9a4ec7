/* from_pprof.h: one pprof read and written as OTLP profiles; the inside of from_pprof*.c. */
#ifndef PROTO_CONVERT_FROM_PPROF_H
#define PROTO_CONVERT_FROM_PPROF_H

#include "proto/convert/convert.h"
#include "proto/otlp/dictionary_tables.h"

/* A row of pprof's mapping, location or function table. */
struct flue_pprof_row {
    uint64_t id;
    struct flue_bytes content;
    uint32_t made; /* row in the OTLP table, FLUE_OTLP_NO_ROW until it is made */
};
struct flue_pprof_rows {
    struct flue_pprof_row *items;
    size_t count, room;
    struct flue_table by_id; /* only where the ids are not 1, 2, 3, ... in order */
    bool dense;
};

/* One pprof, indexed. Everything in the arena or borrowed from the raw bytes. */
struct flue_pprof_read {
    struct flue_bytes raw;
    struct flue_bytes *strings;
    size_t string_count, string_room;
    uint32_t *string_rows; /* made, as above */
    struct flue_profile_type_rows {
        uint64_t type, unit; /* pprof's string numbers */
    } * types, period_type;
    size_t type_count, type_room;
    uint64_t *comments;
    size_t comment_count, comment_room;
    uint64_t drop_frames, keep_frames, default_sample_type, doc_url;
    uint64_t time_nanos, duration_nanos, period;
    size_t samples;
    struct flue_pprof_rows mappings, locations, functions;
};

/* Into OTLP's tables. */
struct flue_from_pprof {
    struct flue_otlp_tables *tables;
    struct flue_arena *arena; /* for one pprof */
    struct flue_pprof_read read;
    struct flue_out packed; /* attribute rows of a sample while they are made */
    struct flue_from_label {
        uint32_t key, text, unit; /* rows of the new string table */
        bool is_text, taken;
        int64_t number;
        size_t order;
    } * labels;
    size_t label_room;
    struct flue_label_memo { /* label bytes of a sample seen before */
        struct flue_bytes labels;
        struct flue_bytes packed; /* fields 2 and 3 of Sample, encoded */
    } * memo;
    size_t memo_count, memo_room;
    struct flue_table memo_table;
};

/* from_pprof_read.c. False: not enough memory, or (read.samples and all tables are then what was
 * read) *broken: bytes that are no pprof. */
bool flue_pprof_read(struct flue_pprof_read *read, struct flue_arena *arena, struct flue_bytes raw,
                     bool *broken);
struct flue_pprof_row *flue_pprof_row_by_id(struct flue_pprof_rows *rows, uint64_t id);

/* from_pprof_rows.c. Rows in the new tables; 0 for what is not there, and on failure. */
uint32_t flue_from_string(struct flue_from_pprof *from, uint64_t number);
uint32_t flue_from_text(struct flue_from_pprof *from, struct flue_bytes text);
uint32_t flue_from_mapping(struct flue_from_pprof *from, struct flue_pprof_row *row);
uint32_t flue_from_location(struct flue_from_pprof *from, struct flue_pprof_row *row);
/* The stack of a pprof Sample. */
uint32_t flue_from_stack(struct flue_from_pprof *from, struct flue_bytes sample);
/* An attribute: a scalar value under a key, both texts. */
uint32_t flue_from_attribute_text(struct flue_from_pprof *from, struct flue_bytes key,
                                  struct flue_bytes text);

/* from_pprof_labels.c. The labels of a pprof Sample as fields 2 (attribute_indices) and 3
 * (link_index) of an OTLP Sample, encoded, in the arena. NULL data without memory. */
struct flue_bytes flue_from_labels(struct flue_from_pprof *from, struct flue_bytes sample);

/* from_pprof.c. */
enum flue_code flue_pprof_to_otlp(const struct flue_payload *payload, struct flue_account *account,
                                  struct flue_payload **out, struct flue_error *error);

#endif
