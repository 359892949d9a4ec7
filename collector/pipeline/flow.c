/* flow.c: places, their adaptive limit, and the circuit.
 *
 * A loop that finds no place sets its bit and looks once more; who gives one back looks at the bits
 * afterwards. With sequential consistency one of the two sees the other. A loop that has served its
 * own line and sees places left wakes the next.
 */
#include "collector/pipeline/flow.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include <limits.h>
#include <stdlib.h>

#define SECOND         INT64_C(1000000000)
#define WINDOW_MIN     16
#define SLACK_NS       1000000 /* differences of latency below this say nothing */
#define BASE_FORGETS   64      /* a window moves the best latency up by this part of the way */
#define WAIT_DOUBLINGS 16

struct flow_loop {
    _Alignas(64) struct flue_flow *flow;
    struct flue_loop *loop;
    struct flue_flow_ticket *first, *last;
    struct flue_timer timer; /* the next probe */
    struct flue_task wake;
    _Atomic bool wake_posted;
    bool serving, again;
    unsigned turn;
};

struct flue_flow {
    char *exporter;
    unsigned min, max;
    bool has_circuit;
    uint64_t open_ns, open_max_ns;
    struct flue_metrics *metrics;
    struct flue_loops *loops;
    struct flow_loop *at;
    struct flue_metric *opened;
    char *endpoint;
    _Alignas(64) _Atomic uint32_t limit, in_flight, peak;
    _Alignas(64) _Atomic uint64_t waiters; /* bit per loop */
    /* circuit */
    _Atomic uint64_t open_until; /* 0: closed */
    _Atomic uint32_t failures;   /* in a row */
    _Atomic uint32_t openings;   /* in a row: the exponent of the wait */
    _Atomic bool probing;
    /* What follows belongs to whoever holds `judging`; who finds it held leaves his sample out. */
    _Alignas(64) atomic_flag judging;
    uint64_t sum_ns, base_ns, shrunk_at_ns;
    unsigned samples;
};

/* ---- limit ----------------------------------------------------------------------------------- */

static void set_limit(struct flue_flow *flow, unsigned limit)
{
    if (limit < flow->min)
        limit = flow->min;
    if (limit > flow->max)
        limit = flow->max;
    atomic_store(&flow->limit, limit);
}

static unsigned eighth(unsigned limit)
{
    return limit < 8 ? 1 : limit / 8;
}

static void end_window(struct flue_flow *flow, unsigned limit, uint64_t now)
{
    uint64_t average = flow->sum_ns / flow->samples;
    unsigned peak = atomic_exchange(&flow->peak, 0);

    flow->sum_ns = flow->samples = 0;
    if (!flow->base_ns || average < flow->base_ns)
        flow->base_ns = average;
    if (average > 2 * flow->base_ns + SLACK_NS) {
        set_limit(flow, limit - (limit > eighth(limit) ? eighth(limit) : 0));
        flow->shrunk_at_ns = now;
    } else if (average <= flow->base_ns + flow->base_ns / 2 + SLACK_NS && peak >= limit) {
        set_limit(flow, limit + eighth(limit));
    }
    /* What was best once need not be possible for ever. */
    flow->base_ns += (average - flow->base_ns) / BASE_FORGETS;
}

static void judge(struct flue_flow *flow, const struct flue_flow_ticket *ticket,
                  enum flue_flow_answer answer)
{
    unsigned limit = atomic_load(&flow->limit);
    uint64_t now = flue_monotonic_ns();

    if (atomic_flag_test_and_set_explicit(&flow->judging, memory_order_acquire))
        return;
    if (answer == FLUE_FLOW_TOO_MUCH || answer == FLUE_FLOW_SLOW) {
        /* Those that were under way when it shrank have nothing new to say. */
        if (ticket->since_ns >= flow->shrunk_at_ns) {
            set_limit(flow, limit - limit / 3);
            flow->shrunk_at_ns = now;
            flow->sum_ns = flow->samples = 0;
            atomic_store(&flow->peak, 0);
        }
    } else if (answer == FLUE_FLOW_WORKS && ticket->since_ns >= flow->shrunk_at_ns) {
        flow->sum_ns += now > ticket->since_ns ? now - ticket->since_ns : 0;
        if (++flow->samples >= (limit > WINDOW_MIN ? limit : WINDOW_MIN))
            end_window(flow, limit, now);
    }
    atomic_flag_clear_explicit(&flow->judging, memory_order_release);
}

/* ---- circuit --------------------------------------------------------------------------------- */

static void close_circuit(struct flue_flow *flow)
{
    if (atomic_load_explicit(&flow->failures, memory_order_relaxed))
        atomic_store(&flow->failures, 0);
    if (!atomic_load_explicit(&flow->open_until, memory_order_relaxed))
        return;
    atomic_store(&flow->openings, 0);
    if (atomic_exchange(&flow->open_until, 0))
        flue_log(FLUE_INFO, "exporter", "the destination works again",
                 FLUE_S("exporter", flow->exporter));
}

