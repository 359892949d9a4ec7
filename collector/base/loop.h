/* loop.h: one event loop per core, and the pool for what blocks.
 *
 * A loop is a libuv loop on its own thread. What belongs to a loop is touched on its thread only;
 * everything else reaches it by flue_loop_post. Sockets are our own non-blocking ones under
 * uv_poll.
 */
#ifndef FLUE_BASE_LOOP_H
#define FLUE_BASE_LOOP_H

#include <stdatomic.h>
#include <uv.h>
#include "collector/base/arena.h"
#include "collector/base/error.h"

#define FLUE_LOOP_RECEIVE_SIZE (256u * 1024) /* the knee: docs/performance.md */

struct flue_task { /* embedded in whatever is posted; one post at a time */
    void (*run)(struct flue_task *task);
    struct flue_task *next;
};

struct flue_loop {
    uv_loop_t uv; /* uv.data is the flue_loop */
    unsigned index;
    _Atomic int64_t bytes_in_flight; /* request bodies received and not yet answered */
    _Atomic uint32_t connections;
    struct flue_arena scratch; /* for one callback; reset by whoever took it */
    uint8_t *receive;          /* FLUE_LOOP_RECEIVE_SIZE + slack, shared by all its connections */
    struct flue_loops *loops;
    uv_async_t wake;
    _Atomic(struct flue_task *) inbox; /* posted, newest first */
    uv_thread_t thread;
    bool started;
    uv_timer_t timer; /* under the heap of flue_timers */
    struct flue_timer *timers;
    uint64_t timer_due_ns; /* what `timer` is set to; 0: not set */
    uint64_t firing_ns;    /* while timers fire: up to when */
    uv_timer_t idle;       /* gives memory back while nothing is going on */
};

struct flue_loops {
    unsigned count;
    struct flue_loop *items[64];
    struct flue_pool *pool;
    _Atomic bool running;
};

/* `count` 0: the CPUs this process may use (affinity, cgroup quota), at most 64. Threads start with
 * flue_loops_run and end with flue_loops_stop; then destroy. */
enum flue_code flue_loops_new(unsigned count, struct flue_loops **out, struct flue_error *error);
enum flue_code flue_loops_run(struct flue_loops *loops, struct flue_error *error);
void flue_loops_stop(struct flue_loops *loops); /* joins */
/* Between stop and destroy: runs what was posted, in the caller, so that what a task lies in may be
 * freed. */
void flue_loops_settle(struct flue_loops *loops);
/* Runs what jobs and posts are left, in the caller; closes handles that were forgotten. */
void flue_loops_destroy(struct flue_loops *loops);
/* The loop with the fewest bytes in flight, connections breaking a tie. */
struct flue_loop *flue_loops_least_loaded(struct flue_loops *loops);

/* From any thread. Runs on the loop's thread, in order of posting. */
void flue_loop_post(struct flue_loop *loop, struct flue_task *task);
/* Runs on the loop's thread and waits; on that thread itself it just runs. Not from another loop's
 * thread. Before flue_loops_run and after flue_loops_stop it runs in the caller, which then stands
 * in for the loop's thread (flue_loop_current, timers, handles). */
void flue_loop_call(struct flue_loop *loop, void (*run)(struct flue_loop *loop, void *arg),
                    void *arg);
struct flue_loop *flue_loop_current(void); /* NULL off the loops */

/* One-shot timers of one loop in a heap: cheap to arm and to disarm (most never fire), and arming
 * cannot fail. Zeroed but for `fire` before the first use; arming an armed one moves it. A timer
 * that fires is disarmed by then: it may be armed again or freed. On the loop's thread. */
struct flue_timer {
    uint64_t due_ns; /* monotonic; 0: not armed */
    void (*fire)(struct flue_timer *timer);
    struct flue_timer *child, *next, *prev; /* in the heap; zero when not armed */
};
void flue_timer_arm(struct flue_loop *loop, struct flue_timer *timer, uint64_t due_ns);
void flue_timer_disarm(struct flue_loop *loop, struct flue_timer *timer); /* fine if not armed */

/* Work for the pool (compression over 64 KiB, fsync, DNS): `work` on a pool thread, then `done` on
 * `loop`. The job is the caller's until done. */
struct flue_job {
    struct flue_task task;
    struct flue_loop *loop;
    void (*work)(struct flue_job *job);
    void (*done)(struct flue_job *job);
    struct flue_job *next;
};
void flue_pool_submit(struct flue_loop *loop, struct flue_job *job);

#endif
