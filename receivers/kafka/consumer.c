/* consumer.c: the member of the group: polling, rebalances, commits, and its end. */
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "collector/base/log.h"
#include "receivers/kafka/consumer_inside.h"

#define RECORDS_A_TURN 64
#define LOOK_NS        1000000000u /* at least so often: the group's liveness, missed wake-ups */
#define CLOSE_NS       1000000000u /* of the time to stop, kept for leaving the group */

static void on_timer(struct flue_timer *timer);

void kafka_consumer_wake_at(struct kafka_consumer *consumer, uint64_t due_ns)
{
    if (!consumer->timer.due_ns || due_ns < consumer->timer.due_ns)
        flue_timer_arm(consumer->home, &consumer->timer, due_ns);
}

static struct kafka_partition *next_partition(struct kafka_consumer *consumer, size_t *bucket,
                                              struct kafka_partition *at)
{
    if (at && at->next)
        return at->next;
    for (size_t i = at ? *bucket + 1 : 0; i < KAFKA_BUCKETS; i++)
        if (consumer->buckets[i]) {
            *bucket = i;
            return consumer->buckets[i];
        }
    return NULL;
}

/* ---- offsets -----------------------------------------------------------------------------------
 */

/* What was taken since, into librdkafka's books; from there it is committed. */
static void store_offsets(struct kafka_consumer *consumer)
{
    const struct flue_kafka *library = consumer->library;
    rd_kafka_topic_partition_list_t *list;
    size_t bucket = 0;

    if (!consumer->dirty)
        return;
    consumer->dirty = false;
    list = library->rd_kafka_topic_partition_list_new((int)consumer->partition_count);
    for (struct kafka_partition *at = next_partition(consumer, &bucket, NULL); at;
         at = next_partition(consumer, &bucket, at)) {
        if (at->to_store <= at->stored)
            continue;
        library->rd_kafka_topic_partition_list_add(list, at->topic, at->number)->offset =
            at->to_store;
        at->stored = at->to_store;
    }
    if (list->cnt > 0) {
        (void)library->rd_kafka_offsets_store(consumer->rk, list);
        if (!consumer->settings->autocommit)
            (void)library->rd_kafka_commit(consumer->rk, list, 1);
    }
    library->rd_kafka_topic_partition_list_destroy(list);
}

/* ---- rebalances --------------------------------------------------------------------------------
 */

static bool cooperative(const struct kafka_consumer *consumer)
{
    const char *protocol = consumer->library->rd_kafka_rebalance_protocol(consumer->rk);
    return protocol && strcmp(protocol, "COOPERATIVE") == 0;
}

static void say_error(struct kafka_consumer *consumer, const char *what, rd_kafka_error_t *error)
{
    if (!error)
        return;
    flue_log(FLUE_ERROR, "receiver", what, FLUE_S("receiver", consumer->settings->id),
             FLUE_S("error", consumer->library->rd_kafka_error_string(error)));
    consumer->library->rd_kafka_error_destroy(error);
}

static void take_on(struct kafka_consumer *consumer, const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *new = &list->elems[i];
        struct kafka_partition *before = kafka_partition_find(consumer, new->topic, new->partition);
        if (before)
            kafka_partition_leave(before);
        /* Without memory its records are dropped and come again with the next assignment. */
        if (!kafka_partition_new(consumer, new->topic, new->partition))
            flue_log(FLUE_ERROR, "receiver", "no memory for a partition",
                     FLUE_S("receiver", consumer->settings->id), FLUE_S("topic", new->topic),
                     FLUE_I("partition", new->partition));
    }
    if (cooperative(consumer))
        say_error(consumer, "partitions were not taken on",
                  consumer->library->rd_kafka_incremental_assign(consumer->rk, list));
    else
        (void)consumer->library->rd_kafka_assign(consumer->rk, list);
    flue_log(FLUE_INFO, "receiver", "partitions taken on",
             FLUE_S("receiver", consumer->settings->id), FLUE_I("partitions", list->cnt),
             FLUE_U("all", consumer->partition_count));
}

static void unassign(struct kafka_consumer *consumer, const rd_kafka_topic_partition_list_t *list)
{
    if (cooperative(consumer))
        say_error(consumer, "partitions were not given up",
                  consumer->library->rd_kafka_incremental_unassign(consumer->rk, list));
    else
        (void)consumer->library->rd_kafka_assign(consumer->rk, NULL);
}

