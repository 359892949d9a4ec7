/* fake_storage.h: a log in memory that fails, waits and forgets as it is told; include it in one
 * file, before the library's own is linked. */
#ifndef TESTS_PIPELINE_FAKE_STORAGE_H
#define TESTS_PIPELINE_FAKE_STORAGE_H

#include <pthread.h>
#include "fake.h"
#include "collector/pipeline/ledger.h"
#include "collector/storage/storage.h"

#define LOG_RECORDS 16384
#define LOG_QUEUES  4

struct log_record {
    struct flue_block *head, *body;
    struct flue_counts counts;
    uint64_t bytes, time_ns;
    unsigned owing, taken; /* bit per queue */
};
struct flue_storage_queue {
    struct flue_storage *storage;
    unsigned bit;
    char name[64];
    struct flue_loop *loop;
    void (*ready)(void *arg);
    void *arg;
    struct flue_task task;
    bool posted;
    struct flue_storage_lag recovered;
};
struct flue_storage {
    pthread_mutex_t lock;
    struct log_record records[LOG_RECORDS]; /* the id is the index */
    uint64_t count, recovered;              /* ids from 1 */
    struct flue_storage_queue queues[LOG_QUEUES];
    unsigned queue_count;
    _Atomic int fail_appends, fail_reads, damaged; /* so many; -1: all */
    _Atomic bool hold;                             /* appends wait */
    struct flue_storage_append *held[64];
    unsigned held_count;
    _Atomic int appends, finished;
    void (*finishing)(void); /* told before a record is finished */
    _Atomic bool forgets;    /* what is finished: as a kill just before would */
};

static struct flue_storage *log_new(void)
{
    struct flue_storage *log = calloc(1, sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
    log->count = 1;
    return log;
}

/* As after a kill: what was taken is owed again, nobody watches. */
static void log_restart(struct flue_storage *log)
{
    log->recovered = log->count;
    for (unsigned q = 0; q < log->queue_count; q++) {
        struct flue_storage_queue *queue = &log->queues[q];
        queue->loop = NULL;
        queue->posted = false;
        memset(&queue->recovered, 0, sizeof queue->recovered);
        for (uint64_t i = 1; i < log->count; i++) {
            struct log_record *r = &log->records[i];
            r->taken = 0;
            if (!(r->owing & 1u << queue->bit))
                continue;
            queue->recovered.records++;
            queue->recovered.bytes += r->bytes;
            flue_counts_add(&queue->recovered.counts, &r->counts);
        }
    }
}

static void log_destroy(struct flue_storage *log)
{
    for (uint64_t i = 1; i < log->count; i++) {
        flue_block_unref(log->records[i].head);
        flue_block_unref(log->records[i].body);
    }
    pthread_mutex_destroy(&log->lock);
    free(log);
}

enum flue_code flue_storage_start(struct flue_storage *storage, struct flue_error *error)
{
    return FLUE_OK;
}

enum flue_code flue_storage_queue_open(struct flue_storage *storage, const char *exporter,
                                       struct flue_storage_queue **out, struct flue_error *error)
{
    for (unsigned i = 0; i < storage->queue_count; i++) {
        if (strcmp(storage->queues[i].name, exporter) == 0) {
            *out = &storage->queues[i];
            return FLUE_OK;
        }
    }
    struct flue_storage_queue *queue = &storage->queues[storage->queue_count];
    queue->storage = storage;
    queue->bit = storage->queue_count++;
    (void)snprintf(queue->name, sizeof queue->name, "%s", exporter);
    *out = queue;
    return FLUE_OK;
}

void flue_storage_lag(const struct flue_storage_queue *queue, struct flue_storage_lag *out)
{
    struct flue_storage *log = queue->storage;
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&log->lock);
    for (uint64_t i = 1; i < log->count; i++) {
        const struct log_record *r = &log->records[i];
        if (!(r->owing & 1u << queue->bit))
            continue;
        out->records++;
        out->bytes += r->bytes;
        flue_counts_add(&out->counts, &r->counts);
    }
    pthread_mutex_unlock(&log->lock);
}

void flue_storage_recovered(const struct flue_storage_queue *queue, struct flue_storage_lag *out)
{
    *out = queue->recovered;
}

static void log_tell(struct flue_task *task)
{
    struct flue_storage_queue *queue =
        (struct flue_storage_queue *)((char *)task - offsetof(struct flue_storage_queue, task));
    pthread_mutex_lock(&queue->storage->lock);
    queue->posted = false;
    void (*ready)(void *arg) = queue->loop ? queue->ready : NULL;
    pthread_mutex_unlock(&queue->storage->lock);
    if (ready)
        ready(queue->arg);
}

static void log_notify(struct flue_storage_queue *queue)
{
    if (!queue->loop || queue->posted)
        return;
    queue->posted = true;
    queue->task.run = log_tell;
    flue_loop_post(queue->loop, &queue->task);
}

void flue_storage_watch(struct flue_storage_queue *queue, struct flue_loop *loop,
                        void (*ready)(void *arg), void *arg)
{
    pthread_mutex_lock(&queue->storage->lock);
    queue->loop = loop;
    queue->ready = ready;
    queue->arg = arg;
    pthread_mutex_unlock(&queue->storage->lock);
}

static void log_append_done(struct flue_task *task)
{
    struct flue_storage_append *append =
        (struct flue_storage_append *)((char *)task - offsetof(struct flue_storage_append, task));
    append->done(append, append->error.code, append->error.code ? &append->error : NULL);
}

static struct flue_block *log_block(const struct flue_slices *slices)
{
    struct flue_block *block = flue_block_new(NULL, slices->total ? slices->total : 1);
    flue_slices_copy(slices, block->data);
    block->size = slices->total;
    flue_block_finish(block);
    return block;
}

