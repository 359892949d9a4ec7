/* document.h: a pprof decoded to rows and indices, for work that needs its samples.
 *
 * Everything lives in the arena given to flue_pprof_decode; strings are borrowed from the bytes,
 * which must be raw (flue_pprof_raw) and outlive the document. Ids are resolved: a sample holds
 * rows of locations[], a location a row of mappings[], a line a row of functions[].
 */
#ifndef PROTO_PPROF_DOCUMENT_H
#define PROTO_PPROF_DOCUMENT_H

#include "collector/base/arena.h"
#include "collector/base/block.h"

#define FLUE_PPROF_NONE UINT32_MAX

struct flue_pprof_value_type {
    uint32_t type, unit; /* strings */
};
struct flue_pprof_mapping {
    uint64_t start, limit, offset;
    uint32_t filename, build_id; /* strings */
    bool has_functions, has_filenames, has_line_numbers, has_inline_frames;
};
struct flue_pprof_function {
    uint32_t name, system_name, filename; /* strings */
    int64_t start_line;
};
struct flue_pprof_line {
    uint32_t function; /* row */
    int64_t line, column;
};
struct flue_pprof_location {
    uint64_t address;
    uint32_t mapping; /* row, or FLUE_PPROF_NONE */
    uint32_t first_line, line_count;
    bool folded;
};
struct flue_pprof_sample_label {
    uint32_t key, str, num_unit; /* strings */
    int64_t num;
};
struct flue_pprof_sample {
    uint32_t first_location, location_count; /* of stack[], leaf first */
    uint32_t first_label, label_count;
};

struct flue_pprof_document {
    struct flue_bytes *strings;
    struct flue_pprof_value_type *types;
    struct flue_pprof_mapping *mappings;
    struct flue_pprof_function *functions;
    struct flue_pprof_location *locations;
    struct flue_pprof_line *lines;
    struct flue_pprof_sample *samples;
    int64_t *values; /* type_count of each sample, in order */
    uint32_t *stack; /* rows of locations[] */
    struct flue_pprof_sample_label *labels;
    uint32_t *comments; /* strings */
    uint32_t string_count, type_count, mapping_count, function_count, location_count, line_count,
        sample_count, stack_count, label_count, comment_count;
    struct flue_pprof_value_type period_type;
    bool has_period_type;
    int64_t period, time_nanos, duration_nanos;
    uint32_t drop_frames, keep_frames, default_sample_type, doc_url; /* strings */
};

/* `raw` must have passed flue_pprof_check (what contradicts it is FLUE_INVALID, never read beyond).
 * FLUE_NO_MEMORY when the arena's budget is used up. */
enum flue_code flue_pprof_decode(struct flue_bytes raw, struct flue_arena *arena,
                                 struct flue_pprof_document *out, struct flue_error *error);

/* Writes samples [first, first + count) with exactly the rows that they need (strings, functions,
 * locations and mappings in the order of the document, renumbered from 1), raw, into a new block.
 * Everything of the profile itself (types, period, times, comments) is kept. `scratch` holds the
 * renumbering for the time of the call. */
enum flue_code flue_pprof_encode(const struct flue_pprof_document *document, uint32_t first,
                                 uint32_t count, struct flue_arena *scratch,
                                 struct flue_account *account, struct flue_block **out,
                                 struct flue_error *error);

#endif
