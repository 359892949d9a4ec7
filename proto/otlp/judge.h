/* judge.h: the exact verdict over a body of layout 1.10 that the fast walk did not vouch for.
 *
 * Structure that is wrong refuses the request. Otherwise every row of the dictionary is judged,
 * with what it refers to, then every Profile with the rows that it reaches: a bad one is taken out.
 */
#ifndef PROTO_OTLP_JUDGE_H
#define PROTO_OTLP_JUDGE_H

#include "proto/otlp/otlp.h"
#include "proto/otlp/schema.h"

struct flue_otlp_verdict {
    uint32_t rows[FLUE_OTLP_TABLES];
    uint8_t *bad_rows[FLUE_OTLP_TABLES]; /* a bit a row; NULL: none is bad */
    uint32_t *bad_profiles;              /* positions of their tags, ascending */
    size_t bad_count, bad_room;
    uint64_t bad_samples;
    uint32_t profiles;
    char reason[400]; /* the first: path, value, limit */
};

/* FLUE_INVALID: structure, wire type or nesting, with the path of the field. The verdict is to be
 * cleared in any case. */
enum flue_code flue_otlp_judge(struct flue_bytes body, struct flue_otlp_verdict *verdict,
                               struct flue_error *error);
void flue_otlp_verdict_clear(struct flue_otlp_verdict *verdict);

static inline bool flue_otlp_row_bad(const struct flue_otlp_verdict *verdict, uint32_t table,
                                     uint64_t row)
{
    const uint8_t *bits = verdict->bad_rows[table];
    return bits && row < verdict->rows[table] && bits[row >> 3] >> (row & 7) & 1;
}

#endif
