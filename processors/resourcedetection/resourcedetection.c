/* resourcedetection.c: what this machine is, set on every resource that passes.
 *
 * Detectors run on loop 0, at start and every refresh_interval; each has a session: attempts with
 * back-off until its deadline. What they know together is one immutable, encoded set; whenever it
 * changes, every loop gets the new one by a message. Profiles never wait for it, unless
 * fail_on_missing_metadata tells start to. A detector that fails later keeps what it knew.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/component.h"
#include "collector/pipeline/actions.h"
#include "processors/resourcedetection/detect.h"
#include "proto/otlp/otlp.h"

#define ARENA_MAX (1u << 20)
#define SECOND    1000000000ull

struct result {
    _Atomic uint32_t refs;
    struct flue_block *block;
    struct flue_attribute_set set;
};
struct rd_loop {
    _Alignas(64) struct result *result; /* NULL: nothing is known yet */
    _Atomic(struct result *) coming;    /* not taken yet */
    struct flue_task swap;
};
struct rd {
    const struct rd_config *config;
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    const char *id, *pipeline;
    struct rd_loop *at;
    struct rd_run *runs; /* in the order of `detectors` */
    size_t count, settled;
    struct result *result; /* the newest */
    struct flue_metric *known;
    struct flue_timer refresh;
    bool starting; /* no loop has seen a batch: results are put in place, not sent */
    bool stopping;
    _Atomic bool idle;
};

/* ---- results --------------------------------------------------------------------------------- */

static struct result *result_ref(struct result *result)
{
    if (result)
        atomic_fetch_add(&result->refs, 1);
    return result;
}

static void result_unref(struct result *result)
{
    if (!result || atomic_fetch_sub(&result->refs, 1) != 1)
        return;
    flue_block_unref(result->block);
    free(result);
}

static bool same_set(const struct flue_attribute_set *a, const struct flue_attribute_set *b)
{
    return flue_bytes_equal(a->encoded, b->encoded);
}

static struct result *merge(struct rd *rd, struct flue_error *error)
{
    struct result *result = calloc(1, sizeof *result);
    struct flue_attribute *items = calloc(RD_ITEMS * rd->count + 1, sizeof *items);
    struct flue_arena arena;
    size_t count = 0;
    enum flue_code code = FLUE_OK;

    flue_arena_init(&arena, ARENA_MAX * (rd->count + 1), 0);
    for (size_t r = 0; items && r < rd->count; r++) {
        for (size_t i = 0; i < rd->runs[r].kept_count; i++) {
            const struct flue_attribute *item = &rd->runs[r].kept[i];
            bool there = false;
            for (size_t k = 0; k < count && !there; k++)
                there = flue_bytes_equal(items[k].key, item->key);
            if (!there)
                items[count++] = *item;
        }
    }
    if (!result || !items)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for what was detected");
    else if (count)
        code = flue_attribute_block(flue_otlp_attribute_set, &arena, items, count, &result->set,
                                    &result->block, error);
    flue_arena_destroy(&arena);
    free(items);
    if (code != FLUE_OK) {
        free(result);
        return NULL;
    }
    result->refs = 1;
    return result;
}

static void swap(struct flue_task *task)
{
    struct rd_loop *at = (struct rd_loop *)((char *)task - offsetof(struct rd_loop, swap));
    result_unref(at->result);
    at->result = atomic_exchange(&at->coming, NULL);
}

static void publish(struct rd *rd)
{
    struct flue_error error;
    struct result *result = merge(rd, &error);
    if (!result) {
        flue_log(FLUE_ERROR, "resourcedetection", "what was detected cannot be used",
                 FLUE_S("processor", rd->id), FLUE_S("error", error.text), FLUE_LOG_END);
        return;
    }
    if (rd->result && same_set(&rd->result->set, &result->set)) {
        result_unref(result);
        return;
    }
    result_unref(rd->result);
    rd->result = result;
    flue_metric_set(rd->known, (int64_t)result->set.count);
    for (unsigned i = 0; i < rd->loops->count; i++) {
        struct rd_loop *at = &rd->at[i];
        if (rd->starting) {
            result_unref(at->result);
            at->result = result_ref(result);
            continue;
        }
        struct result *missed = atomic_exchange(&at->coming, result_ref(result));
        if (missed) /* the message is still on its way and will find the new one */
            result_unref(missed);
        else
            flue_loop_post(rd->loops->items[i], &at->swap);
    }
}

/* ---- sessions -------------------------------------------------------------------------------- */

static void begin_session(struct rd_run *run);

