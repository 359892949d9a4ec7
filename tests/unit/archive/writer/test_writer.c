/* The writer with everything around it played by this file: stores, the log's notes, the engine's
 * sends, the pool, time. One thread, one event at a time, so that it can be ended between any two
 * of them and any allocation can fail. */
#include <limits.h>

#include "../../../fault/fault.h"

#include "archive/layout/key.h"
#include "archive/layout/otlp.h"
#include "archive/object/store.h"
#include "archive/writer/lane.h"
#include "archive/writer/zone.h"
#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "collector/pipeline/exporter.h"
#include "collector/storage/storage.h"
#include "proto/otlp/otlp.h"

#define SENDS 3

/* ---- the world ------------------------------------------------------------------------------- */

struct stored {
    char key[300];
    uint8_t *data;
    size_t size;
    unsigned puts;
};
struct note {
    uint64_t number;
    uint8_t *text;
    size_t size;
};
struct fake_send {
    struct flue_send send;
    struct flue_batch *parked;
    bool answered;
    enum flue_verdict_kind kind;
    enum flue_code code;
    void (*loaded)(struct flue_send *, enum flue_code, const struct flue_error *);
};
struct world {
    struct flue_loops *loops;
    struct stored objects[32];
    size_t object_count;
    struct note notes[32];
    size_t note_count;
    struct object_op *asked[16]; /* of the store, not answered */
    size_t asked_count;
    struct flue_storage_note *noting[16];
    size_t noting_count;
    struct flue_job *jobs[16]; /* worked, not done */
    size_t job_count;
    struct fake_send *loading[16];
    size_t loading_count;
    struct fake_send sends[SENDS];
    unsigned refuse;            /* puts of data that fail first */
    unsigned notes_open_at_put; /* a put came while its cut was not in the log */
    struct flue_archive_writer *writer;
    struct flue_create create;
} world;

static void *keep(const void *data, size_t size)
{
    void *copy = __real_malloc(size + 1); /* the world never starves */
    if (data)
        memcpy(copy, data, size);
    return copy;
}

static struct stored *stored(struct flue_bytes key)
{
    for (size_t i = 0; i < world.object_count; i++)
        if (flue_bytes_is(key, world.objects[i].key))
            return &world.objects[i];
    return NULL;
}

static bool is_index(struct flue_bytes key)
{
    return flue_bytes_ends_with(key, FLUE_BYTES(".idx"));
}

/* ---- a store --------------------------------------------------------------------------------- */

static void asked(struct object_op *op)
{
    assert_true(world.asked_count < 16);
    if (op->kind == OBJECT_PUT && !is_index(op->request->key) && world.create.storage)
        world.notes_open_at_put += world.noting_count > 0 || world.note_count == 0;
    world.asked[world.asked_count++] = op;
}

static void answer(struct object_op *op)
{
    struct stored *object = stored(op->request->key);
    if (op->cancelled) {
        object_op_finish(op);
    } else if (op->kind == OBJECT_GET && !object) {
        object_op_fail(op, FLUE_NOT_FOUND, "no such object");
    } else if (op->kind == OBJECT_GET) {
        object_op_data(op, flue_bytes(object->data, object->size));
        object_op_finish(op);
    } else if (world.refuse && !is_index(op->request->key)) {
        world.refuse--;
        object_op_fail(op, FLUE_UNAVAILABLE, "not now");
    } else {
        const struct flue_slices *body = op->request->body;
        if (!object) {
            assert_true(world.object_count < 32 && op->request->key.size < 300);
            object = &world.objects[world.object_count++];
            memcpy(object->key, op->request->key.data, op->request->key.size);
        }
        free(object->data);
        object->data = keep(NULL, body->total);
        flue_slices_copy(body, object->data);
        object->size = body->total;
        object->puts++;
        object_op_finish(op);
    }
}

static void store_destroy(struct flue_object_store *store)
{
    world.asked_count = 0;
    free(store);
}

static const struct object_driver driver = {
    .vendor = "fake", .begin = asked, .destroy = store_destroy};

static enum flue_code store_open(const void *config, struct flue_loop *loop,
                                 struct flue_metrics *metrics, struct flue_object_store **out,
                                 struct flue_error *error)
{
    struct flue_object_store *store = calloc(1, sizeof *store);
    if (!store)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a store");
    object_store_init(store, &driver, loop, metrics, "fake", "store");
    *out = store;
    return FLUE_OK;
}

