/* timer.c: the timers of one loop in a pairing heap under one uv_timer. See loop.h.
 *
 * Most timers are deadlines that never come: arming is a comparison, disarming touches the heap
 * only around the timer, neither allocates. One that is disarmed or moved back leaves the uv_timer
 * as it is; that then fires early, finds nothing due and is set anew.
 *
 * In the heap `child` is a timer's first child, `next` its sibling, `prev` the sibling before it
 * or, for a first child, its parent. The root has neither `prev` nor `next`.
 */
#include "collector/base/loop_inside.h"

#include "collector/base/clock.h"

/* Two roots into one; either may be NULL. */
static struct flue_timer *meld(struct flue_timer *a, struct flue_timer *b)
{
    if (!a || !b)
        return a ? a : b;
    if (b->due_ns < a->due_ns) {
        struct flue_timer *swap = a;

        a = b;
        b = swap;
    }
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    b->prev = a;
    a->child = b;
    return a;
}

/* Siblings into one root: pairs from left to right, then those from right to left. */
static struct flue_timer *meld_all(struct flue_timer *first)
{
    struct flue_timer *pairs = NULL, *root = NULL;

    while (first) {
        struct flue_timer *a = first, *b = a->next;

        first = b ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b)
            b->next = b->prev = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct flue_timer *pair = pairs;

        pairs = pair->next;
        pair->next = NULL;
        root = meld(root, pair);
    }
    return root;
}

static void take_out(struct flue_loop *loop, struct flue_timer *timer)
{
    struct flue_timer *children = meld_all(timer->child);

    if (!timer->prev) {
        loop->timers = children;
    } else {
        if (timer->prev->child == timer)
            timer->prev->child = timer->next;
        else
            timer->prev->next = timer->next;
        if (timer->next)
            timer->next->prev = timer->prev;
        loop->timers = meld(loop->timers, children);
    }
    timer->child = timer->next = timer->prev = NULL;
    timer->due_ns = 0;
}

static void on_timer(uv_timer_t *uv);

/* Sees to it that the uv_timer fires no later than the first one is due, but in `least_ms` at the
 * earliest. */
static void set_uv(struct flue_loop *loop, uint64_t least_ms)
{
    uint64_t now, due, wait;

    if (!loop->timers || loop->firing_ns)
        return;
    due = loop->timers->due_ns;
    if (loop->timer_due_ns && loop->timer_due_ns <= due)
        return;
    now = flue_monotonic_ns();
    uv_update_time(&loop->uv); /* its clock stands still during a callback */
    wait = due > now ? (due - now + 999999) / 1000000 : 0;
    uv_timer_start(&loop->timer, on_timer, wait < least_ms ? least_ms : wait, 0);
    loop->timer_due_ns = due;
}

static void on_timer(uv_timer_t *uv)
{
    struct flue_loop *loop = uv->data;

    loop->timer_due_ns = 0;
    loop->firing_ns = flue_monotonic_ns();
    while (loop->timers && loop->timers->due_ns <= loop->firing_ns) {
        struct flue_timer *timer = loop->timers;

        take_out(loop, timer);
        timer->fire(timer);
    }
    loop->firing_ns = 0;
    set_uv(loop, 1); /* libuv would fire a timer of 0 ms again before it looks at any socket */
}

int flue_timers_init(struct flue_loop *loop)
{
    loop->timer.data = loop;
    return uv_timer_init(&loop->uv, &loop->timer);
}

void flue_timer_arm(struct flue_loop *loop, struct flue_timer *timer, uint64_t due_ns)
{
    if (due_ns <= loop->firing_ns) /* not again in this round; and never 0 */
        due_ns = loop->firing_ns + 1;
    if (timer->due_ns)
        take_out(loop, timer);
    timer->due_ns = due_ns;
    loop->timers = meld(loop->timers, timer);
    set_uv(loop, 0);
}

void flue_timer_disarm(struct flue_loop *loop, struct flue_timer *timer)
{
    if (timer->due_ns)
        take_out(loop, timer);
}
