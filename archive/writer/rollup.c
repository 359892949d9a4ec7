/* rollup.c: many parked sends become one object.
 *
 * A send is an *item*, a *member* of every place that its profiles belong to. Members gather per
 * place until they are enough or the first has waited long enough; then they become a *cut*, which
 * is logged (cut.h) before anything of it is written. One cut at a time is encoded, record by
 * record; two more may be on their way to the store. A cut whose object and index are written is
 * logged as written, then its items end, then its note is dropped.
 *
 * After a restart, open cuts are read from the log and wait until all their records have come back:
 * then they are written again, the same bytes under the same key. Of a cut that was written only
 * the ends are made up. If records stay away (dropped from the queue, damaged) although others keep
 * coming no more, the cut is dissolved and its records gather anew: twice at worst, never lost.
 *
 * All on one loop.
 */
#include <stdlib.h>
#include "archive/layout/key.h"
#include "archive/layout/otlp.h"
#include "archive/writer/cut.h"
#include "archive/writer/lane.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "proto/convert/convert.h"
#include "proto/otlp/index.h"

#define SECOND         1000000000ull
#define WAIT_RETRY     (2 * SECOND)
#define WAIT_MAX       (30 * SECOND)
#define RECOVERY_QUIET (60 * SECOND) /* without a recovered record: no more will come */
#define GATHERINGS_MAX 1024
#define UPLOADS_MAX    2
#define FIRST_RATIO    0.2 /* stored to encoded bytes, until it has been seen */
#define TEXT_BUDGET    (8u << 20)

struct item;
struct cut;
struct place { /* one for all that go there */
    struct flue_place place;
    struct place *next;
    size_t refs;
    char text[]; /* bucket, folder */
};
struct member {
    struct item *item;
    struct member *next, *previous; /* in its gathering */
    struct gathering *gathering;    /* one of these two, or neither: written */
    struct cut *cut;
    struct place *place;
    uint64_t min_ns, max_ns;
    uint64_t bytes; /* encoded, its share */
};
struct item { /* many: small */
    struct flue_rollup *rollup;
    struct flue_send *send;
    uint32_t open; /* members that are not written */
    uint32_t count;
    bool leaving; /* its end waits for a cut to let go */
    struct member members[];
};
struct gathering {
    struct flue_rollup *rollup;
    struct gathering *next;
    struct place *place;
    struct member *first, *last;
    size_t count;
    uint64_t bytes;
    struct flue_timer timer;
};
enum cut_state {
    CUT_RECOVERED, /* from the log; waits for its records */
    CUT_LOGGING,
    CUT_QUEUED,
    CUT_ENCODING,
    CUT_WRITING, /* object, then index */
    CUT_NOTING,
    CUT_WRITTEN
};
struct cut {
    struct flue_rollup *rollup;
    struct cut *next;
    struct flue_arena arena; /* text: records, place */
    struct flue_cut_text text;
    uint64_t number; /* of its note */
    enum cut_state state;
    struct member **members; /* by record; NULL: not here */
    size_t present, unfinished;
    bool abandoned, busy; /* busy: a load, job, put or note is under way */
    /* encoding */
    size_t at;
    unsigned part;
    uint64_t encoded, stored;
    struct flue_otlp_object *object;
    struct flue_otlp_made made;
    struct flue_job job;
    struct flue_error error;
    bool last_part, putting, indexing;
    char *key;
    struct flue_put put;
    struct flue_hours_add add;
    struct flue_buffer note_text;
    struct flue_storage_note note;
    struct flue_timer timer;
    unsigned failures;
};
struct flue_rollup {
    struct flue_archive_writer *writer;
    struct flue_archive_lane *lane; /* of the first send */
    struct place *places;
    struct gathering *gatherings;
    size_t gathering_count;
    struct cut *cuts;
    uint64_t number; /* last note */
    struct cut *encoding;
    unsigned uploads;
    size_t recovering;
    uint64_t started_ns, recovered_ns; /* wall; monotonic, of the last recovered send */
    struct flue_timer recovery;
    double ratio;
    _Atomic unsigned busy; /* cuts with work under way */
};

static void start_next(struct flue_rollup *rollup);
static void encode_next(struct cut *cut);
static void gather(struct flue_rollup *rollup, struct member *member);
static void dissolve(struct cut *cut, bool keep_note);