static const struct flue_object_vendor vendor = {.name = "fake", .open = store_open};

void __wrap_flue_storage_note_put(struct flue_storage_note *note);
void __wrap_flue_storage_note_drop(struct flue_storage_queue *queue, uint64_t number);
void __wrap_flue_storage_notes(const struct flue_storage_queue *queue,
                               bool (*visit)(void *, uint64_t, struct flue_bytes), void *arg);
void __wrap_flue_pool_submit(struct flue_loop *loop, struct flue_job *job);
void __wrap_flue_send_park(struct flue_send *send);
void __wrap_flue_send_load(struct flue_send *send,
                           void (*loaded)(struct flue_send *, enum flue_code,
                                          const struct flue_error *));
void __wrap_flue_send_free_place(struct flue_send *send);
void __wrap_flue_send_done(struct flue_send *send, const struct flue_verdict *verdict);
void __wrap_flue_send_ok(struct flue_send *send);
void __wrap_flue_send_fail(struct flue_send *send, const struct flue_error *error);

/* ---- the log, the engine, the pool ----------------------------------------------------------- */

void __wrap_flue_storage_note_put(struct flue_storage_note *note)
{
    assert_true(world.noting_count < 16);
    world.noting[world.noting_count++] = note;
}

void __wrap_flue_storage_note_drop(struct flue_storage_queue *queue, uint64_t number)
{
    for (size_t i = 0; i < world.note_count; i++)
        if (world.notes[i].number == number) {
            free(world.notes[i].text);
            world.notes[i] = world.notes[--world.note_count];
            return;
        }
}

void __wrap_flue_storage_notes(const struct flue_storage_queue *queue,
                               bool (*visit)(void *, uint64_t, struct flue_bytes), void *arg)
{
    for (size_t i = 0; i < world.note_count; i++)
        visit(arg, world.notes[i].number, flue_bytes(world.notes[i].text, world.notes[i].size));
}

static void noted(struct flue_storage_note *note)
{
    __wrap_flue_storage_note_drop(note->queue, note->number);
    world.notes[world.note_count++] =
        (struct note){note->number, keep(note->text.data, note->text.size), note->text.size};
    note->done(note, FLUE_OK, NULL);
}

void __wrap_flue_pool_submit(struct flue_loop *loop, struct flue_job *job)
{
    assert_true(world.job_count < 16);
    job->work(job);
    world.jobs[world.job_count++] = job;
}

void __wrap_flue_send_park(struct flue_send *send)
{
    struct fake_send *fake = (struct fake_send *)send;
    if (!send->record)
        return;
    fake->parked = send->batch ? send->batch : fake->parked;
    send->batch = NULL;
}

void __wrap_flue_send_load(struct flue_send *send,
                           void (*loaded)(struct flue_send *, enum flue_code,
                                          const struct flue_error *))
{
    ((struct fake_send *)send)->loaded = loaded;
    world.loading[world.loading_count++] = (struct fake_send *)send;
}

void __wrap_flue_send_free_place(struct flue_send *send)
{
}

void __wrap_flue_send_done(struct flue_send *send, const struct flue_verdict *verdict)
{
    struct fake_send *fake = (struct fake_send *)send;
    assert_false(fake->answered);
    assert_null(send->state);
    fake->answered = true;
    fake->kind = verdict->kind;
    fake->code = verdict->error.code;
    if (!send->batch)
        send->batch = fake->parked;
    fake->parked = NULL;
    for (size_t i = 0; i < world.loading_count; i++)
        if (world.loading[i] == fake) /* no `loaded` after done */
            world.loading[i] = world.loading[--world.loading_count];
}

void __wrap_flue_send_ok(struct flue_send *send)
{
    const struct flue_verdict verdict = {.kind = FLUE_SENT};
    __wrap_flue_send_done(send, &verdict);
}

void __wrap_flue_send_fail(struct flue_send *send, const struct flue_error *error)
{
    bool again = flue_code_facts(error->code)->retryable;
    struct flue_verdict verdict = {.kind = again ? FLUE_RETRY : FLUE_DROP, .error = *error};
    __wrap_flue_send_done(send, &verdict);
}

/* ---- its course ------------------------------------------------------------------------------ */

static void *first(void **items, size_t *count)
{
    void *item = items[0];
    memmove(items, items + 1, --*count * sizeof *items);
    return item;
}