static void open_circuit(struct flue_flow *flow, uint32_t retry_after_ms)
{
    uint32_t openings = atomic_fetch_add(&flow->openings, 1);
    uint64_t wait = flow->open_ns << (openings < WAIT_DOUBLINGS ? openings : WAIT_DOUBLINGS);
    uint64_t stated = (uint64_t)retry_after_ms * 1000000u;

    if (wait > flow->open_max_ns || wait < flow->open_ns)
        wait = flow->open_max_ns;
    wait = wait - wait / 4 + (wait ? flue_random_u64() % (wait / 2 + 1) : 0);
    if (wait < stated)
        wait = stated;
    if (atomic_exchange(&flow->open_until, flue_monotonic_ns() + wait) == 0) {
        if (flow->opened)
            flue_metric_add(flow->opened, 1);
        if (flow->max)
            set_limit(flow, flow->min);
        flue_log(FLUE_WARN, "exporter",
                 "the destination fails: what comes waits, and it is tried from time to time",
                 FLUE_S("exporter", flow->exporter), FLUE_U("next_try_ms", wait / 1000000));
    }
}

static void judge_circuit(struct flue_flow *flow, const struct flue_flow_ticket *ticket,
                          enum flue_flow_answer answer, uint32_t retry_after_ms)
{
    switch (answer) {
    case FLUE_FLOW_WORKS:
    case FLUE_FLOW_TOO_MUCH:
        close_circuit(flow);
        break;
    case FLUE_FLOW_FAILED:
    case FLUE_FLOW_SLOW:
        if (ticket->probe)
            open_circuit(flow, retry_after_ms);
        else if (atomic_fetch_add(&flow->failures, 1) + 1 >= FLUE_FLOW_FAILURES &&
                 !atomic_load(&flow->open_until))
            open_circuit(flow, retry_after_ms);
        break;
    case FLUE_FLOW_UNKNOWN:
        break;
    }
    if (ticket->probe)
        atomic_store(&flow->probing, false);
}

enum flue_flow_answer flue_flow_answer_of(const struct flue_error *error)
{
    switch (error->code) {
    case FLUE_RATE_LIMITED:
    case FLUE_OVERLOADED:
        return FLUE_FLOW_TOO_MUCH;
    case FLUE_TIMEOUT:
        return FLUE_FLOW_SLOW;
    case FLUE_UNAVAILABLE:
        return error->retry_after_ms ? FLUE_FLOW_SLOW : FLUE_FLOW_FAILED;
    case FLUE_CANCELLED:
    case FLUE_SHUTTING_DOWN:
    case FLUE_NO_MEMORY:
        return FLUE_FLOW_UNKNOWN;
    default:
        return flue_code_facts(error->code)->retryable ? FLUE_FLOW_FAILED : FLUE_FLOW_WORKS;
    }
}

/* ---- places ---------------------------------------------------------------------------------- */

static bool claim_place(struct flue_flow *flow, bool probe)
{
    if (!flow->max)
        return true;
    uint32_t used = atomic_load(&flow->in_flight);
    while (probe || used < atomic_load(&flow->limit)) {
        if (!atomic_compare_exchange_weak(&flow->in_flight, &used, used + 1))
            continue;
        if (used + 1 > atomic_load_explicit(&flow->peak, memory_order_relaxed))
            atomic_store_explicit(&flow->peak, used + 1, memory_order_relaxed);
        return true;
    }
    return false;
}

static bool claim(struct flue_flow *flow, struct flue_flow_ticket *ticket)
{
    uint64_t until = atomic_load(&flow->open_until);

    ticket->probe = false;
    if (until) {
        if (flue_monotonic_ns() < until || atomic_exchange(&flow->probing, true))
            return false;
        if (atomic_load(&flow->open_until) == until) {
            ticket->probe = true;
        } else { /* closed, or opened anew, meanwhile */
            atomic_store(&flow->probing, false);
            if (atomic_load(&flow->open_until))
                return false;
        }
    }
    if (!claim_place(flow, ticket->probe))
        return false;
    ticket->since_ns = flow->max ? flue_monotonic_ns() : 0;
    return true;
}

static void unlist(struct flow_loop *at, struct flue_flow_ticket *ticket)
{
    if (ticket->previous)
        ticket->previous->next = ticket->next;
    else
        at->first = ticket->next;
    if (ticket->next)
        ticket->next->previous = ticket->previous;
    else
        at->last = ticket->previous;
    ticket->next = ticket->previous = NULL;
    ticket->waiting = false;
}

