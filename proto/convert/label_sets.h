/* label_sets.h: the attributes and the link of OTLP samples as sets of pprof labels.
 *
 * Samples of one profile share few different sets; each is looked at once and then known by a
 * number. A set holds attribute rows of the dictionary and one link row.
 *
 *   string          -> str
 *   int             -> num with the attribute's unit
 *   bool            -> num 0 or 1
 *   double          -> num where it is a whole number that int64 holds, else str in decimal
 *   array           -> one label per element, same key (elements by these rules)
 *   bytes, lists    -> str: base64, JSON (names.h, flue_label_text)
 *   link            -> str span_id (16 hex) and trace_id (32 hex), without those that are all zero,
 *                      and without span_id where a label of the set tells the same span already
 *                      (span_id, profile_id, "span id", "local root span id"; trace_id likewise)
 */
#ifndef PROTO_CONVERT_LABEL_SETS_H
#define PROTO_CONVERT_LABEL_SETS_H

#include "collector/base/hash.h"
#include "proto/convert/convert.h"
#include "proto/otlp/index.h"

struct flue_out_label {
    uint32_t key_row, unit_row; /* of the string table */
    bool is_text;
    struct flue_bytes text;
    uint32_t text_row; /* of the string table, 0: `text` alone */
    int64_t number;
};
struct flue_label_set {
    uint32_t first, count; /* attribute rows, in `rows` */
    uint32_t link;
    struct flue_bytes span_id, trace_id; /* hex texts to be told, or empty */
    /* Encoded for the profile that is being written (to_pprof.c). */
    uint32_t generation;
    size_t encoded_at, encoded_size;
};
struct flue_label_sets {
    const struct flue_otlp_dictionary *dictionary;
    const struct flue_to_pprof_options *options;
    struct flue_arena *arena;
    struct flue_label_attribute {
        bool read, dropped;
        uint32_t first, count; /* of `labels` */
    } * attributes;            /* by row of the dictionary */
    struct flue_out_label *labels;
    size_t label_count, label_room;
    uint32_t *rows;
    size_t row_count, row_room;
    struct flue_label_set *sets; /* 0 is the empty set */
    size_t count, room;
    struct flue_table table;
};

bool flue_label_sets_init(struct flue_label_sets *sets, struct flue_arena *arena,
                          const struct flue_otlp_dictionary *dictionary,
                          const struct flue_to_pprof_options *options);
/* The number of the set of these attribute rows (reordered in place) and link; UINT32_MAX without
 * memory. Rows that the options drop do not count. */
uint32_t flue_label_sets_find(struct flue_label_sets *sets, uint32_t *rows, size_t count,
                              uint32_t link);

#endif
