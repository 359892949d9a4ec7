/* metrics.c: the registry and its page. See metrics.h.
 *
 * The registry's lock is for making and printing; a change of a metric is one atomic instruction on
 * a cache line of its own.
 */
#include "collector/base/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/hash.h"

#define MAX_LABELS     ((size_t)16)
#define MAX_VALUE      ((size_t)1024)
#define MAX_LABEL_TEXT ((size_t)32 * 1024)

struct flue_histogram {
    const double *bounds; /* of its family */
    size_t count;
    _Atomic uint64_t sum;       /* the bits of a double */
    _Atomic uint64_t buckets[]; /* count + 1 */
};

struct series {
    struct flue_metric metric;
    double (*read)(void *);
    void *arg;
    struct flue_histogram *histogram;
    char *labels; /* 'a="b",c="d"', "" without any */
    uint64_t hash;
};

enum { HISTOGRAM = FLUE_GAUGE + 1 };

struct family {
    char *name, *help;
    int type;
    double *bounds;
    size_t bound_count;
    struct series **series;
    size_t count, room;
    struct flue_table by_labels;
    struct series *overflow;
};

struct flue_metrics {
    pthread_mutex_t lock;
    char *prefix;
    struct family **families;
    size_t count, room;
    struct flue_table by_name;
};

/* What is counted when there is no memory to count it. */
static struct flue_metric lost;

struct flue_metrics *flue_metrics_new(const char *prefix)
{
    struct flue_metrics *metrics = calloc(1, sizeof *metrics);

    if (!metrics)
        return NULL;
    pthread_mutex_init(&metrics->lock, NULL);
    metrics->prefix = strdup(prefix ? prefix : "otelcol_");
    if (!metrics->prefix || !flue_table_init(&metrics->by_name, NULL, 64)) {
        flue_metrics_destroy(metrics);
        return NULL;
    }
    return metrics;
}

static void series_free(struct series *series)
{
    if (!series)
        return;
    free(series->histogram);
    free(series->labels);
    free(series);
}

static void family_free(struct family *family)
{
    if (!family)
        return;
    for (size_t i = 0; i < family->count; i++)
        series_free(family->series[i]);
    series_free(family->overflow);
    flue_table_destroy(&family->by_labels);
    free(family->series);
    free(family->bounds);
    free(family->name);
    free(family->help);
    free(family);
}

void flue_metrics_destroy(struct flue_metrics *metrics)
{
    if (!metrics)
        return;
    for (size_t i = 0; i < metrics->count; i++)
        family_free(metrics->families[i]);
    free(metrics->families);
    flue_table_destroy(&metrics->by_name);
    free(metrics->prefix);
    pthread_mutex_destroy(&metrics->lock);
    free(metrics);
}

static bool push(void ***items, size_t *count, size_t *room, void *item)
{
    if (*count == *room) {
        size_t more = *room ? *room * 2 : 8;
        void **grown = realloc(*items, more * sizeof *grown);

        if (!grown)
            return false;
        *items = grown;
        *room = more;
    }
    (*items)[(*count)++] = item;
    return true;
}

static bool family_is(const void *rows, uint32_t row, const void *key)
{
    return strcmp(((struct family *const *)rows)[row]->name, key) == 0;
}

static struct family *family_new(int type, const char *name, const char *help, const double *bounds,
                                 size_t bound_count)
{
    struct family *family = calloc(1, sizeof *family);

    if (!family)
        return NULL;
    family->type = type;
    family->name = strdup(name);
    family->help = strdup(help ? help : "");
    family->bounds = calloc(bound_count + 1, sizeof *family->bounds);
    family->bound_count = bound_count;
    if (!family->name || !family->help || !family->bounds ||
        !flue_table_init(&family->by_labels, NULL, 0)) {
        family_free(family);
        return NULL;
    }
    if (bound_count)
        memcpy(family->bounds, bounds, bound_count * sizeof *bounds);
    return family;
}

/* NULL: no memory, or the name is there with another type. */
static struct family *family_get(struct flue_metrics *metrics, int type, const char *name,
                                 const char *help, const double *bounds, size_t bound_count)
{
    uint64_t hash = flue_hash(flue_bytes_of(name));
    uint32_t row = flue_table_find(&metrics->by_name, hash, family_is, metrics->families, name);
    struct family *family;

    if (row != FLUE_TABLE_NONE) {
        family = metrics->families[row];
        return family->type == type ? family : NULL;
    }
    family = family_new(type, name, help, bounds, bound_count);
    if (!family)
        return NULL;
    if (!push((void ***)&metrics->families, &metrics->count, &metrics->room, family)) {
        family_free(family);
        return NULL;
    }
    if (!flue_table_insert(&metrics->by_name, hash, (uint32_t)(metrics->count - 1))) {
        metrics->count--;
        family_free(family);
        return NULL;
    }
    return family;
}

