/* The log when all goes well: what is appended is taken, read, finished, and still there after a
 * restart; segments come and go; notes; who may open what. */
#include "tests/unit/collector/storage/rig.h"

#include <sys/stat.h>
#include <unistd.h>

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

static void reopen(void)
{
    rig_close(rig);
    rig_open(rig);
}

static void reopen_killed(void)
{
    rig->disk->gone = true;
    rig_close(rig);
    disk_kill(rig->disk);
    rig_open(rig);
}

static struct flue_storage_lag lag_of(unsigned queue)
{
    struct flue_storage_lag lag;
    flue_storage_lag(rig->queues[queue], &lag);
    return lag;
}

static void takes_in_order_and_reads(void **state)
{
    struct flue_storage_entry entry;
    uint32_t tag;
    for (uint32_t i = 0; i < 10; i++)
        put_one(rig, i, 1);
    assert_true(flue_storage_take(rig->queues[0], FLUE_STORAGE_NEWEST, &entry));
    assert_int_equal(get(rig, 0, entry.record, &tag, NULL), FLUE_OK);
    assert_int_equal(tag, 9);
    assert_int_equal(entry.time_ns, UINT64_C(10000000000));
    assert_int_equal(entry.bytes, 1 + body_size(9));
    assert_int_equal(entry.counts.samples, 9);
    assert_int_equal(entry.counts.bytes, body_size(9) + 7);
    for (uint32_t i = 0; i < 9; i++) {
        assert_true(flue_storage_take(rig->queues[0], FLUE_STORAGE_OLDEST, &entry));
        assert_int_equal(get(rig, 0, entry.record, &tag, NULL), FLUE_OK);
        assert_int_equal(tag, i);
    }
    assert_false(flue_storage_take(rig->queues[0], FLUE_STORAGE_OLDEST, &entry));
    assert_false(flue_storage_take(rig->queues[1], FLUE_STORAGE_OLDEST, &entry));
}

static void lag_is_the_sum_of_what_is_owed(void **state)
{
    uint64_t records[6], bytes = 0, samples = 0;
    for (uint32_t i = 0; i < 6; i++) {
        records[i] = put_one(rig, 20 + i, 3);
        bytes += 2 + body_size(20 + i);
        samples += 20 + i;
    }
    struct flue_storage_lag lag = lag_of(0);
    assert_int_equal(lag.records, 6);
    assert_int_equal(lag.bytes, bytes);
    assert_int_equal(lag.counts.profiles, 6);
    assert_int_equal(lag.counts.samples, samples);
    assert_int_equal(lag.oldest_ns, UINT64_C(21000000000));
    flue_storage_finish(rig->queues[0], records[0]);
    flue_storage_finish(rig->queues[0], records[0]); /* again: nothing happens */
    flue_storage_finish(rig->queues[2], records[1]); /* it never owed it */
    flue_storage_finish(rig->queues[0], UINT64_MAX);
    lag = lag_of(0);
    assert_int_equal(lag.records, 5);
    assert_int_equal(lag.bytes, bytes - 2 - body_size(20));
    assert_int_equal(lag.oldest_ns, UINT64_C(22000000000));
    assert_int_equal(lag_of(1).records, 6);
    assert_int_equal(lag_of(2).records, 0);
}

static void restart_gives_back_what_is_owed(void **state)
{
    uint64_t records[300];
    for (uint32_t i = 0; i < 300; i++) /* several segments */
        records[i] = put_one(rig, i, i % 2 ? 3 : 1);
    for (uint32_t i = 0; i < 300; i += 3)
        flue_storage_finish(rig->queues[0], records[i]);
    struct flue_storage_lag before = lag_of(0), other = lag_of(1);
    for (int killed = 0; killed < 3; killed++) {
        struct flue_storage_lag after;
        if (killed) {
            rig_rest(rig);
            reopen_killed();
        } else {
            reopen();
        }
        flue_storage_recovered(rig->queues[0], &after);
        assert_memory_equal(&after, &before, sizeof after);
        flue_storage_recovered(rig->queues[1], &after);
        assert_memory_equal(&after, &other, sizeof after);
    }
    struct flue_storage_entry entry;
    uint32_t tag, next = 0;
    while (take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry)) {
        next += next % 3 == 0;
        assert_int_equal(entry.record, records[next]);
        assert_int_equal(get(rig, 0, entry.record, &tag, NULL), FLUE_OK);
        assert_int_equal(tag, next++);
    }
    assert_int_equal(next, 300);
}

