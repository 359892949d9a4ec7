/* memory_limiter.c: keeps the process below a limit by refusing new data in time.
 *
 * Two measures: the bytes that the pipelines are charged for (known at every moment), and the
 * resident size of the process (read each check_interval on one loop, never on the data path).
 * Above the soft limit (limit - spike) by either, a batch is refused with a retryable error and the
 * time of the next check. The process's budget is lowered to the limit when it starts, so that
 * above it a request is refused before its body is read. What was accepted before is never dropped.
 *
 * When the resident size is over the soft limit, memory that is kept for reuse is given back first.
 * There is no garbage collector, so the Collector's gc keys have no effect.
 */
#include "collector/base/block.h"
#include "collector/base/clock.h"
#include "collector/base/limits.h"
#include "collector/base/log.h"
#include "collector/component.h"
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MIB INT64_C(1048576)

struct memory_limiter_config {
    int64_t check_interval;
    int64_t limit_mib, spike_limit_mib;
    int64_t limit_percentage, spike_limit_percentage;
};

static const struct flue_field memory_limiter_fields[] = {
    FLUE_DURATION(struct memory_limiter_config, check_interval, .def = "0s", .minimum = 0,
                  .maximum = INT64_C(3600000000000),
                  .help = "how often the resident size is read; 1s is recommended"),
    FLUE_INT(struct memory_limiter_config, limit_mib, .def = "0", .minimum = 0,
             .maximum = INT64_C(1) << 32, .unit = "MiB", .help = "never above this"),
    FLUE_INT(struct memory_limiter_config, spike_limit_mib, .def = "0", .minimum = 0,
             .maximum = INT64_C(1) << 32, .unit = "MiB",
             .help = "room for what is accepted between two checks; 0: 20 % of the limit"),
    FLUE_INT(struct memory_limiter_config, limit_percentage, .def = "0", .minimum = 0,
             .maximum = 100, .unit = "%",
             .help = "of the memory that the cgroup, else the machine has; used when "
                     "limit_mib is 0"),
    FLUE_INT(struct memory_limiter_config, spike_limit_percentage, .def = "0", .minimum = 0,
             .maximum = 100, .unit = "%", .help = "as spike_limit_mib, with limit_percentage"),
    FLUE_IGNORED("min_gc_interval_when_soft_limited", "there is no garbage collector"),
    FLUE_IGNORED("min_gc_interval_when_hard_limited", "there is no garbage collector"),
    FLUE_IGNORED("max_gc_interval_when_soft_limited", "there is no garbage collector"),
    FLUE_IGNORED("max_gc_interval_when_hard_limited", "there is no garbage collector"),
    FLUE_FIELDS_END};

struct memory_limiter {
    struct flue_timer timer;
    const struct memory_limiter_config *config;
    struct flue_budget *budget;
    struct flue_loop *loop; /* that reads the resident size */
    const char *pipeline;
    int64_t limit, soft;
    uint32_t retry_after_ms;
    int statm; /* /proc/self/statm, held open */
    _Atomic bool resident_over;
    _Atomic int64_t resident;
    struct flue_metric *refused;
};

static void memory_limiter_check(const void *config, struct flue_check *check)
{
    const struct memory_limiter_config *c = config;

    if (c->check_interval <= 0)
        flue_check_fail(check, "check_interval", "must be greater than zero, for example 1s");
    if (!c->limit_mib && !c->limit_percentage)
        flue_check_fail(check, "limit_mib",
                        "`limit_mib` or `limit_percentage` must be greater than zero");
    if (c->limit_mib && c->spike_limit_mib >= c->limit_mib)
        flue_check_fail(check, "spike_limit_mib", "%lld must be smaller than limit_mib %lld",
                        (long long)c->spike_limit_mib, (long long)c->limit_mib);
    if (!c->limit_mib && c->limit_percentage && c->spike_limit_percentage >= c->limit_percentage)
        flue_check_fail(check, "spike_limit_percentage",
                        "%lld must be smaller than limit_percentage %lld",
                        (long long)c->spike_limit_percentage, (long long)c->limit_percentage);
}

static int64_t total_memory(void)
{
    struct flue_limits limits;
    int64_t pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE), total = pages * size;

    flue_limits_read("", &limits);
    return limits.memory < total ? limits.memory : total;
}

static enum flue_code memory_limiter_create(const struct flue_create *create, void **instance,
                                            struct flue_error *error)
{
    const struct memory_limiter_config *config = create->config;
    struct memory_limiter *limiter = calloc(1, sizeof *limiter);
    int64_t spike;

    if (!limiter)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for memory_limiter");
    if (config->limit_mib) {
        limiter->limit = config->limit_mib * MIB;
        spike = config->spike_limit_mib * MIB;
    } else {
        int64_t total = total_memory();
        limiter->limit = total / 100 * config->limit_percentage;
        spike = total / 100 * config->spike_limit_percentage;
    }
    limiter->soft = limiter->limit - (spike ? spike : limiter->limit / 5);
    limiter->config = config;
    limiter->budget = create->budget;
    limiter->loop = create->loops->items[0];
    limiter->pipeline = create->pipeline;
    limiter->retry_after_ms = (uint32_t)((config->check_interval + 999999) / 1000000);
    limiter->statm = -1;
    const struct flue_label labels[] = {
        {"processor", create->id}, {"pipeline", create->pipeline}, {NULL, NULL}};
    limiter->refused = flue_metric(create->metrics, FLUE_COUNTER, "processor_refused_items",
                                   "samples refused because memory is short", labels);
    *instance = limiter;
    return FLUE_OK;
}

