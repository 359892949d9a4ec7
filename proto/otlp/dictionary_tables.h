/* dictionary_tables.h: a dictionary that is being made, row by row, and the rows of a source as
 * they are taken over into it.
 *
 * Rows are kept encoded, tag and length included, so that the dictionary's content is the tables
 * one behind the other. Row 0 of each is the zero row. With `intern`, a row whose content is there
 * already is not added again (hashed); without, every row put in is new, which is right where all
 * come from one source. Memory is bounded by the work's budget. One thread.
 */
#ifndef PROTO_OTLP_DICTIONARY_TABLES_H
#define PROTO_OTLP_DICTIONARY_TABLES_H

#include "collector/base/hash.h"
#include "proto/otlp/dictionary.h"
#include "proto/otlp/dictionary_out.h"
#include "proto/otlp/index.h"

#define FLUE_OTLP_NO_ROW UINT32_MAX

/* Memory for the length of one merge, split or conversion, shown in the account while it lasts. */
struct flue_work {
    struct flue_arena arena;
    struct flue_account *account; /* may be NULL */
    size_t budget, charged;
};
/* `encoded`: bytes of all that is worked on. */
void flue_work_begin(struct flue_work *work, struct flue_account *account, size_t encoded);
/* Brings the account up to `more` bytes held besides the arena. */
void flue_work_charge(struct flue_work *work, size_t more);
void flue_work_end(struct flue_work *work);
/* Why an allocation failed: FLUE_TOO_LARGE when the budget is near its end, else FLUE_NO_MEMORY. */
enum flue_code flue_work_failed(const struct flue_work *work, struct flue_error *error);

struct flue_otlp_made_row {
    uint32_t at, size; /* content within the table's rows */
};
struct flue_otlp_made_table {
    struct flue_out rows;
    struct flue_otlp_made_row *index;
    uint32_t count;
    size_t room;
    struct flue_table hashes;
};
struct flue_otlp_tables {
    struct flue_work *work;
    bool intern;
    bool failed;
    struct flue_out scratch; /* rows while they are composed, one behind the other as they nest */
    struct flue_out stack;   /* a row of the stack table while it is composed */
    struct flue_otlp_made_table tables[FLUE_OTLP_TABLES];
};

bool flue_otlp_tables_init(struct flue_otlp_tables *tables, struct flue_work *work, bool intern,
                           size_t expected_bytes);
void flue_otlp_tables_destroy(struct flue_otlp_tables *tables);
/* Back to the zero rows, keeping memory. Only without `intern`. */
void flue_otlp_tables_clear(struct flue_otlp_tables *tables);
/* The row with this content, new or there. FLUE_OTLP_NO_ROW once failed. */
uint32_t flue_otlp_tables_put(struct flue_otlp_tables *tables, enum flue_otlp_table table,
                              struct flue_bytes content);
/* The same for what stands in `scratch` behind `mark`, which is cut off again. */
uint32_t flue_otlp_tables_put_scratch(struct flue_otlp_tables *tables, enum flue_otlp_table table,
                                      size_t mark);
/* Bytes of the dictionary's content. */
size_t flue_otlp_tables_size(const struct flue_otlp_tables *tables);
/* Appends field 2 of the request. */
void flue_otlp_tables_write(const struct flue_otlp_tables *tables, struct flue_out *body);

/* Taking rows over from one source. */
struct flue_otlp_map {
    const struct flue_otlp_dictionary *from;
    struct flue_otlp_tables *to;
    uint32_t *rows[FLUE_OTLP_TABLES]; /* where each went, or FLUE_OTLP_NO_ROW */
    uint64_t *location_codes; /* the same for locations as they stand in a stack; 0: not yet */
    /* What was taken over, in order, so that the last can be taken back (splitting by bytes). */
    struct flue_otlp_taken {
        uint32_t table, row;
    } * taken;
    size_t taken_count, taken_room;
    bool remember;
};
bool flue_otlp_map_init(struct flue_otlp_map *map, const struct flue_otlp_dictionary *from,
                        struct flue_otlp_tables *to, bool remember);
uint32_t flue_otlp_map_take(struct flue_otlp_map *map, enum flue_otlp_table table, uint32_t row);
/* The row's new number; it and all it refers to are taken over when asked for first. 0 stays 0. On
 * failure 0, and `to->failed` is set. */
static inline uint32_t flue_otlp_map_row(struct flue_otlp_map *map, enum flue_otlp_table table,
                                         uint32_t row)
{
    uint32_t known;

    if (row == 0 || row >= map->from->counts[table])
        return 0;
    known = map->rows[table][row];
    return known != FLUE_OTLP_NO_ROW ? known : flue_otlp_map_take(map, table, row);
}

/* A point to go back to; only without `intern`. */
struct flue_otlp_mark {
    size_t taken;
    uint32_t counts[FLUE_OTLP_TABLES];
    size_t sizes[FLUE_OTLP_TABLES];
};
void flue_otlp_map_mark(const struct flue_otlp_map *map, struct flue_otlp_mark *mark);
void flue_otlp_map_back(struct flue_otlp_map *map, const struct flue_otlp_mark *mark);
/* Forgets all that was taken over and clears the tables. */
void flue_otlp_map_restart(struct flue_otlp_map *map);

#endif