static void segments_go_when_no_queue_owes_them(void **state)
{
    uint64_t records[200];
    for (uint32_t i = 0; i < 200; i++)
        records[i] = put_one(rig, i, 3);
    size_t segments = disk_count(rig->disk, ".segment");
    assert_true(segments >= 3);
    for (uint32_t i = 0; i < 200; i++)
        flue_storage_finish(rig->queues[0], records[i]);
    rig_rest(rig);
    assert_int_equal(disk_count(rig->disk, ".segment"), segments); /* the other still owes */
    for (uint32_t i = 0; i < 200; i++)
        if (i != 150)
            flue_storage_finish(rig->queues[1], records[i]);
    rig_rest(rig);
    assert_in_range(disk_count(rig->disk, ".segment"), 1, 2); /* that of 150, and the open one */
    flue_storage_finish(rig->queues[1], records[150]);
    reopen();
    rig_rest(rig);
    assert_int_equal(disk_count(rig->disk, ".segment"), 0);
    assert_int_equal(lag_of(1).records, 0);
    assert_int_equal(flue_metric_get(rig->storage->bytes), 0);
    assert_int_equal(flue_metric_get(rig->storage->records), 0);
    /* No number is used twice, or old entries of `finished` would eat new records. */
    assert_true(put_one(rig, 1, 1) > records[199]);
}

static void one_retry_blocks_nothing(void **state)
{
    struct flue_storage_entry entry;
    uint64_t stuck = put_one(rig, 1, 1);
    for (uint32_t i = 2; i < 100; i++)
        flue_storage_finish(rig->queues[0], put_one(rig, i, 1));
    assert_int_equal(lag_of(0).records, 1);
    rig_rest(rig);
    reopen_killed();
    assert_int_equal(lag_of(0).records, 1);
    assert_true(take_wait(rig, 0, FLUE_STORAGE_NEWEST, &entry));
    assert_int_equal(entry.record, stuck);
}

static _Atomic unsigned told;
static void tell(void *arg)
{
    atomic_fetch_add(&told, 1);
    uv_sem_post(arg);
}

static void taken_is_not_given_again_until_put_back(void **state)
{
    struct flue_storage_entry entry;
    uv_sem_t sem;
    uv_sem_init(&sem, 0);
    flue_storage_watch(rig->queues[0], rig->loops->items[1], tell, &sem);
    struct put *put = put_sized(rig, 5, 100, 3, 1); /* the first queue has it in memory */
    put_wait(put);
    uint64_t record = put->append.record;
    put_free(put);
    assert_false(flue_storage_take(rig->queues[0], FLUE_STORAGE_NEWEST, &entry));
    assert_int_equal(atomic_load(&told), 0);
    assert_true(flue_storage_take(rig->queues[1], FLUE_STORAGE_NEWEST, &entry));
    assert_int_equal(lag_of(0).records, 1); /* owed all the same */
    flue_storage_put_back(rig->queues[0], record);
    uv_sem_wait(&sem);
    flue_storage_put_back(rig->queues[0], record); /* twice: nothing happens */
    assert_true(flue_storage_take(rig->queues[0], FLUE_STORAGE_NEWEST, &entry));
    assert_int_equal(entry.record, record);
    assert_false(flue_storage_take(rig->queues[0], FLUE_STORAGE_NEWEST, &entry));
    flue_storage_put_back(rig->queues[0], record);
    uv_sem_wait(&sem);
    put_one(rig, 6, 1); /* appended for nobody in particular */
    uv_sem_wait(&sem);
    flue_storage_watch(rig->queues[0], NULL, NULL, NULL);
    flue_loop_call(rig->loops->items[1], rig_nothing, NULL);
    assert_int_equal(atomic_load(&told), 3);
    reopen_killed(); /* what was taken is owed again */
    assert_true(take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry));
    assert_int_equal(entry.record, record);
    uv_sem_destroy(&sem);
}

