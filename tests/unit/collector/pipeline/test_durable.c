/* Queues on disk: what is acknowledged, what survives, what a disk that fails does. */
#include "fake_storage.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void answers_after_the_disk_has_it(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request request = {0};

    durable_prepare(&graph, log, 1, 2);
    graph_build(&graph, NULL, 0);
    atomic_store(&log->hold, true);
    request_on(&request, &graph, 0, 5);
    AWAIT(log->held_count == 1);
    assert_int_equal(request.answers, 0);
    assert_int_equal(graph.fakes[0].attempts, 0);
    assert_int_equal(log->held[0]->queue_count, 2); /* one record for both */
    log_release(log);
    AWAIT(request.answers == 1);
    assert_int_equal(request.outcome.error.code, FLUE_OK);
    AWAIT(state_of(&graph, 0).sent.samples == 5 && state_of(&graph, 1).sent.samples == 5);
    AWAIT(lag_of(&graph, 0).records == 0 && lag_of(&graph, 1).records == 0);
    assert_int_equal(log->appends, 1);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

static void a_disk_that_fails_refuses(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[2] = {{0}, {0}};

    durable_prepare(&graph, log, 1, 1);
    graph_build(&graph, NULL, 0);
    atomic_store(&log->fail_appends, 1);
    request_on(&requests[0], &graph, 0, 5);
    AWAIT(requests[0].answers == 1);
    assert_int_equal(requests[0].outcome.error.code, FLUE_UNAVAILABLE);
    assert_non_null(strstr(requests[0].outcome.error.text, "no space left"));
    assert_non_null(strstr(requests[0].outcome.error.text, "fake/a"));
    assert_int_equal(state_of(&graph, 0).received.samples, 0);
    request_on(&requests[1], &graph, 0, 7);
    AWAIT(state_of(&graph, 0).sent.samples == 7);
    assert_int_equal(graph.fakes[0].taken, 1);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

static void a_disk_that_hangs_refuses_at_the_deadline(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request request = {0};

    durable_prepare(&graph, log, 1, 1);
    graph_build(&graph, NULL, 0);
    atomic_store(&log->hold, true);
    request.deadline_ns = flue_monotonic_ns() + 20 * MS;
    request_on(&request, &graph, 0, 5);
    AWAIT(request.answers == 1);
    assert_int_equal(request.outcome.error.code, FLUE_TIMEOUT);
    log_release(log);
    AWAIT(log->finished == 1); /* nobody was told that it was taken */
    assert_int_equal(graph.fakes[0].attempts, 0);
    assert_int_equal(request.answers, 1);
    assert_int_equal(lag_of(&graph, 0).records, 0);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

static void what_was_not_sent_is_sent_after_a_restart(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[20];
    struct flue_origin origin = {.received_ns = 1700000000000000000,
                                 .tenant = FLUE_BYTES_INIT("team-a"),
                                 .peer = FLUE_BYTES_INIT("10.0.0.1:5")};
    struct flue_origin *shared = flue_origin_new(&origin);

    memset(requests, 0, sizeof requests);
    durable_prepare(&graph, log, 2, 2);
    graph_build(&graph, NULL, 0);
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, -1);
    for (int i = 0; i < 20; i++) {
        requests[i].origin = shared;
        request_on(&requests[i], &graph, (unsigned)i % 2, 3);
    }
    for (int i = 0; i < 20; i++)
        AWAIT(requests[i].answers == 1);
    AWAIT(state_of(&graph, 1).sent.samples == 60);
    assert_int_equal(lag_of(&graph, 0).records, 20);
    durable_kill(&graph);
    flue_origin_unref(shared);

    durable_prepare(&graph, log, 2, 2);
    atomic_store(&graph.fakes[0].mode, FAKE_OK);
    graph_build(&graph, NULL, 0);
    assert_int_equal(state_of(&graph, 0).recovered.samples, 60);
    assert_int_equal(state_of(&graph, 0).recovered.profiles, 40);
    assert_int_equal(state_of(&graph, 1).recovered.samples, 0);
    AWAIT(state_of(&graph, 0).sent.samples == 60);
    AWAIT(lag_of(&graph, 0).records == 0);
    assert_int_equal(graph.fakes[0].samples, 60);
    assert_int_equal(graph.fakes[1].attempts, 0);
    assert_balance(&graph);
    assert_int_equal(metric_value(&graph, "otelcol_exporter_recovered_samples_total{exporter="
                                          "\"fake/a\",pipeline=\"recovered\"} "),
                     60);
    graph_destroy(&graph);
    log_destroy(log);
}

static struct flue_send *seen;
static _Atomic uint64_t seen_record, seen_time;
static char seen_tenant[16];

static void look(struct fake *fake, struct flue_send *send)
{
    const struct flue_origin *origin = send->batch->origin;
    (void)snprintf(seen_tenant, sizeof seen_tenant, "%.*s", FLUE_PRI(origin->tenant));
    atomic_store(&seen_time, origin->received_ns);
    atomic_store(&seen_record, send->record);
    fake_take(fake, send);
}

static void the_origin_and_id_are_the_same_after_a_restart(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request request = {0};
    struct flue_attribute header = {FLUE_BYTES("x-team"), {.type = FLUE_VALUE_STRING}};
    header.value.text = FLUE_BYTES("blue");
    struct flue_origin origin = {.received_ns = 1700000000000000001,
                                 .tenant = FLUE_BYTES_INIT("team-a"),
                                 .headers = &header,
                                 .header_count = 1};

    request.origin = flue_origin_new(&origin);
    durable_prepare(&graph, log, 1, 1);
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    graph_build(&graph, NULL, 0);
    request_on(&request, &graph, 0, 3);
    AWAIT(graph.fakes[0].held_count == 1);
    uint64_t record = graph.fakes[0].held[0]->record;
    assert_true(record > 0);
    durable_kill(&graph);
    flue_origin_unref(request.origin);

    durable_prepare(&graph, log, 1, 1);
    graph.fakes[0].hook = look;
    graph_build(&graph, NULL, 0);
    AWAIT(seen_record == record);
    assert_int_equal(seen_time, 1700000000000000001);
    assert_string_equal(seen_tenant, "team-a");
    AWAIT(lag_of(&graph, 0).records == 0);
    graph_destroy(&graph);
    log_destroy(log);
}

static void the_limit_counts_what_is_on_disk(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[8];

    for (int sizer = 0; sizer < 2; sizer++) {
        memset(requests, 0, sizeof requests);
        durable_prepare(&graph, log, 1, 2);
        graph.settings[0].sending_queue.sizer = sizer;
        graph.settings[0].sending_queue.queue_size = sizer == FLUE_SIZER_ITEMS ? 30 : 6;
        atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
        graph_build(&graph, NULL, 0);
        for (int i = 0; i < 8; i++) {
            request_on(&requests[i], &graph, 0, 5);
            AWAIT(requests[i].answers == 1);
            assert_int_equal(requests[i].outcome.error.code, i < 6 ? FLUE_OK : FLUE_OVERLOADED);
        }
        release_held(&graph, 0, 0);
        AWAIT(lag_of(&graph, 0).records == 5);
        requests[7].answers = 0;
        request_on(&requests[7], &graph, 0, 5);
        AWAIT(requests[7].answers == 1);
        assert_int_equal(requests[7].outcome.error.code, FLUE_OK);
        assert_balance(&graph);
        for (int i = 1; i < 7; i++) {
            AWAIT(graph.fakes[0].held_count > i);
            release_held(&graph, 0, i);
        }
        AWAIT(state_of(&graph, 0).sent.samples == 35);
        graph_destroy(&graph);
    }
    log_destroy(log);
}

static void overflow_drops_the_oldest_of_one_exporter(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[8];

    memset(requests, 0, sizeof requests);
    durable_prepare(&graph, log, 1, 2);
    graph.settings[0].sending_queue.queue_size = 4;
    graph.settings[0].sending_queue.num_consumers = 1;
    graph.settings[0].sending_queue.on_overflow = FLUE_OVERFLOW_DROP;
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < 8; i++) {
        request_on(&requests[i], &graph, 0, i + 1);
        AWAIT(requests[i].answers == 1);
        assert_int_equal(requests[i].outcome.error.code, FLUE_OK);
    }
    AWAIT(state_of(&graph, 1).sent.samples == 36);
    assert_int_equal(state_of(&graph, 1).dropped.samples, 0);
    assert_int_equal(lag_of(&graph, 0).records, 4);
    /* The first is in flight; 2, 3, 4, 5 went. */
    assert_int_equal(state_of(&graph, 0).dropped.samples, 2 + 3 + 4 + 5);
    assert_balance(&graph);
    for (int i = 0; i < 4; i++) {
        AWAIT(graph.fakes[0].held_count > i);
        release_held(&graph, 0, i);
    }
    AWAIT(state_of(&graph, 0).sent.samples == 1 + 6 + 7 + 8);
    graph_destroy(&graph);
    log_destroy(log);
}

