/* deadletter.c: what a destination will never take, set aside in a folder beside the log.
 *
 * One letter is two files, TIME-RANDOM.otlp or .pprof (the encoded form, as it lay in the queue)
 * and TIME-RANDOM.json (why, from where, to whom). The data is written first and the description
 * renamed into place last, so whoever finds a description finds the data. The folder is bounded:
 * the oldest letters make room. `flue queue replay` reads it. Written by the pool.
 */
#include "collector/pipeline/item.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER_MAX  ((uint64_t)256 << 20) /* bytes of all letters */
#define LETTERS_MAX 10000
#define LETTER_MAX  ((size_t)256 << 20)
#define JSON_MAX    ((size_t)64 << 10)
#define NAME_SIZE   40

struct flue_dead_letters {
    char *directory;
    char *exporter;
    struct flue_metric *kept;
};

struct letter {
    struct flue_job job; /* first */
    char *directory;
    char name[NAME_SIZE];
    const char *suffix;
    struct flue_buffer json;
    size_t size;
    uint8_t data[];
};

/* ---- on the pool ----------------------------------------------------------------------------- */

static bool write_file(int folder, const char *name, struct flue_bytes data)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return false;
    bool good = true;
    while (good && data.size) {
        ssize_t n = write(fd, data.data, data.size);
        if (n < 0 && errno == EINTR)
            continue;
        good = n > 0;
        if (good)
            data = flue_bytes_from(data, (size_t)n);
    }
    good = good && fsync(fd) == 0;
    if (close(fd) != 0)
        good = false;
    if (!good)
        (void)unlinkat(folder, name, 0);
    return good;
}

static int is_letter(const struct dirent *entry)
{
    return entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
}

