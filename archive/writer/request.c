/* request.c: one request at a time: its objects are made on the pool, written some at a time, then
 * it is acknowledged. Nothing is kept between two attempts: the same request makes the same keys
 * and bytes. */
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include "archive/layout/gather.h"
#include "archive/layout/key.h"
#include "archive/layout/otlp.h"
#include "archive/layout/pprof.h"
#include "archive/object/offload.h"
#include "archive/writer/cut.h"
#include "archive/writer/lane.h"
#include "collector/base/codec.h"
#include "proto/convert/convert.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"

#define SLOTS          8 /* objects of one request in flight */
#define REQUEST_BUDGET (256u << 20)
#define JSON_MAX       (256u << 20)

struct upload {
    struct flue_bytes key, bytes;
    struct flue_slices body;
    const char *content_type, *content_encoding;
    const uint8_t *sha256; /* of `bytes`, if known */
    bool chained;          /* only after the one before */
    struct flue_object_store *store;
    struct flue_place place;
    const struct flue_index_object *index; /* layout otlp: to be told to the hour */
    struct flue_hours_add add;
    bool adding;
    uint64_t raw;
};
struct slot {
    struct flue_put put;
    struct request *request;
    struct upload *upload;
    bool busy;
};
struct request {
    struct request *older, *newer; /* of its lane */
    struct object_offload offload;
    struct flue_archive_lane *lane;
    struct flue_send *send;
    struct flue_arena arena;
    struct flue_routes routes;
    struct flue_payload *otlp;
    struct flue_pprof_plan plan;
    bool planned, routed, cancelled;
    struct upload *uploads;
    size_t count, room, next;
    struct flue_otlp_object **objects;
    struct flue_block **blocks;
    size_t object_count, object_room, block_count, block_room;
    struct slot slots[SLOTS];
    unsigned busy, adding;
    struct flue_error error;
};

static void request_free(struct request *request)
{
    for (size_t i = 0; i < request->object_count; i++)
        flue_otlp_object_destroy(request->objects[i]);
    for (size_t i = 0; i < request->block_count; i++)
        flue_block_unref(request->blocks[i]);
    if (request->planned)
        flue_pprof_plan_destroy(&request->plan);
    if (request->routed)
        flue_routes_destroy(&request->routes);
    flue_payload_unref(request->otlp);
    flue_arena_destroy(&request->arena);
    free(request);
}

/* The last act. */
static void end(struct request *request)
{
    struct flue_send *send = request->send;
    struct flue_error error = request->error;

    send->cancel = NULL;
    send->state = NULL;
    *(request->newer ? &request->newer->older : &request->lane->newest) = request->older;
    if (request->older)
        request->older->newer = request->newer;
    atomic_fetch_sub(&request->lane->requests, 1);
    request_free(request);
    if (error.code)
        flue_send_fail(send, &error);
    else
        flue_send_ok(send);
}

/* ---- making, on the pool --------------------------------------------------------------------- */

static enum flue_code no_memory(struct request *request)
{
    return flue_fail(&request->error, FLUE_NO_MEMORY, "no memory to write a request to %s",
                     request->lane->writer->create->id);
}

static struct upload *add_upload(struct request *request, const char *key, struct flue_bytes bytes)
{
    struct upload upload = {.key = flue_bytes_of(key), .bytes = bytes, .raw = bytes.size};

    if (!key || !FLUE_ARENA_PUSH(&request->arena, request->uploads, request->count, request->room,
                                 upload)) {
        no_memory(request);
        return NULL;
    }
    return &request->uploads[request->count - 1];
}

static bool keep_block(struct request *request, struct flue_block *block)
{
    if (FLUE_ARENA_PUSH(&request->arena, request->blocks, request->block_count, request->block_room,
                        block))
        return true;
    flue_block_unref(block);
    no_memory(request);
    return false;
}

static void make_pprof(struct request *request)
{
    const char *prefix = request->lane->writer->config.prefix;

    if (flue_pprof_plan_name(request->send->batch, &request->plan, &request->error))
        return;
    for (size_t i = 0; i < request->plan.count; i++) {
        const struct flue_pprof_object *object = &request->plan.objects[i];
        struct flue_block *packed = NULL;
        struct flue_bytes content;
        if (flue_pprof_object_content(object, &content, &packed, &request->error) ||
            (packed && !keep_block(request, packed)))
            return;
        struct upload *upload = add_upload(
            request, flue_arena_printf(&request->arena, "%s%s.json", prefix, object->key),
            flue_bytes(object->manifest, object->manifest_size));
        if (!upload)
            return;
        upload->content_type = "application/json";
        upload = add_upload(request,
                            flue_arena_printf(&request->arena, "%s%s.pb.gz", prefix, object->key),
                            content);
        if (!upload)
            return;
        upload->content_type = "application/gzip";
        upload->sha256 = packed ? NULL : object->sha256;
        upload->chained = true;
    }
}

