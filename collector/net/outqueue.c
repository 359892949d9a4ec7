#include "collector/net/outqueue.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define SEGMENTS_PER_SEND 64

struct flue_outqueue_chunk {
    size_t size;
    uint8_t data[FLUE_OUTQUEUE_CHUNK];
};

static struct flue_outqueue_segment *last(struct flue_outqueue *out)
{
    return out->count ? &out->items[out->head + out->count - 1] : NULL;
}

static struct flue_outqueue_segment *push(struct flue_outqueue *out)
{
    if (out->head + out->count == out->room) {
        if (out->head > out->room / 2) {
            memmove(out->items, out->items + out->head, out->count * sizeof *out->items);
            out->head = 0;
        } else {
            size_t room = out->room ? out->room * 2 : 8;
            struct flue_outqueue_segment *items = realloc(out->items, room * sizeof *items);
            if (!items)
                return NULL;
            out->items = items;
            out->room = room;
        }
    }
    struct flue_outqueue_segment *segment = &out->items[out->head + out->count++];
    memset(segment, 0, sizeof *segment);
    return segment;
}

bool flue_outqueue_write(struct flue_outqueue *out, struct flue_bytes b)
{
    while (b.size) {
        struct flue_outqueue_segment *tail = last(out);
        if (!tail || !tail->chunk || tail->chunk->size == FLUE_OUTQUEUE_CHUNK) {
            struct flue_outqueue_chunk *chunk = malloc(sizeof *chunk);
            if (!chunk)
                return false;
            tail = push(out);
            if (!tail) {
                free(chunk);
                return false;
            }
            chunk->size = 0;
            tail->chunk = chunk;
            tail->data = chunk->data;
        }
        size_t size = FLUE_OUTQUEUE_CHUNK - tail->chunk->size;
        if (size > b.size)
            size = b.size;
        memcpy(tail->chunk->data + tail->chunk->size, b.data, size);
        tail->chunk->size += size;
        tail->size += size;
        out->bytes += size;
        b = flue_bytes_from(b, size);
    }
    return true;
}

bool flue_outqueue_block(struct flue_outqueue *out, struct flue_block *block, struct flue_bytes b)
{
    if (b.size == 0)
        return true;
    struct flue_outqueue_segment *segment = push(out);
    if (!segment)
        return false;
    segment->data = b.data;
    segment->size = b.size;
    segment->block = flue_block_ref(block);
    out->bytes += b.size;
    return true;
}

static void release(struct flue_outqueue_segment *segment)
{
    free(segment->chunk);
    flue_block_unref(segment->block);
}

void flue_outqueue_take(struct flue_outqueue *out, size_t size)
{
    out->bytes -= size;
    while (size) {
        struct flue_outqueue_segment *first = &out->items[out->head];
        if (size < first->size) {
            first->data += size;
            first->size -= size;
            return;
        }
        size -= first->size;
        release(first);
        out->head++;
        out->count--;
    }
    if (out->count == 0)
        out->head = 0;
}

size_t flue_outqueue_peek(const struct flue_outqueue *out, uint8_t *to, size_t room)
{
    size_t copied = 0;
    for (size_t i = 0; i < out->count && copied < room; i++) {
        const struct flue_outqueue_segment *segment = &out->items[out->head + i];
        size_t size = segment->size < room - copied ? segment->size : room - copied;
        memcpy(to + copied, segment->data, size);
        copied += size;
    }
    return copied;
}

long flue_outqueue_send(struct flue_outqueue *out, int fd)
{
    long sent = 0;
    while (out->count) {
        struct iovec vectors[SEGMENTS_PER_SEND];
        size_t count = out->count < SEGMENTS_PER_SEND ? out->count : SEGMENTS_PER_SEND, total = 0;
        for (size_t i = 0; i < count; i++) {
            const struct flue_outqueue_segment *segment = &out->items[out->head + i];
            vectors[i] = (struct iovec){(void *)(uintptr_t)segment->data, segment->size};
            total += segment->size;
        }
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = count};
        ssize_t size = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0) {
            if (errno == EINTR)
                continue;
            return errno == EAGAIN || errno == EWOULDBLOCK ? sent : -1;
        }
        flue_outqueue_take(out, (size_t)size);
        sent += size;
        if ((size_t)size < total)
            break;
    }
    return sent;
}

void flue_outqueue_destroy(struct flue_outqueue *out)
{
    for (size_t i = 0; i < out->count; i++)
        release(&out->items[out->head + i]);
    free(out->items);
    memset(out, 0, sizeof *out);
}
