/* sums.c: see sums.h. */
#include "connectors/profiles_to_metrics/sums.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "proto/otlp/metric_payload.h"
#include "proto/otlp/quantity.h"

#define DIMENSIONS_MAX  16u  /* resource attributes */
#define TEXT_MAX        256u /* bytes of a value; longer ones are cut */
#define RESOURCE_POINTS 1000u
#define MESSAGE_MAX     ((size_t)64 << 20)
#define UNMATCHED       0u /* number of the value of samples without one */

/* A series: its texts stand one behind the other in `key`, each with its length before it: the
 * resource attributes, the sample attribute, the sample type. */
struct series {
    struct flue_bytes key;
    enum flue_quantity quantity;
    uint64_t start_ns, value;
    uint64_t hash;
};

struct sums {
    const struct sums_config *config;
    pthread_mutex_t lock;
    struct flue_arena arena;
    struct flue_table table;
    struct series *series;
    size_t count, room;
    uint64_t start_ns, overflowed;
    char *instance;
};

/* ---- one payload ----------------------------------------------------------------------------- */

struct take {
    struct sums *sums;
    const struct flue_payload *payload;
    struct flue_otlp_dictionary d;
    struct flue_arena *arena;
    uint32_t *values;         /* of attribute rows: 1 + number of a value; 0: another attribute */
    struct flue_bytes *texts; /* by number */
    size_t text_count, text_room;
    uint64_t *totals; /* by number */
    struct flue_error *error;
    enum flue_code code;
};

static bool no_memory(struct take *t)
{
    t->code = flue_fail(t->error, FLUE_NO_MEMORY, "no memory to add samples up");
    return false;
}

/* Which rows are the sample attribute, and its distinct values. */
static bool read_attributes(struct take *t)
{
    uint32_t count = t->d.counts[FLUE_OTLP_ATTRIBUTE];
    struct flue_bytes wanted = flue_bytes_of(t->sums->config->sample_attribute);
    t->values = flue_arena_zalloc(t->arena, count + (size_t)1, sizeof *t->values);
    if (!t->values ||
        !FLUE_ARENA_PUSH(t->arena, t->texts, t->text_count, t->text_room, FLUE_BYTES("unmatched")))
        return no_memory(t);
    for (uint32_t i = 0; i < count && wanted.size; i++) {
        struct flue_otlp_attribute_row row;
        struct flue_value value;
        flue_otlp_attribute_row_read(t->d.rows[FLUE_OTLP_ATTRIBUTE][i], &row);
        if (!row.key || !flue_bytes_equal(flue_otlp_string(&t->d, row.key), wanted))
            continue;
        flue_otlp_value_read(row.value, &t->d, &value);
        if (value.type != FLUE_VALUE_STRING)
            continue;
        t->values[i] = (uint32_t)t->text_count + 1;
        if (!FLUE_ARENA_PUSH(t->arena, t->texts, t->text_count, t->text_room, value.text))
            return no_memory(t);
    }
    t->totals = flue_arena_alloc(t->arena, t->text_count * sizeof *t->totals);
    return t->totals || no_memory(t);
}

/* Values, or one for each timestamp where there are none. */
static void one_sample(struct take *t, struct flue_bytes bytes, uint64_t factor)
{
    struct flue_otlp_sample sample;
    uint64_t number;
    int64_t value = 0;
    size_t at = UNMATCHED;
    bool values = false;
    flue_otlp_sample_read(bytes, &sample);
    while (flue_otlp_numbers_next(&sample.attribute_indices, &number))
        if (number < t->d.counts[FLUE_OTLP_ATTRIBUTE] && t->values[number])
            at = t->values[number] - 1;
    while (flue_otlp_numbers_next(&sample.values, &number)) {
        values = true;
        if (__builtin_add_overflow(value, (int64_t)number, &value))
            value = (int64_t)number < 0 ? INT64_MIN : INT64_MAX;
    }
    if (!values)
        value = (int64_t)flue_otlp_numbers_count(sample.timestamps);
    flue_quantity_add(&t->totals[at], flue_quantity_amount(value, factor));
}

/* ---- series ---------------------------------------------------------------------------------- */

static bool series_equal(const void *rows, uint32_t row, const void *key)
{
    return flue_bytes_equal(((const struct series *)rows)[row].key,
                            *(const struct flue_bytes *)key);
}

struct key {
    uint8_t bytes[(DIMENSIONS_MAX + 3) * (TEXT_MAX + 2)];
    size_t size;
};

static void key_add(struct key *key, struct flue_bytes text)
{
    size_t size = text.size < TEXT_MAX ? text.size : TEXT_MAX;
    while (size < text.size && size && (text.data[size] & 0xc0) == 0x80)
        size--;
    uint16_t length = (uint16_t)size;
    memcpy(key->bytes + key->size, &length, sizeof length);
    if (size)
        memcpy(key->bytes + key->size + sizeof length, text.data, size);
    key->size += sizeof length + size;
}

