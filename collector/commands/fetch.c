/* fetch.c: `flue fetch` reads an archive back, from wherever it lies: one merged profile as pprof,
 * folded text or a flame graph. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "archive/layout/key.h"
#include "archive/read/archive.h"
#include "archive/read/render.h"
#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "collector/base/log.h"
#include "collector/commands/command.h"

#define LABELS_MAX  32
#define CONFIG_ROOM 4096
#define TEXT_MAX    ((size_t)1 << 30)
#define SECOND      1000000000ull

static const struct flue_object_vendor *const vendors[] = {&flue_object_folder, &flue_object_s3,
                                                           &flue_object_gcs, &flue_object_azure};

static int failed(const char *text)
{
    fprintf(stderr, "flue fetch: %s\n", text);
    return FLUE_EXIT_FAILED;
}

static void warn(const char *text)
{
    fprintf(stderr, "flue fetch: left out: %s\n", text);
}

/* ---- the question ---------------------------------------------------------------------------- */

/* "-1h" from now, "2026-11-21T08:00:00Z", or seconds since 1970. */
static bool read_time(const char *text, uint64_t now, uint64_t *out)
{
    struct flue_bytes b = flue_bytes_of(text);
    int64_t ns;
    uint64_t seconds;
    struct tm utc = {0};
    const char *rest;

    if (strcmp(text, "now") == 0) {
        *out = now;
        return true;
    }
    if (flue_parse_u64(b, &seconds) && seconds < (uint64_t)INT64_MAX / SECOND) {
        *out = seconds * SECOND;
        return true;
    }
    if ((*text == '-' || *text == '+') && flue_parse_duration(b, &ns)) {
        *out = now + (uint64_t)ns;
        return ns >= 0 || (uint64_t)-ns <= now;
    }
    rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
    if (!rest && (rest = strptime(text, "%Y-%m-%dT%H:%M", &utc)) == NULL)
        rest = strptime(text, "%Y-%m-%d", &utc);
    if (!rest || (*rest && strcmp(rest, "Z") != 0))
        return false;
    *out = (uint64_t)timegm(&utc) * SECOND;
    return timegm(&utc) > 0;
}

struct asked {
    struct flue_question question;
    struct flue_pprof_label labels[LABELS_MAX];
    const char *output, *format, *layout;
};

static bool read_labels(const struct flue_arguments *arguments, struct asked *asked)
{
    for (size_t i = 0; i < arguments->own_count; i++) {
        struct flue_bytes text = flue_bytes_of(arguments->own[i].value);
        size_t equals = flue_bytes_find(text, '=');
        if (strcmp(arguments->own[i].name, "--label") != 0)
            continue;
        if (equals == SIZE_MAX || equals == 0 || asked->question.label_count == LABELS_MAX) {
            failed("--label is NAME=VALUE, at most 32 times");
            return false;
        }
        asked->labels[asked->question.label_count++] = (struct flue_pprof_label){
            flue_bytes_first(text, equals), flue_bytes_from(text, equals + 1)};
    }
    asked->question.labels = asked->labels;
    return true;
}

static bool one_of(const char *value, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(value, *list) == 0)
            return true;
    return false;
}

static const char *value_or(const struct flue_arguments *arguments, const char *name,
                            const char *otherwise)
{
    const char *value = flue_argument_value(arguments, name);
    return value ? value : otherwise;
}

