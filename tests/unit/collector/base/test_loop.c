/* Loops: posts in order from many threads, calls, timers against a model, the pool, shutdown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <pthread.h>
#include <cmocka.h>
#include "collector/base/clock.h"
#include "collector/base/loop.h"

static struct flue_loops *loops;
static uv_sem_t done;

static int setup(void **state)
{
    struct flue_error error;

    uv_sem_init(&done, 0);
    return flue_loops_new(2, &loops, &error) == FLUE_OK && flue_loops_run(loops, &error) == FLUE_OK
               ? 0
               : -1;
}

static int teardown(void **state)
{
    flue_loops_stop(loops);
    flue_loops_destroy(loops);
    uv_sem_destroy(&done);
    return 0;
}

#define POSTS   3000
#define POSTERS 4
struct numbered {
    struct flue_task task;
    unsigned poster, number;
};
static unsigned next_of[POSTERS];
static unsigned disorder;
static unsigned arrived;

static void take_numbered(struct flue_task *task)
{
    struct numbered *n = (struct numbered *)task;

    if (flue_loop_current() != loops->items[1] || next_of[n->poster]++ != n->number)
        disorder++;
    free(n);
    if (++arrived == POSTS * POSTERS)
        uv_sem_post(&done);
}

static void *post_many(void *arg)
{
    for (unsigned i = 0; i < POSTS; i++) {
        struct numbered *n = malloc(sizeof *n);

        *n = (struct numbered){{.run = take_numbered}, (unsigned)(uintptr_t)arg, i};
        flue_loop_post(loops->items[1], &n->task);
    }
    return NULL;
}

static void posts_arrive_in_order(void **state)
{
    pthread_t threads[POSTERS];

    for (uintptr_t i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, (void *)i), 0);
    uv_sem_wait(&done);
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(disorder, 0);
    assert_null(flue_loop_current());
}

static void note_loop(struct flue_loop *loop, void *arg)
{
    *(struct flue_loop **)arg = flue_loop_current() == loop ? loop : NULL;
}

static void call_within(struct flue_loop *loop, void *arg)
{
    flue_loop_call(loop, note_loop, arg);
}

static void calls_run_there(void **state)
{
    struct flue_loop *seen = NULL;

    flue_loop_call(loops->items[0], note_loop, &seen);
    assert_ptr_equal(seen, loops->items[0]);
    flue_loop_call(loops->items[1], call_within, &seen);
    assert_ptr_equal(seen, loops->items[1]);
    flue_loops_stop(loops);
    flue_loop_call(loops->items[0], note_loop, &seen); /* here, in its stead */
    assert_ptr_equal(seen, loops->items[0]);
    assert_null(flue_loop_current());
}

/* Timers that fire move the next ones, take some away, and check their order. */
#define TIMERS 500
struct probe {
    struct flue_timer timer;
    uint64_t asked; /* 0: must not fire */
    bool fired;
};
static struct probe probes[TIMERS];
static unsigned expected, fired, wrong;
static uint64_t last_due;

static void probe_fires(struct flue_timer *timer)
{
    struct probe *p = (struct probe *)timer;

    if (p->fired || !p->asked || p->asked > flue_monotonic_ns() || p->asked < last_due ||
        p->timer.due_ns)
        wrong++;
    last_due = p->asked;
    p->fired = true;
    if (++fired == expected)
        uv_sem_post(&done);
}

static void arm_probes(struct flue_loop *loop, void *arg)
{
    uint64_t now = flue_monotonic_ns();
    unsigned seed = 1;

    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < TIMERS; i++) {
            struct probe *p = &probes[i];

            seed = seed * 1103515245 + 12345;
            p->timer.fire = probe_fires;
            if (seed >> 16 & 3) {
                p->asked = now + (seed >> 8) % 30000000;
                flue_timer_arm(loop, &p->timer, p->asked);
            } else {
                p->asked = 0;
                flue_timer_disarm(loop, &p->timer);
                flue_timer_disarm(loop, &p->timer);
            }
        }
    for (unsigned i = 0; i < TIMERS; i++)
        expected += probes[i].asked != 0;
}