static _Atomic int sent_order[64], sent_count;
static void note_order(struct fake *fake, struct flue_send *send)
{
    if (atomic_load(&fake->mode) == FAKE_HOLD) {
        send->state = fake;
        send->cancel = fake_cancel;
        fake->held[atomic_fetch_add(&fake->held_count, 1)] = send;
        return;
    }
    atomic_store(&sent_order[atomic_load(&sent_count)], (int)fake_samples(send->batch->payload));
    atomic_fetch_add(&sent_count, 1);
    fake_take(fake, send);
}

/* Memory for three: the others wait on disk alone, and the newest go first. */
static void memory_is_bounded_and_the_newest_go_first(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[12];

    memset(requests, 0, sizeof requests);
    atomic_store(&sent_count, 0);
    durable_prepare(&graph, log, 1, 1);
    graph.settings[0].sending_queue.max_bytes = 4096;
    graph.settings[0].sending_queue.num_consumers = 1;
    graph.fakes[0].hook = note_order;
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < 12; i++) {
        request_on(&requests[i], &graph, 0, 120 + i);
        AWAIT(requests[i].answers == 1);
        assert_int_equal(requests[i].outcome.error.code, FLUE_OK);
        assert_true(metric_value(&graph, "otelcol_exporter_queue_held_bytes{data_type=\"profiles\","
                                         "exporter=\"fake/a\"} ") <= 4096);
    }
    assert_true(fake_alive <= 3);
    assert_int_equal(lag_of(&graph, 0).records, 12);
    atomic_store(&graph.fakes[0].mode, FAKE_OK);
    release_held(&graph, 0, 0);
    AWAIT(lag_of(&graph, 0).records == 0);
    for (int i = 0; i < 11; i++)
        assert_int_equal(sent_order[i], 131 - i);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