/* Offsets first: they are committed while the partitions are still ours. */
static void give_up(struct kafka_consumer *consumer, rd_kafka_topic_partition_list_t *list,
                    bool lost)
{
    if (!lost) {
        store_offsets(consumer);
        (void)consumer->library->rd_kafka_commit(consumer->rk, NULL, 1);
    }
    for (int i = 0; i < list->cnt; i++) {
        struct kafka_partition *partition =
            kafka_partition_find(consumer, list->elems[i].topic, list->elems[i].partition);
        if (partition)
            kafka_partition_leave(partition);
    }
    unassign(consumer, list);
    flue_log(FLUE_INFO, "receiver", lost ? "partitions lost" : "partitions given up",
             FLUE_S("receiver", consumer->settings->id), FLUE_I("partitions", list->cnt),
             FLUE_U("left", consumer->partition_count));
}

static bool any_open(struct kafka_consumer *consumer, const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++) {
        struct kafka_partition *partition =
            kafka_partition_find(consumer, list->elems[i].topic, list->elems[i].partition);
        if (partition && partition->pushed)
            return true;
    }
    return false;
}

static void look_at_revoked(struct kafka_consumer *consumer)
{
    rd_kafka_topic_partition_list_t *list = consumer->revoking;

    if (!list)
        return;
    if (any_open(consumer, list) && flue_monotonic_ns() < consumer->revoke_ns) {
        kafka_consumer_wake_at(consumer, consumer->revoke_ns);
        return;
    }
    consumer->revoking = NULL;
    give_up(consumer, list, false);
    consumer->library->rd_kafka_topic_partition_list_destroy(list);
}

/* From rd_kafka_consumer_poll on the home loop; from rd_kafka_consumer_close on the pool, when
 * nothing else of the consumer runs any more. */
static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t what,
                         rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct kafka_consumer *consumer = opaque;

    if (consumer->closing) {
        if (what == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS)
            unassign(consumer, list);
        else
            (void)consumer->library->rd_kafka_assign(rk, NULL);
        return;
    }
    if (what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        take_on(consumer, list);
        return;
    }
    if (what != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
        (void)consumer->library->rd_kafka_assign(rk, NULL);
        return;
    }
    if (consumer->library->rd_kafka_assignment_lost(rk)) {
        give_up(consumer, list, true);
        return;
    }
    for (int i = 0; i < list->cnt; i++) {
        struct kafka_partition *partition =
            kafka_partition_find(consumer, list->elems[i].topic, list->elems[i].partition);
        if (partition)
            kafka_partition_forget(partition);
    }
    consumer->revoking = consumer->library->rd_kafka_topic_partition_list_copy(list);
    consumer->revoke_ns = flue_monotonic_ns() + (uint64_t)consumer->settings->revoke_timeout;
    look_at_revoked(consumer);
}

/* ---- records -----------------------------------------------------------------------------------
 */

static void on_error(rd_kafka_t *rk, int code, const char *text, void *opaque)
{
    struct kafka_consumer *consumer = opaque;
    char printable[200], fatal[200] = "";

    flue_metric_add(consumer->errors, 1);
    if (code == RD_KAFKA_RESP_ERR__FATAL)
        consumer->library->rd_kafka_fatal_error(rk, fatal, sizeof fatal);
    flue_printable(flue_bytes_of(fatal[0] ? fatal : text), printable, sizeof printable);
    flue_log(fatal[0] ? FLUE_ERROR : FLUE_WARN, "receiver",
             fatal[0] ? "kafka: this consumer cannot go on; restart it" : "kafka",
             FLUE_S("receiver", consumer->settings->id), FLUE_S("error", printable),
             FLUE_S("hint", code == RD_KAFKA_RESP_ERR__AUTHENTICATION
                                ? consumer->settings->login_hint
                                : ""));
}

/* A partition or topic is in trouble; the library goes on trying. */
static void on_partition_error(struct kafka_consumer *consumer, const rd_kafka_message_t *record)
{
    flue_metric_add(consumer->errors, 1);
    flue_log(
        FLUE_WARN, "receiver", "kafka", FLUE_S("receiver", consumer->settings->id),
        FLUE_S("topic", record->rkt ? consumer->library->rd_kafka_topic_name(record->rkt) : ""),
        FLUE_I("partition", record->partition),
        FLUE_S("error", consumer->library->rd_kafka_err2str(record->err)));
}

