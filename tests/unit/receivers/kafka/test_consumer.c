/* The order of a partition's records, what of them is committed, back-pressure and the ends of a
 * membership, on librdkafka's own mock of a cluster. Pushing a record is the test's: it says when
 * each comes back and with what. */
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "receivers/kafka/consumer.c"
#include "receivers/kafka/partition.c"
void push_for_good(struct kafka_message *message);
void cancel_for_good(struct flue_task *task);
#define kafka_message_push    push_for_good
#define kafka_messages_cancel cancel_for_good
#include "receivers/kafka/message.c"
#undef kafka_message_push
#undef kafka_messages_cancel
#include "tests/unit/collector/kafka/tsan.h"
#include <cmocka.h>

#define TOPIC      "t"
#define PARTITIONS 2
#define AWAY_MAX   64

/* ---- what is on its way ------------------------------------------------------------------------
 */

static struct {
    uv_mutex_t lock;
    struct kafka_message *items[AWAY_MAX]; /* as they were pushed */
    size_t count;
    unsigned cancels;
} away_now;

void kafka_message_push(struct kafka_message *message)
{
    message->state = KAFKA_PUSHED;
    uv_mutex_lock(&away_now.lock);
    assert_true(away_now.count < AWAY_MAX);
    away_now.items[away_now.count++] = message;
    uv_mutex_unlock(&away_now.lock);
}

void kafka_messages_cancel(struct flue_task *task)
{
    uv_mutex_lock(&away_now.lock);
    away_now.cancels++;
    uv_mutex_unlock(&away_now.lock);
}

static size_t count_away(void)
{
    uv_mutex_lock(&away_now.lock);
    size_t count = away_now.count;
    uv_mutex_unlock(&away_now.lock);
    return count;
}

static unsigned cancels(void)
{
    uv_mutex_lock(&away_now.lock);
    unsigned count = away_now.cancels;
    uv_mutex_unlock(&away_now.lock);
    return count;
}

#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        uint64_t end_ns = flue_monotonic_ns() + 120000000000u;                                     \
        for (; !(condition); uv_sleep(2))                                                          \
            if (flue_monotonic_ns() > end_ns)                                                      \
                fail_msg("waited in vain for " #condition);                                        \
    } while (0)

/* "0 1 4": offsets of a partition on their way, in the order in which they were pushed. */
static const char *offsets_away(int32_t partition)
{
    static char text[AWAY_MAX * 8];
    size_t used = 0;

    text[0] = 0;
    uv_mutex_lock(&away_now.lock);
    for (size_t i = 0; i < away_now.count; i++)
        if (away_now.items[i]->partition->number == partition)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld", used ? " " : "",
                                     (long long)away_now.items[i]->offset);
    uv_mutex_unlock(&away_now.lock);
    return text;
}

struct ending {
    struct kafka_message *message;
    enum flue_code code;
};

static void end_one(struct flue_loop *loop, void *arg)
{
    struct ending *ending = arg;
    if (ending->code)
        flue_fail(&ending->message->error, ending->code, "as the test wants it");
    else
        ending->message->error.code = FLUE_OK;
    kafka_message_back(ending->message);
}

static void back_with(int32_t partition, int64_t offset, enum flue_code code)
{
    struct ending ending = {NULL, code};

    uv_mutex_lock(&away_now.lock);
    for (size_t i = 0; i < away_now.count && !ending.message; i++) {
        struct kafka_message *message = away_now.items[i];
        if (message->partition->number != partition || message->offset != offset)
            continue;
        ending.message = message;
        away_now.count--;
        memmove(&away_now.items[i], &away_now.items[i + 1],
                (away_now.count - i) * sizeof away_now.items[0]);
    }
    uv_mutex_unlock(&away_now.lock);
    assert_non_null(ending.message);
    flue_loop_call(ending.message->partition->consumer->home, end_one, &ending);
}

/* ---- a cluster ---------------------------------------------------------------------------------
 */

