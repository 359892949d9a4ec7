/* notes.c: small durable texts of queues, a file each: written beside, synced, renamed. */
#include "collector/storage/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/log.h"

#define SUFFIX  ".note"
#define LARGEST (sizeof(struct flue_storage_note_header) + FLUE_STORAGE_NAME + FLUE_STORAGE_NOTE)

static void note_path(const struct flue_storage *storage, uint64_t file, const char *suffix,
                      char *out)
{
    flue_storage_segment_path(storage, file, suffix, out);
}

static uint32_t note_crc(const struct flue_storage_note_header *header, struct flue_bytes name,
                         struct flue_bytes text)
{
    const uint8_t *from = (const uint8_t *)(&header->crc + 1);
    uint32_t crc = flue_crc32c(0, from, sizeof *header - (size_t)(from - (const uint8_t *)header));
    crc = flue_crc32c(crc, name.data, name.size);
    return flue_crc32c(crc, text.data, text.size);
}

static int write_note(struct flue_storage *storage, const char *fresh, const char *path,
                      struct flue_storage_note_header *header, struct flue_bytes name,
                      struct flue_bytes text, const char **what)
{
    const struct flue_storage_io *io = storage->io;
    *what = "create";
    int fd = io->open(io, fresh, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (fd < 0)
        return fd;
    struct iovec parts[3] = {{header, sizeof *header},
                             {(void *)(uintptr_t)name.data, name.size},
                             {(void *)(uintptr_t)text.data, text.size}};
    *what = "write";
    int failure = flue_storage_write_all(io, fd, parts, text.size ? 3 : 2, 0);
    if (!failure && storage->fsync) {
        *what = "sync";
        failure = io->sync(io, fd);
    }
    io->close(io, fd);
    if (!failure) {
        *what = "rename";
        failure = io->rename(io, fresh, path);
    }
    if (!failure && storage->fsync) {
        *what = "sync the folder of";
        failure = io->sync_folder(io, storage->directory);
        if (failure)
            io->unlink(io, path);
    }
    if (failure)
        io->unlink(io, fresh);
    return failure;
}

static bool add_note(struct flue_storage *storage, struct flue_storage_noted noted)
{
    if (storage->note_count == storage->note_room) {
        size_t room = storage->note_room ? storage->note_room * 2 : 16;
        struct flue_storage_noted *notes = realloc(storage->notes, room * sizeof *notes);
        if (!notes)
            return false;
        storage->notes = notes;
        storage->note_room = room;
    }
    storage->notes[storage->note_count++] = noted;
    return true;
}

static struct flue_storage_noted *find_note(struct flue_storage *storage, unsigned slot,
                                            uint64_t number)
{
    for (size_t i = 0; i < storage->note_count; i++)
        if (storage->notes[i].slot == slot && storage->notes[i].number == number)
            return &storage->notes[i];
    return NULL;
}

/* Under `lock`: the reader removes the file. */
static void drop_file(struct flue_storage *storage, uint64_t file)
{
    if (storage->note_drop_count == storage->note_drop_room) {
        size_t room = storage->note_drop_room ? storage->note_drop_room * 2 : 16;
        uint64_t *drops = realloc(storage->note_drops, room * sizeof *drops);
        if (!drops) /* it comes back after a restart, which is harmless */
            return;
        storage->note_drops = drops;
        storage->note_drop_room = room;
    }
    storage->note_drops[storage->note_drop_count++] = file;
    pthread_cond_signal(&storage->work);
}

/* The writer's. */
void flue_notes_write(struct flue_storage *storage, struct flue_storage_note *note)
{
    char path[FLUE_STORAGE_PATH], fresh[FLUE_STORAGE_PATH];
    const char *what = "";
    if (note->text.size > FLUE_STORAGE_NOTE) {
        flue_fail(&note->error, FLUE_TOO_LARGE, "a note of %zu bytes, limit %u", note->text.size,
                  FLUE_STORAGE_NOTE);
        return;
    }
    pthread_mutex_lock(&storage->lock);
    uint64_t file = storage->next_note++;
    bool room = storage->note_count < FLUE_STORAGE_NOTES;
    pthread_mutex_unlock(&storage->lock);
    if (!room) {
        flue_fail(&note->error, FLUE_UNAVAILABLE,
                  "%u notes in %s, the limit: what they announce is not being finished",
                  FLUE_STORAGE_NOTES, storage->directory);
        return;
    }
    struct flue_bytes name = flue_bytes_of(note->queue->name);
    struct flue_storage_note_header header = {
        .version = FLUE_STORAGE_VERSION,
        .number = note->number,
        .name_size = (uint32_t)name.size,
        .text_size = (uint32_t)note->text.size,
    };
    memcpy(header.magic, FLUE_NOTE_MAGIC, sizeof header.magic);
    header.crc = note_crc(&header, name, note->text);
    note_path(storage, file, SUFFIX, path);
    note_path(storage, file, SUFFIX ".tmp", fresh);
    int failure = write_note(storage, fresh, path, &header, name, note->text, &what);
    if (failure) {
        flue_metric_add(storage->write_failures, 1);
        flue_storage_io_fail(&note->error, failure, what, path);
        return;
    }
    struct flue_storage_noted noted = {note->number, file, note->queue->slot};
    pthread_mutex_lock(&storage->lock);
    struct flue_storage_noted *before = find_note(storage, noted.slot, noted.number);
    if (before) {
        drop_file(storage, before->file);
        before->file = file;
    } else if (!add_note(storage, noted)) {
        drop_file(storage, file);
        flue_fail(&note->error, FLUE_UNAVAILABLE, "no memory for a note");
    }
    pthread_mutex_unlock(&storage->lock);
}

void flue_storage_note_drop(struct flue_storage_queue *queue, uint64_t number)
{
    struct flue_storage *storage = queue->storage;
    pthread_mutex_lock(&storage->lock);
    struct flue_storage_noted *noted = find_note(storage, queue->slot, number);
    if (noted) {
        drop_file(storage, noted->file);
        *noted = storage->notes[--storage->note_count];
    }
    pthread_mutex_unlock(&storage->lock);
}

void flue_notes_remove(struct flue_storage *storage)
{
    for (;;) {
        char path[FLUE_STORAGE_PATH];
        pthread_mutex_lock(&storage->lock);
        uint64_t file =
            storage->note_drop_count ? storage->note_drops[--storage->note_drop_count] : UINT64_MAX;
        pthread_mutex_unlock(&storage->lock);
        if (file == UINT64_MAX)
            break;
        note_path(storage, file, SUFFIX, path);
        storage->io->unlink(storage->io, path);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

/* The whole file into `buffer` (LARGEST + 1 bytes). False: damaged. */
static bool read_note(const struct flue_storage *storage, const char *path, uint8_t *buffer,
                      struct flue_storage_note_header *header, struct flue_bytes *name,
                      struct flue_bytes *text)
{
    int fd = storage->io->open(storage->io, path, O_RDONLY, 0);
    if (fd < 0)
        return false;
    ssize_t got = flue_storage_read_all(storage->io, fd, buffer, LARGEST + 1, 0);
    storage->io->close(storage->io, fd);
    if (got < (ssize_t)sizeof *header)
        return false;
    memcpy(header, buffer, sizeof *header);
    if (memcmp(header->magic, FLUE_NOTE_MAGIC, sizeof header->magic) != 0 ||
        header->version != FLUE_STORAGE_VERSION || header->name_size == 0 ||
        header->name_size > FLUE_STORAGE_NAME || header->text_size > FLUE_STORAGE_NOTE ||
        (size_t)got != sizeof *header + header->name_size + header->text_size)
        return false;
    *name = flue_bytes(buffer + sizeof *header, header->name_size);
    *text = flue_bytes(buffer + sizeof *header + header->name_size, header->text_size);
    return header->crc == note_crc(header, *name, *text);
}

struct found {
    struct flue_storage *storage;
    uint64_t *files;
    size_t count, room;
    bool failed;
};

static bool find_file(void *arg, const char *name)
{
    struct found *found = arg;
    uint64_t file;
    if (!flue_segment_number(name, SUFFIX, &file))
        return true;
    if (found->count == found->room) {
        size_t room = found->room ? found->room * 2 : 64;
        uint64_t *files = realloc(found->files, room * sizeof *files);
        if (!files || room > FLUE_STORAGE_NOTES * 2) {
            free(files ? files : found->files);
            found->files = NULL;
            found->failed = true;
            return false;
        }
        found->files = files;
        found->room = room;
    }
    found->files[found->count++] = file;
    return true;
}

static int by_file(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* In the order of writing, so that of two notes of one number the later one stays. */
static bool recover_notes(struct flue_storage *storage, struct found *found, uint8_t *buffer)
{
    for (size_t i = 0; i < found->count; i++) {
        struct flue_storage_note_header header;
        struct flue_bytes name, text;
        char path[FLUE_STORAGE_PATH], file[32];
        note_path(storage, found->files[i], SUFFIX, path);
        if (found->files[i] >= storage->next_note)
            storage->next_note = found->files[i] + 1;
        if (!read_note(storage, path, buffer, &header, &name, &text)) {
            flue_segment_name(found->files[i], SUFFIX, file);
            flue_storage_set_aside(storage, file, "the note is damaged");
            flue_metric_add(storage->damaged, 1);
            continue;
        }
        struct flue_storage_queue *queue =
            flue_storage_queue_named(storage, (const char *)name.data, name.size);
        if (!queue)
            return false;
        struct flue_storage_noted *before = find_note(storage, queue->slot, header.number);
        if (before) {
            drop_file(storage, before->file);
            before->file = found->files[i];
        } else if (!add_note(storage, (struct flue_storage_noted){header.number, found->files[i],
                                                                  queue->slot})) {
            return false;
        }
    }
    return true;
}

enum flue_code flue_notes_recover(struct flue_storage *storage, struct flue_error *error)
{
    struct found found = {.storage = storage};
    storage->next_note = 1;
    int failure = storage->io->list(storage->io, storage->directory, find_file, &found);
    if (failure < 0) {
        free(found.files);
        return flue_storage_io_fail(error, failure, "list", storage->directory);
    }
    if (found.count)
        qsort(found.files, found.count, sizeof *found.files, by_file);
    uint8_t *buffer = found.count ? malloc(LARGEST + 1) : NULL;
    bool good =
        !found.failed && (!found.count || (buffer && recover_notes(storage, &found, buffer)));
    free(buffer);
    free(found.files);
    return good ? FLUE_OK
                : flue_fail(error, FLUE_NO_MEMORY,
                            "no memory for the notes in %s, or over %u queues or %u notes",
                            storage->directory, FLUE_STORAGE_QUEUES, FLUE_STORAGE_NOTES);
}

void flue_storage_notes(const struct flue_storage_queue *queue,
                        bool (*visit)(void *arg, uint64_t number, struct flue_bytes text),
                        void *arg)
{
    struct flue_storage *storage = queue->storage;
    uint8_t *buffer = malloc(LARGEST + 1);
    uint64_t least = 0;
    bool more = buffer != NULL;
    while (more) { /* by number */
        const struct flue_storage_noted *next = NULL;
        struct flue_storage_note_header header;
        struct flue_bytes name, text;
        char path[FLUE_STORAGE_PATH];
        for (size_t i = 0; i < storage->note_count; i++)
            if (storage->notes[i].slot == queue->slot && storage->notes[i].number >= least &&
                (!next || storage->notes[i].number < next->number))
                next = &storage->notes[i];
        if (!next)
            break;
        note_path(storage, next->file, SUFFIX, path);
        if (read_note(storage, path, buffer, &header, &name, &text))
            more = visit(arg, next->number, text);
        if (next->number == UINT64_MAX)
            break;
        least = next->number + 1;
    }
    free(buffer);
}
