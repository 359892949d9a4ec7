/* Globs alone and together, rules over frames and stacks, the ready set, hostile names. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "config/bind.h"
#include "processors/subsystem/rules.h"

static bool glob(const char *pattern, const char *text)
{
    struct flue_arena arena;
    flue_arena_init(&arena, 0, 0);
    struct subsystem_globs *globs = subsystem_globs_new(&arena);
    assert_true(subsystem_globs_add(globs, flue_bytes_of(pattern), 7));
    assert_true(subsystem_globs_compile(globs));
    bool found = subsystem_globs_match(globs, flue_bytes_of(text), SUBSYSTEM_NONE) == 7;
    /* Found by its literal or walked byte by byte: the same. */
    assert_int_equal(found,
                     *text && subsystem_glob_matches(flue_bytes_of(pattern), flue_bytes_of(text)));
    flue_arena_destroy(&arena);
    return found;
}

static void shapes(void **state)
{
    assert_true(glob("malloc", "malloc"));
    assert_false(glob("malloc", "mallocx"));
    assert_false(glob("malloc", "mallo"));
    assert_true(glob("x264_*", "x264_me_search"));
    assert_true(glob("x264_*", "x264_"));
    assert_false(glob("x264_*", "x26_me"));
    assert_true(glob("*Session*", "a.b.SessionStore.get"));
    assert_true(glob("*Session*", "Session"));
    assert_false(glob("*Session*", "a.session"));
    assert_true(glob("*.ko.xz", "nf_tables.ko.xz"));
    assert_false(glob("*.ko.xz", "nf_tables.ko.xzz"));
    assert_true(glob("*.ko", "a.ko.ko"));
    assert_true(glob("*ab", "abab"));
    assert_true(glob("a?c", "abc"));
    assert_false(glob("a?c", "ac"));
    assert_true(glob("*a?c*d", "xxabcxxd"));
    assert_true(glob("*", "x"));
    assert_true(glob("**", "x"));
    assert_true(glob("?", "x"));
    assert_false(glob("*", ""));
    assert_true(glob("lib*.so*", "libx.so.1"));
    assert_false(glob("lib*.so*", "libx.s"));
    assert_true(glob("*xyz", "xyxyz"));
}

/* Random globs and texts of a small alphabet against the walk byte by byte. */
static void against_the_slow_way(void **state)
{
    static const char letters[] = "ab*?c";
    srand(1);
    for (int round = 0; round < 3000; round++) {
        struct flue_arena arena;
        char patterns[12][12], text[24];
        flue_arena_init(&arena, 0, 0);
        struct subsystem_globs *globs = subsystem_globs_new(&arena);
        for (uint16_t i = 0; i < 12; i++) {
            int size = 1 + rand() % 11;
            for (int k = 0; k < size; k++)
                patterns[i][k] = letters[rand() % 5];
            patterns[i][size] = 0;
            assert_true(subsystem_globs_add(globs, flue_bytes_of(patterns[i]), i));
        }
        assert_true(subsystem_globs_compile(globs));
        for (int t = 0; t < 20; t++) {
            uint16_t wanted = SUBSYSTEM_NONE;
            int size = 1 + rand() % 20;
            for (int k = 0; k < size; k++)
                text[k] = "abc"[rand() % 3];
            text[size] = 0;
            for (uint16_t i = 12; i-- > 0;)
                if (subsystem_glob_matches(flue_bytes_of(patterns[i]), flue_bytes_of(text)))
                    wanted = i;
            assert_int_equal(subsystem_globs_match(globs, flue_bytes_of(text), SUBSYSTEM_NONE),
                             wanted);
            uint16_t below = (uint16_t)(rand() % 13);
            assert_int_equal(subsystem_globs_match(globs, flue_bytes_of(text), below),
                             wanted < below ? wanted : SUBSYSTEM_NONE);
        }
        flue_arena_destroy(&arena);
    }
}

/* Long literals are looked for with steps over the text: each length of the shortest one, at every
 * place, between letters that make near misses likely. */