/* False: no memory, the record is parked. */
static bool take(struct kafka_consumer *consumer, rd_kafka_message_t *record)
{
    const struct flue_kafka *library = consumer->library;
    struct kafka_partition *partition = NULL;

    if (record->err) {
        on_partition_error(consumer, record);
    } else {
        partition = kafka_partition_find(consumer, library->rd_kafka_topic_name(record->rkt),
                                         record->partition);
    }
    if (!partition || partition->revoking) { /* another will have it */
        library->rd_kafka_message_destroy(record);
        return true;
    }
    if (!kafka_partition_take(partition, record)) {
        consumer->parked = record;
        kafka_consumer_wake_at(consumer, flue_monotonic_ns() + LOOK_NS / 10);
        return false;
    }
    kafka_partition_go_on(partition);
    return true;
}

static void poll_records(struct kafka_consumer *consumer)
{
    rd_kafka_message_t *record = consumer->parked;

    consumer->parked = NULL;
    if (record && !take(consumer, record))
        return;
    for (unsigned i = 0; i < RECORDS_A_TURN && !consumer->closing; i++) {
        record = consumer->library->rd_kafka_consumer_poll(consumer->rk, 0);
        if (!record) {
            store_offsets(consumer);
            return;
        }
        if (!take(consumer, record))
            return;
    }
    store_offsets(consumer);
    flue_kafka_wakeup_again(&consumer->wakeup);
}

static void woken(struct flue_kafka_wakeup *wakeup)
{
    poll_records(
        (struct kafka_consumer *)((char *)wakeup - offsetof(struct kafka_consumer, wakeup)));
}

/* ---- the end -----------------------------------------------------------------------------------
 */

static void destroy_handle(struct kafka_consumer *consumer)
{
    const struct flue_kafka *library = consumer->library;

    if (consumer->parked)
        library->rd_kafka_message_destroy(consumer->parked);
    consumer->parked = NULL;
    if (consumer->queue)
        library->rd_kafka_queue_destroy(consumer->queue);
    consumer->queue = NULL;
    if (consumer->rk) {
        (void)library->rd_kafka_consumer_close(consumer->rk); /* commits, and leaves the group */
        library->rd_kafka_destroy(consumer->rk);
    }
    consumer->rk = NULL;
    if (consumer->prefetch)
        flue_account_release(consumer->account, consumer->prefetch);
    consumer->prefetch = 0;
    flue_kafka_wakeup_close_fd(&consumer->wakeup);
}

static void close_work(struct flue_job *job)
{
    destroy_handle((struct kafka_consumer *)((char *)job - offsetof(struct kafka_consumer, close)));
}

static void close_done(struct flue_job *job)
{
    struct kafka_consumer *consumer =
        (struct kafka_consumer *)((char *)job - offsetof(struct kafka_consumer, close));
    atomic_store(&consumer->close_pending, false);
    atomic_store(&consumer->stopped, true);
}

static void polled_no_more(struct flue_kafka_wakeup *wakeup)
{
    struct kafka_consumer *consumer =
        (struct kafka_consumer *)((char *)wakeup - offsetof(struct kafka_consumer, wakeup));
    consumer->polled = false;
    consumer->close = (struct flue_job){.work = close_work, .done = close_done};
    flue_pool_submit(consumer->home, &consumer->close);
}

static void leave_all(struct kafka_consumer *consumer)
{
    struct kafka_partition *partition;
    size_t bucket = 0;

    while ((partition = next_partition(consumer, &bucket, NULL)))
        kafka_partition_leave(partition);
}

static void look_at_end(struct kafka_consumer *consumer)
{
    uint64_t now = flue_monotonic_ns();

    if (!consumer->stopping || consumer->closing)
        return;
    if (consumer->open && now < consumer->deadline_ns) {
        kafka_consumer_wake_at(consumer, consumer->deadline_ns);
        return;
    }
    if (consumer->open && !consumer->cancelled) {
        consumer->cancelled = true;
        for (unsigned i = 0; i < consumer->loops->count; i++)
            flue_loop_post(consumer->per_loop[i].loop, &consumer->per_loop[i].cancel);
    }
    if (consumer->open) /* each comes back */
        return;
    store_offsets(consumer);
    if (consumer->revoking)
        consumer->library->rd_kafka_topic_partition_list_destroy(consumer->revoking);
    consumer->revoking = NULL;
    leave_all(consumer);
    consumer->closing = true;
    flue_timer_disarm(consumer->home, &consumer->timer);
    atomic_store(&consumer->close_pending, true);
    flue_kafka_wakeup_stop(&consumer->wakeup, polled_no_more);
}

void kafka_consumer_look(struct kafka_consumer *consumer)
{
    look_at_revoked(consumer);
    if (consumer->dirty && !consumer->closing)
        store_offsets(consumer);
    look_at_end(consumer);
}