static void rows_that_left_memory_come_back(void **state)
{
    uint64_t records[200];
    struct flue_storage_entry entry;
    uint32_t tag;
    for (uint32_t i = 0; i < 200; i++)
        records[i] = put_one(rig, i, 1);
    struct flue_storage_lag all = lag_of(0), one;
    reopen();
    rig_forget_rows(rig);
    assert_true(take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry));
    assert_int_equal(entry.record, records[0]);
    rig_forget_rows(rig);
    assert_int_equal(get(rig, 0, records[3], &tag, NULL), FLUE_OK);
    assert_int_equal(tag, 3);
    rig_forget_rows(rig);
    for (uint32_t i = 0; i < 199; i++) /* whole segments retire without their rows */
        flue_storage_finish(rig->queues[0], records[i]);
    rig_rest(rig);
    one = lag_of(0);
    assert_int_equal(one.records, 1);
    assert_int_equal(one.bytes, 3 + body_size(199));
    assert_int_equal(one.counts.samples, 99);
    assert_true(all.bytes > one.bytes);
}

static void too_much_is_refused(void **state)
{
    struct flue_error error;
    static uint8_t head[FLUE_STORAGE_HEAD + 1];
    struct flue_bytes item = flue_bytes(head, sizeof head - 1), body_item = FLUE_BYTES("x");
    struct put *put = calloc(1, sizeof *put);
    uv_sem_init(&put->arrived, 0);
    for (int over = 0; over < 2; over++) {
        item.size = FLUE_STORAGE_HEAD + (size_t)over;
        put->head = (struct flue_slices){&item, 1, 1, item.size};
        put->body = (struct flue_slices){&body_item, 1, 1, 1};
        put->queues[0] = rig->queues[0];
        put->code = FLUE_OK;
        put->append = (struct flue_storage_append){.head = &put->head,
                                                   .body = &put->body,
                                                   .queues = put->queues,
                                                   .queue_count = 1,
                                                   .loop = rig->loops->items[0],
                                                   .done = put_done,
                                                   .user = put};
        flue_storage_append(rig->storage, &put->append);
        put_wait(put);
        assert_int_equal(put->code, over ? FLUE_TOO_LARGE : FLUE_OK);
    }
    assert_string_equal(put->error.text, "the head of a record has 65537 bytes, limit 65536");
    put->bytes = NULL;
    put_free(put);
    /* A record larger than a segment has one of its own. */
    put = put_sized(rig, 77, 3 << 20, 1, 0);
    put_wait(put);
    assert_int_equal(put->code, FLUE_OK);
    uint32_t tag;
    assert_int_equal(get(rig, 0, put->append.record, &tag, NULL), FLUE_OK);
    put_free(put);
    /* Queues: 64, their names 200 bytes. */
    struct flue_storage_queue *queue;
    char name[FLUE_STORAGE_NAME + 2];
    memset(name, 'q', sizeof name);
    name[sizeof name - 1] = 0;
    assert_int_equal(flue_storage_queue_open(rig->storage, name, &queue, &error), FLUE_INVALID);
    name[sizeof name - 2] = 0;
    assert_int_equal(flue_storage_queue_open(rig->storage, name, &queue, &error), FLUE_OK);
    for (int i = RIG_QUEUES + 1; i < 64; i++) {
        snprintf(name, sizeof name, "otlp/%d", i);
        assert_int_equal(flue_storage_queue_open(rig->storage, name, &queue, &error), FLUE_OK);
    }
    assert_int_equal(flue_storage_queue_open(rig->storage, name, &queue, &error), FLUE_OK);
    assert_int_equal(flue_storage_queue_open(rig->storage, "more", &queue, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "at most 64 queues"));
}

static void many_small_records_fill_a_segment(void **state)
{
    enum { COUNT = FLUE_STORAGE_RECORDS + 500 };
    struct put **puts = calloc(COUNT, sizeof *puts);
    rig_close(rig);
    rig->segment_bytes = 64 << 20;
    rig_open(rig);
    for (uint32_t i = 0; i < COUNT; i++)
        puts[i] = put_sized(rig, i, 3, 1, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        put_wait(puts[i]);
        assert_int_equal(puts[i]->code, FLUE_OK);
    }
    assert_int_equal(puts[0]->append.record >> 16, 1);
    assert_int_equal(puts[COUNT - 1]->append.record >> 16, 2);
    reopen();
    struct flue_storage_entry entry;
    uint32_t tag;
    assert_int_equal(lag_of(0).records, COUNT);
    assert_true(take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry));
    assert_int_equal(entry.record, puts[0]->append.record);
    assert_true(take_wait(rig, 0, FLUE_STORAGE_NEWEST, &entry));
    assert_int_equal(get(rig, 0, entry.record, &tag, NULL), FLUE_OK);
    assert_int_equal(tag, COUNT - 1);
    for (uint32_t i = 0; i < COUNT; i++)
        put_free(puts[i]);
    free(puts);
}

