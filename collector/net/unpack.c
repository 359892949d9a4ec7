/* unpack.c: see unpack.h. */
#include "collector/net/unpack.h"

#define POOL_ABOVE (64u * 1024)

static void inflate(struct flue_unpack *unpack)
{
    struct flue_block *inflated = NULL;
    (void)flue_inflate(unpack->coding, flue_block_bytes(unpack->block), unpack->limit,
                       FLUE_RATIO_LIMIT, unpack->account, &inflated, &unpack->error);
    flue_block_unref(unpack->block);
    unpack->block = inflated;
}

static struct flue_unpack *of_job(struct flue_job *job)
{
    return (struct flue_unpack *)(void *)((char *)job - offsetof(struct flue_unpack, job));
}

static void on_work(struct flue_job *job)
{
    inflate(of_job(job));
}

static void on_done(struct flue_job *job)
{
    struct flue_unpack *unpack = of_job(job);
    if (unpack->block && unpack->gone) {
        flue_block_unref(unpack->block);
        unpack->block = NULL;
        flue_fail(&unpack->error, FLUE_CANCELLED, "the client went away");
    }
    unpack->done(unpack);
}

void flue_unpack(struct flue_unpack *unpack, struct flue_loop *loop)
{
    if (unpack->coding != FLUE_IDENTITY && unpack->block->size > POOL_ABOVE) {
        unpack->job = (struct flue_job){.work = on_work, .done = on_done};
        flue_pool_submit(loop, &unpack->job);
        return;
    }
    if (unpack->coding != FLUE_IDENTITY)
        inflate(unpack);
    unpack->done(unpack);
}