static void post_wake(struct flow_loop *at)
{
    if (!atomic_exchange(&at->wake_posted, true))
        flue_loop_post(at->loop, &at->wake);
}

static void wake_others(struct flue_flow *flow, const struct flow_loop *from, bool all)
{
    uint64_t own = from ? UINT64_C(1) << from->loop->index : 0;
    uint64_t waiters = atomic_load(&flow->waiters) & ~own;

    if (!all && waiters) { /* the next in a circle */
        uint64_t above = own ? waiters & ~((own << 1) - 1) : waiters;
        waiters = above ? above : waiters;
        waiters &= ~(waiters - 1);
    }
    for (; waiters; waiters &= waiters - 1)
        post_wake(&flow->at[__builtin_ctzll(waiters)]);
}

/* The loop's line, as far as there are places. */
static void serve(struct flow_loop *at)
{
    struct flue_flow *flow = at->flow;
    uint64_t bit = UINT64_C(1) << at->loop->index;

    if (at->serving) { /* `ready` gave something back */
        at->again = true;
        return;
    }
    at->serving = true;
    do {
        at->again = false;
        while (at->first && claim(flow, at->first)) {
            struct flue_flow_ticket *ticket = at->first;
            unlist(at, ticket);
            ticket->ready(ticket);
        }
    } while (at->again);
    at->serving = false;
    if (!at->first) {
        if (atomic_load_explicit(&flow->waiters, memory_order_relaxed) & bit)
            atomic_fetch_and(&flow->waiters, ~bit);
        flue_timer_disarm(at->loop, &at->timer);
        if (!atomic_load(&flow->open_until) &&
            (!flow->max || atomic_load(&flow->in_flight) < atomic_load(&flow->limit)))
            wake_others(flow, at, false);
        return;
    }
    uint64_t until = atomic_load(&flow->open_until);
    if (until && !atomic_load(&flow->probing))
        flue_timer_arm(at->loop, &at->timer, until);
}

static void fire(struct flue_timer *timer)
{
    serve((struct flow_loop *)((char *)timer - offsetof(struct flow_loop, timer)));
}

static void woken(struct flue_task *task)
{
    struct flow_loop *at = (struct flow_loop *)((char *)task - offsetof(struct flow_loop, wake));

    atomic_store(&at->wake_posted, false);
    serve(at);
}

bool flue_flow_take(struct flue_flow *flow, struct flue_loop *loop, struct flue_flow_ticket *ticket)
{
    struct flow_loop *at = &flow->at[loop->index];

    ticket->loop = loop;
    if (!at->first && claim(flow, ticket))
        return true;
    ticket->waiting = true;
    ticket->next = NULL;
    ticket->previous = at->last;
    if (at->last)
        at->last->next = ticket;
    else
        at->first = ticket;
    at->last = ticket;
    atomic_fetch_or(&flow->waiters, UINT64_C(1) << loop->index);
    post_wake(at); /* what became free before the bit was seen; arms the timer of the probe */
    return false;
}

void flue_flow_forget(struct flue_flow *flow, struct flue_flow_ticket *ticket)
{
    if (!ticket->waiting)
        return;
    struct flow_loop *at = &flow->at[ticket->loop->index];
    unlist(at, ticket);
    if (!at->first) {
        atomic_fetch_and(&flow->waiters, ~(UINT64_C(1) << ticket->loop->index));
        flue_timer_disarm(at->loop, &at->timer);
    }
}

void flue_flow_give(struct flue_flow *flow, struct flue_flow_ticket *ticket,
                    enum flue_flow_answer answer, uint32_t retry_after_ms)
{
    struct flow_loop *at = &flow->at[ticket->loop->index];
    bool was_open = atomic_load_explicit(&flow->open_until, memory_order_relaxed) != 0;

    if (flow->max)
        judge(flow, ticket, answer);
    if (flow->has_circuit)
        judge_circuit(flow, ticket, answer, retry_after_ms);
    ticket->probe = false;
    if (flow->max)
        atomic_fetch_sub(&flow->in_flight, 1);
    if (!atomic_load(&flow->waiters))
        return;
    wake_others(flow, at, was_open || atomic_load(&flow->open_until));
    /* Every second place is left to another loop, if one waits. */
    if (++at->turn % 2 || !(atomic_load(&flow->waiters) & ~(UINT64_C(1) << at->loop->index)))
        serve(at);
    else
        post_wake(at);
}

/* ---- life and looks -------------------------------------------------------------------------- */

enum flue_circuit_state flue_flow_circuit(const struct flue_flow *flow)
{
    uint64_t until = atomic_load_explicit(&flow->open_until, memory_order_relaxed);
    return !until                                                       ? FLUE_CIRCUIT_CLOSED
           : atomic_load_explicit(&flow->probing, memory_order_relaxed) ? FLUE_CIRCUIT_HALF_OPEN
                                                                        : FLUE_CIRCUIT_OPEN;
}

