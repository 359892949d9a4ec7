/* to_pprof.h: the writer of one pprof from a group of OTLP profiles, wire to wire.
 *
 * Ids are row numbers of the OTLP tables, so a Stack's bytes are the beginning of a Sample and a
 * Line's bytes are a Line: both are copied as they are. Only strings are renumbered. Used rows are
 * found by stamps of the generation, so that nothing is cleared between two profiles.
 */
#ifndef PROTO_CONVERT_TO_PPROF_H
#define PROTO_CONVERT_TO_PPROF_H

#include "proto/convert/profile_name.h"
#include "proto/convert/sample_groups.h"
#include "proto/otlp/dictionary_tables.h"

#define FLUE_IDENTITY_PREFIX "pyroscope.label." /* profile attributes that hold labels "__x__" */

struct flue_row_list {
    uint32_t *rows;
    size_t count, room;
};
struct flue_pprof_writer {
    const struct flue_otlp_dictionary *dictionary;
    struct flue_label_sets *sets;
    struct flue_work *work;
    bool underscore; /* in sample types */
    uint32_t generation;
    struct flue_out out;         /* the pprof; no block after flue_pprof_writer_take */
    size_t expected;             /* of its size, for a new block */
    size_t time_at;              /* where time_nanos stands in it, behind the tag; 0: nowhere */
    uint64_t depth;              /* as in flue_pprof_facts */
    struct flue_out label_bytes; /* encoded label sets of this generation */

    struct {
        uint32_t generation, number;
    } * strings;              /* by row */
    struct flue_bytes *texts; /* the pprof's string table from number 1 on */
    size_t text_count, text_room;
    struct flue_arena own_arena; /* of this generation: texts found by content */
    struct flue_table own;       /* texts that are in no row, by content */

    uint32_t *stacks, *locations, *functions; /* generation in which used */
    uint8_t *stack_kinds; /* by row, once for all generations, as are those below */
    uint8_t *attribute_kinds;
    struct flue_location_made { /* a Location as pprof has it, encoded at first use */
        uint32_t size;          /* 0: not yet */
        uint32_t first_function, functions;
        uint32_t mapping, at;
        uint8_t facts;
        bool bare, unknown_function;
    } * made_locations;
    struct flue_out location_bytes;
    uint32_t *line_functions; /* of all made locations */
    size_t line_function_count, line_function_room;
    struct flue_function_read {
        struct flue_otlp_function fields;
        bool read;
    } * made_functions;
    struct flue_mapping_state {
        struct flue_otlp_mapping fields;
        struct flue_bytes build_id;
        uint32_t generation;
        uint8_t kind;          /* as its attributes say */
        uint8_t facts;         /* of its symbolized frames in this generation */
        bool symbolized, bare; /* has such frames in this generation */
        bool read;
    } * mappings;
    struct flue_row_list used_stacks, used_locations, used_functions, used_mappings;
    size_t mappings_written;
    bool unknown_location, unknown_function; /* placeholders are needed */
};

/* What stands around the samples of one pprof. */
struct flue_pprof_head {
    struct flue_profile_type *types;
    bool *times_period; /* per type: values are multiplied by the period */
    size_t type_count;
    struct flue_profile_type period_type;
    int64_t period, time_nanos, duration_nanos;
    struct flue_bytes default_sample_type, drop_frames, keep_frames, doc_url;
    struct flue_bytes *comments;
    size_t comment_count;
};

bool flue_pprof_writer_init(struct flue_pprof_writer *writer,
                            const struct flue_otlp_dictionary *dictionary,
                            struct flue_label_sets *sets, struct flue_work *work, size_t expected);
void flue_pprof_writer_destroy(struct flue_pprof_writer *writer);
/* `lists[i]` gives the values of type i; all have the rows of lists[0], of which [first, first +
 * count) are written. The bytes are valid until the next call; NULL data without memory. */
struct flue_bytes flue_pprof_write(struct flue_pprof_writer *writer,
                                   const struct flue_pprof_head *head,
                                   const struct flue_sample_list *const *lists, size_t first,
                                   size_t count);
/* The block of what was just written; the next profile is written into a new one. */
struct flue_block *flue_pprof_writer_take(struct flue_pprof_writer *writer);
/* What a check of the profile just written would find. */
void flue_pprof_writer_facts(const struct flue_pprof_writer *writer,
                             const struct flue_pprof_head *head, size_t samples,
                             struct flue_pprof_facts *facts);

/* ------------------------------------------------- between the files of the writer */

/* Rows of a table, at least the one that index 0 is; what lies behind is free for placeholders. */
static inline uint32_t flue_pprof_rows_of(const struct flue_pprof_writer *writer,
                                          enum flue_otlp_table table)
{
    uint32_t rows = writer->dictionary->counts[table];

    return rows ? rows : 1;
}
/* Numbers in the pprof's string table: of a row of the dictionary; of a text (0 when empty); of a
 * text that must not be 0 (an empty one gets a row of its own: a label whose str is 0 is a numeric
 * one). */
uint32_t flue_pprof_string_row(struct flue_pprof_writer *writer, uint32_t row);
uint32_t flue_pprof_string_plain(struct flue_pprof_writer *writer, struct flue_bytes text);
uint32_t flue_pprof_string_text(struct flue_pprof_writer *writer, struct flue_bytes text);
void flue_pprof_row_use(struct flue_pprof_writer *writer, struct flue_row_list *list, uint32_t row);

/* to_pprof_rows.c: one row each, and what it refers to is marked as used; all used mappings. */
void flue_pprof_location_write(struct flue_pprof_writer *writer, uint32_t row);
void flue_pprof_function_write(struct flue_pprof_writer *writer, uint32_t row);
void flue_pprof_mappings_write(struct flue_pprof_writer *writer);
void flue_pprof_placeholder_line(struct flue_pprof_writer *writer, struct flue_out *out,
                                 int64_t line, int64_t column);

#endif
