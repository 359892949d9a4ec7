/* rig.h: a log on a disk in memory (or a real folder), with records whose content says who they
 * are: the head is the tag in decimal, the body follows from the tag. */
#ifndef TESTS_STORAGE_RIG_H
#define TESTS_STORAGE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdatomic.h>
#include <cmocka.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/storage/inside.h"
#include "tests/unit/collector/storage/disk.h"

#define RIG_QUEUES 3
#define unused     __attribute__((unused))

struct rig {
    struct disk *disk;
    char folder[64];
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_storage *storage;
    struct flue_storage_queue *queues[RIG_QUEUES];
    int64_t segment_bytes;
    bool no_fsync, rewrites; /* rewrites: `finished` is written anew all the time */
};

static const char *const rig_names[RIG_QUEUES] = {"otlp/a", "pyroscope/b", "awss3/c"};

unused static size_t body_size(uint32_t tag)
{
    return tag * UINT32_C(2654435761) % 9000;
}

static void fill_body(uint32_t tag, uint8_t *out, size_t size)
{
    uint64_t x = tag * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out[i] = (uint8_t)x;
    }
}

static enum flue_code rig_try_open(struct rig *rig, struct flue_error *error)
{
    struct flue_storage_config config = {.directory = rig->disk ? "/log" : rig->folder,
                                         .create_directory = true,
                                         .fsync = !rig->no_fsync,
                                         .segment_bytes = rig->segment_bytes};
    enum flue_code code = flue_storage_new(&config, "file_storage/test", rig->loops, rig->metrics,
                                           &rig->storage, error);
    assert_int_equal(code, FLUE_OK);
    if (rig->disk)
        flue_storage_use_io(rig->storage, &rig->disk->io);
    for (size_t i = 0; i < RIG_QUEUES; i++)
        assert_int_equal(
            flue_storage_queue_open(rig->storage, rig_names[i], &rig->queues[i], error), FLUE_OK);
    if (rig->rewrites)
        rig->storage->reader.least_limit = 0;
    code = flue_storage_start(rig->storage, error);
    if (code) {
        flue_storage_close(rig->storage);
        rig->storage = NULL;
    }
    return code;
}

static void rig_open(struct rig *rig)
{
    struct flue_error error = {0};
    if (rig_try_open(rig, &error))
        fail_msg("%s", error.text);
}

static struct rig *rig_new(struct disk *disk)
{
    struct flue_error error;
    struct rig *rig = calloc(1, sizeof *rig);
    flue_log_configure(FLUE_ERROR + 1, false, 2);
    rig->disk = disk;
    rig->segment_bytes = 256 * 1024;
    assert_int_equal(flue_loops_new(2, &rig->loops, &error), FLUE_OK);
    assert_int_equal(flue_loops_run(rig->loops, &error), FLUE_OK);
    rig->metrics = flue_metrics_new("otelcol_");
    return rig;
}

static void rig_close(struct rig *rig)
{
    flue_storage_close(rig->storage);
    rig->storage = NULL;
}

static void rig_free(struct rig *rig)
{
    rig_close(rig);
    flue_loops_stop(rig->loops);
    flue_loops_destroy(rig->loops);
    flue_metrics_destroy(rig->metrics);
    if (rig->disk)
        disk_free(rig->disk);
    free(rig);
}

/* ---- appending ------------------------------------------------------------------------------- */

struct put {
    struct flue_storage_append append;
    struct flue_slices head, body;
    struct flue_bytes head_item, body_items[3];
    struct flue_storage_queue *queues[RIG_QUEUES];
    char tag_text[16];
    uint8_t *bytes;
    uint32_t tag;
    unsigned mask;
    enum flue_code code;
    struct flue_error error;
    _Atomic bool done;
    uv_sem_t arrived;
};

