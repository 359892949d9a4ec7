/* Object stores from the command line, for the end-to-end tests.
 *
 *   object URL put KEY FILE [create]       object URL get KEY [OFFSET SIZE] > file
 *   object URL list [PREFIX [AFTER [LIMIT [DELIMITER]]]]           object URL delete KEY
 *   object URL fill KEY BYTES              a body of that size, of one repeated block
 *   object URL bench KEY BYTES COUNT       COUNT puts of BYTES, 8 at a time; CPU and wall time
 *   object URL cancel KEY BYTES [FILE]     a put that is cancelled 50 ms after it began, or when the
 *                                          file is there
 *   object URL several                     lines of the above from standard input, with one store
 *
 * Keys and prefixes are escaped as in URLs. Prints "ok …", or "CODE retry_after_ms existed: text",
 * exit status 0 or 1. `FLUE_OBJECT_TIMEOUT`: seconds of a request. `FLUE_OBJECT_CONFIG`: not from a
 * URL, but this YAML of the vendor's table ("s3 {region: …}"). `FLUE_OBJECT_CLOCK`: seconds that
 * this process's clock is moved by. */
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/object/azure.h"
#include "archive/object/escape.h"
#include "archive/object/folder.h"
#include "archive/object/gcs.h"
#include "archive/object/s3.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "config/bind.h"

static struct flue_loops *loops;
static struct flue_loop *loop;
static struct flue_object_store *store;
static struct flue_arena arena;
static sem_t ended;
static uint64_t timeout_s = 30;

struct work {
    struct flue_object_request request;
    const char *verb;
    const char *until; /* cancel: the file to wait for */
    struct flue_slices body;
    struct flue_timer timer;
    struct flue_error error;
    unsigned left, running;
};

static struct flue_bytes unescape(const char *text)
{
    struct flue_bytes out;
    if (!flue_url_unescape(flue_bytes_of(text ? text : ""), &arena, &out))
        exit(2);
    return out;
}

static void print_key(struct flue_bytes key)
{
    struct flue_buffer out;
    flue_buffer_init(&out, 16384);
    flue_url_escape(&out, key, true);
    fputs(out.size ? out.data : "", stdout);
    flue_buffer_destroy(&out);
}

static void on_done(struct flue_object_request *request)
{
    struct work *work = request->user;
    work->error = request->error;
    if (!request->error.code && request->data) {
        fwrite(request->data->data, 1, request->data->size, stdout);
        fprintf(stderr, "size %llu\n", (unsigned long long)request->object_size);
    }
    flue_block_unref(request->data);
    for (size_t i = 0; !request->error.code && i < request->listed_count; i++) {
        const struct flue_object_listed *l = &request->listed[i];
        print_key(l->key);
        printf(" %llu %d %lld\n", (unsigned long long)l->size, l->folder, (long long)l->modified);
    }
    if (!request->error.code && strcmp(work->verb, "list") == 0)
        fprintf(stderr, "truncated %d\n", request->truncated);
    sem_post(&ended);
}

static void on_bench(struct flue_object_request *request)
{
    struct work *work = request->user;
    if (request->error.code)
        work->error = request->error;
    struct flue_object_request again = {.store = store,
                                        .key = request->key,
                                        .body = request->body,
                                        .done = on_bench,
                                        .user = work,
                                        .deadline_ns = request->deadline_ns};
    if (work->left && !work->error.code) {
        work->left--;
        *request = again;
        flue_object_put(request);
    } else if (--work->running == 0) {
        sem_post(&ended);
    }
}

static void on_cancel(struct flue_timer *timer)
{
    struct work *work = (struct work *)(void *)((char *)timer - offsetof(struct work, timer));
    if (work->until && access(work->until, F_OK) != 0)
        flue_timer_arm(loop, timer, flue_monotonic_ns() + 10000000);
    else
        flue_object_cancel(&work->request);
}

