/* The parsing pieces of the receiver, as pure functions: names, times, forms, trusted hops, and
 * what is rewritten for old clients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "pprof.pb-c.h"
#include "receivers/pyroscope/multipart.h"
#include "receivers/pyroscope/profile.h"
#include "receivers/pyroscope/query.h"
#include "receivers/pyroscope/spy.h"
#include "receivers/pyroscope/trusted.h"

#define B(literal) FLUE_BYTES(literal)

static const struct flue_pprof_limits limits = {16u << 20, 200};

/* ---- names ---------------------------------------------------------------------------------- */

static void good_name(const char *text, const char *expected)
{
    struct flue_ingest_name name;
    struct flue_error error = {0};
    char got[500];
    if (flue_ingest_name(flue_bytes_of(text), &name, &error) != FLUE_OK)
        fail_msg("%s: %s", text, error.text);
    int n = snprintf(got, sizeof got, "%.*s", FLUE_PRI(name.app));
    for (size_t i = 0; i < name.count; i++)
        n += snprintf(got + n, sizeof got - (size_t)n, "|%.*s=%.*s", FLUE_PRI(name.labels[i].name),
                      FLUE_PRI(name.labels[i].value));
    assert_string_equal(got, expected);
}

static void bad_name(const char *text, const char *part)
{
    struct flue_ingest_name name;
    struct flue_error error = {0};
    assert_int_equal(flue_ingest_name(flue_bytes_of(text), &name, &error), FLUE_INVALID);
    if (!strstr(error.text, part))
        fail_msg("%s: %s", text, error.text);
}

static void names(void **state)
{
    good_name("app", "app");
    good_name("a.b/c-d_9", "a.b/c-d_9");
    good_name(" app { a = b , c.d =e f} ", "app|a=b|c.d=e f");
    good_name("app{}", "app");
    good_name("app{a=}", "app|a=");
    good_name("app{a=x=y}", "app|a=x=y");
    good_name("app{a=1,a=2}", "app|a=2");
    good_name("app{a=1,b=2", "app|a=1|b=2"); /* Pyroscope loses b */
    good_name("app{a=1}trailing", "app|a=1");
    good_name("app{a=1,,b=2,}", "app|a=1|b=2");
    bad_name("", "application name is missing");
    bad_name("{a=b}", "application name is missing");
    bad_name("a b", "may have letters");
    bad_name("a\xc3\xa9", "may have letters");
    bad_name("app{a}", "no \"=\"");
    bad_name("app{=b}", "without a name");
    bad_name("app{a-b=c}", "\"a-b\"");
    bad_name("app{__name__=c}", "reserved");
    char many[2000] = "app{";
    for (int i = 0; i <= FLUE_INGEST_MAX_LABELS; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "k%d=v,", i);
    bad_name(many, "more than 100 labels");
}