static void put_done(struct flue_storage_append *append, enum flue_code code,
                     const struct flue_error *error)
{
    struct put *put = append->user;
    put->code = code;
    if (error)
        put->error = *error;
    atomic_store(&put->done, true);
    uv_sem_post(&put->arrived);
}

/* For the queues of `mask`; `taken` as in flue_storage_append. */
static struct put *put_sized(struct rig *rig, uint32_t tag, size_t size, unsigned mask,
                             uint64_t taken)
{
    struct put *put = calloc(1, sizeof *put);
    put->tag = tag;
    put->mask = mask;
    uv_sem_init(&put->arrived, 0);
    put->bytes = malloc(size + 1);
    fill_body(tag, put->bytes, size);
    snprintf(put->tag_text, sizeof put->tag_text, "%u", tag);
    put->head_item = flue_bytes_of(put->tag_text);
    put->head = (struct flue_slices){&put->head_item, 1, 1, put->head_item.size};
    size_t third = size / 3; /* the second slice is often empty */
    put->body_items[0] = flue_bytes(put->bytes, third);
    put->body_items[1] = flue_bytes(put->bytes + third, tag % 2 ? third : 0);
    put->body_items[2] = flue_bytes(put->bytes + third + put->body_items[1].size,
                                    size - third - put->body_items[1].size);
    put->body = (struct flue_slices){put->body_items, 3, 3, size};
    put->append = (struct flue_storage_append){
        .head = &put->head,
        .body = &put->body,
        .counts = {.profiles = 1, .samples = tag % 100, .bytes = size + 7},
        .time_ns = UINT64_C(1000000000) * (tag + 1),
        .queues = put->queues,
        .taken = taken,
        .loop = rig->loops->items[tag % 2],
        .done = put_done,
        .user = put,
    };
    for (unsigned i = 0; i < RIG_QUEUES; i++)
        if (mask >> i & 1)
            put->queues[put->append.queue_count++] = rig->queues[i];
    flue_storage_append(rig->storage, &put->append);
    return put;
}

unused static struct put *put_begin(struct rig *rig, uint32_t tag, unsigned mask)
{
    return put_sized(rig, tag, body_size(tag), mask, 0);
}

static void put_wait(struct put *put)
{
    uv_sem_wait(&put->arrived);
}

static void put_free(struct put *put)
{
    uv_sem_destroy(&put->arrived);
    free(put->bytes);
    free(put);
}

/* Appends and waits; the record's id. */
unused static uint64_t put_one(struct rig *rig, uint32_t tag, unsigned mask)
{
    struct put *put = put_begin(rig, tag, mask);
    put_wait(put);
    if (put->code)
        fail_msg("%s", put->error.text);
    uint64_t record = put->append.record;
    put_free(put);
    return record;
}

unused static enum flue_code put_code(struct rig *rig, uint32_t tag, struct flue_error *error)
{
    struct put *put = put_begin(rig, tag, 1);
    put_wait(put);
    enum flue_code code = put->code;
    if (error)
        *error = put->error;
    put_free(put);
    return code;
}

/* ---- taking and reading ---------------------------------------------------------------------- */

struct got {
    struct flue_storage_read read;
    enum flue_code code;
    struct flue_error error;
    uv_sem_t arrived;
};

static void got_done(struct flue_storage_read *read, enum flue_code code,
                     const struct flue_error *error)
{
    struct got *got = read->user;
    got->code = code;
    if (error)
        got->error = *error;
    uv_sem_post(&got->arrived);
}