static bool read_question(const struct flue_arguments *arguments, struct asked *asked)
{
    static const char *const formats[] = {"pprof", "folded", "svg", NULL};
    static const char *const layouts[] = {"auto", "otlp", "pprof", "scan", NULL};
    uint64_t now = flue_wall_ns();
    const char *from = value_or(arguments, "--from", "-1h"),
               *to = value_or(arguments, "--to", "now");
    struct flue_question *q = &asked->question;

    *q = (struct flue_question){
        .tenant = flue_bytes_of(value_or(arguments, "--tenant", "")),
        .service = flue_bytes_of(value_or(arguments, "--service", "")),
        .type = flue_bytes_of(value_or(arguments, "--type", "")),
        .writer = flue_argument_value(arguments, "--writer"),
    };
    asked->output = value_or(arguments, "-o", "-");
    asked->format = value_or(arguments, "--format", "pprof");
    asked->layout = value_or(arguments, "--layout", "auto");
    q->scan = strcmp(asked->layout, "scan") == 0;
    if (!read_labels(arguments, asked))
        return false;
    if (!one_of(asked->format, formats))
        failed("--format is pprof, folded or svg");
    else if (!one_of(asked->layout, layouts))
        failed("--layout is auto, otlp, pprof, or scan (layout otlp without its indexes)");
    else if (!read_time(from, now, &q->from_ns) || !read_time(to, now, &q->to_ns))
        failed("--from and --to are -1h, 2026-11-21T08:00:00Z, now, or seconds since 1970");
    else if (q->from_ns >= q->to_ns)
        failed("--from is not before --to");
    else
        return true;
    return false;
}

/* ---- the answer ------------------------------------------------------------------------------ */

static bool write_all(int fd, struct flue_bytes b)
{
    while (b.size) {
        ssize_t n = write(fd, b.data, b.size);
        if (n <= 0)
            return false;
        b = flue_bytes_from(b, (size_t)n);
    }
    return true;
}

static int write_output(const char *path, struct flue_bytes content)
{
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDOUT_FILENO : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 || !write_all(fd, content) || (!standard && close(fd) != 0)) {
        perror(path);
        return FLUE_EXIT_FAILED;
    }
    return FLUE_EXIT_OK;
}

static void write_title(const struct asked *asked, char *out, size_t size)
{
    char from[25], to[25];

    flue_format_time(asked->question.from_ns, from);
    flue_format_time(asked->question.to_ns, to);
    snprintf(out, size, "%.*s  %.*s  %s to %s", FLUE_PRI(asked->question.service),
             FLUE_PRI(asked->question.type), from, to);
}

static int answer(const struct asked *asked, struct flue_block *profile, uint32_t value)
{
    struct flue_bytes raw = flue_block_bytes(profile);
    struct flue_block *packed = NULL;
    struct flue_buffer text;
    struct flue_error error;
    char title[600];
    enum flue_code code;
    int status;

    if (strcmp(asked->format, "pprof") == 0) {
        struct flue_slices one = {.items = &raw, .count = 1, .room = 1, .total = raw.size};
        if (strcmp(asked->output, "-") == 0 && isatty(STDOUT_FILENO))
            return failed("a pprof is binary: name a file with -o, or use --format folded");
        if (flue_deflate(FLUE_GZIP, FLUE_LEVEL_DENSE, &one, &packed, &error))
            return failed(error.text);
        status = write_output(asked->output, flue_block_bytes(packed));
        flue_block_unref(packed);
        return status;
    }
    flue_buffer_init(&text, TEXT_MAX);
    write_title(asked, title, sizeof title);
    code = strcmp(asked->format, "svg") == 0 ? flue_render_svg(raw, value, title, &text, &error)
                                             : flue_render_folded(raw, value, &text, &error);
    status = code ? failed(error.text) : write_output(asked->output, flue_buffer_bytes(&text));
    flue_buffer_destroy(&text);
    return status;
}

/* ---- the work -------------------------------------------------------------------------------- */

static int search(struct asked *asked, struct flue_source *source, struct flue_bytes prefix)
{
    struct flue_collect *collect = flue_collect_new(&asked->question);
    struct flue_archive_reader reader = {.source = source,
                                         .prefix = prefix,
                                         .question = &asked->question,
                                         .collect = collect,
                                         .warn = warn};
    struct flue_block *profile = NULL;
    struct flue_error error;
    enum flue_code code = FLUE_OK;
    bool found = false;
    uint32_t value;
    int status;

    if (!collect)
        return failed("no memory");
    if (strcmp(asked->layout, "pprof") != 0)
        code = flue_read_otlp(&reader, &found, &error);
    if (!code && !found &&
        (strcmp(asked->layout, "pprof") == 0 || strcmp(asked->layout, "auto") == 0))
        code = flue_read_pprof(&reader, &found, &error);
    if (!code)
        code = flue_collect_finish(collect, &profile, &value, &error);
    if (code) {
        status = failed(error.text);
    } else {
        status = answer(asked, profile, value);
        fprintf(stderr, "%llu profiles, %llu GETs of %llu bytes, %llu LISTs\n",
                (unsigned long long)flue_collect_count(collect), (unsigned long long)source->gets,
                (unsigned long long)source->bytes, (unsigned long long)source->lists);
    }
    flue_block_unref(profile);
    flue_collect_destroy(collect);
    return status;
}

