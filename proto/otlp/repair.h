/* repair.h: a body rewritten so that it may be indexed: what the judge took out is gone, strings
 * are UTF-8, references are plain, tags minimal, and messages that came in parts are one. */
#ifndef PROTO_OTLP_REPAIR_H
#define PROTO_OTLP_REPAIR_H

#include "proto/otlp/judge.h"

/* Both take the reference of *body and put the new one in its place (the old one stays when nothing
 * has to change). The structure of the body is right. */

/* Parts of dictionaries, Resources and Scopes are joined in the first one, in order, which is how
 * protobuf merges messages. */
enum flue_code flue_otlp_join(struct flue_block **body, struct flue_error *error);
/* `verdict` may be NULL: nothing is taken out. Rows that are bad become empty, as nothing that
 * stays reaches them. `tags`: non-minimal tags may stand anywhere. *strings: how many were
 * repaired. */
enum flue_code flue_otlp_repair(struct flue_block **body, const struct flue_otlp_verdict *verdict,
                                bool tags, uint64_t *strings, struct flue_error *error);

struct flue_splice_step;
/* Writes the edits into a new block of the same account. */
enum flue_code flue_otlp_rewrite(struct flue_block **body, struct flue_splice_step *steps,
                                 size_t count, struct flue_arena *arena, struct flue_error *error);

#endif