static void one_sync_covers_all_that_wait(void **state)
{
    struct put *puts[200];
    put_one(rig, 1, 1); /* its segment is there */
    uint64_t syncs = rig->disk->syncs;
    pthread_mutex_lock(&rig->disk->lock);
    rig->disk->hold_syncs = true;
    pthread_mutex_unlock(&rig->disk->lock);
    for (uint32_t i = 0; i < 200; i++)
        puts[i] = put_sized(rig, i, 100, 1, 0);
    for (bool waits = false; !waits;) {
        pthread_mutex_lock(&rig->disk->lock);
        waits = rig->disk->waiting == 1;
        pthread_mutex_unlock(&rig->disk->lock);
    }
    for (uint32_t i = 0; i < 200; i++) /* nothing is acknowledged before its sync */
        assert_false(atomic_load(&puts[i]->done));
    pthread_mutex_lock(&rig->disk->lock);
    rig->disk->hold_syncs = false;
    pthread_cond_broadcast(&rig->disk->freed);
    pthread_mutex_unlock(&rig->disk->lock);
    for (uint32_t i = 0; i < 200; i++) {
        put_wait(puts[i]);
        assert_int_equal(puts[i]->code, FLUE_OK);
        put_free(puts[i]);
    }
    assert_in_range(rig->disk->syncs - syncs, 1, 2);
    assert_int_equal(flue_metric_get(rig->storage->appended), 201);
}

static void without_fsync_nothing_is_synced(void **state)
{
    rig_close(rig);
    rig->no_fsync = true;
    rig_open(rig);
    uint64_t syncs = rig->disk->syncs;
    for (uint32_t i = 0; i < 20; i++)
        put_one(rig, i, 1);
    assert_int_equal(rig->disk->syncs, syncs);
    reopen_killed();
    assert_int_equal(lag_of(0).records, 20);
}

static void clock_jumps_do_not_matter(void **state)
{
    struct flue_storage_entry entry;
    uint64_t first = put_one(rig, 50, 1);
    flue_clock_move(-INT64_C(86400000000000));
    uint64_t second = put_one(rig, 3, 1); /* its time of receipt is earlier, too */
    flue_clock_move(INT64_C(10) * 86400 * 1000000000);
    uint64_t third = put_one(rig, 4, 1);
    assert_true(first < second && second < third);
    reopen_killed();
    assert_true(take_wait(rig, 0, FLUE_STORAGE_OLDEST, &entry));
    assert_int_equal(entry.record, first);
    assert_true(take_wait(rig, 0, FLUE_STORAGE_NEWEST, &entry));
    assert_int_equal(entry.record, third);
    flue_clock_move(-INT64_C(9) * 86400 * 1000000000);
}

static void queues_that_nobody_opens_keep_their_records(void **state)
{
    struct flue_storage_queue *old;
    struct flue_error error;
    assert_int_equal(flue_storage_queue_open(rig->storage, "otlp/old", &old, &error), FLUE_OK);
    struct flue_storage_queue *kept = rig->queues[1];
    rig->queues[1] = old;
    put_one(rig, 8, 2);
    rig->queues[1] = kept;
    reopen();
    put_one(rig, 9, 1);
    int pair[2];
    assert_int_equal(pipe(pair), 0);
    flue_log_configure(FLUE_WARN, false, pair[1]);
    flue_storage_settle(rig->storage);
    flue_storage_settle(rig->storage); /* one warning */
    flue_log_configure(FLUE_ERROR + 1, false, 2);
    close(pair[1]);
    char text[2000];
    ssize_t size = read(pair[0], text, sizeof text - 1);
    close(pair[0]);
    assert_true(size > 0);
    text[size] = 0;
    assert_non_null(strstr(text, "otlp/old"));
    assert_ptr_equal(strchr(text, '\n'), text + size - 1);
    reopen();
    assert_int_equal(flue_storage_queue_open(rig->storage, "otlp/old", &old, &error), FLUE_OK);
    rig->queues[1] = old;
    assert_int_equal(lag_of(1).records, 1);
    uint32_t tag;
    struct flue_storage_entry entry;
    assert_true(take_wait(rig, 1, FLUE_STORAGE_OLDEST, &entry));
    assert_int_equal(get(rig, 1, entry.record, &tag, NULL), FLUE_OK);
    assert_int_equal(tag, 8);
}

/* ---- notes ----------------------------------------------------------------------------------- */