static void set_busy(struct cut *cut, bool busy)
{
    if (cut->busy != busy)
        atomic_fetch_add(&cut->rollup->busy, busy ? 1u : (unsigned)-1);
    cut->busy = busy;
}

static const char *who(const struct flue_rollup *rollup)
{
    return rollup->writer->create->id;
}

static void drop_note(struct cut *cut)
{
    flue_storage_note_drop(cut->rollup->writer->create->storage, cut->number);
}

/* ---- places ---------------------------------------------------------------------------------- */

static struct place *place_of(struct flue_rollup *rollup, const struct flue_place *wanted)
{
    struct place *place;

    for (place = rollup->places; place; place = place->next)
        if (flue_place_equal(&place->place, wanted)) {
            place->refs++;
            return place;
        }
    place = malloc(sizeof *place + wanted->bucket.size + wanted->folder.size + 1);
    if (!place)
        return NULL;
    if (wanted->bucket.size)
        memcpy(place->text, wanted->bucket.data, wanted->bucket.size);
    memcpy(place->text + wanted->bucket.size, wanted->folder.data, wanted->folder.size);
    place->place.bucket = flue_bytes(place->text, wanted->bucket.size);
    place->place.folder = flue_bytes(place->text + wanted->bucket.size, wanted->folder.size);
    place->refs = 1;
    place->next = rollup->places;
    rollup->places = place;
    return place;
}

static void place_unref(struct flue_rollup *rollup, struct place *place)
{
    struct place **link = &rollup->places;

    if (!place || --place->refs)
        return;
    while (*link != place)
        link = &(*link)->next;
    *link = place->next;
    free(place);
}

/* ---- items ----------------------------------------------------------------------------------- */

static void cut_free(struct cut *cut);

static void forget_cut(struct cut *cut)
{
    struct cut **link = &cut->rollup->cuts;

    while (*link && *link != cut)
        link = &(*link)->next;
    if (*link)
        *link = cut->next;
    cut_free(cut);
}

static void cut_finished_one(struct cut *cut)
{
    if (--cut->unfinished == 0 && cut->state == CUT_WRITTEN) {
        drop_note(cut);
        forget_cut(cut);
    }
}

static void item_free(struct item *item)
{
    for (size_t i = 0; i < item->count; i++)
        place_unref(item->rollup, item->members[i].place);
    free(item);
}

/* All its members are written, or it is given up. */
static void item_end(struct item *item, const struct flue_error *error, bool drop)
{
    struct flue_send *send = item->send;
    struct flue_verdict verdict = {.kind = !error->code ? FLUE_SENT
                                           : drop       ? FLUE_DROP
                                                        : FLUE_RETRY,
                                   .error = *error};

    send->cancel = NULL;
    send->state = NULL;
    for (size_t i = 0; i < item->count; i++) {
        struct cut *cut = item->members[i].cut;
        item->members[i].cut = NULL;
        if (cut)
            cut_finished_one(cut);
    }
    item_free(item);
    flue_send_done(send, &verdict);
}

static size_t index_of(const struct cut *cut, uint64_t record)
{
    size_t low = 0, high = cut->text.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (cut->text.records[middle] < record)
            low = middle + 1;
        else
            high = middle;
    }
    return low < cut->text.count && cut->text.records[low] == record ? low : SIZE_MAX;
}

static void leave_gathering(struct member *member)
{
    struct gathering *gathering = member->gathering;

    *(member->previous ? &member->previous->next : &gathering->first) = member->next;
    *(member->next ? &member->next->previous : &gathering->last) = member->previous;
    gathering->count--;
    gathering->bytes -= member->bytes;
    member->gathering = NULL;
}

static void index_given_up(struct flue_timer *timer);

/* It lets go as soon as it can: what is under way ends, and then it is dissolved. */
static void abandon(struct cut *cut)
{
    struct flue_loop *loop = cut->rollup->lane->loop;

    if (cut->abandoned)
        return;
    cut->abandoned = true;
    if (cut->putting) {
        flue_put_cancel(&cut->put);
    } else if (cut->indexing) {
        flue_hours_forget(cut->rollup->lane->hours, &cut->add);
        cut->timer.fire = index_given_up;
        flue_timer_arm(loop, &cut->timer, flue_monotonic_ns());
    } else if (cut->timer.due_ns) {
        flue_timer_arm(loop, &cut->timer, flue_monotonic_ns());
    }
}

