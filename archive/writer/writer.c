/* writer.c: see writer.h. */
#include "archive/writer/writer.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "archive/layout/key.h"
#include "archive/writer/lane.h"

/* Stable per instance: the host and the log that its queue lies in. */
static char *writer_name(const struct flue_create *create, const char *configured)
{
    char host[256] = "", text[512], element[FLUE_KEY_ELEMENT_ROOM];

    if (configured && *configured) {
        snprintf(text, sizeof text, "%s", configured);
    } else {
        if (gethostname(host, sizeof host - 1) != 0 || !*host)
            snprintf(host, sizeof host, "host");
        snprintf(text, sizeof text, "%s_%s", host, create->id);
    }
    flue_key_element(flue_bytes_of(text), element);
    return strdup(element);
}

enum flue_code flue_archive_writer_new(const struct flue_create *create,
                                       const struct flue_archive_config *config,
                                       struct flue_archive_writer **out, struct flue_error *error)
{
    struct flue_archive_writer *writer = calloc(1, sizeof *writer);

    if (!writer)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    writer->config = *config;
    writer->create = create;
    flue_arena_init(&writer->arena, 4u << 20, 0);
    pthread_mutex_init(&writer->lock, NULL);
    writer->name = writer_name(create, config->writer);
    writer->lane_count = create->loops ? create->loops->count : 0;
    writer->lanes = calloc(writer->lane_count + 1, sizeof *writer->lanes);
    if (!writer->name || !writer->lanes) {
        flue_archive_writer_destroy(writer);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    }
    *out = writer;
    return FLUE_OK;
}

/* Open requests to the stores end, and with them what waited for them. */
static void lane_close(struct flue_archive_lane *lane)
{
    for (size_t i = 0; i < lane->store_count; i++) {
        flue_object_store_destroy(lane->stores[i].store);
        free(lane->stores[i].bucket);
    }
    flue_requests_end(lane);
}

static void lane_destroy(struct flue_archive_lane *lane)
{
    flue_hours_destroy(lane->hours);
    free(lane->name);
    free(lane);
}

static enum flue_code lane_new(struct flue_archive_writer *writer, size_t index,
                               struct flue_error *error)
{
    struct flue_archive_lane *lane = calloc(1, sizeof *lane);
    struct flue_hours_config hours = {.who = writer->create->id};
    char name[FLUE_KEY_ELEMENT_ROOM + 16];
    enum flue_code code;

    if (!lane)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", hours.who);
    writer->lanes[index] = lane;
    lane->writer = writer;
    lane->loop = writer->create->loops->items[index];
    /* With a queue on disk one loop writes all; otherwise each is a writer of its own. */
    snprintf(name, sizeof name, "%s" FLUE_WRITER_LOOP "%zu", writer->name, index);
    lane->name = strdup(writer->create->storage ? writer->name : name);
    hours.loop = lane->loop;
    hours.writer = lane->name;
    lane->hours = lane->name ? flue_hours_new(&hours) : NULL;
    if (!lane->hours)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", hours.who);
    code = writer->config.vendor->open(writer->config.store, lane->loop, writer->create->metrics,
                                       &lane->stores[0].store, error);
    if (code)
        return code;
    lane->store_count = 1;
    return FLUE_OK;
}

enum flue_code flue_archive_writer_start(struct flue_archive_writer *writer,
                                         struct flue_error *error)
{
    const struct flue_create *create = writer->create;

    for (size_t i = 0; i < writer->lane_count; i++) {
        enum flue_code code = lane_new(writer, i, error);
        if (code)
            return code;
    }
    const struct flue_label labels[] = {{"exporter", create->id}, {NULL, NULL}};
    writer->objects = flue_metric(create->metrics, FLUE_COUNTER, "exporter_objects",
                                  "Objects written to an archive.", labels);
    writer->object_bytes = flue_metric(create->metrics, FLUE_COUNTER, "exporter_object_bytes",
                                       "Their bytes as stored.", labels);
    writer->raw_bytes = flue_metric(create->metrics, FLUE_COUNTER, "exporter_object_raw_bytes",
                                    "Their bytes before compression.", labels);
    if (create->storage && writer->config.layout == FLUE_LAYOUT_OTLP &&
        !(writer->rollup = flue_rollup_new(writer)))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    return FLUE_OK;
}

struct flue_object_store *flue_lane_store(struct flue_archive_lane *lane, struct flue_bytes bucket,
                                          struct flue_error *error)
{
    struct flue_archive_writer *writer = lane->writer;
    const struct flue_archive_config *config = &writer->config;

    if (!bucket.size)
        return lane->stores[0].store;
    for (size_t i = 1; i < lane->store_count; i++)
        if (flue_bytes_is(bucket, lane->stores[i].bucket))
            return lane->stores[i].store;
    if (lane->store_count == FLUE_STORES_MAX || !config->store_of) {
        char shown[100];
        (void)flue_fail(error, FLUE_REFUSED,
                        "bucket \"%s\": an attribute may name at most %d different buckets",
                        flue_printable(bucket, shown, sizeof shown), FLUE_STORES_MAX - 1);
        return NULL;
    }
    pthread_mutex_lock(&writer->lock);
    const char *name = flue_arena_string(&writer->arena, bucket);
    const void *store = name ? config->store_of(config->store, name, &writer->arena) : NULL;
    pthread_mutex_unlock(&writer->lock);
    size_t at = lane->store_count;
    if (!store || !(lane->stores[at].bucket = strndup((const char *)bucket.data, bucket.size))) {
        (void)flue_fail(error, FLUE_NO_MEMORY, "no memory for another bucket");
        return NULL;
    }
    if (config->vendor->open(store, lane->loop, writer->create->metrics, &lane->stores[at].store,
                             error)) {
        free(lane->stores[at].bucket);
        lane->stores[at].bucket = NULL;
        return NULL;
    }
    lane->store_count++;
    return lane->stores[at].store;
}

void flue_lane_count(struct flue_archive_lane *lane, uint64_t bytes, uint64_t raw)
{
    flue_metric_add(lane->writer->objects, 1);
    flue_metric_add(lane->writer->object_bytes, (int64_t)bytes);
    flue_metric_add(lane->writer->raw_bytes, (int64_t)raw);
}

void flue_archive_writer_send(struct flue_archive_writer *writer, struct flue_send *send)
{
    struct flue_archive_lane *lane = writer->lanes[send->loop->index];

    if (send->record && writer->rollup)
        flue_rollup_send(writer->rollup, lane, send);
    else
        flue_request_send(lane, send);
}

bool flue_archive_writer_stopped(struct flue_archive_writer *writer)
{
    for (size_t i = 0; i < writer->lane_count; i++) {
        const struct flue_archive_lane *lane = writer->lanes[i];
        if (lane && atomic_load(&lane->requests))
            return false;
    }
    return !writer->rollup || flue_rollup_idle(writer->rollup);
}

void flue_archive_writer_destroy(struct flue_archive_writer *writer)
{
    if (!writer)
        return;
    writer->closing = true;
    for (size_t i = 0; writer->lanes && i < writer->lane_count; i++)
        if (writer->lanes[i])
            lane_close(writer->lanes[i]);
    flue_rollup_destroy(writer->rollup);
    for (size_t i = 0; writer->lanes && i < writer->lane_count; i++)
        if (writer->lanes[i])
            lane_destroy(writer->lanes[i]);
    pthread_mutex_destroy(&writer->lock);
    flue_arena_destroy(&writer->arena);
    free(writer->lanes);
    free(writer->name);
    free(writer);
}