static void none_is_stepped_over(void **state)
{
    srand(2);
    for (int round = 0; round < 2000; round++) {
        struct flue_arena arena;
        char patterns[6][24], text[64];
        int shortest = 4 + round % 6;
        flue_arena_init(&arena, 0, 0);
        struct subsystem_globs *globs = subsystem_globs_new(&arena);
        for (uint16_t i = 0; i < 6; i++) {
            int size = shortest + (i ? rand() % 6 : 0), at = 0;
            patterns[i][at++] = '*';
            for (int k = 0; k < size; k++)
                patterns[i][at++] = "ab"[rand() % 2];
            if (rand() % 3)
                patterns[i][at++] = '*';
            patterns[i][at] = 0;
            assert_true(subsystem_globs_add(globs, flue_bytes_of(patterns[i]), i));
        }
        assert_true(subsystem_globs_compile(globs));
        for (int t = 0; t < 20; t++) {
            uint16_t wanted = SUBSYSTEM_NONE;
            int size = rand() % 50;
            for (int k = 0; k < size; k++)
                text[k] = "ab"[rand() % 2];
            text[size] = 0;
            if (t % 2 && size > 20) { /* one that matches for sure */
                size_t length = strcspn(patterns[t % 6] + 1, "*");
                memcpy(text + rand() % (size - (int)length), patterns[t % 6] + 1, length);
            }
            for (uint16_t i = 6; i-- > 0;)
                if (size && subsystem_glob_matches(flue_bytes_of(patterns[i]), flue_bytes_of(text)))
                    wanted = i;
            assert_int_equal(subsystem_globs_match(globs, flue_bytes_of(text), SUBSYSTEM_NONE),
                             wanted);
        }
        flue_arena_destroy(&arena);
    }
}

struct bound {
    struct flue_arena arena;
    struct flue_check check;
    struct subsystem_rules *rules;
};
struct list_config {
    struct flue_list rules;
};
static const struct flue_field list_fields[] = {
    FLUE_LIST(struct list_config, rules, struct subsystem_rule_config, subsystem_rule_fields),
    FLUE_FIELDS_END};

static void bind(struct bound *b, const char *yaml, bool builtin, bool root_first)
{
    struct flue_error error;
    flue_arena_init(&b->arena, 0, 0);
    flue_check_init(&b->check, &b->arena);
    struct list_config *config =
        flue_bind_yaml(&b->check, yaml, list_fields, sizeof(struct list_config));
    b->rules = NULL;
    if (config)
        subsystem_rules_check(&config->rules, builtin, "rules", &b->check);
    if (!b->check.mistakes)
        assert_int_equal(
            subsystem_rules_new(&config->rules, builtin, root_first, &b->arena, &b->rules, &error),
            FLUE_OK);
}

static const char *name_of(const struct bound *b, uint16_t verdict)
{
    return subsystem_name(b->rules, subsystem_of_verdict(b->rules, verdict));
}

#define FUNCTION(b, name)                                                                          \
    name_of(b, subsystem_of_function((b)->rules, FLUE_BYTES(name), FLUE_BYTES("")))

static void packages_and_paths(void **state)
{
    struct bound b;
    bind(&b,
         "rules: [{subsystem: a, package: [net/http, com.example.play, boost::asio]},"
         "{subsystem: b, file: ['*/json/*.py', abr.py], mapping: [libx.so*, /opt/enc/*]}]",
         false, false);
    assert_string_equal(FUNCTION(&b, "net/http.(*conn).serve"), "a");
    assert_string_equal(FUNCTION(&b, "net/httptest.New"), "unmatched");
    assert_string_equal(FUNCTION(&b, "com.example.play.Session.get"), "a");
    assert_string_equal(FUNCTION(&b, "com/example/play/Session.get"), "a");
    assert_string_equal(FUNCTION(&b, "com.example.player.X"), "unmatched");
    assert_string_equal(FUNCTION(&b, "boost::asio::detail::run"), "a");
    assert_string_equal(name_of(&b, subsystem_of_file(b.rules, FLUE_BYTES("/usr/json/x.py"))), "b");
    assert_string_equal(name_of(&b, subsystem_of_file(b.rules, FLUE_BYTES("/srv/abr.py"))), "b");
    assert_string_equal(name_of(&b, subsystem_of_file(b.rules, FLUE_BYTES("/srv/xabr.py"))),
                        "unmatched");
    assert_string_equal(name_of(&b, subsystem_of_mapping(b.rules, FLUE_BYTES("/lib/libx.so.1"))),
                        "b");
    assert_string_equal(name_of(&b, subsystem_of_mapping(b.rules, FLUE_BYTES("/opt/enc/a"))), "b");
    /* The linker's name counts, too. */
    assert_string_equal(
        name_of(&b, subsystem_of_function(b.rules, FLUE_BYTES("serve"), FLUE_BYTES("net/http.x"))),
        "a");
    flue_arena_destroy(&b.arena);
}