static void on_timer(struct flue_timer *timer)
{
    struct kafka_consumer *consumer =
        (struct kafka_consumer *)((char *)timer - offsetof(struct kafka_consumer, timer));
    struct kafka_partition *partition;
    size_t bucket = 0;

    kafka_consumer_wake_at(consumer, flue_monotonic_ns() + LOOK_NS);
    if (!consumer->stopping) {
        for (partition = next_partition(consumer, &bucket, NULL); partition;
             partition = next_partition(consumer, &bucket, partition))
            kafka_partition_go_on(partition);
        poll_records(consumer);
    }
    kafka_consumer_look(consumer);
}

static void begin_stop(struct flue_task *task)
{
    struct kafka_consumer *consumer =
        (struct kafka_consumer *)((char *)task - offsetof(struct kafka_consumer, stop));
    struct kafka_partition *partition;
    size_t bucket = 0;

    consumer->stopping = true;
    for (partition = next_partition(consumer, &bucket, NULL); partition;
         partition = next_partition(consumer, &bucket, partition))
        kafka_partition_forget(partition);
    kafka_consumer_look(consumer);
}

void kafka_consumer_stop(struct kafka_consumer *consumer, uint64_t deadline_ns)
{
    if (!consumer->rk) {
        atomic_store(&consumer->stopped, true);
        return;
    }
    consumer->deadline_ns = deadline_ns > CLOSE_NS ? deadline_ns - CLOSE_NS : 0;
    consumer->stop.run = begin_stop;
    flue_loop_post(consumer->home, &consumer->stop);
}

bool kafka_consumer_stopped(const struct kafka_consumer *consumer)
{
    return atomic_load(&consumer->stopped);
}

/* ---- the beginning -----------------------------------------------------------------------------
 */

static void make_metrics(struct kafka_consumer *c, const struct flue_create *create)
{
    static const double bounds[] = {0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600};
    const struct flue_label own[] = {{"receiver", create->id}, {NULL, NULL}};
    const struct flue_label over[] = {
        {"receiver", create->id}, {"transport", "kafka"}, {NULL, NULL}};
    struct flue_metrics *m = create->metrics;

    c->accepted = flue_metric(m, FLUE_COUNTER, "receiver_accepted_profile_samples",
                              "samples taken by every pipeline of the receiver", over);
    c->refused = flue_metric(m, FLUE_COUNTER, "receiver_refused_profile_samples",
                             "samples given back to their sender", over);
    c->failed = flue_metric(m, FLUE_COUNTER, "receiver_failed_profile_samples",
                            "samples refused because something failed here", over);
    c->rejected = flue_metric(m, FLUE_COUNTER, "receiver_rejected_profiles",
                              "profiles taken out of requests because they are broken", own);
    c->repaired = flue_metric(m, FLUE_COUNTER, "receiver_repaired_strings",
                              "strings whose invalid UTF-8 was replaced", own);
    c->messages =
        flue_metric(m, FLUE_COUNTER, "kafka_receiver_messages", "records read from Kafka", own);
    c->poison = flue_metric(m, FLUE_COUNTER, "kafka_receiver_poison_messages",
                            "records set past because they can never be taken", own);
    c->lost = flue_metric(m, FLUE_COUNTER, "kafka_receiver_lost_messages",
                          "records set past by message_marking.on_error", own);
    c->retried = flue_metric(m, FLUE_COUNTER, "kafka_receiver_retried_messages",
                             "records that a pipeline did not take, to be pushed again", own);
    c->left_out = flue_metric(m, FLUE_COUNTER, "kafka_receiver_left_out_headers",
                              "headers of records over their limits", own);
    c->assigned = flue_metric(m, FLUE_GAUGE, "kafka_receiver_partitions",
                              "partitions that this member of the group reads", own);
    c->errors = flue_metric(m, FLUE_COUNTER, "kafka_receiver_errors",
                            "errors of brokers, topics and partitions", own);
    if (c->settings->delay_metric)
        c->delay = flue_histogram(m, "kafka_receiver_records_delay",
                                  "seconds between writing and reading a record", own, bounds,
                                  sizeof bounds / sizeof bounds[0]);
}

struct kafka_consumer *kafka_consumer_new(const struct kafka_consumer_settings *settings,
                                          const struct flue_create *create)
{
    struct kafka_consumer *consumer = calloc(1, sizeof *consumer);
    unsigned count = create->loops->count;

    if (!consumer || !(consumer->per_loop = calloc(count, sizeof *consumer->per_loop))) {
        free(consumer);
        return NULL;
    }
    consumer->settings = settings;
    consumer->pipelines = create->profiles;
    consumer->account = create->profiles ? flue_consumer_account(create->profiles) : NULL;
    consumer->loops = create->loops;
    consumer->home = create->loops->items[flue_hash(flue_bytes_of(create->id)) % count];
    consumer->timer.fire = on_timer;
    consumer->wakeup.fd = -1;
    for (unsigned i = 0; i < count; i++) {
        consumer->per_loop[i].consumer = consumer;
        consumer->per_loop[i].loop = create->loops->items[i];
        consumer->per_loop[i].cancel.run = kafka_messages_cancel;
    }
    make_metrics(consumer, create);
    return consumer;
}

