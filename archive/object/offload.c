/* offload.c: see offload.h. */
#include "archive/object/offload.h"
#include "collector/base/clock.h"

#include <stdlib.h>

struct object_offload_job {
    struct flue_job job;
    struct object_offload *offload; /* NULL: nobody waits */
    void (*work)(void *user);
    void *user;
    uv_sem_t ended;
};

static void on_work(struct flue_job *job)
{
    struct object_offload_job *offloaded = (struct object_offload_job *)(void *)job;
    offloaded->work(offloaded->user);
    uv_sem_post(&offloaded->ended);
}

static void on_done(struct flue_job *job)
{
    struct object_offload_job *offloaded = (struct object_offload_job *)(void *)job;
    struct object_offload *offload = offloaded->offload;
    uv_sem_destroy(&offloaded->ended);
    free(offloaded);
    if (offload) {
        offload->job = NULL;
        offload->done(offload->user);
    }
}

static void on_starved(struct flue_timer *timer)
{
    struct object_offload *offload =
        (struct object_offload *)(void *)((char *)timer - offsetof(struct object_offload, starved));
    offload->done(offload->user);
}

void object_offload(struct object_offload *offload)
{
    struct object_offload_job *job = calloc(1, sizeof *job);
    if (!job || uv_sem_init(&job->ended, 0) != 0) { /* here, then */
        free(job);
        offload->work(offload->user);
        offload->starved.fire = on_starved;
        flue_timer_arm(offload->loop, &offload->starved, flue_monotonic_ns());
        return;
    }
    job->job.work = on_work;
    job->job.done = on_done;
    job->offload = offload;
    job->work = offload->work;
    job->user = offload->user;
    offload->job = job;
    flue_pool_submit(offload->loop, &job->job);
}

void object_offload_stop(struct object_offload *offload)
{
    if (offload->loop)
        flue_timer_disarm(offload->loop, &offload->starved);
    if (!offload->job)
        return;
    uv_sem_wait(&offload->job->ended);
    offload->job->offload = NULL;
    offload->job = NULL;
}
