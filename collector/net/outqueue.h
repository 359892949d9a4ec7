/* outqueue.h: bytes on their way to one socket: small writes joined, large ones by reference.
 *
 * Belongs to one connection and its loop. Bytes leave with one sendmsg for many small answers.
 */
#ifndef FLUE_NET_OUTQUEUE_H
#define FLUE_NET_OUTQUEUE_H

#include "collector/base/block.h"

#define FLUE_OUT_CHUNK (16u * 1024)

struct flue_out_chunk;
struct flue_out_segment {
    const uint8_t *data;
    size_t size;
    struct flue_out_chunk *chunk; /* small writes live in it, or ... */
    struct flue_block *block;     /* ... the reference that keeps them */
};
struct flue_out {
    struct flue_out_segment *items;
    size_t head, count, room;
    size_t bytes; /* waiting */
};

/* Copies. False without memory: the stream is broken then, close it. */
bool flue_out_write(struct flue_out *out, struct flue_bytes b);
/* `b` lies in `block`; takes a reference of its own. */
bool flue_out_block(struct flue_out *out, struct flue_block *block, struct flue_bytes b);
/* Sends what the socket takes: bytes sent (0: it is full), or -1 with errno. */
long flue_out_send(struct flue_out *out, int fd);
/* Copies up to `room` bytes from the front without taking them; then flue_out_take. */
size_t flue_out_peek(const struct flue_out *out, uint8_t *to, size_t room);
void flue_out_take(struct flue_out *out, size_t size);
void flue_outqueue_destroy(struct flue_out *out);

#endif
