/* The metrics page: names, escaping, order of labels, overflow, histograms, and threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <cmocka.h>
#include "collector/base/metrics.h"

static struct flue_metrics *metrics;
static struct flue_buffer page;

static int setup(void **state)
{
    metrics = flue_metrics_new(NULL);
    flue_buffer_init(&page, 1 << 20);
    return metrics ? 0 : -1;
}

static int teardown(void **state)
{
    flue_metrics_destroy(metrics);
    flue_buffer_destroy(&page);
    return 0;
}

static const char *print(void)
{
    flue_buffer_clear(&page);
    flue_metrics_print(metrics, &page);
    assert_false(page.failed);
    return page.data;
}

static double seven_and_a_half(void *arg)
{
    return *(double *)arg;
}

static void page_is(void **state)
{
    struct flue_label ab[] = {{"a", "1"}, {"b", "x\"y\\z\n\xFF"}, {NULL, NULL}};
    struct flue_label ba[] = {{"b", "x\"y\\z\n\xFF"}, {"a", "1"}, {NULL, NULL}};
    struct flue_label odd[] = {{"k8s.pod", "p"}, {NULL, NULL}};
    static const double bounds[] = {0.1, 1};
    double number = 7.5;
    struct flue_metric *metric =
        flue_metric(metrics, FLUE_COUNTER, "sent", "what\nwas \\ sent", ab);
    struct flue_histogram *h;

    assert_ptr_equal(metric, flue_metric(metrics, FLUE_COUNTER, "sent", "", ba));
    assert_ptr_not_equal(metric, flue_metric(metrics, FLUE_COUNTER, "sent", "", NULL));
    flue_metric_add(metric, 5);
    flue_metric_set(flue_metric(metrics, FLUE_GAUGE, "queue-size", "", odd), -3);
    flue_metric_callback(metrics, FLUE_GAUGE, "read", "", NULL, seven_and_a_half, &number);
    h = flue_histogram(metrics, "took", "seconds", odd, bounds, 2);
    flue_histogram_observe(h, 0.1);
    flue_histogram_observe(h, 0.5);
    flue_histogram_observe(h, 4);
    flue_histogram_observe(NULL, 4);
    assert_string_equal(print(), "# HELP otelcol_sent_total what\\nwas \\\\ sent\n"
                                 "# TYPE otelcol_sent_total counter\n"
                                 "otelcol_sent_total{a=\"1\",b=\"x\\\"y\\\\z\\n\xEF\xBF\xBD\"} 5\n"
                                 "otelcol_sent_total 0\n"
                                 "# HELP otelcol_queue_size \n"
                                 "# TYPE otelcol_queue_size gauge\n"
                                 "otelcol_queue_size{k8s_pod=\"p\"} -3\n"
                                 "# HELP otelcol_read \n"
                                 "# TYPE otelcol_read gauge\n"
                                 "otelcol_read 7.5\n"
                                 "# HELP otelcol_took seconds\n"
                                 "# TYPE otelcol_took histogram\n"
                                 "otelcol_took_bucket{k8s_pod=\"p\",le=\"0.1\"} 1\n"
                                 "otelcol_took_bucket{k8s_pod=\"p\",le=\"1\"} 2\n"
                                 "otelcol_took_bucket{k8s_pod=\"p\",le=\"+Inf\"} 3\n"
                                 "otelcol_took_sum{k8s_pod=\"p\"} 4.6\n"
                                 "otelcol_took_count{k8s_pod=\"p\"} 3\n");
}

static void a_name_has_one_type(void **state)
{
    struct flue_metric *counter = flue_metric(metrics, FLUE_COUNTER, "x", "", NULL);
    struct flue_metric *gauge = flue_metric(metrics, FLUE_GAUGE, "x", "", NULL);

    assert_non_null(gauge);
    flue_metric_set(gauge, 99);
    assert_int_equal(flue_metric_get(counter), 0);
    assert_null(strstr(print(), "99"));
}

static void cardinality_is_bounded(void **state)
{
    char value[32];
    struct flue_label labels[] = {{"pod", value}, {NULL, NULL}};
    struct flue_metric *first = NULL, *metric = NULL;

    for (unsigned i = 0; i < FLUE_METRIC_MAX_SERIES + 500; i++) {
        snprintf(value, sizeof value, "p%u", i);
        metric = flue_metric(metrics, FLUE_COUNTER, "x", "", labels);
        flue_metric_add(metric, 1);
        if (i == 0)
            first = metric;
    }
    assert_int_equal(flue_metric_get(metric), 500);
    print();
    assert_non_null(strstr(page.data, "otelcol_x_total{pod=\"other\"} 500\n"));
    assert_non_null(strstr(page.data, "otelcol_x_total{pod=\"p1999\"} 1\n"));
    assert_null(strstr(page.data, "p2000"));
    snprintf(value, sizeof value, "p0");
    assert_ptr_equal(first, flue_metric(metrics, FLUE_COUNTER, "x", "", labels));
}

static void *change(void *arg)
{
    static const double bounds[] = {1, 2, 3};

    for (unsigned i = 0; i < 2000; i++) {
        flue_metric_add(flue_metric(metrics, FLUE_COUNTER, "n", "", NULL), 1);
        flue_histogram_observe(flue_histogram(metrics, "h", "", NULL, bounds, 3), i % 5);
    }
    return NULL;
}

static void threads(void **state)
{
    pthread_t all[4];

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&all[i], NULL, change, NULL), 0);
    for (unsigned i = 0; i < 50; i++)
        print();
    for (unsigned i = 0; i < 4; i++)
        pthread_join(all[i], NULL);
    print();
    assert_non_null(strstr(page.data, "otelcol_n_total 8000\n"));
    assert_non_null(strstr(page.data, "otelcol_h_sum 16000\n"));
    assert_non_null(strstr(page.data, "otelcol_h_bucket{le=\"1\"} 3200\n"));
    assert_non_null(strstr(page.data, "otelcol_h_count 8000\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(page_is, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_has_one_type, setup, teardown),
        cmocka_unit_test_setup_teardown(cardinality_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
