/* loop.c: event loops on their threads, and how others reach them. See loop.h.
 *
 * A post pushes onto a stack without a lock; the first onto an empty stack wakes the loop. The loop
 * takes the whole stack at once and turns it round, so tasks run in the order of posting.
 */
#include "collector/base/loop.h"

#include <malloc.h>
#include <stdlib.h>
#include "collector/base/block.h"
#include "collector/base/limits.h"
#include "collector/base/loop_inside.h"

#define SCRATCH_BUDGET ((size_t)64 << 20)
#define SCRATCH_FIRST  ((size_t)64 * 1024)
#define IDLE_MS        10000

static _Thread_local struct flue_loop *current;

struct flue_loop *flue_loop_current(void)
{
    return current;
}

static void run_inbox(struct flue_loop *loop)
{
    struct flue_task *task = atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire);
    struct flue_task *first = NULL;

    while (task) {
        struct flue_task *next = task->next;

        task->next = first;
        first = task;
        task = next;
    }
    while (first) {
        task = first;
        first = task->next; /* the task may be freed or posted again while it runs */
        task->next = NULL;
        task->run(task);
    }
}

static void on_wake(uv_async_t *wake)
{
    run_inbox(wake->loop->data);
}

void flue_loop_post(struct flue_loop *loop, struct flue_task *task)
{
    struct flue_task *before = atomic_load_explicit(&loop->inbox, memory_order_relaxed);

    do {
        task->next = before;
    } while (!atomic_compare_exchange_weak_explicit(&loop->inbox, &before, task,
                                                    memory_order_release, memory_order_relaxed));
    if (!before)
        uv_async_send(&loop->wake);
}

struct call {
    struct flue_task task;
    struct flue_loop *loop;
    void (*run)(struct flue_loop *loop, void *arg);
    void *arg;
    uv_sem_t done;
};

static void run_call(struct flue_task *task)
{
    struct call *call = (struct call *)task;

    call->run(call->loop, call->arg);
    uv_sem_post(&call->done);
}

