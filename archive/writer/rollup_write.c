/* rollup_write.c: one cut at a time is encoded, record by record; two more may be on their way to
 * the store. See rollup.c. */
#include <stdlib.h>
#include "archive/layout/otlp.h"
#include "archive/writer/rollup_inside.h"
#include "collector/base/clock.h"
#include "proto/convert/convert.h"
#include "proto/otlp/index.h"

#define UPLOADS_MAX 2

static void encode_next(struct cut *cut);

/* ---- writing --------------------------------------------------------------------------------- */

static void index_done(struct flue_hours_add *add)
{
    struct cut *cut = add->user;

    cut->indexing = false;
    if (cut->rollup->writer->closing)
        return;
    if (add->error.code) /* without memory: the data is there, listing finds it */
        flue_rollup_cut_tell(cut, "an index was not written", &add->error);
    flue_otlp_object_destroy(cut->object);
    cut->object = NULL;
    if (cut->last_part) {
        flue_rollup_cut_is_written(cut);
        return;
    }
    cut->rollup->uploads--;
    if (cut->abandoned) {
        flue_rollup_cut_dissolve(cut, true);
        return;
    }
    cut->part++;
    cut->state = CUT_ENCODING;
    encode_next(cut);
}

static void put_done(struct flue_put *put)
{
    struct cut *cut = put->user;

    cut->putting = false;
    if (cut->rollup->writer->closing)
        return;
    if (put->error.code) { /* cancelled, or it would have been tried for ever */
        cut->rollup->uploads--;
        flue_rollup_cut_dissolve(cut, true);
        return;
    }
    flue_lane_count(cut->rollup->lane, cut->made.body.total, cut->made.raw_size);
    cut->stored += cut->made.body.total;
    cut->add = (struct flue_hours_add){.store = put->store,
                                       .folder = cut->text.place.folder,
                                       .key = put->key,
                                       .object = &cut->made.index,
                                       .attempts = 0,
                                       .max_wait_ns = FLUE_ROLLUP_WAIT,
                                       .done = index_done,
                                       .user = cut};
    cut->indexing = true;
    flue_hours_add(cut->rollup->lane->hours, &cut->add);
}

/* A record that can be written nowhere does not hold up the others. */
static void drop_member(struct cut *cut, size_t at)
{
    struct member *member = cut->members[at];
    struct item *item = member->item;
    struct flue_error error = cut->error;

    cut->members[at] = NULL;
    cut->present--;
    cut->unfinished--;
    member->cut = NULL;
    if (flue_rollup_item_leave(item))
        flue_rollup_item_end(item, &error, true);
}

static void drop_all(struct cut *cut)
{
    for (size_t i = 0; i < cut->text.count; i++)
        if (cut->members[i])
            drop_member(cut, i);
    cut->abandoned = true;
    flue_rollup_cut_dissolve(cut, false);
}

static void write_object(struct cut *cut)
{
    struct flue_rollup *rollup = cut->rollup;
    struct flue_object_store *store =
        flue_lane_store(rollup->lane, cut->text.place.bucket, &cut->error);

    cut->key = flue_cut_key(&cut->arena, cut->text.place.folder, cut->text.min_ns, cut->text.max_ns,
                            rollup->lane->name, cut->text.seq, cut->part, cut->made.hash);
    if (!store) {
        rollup->uploads--;
        flue_rollup_cut_tell(cut, "an object cannot be written where it belongs", &cut->error);
        drop_all(cut);
        return;
    }
    if (!cut->key) {
        rollup->uploads--;
        flue_rollup_cut_dissolve(cut, cut->part > 0);
        return;
    }
    cut->putting = true;
    cut->state = CUT_WRITING;
    cut->put = (struct flue_put){.store = store,
                                 .loop = rollup->lane->loop,
                                 .key = flue_bytes_of(cut->key),
                                 .body = &cut->made.body,
                                 .content_type = "application/zstd",
                                 .attempts = 0,
                                 .max_wait_ns = FLUE_ROLLUP_WAIT,
                                 .who = rollup_who(rollup),
                                 .done = put_done,
                                 .user = cut};
    flue_put_start(&cut->put);
}

/* ---- encoding -------------------------------------------------------------------------------- */

static void encode_again(struct flue_timer *timer)
{
    struct cut *cut = flue_rollup_cut_of_timer(timer);

    cut->at = 0;
    cut->part = 0;
    cut->encoded = cut->stored = 0;
    encode_next(cut);
}

/* From the beginning, later; what is open of it is of no use. */
static void start_over(struct cut *cut)
{
    flue_rollup_cut_tell(cut, "an object could not be made and is begun anew", &cut->error);
    flue_otlp_object_destroy(cut->object);
    cut->object = NULL;
    memset(&cut->error, 0, sizeof cut->error);
    flue_rollup_cut_retry(cut, encode_again);
}

static void on_the_pool(struct cut *cut, void (*work)(void *user), void (*done)(void *user))
{
    cut->offload = (struct object_offload){
        .loop = cut->rollup->lane->loop, .work = work, .done = done, .user = cut};
    object_offload(&cut->offload);
}

struct wanted {
    const struct cut *cut;
    const struct member *member;
    struct flue_routes routes;
};

/* A profile goes to its own place; one whose place was not seen when the record came (it said
 * nothing of its time then) goes to the record's first. */