struct only {
    struct request *request;
    size_t row;
};

static bool in_row(void *arg, const struct flue_payload *payload,
                   const struct flue_otlp_profile *profile, uint64_t time_ns)
{
    const struct only *only = arg;
    struct flue_routes *routes = &only->request->routes;
    return routes->count == 1 ||
           flue_route(routes, payload, profile->resource, time_ns, false) == only->row;
}

static void make_object(struct request *request, size_t row)
{
    const struct flue_archive_writer *writer = request->lane->writer;
    const struct flue_batch *batch = request->send->batch;
    const struct flue_routed *routed = &request->routes.items[row];
    struct only only = {request, row};
    struct flue_otlp_object *object =
        flue_otlp_object_new(batch->account, (int)writer->config.level);
    struct flue_otlp_made *made = flue_arena_alloc(&request->arena, sizeof *made);

    if (!object || !made ||
        !FLUE_ARENA_PUSH(&request->arena, request->objects, request->object_count,
                         request->object_room, object)) {
        flue_otlp_object_destroy(object);
        no_memory(request);
        return;
    }
    if (flue_otlp_object_add(object, request->otlp, batch->origin->received_ns, in_row, &only,
                             &request->error) ||
        flue_otlp_object_finish(object, made, &request->error) || !made->index.frame_count)
        return;
    struct upload *upload = add_upload(
        request,
        flue_cut_key(&request->arena, routed->place.folder, made->min_ns, made->max_ns,
                     request->lane->name, batch->origin->received_ns / 1000000u, 0, made->hash),
        flue_bytes(NULL, 0));
    if (!upload)
        return;
    upload->body = made->body;
    upload->raw = made->raw_size;
    upload->content_type = "application/zstd";
    upload->place = routed->place;
    upload->index = &made->index;
}

/* The Collector's: {prefix}{partition}/{file_prefix}profiles_{unique}.{extension}[.gz] */
static char *message_key(struct request *request, const struct flue_place *place,
                         struct flue_bytes message)
{
    const struct flue_archive_config *config = &request->lane->writer->config;
    uint64_t ms = request->send->batch->origin->received_ns / 1000000u;
    bool json = config->layout == FLUE_LAYOUT_OTLP_JSON;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    char unique[40], hex[33];
    uint64_t number;

    SHA256(message.data, message.size, digest);
    memcpy(&number, digest, 8);
    snprintf(unique, sizeof unique, "%018" PRIu64, number % 1000000000000000000u);
    if (config->uuidv7) { /* RFC 9562: time of receipt, and the content's hash for chance */
        uint8_t id[16];
        for (unsigned i = 0; i < 6; i++)
            id[i] = (uint8_t)(ms >> (40 - 8 * i));
        memcpy(id + 6, digest, 10);
        id[6] = (uint8_t)((id[6] & 0x0f) | 0x70);
        id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
        flue_hex(flue_bytes(id, 16), hex);
        snprintf(unique, sizeof unique, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12,
                 hex + 16, hex + 20);
    }
    return flue_arena_printf(&request->arena, "%.*s%sprofiles_%s.%s%s", FLUE_PRI(place->folder),
                             config->file_prefix ? config->file_prefix : "", unique,
                             config->extension && *config->extension ? config->extension
                             : json                                  ? "json"
                                                                     : "binpb",
                             config->compression == FLUE_GZIP   ? ".gz"
                             : config->compression == FLUE_ZSTD ? ".zst"
                                                                : "");
}

static enum flue_code to_bytes(struct request *request, const struct flue_payload *otlp,
                               struct flue_block **out)
{
    struct flue_error *error = &request->error;
    enum flue_code code;

    if (request->lane->writer->config.layout == FLUE_LAYOUT_OTLP_JSON) {
        struct flue_buffer json;
        flue_buffer_init(&json, JSON_MAX);
        code = flue_otlp_json_write(otlp, &json, error);
        if (!code && !(*out = flue_block_copy(NULL, flue_buffer_bytes(&json))))
            code = no_memory(request);
        flue_buffer_destroy(&json);
        return code;
    }
    struct flue_slices slices = {0};
    code = otlp->ops->slices(otlp, &request->arena, &slices, error);
    if (!code && !(*out = flue_block_new(NULL, slices.total)))
        code = no_memory(request);
    if (!code) {
        flue_slices_copy(&slices, (*out)->data);
        (*out)->size = slices.total;
        flue_block_finish(*out);
    }
    return code;
}