/* Takes the item out of all that is not written yet. False: a cut that works on it has to let go
 * first. */
static bool item_leave(struct item *item)
{
    for (size_t i = 0; i < item->count; i++) {
        struct member *member = &item->members[i];
        struct cut *cut = member->cut;
        if (member->gathering)
            leave_gathering(member);
        if (!cut || cut->state == CUT_NOTING || cut->state == CUT_WRITTEN)
            continue;
        if (cut->busy && cut->state != CUT_LOGGING) {
            item->leaving = true;
            abandon(cut);
            continue;
        }
        size_t at = index_of(cut, item->send->record);
        if (at != SIZE_MAX && cut->members[at] == member) {
            cut->members[at] = NULL;
            cut->present--;
        }
        member->cut = NULL;
        cut->unfinished--;
        if (cut->state != CUT_RECOVERED)
            cut->abandoned = true;
    }
    return !item->leaving;
}

static void member_written(struct member *member)
{
    static const struct flue_error fine;
    struct item *item = member->item;
    struct flue_error error;

    if (--item->open == 0) {
        item_end(item, &fine, false);
    } else if (item->leaving) {
        item->leaving = false;
        (void)flue_fail(&error, FLUE_CANCELLED, "given up before its object was written");
        if (item_leave(item))
            item_end(item, &error, false);
    }
}

static void cancel(struct flue_send *send)
{
    struct item *item = send->state;
    struct flue_error error;

    (void)flue_fail(&error, FLUE_CANCELLED, "given up before its object was written");
    if (item && !item->leaving && item_leave(item))
        item_end(item, &error, false);
}

/* ---- cuts: life ------------------------------------------------------------------------------ */

static struct cut *cut_new(struct flue_rollup *rollup)
{
    struct cut *cut = calloc(1, sizeof *cut), **last;

    if (!cut)
        return NULL;
    cut->rollup = rollup;
    flue_arena_init(&cut->arena, TEXT_BUDGET, 0);
    flue_buffer_init(&cut->note_text, 1u << 20);
    for (last = &rollup->cuts; *last; last = &(*last)->next)
        ;
    *last = cut;
    return cut;
}

static void cut_free(struct cut *cut)
{
    if (cut->rollup->encoding == cut)
        cut->rollup->encoding = NULL;
    if (cut->rollup->lane) {
        flue_timer_disarm(cut->rollup->lane->loop, &cut->timer);
        flue_timer_disarm(cut->rollup->lane->loop, &cut->put.timer);
    }
    set_busy(cut, false);
    flue_otlp_object_destroy(cut->object);
    flue_buffer_destroy(&cut->note_text);
    flue_arena_destroy(&cut->arena);
    free(cut->members);
    free(cut);
}

/* Its members gather anew; those that wait for it to let go end. */
static void dissolve(struct cut *cut, bool keep_note)
{
    struct flue_rollup *rollup = cut->rollup;
    struct flue_error error;

    (void)flue_fail(&error, FLUE_CANCELLED, "given up before its object was written");
    if (rollup->encoding == cut)
        rollup->encoding = NULL;
    if (!keep_note)
        drop_note(cut);
    set_busy(cut, false);
    cut->state = CUT_LOGGING; /* nobody's any more */
    for (size_t i = 0; i < cut->text.count; i++) {
        struct member *member = cut->members[i];
        if (!member)
            continue;
        cut->members[i] = NULL;
        member->cut = NULL;
        cut->unfinished--;
        if (!member->item->leaving) {
            gather(rollup, member);
        } else {
            member->item->leaving = false;
            if (item_leave(member->item))
                item_end(member->item, &error, false);
        }
    }
    forget_cut(cut);
    start_next(rollup);
}

static void retry_later(struct cut *cut, void (*fire)(struct flue_timer *))
{
    unsigned shift = cut->failures > 4 ? 4 : cut->failures;
    uint64_t wait = WAIT_RETRY << shift;

    cut->failures++;
    cut->timer.fire = fire;
    flue_timer_arm(cut->rollup->lane->loop, &cut->timer,
                   flue_monotonic_ns() + (wait < WAIT_MAX ? wait : WAIT_MAX));
}

