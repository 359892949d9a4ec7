/* index.h: what lies where in a data object of layout `otlp`; the schema is index.proto.
 *
 * Written with plain protobuf encoding; read with bounds, as it comes from a network. Everything
 * read is borrowed from the bytes or lies in the arena.
 */
#ifndef FLUE_ARCHIVE_INDEX_H
#define FLUE_ARCHIVE_INDEX_H

#include "collector/base/arena.h"
#include "collector/base/buffer.h"
#include "collector/base/error.h"

#define FLUE_INDEX_VERSION 1
#define FLUE_INDEX_LIMIT   (64u << 20) /* bytes of an index, raw */
#define FLUE_INDEX_TYPES   32          /* of one frame; further ones are left out: it matches all */

struct flue_index_frame {
    uint64_t offset, size, raw_size, min_ns, max_ns, profiles, samples;
    struct flue_bytes service;
    const struct flue_bytes *types;
    size_t type_count; /* 0: not known, may be any */
};
struct flue_index_object {
    struct flue_bytes key;
    uint64_t size;
    struct flue_index_frame *frames;
    size_t frame_count;
    struct flue_bytes encoded; /* its message: to be written again as it is */
};
struct flue_index {
    struct flue_bytes writer;
    struct flue_index_object *objects;
    size_t count, room;
};

/* Appends the message Object. */
void flue_index_write_object(const struct flue_index_object *object, struct flue_buffer *out);
/* Appends an Index around messages Object. */
void flue_index_write(struct flue_bytes writer, const struct flue_bytes *objects, size_t count,
                      struct flue_buffer *out);
/* FLUE_INVALID: no index, or of another version. */
enum flue_code flue_index_read(struct flue_bytes bytes, struct flue_arena *arena,
                               struct flue_index *out, struct flue_error *error);

#endif
