/* check.c: chooses the walk once, grows the index, and makes the final comparison. */
#include "proto/otlp/check.h"

#include <stdlib.h>
#include "proto/wire/writer.h"

static bool grow(struct flue_otlp_check *check, void **items, uint32_t count, uint32_t *room,
                 size_t item_size)
{
    uint32_t more = *room ? *room * 2 : 8;
    size_t bytes = (size_t)more * item_size;
    void *grown;

    if (check->index->bytes - (size_t)*room * item_size + bytes > check->max_index) {
        check->alarms |= FLUE_OTLP_INDEX_SIZE;
        return false;
    }
    grown = realloc(*items, bytes);
    if (!grown) {
        check->alarms |= FLUE_OTLP_MEMORY;
        return false;
    }
    memset((uint8_t *)grown + (size_t)count * item_size, 0, bytes - (size_t)count * item_size);
    check->index->bytes += bytes - (size_t)*room * item_size;
    *items = grown;
    *room = more;
    return true;
}

struct flue_otlp_resource_index *flue_otlp_add_resource(struct flue_otlp_check *check)
{
    struct flue_otlp_index *index = check->index;
    if (index->resource_count == check->resource_room &&
        !grow(check, (void **)&index->resources, index->resource_count, &check->resource_room,
              sizeof *index->resources))
        return NULL;
    return &index->resources[index->resource_count++];
}

struct flue_otlp_scope_index *flue_otlp_add_scope(struct flue_otlp_check *check)
{
    struct flue_otlp_index *index = check->index;
    if (index->scope_count == check->scope_room &&
        !grow(check, (void **)&index->scopes, index->scope_count, &check->scope_room,
              sizeof *index->scopes))
        return NULL;
    return &index->scopes[index->scope_count++];
}

struct flue_otlp_profile_index *flue_otlp_add_profile(struct flue_otlp_check *check)
{
    struct flue_otlp_index *index = check->index;
    if (index->profile_count == check->profile_room &&
        !grow(check, (void **)&index->profiles, index->profile_count, &check->profile_room,
              sizeof *index->profiles))
        return NULL;
    return &index->profiles[index->profile_count++];
}

const uint8_t *flue_otlp_odd_field(struct flue_otlp_check *check, const uint8_t *at,
                                   const uint8_t *end, uint32_t known)
{
    struct flue_reader reader = {at, end};
    struct flue_field_value field;

    if (!flue_read_field(&reader, &field))
        return NULL;
    if (field.number < 32 && known >> field.number & 1) {
        if (*at < 0x80)
            return NULL; /* a known field in another wire type */
        check->alarms |= FLUE_OTLP_ODD;
    }
    return reader.at;
}

bool flue_otlp_exact_run(const uint8_t *at, const uint8_t *end, uint64_t *count)
{
    struct flue_reader reader = {at, end};
    uint64_t value;

    while (!flue_reader_done(&reader)) {
        if (!flue_read_varint(&reader, &value))
            return false;
        ++*count;
    }
    return true;
}

void flue_otlp_index_clear(struct flue_otlp_index *index)
{
    free(index->resources);
    free(index->scopes);
    free(index->profiles);
    memset(index, 0, sizeof *index);
}

typedef void walk_function(struct flue_otlp_check *check, struct flue_bytes body);

static uint32_t run(struct flue_bytes body, size_t max_index, struct flue_otlp_index *index,
                    walk_function *walk)
{
    struct flue_otlp_check check = {.base = body.data, .index = index, .max_index = max_index};

    memset(index, 0, sizeof *index);
    walk(&check, body);
    for (unsigned t = 1; t < FLUE_OTLP_TABLES; t++) {
        uint64_t limit = 0;
        uint64_t rows = check.rows[t];
        (void)flue_write_varint((uint8_t *)&limit, rows ? rows - 1 : 0);
        if (check.max[t] > limit)
            check.alarms |= FLUE_OTLP_RANGE;
        index->rows[t] = (uint32_t)rows;
    }
    return check.alarms;
}

uint32_t flue_otlp_check_portable(struct flue_bytes body, size_t max_index,
                                  struct flue_otlp_index *index)
{
    return run(body, max_index, index, flue_otlp_walk_portable);
}

uint32_t flue_otlp_check(struct flue_bytes body, size_t max_index, struct flue_otlp_index *index)
{
    walk_function *walk = flue_otlp_walk_portable;
#if defined(__x86_64__)
    /* Reads a variable of the runtime that is set before main: as cheap as one of our own. */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        walk = flue_otlp_walk_avx2;
#endif
    return run(body, max_index, index, walk);
}
