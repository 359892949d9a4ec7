/* otlp.c: see otlp.h. Writing a data object. */
#include "archive/layout/otlp.h"
#include <openssl/evp.h>
#include <stdlib.h>
#include <zstd.h>
#include "archive/layout/gather.h"
#include "archive/layout/key.h"
#include "archive/layout/tail.h"
#include "collector/base/hash.h"
#include "proto/convert/profile_name.h"
#include "proto/otlp/index.h"

#define ENCODER      1u
#define NAMES_BUDGET (256u << 20)
#define TYPES_SEEN   8 /* kinds of one frame that are looked up only once */

unsigned flue_otlp_encoder(void)
{
    return ENCODER << 24 | ZSTD_versionNumber();
}

/* A group is a service and a kind of profile; its frames come one after the other. */
struct kind {
    struct flue_bytes service, type;
    uint32_t frames; /* closed so far */
    uint64_t min_ns, max_ns;
    struct flue_bytes *types; /* in the arena; also of frames that are closed */
    size_t type_count, type_room;
    uint64_t seen[TYPES_SEEN]; /* hashes of (type, unit, period) whose names are in `types` */
    unsigned seen_count;
};
struct frame {
    struct flue_index_frame index;
    struct flue_block *block;
    size_t kind;
    uint32_t number;
};
struct flue_otlp_object {
    struct flue_account *account;
    struct flue_gather *gather;
    struct flue_arena arena;
    struct kind *kinds;
    size_t kind_count, kind_room;
    struct flue_table by_name;
    size_t last; /* kind of the profile before */
    struct frame *frames;
    size_t frame_count, frame_room;
    size_t packed; /* bytes of closed frames */
    uint64_t raw, profiles, min_ns, max_ns;
    ZSTD_CCtx *zstd;
    int level;
    struct flue_block *tail;
    struct flue_slices body;
};

struct flue_otlp_object *flue_otlp_object_new(struct flue_account *account, int level)
{
    struct flue_otlp_object *object = calloc(1, sizeof *object);

