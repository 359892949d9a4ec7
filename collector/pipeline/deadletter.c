/* deadletter.c: what a destination will never take, set aside in a folder beside the log.
 *
 * One letter is two files, NAME.otlp or .pprof (the encoded form, as it lay in the queue) and
 * NAME.json (why, from where, to whom). The data is written first and the description renamed into
 * place last, so whoever finds a description finds the data. The folder is bounded: the oldest
 * letters make room. `flue queue replay` reads it. Written by the pool.
 *
 * The record is finished in the log only when its letter is on disk; until then the books have it
 * as queued. A kill in between brings the record back, it is refused again, and its letter has the
 * same name: record, exporter, content. A letter that cannot be written (the disk is full) waits
 * and is written again every few seconds; a drain leaves its record in the log. What is a whole
 * record is read from the log for each try, the bytes of a part are kept: what waits counts as
 * memory of the queue, so that an exporter which may keep no more takes nothing more from the disk.
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
#define JSON_MAX    ((size_t)512 << 10) /* over the head of a record, escaped */
#define NAME_SIZE   40
#define SECOND      UINT64_C(1000000000)
#define MOST_WAIT   (30 * SECOND) /* between two tries of a folder that cannot be written */

struct flue_dead_letters {
    char *directory;
    char *exporter;
    struct flue_metric *kept, *failed;
    _Atomic int64_t waiting;
    _Atomic uint64_t closed_until, wait_ns; /* the folder could not be written; 0: it can */
};

