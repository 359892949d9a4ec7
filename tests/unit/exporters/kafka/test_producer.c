/* The producer on librdkafka's own mock of a cluster: every record comes back, and a fatal error of
 * an idempotent producer is survived by the next one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>

#include "exporters/kafka/producer.c"
#include "tests/unit/collector/kafka/tsan.h"

#define RECORDS 50

struct bench {
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct kafka_producers producers;
};

static _Atomic unsigned came_back, came_well;

static void done(struct kafka_record *record)
{
    if (record->status == RD_KAFKA_RESP_ERR_NO_ERROR)
        atomic_fetch_add(&came_well, 1);
    atomic_fetch_add(&came_back, 1);
}

static bool start(struct bench *bench)
{
    struct flue_error error = {0};
    const struct flue_kafka *kafka = flue_kafka_load(&error);

    memset(bench, 0, sizeof *bench);
    if (!kafka)
        return false;
    atomic_store(&came_back, 0);
    atomic_store(&came_well, 0);
    assert_int_equal(flue_loops_new(2, &bench->loops, &error), FLUE_OK);
    bench->metrics = flue_metrics_new("otelcol_");
    rd_kafka_conf_t *conf = kafka->rd_kafka_conf_new();
    const char *pairs[][2] = {{"test.mock.num.brokers", "1"},
                              {"enable.idempotence", "true"},
                              {"linger.ms", "1"},
                              {"message.timeout.ms", "120000"},
                              {"log_level", "0"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        assert_int_equal(
            flue_kafka_set(kafka, conf, pairs[i][0], pairs[i][1], "test", false, &error), FLUE_OK);
    bench->producers = (struct kafka_producers){
        .kafka = kafka,
        .id = "kafka",
        .home = bench->loops->items[0],
        .done = done,
        .errors = flue_metric(bench->metrics, FLUE_COUNTER, "errors", "", NULL),
        .login_hint = "",
        .limit = 1000000,
    };
    if (kafka_producers_start(&bench->producers, conf, &error))
        fail_msg("%s", error.text);
    assert_int_equal(flue_loops_run(bench->loops, &error), FLUE_OK);
    return true;
}

static void wait_until(bool (*condition)(struct bench *bench), struct bench *bench)
{
    for (uint64_t end_ns = flue_monotonic_ns() + 120000000000u; !condition(bench); uv_sleep(2))
        if (flue_monotonic_ns() > end_ns)
            fail_msg("waited in vain: %u back, %u well", atomic_load(&came_back),
                     atomic_load(&came_well));
}

static bool stopped(struct bench *bench)
{
    return kafka_producers_stopped(&bench->producers);
}

static void stop_at_home(struct flue_loop *loop, void *arg)
{
    kafka_producers_stop(&((struct bench *)arg)->producers);
}

static void finish(struct bench *bench)
{
    flue_loop_call(bench->producers.home, stop_at_home, bench);
    wait_until(stopped, bench);
    flue_loops_stop(bench->loops);
    kafka_producers_destroy(&bench->producers);
    flue_loops_destroy(bench->loops);
    flue_metrics_destroy(bench->metrics);
}

static bool all_back(struct bench *bench)
{
    return atomic_load(&came_back) == RECORDS;
}

/* All records through the producer of now; each comes back, well or not. */
static void send_all(struct bench *bench, bool purge)
{
    const struct flue_kafka_header header = {FLUE_BYTES("name"), FLUE_BYTES("value")};
    struct kafka_record records[RECORDS];
    struct kafka_producer *producer = kafka_producer_get(&bench->producers);

    for (unsigned i = 0; i < RECORDS; i++) {
        records[i] = (struct kafka_record){.topic = "t",
                                           .key = i % 2 ? FLUE_BYTES("key") : flue_bytes(NULL, 0),
                                           .headers = &header,
                                           .header_count = 1,
                                           .value = FLUE_BYTES("a value")};
        if (kafka_producer_send(producer, &records[i]) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            records[i].status = -1;
            done(&records[i]);
        }
    }
    if (purge)
        kafka_producer_purge(producer);
    wait_until(all_back, bench);
    kafka_producer_put(producer);
    if (!purge)
        assert_int_equal(atomic_load(&came_well), RECORDS);
    finish(bench);
}

static void records_are_acknowledged(void **state)
{
    struct bench bench;

    if (!start(&bench))
        skip();
    send_all(&bench, false);
}

static struct kafka_producer *broken;

static bool is_another(struct bench *bench)
{
    struct kafka_producer *now = kafka_producer_get(&bench->producers);
    bool another = now != broken;
    kafka_producer_put(now);
    return another && atomic_load(&bench->producers.living) == 1;
}

static void a_fatal_error_is_survived(void **state)
{
    struct bench bench;

    if (!start(&bench))
        skip();
    void *library = dlopen("librdkafka.so.1", RTLD_NOW | RTLD_NOLOAD);
    rd_kafka_resp_err_t (*break_it)(rd_kafka_t *, rd_kafka_resp_err_t, const char *);
    void *symbol = dlsym(library, "rd_kafka_test_fatal_error");
    memcpy(&break_it, &symbol, sizeof symbol);
    broken = kafka_producer_get(&bench.producers); /* compared only, later */
    assert_int_equal(break_it(broken->rk, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "test"),
                     RD_KAFKA_RESP_ERR_NO_ERROR);
    kafka_producer_put(broken);
    wait_until(is_another, &bench);
    send_all(&bench, false);
    dlclose(library);
}

static bool is_half(struct bench *bench)
{
    struct kafka_producer *now = kafka_producer_get(&bench->producers);
    bool half = kafka_producer_limit(now) == 500000;
    kafka_producer_put(now);
    return half && atomic_load(&bench->producers.limit) == 500000 &&
           atomic_load(&bench->producers.living) == 1;
}

/* Asked twice for the same, it is done once. */
static void a_smaller_limit_is_another_producer(void **state)
{
    struct bench bench;

    if (!start(&bench))
        skip();
    /* A mock of a cluster is its producer's own: what came before is not there any more. */
    kafka_producers_shrink(&bench.producers, 1000000);
    wait_until(is_half, &bench);
    kafka_producers_shrink(&bench.producers, 1000000);
    assert_true(is_half(&bench));
    send_all(&bench, false);
}

static void what_waits_can_be_purged(void **state)
{
    struct bench bench;

    if (!start(&bench))
        skip();
    send_all(&bench, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_acknowledged),
        cmocka_unit_test(a_fatal_error_is_survived),
        cmocka_unit_test(a_smaller_limit_is_another_producer),
        cmocka_unit_test(what_waits_can_be_purged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