static bool belongs(void *arg, const struct flue_payload *payload,
                    const struct flue_otlp_profile *profile, uint64_t time_ns)
{
    struct wanted *wanted = arg;
    const struct item *item = wanted->member->item;
    size_t row = flue_route(&wanted->routes, payload, profile->resource, time_ns, false);
    const struct flue_place *place = row == SIZE_MAX ? NULL : &wanted->routes.items[row].place;

    if (place && flue_place_equal(place, &wanted->cut->text.place))
        return true;
    if (wanted->member != &item->members[0])
        return false;
    for (size_t i = 1; place && i < item->count; i++)
        if (flue_place_equal(place, &item->members[i].place->place))
            return false;
    return true;
}

static void encode(void *user)
{
    struct cut *cut = user;
    const struct member *member = cut->members[cut->at];
    const struct flue_batch *batch = member->item->send->batch;
    struct flue_payload *otlp = NULL;
    struct wanted wanted = {.cut = cut, .member = member};

    if (!cut->object)
        cut->object = flue_otlp_object_new(batch->account, (int)cut->rollup->writer->config.level);
    if (!cut->object) {
        (void)flue_fail(&cut->error, FLUE_NO_MEMORY, "no memory for an object");
        return;
    }
    /* The batch was read for this alone: nobody else looks at it. */
    if (flue_convert(batch->payload, FLUE_FORM_OTLP, batch->account, &otlp, &cut->error))
        return;
    flue_routes_init(&wanted.routes, &cut->rollup->writer->config, batch->origin);
    flue_otlp_object_add(cut->object, otlp, batch->origin->received_ns, belongs, &wanted,
                         &cut->error);
    flue_routes_destroy(&wanted.routes);
    flue_payload_unref(otlp);
}

static void finish(void *user)
{
    struct cut *cut = user;
    flue_otlp_object_finish(cut->object, &cut->made, &cut->error);
}

static void finished(void *user);

static void close_part(struct cut *cut, bool last)
{
    cut->last_part = last;
    on_the_pool(cut, finish, finished);
}

static void finished(void *user)
{
    struct cut *cut = user;
    struct flue_rollup *rollup = cut->rollup;

    if (cut->abandoned) {
        flue_rollup_cut_dissolve(cut, cut->part > 0);
        return;
    }
    if (cut->error.code) {
        start_over(cut);
        return;
    }
    rollup->uploads++;
    if (cut->last_part)
        rollup->encoding = NULL;
    if (!cut->made.index.frame_count) { /* nothing in it, or nothing left */
        flue_otlp_object_destroy(cut->object);
        cut->object = NULL;
        flue_rollup_cut_is_written(cut);
        return;
    }
    write_object(cut);
    flue_rollup_start_next(rollup);
}

static void encoded(void *user)
{
    struct cut *cut = user;
    struct member *member = cut->members[cut->at];
    bool hopeless;

    hopeless = cut->error.code && !flue_code_facts(cut->error.code)->retryable &&
               cut->error.code != FLUE_NO_MEMORY && !cut->abandoned;
    if (!hopeless) /* else it leaves with its batch, to be cut or set aside */
        flue_send_park(member->item->send);
    if (cut->abandoned) {
        flue_rollup_cut_dissolve(cut, cut->part > 0);
        return;
    }
    if (cut->error.code) {
        if (hopeless)
            drop_member(cut, cut->at);
        start_over(cut);
        return;
    }
    cut->encoded += member->bytes;
    cut->at++;
    if (cut->at < cut->text.count &&
        flue_otlp_object_size(cut->object) >= (size_t)cut->rollup->writer->config.rollup.max_size) {
        close_part(cut, false);
        return;
    }
    encode_next(cut);
}

static void load_again(struct flue_timer *timer)
{
    encode_next(flue_rollup_cut_of_timer(timer));
}

static void loaded(struct flue_send *send, enum flue_code code, const struct flue_error *error)
{
    struct item *item = send->state;
    struct cut *cut = item->rollup->encoding;

    if (cut->abandoned) {
        if (!code)
            flue_send_park(send);
        flue_rollup_cut_dissolve(cut, cut->part > 0);
        return;
    }
    if (code == FLUE_OK) {
        on_the_pool(cut, encode, encoded);
        return;
    }
    cut->error = *error;
    if (code == FLUE_INVALID) {
        drop_member(cut, cut->at);
        memset(&cut->error, 0, sizeof cut->error);
        encode_next(cut);
        return;
    }
    flue_rollup_cut_tell(cut, "a record of the queue cannot be read now", error);
    memset(&cut->error, 0, sizeof cut->error);
    flue_rollup_cut_retry(cut, load_again);
}

static void encode_next(struct cut *cut)
{
    if (cut->abandoned) {
        flue_rollup_cut_dissolve(cut, cut->part > 0);
        return;
    }
    while (cut->at < cut->text.count && !cut->members[cut->at])
        cut->at++;
    if (cut->at < cut->text.count) {
        flue_send_load(cut->members[cut->at]->item->send, loaded);
        return;
    }
    if (cut->object) {
        close_part(cut, true);
        return;
    }
    /* Every record of it was dropped: nothing to write. */
    cut->rollup->encoding = NULL;
    cut->rollup->uploads++;
    flue_rollup_cut_is_written(cut);
}

void flue_rollup_start_next(struct flue_rollup *rollup)
{
    struct cut *cut;

    if (rollup->encoding || rollup->uploads >= UPLOADS_MAX || rollup->writer->closing)
        return;
    for (cut = rollup->cuts; cut && cut->state != CUT_QUEUED; cut = cut->next)
        ;
    if (!cut)
        return;
    rollup->encoding = cut;
    cut->state = CUT_ENCODING;
    flue_rollup_cut_set_busy(cut, true);
    cut->failures = 0;
    encode_next(cut);
}