uint64_t flue_flow_open_until(const struct flue_flow *flow)
{
    return atomic_load_explicit(&flow->open_until, memory_order_relaxed);
}

unsigned flue_flow_limit(const struct flue_flow *flow)
{
    return flow->max ? atomic_load_explicit(&flow->limit, memory_order_relaxed) : UINT_MAX;
}

unsigned flue_flow_in_flight(const struct flue_flow *flow)
{
    return atomic_load_explicit(&flow->in_flight, memory_order_relaxed);
}

static double read_limit(void *arg)
{
    return (double)flue_flow_limit(arg);
}

static double read_in_flight(void *arg)
{
    return (double)flue_flow_in_flight(arg);
}

static double read_circuit(void *arg)
{
    return (double)flue_flow_circuit(arg);
}

static void make_metrics(struct flue_flow *flow)
{
    struct flue_label labels[3] = {{"exporter", flow->exporter}};

    if (flow->endpoint)
        labels[1] = (struct flue_label){"endpoint", flow->endpoint};
    if (flow->max) {
        flue_metric_callback(flow->metrics, FLUE_GAUGE, "exporter_concurrency_limit",
                             "requests that may run at a time", labels, read_limit, flow);
        flue_metric_callback(flow->metrics, FLUE_GAUGE, "exporter_concurrency_in_flight",
                             "requests that run now", labels, read_in_flight, flow);
    }
    if (!flow->has_circuit)
        return;
    flue_metric_callback(flow->metrics, FLUE_GAUGE, "exporter_circuit_state",
                         "0: closed, 1: one request probes the destination, 2: open", labels,
                         read_circuit, flow);
    flow->opened = flue_metric(flow->metrics, FLUE_COUNTER, "exporter_circuit_opened",
                               "times that the destination was found to fail", labels);
}

struct flue_flow *flue_flow_new(const struct flue_flow_config *config)
{
    unsigned count = config->loops->count;
    struct flue_flow *flow = aligned_alloc(64, sizeof *flow);

    if (!flow)
        return NULL;
    memset(flow, 0, sizeof *flow);
    flow->min = config->min ? config->min : 1;
    flow->max = config->max;
    if (flow->max && flow->min > flow->max)
        flow->min = flow->max;
    flow->has_circuit = config->circuit;
    flow->open_ns = (uint64_t)(config->open_ns > 0 ? config->open_ns : SECOND);
    flow->open_max_ns = (uint64_t)(config->open_max_ns > 0 ? config->open_max_ns : 30 * SECOND);
    flow->metrics = config->metrics;
    flow->loops = config->loops;
    flow->exporter = strdup(config->exporter ? config->exporter : "");
    flow->endpoint = config->endpoint ? strdup(config->endpoint) : NULL;
    flow->at = aligned_alloc(64, count * sizeof *flow->at);
    if (!flow->exporter || (config->endpoint && !flow->endpoint) || !flow->at) {
        free(flow->at);
        free(flow->exporter);
        free(flow->endpoint);
        free(flow);
        return NULL;
    }
    memset(flow->at, 0, count * sizeof *flow->at);
    for (unsigned i = 0; i < count; i++) {
        flow->at[i].flow = flow;
        flow->at[i].loop = config->loops->items[i];
        flow->at[i].timer.fire = fire;
        flow->at[i].wake.run = woken;
    }
    atomic_flag_clear(&flow->judging);
    if (flow->max)
        set_limit(flow, config->initial ? config->initial : flow->min);
    if (flow->metrics)
        make_metrics(flow);
    return flow;
}

static void end_callback(struct flue_flow *flow, const char *name)
{
    struct flue_label labels[3] = {{"exporter", flow->exporter}};

    if (flow->endpoint)
        labels[1] = (struct flue_label){"endpoint", flow->endpoint};
    flue_metric_callback(flow->metrics, FLUE_GAUGE, name, "", labels, NULL, NULL);
}

void flue_flow_destroy(struct flue_flow *flow)
{
    if (!flow)
        return;
    flue_loops_settle(flow->loops); /* a wake that was posted */
    for (unsigned i = 0; i < flow->loops->count; i++)
        flue_timer_disarm(flow->at[i].loop, &flow->at[i].timer);
    if (flow->metrics) {
        if (flow->max) {
            end_callback(flow, "exporter_concurrency_limit");
            end_callback(flow, "exporter_concurrency_in_flight");
        }
        if (flow->has_circuit)
            end_callback(flow, "exporter_circuit_state");
    }
    free(flow->at);
    free(flow->exporter);
    free(flow->endpoint);
    free(flow);
}
