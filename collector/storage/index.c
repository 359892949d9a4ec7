/* index.c: what queues owe of which segment, in bitmaps; taking and finishing. See inside.h. */
#include "collector/storage/inside.h"

#include <stdlib.h>
#include "collector/base/clock.h"

struct flue_storage_segment *flue_storage_segment_new(uint64_t number, uint64_t salt)
{
    struct flue_storage_segment *segment = calloc(1, sizeof *segment);
    if (!segment)
        return NULL;
    segment->number = number;
    segment->salt = salt;
    segment->cut = UINT64_MAX;
    for (unsigned i = 0; i < FLUE_STORAGE_QUEUES; i++)
        segment->slots[i] = (uint8_t)i;
    return segment;
}

void flue_storage_segment_free(struct flue_storage_segment *segment)
{
    if (!segment)
        return;
    for (unsigned i = 0; i < FLUE_STORAGE_QUEUES; i++)
        free(segment->shares[i]);
    free(segment->rows);
    free(segment);
}

bool flue_storage_segment_add(struct flue_storage *storage, struct flue_storage_segment *segment)
{
    if (storage->segment_count == storage->segment_room) {
        size_t room = storage->segment_room ? storage->segment_room * 2 : 16;
        struct flue_storage_segment **items =
            realloc(storage->segments, room * sizeof(struct flue_storage_segment *));
        if (!items)
            return false;
        storage->segments = items;
        storage->segment_room = room;
    }
    storage->segments[storage->segment_count++] = segment;
    return true;
}