static int64_t read_resident(const struct memory_limiter *limiter)
{
    char text[128];
    unsigned long long size, resident;
    ssize_t got = pread(limiter->statm, text, sizeof text - 1, 0);

    if (got <= 0)
        return 0;
    text[got] = 0;
    return sscanf(text, "%llu %llu", &size, &resident) == 2
               ? (int64_t)resident * (int64_t)sysconf(_SC_PAGESIZE)
               : 0;
}

static void measure(struct memory_limiter *limiter)
{
    int64_t resident = read_resident(limiter);

    if (resident > limiter->soft) {
        flue_block_trim();
        (void)malloc_trim(0);
        resident = read_resident(limiter);
    }
    bool over = resident > limiter->soft;
    if (over != atomic_load(&limiter->resident_over))
        flue_log(over ? FLUE_WARN : FLUE_INFO, "memory_limiter",
                 over ? "memory is short: new data is refused" : "memory is back below the limit",
                 FLUE_S("pipeline", limiter->pipeline), FLUE_I("resident_mib", resident / MIB),
                 FLUE_I("soft_limit_mib", limiter->soft / MIB));
    atomic_store(&limiter->resident, resident);
    atomic_store(&limiter->resident_over, over);
}

static void check_again(struct flue_timer *timer)
{
    struct memory_limiter *limiter = (struct memory_limiter *)timer;

    measure(limiter);
    flue_timer_arm(limiter->loop, timer,
                   flue_monotonic_ns() + (uint64_t)limiter->config->check_interval);
}

static void arm(struct flue_loop *loop, void *arg)
{
    check_again(&((struct memory_limiter *)arg)->timer);
}

static enum flue_code memory_limiter_start(void *instance, struct flue_error *error)
{
    struct memory_limiter *limiter = instance;
    int64_t hard = atomic_load(&limiter->budget->hard);

    limiter->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (limiter->statm < 0)
        flue_log(FLUE_WARN, "memory_limiter",
                 "the resident size cannot be read; only the pipelines' own bytes are limited",
                 FLUE_LOG_END);
    while (limiter->limit < hard &&
           !atomic_compare_exchange_weak(&limiter->budget->hard, &hard, limiter->limit))
        ;
    limiter->timer.fire = check_again;
    flue_loop_call(limiter->loop, arm, limiter);
    return FLUE_OK;
}

static void memory_limiter_push(struct flue_stage *stage, struct flue_batch *batch,
                                struct flue_delivery *delivery)
{
    struct memory_limiter *limiter = flue_stage_instance(stage);
    int64_t used = atomic_load_explicit(&limiter->budget->used, memory_order_relaxed);
    bool resident = atomic_load_explicit(&limiter->resident_over, memory_order_relaxed);
    struct flue_error error;

    if (used <= limiter->soft && !resident) {
        flue_stage_next(stage, batch, delivery);
        return;
    }
    (void)flue_fail(
        &error, FLUE_OVERLOADED,
        "memory is short: %lld MiB %s, soft limit %lld MiB (memory_limiter: limit less "
        "spike); send again later",
        (long long)((used > limiter->soft ? used : atomic_load(&limiter->resident)) / MIB),
        used > limiter->soft ? "held by pipelines" : "resident", (long long)(limiter->soft / MIB));
    error.retry_after_ms = limiter->retry_after_ms;
    flue_metric_add(limiter->refused, (int64_t)batch->counts.samples);
    flue_delivery_refuse(delivery, &error);
    flue_batch_unref(batch);
}

static void disarm(struct flue_loop *loop, void *arg)
{
    flue_timer_disarm(loop, &((struct memory_limiter *)arg)->timer);
}

static void memory_limiter_stop(void *instance, uint64_t deadline_ns)
{
    struct memory_limiter *limiter = instance;
    flue_loop_call(limiter->loop, disarm, limiter);
}

static void memory_limiter_destroy(void *instance)
{
    struct memory_limiter *limiter = instance;

    flue_timer_disarm(limiter->loop, &limiter->timer);
    if (limiter->statm >= 0)
        close(limiter->statm);
    free(limiter);
}

const struct flue_component flue_processor_memory_limiter = {
    .kind = FLUE_PROCESSOR,
    .name = "memory_limiter",
    .signals = FLUE_PROFILES | FLUE_TRACES,
    .stability = FLUE_BETA,
    .summary = "refuses new data while memory is short",
    .config_size = sizeof(struct memory_limiter_config),
    .fields = memory_limiter_fields,
    .check = memory_limiter_check,
    .create = memory_limiter_create,
    .start = memory_limiter_start,
    .push = memory_limiter_push,
    .stop = memory_limiter_stop,
    .destroy = memory_limiter_destroy,
};
