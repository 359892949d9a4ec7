/* The limit that follows a destination, and the circuit. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/pipeline/flow.h"

#define MS UINT64_C(1000000)

/* Until `condition` or for 20 s. */
#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        for (int look_ = 0; !(condition); look_++) {                                               \
            if (look_ > 100000)                                                                    \
                fail_msg("never: %s", #condition);                                                 \
            nanosleep(&(struct timespec){0, 200000}, NULL);                                        \
        }                                                                                          \
    } while (0)

struct setup {
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_flow *flow;
    struct flue_loop *loop;
};

static void flow_setup(struct setup *s, unsigned loops, unsigned min, unsigned max, bool circuit)
{
    struct flue_error error;

    flue_log_configure(FLUE_ERROR + 1, false, 2);
    assert_int_equal(flue_loops_new(loops, &s->loops, &error), FLUE_OK);
    s->metrics = flue_metrics_new("otelcol_");
    struct flue_flow_config config = {.exporter = "x",
                                      .min = min,
                                      .max = max,
                                      .initial = min,
                                      .circuit = circuit,
                                      .open_ns = 100 * (int64_t)MS,
                                      .open_max_ns = 800 * (int64_t)MS,
                                      .loops = s->loops,
                                      .metrics = s->metrics};
    s->flow = flue_flow_new(&config);
    s->loop = s->loops->items[0];
}

static void flow_teardown(struct setup *s)
{
    flue_loops_stop(s->loops);
    flue_flow_destroy(s->flow);
    flue_metrics_destroy(s->metrics);
    flue_loops_destroy(s->loops);
}

/* `rounds` windows in which every place is used and an answer takes latency_ns. */
static void work(struct setup *s, unsigned rounds, uint64_t latency_ns,
                 enum flue_flow_answer answer)
{
    static struct flue_flow_ticket tickets[2048];

    for (unsigned round = 0; round < rounds; round++) {
        unsigned limit = flue_flow_limit(s->flow), count = 0;
        memset(tickets, 0, sizeof tickets);
        for (unsigned i = 0; i < limit; i++)
            count += flue_flow_take(s->flow, s->loop, &tickets[i]);
        assert_int_equal(count, limit);
        flue_clock_move((int64_t)latency_ns);
        for (unsigned i = 0; i < limit; i++)
            flue_flow_give(s->flow, &tickets[i], answer, 0);
    }
    assert_int_equal(flue_flow_in_flight(s->flow), 0);
}

static void the_limit_grows_while_latency_holds(void **state)
{
    struct setup s;
    flow_setup(&s, 1, 4, 1024, false);
    work(&s, 80, 20 * MS, FLUE_FLOW_WORKS);
    assert_int_equal(flue_flow_limit(s.flow), 1024);
    work(&s, 5, 20 * MS, FLUE_FLOW_WORKS);
    assert_int_equal(flue_flow_limit(s.flow), 1024);
    flow_teardown(&s);
}

static void it_shrinks_when_latency_rises(void **state)
{
    struct setup s;
    flow_setup(&s, 1, 4, 1024, false);
    work(&s, 40, 20 * MS, FLUE_FLOW_WORKS);
    unsigned before = flue_flow_limit(s.flow);
    work(&s, 3, 100 * MS, FLUE_FLOW_WORKS);
    assert_true(flue_flow_limit(s.flow) < before);
    work(&s, 40, 100 * MS, FLUE_FLOW_WORKS);
    assert_true(flue_flow_limit(s.flow) < before / 2);
    assert_true(flue_flow_limit(s.flow) >= 4);
    flow_teardown(&s);
}

static void too_much_shrinks_once_per_round_trip(void **state)
{
    struct setup s;
    flow_setup(&s, 1, 4, 1024, false);
    work(&s, 40, 20 * MS, FLUE_FLOW_WORKS);
    unsigned before = flue_flow_limit(s.flow);
    work(&s, 1, 20 * MS, FLUE_FLOW_TOO_MUCH); /* all of a round say so */
    assert_int_equal(flue_flow_limit(s.flow), before - before / 3);
    work(&s, 40, 20 * MS, FLUE_FLOW_SLOW);
    assert_int_equal(flue_flow_limit(s.flow), 4);
    flow_teardown(&s);
}