/* FLUE_OK: the content was checked and `tag` is whose it is. */
unused static enum flue_code get(struct rig *rig, unsigned queue, uint64_t record, uint32_t *tag,
                                 struct flue_error *error)
{
    struct got got = {.read = {.queue = rig->queues[queue],
                               .record = record,
                               .loop = rig->loops->items[0],
                               .done = got_done}};
    got.read.user = &got;
    uv_sem_init(&got.arrived, 0);
    flue_storage_read(&got.read);
    uv_sem_wait(&got.arrived);
    uv_sem_destroy(&got.arrived);
    if (error)
        *error = got.error;
    if (got.code)
        return got.code;
    uint64_t value = 0;
    assert_true(flue_parse_u64(flue_block_bytes(got.read.head), &value));
    uint8_t *expected = malloc(got.read.body->size + 1);
    fill_body((uint32_t)value, expected, got.read.body->size);
    assert_memory_equal(got.read.body->data, expected, got.read.body->size);
    free(expected);
    flue_block_unref(got.read.head);
    flue_block_unref(got.read.body);
    *tag = (uint32_t)value;
    return FLUE_OK;
}

struct awaited {
    uv_sem_t ready;
};
unused static void rig_ready(void *arg)
{
    uv_sem_post(&((struct awaited *)arg)->ready);
}

unused static void rig_nothing(struct flue_loop *loop, void *arg)
{
}

/* Nothing of the watcher runs after it. */
unused static void rig_unwatch(struct rig *rig, unsigned queue)
{
    flue_storage_watch(rig->queues[queue], NULL, NULL, NULL);
    /* A post under way ends on the loop before anything that is posted now. */
    struct flue_storage_watcher *watcher = rig->queues[queue]->watcher;
    for (bool posted = true; posted;) {
        pthread_mutex_lock(&rig->storage->lock);
        posted = watcher->posted;
        pthread_mutex_unlock(&rig->storage->lock);
    }
    flue_loop_call(rig->loops->items[0], rig_nothing, NULL);
}

/* Takes one, waiting for what must be read first. False: it owes none that is not taken. */
unused static bool take_wait(struct rig *rig, unsigned queue, enum flue_storage_order order,
                             struct flue_storage_entry *entry)
{
    struct awaited awaited;
    uv_sem_init(&awaited.ready, 0);
    flue_storage_watch(rig->queues[queue], rig->loops->items[0], rig_ready, &awaited);
    bool got;
    while (!(got = flue_storage_take(rig->queues[queue], order, entry))) {
        pthread_mutex_lock(&rig->storage->lock);
        uint64_t left = rig->queues[queue]->untaken;
        pthread_mutex_unlock(&rig->storage->lock);
        if (!left)
            break;
        uv_sem_wait(&awaited.ready);
    }
    rig_unwatch(rig, queue);
    uv_sem_destroy(&awaited.ready);
    return got;
}

/* Waits until the reader has nothing left to do. */
unused static void rig_rest(struct rig *rig)
{
    struct flue_storage *storage = rig->storage;
    uint32_t tag;
    struct flue_error error;
    /* A read is answered after what came before it; twice, for what the first round left. */
    for (int i = 0; i < 2; i++)
        assert_int_equal(get(rig, 0, UINT64_C(1) << 60, &tag, &error), FLUE_INVALID);
    for (bool busy = true; busy;) {
        pthread_mutex_lock(&storage->lock);
        busy = storage->dirty || storage->dead || storage->note_drop_count || storage->wanted;
        for (size_t i = 0; i < storage->segment_count; i++)
            busy |= storage->segments[i]->late;
        pthread_mutex_unlock(&storage->lock);
        assert_int_equal(get(rig, 0, UINT64_C(1) << 60, &tag, &error), FLUE_INVALID);
    }
}

/* Rows of sealed segments leave memory, as they do when there are many. */
unused static void rig_forget_rows(struct rig *rig)
{
    struct flue_storage *storage = rig->storage;
    pthread_mutex_lock(&storage->lock);
    for (size_t i = 0; i < storage->segment_count; i++) {
        struct flue_storage_segment *segment = storage->segments[i];
        if (segment->pinned || !segment->rows)
            continue;
        storage->cached -= segment->count * sizeof *segment->rows;
        free(segment->rows);
        segment->rows = NULL;
        segment->rows_room = 0;
    }
    pthread_mutex_unlock(&storage->lock);
}

#endif
