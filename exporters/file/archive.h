/* archive.h: layout `pprof`: one object per profile, with a manifest of its labels beside it.
 *
 *   {tenant}/{service}/{type}/dt=YYYY-MM-DD/hour=HH/{time}-{hash}.pb.gz     the profile, gzip
 *   {tenant}/{service}/{type}/dt=YYYY-MM-DD/hour=HH/{time}-{hash}.json      what it is
 *
 * dt and hour are of the profile's own time in UTC (time of receipt where it has none), {time} is
 * that time in nanoseconds, {hash} the first 16 digits of the SHA-256 over labels and profile: the
 * key is a function of the content, so a repeated write replaces itself. Each file is written under
 * a temporary name, synced, and renamed; the manifest first, so that an object that can be seen has
 * one.
 */
#ifndef EXPORTERS_FILE_ARCHIVE_H
#define EXPORTERS_FILE_ARCHIVE_H

#include "collector/base/arena.h"
#include "collector/pipeline/batch.h"

struct flue_archive_object {
    char *path;              /* relative, without extension */
    struct flue_bytes pprof; /* as it travels, gzip or raw */
    bool gzip;
    char *manifest;
    size_t manifest_size;
};

struct flue_archive_plan {
    struct flue_arena arena;
    struct flue_payload *payload; /* form PPROF; what the objects borrow from */
    struct flue_archive_object *objects;
    size_t count, room;
};

/* On the loop: what to write. The plan is emptied by flue_archive_plan_destroy, also on failure. */
enum flue_code flue_archive_plan(const struct flue_batch *batch, struct flue_archive_plan *plan,
                                 struct flue_error *error);
/* On a pool thread: writes all below `root`, a path. */
enum flue_code flue_archive_write(const struct flue_archive_plan *plan, const char *root,
                                  unsigned directory_mode, struct flue_error *error);
void flue_archive_plan_destroy(struct flue_archive_plan *plan);

#endif