static void it_does_not_grow_unused(void **state)
{
    struct setup s;
    struct flue_flow_ticket ticket = {0};
    flow_setup(&s, 1, 8, 1024, false);
    for (int i = 0; i < 500; i++) {
        assert_true(flue_flow_take(s.flow, s.loop, &ticket));
        flue_clock_move((int64_t)MS);
        flue_flow_give(s.flow, &ticket, FLUE_FLOW_WORKS, 0);
    }
    assert_int_equal(flue_flow_limit(s.flow), 8);
    flow_teardown(&s);
}

static _Atomic int served;
static void count_ready(struct flue_flow_ticket *ticket)
{
    atomic_fetch_add(&served, 1);
}

static void the_circuit_opens_probes_and_closes(void **state)
{
    struct setup s;
    struct flue_flow_ticket tickets[FLUE_FLOW_FAILURES] = {{0}}, waits[3] = {{0}};
    flow_setup(&s, 1, 1, 0, true);
    atomic_store(&served, 0);
    for (int i = 0; i < FLUE_FLOW_FAILURES; i++)
        assert_true(flue_flow_take(s.flow, s.loop, &tickets[i]));
    for (int i = 0; i < FLUE_FLOW_FAILURES; i++) {
        assert_int_equal(flue_flow_circuit(s.flow), FLUE_CIRCUIT_CLOSED);
        flue_flow_give(s.flow, &tickets[i], FLUE_FLOW_FAILED, 0);
    }
    assert_int_equal(flue_flow_circuit(s.flow), FLUE_CIRCUIT_OPEN);
    uint64_t wait = flue_flow_open_until(s.flow) - flue_monotonic_ns();
    assert_true(wait <= 125 * MS && wait > 60 * MS);
    for (int i = 0; i < 3; i++) {
        waits[i].ready = count_ready;
        assert_false(flue_flow_take(s.flow, s.loop, &waits[i]));
    }
    flue_clock_move(130 * (int64_t)MS);
    struct flue_error error;
    assert_int_equal(flue_loops_run(s.loops, &error), FLUE_OK);
    AWAIT(served == 1); /* one alone */
    nanosleep(&(struct timespec){0, 20000000}, NULL);
    assert_int_equal(served, 1);
    assert_int_equal(flue_flow_circuit(s.flow), FLUE_CIRCUIT_HALF_OPEN);
    flue_loops_stop(s.loops);
    assert_true(waits[0].probe);
    flue_flow_give(s.flow, &waits[0], FLUE_FLOW_FAILED, 0);
    wait = flue_flow_open_until(s.flow) - flue_monotonic_ns();
    assert_true(wait > 125 * MS && wait <= 250 * MS); /* twice as long */
    flue_clock_move(300 * (int64_t)MS);
    assert_int_equal(flue_loops_run(s.loops, &error), FLUE_OK);
    AWAIT(served == 2);
    flue_loops_stop(s.loops);
    flue_flow_give(s.flow, &waits[1], FLUE_FLOW_WORKS, 0);
    assert_int_equal(flue_flow_circuit(s.flow), FLUE_CIRCUIT_CLOSED);
    assert_int_equal(flue_loops_run(s.loops, &error), FLUE_OK);
    AWAIT(served == 3);
    flue_loops_stop(s.loops);
    flue_flow_give(s.flow, &waits[2], FLUE_FLOW_WORKS, 0);
    assert_true(flue_flow_take(s.flow, s.loop, &tickets[0]));
    flue_flow_give(s.flow, &tickets[0], FLUE_FLOW_WORKS, 0);
    flow_teardown(&s);
}

