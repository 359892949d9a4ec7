/* store.c: what a delivery owes to durable queues is written down before its sender is answered.
 *
 * Branches that share a log and a payload share a record. The slices that are written borrow from
 * the payload, so the items hold their batches until the log has answered.
 */
#include "collector/pipeline/item.h"
#include "collector/pipeline/record.h"
#include "collector/base/clock.h"
#include <stdlib.h>

#define SLICES_BUDGET ((size_t)16 << 20) /* bytes, for the list of slices of one record */

struct record_write {
    struct flue_storage_append append; /* first */
    struct record_write *next;
    struct store *store;
    struct flue_arena arena;
    struct flue_buffer head;
    struct flue_bytes head_bytes;
    struct flue_slices head_slices, body;
    struct flue_storage_queue *queues[FLUE_RECORD_ROUTES];
    struct flue_item *items[FLUE_RECORD_ROUTES];
    size_t count;
};

struct store {
    struct record_write *writes;
    unsigned pending;
    bool failed;
    struct flue_error error; /* the first */
    struct flue_loop *loop;
    void (*done)(void *arg, const struct flue_error *error);
    void *arg;
};

static bool is_durable(const struct flue_item *item)
{
    return item->state == FLUE_ITEM_RESERVED && item->at->exporter->log;
}

static void note_error(struct store *store, const struct flue_error *error)
{
    if (store->failed)
        return;
    store->failed = true;
    store->error = *error;
}

static void free_store(struct store *store)
{
    struct record_write *next;

    for (struct record_write *write = store->writes; write; write = next) {
        next = write->next;
        flue_buffer_destroy(&write->head);
        flue_arena_destroy(&write->arena);
        free(write);
    }
    free(store);
}

static void store_end(struct store *store)
{
    store->done(store->arg, store->failed ? &store->error : NULL);
    free_store(store);
}

static void lower_first_own(struct flue_exporter *exporter, uint64_t record)
{
    uint64_t first = atomic_load_explicit(&exporter->first_own, memory_order_relaxed);

    while (record < first)
        if (atomic_compare_exchange_weak(&exporter->first_own, &first, record))
            return;
}

static void written(struct flue_storage_append *append, enum flue_code code,
                    const struct flue_error *error)
{
    struct record_write *write = (struct record_write *)append;
    struct store *store = write->store;

    if (code == FLUE_OK) {
        for (size_t i = 0; i < write->count; i++) {
            write->items[i]->send.record = append->record;
            lower_first_own(write->items[i]->at->exporter, append->record);
        }
    } else {
        struct flue_error said = *error;
        said.code = code;
        (void)flue_fail_prefix(&said, "the queue on disk of exporter %s",
                               write->items[0]->at->exporter->id);
        note_error(store, &said);
    }
    if (--store->pending == 0)
        store_end(store);
}

static struct record_write *write_for(struct store *store, const struct flue_item *item)
{
    const struct flue_exporter *exporter = item->at->exporter;

    struct record_write **last = &store->writes;
    for (struct record_write *write; (write = *last); last = &write->next) {
        bool there = false;
        if (write->items[0]->at->exporter->storage != exporter->storage ||
            write->items[0]->send.batch->payload != item->send.batch->payload ||
            write->count == FLUE_RECORD_ROUTES)
            continue;
        for (size_t i = 0; i < write->count; i++)
            there |= write->queues[i] == exporter->log;
        if (!there)
            return write;
    }
    struct record_write *write = calloc(1, sizeof *write);
    if (!write)
        return NULL;
    write->store = store;
    flue_arena_init(&write->arena, SLICES_BUDGET, 0);
    flue_buffer_init(&write->head, FLUE_RECORD_HEAD_MAX);
    *last = write; /* batches of one request stay in their order */
    return write;
}

static enum flue_code encode(struct record_write *write, uint64_t now, struct flue_error *error)
{
    const struct flue_batch *batch = write->items[0]->send.batch;
    struct flue_record_route routes[FLUE_RECORD_ROUTES];
    uint64_t time = batch->origin ? batch->origin->received_ns : now;

    for (size_t i = 0; i < write->count; i++)
        routes[i] = (struct flue_record_route){flue_bytes_of(write->items[i]->at->exporter->id),
                                               flue_bytes_of(write->items[i]->branch->pipeline)};
    enum flue_code code = flue_record_write(batch, time, routes, write->count, &write->head, error);
    if (code == FLUE_OK)
        code = batch->payload->ops->slices(batch->payload, &write->arena, &write->body, error);
    if (code != FLUE_OK)
        return code;
    write->head_bytes = flue_buffer_bytes(&write->head);
    write->head_slices = (struct flue_slices){&write->head_bytes, 1, 1, write->head_bytes.size};
    write->append.head = &write->head_slices;
    write->append.body = &write->body;
    write->append.counts = batch->counts;
    write->append.time_ns = time;
    write->append.queues = write->queues;
    write->append.queue_count = write->count;
    write->append.taken = write->count == 64 ? UINT64_MAX : (UINT64_C(1) << write->count) - 1;
    write->append.loop = write->store->loop;
    write->append.done = written;
    return FLUE_OK;
}

static enum flue_code no_memory(struct flue_error *error)
{
    return flue_fail(error, FLUE_NO_MEMORY, "no memory to write a request to its queue on disk");
}

enum flue_code flue_store(struct flue_item *first, struct flue_loop *loop, bool *begun,
                          void (*done)(void *arg, const struct flue_error *error), void *arg,
                          struct flue_error *error)
{
    struct flue_item *item = first;

    *begun = false;
    while (item && !is_durable(item))
        item = item->sibling;
    if (!item)
        return FLUE_OK;
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return no_memory(error);
    store->loop = loop;
    store->done = done;
    store->arg = arg;
    for (; item; item = item->sibling) {
        if (!is_durable(item))
            continue;
        struct record_write *write = write_for(store, item);
        if (!write) {
            free_store(store);
            return no_memory(error);
        }
        write->queues[write->count] = item->at->exporter->log;
        write->items[write->count++] = item;
    }
    uint64_t now = flue_wall_ns();
    for (struct record_write *write = store->writes; write; write = write->next) {
        enum flue_code code = encode(write, now, error);
        if (code != FLUE_OK) {
            free_store(store);
            return code;
        }
        store->pending++;
    }
    *begun = true;
    for (struct record_write *write = store->writes; write; write = write->next)
        flue_storage_append(write->items[0]->at->exporter->storage, &write->append);
    return FLUE_OK;
}

void flue_store_undo(struct flue_item *first)
{
    for (struct flue_item *item = first; item; item = item->sibling) {
        if (!is_durable(item) || !item->send.record)
            continue;
        flue_storage_finish(item->at->exporter->log, item->send.record);
        item->send.record = 0;
    }
}