struct noted {
    struct flue_storage_note note;
    enum flue_code code;
    uv_sem_t arrived;
};
static void noted_done(struct flue_storage_note *note, enum flue_code code,
                       const struct flue_error *error)
{
    struct noted *noted = note->user;
    noted->code = code;
    uv_sem_post(&noted->arrived);
}
static enum flue_code put_note(unsigned queue, uint64_t number, struct flue_bytes text)
{
    struct noted noted = {.note = {.queue = rig->queues[queue],
                                   .number = number,
                                   .text = text,
                                   .loop = rig->loops->items[0],
                                   .done = noted_done}};
    noted.note.user = &noted;
    uv_sem_init(&noted.arrived, 0);
    flue_storage_note_put(&noted.note);
    uv_sem_wait(&noted.arrived);
    uv_sem_destroy(&noted.arrived);
    return noted.code;
}
static bool add_note_text(void *arg, uint64_t number, struct flue_bytes text)
{
    struct flue_buffer *out = arg;
    flue_buffer_printf(out, "%llu=%.*s;", (unsigned long long)number,
                       text.size < 20 ? (int)text.size : 20, (const char *)text.data);
    return true;
}
static void assert_notes(unsigned queue, const char *expected)
{
    struct flue_buffer text;
    flue_buffer_init(&text, 10000);
    flue_storage_notes(rig->queues[queue], add_note_text, &text);
    assert_string_equal(text.data ? text.data : "", expected);
    flue_buffer_destroy(&text);
}

static void notes_survive_until_dropped(void **state)
{
    static uint8_t large[FLUE_STORAGE_NOTE + 1];
    assert_int_equal(put_note(0, 7, FLUE_BYTES("seven")), FLUE_OK);
    assert_int_equal(put_note(0, UINT64_MAX, FLUE_BYTES("last")), FLUE_OK);
    assert_int_equal(put_note(0, 3, FLUE_BYTES("")), FLUE_OK);
    assert_int_equal(put_note(1, 7, FLUE_BYTES("other")), FLUE_OK);
    assert_int_equal(put_note(2, 1, flue_bytes(large, sizeof large - 1)), FLUE_OK);
    assert_int_equal(put_note(2, 2, flue_bytes(large, sizeof large)), FLUE_TOO_LARGE);
    reopen_killed();
    assert_notes(0, "3=;7=seven;18446744073709551615=last;");
    assert_notes(1, "7=other;");
    assert_int_equal(put_note(0, 7, FLUE_BYTES("again")), FLUE_OK); /* in place of the first */
    flue_storage_note_drop(rig->queues[0], 3);
    flue_storage_note_drop(rig->queues[0], 4); /* never was */
    rig_rest(rig);
    reopen_killed();
    assert_notes(0, "7=again;18446744073709551615=last;");
    assert_int_equal(disk_count(rig->disk, ".note"), 4);
}

static void a_note_is_acknowledged_when_durable(void **state)
{
    assert_int_equal(put_note(0, 1, FLUE_BYTES("cut")), FLUE_OK);
    rig->disk->gone = true;
    rig_close(rig);
    rig->disk->dice = 3;
    disk_power_cut(rig->disk);
    rig_open(rig);
    assert_notes(0, "1=cut;");
    rig->disk->sync_errno = EIO;
    assert_int_equal(put_note(0, 2, FLUE_BYTES("no")), FLUE_UNAVAILABLE);
    rig->disk->sync_errno = 0;
    disk_data(rig->disk, ".note")->bytes[40] ^= 1;
    reopen();
    assert_notes(0, ""); /* neither the failed one nor the damaged one */
    assert_int_equal(disk_count(rig->disk, ".note.damaged"), 1);
}

/* ---- the folder ------------------------------------------------------------------------------ */

