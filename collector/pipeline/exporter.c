/* exporter.c: the life of an exporter: made, started, drained, taken down; its metrics; its items.
 */
#include "collector/pipeline/item.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include <ctype.h>
#include <stdlib.h>
#include <time.h>

#define FREE_ITEMS_MAX  256
#define LETTERS_WAIT_MS 2000

/* ---- items and lists ------------------------------------------------------------------------- */

struct flue_item *flue_item_new(struct flue_exporter_loop *at, struct flue_branch *branch)
{
    struct flue_item *item = at->free_items;

    if (item) {
        at->free_items = item->next;
        at->free_count--;
    } else if (!(item = malloc(sizeof *item))) {
        return NULL;
    }
    memset(item, 0, sizeof *item);
    item->at = at;
    item->branch = branch;
    item->send.loop = at->loop;
    flue_own_add(&at->live, 1);
    return item;
}

void flue_item_free(struct flue_item *item)
{
    struct flue_exporter_loop *at = item->at;

    flue_queue_release(item);
    flue_batch_unref(item->send.batch);
    free(item->error);
    if (at->free_count < FREE_ITEMS_MAX) {
        item->next = at->free_items;
        at->free_items = item;
        at->free_count++;
    } else {
        free(item);
    }
    flue_own_add(&at->live, -1);
    if (at->draining && atomic_load_explicit(&at->live, memory_order_relaxed) == 0)
        flue_timer_disarm(at->loop, &at->drain_timer);
}

void flue_item_list_insert(struct flue_item_list *list, struct flue_item *before,
                           struct flue_item *item)
{
    item->list = list;
    item->previous = before;
    item->next = before ? before->next : list->first;
    if (before)
        before->next = item;
    else
        list->first = item;
    if (item->next)
        item->next->previous = item;
    else
        list->last = item;
}

void flue_item_unlist(struct flue_item *item)
{
    struct flue_item_list *list = item->list;

    if (item->previous)
        item->previous->next = item->next;
    else
        list->first = item->next;
    if (item->next)
        item->next->previous = item->previous;
    else
        list->last = item->previous;
    item->list = NULL;
    item->next = item->previous = NULL;
}

/* ---- metrics --------------------------------------------------------------------------------- */

static double read_sent(struct flue_exporter *exporter, enum flue_signal signal)
{
    uint64_t samples = 0;

    for (struct flue_branch *branch = exporter->branches; branch; branch = branch->next)
        if (branch->signal == signal)
            samples += flue_ledger_sum(&branch->ledger, FLUE_ROW_SENT).samples;
    return (double)samples;
}

static double read_sent_samples(void *arg)
{
    return read_sent(arg, FLUE_PROFILES);
}

static double read_sent_spans(void *arg)
{
    return read_sent(arg, FLUE_TRACES);
}

static double read_sent_points(void *arg)
{
    return read_sent(arg, FLUE_METRICS);
}

/* The Collector names these by signal: name and help. */
static const struct signal_family {
    enum flue_signal signal;
    double (*read)(void *arg);
    const char *sent[2], *send_failed[2], *enqueue_failed[2];
} families[] = {
    {FLUE_PROFILES,
     read_sent_samples,
     {"exporter_sent_profile_samples", "samples that the destination has taken"},
     {"exporter_send_failed_profile_samples", "samples whose sending failed for good"},
     {"exporter_enqueue_failed_profile_samples", "samples that found no room in the queue"}},
    {FLUE_TRACES,
     read_sent_spans,
     {"exporter_sent_spans", "spans that the destination has taken"},
     {"exporter_send_failed_spans", "spans whose sending failed for good"},
     {"exporter_enqueue_failed_spans", "spans that found no room in the queue"}},
    {FLUE_METRICS,
     read_sent_points,
     {"exporter_sent_metric_points", "metric points that the destination has taken"},
     {"exporter_send_failed_metric_points", "metric points whose sending failed for good"},
     {"exporter_enqueue_failed_metric_points", "metric points that found no room in the queue"}},
};

static double read_queue_size(void *arg)
{
    const struct flue_exporter *exporter = arg;

    if (exporter->log)
        return (double)flue_lag_units(exporter);
    return (double)atomic_load(&((struct flue_exporter *)arg)->used_units);
}

static double read_queue_bytes(void *arg)
{
    return (double)atomic_load(&((struct flue_exporter *)arg)->used_bytes);
}

