/* lane.h: the writer on one loop; what its parts (archive/writer/ only) share. */
#ifndef FLUE_ARCHIVE_LANE_H
#define FLUE_ARCHIVE_LANE_H

#include <pthread.h>
#include "archive/writer/hours.h"
#include "archive/writer/route.h"
#include "archive/writer/writer.h"
#include "collector/base/metrics.h"
#include "collector/pipeline/exporter.h"
#include "collector/storage/storage.h"

#define FLUE_STORES_MAX 64 /* buckets that attributes may name */

struct flue_rollup;
struct request;
struct flue_archive_lane {
    struct flue_archive_writer *writer;
    struct flue_loop *loop;
    char *name; /* this lane's writer id: loops write different index objects */
    struct flue_hours *hours;
    struct {
        char *bucket;
        struct flue_object_store *store;
    } stores[FLUE_STORES_MAX]; /* the first is the configured one */
    size_t store_count;
    _Atomic unsigned requests; /* being written */
    struct request *newest;
};
struct flue_archive_writer {
    struct flue_archive_config config;
    const struct flue_create *create;
    struct flue_arena arena; /* configurations of further stores; under `lock` */
    pthread_mutex_t lock;
    char *name; /* an element of a key */
    struct flue_archive_lane **lanes;
    size_t lane_count;
    struct flue_rollup *rollup; /* layout otlp with a durable queue */
    struct flue_metric *objects, *object_bytes, *raw_bytes;
    bool closing; /* being destroyed: what ends now begins nothing */
};

/* NULL and *error: no such store can be opened. */
struct flue_object_store *flue_lane_store(struct flue_archive_lane *lane, struct flue_bytes bucket,
                                          struct flue_error *error);
void flue_lane_count(struct flue_archive_lane *lane, uint64_t bytes, uint64_t raw);

/* request.c */
void flue_request_send(struct flue_archive_lane *lane, struct flue_send *send);
void flue_requests_end(struct flue_archive_lane *lane); /* what is open; after the lane's stores */

/* rollup.c. new: reads the cuts that are open, main thread. The lane of the first send is its lane
 * from then on (the engine sends all on one loop). */
struct flue_rollup *flue_rollup_new(struct flue_archive_writer *writer);
void flue_rollup_send(struct flue_rollup *rollup, struct flue_archive_lane *lane,
                      struct flue_send *send);
bool flue_rollup_idle(const struct flue_rollup *rollup); /* any thread */
/* After the stores. NULL: fine. */
void flue_rollup_destroy(struct flue_rollup *rollup);

#endif