static void refresh_now(struct flue_timer *timer)
{
    struct rd *rd = (struct rd *)((char *)timer - offsetof(struct rd, refresh));
    rd->settled = 0;
    for (size_t i = 0; i < rd->count; i++)
        begin_session(&rd->runs[i]);
}

static void settle(struct rd_run *run)
{
    struct rd *rd = run->rd;
    run->settled = true;
    publish(rd);
    if (++rd->settled == rd->count && rd->config->refresh_interval > 0 && !rd->stopping)
        flue_timer_arm(rd->loops->items[0], &rd->refresh,
                       flue_monotonic_ns() + (uint64_t)rd->config->refresh_interval);
}

static void reset(struct rd_run *run)
{
    if (run->access)
        flue_kube_access_close(run->access);
    run->access = NULL;
    run->token = NULL;
    run->state = NULL;
    run->count = 0;
    run->ask.field_count = 0;
    flue_arena_reset(&run->arena);
}

/* What is used outlives the attempts after it. */
static bool keep(struct rd_run *run)
{
    struct flue_arena arena;
    flue_arena_init(&arena, ARENA_MAX, 0);
    struct flue_attribute *kept = flue_arena_zalloc(&arena, run->count + 1, sizeof *kept);
    for (size_t i = 0; kept && i < run->count; i++) {
        kept[i] = run->items[i];
        kept[i].key = flue_arena_copy(&arena, run->items[i].key);
        kept[i].value.text = flue_arena_copy(&arena, run->items[i].value.text);
        if (!kept[i].key.data || (!kept[i].value.text.data && run->items[i].value.text.size))
            kept = NULL;
    }
    if (!kept) {
        flue_arena_destroy(&arena);
        return false;
    }
    flue_arena_destroy(&run->kept_arena);
    run->kept_arena = arena;
    run->kept = kept;
    run->kept_count = run->count;
    return true;
}

void rd_found(struct rd_run *run)
{
    size_t count = run->count;
    if (!keep(run)) {
        rd_failed(run, "no memory for what was detected");
        return;
    }
    reset(run);
    run->error = (struct flue_error){0};
    if (!run->reported)
        flue_log(FLUE_INFO, "resourcedetection", "detected", FLUE_S("processor", run->rd->id),
                 FLUE_S("detector", run->detector->name), FLUE_U("attributes", count),
                 FLUE_LOG_END);
    run->reported = true;
    settle(run);
}

void rd_absent(struct rd_run *run, const char *why)
{
    (void)flue_fail(&run->error, FLUE_UNAVAILABLE, "%s", why);
    reset(run);
    if (!run->reported)
        flue_log(FLUE_INFO, "resourcedetection", "nothing to detect",
                 FLUE_S("processor", run->rd->id), FLUE_S("detector", run->detector->name),
                 FLUE_S("reason", why), FLUE_LOG_END);
    run->reported = true;
    settle(run);
}

static uint64_t pause_before(const struct rd_run *run)
{
    const struct flue_retry_config *retry = &run->config->retry;
    double most = (double)retry->max_interval, pause = (double)retry->initial_interval;
    if (run->detector->limits) {
        const struct rd_aws_config *limits =
            (const void *)((const char *)run->config + run->detector->limits);
        if (limits->max_backoff > 0 && (double)limits->max_backoff < most)
            most = (double)limits->max_backoff;
    }
    for (unsigned i = 1; i < run->tries && pause < most; i++)
        pause *= retry->multiplier;
    if (pause > most)
        pause = most;
    double part = (double)(flue_random_u64() >> 11) / (double)(1ull << 53); /* 0 to 1 */
    pause *= 1 + retry->randomization_factor * (2 * part - 1);
    return pause > 0 ? (uint64_t)pause : 0;
}

static bool may_try_again(const struct rd_run *run, uint64_t when)
{
    if (!run->config->retry.enabled || when >= run->deadline_ns)
        return false;
    const struct rd_aws_config *limits =
        (const void *)((const char *)run->config + run->detector->limits);
    return !run->detector->limits || run->tries < (unsigned)limits->max_attempts;
}

static void attempt(struct rd_run *run)
{
    run->tries++;
    run->step = 0;
    rd_tags_end(run);
    if (run->rd->starting && run->detector->begin == rd_system_begin &&
        rd_system_is_quick(run->config))
        rd_system_now(run);
    else
        run->detector->begin(run);
}

static void try_again(struct flue_timer *timer)
{
    attempt((struct rd_run *)((char *)timer - offsetof(struct rd_run, again)));
}