static struct cut *of_timer(struct flue_timer *timer)
{
    return (struct cut *)((char *)timer - offsetof(struct cut, timer));
}

static void tell(const struct cut *cut, const char *what, const struct flue_error *error)
{
    flue_log(FLUE_WARN, "archive", what, FLUE_S("exporter", who(cut->rollup)),
             FLUE_U("records", cut->present), FLUE_S("error", error->text), FLUE_LOG_END);
}

/* ---- cuts: ends ------------------------------------------------------------------------------ */

static void noted_written(struct flue_storage_note *note, enum flue_code code,
                          const struct flue_error *error)
{
    struct cut *cut = note->user;
    size_t count = cut->text.count;
    struct member **members = cut->members;

    /* If the log could not take it, a crash right now costs duplicates. */
    if (code)
        tell(cut, "a written object could not be noted", error);
    set_busy(cut, false);
    cut->state = CUT_WRITTEN;
    cut->members = NULL;
    cut->unfinished++; /* until all are told */
    for (size_t i = 0; i < count; i++)
        if (members[i])
            member_written(members[i]);
    free(members);
    struct flue_rollup *rollup = cut->rollup;
    cut_finished_one(cut);
    start_next(rollup);
}

static void note(struct cut *cut, void (*done)(struct flue_storage_note *, enum flue_code,
                                               const struct flue_error *))
{
    flue_buffer_clear(&cut->note_text);
    flue_cut_write(&cut->text, &cut->note_text);
    cut->note = (struct flue_storage_note){.queue = cut->rollup->writer->create->storage,
                                           .number = cut->number,
                                           .text = flue_buffer_bytes(&cut->note_text),
                                           .loop = cut->rollup->lane->loop,
                                           .done = done,
                                           .user = cut};
    set_busy(cut, true);
    flue_storage_note_put(&cut->note);
}

static void cut_is_written(struct cut *cut)
{
    struct flue_rollup *rollup = cut->rollup;

    rollup->uploads--;
    if (cut->encoded)
        rollup->ratio = rollup->ratio * 0.7 + (double)cut->stored / (double)cut->encoded * 0.3;
    flue_otlp_object_destroy(cut->object);
    cut->object = NULL;
    cut->state = CUT_NOTING;
    cut->text.written = true;
    note(cut, noted_written);
    start_next(rollup);
}

/* ---- cuts: writing --------------------------------------------------------------------------- */

static void index_given_up(struct flue_timer *timer)
{
    struct cut *cut = (struct cut *)((char *)timer - offsetof(struct cut, timer));

    cut->indexing = false;
    cut->rollup->uploads--;
    dissolve(cut, true);
}