static void begin(struct flue_loop *on, void *arg)
{
    struct work *work = arg;
    const char *verb = work->verb;
    if (strcmp(verb, "get") == 0)
        flue_object_get(&work->request);
    else if (strcmp(verb, "list") == 0)
        flue_object_list(&work->request);
    else if (strcmp(verb, "delete") == 0)
        flue_object_delete(&work->request);
    else
        flue_object_put(&work->request);
    if (strcmp(verb, "cancel") == 0) {
        work->timer.fire = on_cancel;
        flue_timer_arm(on, &work->timer, flue_monotonic_ns() + 50000000);
    }
}

static void begin_bench(struct flue_loop *on, void *arg)
{
    static struct flue_object_request requests[8];
    struct work *work = arg;
    work->running = 8;
    for (unsigned i = 0; i < 8; i++) {
        requests[i] = work->request;
        requests[i].done = on_bench;
        flue_object_put(&requests[i]);
    }
}

static void make_body(struct work *work, uint64_t size)
{
    static uint8_t block[1 << 20];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)(i * 2654435761u >> 13);
    while (size) {
        size_t part = size < sizeof block ? (size_t)size : sizeof block;
        if (!flue_slices_add(&work->body, &arena, flue_bytes(block, part)))
            exit(2);
        size -= part;
    }
    work->request.body = &work->body;
}

static void read_body(struct work *work, const char *path)
{
    struct stat facts;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &facts) != 0) {
        perror(path);
        exit(2);
    }
    size_t size = (size_t)facts.st_size;
    uint8_t *data = flue_arena_alloc(&arena, size + 1);
    if (!data || read(fd, data, size) != (ssize_t)size)
        exit(2);
    close(fd);
    for (size_t at = 0; at < size; at += 100000) /* several slices, as bodies are */
        flue_slices_add(&work->body, &arena,
                        flue_bytes_first(flue_bytes(data + at, size - at), 100000));
    work->request.body = &work->body;
}