static const char *stack(struct bound *b, const char *const *leaf_first, size_t count)
{
    uint16_t sum = SUBSYSTEM_NONE;
    for (size_t i = 0; i < count; i++)
        if (subsystem_join(
                b->rules, &sum,
                subsystem_of_function(b->rules, flue_bytes_of(leaf_first[i]), flue_bytes(NULL, 0))))
            break;
    return name_of(b, sum);
}

static void order_within_a_stack(void **state)
{
    static const char rules[] = "rules: [{subsystem: late, function: [late*], fallback: true},"
                                "{subsystem: later, function: [later*], fallback: true},"
                                "{subsystem: x, function: [x_*]}, {subsystem: y, function: [y_*]}]";
    const char *const both[] = {"other", "late", "y_1", "x_1", "main"};
    const char *const only_late[] = {"later", "other", "late"};
    struct bound b;
    bind(&b, rules, false, false);
    assert_string_equal(stack(&b, both, 5), "y");
    assert_string_equal(stack(&b, only_late, 3), "late"); /* the first rule, wherever it stands */
    assert_string_equal(stack(&b, both, 1), "unmatched");
    assert_string_equal(stack(&b, both, 0), "unmatched");
    flue_arena_destroy(&b.arena);
    bind(&b, rules, false, true);
    assert_string_equal(stack(&b, both, 5), "x");
    assert_string_equal(stack(&b, only_late, 3), "late");
    flue_arena_destroy(&b.arena);
}

static void the_ready_set(void **state)
{
    static const struct {
        const char *function, *subsystem;
    } known[] = {{"x264_8_macroblock_analyse", "encoding.x264"},
                 {"x265::Encoder::encode", "encoding.x265"},
                 {"svt_aom_motion_estimation", "encoding.svt_av1"},
                 {"vp9_encode_frame", "encoding.libvpx"},
                 {"avcodec_send_frame", "encoding.ffmpeg"},
                 {"NvEncEncodePicture", "encoding.nvenc"},
                 {"shaka::media::Muxer::Finalize", "packaging"},
                 {"main.ChooseRendition", "abr"},
                 {"crypto/tls.(*Conn).Write", "tls"},
                 {"SSL_write", "tls"},
                 {"net/http.(*conn).serve", "http"},
                 {"ngx_http_process_request", "http"},
                 {"main.buildRing", "routing"},
                 {"github.com/gorilla/mux.(*Router).ServeHTTP", "routing"},
                 {"main.(*SessionStore).Get", "session"},
                 {"main.verifyToken", "auth"},
                 {"encoding/json.Marshal", "json"},
                 {"PQexec", "database"},
                 {"database/sql.(*DB).Query", "database"},
                 {"malloc", "allocation"},
                 {"runtime.mallocgc", "allocation"},
                 {"sync.(*Mutex).Lock", "locks"},
                 {"pthread_mutex_lock", "locks"},
                 {"runtime.gcDrain", "gc"},
                 {"_PyEval_EvalFrameDefault", "interpreter"},
                 {"do_syscall_64", "kernel"},
                 {"runtime/pprof.(*profileBuilder).emitLocation", "profiling"},
                 {"github.com/grafana/pyroscope-go.(*Session).uploadData", "profiling"},
                 {"github.com/grafana/pyroscope-go.TagWrapper", "unmatched"},
                 {"Garbage Collection", "gc"},
                 {"loop_filter_deblock_row", "encoding"},
                 {"session_heartbeat", "session"},
                 {"ring::aead::seal", "tls"},
                 {"frobnicate", "unmatched"},
                 /* What only looks like one of them. */
                 {"runtime/pprof.Do", "unmatched"},
                 {"eb_delete", "unmatched"},
                 {"inodeblock_find", "unmatched"},
                 {"wp_heartbeat_settings", "unmatched"},
                 {"ring::Lookup", "unmatched"},
                 {"nss_files_parse", "unmatched"},
                 {"hyperscan_match", "unmatched"},
                 {"extent_map_lookup", "unmatched"}};
    struct bound b;
    bind(&b, "rules: []", true, false);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_string_equal(
            name_of(&b, subsystem_of_function(b.rules, flue_bytes_of(known[i].function),
                                              flue_bytes(NULL, 0))),
            known[i].subsystem);
    assert_string_equal(name_of(&b, subsystem_of_frame_type(b.rules, FLUE_BYTES("kernel"))),
                        "kernel");
    flue_arena_destroy(&b.arena);
    /* The user's come first. */
    bind(&b, "rules: [{subsystem: mine, function: [malloc]}]", true, false);
    assert_string_equal(FUNCTION(&b, "malloc"), "mine");
    assert_string_equal(FUNCTION(&b, "calloc"), "allocation");
    flue_arena_destroy(&b.arena);
}

