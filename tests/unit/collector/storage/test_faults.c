/* The log on a bad disk: full, read-only, failing at write, sync and read, slow. What a failure
 * covers is refused and never delivered; what was acknowledged before stays deliverable. */
#include "tests/unit/collector/storage/rig.h"

static struct rig *rig;

static int setup(void **state)
{
    rig = rig_new(disk_new(1));
    rig_open(rig);
    return 0;
}

static int teardown(void **state)
{
    rig_free(rig);
    return 0;
}

static void reopen_killed(void)
{
    rig->disk->gone = true;
    rig_close(rig);
    disk_kill(rig->disk);
    rig_open(rig);
}

static void reopen_after_power_cut(uint64_t seed)
{
    rig->disk->gone = true;
    rig_close(rig);
    rig->disk->dice = seed;
    disk_power_cut(rig->disk);
    rig_open(rig);
}

/* The back-off is over. */
static void wait_out(void)
{
    flue_clock_move(INT64_C(10000000000));
}

/* The queue owes exactly these tags, in this order, and each can be read. */
static void assert_owes(const uint32_t *tags, size_t count)
{
    struct flue_storage_entry entries[64];
    size_t got = 0;
    uint32_t tag;
    while (take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entries[got])) {
        assert_true(got < count);
        assert_int_equal(get(rig, 0, entries[got].record, &tag, NULL), FLUE_OK);
        assert_int_equal(tag, tags[got]);
        got++;
    }
    assert_int_equal(got, count);
    for (size_t i = 0; i < got; i++)
        flue_storage_put_back(rig->queues[0], entries[i].record);
}
#define OWES(...)                                                                                  \
    assert_owes((const uint32_t[]){__VA_ARGS__},                                                   \
                sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void a_full_disk_refuses_and_recovers(void **state)
{
    struct flue_error error;
    rig->disk->space = rig->disk->used + 300 * 1024; /* one segment */
    uint32_t tag = 0;
    while (put_code(rig, tag, &error) == FLUE_OK)
        tag++;
    assert_true(tag > 20);
    assert_non_null(strstr(error.text, "file_storage/test: cannot allocate /log/"));
    assert_non_null(strstr(error.text, "No space left on device (ENOSPC): the disk is full: free"));
    assert_true(error.retry_after_ms > 0);
    assert_int_equal(put_code(rig, 999, &error),
                     FLUE_UNAVAILABLE); /* while it backs off, at once */
    struct flue_storage_entry entry;
    uint32_t got, next = 0;
    while (take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry)) { /* what is there goes on being sent */
        assert_int_equal(get(rig, 0, entry.record, &got, NULL), FLUE_OK);
        assert_int_equal(got, next++);
        flue_storage_finish(rig->queues[0], entry.record);
    }
    assert_int_equal(next, tag);
    rig_rest(rig);
    assert_int_equal(disk_count(rig->disk, ".segment"), 0); /* which frees the space */
    wait_out();
    assert_int_equal(put_code(rig, 1000, &error), FLUE_OK);
    OWES(1000);
    assert_true(flue_metric_get(rig->storage->write_failures) >= 1);
}

static void a_full_disk_at_start_does_not_keep_from_sending(void **state)
{
    struct flue_error error;
    put_one(rig, 1, 1);
    rig->disk->gone = true;
    rig_close(rig);
    disk_kill(rig->disk);
    rig->disk->space = 1; /* not one byte more: no `finished`, no footer beyond the segment */
    assert_int_equal(rig_try_open(rig, &error), FLUE_OK);
    OWES(1);
    assert_int_equal(put_code(rig, 2, &error), FLUE_UNAVAILABLE);
    rig->disk->space = 0;
    wait_out();
    assert_int_equal(put_code(rig, 3, &error), FLUE_OK);
    OWES(1, 3);
}

static void a_read_only_disk_refuses(void **state)
{
    struct flue_error error;
    put_one(rig, 1, 1);
    rig->disk->read_only = true;
    assert_int_equal(put_code(rig, 2, &error), FLUE_UNAVAILABLE);
    assert_non_null(strstr(error.text, "(EROFS): the file system is read-only"));
    wait_out();
    assert_int_equal(put_code(rig, 3, &error), FLUE_UNAVAILABLE);
    OWES(1);
    rig->disk->read_only = false;
    wait_out();
    assert_int_equal(put_code(rig, 4, &error), FLUE_OK);
    OWES(1, 4);
    reopen_killed();
    OWES(1, 4);
    rig->disk->read_only = true;
    rig_close(rig);
    assert_int_equal(rig_try_open(rig, &error), FLUE_UNAVAILABLE);
    assert_non_null(strstr(error.text, "EROFS"));
    rig->disk->read_only = false;
    rig_open(rig);
    OWES(1, 4);
}

