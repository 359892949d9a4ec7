/* deadletter.c: what a destination will never take, set aside in a folder beside the log.
 *
 * One letter is two files, NAME.otlp or .pprof (the encoded form, as it lay in the queue) and
 * NAME.json (why, from where, to whom). The data is written first and the description renamed into
 * place last, so whoever finds a description finds the data. The folder is bounded: the oldest
 * letters make room. `flue queue replay` reads it. Written by the pool.
 *
 * The record is finished in the log only when its letter is on disk. A kill in between brings the
 * record back, it is refused again, and its letter has the same name: record, exporter, content.
 *
 * A request of which the destination took a part gets no letter: an answer says how many were
 * refused, not which, and a letter of the whole would send twice what was taken. It is counted and
 * logged with what the destination said.
 */
#include "collector/pipeline/item.h"
#include "collector/pipeline/record.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/storage/format.h"
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
#define READ_AGAIN  UINT64_C(1000000000)

struct flue_dead_letters {
    char *directory;
    char *exporter;
    struct flue_metric *kept;
};

struct letter {
    struct flue_job job; /* first */
    struct flue_storage_read read;
    struct flue_timer timer; /* until it is read again */
    struct flue_dead_letters *letters;
    struct flue_exporter_loop *at;
    uint64_t record; /* what is finished when the letter is written */
    struct flue_owed *owed;
    struct flue_branch *branch;
    struct flue_counts counts;
    unsigned attempts;
    const char *reason;
    struct flue_error error;
    char name[NAME_SIZE];
    const char *suffix;
    struct flue_buffer json;
    uint8_t *copy;             /* of a batch in memory */
    struct flue_block *parked; /* read from the log */
    struct flue_bytes data;
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
    const char *directory = letter->letters->directory;
    char data[NAME_SIZE + 16], part[NAME_SIZE + 16], json[NAME_SIZE + 16];

    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return false;
    int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return false;
    (void)snprintf(data, sizeof data, "%s%s", letter->name, letter->suffix);
    (void)snprintf(part, sizeof part, "%s.part", letter->name);
    (void)snprintf(json, sizeof json, "%s.json", letter->name);
    make_room(folder, directory, letter->data.size + letter->json.size);
    bool good = write_file(folder, data, letter->data) &&
                write_file(folder, part, flue_buffer_bytes(&letter->json)) &&
                renameat(folder, part, folder, json) == 0 && fsync(folder) == 0;
    int failure = errno;
    (void)close(folder);
    errno = failure;
    return good;
}

static void work(struct flue_job *job)
{
    struct letter *letter = (struct letter *)job;

    if (!write_letter(letter))
        flue_log(FLUE_ERROR, "exporter", "what was refused could not be set aside and is lost",
                 FLUE_S("folder", letter->letters->directory), FLUE_S("error", strerror(errno)));
}

/* ---- on the loop ----------------------------------------------------------------------------- */

static void letter_end(struct letter *letter, bool left)
{
    struct flue_exporter *exporter = letter->at->exporter;

    flue_record_settle(exporter, letter->record, letter->owed, left);
    flue_buffer_destroy(&letter->json);
    flue_block_unref(letter->parked);
    free(letter->copy);
    free(letter);
    atomic_fetch_sub(&exporter->handovers, 1);
}

static void written(struct flue_job *job)
{
    letter_end((struct letter *)job, false);
}

static void json_text(struct flue_buffer *out, const char *key, struct flue_bytes value)
{
    flue_buffer_printf(out, ",\"%s\":", key);
    flue_buffer_json(out, value);
}

static void describe(struct letter *letter, enum flue_form form, enum flue_signal signal,
                     const struct flue_origin *origin)
{
    struct flue_buffer *out = &letter->json;
    char now[32];

    flue_buffer_init(out, JSON_MAX);
    flue_format_time(flue_wall_ns(), now);
    flue_buffer_printf(out, "{\"time\":\"%s\"", now);
    json_text(out, "exporter", flue_bytes_of(letter->letters->exporter));
    json_text(out, "pipeline", flue_bytes_of(letter->branch->pipeline));
    json_text(out, "reason", flue_bytes_of(letter->reason));
    json_text(out, "error", flue_bytes_of(letter->error.text));
    json_text(out, "form", flue_bytes_of(form == FLUE_FORM_PPROF ? "pprof" : "otlp"));
    json_text(out, "signal",
              flue_bytes_of(signal == FLUE_TRACES    ? "traces"
                            : signal == FLUE_METRICS ? "metrics"
                                                     : "profiles"));
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
                       (unsigned long long)letter->record, letter->attempts,
                       (unsigned long long)letter->counts.profiles,
                       (unsigned long long)letter->counts.samples,
                       (unsigned long long)letter->counts.bytes);
    letter->suffix = form == FLUE_FORM_PPROF ? ".pprof" : ".otlp";
}