static double read_in_flight(void *arg)
{
    struct flue_exporter *exporter = arg;
    int64_t sum = 0;

    for (unsigned i = 0; i < exporter->loops->count; i++)
        sum += atomic_load_explicit(&exporter->at[i].sending, memory_order_relaxed);
    return (double)sum;
}

static void make_metrics(struct flue_exporter *exporter)
{
    const struct flue_queue_config *queue = &exporter->settings.sending_queue;
    const struct flue_label own[] = {{"exporter", exporter->id}, {NULL, NULL}};
    const struct flue_label typed[] = {{"exporter", exporter->id},
                                       {"data_type", exporter->signals == FLUE_TRACES ? "traces"
                                                     : exporter->signals == FLUE_METRICS
                                                         ? "metrics"
                                                         : "profiles"},
                                       {NULL, NULL}};
    static const double sizes[] = {10,   25,    50,    75,    100,   250,   500,  750,
                                   1000, 2000,  3000,  4000,  5000,  6000,  7000, 8000,
                                   9000, 10000, 20000, 30000, 50000, 100000};
    struct flue_metrics *metrics = exporter->metrics;

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const struct signal_family *family = &families[i];
        unsigned row = flue_signal_row(family->signal);
        if (!(exporter->signals & family->signal))
            continue;
        flue_metric_callback(metrics, FLUE_COUNTER, family->sent[0], family->sent[1], own,
                             family->read, exporter);
        exporter->send_failed[row] =
            flue_metric(metrics, FLUE_COUNTER, family->send_failed[0], family->send_failed[1], own);
        exporter->enqueue_failed[row] = flue_metric(
            metrics, FLUE_COUNTER, family->enqueue_failed[0], family->enqueue_failed[1], own);
    }
    exporter->retried = flue_metric(metrics, FLUE_COUNTER, "exporter_retried_requests",
                                    "attempts after the first", own);
    flue_metric_callback(metrics, FLUE_GAUGE, "exporter_in_flight_requests",
                         "attempts that run now", own, read_in_flight, exporter);
    if (!exporter->queued)
        return;
    flue_metric_callback(metrics, FLUE_GAUGE, "exporter_queue_size",
                         "what waits or is in flight, in units of sending_queue.sizer", typed,
                         read_queue_size, exporter);
    flue_metric_callback(metrics, FLUE_GAUGE, "exporter_queue_held_bytes",
                         "memory held by what waits or is in flight", typed, read_queue_bytes,
                         exporter);
    exporter->capacity = flue_metric(metrics, FLUE_GAUGE, "exporter_queue_capacity",
                                     "sending_queue.queue_size", typed);
    flue_metric_set(exporter->capacity, queue->queue_size);
    if (queue->batch)
        exporter->batch_size =
            flue_histogram(metrics, "exporter_queue_batch_send_size", "samples of a joined request",
                           own, sizes, sizeof sizes / sizeof sizes[0]);
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool copy_partition_keys(struct flue_exporter *exporter)
{
    const struct flue_batcher_config *batch = exporter->settings.sending_queue.batch;
    const struct flue_list *keys = batch ? &batch->partition.metadata_keys : NULL;

    if (!exporter->queued || !keys || !keys->count)
        return true;
    exporter->partition_keys = calloc(keys->count, sizeof *exporter->partition_keys);
    if (!exporter->partition_keys)
        return false;
    for (size_t i = 0; i < keys->count; i++) {
        char *key = strdup(((const char *const *)keys->items)[i]);
        if (!key)
            return false;
        for (char *c = key; *c; c++)
            *c = (char)tolower((unsigned char)*c);
        exporter->partition_keys[i] = flue_bytes_of(key);
        exporter->partition_count++;
    }
    return true;
}

static void release_memory(struct flue_exporter *exporter)
{
    struct flue_branch *next;

    for (struct flue_branch *branch = exporter->branches; branch; branch = next) {
        next = branch->next;
        flue_ledger_destroy(&branch->ledger);
        free((char *)branch->pipeline);
        free(branch);
    }
    for (size_t i = 0; i < exporter->partition_count; i++)
        free((uint8_t *)exporter->partition_keys[i].data);
    free(exporter->partition_keys);
    flue_flow_destroy(exporter->flow);
    flue_dead_letters_destroy(exporter->dead_letters);
    free(exporter->at);
    free(exporter->id);
    free(exporter);
}

