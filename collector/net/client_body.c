/* client_body.c: see client_body.h. */
#include "collector/net/client_body.h"

#define POOL_ABOVE (64u * 1024)

static void write_prefix(struct flue_client_body *body, size_t size)
{
    body->prefix[0] = body->coding != FLUE_IDENTITY;
    body->prefix[1] = (uint8_t)(size >> 24);
    body->prefix[2] = (uint8_t)(size >> 16);
    body->prefix[3] = (uint8_t)(size >> 8);
    body->prefix[4] = (uint8_t)size;
}

static void compress(struct flue_client_body *body)
{
    body->error.code =
        flue_deflate(body->coding, body->level, &body->raw, &body->block, &body->error);
}

static void compressed(struct flue_client_body *body)
{
    size_t count = 0;
    if (!body->error.code) {
        struct flue_bytes data = flue_block_bytes(body->block);
        if (body->grpc) {
            write_prefix(body, data.size);
            body->items[count++] = flue_bytes(body->prefix, sizeof body->prefix);
        }
        body->items[count++] = data;
        body->slices = (struct flue_slices){.items = body->items,
                                            .count = count,
                                            .room = 2,
                                            .total = data.size + (body->grpc ? 5 : 0)};
    }
    body->ready(body);
}

static struct flue_client_body *of_job(struct flue_job *job)
{
    return (struct flue_client_body *)(void *)((char *)job -
                                               offsetof(struct flue_client_body, job));
}

static void on_work(struct flue_job *job)
{
    compress(of_job(job));
}

static void on_done(struct flue_job *job)
{
    compressed(of_job(job));
}

void flue_client_body_make(struct flue_client_body *body, struct flue_loop *loop,
                           struct flue_arena *arena, const struct flue_slices *raw,
                           enum flue_coding coding, int level, bool grpc)
{
    memset(&body->error, 0, sizeof body->error);
    body->raw = *raw;
    body->coding = coding;
    body->level = level;
    body->grpc = grpc;
    if (coding != FLUE_IDENTITY && raw->total > POOL_ABOVE) {
        body->job.work = on_work;
        body->job.done = on_done;
        flue_pool_submit(loop, &body->job);
        return;
    }
    if (coding != FLUE_IDENTITY) {
        compress(body);
        compressed(body);
        return;
    }
    body->slices = *raw;
    if (grpc) {
        struct flue_bytes *items = flue_arena_alloc(arena, (raw->count + 1) * sizeof *items);
        if (items) {
            write_prefix(body, raw->total);
            items[0] = flue_bytes(body->prefix, sizeof body->prefix);
            if (raw->count)
                memcpy(items + 1, raw->items, raw->count * sizeof *items);
            body->slices = (struct flue_slices){.items = items,
                                                .count = raw->count + 1,
                                                .room = raw->count + 1,
                                                .total = raw->total + 5};
        } else {
            flue_fail(&body->error, FLUE_NO_MEMORY, "no memory for a request");
        }
    }
    body->ready(body);
}

void flue_client_body_free(struct flue_client_body *body)
{
    flue_block_unref(body->block);
    body->block = NULL;
}