static struct {
    const struct flue_kafka *kafka;
    rd_kafka_t *rk;
    rd_kafka_mock_cluster_t *cluster;
    __typeof__(&rd_kafka_mock_cluster_new) cluster_new;
    __typeof__(&rd_kafka_mock_cluster_destroy) cluster_destroy;
    __typeof__(&rd_kafka_mock_cluster_bootstraps) bootstraps;
    __typeof__(&rd_kafka_mock_topic_create) topic_create;
    __typeof__(&rd_kafka_flush) flush;
    __typeof__(&rd_kafka_poll) poll;
    __typeof__(&rd_kafka_committed) committed;
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_budget budget;
    struct flue_account account;
    struct flue_error error;
} rig;

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);
    assert_non_null(found);
    return found;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    assert_int_equal(flue_kafka_set(rig.kafka, conf, name, value, "test", false, &rig.error),
                     FLUE_OK);
}

static int begin_rig(void **state)
{
    char why[200];

    memset(&away_now, 0, sizeof away_now);
    memset(&rig, 0, sizeof rig);
    uv_mutex_init(&away_now.lock);
    if (!(rig.kafka = flue_kafka_load(&rig.error)))
        return 0;
    void *library = dlopen("librdkafka.so.1", RTLD_NOW | RTLD_NOLOAD);
    *(void **)&rig.cluster_new = symbol(library, "rd_kafka_mock_cluster_new");
    *(void **)&rig.cluster_destroy = symbol(library, "rd_kafka_mock_cluster_destroy");
    *(void **)&rig.bootstraps = symbol(library, "rd_kafka_mock_cluster_bootstraps");
    *(void **)&rig.topic_create = symbol(library, "rd_kafka_mock_topic_create");
    *(void **)&rig.flush = symbol(library, "rd_kafka_flush");
    *(void **)&rig.poll = symbol(library, "rd_kafka_poll");
    *(void **)&rig.committed = symbol(library, "rd_kafka_committed");
    dlclose(library); /* it stays: flue never unloads it */
    rd_kafka_conf_t *conf = rig.kafka->rd_kafka_conf_new();
    set(conf, "bootstrap.servers", "127.0.0.1:1"); /* until there is a cluster */
    set(conf, "log_level", "0");
    set(conf, "linger.ms", "0");
    rig.rk = rig.kafka->rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    assert_non_null(rig.rk);
    rig.cluster = rig.cluster_new(rig.rk, 1);
    assert_non_null(rig.cluster);
    assert_int_equal(rig.topic_create(rig.cluster, TOPIC, PARTITIONS, 1), 0);
    /* The one that owns the cluster need not know it; the one that writes does. */
    assert_int_equal(flue_loops_new(2, &rig.loops, &rig.error), FLUE_OK);
    rig.metrics = flue_metrics_new("otelcol_");
    flue_budget_init(&rig.budget, 100 << 20);
    flue_account_init(&rig.account, &rig.budget, "test", 100 << 20);
    return 0;
}

static int end_rig(void **state)
{
    if (!rig.kafka)
        return 0;
    rig.cluster_destroy(rig.cluster);
    rig.kafka->rd_kafka_destroy(rig.rk);
    flue_loops_destroy(rig.loops);
    flue_metrics_destroy(rig.metrics);
    assert_int_equal(atomic_load(&rig.account.used), 0);
    uv_mutex_destroy(&away_now.lock);
    return 0;
}

static void write_records(int32_t partition, unsigned count)
{
    rd_kafka_conf_t *conf = rig.kafka->rd_kafka_conf_new();
    char why[200];

    set(conf, "bootstrap.servers", rig.bootstraps(rig.cluster));
    set(conf, "log_level", "0");
    set(conf, "batch.num.messages", "3"); /* several batches in the log */
    rd_kafka_t *rk = rig.kafka->rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    assert_non_null(rk);
    for (unsigned i = 0; i < count; i++) {
        rd_kafka_vu_t vus[3] = {{.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = TOPIC},
                                {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = partition},
                                {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {(void *)"value", 5}}};
        assert_null(rig.kafka->rd_kafka_produceva(rk, vus, 3));
    }
    assert_int_equal(rig.flush(rk, 20000), RD_KAFKA_RESP_ERR_NO_ERROR);
    rig.kafka->rd_kafka_destroy(rk);
}

/* ---- a member of the group ----------------------------------------------------------------------
 */

/* The mock lets a group wait three seconds for its first member. Most tests have no group but a
 * rebalance of their own. */