/* The oldest go until `size` more fits: names begin with their time. */
static void make_room(int folder, const char *directory, uint64_t size)
{
    struct dirent **entries;
    struct stat facts;
    uint64_t sum = 0;
    int count = scandir(directory, &entries, is_letter, alphasort), first = 0;

    for (int i = 0; i < count; i++)
        if (fstatat(folder, entries[i]->d_name, &facts, AT_SYMLINK_NOFOLLOW) == 0)
            sum += (uint64_t)facts.st_size;
    for (int i = 0; i < count; i++) {
        bool full = sum + size > FOLDER_MAX || count - first > 2 * LETTERS_MAX;
        if (full && fstatat(folder, entries[i]->d_name, &facts, AT_SYMLINK_NOFOLLOW) == 0 &&
            unlinkat(folder, entries[i]->d_name, 0) == 0) {
            sum -= (uint64_t)facts.st_size < sum ? (uint64_t)facts.st_size : sum;
            first++;
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static bool write_letter(struct letter *letter)
{
    char data[NAME_SIZE + 16], part[NAME_SIZE + 16], json[NAME_SIZE + 16];

    if (mkdir(letter->directory, 0700) != 0 && errno != EEXIST)
        return false;
    int folder = open(letter->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return false;
    (void)snprintf(data, sizeof data, "%s%s", letter->name, letter->suffix);
    (void)snprintf(part, sizeof part, "%s.part", letter->name);
    (void)snprintf(json, sizeof json, "%s.json", letter->name);
    make_room(folder, letter->directory, letter->size + letter->json.size);
    bool good = write_file(folder, data, flue_bytes(letter->data, letter->size)) &&
                write_file(folder, part, flue_buffer_bytes(&letter->json)) &&
                renameat(folder, part, folder, json) == 0;
    int failure = errno;
    if (good)
        (void)fsync(folder);
    (void)close(folder);
    errno = failure;
    return good;
}

static void work(struct flue_job *job)
{
    struct letter *letter = (struct letter *)job;

    if (!write_letter(letter))
        flue_log(FLUE_ERROR, "exporter", "what was refused could not be set aside and is lost",
                 FLUE_S("folder", letter->directory), FLUE_S("error", strerror(errno)));
}

static void written(struct flue_job *job)
{
    struct letter *letter = (struct letter *)job;

    flue_buffer_destroy(&letter->json);
    free(letter->directory);
    free(letter);
}

/* ---- on the loop ----------------------------------------------------------------------------- */

static void json_text(struct flue_buffer *out, const char *key, struct flue_bytes value)
{
    flue_buffer_printf(out, ",\"%s\":", key);
    flue_buffer_json(out, value);
}

static void describe(struct flue_buffer *out, const struct flue_dead_letters *letters,
                     const struct flue_item *item, const char *reason,
                     const struct flue_error *error)
{
    const struct flue_batch *batch = item->send.batch;
    const struct flue_branch *branch = item->route ? item->route : item->branch;
    const struct flue_origin *origin = batch->origin;
    char now[32];

    flue_format_time(flue_wall_ns(), now);
    flue_buffer_printf(out, "{\"time\":\"%s\"", now);
    json_text(out, "exporter", flue_bytes_of(letters->exporter));
    json_text(out, "pipeline", flue_bytes_of(branch->pipeline));
    json_text(out, "reason", flue_bytes_of(reason));
    json_text(out, "error", flue_bytes_of(error ? error->text : ""));
    json_text(out, "form",
              flue_bytes_of(batch->payload->ops->form == FLUE_FORM_PPROF ? "pprof" : "otlp"));
    if (origin) {
        flue_format_time(origin->received_ns, now);
        json_text(out, "received", flue_bytes_of(now));
        json_text(out, "receiver", origin->receiver);
        json_text(out, "peer", origin->peer);
        json_text(out, "tenant", origin->tenant);
    }
    flue_buffer_printf(out,
                       ",\"record\":%llu,\"attempts\":%u,\"profiles\":%llu,\"samples\":%llu,"
                       "\"bytes\":%llu}\n",
                       (unsigned long long)item->send.record, item->send.attempt + 1,
                       (unsigned long long)item->counts.profiles,
                       (unsigned long long)item->counts.samples,
                       (unsigned long long)item->counts.bytes);
}

static struct letter *make_letter(const struct flue_dead_letters *letters,
                                  const struct flue_item *item, const char *reason,
                                  const struct flue_error *error)
{
    const struct flue_payload *payload = item->send.batch->payload;
    size_t size = payload->ops->encoded_size(payload);
    struct flue_slices slices = {0};
    struct flue_arena arena;
    struct letter *letter = size <= LETTER_MAX ? malloc(sizeof *letter + size) : NULL;

    if (!letter)
        return NULL;
    memset(letter, 0, sizeof *letter);
    flue_arena_init(&arena, (size_t)16 << 20, 0);
    bool good = payload->ops->slices(payload, &arena, &slices, NULL) == FLUE_OK &&
                slices.total <= size && (letter->directory = strdup(letters->directory));
    if (good) {
        flue_slices_copy(&slices, letter->data);
        letter->size = slices.total;
        flue_buffer_init(&letter->json, JSON_MAX);
        describe(&letter->json, letters, item, reason, error);
        good = !letter->json.failed;
    }
    flue_arena_destroy(&arena);
    if (!good) {
        flue_buffer_destroy(&letter->json);
        free(letter->directory);
        free(letter);
        return NULL;
    }
    (void)snprintf(letter->name, sizeof letter->name, "%020llu-%08x",
                   (unsigned long long)flue_wall_ns(), (unsigned)flue_random_u64());
    letter->suffix = payload->ops->form == FLUE_FORM_PPROF ? ".pprof" : ".otlp";
    return letter;
}

void flue_dead_letters_keep(struct flue_dead_letters *letters, const struct flue_item *item,
                            const char *reason, const struct flue_error *error)
{
    struct letter *letter = make_letter(letters, item, reason, error);

    if (!letter) {
        flue_log(FLUE_ERROR, "exporter", "what was refused could not be set aside and is lost",
                 FLUE_S("exporter", letters->exporter), FLUE_S("error", "no memory"));
        return;
    }
    flue_metric_add(letters->kept, 1);
    flue_log(FLUE_WARN, "exporter", "refused for good and set aside",
             FLUE_S("exporter", letters->exporter), FLUE_S("folder", letters->directory),
             FLUE_S("letter", letter->name), FLUE_S("error", error ? error->text : ""));
    letter->job.work = work;
    letter->job.done = written;
    flue_pool_submit(item->at->loop, &letter->job);
}

enum flue_code flue_dead_letters_new(const char *directory, const char *exporter,
                                     struct flue_metrics *metrics, struct flue_dead_letters **out,
                                     struct flue_error *error)
{
    const struct flue_label labels[] = {{"exporter", exporter}, {NULL, NULL}};
    struct flue_dead_letters *letters = calloc(1, sizeof *letters);

    if (letters) {
        letters->directory = strdup(directory);
        letters->exporter = strdup(exporter);
    }
    if (!letters || !letters->directory || !letters->exporter) {
        flue_dead_letters_destroy(letters);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", exporter);
    }
    letters->kept = flue_metric(metrics, FLUE_COUNTER, "exporter_dead_letters",
                                "requests that were refused for good and set aside", labels);
    *out = letters;
    return FLUE_OK;
}

void flue_dead_letters_destroy(struct flue_dead_letters *letters)
{
    if (!letters)
        return;
    free(letters->directory);
    free(letters->exporter);
    free(letters);
}
