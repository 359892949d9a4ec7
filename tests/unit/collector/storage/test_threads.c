/* Many threads at once: appends from several, finishes and takes on loops, reads, notes, all while
 * segments come and go. For the thread sanitizer, and for the sums at the end. */
#include "tests/unit/collector/storage/rig.h"

#define APPENDERS 3
#define EACH      100u

static struct rig *rig;
static _Atomic unsigned taken_count, read_count;
static _Atomic bool ended;
static uv_sem_t ready;

/* cmocka's own assertions belong to the thread of the test. */
#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void *append_many(void *arg)
{
    unsigned appender = (unsigned)(uintptr_t)arg;
    struct put *puts[20];
    for (uint32_t i = 0; i < EACH; i += 20) {
        for (uint32_t k = 0; k < 20; k++)
            puts[k] = put_begin(rig, appender * EACH + i + k, 3);
        for (uint32_t k = 0; k < 20; k++) {
            put_wait(puts[k]);
            must(puts[k]->code == FLUE_OK);
            if (k % 2)
                flue_storage_finish(rig->queues[1], puts[k]->append.record);
            put_free(puts[k]);
        }
    }
    return NULL;
}

static void wake(void *arg)
{
    uv_sem_post(&ready);
}

/* Takes from one end, reads, sometimes puts back once, finishes. */
static void *take_many(void *arg)
{
    enum flue_storage_order order = arg ? FLUE_STORAGE_NEWEST : FLUE_STORAGE_OLDEST;
    struct flue_storage_entry entry;
    uint32_t tag, taken = 0;
    while (atomic_load(&taken_count) < APPENDERS * EACH) {
        if (!flue_storage_take(rig->queues[0], order, &entry)) {
            uv_sem_wait(&ready);
            continue;
        }
        if (++taken % 7 == 0) {
            flue_storage_put_back(rig->queues[0], entry.record);
            continue;
        }
        must(get(rig, 0, entry.record, &tag, NULL) == FLUE_OK);
        atomic_fetch_add(&read_count, 1);
        flue_storage_finish(rig->queues[0], entry.record);
        atomic_fetch_add(&taken_count, 1);
    }
    uv_sem_post(&ready); /* the other may wait for what is not to come */
    return NULL;
}

/* Drops rows under the others' feet; not before they got on, or nobody would ever get on. */
static void *look(void *arg)
{
    unsigned seen = 0, now;
    while (!atomic_load(&ended)) {
        struct flue_storage_lag lag;
        flue_storage_lag(rig->queues[0], &lag);
        if ((now = atomic_load(&taken_count)) != seen) {
            rig_forget_rows(rig);
            seen = now;
        }
        uint32_t tag; /* goes round the reader once: a pace that the others can bear */
        must(get(rig, 2, UINT64_C(1) << 60, &tag, NULL) == FLUE_INVALID);
    }
    return NULL;
}

static void all_at_once(void **state)
{
    pthread_t threads[APPENDERS + 3];
    rig = rig_new(disk_new(1));
    rig_open(rig);
    uv_sem_init(&ready, 0);
    flue_storage_watch(rig->queues[0], rig->loops->items[0], wake, NULL);
    for (uintptr_t i = 0; i < APPENDERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, append_many, (void *)i), 0);
    for (uintptr_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[APPENDERS + i], NULL, take_many, (void *)i), 0);
    assert_int_equal(pthread_create(&threads[APPENDERS + 2], NULL, look, NULL), 0);
    for (size_t i = 0; i < APPENDERS + 2; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&ended, true);
    pthread_join(threads[APPENDERS + 2], NULL);
    rig_unwatch(rig, 0);
    uv_sem_destroy(&ready);
    rig_rest(rig);
    struct flue_storage_lag lag;
    flue_storage_lag(rig->queues[0], &lag);
    const struct flue_storage_lag none = {0};
    assert_memory_equal(&lag, &none, sizeof lag);
    flue_storage_lag(rig->queues[1], &lag);
    assert_int_equal(lag.records, APPENDERS * EACH / 2);
    assert_int_equal(atomic_load(&read_count), APPENDERS * EACH);
    rig_close(rig);
    rig_open(rig);
    struct flue_storage_lag after;
    flue_storage_recovered(rig->queues[1], &after);
    lag.oldest_ns = after.oldest_ns = 0; /* to within a segment */
    assert_memory_equal(&after, &lag, sizeof lag);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
