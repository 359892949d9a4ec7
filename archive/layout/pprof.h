/* pprof.h: layout `pprof`: one object per profile, with a manifest of its labels beside it.
 *
 *   {tenant}/{service}/{type}/dt=YYYY-MM-DD/hour=HH/{time}-{hash}.pb.gz     the profile, gzip
 *   {tenant}/{service}/{type}/dt=YYYY-MM-DD/hour=HH/{time}-{hash}.json      what it is
 *
 * dt and hour are of the profile's own time in UTC (time of receipt where it has none), {time} is
 * that time in nanoseconds, {hash} the first 16 digits of the SHA-256 over the labels and the
 * SHA-256 of the profile: the key is a function of the content, so a repeated write replaces
 * itself, and the profile is read once for its name and for the signature of its upload. The
 * manifest is written first, so that an object that can be seen has one.
 */
#ifndef FLUE_ARCHIVE_PPROF_H
#define FLUE_ARCHIVE_PPROF_H

#include "collector/base/arena.h"
#include "collector/pipeline/batch.h"

struct flue_pprof_object {
    char *key;               /* without extension */
    struct flue_bytes pprof; /* as it travels, gzip or raw */
    uint8_t sha256[32];      /* of `pprof` */
    bool gzip;
    char *manifest;
    size_t manifest_size;
};

struct flue_pprof_plan {
    struct flue_arena arena;
    struct flue_payload *payload; /* form PPROF; what the objects borrow from */
    struct flue_pprof_object *objects;
    size_t count, room;
};

/* What to write. The plan is emptied by flue_pprof_plan_destroy, also on failure. `open` converts
 * (flue_convert: on the batch's loop); `name` hashes and writes manifests (any thread). */
enum flue_code flue_pprof_plan_open(const struct flue_batch *batch, struct flue_pprof_plan *plan,
                                    struct flue_error *error);
enum flue_code flue_pprof_plan_name(const struct flue_batch *batch, struct flue_pprof_plan *plan,
                                    struct flue_error *error);
void flue_pprof_plan_destroy(struct flue_pprof_plan *plan);

/* The object's content, gzip: borrowed, or in *packed (a new block). Any thread. */
enum flue_code flue_pprof_object_content(const struct flue_pprof_object *object,
                                         struct flue_bytes *content, struct flue_block **packed,
                                         struct flue_error *error);

#endif