static bool fire(void)
{
    for (unsigned i = 0; i < world.loops->count; i++) {
        struct flue_timer *timer = world.loops->items[i]->timers;
        if (!timer)
            continue;
        uint64_t now = flue_monotonic_ns();
        if (timer->due_ns > now)
            flue_clock_move((int64_t)(timer->due_ns - now));
        flue_timer_disarm(world.loops->items[i], timer);
        timer->fire(timer);
        return true;
    }
    return false;
}

/* One event; timers come last. False: nothing is going on. */
static bool step(void)
{
    struct object_op *op = NULL;
    if (world.loops->items[0]->inbox || world.loops->items[1]->inbox) {
        flue_loops_settle(world.loops);
    } else if (world.job_count) {
        struct flue_job *job = first((void **)world.jobs, &world.job_count);
        job->done(job);
    } else if (world.loading_count) {
        struct fake_send *fake = first((void **)world.loading, &world.loading_count);
        fake->send.batch = fake->parked;
        fake->parked = NULL;
        fake->loaded(&fake->send, FLUE_OK, NULL);
    } else if (world.noting_count) {
        noted(first((void **)world.noting, &world.noting_count));
    } else if (world.asked_count) {
        op = first((void **)world.asked, &world.asked_count);
        answer(op);
    } else {
        return fire();
    }
    return true;
}

/* Events that there were, `most` at the most. */
static unsigned go(unsigned most)
{
    unsigned done = 0;
    while (done < most && step())
        done++;
    return done;
}

static struct flue_batch *batch(unsigned number)
{
    struct flue_block *block;
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report;
    struct flue_origin from = {.received_ns = 5000000000 + number};
    struct flue_error error;
    char name[64];
    snprintf(name, sizeof name, "otlp/ebpf-v1.11-pdata-order-%u.otlp", number + 1);
    block = fault_file(name);
    assert_int_equal(flue_otlp_read(block, &payload, &report, &error), FLUE_OK);
    struct flue_origin *origin = flue_origin_new(&from);
    struct flue_batch *made = flue_batch_new(payload, origin, report.counts, NULL);
    flue_origin_unref(origin);
    return made;
}

static uint64_t samples(struct flue_bytes message)
{
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report;
    struct flue_error error;
    assert_int_equal(flue_otlp_read(flue_block_copy(NULL, message), &payload, &report, &error),
                     FLUE_OK);
    flue_payload_unref(payload);
    return report.counts.samples;
}

static uint64_t samples_stored(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < world.object_count; i++) {
        struct stored *object = &world.objects[i];
        struct flue_index index;
        struct flue_arena arena;
        struct flue_error error;
        struct flue_bytes bytes;
        size_t missing;
        if (is_index(flue_bytes_of(object->key)))
            continue;
        flue_arena_init(&arena, 16u << 20, 0);
        assert_int_equal(
            flue_otlp_tail(flue_bytes(object->data, object->size), &bytes, &missing, &error),
            FLUE_OK);
        assert_int_equal(flue_index_read(bytes, &arena, &index, &error), FLUE_OK);
        for (size_t f = 0; f < index.objects[0].frame_count; f++) {
            const struct flue_index_frame *frame = &index.objects[0].frames[f];
            struct flue_block *raw;
            size_t at = 0;
            assert_int_equal(flue_inflate(FLUE_ZSTD,
                                          flue_bytes(object->data + frame->offset, frame->size),
                                          64u << 20, 10000, NULL, &raw, &error),
                             FLUE_OK);
            while (at < raw->size) {
                size_t size = (size_t)raw->data[at] << 24 | (size_t)raw->data[at + 1] << 16 |
                              (size_t)raw->data[at + 2] << 8 | raw->data[at + 3];
                sum += samples(flue_bytes(raw->data + at + 4, size));
                at += 4 + size;
            }
            flue_block_unref(raw);
        }
        flue_arena_destroy(&arena);
    }
    return sum;
}

static enum flue_code open_writer(void)
{
    struct flue_error error = {0};
    struct flue_archive_config config = {.layout = FLUE_LAYOUT_OTLP,
                                         .vendor = &vendor,
                                         .prefix = "",
                                         .inner_prefix = "",
                                         .partition_format = "",
                                         .writer = "node",
                                         .level = 1,
                                         .rollup = {.max_size = 1 << 26, .max_age = 1000000000},
                                         .put_attempts = 3,
                                         .put_max_backoff = 1000000000};
    enum flue_code code = flue_archive_writer_new(&world.create, &config, &world.writer, &error);
    if (!code && (code = flue_archive_writer_start(world.writer, &error))) {
        flue_archive_writer_destroy(world.writer);
        world.writer = NULL;
    }
    if (code)
        assert_int_equal(error.code, FLUE_NO_MEMORY);
    return code;
}

