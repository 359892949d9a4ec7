/* The receiver behind a real listener: every recorded upload of Pyroscope's clients, and every
 * answer that Pyroscope gives, by status and body. */
#include "served.h"

#include "collector/base/codec.h"
#include "proto/wire/writer.h"
#include "pprof.pb-c.h"

extern const struct flue_component flue_receiver_pyroscope;

#define INGEST(query) "POST /ingest?" query " HTTP/1.1\r\nHost: x"
#define PUSH          "POST /push.v1.PusherService/Push HTTP/1.1\r\nHost: x"

static int start_all(void **state)
{
    serve(&flue_receiver_pyroscope,
          "pyroscope: {endpoint: \"127.0.0.1:0\", max_request_body_size: 300000}", "127.0.0.1:0");
    return 0;
}

static int stop_all(void **state)
{
    unserve();
    return 0;
}

static struct answer replay(const char *name)
{
    char file[200];
    snprintf(file, sizeof file, "%s.body", name);
    char *head = recorded_head(name);
    struct flue_block *body = recorded_body(file);
    struct answer answer = ask(head, flue_block_bytes(body));
    flue_block_unref(body);
    free(head);
    return answer;
}

static void expect(struct answer answer, unsigned status, const char *part)
{
    if (answer.status != status || (part && !strstr(answer.text + answer.body, part)))
        fail_msg("wanted %u \"%s\", got %s", status, part ? part : "", answer.text);
}

static void has_label(const char *label)
{
    if (!strstr(sink.labels, label))
        fail_msg("no %s in\n%s", label, sink.labels);
}

/* ---- recorded clients ----------------------------------------------------------------------- */