struct flue_letter {
    struct flue_job job; /* first */
    struct flue_storage_read read;
    struct flue_timer timer;             /* until the next try */
    struct flue_letter *previous, *next; /* of those that wait on this loop */
    bool waits;
    struct flue_dead_letters *letters;
    struct flue_exporter_loop *at;
    uint64_t record; /* what is finished when the letter is written */
    struct flue_owed *owed;
    struct flue_branch *books;
    const char *pipeline;
    struct flue_counts counts;
    unsigned attempts, reason;
    struct flue_error error;
    char name[NAME_SIZE];
    const char *suffix;
    struct flue_buffer json;
    uint8_t *copy;           /* of a part; NULL: a whole record */
    struct flue_block *body; /* of a whole record, while it is written */
    struct flue_bytes data;
    uint64_t held; /* counted in the queue's memory */
    int failure;   /* errno of the last try */
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

static bool write_letter(const struct flue_letter *letter)
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

/* The first that finds the folder closed says so; the others wait with it. */
static void close_folder(struct flue_letter *letter)
{
    struct flue_dead_letters *letters = letter->letters;
    uint64_t wait = 2 * atomic_load(&letters->wait_ns), now = flue_monotonic_ns();

    wait = wait < SECOND ? SECOND : wait > MOST_WAIT ? MOST_WAIT : wait;
    atomic_store(&letters->wait_ns, wait);
    atomic_store(&letters->closed_until, now + wait);
    flue_metric_add(letters->failed, 1);
    flue_log(FLUE_ERROR, "exporter",
             "what was refused for good cannot be set aside: it stays in the queue on disk",
             FLUE_S("exporter", letters->exporter), FLUE_S("folder", letters->directory),
             FLUE_S("error", strerror(letter->failure)),
             FLUE_I("waiting", atomic_load(&letters->waiting) + 1),
             FLUE_U("next_try_ms", wait / 1000000));
}

static void work(struct flue_job *job)
{
    struct flue_letter *letter = (struct flue_letter *)job;
    struct flue_dead_letters *letters = letter->letters;

    letter->failure = EAGAIN;
    if (flue_monotonic_ns() < atomic_load(&letters->closed_until))
        return;
    letter->failure = write_letter(letter) ? 0 : errno ? errno : EIO;
    if (letter->failure) {
        close_folder(letter);
    } else {
        atomic_store(&letters->closed_until, 0);
        atomic_store(&letters->wait_ns, 0);
    }
}

/* ---- on the loop ----------------------------------------------------------------------------- */

static void unwait(struct flue_letter *letter)
{
    if (!letter->waits)
        return;
    letter->waits = false;
    atomic_fetch_sub(&letter->letters->waiting, 1);
    flue_timer_disarm(letter->at->loop, &letter->timer);
    if (letter->previous)
        letter->previous->next = letter->next;
    else
        letter->at->letters = letter->next;
    if (letter->next)
        letter->next->previous = letter->previous;
}

/* The letter is on disk, or (`reason`) what it would hold is gone. */
static void letter_end(struct flue_letter *letter, bool left, unsigned reason)
{
    struct flue_exporter *exporter = letter->at->exporter;

    unwait(letter);
    if (!left) {
        flue_ledger_subtract(&letter->books->ledger, letter->at->loop->index, FLUE_ROW_QUEUED,
                             &letter->counts);
        flue_ledger_drop(&letter->books->ledger, reason, &letter->counts);
    }
    flue_record_settle(exporter, letter->record, letter->owed, left);
    flue_queue_give_memory(exporter, letter->held);
    flue_buffer_destroy(&letter->json);
    flue_block_unref(letter->body);
    free(letter->copy);
    free(letter);
    atomic_fetch_sub(&exporter->handovers, 1);
}

static void try_letter(struct flue_letter *letter);

static void try_again(struct flue_timer *timer)
{
    struct flue_letter *letter =
        (struct flue_letter *)((char *)timer - offsetof(struct flue_letter, timer));

    if (flue_monotonic_ns() < atomic_load(&letter->letters->closed_until)) {
        flue_timer_arm(letter->at->loop, timer, flue_monotonic_ns() + SECOND);
        return;
    }
    unwait(letter);
    try_letter(letter);
}

static void wait_and_try_again(struct flue_letter *letter)
{
    struct flue_exporter_loop *at = letter->at;

    if (at->draining) { /* it is refused once more after the next start */
        letter_end(letter, true, 0);
        return;
    }
    flue_block_unref(letter->body);
    letter->body = NULL;
    letter->waits = true;
    atomic_fetch_add(&letter->letters->waiting, 1);
    letter->previous = NULL;
    letter->next = at->letters;
    if (at->letters)
        at->letters->previous = letter;
    at->letters = letter;
    letter->timer.fire = try_again;
    flue_timer_arm(at->loop, &letter->timer, flue_monotonic_ns() + SECOND);
}

void flue_dead_letters_leave(struct flue_exporter_loop *at)
{
    while (at->letters)
        letter_end(at->letters, true, 0);
}

static void written(struct flue_job *job)
{
    struct flue_letter *letter = (struct flue_letter *)job;
    struct flue_dead_letters *letters = letter->letters;

    if (letter->failure) {
        wait_and_try_again(letter);
        return;
    }
    flue_metric_add(letters->kept, 1);
    flue_log(FLUE_WARN, "exporter", "refused for good and set aside",
             FLUE_S("exporter", letters->exporter), FLUE_S("pipeline", letter->pipeline),
             FLUE_S("reason", flue_drop_reason_name(letter->reason)),
             FLUE_U("profiles", letter->counts.profiles), FLUE_U("samples", letter->counts.samples),
             FLUE_U("bytes", letter->counts.bytes), FLUE_S("folder", letters->directory),
             FLUE_S("letter", letter->name), FLUE_S("error", letter->error.text));
    letter_end(letter, false, letter->reason);
}

static void json_text(struct flue_buffer *out, const char *key, struct flue_bytes value)
{
    flue_buffer_printf(out, ",\"%s\":", key);
    flue_buffer_json(out, value);
}

static void describe(struct flue_letter *letter, enum flue_form form, enum flue_signal signal,
                     const struct flue_origin *origin)
{
    struct flue_buffer *out = &letter->json;
    char now[32];

    flue_buffer_destroy(out);
    flue_buffer_init(out, JSON_MAX);
    flue_format_time(flue_wall_ns(), now);
    flue_buffer_printf(out, "{\"time\":\"%s\"", now);
    json_text(out, "exporter", flue_bytes_of(letter->letters->exporter));
    json_text(out, "pipeline", flue_bytes_of(letter->pipeline));
    json_text(out, "reason", flue_bytes_of(flue_drop_reason_name(letter->reason)));
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

/* Its data cannot be had any more. */
static void lost(struct flue_letter *letter, const char *why)
{
    flue_log(FLUE_ERROR, "exporter", "dropped data that was accepted before",
             FLUE_S("exporter", letter->letters->exporter), FLUE_S("pipeline", letter->pipeline),
             FLUE_S("reason", flue_drop_reason_name(FLUE_DROP_DAMAGED)),
             FLUE_U("profiles", letter->counts.profiles), FLUE_U("samples", letter->counts.samples),
             FLUE_U("bytes", letter->counts.bytes), FLUE_S("error", why));
    letter_end(letter, false, FLUE_DROP_DAMAGED);
}

static void post(struct flue_letter *letter)
{
    if (letter->json.failed) { /* no memory now */
        wait_and_try_again(letter);
        return;
    }
    (void)snprintf(
        letter->name, sizeof letter->name, "%020llu-%08x-%08x", (unsigned long long)letter->record,
        (unsigned)flue_crc32c(0, letter->letters->exporter, strlen(letter->letters->exporter)),
        (unsigned)flue_crc32c(0, letter->data.data, letter->data.size));
    letter->job.work = work;
    letter->job.done = written;
    flue_pool_submit(letter->at->loop, &letter->job);
}

static bool copy_batch(struct flue_letter *letter, const struct flue_batch *batch)
{
    const struct flue_payload *payload = batch->payload;
    size_t size = payload->ops->encoded_size(payload);
    struct flue_slices slices = {0};
    struct flue_arena arena;

    letter->copy = malloc(size ? size : 1);
    if (!letter->copy)
        return false;
    flue_arena_init(&arena, (size_t)16 << 20, 0);
    bool good =
        payload->ops->slices(payload, &arena, &slices, NULL) == FLUE_OK && slices.total <= size;
    if (good) {
        flue_slices_copy(&slices, letter->copy);
        letter->data = flue_bytes(letter->copy, slices.total);
        letter->held += size;
        describe(letter, payload->ops->form, payload->signal, batch->origin);
    }
    flue_arena_destroy(&arena);
    return good && !letter->json.failed;
}

static void record_read(struct flue_storage_read *read, enum flue_code code,
                        const struct flue_error *error)
{
    struct flue_letter *letter = read->user;
    struct flue_record_head head;
    struct flue_error own;
    struct flue_arena arena;

    if (code != FLUE_OK) {
        if (flue_code_facts(code)->retryable)
            wait_and_try_again(letter);
        else
            lost(letter, error->text);
        return;
    }
    letter->body = read->body;
    letter->data = flue_block_bytes(read->body);
    flue_arena_init(&arena, (size_t)4 * FLUE_RECORD_HEAD_MAX, 0);
    code = flue_record_read(flue_block_bytes(read->head), &arena, &head, &own);
    if (code == FLUE_OK)
        describe(letter, head.form, head.signal, &head.origin);
    flue_arena_destroy(&arena);
    flue_block_unref(read->head);
    if (code == FLUE_OK)
        post(letter);
    else if (flue_code_facts(code)->retryable)
        wait_and_try_again(letter);
    else
        lost(letter, own.text);
}

static void try_letter(struct flue_letter *letter)
{
    if (letter->copy) {
        post(letter);
        return;
    }
    letter->read = (struct flue_storage_read){.queue = letter->at->exporter->log,
                                              .record = letter->record,
                                              .account = letter->books->account,
                                              .loop = letter->at->loop,
                                              .done = record_read,
                                              .user = letter};
    flue_storage_read(&letter->read);
}

bool flue_dead_letters_keep(struct flue_dead_letters *letters, struct flue_item *item,
                            unsigned reason, const struct flue_error *error)
{
    struct flue_exporter *exporter = item->at->exporter;
    struct flue_letter *letter = calloc(1, sizeof *letter);

    if (!letter)
        return false;
    letter->letters = letters;
    letter->at = item->at;
    letter->books = item->branch;
    letter->pipeline = (item->route ? item->route : item->branch)->pipeline;
    letter->counts = item->counts;
    letter->attempts = item->send.attempt + 1;
    letter->reason = reason;
    if (error)
        letter->error = *error;
    letter->record = item->send.record;
    letter->owed = item->owed;
    letter->held = sizeof *letter;
    if (item->owed && !copy_batch(letter, item->send.batch)) {
        flue_buffer_destroy(&letter->json);
        free(letter->copy);
        free(letter);
        return false;
    }
    item->send.record = 0;
    item->owed = NULL;
    atomic_fetch_add(&exporter->used_bytes, letter->held);
    atomic_fetch_add(&exporter->handovers, 1);
    try_letter(letter);
    return true;
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
    letters->failed =
        flue_metric(metrics, FLUE_COUNTER, "exporter_dead_letter_failures",
                    "tries to set something aside that failed; it stays in the queue", labels);
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