void rd_failed(struct rd_run *run, const char *format, ...)
{
    va_list arguments;
    char text[sizeof run->error.text];
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)flue_fail(&run->error, FLUE_UNAVAILABLE, "%s", text);
    flue_metric_add(run->failures, 1);
    reset(run);
    uint64_t when = flue_monotonic_ns() + pause_before(run);
    if (may_try_again(run, when)) {
        flue_timer_arm(run->loop, &run->again, when);
        return;
    }
    flue_log(FLUE_WARN, "resourcedetection",
             run->kept_count ? "a detector failed; what it knew stays in use"
                             : "a detector failed; its attributes are missing",
             FLUE_S("processor", run->rd->id), FLUE_S("detector", run->detector->name),
             FLUE_U("attempts", run->tries), FLUE_S("error", run->error.text), FLUE_LOG_END);
    run->reported = false; /* say it when it works again */
    settle(run);
}

static void begin_session(struct rd_run *run)
{
    const struct rd_config *config = run->config;
    int64_t whole =
        config->retry.max_elapsed_time > 0 ? config->retry.max_elapsed_time : config->timeout;
    run->settled = false;
    run->tries = 0;
    run->deadline_ns = flue_monotonic_ns() + (uint64_t)whole;
    attempt(run);
}

/* ---- a batch --------------------------------------------------------------------------------- */

static void rd_push(struct flue_stage *stage, struct flue_batch *batch,
                    struct flue_delivery *delivery)
{
    struct rd *rd = flue_stage_instance(stage);
    const struct result *result = rd->at[flue_delivery_loop(delivery)->index].result;
    enum flue_set_mode mode = rd->config->override ? FLUE_SET_UPSERT : FLUE_SET_INSERT;
    enum flue_code code = FLUE_OK;
    struct flue_error error;