static void a_disk_that_cannot_be_read_is_asked_again(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[2] = {{0}, {0}};

    durable_prepare(&graph, log, 1, 1);
    atomic_store(&graph.fakes[0].mode, FAKE_HOLD);
    graph_build(&graph, NULL, 0);
    request_on(&requests[0], &graph, 0, 3);
    request_on(&requests[1], &graph, 0, 4);
    AWAIT(requests[1].answers == 1 && requests[0].answers == 1);
    durable_kill(&graph);

    durable_prepare(&graph, log, 1, 1);
    atomic_store(&log->fail_reads, 1);
    atomic_store(&log->damaged, 1);
    graph_build(&graph, NULL, 0);
    AWAIT(state_of(&graph, 0).sent.samples + state_of(&graph, 0).dropped.samples == 7);
    assert_true(state_of(&graph, 0).dropped.samples == 3 ||
                state_of(&graph, 0).dropped.samples == 4);
    AWAIT(lag_of(&graph, 0).records == 0);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

static void a_drain_leaves_the_rest_on_disk(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[30];

    memset(requests, 0, sizeof requests);
    durable_prepare(&graph, log, 2, 1);
    graph.settings[0].sending_queue.num_consumers = 2;
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, -1);
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < 30; i++)
        request_on(&requests[i], &graph, i % 2, 2);
    for (unsigned i = 0; i < 30; i++)
        AWAIT(requests[i].answers == 1);
    flue_exporter_stop(graph.exporters[0], flue_monotonic_ns() + 50 * MS);
    AWAIT(flue_exporter_stopped(graph.exporters[0]));
    struct flue_exporter_state s = state_of(&graph, 0);
    assert_true(s.durable);
    assert_int_equal(s.queued.samples, 60);
    assert_int_equal(s.dropped.samples, 0);
    assert_int_equal(s.lost_items, 0);
    assert_int_equal(lag_of(&graph, 0).records, 30);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