/* Index of the first segment whose number is not below. */
static size_t find_place(const struct flue_storage *storage, uint64_t number)
{
    size_t low = 0, high = storage->segment_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (storage->segments[middle]->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct flue_storage_segment *flue_storage_segment_find(struct flue_storage *storage,
                                                       uint64_t number)
{
    size_t at = find_place(storage, number);
    return at < storage->segment_count && storage->segments[at]->number == number
               ? storage->segments[at]
               : NULL;
}

void flue_storage_segment_retire(struct flue_storage *storage, struct flue_storage_segment *segment)
{
    if (segment->open || segment->owed)
        return;
    size_t at = find_place(storage, segment->number);
    storage->segment_count--;
    memmove(storage->segments + at, storage->segments + at + 1,
            (storage->segment_count - at) * sizeof(struct flue_storage_segment *));
    if (segment->rows && !segment->pinned)
        storage->cached -= segment->count * sizeof *segment->rows;
    segment->pinned = true; /* its rows are counted nowhere now */
    for (unsigned i = 0; i < storage->cut_count; i++)
        if (storage->cuts[i].number == segment->number)
            storage->cuts[i--] = storage->cuts[--storage->cut_count];
    segment->next_dead = storage->dead;
    storage->dead = segment;
    pthread_cond_signal(&storage->work);
}

bool flue_storage_share_reserve(struct flue_storage_segment *segment, unsigned slot, uint32_t index)
{
    struct flue_storage_share *old = segment->shares[slot];
    if (old && index < old->capacity)
        return true;
    uint32_t capacity = old ? old->capacity : 512;
    while (capacity <= index)
        capacity *= 2;
    struct flue_storage_share *share =
        calloc(1, sizeof *share + (size_t)FLUE_BITS * (capacity / 8));
    if (!share)
        return false;
    share->capacity = capacity;
    if (old) {
        share->owed_count = old->owed_count;
        share->taken_count = old->taken_count;
        for (unsigned kind = 0; kind < FLUE_BITS; kind++)
            memcpy(flue_share_bits(share, kind), flue_share_bits(old, kind), old->capacity / 8);
        free(old);
    }
    segment->shares[slot] = share;
    return true;
}

bool flue_storage_rows_reserve(struct flue_storage_segment *segment, uint32_t count)
{
    if (count <= segment->rows_room)
        return true;
    uint32_t room = segment->rows_room ? segment->rows_room : 64;
    while (room < count)
        room *= 2;
    struct flue_storage_row *rows = realloc(segment->rows, room * sizeof *rows);
    if (!rows)
        return false;
    segment->rows = rows;
    segment->rows_room = room;
    return true;
}

void flue_storage_lag_add(struct flue_storage_lag *lag, const struct flue_storage_row *row)
{
    lag->bytes += (uint64_t)row->head_size + row->body_size;
    lag->counts.profiles += row->profiles;
    lag->counts.samples += row->samples;
    lag->counts.bytes += row->bytes;
}

void flue_storage_lag_take(struct flue_storage_lag *lag, const struct flue_storage_row *row)
{
    lag->bytes -= (uint64_t)row->head_size + row->body_size;
    lag->counts.profiles -= row->profiles;
    lag->counts.samples -= row->samples;
    lag->counts.bytes -= row->bytes;
}

static void set(uint64_t *bits, uint32_t at)
{
    bits[at / 64] |= UINT64_C(1) << at % 64;
}

static void clear(uint64_t *bits, uint32_t at)
{
    bits[at / 64] &= ~(UINT64_C(1) << at % 64);
}

void flue_storage_owe(struct flue_storage *storage, struct flue_storage_segment *segment,
                      uint32_t index, const struct flue_storage_row *row, unsigned slot, bool taken)
{
    struct flue_storage_queue *queue = storage->queues[slot];
    struct flue_storage_share *share = segment->shares[slot];
    if (flue_bit(flue_share_bits(share, FLUE_BITS_OWED), index)) /* named twice */
        return;
    set(flue_share_bits(share, FLUE_BITS_OWED), index);
    share->owed_count++;
    segment->owed++;
    queue->lag.records++;
    flue_storage_lag_add(&queue->lag, row);
    flue_metric_add(storage->records, 1);
    if (taken) {
        set(flue_share_bits(share, FLUE_BITS_TAKEN), index);
        share->taken_count++;
    } else {
        queue->untaken++;
    }
}

void flue_storage_rows_cache(struct flue_storage *storage, struct flue_storage_segment *segment)
{
    segment->used = ++storage->tick;
    storage->cached += segment->count * sizeof *segment->rows;
    while (storage->cached > FLUE_STORAGE_CACHE) {
        struct flue_storage_segment *oldest = NULL;
        for (size_t i = 0; i < storage->segment_count; i++) {
            struct flue_storage_segment *other = storage->segments[i];
            if (other->rows && !other->pinned && other != segment &&
                (!oldest || other->used < oldest->used))
                oldest = other;
        }
        if (!oldest)
            break;
        storage->cached -= oldest->count * sizeof *oldest->rows;
        free(oldest->rows);
        oldest->rows = NULL;
        oldest->rows_room = 0;
    }
}

void flue_storage_late(struct flue_storage *storage, struct flue_storage_segment *segment)
{
    for (unsigned slot = 0; segment->late && slot < storage->queue_count; slot++) {
        struct flue_storage_share *share = segment->shares[slot];
        uint64_t *late = share ? flue_share_bits(share, FLUE_BITS_LATE) : NULL;
        for (uint32_t at = 0; share && at < share->capacity / 64; at++)
            for (; late[at]; late[at] &= late[at] - 1)
                flue_storage_lag_take(
                    &storage->queues[slot]->lag,
                    &segment->rows[at * 64 + (uint32_t)__builtin_ctzll(late[at])]);
    }
    segment->late = false;
}

void flue_storage_notify(struct flue_storage_queue *queue)
{
    struct flue_storage_watcher *watcher = queue->watcher;
    if (!watcher || !queue->watch_loop || watcher->posted)
        return;
    watcher->posted = true;
    flue_loop_post(queue->watch_loop, &watcher->task);
}

/* ---- what loops call ------------------------------------------------------------------------- */

/* The first or last bit that is owed and not taken. */
static uint32_t find_free(struct flue_storage_share *share, enum flue_storage_order order)
{
    const uint64_t *owed = flue_share_bits(share, FLUE_BITS_OWED);
    const uint64_t *taken = flue_share_bits(share, FLUE_BITS_TAKEN);
    uint32_t words = share->capacity / 64;
    for (uint32_t i = 0; i < words; i++) {
        uint32_t at = order == FLUE_STORAGE_OLDEST ? i : words - 1 - i;
        uint64_t word = owed[at] & ~taken[at];
        if (word)
            return at * 64 + (order == FLUE_STORAGE_OLDEST ? (uint32_t)__builtin_ctzll(word)
                                                           : 63u - (uint32_t)__builtin_clzll(word));
    }
    return UINT32_MAX; /* not reached: the counts say that there is one */
}

static void want_rows(struct flue_storage *storage, struct flue_storage_segment *segment)
{
    segment->wanted = storage->wanted = true;
    pthread_cond_signal(&storage->work);
}

bool flue_storage_take(struct flue_storage_queue *queue, enum flue_storage_order order,
                       struct flue_storage_entry *out)
{
    struct flue_storage *storage = queue->storage;
    bool found = false;
    pthread_mutex_lock(&storage->lock);
    for (size_t i = 0; queue->untaken && i < storage->segment_count && !found; i++) {
        struct flue_storage_segment *segment =
            storage->segments[order == FLUE_STORAGE_OLDEST ? i : storage->segment_count - 1 - i];
        struct flue_storage_share *share = segment->shares[queue->slot];
        if (!share || share->owed_count == share->taken_count)
            continue;
        if (!segment->rows) {
            if (segment->skip_until && flue_monotonic_ns() < segment->skip_until)
                continue;
            want_rows(storage, segment);
            break;
        }
        uint32_t index = find_free(share, order);
        const struct flue_storage_row *row = &segment->rows[index];
        set(flue_share_bits(share, FLUE_BITS_TAKEN), index);
        share->taken_count++;
        queue->untaken--;
        segment->used = ++storage->tick;
        *out = (struct flue_storage_entry){
            .record = segment->number << 16 | index,
            .time_ns = row->time_ns,
            .bytes = (uint64_t)row->head_size + row->body_size,
            .counts = {.profiles = row->profiles, .samples = row->samples, .bytes = row->bytes},
        };
        found = true;
    }
    pthread_mutex_unlock(&storage->lock);
    return found;
}

/* The share that owes this record, or NULL. */
static struct flue_storage_share *owing(struct flue_storage_queue *queue, uint64_t record,
                                        struct flue_storage_segment **segment)
{
    uint32_t index = flue_storage_index(record);
    *segment = flue_storage_segment_find(queue->storage, flue_storage_number(record));
    struct flue_storage_share *share = *segment ? (*segment)->shares[queue->slot] : NULL;
    return share && index < share->capacity &&
                   flue_bit(flue_share_bits(share, FLUE_BITS_OWED), index)
               ? share
               : NULL;
}

void flue_storage_put_back(struct flue_storage_queue *queue, uint64_t record)
{
    struct flue_storage *storage = queue->storage;
    struct flue_storage_segment *segment;
    uint32_t index = flue_storage_index(record);
    pthread_mutex_lock(&storage->lock);
    struct flue_storage_share *share = owing(queue, record, &segment);
    if (share && flue_bit(flue_share_bits(share, FLUE_BITS_TAKEN), index)) {
        clear(flue_share_bits(share, FLUE_BITS_TAKEN), index);
        share->taken_count--;
        queue->untaken++;
        flue_storage_notify(queue);
    }
    pthread_mutex_unlock(&storage->lock);
}

void flue_storage_finish(struct flue_storage_queue *queue, uint64_t record)
{
    struct flue_storage *storage = queue->storage;
    struct flue_storage_segment *segment;
    uint32_t index = flue_storage_index(record);
    pthread_mutex_lock(&storage->lock);
    struct flue_storage_share *share = owing(queue, record, &segment);
    if (share) {
        clear(flue_share_bits(share, FLUE_BITS_OWED), index);
        share->owed_count--;
        if (flue_bit(flue_share_bits(share, FLUE_BITS_TAKEN), index)) {
            clear(flue_share_bits(share, FLUE_BITS_TAKEN), index);
            share->taken_count--;
        } else {
            queue->untaken--;
        }
        set(flue_share_bits(share, FLUE_BITS_FRESH), index);
        if (segment->rows) {
            flue_storage_lag_take(&queue->lag, &segment->rows[index]);
        } else {
            set(flue_share_bits(share, FLUE_BITS_LATE), index);
            segment->late = true;
        }
        queue->lag.records--;
        flue_metric_add(storage->records, -1);
        if (!segment->dirty) {
            segment->dirty = true;
            segment->next_dirty = storage->dirty;
            storage->dirty = segment;
            pthread_cond_signal(&storage->work);
        }
        if (--segment->owed == 0)
            flue_storage_segment_retire(storage, segment);
    }
    pthread_mutex_unlock(&storage->lock);
}

/* When the oldest record that it owes came, to within a segment. */
static uint64_t oldest(struct flue_storage_queue *queue)
{
    struct flue_storage *storage = queue->storage;
    for (size_t i = 0; queue->lag.records && i < storage->segment_count; i++) {
        struct flue_storage_segment *segment = storage->segments[i];
        struct flue_storage_share *share = segment->shares[queue->slot];
        if (!share || !share->owed_count)
            continue;
        const uint64_t *owed = flue_share_bits(share, FLUE_BITS_OWED);
        for (uint32_t at = 0; segment->rows && at < share->capacity / 64; at++)
            if (owed[at])
                return segment->rows[at * 64 + (uint32_t)__builtin_ctzll(owed[at])].time_ns;
        return segment->first_ns;
    }
    return 0;
}

void flue_storage_lag(const struct flue_storage_queue *queue, struct flue_storage_lag *out)
{
    struct flue_storage_queue *own = (struct flue_storage_queue *)(uintptr_t)queue;
    pthread_mutex_lock(&own->storage->lock);
    *out = own->lag;
    out->oldest_ns = oldest(own);
    pthread_mutex_unlock(&own->storage->lock);
}

void flue_storage_recovered(const struct flue_storage_queue *queue, struct flue_storage_lag *out)
{
    *out = queue->recovered;
}