static const struct flue_object_vendor *vendor_of(const char *url)
{
    for (size_t i = 0; i < sizeof vendors / sizeof vendors[0]; i++)
        for (const char *const *scheme = vendors[i]->schemes; *scheme; scheme++) {
            size_t size = strlen(*scheme);
            if (strncmp(url, *scheme, size) == 0 && strncmp(url + size, "://", 3) == 0)
                return vendors[i];
        }
    return NULL;
}

static void destroy_store(struct flue_loop *loop, void *arg)
{
    flue_object_store_destroy(arg);
}

static int fetch_from(struct asked *asked, const struct flue_object_vendor *vendor, const char *url,
                      struct flue_arena *arena)
{
    void *config = flue_arena_zalloc(arena, 1, vendor->config_size);
    struct flue_source source = {.timeout_ns = 60 * SECOND};
    struct flue_loops *loops = NULL;
    struct flue_bytes prefix;
    struct flue_error error;
    int status;

    if (!config)
        return failed("no memory");
    if (vendor->from_url(url, arena, config, &prefix, &error) || flue_loops_new(1, &loops, &error))
        return failed(error.text);
    char *folder = flue_key_prefix(arena, flue_arena_string(arena, prefix));
    source.loop = loops->items[0];
    if (!folder || vendor->open(config, source.loop, NULL, &source.store, &error) ||
        flue_loops_run(loops, &error)) {
        status = failed(folder ? error.text : "no memory");
    } else {
        status = search(asked, &source, flue_bytes_of(folder));
        flue_loop_call(source.loop, destroy_store, source.store);
        source.store = NULL;
        flue_loops_stop(loops);
    }
    flue_object_store_destroy(source.store);
    flue_loops_destroy(loops);
    return status;
}

static int fetch(const struct flue_arguments *arguments)
{
    const struct flue_object_vendor *vendor;
    struct asked asked = {.output = NULL};
    struct flue_arena arena;
    char path[CONFIG_ROOM];
    const char *url;
    int status;

    if (arguments->rest_count != 1) {
        failed("which archive? file:///folder, s3://bucket/prefix, gs://bucket/prefix, "
               "az://account/container/prefix");
        return FLUE_EXIT_USAGE;
    }
    if (!read_question(arguments, &asked))
        return FLUE_EXIT_USAGE;
    url = arguments->rest[0];
    if (!strstr(url, "://")) { /* a folder, as people type it */
        char *whole = realpath(url, NULL);
        if (!whole) {
            perror(url);
            return FLUE_EXIT_FAILED;
        }
        snprintf(path, sizeof path, "file://%s", whole);
        free(whole);
        url = path;
    }
    vendor = vendor_of(url);
    if (!vendor) {
        failed("an archive is at file://, s3://, gs:// or az://");
        return FLUE_EXIT_USAGE;
    }
    flue_log_configure(FLUE_ERROR, false, 2);
    flue_arena_init(&arena, 16u << 20, 0);
    status = fetch_from(&asked, vendor, url, &arena);
    flue_arena_destroy(&arena);
    return status;
}

static const char *const options[] = {"--service", "--type",   "--from",   "--to",
                                      "--tenant",  "--label",  "--format", "--layout",
                                      "-o",        "--writer", NULL};

const struct flue_command flue_command_fetch = {
    .name = "fetch",
    .summary = "reads an archive back: one merged profile, folded text or a flame graph",
    .usage = "URL [--service NAME] [--type cpu] [--from -1h] [--to now] [--tenant NAME]\n"
             "           [--label NAME=VALUE]... [--writer NAME] [--layout auto|otlp|pprof|scan]\n"
             "           [--format pprof|folded|svg] [-o FILE]",
    .options = FLUE_TAKES_WORDS,
    .own = options,
    .run = fetch,
};
