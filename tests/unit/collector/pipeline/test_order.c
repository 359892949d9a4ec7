/* Exporters that send in order, from the queue on disk: whatever fails, is cut, cannot be read or
 * comes back after a kill, nothing begins before what is older. */
#include "fake_storage.h"

#define CUT      600u  /* samples of a part */
#define MOST     1000u /* samples that are taken in one piece */
#define REQUESTS 60u
#define HELD     2

static const struct flue_component ordered_component = {.kind = FLUE_EXPORTER,
                                                        .name = "fake",
                                                        .signals = FLUE_PROFILES,
                                                        .single_loop = true,
                                                        .in_order = true,
                                                        .send = fake_send};

/* What has begun, and the parts that must begin before anything else. The exporter's loop alone. */
static struct {
    uint64_t most; /* the youngest record that has begun */
    struct {
        uint64_t record, samples;
    } parts[64];
    unsigned part_count;
    struct flue_send *held[HELD];
    unsigned held_count;
    _Atomic(struct flue_loop *) loop;
    _Atomic unsigned begun, disorder;
    bool down;           /* every attempt fails */
    bool cut, await_cut; /* a late one fails until another has been cut */
} book;

static void expect_parts(const struct flue_send *send, uint64_t samples)
{
    unsigned at = 0, count = (unsigned)((samples + CUT - 1) / CUT);

    while (at < book.part_count && book.parts[at].record <= send->record)
        at++;
    memmove(&book.parts[at + count], &book.parts[at],
            (book.part_count - at) * sizeof book.parts[0]);
    for (unsigned i = 0; i < count; i++) {
        book.parts[at + i].record = send->record;
        book.parts[at + i].samples = samples < CUT ? samples : CUT;
        samples -= book.parts[at + i].samples;
    }
    book.part_count += count;
}

static void note_begin(const struct flue_send *send)
{
    uint64_t samples = fake_samples(send->batch->payload);

    if (book.part_count) {
        if (book.parts[0].record != send->record || book.parts[0].samples != samples)
            atomic_fetch_add(&book.disorder, 1);
        book.part_count--;
        memmove(&book.parts[0], &book.parts[1], book.part_count * sizeof book.parts[0]);
    } else {
        if (send->record <= book.most)
            atomic_fetch_add(&book.disorder, 1);
        book.most = send->record;
    }
    atomic_fetch_add(&book.begun, 1);
}

/* Large ones are cut, some fail once, the rest ends when others have begun. */
static void answer(struct fake *fake, struct flue_send *send)
{
    struct flue_verdict verdict = {.kind = FLUE_RETRY};
    uint64_t samples = fake_samples(send->batch->payload);

    atomic_store(&book.loop, send->loop);
    if (send->attempt == 0)
        note_begin(send);
    (void)flue_fail(&verdict.error, FLUE_UNAVAILABLE, "down");
    bool late = samples % 2 && (book.await_cut ? !book.cut : send->attempt == 0);
    if (!book.down && samples > MOST && !late) {
        expect_parts(send, samples);
        book.cut = true;
        verdict.kind = FLUE_SPLIT;
        verdict.split_max = CUT;
        flue_send_done(send, &verdict);
    } else if (book.down || (late && (samples > MOST || samples % 4 == 1))) {
        flue_send_done(send, &verdict);
    } else {
        send->state = fake;
        if (book.held_count < HELD) {
            book.held[book.held_count++] = send;
            return;
        }
        struct flue_send *first = book.held[0];
        book.held[0] = book.held[1];
        book.held[1] = send;
        first->state = NULL;
        fake_take(fake, first);
    }
}

static void let_go(struct flue_loop *loop, void *arg)
{
    struct fake *fake = arg;

    while (book.held_count) {
        struct flue_send *send = book.held[--book.held_count];
        send->state = NULL;
        fake_take(fake, send);
    }
}

static void life(struct graph *graph, struct flue_storage *log, struct request *requests,
                 const uint64_t *samples, unsigned count, int64_t places)
{
    durable_prepare(graph, log, 3, 1);
    graph->component = &ordered_component;
    graph->settings[0].sending_queue.num_consumers = places;
    graph->fakes[0].hook = answer;
    book.most = 0;
    book.part_count = 0;
    graph_build(graph, NULL, 0);
    for (unsigned i = 0; i < count; i++) {
        request_on(&requests[i], graph, i % 3, samples[i]);
        AWAIT(requests[i].answers == 1);
        assert_int_equal(requests[i].outcome.error.code, FLUE_OK);
    }
}

/* Until nothing is left. */
static void send_all(struct graph *graph)
{
    for (uint64_t end = flue_monotonic_ns() + 120000 * MS; lag_of(graph, 0).records;) {
        flue_loop_call(atomic_load(&book.loop), let_go, &graph->fakes[0]);
        if (flue_monotonic_ns() > end)
            fail_msg("%llu records are left", (unsigned long long)lag_of(graph, 0).records);
        nanosleep(&(struct timespec){0, 200000}, NULL);
    }
    AWAIT(state_of(graph, 0).in_flight.samples == 0);
    assert_int_equal(book.disorder, 0);
    assert_int_equal(book.part_count, 0);
    assert_int_equal(state_of(graph, 0).dropped.samples, 0);
    assert_balance(graph);
}