static void cannot(struct letter *letter, const char *why)
{
    flue_log(FLUE_ERROR, "exporter", "what was refused could not be set aside and is lost",
             FLUE_S("exporter", letter->letters->exporter), FLUE_S("error", why));
    letter_end(letter, false);
}

static void post(struct letter *letter)
{
    if (letter->json.failed) {
        cannot(letter, "no memory");
        return;
    }
    (void)snprintf(
        letter->name, sizeof letter->name, "%020llu-%08x-%08x", (unsigned long long)letter->record,
        (unsigned)flue_crc32c(0, letter->letters->exporter, strlen(letter->letters->exporter)),
        (unsigned)flue_crc32c(0, letter->data.data, letter->data.size));
    flue_metric_add(letter->letters->kept, 1);
    flue_log(FLUE_WARN, "exporter", "refused for good and set aside",
             FLUE_S("exporter", letter->letters->exporter),
             FLUE_S("folder", letter->letters->directory), FLUE_S("letter", letter->name),
             FLUE_S("error", letter->error.text));
    letter->job.work = work;
    letter->job.done = written;
    flue_pool_submit(letter->at->loop, &letter->job);
}

static bool copy_batch(struct letter *letter, const struct flue_batch *batch)
{
    const struct flue_payload *payload = batch->payload;
    size_t size = payload->ops->encoded_size(payload);
    struct flue_slices slices = {0};
    struct flue_arena arena;

    letter->copy = size <= LETTER_MAX ? malloc(size ? size : 1) : NULL;
    if (!letter->copy)
        return false;
    flue_arena_init(&arena, (size_t)16 << 20, 0);
    bool good =
        payload->ops->slices(payload, &arena, &slices, NULL) == FLUE_OK && slices.total <= size;
    if (good) {
        flue_slices_copy(&slices, letter->copy);
        letter->data = flue_bytes(letter->copy, slices.total);
        describe(letter, payload->ops->form, payload->signal, batch->origin);
    }
    flue_arena_destroy(&arena);
    return good;
}

static void read_again(struct flue_timer *timer)
{
    struct letter *letter = (struct letter *)((char *)timer - offsetof(struct letter, timer));

    if (letter->at->draining) /* it is refused once more after the next start */
        letter_end(letter, true);
    else
        flue_storage_read(&letter->read);
}

static void read_parked(struct flue_storage_read *read, enum flue_code code,
                        const struct flue_error *error)
{
    struct letter *letter = read->user;
    struct flue_record_head head;
    struct flue_error own;
    struct flue_arena arena;

    if (code != FLUE_OK) {
        if (flue_code_facts(code)->retryable) {
            letter->timer.fire = read_again;
            flue_timer_arm(letter->at->loop, &letter->timer, flue_monotonic_ns() + READ_AGAIN);
        } else {
            cannot(letter, error->text);
        }
        return;
    }
    letter->parked = read->body;
    letter->data = flue_block_bytes(read->body);
    flue_arena_init(&arena, (size_t)4 * FLUE_RECORD_HEAD_MAX, 0);
    code = flue_record_read(flue_block_bytes(read->head), &arena, &head, &own);
    if (code == FLUE_OK)
        describe(letter, head.form, head.signal, &head.origin);
    flue_arena_destroy(&arena);
    flue_block_unref(read->head);
    if (code == FLUE_OK)
        post(letter);
    else
        cannot(letter, own.text);
}

void flue_dead_letters_keep(struct flue_dead_letters *letters, struct flue_item *item,
                            const char *reason, const struct flue_error *error)
{
    struct letter *letter = calloc(1, sizeof *letter);

    if (!letter) {
        flue_log(FLUE_ERROR, "exporter", "what was refused could not be set aside and is lost",
                 FLUE_S("exporter", letters->exporter), FLUE_S("error", "no memory"));
        return;
    }
    letter->letters = letters;
    letter->at = item->at;
    letter->branch = item->route ? item->route : item->branch;
    letter->counts = item->counts;
    letter->attempts = item->send.attempt + 1;
    letter->reason = reason;
    letter->error.text[0] = 0;
    if (error)
        letter->error = *error;
    letter->record = item->send.record;
    letter->owed = item->owed;
    item->send.record = 0;
    item->owed = NULL;
    atomic_fetch_add(&item->at->exporter->handovers, 1);
    if (item->send.batch) {
        if (copy_batch(letter, item->send.batch))
            post(letter);
        else
            cannot(letter, "no memory");
        return;
    }
    letter->read = (struct flue_storage_read){.queue = item->at->exporter->log,
                                              .record = letter->record,
                                              .account = letter->branch->account,
                                              .loop = item->at->loop,
                                              .done = read_parked,
                                              .user = letter};
    flue_storage_read(&letter->read);
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