/* 5 of 12 profiles' worth: refuses whatever holds the sample count given in split_max. */
static void poison(struct fake *fake, struct flue_send *send)
{
    struct flue_verdict verdict = {.kind = FLUE_DROP};
    uint64_t record = send->record;

    assert_true(record > 0);
    if (send->batch->counts.profiles > 1 || atomic_exchange(&fake->running_max, 1) == 0) {
        (void)flue_fail(&verdict.error, FLUE_REFUSED, "one of them is bad");
        flue_send_done(send, &verdict);
        return;
    }
    fake_take(fake, send);
}

static int letters_in(const char *folder, char *first)
{
    DIR *dir = opendir(folder);
    int count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!strstr(entry->d_name, ".json"))
            continue;
        count++;
        (void)snprintf(first, 400, "%s/%s", folder, entry->d_name);
    }
    if (dir)
        (void)closedir(dir);
    return count;
}

static void remove_letters(const char *folder)
{
    char path[400];
    struct dirent *entry;
    DIR *dir = opendir(folder);

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.') {
            (void)snprintf(path, sizeof path, "%s/%.80s", folder, entry->d_name);
            (void)unlink(path);
        }
    if (dir)
        (void)closedir(dir);
    (void)rmdir(folder);
}

static void a_poison_piece_is_set_aside_and_the_rest_goes_on(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request request = {0};
    char folder[64] = "/tmp/flue-letters-XXXXXX", letter[400] = "", text[2048] = "";

    assert_non_null(mkdtemp(folder));
    (void)snprintf(letter, sizeof letter, "%s/dead-letter", folder);
    char *letters = strdup(letter);
    durable_prepare(&graph, log, 1, 1);
    graph.dead_letters = letters;
    graph.fakes[0].hook = poison;
    graph_build(&graph, NULL, 0);
    request_on(&request, &graph, 0, 8); /* two profiles */
    AWAIT(request.answers == 1);
    AWAIT(lag_of(&graph, 0).records == 0);
    assert_int_equal(state_of(&graph, 0).sent.samples, 4);
    assert_int_equal(state_of(&graph, 0).dropped.samples, 4);
    AWAIT(letters_in(letters, letter) == 1);
    FILE *file = fopen(letter, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    (void)fclose(file);
    assert_non_null(strstr(text, "\"exporter\":\"fake/a\""));
    assert_non_null(strstr(text, "\"pipeline\":\"profiles\""));
    assert_non_null(strstr(text, "\"reason\":\"refused\""));
    assert_non_null(strstr(text, "\"error\":\"one of them is bad\""));
    assert_int_equal(
        metric_value(&graph, "otelcol_exporter_dead_letters_total{exporter=\"fake/a\"} "), 1);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
    remove_letters(letters);
    (void)rmdir(folder);
    free(letters);
}

static void refuse_all(struct fake *fake, struct flue_send *send)
{
    struct flue_verdict verdict = {.kind = FLUE_DROP};
    (void)flue_fail(&verdict.error, FLUE_INVALID, "no");
    flue_send_done(send, &verdict);
}

static char own_letters[64];
static _Atomic int letters_at_finish;
static void count_letters(void)
{
    char name[400];
    atomic_store(&letters_at_finish, letters_in(own_letters, name));
}

static void refuse_parked(struct fake *fake, struct flue_send *send)
{
    flue_send_park(send);
    assert_null(send->batch);
    refuse_all(fake, send);
}

static void reject_all(struct fake *fake, struct flue_send *send)
{
    struct flue_verdict verdict = {.kind = FLUE_SENT, .rejected = send->batch->counts};
    (void)flue_fail(&verdict.error, FLUE_REFUSED, "none of it");
    flue_send_done(send, &verdict);
}

static off_t size_of_data(const char *letter)
{
    char path[400];
    struct stat facts = {0};
    (void)snprintf(path, sizeof path, "%.*s.otlp", (int)strlen(letter) - 5, letter);
    return stat(path, &facts) == 0 ? facts.st_size : -1;
}

/* Before the record is finished, also of what is parked or refused by a partial success; a kill in
 * between writes the same letter again. */
static void a_letter_is_written_before_its_record_is_finished(void **state)
{
    void (*const hooks[])(struct fake * fake, struct flue_send * send) = {refuse_all, refuse_parked,
                                                                          reject_all};
    struct graph graph;
    char root[64] = "/tmp/flue-letters-XXXXXX", letter[400];

    assert_non_null(mkdtemp(root));
    (void)snprintf(own_letters, sizeof own_letters, "%.40s/letters", root);
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        struct flue_storage *log = log_new();
        struct request request = {0};
        log->finishing = count_letters;
        for (int life = 0; life < 2; life++) {
            durable_prepare(&graph, log, 2, 1);
            graph.dead_letters = own_letters;
            graph.fakes[0].hook = hooks[i];
            atomic_store(&log->forgets, life == 0);
            atomic_store(&letters_at_finish, 0);
            graph_build(&graph, NULL, 0);
            if (life == 0) {
                request_on(&request, &graph, 1, 1);
                AWAIT(request.answers == 1);
                AWAIT(log->finished == 1);
            } else {
                assert_int_equal(state_of(&graph, 0).recovered.samples, 1);
                AWAIT(lag_of(&graph, 0).records == 0);
            }
            assert_int_equal(letters_at_finish, 1);
            assert_int_equal(state_of(&graph, 0).dropped.samples, 1);
            assert_balance(&graph);
            if (life == 0) {
                durable_kill(&graph);
            } else {
                flue_exporter_stop(graph.exporters[0], flue_monotonic_ns() + 1000 * MS);
                AWAIT(flue_exporter_stopped(graph.exporters[0]));
                graph_destroy(&graph);
            }
        }
        assert_int_equal(letters_in(own_letters, letter), 1);
        assert_true(size_of_data(letter) > 0);
        remove_letters(own_letters);
        log_destroy(log);
    }
    (void)rmdir(root);
}

