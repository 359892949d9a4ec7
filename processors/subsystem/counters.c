/* counters.c: see counters.h. */
#include "processors/subsystem/counters.h"

#include <pthread.h>
#include <stdlib.h>
#include "collector/base/hash.h"

#define LABEL_MAX 256u  /* bytes of a label's value; longer ones are cut */
#define ROWS_MAX  8192u /* distinct (service, region, type) that are remembered */

struct series {
    _Atomic uint64_t value;
    double unit;
    enum flue_quantity quantity;
    const char *labels[4]; /* service, region, subsystem, sample_type */
    struct series *next;   /* in order of making */
};

/* One service, region and sample type. */
struct row {
    uint64_t hash;
    struct flue_bytes key; /* the three of them, with lengths */
    const char *service, *region, *type;
    enum flue_quantity quantity;
    _Atomic(struct series *) *series; /* by subsystem */
};

struct at_loop {
    _Alignas(64) struct flue_table table; /* of `rows`, own memory */
    struct row **rows;
    size_t count, room;
};

struct subsystem_counters {
    const struct subsystem_rules *rules;
    struct flue_metrics *metrics;
    const char *processor, *pipeline;
    size_t subsystems, most;
    unsigned loops;
    struct at_loop *at;
    pthread_mutex_t lock; /* of all below */
    struct flue_arena arena;
    struct flue_table table;
    struct row **rows;
    size_t row_count, row_room, series_count;
    struct series *first;
    struct row *other[FLUE_QUANTITIES];
    struct flue_metric *overflow;
};

static const char *const families[FLUE_QUANTITIES] = {
    [FLUE_QUANTITY_TIME] = "processor_subsystem_seconds",
    [FLUE_QUANTITY_BYTES] = "processor_subsystem_bytes",
    [FLUE_QUANTITY_COUNT] = "processor_subsystem_count"};
static const char *const helps[FLUE_QUANTITIES] = {
    [FLUE_QUANTITY_TIME] = "time that samples stand for, by subsystem",
    [FLUE_QUANTITY_BYTES] = "bytes that samples stand for, by subsystem",
    [FLUE_QUANTITY_COUNT] = "events that samples stand for, by subsystem"};

static double read_series(void *arg)
{
    const struct series *series = arg;
    return (double)atomic_load_explicit(&((struct series *)series)->value, memory_order_relaxed) *
           series->unit;
}

