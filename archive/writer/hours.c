/* hours.c: see hours.h. */
#include "archive/writer/hours.h"
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "collector/base/log.h"

#define HOURS_KEPT  64
#define READ_BUDGET (512u << 20)
#define RATIO       1000
#define GET_TIMEOUT (60ull * 1000000000u)
#define GET_WAIT    (2ull * 1000000000u)

struct entry {
    char *key; /* below the folder */
    uint8_t *data;
    size_t size;
};
struct hour {
    struct flue_hours *hours;
    struct hour *next;
    struct flue_object_store *store;
    char *folder, *key;
    struct entry *entries;
    size_t count, room, bytes;
    bool loaded, loading, full;
    uint64_t used; /* turn */
    /* Waiting for the next writing, and those that the writing under way serves. */
    struct flue_hours_add *waiting, *served;
    bool writing;
    struct flue_object_request get;
    struct flue_put put;
    struct flue_block *body;
    struct flue_bytes body_bytes;
    struct flue_slices slices;
    struct flue_timer timer; /* to begin from the loop, or to read again */
};
struct flue_hours {
    struct flue_hours_config config;
    struct hour *first;
    size_t count;
    uint64_t turn;
};

struct flue_hours *flue_hours_new(const struct flue_hours_config *config)
{
    struct flue_hours *hours = calloc(1, sizeof *hours);

    if (hours)
        hours->config = *config;
    return hours;
}

static void hour_free(struct hour *hour)
{
    for (size_t i = 0; i < hour->count; i++) {
        free(hour->entries[i].key);
        free(hour->entries[i].data);
    }
    flue_timer_disarm(hour->hours->config.loop, &hour->timer);
    flue_timer_disarm(hour->hours->config.loop, &hour->put.timer);
    flue_block_unref(hour->body);
    free(hour->entries);
    free(hour->folder);
    free(hour->key);
    free(hour);
}

void flue_hours_destroy(struct flue_hours *hours)
{
    if (!hours)
        return;
    while (hours->first) {
        struct hour *hour = hours->first;
        hours->first = hour->next;
        hour_free(hour);
    }
    free(hours);
}

/* ---- entries --------------------------------------------------------------------------------- */

/* `fresh`: none of this key is there. */
static bool put_entry(struct hour *hour, struct flue_bytes key, struct flue_bytes encoded,
                      bool fresh)
{
    struct entry *entry = NULL;
    uint8_t *data = malloc(encoded.size ? encoded.size : 1);

    if (!data)
        return false;
    memcpy(data, encoded.data, encoded.size);
    for (size_t i = fresh ? 0 : hour->count;
         i-- > 0 && !entry;) /* one that is replaced is a late one */
        if (flue_bytes_is(key, hour->entries[i].key))
            entry = &hour->entries[i];
    if (!entry) {
        if (hour->count == hour->room) {
            size_t room = hour->room ? hour->room * 2 : 16;
            struct entry *entries = realloc(hour->entries, room * sizeof *entries);
            if (!entries) {
                free(data);
                return false;
            }
            hour->entries = entries;
            hour->room = room;
        }
        entry = &hour->entries[hour->count];
        *entry = (struct entry){.key = strndup((const char *)key.data, key.size)};
        if (!entry->key) {
            free(data);
            return false;
        }
        hour->count++;
    }
    hour->bytes += encoded.size - entry->size;
    free(entry->data);
    entry->data = data;
    entry->size = encoded.size;
    return true;
}