static void timers_fire_in_order(void **state)
{
    flue_loop_call(loops->items[0], arm_probes, NULL);
    uv_sem_wait(&done);
    assert_int_equal(wrong, 0);
    assert_int_equal(fired, expected);
    assert_in_range(expected, TIMERS / 2, TIMERS);
}

/* A timer that arms itself for "now" over and over must not keep others from running. */
static struct flue_loop *busy_loop;
static unsigned busy_fires;
static void fire_again(struct flue_timer *timer)
{
    busy_fires++;
    flue_timer_arm(busy_loop, timer, 0);
}

static void start_busy(struct flue_loop *loop, void *arg)
{
    busy_loop = loop;
    flue_timer_arm(loop, arg, 0);
}

static void stop_busy(struct flue_loop *loop, void *arg)
{
    flue_timer_disarm(loop, arg);
}

static void busy_timer_leaves_room(void **state)
{
    struct flue_timer timer = {.fire = fire_again};
    struct flue_loop *seen = NULL;

    flue_loop_call(loops->items[0], start_busy, &timer);
    for (unsigned i = 0; i < 100; i++)
        flue_loop_call(loops->items[0], note_loop, &seen);
    flue_loop_call(loops->items[0], stop_busy, &timer);
    assert_ptr_equal(seen, loops->items[0]);
    assert_true(busy_fires > 0);
}

struct sum {
    struct flue_job job;
    unsigned from, result;
};
static struct sum sums[64];
static unsigned sums_done;

static void work_sum(struct flue_job *job)
{
    struct sum *sum = (struct sum *)job;

    if (flue_loop_current())
        return; /* not on a loop's thread: the result stays 0 */
    for (unsigned i = 0; i < 1000; i++)
        sum->result += sum->from + i;
}

static void sum_done(struct flue_job *job)
{
    if (flue_loop_current() == job->loop && ++sums_done == 64)
        uv_sem_post(&done);
}

static void pool_works(void **state)
{
    sums_done = 0;
    for (unsigned i = 0; i < 64; i++) {
        sums[i] = (struct sum){.job = {.work = work_sum, .done = sum_done}, .from = i};
        flue_pool_submit(loops->items[1], &sums[i].job);
    }
    uv_sem_wait(&done);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(sums[i].result, i * 1000 + 499500);
}

/* What was submitted is still done when the loops are stopped and destroyed at once. */
static void nothing_is_lost_at_the_end(void **state)
{
    struct flue_loops *own;

    assert_int_equal(flue_loops_new(1, &own, NULL), FLUE_OK);
    sums_done = 0;
    for (unsigned i = 0; i < 64; i++) {
        sums[i] = (struct sum){.job = {.work = work_sum, .done = sum_done}, .from = i};
        flue_pool_submit(own->items[0], &sums[i].job);
    }
    assert_int_equal(flue_loops_run(own, NULL), FLUE_OK);
    flue_loops_stop(own);
    flue_loops_destroy(own);
    assert_int_equal(sums_done, 64);
    uv_sem_wait(&done);
}

static void least_loaded(void **state)
{
    assert_ptr_equal(flue_loops_least_loaded(loops), loops->items[0]);
    atomic_store(&loops->items[0]->connections, 1);
    assert_ptr_equal(flue_loops_least_loaded(loops), loops->items[1]);
    atomic_store(&loops->items[1]->bytes_in_flight, 10);
    assert_ptr_equal(flue_loops_least_loaded(loops), loops->items[0]);
}

static void count_is_bounded(void **state)
{
    struct flue_loops *own;

    assert_int_equal(flue_loops_new(0, &own, NULL), FLUE_OK);
    assert_in_range(own->count, 1, 64);
    flue_loops_destroy(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(posts_arrive_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(calls_run_there, setup, teardown),
        cmocka_unit_test_setup_teardown(timers_fire_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(busy_timer_leaves_room, setup, teardown),
        cmocka_unit_test_setup_teardown(pool_works, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_lost_at_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(least_loaded, setup, teardown),
        cmocka_unit_test(count_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
