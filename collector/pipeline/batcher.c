/* batcher.c: small requests become one, large ones are cut (sending_queue.batch).
 *
 * What is put together has the same pipeline, form and tenant, and the same values of the partition
 * keys, so that what tells senders apart never gets lost. Groups live on a loop. When a merge fails
 * (memory), the items go out one by one: nothing that was acknowledged is lost for memory.
 */
#include "collector/pipeline/item.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include <stdlib.h>

static uint64_t size_of(const struct flue_batcher_config *config, const struct flue_item *item)
{
    const struct flue_payload *payload = item->send.batch->payload;
    return config->sizer ? payload->ops->encoded_size(payload) : item->counts.samples;
}

static bool belongs(const struct flue_batch_group *group, const struct flue_item *item)
{
    const struct flue_exporter *exporter = group->at->exporter;
    const struct flue_item *other = group->items.first;
    const struct flue_batch *a = other->send.batch, *b = item->send.batch;

    if (other->branch != item->branch || a->payload->ops->form != b->payload->ops->form ||
        a->payload->signal != b->payload->signal || other->counted != item->counted)
        return false;
    if (a->origin == b->origin)
        return true;
    if (!a->origin || !b->origin || !flue_bytes_equal(a->origin->tenant, b->origin->tenant))
        return false;
    for (size_t i = 0; i < exporter->partition_count; i++)
        if (!flue_bytes_equal(flue_origin_header(a->origin, exporter->partition_keys[i]),
                              flue_origin_header(b->origin, exporter->partition_keys[i])))
            return false;
    return true;
}

static void drop_group(struct flue_batch_group *group)
{
    struct flue_exporter_loop *at = group->at;
    struct flue_batch_group **link = &at->groups;

    while (*link != group)
        link = &(*link)->next;
    *link = group->next;
    at->group_count--;
    flue_timer_disarm(at->loop, &group->timer);
    free(group);
}

void flue_batcher_forget(struct flue_item *item)
{
    struct flue_batch_group *group =
        (struct flue_batch_group *)((char *)item->list - offsetof(struct flue_batch_group, items));

    flue_item_unlist(item);
    group->count--;
    group->size -= size_of(group->at->exporter->settings.sending_queue.batch, item);
    if (!group->items.first)
        drop_group(group);
}

/* The records of all of the group, for the one item that carries them. */
static struct flue_owed *owed_by(const struct flue_batch_group *group)
{
    struct flue_owed *owed = malloc(sizeof *owed + group->count * sizeof owed->records[0]);

    if (!owed)
        return NULL;
    *owed = (struct flue_owed){.items = 1, .halvings = FLUE_HALVINGS};
    for (const struct flue_item *item = group->items.first; item; item = item->next)
        owed->records[owed->count++] = item->send.record;
    return owed;
}

/* One item in place of all of the group; NULL: they go out as they are. */
static struct flue_item *merge(struct flue_batch_group *group)
{
    struct flue_exporter_loop *at = group->at;
    struct flue_item *first = group->items.first, *carrier = NULL;
    struct flue_payload **payloads = malloc(group->count * sizeof *payloads), *joined = NULL;
    struct flue_counts counts = {0, 0, 0};
    struct flue_error error;
    size_t count = 0;