static bool make_flow(struct flue_exporter *exporter)
{
    const struct flue_retry_config *retry = &exporter->settings.retry_on_failure;
    const struct flue_flow_config config = {.exporter = exporter->id,
                                            .circuit = true,
                                            .open_ns = retry->initial_interval,
                                            .open_max_ns = retry->max_interval,
                                            .loops = exporter->loops,
                                            .metrics = exporter->metrics};

    if (!exporter->queued || !exporter->retries)
        return true;
    exporter->flow = flue_flow_new(&config);
    return exporter->flow;
}

static unsigned home_of(const char *id, unsigned loops)
{
    unsigned sum = 0;

    for (; *id; id++)
        sum = sum * 31 + (unsigned char)*id;
    return sum % loops;
}

enum flue_code flue_exporter_new(const struct flue_exporter_spec *spec, struct flue_exporter **out,
                                 struct flue_error *error)
{
    unsigned count = spec->loops->count;
    struct flue_exporter *exporter = aligned_alloc(64, sizeof *exporter);

    *out = NULL;
    if (!exporter)
        goto no_memory;
    memset(exporter, 0, sizeof *exporter);
    exporter->component = spec->component;
    exporter->instance = spec->instance;
    exporter->metrics = spec->metrics;
    exporter->signals = spec->signals ? spec->signals : FLUE_PROFILES;
    exporter->loops = spec->loops;
    if (!spec->component->no_queue && spec->settings) {
        exporter->settings = *spec->settings;
        exporter->queued = spec->settings->sending_queue.enabled;
        exporter->retries = spec->settings->retry_on_failure.enabled;
    }
    exporter->id = strdup(spec->id);
    exporter->at = aligned_alloc(64, count * sizeof *exporter->at);
    if (!exporter->id || !exporter->at || !copy_partition_keys(exporter) || !make_flow(exporter)) {
        release_memory(exporter);
        goto no_memory;
    }
    memset(exporter->at, 0, count * sizeof *exporter->at);
    for (unsigned i = 0; i < count; i++) {
        struct flue_exporter_loop *at = &exporter->at[i];
        at->exporter = exporter;
        at->loop = spec->loops->items[i];
        at->wake.run = flue_queue_wake;
        at->stop.run = flue_queue_stop;
    }
    make_metrics(exporter);
    if (exporter->queued && spec->log) {
        exporter->storage = spec->storage;
        exporter->log = spec->log;
        exporter->home = &exporter->at[home_of(spec->id, count)];
        atomic_init(&exporter->first_own, UINT64_MAX);
        if (spec->dead_letters &&
            flue_dead_letters_new(spec->dead_letters, exporter->id, exporter->metrics,
                                  &exporter->dead_letters, error)) {
            release_memory(exporter);
            goto no_memory;
        }
    }
    *out = exporter;
    return FLUE_OK;
no_memory:
    if (spec->component->destroy)
        flue_component_destroy(spec->component, spec->instance);
    return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", spec->id);
}

const char *flue_exporter_id(const struct flue_exporter *exporter)
{
    return exporter->id;
}

struct flue_branch *flue_branch_new(struct flue_exporter *exporter, const char *pipeline,
                                    enum flue_signal signal, struct flue_account *account)
{
    struct flue_branch *branch = calloc(1, sizeof *branch);
    const unsigned all = (1u << FLUE_ROWS) - 1;
    const unsigned rows = exporter->log ? all : all & ~(1u << FLUE_ROW_RECOVERED);

    if (!branch)
        return NULL;
    branch->exporter = exporter;
    branch->signal = signal;
    branch->account = account;
    branch->pipeline = strdup(pipeline);
    if (!branch->pipeline ||
        !flue_ledger_init(&branch->ledger, "exporter", exporter->id, branch->pipeline, rows,
                          exporter->loops->count, exporter->metrics)) {
        free((char *)branch->pipeline);
        free(branch);
        return NULL;
    }
    branch->next = exporter->branches;
    exporter->branches = branch;
    return branch;
}

enum flue_code flue_exporter_start(struct flue_exporter *exporter, struct flue_error *error)
{
    enum flue_code code = exporter->log ? flue_durable_start(exporter, error) : FLUE_OK;

    return code == FLUE_OK && exporter->component->start
               ? exporter->component->start(exporter->instance, error)
               : code;
}

void flue_exporter_stop(struct flue_exporter *exporter, uint64_t deadline_ns)
{
    if (atomic_load(&exporter->stopping))
        return;
    exporter->stop_deadline_ns = deadline_ns;
    atomic_store(&exporter->stopping, true);
    for (unsigned i = 0; i < exporter->loops->count; i++)
        flue_loop_post(exporter->at[i].loop, &exporter->at[i].stop);
}