static rd_kafka_resp_err_t do_not_subscribe(rd_kafka_t *rk,
                                            const rd_kafka_topic_partition_list_t *list)
{
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static struct flue_kafka alone;

static void assign_all(struct flue_loop *loop, void *arg)
{
    struct kafka_consumer *consumer = arg;
    rd_kafka_topic_partition_list_t *list =
        rig.kafka->rd_kafka_topic_partition_list_new(PARTITIONS);

    for (int32_t i = 0; i < PARTITIONS; i++)
        rig.kafka->rd_kafka_topic_partition_list_add(list, TOPIC, i);
    on_rebalance(consumer->rk, RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS, list, consumer);
    rig.kafka->rd_kafka_topic_partition_list_destroy(list);
}

struct member {
    struct kafka_consumer_settings settings;
    struct flue_create create;
    struct kafka_consumer *consumer;
};

static const char *const topics[] = {TOPIC};

static struct kafka_consumer_settings settings_of(const char *id)
{
    return (struct kafka_consumer_settings){
        .id = id,
        .topics = {(void *)topics, 1},
        .mark_after = true,
        .past_permanent = true,
        .backoff_grows = true,
        .backoff_initial = 5000000,
        .backoff_max = 20000000,
        .backoff_multiplier = 1.5,
        .max_in_flight_messages = 100,
        .max_in_flight_bytes = 1 << 20,
        .max_prefetch_bytes = 1 << 20,
        .revoke_timeout = 30000000000,
        .login_hint = "",
    };
}

static void join(struct member *member, const struct flue_kafka *library)
{
    rd_kafka_conf_t *conf = rig.kafka->rd_kafka_conf_new();
    const char *pairs[][2] = {
        {"group.id", "g"},
        {"auto.offset.reset", "earliest"},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"partition.assignment.strategy", "cooperative-sticky"},
        {"session.timeout.ms", "3000"}, /* the mock waits a second less in each round */
        {"heartbeat.interval.ms", "50"},
        {"fetch.wait.max.ms", "20"},
        {"log_level", "0"}};

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        set(conf, pairs[i][0], pairs[i][1]);
    set(conf, "bootstrap.servers", rig.bootstraps(rig.cluster));
    member->create =
        (struct flue_create){.id = member->settings.id, .loops = rig.loops, .metrics = rig.metrics};
    member->consumer = kafka_consumer_new(&member->settings, &member->create);
    assert_non_null(member->consumer);
    member->consumer->account = &rig.account;
    if (kafka_consumer_start(member->consumer, library, conf, &rig.error))
        fail_msg("%s", rig.error.text);
}

static void join_group(struct member *member)
{
    join(member, rig.kafka);
}

static void run(struct member *member)
{
    alone = *rig.kafka;
    alone.rd_kafka_subscribe = do_not_subscribe;
    join(member, &alone);
    assert_int_equal(flue_loops_run(rig.loops, &rig.error), FLUE_OK);
    flue_loop_call(member->consumer->home, assign_all, member->consumer);
}

static void leave_group(struct member *member)
{
    kafka_consumer_stop(member->consumer, flue_monotonic_ns() + 30000000000u);
    UNTIL(kafka_consumer_stopped(member->consumer));
}

static void end(struct member *member, struct member *other)
{
    flue_loops_stop(rig.loops);
    kafka_consumer_destroy(member->consumer);
    if (other)
        kafka_consumer_destroy(other->consumer);
}

/* What the group has of a partition; -1001 (RD_KAFKA_OFFSET_INVALID): nothing. */
static int64_t committed(struct member *member, int32_t partition)
{
    rd_kafka_topic_partition_list_t *list = rig.kafka->rd_kafka_topic_partition_list_new(1);
    rig.kafka->rd_kafka_topic_partition_list_add(list, TOPIC, partition);
    assert_int_equal(rig.committed(member->consumer->rk, list, 10000), RD_KAFKA_RESP_ERR_NO_ERROR);
    int64_t offset = list->elems[0].offset;
    rig.kafka->rd_kafka_topic_partition_list_destroy(list);
    return offset;
}

static int64_t metric(const struct flue_metric *metric)
{
    return flue_metric_get(metric);
}

/* ---- tests --------------------------------------------------------------------------------------
 */

#define NEEDS_LIBRARY                                                                              \
    do {                                                                                           \
        if (!rig.kafka)                                                                            \
            skip();                                                                                \
    } while (0)

