/* source.h: a store asked from the main thread: several requests at a time, and waiting for all.
 *
 * For commands. Counts what it asked, since every request costs money.
 */
#ifndef FLUE_ARCHIVE_SOURCE_H
#define FLUE_ARCHIVE_SOURCE_H

#include "archive/object/object.h"

struct flue_source {
    struct flue_loop *loop;
    struct flue_object_store *store;
    uint64_t timeout_ns; /* of one request */
    uint64_t gets, lists, bytes;
};

struct flue_source_get {
    struct flue_bytes key;
    int64_t offset; /* as of a get */
    uint64_t size;
    /* The answer: one reference of `data` is the caller's. */
    struct flue_block *data;
    uint64_t object_size;
    struct flue_error error;
};
/* All of them, 16 at a time; each is tried three times. */
void flue_source_get(struct flue_source *source, struct flue_source_get *gets, size_t count);

/* Every key behind `start_after` with this prefix, in order, however many answers it takes; false
 * from `visit` ends it. */
enum flue_code flue_source_list(struct flue_source *source, struct flue_bytes prefix,
                                struct flue_bytes start_after, char delimiter,
                                bool (*visit)(void *arg, const struct flue_object_listed *listed),
                                void *arg, struct flue_error *error);

#endif