static void send_one(unsigned i, unsigned loop)
{
    struct fake_send *fake = &world.sends[i];
    fake->answered = false;
    fake->send.loop = world.loops->items[loop];
    fake->send.attempt++;
    flue_archive_writer_send(world.writer, &fake->send);
}

static void send_all(void)
{
    for (unsigned i = 0; i < SENDS; i++)
        send_one(i, 0);
}

static void end_writer(void)
{
    flue_archive_writer_destroy(world.writer);
    world.writer = NULL;
    for (; world.job_count; world.job_count--) { /* what was posted still runs */
        struct flue_job *job = world.jobs[world.job_count - 1];
        job->done(job);
    }
    while (world.noting_count)
        noted(first((void **)world.noting, &world.noting_count));
    assert_int_equal(world.loading_count, 0);
    assert_null(world.loops->items[0]->timers);
}

static uint64_t expected;

static void begin(bool storage)
{
    static const int queue;
    struct flue_error error;
    memset(&world, 0, sizeof world);
    assert_int_equal(flue_loops_new(2, &world.loops, &error), FLUE_OK);
    world.create = (struct flue_create){
        .id = "awss3", .loops = world.loops, .metrics = flue_metrics_new("flue_")};
    if (storage)
        world.create.storage = (struct flue_storage_queue *)(uintptr_t)&queue;
    expected = 0;
    for (unsigned i = 0; i < SENDS; i++) {
        world.sends[i].send.batch = batch(i);
        world.sends[i].send.record = storage ? 10 + i : 0;
        expected += world.sends[i].send.batch->counts.samples;
    }
}

static void finish(void)
{
    for (size_t i = 0; i < world.object_count; i++)
        free(world.objects[i].data);
    for (size_t i = 0; i < world.note_count; i++)
        free(world.notes[i].text);
    for (unsigned i = 0; i < SENDS; i++) {
        assert_null(world.sends[i].parked);
        flue_batch_unref(world.sends[i].send.batch);
    }
    flue_loops_destroy(world.loops);
    flue_metrics_destroy(world.create.metrics);
}

static unsigned answers(enum flue_verdict_kind kind)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SENDS; i++)
        count += world.sends[i].answered && world.sends[i].kind == kind;
    return count;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void records_become_one_object_after_their_cut_is_logged(void **state)
{
    begin(true);
    open_writer();
    world.refuse = 2;
    send_all();
    assert_int_equal(answers(FLUE_SENT), 0);
    go(UINT_MAX);
    assert_int_equal(answers(FLUE_SENT), SENDS);
    assert_int_equal(world.notes_open_at_put, 0);
    assert_int_equal(world.note_count, 0); /* dropped with the last answer */
    assert_int_equal(world.object_count, 2);
    assert_int_equal(samples_stored(), expected);
    end_writer();
    finish();
}

/* Whatever the moment: everybody is answered once, nothing is lost or used again; the next writer
 * finds the log, makes the same object, and nobody's samples are there twice. */
static void it_may_end_between_any_two_events(void **state)
{
    for (unsigned steps = 0;; steps++) {
        char key[300] = "";
        begin(true);
        open_writer();
        world.refuse = 1;
        send_all();
        unsigned done = go(steps);
        for (size_t i = 0; i < world.asked_count; i++)
            if (world.asked[i]->kind == OBJECT_PUT && !is_index(world.asked[i]->request->key))
                memcpy(key, world.asked[i]->request->key.data, world.asked[i]->request->key.size);
        unsigned sent = answers(FLUE_SENT);
        end_writer();
        assert_int_equal(answers(FLUE_SENT), sent);
        assert_int_equal(answers(FLUE_SENT) + answers(FLUE_RETRY) + answers(FLUE_DROP), SENDS);
        assert_int_equal(answers(FLUE_DROP), 0);
        open_writer();
        for (unsigned i = SENDS; i-- > 0;) /* in another order */
            if (world.sends[i].kind != FLUE_SENT)
                send_one(i, 1);
        go(UINT_MAX);
        assert_int_equal(answers(FLUE_SENT), SENDS);
        assert_int_equal(samples_stored(), expected);
        if (key[0])
            assert_non_null(stored(flue_bytes_of(key)));
        end_writer();
        finish();
        if (done < steps)
            break;
    }
}

