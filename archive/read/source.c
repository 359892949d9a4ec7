/* source.c: see source.h. */
#include "archive/read/source.h"
#include <stdlib.h>
#include <unistd.h>
#include "collector/base/clock.h"

#define AT_A_TIME 16
#define TRIES     3
#define LIST_MAX  1000000 /* keys of one listing */

struct asked {
    struct flue_object_request request;
    struct flue_task task;
    uv_sem_t *sem;
    bool list;
};

static void done(struct flue_object_request *request)
{
    struct asked *asked = request->user;
    uv_sem_post(asked->sem);
}

static void listed(struct flue_object_request *request);

static void begin(struct flue_task *task)
{
    struct asked *asked = (struct asked *)((char *)task - offsetof(struct asked, task));

    if (asked->list)
        flue_object_list(&asked->request);
    else
        flue_object_get(&asked->request);
}

static void ask(struct flue_source *source, struct asked *asked, uv_sem_t *sem)
{
    asked->sem = sem;
    asked->task.run = begin;
    asked->request.store = source->store;
    asked->request.done = asked->list ? listed : done;
    asked->request.user = asked;
    asked->request.deadline_ns = flue_monotonic_ns() + source->timeout_ns;
    flue_loop_post(source->loop, &asked->task);
}

static void get_some(struct flue_source *source, struct flue_source_get *gets, size_t count)
{
    struct asked asked[AT_A_TIME];
    uv_sem_t sem;

    uv_sem_init(&sem, 0);
    memset(asked, 0, sizeof asked);
    for (size_t i = 0; i < count; i++) {
        asked[i].request.key = gets[i].key;
        asked[i].request.offset = gets[i].offset;
        asked[i].request.size = gets[i].size;
        source->gets++;
        ask(source, &asked[i], &sem);
    }
    for (size_t i = 0; i < count; i++)
        uv_sem_wait(&sem);
    for (size_t i = 0; i < count; i++) {
        gets[i].error = asked[i].request.error;
        gets[i].data = gets[i].error.code ? NULL : asked[i].request.data;
        gets[i].object_size = asked[i].request.object_size;
        if (gets[i].data)
            source->bytes += gets[i].data->size;
    }
    uv_sem_destroy(&sem);
}

void flue_source_get(struct flue_source *source, struct flue_source_get *gets, size_t count)
{
    for (size_t at = 0; at < count; at += AT_A_TIME) {
        size_t some = count - at < AT_A_TIME ? count - at : AT_A_TIME;
        get_some(source, gets + at, some);
        for (size_t i = at; i < at + some; i++)
            for (unsigned tried = 1; tried < TRIES && gets[i].error.code &&
                                     flue_code_facts(gets[i].error.code)->retryable;
                 tried++) {
                usleep(tried * 300000);
                get_some(source, &gets[i], 1);
            }
    }
}

/* The answer is borrowed until the loop's callback returns: it is read there. */
struct listing {
    struct asked asked;
    struct flue_arena arena;
    struct flue_object_listed *items;
    size_t count, room;
    bool failed;
};

static void listed(struct flue_object_request *request)
{
    struct asked *asked = request->user;
    struct listing *listing = (struct listing *)asked;

    for (size_t i = 0; !request->error.code && i < request->listed_count; i++) {
        struct flue_object_listed item = request->listed[i];
        item.key = flue_arena_copy(&listing->arena, item.key);
        if (!item.key.data ||
            !FLUE_ARENA_PUSH(&listing->arena, listing->items, listing->count, listing->room, item))
            listing->failed = true;
    }
    uv_sem_post(asked->sem);
}

static enum flue_code list_once(struct flue_source *source, struct listing *listing,
                                struct flue_error *error)
{
    uv_sem_t sem;

    for (unsigned tried = 0; tried < TRIES; tried++) {
        listing->count = 0;
        source->lists++;
        uv_sem_init(&sem, 0);
        ask(source, &listing->asked, &sem);
        uv_sem_wait(&sem);
        uv_sem_destroy(&sem);
        *error = listing->asked.request.error;
        if (listing->failed)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory to list an archive");
        if (!error->code || !flue_code_facts(error->code)->retryable)
            break;
        usleep((tried + 1) * 300000);
    }
    return error->code == FLUE_NOT_FOUND ? FLUE_OK : error->code;
}

enum flue_code flue_source_list(struct flue_source *source, struct flue_bytes prefix,
                                struct flue_bytes start_after, char delimiter,
                                bool (*visit)(void *arg, const struct flue_object_listed *listed),
                                void *arg, struct flue_error *error)
{
    char after[FLUE_OBJECT_KEY_LIMIT + 1];
    struct flue_error own;
    size_t seen = 0;

    if (!error)
        error = &own;
    if (start_after.size > FLUE_OBJECT_KEY_LIMIT)
        start_after.size = FLUE_OBJECT_KEY_LIMIT;
    if (start_after.size)
        memcpy(after, start_after.data, start_after.size);
    size_t after_size = start_after.size;
    for (bool more = true; more;) {
        struct listing listing = {0};
        flue_arena_init(&listing.arena, 64u << 20, 0);
        listing.asked.list = true;
        listing.asked.request.key = prefix;
        listing.asked.request.delimiter = delimiter;
        listing.asked.request.start_after = flue_bytes(after, after_size);
        enum flue_code code = list_once(source, &listing, error);
        more = !code && listing.asked.request.truncated && listing.count;
        for (size_t i = 0; !code && i < listing.count; i++) {
            seen++;
            if (!visit(arg, &listing.items[i])) {
                more = false;
                break;
            }
        }
        if (more && seen >= LIST_MAX)
            code = flue_fail(error, FLUE_TOO_LARGE,
                             "over %d objects below one folder: ask for less time", LIST_MAX);
        if (more) {
            struct flue_bytes last = listing.items[listing.count - 1].key;
            after_size = last.size < sizeof after ? last.size : sizeof after - 1;
            memcpy(after, last.data, after_size);
            /* What a folded folder holds lies behind its name: the next answer begins after it. */
            if (listing.items[listing.count - 1].folder)
                after[after_size - 1] = (char)(delimiter + 1);
        }
        flue_arena_destroy(&listing.arena);
        if (code)
            return code;
    }
    return FLUE_OK;
}