static struct flue_bytes key_next(struct flue_bytes *rest)
{
    uint16_t length;
    memcpy(&length, rest->data, sizeof length);
    struct flue_bytes text = flue_bytes(rest->data + sizeof length, length);
    *rest = flue_bytes_from(*rest, sizeof length + length);
    return text;
}

/* Under the lock. NULL: there is none and none can be made. */
static struct series *find(struct sums *sums, const struct key *key, enum flue_quantity quantity,
                           bool beyond)
{
    struct flue_bytes bytes = flue_bytes(key->bytes, key->size);
    uint64_t hash = flue_hash_join(flue_hash(bytes), (uint64_t)quantity);
    uint32_t row = flue_table_find(&sums->table, hash, series_equal, sums->series, &bytes);
    if (row != FLUE_TABLE_NONE && sums->series[row].quantity == quantity)
        return &sums->series[row];
    if (sums->count >= (size_t)sums->config->max_series && !beyond)
        return NULL;
    struct series series = {.key = flue_arena_copy(&sums->arena, bytes),
                            .quantity = quantity,
                            .start_ns = sums->start_ns,
                            .hash = hash};
    if (!series.key.data ||
        !FLUE_ARENA_PUSH(&sums->arena, sums->series, sums->count, sums->room, series))
        return NULL;
    if (!flue_table_insert(&sums->table, hash, (uint32_t)sums->count - 1)) {
        sums->count--;
        return NULL;
    }
    return &sums->series[sums->count - 1];
}

/* What is new beyond the bound: two series for each quantity. */
static struct series *other(struct sums *sums, enum flue_quantity quantity, size_t value)
{
    size_t attributes = sums->config->resource_attributes.count + 2;
    struct key key = {.size = 0};
    for (size_t i = 0; i < attributes; i++)
        key_add(&key, i == attributes - 2 && value == UNMATCHED ? FLUE_BYTES("unmatched")
                                                                : FLUE_BYTES("other"));
    sums->overflowed++;
    return find(sums, &key, quantity, true);
}

static void add(struct series *series, uint64_t amount)
{
    if (series->value + amount > INT64_MAX) {
        series->value = 0;
        series->start_ns = flue_wall_ns();
    }
    series->value += amount;
}

static bool one_profile(void *arg, const struct flue_otlp_profile *profile)
{
    struct take *t = arg;
    struct sums *sums = t->sums;
    const struct flue_list *names = &sums->config->resource_attributes;
    struct flue_otlp_samples it = flue_otlp_samples(t->payload, profile->profile);
    struct flue_quantity_type type;
    struct flue_bytes sample;
    struct key key = {.size = 0};
    flue_otlp_quantity(t->payload, &t->d, profile, &type);
    if (type.quantity == FLUE_QUANTITY_NONE)
        return true;
    memset(t->totals, 0, t->text_count * sizeof *t->totals);
    while (flue_otlp_samples_next(&it, &sample))
        one_sample(t, sample, type.factor);
    for (size_t i = 0; i < names->count; i++) {
        struct flue_value value;
        bool there = t->payload->ops->attribute_get(
            t->payload, profile->resource, flue_bytes_of(((const char *const *)names->items)[i]),
            &value);
        key_add(&key, there && value.type == FLUE_VALUE_STRING ? value.text : flue_bytes(NULL, 0));
    }
    size_t common = key.size;
    pthread_mutex_lock(&sums->lock);
    for (size_t i = 0; i < t->text_count; i++) {
        if (!t->totals[i])
            continue;
        key.size = common;
        key_add(&key, t->texts[i]);
        key_add(&key, type.name);
        struct series *series = find(sums, &key, type.quantity, false);
        if (!series)
            series = other(sums, type.quantity, i);
        if (series)
            add(series, t->totals[i]);
    }
    pthread_mutex_unlock(&sums->lock);
    return true;
}