void flue_loop_call(struct flue_loop *loop, void (*run)(struct flue_loop *loop, void *arg),
                    void *arg)
{
    struct call call = {.task = {.run = run_call}, .loop = loop, .run = run, .arg = arg};

    if (loop == current) {
        run(loop, arg);
        return;
    }
    if (!atomic_load(&loop->loops->running)) { /* the caller stands in for the loop's thread */
        struct flue_loop *before = current;

        current = loop;
        run(loop, arg);
        current = before;
        return;
    }
    if (uv_sem_init(&call.done, 0) != 0)
        abort(); /* there is no way to say so, and nothing was done */
    flue_loop_post(loop, &call.task);
    uv_sem_wait(&call.done);
    uv_sem_destroy(&call.done);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void loop_free(struct flue_loop *loop)
{
    if (loop->started) {
        /* Whoever made other handles has closed them; what is left must not keep the loop. */
        uv_walk(&loop->uv, close_handle, NULL);
        while (uv_run(&loop->uv, UV_RUN_DEFAULT) != 0)
            continue;
        uv_loop_close(&loop->uv);
    }
    flue_arena_destroy(&loop->scratch);
    free(loop->receive);
    free(loop);
}

/* What a burst has left in caches goes back to the system once it is over, so that a sidecar is
 * small again. */
static void on_idle(uv_timer_t *timer)
{
    const struct flue_loop *loop = timer->loop->data;
    bool idle = flue_block_idle();

    /* A moment without a request is not idleness: what is given back would be faulted in anew. */
    if (!idle || atomic_load_explicit(&loop->bytes_in_flight, memory_order_relaxed) != 0)
        return;
    flue_block_trim();
    if (loop->index == 0)
        malloc_trim(0);
}

static struct flue_loop *loop_new(struct flue_loops *loops, unsigned index,
                                  struct flue_error *error)
{
    struct flue_loop *loop = calloc(1, sizeof *loop);
    int failure;

    if (!loop)
        goto no_memory;
    loop->index = index;
    loop->loops = loops;
    flue_arena_init(&loop->scratch, SCRATCH_BUDGET, SCRATCH_FIRST);
    loop->receive = malloc(FLUE_LOOP_RECEIVE_SIZE + FLUE_BLOCK_SLACK);
    if (!loop->receive)
        goto no_memory;
    failure = uv_loop_init(&loop->uv);
    if (failure != 0) {
        flue_fail(error, FLUE_IO, "event loop %u: %s", index, uv_strerror(failure));
        goto failed;
    }
    loop->started = true;
    loop->uv.data = loop;
    failure = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (failure == 0)
        failure = flue_timers_init(loop);
    if (failure == 0)
        failure = uv_timer_init(&loop->uv, &loop->idle);
    if (failure == 0)
        failure = uv_timer_start(&loop->idle, on_idle, IDLE_MS, IDLE_MS);
    if (failure == 0)
        return loop;
    flue_fail(error, FLUE_IO, "event loop %u: %s", index, uv_strerror(failure));
    goto failed;
no_memory:
    flue_fail(error, FLUE_NO_MEMORY, "no memory for event loop %u", index);
failed:
    if (loop)
        loop_free(loop);
    return NULL;
}

enum flue_code flue_loops_new(unsigned count, struct flue_loops **out, struct flue_error *error)
{
    struct flue_loops *loops = calloc(1, sizeof *loops);
    unsigned most = sizeof loops->items / sizeof *loops->items;

    if (!loops)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for event loops");
    if (count == 0)
        count = flue_usable_cpus();
    if (count > most)
        count = most;
    loops->pool = flue_pool_new(count);
    if (!loops->pool) {
        flue_loops_destroy(loops);
        return flue_fail(error, FLUE_NO_MEMORY, "cannot start %u pool threads", count);
    }
    for (unsigned i = 0; i < count; i++) {
        loops->items[i] = loop_new(loops, i, error);
        if (!loops->items[i]) {
            flue_loops_destroy(loops);
            return error ? error->code : FLUE_NO_MEMORY;
        }
        loops->count++;
    }
    *out = loops;
    return FLUE_OK;
}

static void loop_main(void *arg)
{
    struct flue_loop *loop = arg;

    current = loop;
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    current = NULL;
}

struct stop {
    struct flue_task task;
    struct flue_loop *loop;
};

static void run_stop(struct flue_task *task)
{
    uv_stop(&((struct stop *)task)->loop->uv);
}

static void join(struct flue_loops *loops, unsigned count)
{
    struct stop stops[sizeof loops->items / sizeof *loops->items];

    for (unsigned i = 0; i < count; i++) {
        stops[i] = (struct stop){{.run = run_stop}, loops->items[i]};
        flue_loop_post(loops->items[i], &stops[i].task);
    }
    for (unsigned i = 0; i < count; i++)
        uv_thread_join(&loops->items[i]->thread);
}

enum flue_code flue_loops_run(struct flue_loops *loops, struct flue_error *error)
{
    atomic_store(&loops->running, true);
    for (unsigned i = 0; i < loops->count; i++) {
        int failure = uv_thread_create(&loops->items[i]->thread, loop_main, loops->items[i]);

        if (failure != 0) {
            join(loops, i);
            atomic_store(&loops->running, false);
            return flue_fail(error, FLUE_IO, "cannot start the thread of event loop %u: %s", i,
                             uv_strerror(failure));
        }
    }
    return FLUE_OK;
}

void flue_loops_stop(struct flue_loops *loops)
{
    if (!atomic_load(&loops->running))
        return;
    join(loops, loops->count);
    atomic_store(&loops->running, false);
}

void flue_loops_settle(struct flue_loops *loops)
{
    bool some = !atomic_load(&loops->running);

    while (some) {
        some = false;
        for (unsigned i = 0; i < loops->count; i++) {
            struct flue_loop *loop = loops->items[i];

            if (!atomic_load(&loop->inbox))
                continue;
            some = true;
            current = loop;
            run_inbox(loop);
            current = NULL;
        }
    }
}

void flue_loops_destroy(struct flue_loops *loops)
{
    if (!loops)
        return;
    flue_loops_stop(loops);
    /* The pool first: a job that ends posts to a loop. Then what was posted last still runs, here.
     */
    flue_pool_free(loops->pool);
    loops->pool = NULL;
    flue_loops_settle(loops);
    for (unsigned i = 0; i < loops->count; i++)
        loop_free(loops->items[i]);
    free(loops);
}

struct flue_loop *flue_loops_least_loaded(struct flue_loops *loops)
{
    struct flue_loop *best = loops->items[0];
    int64_t least = atomic_load_explicit(&best->bytes_in_flight, memory_order_relaxed);

    for (unsigned i = 1; i < loops->count; i++) {
        struct flue_loop *loop = loops->items[i];
        int64_t bytes = atomic_load_explicit(&loop->bytes_in_flight, memory_order_relaxed);

        if (bytes < least || (bytes == least &&
                              atomic_load_explicit(&loop->connections, memory_order_relaxed) <
                                  atomic_load_explicit(&best->connections, memory_order_relaxed))) {
            best = loop;
            least = bytes;
        }
    }
    return best;
}
