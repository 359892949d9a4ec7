/* arena.c: see arena.h. */
#include "collector/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ALIGNMENT     ((size_t)16)
#define FIRST_CHUNK   ((size_t)4096)
#define LARGEST_CHUNK ((size_t)1 << 20)
#define KEPT_BY_RESET ((size_t)256 * 1024)

struct flue_arena_chunk {
    struct flue_arena_chunk *next;
    size_t size;
    _Alignas(16) uint8_t data[];
};

void flue_arena_init(struct flue_arena *arena, size_t budget, size_t chunk_size)
{
    memset(arena, 0, sizeof *arena);
    arena->budget = budget ? budget : SIZE_MAX;
    arena->first_size = arena->chunk_size = chunk_size ? chunk_size : FIRST_CHUNK;
}

static struct flue_arena_chunk *chunk_new(struct flue_arena *arena, size_t size)
{
    struct flue_arena_chunk *chunk;

    if (size > SIZE_MAX - sizeof *chunk)
        return NULL;
    chunk = malloc(sizeof *chunk + size);
    if (chunk)
        chunk->size = size;
    return chunk;
}

#ifdef FLUE_ARENA_EMULATED

static void *take(struct flue_arena *arena, size_t size, size_t rounded)
{
    struct flue_arena_chunk *chunk = chunk_new(arena, size);

    if (!chunk)
        return NULL;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    return chunk->data;
}

#else

static void *take(struct flue_arena *arena, size_t size, size_t rounded)
{
    struct flue_arena_chunk *chunk;
    size_t wanted = arena->chunk_size, left = arena->budget - arena->used;
    void *result;

    if (arena->at && (size_t)(arena->end - arena->at) >= rounded) {
        result = arena->at;
        arena->at += rounded;
        return result;
    }
    /* A large one gets a chunk of its own behind the current one, whose rest stays in use. */
    if (arena->chunks && rounded > wanted / 2) {
        chunk = chunk_new(arena, rounded);
        if (!chunk)
            return NULL;
        chunk->next = arena->chunks->next;
        arena->chunks->next = chunk;
        return chunk->data;
    }
    if (wanted > left)
        wanted = left & ~(ALIGNMENT - 1);
    if (wanted < rounded)
        wanted = rounded;
    chunk = chunk_new(arena, wanted);
    if (!chunk)
        return NULL;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->at = chunk->data + rounded;
    arena->end = chunk->data + wanted;
    if (arena->chunk_size < LARGEST_CHUNK)
        arena->chunk_size *= 2;
    return chunk->data;
}

#endif

void *flue_arena_alloc(struct flue_arena *arena, size_t size)
{
    size_t rounded;
    void *result;

    if (size > SIZE_MAX - ALIGNMENT)
        return NULL;
    rounded = size ? (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1) : ALIGNMENT;
    if (rounded > arena->budget - arena->used) {
        arena->full = true;
        return NULL;
    }
    result = take(arena, size, rounded);
    if (result)
        arena->used += rounded;
    else
        arena->starved = true;
    return result;
}

void *flue_arena_zalloc(struct flue_arena *arena, size_t count, size_t size)
{
    size_t total;
    void *result;

    if (__builtin_mul_overflow(count, size, &total))
        return NULL;
    result = flue_arena_alloc(arena, total);
    return result ? memset(result, 0, total) : NULL;
}

struct flue_bytes flue_arena_copy(struct flue_arena *arena, struct flue_bytes b)
{
    uint8_t *copy = b.size < SIZE_MAX ? flue_arena_alloc(arena, b.size + 1) : NULL;

    if (!copy)
        return flue_bytes(NULL, 0);
    if (b.size)
        memcpy(copy, b.data, b.size);
    copy[b.size] = 0;
    return flue_bytes(copy, b.size);
}

char *flue_arena_string(struct flue_arena *arena, struct flue_bytes b)
{
    return (char *)flue_arena_copy(arena, b).data;
}

char *flue_arena_printf(struct flue_arena *arena, const char *format, ...)
{
    va_list args, again;
    char *text = NULL;
    int size;

    va_start(args, format);
    va_copy(again, args);
    size = vsnprintf(NULL, 0, format, args);
    if (size >= 0)
        text = flue_arena_alloc(arena, (size_t)size + 1);
    if (text)
        vsnprintf(text, (size_t)size + 1, format, again);
    va_end(again);
    va_end(args);
    return text;
}

static void chunks_free(struct flue_arena_chunk *chunk, const struct flue_arena_chunk *but)
{
    while (chunk) {
        struct flue_arena_chunk *next = chunk->next;

        if (chunk != but)
            free(chunk);
        chunk = next;
    }
}

void flue_arena_reset(struct flue_arena *arena)
{
    struct flue_arena_chunk *kept = NULL;

    arena->full = arena->starved = false;
#ifndef FLUE_ARENA_EMULATED
    for (struct flue_arena_chunk *chunk = arena->chunks; chunk; chunk = chunk->next)
        if (chunk->size <= KEPT_BY_RESET && (!kept || chunk->size > kept->size))
            kept = chunk;
    if (kept && kept == arena->chunks && !kept->next) { /* the usual case */
        arena->at = kept->data;
        arena->used = 0;
        return;
    }
#endif
    chunks_free(arena->chunks, kept);
    arena->chunks = kept;
    arena->at = arena->end = NULL;
    if (kept) {
        kept->next = NULL;
        arena->at = kept->data;
        arena->end = kept->data + kept->size;
    }
    arena->used = 0;
    arena->chunk_size = arena->first_size;
}

void flue_arena_destroy(struct flue_arena *arena)
{
    chunks_free(arena->chunks, NULL);
    arena->chunks = NULL;
    arena->at = arena->end = NULL;
    arena->used = 0;
    arena->chunk_size = arena->first_size;
}

bool flue_arena_grow(struct flue_arena *arena, void **items, size_t *room, size_t item_size)
{
    size_t more = *room ? *room * 2 : 8, bytes, old = *room * item_size;
    void *grown;

    if (*room > SIZE_MAX / 2 || __builtin_mul_overflow(more, item_size, &bytes))
        return false;
    grown = flue_arena_alloc(arena, bytes);
    if (!grown)
        return false;
    if (old)
        memcpy(grown, *items, old);
    *items = grown;
    *room = more;
    return true;
}