static void make_message(struct request *request, const struct flue_place *place,
                         const struct flue_payload *otlp)
{
    const struct flue_archive_config *config = &request->lane->writer->config;
    struct flue_block *block = NULL, *packed = NULL;

    if (to_bytes(request, otlp, &block) || !keep_block(request, block))
        return;
    struct flue_bytes bytes = flue_block_bytes(block);
    char *key = message_key(request, place, bytes);
    if (config->compression != FLUE_IDENTITY) {
        struct flue_slices one = {.items = &bytes, .count = 1, .room = 1, .total = bytes.size};
        if (flue_deflate(config->compression, FLUE_LEVEL_DEFAULT, &one, &packed, &request->error) ||
            !keep_block(request, packed))
            return;
    }
    struct upload *upload = add_upload(request, key, packed ? flue_block_bytes(packed) : bytes);
    if (!upload)
        return;
    upload->raw = bytes.size;
    upload->place = *place;
    upload->content_encoding = config->compression == FLUE_GZIP   ? "gzip"
                               : config->compression == FLUE_ZSTD ? "zstd"
                                                                  : NULL;
    upload->content_type =
        config->layout == FLUE_LAYOUT_OTLP_JSON ? "application/json" : "application/x-protobuf";
}

static size_t row_of(void *arg, const struct flue_payload *payload,
                     const struct flue_otlp_dictionary *dictionary,
                     const struct flue_otlp_profile *profile)
{
    struct request *request = arg;
    struct flue_otlp_profile_fields fields;

    flue_otlp_profile_read(payload, profile->profile, &fields);
    return flue_route(&request->routes, payload, profile->resource,
                      flue_key_time(fields.time_unix_nano, request->routes.origin->received_ns),
                      false);
}

/* Profiles of one request that belong to several places become a message for each. */
static void make_messages(struct request *request)
{
    struct flue_gather *gather;

    if (request->routes.count == 1) {
        make_message(request, &request->routes.items[0].place, request->otlp);
        return;
    }
    gather = flue_gather_new(request->send->batch->account);
    if (!gather) {
        no_memory(request);
        return;
    }
    flue_gather_add(gather, request->otlp, row_of, request, &request->error);
    for (size_t row = 0; !request->error.code && row < request->routes.count; row++) {
        struct flue_block *message = NULL;
        struct flue_payload *part = NULL;
        struct flue_otlp_report report;
        if (flue_gather_take(gather, row, &message, &request->error) || !message ||
            flue_otlp_read(message, &part, &report, &request->error) || !part)
            continue;
        make_message(request, &request->routes.items[row].place, part);
        flue_payload_unref(part);
    }
    flue_gather_destroy(gather);
}

static void make(void *user)
{
    struct request *request = user;
    const struct flue_archive_config *config = &request->lane->writer->config;

    if (config->layout == FLUE_LAYOUT_PPROF) {
        make_pprof(request);
        return;
    }
    flue_routes_init(&request->routes, config, request->send->batch->origin);
    request->routed = true;
    if (flue_routes_fill(&request->routes, request->otlp, &request->error))
        return;
    if (config->layout == FLUE_LAYOUT_OTLP)
        for (size_t row = 0; !request->error.code && row < request->routes.count; row++)
            make_object(request, row);
    else
        make_messages(request);
}

/* ---- writing, on the loop -------------------------------------------------------------------- */

static void added(struct flue_hours_add *add);

static void tell_hours(struct request *request)
{
    const struct flue_archive_config *config = &request->lane->writer->config;

    request->adding = 1; /* keeps it until all have begun */
    for (size_t i = 0; !request->error.code && !request->cancelled && i < request->count; i++) {
        struct upload *upload = &request->uploads[i];
        if (!upload->index)
            continue;
        upload->add = (struct flue_hours_add){.store = upload->store,
                                              .folder = upload->place.folder,
                                              .key = upload->key,
                                              .object = upload->index,
                                              .attempts = config->put_attempts,
                                              .max_wait_ns = (uint64_t)config->put_max_backoff,
                                              .deadline_ns = request->send->deadline_ns,
                                              .done = added,
                                              .user = request};
        upload->adding = true;
        request->adding++;
        flue_hours_add(request->lane->hours, &upload->add);
    }
    if (--request->adding == 0)
        end(request);
}

static void added(struct flue_hours_add *add)
{
    struct request *request = add->user;

    for (size_t i = 0; i < request->count; i++)
        if (&request->uploads[i].add == add)
            request->uploads[i].adding = false;
    if (add->error.code && !request->error.code)
        request->error = add->error;
    if (--request->adding == 0)
        end(request);
}

static void put_done(struct flue_put *put);

