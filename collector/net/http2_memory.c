/* http2_memory.c: see http2_memory.h. */
#include "collector/net/http2_memory.h"

#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STEP    ((size_t)64) /* sizes, head included, go in steps of it */
#define CLASSES 16           /* larger ones come from malloc */
#define KEPT    ((size_t)128 * 1024)

struct piece {
    size_t steps; /* of its size; CLASSES + 1: of `large` bytes */
    size_t large;
    struct piece *next[]; /* while on a list; else what nghttp2 has begins here */
};

struct thread_lists {
    struct piece *first[CLASSES + 1]; /* by steps */
    size_t bytes;
    bool known; /* to the key, whose destructor gives the lists back */
};

static _Thread_local struct thread_lists lists;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;

_Static_assert(sizeof(struct piece) == 16, "what nghttp2 gets is aligned as by malloc");

static size_t room_of(const struct piece *piece)
{
    return piece->steps > CLASSES ? piece->large : piece->steps * STEP - sizeof *piece;
}

static void lists_free(void *arg)
{
    struct thread_lists *own = arg;
    for (size_t i = 0; i <= CLASSES; i++)
        while (own->first[i]) {
            struct piece *piece = own->first[i];
            ASAN_UNPOISON_MEMORY_REGION(piece->next + 1, room_of(piece) - sizeof *piece->next);
            own->first[i] = piece->next[0];
            free(piece);
        }
    own->bytes = 0;
    own->known = false; /* a later destructor of this thread may free sessions */
}

static void key_make(void)
{
    key_made = pthread_key_create(&key, lists_free) == 0;
}

/* Without the destructor a thread's lists would leak when it ends: then it has none. */
static bool usable(struct thread_lists *own)
{
    if (!own->known) {
        pthread_once(&key_once, key_make);
        own->known = key_made && pthread_setspecific(key, own) == 0;
    }
    return own->known;
}

static void *allocate(size_t size, void *arg)
{
    struct thread_lists *own = &lists;
    struct piece *piece;
    size_t steps;
    if (size > SIZE_MAX - sizeof *piece - STEP)
        return NULL;
    steps = (size + sizeof *piece + STEP - 1) / STEP;
    if (steps > CLASSES) {
        piece = malloc(sizeof *piece + size);
        if (!piece)
            return NULL;
        piece->steps = CLASSES + 1;
        piece->large = size;
        return piece->next;
    }
    piece = own->first[steps];
    if (piece) {
        ASAN_UNPOISON_MEMORY_REGION(piece->next + 1, room_of(piece) - sizeof *piece->next);
        own->first[steps] = piece->next[0];
        own->bytes -= steps * STEP;
        return piece->next;
    }
    piece = malloc(steps * STEP);
    if (!piece)
        return NULL;
    piece->steps = steps;
    return piece->next;
}

static struct piece *piece_of(void *memory)
{
    return (struct piece *)(void *)((char *)memory - sizeof(struct piece));
}

static void release(void *memory, void *arg)
{
    struct thread_lists *own = &lists;
    struct piece *piece;
    if (!memory)
        return;
    piece = piece_of(memory);
    if (piece->steps > CLASSES || own->bytes + piece->steps * STEP > KEPT || !usable(own)) {
        free(piece);
        return;
    }
    piece->next[0] = own->first[piece->steps];
    own->first[piece->steps] = piece;
    own->bytes += piece->steps * STEP;
    /* The link stays readable: LeakSanitizer follows it. */
    ASAN_POISON_MEMORY_REGION(piece->next + 1, room_of(piece) - sizeof *piece->next);
}

static void *allocate_zeroed(size_t count, size_t size, void *arg)
{
    size_t bytes;
    void *memory;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    memory = allocate(bytes, arg);
    return memory ? memset(memory, 0, bytes) : NULL;
}

static void *resize(void *memory, size_t size, void *arg)
{
    size_t room;
    void *larger;
    if (!memory)
        return allocate(size, arg);
    room = room_of(piece_of(memory));
    if (size <= room)
        return memory;
    larger = allocate(size, arg);
    if (!larger)
        return NULL;
    memcpy(larger, memory, room);
    release(memory, arg);
    return larger;
}

nghttp2_mem *flue_http2_memory(void)
{
    static nghttp2_mem memory = {NULL, allocate, release, allocate_zeroed, resize};
    return &memory;
}