static void a_failed_write_ends_the_segment(void **state)
{
    struct flue_error error;
    put_one(rig, 1, 1);
    rig->disk->write_errno = EIO;
    rig->disk->once = true;
    assert_int_equal(put_code(rig, 2, &error), FLUE_UNAVAILABLE);
    assert_non_null(strstr(error.text, "cannot write /log/0000000000000001.segment"));
    assert_non_null(strstr(error.text, "(EIO): the disk fails"));
    OWES(1);
    wait_out();
    uint64_t record = put_one(rig, 3, 1);
    assert_int_equal(record >> 16, 2);
    OWES(1, 3);
    reopen_killed();
    OWES(1, 3);
}

/* After a failed fsync the kernel calls the pages clean: another fsync would succeed and mean
 * nothing. */
static void a_failed_sync_is_never_tried_again(void **state)
{
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct flue_error error;
        put_one(rig, 1, 1);
        put_one(rig, 2, 1);
        rig->disk->once = true;
        rig->disk->sync_errno = EIO;
        uint64_t syncs = rig->disk->syncs;
        assert_int_equal(put_code(rig, 3, &error), FLUE_UNAVAILABLE);
        assert_non_null(strstr(error.text, "cannot sync /log/"));
        assert_int_equal(rig->disk->syncs, syncs + 1);
        OWES(1, 2);
        if (seed % 2) {
            wait_out();
            put_one(rig, 4, 1);
        }
        if (seed % 4 < 2)
            reopen_killed();
        else
            reopen_after_power_cut(seed);
        if (seed % 2)
            OWES(1, 2, 4);
        else
            OWES(1, 2);
        assert_int_equal(flue_metric_get(rig->storage->damaged), 0);
        teardown(state);
        setup(state);
    }
}

/* Even where the cut of the file is lost too, the next segment's header says where it was. */
static void what_was_refused_is_cut_by_the_next_header(void **state)
{
    struct flue_error error;
    put_one(rig, 1, 1);
    struct disk_data *data = disk_data(rig->disk, ".segment");
    rig->disk->once = true;
    rig->disk->sync_errno = EIO;
    size_t size = data->size;
    assert_int_equal(put_code(rig, 3, &error), FLUE_UNAVAILABLE);
    wait_out();
    put_one(rig, 4, 1);
    struct flue_storage_segment *first = rig->storage->segments[0];
    struct flue_storage_record record = {.salt = first->salt,
                                         .record = first->number << 16 | 1,
                                         .owing = 1,
                                         .synced = first->cut,
                                         .head_size = 1,
                                         .head_crc = flue_crc32c(0, "3", 1)};
    flue_storage_record_seal(&record);
    uint64_t cut = first->cut;
    rig->disk->gone = true;
    rig_close(rig);
    disk_kill(rig->disk);
    disk_grow(data, size); /* the refused record lies there as if the cut had never been */
    memcpy(data->bytes + cut, &record, sizeof record);
    data->bytes[cut + sizeof record] = '3';
    rig_open(rig);
    OWES(1, 4);
    assert_int_equal(flue_metric_get(rig->storage->damaged), 0);
}

static void every_append_of_a_failed_sync_is_refused(void **state)
{
    struct put *puts[50];
    put_one(rig, 1, 1);
    pthread_mutex_lock(&rig->disk->lock);
    rig->disk->hold_syncs = true;
    rig->disk->sync_errno = ENOSPC; /* as NFS says it: at the sync */
    pthread_mutex_unlock(&rig->disk->lock);
    for (uint32_t i = 0; i < 50; i++)
        puts[i] = put_begin(rig, 100 + i, 1);
    pthread_mutex_lock(&rig->disk->lock);
    rig->disk->hold_syncs = false;
    pthread_cond_broadcast(&rig->disk->freed);
    pthread_mutex_unlock(&rig->disk->lock);
    for (uint32_t i = 0; i < 50; i++) {
        put_wait(puts[i]);
        assert_int_equal(puts[i]->code, FLUE_UNAVAILABLE);
        put_free(puts[i]);
    }
    OWES(1);
    rig->disk->sync_errno = 0;
    wait_out();
    put_one(rig, 2, 1);
    reopen_killed();
    OWES(1, 2);
}

