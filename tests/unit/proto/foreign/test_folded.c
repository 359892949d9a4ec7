/* Folded text: what is counted, what is refused, and with which line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "pprof.pb-c.h"
#include "proto/foreign/folded.h"
#include "proto/pprof/pprof.h"

static const struct flue_folded_meaning plain = {
    .type = FLUE_BYTES_INIT("samples"), .unit = FLUE_BYTES_INIT("count"), .scale = 1};

/* Back to folded text, sorted by nothing: the order of samples is the order of first sight. */
static char *unfolded(const struct flue_block *raw)
{
    Pprof__Profile *p = pprof__profile__unpack(NULL, raw->size, raw->data);
    assert_non_null(p);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (size_t i = 0; i < p->n_sample; i++) {
        for (size_t j = p->sample[i]->n_location_id; j-- > 0;) {
            Pprof__Location *location = p->location[p->sample[i]->location_id[j] - 1];
            Pprof__Function *function = p->function[location->line[0]->function_id - 1];
            fprintf(out, "%s%s", p->string_table[function->name], j ? ";" : "");
        }
        fprintf(out, " %lld\n", (long long)p->sample[i]->value[0]);
    }
    fclose(out);
    pprof__profile__free_unpacked(p, NULL);
    return text;
}

static enum flue_code read_text(const char *text, enum flue_folded_form form,
                                const struct flue_folded_meaning *meaning, struct flue_block **out,
                                struct flue_error *error)
{
    struct flue_folded_facts facts;
    return flue_folded_to_pprof(flue_bytes_of(text), form, meaning, 1u << 20, NULL, out, &facts,
                                error);
}

static void gives(const char *text, enum flue_folded_form form, const char *expected)
{
    struct flue_block *out;
    struct flue_error error = {0};
    struct flue_pprof_facts facts;
    struct flue_pprof_limits limits = {1u << 24, 200};
    if (read_text(text, form, &plain, &out, &error) != FLUE_OK)
        fail_msg("%s: %s", text, error.text);
    assert_int_equal(flue_pprof_check(flue_block_bytes(out), &limits, &facts, &error), FLUE_OK);
    char *got = unfolded(out);
    assert_string_equal(got, expected);
    free(got);
    flue_block_unref(out);
}

static void refuses(const char *text, const char *part)
{
    struct flue_block *out;
    struct flue_error error = {0};
    assert_int_equal(read_text(text, FLUE_FOLDED_GROUPS, &plain, &out, &error), FLUE_INVALID);
    if (!strstr(error.text, part))
        fail_msg("wanted \"%s\", got \"%s\"", part, error.text);
}

static void forms(void **state)
{
    gives("a;b;c 12\na;b 3\n", FLUE_FOLDED_GROUPS, "a;b;c 12\na;b 3\n");
    gives("a;b 1\r\n\r\na;b 2\r\nb;a 5", FLUE_FOLDED_GROUPS, "a;b 3\nb;a 5\n");
    gives("main (x.py:3);run it (y z.py) 7\n", FLUE_FOLDED_GROUPS,
          "main (x.py:3);run it (y z.py) 7\n");
    gives("a;b c\na;b c\nd\n", FLUE_FOLDED_LINES, "a;b c 2\nd 1\n");
    gives("\xef\xbb\xbf"
          "a 0\n",
          FLUE_FOLDED_GROUPS, "a 0\n");
    gives("caf\xc3 1\n", FLUE_FOLDED_GROUPS, "caf\xef\xbf\xbd 1\n");
    gives("a 9223372036854775807\n", FLUE_FOLDED_GROUPS, "a 9223372036854775807\n");
    gives("", FLUE_FOLDED_GROUPS, "");
    gives("a;;b 1\n", FLUE_FOLDED_GROUPS, "a;;b 1\n");
}

static void mistakes_name_their_line(void **state)
{
    refuses("a 1\n\nb;c\n", "line 3: \"b;c\" has no count");
    refuses("a 1\nb x\n", "line 2: \"x\" is not a count");
    refuses("a -1\n", "line 1: \"-1\"");
    refuses("a 1.5\n", "line 1: \"1.5\"");
    refuses("a 18446744073709551616\n", "line 1");
    refuses("a 9223372036854775808\n", "line 1: count 9223372036854775808");
    refuses("a 9223372036854775807\na 1\n", "line 2: count 1");
    refuses("\xff\xfe"
            "a\n",
            "UTF-16");
}