#define FAILURES "otelcol_exporter_dead_letter_failures_total{exporter=\"fake/a\"} "
#define HELD     "otelcol_exporter_queue_held_bytes{data_type=\"profiles\",exporter=\"fake/a\"} "

/* Where the folder should be there is a file: nothing of what was acknowledged is lost by that,
 * neither a whole record nor parts of one, whether it is mended soon or after the next start. */
static void what_cannot_be_set_aside_stays_owed(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[4];
    char root[64] = "/tmp/flue-letters-XXXXXX", letter[400];

    memset(requests, 0, sizeof requests);
    assert_non_null(mkdtemp(root));
    (void)snprintf(own_letters, sizeof own_letters, "%.40s/letters", root);
    for (unsigned life = 0; life < 3; life++) {
        uint64_t there = life == 2 ? 10 : 0;
        durable_prepare(&graph, log, 2, 1);
        graph.dead_letters = own_letters;
        graph.fakes[0].hook = refuse_all;
        if (life < 2)
            (void)fclose(fopen(own_letters, "w"));
        graph_build(&graph, NULL, 0);
        assert_int_equal(state_of(&graph, 0).recovered.samples, there);
        if (life < 2) {
            request_on(&requests[2 * life], &graph, 0, 9);
            request_on(&requests[2 * life + 1], &graph, 1, 1);
            AWAIT(requests[2 * life].answers == 1 && requests[2 * life + 1].answers == 1);
            AWAIT(state_of(&graph, 0).in_flight.samples == 0 && graph.fakes[0].attempts == 4 &&
                  metric_value(&graph, FAILURES) >= 1);
            assert_int_equal(lag_of(&graph, 0).records, 2);
            assert_int_equal(state_of(&graph, 0).queued.samples, 10);
            assert_int_equal(state_of(&graph, 0).dropped.samples, 0);
            assert_true(metric_value(&graph, HELD) > 0);
            assert_balance(&graph);
        }
        if (life == 0)
            (void)unlink(own_letters);
        if (life != 1) {
            AWAIT(lag_of(&graph, 0).records == 0);
            assert_int_equal(state_of(&graph, 0).dropped.samples, 10);
            assert_int_equal(letters_in(own_letters, letter), 3);
            assert_int_equal(metric_value(&graph, HELD), 0);
        }
        flue_exporter_stop(graph.exporters[0], flue_monotonic_ns() + 60000 * MS);
        AWAIT(flue_exporter_stopped(graph.exporters[0]));
        assert_int_equal(lag_of(&graph, 0).records, life == 1 ? 2 : 0);
        assert_balance(&graph);
        durable_kill(&graph);
        if (life == 1)
            (void)unlink(own_letters);
        else
            remove_letters(own_letters);
    }
    log_destroy(log);
    (void)rmdir(root);
}

