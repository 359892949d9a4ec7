/* otlp.h: layout `otlp`: the profiles of many requests in one object, in frames that can be read
 * alone.
 *
 *   {prefix}v1/tenant={t}/dt=YYYY-MM-DD/hour=HH/{window}-{writer}-{seq}-{hash}.otlp.zst    data
 *   {prefix}v1/tenant={t}/dt=YYYY-MM-DD/hour=HH/index/{writer}.idx                         index
 *
 * dt and hour are of the profiles' own time, UTC. {window} is YYYYMMDDTHHMMSSZ-{seconds}, from the
 * earliest to the latest of them, {hash} the first 16 digits of the SHA-256 of the object.
 *
 * A data object is: independent zstd frames, each a big-endian 32-bit length and a message
 * ProfilesData with a dictionary of its own, holding one service and one kind of profile, sorted by
 * service; a skippable frame (0x184D2A50) with the index (index.proto), its length and the tag
 * "flueidx1" at its end; the seek table of zstd's seekable format 0.1.0, without checksums (the
 * frames have their own). So `zstd -d` gives the messages one behind the other, as the Collector's
 * file exporter writes them with format proto and no compression.
 *
 * Bytes are a function of the payloads, their order and FLUE_OTLP_ENCODER.
 */
#ifndef FLUE_ARCHIVE_OTLP_H
#define FLUE_ARCHIVE_OTLP_H

#include "archive/layout/index.h"
#include "collector/base/block.h"
#include "collector/base/payload.h"

/* Changes with everything that changes bytes: this code, and zstd. */
unsigned flue_otlp_encoder(void);

#define FLUE_OTLP_EXTENSION  ".otlp.zst"
#define FLUE_OTLP_FRAME      (4u << 20)  /* raw bytes at which a frame is closed */
#define FLUE_OTLP_HELD_LIMIT (48u << 20) /* memory of frames that are open */

struct flue_otlp_object; /* being made */
struct flue_otlp_profile;

/* `level` of zstd. The account is charged for what is held. NULL without memory. */
struct flue_otlp_object *flue_otlp_object_new(struct flue_account *account, int level);
void flue_otlp_object_destroy(struct flue_otlp_object *object); /* NULL: fine */

/* Adds those profiles of an OTLP payload that `wanted` says; profiles without a time count as
 * received_ns. Any thread, one at a time. On failure the object is of no more use. */
typedef bool (*flue_otlp_wanted)(void *arg, const struct flue_payload *payload,
                                 const struct flue_otlp_profile *profile, uint64_t time_ns);
enum flue_code flue_otlp_object_add(struct flue_otlp_object *object,
                                    const struct flue_payload *payload, uint64_t received_ns,
                                    flue_otlp_wanted wanted, void *arg, struct flue_error *error);
/* Compressed so far, and a guess for what is still open. */
size_t flue_otlp_object_size(const struct flue_otlp_object *object);
uint64_t flue_otlp_object_profiles(const struct flue_otlp_object *object);

struct flue_otlp_made {
    struct flue_slices body;        /* borrowed from the object */
    struct flue_index_object index; /* likewise; without key */
    uint64_t min_ns, max_ns;        /* of its profiles */
    uint64_t raw_size;
    char hash[17];
};
/* Closes it; nothing may be added afterwards. */
enum flue_code flue_otlp_object_finish(struct flue_otlp_object *object, struct flue_otlp_made *out,
                                       struct flue_error *error);

/* ---- reading --------------------------------------------------------------------------------- */

/* From the last bytes of an object (FLUE_OTLP_TAIL of them, or all of it): where its index lies.
 * *missing: how many bytes more are needed from the end, 0: `index` is there. */
#define FLUE_OTLP_TAIL (64u << 10)
enum flue_code flue_otlp_tail(struct flue_bytes end, struct flue_bytes *index, size_t *missing,
                              struct flue_error *error);
/* The message behind its length, at *at of a frame that was inflated; false at its end.
 * FLUE_INVALID in `error` when it is cut. */
bool flue_otlp_message(struct flue_bytes raw, size_t *at, struct flue_bytes *message,
                       struct flue_error *error);

#endif