static void a_folder_belongs_to_one(void **state)
{
    char path[] = "/tmp/flue-storage-XXXXXX", command[80];
    struct flue_error error;
    assert_non_null(mkdtemp(path));
    struct rig *first = rig_new(NULL), *second = rig_new(NULL);
    snprintf(first->folder, sizeof first->folder, "%s/a/b/", path);
    snprintf(second->folder, sizeof second->folder, "%s/a/b", path);
    rig_open(first);
    struct stat st;
    assert_int_equal(stat(second->folder, &st), 0);
    assert_int_equal(st.st_mode & 0777 & ~0750, 0);
    uint64_t record = put_one(first, 4, 1);
    assert_int_equal(rig_try_open(second, &error), FLUE_UNAVAILABLE);
    assert_non_null(strstr(error.text, "in use by another process"));
    rig_close(first);
    rig_open(second);
    uint32_t tag;
    assert_int_equal(get(second, 0, record, &tag, NULL), FLUE_OK);
    assert_int_equal(tag, 4);
    flue_storage_finish(second->queues[0], record);
    rig_close(second);
    rig_open(second);
    rig_rest(second);
    rig_close(second);
    const char *const left[] = {"/a/b/lock", "/a/b/finished", "/a/b", "/a", ""};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) { /* and nothing else is there */
        snprintf(command, sizeof command, "%s%s", path, left[i]);
        assert_int_equal(remove(command), 0);
    }
    snprintf(second->folder, sizeof second->folder, "/proc/nowhere");
    assert_int_equal(rig_try_open(second, &error), FLUE_UNAVAILABLE);
    assert_non_null(strstr(error.text, "/proc/nowhere"));
    rig_free(first);
    rig_free(second);
}

static void reseal(struct disk_data *data, const char *magic, uint32_t version)
{
    struct flue_storage_block *block = malloc(sizeof *block);
    for (size_t copy = 0; copy < (magic[4] == 'S' ? 2 : 1); copy++) {
        uint8_t *at = data->bytes + copy * sizeof *block;
        memcpy(block, at, sizeof *block);
        block->version = version;
        block->crc = flue_crc32c(flue_crc32c(0, &version, sizeof version), &block->crc + 1,
                                 sizeof *block - offsetof(struct flue_storage_block, number));
        memcpy(at, block, sizeof *block);
    }
    free(block);
}

static void a_later_version_is_refused(void **state)
{
    const char *const names[] = {".segment", "finished"};
    const char *const magics[] = {FLUE_SEGMENT_MAGIC, FLUE_FINISHED_MAGIC};
    put_one(rig, 1, 1);
    rig_close(rig);
    for (size_t i = 0; i < 2; i++) {
        struct flue_error error;
        reseal(disk_data(rig->disk, names[i]), magics[i], 2);
        assert_int_equal(rig_try_open(rig, &error), FLUE_INVALID);
        assert_non_null(strstr(error.text, "later version"));
        reseal(disk_data(rig->disk, names[i]), magics[i], FLUE_STORAGE_VERSION);
    }
    rig_open(rig);
    assert_int_equal(lag_of(0).records, 1);
}

static void metrics_tell(void **state)
{
    struct flue_buffer page;
    uint64_t record = put_one(rig, 1, 3);
    flue_storage_finish(rig->queues[0], record);
    flue_buffer_init(&page, 1 << 20);
    flue_metrics_print(rig->metrics, &page);
    const char *const lines[] = {
        "otelcol_storage_size_bytes{storage=\"file_storage/test\"} 262144\n",
        "otelcol_storage_owed_records{storage=\"file_storage/test\"} 1\n",
        "otelcol_storage_appended_records_total{storage=\"file_storage/test\"} 1\n",
        "otelcol_storage_syncs_total{storage=\"file_storage/test\"} 1\n",
        "otelcol_storage_sync_seconds_count{storage=\"file_storage/test\"} 1\n",
        "otelcol_storage_damaged_records_total{storage=\"file_storage/test\"} 0\n",
        "otelcol_storage_failures_total{operation=\"sync\",storage=\"file_storage/test\"} 0\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!strstr(page.data, lines[i]))
            fail_msg("not there: %s in %s", lines[i], page.data);
    flue_buffer_destroy(&page);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(takes_in_order_and_reads),
        TEST(lag_is_the_sum_of_what_is_owed),
        TEST(restart_gives_back_what_is_owed),
        TEST(segments_go_when_no_queue_owes_them),
        TEST(one_retry_blocks_nothing),
        TEST(taken_is_not_given_again_until_put_back),
        TEST(rows_that_left_memory_come_back),
        TEST(too_much_is_refused),
        TEST(many_small_records_fill_a_segment),
        TEST(one_sync_covers_all_that_wait),
        TEST(without_fsync_nothing_is_synced),
        TEST(clock_jumps_do_not_matter),
        TEST(queues_that_nobody_opens_keep_their_records),
        TEST(notes_survive_until_dropped),
        TEST(a_note_is_acknowledged_when_durable),
        TEST(a_folder_belongs_to_one),
        TEST(a_later_version_is_refused),
        TEST(metrics_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
