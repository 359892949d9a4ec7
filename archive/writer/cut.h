/* cut.h: what an object of a roll-up is made of, as it is logged before its first PUT.
 *
 * Bytes and key of the object are a function of the cut: the records in its order, the place, and
 * the encoder. As long as it is open, its records are written together and nowhere else; once it is
 * written, those of its records that come back have been written there. A note of the durable
 * queue (collector/storage/storage.h) carries it, encoded as protobuf.
 */
#ifndef FLUE_ARCHIVE_CUT_H
#define FLUE_ARCHIVE_CUT_H

#include "archive/writer/route.h"
#include "collector/base/buffer.h"

#define FLUE_CUT_RECORDS 100000 /* of one cut: a note holds 1 MiB */

struct flue_cut_text {
    bool written;
    uint32_t encoder, level;
    struct flue_place place;
    uint64_t seq;
    uint64_t min_ns, max_ns; /* of the profiles' times: the window */
    const uint64_t *records; /* ascending */
    size_t count;
};
void flue_cut_write(const struct flue_cut_text *cut, struct flue_buffer *out);
/* Records in `arena`, texts borrowed. FLUE_INVALID: not a cut. */
enum flue_code flue_cut_read(struct flue_bytes text, struct flue_arena *arena,
                             struct flue_cut_text *out, struct flue_error *error);

/* {window}-{writer}-{seq}-{hash}.otlp.zst below the place's folder; `part` of a cut that became
 * several objects, from 0 on. */
char *flue_cut_key(struct flue_arena *arena, struct flue_bytes folder, uint64_t min_ns,
                   uint64_t max_ns, const char *writer, uint64_t seq, unsigned part,
                   const char *hash);

#endif