static void the_destinations_own_delay_is_kept(void **state)
{
    struct setup s;
    struct flue_flow_ticket ticket = {0};
    flow_setup(&s, 1, 1, 0, true);
    for (int i = 0; i < FLUE_FLOW_FAILURES; i++) {
        assert_true(flue_flow_take(s.flow, s.loop, &ticket));
        flue_flow_give(s.flow, &ticket, FLUE_FLOW_SLOW, 5000);
    }
    assert_true(flue_flow_open_until(s.flow) - flue_monotonic_ns() > 4900 * MS);
    flow_teardown(&s);
}

static void a_success_between_keeps_it_closed(void **state)
{
    struct setup s;
    struct flue_flow_ticket ticket = {0};
    flow_setup(&s, 1, 1, 0, true);
    for (int i = 0; i < 100; i++) {
        assert_true(flue_flow_take(s.flow, s.loop, &ticket));
        flue_flow_give(s.flow, &ticket, i % FLUE_FLOW_FAILURES ? FLUE_FLOW_FAILED : FLUE_FLOW_WORKS,
                       0);
    }
    assert_int_equal(flue_flow_circuit(s.flow), FLUE_CIRCUIT_CLOSED);
    flow_teardown(&s);
}

/* ---- several loops --------------------------------------------------------------------------- */

struct turn {
    struct flue_flow_ticket ticket; /* first */
    struct flue_timer timer;
    struct setup *s;
    int left;
};
static _Atomic int turns_left, over;
static unsigned most;

static void turn_take(struct turn *turn);
static void turn_end(struct flue_timer *timer)
{
    struct turn *turn = (struct turn *)((char *)timer - offsetof(struct turn, timer));
    bool fails = flue_random_u64() % 8 == 0;
    flue_flow_give(turn->s->flow, &turn->ticket, fails ? FLUE_FLOW_FAILED : FLUE_FLOW_WORKS, 0);
    atomic_fetch_sub(&turns_left, 1);
    if (--turn->left > 0)
        turn_take(turn);
}
static void turn_ready(struct flue_flow_ticket *ticket)
{
    struct turn *turn = (struct turn *)ticket;
    if (flue_flow_in_flight(turn->s->flow) > most)
        atomic_fetch_add(&over, 1);
    flue_timer_arm(ticket->loop, &turn->timer, flue_monotonic_ns() + flue_random_u64() % 50000);
}
static void turn_take(struct turn *turn)
{
    turn->ticket.ready = turn_ready;
    turn->timer.fire = turn_end;
    if (flue_flow_take(turn->s->flow, flue_loop_current(), &turn->ticket))
        turn_ready(&turn->ticket);
}
static void turn_begin(struct flue_loop *loop, void *arg)
{
    struct turn *turns = arg;
    for (int i = 0; i < 20; i++)
        turn_take(&turns[i]);
}

static void nobody_is_forgotten(void **state)
{
    struct setup s;
    struct flue_error error;
    static struct turn turns[3][20];

    flow_setup(&s, 3, 3, 5, true);
    most = 5;
    memset(turns, 0, sizeof turns);
    atomic_store(&turns_left, 3 * 20 * 200);
    assert_int_equal(flue_loops_run(s.loops, &error), FLUE_OK);
    for (unsigned i = 0; i < 3; i++) {
        for (int j = 0; j < 20; j++)
            turns[i][j] = (struct turn){.s = &s, .left = 200};
        flue_loop_call(s.loops->items[i], turn_begin, turns[i]);
    }
    AWAIT(turns_left == 0);
    assert_int_equal(over, 0);
    assert_int_equal(flue_flow_in_flight(s.flow), 0);
    flow_teardown(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_limit_grows_while_latency_holds),
        cmocka_unit_test(it_shrinks_when_latency_rises),
        cmocka_unit_test(too_much_shrinks_once_per_round_trip),
        cmocka_unit_test(it_does_not_grow_unused),
        cmocka_unit_test(the_circuit_opens_probes_and_closes),
        cmocka_unit_test(the_destinations_own_delay_is_kept),
        cmocka_unit_test(a_success_between_keeps_it_closed),
        cmocka_unit_test(nobody_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