static bool add_entry(struct hour *hour, struct flue_hours_add *add)
{
    struct flue_index_object object = *add->object;
    struct flue_buffer encoded;
    bool ok;

    object.key = flue_bytes_from(add->key, strlen(hour->folder));
    flue_buffer_init(&encoded, FLUE_INDEX_LIMIT);
    flue_index_write_object(&object, &encoded);
    if (!encoded.failed && hour->bytes + encoded.size > FLUE_HOUR_LIMIT) {
        if (!hour->full)
            flue_log(FLUE_WARN, "archive",
                     "the index of an hour is full: its further objects are found by listing alone",
                     FLUE_S("exporter", hour->hours->config.who), FLUE_S("index", hour->key),
                     FLUE_LOG_END);
        hour->full = true;
        flue_buffer_destroy(&encoded);
        return true;
    }
    ok = !encoded.failed && put_entry(hour, object.key, flue_buffer_bytes(&encoded), false);
    flue_buffer_destroy(&encoded);
    return ok;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void begin(struct hour *hour);

static void answer(struct flue_hours_add *list, const struct flue_error *error)
{
    while (list) {
        struct flue_hours_add *add = list;
        list = add->next;
        add->error = *error;
        add->done(add);
    }
}

static void written(struct flue_put *put)
{
    struct hour *hour = put->user;
    struct flue_hours_add *served = hour->served;
    struct flue_error error = put->error;

    flue_block_unref(hour->body);
    hour->body = NULL;
    hour->served = NULL;
    hour->writing = false;
    answer(served, &error);
    begin(hour);
}

static enum flue_code encode(struct hour *hour, struct flue_error *error)
{
    struct flue_bytes *objects = calloc(hour->count + 1, sizeof *objects);
    struct flue_buffer raw;
    enum flue_code code = FLUE_NO_MEMORY;

    flue_buffer_init(&raw, 2 * (size_t)FLUE_INDEX_LIMIT);
    if (objects) {
        for (size_t i = 0; i < hour->count; i++)
            objects[i] = flue_bytes(hour->entries[i].data, hour->entries[i].size);
        flue_index_write(flue_bytes_of(hour->hours->config.writer), objects, hour->count, &raw);
        struct flue_bytes bytes = flue_buffer_bytes(&raw);
        struct flue_slices one = {.items = &bytes, .count = 1, .room = 1, .total = bytes.size};
        if (!raw.failed)
            code = flue_deflate(FLUE_ZSTD, FLUE_LEVEL_DEFAULT, &one, &hour->body, error);
    }
    free(objects);
    flue_buffer_destroy(&raw);
    return code ? flue_fail(error, code, "no memory for the index of an hour") : FLUE_OK;
}

static void write_index(struct hour *hour)
{
    struct flue_hours_add *add, **last = &hour->served;
    struct flue_error error = {0};
    const struct flue_hours_add *patient = hour->waiting;

    for (add = hour->waiting; add; add = add->next) {
        if (!add_entry(hour, add))
            (void)flue_fail(&error, FLUE_NO_MEMORY, "no memory for the index of an hour");
        if (add->attempts == 0)
            patient = add;
    }
    *last = hour->waiting;
    hour->waiting = NULL;
    hour->writing = true;
    if (error.code || encode(hour, &error)) {
        struct flue_hours_add *served = hour->served;
        hour->served = NULL;
        hour->writing = false;
        answer(served, &error);
        return;
    }
    hour->body_bytes = flue_block_bytes(hour->body);
    hour->slices = (struct flue_slices){
        .items = &hour->body_bytes, .count = 1, .room = 1, .total = hour->body_bytes.size};
    hour->put = (struct flue_put){.store = hour->store,
                                  .loop = hour->hours->config.loop,
                                  .key = flue_bytes_of(hour->key),
                                  .body = &hour->slices,
                                  .content_type = "application/zstd",
                                  .attempts = patient->attempts,
                                  .max_wait_ns = patient->max_wait_ns,
                                  .deadline_ns = patient->deadline_ns,
                                  .who = hour->hours->config.who,
                                  .done = written,
                                  .user = hour};
    flue_put_start(&hour->put);
}

/* ---- reading what is there ------------------------------------------------------------------- */

static enum flue_code take_over(struct hour *hour, struct flue_bytes packed,
                                struct flue_error *error)
{
    struct flue_block *raw = NULL;
    struct flue_index index;
    struct flue_arena arena;
    enum flue_code code =
        flue_inflate(FLUE_ZSTD, packed, FLUE_INDEX_LIMIT, RATIO, NULL, &raw, error);

    flue_arena_init(&arena, READ_BUDGET, 0);
    if (!code)
        code = flue_index_read(flue_block_bytes(raw), &arena, &index, error);
    for (size_t i = 0; !code && i < index.count; i++)
        if (!put_entry(hour, index.objects[i].key, index.objects[i].encoded, true))
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory for the index of an hour");
    flue_arena_destroy(&arena);
    flue_block_unref(raw);
    return code;
}

static void read_done(struct flue_object_request *request)
{
    struct hour *hour = request->user;
    struct flue_error error = request->error;
    enum flue_code code = error.code;

    hour->loading = false;
    if (code == FLUE_OK) {
        code = take_over(hour, flue_block_bytes(request->data), &error);
        flue_block_unref(request->data);
        request->data = NULL;
        if (code == FLUE_INVALID) {
            /* Whoever wrote it, nobody can read it: the data objects tell all of it again. */
            flue_log(FLUE_WARN, "archive", "an index could not be read and is begun anew",
                     FLUE_S("exporter", hour->hours->config.who), FLUE_S("index", hour->key),
                     FLUE_S("error", error.text), FLUE_LOG_END);
            code = FLUE_OK;
        }
    }
    if (code == FLUE_OK || code == FLUE_NOT_FOUND) {
        hour->loaded = true;
        begin(hour);
        return;
    }
    /* Those that wait for ever make it be tried again; the others are told. */
    struct flue_hours_add *patient = NULL, *told = NULL;
    while (hour->waiting) {
        struct flue_hours_add *add = hour->waiting;
        hour->waiting = add->next;
        bool again = add->attempts == 0;
        add->next = again ? patient : told;
        *(again ? &patient : &told) = add;
    }
    hour->waiting = patient;
    answer(told, &error);
    if (hour->waiting)
        flue_timer_arm(hour->hours->config.loop, &hour->timer, flue_monotonic_ns() + GET_WAIT);
}

static void begin(struct hour *hour)
{
    if (hour->writing || hour->loading || !hour->waiting)
        return;
    if (hour->loaded) {
        write_index(hour);
        return;
    }
    hour->loading = true;
    hour->get = (struct flue_object_request){.store = hour->store,
                                             .key = flue_bytes_of(hour->key),
                                             .deadline_ns = flue_monotonic_ns() + GET_TIMEOUT,
                                             .done = read_done,
                                             .user = hour};
    flue_object_get(&hour->get);
}

static void begin_from_loop(struct flue_timer *timer)
{
    begin((struct hour *)((char *)timer - offsetof(struct hour, timer)));
}

/* ---- hours ----------------------------------------------------------------------------------- */

static void drop_unused(struct flue_hours *hours)
{
    struct hour **link, **oldest = NULL;

    for (link = &hours->first; *link; link = &(*link)->next)
        if (!(*link)->waiting && !(*link)->writing && !(*link)->loading &&
            (!oldest || (*link)->used < (*oldest)->used))
            oldest = link;
    if (!oldest)
        return;
    struct hour *hour = *oldest;
    *oldest = hour->next;
    hours->count--;
    hour_free(hour);
}

static struct hour *find(struct flue_hours *hours, const struct flue_hours_add *add)
{
    struct hour *hour;

    for (hour = hours->first; hour; hour = hour->next)
        if (hour->store == add->store && flue_bytes_is(add->folder, hour->folder))
            return hour;
    if (hours->count >= HOURS_KEPT)
        drop_unused(hours);
    if (!(hour = calloc(1, sizeof *hour)))
        return NULL;
    size_t size = add->folder.size + strlen(hours->config.writer) + 16;
    hour->hours = hours;
    hour->store = add->store;
    hour->folder = strndup((const char *)add->folder.data, add->folder.size);
    hour->key = malloc(size);
    if (!hour->folder || !hour->key) {
        hour_free(hour);
        return NULL;
    }
    snprintf(hour->key, size, "%sindex/%s.idx", hour->folder, hours->config.writer);
    hour->timer.fire = begin_from_loop;
    hour->next = hours->first;
    hours->first = hour;
    hours->count++;
    return hour;
}

void flue_hours_add(struct flue_hours *hours, struct flue_hours_add *add)
{
    struct hour *hour = find(hours, add);
    struct flue_hours_add **last;

    memset(&add->error, 0, sizeof add->error);
    add->next = NULL;
    if (!hour) {
        /* The data is safe without an index, which the next object of the hour brings up to date
         * for itself alone; a sender need not wait for memory. */
        (void)flue_fail(&add->error, FLUE_NO_MEMORY, "no memory for the index of an hour");
        add->done(add);
        return;
    }
    hour->used = ++hours->turn;
    for (last = &hour->waiting; *last; last = &(*last)->next)
        ;
    *last = add;
    if (!hour->writing && !hour->loading && !hour->timer.due_ns)
        flue_timer_arm(hours->config.loop, &hour->timer, flue_monotonic_ns());
}

static void take_out(struct flue_hours_add **link, const struct flue_hours_add *add)
{
    for (; *link; link = &(*link)->next)
        if (*link == add) {
            *link = add->next;
            return;
        }
}

void flue_hours_forget(struct flue_hours *hours, struct flue_hours_add *add)
{
    for (struct hour *hour = hours->first; hour; hour = hour->next) {
        take_out(&hour->waiting, add);
        take_out(&hour->served, add);
    }
}
