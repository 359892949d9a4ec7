/* query.h: what the query string of /ingest says: name, times, format, rate, spy.
 *
 * Source: Pyroscope, pkg/ingester/pyroscope/ingest_handler.go and pkg/og/util/attime. Pure
 * functions.
 */
#ifndef RECEIVERS_PYROSCOPE_QUERY_H
#define RECEIVERS_PYROSCOPE_QUERY_H

#include "collector/base/arena.h"
#include "collector/base/error.h"

#define FLUE_INGEST_MAX_LABELS 100

struct flue_ingest_label {
    struct flue_bytes name, value;
};
struct flue_ingest_name {
    struct flue_bytes app;
    struct flue_ingest_label labels[FLUE_INGEST_MAX_LABELS];
    size_t count;
};

/* "app{k=v,k2=v2}", percent-decoded. app: [a-zA-Z0-9_./-]; label names: [a-zA-Z0-9_.]; blanks
 * around names and values are cut off; values hold anything but "," and "}". The last of two equal
 * names wins. A pair that no "}" follows counts too (Pyroscope loses it). Slices of `text`.
 * FLUE_INVALID says what is wrong with the name. */
enum flue_code flue_ingest_name(struct flue_bytes text, struct flue_ingest_name *out,
                                struct flue_error *error);

/* from, until: 8 digits that are a date, 13 digits milliseconds, 16 microseconds, 19 nanoseconds,
 * any other number seconds; "now", "now-1h" (s, m, min, h, d, w, M, mon, y). "_", "," and blanks
 * are passed over. What is none of these is `now_ns`. */
uint64_t flue_ingest_time(struct flue_bytes text, uint64_t now_ns);

enum flue_ingest_format {
    FLUE_INGEST_PPROF,     /* the body is a pprof */
    FLUE_INGEST_MULTIPART, /* a form with one in it */
    FLUE_INGEST_GROUPS,
    FLUE_INGEST_LINES,
    FLUE_INGEST_OTHER /* named in *name: refused */
};
enum flue_ingest_format flue_ingest_format(struct flue_bytes format, struct flue_bytes content_type,
                                           struct flue_bytes body, const char **name);

#endif