bool flue_exporter_stopped(struct flue_exporter *exporter)
{
    const struct flue_component *component = exporter->component;

    if (!exporter->component_stopping) {
        for (unsigned i = 0; i < exporter->loops->count; i++)
            if (atomic_load(&exporter->at[i].live) > 0)
                return false;
        if (atomic_load(&exporter->handovers))
            return false;
        exporter->component_stopping = true;
        if (component->stop)
            component->stop(exporter->instance, exporter->stop_deadline_ns);
    }
    return !component->stopped || component->stopped(exporter->instance);
}

void flue_exporter_state(const struct flue_exporter *exporter, struct flue_exporter_state *out)
{
    memset(out, 0, sizeof *out);
    out->durable = exporter->log;
    for (const struct flue_branch *branch = exporter->branches; branch; branch = branch->next) {
        const struct flue_ledger *ledger = &branch->ledger;
        struct flue_counts rows[FLUE_ROWS];
        for (unsigned row = 0; row < FLUE_ROWS; row++)
            rows[row] = flue_ledger_sum(ledger, (enum flue_ledger_row)row);
        struct flue_counts dropped = flue_ledger_dropped(ledger);
        flue_counts_add(&out->received, &rows[FLUE_ROW_RECEIVED]);
        flue_counts_add(&out->recovered, &rows[FLUE_ROW_RECOVERED]);
        flue_counts_add(&out->sent, &rows[FLUE_ROW_SENT]);
        flue_counts_add(&out->queued, &rows[FLUE_ROW_QUEUED]);
        flue_counts_add(&out->in_flight, &rows[FLUE_ROW_IN_FLIGHT]);
        flue_counts_add(&out->dropped, &dropped);
        out->lost.profiles += (uint64_t)atomic_load(&ledger->lost[0]);
        out->lost.samples += (uint64_t)atomic_load(&ledger->lost[1]);
        out->lost.bytes += (uint64_t)atomic_load(&ledger->lost[2]);
        out->lost_items += (uint64_t)atomic_load(&ledger->lost_items);
    }
    for (unsigned i = 0; i < exporter->loops->count; i++) {
        out->queued_items += (uint64_t)atomic_load(&exporter->at[i].queued_items);
        out->in_flight_items += (uint64_t)atomic_load(&exporter->at[i].sending);
    }
}

void flue_exporter_destroy(struct flue_exporter *exporter)
{
    if (!exporter)
        return;
    atomic_store(&exporter->stopping, true);
    if (exporter->log)
        flue_storage_watch(exporter->log, NULL, NULL, NULL);
    /* Nothing is sent any more; what the component ends from now on is counted as it says. */
    for (unsigned i = 0; i < exporter->loops->count; i++)
        flue_queue_expire(&exporter->at[i]);
    if (exporter->component->destroy)
        flue_component_destroy(exporter->component, exporter->instance);
    for (unsigned i = 0; i < exporter->loops->count; i++) {
        struct flue_exporter_loop *at = &exporter->at[i];
        struct flue_error error;
        struct flue_item *item;

        (void)flue_fail(&error, FLUE_SHUTTING_DOWN, "exporter %s ended without an answer",
                        exporter->id);
        while ((item = at->running.first)) {
            if (item->state == FLUE_ITEM_SENDING)
                flue_own_add(&at->sending, -1);
            if (item->ticketed)
                flue_flow_give(exporter->flow, &item->ticket, FLUE_FLOW_UNKNOWN, 0);
            flue_item_fail(item, FLUE_DROP_SHUTDOWN, FLUE_RESULT_FAILED, &error);
        }
        flue_timer_disarm(at->loop, &at->drain_timer);
        while ((item = at->free_items)) {
            at->free_items = item->next;
            free(item);
        }
    }
    flue_loops_settle(exporter->loops);
    for (int i = 0; i < LETTERS_WAIT_MS && atomic_load(&exporter->handovers); i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* letters being written */
        flue_loops_settle(exporter->loops);
    }
    if (atomic_load(&exporter->handovers))
        return;
    /* A disk that hangs has not answered for them yet, and will while the loops are taken down. */
    for (unsigned i = 0; i < exporter->loops->count; i++)
        if (exporter->log && atomic_load(&exporter->at[i].live) > 0)
            return;
    release_memory(exporter);
}