static void index_done(struct flue_hours_add *add)
{
    struct cut *cut = add->user;

    cut->indexing = false;
    if (add->error.code) /* without memory: the data is there, listing finds it */
        tell(cut, "an index was not written", &add->error);
    flue_otlp_object_destroy(cut->object);
    cut->object = NULL;
    if (cut->last_part) {
        cut_is_written(cut);
        return;
    }
    cut->rollup->uploads--;
    if (cut->abandoned) {
        dissolve(cut, true);
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
    if (put->error.code) { /* cancelled, or it would have been tried for ever */
        cut->rollup->uploads--;
        dissolve(cut, true);
        return;
    }
    flue_lane_count(cut->rollup->lane, cut->made.body.total, cut->made.raw_size);
    cut->stored += cut->made.body.total;
    cut->add = (struct flue_hours_add){.store = put->store,
                                       .folder = cut->text.place.folder,
                                       .key = put->key,
                                       .object = &cut->made.index,
                                       .attempts = 0,
                                       .max_wait_ns = WAIT_MAX,
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
    if (item_leave(item))
        item_end(item, &error, true);
}

static void drop_all(struct cut *cut)
{
    for (size_t i = 0; i < cut->text.count; i++)
        if (cut->members[i])
            drop_member(cut, i);
    cut->abandoned = true;
    dissolve(cut, false);
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
        tell(cut, "an object cannot be written where it belongs", &cut->error);
        drop_all(cut);
        return;
    }
    if (!cut->key) {
        rollup->uploads--;
        dissolve(cut, cut->part > 0);
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
                                 .max_wait_ns = WAIT_MAX,
                                 .who = who(rollup),
                                 .done = put_done,
                                 .user = cut};
    flue_put_start(&cut->put);
}

/* ---- cuts: encoding -------------------------------------------------------------------------- */

static void encode_again(struct flue_timer *timer)
{
    struct cut *cut = of_timer(timer);

    cut->at = 0;
    cut->part = 0;
    cut->encoded = cut->stored = 0;
    encode_next(cut);
}

/* From the beginning, later; what is open of it is of no use. */
static void start_over(struct cut *cut)
{
    tell(cut, "an object could not be made and is begun anew", &cut->error);
    flue_otlp_object_destroy(cut->object);
    cut->object = NULL;
    memset(&cut->error, 0, sizeof cut->error);
    retry_later(cut, encode_again);
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

static void encode(struct flue_job *job)
{
    struct cut *cut = (struct cut *)((char *)job - offsetof(struct cut, job));
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

static void finish(struct flue_job *job)
{
    struct cut *cut = (struct cut *)((char *)job - offsetof(struct cut, job));
    flue_otlp_object_finish(cut->object, &cut->made, &cut->error);
}

static void finished(struct flue_job *job);

static void close_part(struct cut *cut, bool last)
{
    cut->last_part = last;
    cut->job = (struct flue_job){.loop = cut->rollup->lane->loop, .work = finish, .done = finished};
    flue_pool_submit(cut->rollup->lane->loop, &cut->job);
}

static void finished(struct flue_job *job)
{
    struct cut *cut = (struct cut *)((char *)job - offsetof(struct cut, job));
    struct flue_rollup *rollup = cut->rollup;

    if (cut->abandoned) {
        dissolve(cut, cut->part > 0);
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
        cut_is_written(cut);
        return;
    }
    write_object(cut);
    start_next(rollup);
}

static void encoded(struct flue_job *job)
{
    struct cut *cut = (struct cut *)((char *)job - offsetof(struct cut, job));
    struct member *member = cut->members[cut->at];
    bool hopeless;

    hopeless = cut->error.code && !flue_code_facts(cut->error.code)->retryable &&
               cut->error.code != FLUE_NO_MEMORY && !cut->abandoned;
    if (!hopeless) /* else it leaves with its batch, to be cut or set aside */
        flue_send_park(member->item->send);
    if (cut->abandoned) {
        dissolve(cut, cut->part > 0);
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
    encode_next(of_timer(timer));
}

static void loaded(struct flue_send *send, enum flue_code code, const struct flue_error *error)
{
    struct item *item = send->state;
    struct cut *cut = item->rollup->encoding;

    if (cut->abandoned) {
        if (!code)
            flue_send_park(send);
        dissolve(cut, cut->part > 0);
        return;
    }
    if (code == FLUE_OK) {
        cut->job =
            (struct flue_job){.loop = cut->rollup->lane->loop, .work = encode, .done = encoded};
        flue_pool_submit(cut->rollup->lane->loop, &cut->job);
        return;
    }
    cut->error = *error;
    if (code == FLUE_INVALID) {
        drop_member(cut, cut->at);
        memset(&cut->error, 0, sizeof cut->error);
        encode_next(cut);
        return;
    }
    tell(cut, "a record of the queue cannot be read now", error);
    memset(&cut->error, 0, sizeof cut->error);
    retry_later(cut, load_again);
}

static void encode_next(struct cut *cut)
{
    if (cut->abandoned) {
        dissolve(cut, cut->part > 0);
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
    cut_is_written(cut);
}

static void start_next(struct flue_rollup *rollup)
{
    struct cut *cut;

    if (rollup->encoding || rollup->uploads >= UPLOADS_MAX)
        return;
    for (cut = rollup->cuts; cut && cut->state != CUT_QUEUED; cut = cut->next)
        ;
    if (!cut)
        return;
    rollup->encoding = cut;
    cut->state = CUT_ENCODING;
    set_busy(cut, true);
    cut->failures = 0;
    encode_next(cut);
}

/* ---- gathering ------------------------------------------------------------------------------- */

static void log_again(struct flue_timer *timer);

static void logged(struct flue_storage_note *done, enum flue_code code,
                   const struct flue_error *error)
{
    struct cut *cut = done->user;

    set_busy(cut, false);
    if (code) {
        tell(cut, "a cut could not be logged, nothing of it is written yet", error);
        retry_later(cut, log_again);
        return;
    }
    cut->state = CUT_QUEUED;
    start_next(cut->rollup);
}

static void log_again(struct flue_timer *timer)
{
    note(of_timer(timer), logged);
}

static void gathering_free(struct gathering *gathering)
{
    struct flue_rollup *rollup = gathering->rollup;
    struct gathering **link = &rollup->gatherings;

    while (*link != gathering)
        link = &(*link)->next;
    *link = gathering->next;
    rollup->gathering_count--;
    flue_timer_disarm(rollup->lane->loop, &gathering->timer);
    place_unref(rollup, gathering->place);
    free(gathering);
}

static int by_record(const void *a, const void *b)
{
    uint64_t x = (*(struct member *const *)a)->item->send->record;
    uint64_t y = (*(struct member *const *)b)->item->send->record;
    return (x > y) - (x < y);
}

static bool fill_cut(struct cut *cut, struct gathering *gathering)
{
    uint64_t *records = flue_arena_zalloc(&cut->arena, gathering->count, sizeof *records);
    size_t count = 0;

    cut->members = calloc(gathering->count, sizeof *cut->members);
    cut->text.place.folder = flue_arena_copy(&cut->arena, gathering->place->place.folder);
    cut->text.place.bucket = flue_arena_copy(&cut->arena, gathering->place->place.bucket);
    if (!records || !cut->members || !cut->text.place.folder.data)
        return false;
    for (struct member *member = gathering->first; member; member = member->next) {
        cut->members[count++] = member;
        if (!cut->text.min_ns || member->min_ns < cut->text.min_ns)
            cut->text.min_ns = member->min_ns;
        if (member->max_ns > cut->text.max_ns)
            cut->text.max_ns = member->max_ns;
    }
    qsort(cut->members, count, sizeof *cut->members, by_record);
    for (size_t i = 0; i < count; i++) {
        records[i] = cut->members[i]->item->send->record;
        cut->members[i]->gathering = NULL;
        cut->members[i]->cut = cut;
    }
    cut->text.records = records;
    cut->text.count = cut->present = cut->unfinished = count;
    cut->text.seq = records[0];
    cut->text.encoder = flue_otlp_encoder();
    cut->text.level = (uint32_t)cut->rollup->writer->config.level;
    return true;
}

static void make_cut(struct gathering *gathering)
{
    struct flue_rollup *rollup = gathering->rollup;
    struct cut *cut = gathering->count ? cut_new(rollup) : NULL;

    if (gathering->count && (!cut || !fill_cut(cut, gathering))) { /* no memory: later */
        if (cut)
            forget_cut(cut);
        flue_timer_arm(rollup->lane->loop, &gathering->timer, flue_monotonic_ns() + WAIT_RETRY);
        return;
    }
    gathering_free(gathering);
    if (!cut)
        return;
    cut->number = ++rollup->number;
    cut->state = CUT_LOGGING;
    note(cut, logged);
}

static void due(struct flue_timer *timer)
{
    make_cut((struct gathering *)((char *)timer - offsetof(struct gathering, timer)));
}

static struct gathering *gathering_of(struct flue_rollup *rollup, struct place *place)
{
    uint64_t age = (uint64_t)rollup->writer->config.rollup.max_age;
    struct gathering *gathering, *oldest = NULL;

    for (gathering = rollup->gatherings; gathering; gathering = gathering->next) {
        if (gathering->place == place)
            return gathering;
        if (!oldest || gathering->timer.due_ns < oldest->timer.due_ns)
            oldest = gathering;
    }
    if (rollup->gathering_count >= GATHERINGS_MAX)
        make_cut(oldest);
    gathering = calloc(1, sizeof *gathering);
    if (!gathering)
        return NULL;
    gathering->rollup = rollup;
    gathering->place = place;
    place->refs++;
    gathering->next = rollup->gatherings;
    rollup->gatherings = gathering;
    rollup->gathering_count++;
    gathering->timer.fire = due;
    /* Some before the others, so that a fleet does not write on the minute. */
    flue_timer_arm(rollup->lane->loop, &gathering->timer,
                   flue_monotonic_ns() + age - flue_random_u64() % (age / 8 + 1));
    return gathering;
}

/* Without memory for it the item ends, to come again. */
static void gather(struct flue_rollup *rollup, struct member *member)
{
    struct gathering *gathering = gathering_of(rollup, member->place);
    struct flue_error error;

    if (!gathering) {
        (void)flue_fail(&error, FLUE_NO_MEMORY, "no memory to gather profiles");
        if (item_leave(member->item))
            item_end(member->item, &error, false);
        return;
    }
    member->gathering = gathering;
    member->next = NULL;
    member->previous = gathering->last;
    *(gathering->last ? &gathering->last->next : &gathering->first) = member;
    gathering->last = member;
    gathering->count++;
    gathering->bytes += member->bytes;
    if ((double)gathering->bytes * rollup->ratio >=
            (double)rollup->writer->config.rollup.max_size ||
        gathering->count >= FLUE_CUT_RECORDS)
        flue_timer_arm(rollup->lane->loop, &gathering->timer, flue_monotonic_ns());
}

/* ---- recovery -------------------------------------------------------------------------------- */

static bool recover_note(void *arg, uint64_t number, struct flue_bytes text)
{
    struct flue_rollup *rollup = arg;
    struct cut *cut = cut_new(rollup);
    struct flue_bytes copy;
    struct flue_error error;

    if (number > rollup->number)
        rollup->number = number;
    if (!cut)
        return true;
    cut->number = number;
    cut->state = CUT_RECOVERED;
    copy = flue_arena_copy(&cut->arena, text);
    if (!copy.data || flue_cut_read(copy, &cut->arena, &cut->text, &error) ||
        !(cut->members = calloc(cut->text.count, sizeof *cut->members))) {
        flue_log(FLUE_WARN, "archive", "a cut of the queue cannot be read and is left out",
                 FLUE_S("exporter", who(rollup)), FLUE_LOG_END);
        forget_cut(cut);
        return true;
    }
    /* Another encoder would make other bytes: its records gather anew. */
    if (!cut->text.written && (cut->text.encoder != flue_otlp_encoder() ||
                               cut->text.level != (uint32_t)rollup->writer->config.level)) {
        drop_note(cut);
        forget_cut(cut);
        return true;
    }
    rollup->recovering++;
    return true;
}

static void recovery_over(struct flue_timer *timer)
{
    struct flue_rollup *rollup =
        (struct flue_rollup *)((char *)timer - offsetof(struct flue_rollup, recovery));
    uint64_t now = flue_monotonic_ns();
    struct cut *cut, *next;

    if (now < rollup->recovered_ns + RECOVERY_QUIET) {
        flue_timer_arm(rollup->lane->loop, timer, rollup->recovered_ns + RECOVERY_QUIET);
        return;
    }
    rollup->recovering = 0;
    for (cut = rollup->cuts; cut; cut = next) {
        next = cut->next;
        if (cut->state != CUT_RECOVERED)
            continue;
        if (cut->text.written) {
            cut->state = CUT_WRITTEN;
            cut->unfinished++;
            cut_finished_one(cut);
        } else {
            flue_log(FLUE_INFO, "archive",
                     "records of a cut did not come back; the rest is cut anew",
                     FLUE_S("exporter", who(rollup)), FLUE_U("records", cut->text.count),
                     FLUE_U("present", cut->present), FLUE_LOG_END);
            dissolve(cut, false);
        }
        if (next) /* the list may have changed: begin again */
            next = rollup->cuts;
    }
}

/* True: it found its cut. */
static bool rejoin(struct flue_rollup *rollup, struct member *member)
{
    for (struct cut *cut = rollup->cuts; cut; cut = cut->next) {
        if (cut->state != CUT_RECOVERED ||
            !flue_place_equal(&cut->text.place, &member->place->place))
            continue;
        size_t at = index_of(cut, member->item->send->record);
        if (at == SIZE_MAX || cut->members[at])
            continue;
        cut->unfinished++;
        member->cut = cut;
        if (cut->text.written) {
            member->item->open--;
            return true;
        }
        cut->members[at] = member;
        if (++cut->present == cut->text.count) {
            rollup->recovering--;
            cut->state = CUT_QUEUED;
        }
        return true;
    }
    return false;
}

/* ---- the door -------------------------------------------------------------------------------- */

static struct item *item_new(struct flue_rollup *rollup, struct flue_send *send,
                             struct flue_error *error)
{
    const struct flue_batch *batch = send->batch;
    uint64_t bytes = batch->payload->ops->encoded_size(batch->payload), profiles = 0;
    struct flue_routes routes;
    struct item *item = NULL;
    bool ok = true;

    flue_routes_init(&routes, &rollup->writer->config, batch->origin);
    if (!flue_routes_fill(&routes, batch->payload, error))
        item = calloc(1, sizeof *item + (routes.count + 1) * sizeof item->members[0]);
    for (size_t i = 0; item && i < routes.count; i++)
        profiles += routes.items[i].profiles;
    for (size_t i = 0; item && i < routes.count; i++) {
        const struct flue_routed *routed = &routes.items[i];
        item->members[i] =
            (struct member){.item = item,
                            .place = place_of(rollup, &routed->place),
                            .min_ns = routed->min_ns,
                            .max_ns = routed->max_ns,
                            .bytes = profiles ? bytes * routed->profiles / profiles : bytes};
        ok = ok && item->members[i].place;
    }
    if (item) {
        item->rollup = rollup;
        item->send = send;
        item->count = item->open = (uint32_t)routes.count;
    }
    if (!item || !ok) {
        if (item)
            item_free(item);
        item = NULL;
        if (!error->code)
            (void)flue_fail(error, FLUE_NO_MEMORY, "no memory to gather profiles");
    }
    flue_routes_destroy(&routes);
    return item;
}

void flue_rollup_send(struct flue_rollup *rollup, struct flue_archive_lane *lane,
                      struct flue_send *send)
{
    struct flue_error error = {0};
    struct item *item;
    uint64_t now = flue_monotonic_ns();

    if (!rollup->lane) {
        rollup->lane = lane;
        if (rollup->recovering) {
            rollup->recovered_ns = now;
            flue_timer_arm(lane->loop, &rollup->recovery, now + RECOVERY_QUIET);
        }
    }
    if (send->batch->origin->received_ns < rollup->started_ns)
        rollup->recovered_ns = now;
    item = item_new(rollup, send, &error);
    if (!item) {
        flue_send_fail(send, &error);
        return;
    }
    flue_send_park(send);
    if (send->batch) { /* part of a record, or several: it cannot be read again by itself */
        item_free(item);
        flue_request_send(lane, send);
        return;
    }
    send->state = item;
    send->cancel = cancel;
    item->open++; /* keeps it until all members have their place */
    for (size_t i = 0; i < item->count; i++)
        if (!rejoin(rollup, &item->members[i]))
            gather(rollup, &item->members[i]);
    if (--item->open == 0) {
        item_end(item, &error, false);
        return;
    }
    start_next(rollup);
    if (send->state == item)
        flue_send_free_place(send);
}

struct flue_rollup *flue_rollup_new(struct flue_archive_writer *writer)
{
    struct flue_rollup *rollup = calloc(1, sizeof *rollup);

    if (!rollup)
        return NULL;
    rollup->writer = writer;
    rollup->ratio = FIRST_RATIO;
    rollup->started_ns = flue_wall_ns();
    rollup->recovery.fire = recovery_over;
    flue_storage_notes(writer->create->storage, recover_note, rollup);
    return rollup;
}

bool flue_rollup_idle(const struct flue_rollup *rollup)
{
    return atomic_load(&((struct flue_rollup *)(uintptr_t)rollup)->busy) == 0;
}

void flue_rollup_destroy(struct flue_rollup *rollup)
{
    if (!rollup)
        return;
    if (rollup->lane)
        flue_timer_disarm(rollup->lane->loop, &rollup->recovery);
    while (rollup->gatherings)
        gathering_free(rollup->gatherings);
    while (rollup->cuts)
        forget_cut(rollup->cuts);
    free(rollup);
}