static void requests_may_end_between_any_two_events(void **state)
{
    for (unsigned steps = 0;; steps++) {
        begin(false);
        open_writer();
        world.refuse = 1;
        send_all();
        unsigned done = go(steps);
        end_writer();
        assert_int_equal(answers(FLUE_SENT) + answers(FLUE_RETRY), SENDS);
        finish();
        if (done < steps)
            break;
    }
}

static void starve(bool storage, long n, bool *fired)
{
    begin(storage);
    fault_arm(n, false);
    enum flue_code code = open_writer();
    if (code)
        assert_int_equal(open_writer(), FLUE_OK); /* memory is back */
    send_all();
    do { /* the engine sends again what was given back */
        for (unsigned i = 0; i < SENDS; i++)
            if (world.sends[i].answered && world.sends[i].kind != FLUE_SENT) {
                assert_int_equal(world.sends[i].kind, FLUE_RETRY);
                send_one(i, 0);
            }
    } while (step());
    *fired = fault_fired;
    fault_disarm();
    if (answers(FLUE_SENT) != SENDS)
        fail_msg("allocation %ld failed: %u are sent, %u given back, %u dropped", n,
                 answers(FLUE_SENT), answers(FLUE_RETRY), answers(FLUE_DROP));
    assert_int_equal(samples_stored(), expected);
    assert_int_equal(world.note_count, 0);
    end_writer();
    finish();
}

static void without_memory_it_is_done_later(bool storage, unsigned least)
{
    bool fired = true;
    long n = 0;
    for (; fired; n += 1 + n / 50)
        starve(storage, n, &fired);
    assert_true(n > least);
}

static void a_roll_up_survives_any_failed_allocation(void **state)
{
    without_memory_it_is_done_later(true, 100);
}

static void a_request_survives_any_failed_allocation(void **state)
{
    without_memory_it_is_done_later(false, 100);
}

/* Loops without a queue on disk are writers of their own, and no name that somebody may choose is
 * that of another's loop. */
static void loops_and_names_never_meet(void **state)
{
    begin(false);
    world.sends[1].send.batch->refs++; /* the same request on both loops */
    flue_batch_unref(world.sends[0].send.batch);
    world.sends[0].send.batch = world.sends[1].send.batch;
    open_writer();
    send_one(0, 0);
    send_one(1, 1);
    go(UINT_MAX);
    assert_int_equal(answers(FLUE_SENT), 2);
    assert_int_equal(world.object_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(world.objects[i].puts, 1);
        assert_non_null(strstr(world.objects[i].key, "node" FLUE_WRITER_LOOP));
    }
    end_writer();
    finish();
    static const char *const chosen[] = {"node~1", "node~0", "node.1", "node%7E1", "~", ""};
    for (size_t i = 0; i < sizeof chosen / sizeof chosen[0]; i++) {
        char element[FLUE_KEY_ELEMENT_ROOM];
        flue_key_element(flue_bytes_of(chosen[i]), element);
        assert_null(strstr(element, FLUE_WRITER_LOOP));
    }
}

/* With one, a single loop writes, whichever the engine chose, under the name alone. */
static void the_name_does_not_depend_on_the_loop(void **state)
{
    begin(true);
    open_writer();
    for (unsigned i = 0; i < SENDS; i++)
        send_one(i, 1);
    go(UINT_MAX);
    size_t found = 0;
    for (size_t i = 0; i < world.object_count; i++)
        found += strstr(world.objects[i].key, "/index/node.idx") != NULL;
    assert_int_equal(found, 1);
    end_writer();
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_become_one_object_after_their_cut_is_logged),
        cmocka_unit_test(it_may_end_between_any_two_events),
        cmocka_unit_test(requests_may_end_between_any_two_events),
        cmocka_unit_test(a_roll_up_survives_any_failed_allocation),
        cmocka_unit_test(a_request_survives_any_failed_allocation),
        cmocka_unit_test(loops_and_names_never_meet),
        cmocka_unit_test(the_name_does_not_depend_on_the_loop)};
    return cmocka_run_group_tests_name("writer", tests, NULL, NULL);
}