/* A name as Prometheus takes it: other characters become '_'. */
static void put_name(struct flue_buffer *out, const char *name)
{
    for (size_t i = 0; name[i]; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';

        flue_buffer_byte(out, (uint8_t)(letter || (i && c >= '0' && c <= '9') ? c : '_'));
    }
}

/* Escapes as the text format wants it: backslash and newline, and quotes within values. */
static void put_escaped(struct flue_buffer *out, struct flue_bytes text, bool quotes)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];

        if (c == '\\' || c == '\n' || (quotes && c == '"'))
            flue_buffer_byte(out, '\\');
        flue_buffer_byte(out, c == '\n' ? 'n' : c);
    }
}

static void put_value(struct flue_buffer *out, const char *value)
{
    struct flue_bytes text = flue_bytes_first(flue_bytes_of(value), MAX_VALUE);
    uint8_t repaired[3 * MAX_VALUE];
    size_t size = flue_utf8_repaired_size(text);

    flue_utf8_repair(text, repaired);
    put_escaped(out, flue_bytes(repaired, size), true);
}

static int by_label_name(const void *a, const void *b)
{
    return strcmp(((const struct flue_label *)a)->name, ((const struct flue_label *)b)->name);
}

/* The labels as printed, sorted by name; malloc'd, NULL without memory. `value` for all, if given.
 */
static char *labels_text(const struct flue_label *labels, const char *value)
{
    struct flue_label sorted[MAX_LABELS];
    struct flue_buffer out;
    size_t count = 0;

    while (labels && labels[count].name && count < MAX_LABELS) {
        sorted[count] = labels[count];
        count++;
    }
    if (count)
        qsort(sorted, count, sizeof *sorted, by_label_name);
    flue_buffer_init(&out, MAX_LABEL_TEXT);
    flue_buffer_text(&out, "");
    for (size_t i = 0; i < count; i++) {
        if (i)
            flue_buffer_byte(&out, ',');
        put_name(&out, sorted[i].name);
        flue_buffer_text(&out, "=\"");
        put_value(&out, value ? value : sorted[i].value);
        flue_buffer_byte(&out, '"');
    }
    if (out.failed)
        flue_buffer_destroy(&out);
    return out.data;
}

/* Takes `labels`. */
static struct series *series_new(const struct family *family, char *labels)
{
    size_t buckets = family->bound_count + 1;
    struct series *series = NULL;

    if (labels)
        series = aligned_alloc(64, (sizeof *series + 63) / 64 * 64);
    if (!series) {
        free(labels);
        return NULL;
    }
    memset(series, 0, sizeof *series);
    series->labels = labels;
    if (family->type == HISTOGRAM) {
        series->histogram =
            calloc(1, sizeof *series->histogram + buckets * sizeof series->histogram->buckets[0]);
        if (!series->histogram) {
            series_free(series);
            return NULL;
        }
        series->histogram->bounds = family->bounds;
        series->histogram->count = family->bound_count;
    }
    return series;
}

static bool series_is(const void *rows, uint32_t row, const void *key)
{
    return strcmp(((struct series *const *)rows)[row]->labels, key) == 0;
}

static struct series *series_get(struct family *family, const struct flue_label *labels)
{
    char *text = labels_text(labels, NULL);
    struct series *series;
    uint64_t hash;
    uint32_t row;

    if (!text)
        return NULL;
    hash = flue_hash(flue_bytes_of(text));
    row = flue_table_find(&family->by_labels, hash, series_is, family->series, text);
    if (row != FLUE_TABLE_NONE) {
        free(text);
        return family->series[row];
    }
    if (family->count >= FLUE_METRIC_MAX_SERIES) {
        free(text);
        if (!family->overflow)
            family->overflow = series_new(family, labels_text(labels, "other"));
        return family->overflow;
    }
    series = series_new(family, text);
    if (!series)
        return NULL;
    if (!push((void ***)&family->series, &family->count, &family->room, series)) {
        series_free(series);
        return NULL;
    }
    if (!flue_table_insert(&family->by_labels, hash, (uint32_t)(family->count - 1))) {
        family->count--;
        series_free(series);
        return NULL;
    }
    return series;
}

struct flue_metric *flue_metric(struct flue_metrics *metrics, enum flue_metric_type type,
                                const char *name, const char *help, const struct flue_label *labels)
{
    struct series *series = NULL;
    struct family *family;

    pthread_mutex_lock(&metrics->lock);
    family = family_get(metrics, type, name, help, NULL, 0);
    if (family)
        series = series_get(family, labels);
    pthread_mutex_unlock(&metrics->lock);
    return series ? &series->metric : &lost;
}

void flue_metric_callback(struct flue_metrics *metrics, enum flue_metric_type type,
                          const char *name, const char *help, const struct flue_label *labels,
                          double (*read)(void *), void *arg)
{
    struct series *series = NULL;
    struct family *family;

    pthread_mutex_lock(&metrics->lock);
    family = family_get(metrics, type, name, help, NULL, 0);
    if (family)
        series = series_get(family, labels);
    if (series && series != family->overflow) {
        series->read = read;
        series->arg = arg;
    }
    pthread_mutex_unlock(&metrics->lock);
}