static void the_search_for_poison_ends(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request request = {0};

    durable_prepare(&graph, log, 1, 1);
    graph.fakes[0].hook = refuse_all;
    graph_build(&graph, NULL, 0);
    request_on(&request, &graph, 0, 100000);
    AWAIT(request.answers == 1);
    AWAIT(lag_of(&graph, 0).records == 0);
    assert_int_equal(state_of(&graph, 0).dropped.samples, 100000);
    assert_true(graph.fakes[0].attempts <= 200);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

static void joined_requests_finish_all_their_records(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[10];
    struct flue_batcher_config batch = {
        .flush_timeout = 10 * (int64_t)MS, .min_size = 10, .max_size = 16};

    memset(requests, 0, sizeof requests);
    durable_prepare(&graph, log, 1, 1);
    graph.settings[0].sending_queue.batch = &batch;
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, 3);
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < 10; i++)
        request_on(&requests[i], &graph, 0, 3 + 4 * i);
    AWAIT(lag_of(&graph, 0).records == 0);
    assert_int_equal(graph.fakes[0].samples, 210);
    assert_int_equal(log->finished, 10);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

static _Atomic int loaded_code;
static void told(struct flue_send *send, enum flue_code code, const struct flue_error *error)
{
    atomic_store(&loaded_code, (int)code);
    fake_take(seen->state, send);
}
static void gather(struct fake *fake, struct flue_send *send)
{
    atomic_store(&fake->first_at, (int)send->loop->index);
    flue_send_park(send);
    assert_null(send->batch);
    send->state = fake;
    seen = send;
    atomic_fetch_add(&fake->held_count, 1);
    flue_send_load(send, told);
}

static const struct flue_component gathering_component = {.kind = FLUE_EXPORTER,
                                                          .name = "fake",
                                                          .signals = FLUE_PROFILES,
                                                          .single_loop = true,
                                                          .send = fake_send};