static bool log_fails(_Atomic int *count)
{
    int left = atomic_load(count);
    if (left > 0)
        atomic_fetch_sub(count, 1);
    return left != 0;
}

static void log_write(struct flue_storage *log, struct flue_storage_append *append)
{
    append->error.code = FLUE_OK;
    atomic_fetch_add(&log->appends, 1);
    if (log_fails(&log->fail_appends)) {
        (void)flue_fail(&append->error, FLUE_UNAVAILABLE, "no space left on device");
    } else {
        pthread_mutex_lock(&log->lock);
        struct log_record *r = &log->records[log->count];
        append->record = log->count++;
        assert_true(log->count < LOG_RECORDS);
        r->head = log_block(append->head);
        r->body = log_block(append->body);
        r->counts = append->counts;
        r->bytes = append->head->total + append->body->total;
        for (size_t i = 0; i < append->queue_count; i++) {
            r->owing |= 1u << append->queues[i]->bit;
            if (append->taken & UINT64_C(1) << i)
                r->taken |= 1u << append->queues[i]->bit;
        }
        pthread_mutex_unlock(&log->lock);
    }
    append->task.run = log_append_done;
    flue_loop_post(append->loop, &append->task);
}

void flue_storage_append(struct flue_storage *storage, struct flue_storage_append *append)
{
    if (!atomic_load(&storage->hold)) {
        log_write(storage, append);
        return;
    }
    pthread_mutex_lock(&storage->lock);
    storage->held[storage->held_count++] = append;
    pthread_mutex_unlock(&storage->lock);
}

static inline void log_release(struct flue_storage *log)
{
    atomic_store(&log->hold, false);
    pthread_mutex_lock(&log->lock);
    unsigned count = log->held_count;
    log->held_count = 0;
    pthread_mutex_unlock(&log->lock);
    for (unsigned i = 0; i < count; i++)
        log_write(log, log->held[i]);
}

bool flue_storage_take(struct flue_storage_queue *queue, enum flue_storage_order order,
                       struct flue_storage_entry *out)
{
    struct flue_storage *log = queue->storage;
    unsigned bit = 1u << queue->bit;
    bool found = false;
    pthread_mutex_lock(&log->lock);
    for (uint64_t n = 1; !found && n < log->count; n++) {
        uint64_t i = order == FLUE_STORAGE_NEWEST ? log->count - n : n;
        struct log_record *r = &log->records[i];
        if (!(r->owing & bit) || r->taken & bit)
            continue;
        r->taken |= bit;
        *out = (struct flue_storage_entry){i, r->time_ns, r->bytes, r->counts};
        found = true;
    }
    pthread_mutex_unlock(&log->lock);
    return found;
}

void flue_storage_put_back(struct flue_storage_queue *queue, uint64_t record)
{
    pthread_mutex_lock(&queue->storage->lock);
    assert_true(queue->storage->records[record].taken & 1u << queue->bit);
    queue->storage->records[record].taken &= ~(1u << queue->bit);
    log_notify(queue);
    pthread_mutex_unlock(&queue->storage->lock);
}

void flue_storage_finish(struct flue_storage_queue *queue, uint64_t record)
{
    pthread_mutex_lock(&queue->storage->lock);
    struct log_record *r = &queue->storage->records[record];
    assert_true(r->owing & 1u << queue->bit);
    if (queue->storage->finishing)
        queue->storage->finishing();
    if (!atomic_load(&queue->storage->forgets))
        r->owing &= ~(1u << queue->bit);
    atomic_fetch_add(&queue->storage->finished, 1);
    pthread_mutex_unlock(&queue->storage->lock);
}

static void log_read_done(struct flue_task *task)
{
    struct flue_job *job = (struct flue_job *)((char *)task - offsetof(struct flue_job, task));
    struct flue_storage_read *read =
        (struct flue_storage_read *)((char *)job - offsetof(struct flue_storage_read, job));
    read->done(read, read->error.code, read->error.code ? &read->error : NULL);
}

void flue_storage_read(struct flue_storage_read *read)
{
    struct flue_storage *log = read->queue->storage;
    read->error.code = FLUE_OK;
    if (log_fails(&log->fail_reads)) {
        (void)flue_fail(&read->error, FLUE_UNAVAILABLE, "input/output error");
    } else if (log_fails(&log->damaged)) {
        (void)flue_fail(&read->error, FLUE_INVALID, "checksum");
    } else {
        struct log_record *r = &log->records[read->record];
        read->head = flue_block_ref(r->head);
        read->body = flue_block_copy(read->account, flue_block_bytes(r->body));
        flue_block_finish(read->body);
    }
    read->job.task.run = log_read_done;
    flue_loop_post(read->loop, &read->job.task);
}

/* ---- a graph on it --------------------------------------------------------------------------- */

static inline void durable_prepare(struct graph *graph, struct flue_storage *log, unsigned loops,
                                   unsigned exporters)
{
    static const char *const ids[FAKES_MAX] = {"fake/a", "fake/b", "fake/c", "fake/d"};
    struct flue_error error;

    flue_payload_decoder(fake_decode);
    graph_prepare(graph, loops, exporters);
    graph->storage = log;
    for (unsigned i = 0; i < exporters; i++)
        assert_int_equal(flue_storage_queue_open(log, ids[i], &graph->logs[i], &error), FLUE_OK);
}

/* As a kill would: the loops stop where they are. */
static inline void durable_kill(struct graph *graph)
{
    graph_destroy(graph);
    log_restart(graph->storage);
}

static inline struct flue_storage_lag lag_of(struct graph *graph, unsigned exporter)
{
    struct flue_storage_lag lag;
    flue_storage_lag(graph->logs[exporter], &lag);
    return lag;
}

#endif