enum flue_code sums_take(struct sums *sums, const struct flue_payload *payload,
                         struct flue_arena *arena, struct flue_error *error)
{
    struct take t = {.sums = sums, .payload = payload, .arena = arena, .error = error};
    enum flue_code code = flue_otlp_dictionary_open(payload, arena, &t.d, error);
    if (code == FLUE_OK && read_attributes(&t))
        flue_otlp_each_profile(payload, one_profile, &t);
    return code ? code : t.code;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_point(const struct sums *sums, struct flue_metric_writer *writer,
                        const struct series *series, uint64_t now)
{
    const struct flue_list *names = &sums->config->resource_attributes;
    struct flue_attribute attributes[DIMENSIONS_MAX + 2];
    struct flue_bytes rest = series->key;
    size_t count = 0;
    for (size_t i = 0; i < names->count + 2; i++) {
        struct flue_bytes text = key_next(&rest);
        struct flue_bytes name = i < names->count
                                     ? flue_bytes_of(((const char *const *)names->items)[i])
                                 : i == names->count ? flue_bytes_of(sums->config->sample_attribute)
                                                     : FLUE_BYTES("sample_type");
        if (name.size && text.size)
            attributes[count++] =
                (struct flue_attribute){name, {.type = FLUE_VALUE_STRING, .text = text}};
    }
    /* The clock may have been set back. */
    flue_metric_writer_point(writer, attributes, count, series->start_ns,
                             now > series->start_ns ? now : series->start_ns,
                             series->quantity == FLUE_QUANTITY_TIME ? (double)series->value * 1e-9
                                                                    : (double)series->value);
}

/* The series as they are now; their keys stay where they are. The lock is not held while they are
 * written: loops wait for it. */
static enum flue_code snapshot(struct sums *sums, struct series **out, size_t *count,
                               struct flue_error *error)
{
    pthread_mutex_lock(&sums->lock);
    *count = sums->count;
    *out = malloc((sums->count + 1) * sizeof **out);
    if (*out && sums->count)
        memcpy(*out, sums->series, sums->count * sizeof **out);
    pthread_mutex_unlock(&sums->lock);
    return *out ? FLUE_OK : flue_fail(error, FLUE_NO_MEMORY, "no memory for %zu sums", *count);
}

enum flue_code sums_write(struct sums *sums, struct flue_account *account,
                          struct flue_payload **out, struct flue_counts *counts,
                          struct flue_error *error)
{
    static const struct {
        const char *name, *unit, *description;
    } metrics[FLUE_QUANTITIES] = {
        [FLUE_QUANTITY_TIME] = {"time", "s", "time that samples stand for"},
        [FLUE_QUANTITY_BYTES] = {"size", "By", "bytes that samples stand for"},
        [FLUE_QUANTITY_COUNT] = {"count", "{event}", "events that samples stand for"}};
    const struct flue_attribute self[] = {
        {FLUE_BYTES("service.name"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("flue")}},
        {FLUE_BYTES("service.instance.id"),
         {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(sums->instance)}}};
    struct flue_metric_writer writer;
    struct series *series;
    uint64_t now = flue_wall_ns();
    size_t count;
    enum flue_code code = snapshot(sums, &series, &count, error);
    *out = NULL;
    if (code)
        return code;
    flue_metric_writer_init(&writer, MESSAGE_MAX);
    for (int q = FLUE_QUANTITY_TIME; q < FLUE_QUANTITIES; q++) {
        char name[160];
        size_t points = 0;
        snprintf(name, sizeof name, "%s.%s", sums->config->namespace, metrics[q].name);
        for (size_t i = 0; i < count; i++) {
            if (series[i].quantity != (enum flue_quantity)q)
                continue;
            if (points++ % RESOURCE_POINTS == 0) {
                flue_metric_writer_resource(&writer, self, 2);
                flue_metric_writer_sum(&writer, flue_bytes_of(name), flue_bytes_of(metrics[q].unit),
                                       flue_bytes_of(metrics[q].description));
            }
            write_point(sums, &writer, &series[i], now);
        }
        if (points) /* before `name` goes */
            flue_metric_writer_resource(&writer, self, 2);
    }
    free(series);
    return flue_metric_writer_finish(&writer, account, out, counts, error);
}

size_t sums_series(struct sums *sums)
{
    pthread_mutex_lock(&sums->lock);
    size_t count = sums->count;
    pthread_mutex_unlock(&sums->lock);
    return count;
}

uint64_t sums_overflowed(struct sums *sums)
{
    pthread_mutex_lock(&sums->lock);
    uint64_t count = sums->overflowed;
    pthread_mutex_unlock(&sums->lock);
    return count;
}

/* ---- life ------------------------------------------------------------------------------------ */

enum flue_code sums_new(const struct sums_config *config, const char *instance, struct sums **out,
                        struct flue_error *error)
{
    struct sums *sums = calloc(1, sizeof *sums);
    if (!sums)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for sums");
    sums->config = config;
    sums->start_ns = flue_wall_ns();
    sums->instance = strdup(instance);
    pthread_mutex_init(&sums->lock, NULL);
    flue_arena_init(&sums->arena, (size_t)512 << 20, 0);
    if (!sums->instance || !flue_table_init(&sums->table, NULL, 64)) {
        sums_destroy(sums);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for sums");
    }
    *out = sums;
    return FLUE_OK;
}

void sums_destroy(struct sums *sums)
{
    if (!sums)
        return;
    flue_table_destroy(&sums->table);
    free(sums->instance);
    flue_arena_destroy(&sums->arena);
    pthread_mutex_destroy(&sums->lock);
    free(sums);
}
