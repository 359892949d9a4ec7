/* outqueue.h: bytes on their way to one socket: small writes joined, large ones by reference.
 *
 * Belongs to one connection and its loop. Bytes leave with one sendmsg for many small answers.
 */
#ifndef FLUE_NET_OUTQUEUE_H
#define FLUE_NET_OUTQUEUE_H

#include "collector/base/block.h"

#define FLUE_OUTQUEUE_CHUNK (16u * 1024)

struct flue_outqueue_chunk;
struct flue_outqueue_segment {
    const uint8_t *data;
    size_t size;
    struct flue_outqueue_chunk *chunk; /* small writes live in it, or ... */
    struct flue_block *block;          /* ... the reference that keeps them */
};
struct flue_outqueue {
    struct flue_outqueue_segment *items;
    size_t head, count, room;
    size_t bytes; /* waiting */
};

/* Copies. False without memory: the stream is broken then, close it. */
bool flue_outqueue_write(struct flue_outqueue *out, struct flue_bytes b);
/* `b` lies in `block`; takes a reference of its own. */
bool flue_outqueue_block(struct flue_outqueue *out, struct flue_block *block, struct flue_bytes b);
/* Sends what the socket takes: bytes sent (0: it is full), or -1 with errno. */
long flue_outqueue_send(struct flue_outqueue *out, int fd);
/* Copies up to `room` bytes from the front without taking them; then flue_outqueue_take. */
size_t flue_outqueue_peek(const struct flue_outqueue *out, uint8_t *to, size_t room);
void flue_outqueue_take(struct flue_outqueue *out, size_t size);
void flue_outqueue_destroy(struct flue_outqueue *out);

#endif