    if (!object)
        return NULL;
    object->account = account;
    object->level = level;
    flue_arena_init(&object->arena, NAMES_BUDGET, 0);
    object->gather = flue_gather_new(account);
    object->zstd = ZSTD_createCCtx();
    if (!object->gather || !object->zstd ||
        !flue_table_init(&object->by_name, &object->arena, 16)) {
        flue_otlp_object_destroy(object);
        return NULL;
    }
    ZSTD_CCtx_setParameter(object->zstd, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(object->zstd, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setParameter(object->zstd, ZSTD_c_contentSizeFlag, 1);
    return object;
}

void flue_otlp_object_destroy(struct flue_otlp_object *object)
{
    if (!object)
        return;
    for (size_t i = 0; i < object->frame_count; i++)
        flue_block_unref(object->frames[i].block);
    flue_block_unref(object->tail);
    flue_gather_destroy(object->gather);
    ZSTD_freeCCtx(object->zstd);
    flue_arena_destroy(&object->arena);
    free(object);
}

/* ---- kinds ----------------------------------------------------------------------------------- */

struct adding {
    struct flue_otlp_object *object;
    uint64_t received_ns;
    flue_otlp_wanted wanted;
    void *arg;
    bool failed;
};

static bool same_kind(const void *rows, uint32_t row, const void *key)
{
    const struct kind *a = (const struct kind *)rows + row, *b = key;
    return flue_bytes_equal(a->service, b->service) && flue_bytes_equal(a->type, b->type);
}

static size_t find_kind(struct flue_otlp_object *object, struct flue_bytes service,
                        struct flue_bytes type)
{
    struct kind kind = {.service = service, .type = type};
    uint64_t hash;
    uint32_t row;

    if (object->last < object->kind_count &&
        same_kind(object->kinds, (uint32_t)object->last, &kind))
        return object->last;
    hash = flue_hash_join(flue_hash(service), flue_hash(type));
    row = flue_table_find(&object->by_name, hash, same_kind, object->kinds, &kind);
    if (row != FLUE_TABLE_NONE)
        return object->last = row;
    kind.service = flue_arena_copy(&object->arena, service);
    kind.type = flue_arena_copy(&object->arena, type);
    row = (uint32_t)object->kind_count;
    if (!kind.service.data || !kind.type.data ||
        !FLUE_ARENA_PUSH(&object->arena, object->kinds, object->kind_count, object->kind_room,
                         kind) ||
        !flue_table_insert(&object->by_name, hash, row))
        return FLUE_GATHER_NONE;
    return object->last = row;
}

static bool add_type(struct flue_otlp_object *object, struct kind *kind, struct flue_bytes name)
{
    struct flue_bytes copy;

    if (!name.size || kind->type_count >= FLUE_INDEX_TYPES)
        return true;
    for (size_t i = 0; i < kind->type_count; i++)
        if (flue_bytes_equal(kind->types[i], name))
            return true;
    copy = flue_arena_copy(&object->arena, name);
    return copy.data &&
           FLUE_ARENA_PUSH(&object->arena, kind->types, kind->type_count, kind->type_room, copy);
}

/* What people may ask for: the sample type, the period's type, and the name Pyroscope gives it. */
static bool add_names(struct flue_otlp_object *object, struct kind *kind,
                      struct flue_profile_type type, struct flue_profile_type period)
{
    uint64_t hash = flue_hash_join(flue_hash_join(flue_hash(type.type), flue_hash(type.unit)),
                                   flue_hash(period.type));

    for (unsigned i = 0; i < kind->seen_count; i++)
        if (kind->seen[i] == hash)
            return true;
    if (kind->seen_count < TYPES_SEEN)
        kind->seen[kind->seen_count++] = hash;
    return add_type(object, kind, type.type) && add_type(object, kind, period.type) &&
           add_type(object, kind, flue_profile_name(&type, 1, period, &object->arena));
}

static size_t choose(void *arg, const struct flue_payload *payload,
                     const struct flue_otlp_dictionary *dictionary,
                     const struct flue_otlp_profile *profile)
{
    struct adding *adding = arg;
    struct flue_otlp_object *object = adding->object;
    struct flue_otlp_profile_fields fields;
    struct flue_value service;
    uint64_t time;

    flue_otlp_profile_read(payload, profile->profile, &fields);
    time = flue_key_time(fields.time_unix_nano, adding->received_ns);
    if (!adding->wanted(adding->arg, payload, profile, time))
        return FLUE_GATHER_NONE;
    struct flue_profile_type type = {flue_otlp_string(dictionary, fields.sample_type),
                                     flue_otlp_string(dictionary, fields.sample_unit)};
    struct flue_profile_type period = {flue_otlp_string(dictionary, fields.period_type),
                                       flue_otlp_string(dictionary, fields.period_unit)};
    if (!payload->ops->attribute_get(payload, profile->resource, FLUE_BYTES("service.name"),
                                     &service) ||
        service.type != FLUE_VALUE_STRING || !service.text.size)
        service.text = FLUE_BYTES(FLUE_SERVICE_NONE);
    size_t number = find_kind(object, service.text, period.type.size ? period.type : type.type);
    if (number == FLUE_GATHER_NONE || !add_names(object, &object->kinds[number], type, period)) {
        adding->failed = true;
        return FLUE_GATHER_NONE;
    }
    struct kind *kind = &object->kinds[number];
    if (!kind->min_ns || time < kind->min_ns)
        kind->min_ns = time;
    if (time > kind->max_ns)
        kind->max_ns = time;
    return number;
}

/* ---- frames ---------------------------------------------------------------------------------- */

static enum flue_code pack(struct flue_otlp_object *object, struct flue_bytes message,
                           struct flue_block **out, struct flue_error *error)
{
    uint8_t prefix[4] = {(uint8_t)(message.size >> 24), (uint8_t)(message.size >> 16),
                         (uint8_t)(message.size >> 8), (uint8_t)message.size};
    ZSTD_outBuffer to = {0};
    ZSTD_inBuffer head = {prefix, 4, 0}, body = {message.data, message.size, 0};
    size_t bound = ZSTD_compressBound(message.size + 4), left;

    if (message.size > UINT32_MAX - 4)
        return flue_fail(error, FLUE_TOO_LARGE, "a message of %zu bytes does not fit its length",
                         message.size);
    struct flue_block *block = flue_block_new(object->account, bound);
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a frame of %zu bytes", bound);
    to.dst = block->data;
    to.size = bound;
    ZSTD_CCtx_reset(object->zstd, ZSTD_reset_session_only);
    ZSTD_CCtx_setPledgedSrcSize(object->zstd, message.size + 4);
    left = ZSTD_compressStream2(object->zstd, &to, &head, ZSTD_e_continue);
    if (!ZSTD_isError(left))
        left = ZSTD_compressStream2(object->zstd, &to, &body, ZSTD_e_end);
    if (ZSTD_isError(left) || left) {
        flue_block_unref(block);
        return flue_fail(error, FLUE_NO_MEMORY, "zstd: %s",
                         ZSTD_isError(left) ? ZSTD_getErrorName(left) : "frame too large");
    }
    *out = flue_block_copy(NULL, flue_bytes(to.dst, to.pos)); /* the bound is far too large */
    flue_block_unref(block);
    return *out ? FLUE_OK
                : flue_fail(error, FLUE_NO_MEMORY, "no memory for a frame of %zu bytes", to.pos);
}

static enum flue_code close_frame(struct flue_otlp_object *object, size_t number,
                                  struct flue_error *error)
{
    struct kind *kind = &object->kinds[number];
    struct flue_gathered facts = flue_gather_look(object->gather, number);
    struct frame frame = {.kind = number, .number = kind->frames};
    struct flue_block *message = NULL;
    enum flue_code code = flue_gather_take(object->gather, number, &message, error);

    if (code || !message)
        return code;
    frame.index = (struct flue_index_frame){.raw_size = message->size + 4,
                                            .min_ns = kind->min_ns,
                                            .max_ns = kind->max_ns,
                                            .profiles = facts.profiles,
                                            .samples = facts.samples,
                                            .service = kind->service,
                                            .types = kind->types,
                                            .type_count = kind->type_count};
    code = pack(object, flue_block_bytes(message), &frame.block, error);
    flue_block_unref(message);
    if (code)
        return code;
    if (!FLUE_ARENA_PUSH(&object->arena, object->frames, object->frame_count, object->frame_room,
                         frame)) {
        flue_block_unref(frame.block);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the index of an object");
    }
    object->packed += frame.block->size;
    object->raw += frame.index.raw_size;
    object->profiles += facts.profiles;
    if (kind->min_ns && (!object->min_ns || kind->min_ns < object->min_ns))
        object->min_ns = kind->min_ns;
    if (kind->max_ns > object->max_ns)
        object->max_ns = kind->max_ns;
    kind->frames++;
    kind->min_ns = kind->max_ns = 0;
    /* The next frame tells its own types. */
    kind->types = NULL;
    kind->type_count = kind->type_room = kind->seen_count = 0;
    return FLUE_OK;
}

enum flue_code flue_otlp_object_add(struct flue_otlp_object *object,
                                    const struct flue_payload *payload, uint64_t received_ns,
                                    flue_otlp_wanted wanted, void *arg, struct flue_error *error)
{
    struct adding adding = {object, received_ns, wanted, arg, false};
    enum flue_code code = flue_gather_add(object->gather, payload, choose, &adding, error);

    if (!code && adding.failed)
        code = flue_fail(error, FLUE_NO_MEMORY, "the names of one object take more than %u bytes",
                         NAMES_BUDGET);
    for (size_t i = 0; !code && i < flue_gather_groups(object->gather); i++)
        if (flue_gather_look(object->gather, i).size >= FLUE_OTLP_FRAME)
            code = close_frame(object, i, error);
    while (!code && flue_gather_held(object->gather) > FLUE_OTLP_HELD_LIMIT) {
        size_t largest = 0;
        for (size_t i = 1; i < flue_gather_groups(object->gather); i++)
            if (flue_gather_look(object->gather, i).held >
                flue_gather_look(object->gather, largest).held)
                largest = i;
        code = close_frame(object, largest, error);
    }
    return code;
}

size_t flue_otlp_object_size(const struct flue_otlp_object *object)
{
    return object->packed + flue_gather_held(object->gather) / 8;
}

uint64_t flue_otlp_object_profiles(const struct flue_otlp_object *object)
{
    uint64_t profiles = object->profiles;

    for (size_t i = 0; i < flue_gather_groups(object->gather); i++)
        profiles += flue_gather_look(object->gather, i).profiles;
    return profiles;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int compare(struct flue_bytes a, struct flue_bytes b)
{
    size_t least = a.size < b.size ? a.size : b.size;
    int order = least ? memcmp(a.data, b.data, least) : 0;
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static _Thread_local const struct kind *kinds_of; /* of the object that this thread sorts */

static int by_kind(const void *left, const void *right)
{
    const struct frame *a = left, *b = right;
    int order = compare(a->index.service, b->index.service);

    if (!order)
        order = compare(kinds_of[a->kind].type, kinds_of[b->kind].type);
    return order ? order : (a->number > b->number) - (a->number < b->number);
}

static bool hash_body(const struct flue_slices *body, char out[17])
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t digest[EVP_MAX_MD_SIZE];
    bool ok = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL);

    for (size_t i = 0; ok && i < body->count; i++)
        ok = EVP_DigestUpdate(context, body->items[i].data, body->items[i].size);
    ok = ok && EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    if (ok) {
        flue_hex(flue_bytes(digest, 8), out);
        out[16] = 0;
    }
    return ok;
}

enum flue_code flue_otlp_object_finish(struct flue_otlp_object *object, struct flue_otlp_made *out,
                                       struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    uint64_t offset = 0;
    bool room = true;

    memset(out, 0, sizeof *out);
    for (size_t i = 0; !code && i < flue_gather_groups(object->gather); i++)
        code = close_frame(object, i, error);
    if (code)
        return code;
    kinds_of = object->kinds;
    if (object->frame_count)
        qsort(object->frames, object->frame_count, sizeof *object->frames, by_kind);
    struct flue_index_frame *frames =
        flue_arena_zalloc(&object->arena, object->frame_count + 1, sizeof *frames);
    for (size_t i = 0; room && frames && i < object->frame_count; i++) {
        struct frame *frame = &object->frames[i];
        frame->index.offset = offset;
        frame->index.size = frame->block->size;
        offset += frame->block->size;
        frames[i] = frame->index;
        room = flue_slices_add(&object->body, &object->arena, flue_block_bytes(frame->block));
    }
    out->index = (struct flue_index_object){.frames = frames, .frame_count = object->frame_count};
    if (!frames || !room)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the index of an object");
    if ((code = flue_tail_write(&out->index, &object->tail, error)))
        return code;
    if (!flue_slices_add(&object->body, &object->arena, flue_block_bytes(object->tail)) ||
        !hash_body(&object->body, out->hash))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to close an object");
    out->body = object->body;
    out->index.size = object->body.total;
    out->min_ns = object->min_ns;
    out->max_ns = object->max_ns;
    out->raw_size = object->raw;
    return FLUE_OK;
}
