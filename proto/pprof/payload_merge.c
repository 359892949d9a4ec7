/* payload_merge.c: the series of several payloads as one; series with equal labels become one
 * series. Profiles keep their bytes. */
#include <stdlib.h>

#include "collector/base/hash.h"
#include "proto/pprof/series.h"

struct source {
    const struct flue_pprof_series *series;
    uint32_t next; /* of equal labels; FLUE_TABLE_NONE: the last */
    uint32_t tail; /* of a first one: the last of its chain */
    bool first;
};

/* Order does not matter to what a series is. */
static uint64_t labels_hash(const struct flue_pprof_series *series)
{
    uint64_t sum = series->label_count;
    for (size_t i = 0; i < series->label_count; i++)
        sum +=
            flue_hash_join(flue_hash(series->labels[i].name), flue_hash(series->labels[i].value));
    return sum;
}

static bool labels_equal(const void *rows, uint32_t row, const void *key)
{
    const struct flue_pprof_series *a = ((const struct source *)rows)[row].series, *b = key;
    if (a->label_count != b->label_count)
        return false;
    for (size_t i = 0; i < a->label_count; i++) {
        size_t j = i; /* nearly always in the same order */
        for (size_t tried = 0; tried < b->label_count; tried++, j++) {
            if (j == b->label_count)
                j = 0;
            if (flue_bytes_equal(a->labels[i].name, b->labels[j].name))
                break;
        }
        if (j >= b->label_count || !flue_bytes_equal(a->labels[i].name, b->labels[j].name) ||
            !flue_bytes_equal(a->labels[i].value, b->labels[j].value))
            return false;
    }
    return true;
}

static void add_all(struct flue_pprof_builder *builder, const struct source *sources, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!sources[i].first)
            continue;
        const struct flue_pprof_series *series = sources[i].series;
        flue_pprof_builder_series(builder);
        for (size_t j = 0; j < series->label_count; j++)
            flue_pprof_builder_label(builder, series->labels[j].name, series->labels[j].value);
        for (uint32_t at = (uint32_t)i; at != FLUE_TABLE_NONE; at = sources[at].next)
            for (size_t j = 0; j < sources[at].series->profile_count; j++)
                flue_pprof_builder_profile(builder, &sources[at].series->profiles[j]);
    }
}

enum flue_code flue_pprof_payload_merge(struct flue_payload *const *payloads, size_t count,
                                        struct flue_account *account, struct flue_payload **out,
                                        struct flue_error *error)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        total += flue_pprof_series_count(payloads[i]);
    struct source *sources = calloc(total + 1, sizeof *sources);
    struct flue_pprof_builder *builder = flue_pprof_builder_new(account);
    struct flue_table table = {0};
    bool good =
        sources && builder && total < FLUE_TABLE_NONE && flue_table_init(&table, NULL, total);
    for (size_t i = 0; i < count && good; i++) {
        const struct flue_pprof_core *core = flue_pprof_of(payloads[i])->core;
        for (size_t j = 0; j < core->block_count; j++)
            flue_pprof_builder_keep(builder, core->blocks[j]);
        for (size_t j = 0; j < core->count && good; j++, at++) {
            struct source *source = &sources[at];
            source->series = flue_pprof_series_at(payloads[i], j);
            source->next = FLUE_TABLE_NONE;
            source->tail = (uint32_t)at;
            uint64_t hash = labels_hash(source->series);
            uint32_t found = flue_table_find(&table, hash, labels_equal, sources, source->series);
            if (found == FLUE_TABLE_NONE) {
                source->first = true;
                good = flue_table_insert(&table, hash, (uint32_t)at);
            } else {
                sources[sources[found].tail].next = (uint32_t)at;
                sources[found].tail = (uint32_t)at;
            }
        }
    }
    if (good)
        add_all(builder, sources, total);
    flue_table_destroy(&table);
    free(sources);
    if (good)
        return flue_pprof_builder_finish(builder, out, NULL, error);
    if (builder)
        flue_pprof_builder_discard(builder);
    return flue_fail(error, FLUE_NO_MEMORY, "no memory to join %zu payloads of %zu series", count,
                     total);
}
