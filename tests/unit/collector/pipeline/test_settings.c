/* Defaults, bounds and mistakes of sending_queue, retry_on_failure and timeout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "collector/pipeline/settings.h"
#include "config/bind.h"

static struct flue_arena arena;
static struct flue_exporter_fields fields;

static const struct flue_exporter_settings *bound(const struct flue_component *component,
                                                  const char *yaml, const char *mistake)
{
    struct flue_check check;
    struct flue_buffer text;
    const struct flue_exporter_settings *settings;

    flue_check_init(&check, &arena);
    flue_exporter_fields(component, &fields);
    settings = flue_bind_yaml(&check, yaml, fields.fields, sizeof *settings);
    if (settings)
        flue_exporter_settings_check(settings, &check);
    flue_buffer_init(&text, 1 << 16);
    flue_check_print(&check, &text);
    if (mistake ? !text.data || !strstr(text.data, mistake) : check.mistakes > 0)
        fail_msg("%s: expected %s, got %s", yaml, mistake ? mistake : "no mistake",
                 text.data ? text.data : "none");
    flue_buffer_destroy(&text);
    return settings;
}

static const struct flue_component plain = {.kind = FLUE_EXPORTER, .name = "plain"};

static void defaults_are_the_collectors(void **state)
{
    const struct flue_exporter_settings *s = bound(&plain, "{}", NULL);
    assert_true(s->sending_queue.enabled);
    assert_int_equal(s->sending_queue.num_consumers, 10);
    assert_int_equal(s->sending_queue.queue_size, 1000);
    assert_int_equal(s->sending_queue.sizer, FLUE_SIZER_REQUESTS);
    assert_int_equal(s->sending_queue.on_overflow, FLUE_OVERFLOW_REFUSE);
    assert_false(s->sending_queue.wait_for_result || s->sending_queue.block_on_overflow);
    assert_true(s->sending_queue.max_bytes > 0);
    assert_null(s->sending_queue.batch);
    assert_true(s->retry_on_failure.enabled);
    assert_int_equal(s->retry_on_failure.initial_interval, INT64_C(5000000000));
    assert_int_equal(s->retry_on_failure.max_interval, INT64_C(30000000000));
    assert_int_equal(s->retry_on_failure.max_elapsed_time, INT64_C(300000000000));
    assert_true(s->retry_on_failure.randomization_factor == 0.5);
    assert_true(s->retry_on_failure.multiplier == 1.5);
    assert_int_equal(s->timeout, INT64_C(5000000000));
}

static void components_change_the_table(void **state)
{
    const struct flue_component slow = {.timeout_def = INT64_C(30000000000)};
    const struct flue_component untimed = {.no_timeout = true}, bare = {.no_queue = true};
    assert_int_equal(bound(&slow, "{}", NULL)->timeout, INT64_C(30000000000));
    (void)bound(&untimed, "{timeout: 1s}", "timeout");
    (void)bound(&bare, "{sending_queue: {}}", "sending_queue");
}

static void batch_is_on_when_its_key_is_there(void **state)
{
    const struct flue_exporter_settings *s = bound(&plain, "{sending_queue: {batch: {}}}", NULL);
    assert_non_null(s->sending_queue.batch);
    assert_int_equal(s->sending_queue.batch->flush_timeout, 200000000);
    assert_int_equal(s->sending_queue.batch->min_size, 8192);
    assert_int_equal(s->sending_queue.batch->max_size, 0);
    s = bound(
        &plain,
        "{sending_queue: {sizer: items, queue_size: 50000, batch: {min_size: 10, max_size: 20, "
        "sizer: bytes, partition: {metadata_keys: [x-a]}}}}",
        NULL);
    assert_int_equal(s->sending_queue.batch->partition.metadata_keys.count, 1);
    assert_int_equal(s->sending_queue.batch->sizer, 1);
}

static void mistakes(void **state)
{
    (void)bound(&plain, "{sending_queue: {storage: file_storage, wait_for_result: true}}",
                "wait_for_result");
    (void)bound(&plain, "{sending_queue: {queue_size: 0}}", "queue_size");
    (void)bound(&plain, "{sending_queue: {num_consumers: 0}}", "num_consumers");
    (void)bound(&plain, "{sending_queue: {on_overflow: drop, block_on_overflow: true}}", "exclude");
    (void)bound(&plain, "{sending_queue: {batch: {flush_timeout: 0s}}}", "above 0");
    (void)bound(&plain, "{sending_queue: {batch: {min_size: 10, max_size: 9}}}", "below min_size");
    (void)bound(&plain, "{sending_queue: {sizer: items, queue_size: 5, batch: {min_size: 6}}}",
                "never come together");
    (void)bound(&plain, "{retry_on_failure: {randomization_factor: 1.5}}", "0 to 1");
    (void)bound(&plain, "{retry_on_failure: {multiplier: -1.0}}", "multiplier");
    (void)bound(&plain, "{retry_on_failure: {max_elapsed_time: 1s}}", "initial_interval");
    (void)bound(&plain, "{retry_on_failure: {enabled: false, max_elapsed_time: 1s}}", NULL);
    (void)bound(&plain, "{sending_queue: {enabled: false, storage: x}}", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_the_collectors),
        cmocka_unit_test(components_change_the_table),
        cmocka_unit_test(batch_is_on_when_its_key_is_there),
        cmocka_unit_test(mistakes),
    };
    flue_arena_init(&arena, 0, 0);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    flue_arena_destroy(&arena);
    return failed;
}