static void what_is_committed_is_the_first_that_was_not_taken(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    write_records(0, 6);
    run(&m);
    UNTIL(count_away() == 6);
    assert_string_equal(offsets_away(0), "0 1 2 3 4 5");
    back_with(0, 1, FLUE_OK);
    back_with(0, 2, FLUE_OK);
    back_with(0, 4, FLUE_OK);
    assert_int_equal(committed(&m, 0), RD_KAFKA_OFFSET_INVALID);
    back_with(0, 0, FLUE_OK);
    UNTIL(committed(&m, 0) == 3);
    back_with(0, 5, FLUE_OK);
    assert_int_equal(committed(&m, 0), 3);
    back_with(0, 3, FLUE_OK);
    UNTIL(committed(&m, 0) == 6);
    assert_int_equal(committed(&m, 1), RD_KAFKA_OFFSET_INVALID);
    leave_group(&m);
    end(&m, NULL);
}

static void the_failed_go_again_in_order_and_hold_the_rest(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    m.settings.max_in_flight_messages = 4;
    write_records(0, 6);
    run(&m);
    UNTIL(count_away() == 4);
    back_with(0, 2, FLUE_UNAVAILABLE);
    back_with(0, 0, FLUE_UNAVAILABLE);
    back_with(0, 3, FLUE_OK);
    uv_sleep(60); /* many backoffs long: nothing goes while one is on its way */
    assert_string_equal(offsets_away(0), "1");
    back_with(0, 1, FLUE_OK);
    /* 4 and 5 come behind what failed. */
    UNTIL(count_away() >= 2);
    assert_memory_equal(offsets_away(0), "0 2", 3);
    assert_int_equal(committed(&m, 0), RD_KAFKA_OFFSET_INVALID);
    back_with(0, 0, FLUE_OK);
    UNTIL(committed(&m, 0) == 2);
    back_with(0, 2, FLUE_OK);
    UNTIL(committed(&m, 0) == 4);
    UNTIL(count_away() == 2);
    assert_string_equal(offsets_away(0), "4 5");
    assert_int_equal(metric(m.consumer->retried), 2);
    back_with(0, 4, FLUE_OK);
    back_with(0, 5, FLUE_OK);
    UNTIL(committed(&m, 0) == 6);
    leave_group(&m);
    end(&m, NULL);
}

static void poison_is_set_past_where_it_may_be(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    write_records(0, 3);
    run(&m);
    UNTIL(count_away() == 3);
    back_with(0, 0, FLUE_OK);
    back_with(0, 1, FLUE_INVALID);
    back_with(0, 2, FLUE_OK);
    UNTIL(committed(&m, 0) == 3);
    assert_int_equal(metric(m.consumer->poison), 1);
    assert_int_equal(atomic_load(&rig.account.used), 1 << 20); /* of the library, till the end */
    assert_int_equal(metric(m.consumer->retried), 0);
    leave_group(&m);
    end(&m, NULL);
}

static void poison_holds_its_partition_where_it_may_not(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    m.settings.past_permanent = false;
    write_records(0, 2);
    run(&m);
    UNTIL(count_away() == 2);
    back_with(0, 0, FLUE_INVALID);
    back_with(0, 1, FLUE_OK);
    UNTIL(count_away() == 1); /* again */
    assert_string_equal(offsets_away(0), "0");
    assert_int_equal(committed(&m, 0), RD_KAFKA_OFFSET_INVALID);
    assert_int_equal(metric(m.consumer->poison), 0);
    back_with(0, 0, FLUE_OK);
    UNTIL(committed(&m, 0) == 2);
    leave_group(&m);
    end(&m, NULL);
}

static void on_error_ends_when_the_time_is_over(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    m.settings.past_errors = true;
    m.settings.backoff_elapsed = 20000000;
    write_records(0, 1);
    run(&m);
    for (uint64_t end_ns = flue_monotonic_ns() + 120000000000u; !metric(m.consumer->lost);) {
        assert_true(flue_monotonic_ns() < end_ns);
        if (count_away())
            back_with(0, 0, FLUE_UNAVAILABLE);
    }
    UNTIL(committed(&m, 0) == 1);
    assert_true(metric(m.consumer->retried) >= 1);
    assert_int_equal(metric(m.consumer->poison), 0);
    leave_group(&m);
    end(&m, NULL);
}