static void long_lines_are_not_lost(void **state)
{
    size_t size = 300000;
    char *text = malloc(size + 40);
    struct flue_block *out;
    struct flue_error error = {0};
    struct flue_folded_facts facts;
    memset(text, 'f', size);
    for (size_t i = 100; i < size; i += 100)
        text[i] = ';';
    memcpy(text + size, " 4\nz 1\n", 8);
    assert_int_equal(flue_folded_to_pprof(flue_bytes_of(text), FLUE_FOLDED_GROUPS, &plain,
                                          16u << 20, NULL, &out, &facts, &error),
                     FLUE_OK);
    assert_int_equal(facts.samples, 2);
    char *got = unfolded(out);
    assert_string_equal(got, text);
    free(got);
    flue_block_unref(out);
    assert_int_equal(flue_folded_to_pprof(flue_bytes_of(text), FLUE_FOLDED_GROUPS, &plain, 8192,
                                          NULL, &out, &facts, &error),
                     FLUE_TOO_LARGE);
    free(text);
}

static void captures_keep_their_sums(void **state)
{
    static const char *const names[] = {"py-spy/merged.folded", "py-spy/threads.folded",
                                        "async-profiler/cpu.collapsed"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512], *line = NULL;
        size_t room = 0;
        long long sum = 0, got = 0;
        snprintf(path, sizeof path, "%s/captures/%s", FLUE_TEST_DATA, names[i]);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        struct flue_block *text = flue_block_new(NULL, 1u << 20), *out;
        ssize_t n;
        while ((n = getline(&line, &room, file)) > 0) {
            struct flue_error error;
            sum += atoll(strrchr(line, ' '));
            flue_block_append(text, flue_bytes(line, (size_t)n), 1u << 24, &error);
        }
        fclose(file);
        free(line);
        struct flue_folded_facts facts;
        struct flue_error error = {0};
        struct flue_pprof_facts checked;
        struct flue_pprof_limits limits = {1u << 24, 200};
        assert_int_equal(flue_folded_to_pprof(flue_block_bytes(text), FLUE_FOLDED_GROUPS, &plain,
                                              16u << 20, NULL, &out, &facts, &error),
                         FLUE_OK);
        assert_int_equal(flue_pprof_check(flue_block_bytes(out), &limits, &checked, &error),
                         FLUE_OK);
        Pprof__Profile *p = pprof__profile__unpack(NULL, out->size, out->data);
        for (size_t j = 0; j < p->n_sample; j++)
            got += p->sample[j]->value[0];
        assert_true(sum > 0 && got == sum);
        assert_int_equal(checked.samples, facts.samples);
        pprof__profile__free_unpacked(p, NULL);
        flue_block_unref(out);
        flue_block_unref(text);
    }
}

static void suffixes_mean_what_pyroscope_says(void **state)
{
    static const struct {
        const char *name;
        uint64_t rate;
        const char *app, *profile, *type, *unit;
        int64_t period, scale;
    } rows[] = {
        {"enc", 100, "enc", "process_cpu", "cpu", "nanoseconds", 10000000, 10000000},
        {"enc.cpu", 0, "enc", "process_cpu", "samples", "count", 0, 1},
        {"my.enc.itimer", 50, "my.enc", "process_cpu", "cpu", "nanoseconds", 20000000, 20000000},
        {"enc.wall", 100, "enc", "wall", "wall", "nanoseconds", 10000000, 10000000},
        {"enc.alloc_space", 100, "enc", "memory", "alloc_space", "bytes", 0, 1},
        {"enc.live", 100, "enc", "memory", "live", "count", 0, 1},
        {"enc.bytes", 100, "enc", "memory", "samples", "bytes", 0, 1},
        {"enc.lock_duration", 100, "enc", "block", "delay", "nanoseconds", 0, 1},
        {"enc.exceptions", 100, "enc", "exceptions", "samples", "count", 0, 1},
        {"enc.goroutines", 0, "enc", "goroutine", "goroutines", "count", 0, 1},
    };
    struct flue_error error;
    struct flue_bytes app, profile;
    struct flue_folded_meaning meaning;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(flue_folded_pyroscope(flue_bytes_of(rows[i].name), rows[i].rate, &app,
                                               &profile, &meaning, &error),
                         FLUE_OK);
        assert_true(flue_bytes_is(app, rows[i].app));
        assert_true(flue_bytes_is(profile, rows[i].profile));
        assert_true(flue_bytes_is(meaning.type, rows[i].type));
        assert_true(flue_bytes_is(meaning.unit, rows[i].unit));
        assert_int_equal(meaning.period, rows[i].period);
        assert_int_equal(meaning.scale, rows[i].scale);
    }
    assert_int_equal(
        flue_folded_pyroscope(FLUE_BYTES("my.app"), 100, &app, &profile, &meaning, &error),
        FLUE_INVALID);
    assert_string_equal(error.text, "unknown profile type: app");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),
        cmocka_unit_test(mistakes_name_their_line),
        cmocka_unit_test(long_lines_are_not_lost),
        cmocka_unit_test(captures_keep_their_sums),
        cmocka_unit_test(suffixes_mean_what_pyroscope_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