static void go_uploads(void **state)
{
    static const struct {
        const char *capture, *name, *scope;
    } rows[] = {
        {"pyroscope-go/cpu-spans", "__name__=process_cpu\n", "com.grafana.pyroscope/go\n"},
        {"pyroscope-go/memory", "__name__=memory\n", "com.grafana.pyroscope/godeltaprof\n"},
        {"pyroscope-go/mutex", "__name__=mutex\n", "com.grafana.pyroscope/godeltaprof\n"},
        {"pyroscope-go/block", "__name__=block\n", "com.grafana.pyroscope/godeltaprof\n"},
        {"pyroscope-go/goroutines", "__name__=goroutines\n", "com.grafana.pyroscope/go\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sink_reset(SINK_TAKES);
        struct answer answer = replay(rows[i].capture);
        expect(answer, 200, NULL);
        assert_string_equal(answer.text + answer.body, "");
        assert_int_equal(sink.batches, 1);
        assert_int_equal(sink.counts.profiles, 1);
        assert_int_equal(sink.counts.samples, sink.facts.samples);
        assert_string_equal(sink.tenant, "team-video");
        assert_string_equal(sink.transport, "http");
        has_label(rows[i].name);
        has_label(rows[i].scope);
        has_label("__delta__=false\n");
        has_label("__session_id__=77e425ea48b3919f\n");
        has_label("pyroscope_spy=gospy\n");
        has_label("service_name=encoder\n");
        has_label("region=eu-west\n");
        /* byte for byte */
        char file[100];
        snprintf(file, sizeof file, "%s.body", rows[i].capture);
        struct flue_block *body = recorded_body(file);
        assert_non_null(memmem(body->data, body->size, sink.profile, sink.profile_size));
        flue_block_unref(body);
    }
}

static void node_uploads(void **state)
{
    sink_reset(SINK_TAKES);
    expect(replay("pyroscope-nodejs/wall-cpu-labels"), 200, NULL);
    has_label("__name__=wall\n");
    has_label("service_name=session\n");
    has_label("pyroscope_spy=nodespy\n");
    has_label("pop=ams1\n");
    sink_reset(SINK_TAKES);
    expect(replay("pyroscope-nodejs/heap"), 200, NULL);
    has_label("__name__=memory\n");
    struct flue_block *body = recorded_body("pyroscope-nodejs/heap.body");
    assert_int_equal(sink.profile_size, body->size);
    assert_memory_equal(sink.profile, body->data, body->size);
    flue_block_unref(body);
}

static void pushes_of_python_and_rust(void **state)
{
    static const struct {
        const char *capture;
        unsigned profiles;
        const char *label;
    } rows[] = {
        {"pyroscope-python/cpu-tags", 1, "__name__=process_cpu\n"},
        {"pyroscope-python/cpu-and-memory", 2, "__name__=memory\n"},
        {"pyroscope-python/cpu-otel-spans", 1, "process.runtime.name=cpython\n"},
        {"pyroscope-python/stack-cpu-and-memory", 2,
         "otel.scope.name=com.grafana.pyroscope/python"},
        {"pyroscope-rust/cpu-tags", 1, "service_name="},
        {"pyroscope-rust/memory-jemalloc", 1, "__name__=memory\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sink_reset(SINK_TAKES);
        struct answer answer = replay(rows[i].capture);
        expect(answer, 200, NULL);
        assert_string_equal(answer.text + answer.body, "");
        assert_non_null(strstr(answer.text, "application/proto"));
        assert_int_equal(sink.counts.profiles, rows[i].profiles);
        assert_string_equal(sink.transport, "connect");
        has_label(rows[i].label);
    }
}

static void java_is_told_what_is_taken(void **state)
{
    sink_reset(SINK_TAKES);
    expect(replay("pyroscope-java/jfr-cpu-alloc-lock-labels"), 422,
           "{\"code\":\"unknown\",\"message\":\"format jfr is not taken");
    assert_int_equal(sink.batches, 0);
}

/* ---- /ingest -------------------------------------------------------------------------------- */

static void folded_text(void **state)
{
    sink_reset(SINK_TAKES);
    expect(ask("POST /pyroscope/ingest?name=enc.wall%7Bpop%3Dams1%7D&sampleRate=100&from=1795239267"
               "&until=1795239277 HTTP/1.1\r\nHost: x",
               FLUE_BYTES("main;encode 3\nmain;mux 1\n")),
           200, NULL);
    has_label("__name__=wall\n");
    has_label("service_name=enc\n");
    has_label("pyroscope_spy=unknown\n");
    has_label("pop=ams1\n");
    assert_int_equal(sink.counts.samples, 2);
    assert_int_equal(sink.facts.time_nanos, 1795239267000000000);
    assert_int_equal(sink.facts.duration_nanos, 10000000000);
    Pprof__Profile *p = pprof__profile__unpack(NULL, sink.profile_size, sink.profile);
    assert_int_equal(p->sample[0]->value[0], 30000000);
    assert_int_equal(p->period, 10000000);
    pprof__profile__free_unpacked(p, NULL);
    sink_reset(SINK_TAKES);
    expect(ask(INGEST("name=enc{service_name%3Dother}&format=lines"), FLUE_BYTES("a;b\na;b\n")),
           200, NULL);
    has_label("service_name=other\n");
    has_label("app_name=enc\n");
    has_label("__name__=process_cpu\n");
    /* a name whose suffix says nothing: 400; a bad line: 422 with its number */
    sink_reset(SINK_TAKES);
    expect(ask(INGEST("name=my.app"), FLUE_BYTES("a 1\n")), 400, "unknown profile type: app");
    expect(ask(INGEST("name=enc"), FLUE_BYTES("a 1\nb\n")), 422, "line 2");
    expect(ask(INGEST("name=enc"), FLUE_BYTES("")), 200, NULL);
    assert_int_equal(sink.batches, 0);
}

static void answers_of_ingest(void **state)
{
    struct flue_block *good = recorded_body("pyroscope-nodejs/heap.body");
    sink_reset(SINK_TAKES);
    expect(ask(INGEST("format=pprof"), flue_block_bytes(good)), 400,
           "{\"code\":\"invalid_argument\",\"message\":\"name: ");
    expect(ask(INGEST("name=%7Ba%3Db%7D&format=pprof"), flue_block_bytes(good)), 400, "name: ");
    expect(ask(INGEST("name=a%7Bb%7D&format=pprof"), flue_block_bytes(good)), 400, "has no");
    expect(ask(INGEST("name=a%7B__name__%3Db%7D&format=pprof"), flue_block_bytes(good)), 400,
           "reserved");
    expect(ask("GET /ingest?name=a HTTP/1.1\r\nHost: x", FLUE_BYTES("")), 405,
           "{\"code\":\"unknown\"");
    expect(ask(INGEST("name=a&format=pprof"), FLUE_BYTES("")), 422, "empty profile");
    expect(ask(INGEST("name=a&format=pprof"), FLUE_BYTES("nonsense")), 422, "\"code\":\"unknown\"");
    expect(ask(INGEST("name=a&format=tree"), FLUE_BYTES("x")), 422, "format tree is not taken");
    expect(ask(INGEST("name=a&format=trie"), FLUE_BYTES("x")), 422, "format trie is not taken");
    expect(ask(INGEST("name=a&format=speedscope"), FLUE_BYTES("{}")), 422, "format speedscope");
    expect(ask(INGEST("name=a") "\r\nContent-Type: binary/octet-stream+tree", FLUE_BYTES("x")), 422,
           "format tree");
    expect(ask(INGEST("name=a") "\r\nContent-Type: binary/octet-stream+trie", FLUE_BYTES("x")), 422,
           "format trie");
    expect(ask(INGEST("name=a&format=pprof") "\r\nX-Scope-OrgID: ..", flue_block_bytes(good)), 400,
           "X-Scope-OrgID");
    expect(ask(INGEST("name=a&format=pprof") "\r\nX-Scope-OrgID: a/b", flue_block_bytes(good)), 400,
           "X-Scope-OrgID");
    expect(ask(INGEST("name=a&format=pprof") "\r\nContent-Encoding: br", flue_block_bytes(good)),
           415, "Content-Encoding");
    assert_int_equal(sink.batches, 0);
    struct flue_block *large = flue_block_new(NULL, 300001);
    memset(large->data, 'a', 300001);
    large->size = 300001;
    expect(ask(INGEST("name=a"), flue_block_bytes(large)), 413, "{\"code\":\"invalid_argument\"");
    flue_block_unref(large);

    /* gzip around gzip: Pyroscope ignores Content-Encoding, we do not */
    struct flue_bytes bytes = flue_block_bytes(good);
    struct flue_slices slices = {&bytes, 1, 1, bytes.size};
    struct flue_block *gzip;
    struct flue_error error;
    assert_int_equal(flue_deflate(FLUE_GZIP, FLUE_LEVEL_DEFAULT, &slices, &gzip, &error), FLUE_OK);
    expect(ask(INGEST("name=a&format=pprof") "\r\nContent-Encoding: gzip", flue_block_bytes(gzip)),
           200, NULL);
    assert_int_equal(sink.profile_size, good->size);
    flue_block_unref(gzip);
    flue_block_unref(good);
}

static void what_the_pipeline_says(void **state)
{
    struct flue_block *good = recorded_body("pyroscope-nodejs/heap.body");
    struct answer answer;
    sink_reset(SINK_IS_FULL);
    answer = ask(INGEST("name=a&format=pprof"), flue_block_bytes(good));
    expect(answer, 503, "{\"code\":\"unavailable\"");
    assert_non_null(strcasestr(answer.text, "retry-after: "));
    answer = replay("pyroscope-python/cpu-tags");
    expect(answer, 503, "\"unavailable\"");
    sink_reset(SINK_REFUSES);
    expect(ask(INGEST("name=a&format=pprof"), flue_block_bytes(good)), 422, "does not want it");
    expect(replay("pyroscope-python/cpu-tags"), 400, "\"invalid_argument\"");
    sink_reset(SINK_TAKES);
    flue_block_unref(good);
}

static void multipart_mistakes(void **state)
{
#define FORM INGEST("name=a") "\r\nContent-Type: multipart/form-data; boundary=b"
    sink_reset(SINK_TAKES);
    expect(ask(FORM, FLUE_BYTES("--b\r\nContent-Disposition: form-data; name=\"other\"; "
                                "filename=\"x\"\r\n\r\nx\r\n--b--\r\n")),
           422, "no part \\\"profile\\\"");
    expect(ask(FORM, FLUE_BYTES("--b\r\nContent-Disposition: form-data; name=\"jfr\"; "
                                "filename=\"x\"\r\n\r\nx\r\n--b--\r\n")),
           422, "format jfr");
    expect(ask(FORM, FLUE_BYTES("--b\r\nContent-Disposition: form-data; name=\"profile\"; "
                                "filename=\"x\"\r\n\r\nx\r\n--b\r\nContent-Disposition: form-data; "
                                "name=\"prev_profile\"; filename=\"x\"\r\n\r\ny\r\n--b--\r\n")),
           422, "unsupported client version");
    expect(
        ask(FORM, FLUE_BYTES("--b\r\nContent-Disposition: form-data; name=\"profile\"\r\n\r\nx")),
        422, "does not end with the boundary");
    expect(ask(FORM, FLUE_BYTES("")), 422, "does not begin");
    assert_int_equal(sink.batches, 0);
}

/* ---- push ----------------------------------------------------------------------------------- */

static size_t put(uint8_t *at, unsigned field, const void *data, size_t size)
{
    return (size_t)(flue_write_len_field(at, field, flue_bytes(data, size)) - at);
}

/* One series, process_cpu of "enc", with the given profiles. */
static size_t push_request(uint8_t *out, const struct flue_bytes *profiles, size_t count)
{
    static uint8_t series[200000], part[200000];
    size_t size = 0, n;
    const char *labels[][2] = {{"__name__", "process_cpu"}, {"service_name", "enc"}};
    for (int i = 0; i < 2; i++) {
        n = put(part, 1, labels[i][0], strlen(labels[i][0]));
        n += put(part + n, 2, labels[i][1], strlen(labels[i][1]));
        size += put(series + size, 1, part, n);
    }
    for (size_t i = 0; i < count; i++) {
        n = put(part, 1, profiles[i].data, profiles[i].size);
        size += put(series + size, 2, part, n);
    }
    return put(out, 1, series, size);
}

static void push_in_part(void **state)
{
    static uint8_t request[300000];
    struct flue_block *good = recorded_body("go-net-http-pprof/profile.body");
    struct flue_bytes profiles[3] = {flue_block_bytes(good), FLUE_BYTES("broken"),
                                     flue_block_bytes(good)};
    sink_reset(SINK_TAKES);
    size_t size = push_request(request, profiles, 3);
    expect(ask(PUSH "\r\nContent-Type: application/proto", flue_bytes(request, size)), 400,
           "2 of 3 profiles were taken; the first refused: series[0].samples[1].raw_profile: ");
    assert_int_equal(sink.counts.profiles, 2);
    size = push_request(request, &profiles[1], 1);
    sink_reset(SINK_TAKES);
    expect(ask(PUSH "\r\nContent-Type: application/proto", flue_bytes(request, size)), 400,
           "\"code\":\"invalid_argument\"");
    expect(ask(PUSH "\r\nContent-Type: application/proto", FLUE_BYTES("")), 400,
           "invalid_argument");
    expect(ask(PUSH "\r\nContent-Type: application/json", FLUE_BYTES("{\"series\":[]}")), 400,
           "no profiles received");
    expect(ask(PUSH "\r\nContent-Type: application/json", FLUE_BYTES("{")), 400, "JSON: line 1");
    expect(ask(PUSH "\r\nContent-Type: text/html", FLUE_BYTES("x")), 415, NULL);
    expect(ask("GET /push.v1.PusherService/Push HTTP/1.1\r\nHost: x", FLUE_BYTES("")), 405, NULL);
    size = push_request(request, profiles, 1);
    expect(ask(PUSH "\r\nContent-Type: application/proto\r\nX-Scope-OrgID: a b",
               flue_bytes(request, size)),
           400, "X-Scope-OrgID");
    assert_int_equal(sink.batches, 0);
    expect(ask(PUSH "\r\nContent-Type: application/proto\r\nConnect-Protocol-Version: 1",
               flue_bytes(request, size)),
           200, NULL);
    assert_int_equal(sink.batches, 1);
    flue_block_unref(good);
}

static void push_json(void **state)
{
    struct flue_block *good = recorded_body("go-net-http-pprof/threadcreate.body");
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char json[4000] = "{\"series\":[{\"labels\":[{\"name\":\"__name__\",\"value\":\"threads\"}],"
                      "\"samples\":[{\"rawProfile\":\"";
    size_t at = strlen(json);
    for (size_t i = 0; i < good->size; i += 3) {
        uint32_t v = (uint32_t)good->data[i] << 16 |
                     (i + 1 < good->size ? (uint32_t)good->data[i + 1] << 8 : 0) |
                     (i + 2 < good->size ? good->data[i + 2] : 0);
        for (int j = 0; j < 4; j++)
            json[at++] = i + (size_t)j > good->size ? '=' : digits[v >> (18 - 6 * j) & 63];
    }
    memcpy(json + at, "\"}]}]}", 7);
    sink_reset(SINK_TAKES);
    struct answer answer = ask(PUSH "\r\nContent-Type: application/json", flue_bytes_of(json));
    expect(answer, 200, "{}");
    has_label("__name__=threads\n");
    assert_int_equal(sink.profile_size, good->size);
    assert_memory_equal(sink.profile, good->data, good->size);
    flue_block_unref(good);
}

static void trusted_hops_are_not_checked(void **state)
{
    static uint8_t request[300000];
    struct flue_bytes broken = FLUE_BYTES("not checked");
    size_t size = push_request(request, &broken, 1);
    unserve();
    serve(&flue_receiver_pyroscope,
          "pyroscope: {endpoint: \"127.0.0.1:0\", trusted: [10.0.0.0/8, 127.0.0.0/8]}",
          "127.0.0.1:0");
    sink_reset(SINK_TAKES);
    expect(ask(PUSH "\r\nContent-Type: application/proto", flue_bytes(request, size)), 200, NULL);
    assert_int_equal(sink.counts.profiles, 1);
    unserve();
    serve(&flue_receiver_pyroscope,
          "pyroscope: {endpoint: \"127.0.0.1:0\", trusted: [10.0.0.0/8, unix]}", "127.0.0.1:0");
    sink_reset(SINK_TAKES);
    expect(ask(PUSH "\r\nContent-Type: application/proto", flue_bytes(request, size)), 400, NULL);
    assert_int_equal(sink.batches, 0);
}

static void who_leaves_within_the_body_is_forgotten(void **state)
{
    leave_within_body(INGEST("name=a&format=pprof"));
    leave_within_body(PUSH "\r\nContent-Type: application/proto");
    unserve(); /* fails when a request is still open */
    start_all(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(go_uploads),
        cmocka_unit_test(node_uploads),
        cmocka_unit_test(pushes_of_python_and_rust),
        cmocka_unit_test(java_is_told_what_is_taken),
        cmocka_unit_test(folded_text),
        cmocka_unit_test(answers_of_ingest),
        cmocka_unit_test(what_the_pipeline_says),
        cmocka_unit_test(multipart_mistakes),
        cmocka_unit_test(push_in_part),
        cmocka_unit_test(push_json),
        cmocka_unit_test(trusted_hops_are_not_checked),
        cmocka_unit_test(who_leaves_within_the_body_is_forgotten),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