    if (!payloads)
        return NULL;
    for (struct flue_item *item = first; item; item = item->next) {
        payloads[count++] = item->send.batch->payload;
        flue_counts_add(&counts, &item->counts);
    }
    struct flue_owed *owed = NULL;
    if (first->send.record && !(owed = owed_by(group))) {
        free(payloads);
        return NULL;
    }
    enum flue_code code = first->send.batch->payload->ops->merge(
        payloads, count, first->send.batch->account, &joined, &error);
    free(payloads);
    if (code != FLUE_OK) {
        flue_log(FLUE_WARN, "exporter", "requests could not be joined and go out one by one",
                 FLUE_S("exporter", at->exporter->id), FLUE_S("error", error.text));
        free(owed);
        return NULL;
    }
    if (!joined) { /* nothing is left of any of them: each goes its way alone */
        free(owed);
        return NULL;
    }
    struct flue_batch *batch =
        flue_batch_new(joined, first->send.batch->origin, counts, first->send.batch->account);
    carrier = batch ? flue_item_new(at, first->branch) : NULL;
    if (!carrier) {
        flue_batch_unref(batch);
        free(owed);
        return NULL;
    }
    carrier->send.batch = batch;
    carrier->send.record = first->send.record;
    carrier->owed = owed;
    carrier->route = first->route;
    carrier->counts = counts;
    carrier->counted = first->counted;
    carrier->in_line = true;
    flue_own_add(&at->queued_items, 1);
    while ((first = group->items.first)) {
        flue_item_unlist(first);
        flue_item_leave_line(first);
        carrier->units += first->units;
        carrier->bytes += first->bytes;
        first->units = first->bytes = 0;
        first->send.record = 0;
        if (first->counted) {
            flue_item_free(first);
            continue;
        }
        flue_batch_unref(first->send.batch);
        first->send.batch = NULL;
        first->state = FLUE_ITEM_MERGED;
        first->owner = carrier;
        first->next = carrier->merged;
        carrier->merged = first;
    }
    return carrier;
}

/* To the line of what is ready, cut to max_size. */
static void ready(struct flue_item *item)
{
    struct flue_exporter *exporter = item->at->exporter;
    const struct flue_batcher_config *config = exporter->settings.sending_queue.batch;
    struct flue_error error;

    if (exporter->batch_size)
        flue_histogram_observe(exporter->batch_size, (double)item->counts.samples);
    if (config->max_size && size_of(config, item) > (uint64_t)config->max_size &&
        flue_item_split(item, (uint64_t)config->max_size, config->sizer == 1, &error))
        return;
    flue_queue_ready(item);
}

static void flush(struct flue_batch_group *group)
{
    struct flue_item *item;

    if (group->count > 1 && (item = merge(group)))
        ready(item);
    while ((item = group->items.first)) {
        flue_item_unlist(item);
        ready(item);
    }
    drop_group(group);
}

static void flush_timeout(struct flue_timer *timer)
{
    struct flue_batch_group *group =
        (struct flue_batch_group *)((char *)timer - offsetof(struct flue_batch_group, timer));
    struct flue_exporter_loop *at = group->at;

    flush(group);
    flue_queue_pump(at);
}

static struct flue_batch_group *open_group(struct flue_exporter_loop *at)
{
    struct flue_batch_group *group = calloc(1, sizeof *group), **link = &at->groups;

    if (!group)
        return NULL;
    group->at = at;
    group->timer.fire = flush_timeout;
    flue_timer_arm(at->loop, &group->timer,
                   flue_monotonic_ns() +
                       (uint64_t)at->exporter->settings.sending_queue.batch->flush_timeout);
    while (*link)
        link = &(*link)->next;
    *link = group; /* the oldest first */
    at->group_count++;
    return group;
}

void flue_batcher_add(struct flue_item *item)
{
    struct flue_exporter_loop *at = item->at;
    const struct flue_batcher_config *config = at->exporter->settings.sending_queue.batch;
    uint64_t size = size_of(config, item);
    struct flue_batch_group *group = at->groups;

    while (group && !belongs(group, item))
        group = group->next;
    if (!group && flue_in_order(at->exporter)) /* what waits there is older */
        flue_batcher_flush_all(at);
    if (group && config->max_size && group->size + size > (uint64_t)config->max_size) {
        flush(group);
        group = NULL;
    }
    if (!group) {
        if (at->group_count >= FLUE_BATCH_GROUPS_MAX)
            flush(at->groups);
        group = open_group(at);
    }
    if (!group) {
        ready(item);
        return;
    }
    item->state = FLUE_ITEM_BATCHING;
    flue_item_list_append(&group->items, item);
    group->size += size;
    group->count++;
    if (group->size >= (uint64_t)config->min_size)
        flush(group);
}

void flue_batcher_flush_all(struct flue_exporter_loop *at)
{
    while (at->groups)
        flush(at->groups);
}