static void publish(const struct subsystem_counters *c, const struct series *series, bool on)
{
    const struct flue_label labels[] = {{"processor", c->processor},
                                        {"pipeline", c->pipeline},
                                        {"service", series->labels[0]},
                                        {"region", series->labels[1]},
                                        {"subsystem", series->labels[2]},
                                        {"sample_type", series->labels[3]},
                                        {NULL, NULL}};
    flue_metric_callback(c->metrics, FLUE_COUNTER, families[series->quantity],
                         helps[series->quantity], labels, on ? read_series : NULL,
                         (void *)(uintptr_t)series);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static bool row_equal(const void *rows, uint32_t i, const void *key)
{
    const struct row *row = ((struct row *const *)rows)[i];
    return flue_bytes_equal(row->key, *(const struct flue_bytes *)key);
}

/* A label's value: printable as it is, cut between characters. */
static const char *label_text(struct flue_arena *arena, struct flue_bytes text)
{
    size_t size = text.size < LABEL_MAX ? text.size : LABEL_MAX;
    while (size < text.size && size && (text.data[size] & 0xc0) == 0x80)
        size--;
    return flue_arena_string(arena, flue_bytes_first(text, size));
}

static struct row *new_row(struct subsystem_counters *c, struct flue_bytes service,
                           struct flue_bytes region, struct flue_bytes type,
                           enum flue_quantity quantity)
{
    struct row *row = flue_arena_zalloc(&c->arena, 1, sizeof *row);
    if (!row)
        return NULL;
    row->service = label_text(&c->arena, service);
    row->region = label_text(&c->arena, region);
    row->type = label_text(&c->arena, type);
    row->quantity = quantity;
    row->series = flue_arena_zalloc(&c->arena, c->subsystems, sizeof *row->series);
    return row->service && row->region && row->type && row->series ? row : NULL;
}

static struct row *find_shared(struct subsystem_counters *c, struct flue_bytes key, uint64_t hash,
                               struct flue_bytes service, struct flue_bytes region,
                               const struct flue_quantity_type *type)
{
    uint32_t found = flue_table_find(&c->table, hash, row_equal, c->rows, &key);
    struct row *row;
    if (found != FLUE_TABLE_NONE)
        return c->rows[found];
    /* Rows under which nothing new may be counted would only take memory. */
    if (c->series_count >= c->most || c->row_count >= ROWS_MAX)
        return c->other[type->quantity];
    row = new_row(c, service, region, type->name, type->quantity);
    if (!row)
        return c->other[type->quantity];
    row->hash = hash;
    row->key = flue_arena_copy(&c->arena, key);
    if (!row->key.data || !FLUE_ARENA_PUSH(&c->arena, c->rows, c->row_count, c->row_room, row))
        return c->other[type->quantity];
    (void)flue_table_insert(&c->table, hash, (uint32_t)c->row_count - 1);
    return row;
}

/* The loop remembers it, if there is memory. */
static void remember(struct at_loop *at, struct row *row)
{
    if (!row->key.data)
        return;
    if (at->count == at->room) {
        size_t room = at->room ? 2 * at->room : 64;
        struct row **rows = realloc(at->rows, room * sizeof *rows);
        if (!rows)
            return;
        at->rows = rows;
        at->room = room;
    }
    at->rows[at->count] = row;
    if (flue_table_insert(&at->table, row->hash, (uint32_t)at->count))
        at->count++;
}

static struct row *find_row(struct subsystem_counters *c, unsigned loop, struct flue_bytes service,
                            struct flue_bytes region, const struct flue_quantity_type *type)
{
    struct at_loop *at = &c->at[loop];
    uint8_t buffer[3 * LABEL_MAX + 16];
    size_t size = 0;
    const struct flue_bytes parts[] = {flue_bytes_first(service, LABEL_MAX),
                                       flue_bytes_first(region, LABEL_MAX),
                                       flue_bytes_first(type->name, LABEL_MAX)};
    buffer[size++] = (uint8_t)type->quantity;
    for (size_t i = 0; i < 3; i++) {
        uint16_t length = (uint16_t)parts[i].size;
        memcpy(buffer + size, &length, sizeof length);
        size += sizeof length;
        if (length)
            memcpy(buffer + size, parts[i].data, length);
        size += length;
    }
    struct flue_bytes key = flue_bytes(buffer, size);
    uint64_t hash = flue_hash(key);
    uint32_t found = flue_table_find(&at->table, hash, row_equal, at->rows, &key);
    if (found != FLUE_TABLE_NONE)
        return at->rows[found];
    pthread_mutex_lock(&c->lock);
    struct row *row = find_shared(c, key, hash, service, region, type);
    pthread_mutex_unlock(&c->lock);
    remember(at, row);
    return row;
}

/* ---- series --------------------------------------------------------------------------------- */

static struct series *new_series(struct subsystem_counters *c, const struct row *row,
                                 size_t subsystem)
{
    struct series *series = flue_arena_zalloc(&c->arena, 1, sizeof *series);
    if (!series)
        return NULL;
    *series = (struct series){
        .unit = row->quantity == FLUE_QUANTITY_TIME ? 1e-9 : 1,
        .quantity = row->quantity,
        .labels = {row->service, row->region, subsystem_name(c->rules, subsystem), row->type},
        .next = c->first};
    c->first = series;
    publish(c, series, true);
    return series;
}

/* NULL without memory. */
static struct series *series_of(struct subsystem_counters *c, struct row *row, size_t subsystem)
{
    struct series *series = atomic_load_explicit(&row->series[subsystem], memory_order_acquire);
    if (series)
        return series;
    pthread_mutex_lock(&c->lock);
    series = atomic_load_explicit(&row->series[subsystem], memory_order_relaxed);
    if (!series) {
        struct row *counted = row;
        bool full = c->series_count >= c->most && row->key.data;
        if (full)
            counted = c->other[row->quantity];
        series = atomic_load_explicit(&counted->series[subsystem], memory_order_relaxed);
        if (!series)
            series = new_series(c, counted, subsystem);
        c->series_count += series && counted->key.data;
        if (series) {
            atomic_store_explicit(&counted->series[subsystem], series, memory_order_release);
            atomic_store_explicit(&row->series[subsystem], series, memory_order_release);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return series;
}

void subsystem_counters_add(struct subsystem_counters *c, unsigned loop, struct flue_bytes service,
                            struct flue_bytes region, const struct flue_quantity_type *type,
                            const uint64_t *sums)
{
    struct row *row = find_row(c, loop, service, region, type);
    if (!row->key.data)
        flue_metric_add(c->overflow, 1);
    for (size_t i = 0; i < c->subsystems; i++) {
        if (!sums[i])
            continue;
        struct series *series = series_of(c, row, i);
        if (series)
            atomic_fetch_add_explicit(&series->value, sums[i], memory_order_relaxed);
    }
}

/* ---- life ----------------------------------------------------------------------------------- */

void subsystem_counters_destroy(struct subsystem_counters *c)
{
    if (!c)
        return;
    for (struct series *series = c->first; series; series = series->next)
        publish(c, series, false);
    for (unsigned i = 0; c->at && i < c->loops; i++) {
        flue_table_destroy(&c->at[i].table);
        free(c->at[i].rows);
    }
    free(c->at);
    flue_table_destroy(&c->table);
    flue_arena_destroy(&c->arena);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

enum flue_code subsystem_counters_new(const struct flue_create *create,
                                      const struct subsystem_rules *rules, size_t most,
                                      struct subsystem_counters **out, struct flue_error *error)
{
    struct subsystem_counters *c = calloc(1, sizeof *c);
    size_t subsystems = subsystem_count(rules);
    if (!c)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for counters");
    c->rules = rules;
    c->metrics = create->metrics;
    c->processor = create->id;
    c->pipeline = create->pipeline;
    c->subsystems = subsystems;
    c->most = most;
    c->loops = create->loops->count;
    pthread_mutex_init(&c->lock, NULL);
    flue_arena_init(&c->arena, (size_t)64 << 20, 0);
    c->at = aligned_alloc(64, c->loops * sizeof *c->at);
    bool made = c->at && flue_table_init(&c->table, NULL, 64);
    if (c->at)
        memset(c->at, 0, c->loops * sizeof *c->at);
    for (unsigned i = 0; made && i < c->loops; i++)
        made = flue_table_init(&c->at[i].table, NULL, 64);
    for (int q = FLUE_QUANTITY_TIME; made && q < FLUE_QUANTITIES; q++) {
        struct flue_bytes other = FLUE_BYTES("other");
        c->other[q] = new_row(c, other, other, other, (enum flue_quantity)q);
        made = c->other[q] != NULL;
    }
    if (!made) {
        subsystem_counters_destroy(c);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for counters");
    }
    const struct flue_label labels[] = {
        {"processor", c->processor}, {"pipeline", c->pipeline}, {NULL, NULL}};
    c->overflow = flue_metric(c->metrics, FLUE_COUNTER, "processor_subsystem_overflowed",
                              "times that something was counted under service and region \"other\" "
                              "because max_series was reached",
                              labels);
    *out = c;
    return FLUE_OK;
}
