/* hours.h: the hours of a span that an archive may have: all of a short span without a question,
 * of a long one those that a LIST by day and by hour shows, so that ten years cost as many requests
 * as there are days with profiles. One day's names are held at a time.
 */
#ifndef FLUE_ARCHIVE_READ_HOURS_H
#define FLUE_ARCHIVE_READ_HOURS_H

#include "archive/read/source.h"

struct flue_hours_span {
    struct flue_source *source;
    struct flue_bytes folder; /* what dt=YYYY-MM-DD/hour=HH/ lie in, with '/' behind it */
    uint64_t from_ns, to_ns;
    /* Of every hour since 1970 in [from_ns, to_ns), in order; anything but FLUE_OK ends it. */
    enum flue_code (*visit)(void *arg, uint64_t hour, struct flue_error *error);
    void *arg;
};
enum flue_code flue_read_hours(const struct flue_hours_span *span, struct flue_error *error);

#endif
