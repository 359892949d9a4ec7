/* folded_pyroscope.c: what the suffix of an application's name says about folded numbers.
 *
 * Source: Pyroscope, pkg/ingester/pyroscope/ingest_adapter.go, convertMetadata. */
#include "proto/foreign/folded.h"

struct suffix {
    const char *suffix, *name, *type, *unit;
    bool sampled; /* counts are samples taken at a rate: they become nanoseconds */
};

static const struct suffix suffixes[] = {
    {"cpu", "process_cpu", "cpu", "nanoseconds", true},
    {"itimer", "process_cpu", "cpu", "nanoseconds", true},
    {"wall", "wall", "wall", "nanoseconds", true},
    {"seconds", "wall", "wall", "nanoseconds", true},
    {"milliseconds", "wall", "wall", "nanoseconds", true},
    {"microseconds", "wall", "wall", "nanoseconds", true},
    {"nanoseconds", "wall", "wall", "nanoseconds", true},
    {"inuse_objects", "memory", "inuse_objects", "count", false},
    {"alloc_objects", "memory", "alloc_objects", "count", false},
    {"inuse_space", "memory", "inuse_space", "bytes", false},
    {"alloc_space", "memory", "alloc_space", "bytes", false},
    {"alloc_in_new_tlab_objects", "memory", "alloc_in_new_tlab_objects", "count", false},
    {"alloc_in_new_tlab_bytes", "memory", "alloc_in_new_tlab_bytes", "bytes", false},
    {"alloc_outside_tlab_objects", "memory", "alloc_outside_tlab_objects", "count", false},
    {"alloc_outside_tlab_bytes", "memory", "alloc_outside_tlab_bytes", "bytes", false},
    {"live", "memory", "live", "count", false},
    {"bytes", "memory", "samples", "bytes", false},
    {"goroutines", "goroutine", "goroutines", "count", false},
    {"mutex_count", "mutex", "contentions", "count", false},
    {"mutex_duration", "mutex", "delay", "nanoseconds", false},
    {"block_count", "block", "contentions", "count", false},
    {"block_duration", "block", "delay", "nanoseconds", false},
    {"lock_count", "block", "contentions", "count", false},
    {"lock_duration", "block", "delay", "nanoseconds", false},
    {"exceptions", "exceptions", "samples", "count", false},
};

static const struct suffix *suffix_of(struct flue_bytes text)
{
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (flue_bytes_is(text, suffixes[i].suffix))
            return &suffixes[i];
    return NULL;
}

enum flue_code flue_folded_pyroscope(struct flue_bytes name, uint64_t sample_rate,
                                     struct flue_bytes *app, struct flue_bytes *profile_name,
                                     struct flue_folded_meaning *meaning, struct flue_error *error)
{
    const struct suffix *row = &suffixes[0];
    size_t dot = name.size;
    while (dot > 0 && name.data[dot - 1] != '.')
        dot--;
    *app = name;
    if (dot > 0) {
        char shown[80];
        struct flue_bytes suffix = flue_bytes_from(name, dot);
        row = suffix_of(suffix);
        if (!row)
            return flue_fail(error, FLUE_INVALID, "unknown profile type: %s",
                             flue_printable(suffix, shown, sizeof shown));
        *app = flue_bytes_first(name, dot - 1);
    }
    *profile_name = flue_bytes_of(row->name);
    meaning->type = flue_bytes_of(row->type);
    meaning->unit = flue_bytes_of(row->unit);
    meaning->period_type = meaning->period_unit = FLUE_BYTES("");
    meaning->period = 0;
    meaning->scale = 1;
    if (!row->sampled)
        return FLUE_OK;
    if (sample_rate == 0) {
        if (flue_bytes_is(*profile_name, "process_cpu")) {
            meaning->type = FLUE_BYTES("samples");
            meaning->unit = FLUE_BYTES("count");
        }
        return FLUE_OK;
    }
    meaning->period_type = FLUE_BYTES("cpu");
    meaning->period_unit = FLUE_BYTES("nanoseconds");
    meaning->period = sample_rate >= 1000000000 ? 1 : (int64_t)(1000000000 / sample_rate);
    meaning->scale = meaning->period;
    return FLUE_OK;
}