/* Each once and in order, though the partition is paused and goes on again and again. */
static void a_partition_pauses_and_goes_on_where_it_was(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    m.settings.max_in_flight_messages = 2;
    write_records(0, 20);
    run(&m);
    for (int64_t next = 0; next < 20; next++) {
        char wanted[16];
        UNTIL(count_away() == (next < 19 ? 2 : 1));
        snprintf(wanted, sizeof wanted, next < 19 ? "%lld %lld" : "%lld", (long long)next,
                 (long long)next + 1);
        assert_string_equal(offsets_away(0), wanted);
        back_with(0, next, FLUE_OK);
    }
    UNTIL(committed(&m, 0) == 20);
    uv_sleep(100);
    assert_int_equal(count_away(), 0);
    assert_int_equal(metric(m.consumer->messages), 20);
    leave_group(&m);
    end(&m, NULL);
}

static void without_memory_a_partition_waits(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    flue_account_charge_always(&rig.account, 100 << 20);
    write_records(0, 4);
    run(&m);
    UNTIL(metric(m.consumer->assigned) == 2);
    uv_sleep(300);
    assert_int_equal(count_away(), 0);
    flue_account_release(&rig.account, 100 << 20);
    UNTIL(count_away() == 4);
    assert_string_equal(offsets_away(0), "0 1 2 3");
    for (int64_t i = 0; i < 4; i++)
        back_with(0, i, FLUE_OK);
    UNTIL(committed(&m, 0) == 4);
    leave_group(&m);
    end(&m, NULL);
}

struct call {
    struct kafka_consumer *consumer;
    int32_t partition;
    bool revoking, has;
};

static void revoke_one(struct flue_loop *loop, void *arg)
{
    struct call *call = arg;
    rd_kafka_topic_partition_list_t *list = rig.kafka->rd_kafka_topic_partition_list_new(1);
    rig.kafka->rd_kafka_topic_partition_list_add(list, TOPIC, call->partition);
    on_rebalance(call->consumer->rk, RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS, list, call->consumer);
    rig.kafka->rd_kafka_topic_partition_list_destroy(list);
}

static void look_at(struct flue_loop *loop, void *arg)
{
    struct call *call = arg;
    call->revoking = call->consumer->revoking != NULL;
    call->has = kafka_partition_find(call->consumer, TOPIC, call->partition) != NULL;
}

static bool still_revoking(struct call *call)
{
    flue_loop_call(call->consumer->home, look_at, call);
    return call->revoking;
}

/* Takes what comes, until all three records of both partitions were. */
static bool all_taken(struct member *member)
{
    for (int32_t p = 0; p < PARTITIONS; p++)
        while (offsets_away(p)[0])
            back_with(p, strtol(offsets_away(p), NULL, 10), FLUE_OK);
    return committed(member, 0) == 3 && committed(member, 1) == 3;
}

/* Another member joins while records are on their way: it waits for them. */
static void who_joins_gets_a_partition_when_its_records_are_back(void **state)
{
    struct member m = {.settings = settings_of("kafka")},
                  other = {.settings = settings_of("other")};

    NEEDS_LIBRARY;
    write_records(0, 2);
    write_records(1, 2);
    join_group(&m);
    assert_int_equal(flue_loops_run(rig.loops, &rig.error), FLUE_OK);
    UNTIL(count_away() == 4);
    assert_int_equal(metric(m.consumer->assigned), 2);
    join_group(&other);
    struct call call = {.consumer = m.consumer};
    UNTIL(still_revoking(&call));
    uv_sleep(100);
    assert_true(still_revoking(&call));
    assert_int_equal(metric(other.consumer->assigned), 0);
    for (int32_t p = 0; p < 2; p++)
        for (int64_t i = 0; i < 2; i++)
            back_with(p, i, FLUE_OK);
    UNTIL(metric(other.consumer->assigned) == 1);
    write_records(0, 1);
    write_records(1, 1);
    UNTIL(all_taken(&m));
    leave_group(&m);
    leave_group(&other);
    end(&m, &other);
}