static void times(void **state)
{
    const uint64_t now = 1795239267000000000u, second = 1000000000u;
    static const struct {
        const char *text;
        uint64_t ns;
    } rows[] = {
        {"1795239267", 1795239267000000000u},
        {"1795239267123", 1795239267123000000u},
        {"1795239267123456", 1795239267123456000u},
        {"1795239267123456789", 1795239267123456789u},
        {"20261121", 1795219200000000000u},
        {"99999999", 99999999000000000u}, /* no date, so seconds */
        {"20261331", 20261331000000000u},
        {"0", 0},
        {"1_795_239_267", 1795239267000000000u},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (flue_ingest_time(flue_bytes_of(rows[i].text), now) != rows[i].ns)
            fail_msg("%s: %llu", rows[i].text,
                     (unsigned long long)flue_ingest_time(flue_bytes_of(rows[i].text), now));
    assert_int_equal(flue_ingest_time(B("now"), now), now);
    assert_int_equal(flue_ingest_time(B(""), now), now);
    assert_int_equal(flue_ingest_time(B("now-1h"), now), now - 3600 * second);
    assert_int_equal(flue_ingest_time(B("now-30s"), now), now - 30 * second);
    assert_int_equal(flue_ingest_time(B("now - 5 min"), now), now - 300 * second);
    assert_int_equal(flue_ingest_time(B("now-5m"), now), now - 300 * second);
    assert_int_equal(flue_ingest_time(B("now+1d"), now), now + 86400 * second);
    assert_int_equal(flue_ingest_time(B("now-1M"), now), now - 30 * 86400 * second);
    assert_int_equal(flue_ingest_time(B("now-1y"), now), now - 365 * 86400 * second);
    assert_int_equal(flue_ingest_time(B("rubbish"), now), now);
    assert_int_equal(flue_ingest_time(B("now-99999999999999999999h"), now), now);
    assert_int_equal(flue_ingest_time(B("99999999999999999999"), now), now);
    assert_int_equal(flue_ingest_time(B("9999999999999999999"), now), now);
}

/* ---- forms ---------------------------------------------------------------------------------- */

#define PART(name) "\r\nContent-Disposition: form-data; name=\"" name "\"; filename=\"f\"\r\n\r\n"

static void forms(void **state)
{
    struct flue_multipart form;
    struct flue_error error;
    struct flue_bytes type = B("multipart/form-data; charset=x; boundary=\"b-1\"");
    struct flue_bytes body = B("--b-1" PART("profile") "\x1f\x8b\r\n--b-\r\nx\r\n--b-1" PART(
        "empty") "\r\n--b-1\r\n"
                 "content-disposition: form-data; filename=\"a; name=x\"; name=third\r\n"
                 "Content-Type: application/json\r\n\r\n{}\r\n--b-1--\r\nepilogue");
    assert_int_equal(flue_multipart_read(type, body, &form, &error), FLUE_OK);
    assert_int_equal(form.count, 3);
    assert_true(
        flue_bytes_is(flue_multipart_part(&form, "profile")->content, "\x1f\x8b\r\n--b-\r\nx"));
    assert_int_equal(flue_multipart_part(&form, "empty")->content.size, 0);
    assert_true(flue_bytes_is(flue_multipart_part(&form, "third")->content, "{}"));
    assert_true(flue_multipart_part(&form, "third")->file);
    assert_true(
        flue_bytes_is(flue_multipart_part(&form, "third")->content_type, "application/json"));
    assert_null(flue_multipart_part(&form, "x"));

    /* cut anywhere before the closing "--": refused; a copy, so that a read beyond is seen */
    size_t whole =
        (size_t)((const uint8_t *)memmem(body.data, body.size, "--b-1--", 7) + 7 - body.data);
    for (size_t size = 0; size < whole; size++) {
        uint8_t *copy = malloc(size ? size : 1);
        memcpy(copy, body.data, size);
        assert_int_equal(flue_multipart_read(type, flue_bytes(copy, size), &form, &error),
                         FLUE_INVALID);
        free(copy);
    }
    static const struct {
        const char *type, *body;
    } bad[] = {
        {"multipart/form-data", "--b--"},
        {"multipart/form-data; boundary=", "----"},
        {"multipart/form-data; boundary=\"b", "--b--"},
        {"multipart/form-data; boundary=b", "preamble\r\n--b--"},
        {"multipart/form-data; boundary=b", "--bx\r\n\r\n--b--"},
        {"multipart/form-data; boundary=b", "--b\r\nX-Y: z\r\n\r\nx\r\n--b--"},
        {"multipart/form-data; boundary=b", "--b\r\nno colon\r\n\r\nx\r\n--b--"},
        {"multipart/form-data; boundary=b",
         "--b\r\nContent-Disposition: form-data; name=\"\"\r\n\r\nx\r\n--b--"},
        {"multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; "
                                            "name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                                            "x\r\n--b--"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (flue_multipart_read(flue_bytes_of(bad[i].type), flue_bytes_of(bad[i].body), &form,
                                &error) != FLUE_INVALID)
            fail_msg("form %zu is taken", i);
    char many[4000] = "";
    for (int i = 0; i <= FLUE_MULTIPART_MAX_PARTS; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "--b" PART("p") "x\r\n");
    snprintf(many + strlen(many), sizeof many - strlen(many), "--b--");
    assert_int_equal(flue_multipart_read(B("multipart/form-data; boundary=b"), flue_bytes_of(many),
                                         &form, &error),
                     FLUE_INVALID);
}

static void formats(void **state)
{
    const char *name = NULL;
    struct flue_bytes form = B("multipart/form-data; boundary=x"), none = B(""),
                      gzip = B("\x1f\x8b");
    assert_int_equal(flue_ingest_format(none, form, none, &name), FLUE_INGEST_MULTIPART);
    assert_int_equal(flue_ingest_format(B("pprof"), form, none, &name), FLUE_INGEST_MULTIPART);
    assert_int_equal(flue_ingest_format(B("pprof"), none, none, &name), FLUE_INGEST_PPROF);
    assert_int_equal(flue_ingest_format(none, none, gzip, &name), FLUE_INGEST_PPROF);
    assert_int_equal(flue_ingest_format(none, none, none, &name), FLUE_INGEST_GROUPS);
    assert_int_equal(flue_ingest_format(B("whatever"), none, none, &name), FLUE_INGEST_GROUPS);
    assert_int_equal(flue_ingest_format(B("lines"), none, none, &name), FLUE_INGEST_LINES);
    assert_int_equal(flue_ingest_format(B("jfr"), form, none, &name), FLUE_INGEST_OTHER);
    assert_string_equal(name, "jfr");
    assert_int_equal(flue_ingest_format(none, B("binary/octet-stream+tree"), none, &name),
                     FLUE_INGEST_OTHER);
    assert_string_equal(name, "tree");
}

/* ---- trusted -------------------------------------------------------------------------------- */

static void hops(void **state)
{
    struct flue_arena arena;
    struct flue_trusted trusted;
    const char *texts[] = {"10.0.0.0/8", "192.168.1.7", "fd00::/12", "unix"};
    struct flue_list list = {texts, 4};
    flue_arena_init(&arena, 1u << 16, 0);
    assert_true(flue_trusted_init(&trusted, &list, &arena));
    static const struct {
        const char *peer;
        bool trusted;
    } rows[] = {{"10.255.0.1:4", true},
                {"11.0.0.1:4", false},
                {"192.168.1.7:1", true},
                {"192.168.1.8:1", false},
                {"[fd0f::1]:80", true},
                {"[fd10::1]:80", false},
                {"[::ffff:10.1.1.1]:9", true},
                {"unix", true},
                {"", false},
                {"nonsense", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (flue_is_trusted(&trusted, rows[i].peer) != rows[i].trusted)
            fail_msg("%s", rows[i].peer);
    list.count = 0;
    assert_true(flue_trusted_init(&trusted, &list, &arena));
    assert_false(flue_is_trusted(&trusted, "10.0.0.1:1"));
    assert_false(flue_is_trusted(&trusted, "unix"));
    flue_arena_destroy(&arena);
    struct flue_trusted_net net;
    bool unix_socket;
    static const char *const bad[] = {"10.0.0.0/33", "fd00::/129", "10.0.0", "host", "",
                                      "10.0.0.0/",   "10.0.0.0/-1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(flue_trusted_parse(bad[i], &net, &unix_socket));
}

/* ---- old clients ---------------------------------------------------------------------------- */

static const char *const strings[] = {"", "cpu-time", "ns", "run", "a.py", "/abs.py", "idle"};

/* Two functions, one location each; ids of functions as given. */
static struct flue_block *scripted(uint64_t function_id, int64_t time)
{
    Pprof__ValueType type = PPROF__VALUE_TYPE__INIT, *types[] = {&type};
    Pprof__Function functions[3], *function_list[3];
    Pprof__Line lines[3], *line_lists[3][1];
    Pprof__Location locations[3], *location_list[3];
    Pprof__Sample sample = PPROF__SAMPLE__INIT, *samples[] = {&sample};
    Pprof__Profile profile = PPROF__PROFILE__INIT;
    uint64_t ids[] = {11, 12, 13};
    int64_t values[] = {5};
    static const int64_t names[] = {3, 3, 6}, files[] = {4, 5, 0};
    type.type = 1;
    type.unit = 2;
    for (uint64_t i = 0; i < 3; i++) {
        pprof__function__init(&functions[i]);
        pprof__line__init(&lines[i]);
        pprof__location__init(&locations[i]);
        functions[i].id = function_id ? function_id + i : 0;
        functions[i].name = names[i];
        functions[i].filename = files[i];
        lines[i].function_id = functions[i].id;
        lines[i].line = 40 + (int64_t)i;
        line_lists[i][0] = &lines[i];
        locations[i].id = ids[i];
        locations[i].n_line = 1;
        locations[i].line = line_lists[i];
        function_list[i] = &functions[i];
        location_list[i] = &locations[i];
    }
    sample.n_location_id = 3;
    sample.location_id = ids;
    sample.n_value = 1;
    sample.value = values;
    profile.n_sample_type = 1;
    profile.sample_type = types;
    profile.n_sample = 1;
    profile.sample = samples;
    profile.n_location = profile.n_function = 3;
    profile.location = location_list;
    profile.function = function_list;
    profile.n_string_table = 7;
    profile.string_table = (char **)(uintptr_t)strings;
    profile.time_nanos = time;
    struct flue_block *block = flue_block_new(NULL, 1024);
    block->size = pprof__profile__pack(&profile, block->data);
    flue_block_finish(block);
    return block;
}

static Pprof__Profile *ingested(const char *spy, uint64_t function_id, int64_t time,
                                struct flue_payload **payload)
{
    struct flue_ingest ingest = {
        .spy = flue_bytes_of(spy), .limits = limits, .from_ns = 1795239267000000000u};
    struct flue_ingest_result result;
    struct flue_error error = {0};
    struct flue_block *block = scripted(function_id, time);
    ingest.name.app = B("app");
    if (flue_ingest_profile(&ingest, flue_block_bytes(block), B(""), block, &result, &error) !=
        FLUE_OK)
        fail_msg("%s: %s", spy, error.text);
    flue_block_unref(block);
    *payload = result.payload;
    struct flue_bytes out = flue_pprof_series_at(result.payload, 0)->profiles[0].bytes;
    Pprof__Profile *p = pprof__profile__unpack(NULL, out.size, out.data);
    assert_non_null(p);
    return p;
}

static const char *function_name(const Pprof__Profile *p, size_t i)
{
    return p->string_table[p->function[i]->name];
}

static void spies(void **state)
{
    struct flue_payload *payload;
    const int64_t time = 1795239260000000000;
    Pprof__Profile *p = ingested("pyspy", 1, time, &payload);
    assert_string_equal(function_name(p, 0), "a.py run");
    assert_string_equal(function_name(p, 1), "run");
    assert_string_equal(function_name(p, 2), "idle");
    pprof__profile__free_unpacked(p, NULL);
    flue_payload_unref(payload);
    p = ingested("rbspy", 1, time, &payload);
    assert_string_equal(function_name(p, 1), "/abs.py run");
    assert_string_equal(p->string_table[p->sample_type[0]->type], "cpu-time");
    pprof__profile__free_unpacked(p, NULL);
    flue_payload_unref(payload);
    p = ingested("dotnetspy", 0, time, &payload);
    assert_string_equal(p->string_table[p->sample_type[0]->type], "cpu_time");
    for (size_t i = 0; i < 3; i++) {
        assert_int_not_equal(p->function[i]->id, 0);
        assert_int_equal(p->location[i]->line[0]->function_id, p->function[i]->id);
        assert_int_equal(p->location[i]->line[0]->line, 40 + i);
    }
    assert_string_equal(function_name(p, 2), "idle");
    pprof__profile__free_unpacked(p, NULL);
    flue_payload_unref(payload);
    p = ingested("gospy", 1, time, &payload);
    assert_string_equal(function_name(p, 0), "run");
    assert_int_equal(p->time_nanos, time);
    pprof__profile__free_unpacked(p, NULL);
    flue_payload_unref(payload);
    /* no time, and a time in 1970: from */
    p = ingested("gospy", 1, 0, &payload);
    assert_int_equal(p->time_nanos, 1795239267000000000);
    pprof__profile__free_unpacked(p, NULL);
    flue_payload_unref(payload);
    p = ingested("gospy", 1, 31535999999999999, &payload);
    assert_int_equal(p->time_nanos, 1795239267000000000);
    pprof__profile__free_unpacked(p, NULL);
    flue_payload_unref(payload);
}

static void broken_profiles_of_dotnet(void **state)
{
    /* mutants of a profile whose functions have no ids: no crash, and what passes is good */
    struct flue_block *block = scripted(0, 1), *out;
    uint64_t seed = 99;
    for (int round = 0; round < 20000; round++) {
        uint8_t *copy = malloc(block->size);
        memcpy(copy, block->data, block->size);
        for (int i = 0; i <= round % 4; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            copy[(seed >> 33) % block->size] = (uint8_t)(seed >> 24);
        }
        if (flue_spy_dotnet_ids(flue_bytes(copy, block->size), &limits, NULL, &out))
            flue_block_unref(out);
        free(copy);
    }
    flue_block_unref(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(times),
        cmocka_unit_test(forms),
        cmocka_unit_test(formats),
        cmocka_unit_test(hops),
        cmocka_unit_test(spies),
        cmocka_unit_test(broken_profiles_of_dotnet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