struct flue_histogram *flue_histogram(struct flue_metrics *metrics, const char *name,
                                      const char *help, const struct flue_label *labels,
                                      const double *bounds, size_t count)
{
    struct series *series = NULL;
    struct family *family;

    pthread_mutex_lock(&metrics->lock);
    family = family_get(metrics, HISTOGRAM, name, help, bounds, count);
    if (family)
        series = series_get(family, labels);
    pthread_mutex_unlock(&metrics->lock);
    return series ? series->histogram : NULL;
}

static double from_bits(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t to_bits(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

void flue_histogram_observe(struct flue_histogram *histogram, double value)
{
    size_t low = 0, high;
    uint64_t sum;

    if (!histogram || isnan(value))
        return;
    high = histogram->count;
    while (low < high) { /* the first bound that is not below the value */
        size_t middle = (low + high) / 2;

        if (histogram->bounds[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    atomic_fetch_add_explicit(&histogram->buckets[low], 1, memory_order_relaxed);
    sum = atomic_load_explicit(&histogram->sum, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&histogram->sum, &sum,
                                                  to_bits(from_bits(sum) + value),
                                                  memory_order_relaxed, memory_order_relaxed))
        continue;
}

/* The shortest of two forms that reads back as the same number. */
static void put_number(struct flue_buffer *out, double value)
{
    char text[40];

    if (isnan(value) || isinf(value)) {
        flue_buffer_text(out, isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return;
    }
    snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) != value)
        snprintf(text, sizeof text, "%.17g", value);
    flue_buffer_text(out, text);
}

/* "otelcol_name_suffix{labels,le="bound"} " */
static void put_series(struct flue_buffer *out, const char *name, const char *suffix,
                       const char *labels, const double *bound)
{
    flue_buffer_text(out, name);
    flue_buffer_text(out, suffix);
    if (*labels || bound) {
        flue_buffer_byte(out, '{');
        flue_buffer_text(out, labels);
        if (bound) {
            flue_buffer_text(out, *labels ? ",le=\"" : "le=\"");
            put_number(out, *bound);
            flue_buffer_byte(out, '"');
        }
        flue_buffer_byte(out, '}');
    }
    flue_buffer_byte(out, ' ');
}

static void put_histogram(struct flue_buffer *out, const char *name, const struct series *series)
{
    struct flue_histogram *histogram = series->histogram;
    uint64_t total = 0;

    for (size_t i = 0; i <= histogram->count; i++) {
        double bound = i < histogram->count ? histogram->bounds[i] : INFINITY;

        total += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
        put_series(out, name, "_bucket", series->labels, &bound);
        flue_buffer_printf(out, "%" PRIu64 "\n", total);
    }
    put_series(out, name, "_sum", series->labels, NULL);
    put_number(out, from_bits(atomic_load_explicit(&histogram->sum, memory_order_relaxed)));
    flue_buffer_byte(out, '\n');
    put_series(out, name, "_count", series->labels, NULL);
    flue_buffer_printf(out, "%" PRIu64 "\n", total);
}

static void put_one(struct flue_buffer *out, const struct family *family, const char *name,
                    const struct series *series)
{
    if (family->type == HISTOGRAM) {
        put_histogram(out, name, series);
        return;
    }
    put_series(out, name, "", series->labels, NULL);
    if (series->read)
        put_number(out, series->read(series->arg));
    else
        flue_buffer_printf(out, "%" PRId64, flue_metric_get(&series->metric));
    flue_buffer_byte(out, '\n');
}

static void put_family(struct flue_buffer *out, const char *prefix, const struct family *family)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    struct flue_buffer name;

    flue_buffer_init(&name, 4096);
    flue_buffer_text(&name, prefix);
    put_name(&name, family->name);
    if (family->type == FLUE_COUNTER &&
        !flue_bytes_ends_with(flue_buffer_bytes(&name), FLUE_BYTES("_total")))
        flue_buffer_text(&name, "_total");
    if (name.failed) {
        out->failed = true;
    } else {
        flue_buffer_printf(out, "# HELP %s ", name.data);
        put_escaped(out, flue_bytes_of(family->help), false);
        flue_buffer_printf(out, "\n# TYPE %s %s\n", name.data, types[family->type]);
        for (size_t i = 0; i < family->count; i++)
            put_one(out, family, name.data, family->series[i]);
        if (family->overflow)
            put_one(out, family, name.data, family->overflow);
    }
    flue_buffer_destroy(&name);
}

void flue_metrics_print(struct flue_metrics *metrics, struct flue_buffer *out)
{
    pthread_mutex_lock(&metrics->lock);
    for (size_t i = 0; i < metrics->count; i++)
        put_family(out, metrics->prefix, metrics->families[i]);
    pthread_mutex_unlock(&metrics->lock);
}