static void a_gathering_exporter_has_one_loop_and_gives_its_memory_back(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[9];

    memset(requests, 0, sizeof requests);
    durable_prepare(&graph, log, 3, 1);
    graph.component = &gathering_component;
    graph.fakes[0].hook = gather;
    graph_build(&graph, NULL, 0);
    int home = -1;
    for (unsigned i = 0; i < 9; i++) {
        request_on(&requests[i], &graph, i % 3, 2);
        AWAIT(state_of(&graph, 0).sent.samples == 2 * (i + 1));
        assert_int_equal(loaded_code, FLUE_OK);
        assert_true(home < 0 || home == graph.fakes[0].first_at);
        home = graph.fakes[0].first_at;
    }
    AWAIT(lag_of(&graph, 0).records == 0);
    assert_int_equal(metric_value(&graph,
                                  "otelcol_exporter_queue_held_bytes{data_type=\"profiles\","
                                  "exporter=\"fake/a\"} "),
                     0);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

/* An hour without the destination, in simulated time: what is there is probed, not hammered, and
 * nothing is lost. */
static void an_hour_without_the_destination(void **state)
{
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request requests[40];

    memset(requests, 0, sizeof requests);
    durable_prepare(&graph, log, 1, 2);
    graph.settings[0].retry_on_failure.initial_interval = 5000 * (int64_t)MS;
    graph.settings[0].retry_on_failure.max_interval = 30000 * (int64_t)MS;
    atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
    atomic_store(&graph.fakes[0].retries_then_ok, -1);
    graph_build(&graph, NULL, 0);
    for (unsigned i = 0; i < 40; i++)
        request_on(&requests[i], &graph, 0, 2);
    AWAIT(state_of(&graph, 1).sent.samples == 80); /* the other does not notice */
    AWAIT(graph.fakes[0].attempts >= 5);
    for (int minute = 0; minute < 120; minute++) {
        int before = graph.fakes[0].attempts;
        struct request late = {0};
        flue_clock_move(30000 * (int64_t)MS);
        request_on(&late, &graph, 0, 1); /* the loop looks at its clock */
        AWAIT(late.answers == 1);
        assert_int_equal(late.outcome.error.code, FLUE_OK);
        (void)before;
    }
    assert_int_equal(state_of(&graph, 0).dropped.samples, 0);
    assert_int_equal(lag_of(&graph, 0).records, 160);
    assert_true(graph.fakes[0].attempts < 10 + 5 + 240);
    assert_int_equal(metric_value(&graph, "otelcol_exporter_circuit_opened_total{exporter="
                                          "\"fake/a\"} "),
                     1);
    atomic_store(&graph.fakes[0].mode, FAKE_OK);
    for (int i = 0; i < 20 && lag_of(&graph, 0).records; i++) {
        flue_clock_move(40000 * (int64_t)MS);
        struct request late = {0};
        request_on(&late, &graph, 0, 1);
        AWAIT(late.answers == 1);
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    AWAIT(lag_of(&graph, 0).records == 0);
    AWAIT(state_of(&graph, 0).queued.samples + state_of(&graph, 0).in_flight.samples == 0);
    assert_int_equal(state_of(&graph, 0).dropped.samples, 0);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

#define DAY INT64_C(86400000000000)

/* Somebody sets the clock, far back and far ahead, while a destination is away, while it is there
 * and between two lives: waits are by the other clock, and nothing is dropped for its age. */
static void the_wall_clock_jumps(void **state)
{
    static const int64_t jumps[] = {-DAY, 30 * DAY, -3650 * DAY, 3621 * DAY};
    struct flue_storage *log = log_new();
    struct graph graph;
    struct request request;
    uint64_t samples = 0;

    for (size_t life = 0; life < 2; life++) {
        durable_prepare(&graph, log, 2, 1);
        graph.settings[0].retry_on_failure.initial_interval = 5 * (int64_t)MS;
        graph.settings[0].retry_on_failure.max_interval = 20 * (int64_t)MS;
        atomic_store(&graph.fakes[0].mode, FAKE_RETRY);
        atomic_store(&graph.fakes[0].retries_then_ok, -1);
        graph_build(&graph, NULL, 0);
        for (size_t i = 0; i < sizeof jumps / sizeof *jumps; i++) {
            int attempts = graph.fakes[0].attempts;
            memset(&request, 0, sizeof request);
            request_on(&request, &graph, (unsigned)i % 2, 3);
            samples += 3;
            AWAIT(request.answers == 1);
            assert_int_equal(request.outcome.error.code, FLUE_OK);
            flue_clock_move_wall(jumps[i]);
            AWAIT(graph.fakes[0].attempts > attempts + 2); /* it goes on knocking */
            assert_int_equal(state_of(&graph, 0).dropped.samples, 0);
            assert_int_equal(lag_of(&graph, 0).counts.samples, samples);
        }
        if (life == 0) {
            durable_kill(&graph);
            flue_clock_move_wall(-7 * DAY);
        }
    }
    assert_int_equal(state_of(&graph, 0).recovered.samples, samples / 2);
    atomic_store(&graph.fakes[0].mode, FAKE_OK);
    flue_clock_move_wall(7 * DAY);
    AWAIT(lag_of(&graph, 0).records == 0);
    AWAIT(state_of(&graph, 0).sent.samples == samples);
    assert_int_equal(state_of(&graph, 0).dropped.samples, 0);
    assert_balance(&graph);
    graph_destroy(&graph);
    log_destroy(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_after_the_disk_has_it),
        cmocka_unit_test(a_disk_that_fails_refuses),
        cmocka_unit_test(a_disk_that_hangs_refuses_at_the_deadline),
        cmocka_unit_test(what_was_not_sent_is_sent_after_a_restart),
        cmocka_unit_test(the_origin_and_id_are_the_same_after_a_restart),
        cmocka_unit_test(the_limit_counts_what_is_on_disk),
        cmocka_unit_test(overflow_drops_the_oldest_of_one_exporter),
        cmocka_unit_test(memory_is_bounded_and_the_newest_go_first),
        cmocka_unit_test(a_disk_that_cannot_be_read_is_asked_again),
        cmocka_unit_test(a_drain_leaves_the_rest_on_disk),
        cmocka_unit_test(a_poison_piece_is_set_aside_and_the_rest_goes_on),
        cmocka_unit_test(a_letter_is_written_before_its_record_is_finished),
        cmocka_unit_test(what_cannot_be_set_aside_stays_owed),
        cmocka_unit_test(the_search_for_poison_ends),
        cmocka_unit_test(joined_requests_finish_all_their_records),
        cmocka_unit_test(a_gathering_exporter_has_one_loop_and_gives_its_memory_back),
        cmocka_unit_test(an_hour_without_the_destination),
        cmocka_unit_test(the_wall_clock_jumps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