    if (!result || result->set.count == 0) {
        flue_stage_next(stage, batch, delivery);
        return;
    }
    batch = flue_batch_writable(batch, &error);
    if (!batch) {
        flue_delivery_refuse(delivery, &error);
        return;
    }
    size_t resources = batch->payload->ops->resource_count(batch->payload);
    for (size_t i = 0; i < resources && code == FLUE_OK; i++)
        code = batch->payload->ops->attributes_set(batch->payload, i, &result->set, mode,
                                                   result->block, &error);
    if (code == FLUE_OK) {
        flue_stage_next(stage, batch, delivery);
        return;
    }
    flue_delivery_refuse(delivery, &error);
    flue_batch_unref(batch);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void give_up(struct rd *rd)
{
    for (size_t i = 0; rd->runs && i < rd->count; i++) {
        struct rd_run *run = &rd->runs[i];
        flue_timer_disarm(run->loop, &run->again);
        object_ask_stop(&run->ask);
        rd_tags_end(run);
        if (run->job)
            run->job->run = NULL;
        run->job = NULL;
    }
    flue_timer_disarm(rd->loops->items[0], &rd->refresh);
}

static void rd_destroy(void *instance)
{
    struct rd *rd = instance;
    give_up(rd);
    for (size_t i = 0; rd->runs && i < rd->count; i++) {
        reset(&rd->runs[i]);
        flue_arena_destroy(&rd->runs[i].arena);
        flue_arena_destroy(&rd->runs[i].kept_arena);
    }
    for (unsigned i = 0; rd->at && i < rd->loops->count; i++) {
        result_unref(rd->at[i].result);
        result_unref(atomic_load(&rd->at[i].coming));
    }
    result_unref(rd->result);
    free(rd->runs);
    free(rd->at);
    free(rd);
}

static enum flue_code rd_create(const struct flue_create *create, void **instance,
                                struct flue_error *error)
{
    struct rd *rd = calloc(1, sizeof *rd);
    const struct rd_config *config = create->config;
    if (!rd)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for resourcedetection");
    rd->config = config;
    rd->loops = create->loops;
    rd->metrics = create->metrics;
    rd->id = create->id;
    rd->pipeline = create->pipeline;
    rd->refresh.fire = refresh_now;
    rd->at = aligned_alloc(64, create->loops->count * sizeof *rd->at);
    rd->runs = calloc(config->detectors.count, sizeof *rd->runs);
    if (!rd->at || !rd->runs) {
        free(rd->at);
        free(rd->runs);
        free(rd);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for resourcedetection");
    }
    memset(rd->at, 0, create->loops->count * sizeof *rd->at);
    for (unsigned i = 0; i < create->loops->count; i++)
        rd->at[i].swap.run = swap;
    rd->count = config->detectors.count;
    for (size_t i = 0; i < rd->count; i++) {
        struct rd_run *run = &rd->runs[i];
        run->rd = rd;
        run->config = config;
        run->loop = create->loops->items[0];
        run->again.fire = try_again;
        run->detector = rd_detector_named(((const char *const *)config->detectors.items)[i]);
        if (run->detector->has_config)
            run->attributes = (const void *)((const char *)config + run->detector->config);
        flue_arena_init(&run->arena, ARENA_MAX, 0);
        flue_arena_init(&run->kept_arena, ARENA_MAX, 0);
    }
    *instance = rd;
    return FLUE_OK;
}

static void begin(struct flue_loop *loop, void *arg)
{
    struct rd *rd = arg;
    rd->starting = true;
    for (size_t i = 0; i < rd->count; i++)
        begin_session(&rd->runs[i]);
}

static void started(struct flue_loop *loop, void *arg)
{
    ((struct rd *)arg)->starting = false;
}

/* env may be empty; whoever else is listed is meant to be there. */
static bool must_succeed(const struct rd_run *run)
{
    if (run->detector->begin == rd_env_begin)
        return false;
    return run->config->fail_on_missing_metadata ||
           (run->detector->begin == rd_ec2_begin && run->config->ec2.fail_on_missing_metadata);
}

struct waiting {
    struct rd *rd;
    const struct rd_run *failed; /* the first */
    bool open;
};

/* Before the loops run this thread turns loop 0 itself. */
static void turn(struct flue_loop *loop, void *arg)
{
    struct waiting *waiting = arg;
    if (!atomic_load(&loop->loops->running))
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    waiting->open = false;
    waiting->failed = NULL;
    for (size_t i = waiting->rd->count; i-- > 0;) {
        const struct rd_run *run = &waiting->rd->runs[i];
        if (!must_succeed(run))
            continue;
        waiting->open |= !run->settled;
        if (!run->settled || run->error.code)
            waiting->failed = run;
    }
}

static enum flue_code wait_for_all(struct rd *rd, struct flue_error *error)
{
    const struct rd_config *config = rd->config;
    struct waiting waiting = {.rd = rd};
    int64_t whole =
        config->retry.max_elapsed_time > 0 ? config->retry.max_elapsed_time : config->timeout;
    uint64_t until = flue_monotonic_ns() + (uint64_t)whole + SECOND; /* names take their own time */
    do {
        flue_loop_call(rd->loops->items[0], turn, &waiting);
        if (waiting.open)
            usleep(1000);
    } while (waiting.open && flue_monotonic_ns() < until);
    if (!waiting.failed)
        return FLUE_OK;
    return flue_fail(error, FLUE_UNAVAILABLE, "detector %s: %s (fail_on_missing_metadata is true)",
                     waiting.failed->detector->name,
                     waiting.open ? "no answer in time" : waiting.failed->error.text);
}

static enum flue_code rd_start(void *instance, struct flue_error *error)
{
    struct rd *rd = instance;
    struct flue_loop *loop = rd->loops->items[0];
    struct flue_label labels[] = {
        {"processor", rd->id}, {"pipeline", rd->pipeline}, {NULL, NULL}, {NULL, NULL}};
    rd->known = flue_metric(rd->metrics, FLUE_GAUGE, "processor_resourcedetection_attributes",
                            "attributes that are known and set", labels);
    for (size_t i = 0; i < rd->count; i++) {
        labels[2] = (struct flue_label){"detector", rd->runs[i].detector->name};
        rd->runs[i].failures =
            flue_metric(rd->metrics, FLUE_COUNTER, "processor_resourcedetection_failures",
                        "attempts of a detector that failed", labels);
    }
    flue_loop_call(loop, begin, rd);
    enum flue_code code = wait_for_all(rd, error);
    flue_loop_call(loop, started, rd);
    return code;
}

static void stop(struct flue_loop *loop, void *arg)
{
    struct rd *rd = arg;
    rd->stopping = true;
    give_up(rd);
    atomic_store(&rd->idle, true);
}

static void rd_stop(void *instance, uint64_t deadline_ns)
{
    struct rd *rd = instance;
    flue_loop_call(rd->loops->items[0], stop, rd);
}

static bool rd_stopped(void *instance)
{
    return atomic_load(&((struct rd *)instance)->idle);
}

const struct flue_component flue_processor_resourcedetection = {
    .kind = FLUE_PROCESSOR,
    .name = "resourcedetection",
    .alias = "resource_detection",
    .signals = FLUE_PROFILES | FLUE_TRACES,
    .stability = FLUE_BETA,
    .summary = "adds what this machine knows about itself: host, cloud, cluster, environment",
    .config_size = sizeof(struct rd_config),
    .fields = rd_fields,
    .check = rd_check,
    .create = rd_create,
    .start = rd_start,
    .push = rd_push,
    .stop = rd_stop,
    .stopped = rd_stopped,
    .destroy = rd_destroy,
};