static void failing_disks_are_tried_ever_more_slowly(void **state)
{
    struct flue_error error;
    rig->disk->create_errno = EIO;
    uint64_t waits[8];
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(put_code(rig, 1, &error), FLUE_UNAVAILABLE);
        waits[i] = rig->storage->writer.wait_ns;
        uint64_t number = rig->storage->next_number;
        assert_int_equal(put_code(rig, 1, &error), FLUE_UNAVAILABLE); /* not tried */
        assert_int_equal(rig->storage->next_number, number);
        wait_out();
    }
    assert_int_equal(waits[0], 100000000);
    assert_int_equal(waits[1], 200000000);
    assert_int_equal(waits[7], 5000000000);
    rig->disk->create_errno = 0;
    put_one(rig, 2, 1);
    assert_int_equal(rig->storage->writer.wait_ns, 0);
}

static void short_writes_are_completed(void **state)
{
    uint32_t tag;
    rig->disk->shortest = 777;
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(get(rig, 0, put_one(rig, i, 1), &tag, NULL), FLUE_OK);
    reopen_killed();
    assert_int_equal(rig->storage->segments[0]->count, 20);
}

static void a_record_that_cannot_be_read_is_given_up_in_the_end(void **state)
{
    struct flue_error error;
    uint32_t tag;
    struct put *large = put_sized(rig, 1, 9000, 1, 0); /* the next begins on another page */
    put_wait(large);
    uint64_t bad = large->append.record, good = put_one(rig, 2, 1);
    put_free(large);
    rig->disk->read_errno = EIO;
    rig->disk->read_from = FLUE_STORAGE_DATA;
    rig->disk->read_to = FLUE_STORAGE_DATA + 100;
    assert_int_equal(get(rig, 0, bad, &tag, &error), FLUE_UNAVAILABLE);
    assert_non_null(strstr(error.text, "cannot read /log/0000000000000001.segment"));
    assert_non_null(strstr(error.text, "EIO"));
    assert_int_equal(get(rig, 0, good, &tag, &error), FLUE_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(rig, 0, bad, &tag, &error), FLUE_UNAVAILABLE);
    assert_int_equal(get(rig, 0, bad, &tag, &error), FLUE_INVALID);
    assert_int_equal(flue_metric_get(rig->storage->read_failures), 5);
    /* The same at start: what cannot be read is damaged, the rest is there. */
    rig->disk->gone = true;
    rig_close(rig);
    disk_kill(rig->disk);
    rig->disk->read_path[0] = 0;
    rig_open(rig);
    OWES(2);
    assert_true(flue_metric_get(rig->storage->damaged) >= 1);
}

static void an_unreadable_footer_holds_up_no_other_segment(void **state)
{
    struct flue_storage_entry entry;
    for (uint32_t i = 0; i < 150; i++)
        put_one(rig, i, 1);
    rig_close(rig);
    rig_open(rig);
    rig_forget_rows(rig);
    uint64_t first = rig->storage->segments[0]->number;
    rig->disk->read_errno = ENOMEM; /* not even a scan can go on */
    rig->disk->read_to = UINT64_MAX;
    flue_segment_name(first, "", rig->disk->read_path);
    assert_true(take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry));
    assert_true(entry.record >> 16 > first);
    rig->disk->read_errno = 0;
    wait_out();
    assert_true(take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry));
    assert_int_equal(entry.record >> 16, first);
}

static void a_file_that_cannot_be_removed_is_no_harm(void **state)
{
    rig->disk->unlink_errno = EROFS;
    uint64_t record = 0;
    for (uint32_t i = 0; i < 100; i++) {
        record = put_one(rig, i, 1);
        flue_storage_finish(rig->queues[0], record);
    }
    rig_rest(rig);
    assert_true(record >> 16 > 1);
    rig->disk->unlink_errno = 0;
    reopen_killed();
    struct flue_storage_entry entry;
    /* `finished` was not rewritten meanwhile, so nothing comes again. */
    assert_false(take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry));
    rig_rest(rig);
    assert_int_equal(disk_count(rig->disk, ".segment"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_full_disk_refuses_and_recovers),
        TEST(a_full_disk_at_start_does_not_keep_from_sending),
        TEST(a_read_only_disk_refuses),
        TEST(a_failed_write_ends_the_segment),
        TEST(a_failed_sync_is_never_tried_again),
        TEST(what_was_refused_is_cut_by_the_next_header),
        TEST(every_append_of_a_failed_sync_is_refused),
        TEST(failing_disks_are_tried_ever_more_slowly),
        TEST(short_writes_are_completed),
        TEST(a_record_that_cannot_be_read_is_given_up_in_the_end),
        TEST(an_unreadable_footer_holds_up_no_other_segment),
        TEST(a_file_that_cannot_be_removed_is_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