static enum flue_code subscribe(struct kafka_consumer *consumer, struct flue_error *error)
{
    const struct flue_kafka *library = consumer->library;
    const struct flue_list *topics = &consumer->settings->topics;
    rd_kafka_topic_partition_list_t *list =
        library->rd_kafka_topic_partition_list_new((int)topics->count);

    for (size_t i = 0; i < topics->count; i++)
        library->rd_kafka_topic_partition_list_add(list, ((const char *const *)topics->items)[i],
                                                   RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t code = library->rd_kafka_subscribe(consumer->rk, list);
    library->rd_kafka_topic_partition_list_destroy(list);
    return code ? flue_fail(error, FLUE_INVALID, "profiles.topics: %s",
                            library->rd_kafka_err2str(code))
                : FLUE_OK;
}

struct starting {
    struct kafka_consumer *consumer;
    struct flue_error *error;
    enum flue_code code;
};

static void begin(struct flue_loop *loop, void *arg)
{
    struct starting *starting = arg;
    struct kafka_consumer *consumer = starting->consumer;

    starting->code = flue_kafka_wakeup_start(&consumer->wakeup, loop, starting->error);
    consumer->polled = !starting->code;
    if (consumer->polled)
        kafka_consumer_wake_at(consumer, flue_monotonic_ns() + LOOK_NS / 10);
}

enum flue_code kafka_consumer_start(struct kafka_consumer *consumer,
                                    const struct flue_kafka *library, rd_kafka_conf_t *conf,
                                    struct flue_error *error)
{
    struct starting starting = {.consumer = consumer, .error = error};
    char why[300] = "";

    consumer->library = library;
    library->rd_kafka_conf_set_opaque(conf, consumer);
    library->rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    library->rd_kafka_conf_set_error_cb(conf, on_error);
    if (flue_kafka_wakeup_init(&consumer->wakeup, woken, error)) {
        library->rd_kafka_conf_destroy(conf);
        return error->code;
    }
    consumer->rk = library->rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!consumer->rk) {
        library->rd_kafka_conf_destroy(conf);
        return flue_fail(error, FLUE_INVALID, "librdkafka: %s", why);
    }
    if (consumer->account) {
        consumer->prefetch = (size_t)consumer->settings->max_prefetch_bytes;
        flue_account_charge_always(consumer->account, consumer->prefetch);
    }
    library->rd_kafka_poll_set_consumer(consumer->rk);
    consumer->queue = library->rd_kafka_queue_get_consumer(consumer->rk);
    library->rd_kafka_queue_io_event_enable(consumer->queue, consumer->wakeup.fd,
                                            &FLUE_KAFKA_WAKEUP_ONE, sizeof FLUE_KAFKA_WAKEUP_ONE);
    if (subscribe(consumer, error))
        return error->code;
    flue_loop_call(consumer->home, begin, &starting);
    return starting.code;
}

static void free_consumer(struct kafka_consumer *consumer)
{
    free(consumer->per_loop);
    free(consumer);
}

static void free_closed(uv_handle_t *handle)
{
    struct flue_kafka_wakeup *wakeup = handle->data;
    free_consumer(
        (struct kafka_consumer *)((char *)wakeup - offsetof(struct kafka_consumer, wakeup)));
}

static void close_poll(struct flue_loop *loop, void *arg)
{
    struct kafka_consumer *consumer = arg;
    flue_timer_disarm(loop, &consumer->timer);
    uv_close((uv_handle_t *)&consumer->wakeup.poll, free_closed);
}

void kafka_consumer_destroy(struct kafka_consumer *consumer)
{
    if (!consumer)
        return;
    /* The pool still leaves the group: what is left ends with the process. */
    if (atomic_load(&consumer->close_pending))
        return;
    if (consumer->rk) { /* it was never stopped */
        consumer->closing = true;
        leave_all(consumer);
        destroy_handle(consumer);
    }
    if (consumer->polled) {
        flue_loop_call(consumer->home, close_poll, consumer);
        return;
    }
    flue_kafka_wakeup_close_fd(&consumer->wakeup);
    free_consumer(consumer);
}
