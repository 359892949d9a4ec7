/* hours.h: the index objects of layout `otlp` that this writer keeps: one per hour (and tenant),
 * all of it rewritten after each data object.
 *
 * What an index held before this process began is read first, once. Additions that come while one
 * is being written go together into the next. Some are kept in memory; one that grows past its
 * limit takes nothing more (its later objects are found by listing). One loop.
 */
#ifndef FLUE_ARCHIVE_HOURS_H
#define FLUE_ARCHIVE_HOURS_H

#include "archive/layout/index.h"
#include "archive/writer/put.h"

#define FLUE_HOUR_LIMIT (32u << 20) /* bytes of one index, raw */

struct flue_hours;
struct flue_hours_config {
    struct flue_loop *loop;
    const char *writer; /* an element of a key */
    const char *who;
};
struct flue_hours *flue_hours_new(const struct flue_hours_config *config);
void flue_hours_destroy(struct flue_hours *hours); /* open additions are forgotten */

struct flue_hours_add {
    /* The caller's; texts are copied. */
    struct flue_object_store *store;
    struct flue_bytes folder; /* of the hour, with '/' behind it */
    struct flue_bytes key;    /* of the object, whole */
    const struct flue_index_object *object;
    unsigned attempts; /* as of a put */
    uint64_t max_wait_ns, deadline_ns;
    void (*done)(struct flue_hours_add *add); /* once; from within only without memory */
    void *user;
    struct flue_error error;
    struct flue_hours_add *next; /* its own */
};
/* done when an index that names the object has been written. */
void flue_hours_add(struct flue_hours *hours, struct flue_hours_add *add);
/* It is not told any more. */
void flue_hours_forget(struct flue_hours *hours, struct flue_hours_add *add);

#endif