/* The first fails, the second is cut meanwhile and waits for places, then the first is cut. */
static void parts_of_the_older_go_first(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[2];

    memset(requests, 0, sizeof requests);
    memset(&book, 0, sizeof book);
    book.await_cut = true;
    life(&graph, log, requests, (const uint64_t[]){2001, 2002}, 2, 2);
    AWAIT(book.begun == 4); /* both, and as many parts as there are places, which are held */
    send_all(&graph);
    assert_int_equal(book.begun, 10);
    graph_destroy(&graph);
    log_destroy(log);
}

/* Three loops receive, four are sent at a time; a life in which nothing is taken, a kill, and one
 * whose disk fails at the oldest while new requests come. */
static void nothing_begins_before_what_is_older(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[REQUESTS];
    uint64_t samples[REQUESTS];

    memset(requests, 0, sizeof requests);
    memset(&book, 0, sizeof book);
    for (unsigned i = 0; i < REQUESTS; i++)
        samples[i] = i % 7 == 3 || i % 7 == 4 ? 2000 + i : 10 + i;
    book.down = true;
    life(&graph, log, requests, samples, REQUESTS / 2, 4);
    AWAIT(book.begun >= 4);
    assert_int_equal(lag_of(&graph, 0).records, REQUESTS / 2);
    durable_kill(&graph);
    assert_int_equal(book.disorder, 0);

    book.down = false;
    atomic_store(&book.begun, 0);
    atomic_store(&log->fail_reads, 1);
    life(&graph, log, requests + REQUESTS / 2, samples + REQUESTS / 2, REQUESTS / 2, 4);
    AWAIT(book.begun > 0);
    send_all(&graph);
    assert_true(book.begun > REQUESTS);
    graph_destroy(&graph);
    log_destroy(log);
}

static void note_record(struct fake *fake, struct flue_send *send)
{
    if (send->attempt == 0) {
        if (send->record < book.most)
            atomic_fetch_add(&book.disorder, 1);
        book.most = send->record;
    }
    fake_take(fake, send);
}

/* Joined requests too: who shares no batch with those that wait sends them off. Recovered ones,
 * which are joined apart from new ones, stay in front. */
static void joined_requests_keep_their_order(void **state)
{
    static const char *const tenants[] = {"a", "b", "a", "a", "b"};
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[REQUESTS];
    struct flue_batcher_config batch = {
        .flush_timeout = 20 * (int64_t)MS, .min_size = 40, .max_size = 64};

    memset(requests, 0, sizeof requests);
    memset(&book, 0, sizeof book);
    for (unsigned part = 0; part < 2; part++) {
        durable_prepare(&graph, log, 2, 1);
        graph.component = &ordered_component;
        graph.settings[0].sending_queue.batch = &batch;
        graph.settings[0].sending_queue.num_consumers = 2;
        graph.fakes[0].hook = note_record;
        if (part == 0)
            atomic_store(&log->fail_reads, -1); /* all stay for the next life */
        book.most = 0;
        graph_build(&graph, NULL, 0);
        for (unsigned i = part * REQUESTS / 2; i < (part + 1) * REQUESTS / 2; i++) {
            struct flue_origin origin = {.tenant = flue_bytes_of(tenants[i % 5])};
            requests[i].origin = flue_origin_new(&origin);
            request_on(&requests[i], &graph, i % 2, 5 + i);
            AWAIT(requests[i].answers == 1);
            flue_origin_unref(requests[i].origin);
        }
        if (part == 0) {
            durable_kill(&graph);
            atomic_store(&log->fail_reads, 0);
        }
    }
    AWAIT(lag_of(&graph, 0).records == 0);
    assert_int_equal(book.disorder, 0);
    assert_int_equal(graph.fakes[0].samples, 5 * REQUESTS + REQUESTS * (REQUESTS - 1) / 2);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

/* A half of what is refused would come behind what is younger: it is refused as a whole. */
static void what_is_refused_is_not_cut(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request request = {0};

    durable_prepare(&graph, log, 1, 1);
    graph.component = &ordered_component;
    atomic_store(&graph.fakes[0].mode, FAKE_DROP);
    graph_build(&graph, NULL, 0);
    request_on(&request, &graph, 0, 8);
    AWAIT(lag_of(&graph, 0).records == 0 && state_of(&graph, 0).dropped.samples == 8);
    assert_int_equal(graph.fakes[0].attempts, 1);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_begins_before_what_is_older),
        cmocka_unit_test(parts_of_the_older_go_first),
        cmocka_unit_test(joined_requests_keep_their_order),
        cmocka_unit_test(what_is_refused_is_not_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