static void start_put(struct slot *slot, struct upload *upload)
{
    struct request *request = slot->request;
    const struct flue_archive_config *config = &request->lane->writer->config;

    slot->upload = upload;
    slot->put = (struct flue_put){.store = upload->store,
                                  .loop = request->lane->loop,
                                  .key = upload->key,
                                  .body = &upload->body,
                                  .content_type = upload->content_type,
                                  .content_encoding = upload->content_encoding,
                                  .sha256 = upload->sha256,
                                  .attempts = config->put_attempts,
                                  .max_wait_ns = (uint64_t)config->put_max_backoff,
                                  .deadline_ns = request->send->deadline_ns,
                                  .who = request->lane->writer->create->id,
                                  .done = put_done,
                                  .user = slot};
    flue_put_start(&slot->put);
}

/* Fills free slots; goes on when all is written. */
static void go_on(struct request *request)
{
    for (size_t i = 0; i < SLOTS && request->next < request->count; i++) {
        if (request->slots[i].busy || request->error.code || request->cancelled)
            continue;
        struct upload *upload = &request->uploads[request->next];
        do
            request->next++;
        while (request->next < request->count && request->uploads[request->next].chained);
        request->slots[i].busy = true;
        request->busy++;
        start_put(&request->slots[i], upload);
    }
    if (request->busy)
        return;
    if (request->cancelled && !request->error.code)
        (void)flue_fail(&request->error, FLUE_CANCELLED, "given up before it was written");
    tell_hours(request);
}

static void put_done(struct flue_put *put)
{
    struct slot *slot = put->user;
    struct request *request = slot->request;
    struct upload *next = slot->upload + 1;

    if (put->error.code && !request->error.code)
        request->error = put->error;
    if (!put->error.code)
        flue_lane_count(request->lane, slot->upload->body.total, slot->upload->raw);
    if (!request->error.code && !request->cancelled && next < request->uploads + request->count &&
        next->chained) {
        start_put(slot, next);
        return;
    }
    slot->busy = false;
    request->busy--;
    go_on(request);
}

static void cancel(struct flue_send *send)
{
    struct request *request = send->state;

    if (request->cancelled)
        return;
    request->cancelled = true;
    for (size_t i = 0; i < SLOTS; i++)
        if (request->slots[i].busy)
            flue_put_cancel(&request->slots[i].put);
}

static void made(void *user)
{
    struct request *request = user;

    for (size_t i = 0; i < request->count && !request->error.code; i++) {
        struct upload *upload = &request->uploads[i];
        upload->store = flue_lane_store(request->lane, upload->place.bucket, &request->error);
        if (!upload->body.count)
            upload->body = (struct flue_slices){
                .items = &upload->bytes, .count = 1, .room = 1, .total = upload->bytes.size};
    }
    go_on(request);
}

void flue_request_send(struct flue_archive_lane *lane, struct flue_send *send)
{
    struct request *request = calloc(1, sizeof *request);
    struct flue_error error = {0};

    if (!request) {
        (void)flue_fail(&error, FLUE_NO_MEMORY, "no memory to write a request");
        flue_send_fail(send, &error);
        return;
    }
    flue_arena_init(&request->arena, REQUEST_BUDGET, 0);
    request->lane = lane;
    request->send = send;
    for (size_t i = 0; i < SLOTS; i++)
        request->slots[i].request = request;
    request->older = lane->newest;
    if (request->older)
        request->older->newer = request;
    lane->newest = request;
    atomic_fetch_add(&lane->requests, 1);
    send->state = request;
    if (lane->writer->config.layout == FLUE_LAYOUT_PPROF) {
        request->planned = true;
        flue_pprof_plan_open(send->batch, &request->plan, &request->error);
    } else {
        flue_convert(send->batch->payload, FLUE_FORM_OTLP, send->batch->account, &request->otlp,
                     &request->error);
    }
    if (request->error.code) {
        end(request);
        return;
    }
    send->cancel = cancel;
    request->offload =
        (struct object_offload){.loop = lane->loop, .work = make, .done = made, .user = request};
    object_offload(&request->offload);
}

void flue_requests_end(struct flue_archive_lane *lane)
{
    while (lane->newest) {
        struct request *request = lane->newest;
        object_offload_stop(&request->offload);
        for (size_t i = 0; i < SLOTS; i++)
            flue_timer_disarm(lane->loop, &request->slots[i].put.timer);
        for (size_t i = 0; i < request->count; i++)
            if (request->uploads[i].adding)
                flue_hours_forget(lane->hours, &request->uploads[i].add);
        if (!request->error.code)
            (void)flue_fail(&request->error, FLUE_CANCELLED, "given up before it was written");
        end(request);
    }
}