static int run(int count, char **words)
{
    struct work *work = calloc(1, sizeof *work);
    const char *verb = words[0];
    work->verb = verb;
    work->request = (struct flue_object_request){.store = store,
                                                 .key = unescape(count > 1 ? words[1] : ""),
                                                 .deadline_ns = flue_monotonic_ns() +
                                                                timeout_s * UINT64_C(1000000000),
                                                 .done = on_done,
                                                 .user = work};
    bool bench = strcmp(verb, "bench") == 0;
    if (strcmp(verb, "put") == 0) {
        read_body(work, words[2]);
        if (count > 3)
            work->request.create = FLUE_OBJECT_CREATE;
    } else if (strcmp(verb, "fill") == 0 || strcmp(verb, "cancel") == 0 || bench) {
        make_body(work, strtoull(words[2], NULL, 10));
        work->until = verb[0] == 'c' && count > 3 ? words[3] : NULL;
    } else if (strcmp(verb, "get") == 0 && count > 3) {
        work->request.offset = strtoll(words[2], NULL, 10);
        work->request.size = strtoull(words[3], NULL, 10);
    } else if (strcmp(verb, "list") == 0) {
        work->request.start_after = unescape(count > 2 ? words[2] : "");
        work->request.limit = count > 3 ? (unsigned)strtoul(words[3], NULL, 10) : 0;
        work->request.delimiter = count > 4 ? words[4][0] : 0;
    }
    struct rusage before, after;
    uint64_t from = flue_monotonic_ns();
    getrusage(RUSAGE_SELF, &before);
    if (bench)
        work->left = (unsigned)strtoul(words[3], NULL, 10) - 8;
    flue_loop_call(loop, bench ? begin_bench : begin, work);
    while (sem_wait(&ended) != 0)
        continue;
    getrusage(RUSAGE_SELF, &after);
    if (bench && !work->error.code) {
        double bytes = strtod(words[2], NULL) * strtod(words[3], NULL);
        double cpu = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
                     (double)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
                     (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1e6 +
                     (double)(after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e6;
        double wall = (double)(flue_monotonic_ns() - from) / 1e9;
        printf("%.0f MB/s of CPU, %.0f MB/s of wall time\n", bytes / cpu / 1e6, bytes / wall / 1e6);
    }
    enum flue_code code = work->error.code;
    fflush(stdout);
    if (code)
        fprintf(stderr, "%s %u %d: %s\n", flue_code_facts(code)->name, work->error.retry_after_ms,
                work->request.existed, work->error.text);
    else
        fprintf(stderr, "ok\n");
    fflush(stderr);
    free(work);
    return code != FLUE_OK;
}

static void destroy(struct flue_loop *on, void *arg)
{
    flue_object_store_destroy(store);
}

struct opening {
    const struct flue_object_vendor *vendor;
    void *config;
    struct flue_error error;
};

static void open_store(struct flue_loop *on, void *arg)
{
    struct opening *opening = arg;
    opening->vendor->open(opening->config, on, NULL, &store, &opening->error);
}

int main(int count, char **words)
{
    static const struct flue_object_vendor *const vendors[] = {
        &flue_object_s3, &flue_object_gcs, &flue_object_azure, &flue_object_folder};
    struct opening opening = {0};
    struct flue_bytes prefix = {0};
    const char *yaml = getenv("FLUE_OBJECT_CONFIG"), *clock = getenv("FLUE_OBJECT_CLOCK");
    if (count < 3)
        return 2;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    flue_arena_init(&arena, 0, 0);
    flue_log_configure(FLUE_DEBUG, false, STDERR_FILENO);
    if (clock)
        flue_clock_move(strtoll(clock, NULL, 10) * INT64_C(1000000000));
    if (getenv("FLUE_OBJECT_TIMEOUT"))
        timeout_s = strtoull(getenv("FLUE_OBJECT_TIMEOUT"), NULL, 10);
    for (size_t i = 0; i < 4; i++) {
        const struct flue_object_vendor *vendor = vendors[i];
        size_t size = strlen(vendor->schemes[0]);
        if (strncmp(words[1], vendor->schemes[0], size) == 0 && words[1][size] == ':') {
            opening.vendor = vendor;
            opening.config = flue_arena_zalloc(&arena, 1, vendor->config_size);
        }
    }
    if (!opening.vendor)
        return 2;
    if (yaml) {
        struct flue_check check;
        flue_check_init(&check, &arena);
        opening.config =
            flue_bind_yaml(&check, yaml, opening.vendor->fields, opening.vendor->config_size);
        if (opening.config)
            opening.vendor->check(opening.config, &check);
        for (size_t i = 0; i < check.count; i++)
            fprintf(stderr, "%s\n", check.items[i].text);
        if (!opening.config || check.mistakes)
            return 2;
    } else if (opening.vendor->from_url(words[1], &arena, opening.config, &prefix,
                                        &opening.error)) {
        fprintf(stderr, "%s\n", opening.error.text);
        return 2;
    }
    if (sem_init(&ended, 0, 0) != 0 || flue_loops_new(1, &loops, &opening.error) ||
        flue_loops_run(loops, &opening.error))
        return 2;
    loop = loops->items[0];
    flue_loop_call(loop, open_store, &opening);
    if (opening.error.code) {
        fprintf(stderr, "%s 0 0: %s\n", flue_code_facts(opening.error.code)->name,
                opening.error.text);
        flue_loops_destroy(loops);
        return 1;
    }
    int result = 0;
    if (strcmp(words[2], "several") == 0) {
        char line[8192], *split[8];
        while (fgets(line, sizeof line, stdin)) {
            int n = 0;
            line[strcspn(line, "\n")] = 0;
            for (char *at = line, *word; n < 8 && (word = strsep(&at, " "));)
                split[n++] = word;
            result |= run(n, split);
            fputs("--\n", stdout);
            fflush(stdout);
        }
    } else {
        result = run(count - 2, words + 2);
    }
    flue_loop_call(loop, destroy, NULL);
    flue_loops_stop(loops);
    flue_loops_destroy(loops);
    flue_arena_destroy(&arena);
    return result;
}
