/* pool.c: threads for what blocks or computes for long. See loop.h. */
#include "collector/base/loop_inside.h"

#include <stdlib.h>

struct flue_pool {
    uv_mutex_t lock;
    uv_cond_t work;
    struct flue_job *first, **last;
    bool ending;
    unsigned count;
    uv_thread_t threads[];
};

static void job_done(struct flue_task *task)
{
    struct flue_job *job = (struct flue_job *)task; /* the task is its first member */

    job->done(job);
}

static void run(struct flue_job *job)
{
    job->work(job);
    job->task.run = job_done;
    flue_loop_post(job->loop, &job->task);
}

static void pool_main(void *arg)
{
    struct flue_pool *pool = arg;

    uv_mutex_lock(&pool->lock);
    for (;;) {
        struct flue_job *job = pool->first;

        if (!job) {
            if (pool->ending)
                break;
            uv_cond_wait(&pool->work, &pool->lock);
            continue;
        }
        pool->first = job->next;
        if (!pool->first)
            pool->last = &pool->first;
        uv_mutex_unlock(&pool->lock);
        run(job);
        uv_mutex_lock(&pool->lock);
    }
    uv_mutex_unlock(&pool->lock);
}

struct flue_pool *flue_pool_new(unsigned threads)
{
    struct flue_pool *pool = calloc(1, sizeof *pool + threads * sizeof pool->threads[0]);

    if (!pool)
        return NULL;
    pool->last = &pool->first;
    if (uv_mutex_init(&pool->lock) != 0) {
        free(pool);
        return NULL;
    }
    if (uv_cond_init(&pool->work) != 0) {
        uv_mutex_destroy(&pool->lock);
        free(pool);
        return NULL;
    }
    while (pool->count < threads &&
           uv_thread_create(&pool->threads[pool->count], pool_main, pool) == 0)
        pool->count++;
    if (pool->count == 0) {
        flue_pool_free(pool);
        return NULL;
    }
    return pool;
}

void flue_pool_free(struct flue_pool *pool)
{
    if (!pool)
        return;
    uv_mutex_lock(&pool->lock);
    pool->ending = true;
    uv_cond_broadcast(&pool->work);
    uv_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->count; i++)
        uv_thread_join(&pool->threads[i]);
    uv_cond_destroy(&pool->work);
    uv_mutex_destroy(&pool->lock);
    free(pool);
}

void flue_pool_submit(struct flue_loop *loop, struct flue_job *job)
{
    struct flue_pool *pool = loop->loops->pool;

    job->loop = loop;
    job->next = NULL;
    if (!pool) { /* the loops are being destroyed */
        run(job);
        return;
    }
    uv_mutex_lock(&pool->lock);
    *pool->last = job;
    pool->last = &job->next;
    uv_cond_signal(&pool->work);
    uv_mutex_unlock(&pool->lock);
}
