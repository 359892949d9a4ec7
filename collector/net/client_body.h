/* client_body.h: the body of a request, encoded once and kept for every attempt.
 *
 * Compression of more than 64 KiB runs on the pool. The body belongs to one loop; it must stay
 * where it is until `ready` was called, and the raw slices as long as the body.
 */
#ifndef FLUE_NET_CLIENT_BODY_H
#define FLUE_NET_CLIENT_BODY_H

#include "collector/base/codec.h"
#include "collector/base/loop.h"

struct flue_client_body {
    struct flue_slices slices; /* what goes out; valid when ready without error */
    struct flue_error error;   /* FLUE_NO_MEMORY or what the codec said */
    void (*ready)(struct flue_client_body *body);
    void *user;
    /* its own */
    struct flue_job job;
    struct flue_slices raw;
    enum flue_coding coding;
    int level;
    bool grpc;
    struct flue_block *block;
    struct flue_bytes items[2];
    uint8_t prefix[5];
};

/* `grpc`: with the five bytes of a gRPC message before it. `ready` is called from within when
 * nothing is compressed or it is small, else later on the loop. `arena` must live as long as the
 * body. */
void flue_client_body_make(struct flue_client_body *body, struct flue_loop *loop,
                           struct flue_arena *arena, const struct flue_slices *raw,
                           enum flue_coding coding, int level, bool grpc);
void flue_client_body_free(
    struct flue_client_body *body); /* zeroed is fine; not while on the pool */

#endif