/* What a function is called says more than the file it stands in; what a program is called is asked
 * last. */
static void the_ready_order(void **state)
{
    const char *const idle[] = {"runtime.nanotime", "runtime.findRunnable", "runtime.mcall"};
    const char *const grown[] = {"runtime.step", "runtime.morestack", "main.f"};
    struct bound b;
    bind(&b, "rules: []", true, false);
    uint16_t file = subsystem_of_file(b.rules, FLUE_BYTES("/srv/abr.py"));
    uint16_t function =
        subsystem_of_function(b.rules, FLUE_BYTES("write_manifest"), FLUE_BYTES(""));
    uint16_t program = subsystem_of_mapping(b.rules, FLUE_BYTES("/srv/edge-router"));
    assert_string_equal(name_of(&b, file), "abr");
    assert_string_equal(name_of(&b, function < file ? function : file), "packaging");
    assert_string_equal(name_of(&b, program), "routing");
    for (size_t i = 0; i < 2; i++) {
        const char *const *frames = i ? grown : idle;
        uint16_t sum = SUBSYSTEM_NONE;
        for (size_t k = 0; k < 3; k++) {
            uint16_t frame =
                subsystem_of_function(b.rules, flue_bytes_of(frames[k]), FLUE_BYTES(""));
            (void)subsystem_join(b.rules, &sum, frame < program ? frame : program);
        }
        assert_string_equal(name_of(&b, sum), i ? "routing" : "scheduler");
    }
    flue_arena_destroy(&b.arena);
}

static void mistakes(void **state)
{
    static const char *const bad[] = {"rules: [{subsystem: a}]",
                                      "rules: [{subsystem: '', function: [a]}]",
                                      "rules: [{subsystem: a, function: ['']}]"};
    struct bound b;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bind(&b, bad[i], true, false);
        assert_int_equal(b.check.mistakes, 1);
        flue_arena_destroy(&b.arena);
    }
    bind(&b, "rules: []", false, false);
    assert_int_equal(b.check.mistakes, 1);
    flue_arena_destroy(&b.arena);
}

static void names_without_end(void **state)
{
    struct bound b;
    uint8_t *name = malloc(65536);
    bind(&b, "rules: [{subsystem: a, function: ['*a*a*a*a*a*a*a*a*b']}]", false, false);
    memset(name, 'a', 65536);
    /* Bounded work, whatever the glob; what is behind 4 KiB is not looked at. */
    name[65535] = 'b';
    assert_int_equal(subsystem_of_function(b.rules, flue_bytes(name, 65536), flue_bytes(NULL, 0)),
                     SUBSYSTEM_NONE);
    name[SUBSYSTEM_TEXT_MAX - 1] = 'b';
    assert_int_equal(subsystem_of_function(b.rules, flue_bytes(name, 65536), flue_bytes(NULL, 0)),
                     0);
    free(name);
    flue_arena_destroy(&b.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes),
        cmocka_unit_test(against_the_slow_way),
        cmocka_unit_test(none_is_stepped_over),
        cmocka_unit_test(packages_and_paths),
        cmocka_unit_test(order_within_a_stack),
        cmocka_unit_test(the_ready_set),
        cmocka_unit_test(the_ready_order),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(names_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
