/* collect.h: the profiles that a question found, merged as they come.
 *
 * What is held is bounded: profiles with the same sample types are merged whenever enough have come
 * together, so a month of them is as large as one. One thread.
 */
#ifndef FLUE_ARCHIVE_COLLECT_H
#define FLUE_ARCHIVE_COLLECT_H

#include "collector/base/block.h"
#include "proto/pprof/pprof.h"

struct flue_question {
    struct flue_bytes tenant;  /* "" : anonymous */
    struct flue_bytes service; /* "": all */
    struct flue_bytes type;    /* sample type ("cpu"), profile name ("process_cpu"); "": any */
    uint64_t from_ns, to_ns;   /* of the profiles' times, to_ns excluded */
    const struct flue_pprof_label *labels; /* attribute or label names; all must be there */
    size_t label_count;
    const char *writer; /* layout otlp: its index alone; NULL: all of them */
    bool scan;          /* layout otlp: the data objects themselves instead of the indexes */
};
/* Does this name answer `type`? */
bool flue_question_type(const struct flue_question *question, struct flue_bytes name);

struct flue_collect;
struct flue_collect *flue_collect_new(const struct flue_question *question);
void flue_collect_destroy(struct flue_collect *collect);

/* A profile (gzip or raw) with the name that its store knows it by. Checked here; one whose type
 * was not asked for is left out. FLUE_INVALID: broken, said and left out by the caller. */
enum flue_code flue_collect_add(struct flue_collect *collect, struct flue_bytes name,
                                struct flue_bytes profile, struct flue_error *error);
uint64_t flue_collect_count(const struct flue_collect *collect);

/* All as one raw pprof. *value: which of its sample types was asked for. FLUE_NOT_FOUND: nothing
 * was found. FLUE_UNPROCESSABLE: several kinds, which are named. */
enum flue_code flue_collect_finish(struct flue_collect *collect, struct flue_block **out,
                                   uint32_t *value, struct flue_error *error);

#endif