static void a_revoked_partition_commits_what_was_taken_and_no_more(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    write_records(0, 5);
    run(&m);
    UNTIL(count_away() == 5);
    struct call call = {.consumer = m.consumer, .partition = 0};
    back_with(0, 3, FLUE_UNAVAILABLE); /* waits for its turn: dropped by the revocation */
    flue_loop_call(m.consumer->home, revoke_one, &call);
    assert_true(still_revoking(&call));
    back_with(0, 0, FLUE_OK);
    assert_string_equal(offsets_away(0), "1 2 -1"); /* 4 is behind the hole */
    back_with(0, -1, FLUE_OK);
    back_with(0, 2, FLUE_OK);
    assert_true(still_revoking(&call));
    assert_true(call.has);
    back_with(0, 1, FLUE_UNAVAILABLE); /* the last: nobody tries it again here */
    UNTIL(!still_revoking(&call));
    assert_false(call.has);
    UNTIL(committed(&m, 0) == 1);
    uv_sleep(50);
    assert_int_equal(committed(&m, 0), 1);
    leave_group(&m);
    end(&m, NULL);
}

static void a_revocation_does_not_wait_for_ever(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    m.settings.revoke_timeout = 50000000;
    write_records(0, 3);
    run(&m);
    UNTIL(count_away() == 3);
    back_with(0, 0, FLUE_OK);
    struct call call = {.consumer = m.consumer, .partition = 0};
    flue_loop_call(m.consumer->home, revoke_one, &call);
    UNTIL(!still_revoking(&call));
    assert_false(call.has);
    UNTIL(committed(&m, 0) == 1);
    back_with(0, 1, FLUE_OK); /* too late: another has it by now */
    back_with(0, 2, FLUE_UNAVAILABLE);
    uv_sleep(50);
    assert_int_equal(committed(&m, 0), 1);
    leave_group(&m);
    end(&m, NULL);
}

static void a_drain_awaits_what_is_on_its_way(void **state)
{
    struct member m = {.settings = settings_of("kafka")}, next = {.settings = settings_of("next")};

    NEEDS_LIBRARY;
    write_records(0, 3);
    run(&m);
    UNTIL(count_away() == 3);
    kafka_consumer_stop(m.consumer, flue_monotonic_ns() + 30000000000u);
    back_with(0, 0, FLUE_OK);
    back_with(0, 2, FLUE_OK);
    assert_false(kafka_consumer_stopped(m.consumer));
    back_with(0, 1, FLUE_OK);
    UNTIL(kafka_consumer_stopped(m.consumer));
    assert_int_equal(cancels(), 0);
    /* Who comes next gets none of them. */
    write_records(0, 1);
    join(&next, &alone);
    flue_loop_call(next.consumer->home, assign_all, next.consumer);
    UNTIL(count_away() == 1);
    assert_string_equal(offsets_away(0), "3");
    back_with(0, 3, FLUE_OK);
    leave_group(&next);
    end(&m, &next);
}

static void a_drain_gives_up_at_its_deadline(void **state)
{
    struct member m = {.settings = settings_of("kafka")};

    NEEDS_LIBRARY;
    write_records(0, 2);
    run(&m);
    UNTIL(count_away() == 2);
    kafka_consumer_stop(m.consumer, flue_monotonic_ns());
    UNTIL(cancels() == rig.loops->count);
    assert_false(kafka_consumer_stopped(m.consumer)); /* each must come back */
    back_with(0, 0, FLUE_CANCELLED);
    back_with(0, -1, FLUE_OK); /* behind what was not taken: it comes again */
    UNTIL(kafka_consumer_stopped(m.consumer));
    end(&m, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_rig, end_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_committed_is_the_first_that_was_not_taken),
        TEST(the_failed_go_again_in_order_and_hold_the_rest),
        TEST(poison_is_set_past_where_it_may_be),
        TEST(poison_holds_its_partition_where_it_may_not),
        TEST(on_error_ends_when_the_time_is_over),
        TEST(a_partition_pauses_and_goes_on_where_it_was),
        TEST(without_memory_a_partition_waits),
        TEST(who_joins_gets_a_partition_when_its_records_are_back),
        TEST(a_revoked_partition_commits_what_was_taken_and_no_more),
        TEST(a_revocation_does_not_wait_for_ever),
        TEST(a_drain_awaits_what_is_on_its_way),
        TEST(a_drain_gives_up_at_its_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
